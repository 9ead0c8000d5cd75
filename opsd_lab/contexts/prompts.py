"""From people's texts to a prompt's tokens, with the template's control tokens and no others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from opsd_lab.contexts.chat import ChatFormat, messages_of, render
from opsd_lab.contexts.control import MARK, MARKUP, NONCHARACTER, SOME_TEXT, ControlTokens

SYSTEM = "system turn"


class UnwritableText(ValueError):
    """A text that this tokenizer and chat template cannot write apart from control tokens."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens and as text; in `marked`, `control.MARK` stands in what looks like a control token and is none."""

    ids: tuple[int, ...]
    marked: str
    control: ControlTokens = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """The prompt as the template writes it."""
        return self.marked.replace(MARK, "")


class PromptWriter:
    """Writes one side's prompts with one tokenizer and one format."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> None:
        self.tokenizer, self.chat = tokenizer, chat
        conversation = _longest_conversation(tokenizer, chat)
        self.control = ControlTokens(tokenizer, conversation)
        self._plain_marks = sorted(set(MARKUP.findall(conversation)) - set(self.control.ids))

    def text(self, parts: Mapping[str, str]) -> str:
        """Return the prompt as the template writes it; `parts` are the texts of the user turn by what they are.

        Raises:
            ValueError: when the template fails.
        """
        return self._render("\n\n".join(part for part in parts.values() if part), self.chat.system)

    def prompt(self, parts: Mapping[str, str]) -> Prompt:
        """Return the prompt; `parts` are the texts of the user turn by what they are.

        Raises:
            UnwritableText: when a text could not be kept apart from the template's control tokens; the message says which text, with
                what to do.
            ValueError: when the template fails.
        """
        texts = {name: part for name, part in {**parts, SYSTEM: self.chat.system or ""}.items() if part}
        self._check(texts)
        marked = written = self.text(parts)
        found = [(name, content) for name, text in texts.items() for _, content in self.control.find(text)]
        held = [f"its {name} contains the control token {content!r}" for name, content in found]
        if held:
            system = self.chat.system and self.control.mark(self.chat.system)
            marked = self._render("\n\n".join(self.control.mark(part) for part in parts.values() if part), system)
        if marked.replace(MARK, "") != written:
            raise UnwritableText(f"{held[0]}, on which the chat template itself acts, so that the text would be changed; reword it")
        try:
            return Prompt(tuple(self.control.encode(marked, self._expected)), marked, self.control)
        except ValueError as error:
            raise UnwritableText(f"{held[0] if held else 'its ' + ', '.join(texts)}: {error}; reword it") from error

    @cached_property
    def _expected(self) -> list[int]:
        """The control tokens of every prompt, taken from one about a harmless text."""
        system = self.chat.system
        harmless = "0" if system and next(self.control.find(system), None) else system
        return self.control.among(self.control.as_it_is(self._render("0", harmless)))

    def _render(self, user: str, system: str | None) -> str:
        return render(self.tokenizer, messages_of(user, system), self.chat) + self.chat.response_prefix

    def _check(self, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            check_text(text, f"its {name}")
            if found := next((mark for mark in self._plain_marks if mark in text), None):
                raise UnwritableText(
                    f"its {name} contains {found!r}, which this chat template writes around turns as plain text, so that no model "
                    "could tell the two apart; reword it"
                )


def check_text(text: str, whose: str) -> None:
    """Make sure that a text holds no noncharacter.

    Raises:
        UnwritableText: when it does.
    """
    if found := NONCHARACTER.search(text):
        raise UnwritableText(f"{whose} contains U+{ord(found[0]):04X}, which Unicode keeps out of texts; remove it")


def _longest_conversation(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> str:
    """Return the longest conversation that the template takes, with `SOME_TEXT` for its texts; "" if it takes none."""
    user, answer = ({"role": role, "content": SOME_TEXT} for role in ("user", "assistant"))
    longest = [*messages_of(SOME_TEXT, SOME_TEXT), answer, user]
    for messages in (longest, longest[1:], messages_of(SOME_TEXT, chat.system)):
        try:
            return render(tokenizer, messages, chat)
        except ValueError:
            continue
    return ""

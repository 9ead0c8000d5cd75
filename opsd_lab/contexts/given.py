"""Texts that nobody sampled, as the tokens that they are behind a prompt, ended as the chat template ends a turn."""

from collections.abc import Collection

from opsd_lab.contexts.chat import ChatFormat, Message, messages_of, render
from opsd_lab.contexts.control import SOME_TEXT, ControlTokens
from opsd_lab.contexts.prompts import Prompt, check_text
from opsd_lab.tokens.text import token_texts


def given_tokens(
    prompt: Prompt, text: str, whose: str, *, end: str = "", control: Collection[str] = ()
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the tokens that a text and its `end` are behind a prompt: ids and their texts, which join to it again.

    Special tokens in the text stay text, but for those in `control`, which the text writes as such. The prompt's tokens stay as
    they are, as behind a sampler's prompt.

    Raises:
        ValueError: when the text has no tokens, changes the prompt's or is changed by the tokenizer, or holds a control token that
            a model may write in its turn and that `control` does not name; the message begins with `whose` text it is.
    """
    if not text:
        raise ValueError(f"{whose}: the text '' has no tokens")
    known, shown = prompt.control, f"{whose}: the text {text[:40]!r}"
    check_text(text, shown)
    meant = [content for _, content in known.find(text) if content in control]
    if unsaid := next((c for _, c in known.find(text) if c not in control and c not in known.special), None):
        raise ValueError(f"{shown} contains the control token {unsaid!r}; name it in control if it is meant, or reword the text")
    written = known.mark(text, control) + end
    wanted = [*(known.ids[content] for content in meant), *known.among(known.as_it_is(end))]
    # A tokenizer may cut white space at a prompt's end otherwise once something follows; the sampler's prompt has no say in that.
    for before in (prompt.marked, prompt.marked.rstrip()):
        try:
            ahead = prompt.ids if before == prompt.marked else tuple(known.encode(before, known.among(prompt.ids)))
            whole = tuple(known.encode(before + written, [*known.among(prompt.ids), *wanted]))
        except ValueError as error:
            raise ValueError(f"{shown}: {error}; reword it") from error
        if whole[: len(ahead)] == ahead:
            break
    else:
        raise ValueError(
            f"{shown} changes the last tokens of the prompt, which no sampler would; begin it otherwise, or end the response_prefix "
            "where a token ends"
        )
    ids = whole[len(ahead) :]
    tokens = token_texts(known.tokenizer, ids)
    if "".join(tokens) != text + end:
        raise ValueError(f"{shown} is changed by this tokenizer, so that places in it could not be found again")
    return ids, tokens


def turn_ends(control: ControlTokens) -> list[str]:
    """Return what may end an assistant's turn, the likeliest first: texts that close with a control token.

    What the template puts behind a finished turn is the end. Where it puts no control token there, the one that opens the next
    turn may be, then the tokenizer's end of sequence.
    """
    finished = [*messages_of("0", None), {"role": "assistant", "content": SOME_TEXT}]
    if end := _behind(control, finished):
        return [end]
    following = _behind(control, [*finished, {"role": "user", "content": "0"}])
    opens_all = following.strip() == control.tokenizer.bos_token  # then it opens conversations, not turns
    return list(dict.fromkeys(end for end in ("" if opens_all else following, control.tokenizer.eos_token) if end))


def _behind(control: ControlTokens, messages: list[Message]) -> str:
    """Return what the template writes behind the assistant's text up to the first control token, white space apart, or ""."""
    try:
        written = render(control.tokenizer, messages, ChatFormat(), answer=False)
    except ValueError:
        return ""
    _, found, behind = written.rpartition(SOME_TEXT)
    start, content = next(control.find(behind), (0, ""))
    return behind[: start + len(content)] if found and not behind[:start].strip() else ""

"""Control tokens are the template's to write: the same characters in people's text stay text.

Control is every added token that the tokenizer calls special, and every other one that the chat template writes (`<think>` in
some), unless it is white space. A template's marks that are no tokens of their own, such as Llama 2's `[INST]`, cannot be told
from people's text by any tokenisation; texts that hold them are refused. Marks in plain words, such as Vicuna's `USER:`, are not
known to be marks: a text that holds them is taken, and the model reads them as it reads the template's.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

# Noncharacters, which Unicode keeps out of texts: a mark in people's control text, the two ends of a control token's stand-in,
# and a stand-in for a text.
MARK, OPEN, CLOSE, SOME_TEXT = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
UNHEARD_OF = "\U0010fffd"  # for private use, so in nobody's vocabulary
NONCHARACTER = re.compile("[\ufdd0-\ufdef]")
MARKUP = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z][A-Z_]*\]|\[\|[^\[\]\s|]{1,40}\|\]|#{3,} \w+:")


class ControlTokens:
    """The control tokens of a tokenizer with its chat template, and tokenisation that keeps them out of texts.

    `conversation` is one that the template wrote, with `SOME_TEXT` for texts. A marked text has `MARK` behind the first character
    of whatever looks like a control token and is none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, conversation: str) -> None:
        self.tokenizer = tokenizer
        self.conversation = conversation.replace(SOME_TEXT, "0")
        written = tokenizer.get_chat_template() + conversation
        self.backend: Tokenizer = tokenizer.backend_tokenizer
        added = self.backend.get_added_tokens_decoder()
        control = {
            i: token for i, token in added.items() if token.special or (not token.content.isspace() and token.content in written)
        }
        self.ids = {token.content: i for i, token in control.items()}
        self.special = {token.content for token in control.values() if token.special}
        self._added = added
        self._control = frozenset(control) - self._unknown()
        self._first = re.compile(f"[{re.escape(''.join({content[0] for content in self.ids}))}]") if self.ids else None
        self._lengths = sorted({len(content) for content in self.ids}, reverse=True)

    def _unknown(self) -> set[int]:
        """Return the token of characters that the vocabulary lacks, which may be special, but is no control text."""
        try:
            return {*self.backend.encode(UNHEARD_OF, add_special_tokens=False).ids, self.tokenizer.unk_token_id}
        except Exception:  # a vocabulary of words without one for unknown words
            return set()

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield where a control token begins in a text, and which (the longest), overlapping ones included."""
        for match in self._first.finditer(text) if self._first else ():
            start = match.start()
            if content := next((part for n in self._lengths if (part := text[start : start + n]) in self.ids), None):
                yield start, content

    def mark(self, text: str, allowed: Sequence[str] = ()) -> str:
        """Return the marked text; those `allowed` stay control."""
        cuts = [start + 1 for start, content in self.find(text) if content not in allowed]
        return MARK.join(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))

    def among(self, ids: Sequence[int]) -> list[int]:
        """Return the control tokens among some ids, in order."""
        return [i for i in ids if i in self._control]

    def as_it_is(self, text: str) -> list[int]:
        """Return the tokenizer's own ids of a rendered text."""
        # The template writes the special tokens itself, so the tokenizer must not add its own.
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]

    def encode(self, marked: str, expected: Sequence[int]) -> list[int]:
        """Return the ids of a marked text, whose control tokens are to be those `expected`.

        Without marks they are the tokenizer's own, unless those have other control tokens.

        Raises:
            ValueError: when this tokenizer cannot be made to write just those, or cannot spell the text at all.
        """
        try:
            if MARK not in marked:
                ids = self.as_it_is(marked)
                if self.among(ids) == list(expected):
                    return ids
            ids = self.apart(marked)
        except Exception as error:  # tokenizers raise no narrower one, such as for a vocabulary of words that lacks one
            raise ValueError(f"this tokenizer cannot spell it: {error}") from error
        if self.among(ids) != list(expected) or not self._comes_apart:
            raise ValueError("this tokenizer cannot keep it apart from the chat template's control tokens")
        return ids

    def apart(self, marked: str) -> list[int]:
        """Return the ids of a marked text from a tokenizer that knows the template's control tokens by names that no text holds.

        It has the same parts as the tokenizer, and the names' tokens take white space as the control tokens do.
        """
        pieces, end = [], 0
        for start, content in self.find(marked):
            if start >= end:
                pieces += [marked[end:start], self._names[content]]
                end = start + len(content)
        text = "".join([*pieces, marked[end:]]).replace(MARK, "")
        found = self._renamed.encode(text, add_special_tokens=False)
        return [self._back.get(i, i) for i in found.ids]

    @cached_property
    def _comes_apart(self) -> bool:
        pieces = self.backend.model  # in a vocabulary with gaps a new token may get the id of a piece
        apart = all(new == old or pieces.id_to_token(new) is None for new, old in self._back.items())
        return apart and self.apart(self.conversation) == self.as_it_is(self.conversation)

    @cached_property
    def _names(self) -> dict[str, str]:
        return {content: f"{OPEN}{i}{CLOSE}" for content, i in self.ids.items()}

    @cached_property
    def _back(self) -> dict[int, int]:
        return {self._renamed.token_to_id(self._names.get(token.content, token.content)): i for i, token in self._added.items()}

    @cached_property
    def _renamed(self) -> Tokenizer:
        renamed = Tokenizer(self.backend.model)
        if self.backend.normalizer is not None:
            renamed.normalizer = self.backend.normalizer
        if self.backend.pre_tokenizer is not None:
            renamed.pre_tokenizer = self.backend.pre_tokenizer
        renamed.add_tokens(
            [
                AddedToken(
                    self._names.get(token.content, token.content),
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                    special=token.special,
                )
                for token in self._added.values()
            ]
        )
        return renamed

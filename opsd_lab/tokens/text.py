"""The text of each token, such that the texts joined are the text of the whole."""

from collections.abc import Sequence
from itertools import groupby

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, ...]:
    """Return what each token adds to the decoded text behind other text, special tokens included.

    So the space of SentencePiece's first word is there, which decoding it alone drops. A character whose bytes are spread over
    several tokens belongs to the last of them; the others get "". Bytes that never become a character show as U+FFFD on the last
    of them. Added tokens, such as the end of sequence, stand alone. So do ids that the tokenizer does not know, which models with a
    larger output layer can write: "<unused 151,700>".
    """
    backend = tokenizer.backend_tokenizer
    alone = {token: added.content for token, added in backend.get_added_tokens_decoder().items()}
    alone |= {token: f"<unused {token:,}>" for token in set(ids) - alone.keys() if backend.id_to_token(token) is None}
    texts: list[str] = []
    for stands_alone, group in groupby(ids, key=alone.__contains__):
        run = list(group)
        texts += [alone[token] for token in run] if stands_alone else _run_texts(backend, run)
    return tuple(texts)


def _run_texts(backend: Tokenizer, run: list[int]) -> list[str]:
    before = [i for letter in "a0" if (i := backend.token_to_id(letter)) is not None][:1]  # some text that all of it stands behind
    stream = DecodeStream(skip_special_tokens=False)
    ahead = "".join(stream.step(backend, token) or "" for token in before)
    texts = [stream.step(backend, token) or "" for token in run]
    whole, joined = backend.decode(before + run, skip_special_tokens=False), ahead + "".join(texts)
    if whole.startswith(joined):  # what the stream still holds back: bytes without an end
        texts[-1] += whole[len(joined) :]
    return texts


def first_difference(tokenizer: PreTrainedTokenizerBase, one: Sequence[int], other: Sequence[int]) -> str:
    """Return in words where two sequences of tokens part, such as: token 7 is 'a' instead of 'b'."""
    at = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))
    here, there = (
        repr("".join(token_texts(tokenizer, ids[at : at + 8]))) + " ..." if at < len(ids) else "its end" for ids in (one, other)
    )
    return f"from token {at} on it is {here} instead of {there}"

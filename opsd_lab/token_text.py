"""The text of each token, such that the texts joined are the text of the whole."""

from collections.abc import Sequence
from itertools import groupby

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, ...]:
    """Return what each token adds to the decoded text, special tokens included.

    A character whose bytes are spread over several tokens belongs to the last of them; the others get "". Bytes that never
    become a character show as U+FFFD on the last of them. Added tokens, such as the end of sequence, stand alone. So do ids that the
    tokenizer does not know, which models with a larger output layer can write: "<unused 151,700>".
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
    stream = DecodeStream(skip_special_tokens=False)
    texts = [stream.step(backend, token) or "" for token in run]
    whole, joined = backend.decode(run, skip_special_tokens=False), "".join(texts)
    if whole.startswith(joined):  # what the stream still holds back: bytes without an end
        texts[-1] += whole[len(joined) :]
    return texts


def written_tokens(tokenizer: PreTrainedTokenizerBase, text: str, whose: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return a given text's token ids and their texts, which join to it again.

    Raises:
        ValueError: when the text has no tokens, or they do not spell it again; the message begins with `whose` text it is.
    """
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    tokens = token_texts(tokenizer, ids) if ids else ()
    if not ids or "".join(tokens) != text:
        raise ValueError(
            f"{whose}: the text {text[:40]!r} "
            + ("has no tokens" if not ids else "is changed by this tokenizer, so that places in it could not be found again")
        )
    return ids, tokens

"""The text of each token, such that the texts joined are the text of the whole."""

from collections.abc import Sequence

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, ...]:
    """Return what each token adds to the decoded text, special tokens included.

    A character whose bytes are spread over several tokens belongs to the last of them; the others get "". Bytes that never
    become a character show as U+FFFD on the last token.
    """
    stream = DecodeStream(skip_special_tokens=False)
    backend = tokenizer.backend_tokenizer
    texts = [stream.step(backend, token) or "" for token in ids]
    whole = backend.decode(list(ids), skip_special_tokens=False)
    joined = "".join(texts)
    if texts and whole.startswith(joined):
        texts[-1] += whole[len(joined) :]
    return tuple(texts)

"""The sandbox's words and its tokenizer: a word is a token, and the phrases of the privileged views are words like any other."""

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from opsd_lab.contexts import OWN_WORDS, SHOWN_ANSWER, SHOWN_BEGINNING, SHOWN_HINTS, SHOWN_SOLUTION
from opsd_lab.sandbox.worksheet import NAMES

USER, ASSISTANT, END = "<user>", "<assistant>", "<end>"
PHRASES = (
    SHOWN_SOLUTION,
    SHOWN_BEGINNING,
    *SHOWN_ANSWER,
    OWN_WORDS,
    *SHOWN_HINTS,
)
WORDS = (
    *"0123456789+-=}.,",
    "\\boxed{",
    ", ",
    ". ",
    "\n",
    "\n\n",
    " has ",
    ", gets ",
    ", loses ",
    *NAMES,
    *PHRASES,
)
TEMPLATE = """
{%- for message in messages %}
{%- if message['role'] != 'user' %}{{ raise_exception('the sandbox knows user turns only') }}{% endif %}
{{- 'USER' + message['content'] }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT' }}{% endif %}""".replace("USER", USER).replace("ASSISTANT", ASSISTANT)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; a text with anything but the sandbox's words is an error, not an unknown token."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}))
    longest_first = "|".join(re.escape(word) for word in sorted(WORDS, key=len, reverse=True))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(longest_first), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([USER, ASSISTANT, END])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False)
    tokenizer.chat_template = TEMPLATE
    return tokenizer

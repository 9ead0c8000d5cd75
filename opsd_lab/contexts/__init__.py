"""What each side sees: formats, prompts with the template's control tokens and no others, and privileged views."""

from opsd_lab.contexts.builder import ContextBuilder, Prompts
from opsd_lab.contexts.chat import CHATML, DATE, INSTRUCTION, ChatFormat
from opsd_lab.contexts.given import given_tokens, turn_ends
from opsd_lab.contexts.prompts import Prompt
from opsd_lab.contexts.views import (
    OWN_WORDS,
    SHOWN_ANSWER,
    SHOWN_BEGINNING,
    SHOWN_HINTS,
    SHOWN_SOLUTION,
    Shown,
    View,
    WrittenView,
    answer_only,
    bare_solution,
    change_numbers,
    hidden_answer,
    hints,
    no_privilege,
    other_problem,
    partial_solution,
    reference_solution,
    replace_answer,
    wrong_solution,
)

__all__ = [
    "CHATML",
    "DATE",
    "INSTRUCTION",
    "OWN_WORDS",
    "SHOWN_ANSWER",
    "SHOWN_BEGINNING",
    "SHOWN_HINTS",
    "SHOWN_SOLUTION",
    "ChatFormat",
    "ContextBuilder",
    "Prompt",
    "Prompts",
    "Shown",
    "View",
    "WrittenView",
    "answer_only",
    "bare_solution",
    "change_numbers",
    "given_tokens",
    "hidden_answer",
    "hints",
    "no_privilege",
    "other_problem",
    "partial_solution",
    "reference_solution",
    "replace_answer",
    "turn_ends",
    "wrong_solution",
]

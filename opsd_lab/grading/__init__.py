"""Final answers: finding them in a completion and checking them against the reference. Knows no models.

Completions are untrusted. They are read by a parser of our own in this process; what is computed from them beyond rational numbers is
computed by `grading.worker`, a separate process under a time and a memory limit.
"""

from opsd_lab.grading.boxes import extract_boxed
from opsd_lab.grading.found import after_thinking, extract_last_number
from opsd_lab.grading.grader import VERDICTS, WORKER, Grade, Grader, UnreadableAnswersError, Verdict
from opsd_lab.grading.numbers import MAX_ANSWER, NUMBER, as_number, as_numbers

__all__ = [
    "MAX_ANSWER",
    "NUMBER",
    "VERDICTS",
    "WORKER",
    "Grade",
    "Grader",
    "UnreadableAnswersError",
    "Verdict",
    "after_thinking",
    "as_number",
    "as_numbers",
    "extract_boxed",
    "extract_last_number",
]

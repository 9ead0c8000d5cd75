"""Privileged views: functions that return what the teacher sees beyond the question, as text.

A view takes the problem alone, or the problem, a rollout of it and the rollout's `Group`. An empty text gives the student's own view.
None says that there is no such context: the rollout does not count for what needs this view. A `Shown` has another question as well.
A number of a view may be a schedule or a controller.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from opsd_lab.basics.options import real, whole
from opsd_lab.problems.problem import Problem


@dataclass(frozen=True)
class Shown:
    """What a teacher sees: a privileged text, and a question and an instruction in place of the problem's and the format's own.

    For both "" is none, and None the own one.
    """

    text: str
    question: str | None = None
    instruction: str | None = None


View = Callable[..., str | Shown | None]

SHOWN_SOLUTION = "Here is a verified solution:"
SHOWN_BEGINNING = "Here is the beginning of a verified solution:"
SHOWN_ANSWER = ("The verified answer is ", ". Derive it step by step.")  # before and after the answer
SHOWN_HINTS = ("Hints:", "- ")  # above the hints, and before each
BLANK = "___"
LONGEST_WORD = 100  # characters; some scripts, and formulas, have no blanks
OWN_WORDS = "Do not copy it: understand it, then derive the answer again in your own words."


def needs_rollout(view: View) -> bool:
    """Return whether a view takes a rollout and its group beside the problem.

    Raises:
        TypeError: for what is no function, or one that takes another number of arguments.
    """
    if isinstance(view, WrittenView):
        return True
    try:
        asked = [p for p in inspect.signature(view).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        raise TypeError(f"the view {view!r} is no function of a problem") from None
    needed = sum(p.default is p.empty for p in asked)
    if needed not in (1, 3):
        raise TypeError(f"the view {view!r} takes {needed} arguments; it takes the problem, or the problem, a rollout and its group")
    return needed == 3


def _require(problem: Problem, text: str, what: str, remedy: str) -> str:
    if not text.strip():
        raise ValueError(f"problem {problem.id!r} has no {what}; {remedy}")
    return text


def _solution(problem: Problem) -> str:
    return _require(problem, problem.solution, "solution", "give it one, or choose another privileged view")


def _show_solution(solution: str, closing: str) -> str:
    return "\n".join(part for part in (SHOWN_SOLUTION, solution, closing) if part)


def no_privilege(problem: Problem) -> str:
    """Show nothing: the teacher sees what the student sees."""
    return ""


def reference_solution(problem: Problem, closing: str = OWN_WORDS) -> str:
    """Show the problem's verified solution, followed by the sentence `closing` (arXiv 2601.18734).

    Raises:
        ValueError: when the problem has no solution.
    """
    return _show_solution(_solution(problem), closing)


def bare_solution(problem: Problem) -> str:
    """Show the problem's verified solution, with no sentence after it.

    Raises:
        ValueError: when the problem has no solution.
    """
    return reference_solution(problem, closing="")


def answer_only(problem: Problem) -> str:
    """Show the final answer without its derivation."""
    return problem.answer.join(SHOWN_ANSWER)


@dataclass(frozen=True)
class PartialSolution:
    """Shows the first part of the solution, `fraction` of its characters up to a whole word, followed by the sentence `closing`.

    With `answer`, the final answer stands behind the part (arXiv 2605.11458).

    Raises:
        TypeError, ValueError: when the fraction is not in (0, 1], or, later, when a problem has no solution.
    """

    fraction: float
    closing: str = OWN_WORDS
    answer: bool = False

    def __post_init__(self) -> None:
        real("fraction", self.fraction, above=0, most=1)

    def __call__(self, problem: Problem) -> str:
        """Return the text."""
        solution = _solution(problem)
        end = round(self.fraction * len(solution))
        end += len(re.match(rf"\S{{0,{LONGEST_WORD}}}", solution[end:]).group())
        answer = problem.answer.join(SHOWN_ANSWER) if self.answer else ""
        return "\n".join(part for part in (SHOWN_BEGINNING, solution[:end], answer, self.closing) if part)


partial_solution = PartialSolution


def hints(problem: Problem) -> str:
    """Show the problem's hints, from weak to strong.

    Raises:
        ValueError: when the problem has none.
    """
    _require(problem, "".join(problem.hints), "hints", "give it some, or choose another privileged view")
    heading, mark = SHOWN_HINTS
    return heading + "\n" + "\n".join(mark + hint for hint in problem.hints)


WRITE_ANOTHER = "pass wrong_solution a function that writes a wrong solution"


def replace_answer(problem: Problem) -> str:
    """Return the problem's solution with another number wherever its answer stands.

    The other number differs from the answer by 1 to 9, always by the same amount for the same problem.

    Raises:
        ValueError: when the answer is no whole number or does not stand in the solution.
    """
    if not re.fullmatch(r"-?\d+", problem.answer):
        raise ValueError(f"problem {problem.id!r}: its answer {problem.answer!r} is no whole number; {WRITE_ANOTHER}")
    other = str(int(problem.answer) + 1 + _stable_index(problem.id, 9))
    return _without_answer(problem, other, WRITE_ANOTHER)


def _without_answer(problem: Problem, other: str, remedy: str) -> str:
    """Return the solution with another text wherever the answer stands; not within a longer number or word."""
    solution, answer = _solution(problem), problem.answer
    before = r"(?<!\d)(?<!\d[.,])" if re.match(r"-?\d", answer) else r"(?<!\w)" if answer[:1].isalpha() else ""
    after = r"(?![\d]|[.,]\d)" if answer[-1:].isdigit() else r"(?!\w)" if answer[-1:].isalpha() else ""
    changed, count = re.subn(f"{before}{re.escape(answer)}{after}", lambda _: other, solution)
    if not count:
        raise ValueError(f"problem {problem.id!r}: its answer {answer!r} does not stand in its solution; {remedy}")
    return changed


def hidden_answer(problem: Problem, closing: str = OWN_WORDS) -> str:
    """Show the problem's solution with a blank wherever its answer stands, followed by the sentence `closing`.

    A control: the way stands there, and what would be copied as the answer does not.

    Raises:
        ValueError: when the problem has no solution, or the answer does not stand in it.
    """
    return _show_solution(_without_answer(problem, BLANK, "choose another privileged view"), closing)


def change_numbers(problem: Problem) -> str:
    """Return the problem's solution in the same words with other numbers: each digit from 1 to 9 becomes another, always the same.

    Raises:
        ValueError: when the solution has no such digit.
    """
    shift = 1 + _stable_index(problem.id, 8)
    solution = _solution(problem)
    changed = solution.translate(str.maketrans({str(d): str((d - 1 + shift) % 9 + 1) for d in range(1, 10)}))
    if changed == solution:
        raise ValueError(f"problem {problem.id!r}: its solution has no digit to change; pass wrong_solution another function")
    return changed


@dataclass(frozen=True)
class WrongSolution:
    """Shows a wrong solution under the words that present the verified one; `write` makes it from the problem."""

    write: Callable[[Problem], str] = replace_answer
    closing: str = OWN_WORDS

    def __call__(self, problem: Problem) -> str:
        """Return the text."""
        return _show_solution(self.write(problem), self.closing)


wrong_solution = WrongSolution


@dataclass(frozen=True)
class OtherProblem:
    """Shows another problem's solution under the words that present the verified one.

    A control that keeps everything but the content: same wording, same kind of text, no information about this problem. Each
    problem has one fixed donor, never itself and, where possible, never one with the same answer. In a Recipe the training problems
    are the donors where none are given.

    Raises:
        ValueError: when there is no donor other than the problem itself.
    """

    donors: Sequence[Problem] = field(default=(), repr=False)
    closing: str = OWN_WORDS

    def __post_init__(self) -> None:
        object.__setattr__(self, "donors", tuple(self.donors))

    def begin(self, start: object) -> "OtherProblem":
        """Return the view with its own donors or, where it has none, the problems of a run's `Start`."""
        return self if self.donors else replace(self, donors=tuple(start.problems))

    def donor(self, problem: Problem) -> Problem:
        """Return the problem whose solution is shown."""
        others = [d for d in self.donors if d.id != problem.id and d.question != problem.question]
        others = [d for d in others if d.answer != problem.answer] or others
        if not others:
            raise ValueError(f"other_problem: no donor for problem {problem.id!r} among {len(self.donors)}")
        return others[_stable_index(problem.id, len(others))]

    def __call__(self, problem: Problem) -> str:
        """Return the text."""
        return _show_solution(_solution(self.donor(problem)), self.closing)


other_problem = OtherProblem


@dataclass(frozen=True)
class WrittenView:
    """A view that the teacher writes at each step: it continues what `ask` shows, and `show` makes the privileged text of that.

    `ask` is a view. `show` takes the problem and the text of at most `max_new_tokens` tokens, drawn at `temperature`, and returns as
    a view does. What is written is billed as the teacher's.
    """

    ask: View
    show: Callable[[Problem, str], str | Shown | None]
    max_new_tokens: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        whole("WrittenView: max_new_tokens", self.max_new_tokens, least=1)
        real("WrittenView: temperature", self.temperature, least=0)

    def __call__(self, problem: Problem) -> str:
        """Refuse to be asked without the teacher at hand.

        Raises:
            ValueError: always.
        """
        raise ValueError("a WrittenView is written by the teacher during training; nothing else can ask it")


def _stable_index(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % size

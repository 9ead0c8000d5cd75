"""What each side sees: user turns in, token ids out.

The student's user turn is the question and an instruction. A teacher's has the privileged information between the two, one prompt for
each view. Texts are joined, never formatted, so a literal `\\boxed{}` or `{x}` in them is safe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from opsd_lab.basics.options import name_of
from opsd_lab.contexts.chat import ChatFormat, check_switches
from opsd_lab.contexts.prompts import Prompt, PromptWriter
from opsd_lab.contexts.views import View, needs_rollout, reference_solution
from opsd_lab.problems.problem import Problem

VIEW = "teacher"  # the name of a view that stands alone


@dataclass(frozen=True)
class Prompts:
    """The prompts of one problem as token ids: chat template applied, generation prompt and response prefix included.

    `student_ids` are the student's. `teachers` are the teachers', by the name of the view; None where a view has nothing for this
    problem or rollout. `student` is the student's prompt with its text, behind which given texts are tokenised; None in prompts made
    by hand.

    Raises:
        ValueError: when a side is empty, or `student` has other tokens than `student_ids`.
    """

    student_ids: tuple[int, ...]
    teachers: Mapping[str, tuple[int, ...] | None]
    student: Prompt | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.student_ids or any(ids is not None and not ids for ids in self.teachers.values()):
            raise ValueError("Prompts: a prompt without tokens")
        if self.student is not None and self.student.ids != self.student_ids:
            raise ValueError("Prompts: student is another prompt than student_ids")

    @property
    def teacher_ids(self) -> tuple[int, ...]:
        """The one teacher's prompt.

        Raises:
            ValueError: when there are several views, or the one has nothing for this problem.
        """
        if len(self.teachers) != 1 or None in self.teachers.values():
            shown = ", ".join(f"{name}{' (nothing)' * (ids is None)}" for name, ids in self.teachers.items()) or "none"
            raise ValueError(f"Prompts: there is no one teacher's prompt; the views are {shown}")
        return next(iter(self.teachers.values()))


@dataclass(frozen=True)
class ContextBuilder:
    """Renders a problem's prompts with one tokenizer: the student's, and one for each view of the teacher's.

    `view` decides what the teacher sees beyond the question; several views are given by name. `max_tokens` is the longest prompt
    allowed on either side; a longer one is an error, never cut. Whatever people wrote stays text: control tokens are the template's
    alone.

    Raises:
        TypeError: for a view that is no function of a problem, or of a problem, a rollout and its group.
        ValueError: when the tokenizer has no chat template, or is none of the tokenizers library's, a format sets what changes
            nothing in its template, or there is no view.
    """

    tokenizer: PreTrainedTokenizerBase
    view: View | Mapping[str, View] = reference_solution
    student: ChatFormat = field(default_factory=ChatFormat)
    teacher: ChatFormat = field(default_factory=ChatFormat)
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        name = self.tokenizer.name_or_path
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {name!r} has no chat template; use an instruction-tuned model, or set "
                "tokenizer.chat_template to a Jinja template such as ChatML's"
            )
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            raise ValueError(
                f"the tokenizer of {name!r} is a {type(self.tokenizer).__name__}, which has no tokenizer of the tokenizers library "
                "(a tokenizer.json) behind it; load one that has"
            )
        if not self.views:
            raise ValueError("ContextBuilder: there is no view; no_privilege shows nothing")
        for view in self.views.values():
            needs_rollout(view)
        for side in ("student", "teacher"):
            try:
                check_switches(self.tokenizer, getattr(self, side))
            except ValueError as error:
                raise ValueError(f"the {side}'s ChatFormat: {error}") from error

    @property
    def views(self) -> Mapping[str, View]:
        """The views by name; the only one is called "teacher" where it was given without."""
        return self.view if isinstance(self.view, Mapping) else {VIEW: self.view}

    @property
    def needs_rollout(self) -> bool:
        """Whether a view looks at the rollout, so that its prompt can only be built when there is one."""
        return any(needs_rollout(view) for view in self.views.values())

    def build(self, problem: Problem) -> Prompts:
        """Return the prompts of a problem; views that look at the rollout have none yet, see `with_rollout`.

        Raises:
            ValueError: when a view fails, the template refuses what it shows, one of the texts could not be kept apart from control
                tokens, or a prompt is longer than `max_tokens`.
        """
        student = self.prompt(problem, "student")
        teachers = {name: None if needs_rollout(view) else self._teacher(problem, name) for name, view in self.views.items()}
        return Prompts(student.ids, teachers, student)

    def with_rollout(self, prompts: Prompts, problem: Problem, rollout: object, group: object) -> Prompts:
        """Return a problem's prompts with those of the views that look at one of its rollouts and at its group (`Group`).

        `prompts` are those that `build` made of the `problem`. Such views are given `rollout` and `group` besides the problem.

        Raises:
            ValueError: as `build` does.
        """
        late = {name for name, view in self.views.items() if needs_rollout(view)}
        found = {n: self._teacher(problem, n, rollout, group) if n in late else ids for n, ids in prompts.teachers.items()}
        return replace(prompts, teachers=found) if late else prompts

    def student_prompt(self, problem: Problem) -> list[int]:
        """Return the student's prompt alone, as token ids; evaluation needs no more."""
        return list(self.prompt(problem, "student").ids)

    def text(self, problem: Problem, side: str, view: str | None = None) -> str:
        """Return one side's prompt ("student" or "teacher") as text, special tokens included.

        Raises:
            ValueError: as `prompt` does.
        """
        return self._written(problem, side, self._shown(problem, view) if side == "teacher" else None).text

    def prompt(self, problem: Problem, side: str, view: str | None = None) -> Prompt:
        """Return one side's prompt ("student" or "teacher") as tokens and text; `view` names one of several views.

        Raises:
            ValueError: as `build` does, and when the view has nothing to show for this problem.
        """
        return self._written(problem, side, self._shown(problem, view) if side == "teacher" else None)

    def _teacher(self, problem: Problem, view: str, *seen: object) -> tuple[int, ...] | None:
        shown = self._asked(problem, view, *seen)
        return None if shown is None else self._written(problem, "teacher", shown).ids

    def _written(self, problem: Problem, side: str, shown: str | None) -> Prompt:
        chat = {"student": self.student, "teacher": self.teacher}[side]
        privileged = {} if shown is None else {"privileged text": shown}
        try:
            prompt = self._writers[side].prompt({"question": problem.question, **privileged, "instruction": chat.instruction})
        except ValueError as error:
            raise ValueError(f"problem {problem.id!r}, the {side}'s prompt: {error}") from error
        if self.max_tokens is not None and len(prompt.ids) > self.max_tokens:
            raise ValueError(
                f"problem {problem.id!r}: the {side}'s prompt has {len(prompt.ids)} tokens, more than max_tokens = "
                f"{self.max_tokens}; leave the problem out, shorten its texts, or raise max_tokens"
            )
        return prompt

    def _shown(self, problem: Problem, view: str | None) -> str:
        """Return what a view shows of a problem alone."""
        if view is None and len(self.views) > 1:
            raise ValueError(f"there are several views ({', '.join(self.views)}); name one")
        name = view or next(iter(self.views))
        if (shown := None if needs_rollout(self.views[name]) else self._asked(problem, name)) is None:
            raise ValueError(f"the view {name!r} has nothing to show of problem {problem.id!r} without a rollout of it")
        return shown

    def _asked(self, problem: Problem, name: str, *seen: object) -> str | None:
        view = self.views[name]
        where = f"the view {name_of(view) if name == VIEW else name}, problem {problem.id!r}"
        try:
            shown = view(problem, *seen)
        except Exception as error:  # a view is the user's own function
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(f"{where}: {kind}{error}") from error
        if not isinstance(shown, str | None):
            raise ValueError(
                f'{where}: it returned {shown!r}, no text; return "" to show nothing, None where there is no such context'
            )
        return shown

    @cached_property
    def _writers(self) -> dict[str, PromptWriter]:
        student = PromptWriter(self.tokenizer, self.student)
        teacher = student if self.teacher == self.student else PromptWriter(self.tokenizer, self.teacher)
        return {"student": student, "teacher": teacher}

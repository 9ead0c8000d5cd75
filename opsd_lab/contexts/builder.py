"""What each side sees: user turns in, token ids out.

The student's user turn is the question and an instruction. A teacher's has the privileged information between the two, one prompt for
each view. Texts are joined, never formatted, so a literal `\\boxed{}` or `{x}` in them is safe.
"""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from opsd_lab.basics.options import name_of
from opsd_lab.basics.schedules import Controller, at_step, varies
from opsd_lab.contexts.chat import ChatFormat, check_switches
from opsd_lab.contexts.prompts import Prompt, PromptWriter, UnwritableText
from opsd_lab.contexts.views import Shown, View, WrittenView, needs_rollout, reference_solution
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
                "tokenizer.chat_template to a Jinja template such as opsd_lab.contexts.CHATML"
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

    @property
    def written(self) -> dict[str, WrittenView]:
        """The views that the teacher writes, by name."""
        return {name: view for name, view in self.views.items() if isinstance(view, WrittenView)}

    def at(self, step: int, states: Mapping[Controller, Any] | None = None) -> "ContextBuilder":
        """Return the builder with a step's numbers in place of the views' schedules and controllers; itself where there are none."""
        if not self._varies:
            return self
        found = copy.copy(self)  # not `replace`, which would prepare the formats anew
        object.__setattr__(found, "view", at_step(self.view, step, states))
        return found

    @cached_property
    def _varies(self) -> bool:
        # Looked for once: a view may hold something for each of thousands of problems.
        return varies(self.view)

    def build(self, problem: Problem) -> Prompts:
        """Return the prompts of a problem; views that look at the rollout have none yet, see `with_rollout`.

        Raises:
            ValueError: when a view fails, the template refuses what it shows, one of the texts could not be kept apart from control
                tokens, or a prompt is longer than `max_tokens`.
        """
        student = self.prompt(problem, "student")
        teachers = {n: None if needs_rollout(view) else self._teacher(problem, n, view) for n, view in self.views.items()}
        return Prompts(student.ids, teachers, student)

    def with_rollout(
        self, prompts: Prompts, problem: Problem, rollout: object, group: object, written: Mapping[str, str] | None = None
    ) -> Prompts:
        """Return a problem's prompts with those of the views that look at one of its rollouts and at its group (`Group`).

        `prompts` are those that `build` made of the `problem`. Such views are given `rollout` and `group` besides the problem.
        `written` has what the teacher wrote for its views, by their names; a view that it leaves out has nothing to show. A view also
        has nothing where a model wrote what could not be kept apart from control tokens; a warning says so.

        Raises:
            ValueError: as `build` does.
        """
        late = {name: view for name, view in self.views.items() if needs_rollout(view)}
        found = dict(prompts.teachers)
        for name, view in late.items():
            if not isinstance(view, WrittenView):
                found[name] = self._teacher(problem, name, view, rollout, group)
            elif name in (written or {}):
                found[name] = self._teacher(problem, name, view.show, written[name])
        return replace(prompts, teachers=found) if late else prompts

    def teacher_prompt(self, problem: Problem, view: View, *seen: object) -> tuple[int, ...] | None:
        """Return what any view shows of a problem as the teacher's prompt; None where it has nothing to show.

        `seen` are a rollout of the problem and its group, for a view that looks at them.

        Raises:
            ValueError: as `build` does.
        """
        return self._teacher(problem, VIEW, view, *seen)

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

    def _teacher(self, problem: Problem, name: str, view: View, *seen: object) -> tuple[int, ...] | None:
        shown = self._asked(problem, name, view, *seen)
        try:
            return None if shown is None else self._written(problem, "teacher", shown).ids
        except UnwritableText as error:
            if not seen:
                raise
            self._written(problem, "teacher", Shown("", shown.question))  # people's own texts are at fault where this fails
            # What a model wrote must not end a run.
            warnings.warn(f"{error}; the view has nothing to show of this rollout", stacklevel=3)
            return None

    def _written(self, problem: Problem, side: str, shown: Shown | None) -> Prompt:
        chat = {"student": self.student, "teacher": self.teacher}[side]
        question = problem.question if shown is None or shown.question is None else shown.question
        privileged = {} if shown is None else {"privileged text": shown.text}
        instruction = chat.instruction if shown is None or shown.instruction is None else shown.instruction
        try:
            prompt = self._writers[side].prompt({"question": question, **privileged, "instruction": instruction})
        except ValueError as error:
            kind = UnwritableText if isinstance(error, UnwritableText) else ValueError
            raise kind(f"problem {problem.id!r}, the {side}'s prompt: {error}") from error
        if self.max_tokens is not None and len(prompt.ids) > self.max_tokens:
            raise ValueError(
                f"problem {problem.id!r}: the {side}'s prompt has {len(prompt.ids)} tokens, more than max_tokens = "
                f"{self.max_tokens}; leave the problem out, shorten its texts, or raise max_tokens"
            )
        return prompt

    def _shown(self, problem: Problem, view: str | None) -> Shown:
        """Return what a view shows of a problem alone."""
        if view is None and len(self.views) > 1:
            raise ValueError(f"there are several views ({', '.join(self.views)}); name one")
        name = view or next(iter(self.views))
        if (shown := None if needs_rollout(self.views[name]) else self._asked(problem, name, self.views[name])) is None:
            raise ValueError(f"the view {name!r} has nothing to show of problem {problem.id!r} without a rollout of it")
        return shown

    def _asked(self, problem: Problem, name: str, view: View, *seen: object) -> Shown | None:
        where = f"the view {name_of(view) if name == VIEW else name}, problem {problem.id!r}"
        try:
            shown = view(problem, *seen)
        except Exception as error:  # a view is the user's own function
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(f"{where}: {kind}{error}") from error
        if not isinstance(shown, str | Shown | None):
            raise ValueError(
                f'{where}: it returned {shown!r}, no text; return "" to show nothing, None where there is no such context'
            )
        return Shown(shown) if isinstance(shown, str) else shown

    @cached_property
    def _writers(self) -> dict[str, PromptWriter]:
        student = PromptWriter(self.tokenizer, self.student)
        teacher = student if self.teacher == self.student else PromptWriter(self.tokenizer, self.teacher)
        return {"student": student, "teacher": teacher}

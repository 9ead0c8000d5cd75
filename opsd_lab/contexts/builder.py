"""What each side sees: two user turns, token ids out.

The student's user turn is the question and an instruction. The teacher's has the privileged information between the two.
Texts are joined, never formatted, so a literal `\\boxed{}` or `{x}` in them is safe.
"""

from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from opsd_lab.contexts.chat import ChatFormat, check_switches
from opsd_lab.contexts.prompts import Prompt, PromptWriter
from opsd_lab.contexts.views import View, reference_solution
from opsd_lab.problems.problem import Problem


@dataclass(frozen=True)
class ContextPair:
    """The two prompts of one problem: token ids, chat template applied, generation prompt and response prefix included.

    `student` is the student's prompt with its text, behind which given texts are tokenised; None in a pair made by hand.

    Raises:
        ValueError: when a side is empty, or `student` has other tokens than `student_ids`.
    """

    student_ids: tuple[int, ...]
    teacher_ids: tuple[int, ...]
    student: Prompt | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.student_ids or not self.teacher_ids:
            raise ValueError("ContextPair: a prompt without tokens")
        if self.student is not None and self.student.ids != self.student_ids:
            raise ValueError("ContextPair: student is another prompt than student_ids")


@dataclass(frozen=True)
class ContextBuilder:
    """Renders a problem's two prompts with one tokenizer.

    `view` decides what the teacher sees beyond the question. `max_tokens` is the longest prompt allowed on either side; a longer
    one is an error, never cut. Whatever people wrote stays text: control tokens are the template's alone.

    Raises:
        ValueError: when the tokenizer has no chat template, or is none of the tokenizers library's, or a format sets what changes
            nothing in its template.
    """

    tokenizer: PreTrainedTokenizerBase
    view: View = reference_solution
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
        for side in ("student", "teacher"):
            try:
                check_switches(self.tokenizer, getattr(self, side))
            except ValueError as error:
                raise ValueError(f"the {side}'s ChatFormat: {error}") from error

    def build(self, problem: Problem) -> ContextPair:
        """Return both prompts of a problem.

        Raises:
            ValueError: when the view fails or has nothing to show for it, the template refuses it, one of its texts could not be
                kept apart from control tokens, or a prompt is longer than `max_tokens`.
        """
        student = self.prompt(problem, "student")
        return ContextPair(student.ids, self.prompt(problem, "teacher").ids, student)

    def student_prompt(self, problem: Problem) -> list[int]:
        """Return the student's prompt alone, as token ids; evaluation needs no more."""
        return list(self.prompt(problem, "student").ids)

    def text(self, problem: Problem, side: str) -> str:
        """Return one side's prompt ("student" or "teacher") as text, special tokens included."""
        parts = self._parts(problem, side)
        try:
            return self._writers[side].text(parts)
        except ValueError as error:
            raise ValueError(f"problem {problem.id!r}, the {side}'s prompt: {error}") from error

    def prompt(self, problem: Problem, side: str) -> Prompt:
        """Return one side's prompt ("student" or "teacher") as tokens and text.

        Raises:
            ValueError: as `build` does.
        """
        parts = self._parts(problem, side)
        try:
            prompt = self._writers[side].prompt(parts)
        except ValueError as error:
            raise ValueError(f"problem {problem.id!r}, the {side}'s prompt: {error}") from error
        if self.max_tokens is not None and len(prompt.ids) > self.max_tokens:
            raise ValueError(
                f"problem {problem.id!r}: the {side}'s prompt has {len(prompt.ids)} tokens, more than max_tokens = "
                f"{self.max_tokens}; leave the problem out, shorten its texts, or raise max_tokens"
            )
        return prompt

    def _parts(self, problem: Problem, side: str) -> dict[str, str]:
        chat = {"student": self.student, "teacher": self.teacher}[side]
        shown = {"privileged text": self._shown(problem)} if side == "teacher" else {}
        return {"question": problem.question, **shown, "instruction": chat.instruction}

    def _shown(self, problem: Problem) -> str:
        where = f"the view {getattr(self.view, '__name__', None) or repr(self.view)}, problem {problem.id!r}"
        try:
            shown = self.view(problem)
        except Exception as error:  # a view is the user's own function
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(f"{where}: {kind}{error}") from error
        if not isinstance(shown, str):
            raise ValueError(f'{where}: it returned {shown!r}, no text; return "" to show nothing')
        return shown

    @cached_property
    def _writers(self) -> dict[str, PromptWriter]:
        student = PromptWriter(self.tokenizer, self.student)
        teacher = student if self.teacher == self.student else PromptWriter(self.tokenizer, self.teacher)
        return {"student": student, "teacher": teacher}

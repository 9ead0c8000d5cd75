"""What a sampler takes and what it returns: token ids in, token ids with log-probabilities out."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from opsd_lab.basics.options import real, whole
from opsd_lab.policies.architecture import ContextLimit
from opsd_lab.problems.problem import has_surrogate

if TYPE_CHECKING:
    from opsd_lab.policies.policy import Policy

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class SamplingParams:
    """How completions are drawn.

    A completion has at most `max_new_tokens` tokens. `temperature` 0 is greedy decoding. `top_p` 1 and `top_k` 0 leave the
    distribution whole. `n` completions are drawn for each prompt. The same `seed` gives the same completions for the same prompts,
    whatever they are batched with.

    Raises:
        TypeError: for a value of another kind than the field's; the message names the field.
        ValueError: for a value outside its range; the message names the field.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    n: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("top_k", 0), ("n", 1), ("seed", 0)):
            object.__setattr__(self, name, whole(f"SamplingParams.{name}", getattr(self, name), least=least))
        object.__setattr__(self, "temperature", real("SamplingParams.temperature", self.temperature, least=0))
        object.__setattr__(self, "top_p", real("SamplingParams.top_p", self.top_p, above=0, most=1))

    def prompt_limit(self, context_length: int) -> int:
        """Return how many tokens a prompt may have in a context of that many.

        Raises:
            ValueError: when `max_new_tokens` alone fill it.
        """
        if self.max_new_tokens >= context_length:
            raise ValueError(
                f"max_new_tokens = {self.max_new_tokens} leaves no room for a prompt: this model's context holds {context_length} "
                "tokens, prompt and completion together. Lower max_new_tokens, or take a model with a longer context"
            )
        return context_length - self.max_new_tokens


@dataclass(frozen=True)
class Rollout:
    """One completion that a policy wrote, as the very token ids that it wrote.

    `problem_id` names the problem, "" where nobody has named it. `completion_ids` continue `prompt_ids`; an end-of-sequence token
    that the model wrote is the last of them. `logprobs` holds the sampler's own log-probability of each completion token (nats),
    under the model's unmodified distribution: temperature 1, no top-p, no top-k. It is NaN for a token that nobody sampled, and
    rollouts that hold NaN in the same places are equal. `finish_reason` is "stop" if the model ended the completion and "length" if
    the limit cut it. `text` is for people and for grading; nothing is ever tokenised again from it. `tokens` holds the text of each
    completion token, where the sampler knows it.

    Raises:
        ValueError: when the completion is empty, the lengths disagree, or a text holds half of a surrogate pair.
    """

    problem_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    text: str
    tokens: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        name = f"rollout of problem {self.problem_id!r}"
        if not self.prompt_ids:
            raise ValueError(f"{name}: the prompt has no tokens")
        if not self.completion_ids:
            raise ValueError(f"{name}: the completion has no tokens; the end of sequence is a token too")
        if len(self.logprobs) != len(self.completion_ids):
            raise ValueError(f"{name}: {len(self.completion_ids)} tokens but {len(self.logprobs)} log-probabilities")
        if self.tokens and len(self.tokens) != len(self.completion_ids):
            raise ValueError(f"{name}: {len(self.completion_ids)} token ids but {len(self.tokens)} token texts")
        if self.finish_reason not in ("stop", "length"):
            raise ValueError(f"{name}: finish_reason is {self.finish_reason!r}, not 'stop' or 'length'")
        for what, text in {"problem_id": self.problem_id, "text": self.text, "tokens": "\n".join(self.tokens)}.items():
            if has_surrogate(text):
                raise ValueError(f"{name}: {what} holds half of a surrogate pair; decode the whole completion at once")
        # Tuples compare their entries by identity first, so one NaN for all makes equal rollouts equal.
        object.__setattr__(self, "logprobs", tuple(math.nan if x != x else x for x in self.logprobs))

    @property
    def truncated(self) -> bool:
        """Whether the length limit cut the completion."""
        return self.finish_reason == "length"


class Sampler(Protocol):
    """Anything that continues prompts; `policy` is whose weights it has, as `update` set it."""

    policy: "Policy"

    def sample(self, prompts: list[list[int]], params: SamplingParams) -> list[Rollout]:
        """Return `params.n` rollouts for each prompt, prompt by prompt, with `problem_id` left empty; see `sample_rollouts`."""
        ...

    def update(self, policy: "Policy") -> None:
        """Make later samples come from the policy's present weights."""
        ...


def check_prompts(prompts: Sequence[Sequence[int]], params: SamplingParams, limit: ContextLimit) -> None:
    """Make sure that every prompt leaves room for `max_new_tokens`.

    Raises:
        ValueError: for an empty prompt, or one that is too long; it names the prompt. For a `max_new_tokens` that fills the context.
    """
    longest = params.prompt_limit(limit.tokens)
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {index} has 0 tokens; a model continues 1 token or more")
        if len(prompt) > longest:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens and max_new_tokens = {params.max_new_tokens}, together more than {limit}; "
                "shorten the prompt or lower max_new_tokens"
            )


@dataclass(frozen=True)
class Request:
    """One completion to draw: its prompt, and the seed of its own random stream, below 2**63."""

    prompt: tuple[int, ...]
    seed: int


def requests(prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Request]:
    """Return the `params.n` requests of each prompt, prompt by prompt.

    A seed follows from `params.seed`, the prompt, and how often the prompt came before in this call, so that a rollout does not
    depend on what it is batched with.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    made = []
    for prompt in (tuple(prompt) for prompt in prompts for _ in range(params.n)):
        key = repr((params.seed, prompt, seen[prompt]))
        seen[prompt] += 1
        made.append(Request(prompt, int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1))
    return made

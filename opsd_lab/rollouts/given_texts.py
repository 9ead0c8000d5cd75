"""Completions that a person or another model wrote as text."""

from collections.abc import Callable
from dataclasses import dataclass

from opsd_lab.contexts import given_tokens, turn_ends
from opsd_lab.contexts.control import ControlTokens
from opsd_lab.policies.policy import Policy
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, Sampler
from opsd_lab.rollouts.sources import Order, Written


@dataclass(frozen=True)
class Texts:
    """Given texts: `text` says what a problem's completion is, tokenised behind its prompt and ended as the template ends turns.

    Special tokens that a text mentions stay text. `control` names the control tokens that texts do write, such as `<think>` and
    `</think>`.
    """

    text: Callable[[Problem], str]
    control: tuple[str, ...] = ()

    samples = False  # nobody drew the tokens, so that they have no probability to be drawn by

    def write(self, order: Order) -> Written:
        """Return the texts as rollouts, one per problem whatever `order.params.n`; their log-probabilities are NaN.

        Raises:
            ValueError: when a text cannot be tokenised behind its prompt (see `given_tokens`) or is longer than
                `order.params.max_new_tokens`, prompts were made by hand, or the turn's end does not end the sampler's completions,
                where its policy is known.
        """
        end, found, longest = "", [], order.params.max_new_tokens
        for problem, prompts in zip(order.problems, order.prompts, strict=True):
            whose = f"problem {problem.id!r}"
            if prompts.student is None:
                raise ValueError(f"{whose}: Texts needs prompts from ContextBuilder.build, which know the prompt's text")
            text, end = self.text(problem), end or self._end(prompts.student.control, order.sampler)
            ids, tokens = given_tokens(prompts.student, text, whose, end=end, control=self.control)
            if len(ids) > longest:
                raise ValueError(
                    f"{whose}: its text has {len(ids)} tokens, more than max_new_tokens = {longest}; raise it, or leave the "
                    "problem out"
                )
            found.append(Rollout(problem.id, prompts.student_ids, ids, (float("nan"),) * len(ids), "stop", text, tokens))
        return Written(tuple(found))

    def _end(self, control: ControlTokens, sampler: Sampler) -> str:
        if not (ends := turn_ends(control)):
            raise ValueError(
                "Texts: neither the chat template nor the tokenizer has an end to put behind a text; set tokenizer.eos_token"
            )
        policy = getattr(sampler, "policy", None)
        stops = policy.eos_ids if isinstance(policy, Policy) else None
        fitting = [end for end in ends if stops is None or control.as_it_is(end)[-1] in stops]
        if not fitting:
            raise ValueError(
                f"Texts: the chat template ends a turn with {ends[0]!r}, which does not end the completions of {policy.name} "
                f"({', '.join(map(repr, control.tokenizer.convert_ids_to_tokens(stops)))} do); add its id to "
                "model.generation_config.eos_token_id"
            )
        if fitting[0].strip() in self.control:
            raise ValueError(f"Texts.control names {fitting[0].strip()!r}, which would end a text before its end; leave it out")
        return fitting[0]

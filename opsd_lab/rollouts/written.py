"""What every sampler does with the tokens that came back."""

from collections.abc import Sequence

from opsd_lab.policies.policy import Policy
from opsd_lab.rollouts.base import Rollout
from opsd_lab.tokens.text import token_texts


def written_rollout(policy: Policy, prompt: Sequence[int], ids: Sequence[int], logprobs: Sequence[float]) -> Rollout:
    """Return the rollout of tokens that came back, with `problem_id` left empty; it ended if its last token ends sequences.

    `policy` says how tokens read and which of them end sequences. `ids` are the tokens that continue `prompt`, one at least, and
    `logprobs` the log-probability of each (nats).
    """
    texts = token_texts(policy.tokenizer, ids)
    ended = ids[-1] in policy.eos_ids
    text = "".join(texts[:-1] if ended else texts)
    return Rollout("", tuple(prompt), tuple(ids), tuple(logprobs), "stop" if ended else "length", text, texts)

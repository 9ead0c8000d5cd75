"""The floating-point operations that a run's tokens take, from lengths alone: the same whatever engine or batching computes them.

Counted are the matrix products, 2 operations per multiply-add, as torch's `FlopCounterMode` counts them. Attention is counted as its
definition has it, two products forwards and four backwards over all pairs of tokens, whether or not a kernel skips the causal half.
A recurrent state counts as its definition has it too, token by token, not as a kernel computes it in chunks. A prompt counts for each
of its rollouts, also where it is computed once. Padding, and folding a LoRA into the weights before sampling, are left out.
"""

import math
import warnings
from dataclasses import dataclass

from opsd_lab.policies.architecture import trunk_of
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.training.layer_costs import UncountableError, layer_costs, pair_cost


@dataclass(frozen=True)
class CostModel:
    """What one token costs, in operations.

    `merged`: the linear layers of the trunk, with a LoRA folded in. `linear`: the same with the LoRA's own products. `trained`: those
    whose weights train. `skipped`: gradients by the input of the first block that nobody needs, since the embedding does not train.
    `pair`: attention between one query and one key, all layers. `head`: one token's logits; `head_trains` says whether the output
    layer gets a gradient, which also means that its logits are computed twice.
    """

    merged: float
    linear: float
    trained: float
    skipped: float
    pair: float
    head: float
    head_trains: bool

    @classmethod
    def of(cls, policy: Policy) -> "CostModel":
        """Read the shapes of a policy; an adapter that is switched off costs nothing.

        Of a mixture of experts those count that a token is sent to, though some implementations compute all. Where the operations of
        some layer cannot be told, every number is NaN, and a warning names the layer's class: half a cost would make comparisons at
        matched cost wrong.
        """
        config, trunk = policy.causal_lm.config.get_text_config(), trunk_of(policy.causal_lm)
        head = LogitHead.of(policy)
        try:
            layers = list(layer_costs(trunk, config))
            pair = pair_cost(trunk, config)
        except UncountableError as layer:
            warnings.warn(
                f"{policy.name}: the operations of {layer} cannot be counted, so the ledger has NaN for them; compare runs by "
                "tokens or seconds",
                RuntimeWarning,
                stacklevel=2,
            )
            return cls(*[math.nan] * 6, not head.is_frozen)
        own = sum(layer.own for layer in layers)
        embedding_trains = any(p.requires_grad for p in policy.causal_lm.get_input_embeddings().parameters())
        return cls(
            merged=own,
            linear=own + sum(layer.adapters for layer in layers),
            trained=sum(layer.trained for layer in layers),
            skipped=0 if embedding_trains else sum(layer.reading for layer in layers),
            pair=pair,
            head=2 * config.hidden_size * head.size,
            head_trains=not head.is_frozen,
        )

    def generation(self, prompt: int, completion: int) -> float:
        """Return the cost of one rollout: the prompt at once, then a token at a time with a cache, the LoRA folded in."""
        pairs = prompt**2 + sum(range(prompt + 1, prompt + completion))
        return self.merged * (prompt + completion - 1) + self.pair * pairs + self.head * completion

    def scoring(self, prompt: int, completion: int) -> float:
        """Return the cost of one forward pass over a prompt with its completion, and the completion's logits."""
        length = prompt + completion
        return self.linear * length + self.pair * length**2 + self.head * completion

    def training(self, prompt: int, completion: int) -> float:
        """Return the cost of a forward and backward pass."""
        length = prompt + completion
        backward = (self.linear - self.skipped + self.trained) * length + 2 * self.pair * length**2
        return self.scoring(prompt, completion) + backward + self.head * completion * (3 if self.head_trains else 1)

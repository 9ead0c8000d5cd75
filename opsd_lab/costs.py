"""The floating-point operations that a run's tokens take, from lengths alone: the same whatever engine or batching computes them.

Counted are the matrix products, 2 operations per multiply-add, as torch's `FlopCounterMode` counts them. Attention is counted as its
definition has it, two products forwards and four backwards over all pairs of tokens, whether or not a kernel skips the causal half.
Padding, and folding a LoRA into the weights before sampling, are left out.
"""

from dataclasses import dataclass

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from opsd_lab.architecture import trunk_of
from opsd_lab.policies import Policy
from opsd_lab.scoring import LogitHead


@dataclass(frozen=True)
class CostModel:
    """What one token costs, in operations.

    `merged`: the linear layers of the trunk, with a LoRA folded in. `linear`: the same with the LoRA's own products. `trained`: those
    whose weights train. `skipped`: gradients by the input of the first block that nobody needs, since the embedding does not train.
    `pair`: attention between one query and one key, all layers. `head`: one token's logits; `head_trains` says whether the output
    layer gets a gradient, which also means that its logits are computed twice.
    """

    merged: int
    linear: int
    trained: int
    skipped: int
    pair: int
    head: int
    head_trains: bool

    @classmethod
    def of(cls, policy: Policy) -> "CostModel":
        """Read the shapes of a policy with ordinary attention layers; a LoRA that is switched off costs nothing."""
        config = policy.causal_lm.config.get_text_config()
        merged = linear = trained = skipped = 0
        trunk = trunk_of(policy.causal_lm)
        embedding_trains = policy.causal_lm.get_input_embeddings().weight.requires_grad
        inside: set[nn.Module] = set()
        for name, module in trunk.named_modules():
            first = not embedding_trains and ".0." in f".{name}." and name.rpartition(".")[2] in ("q_proj", "k_proj", "v_proj")
            if isinstance(module, BaseTunerLayer):
                base = module.get_base_layer()
                inside.update(module.modules())
                size = 2 * base.in_features * base.out_features
                active = [] if module.disable_adapters else module.modules()
                adapters = [layer for layer in active if isinstance(layer, nn.Linear) and layer is not base]
                extra = sum(2 * layer.in_features * layer.out_features for layer in adapters)
                merged, linear, trained = merged + size, linear + size + extra, trained + extra
                inner = sum(2 * layer.in_features * layer.out_features for layer in adapters if layer.in_features == base.in_features)
                skipped += first * (size + inner)
            elif isinstance(module, nn.Linear) and module not in inside:
                size = 2 * module.in_features * module.out_features
                merged, linear = merged + size, linear + size
                trained += size * module.weight.requires_grad
                skipped += first * size
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        pair = 4 * config.num_hidden_layers * config.num_attention_heads * head_dim
        head = LogitHead.of(policy)
        return cls(merged, linear, trained, skipped, pair, 2 * config.hidden_size * head.size, not head.is_frozen)

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

"""The transformers sampler: the policy's own model writes, in this process.

A loop over the model's forward pass rather than `generate`, for four reasons: a hub model's generation config (repetition
penalty, top-k) cannot leak into the distribution; each rollout has a random stream of its own, so that batching changes
nothing; finished rows leave the batch; and the log-probabilities come from the same float32 head that training uses. A float32
LoRA is folded into the weights meanwhile.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from opsd_lab.basics.interrupts import deferred_interrupts, interruption_point
from opsd_lab.policies.folding import folded_lora
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.products import few_row_products
from opsd_lab.rollouts.base import Request, Rollout, SamplingParams, check_prompts, requests
from opsd_lab.rollouts.decoding import Steps, steps_for
from opsd_lab.rollouts.written import written_rollout

BUDGET, CUDA_BUDGET = 2**14, 2**17


@dataclass
class HFSampler:
    """Samples from a policy with transformers.

    `token_budget` bounds prompts plus completions of one batch, padding included; None is 16,384, and 131,072 on a CUDA device.
    Prompts of similar length are batched together.
    """

    policy: Policy
    token_budget: int | None = None
    progress: bool = True

    def update(self, policy: Policy) -> None:
        """Sample from this policy from now on."""
        self.policy = policy

    def sample(self, prompts: list[list[int]], params: SamplingParams) -> list[Rollout]:
        """Return `params.n` rollouts for each prompt, prompt by prompt.

        Raises:
            ValueError: for an empty prompt, or one that with `max_new_tokens` exceeds the model's context; it names the prompt.
            FloatingPointError: when the policy's weights have diverged, so that its logits are no numbers.
        """
        check_prompts(prompts, params, self.policy.context_limit)
        self.policy.ensure_evaluation_mode()
        asked = requests(prompts, params)
        jobs, uniforms = [list(request.prompt) for request in asked], _uniforms(asked, params.max_new_tokens)
        order = sorted(range(len(jobs)), key=lambda i: len(jobs[i]))
        rollouts: list[Rollout | None] = [None] * len(jobs)
        kind = steps_for(self.policy)
        bar = tqdm(total=len(jobs), desc="sampling", unit="rollout", disable=not self.progress, leave=False)
        with deferred_interrupts(), bar, folded_lora(self.policy), few_row_products(self.policy.causal_lm):
            for batch in self._batches(order, jobs, params.max_new_tokens):
                for index, rollout in zip(batch, self._write([jobs[i] for i in batch], uniforms[batch], params, kind), strict=True):
                    rollouts[index] = rollout
                bar.update(len(batch))
        return rollouts

    def _batches(self, order: list[int], jobs: list[list[int]], new: int) -> list[list[int]]:
        batches: list[list[int]] = []
        budget = self.token_budget or (CUDA_BUDGET if self.policy.device.type == "cuda" else BUDGET)
        for index in order:  # ascending length: the newest job sets the batch's width
            if batches and (len(batches[-1]) + 1) * (len(jobs[index]) + new) <= budget:
                batches[-1].append(index)
            else:
                batches.append([index])
        return batches

    @torch.inference_mode()
    def _write(self, prompts: list[list[int]], uniforms: Tensor, params: SamplingParams, kind: type[Steps]) -> list[Rollout]:
        head, device = LogitHead.of(self.policy), self.policy.device
        eos = torch.tensor(self.policy.eos_ids, device=device)
        steps = kind(self.policy, prompts)
        written: list[list[tuple[int, float]]] = [[] for _ in prompts]
        alive = torch.arange(len(prompts))
        for step in range(params.max_new_tokens):
            interruption_point()
            tokens, logprobs = _draw(head(steps.states()), uniforms[alive, step].to(device), params)
            for row, token, logprob in zip(alive.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
                written[row].append((token, logprob))
            going = ~torch.isin(tokens, eos)
            if step + 1 == params.max_new_tokens or not going.any():
                break
            steps.grow(tokens, going)
            alive = alive[going.cpu()]
        return [
            written_rollout(self.policy, prompt, *zip(*pairs, strict=True)) for prompt, pairs in zip(prompts, written, strict=True)
        ]


def _uniforms(asked: list[Request], length: int) -> Tensor:
    """Return one uniform number per rollout and position, float64 [R, T]: a stream for each request."""
    generators = (torch.Generator().manual_seed(request.seed) for request in asked)
    rows = [torch.rand(length, generator=generator, dtype=torch.float64) for generator in generators]
    return torch.stack(rows) if rows else torch.empty(0, length, dtype=torch.float64)


def _draw(logits: Tensor, uniforms: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Choose one token per row by inverting the cumulative distribution; return tokens [B] and raw log-probabilities [B].

    Raises:
        FloatingPointError: when some logits are no numbers.
    """
    whole = logits.logsumexp(-1)
    if not whole.isfinite().all():
        raise FloatingPointError(
            "the policy's logits are not finite, so it has no distribution to sample from: its weights have diverged. Go back to an "
            "earlier checkpoint, and lower the learning rate"
        )
    if params.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        warped = logits / params.temperature
        if params.top_k or params.top_p < 1:
            warpers = [TopKLogitsWarper(params.top_k)] if params.top_k else []
            warpers += [TopPLogitsWarper(params.top_p)] if params.top_p < 1 else []
            warped = LogitsProcessorList(warpers)(None, warped)
        tokens = _invert(warped.softmax(-1), uniforms)
    return tokens, logits.gather(-1, tokens[:, None])[:, 0] - whole


def _invert(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Return where the cumulative sum of each row [B, V] passes the row's uniform number [B], summing in float64.

    First the block of entries is found, then the entry in it, so that only the blocks' sums run over the whole vocabulary.
    """
    width = 256
    blocks = F.pad(probabilities, (0, -probabilities.shape[-1] % width)).unflatten(-1, (-1, width))
    sums = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    # Scaled by the whole sum, which rounding leaves a little off 1, and kept below it.
    target = (uniforms[:, None] * sums[:, -1:]).minimum(sums[:, -1:] * (1 - 1e-15))
    chosen = torch.searchsorted(sums, target, right=True)
    before = F.pad(sums, (1, 0)).gather(-1, chosen)
    within = blocks[torch.arange(len(blocks), device=chosen.device), chosen[:, 0]].double().cumsum(-1)
    # Two orders of summing can differ in the last digit: what is left of the target stays below this block's own sum.
    rest = (target - before).clamp(min=0).minimum(within[:, -1:] * (1 - 1e-15))
    return (chosen * width + torch.searchsorted(within, rest, right=True))[:, 0]

"""vLLM in this process's keeping: an engine of its own writes, and takes the policy's weights after each update.

The engine runs in a child process beside the trainer, on the same device. It gets token ids and returns token ids with the
log-probabilities of the model's unmodified distribution; text is never tokenised again.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from opsd_lab.basics.interrupts import deferred_interrupts, interruptible
from opsd_lab.policies.adapters import has_adapter
from opsd_lab.policies.architecture import UNLIMITED
from opsd_lab.policies.folding import unfoldable
from opsd_lab.policies.policy import Policy, has_fresh_lora
from opsd_lab.rollouts.agreement import check_agreement
from opsd_lab.rollouts.base import Request, Rollout, SamplingParams, check_prompts, requests
from opsd_lab.rollouts.exported import Exported, WeightFolders, base_weights, lora_rank, memory_folder
from opsd_lab.rollouts.written import written_rollout

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.lora.request import LoRARequest
    from vllm.outputs import RequestOutput

Handover = Literal["auto", "adapter", "folded"]
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM allots room for
CPU_CACHE_BYTES = 2**30


@dataclass
class VLLMSampler:
    """Samples from a policy with vLLM, in a process beside this one.

    The engine loads the model that the policy was loaded from, `model` if that is given (a folder or hub id), and then follows
    `update`: a LoRA goes over as an adapter under a new id, other weights as a whole model (for which an engine without a GPU
    starts anew where the head is tied to the embeddings). `handover` "folded" sends the whole model with the LoRA folded into its
    weights instead of an adapter; "auto" does so without a GPU where that is exact (see `folded_lora`), since adapters are slow
    there. `options` are arguments of `vllm.LLM` and take precedence.
    `tolerance` bounds the mean difference between the engine's log-probabilities and the policy's own, checked on the first
    rollout after each update. Use it as a context manager, or call `close`.

    Raises:
        ImportError: when vLLM is not installed.
        ValueError: when the policy's LoRA is larger than vLLM allows, or cannot be folded though `handover` says so.
    """

    policy: Policy
    model: str | None = None
    handover: Handover = "auto"
    options: Mapping[str, object] = field(default_factory=dict)
    tolerance: float = 0.1
    progress: bool = True

    def __post_init__(self) -> None:
        try:
            import vllm  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"VLLMSampler needs vLLM, which cannot be imported here ({error}): pip install 'opsd-lab[vllm]' beside a GPU, "
                "`make vllm` without one"
            ) from error
        self._folds = self.handover == "folded" or (
            self.handover == "auto"
            and self.policy.device.type == "cpu"
            and has_adapter(self.policy.model)
            and unfoldable(self.policy) is None
        )
        self._engine: LLM | None = None
        self._adapter: LoRARequest | None = None
        self._folders = WeightFolders(memory_folder(self.policy))
        if has_adapter(self.policy.model):
            self._start(self.model)
        self._holds_base = True
        self.update(self.policy)

    def update(self, policy: Policy) -> None:
        """Sample from this policy's present weights from now on.

        Raises:
            ValueError: when its LoRA cannot be handed over.
        """
        from vllm.lora.request import LoRARequest

        if self._folds:
            self._reload_folded(policy)
            return
        exported = self._folders.write(policy)
        self.policy, self._checked = policy, False
        if has_adapter(policy.model):
            # A new name each time: the engine's cache of prompt prefixes goes by the adapter's name.
            name = f"version-{exported.version}"
            self._adapter = LoRARequest(name, exported.version, str(exported.folder)) if exported.folder else None
        elif self._engine is None or _keeps_a_copy_of_the_head(policy):
            self._start(str(exported.folder))
        else:
            self._reload(exported)

    def _reload_folded(self, policy: Policy) -> None:
        if not has_adapter(policy.model):
            raise ValueError(f"{policy.name} has no LoRA that could be folded into the weights; leave `handover` out")
        if reason := unfoldable(policy):
            raise ValueError(reason)
        self.policy, self._checked = policy, False
        if not (self._holds_base and has_fresh_lora(policy)):
            self._reload(self._folders.write_folded(policy))
        self._holds_base = has_fresh_lora(policy)

    def _reload(self, exported: Exported) -> None:
        self._running().collective_rpc("reload_weights", kwargs={"weights_path": str(exported.folder)})
        self._running().reset_prefix_cache()

    def sample(self, prompts: list[list[int]], params: SamplingParams) -> list[Rollout]:
        """Return `params.n` rollouts for each prompt, prompt by prompt; interrupted, the engine goes on with the next call.

        Raises:
            ValueError: for an empty prompt, or one that with `max_new_tokens` exceeds the model's context; it names the prompt.
            RuntimeError: when the engine breaks off a completion, or its log-probabilities are not the policy's.
        """
        check_prompts(prompts, params, self.policy.context_limit)
        asked = requests(prompts, params)
        if not asked:
            return []
        engine = self._running()
        with deferred_interrupts():  # a request that is cut off on its way would be joined to the next one
            engine.enqueue(
                [{"prompt_token_ids": list(request.prompt)} for request in asked],
                [self._params(request, params) for request in asked],
                use_tqdm=False,
                lora_request=self._adapter,
            )
            try:
                with interruptible():
                    outputs = engine.wait_for_completion(use_tqdm=self.progress)
            except BaseException:  # what is left would come back among the next call's completions
                engine.llm_engine.abort_request(list(engine.llm_engine.output_processor.request_states), internal=True)
                raise
        rollouts = [self._rollout(request, output) for request, output in zip(asked, outputs, strict=True)]
        if not self._checked:
            check_agreement(self.policy, rollouts[0], self.tolerance, "vLLM")
            self._checked = True
        return rollouts

    def close(self) -> None:
        """Stop the engine and delete the weights written for it."""
        self._stop()
        self._folders.close()

    def __enter__(self) -> "VLLMSampler":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self, model: str | None) -> None:
        from vllm import LLM

        self._stop()
        environment = dict(os.environ)
        # The trainer waits while the engine works, so it needs no core kept free for it: 190 instead of 110 tokens/s on two cores.
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        # Ctrl-C in a terminal or a notebook reaches child processes as well, and would end the engine; a blocked signal stays blocked
        # in those that start here. Python's resource tracker unblocks it when it starts, so that comes first.
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._engine = LLM(**engine_options(self.policy, model, adapters=not self._folds) | dict(self.options))
        finally:  # what vLLM sets for its engine (LD_PRELOAD among it) is not for the processes that others start
            os.environ.clear()
            os.environ.update(environment)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.llm_engine.engine_core.shutdown()
        self._engine = None

    def _running(self) -> "LLM":
        if self._engine is None:
            raise RuntimeError("VLLMSampler: the engine was closed; make a new sampler")
        return self._engine

    def _params(self, request: Request, params: SamplingParams) -> object:
        from vllm import SamplingParams as EngineParams

        return EngineParams(
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            max_tokens=params.max_new_tokens,
            seed=request.seed,
            logprobs=0,  # that of the token itself, and no others
            stop_token_ids=list(self.policy.eos_ids),
            detokenize=False,
        )

    def _rollout(self, request: Request, output: "RequestOutput") -> Rollout:
        (completion,) = output.outputs
        ids = tuple(completion.token_ids)
        if completion.finish_reason not in ("stop", "length") or not ids:
            raise RuntimeError(f"vLLM broke off a completion after {len(ids)} tokens: {completion.finish_reason}")
        logprobs = [found[token].logprob for token, found in zip(ids, completion.logprobs, strict=True)]
        return written_rollout(self.policy, request.prompt, ids, logprobs)


def engine_options(policy: Policy, model: str | None = None, *, adapters: bool = True) -> dict[str, object]:
    """Return the arguments with which `vllm.LLM` serves this policy; `adapters` leaves room for its LoRA.

    Raises:
        ValueError: when the policy's LoRA is larger than vLLM allows, or its model was loaded from nowhere and `model` is left out.
    """
    options: dict[str, object] = {
        "model": model or base_weights(policy),
        "dtype": str(policy.causal_lm.dtype).removeprefix("torch."),  # the engine computes as the trainer does
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # a model's own defaults would change the distribution
        "logprobs_mode": "raw_logprobs",
        "max_model_len": policy.context_length if policy.context_length < UNLIMITED else None,  # None: as its config has it
        "enable_prefix_caching": True,
    }
    if policy.device.type == "cpu":
        options["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    else:
        options["gpu_memory_utilization"] = 0.3  # the trainer needs the rest
    if has_adapter(policy.model) and adapters:
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _room(lora_rank(policy))}
    return options


def _keeps_a_copy_of_the_head(policy: Policy) -> bool:
    """Whether reloading would leave the head as it was: on a processor, vLLM 0.32 packs one that is tied to the embeddings."""
    return policy.device.type == "cpu" and bool(policy.causal_lm.config.get_text_config().tie_word_embeddings)


def _room(rank: int) -> int:
    for room in LORA_RANKS:
        if room >= rank:
            return room
    raise ValueError(f"a LoRA of rank {rank} is larger than vLLM allows ({LORA_RANKS[-1]})")

"""vLLM servers on this or other machines: the sampler's protocol over HTTP, with faults named, retried and survived.

Each completion is a request of its own, with its own seed, so that it comes out the same whichever server draws it. What is
finished is kept until the whole call is: if every server fails, the same call made again asks only for the rest.
"""

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tqdm.auto import tqdm

from opsd_lab.policies.adapters import has_adapter
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.rollouts.agreement import check_agreement
from opsd_lab.rollouts.base import Request, Rollout, SamplingParams, check_prompts, requests
from opsd_lab.rollouts.exported import Exported, WeightFolders
from opsd_lab.rollouts.shared_queue import LONGEST_PAUSE, SharedQueue
from opsd_lab.rollouts.vllm_endpoint import Endpoint, ServerFault
from opsd_lab.rollouts.written import written_rollout

Drawn = tuple[tuple[int, ...], tuple[float, ...]]  # token ids, log-probabilities


@dataclass
class VLLMServerSampler:
    """Samples from a policy with a LoRA through one or several `vllm serve` endpoints, such as http://gpu-3:8000.

    The servers serve the policy's base model. `model` is its name there (None: what each server lists first). Adapters are
    written into `folder`, which the servers must be able to read (None: the system's temporary folder, for servers on this
    machine). A request that fails is made again up to `attempts` times in a row, with growing pauses from `pause` (s) on; a server
    that keeps failing, refuses an adapter or returns other ids than asked for is left out with a warning that names it, and
    given another chance at the next call. `timeout` (s) bounds the wait for each completion. `tolerance` bounds the mean
    difference between a server's log-probabilities and the policy's own, checked on every server after each update.

    Start a server with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and the arguments `--enable-lora --max-lora-rank R
    --generation-config vllm`.

    Raises:
        ValueError: without endpoints, or for a policy without a LoRA.
        RuntimeError: when no server can be used; it names each and why.
    """

    policy: Policy
    endpoints: Sequence[str]
    model: str | None = None
    folder: str | Path | None = None
    timeout: float = 600.0
    attempts: int = 5
    pause: float = 0.5
    concurrency: int = 64
    api_key: str | None = None
    tolerance: float = 0.1
    progress: bool = True
    _done: dict[object, Drawn] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("VLLMServerSampler: no endpoints; give the URLs of one or more vLLM servers")
        self._folders = WeightFolders(self.folder)
        self._servers = [_Server(Endpoint(url, self.timeout, self.concurrency, self.api_key)) for url in self.endpoints]
        self.update(self.policy)
        self._usable()

    def update(self, policy: Policy) -> None:
        """Sample from this policy's present weights from now on; the servers load them at the next call.

        Raises:
            ValueError: for a policy without a LoRA, or with one that adapters cannot hold.
        """
        if not has_adapter(policy.model):
            raise ValueError(f"{policy.name} has no LoRA; servers take adapters only. Use VLLMSampler for training all weights")
        self.policy, self._weights = policy, self._folders.write(policy)
        self._done.clear()

    def sample(self, prompts: list[list[int]], params: SamplingParams) -> list[Rollout]:
        """Return `params.n` rollouts for each prompt, prompt by prompt.

        Raises:
            ValueError: for an empty prompt, or one that with `max_new_tokens` exceeds the model's context; it names the prompt.
            RuntimeError: when no server is left; it names each server's fault, and what was finished is kept for the next call.
        """
        check_prompts(prompts, params, self.policy.context_limit)
        asked = requests(prompts, params)
        keys = [(request, params.max_new_tokens, params.temperature, params.top_p, params.top_k) for request in asked]
        open_jobs = {key: request for key, request in zip(keys, asked, strict=True) if key not in self._done}
        if open_jobs:
            total, done = len(set(keys)), len(set(keys)) - len(open_jobs)
            with tqdm(total=total, initial=done, desc="sampling", unit="rollout", disable=not self.progress, leave=False) as bar:

                def keep(key: object, drawn: Drawn) -> None:
                    self._done[key] = drawn
                    bar.update()

                queue = SharedQueue(open_jobs, keep, attempts=self.attempts, pause=self.pause, concurrency=self.concurrency)
                queue.finish({server.endpoint.url: self._worker(server, params) for server in self._usable()})
        drawn = [self._done[key] for key in keys]
        written = [written_rollout(self.policy, request.prompt, *pair) for request, pair in zip(asked, drawn, strict=True)]
        self._done.clear()
        return written

    def close(self) -> None:
        """Close the connections and delete the weights written for the servers."""
        for server in self._servers:
            server.endpoint.close()
        self._folders.close()

    def __enter__(self) -> "VLLMServerSampler":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _usable(self) -> list["_Server"]:
        """Prepare every server for the present weights; return those that are ready.

        Raises:
            RuntimeError: when none is.
        """
        faults, ready = [], []
        for server in self._servers:
            try:
                self._retry(lambda server=server: server.prepare(self.model, self._weights))
                ready.append(server)
            except ServerFault as fault:
                faults.append(str(fault))
                warnings.warn(f"vLLM server left out of this call: {fault}", stacklevel=3)
        if not ready:
            raise RuntimeError("no vLLM server can be used: " + "; ".join(faults))
        return ready

    def _retry(self, action: Callable[[], None]) -> None:
        for attempt in range(self.attempts):
            try:
                return action()
            except ServerFault as fault:
                if fault.lasting or attempt == self.attempts - 1:
                    raise
                time.sleep(min(self.pause * 2**attempt, LONGEST_PAUSE))

    def _worker(self, server: "_Server", params: SamplingParams) -> Callable[[Request], Drawn]:
        """Return what draws one completion from a server; many threads call it at once."""

        vocabulary = LogitHead.of(self.policy).size

        def draw(request: Request) -> Drawn:
            with server.lock:
                server.prepare(self.model, self._weights)  # again, where it was started again since
            try:
                drawn = server.endpoint.complete(server.name, request, params, self.policy.eos_ids, vocabulary)
            except ServerFault as fault:
                if fault.unknown_model:
                    server.version = 0
                raise
            with server.lock:
                if server.checked != self._weights.version:
                    rollout = written_rollout(self.policy, request.prompt, *drawn)
                    check_agreement(self.policy, rollout, self.tolerance, server.endpoint.url)
                    server.checked = self._weights.version
            return drawn

        return draw


@dataclass
class _Server:
    """An endpoint, and which version of the weights it is known to serve."""

    endpoint: Endpoint
    name: str = ""
    version: int = 0
    checked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def prepare(self, model: str | None, weights: Exported) -> None:
        """Load the weights, unless it has them."""
        if self.version == weights.version:
            return
        served = self.endpoint.models()
        if not served or (model is not None and model not in served):
            raise ServerFault(f"{self.endpoint.url} serves {served or 'nothing'}, not {model!r}", lasting=True)
        if self.name.startswith("opsd-"):
            self.endpoint.unload_adapter(self.name)
        self.name = model or served[0]
        if weights.folder is not None:
            # The parent's random name keeps apart the versions of several trainers that share a server.
            self.name = f"opsd-{weights.folder.parent.name}-{weights.version}"
            self.endpoint.load_adapter(self.name, weights.folder)
        self.version = weights.version

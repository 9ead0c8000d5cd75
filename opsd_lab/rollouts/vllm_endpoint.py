"""One vLLM server, spoken to over HTTP: what it serves, one completion at a time, and what can go wrong with each answer."""

import contextlib
import json
import math
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import httpx

from opsd_lab.rollouts.base import Request, SamplingParams
from opsd_lab.rollouts.shared_queue import ServerFault

ENABLE_LORA = (
    "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora, with --max-lora-rank at least this LoRA's, and give "
    "VLLMServerSampler a `folder` that it can read"
)


LARGEST_ANSWER = 64 * 2**20  # bytes, unfolded; a completion of 100,000 tokens takes less than 10 MB


class Endpoint:
    """A server at `url`, for example http://gpu-3:8000. `timeout` (s) bounds the wait for the whole of each answer.

    At most so many `connections` are open at a time. `api_key` goes along as a bearer token; None or an empty one sends none.

    An answer holds at most 64 MiB, also after unfolding one that is compressed though nobody asked for it. A server that passes
    either limit has failed, with a `ServerFault` that names it.
    """

    def __init__(self, url: str, timeout: float, connections: int, api_key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout = timeout
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx.Client(base_url=self.url, headers=headers, limits=limits, timeout=httpx.Timeout(timeout, connect=10.0))

    def models(self) -> list[str]:
        """Return the names of what it serves: its model first, then adapters.

        Raises:
            ServerFault: when it does not say.
        """
        answer = self._ask("GET", "/v1/models")
        try:
            served = sorted(answer["data"], key=lambda entry: entry.get("parent") is not None)
            return [entry["id"] for entry in served]
        except (KeyError, TypeError, AttributeError):
            raise ServerFault(f"{self.url} answers /v1/models with something else; is it a vLLM server?", lasting=True) from None

    def load_adapter(self, name: str, folder: Path) -> None:
        """Make it serve the LoRA adapter in a folder under a name; one that it has already is left as it is.

        Raises:
            ServerFault: when it refuses; the message gives its reason and the remedy.
        """
        try:
            self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        except ServerFault as fault:
            if "already been loaded" not in str(fault):
                raise ServerFault(f"{fault}. It did not load the LoRA: {ENABLE_LORA}", lasting=fault.lasting) from None

    def unload_adapter(self, name: str) -> None:
        """Free what an adapter takes; if that fails, nothing is lost but memory over there."""
        with contextlib.suppress(ServerFault):
            self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def complete(
        self, model: str, request: Request, params: SamplingParams, stop_ids: Sequence[int], vocabulary: int
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return one completion's token ids and log-probabilities.

        `model` is the name under which the server has the weights. `request` is the prompt with its seed, `params` how tokens are
        drawn, `stop_ids` the tokens that end a completion, and `vocabulary` how many tokens the policy knows.

        Raises:
            ServerFault: when there is none, or it belongs to another prompt.
        """
        answer = self._ask("POST", "/v1/completions", _body(model, request, params, stop_ids))
        try:
            (choice,) = answer["choices"]
            ids, logprobs = tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"])
            echoed, reason = tuple(choice["prompt_token_ids"]), choice["finish_reason"]
        except (KeyError, TypeError, ValueError):
            raise ServerFault(f"{self.url} returned a completion without token ids or log-probabilities", lasting=True) from None
        if echoed != request.prompt:
            raise ServerFault(f"{self.url} completed other prompt ids than those sent", lasting=True)
        if reason not in ("stop", "length") or not ids:
            raise ServerFault(f"{self.url} broke off a completion after {len(ids)} tokens: {reason}")
        if len(ids) != len(logprobs) or len(ids) > params.max_new_tokens:
            raise ServerFault(f"{self.url} returned {len(ids)} token ids with {len(logprobs)} log-probabilities", lasting=True)
        if not all(type(token) is int and 0 <= token < vocabulary for token in ids):
            raise ServerFault(f"{self.url} returned token ids that are none of the vocabulary's {vocabulary}", lasting=True)
        if not all(type(value) in (int, float) and math.isfinite(value) for value in logprobs):
            raise ServerFault(f"{self.url} returned log-probabilities that are no numbers", lasting=True)
        return ids, logprobs

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None) -> dict:
        status, content = self._answer(method, path, body)
        if status >= 400:
            said = content[:2000].decode(errors="replace")[:500]
            lasting = status < 500 and status not in (404, 408, 425, 429)
            raise ServerFault(f"{self.url} answered {path} with {status}: {said}", lasting=lasting, unknown_model=status == 404)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            if path.endswith("lora_adapter"):
                return {}  # a plain sentence: it worked
            raise ServerFault(f"{self.url} answered {path} with broken JSON ({len(content)} bytes)") from None

    def _answer(self, method: str, path: str, body: dict[str, object] | None) -> tuple[int, bytes]:
        """Return the status and the whole content of an answer, within the limits of time and size."""
        found: list[tuple[int, bytes] | Exception] = []
        done = threading.Event()

        def wait() -> None:
            try:
                found.append(self._received(method, path, body))
            except Exception as error:
                found.append(error)
            done.set()

        # A thread, because httpx limits each read: a server that sends a byte now and then would be waited for without an end.
        threading.Thread(target=wait, daemon=True).start()
        late = f"{self.url} did not answer {path} within {self.timeout:g} s"
        if not done.wait(self.timeout):
            raise ServerFault(late)
        match found[0]:
            case httpx.TimeoutException():
                raise ServerFault(late)
            case httpx.HTTPError() as error:
                raise ServerFault(f"{self.url} cannot be reached, or broke off ({type(error).__name__}: {error})") from None
            case Exception() as error:
                raise error
            case answer:
                return answer

    def _received(self, method: str, path: str, body: dict[str, object] | None) -> tuple[int, bytes]:
        deadline, content = time.monotonic() + self.timeout, bytearray()
        too_large = f"{self.url} answered {path} with more than {LARGEST_ANSWER // 2**20} MiB"
        with self._client.stream(method, path, json=body) as response:
            for block in response.iter_raw():
                content += block
                if len(content) > LARGEST_ANSWER:
                    raise ServerFault(too_large)
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("late")  # nobody waits for it any more
            coding = response.headers.get("content-encoding", "identity").lower()
            status = response.status_code
        if coding == "identity":
            return status, bytes(content)
        if coding not in ("gzip", "deflate"):
            raise ServerFault(f"{self.url} answered {path} in the coding {coding[:40]!r}, though asked for none", lasting=True)
        try:
            unfolded = zlib.decompressobj(zlib.MAX_WBITS + 32).decompress(content, LARGEST_ANSWER + 1)
        except zlib.error as error:
            raise ServerFault(f"{self.url} answered {path} with broken compression ({error})") from None
        if len(unfolded) > LARGEST_ANSWER:
            raise ServerFault(too_large)
        return status, unfolded


def _body(model: str, request: Request, params: SamplingParams, stop_ids: Sequence[int]) -> dict[str, object]:
    return {
        "model": model,
        "prompt": list(request.prompt),
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": request.seed,
        "stop_token_ids": list(stop_ids),
        "logprobs": 0,
        "return_token_ids": True,
        "skip_special_tokens": False,
        "add_special_tokens": False,
    }

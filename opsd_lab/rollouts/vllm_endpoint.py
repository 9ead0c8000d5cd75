"""One vLLM server, spoken to over HTTP: what it serves, one completion at a time, and what can go wrong with each answer."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import httpx

from opsd_lab.rollouts.base import Request, SamplingParams
from opsd_lab.rollouts.shared_queue import ServerFault

ENABLE_LORA = (
    "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora, with --max-lora-rank at least this LoRA's, and give "
    "VLLMServerSampler a `folder` that it can read"
)


class Endpoint:
    """A server at `url`, for example http://gpu-3:8000. `timeout` (s) bounds the wait for each answer."""

    def __init__(self, url: str, timeout: float, connections: int, api_key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
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
        self, model: str, request: Request, params: SamplingParams, stop_ids: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return one completion's token ids and log-probabilities.

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
        if len(ids) != len(logprobs) or len(ids) > params.max_new_tokens or None in logprobs:
            raise ServerFault(f"{self.url} returned {len(ids)} token ids with {len(logprobs)} log-probabilities", lasting=True)
        return ids, logprobs

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None) -> dict:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.TimeoutException:
            raise ServerFault(f"{self.url} did not answer {path} within {self._client.timeout.read:g} s") from None
        except httpx.HTTPError as error:
            raise ServerFault(f"{self.url} cannot be reached, or broke off ({type(error).__name__}: {error})") from None
        if response.is_error:
            said = response.text[:500]
            lasting = response.status_code < 500 and response.status_code not in (404, 408, 425, 429)
            raise ServerFault(
                f"{self.url} answered {path} with {response.status_code}: {said}",
                lasting=lasting,
                unknown_model=response.status_code == 404,
            )
        try:
            return response.json()
        except ValueError:
            if path.endswith("lora_adapter"):
                return {}  # a plain sentence: it worked
            raise ServerFault(f"{self.url} answered {path} with broken JSON ({len(response.content)} bytes)") from None


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

"""What a server may not do to those who ask it: send without an end, send without a size, or unfold into either."""

import contextlib
import gzip
import json
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from opsd_lab.rollouts import vllm_endpoint
from opsd_lab.rollouts.base import Request, SamplingParams
from opsd_lab.rollouts.shared_queue import ServerFault, SharedQueue
from opsd_lab.rollouts.vllm_endpoint import Endpoint

PARAMS = SamplingParams(max_new_tokens=4)
CHOICE = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-0.5, -1.0]}, "prompt_token_ids": [1, 2], "finish_reason": "stop"}
ANSWER = json.dumps({"choices": [CHOICE]}).encode()


@contextlib.contextmanager
def answering(answer):
    """A server whose answers `answer(handler)` writes, byte by byte if it likes; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            with contextlib.suppress(OSError):
                answer(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def sends(content, **headers):
    def answer(handler):
        handler.send_response(200)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def ask(url, timeout=20.0):
    endpoint = Endpoint(url, timeout, 4)
    try:
        return endpoint.complete("m", Request((1, 2), 0), PARAMS, (0,), 9)
    finally:
        endpoint.close()


@pytest.mark.parametrize(
    ("content", "coding"),
    [(ANSWER, "identity"), (gzip.compress(ANSWER), "gzip"), (zlib.compress(ANSWER), "deflate")],
    ids=["plain", "gzip", "deflate"],
)
def test_an_answer_is_read_also_where_a_proxy_compressed_it(content, coding):
    with answering(sends(content, content_encoding=coding)) as url:
        assert ask(url) == ((5, 6), (-0.5, -1.0))


def test_nothing_but_a_plain_answer_is_asked_for():
    asked = []
    with answering(lambda handler: (asked.append(handler.headers["accept-encoding"]), sends(ANSWER)(handler))) as url:
        ask(url)
    assert asked == ["identity"]


@pytest.mark.parametrize(
    ("field", "values", "words"),
    [
        ("token_ids", ["5", 6], "token ids that are none of the vocabulary's 9"),
        ("token_ids", [5, None], "token ids that are none of the vocabulary's 9"),
        ("token_ids", [5, 9], "token ids that are none of the vocabulary's 9"),
        ("token_ids", [5, -1], "token ids that are none of the vocabulary's 9"),
        ("token_logprobs", [-0.5, "low"], "log-probabilities that are no numbers"),
        ("token_logprobs", [-0.5, None], "log-probabilities that are no numbers"),
        ("token_logprobs", [-0.5, float("nan")], "log-probabilities that are no numbers"),
    ],
)
def test_an_answer_of_other_things_than_tokens_and_numbers_is_a_fault_that_is_named(field, values, words):
    changed = {"logprobs": {field: values}} if field == "token_logprobs" else {field: values}
    content = json.dumps({"choices": [CHOICE | changed]}).encode()
    with answering(sends(content)) as url, pytest.raises(ServerFault, match=f"{url} returned {words}"):
        ask(url)


def endless(handler):
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + b" " * 2**16 + b"\r\n")


TOO_LARGE = {
    "more than it says is allowed": sends(b" " * (2**20 + 1)),
    "without an end": endless,
    "a gzip bomb": sends(gzip.compress(b" " * 2**26), content_encoding="gzip"),
    "a deflate bomb": sends(zlib.compress(b" " * 2**26), content_encoding="deflate"),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_an_answer_without_measure_is_a_fault_of_the_server_that_is_named(kind, monkeypatch):
    monkeypatch.setattr(vllm_endpoint, "LARGEST_ANSWER", 2**20)
    with answering(TOO_LARGE[kind]) as url, pytest.raises(ServerFault, match=f"{url} answered /v1/completions with more than 1 MiB"):
        ask(url)


@pytest.mark.parametrize(
    ("coding", "words"), [("br", "in the coding 'br'"), ("gzip, gzip", "in the coding"), ("gzip", "broken compression")]
)
def test_a_coding_that_cannot_be_read_is_named(coding, words):
    with answering(sends(b"x" * 100, content_encoding=coding)) as url, pytest.raises(ServerFault, match=f"{url} answered .*{words}"):
        ask(url)


def drips_headers(handler):
    for _ in range(300):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def drips_content(handler):
    handler.send_response(200)
    handler.send_header("content-length", "300")
    handler.end_headers()
    drips_headers(handler)


DRIPS = {"headers": drips_headers, "content": drips_content, "nothing": lambda handler: time.sleep(30)}


@pytest.mark.parametrize("part", DRIPS)
def test_a_server_that_drips_is_given_up_after_the_whole_time(part):
    started = time.monotonic()
    with answering(DRIPS[part]) as url, pytest.raises(ServerFault, match=f"{url} did not answer /v1/completions within 1 s"):
        ask(url, timeout=1.0)
    assert time.monotonic() - started < 10


def test_the_others_do_the_work_of_a_server_that_drips_or_swells(monkeypatch):
    monkeypatch.setattr(vllm_endpoint, "LARGEST_ANSWER", 2**20)
    found = {}
    with answering(drips_headers) as slow, answering(TOO_LARGE["a gzip bomb"]) as large, answering(sends(ANSWER)) as good:
        endpoints = [Endpoint(url, 1.0 if url == slow else 20.0, 4) for url in (slow, large, good)]
        jobs = {number: Request((1, 2), number) for number in range(12)}
        queue = SharedQueue(jobs, found.__setitem__, attempts=1, pause=0.01, concurrency=2)
        waiting = threading.Event()  # until the other two have had their turn

        def work(endpoint):
            def draw(request):
                if endpoint.url == good:
                    waiting.wait(10)
                try:
                    return endpoint.complete("m", request, PARAMS, (0,), 9)
                except ServerFault:
                    failed.add(endpoint.url)
                    if failed == {slow, large}:
                        waiting.set()
                    raise

            return draw

        failed = set()
        with pytest.warns(UserWarning) as warned:
            queue.finish({endpoint.url: work(endpoint) for endpoint in endpoints})
        for endpoint in endpoints:
            endpoint.close()
    assert found == dict.fromkeys(range(12), ((5, 6), (-0.5, -1.0)))
    said = " ".join(str(warning.message) for warning in warned)
    assert f"{slow} did not answer" in said and f"{large} answered /v1/completions with more than" in said

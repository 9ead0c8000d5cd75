"""A reverse proxy in front of a real server that does one thing wrong at a time."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

Answer = tuple[int, bytes]


class Proxy:
    """Forwards requests to `target`; `fault` may change what happens to the n-th completion request (from 0).

    A fault takes the number, the request's path and a function that asks the real server, and returns the answer to send, or
    None to break the connection off.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.fault: Callable[[int, str, Callable[[], Answer]], Answer | None] | None = None
        self.completions = 0
        self.finished: list[dict] = []  # completion requests that were answered in full
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._pass_on("GET", b"")

            def do_POST(self) -> None:
                self._pass_on("POST", self.rfile.read(int(self.headers["content-length"])))

            def _pass_on(self, method: str, body: bytes) -> None:
                def real() -> Answer:
                    answer = httpx.request(
                        method, proxy.target + self.path, content=body, headers={"content-type": "application/json"}, timeout=60
                    )
                    return answer.status_code, answer.content

                number = -1
                if self.path == "/v1/completions":
                    with proxy._lock:
                        number, proxy.completions = proxy.completions, proxy.completions + 1
                answer = proxy.fault(number, self.path, real) if proxy.fault else real()
                if answer is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, content = answer
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content)
                if number >= 0 and status == 200:
                    with proxy._lock, contextlib.suppress(ValueError):
                        proxy.finished.append({"request": json.loads(body), "answer": json.loads(content)})

        return Handler


@contextlib.contextmanager
def proxies(target: str, count: int) -> Iterator[list[Proxy]]:
    made = [Proxy(target) for _ in range(count)]
    try:
        yield made
    finally:
        for proxy in made:
            proxy.close()

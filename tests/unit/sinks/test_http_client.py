"""A connection on which anything unexpected happened is closed: the next request has a new one."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.sinks.http_client import HttpClient
from cc_slurm_adapter.sinks.http_response import ResponseReader
from cc_slurm_adapter.sinks.timeouts import AdaptiveTimeout


class Handler(BaseHTTPRequestHandler):
    """Answers everything and keeps connections alive."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        made = HttpClient(f"http://127.0.0.1:{server.server_port}", lambda: "token", AdaptiveTimeout())
        yield made
        made.close()
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize("step", ["_send", "read_head", "read_body"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("nobody thought of that")], ids=["memory", "unexpected"])
def test_an_unexpected_error_costs_one_request(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    assert client.request("GET", "/").status == 200
    with monkeypatch.context() as patched:
        patched.setattr(HttpClient if step == "_send" else ResponseReader, step, fails)
        with pytest.raises(type(error)):
            client.request("GET", "/")
    assert [client.request("GET", "/").status for _ in range(3)] == [200] * 3


def test_an_error_while_it_connects_costs_one_request(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(http.client.HTTPConnection, "connect", fails)
        with pytest.raises(MemoryError):
            client.request("GET", "/")
    assert client.request("GET", "/").status == 200


def test_a_stop_ends_all_requests(client: HttpClient) -> None:
    client.abort()
    with pytest.raises(SinkError, match="the daemon stops"):
        client.request("GET", "/")

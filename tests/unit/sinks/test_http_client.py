"""A connection on which anything unexpected happened is closed: the next request has a new one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.model import Proxy
from cc_slurm_adapter.sinks.http_client import HttpClient
from cc_slurm_adapter.sinks.http_response import ResponseReader
from cc_slurm_adapter.sinks.http_route import Route
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


@pytest.mark.parametrize("step", ["open", "let_through", "wrap"])
def test_an_error_while_it_connects_costs_one_request(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Route, step, fails)
        with pytest.raises(MemoryError):
            client.request("GET", "/")
    assert client.request("GET", "/").status == 200


def test_a_stop_ends_all_requests(client: HttpClient) -> None:
    client.abort()
    with pytest.raises(SinkError, match="the daemon stops"):
        client.request("GET", "/")


@pytest.mark.parametrize("with_proxy", [False, True], ids=["TLS", "a proxy"])
def test_a_stop_ends_each_step_of_connecting(with_proxy: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = silent.getsockname()
        proxy = Proxy(*address) if with_proxy else None
        url = f"https://{'cc.example.org' if with_proxy else f'127.0.0.1:{address[1]}'}"
        client = HttpClient(url, lambda: "token", AdaptiveTimeout(), proxy=proxy)
        failures: list[SinkError] = []

        def request() -> None:
            with pytest.raises(SinkError) as caught:
                client.request("GET", "/")
            failures.append(caught.value)

        thread = threading.Thread(target=request)
        thread.start()
        accepted, _ = silent.accept()
        with accepted:
            assert accepted.recv(1)  # the step is under way
            client.abort()
            thread.join(5)
        assert failures
    assert not thread.is_alive()

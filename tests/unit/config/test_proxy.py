"""Which proxy cc-backend is reached through, and what such a proxy gets to see."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.config.proxy import parse_proxy, proxy_variable
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.destinations import Destinations, choose_proxy
from cc_slurm_adapter.errors import ConfigError, SinkError
from cc_slurm_adapter.sinks.base import Kind, Verdict
from cc_slurm_adapter.sinks.http_client import HttpClient, HttpResponse
from cc_slurm_adapter.sinks.rest import CcRest, judge
from cc_slurm_adapter.sinks.timeouts import AdaptiveTimeout
from examples.practice.cc_backend import CcBackend, serving

URL = "https://cc.example.org"
PROXY = {"HTTPS_PROXY": "http://proxy:3128", "HTTP_PROXY": "http://plain:3128"}


@pytest.mark.parametrize(
    ("url", "environment", "variable"),
    [
        (URL, {}, ""),
        (URL, PROXY, "HTTPS_PROXY"),
        ("http://cc.example.org", PROXY, "HTTP_PROXY"),
        (URL, {"https_proxy": "proxy"}, "https_proxy"),
        (URL, {"https_proxy": "small", "HTTPS_PROXY": "large"}, "HTTPS_PROXY"),
        (URL, {"https_proxy": "small", "HTTPS_PROXY": ""}, "https_proxy"),
        (URL, {"http_proxy": "plain"}, ""),
        ("https://localhost:8080", PROXY, ""),
        ("https://127.8.9.10", PROXY, ""),
        ("https://[::1]:8080", PROXY, ""),
        ("https://localhost.example.org", PROXY, "HTTPS_PROXY"),
    ],
)
def test_the_environment_names_the_proxy(url: str, environment: dict[str, str], variable: str) -> None:
    assert proxy_variable(url, environment) == variable


# The cases of NO_PROXY in the documentation of golang.org/x/net/http/httpproxy, Config.NoProxy.
@pytest.mark.parametrize(
    ("host", "no_proxy", "is_direct"),
    [
        ("cc.example.org", "", False),
        ("cc.example.org", "*", True),
        ("cc.example.org", "example.org", True),
        ("example.org", "example.org", True),
        ("badexample.org", "example.org", False),
        ("cc.example.org", ".example.org", True),
        ("example.org", ".example.org", False),
        ("cc.example.org", "*.example.org", True),
        ("example.org", "*.example.org", False),
        ("CC.Example.ORG", "other.org, EXAMPLE.org ", True),
        ("cc.example.org", "example.org:443", True),
        ("cc.example.org", "example.org:80", False),
        ("cc.example.org:8443", "example.org:8443", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "10.1.2.3:80", False),
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False),
        ("10.1.2.3", "2.3", False),
        ("[fd00::5]", "fd00::5", True),
        ("[fd00::5]", "[fd00::5]:443", True),
        ("[fd00::5]", "fd00::/8", True),
        ("cc.example.org", "10.1.0.0/16,,/,cc", False),
    ],
)
def test_no_proxy_has_domains_addresses_and_networks(host: str, no_proxy: str, is_direct: bool) -> None:
    for spelled in ("NO_PROXY", "no_proxy"):
        assert (proxy_variable(f"https://{host}", {**PROXY, spelled: no_proxy}) == "") is is_direct


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://proxy:3128", "proxy:3128"),
        ("proxy", "proxy:80"),
        ("http://u:p@proxy:1/", "proxy:1"),
        ("10.0.0.1:8", "10.0.0.1:8"),
    ],
)
def test_a_proxy_is_a_url_or_a_host(text: str, shown: str) -> None:
    assert str(parse_proxy(text)) == shown


def test_user_and_password_are_taken_as_they_are_meant() -> None:
    (scheme, value) = parse_proxy("http://me:p%40ss@proxy:3128").authorization.split(" ")
    assert (scheme, base64.b64decode(value)) == ("Basic", b"me:p@ss")
    assert "p@ss" not in repr(parse_proxy("http://me:p%40ss@proxy:3128"))


def config(**settings: str) -> dict[str, object]:
    return {"ccRestUrl": URL, "ccRestJwt": "a.b.c", **settings}


@pytest.mark.parametrize(
    "value",
    ["https://proxy", "socks5://proxy:1080", "http://", "http://proxy:0", "http://p:x", "http://proxy/path", "a b", 5],
)
def test_a_wrong_proxy_is_an_error_that_shows_no_password(value: object) -> None:
    with pytest.raises(ConfigError, match=r"ccRestProxy: got .*expected"):
        parse_config({**config(), "ccRestProxy": value})
    with pytest.raises(ConfigError) as told:
        parse_config(config(ccRestProxy="socks5://me:secret@proxy:1080"))
    assert "secret" not in str(told.value)


def test_the_setting_wins_over_the_environment() -> None:
    chosen = {
        value: choose_proxy(parse_config(config(ccRestProxy=value))[0], PROXY)
        for value in ("", "none", "None", "other:8080")
    }
    assert {value: str(proxy) for value, proxy in chosen.items()} == {
        "": "proxy:3128",
        "none": "None",
        "None": "None",
        "other:8080": "other:8080",
    }


def test_a_proxy_of_the_environment_that_cannot_be_used_is_told_with_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"the environment's HTTPS_PROXY cannot be used, .* or set ccRestProxy"):
        choose_proxy(parse_config(config())[0], {"HTTPS_PROXY": "socks5://proxy:1080"})


def test_the_start_names_the_proxy_but_no_password() -> None:
    parsed, _ = parse_config(config(ccRestProxy="http://me:secret@proxy.example.org:3128"))
    assert Destinations(parsed, Counters()).label == f"{URL} through the proxy proxy.example.org:3128"


def test_a_proxy_that_wants_a_password_holds_everything() -> None:
    answer = judge(Kind.START, HttpResponse(407, b"<html>"))
    assert (answer.verdict, "ccRestProxy" in answer.reason) == (Verdict.MISCONFIGURED, True)


class Tunnel(socketserver.ThreadingTCPServer):
    """A proxy that remembers what it was sent; it answers CONNECT itself and passes all else on."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, refusal: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), _TunnelRequest)
        self.heads: list[bytes] = []
        self.passed_on = bytearray()
        self.refusal = refusal
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://me:pass@127.0.0.1:{self.server_address[1]}"


class _TunnelRequest(socketserver.BaseRequestHandler):
    server: Tunnel

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(4096)
        self.server.heads.append(head)
        if self.server.refusal:
            self.request.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % self.server.refusal)
            return
        words = head.split(b" ")
        if words[0] == b"CONNECT":
            host, port = words[1].decode().split(":")
            first = b""
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            host, port = words[1].decode().split("/")[2].split(":")
            first = head.replace(b"http://%s:%s" % (host.encode(), port.encode()), b"", 1)
        with socket.create_connection((host, int(port)), timeout=10) as target:
            target.sendall(first)
            back = threading.Thread(target=self._pass, args=(target, self.request), daemon=True)
            back.start()
            self._pass(self.request, target)
            back.join(5)

    def _pass(self, source: socket.socket, to: socket.socket) -> None:
        try:
            while piece := source.recv(4096):
                self.server.passed_on += piece
                to.sendall(piece)
        except OSError:
            pass


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    made = Tunnel()
    yield made
    made.shutdown()
    made.server_close()


def names_through(url: str, proxy: str, ca_file: str = "") -> list[str]:
    sink = CcRest(url, lambda: "practice.api.token", ca_file, parse_proxy(proxy))
    connection = sink.connect()
    try:
        return connection.clusters().names
    finally:
        connection.close()


def test_a_plain_request_goes_to_the_proxy_with_the_whole_address(tunnel: Tunnel) -> None:
    with serving(CcBackend()) as url:
        assert "lab" in names_through(url, tunnel.url)
    (head,) = tunnel.heads
    assert head.startswith(b"GET " + url.encode() + b"/api/clusters/ HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:pass") in head


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return files


class TlsServer:
    """Answers every request of one connection after the other; `seen` is what it was asked."""

    def __init__(self, files: tuple[Path, Path]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*files)
        self.seen: list[bytes] = []
        self.url = f"https://localhost:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # it was closed
            with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secure:
                while request := secure.recv(4096):
                    self.seen.append(request)
                    secure.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{"clusters": [{"name": "lab"}]}')

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[TlsServer]:
    made = TlsServer(certificate)
    yield made
    made.close()


def test_the_token_goes_only_through_the_tunnel(
    tunnel: Tunnel, certificate: tuple[Path, Path], tls_server: TlsServer
) -> None:
    assert names_through(tls_server.url, tunnel.url, str(certificate[0])) == ["lab"]
    (head,) = tunnel.heads
    assert head.startswith(b"CONNECT localhost:")
    assert b"Proxy-Authorization: Basic " in head
    assert b"practice.api.token" in tls_server.seen[0]
    assert b"Proxy-Authorization" not in tls_server.seen[0]
    assert b"practice.api.token" not in head + bytes(tunnel.passed_on)


def test_a_connection_that_is_broken_off_sends_no_token_unencrypted(
    tunnel: Tunnel, certificate: tuple[Path, Path], tls_server: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may send in the moment in which its connection is broken off."""
    client = HttpClient(
        tls_server.url, lambda: "practice.api.token", AdaptiveTimeout(), str(certificate[0]), parse_proxy(tunnel.url)
    )
    assert client.request("GET", "/").status == 200
    before = len(tunnel.passed_on)
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "shutdown", lambda *_: None)  # it is just about to happen
        client.break_off()
        with contextlib.suppress(SinkError):
            client.request("GET", "/")
    client.close()
    assert len(tunnel.passed_on) > before
    assert b"practice.api.token" not in tunnel.passed_on


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (b"407 Proxy Authentication Required", "set them in ccRestProxy"),
        (b"403 Forbidden", "allow this host in the proxy, or set ccRestProxy to none"),
        (b"503 Service Unavailable", "see its log"),
    ],
)
def test_a_proxy_that_does_not_pass_on_is_told_with_what_to_do(refusal: bytes, words: str) -> None:
    tunnel = Tunnel(refusal)
    client = HttpClient("https://cc.example.org", lambda: "t", AdaptiveTimeout(), "", parse_proxy(tunnel.url))
    with pytest.raises(SinkError, match=words) as told:
        client.request("GET", "/api/clusters/")
    assert "cc.example.org through the proxy 127.0.0.1:" in str(told.value)
    assert "pass@" not in str(told.value)
    client.close()
    tunnel.shutdown()
    tunnel.server_close()

"""The way to an HTTP server: an open connection to it, with TLS and through a proxy if need be."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

from cc_slurm_adapter.errors import UnreadableFile
from cc_slurm_adapter.model import Proxy
from cc_slurm_adapter.sinks.http_errors import HttpError, ProxyRefusal, describe
from cc_slurm_adapter.sinks.http_response import ResponseReader


class Route(NamedTuple):
    """How a server is reached."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None

    def open(self, seconds: float) -> socket.socket:
        """Connect to the server, or to the proxy. Raises OSError."""
        next_hop = (self.host, self.port) if self.proxy is None else (self.proxy.host, self.proxy.port)
        sock = socket.create_connection(next_hop, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def let_through(self, sock: socket.socket, seconds: float) -> None:
        """Have the proxy pass on what comes next, if it is TLS: without TLS it reads the requests.

        Its response must be complete in time, however slowly its bytes come. Raises OSError and HttpError.
        """
        if self.tls is None or self.proxy is None:
            return
        server = f"{host_header(self.host)}:{self.port}"
        lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}", *proxy_headers(self.proxy), ""]
        sock.sendall(encode_lines(lines))
        reader = ResponseReader(sock, seconds)
        head = reader.read_head()
        if not 200 <= head.status < 300:
            raise ProxyRefusal(head.status)
        if reader.has_more:
            raise HttpError("the proxy sent more than its answer before TLS has begun")
        sock.settimeout(seconds)

    def wrap(self, sock: socket.socket) -> socket.socket:
        """Return the socket to be used from now on: with TLS one that has still to shake hands."""
        if self.tls is None:
            return sock
        return self.tls.wrap_socket(sock, server_hostname=self.host, do_handshake_on_connect=False)


def shake_hands(sock: socket.socket) -> None:
    """Begin TLS, if the socket has it. Raises OSError."""
    if isinstance(sock, ssl.SSLSocket):
        sock.do_handshake()


def host_header(host: str) -> str:
    """Return a host name as it is written before a port."""
    ascii_host = host if host.isascii() else host.encode("idna").decode()
    return f"[{ascii_host}]" if ":" in ascii_host else ascii_host


def proxy_headers(proxy: Proxy | None) -> list[str]:
    """Return the header lines for the proxy alone."""
    return [f"Proxy-Authorization: {proxy.authorization}"] if proxy and proxy.authorization else []


def encode_lines(lines: list[str]) -> bytes:
    """Return the lines of a request's head, with the end of each. Raises ValueError if they would be other lines."""
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("the address or a header contains a line break")
    return "\r\n".join([*lines, ""]).encode("latin-1")


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Return what verifies a server's certificate. Raises UnreadableFile."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise UnreadableFile([f"ccRestCaFile: {ca_file} contains no usable certificate: {describe(error)}"]) from error

"""Where hooks and daemon meet: a unix socket or a TCP socket, as configured.

Each hook call that needs Python loads this module, so it imports nothing that is slow to load: neither re nor socket.
"""

from __future__ import annotations

import _socket
import os

from cc_slurm_adapter.config.secrets import presentable
from cc_slurm_adapter.errors import ConfigError

MAX_UNIX_PATH = 107
"""Most bytes of a unix socket's path: the kernel's limit without the closing zero byte."""
_ADDRESS_FORMS = (
    "/path, unix:/path, tcp:127.0.0.1:12345, tcp:[::1]:12345, tcp::12345 (all IPv4 and IPv6) or tcp:host:12345"
)
_LISTEN_FORMS = "127.0.0.1:9517, [::1]:9517, localhost:9517, :9517 (all IPv4 and IPv6) or /path"
_ANY_HOST = {"tcp": "", "tcp4": "0.0.0.0", "tcp6": "::"}  # noqa: S104 - for addresses that name it
_SMALL = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_HOST = _SMALL + _SMALL.upper() + _DIGITS + "._-"


class UnixAddress:
    """A unix socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __str__(self) -> str:
        return self.path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnixAddress) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    __repr__ = __str__


class TcpAddress:
    """A TCP socket. `host` is a name, an address, or '' for every IPv4 and IPv6 address."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TcpAddress) and (other.host, other.port) == (self.host, self.port)

    def __hash__(self) -> int:
        return hash((self.host, self.port))

    __repr__ = __str__


def parse_address(text: str) -> UnixAddress | TcpAddress:
    """Parse prepSockListenPath or prepSockConnectPath. Raises ConfigError with the accepted forms."""
    scheme, colon, rest = text.partition(":")
    if text.startswith("/") or not colon:
        return _unix_address(text, text)
    if scheme.lower() == "unix":
        return _unix_address(rest, text)
    if scheme.lower() in _ANY_HOST:
        address = _tcp_address(rest, text)
        address.host = address.host or _ANY_HOST[scheme.lower()]
        return address
    raise _bad_address(text)


def parse_listen_address(text: str) -> UnixAddress | TcpAddress:
    """Parse metricsListen, where the scheme may be left out of a TCP address. Raises ConfigError."""
    scheme = text.partition(":")[0].lower()
    if text.startswith("/") or scheme in ("unix", *_ANY_HOST):
        return parse_address(text)
    try:
        return _tcp_address(text, text)
    except ConfigError:
        raise _bad_address(text, _LISTEN_FORMS) from None


def _bad_address(text: str, forms: str = _ADDRESS_FORMS) -> ConfigError:
    return ConfigError([f"{presentable(repr(text))} is not a socket address, expected {forms}"])


def _unix_address(path: str, text: str) -> UnixAddress:
    if not path or "\0" in path or path.startswith("@"):
        raise _bad_address(text)
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise _bad_address(text) from None
    if length > MAX_UNIX_PATH:
        raise ConfigError(
            [f"{presentable(repr(path))} has {length} bytes, a unix socket's path can have {MAX_UNIX_PATH} at most"]
        )
    return UnixAddress(path)


def _tcp_address(rest: str, text: str) -> TcpAddress:
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise _bad_address(text)
    elif host.strip(_HOST):  # something else is left
        raise _bad_address(text)
    if not colon or not _is_port(port):
        raise _bad_address(text)
    return TcpAddress(host, int(port))


def _is_port(text: str) -> bool:
    return 0 < len(text) <= 5 and not text.strip(_DIGITS) and 1 <= int(text) <= 65535


def _is_ipv6(host: str) -> bool:
    try:
        _socket.inet_pton(_socket.AF_INET6, host)
    except (OSError, ValueError):
        return False
    return True

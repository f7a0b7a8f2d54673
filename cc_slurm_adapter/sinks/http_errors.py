"""What can go wrong with an HTTP request, and how it is said so that an administrator can act on it."""

from __future__ import annotations

import socket
import ssl


class HttpError(Exception):
    """What was received is not a response, or not a whole one."""


class NoResponse(ConnectionResetError):
    """The other side closed the connection without a response."""


class NoHttp(HttpError):
    """The other side does not speak HTTP. The text is the beginning of what it sent."""


class CutOff(HttpError):
    """The response ended before it was complete."""


class ProxyRefusal(OSError):
    """The proxy does not pass the connection on. `status` is that of its response."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


_CLOSED_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def is_closed_tls(error: Exception) -> bool:
    """Return whether TLS says in its own words that the connection was closed."""
    return isinstance(error, _CLOSED_TLS)


_DESCRIPTIONS = (
    (ConnectionRefusedError, "connection refused: nothing listens there"),
    (socket.timeout, "no answer in time"),
    (NoResponse, "closed the connection without an answer"),
    (BrokenPipeError, "closed the connection before it had received the whole message"),
    (ConnectionResetError, "broke the connection off"),
    (CutOff, "closed the connection in the middle of its answer"),
)


def describe(error: Exception) -> str:
    """Describe an error of a request, or of the system, so that an administrator can act on it."""
    for kind, text in _DESCRIPTIONS:
        if isinstance(error, kind):
            return text
    if isinstance(error, ssl.SSLError):
        return _describe_tls(error)
    if isinstance(error, NoHttp):
        is_tls = str(error).startswith("\x15\x03")
        return "what answers there does not speak HTTP" + (
            " but TLS: should ccRestUrl begin with https?" if is_tls else ""
        )
    if isinstance(error, ProxyRefusal):
        advice = _PROXY_ADVICE.get(error.status, "see its log")
        return f"the proxy does not pass this on (HTTP {error.status}): {advice}"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    return str(error) if isinstance(error, HttpError) else f"{type(error).__name__}: {error}"


_PROXY_ADVICE = {
    407: "it requires a user and a password: set them in ccRestProxy",
    403: "allow this host in the proxy, or set ccRestProxy to none",
}
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}
"""OpenSSL's reasons when the other side does not speak TLS."""
_CERTIFICATE_ADVICE = {
    10: "it must be renewed (or a clock is wrong)",
    62: "set ccRestUrl to a name that it contains",
    64: "set ccRestUrl to a name that it contains",
}
"""Advice by OpenSSL's number of the error. All other errors are about who signed the certificate."""


def _describe_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _CERTIFICATE_ADVICE.get(error.verify_code, "set ccRestCaFile to the CA's certificate")
        return f"its certificate is not trusted ({error.verify_message}): {advice}"
    if error.reason in _NO_TLS:
        return "what answers there does not speak TLS: should ccRestUrl begin with http instead of https?"
    return f"TLS fails: {error}"

"""HTTP requests on one keep-alive connection, with limits on time and size, and with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cc_slurm_adapter.errors import BrokenOff, ConfigError, SinkError, UnreadableFile
from cc_slurm_adapter.model import Proxy
from cc_slurm_adapter.sinks.http_response import ResponseHead, ResponseReader
from cc_slurm_adapter.sinks.timeouts import AdaptiveTimeout

log = logging.getLogger(__name__)

RESPONSE_LIMIT = 64 * 1024 * 1024
"""Most bytes of a body that are read, so that nobody can fill the memory."""
SMALL = 64 * 1024
"""Bytes of a body that is sent together with the headers."""
EARLY_RESPONSE = 1.0
"""Seconds to wait for the response to a request that could not be sent completely. It has usually arrived already."""


class HttpResponse(NamedTuple):
    """A response: its status, its body and the headers that the program uses."""

    status: int
    body: bytes
    retry_after: str = ""
    location: str = ""
    date: str = ""
    repeated: bool = False
    """Whether the same request was sent just before, on a connection that was closed. It may have been processed."""

    @property
    def backend_error(self) -> str | None:
        """Return cc-backend's error text; None if the response is not cc-backend's, whose refusals are all JSON."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    @property
    def error(self) -> str:
        """Return cc-backend's error text, or a line about what was received instead."""
        error = self.backend_error
        return _summary(self.body) if error is None else error


def _summary(body: bytes) -> str:
    text = body[:4000].decode("utf-8", errors="replace")
    if not re.search("<html|<!doctype html", text, re.I):
        return " ".join(text.split())[:100]
    title = re.search(r"<title[^>]*>([^<]*)", text, re.I)
    named = f" called {' '.join(title[1].split())[:80]!r}" if title else ""
    return f"an HTML page{named} instead of cc-backend's answer"


class _Token:
    """The token of one connection, read when it is needed first, and again when it may have changed."""

    def __init__(self, read: Callable[[], str], number: Callable[[], int]) -> None:
        self._read = read
        self._number = number
        self._text = ""
        self._number_read = 0
        """What `number` was when the token was read."""

    def current(self) -> str:
        """Return the token. Raises ConfigError, but not while there is one that was not refused."""
        number = self._number()  # before the token is read, which may be replaced meanwhile
        if not self._text:
            self._text = self._read()
        elif number != self._number_read:
            with contextlib.suppress(ConfigError):  # the file may have gone with a change that waits for a restart
                self._text = self._read()
        self._number_read = number
        return self._text

    def is_new(self) -> bool:
        """Read the token again after a refusal. Return whether it has changed."""
        used, self._text = self._text, ""
        try:
            self._text = self._read()
        except ConfigError:
            return False  # the next request needs it and raises that
        return self._text != used


class HttpClient:
    """One keep-alive connection. Its requests raise SinkError if there is no response, whatever the cause."""

    def __init__(  # noqa: PLR0913 - how to reach it
        self,
        url: str,
        read_token: Callable[[], str],
        timeouts: AdaptiveTimeout,
        ca_file: str = "",
        proxy: Proxy | None = None,
        token_number: Callable[[], int] = lambda: 0,
    ) -> None:
        """`token_number` grows when the token is to be read again before the next request."""
        parts = urlsplit(url)
        self._tls = _tls_context(ca_file) if parts.scheme == "https" else None
        self._proxy = proxy
        # A proxy gets the whole URL, unless it only passes TLS on.
        self._base = url if proxy and not self._tls else parts.path
        self._where = f"{parts.netloc} through the proxy {proxy}" if proxy else parts.netloc
        self._host, self._port = parts.hostname or "", parts.port
        self._token = _Token(read_token, token_number)
        self._timeouts = timeouts
        self._query_timeouts = AdaptiveTimeout(timing=timeouts.timing)
        """Those of GET requests, because long lists take longer than what is sent."""
        self._connection: http.client.HTTPConnection | None = None
        self._usual: tuple[tuple[str, ...], bytes] = (), b""
        """The last method, path and token, and the beginning of their requests."""
        self._stopped = False

    def abort(self) -> None:
        """End the request that another thread waits for, and refuse all later ones."""
        self._stopped = True
        self.break_off()

    def break_off(self) -> None:
        """End the request that another thread waits for; it may be sent again."""
        connection = self._connection  # read once: the other thread may close it now
        sock = connection.sock if connection else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("the connection to %s was closed already", self._where)

    def request(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
        """Send a request and read the whole response.

        The other side may have closed a connection that was kept alive. Then the request is sent once more on a new
        one. That does no harm, because cc-backend recognises a repeated request. If the token is refused, it is read
        again, and the request is repeated if the token has changed.
        """
        response = self._request_twice(method, path, body)
        if response.status in (401, 403) and self._token.is_new():
            return self._request_twice(method, path, body)
        return response

    def _request_twice(self, method: str, path: str, body: bytes | None) -> HttpResponse:
        kept = self._connection is not None
        try:
            return self._request_once(method, path, body)
        except SinkError as error:
            if not (kept and isinstance(error.__cause__, ConnectionError)) or self._stopped:
                raise
            return self._request_once(method, path, body)._replace(repeated=True)

    def _request_once(self, method: str, path: str, body: bytes | None) -> HttpResponse:
        try:
            return self._exchange(self._connected(), method, path, body)
        except ConfigError as error:
            self.close()
            raise SinkError(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            kind = BrokenOff if _breaks_off(error) else SinkError
            raise kind(f"{self._where}: {describe(error)}") from error
        except BaseException:
            self.close()  # nobody knows what will still arrive on it
            raise

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> HttpResponse:
        began = time.monotonic()
        timeouts = self._query_timeouts if body is None else self._timeouts
        timeout = timeouts.begin()
        timed_out = False
        try:
            connection.sock.settimeout(timeout.seconds)
            try:
                self._send(connection.sock, method, path, body)
            except OSError as error:
                return self._early_response(connection, error)
            reader = ResponseReader(connection.sock, timeout.seconds)
            head = reader.read_head()
            content = reader.read_body(head, RESPONSE_LIMIT)
            timeouts.responded(time.monotonic() - began)
        except socket.timeout:
            timed_out = True
            raise
        finally:
            timeouts.end(timeout, timed_out=timed_out)
        if not head.keeps_alive or reader.has_more:
            self.close()
        return _response(head, content)

    def _send(self, sock: socket.socket, method: str, path: str, body: bytes | None) -> None:
        """Send a request; a small one in one packet."""
        head = self._request_head(method, path, body)
        if body is None or len(body) <= SMALL:
            sock.sendall(head + (body or b""))
        else:
            sock.sendall(head)
            sock.sendall(body)

    def _request_head(self, method: str, path: str, body: bytes | None) -> bytes:
        """Return the first line and the headers."""
        place = method, path, self._token.current()
        if place != self._usual[0]:
            self._usual = place, self._encode_head(*place)
        content = b"" if body is None else b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        return b"%b%b\r\n" % (self._usual[1], content)

    def _encode_head(self, method: str, path: str, token: str) -> bytes:
        """Return what is the same for all bodies. Raises ValueError if it would be other lines than that."""
        host = self._host if self._host.isascii() else self._host.encode("idna").decode()
        host = f"[{host}]" if ":" in host else host
        port = "" if self._port in (None, 443 if self._tls else 80) else f":{self._port}"
        headers = {
            "Host": host + port,
            "Accept-Encoding": "identity",
            "X-AUTH-TOKEN": token,
            "Accept": "application/ld+json",
            **({} if self._tls else self._proxy_headers()),
        }
        target = self._base + path
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if _NO_TARGET.search(target) or any("\r" in line or "\n" in line for line in lines):
            raise ValueError("the address or a header contains a blank or a line break")
        return "\r\n".join([*lines, ""]).encode("latin-1")

    def _early_response(self, connection: http.client.HTTPConnection, failure: OSError) -> HttpResponse:
        """Read the refusal of a server that closed the connection before it had the whole request.

        Linux keeps what arrived before a reset. A part of the body may be lost, but the status is enough. Raises
        `failure` if there is no refusal.
        """
        reader = ResponseReader(connection.sock, EARLY_RESPONSE)
        try:
            head = reader.read_head()
        except (OSError, http.client.HTTPException):
            raise _unsent(failure) from None
        content = b""
        with contextlib.suppress(OSError, http.client.HTTPException):
            content = reader.read_body(head, RESPONSE_LIMIT)
        self.close()
        if head.status < 400:  # a success cannot be true of a request that was not sent completely
            raise _unsent(failure)
        return _response(head, content)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = self._new_connection()
            _connect(self._connection)
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._stopped:  # checked once the socket is there: so abort() either closes it or is seen here
            raise OSError("the daemon stops")
        return self._connection

    def _new_connection(self) -> http.client.HTTPConnection:
        host, port = (self._proxy.host, self._proxy.port) if self._proxy else (self._host, self._port)
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeouts.timing.time_limit)
        connection = http.client.HTTPSConnection(
            host, port, timeout=self._timeouts.timing.time_limit, context=self._tls
        )
        if self._proxy:
            connection.set_tunnel(self._host, self._port, self._proxy_headers())
        return connection

    def _proxy_headers(self) -> dict[str, str]:
        """Return the headers for the proxy alone."""
        authorization = self._proxy.authorization if self._proxy else ""
        return {"Proxy-Authorization": authorization} if authorization else {}

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


_NO_TARGET = re.compile(r"[\x00-\x20\x7f]")
_CLOSED_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def _unsent(failure: OSError) -> OSError:
    """Return the error of a request that could not be sent completely. TLS has its own errors for a lost connection."""
    return BrokenPipeError(errno.EPIPE, str(failure)) if isinstance(failure, _CLOSED_TLS) else failure


def _breaks_off(error: Exception) -> bool:
    """Return whether the other side broke the connection off, as some do when a message is too large for them.

    A server that received the whole message does not count, whether it closes without a response or does not respond in
    time.
    """
    is_reset = isinstance(error, (BrokenPipeError, ConnectionResetError))
    return is_reset and not isinstance(error, http.client.RemoteDisconnected)


def _response(head: ResponseHead, content: bytes) -> HttpResponse:
    find = head.headers.get
    return HttpResponse(head.status, content, find("retry-after", ""), find("location", ""), find("date", ""))


def _connect(connection: http.client.HTTPConnection) -> None:
    """Open a connection. If a proxy refuses it, close the proxy's response, which Python 3.9 leaves open."""
    proxy_responses: list[http.client.HTTPResponse] = []

    def note(*args: Any, **named: Any) -> http.client.HTTPResponse:
        proxy_responses.append(_TimedResponse(*args, **named))
        return proxy_responses[-1]

    connection.response_class = note  # type: ignore[assignment]
    try:
        connection.connect()
    finally:
        for response in proxy_responses:
            response.close()


class _TimedResponse(http.client.HTTPResponse):
    """A proxy's response to CONNECT. It must be complete within the socket's timeout, however slowly its bytes come."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp = io.BufferedReader(_UntilDeadline(sock, self.fp.detach()))


class _UntilDeadline(io.RawIOBase):
    """Reads from a socket until a deadline. A socket's own timeout begins anew with every byte."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("the answer was not complete in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _tls_context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise UnreadableFile([f"ccRestCaFile: {ca_file} contains no usable certificate: {describe(error)}"]) from error


_DESCRIPTIONS = (
    (ConnectionRefusedError, "connection refused: nothing listens there"),
    (socket.timeout, "no answer in time"),
    (http.client.RemoteDisconnected, "closed the connection without an answer"),
    (BrokenPipeError, "closed the connection before it had received the whole message"),
    (ConnectionResetError, "broke the connection off"),
    (http.client.IncompleteRead, "closed the connection in the middle of its answer"),
)


def describe(error: Exception) -> str:
    """Describe an error of a library so that an administrator can act on it."""
    for kind, text in _DESCRIPTIONS:
        if isinstance(error, kind):
            return text
    if isinstance(error, ssl.SSLError):
        return _describe_tls(error)
    if isinstance(error, http.client.BadStatusLine):
        is_tls = str(error).startswith("\x15\x03")
        return "what answers there does not speak HTTP" + (
            " but TLS: should ccRestUrl begin with https?" if is_tls else ""
        )
    refused = re.match(r"Tunnel connection failed: (\d+)", str(error))
    if refused:
        return f"the proxy does not pass this on (HTTP {refused[1]}): {_PROXY_ADVICE.get(refused[1], 'see its log')}"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    return f"{type(error).__name__}: {error}"


_PROXY_ADVICE = {
    "407": "it requires a user and a password: set them in ccRestProxy",
    "403": "allow this host in the proxy, or set ccRestProxy to none",
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

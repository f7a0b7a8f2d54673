"""HTTP requests on one keep-alive connection, with limits, and in words what keeps an answer from coming."""

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
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cc_slurm_adapter.errors import BrokenOff, ConfigError, SinkError, UnreadableFile
from cc_slurm_adapter.model import Proxy
from cc_slurm_adapter.sinks.timeouts import TIME_LIMIT, AdaptiveTimeout

log = logging.getLogger(__name__)

ANSWER_LIMIT = 64 * 1024 * 1024
PIECE = 64 * 1024
EARLY_ANSWER = 1.0
"""Seconds that are waited, after all could not be sent, for an answer that mostly is there already."""


class HttpAnswer(NamedTuple):
    """Status, body and the headers that count."""

    status: int
    body: bytes
    retry_after: str = ""
    location: str = ""
    repeated: bool = False
    """The same request had been sent just before, on a connection that was closed: it may have been served."""

    @property
    def own_error(self) -> str | None:
        """cc-backend's error text; None when the answer is not cc-backend's: all its refusals are JSON."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    @property
    def error(self) -> str:
        """cc-backend's error text, or else in one line what came instead."""
        own = self.own_error
        return _summary(self.body) if own is None else own


def _summary(body: bytes) -> str:
    text = body[:4000].decode("utf-8", errors="replace")
    if not re.search("<html|<!doctype html", text, re.I):
        return " ".join(text.split())[:100]
    title = re.search(r"<title[^>]*>([^<]*)", text, re.I)
    named = f" called {' '.join(title[1].split())[:80]!r}" if title else ""
    return f"an HTML page{named} instead of cc-backend's answer"


class HttpClient:
    """One keep-alive connection. Raises SinkError for everything that keeps an answer from coming."""

    def __init__(
        self,
        url: str,
        read_token: Callable[[], str],
        pace: AdaptiveTimeout,
        ca_file: str = "",
        proxy: Proxy | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._tls = _tls_context(ca_file) if parts.scheme == "https" else None
        self._proxy = proxy
        # A proxy is told the whole address, unless it only passes TLS on.
        self._base = url if proxy and not self._tls else parts.path
        self._where = f"{parts.netloc} through the proxy {proxy}" if proxy else parts.netloc
        self._host, self._port = parts.hostname or "", parts.port
        self._read_token = read_token
        self._token = ""
        self._pace = pace
        self._own_pace = AdaptiveTimeout()
        """For what is asked: long lists take longer than what is sent."""
        self._connection: http.client.HTTPConnection | None = None
        self._stopped = False

    def abort(self) -> None:
        """Break off a request that another thread waits for, and refuse all later ones."""
        self._stopped = True
        self.break_off()

    def break_off(self) -> None:
        """End a request that another thread waits for; it may be sent again."""
        connection = self._connection  # read once: the other thread may close it now
        sock = connection.sock if connection else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("the connection to %s was closed already", self._where)

    def request(self, method: str, path: str, body: bytes | None = None) -> HttpAnswer:
        """Send a request and read its whole answer.

        A connection that was kept alive may have been closed by the other side in the meantime: then
        the request is sent once more on a new one. cc-backend knows a repeated request again.
        """
        answer = self._request_twice(method, path, body)
        if answer.status in (401, 403) and self._has_new_token():
            return self._request_twice(method, path, body)
        return answer

    def _has_new_token(self) -> bool:
        """Whether the token has been replaced since it was read."""
        used, self._token = self._token, ""
        try:
            self._token = self._read_token()
        except ConfigError:
            return False  # the next request needs it and says so
        return self._token != used

    def _request_twice(self, method: str, path: str, body: bytes | None) -> HttpAnswer:
        kept = self._connection is not None
        try:
            return self._request_once(method, path, body)
        except SinkError as error:
            if not (kept and isinstance(error.__cause__, ConnectionError)) or self._stopped:
                raise
            return self._request_once(method, path, body)._replace(repeated=True)

    def _request_once(self, method: str, path: str, body: bytes | None) -> HttpAnswer:
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
            self.close()  # nobody knows what is still to come on it
            raise

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> HttpAnswer:
        began = time.monotonic()
        pace = self._own_pace if body is None else self._pace
        patience = pace.begin()
        timed_out = False
        try:
            connection.sock.settimeout(patience.seconds)
            try:
                connection.request(method, self._base + path, body, self._headers(body))
            except OSError as error:
                return self._early_answer(connection, error)
            response = connection.getresponse()
            content = _read_bounded(response)
            pace.answered(time.monotonic() - began)
        except socket.timeout:
            timed_out = True
            raise
        finally:
            pace.end(patience, timed_out=timed_out)
        if response.will_close:
            self.close()
        return _answer(response, content)

    def _early_answer(self, connection: http.client.HTTPConnection, failure: OSError) -> HttpAnswer:
        """The refusal of whoever closes before it has the whole request. Raises what kept that from leaving.

        Linux keeps what had come before a reset. Of the body some may be lost: the status is enough.
        """
        try:
            connection.sock.settimeout(EARLY_ANSWER)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError):
            raise _unsent(failure) from None
        content = b""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            content = _read_bounded(response)
        response.close()
        self.close()
        if response.status < 400:  # nobody has taken what was not sent
            raise _unsent(failure)
        return _answer(response, content)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = self._new_connection()
            _connect(self._connection)
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._stopped:  # looked at after the socket is there: abort() sees one of the two
            raise OSError("the daemon stops")
        return self._connection

    def _new_connection(self) -> http.client.HTTPConnection:
        host, port = (self._proxy.host, self._proxy.port) if self._proxy else (self._host, self._port)
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=TIME_LIMIT)
        connection = http.client.HTTPSConnection(host, port, timeout=TIME_LIMIT, context=self._tls)
        if self._proxy:
            connection.set_tunnel(self._host, self._port, self._to_proxy())
        return connection

    def _to_proxy(self) -> dict[str, str]:
        """What only the proxy may know."""
        authorization = self._proxy.authorization if self._proxy else ""
        return {"Proxy-Authorization": authorization} if authorization else {}

    def _headers(self, body: bytes | None) -> Mapping[str, str]:
        if not self._token:
            self._token = self._read_token()
        headers = {"X-AUTH-TOKEN": self._token, "Accept": "application/ld+json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._tls is None:
            headers.update(self._to_proxy())
        return headers

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


_CLOSED_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def _unsent(failure: OSError) -> OSError:
    """Why a request could not be sent whole: over TLS a connection that is gone is said in other ways."""
    return BrokenPipeError(errno.EPIPE, str(failure)) if isinstance(failure, _CLOSED_TLS) else failure


def _breaks_off(error: Exception) -> bool:
    """Whether the other side broke the connection off, which is what becomes of a message that is too large for it.

    Not so where it has the whole message and closes without an answer, or does not answer in time.
    """
    is_reset = isinstance(error, (BrokenPipeError, ConnectionResetError))
    return is_reset and not isinstance(error, http.client.RemoteDisconnected)


def _answer(response: http.client.HTTPResponse, content: bytes) -> HttpAnswer:
    retry_after, location = (response.headers.get(name, "") for name in ("Retry-After", "Location"))
    return HttpAnswer(response.status, content, retry_after, location)


def _connect(connection: http.client.HTTPConnection) -> None:
    """Open it. A proxy that refuses has answered then: that answer is closed here, as Python 3.9 forgets it."""
    of_proxy: list[http.client.HTTPResponse] = []

    def note(*args: Any, **named: Any) -> http.client.HTTPResponse:
        of_proxy.append(_TimedResponse(*args, **named))
        return of_proxy[-1]

    connection.response_class = note  # type: ignore[assignment]
    try:
        connection.connect()
    finally:
        for answer in of_proxy:
            answer.close()
    connection.response_class = _TimedResponse


class _TimedResponse(http.client.HTTPResponse):
    """An answer that must be whole when the socket's time limit is over, however slowly its bytes come."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp = io.BufferedReader(_UntilDeadline(sock, self.fp.detach()))


class _UntilDeadline(io.RawIOBase):
    """By itself a socket's time limit begins anew with every byte."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("the answer is not whole in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _tls_context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise UnreadableFile([f"ccRestCaFile: {ca_file} holds no usable certificate: {describe(error)}"]) from error


def _read_bounded(response: http.client.HTTPResponse) -> bytes:
    """The whole body, in pieces: up to Python 3.11 `read(n)` fills a buffer of n bytes first."""
    pieces: list[bytes] = []
    left = ANSWER_LIMIT
    while left > 0:
        piece = response.read(min(PIECE, left))
        if not piece and response.length:
            raise http.client.IncompleteRead(b"".join(pieces), response.length)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        left -= len(piece)
    raise OSError(f"the answer is longer than {ANSWER_LIMIT} bytes")


_WORDS = (
    (ConnectionRefusedError, "connection refused: nothing listens there"),
    (socket.timeout, "no answer in time"),
    (http.client.RemoteDisconnected, "closed the connection without an answer"),
    (BrokenPipeError, "closed the connection before it had the whole message"),
    (ConnectionResetError, "broke the connection off"),
    (http.client.IncompleteRead, "closed the connection in the middle of its answer"),
)


def describe(error: Exception) -> str:
    """A foreign error in words that an administrator can act on."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, ssl.SSLError):
        return _describe_tls(error)
    if isinstance(error, http.client.BadStatusLine):
        is_tls = str(error).startswith("\x15\x03")
        return "what answers there speaks no HTTP" + (" but TLS: must ccRestUrl begin with https?" if is_tls else "")
    refused = re.match(r"Tunnel connection failed: (\d+)", str(error))
    if refused:
        return f"the proxy does not pass this on (HTTP {refused[1]}): {_PROXY_ADVICE.get(refused[1], 'see its log')}"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    return f"{type(error).__name__}: {error}"


_PROXY_ADVICE = {
    "407": "it wants a user and a password, put the right ones into ccRestProxy",
    "403": "allow this host in the proxy, or set ccRestProxy to none",
}
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}
"""OpenSSL's reasons when something else than TLS comes."""
_CERTIFICATE_ADVICE = {
    10: "it must be renewed (or a clock is wrong)",
    62: "set ccRestUrl to a name that stands in it",
    64: "set ccRestUrl to a name that stands in it",
}
"""By OpenSSL's number of what is wrong; everything else is about who signed it."""


def _describe_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _CERTIFICATE_ADVICE.get(error.verify_code, "set ccRestCaFile to the CA's certificate")
        return f"its certificate is not trusted ({error.verify_message}): {advice}"
    if error.reason in _NO_TLS:
        return "what answers there speaks no TLS: must ccRestUrl begin with http instead of https?"
    return f"TLS fails: {error}"

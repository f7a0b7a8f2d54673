"""HTTP requests on one keep-alive connection, with limits on time and size, and with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import socket
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from cc_slurm_adapter.errors import BrokenOff, ConfigError, SinkError
from cc_slurm_adapter.model import Proxy
from cc_slurm_adapter.sinks.http_errors import HttpError, NoResponse, describe, is_closed_tls
from cc_slurm_adapter.sinks.http_response import ResponseHead, ResponseReader
from cc_slurm_adapter.sinks.http_route import Route, encode_lines, host_header, proxy_headers, shake_hands, tls_context
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
        tls = tls_context(ca_file) if parts.scheme == "https" else None
        self._usual_port = 80 if tls is None else 443
        self._route = Route(parts.hostname or "", parts.port or self._usual_port, tls, proxy)
        # A proxy gets the whole URL, unless it only passes TLS on.
        self._base = url if proxy and not tls else parts.path
        self._where = f"{parts.netloc} through the proxy {proxy}" if proxy else parts.netloc
        self._token = _Token(read_token, token_number)
        self._timeouts = timeouts
        self._query_timeouts = AdaptiveTimeout(timing=timeouts.timing)
        """Those of GET requests, because long lists take longer than what is sent."""
        self._sock: socket.socket | None = None
        self._usual: tuple[tuple[str, ...], bytes] = (), b""
        """The last method, path and token, and the beginning of their requests."""
        self._stopped = False

    def abort(self) -> None:
        """End the request that another thread waits for, and refuse all later ones."""
        self._stopped = True
        self.break_off()

    def break_off(self) -> None:
        """End the request that another thread waits for; it may be sent again."""
        sock = self._sock  # read once: the other thread may close it now
        if sock is not None:
            try:
                # Not as TLS has it, which first forgets its keys: then the other thread may send without them.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
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
        kept = self._sock is not None
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
        except (OSError, HttpError, ValueError) as error:
            self.close()
            kind = BrokenOff if _breaks_off(error) else SinkError
            raise kind(f"{self._where}: {describe(error)}") from error
        except BaseException:
            self.close()  # nobody knows what will still arrive on it
            raise

    def _exchange(self, sock: socket.socket, method: str, path: str, body: bytes | None) -> HttpResponse:
        began = time.monotonic()
        timeouts = self._query_timeouts if body is None else self._timeouts
        timeout = timeouts.begin()
        timed_out = False
        try:
            sock.settimeout(timeout.seconds)
            try:
                self._send(sock, method, path, body)
            except OSError as error:
                return self._early_response(sock, error)
            reader = ResponseReader(sock, timeout.seconds)
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
        route = self._route
        port = "" if route.port == self._usual_port else f":{route.port}"
        target = self._base + path
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {host_header(route.host)}{port}",
            "Accept-Encoding: identity",
            f"X-AUTH-TOKEN: {token}",
            "Accept: application/ld+json",
            *(proxy_headers(route.proxy) if route.tls is None else ()),
        ]
        if _NO_TARGET.search(target):
            raise ValueError("the address contains a blank or a line break")
        return encode_lines(lines)

    def _early_response(self, sock: socket.socket, failure: OSError) -> HttpResponse:
        """Read the refusal of a server that closed the connection before it had the whole request.

        Linux keeps what arrived before a reset. A part of the body may be lost, but the status is enough. Raises
        `failure` if there is no refusal.
        """
        reader = ResponseReader(sock, EARLY_RESPONSE)
        try:
            head = reader.read_head()
        except (OSError, HttpError):
            raise _unsent(failure) from None
        content = b""
        with contextlib.suppress(OSError, HttpError):
            content = reader.read_body(head, RESPONSE_LIMIT)
        self.close()
        if head.status < 400:  # a success cannot be true of a request that was not sent completely
            raise _unsent(failure)
        return _response(head, content)

    def _connected(self) -> socket.socket:
        """Return the open connection. Each step to open it takes at most the longest time for a request.

        The socket is kept from the first step on, so that abort() ends the step that is under way.
        """
        if self._sock is None:
            limit = self._timeouts.timing.time_limit
            self._sock = self._route.open(limit)
            self._heed_stop()
            self._route.let_through(self._sock, limit)
            self._sock = self._route.wrap(self._sock)
            self._heed_stop()
            shake_hands(self._sock)
        self._heed_stop()
        return self._sock

    def _heed_stop(self) -> None:
        """Raise OSError if abort() was called.

        To be called once a socket is kept: abort() either closes it or is seen here.
        """
        if self._stopped:
            raise OSError("the daemon stops")

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()


_NO_TARGET = re.compile(r"[\x00-\x20\x7f]")


def _unsent(failure: OSError) -> OSError:
    """Return the error of a request that could not be sent completely. TLS has its own errors for a lost connection."""
    return BrokenPipeError(errno.EPIPE, str(failure)) if is_closed_tls(failure) else failure


def _breaks_off(error: Exception) -> bool:
    """Return whether the other side broke the connection off, as some do when a message is too large for them.

    A server that received the whole message does not count, whether it closes without a response or does not respond in
    time.
    """
    is_reset = isinstance(error, (BrokenPipeError, ConnectionResetError))
    return is_reset and not isinstance(error, NoResponse)


def _response(head: ResponseHead, content: bytes) -> HttpResponse:
    find = head.headers.get
    return HttpResponse(head.status, content, find("retry-after", ""), find("location", ""), find("date", ""))

"""HTTP/1.1 without sockets: one request from the pieces that arrive, and the bytes of a response (RFC 9112).

It accepts what a strict reader may accept, and no more: CRLF at the end of each line, a body only with Content-Length,
no folded lines, no absolute addresses. So there are no two ways to read the same bytes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from cc_slurm_adapter.daemon.report import VERSION
from cc_slurm_adapter.system.http_dates import format_http_date

MAX_HEAD = 8 * 1024
"""Most bytes of the request line and the headers, with the empty line after them."""
MAX_BODY = 64 * 1024
MAX_PARAMETERS = 32
METHODS = ("GET", "HEAD", "POST")
TEXT = "text/plain; charset=utf-8"

_END_OF_HEAD = b"\r\n\r\n"
_BEGINNING = re.compile(rb"[A-Z-]{1,16}(?: |\Z)")
"""A method, or the first letters of one."""
_REQUEST_LINE = re.compile(r"([A-Z-]{1,16}) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
_READ_ONCE = {"content-length", "host", "transfer-encoding", "expect"}
"""The headers that are heeded. All others are skipped."""
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Request(NamedTuple):
    """A whole request."""

    method: str
    """GET or POST. A HEAD is handed over as the GET that it asks about."""
    path: str
    """Decoded, without the query."""
    query: dict[str, str]
    body: bytes
    uid: int | None
    """The user at the other end of a unix socket; None over TCP."""


class Response(NamedTuple):
    """What is answered. `headers` are further ones; each must be printable ASCII."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Head(NamedTuple):
    """The part of a request before its body."""

    method: str
    path: str
    query: dict[str, str]
    host: str | None
    """None if there is no such header."""
    length: int
    """Bytes of the body."""
    expects_continue: bool


class BadRequest(ValueError):
    """A request that is refused. `is_http` is false if what arrived is no request at all."""

    def __init__(
        self, status: int, text: str, *, is_http: bool = True, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(text)
        self.is_http = is_http
        self.response = error_response(status, text, headers)


class RequestReader:
    """Puts one request together from pieces. What follows it on the connection is ignored."""

    def __init__(self, check: Callable[[Head], None], uid: int | None) -> None:
        """`check` is called once with the head, before the body is read. It may raise BadRequest."""
        self.head: Head | None = None
        self._check = check
        self._uid = uid
        self._data = bytearray()
        self._searched = 0

    @property
    def is_empty(self) -> bool:
        """Return whether nothing has arrived yet."""
        return self.head is None and not self._data

    @property
    def awaits_body(self) -> bool:
        """Return whether the client waits to be told that it may send the body."""
        return self.head is not None and self.head.expects_continue and not self._data

    def feed(self, piece: bytes) -> Request | None:
        """Add what has arrived. Return the request once it is whole. Raises BadRequest."""
        self._data += piece
        if self.head is None and not self._read_head():
            return None
        assert self.head is not None  # noqa: S101 - it was just read
        if len(self._data) < self.head.length:
            return None
        method = "GET" if self.head.method == "HEAD" else self.head.method
        return Request(method, self.head.path, self.head.query, bytes(self._data[: self.head.length]), self._uid)

    def _read_head(self) -> bool:
        if not _BEGINNING.match(self._data[:17]):
            raise BadRequest(400, "this is no HTTP request", is_http=False)
        end = self._data.find(_END_OF_HEAD, self._searched)
        if end < 0 and len(self._data) < MAX_HEAD:
            self._searched = max(0, len(self._data) - len(_END_OF_HEAD) + 1)
            return False
        if not 0 <= end <= MAX_HEAD - len(_END_OF_HEAD):
            raise BadRequest(431, f"the request line and headers are longer than {MAX_HEAD} bytes")
        head = parse_head(self._data[:end].decode("latin-1"))
        del self._data[: end + len(_END_OF_HEAD)]
        self._check(head)
        self.head = head
        return True


def parse_head(text: str) -> Head:
    """Parse a head without its last empty line. Raises BadRequest."""
    first, *others = text.split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if not line:
        raise BadRequest(400, "the first line is no request of HTTP/1.0 or HTTP/1.1 for a path")
    method, target, minor = line.groups()
    if method not in METHODS:
        raise BadRequest(405, f"expected one of the methods {', '.join(METHODS)}", headers=allow(*METHODS))
    headers = _parse_headers(others)
    if minor == "1" and "host" not in headers:
        raise BadRequest(400, "expected a header Host, as HTTP/1.1 requires it")
    path, _, query = target.partition("?")
    if not path.startswith("/") or "#" in target:
        raise BadRequest(400, "expected a path that begins with a slash, without host and fragment")
    expects = _parse_expect(headers.get("expect"))
    return Head(
        method, _decode(path), parse_query(query), headers.get("host"), _parse_length(headers), expects and minor == "1"
    )


def _parse_headers(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if not header:
            raise BadRequest(400, "a header has not the form 'Name: value'")
        name = header[1].lower()
        if name in found:
            raise BadRequest(400, f"the header {name} occurs more than once")
        if name in _READ_ONCE:
            found[name] = header[2].strip(" \t")
    return found


def _parse_length(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        both = "content-length" in headers  # which of the two counts is what smuggled requests depend on
        raise BadRequest(400 if both else 501, "expected a body with Content-Length, without Transfer-Encoding")
    if not re.fullmatch(r"[0-9]+", length):
        raise BadRequest(400, "expected a number of bytes in Content-Length")
    if len(length) > 10 or int(length) > MAX_BODY:
        raise BadRequest(413, f"expected a body of at most {MAX_BODY} bytes")
    return int(length)


def _parse_expect(value: str | None) -> bool:
    if value is not None and value.lower() != "100-continue":
        raise BadRequest(417, "expected nothing but 100-continue in the header Expect")
    return value is not None


def parse_query(text: str) -> dict[str, str]:
    """Parse a query as forms have it: a plus is a space. Raises BadRequest."""
    pieces = [piece for piece in text.split("&") if piece]
    if len(pieces) > MAX_PARAMETERS:
        raise BadRequest(400, f"expected at most {MAX_PARAMETERS} parameters")
    found: dict[str, str] = {}
    for piece in pieces:
        name, _, value = (_decode(part) for part in piece.replace("+", " ").partition("="))
        if name in found:
            raise BadRequest(400, f"the parameter {name[:40]!r} occurs more than once")
        found[name] = value
    return found


def _decode(text: str) -> str:
    """Undo the percent encoding. Raises BadRequest for what is no printable text in UTF-8."""
    if _BAD_ESCAPE.search(text):
        raise BadRequest(400, "expected two hexadecimal digits after each %, which itself is written %25")
    try:
        found = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadRequest(400, "expected UTF-8 in what is written with %") from None
    if not found.isprintable():
        raise BadRequest(400, "expected printable characters only")
    return found


def allow(*methods: str) -> tuple[tuple[str, str], ...]:
    """Return the header that says which methods there are."""
    return (("Allow", ", ".join(methods)),)


def json_response(status: int, value: dict[str, object], headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return a response with a JSON object, to which the version is added."""
    return Response(status, f"{json.dumps({'version': VERSION, **value})}\n".encode(), headers=headers)


def error_response(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return the response that says what is wrong."""
    return json_response(status, {"error": text}, headers)


def head_bytes(response: Response) -> bytes:
    """Return the bytes of a response before its body."""
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        f"Date: {format_http_date(time.time())}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        *(f"{name}: {value}" for name, value in response.headers),
        "Connection: close",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")

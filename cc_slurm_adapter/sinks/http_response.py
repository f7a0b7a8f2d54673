"""Reads an HTTP/1.1 response from a socket, in a limited time and up to a limited size, whatever is sent.

The standard library's client does so too, but parses the headers as those of an email, and that takes longer than
everything else about a short response.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cc_slurm_adapter.sinks.http_errors import CutOff, HttpError, NoHttp, NoResponse

PIECE = 64 * 1024
"""Bytes that are read at once."""
MAX_LINE, MAX_HEADERS = 64 * 1024, 256 * 1024
"""The most bytes of a line, and of all headers."""
MAX_ANNOUNCED = 8
"""The most responses that only announce another one."""
MAX_CHUNK_LINE = 1024
"""The most bytes of the line before a chunk, which has its size."""
_STATUS_LINE = re.compile(rb"HTTP/(1\.\d|0\.9) +(\d{3})(?: .*)?\s*", re.DOTALL)
_END_OF_HEADERS = re.compile(rb"\n\r?\n")
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]{1,15})\s*(?:;.*)?", re.DOTALL)
_WITHOUT_BODY = (204, 304)


class ResponseHead(NamedTuple):
    """What precedes the body."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case. Of several with the same name it is the first."""
    is_chunked: bool
    """Whether the body comes in chunks, each with its size."""
    length: int | None
    """The bytes of the body; None if only its end tells, or its chunks do."""
    keeps_alive: bool
    """Whether the other side keeps the connection open after the response."""


class ResponseReader:
    """Reads one response: first its head, then its body. Raises OSError and HttpError."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        """The response must be complete within `seconds` from now, however slowly its bytes come."""
        self._sock = sock
        self._deadline = time.monotonic() + seconds
        self._received = bytearray()
        self._at = 0
        """So many of the bytes are read."""

    @property
    def has_more(self) -> bool:
        """Tell whether more came than what was read."""
        return self._at < len(self._received)

    def read_head(self) -> ResponseHead:
        """Read the status and the headers. Responses that only announce another one are skipped."""
        for _ in range(1 + MAX_ANNOUNCED):
            version, status = self._status_line()
            headers = self._headers()
            if not 100 <= status < 200 or status == 101:
                return _head(version, status, headers)
        raise HttpError(f"more than {MAX_ANNOUNCED} responses only announce another one")

    def read_body(self, head: ResponseHead, limit: int) -> bytes:
        """Read the whole body. Raises OSError if it has more than `limit` bytes."""
        if head.length is not None and head.length <= min(limit, len(self._received) - self._at):
            return self._piece(head.length) if head.length else b""
        body = bytearray()  # not a list of pieces: a chunk may have a single byte
        for piece in self._chunks() if head.is_chunked else self._pieces(head.length):
            body += piece
            if len(body) > limit:
                raise OSError(f"the answer is longer than {limit} bytes")
        return bytes(body)

    def _status_line(self) -> tuple[bytes, int]:
        line = self._line()
        if not line:
            raise NoResponse("nothing was answered")
        found = _STATUS_LINE.fullmatch(line)
        if not found or found[2] < b"100":
            raise NoHttp(line[:200].decode("latin-1"))
        return found[1], int(found[2])

    def _headers(self) -> dict[str, str]:
        """Read up to the empty line, or up to the end of everything. The line before has just been read."""
        begin = searched = max(self._at - 1, 0)  # the end of that line may be followed by the empty one
        while not (end := _END_OF_HEADERS.search(self._received, searched)):
            searched = max(len(self._received) - 2, begin)
            if searched - begin > MAX_HEADERS:
                raise HttpError(f"the answer has more than {MAX_HEADERS} bytes of headers")
            received = self._receive(PIECE)
            if not received:
                break
            self._received += received
        text = self._received[self._at : end.end() if end else None].decode("latin-1")
        self._at = end.end() if end else len(self._received)
        headers: dict[str, str] = {}
        for line in text.split("\n"):
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), value.strip())
        return headers

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = _CHUNK_SIZE.fullmatch(self._line(MAX_CHUNK_LINE))
            if not size:
                raise CutOff("a chunk without its size")
            length = int(size[1], 16)
            if not length:
                break
            yield from self._pieces(length)
            self._line(MAX_CHUNK_LINE)
        self._headers()  # those after the last chunk

    def _pieces(self, length: int | None) -> Iterator[bytes]:
        """Read so many bytes, or up to the end. Raises CutOff if the end comes before."""
        left = length
        while left is None or left > 0:
            piece = self._piece(PIECE if left is None else min(left, PIECE))
            if not piece:
                if left is None:
                    return
                raise CutOff(f"{left} bytes are missing")
            left = None if left is None else left - len(piece)
            yield piece

    def _piece(self, most: int) -> bytes:
        """Read some bytes, at least one; none at the end."""
        if not self.has_more:
            return self._receive(most)
        piece = bytes(self._received[self._at : self._at + most])
        self._at += len(piece)
        return piece

    def _line(self, most: int = MAX_LINE) -> bytes:
        """Read a line with its end; at the end of everything, what is left. Raises HttpError if it is longer."""
        self._drop_read()
        searched = 0
        while not (end := self._received.find(b"\n", searched) + 1):
            searched = len(self._received)
            if searched > most:
                break
            received = self._receive(PIECE)
            if not received:
                end = searched
                break
            self._received += received
        if max(end, searched) > most:
            raise HttpError(f"a line of the answer has more than {most} bytes")
        line = bytes(self._received[:end])
        self._at = end
        return line

    def _drop_read(self) -> None:
        """Forget what was read, so that a long response is never kept as a whole."""
        del self._received[: self._at]
        self._at = 0

    def _receive(self, most: int) -> bytes:
        """Wait for bytes. A socket's own timeout would begin anew with every byte."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("the answer was not complete in time")
        self._sock.settimeout(left)
        return self._sock.recv(most)


def _head(version: bytes, status: int, headers: Mapping[str, str]) -> ResponseHead:
    has_body = status >= 200 and status not in _WITHOUT_BODY
    is_chunked = has_body and headers.get("transfer-encoding", "").lower() == "chunked"
    length = None if is_chunked else _length(headers.get("content-length", "")) if has_body else 0
    is_framed = is_chunked or length is not None
    return ResponseHead(status, headers, is_chunked, length, is_framed and _keeps_alive(version, headers))


def _length(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _keeps_alive(version: bytes, headers: Mapping[str, str]) -> bool:
    """Return whether the connection stays open after a response with these headers."""
    connection = headers.get("connection", "").lower()
    if version < b"1.1":
        return "keep-alive" in connection or "keep-alive" in headers
    return "close" not in connection

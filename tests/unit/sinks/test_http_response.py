"""Responses, whole and cut, right and wrong: the standard library's parser says what is in a right one."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.sinks.http_errors import CutOff, HttpError, NoHttp, NoResponse
from cc_slurm_adapter.sinks.http_response import MAX_HEADERS, MAX_LINE, ResponseHead, ResponseReader

LIMIT = 1_000_000
ALLOWED = (OSError, HttpError)


class Pieces(socket.socket):
    """A socket that gives these pieces, then the end."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__()
        self.left = [piece for piece in pieces if piece]

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self.left:
            return b""
        piece, self.left[0] = self.left[0][:size], self.left[0][size:]
        if not self.left[0]:
            self.left.pop(0)
        return piece


class Whole:
    """A socket for the standard library's parser."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._text)


def read(*pieces: bytes, limit: int = LIMIT) -> tuple[ResponseHead, bytes, bool]:
    """Head, body, and whether more came than that."""
    with Pieces(pieces) as sock:
        reader = ResponseReader(sock, 10)
        head = reader.read_head()
        return head, reader.read_body(head, limit), reader.has_more


names = st.sampled_from(["Date", "Location", "Retry-After", "X-Other", "server"])
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
ends = st.sampled_from([b"\r\n", b"\n"])


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    end, body = draw(ends), draw(st.binary(max_size=300))
    headers = [f"{name}: {value}".encode() for name, value in draw(st.lists(st.tuples(names, values), max_size=6))]
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    if framing == "length":
        headers.insert(draw(st.integers(0, len(headers))), b"content-length: %d" % len(body))
    elif framing == "chunks":
        headers.append(b"Transfer-Encoding: chunked")
        size = draw(st.integers(1, 100))
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        body = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    headers += draw(st.sampled_from([[], [b"Connection: close"], [b"connection: Keep-Alive"]]))
    version, status = draw(st.sampled_from([b"1.0", b"1.1"])), draw(st.sampled_from([200, 201, 404, 422, 503]))
    first = b"HTTP/%b %d%b" % (version, status, draw(st.sampled_from([b"", b" OK", b" Not so good"])))
    return end.join([first, *headers, b"", b""]) + body


@given(responses(), st.data())
def test_a_response_is_what_the_standard_library_reads_however_it_is_cut(text: bytes, data: st.DataObject) -> None:
    expected = http.client.HTTPResponse(Whole(text))  # type: ignore[arg-type]
    expected.begin()
    body = expected.read()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    head, content, has_more = read(*(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])))
    assert (head.status, content) == (expected.status, body)
    assert head.keeps_alive is not expected.will_close
    for name in ("Date", "Location", "Retry-After"):
        assert head.headers.get(name.lower(), "") == expected.headers.get(name, "").strip()
    assert not has_more


@given(st.binary(max_size=200) | responses().flatmap(lambda text: st.integers(0, len(text)).map(lambda n: text[:n])))
def test_garbage_and_parts_raise_nothing_else(text: bytes) -> None:
    with contextlib.suppress(*ALLOWED):
        read(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", NoResponse),
        (b"SSH-2.0-OpenSSH\r\n", NoHttp),
        (b"\x15\x03\x01\x00\x02\x02", NoHttp),
        (b"HTTP/1.1 20\r\n\r\n", NoHttp),
        (b"HTTP/1.1 099 No\r\n\r\n", NoHttp),
        (b"x" * (2 * MAX_LINE), HttpError),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, HttpError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2000 + b"\r\na\r\n0\r\n\r\n", HttpError),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_HEADERS, HttpError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", CutOff),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc", CutOff),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", CutOff),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n" + b"x" * 1_000_001, OSError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_001, OSError),
    ],
)
def test_what_is_wrong_has_a_name(text: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(text)


def test_a_long_response_is_never_kept_as_a_whole() -> None:
    chunk = b"1;" + b"x" * 1000 + b"\r\na\r\n"
    pieces = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk * 10] * 500, b"0\r\n\r\n"]
    tracemalloc.start()
    try:
        with Pieces(pieces) as sock:
            reader = ResponseReader(sock, 60)
            head = reader.read_head()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert reader.read_body(head, LIMIT) == b"a" * 5000
            assert tracemalloc.get_traced_memory()[1] - before < 500_000 < sum(map(len, pieces))
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    head, body, has_more = read(b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\n" % status)
    assert (head.status, body, head.keeps_alive, has_more) == (status, b"", True, False)


def test_a_response_that_announces_another_is_skipped() -> None:
    first = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    head, body, _ = read(first + b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
    assert (head.status, body, head.headers.get("link")) == (201, b"{}", None)


def test_what_comes_after_a_response_is_seen() -> None:
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK")[2]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_response_must_be_complete_in_time_however_slowly_it_comes(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    over = threading.Event()

    def trickle() -> None:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.01):
            theirs.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    began = time.monotonic()
    try:
        reader = ResponseReader(ours, 0.2)
        with pytest.raises(socket.timeout):
            reader.read_body(reader.read_head(), LIMIT)
        assert 0.2 <= time.monotonic() - began < 5
    finally:
        over.set()
        thread.join(5)

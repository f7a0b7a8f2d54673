"""What is accepted as a request, and how a response is written."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cc_slurm_adapter.daemon.http_message import (
    MAX_BODY,
    MAX_HEAD,
    BadRequest,
    Head,
    Request,
    RequestReader,
    Response,
    error_response,
    head_bytes,
    parse_query,
)

HOST = b"Host: localhost\r\n"


def accept(head: Head) -> None:
    """No further rule."""


def read(*pieces: bytes) -> Request | None:
    reader = RequestReader(accept, 1000)
    found = None
    for piece in pieces:
        found = reader.feed(piece)
    return found


def status_of(data: bytes) -> int | None:
    """The status with which something is refused; None if it is not."""
    try:
        read(data)
    except BadRequest as error:
        return error.response.status
    return None


def test_a_get() -> None:
    request = read(b"GET /queue?state=parked&reason=a+b%20c%2b&after= HTTP/1.1\r\n" + HOST + b"X: y\r\n\r\n")
    assert request == Request("GET", "/queue", {"state": "parked", "reason": "a b c+", "after": ""}, b"", 1000)


def test_a_post_has_its_body_and_no_more() -> None:
    data = b"POST /queue/drop HTTP/1.1\r\n" + HOST + b"content-length: 4\r\n\r\nabcdGET / HTTP/1.1\r\n\r\n"
    assert read(data) == Request("POST", "/queue/drop", {}, b"abcd", 1000)


def test_head_is_handed_over_as_get() -> None:
    request = read(b"HEAD / HTTP/1.0\r\n\r\n")
    assert request is not None
    assert request.method == "GET"


WHOLE = b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nAccept: */*\r\n\r\n{}\r\n\r\n"


@pytest.mark.parametrize("place", range(1, len(WHOLE)))
def test_a_request_may_arrive_in_two_pieces(place: int) -> None:
    assert read(WHOLE[:place], WHOLE[place:]) == Request("POST", "/a b", {"c": "d"}, b"{}\r\n\r\n", 1000)


def test_a_request_may_arrive_byte_by_byte() -> None:
    reader = RequestReader(accept, None)
    found = [reader.feed(bytes([byte])) for byte in WHOLE]
    assert found[:-1] == [None] * (len(WHOLE) - 1)
    assert found[-1] == Request("POST", "/a b", {"c": "d"}, b"{}\r\n\r\n", None)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/1.1", None),
        (b"GET /%C3%A9 HTTP/1.1", None),
        (b"GET / HTTP/2.0", 400),
        (b"GET / HTTP/1.2", 400),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET http://localhost/status HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET status HTTP/1.1", 400),
        (b"GET /#part HTTP/1.1", 400),
        (b"GET /% HTTP/1.1", 400),
        (b"GET /%4 HTTP/1.1", 400),
        (b"GET /%zz HTTP/1.1", 400),
        (b"GET /%ff HTTP/1.1", 400),
        (b"GET /%00 HTTP/1.1", 400),
        (b"GET /%0a HTTP/1.1", 400),
        (b"GET /?a=%E2%80%AE HTTP/1.1", 400),
        (b"GET /?a=1&a=2 HTTP/1.1", 400),
        (b"GET /?" + b"&".join(b"p%d=" % number for number in range(33)) + b" HTTP/1.1", 400),
        (b"PUT / HTTP/1.1", 405),
        (b"CONNECT a:1 HTTP/1.1", 405),
        (b"OPTIONS * HTTP/1.1", 405),
        (b"get / HTTP/1.1", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"ABCDEFGHIJKLMNOPQ / HTTP/1.1", 400),
        (b"", 400),
    ],
)
def test_the_first_line(line: bytes, status: int | None) -> None:
    assert status_of(line + b"\r\n" + HOST + b"\r\n") == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (HOST, None),
        (HOST + b"Content-Length: 0\r\n", None),
        (HOST + b"Content-Length: 65536\r\n", None),
        (HOST + b"X-Caf\xe9:\r\n", 400),
        (HOST + b"X: caf\xe9\r\n", None),
        (HOST + b"X: a\r\nX: b\r\n", None),
        (b"", 400),
        (b"Host : localhost\r\n", 400),
        (HOST + HOST, 400),
        (HOST + b"X: a\r\n b\r\n", 400),
        (HOST + b"X: a\nY: b\r\n", 400),
        (HOST + b"X: a\rY: b\r\n", 400),
        (HOST + b"X: \0\r\n", 400),
        (HOST + b"X\r\n", 400),
        (HOST + b": x\r\n", 400),
        (HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        (HOST + b"Content-Length: -1\r\n", 400),
        (HOST + b"Content-Length: +1\r\n", 400),
        (HOST + b"Content-Length: 0x1\r\n", 400),
        (HOST + b"Content-Length:\r\n", 400),
        (HOST + b"Content-Length: \xb2\r\n", 400),
        (HOST + b"Content-Length: 1, 1\r\n", 400),
        (HOST + b"Content-Length: 65537\r\n", 413),
        (HOST + b"Content-Length: " + b"9" * 5000 + b"\r\n", 413),
        (HOST + b"Transfer-Encoding: chunked\r\n", 501),
        (HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
        (HOST + b"Expect: 100-continue\r\n", None),
        (HOST + b"Expect: 200-ok\r\n", 417),
    ],
)
def test_the_headers(headers: bytes, status: int | None) -> None:
    assert status_of(b"POST / HTTP/1.1\r\n" + headers + b"\r\n") == status


@pytest.mark.parametrize(("length", "status"), [(MAX_HEAD, None), (MAX_HEAD + 1, 431), (1_000_000, 431)])
def test_the_longest_head(length: int, status: int | None) -> None:
    beginning, end = b"GET / HTTP/1.0\r\nX: ", b"\r\n\r\n"
    data = beginning + b"a" * (length - len(beginning) - len(end)) + end
    assert status_of(data) == status
    reader = RequestReader(accept, None)
    try:
        found = [reader.feed(data[place : place + 1000]) for place in range(0, len(data), 1000)]
    except BadRequest as error:
        assert error.response.status == status
    else:
        assert found[-1] is not None
        assert status is None


def test_the_longest_body() -> None:
    body = b"x" * MAX_BODY
    request = read(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % MAX_BODY + body)
    assert request is not None
    assert request.body == body


@pytest.mark.parametrize("garbage", [b"\0", b"<", b"a", b"\r\n", b" ", b"GET\r", b"\xff\xfe", b"A" * 17])
def test_what_cannot_become_a_request_is_refused_with_its_first_bytes(garbage: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read(garbage)
    assert not caught.value.is_http


def test_a_method_may_arrive_in_pieces_and_garbage_is_seen_in_any_of_them() -> None:
    assert read(b"G", b"ET", b" ") is None
    with pytest.raises(BadRequest):
        read(b"POST", b"ER", b"\0")


def test_the_body_is_asked_for_only_when_the_client_waits() -> None:
    reader = RequestReader(accept, None)
    reader.feed(b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n")
    assert not reader.awaits_body
    reader.feed(b"\r\n")
    assert reader.awaits_body
    reader.feed(b"a")
    assert not reader.awaits_body


def test_a_rule_is_asked_before_the_body() -> None:
    def refuse(head: Head) -> None:
        raise BadRequest(403, f"no {head.method} for {head.host}")

    with pytest.raises(BadRequest, match="no POST for localhost"):
        RequestReader(refuse, None).feed(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n")


@given(st.lists(st.binary(max_size=40)))
@example([b"GET / HTTP/1.1\r\n", b"\r\n\r\n"])
def test_any_bytes_are_a_request_or_refused(pieces: list[bytes]) -> None:
    try:
        read(*pieces)
    except BadRequest as error:
        assert 400 <= error.response.status <= 501


@given(st.text(st.sampled_from("GET /?a=&%20\r\n:HTP1.\0é")))
def test_almost_requests_are_a_request_or_refused(text: str) -> None:
    for beginning in ("", "GET /", "GET / HTTP/1.0\r\n"):
        try:
            read(f"{beginning}{text}\r\n\r\n".encode())
        except BadRequest as error:
            assert 400 <= error.response.status <= 501


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("&&", {}),
        ("a", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=%26&b=%3D", {"a": "&", "b": "="}),
        ("%61=1", {"a": "1"}),
    ],
)
def test_queries(text: str, expected: dict[str, str]) -> None:
    assert parse_query(text) == expected


def test_a_response_says_how_long_it_is_and_that_the_connection_ends() -> None:
    head = head_bytes(Response(200, b"12345", "text/plain", (("X-A", "b"),))).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert head.endswith("\r\n\r\n")
    lines = head.split("\r\n")
    assert {"Content-Type: text/plain", "Content-Length: 5", "X-A: b", "Connection: close"} <= set(lines)
    assert re.search(r"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", head)


def test_an_error_is_json_with_a_version() -> None:
    response = error_response(404, "nothing here")
    assert (response.status, response.content_type) == (404, "application/json")
    assert json.loads(response.body) == {"version": 1, "error": "nothing here"}

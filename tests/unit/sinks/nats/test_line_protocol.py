"""What encode_point writes is read back exactly, by decoders that are not ours alone."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.sinks.nats.line_protocol import encode_point
from examples.practice.cc_backend.state import CcBackend
from tests.nats.points import NoPoint, Point, decode, decode_by_package, decode_strictly, take_in

TIME = 1_795_345_788_000_000_000
TAGS = {"hostname": "vm", "type": "node", "type-id": "0", "function": "start_job"}
RECORDED = json.loads(
    (Path(__file__).parents[3] / "recorded" / "cc_backend" / "existing-adapter-nats.json").read_text(encoding="utf-8")
)
SPECIAL = st.text(st.sampled_from('\\"\n\r\t,= #n☃😀\x00\x7f\x85\u2028'))
"""Much of what needs care in little space."""
TIMES = st.integers(0, 2**62)


@given(st.text() | SPECIAL, TIMES)
def test_any_text_of_an_event_comes_out_exactly(text: str, time_ns: int) -> None:
    message = encode_point("job", TAGS, text.encode(), time_ns)
    assert decode(message) == Point("job", TAGS, {"event": text}, time_ns)


@given(st.dictionaries(st.text() | SPECIAL, st.text() | SPECIAL))
def test_any_json_comes_out_exactly(values: dict[str, str]) -> None:
    for ascii_only in (True, False):
        event = json.dumps(values, ensure_ascii=ascii_only)
        point = decode(encode_point("job", TAGS, event.encode(), TIME))
        assert json.loads(point.fields["event"]) == values


def test_large_event() -> None:
    text = 'a "quoted"\\\n ☃' * 100_000
    assert decode(encode_point("job", TAGS, text.encode(), TIME)).fields == {"event": text}


@given(st.text() | SPECIAL)
def test_any_tag_leaves_one_point_with_all_else_as_it_is(text: str) -> None:
    """Control characters and backslashes at the end have no place in a tag; the rest of the tag is exact."""
    message = encode_point("job", {"hostname": text, "function": "stop_job"}, b"{}", TIME)
    point = decode(message)
    hostname = point.tags.pop("hostname", "")
    assert point == Point("job", {"function": "stop_job"}, {"event": "{}"}, TIME)
    if not re.search(r"[\x00-\x1f\x7f]|\\\Z", text):
        assert hostname == text


@given((st.text() | SPECIAL).filter(lambda text: not re.search(r"\A#|[\x00-\x1f\x7f]|\\\Z|\A\Z", text)))
def test_any_measurement_of_printable_characters(text: str) -> None:
    assert decode(encode_point(text, {}, b"x", TIME)) == Point(text, {}, {"event": "x"}, TIME)


def test_whole_message() -> None:
    event = b'{"a":"b\\"c"}'
    message = encode_point("job", {"function": "start_job", "hostname": "a b,c=d", "partition": ""}, event, 5)
    assert message == b'job,function=start_job,hostname=a\\ b\\,c\\=d event="{\\"a\\":\\"b\\\\\\"c\\"}" 5\n'


@pytest.mark.parametrize("number", range(6))
def test_messages_of_the_existing_adapter(number: int) -> None:
    subject, message, headers = RECORDED[number]
    point = decode(message.encode())
    event = json.loads(point.fields["event"])
    assert (subject, headers, point.measurement, set(point.fields)) == ("jobs", {}, "job", {"event"})
    assert point.time_ns == 10**9 * event["startTime" if point.tags["function"] == "start_job" else "stopTime"]
    assert encode_point("job", point.tags, point.fields["event"].encode(), point.time_ns) == message.encode()


def test_cc_backends_strict_decoder_takes_the_messages_of_the_existing_adapter() -> None:
    backend = CcBackend()
    assert [take_in(backend, message.encode()) for _, message, _ in RECORDED] == [201] * 3 + [200] * 3
    assert all(row.stop_time for row in backend.rows)
    spoilt = RECORDED[0][1].replace('{\\"cluster', '{\\"klaster\\":1,\\"cluster', 1)
    assert take_in(backend, spoilt.encode()) == 400


def test_existing_adapter_was_recorded_with_a_name_that_needs_escapes() -> None:
    events = [json.loads(decode(message.encode()).fields["event"]) for _, message, _ in RECORDED]
    assert len(events) == 6
    assert events[0]["metaData"]["jobName"] == "q`uo\\te\n☃"
    assert 'JobName=q"uo\\te\n☃\n' in events[0]["metaData"]["slurmInfo"]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "\n",
        'job event="x" 5',
        'job event="x"\n',
        'job event="x" 5\n\n',
        'job event="x" 5\njob event="y" 6\n',
        ' job event="x" 5\n',
        'job  event="x" 5\n',
        'job,a= event="x" 5\n',
        'job,a=b,a=c event="x" 5\n',
        'job,a=b\\ event="x" 5\n',
        'job,a=b\tc event="x" 5\n',
        'job event="x" y" 5\n',
        'job event="x\\" 5\n',
        'job event="x\\n" 5\n',
        'job event="x",event="y" 5\n',
        "job event=1 5\n",
        'job event="x" 5.5\n',
        '#job event="x" 5\n',
    ],
)
def test_what_is_not_exactly_one_point(message: str) -> None:
    with pytest.raises(NoPoint):
        decode_strictly(message)


def test_escapes_that_the_decoders_read() -> None:
    message = 'a\\ b\\,c=d,x\\=y=1\\,2\\ 3\\=4,z=\\q\\\\r event="\\"\\\\",more="" -5\n'
    point = Point("a b,c=d", {"x=y": "1,2 3=4", "z": "\\q\\\\r"}, {"event": '"\\', "more": ""}, -5)
    assert decode(message.encode()) == point
    if sys.version_info >= (3, 10):
        assert decode_by_package(message) == point

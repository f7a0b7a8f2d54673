"""What a NATS server's answers mean: those of nats-server 2.15.1, and any others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.sinks.nats.questions import (
    NoReply,
    Permissions,
    Reply,
    parse_stream_names,
    parse_user_info,
    stream_question,
)

STREAMS = (
    b'{"type":"io.nats.jetstream.api.v1.stream_names_response","total":1,"offset":0,"limit":1024,"streams":["lab"]}'
)
NO_STREAMS = (
    b'{"type":"io.nats.jetstream.api.v1.stream_names_response","total":0,"offset":0,"limit":1024,"streams":null}'
)
USER = b'{"server":{"ver":"2.15.1"},"data":{"user":"a","account":"$G","account_name":"$G"}}'
LIMITED = b'{"server":{},"data":{"user":"a","permissions":{"publish":{"allow":["jobs","a.*"]},"subscribe":{}}}}'
DENIED = b'{"server":{},"data":{"user":"a","permissions":{"publish":{"deny":["nodes"]},"subscribe":{}}}}'


def test_the_streams_of_a_subject() -> None:
    assert json.loads(stream_question('a"b')) == {"subject": 'a"b'}
    assert parse_stream_names(STREAMS) == ["lab"]
    assert parse_stream_names(NO_STREAMS) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"error":{"code":503}}', b'{"streams":1}', b"\xff"])
def test_another_answer_names_no_streams(data: bytes) -> None:
    assert parse_stream_names(data) is None


def test_the_permissions_of_a_user() -> None:
    assert parse_user_info(USER) == Permissions()
    assert parse_user_info(LIMITED) == Permissions(("jobs", "a.*"))
    assert parse_user_info(DENIED) == Permissions((), ("nodes",))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"data":null}', b'{"data":[]}', b'{"data":{"permissions":1}}'])
def test_another_answer_has_no_permissions(data: bytes) -> None:
    assert parse_user_info(data) is None


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_read(data: bytes) -> None:
    assert parse_stream_names(data) is None or parse_user_info(data) is None


@pytest.mark.parametrize(
    ("allow", "deny", "subject", "permitted"),
    [
        ([], [], "jobs", True),
        (["jobs"], [], "jobs", True),
        (["jobs"], [], "job", False),
        (["jobs"], [], "jobs.lab", False),
        ([">"], [], "jobs", True),
        ([">"], [], "hpc.jobs.lab", True),
        (["hpc.>"], [], "hpc.jobs.lab", True),
        (["hpc.>"], [], "hpc", False),
        (["hpc.*"], [], "hpc.jobs", True),
        (["hpc.*"], [], "hpc.jobs.lab", False),
        (["*"], [], "hpc.jobs", False),
        (["*.jobs"], [], "hpc.jobs", True),
        (["x", "jobs"], [], "jobs", True),
        ([], ["jobs"], "jobs", False),
        ([], ["nodes"], "jobs", True),
        ([">"], ["hpc.*"], "hpc.jobs", False),
    ],
)
def test_which_subjects_a_user_may_publish_to(allow: list[str], deny: list[str], subject: str, permitted: bool) -> None:
    """As NATS's documentation describes wildcards: docs.nats.io, Subject-Based Messaging."""
    assert Permissions(tuple(allow), tuple(deny)).permit(subject) is permitted


def test_why_there_is_no_reply() -> None:
    assert Reply(NoReply.NOBODY).why == "nobody answers it"
    assert Reply(NoReply.FAILED, "no answer in time").why == "no answer in time"
    assert Reply(data=b"x").why == ""

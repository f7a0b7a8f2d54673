"""The message between hook and daemon, as JSON and as the name of an event file."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.hooks.message import (
    MAX_JOB_ID,
    MAX_MESSAGE,
    VARIABLES,
    BadMessage,
    HookMessage,
    decode,
    encode,
    event_name,
    parse_event_name,
)

SECRET = b"a shared secret of some length"
NOW = 1_800_000_000.0


def test_message_has_all_keys_and_comes_back() -> None:
    environ = {
        "SLURM_JOB_ID": "4711",
        "SLURM_SCRIPT_CONTEXT": "prolog_slurmctld",
        "SLURM_CLUSTER_NAME": "lab",
        "SLURM_JOB_COMMENT": "nobody needs it",
        "HOME": "/root",
    }
    encoded = encode(environ)
    values = json.loads(encoded)
    assert set(values) == set(VARIABLES)
    assert len(values) == 39
    assert values["SLURM_JOB_COMMENT"] == values["SLURM_WCKEY"] == ""
    message = decode(encoded)
    assert (message.job_id, message.context, message.cluster) == (4711, "prolog_slurmctld", "lab")


def test_message_is_short_whatever_the_environment_holds() -> None:
    encoded = encode({"SLURM_JOB_ID": "1", "SLURM_CLUSTER_NAME": "lab", "SLURM_SCRIPT_CONTEXT": "x" * 70_000})
    assert len(encoded) < MAX_MESSAGE
    message = decode(encoded)
    assert (message.job_id, message.cluster) == (1, "lab")


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text(st.characters(), max_size=20)))
def test_a_message_is_as_json_writes_it(environ: dict[str, str]) -> None:
    """Also with half of a surrogate pair, which is how Python reads bytes that are no UTF-8."""
    encoded = encode({**environ, "SLURM_CLUSTER_NAME": "\udcff"})
    assert encoded == json.dumps(json.loads(encoded)).encode()


def test_only_the_job_id_is_needed() -> None:
    message = decode(b'{"SLURM_JOB_ID": "5"}')
    assert (message.job_id, message.context, message.cluster) == (5, "", "")


def test_odd_context_and_cluster_count_as_not_given() -> None:
    values = {"SLURM_JOB_ID": "5", "SLURM_SCRIPT_CONTEXT": "../x", "SLURM_CLUSTER_NAME": "a\nb"}
    message = decode(json.dumps(values).encode())
    assert (message.context, message.cluster) == ("", "")
    message = decode(b'{"SLURM_JOB_ID": "5", "SLURM_SCRIPT_CONTEXT": 1, "SLURM_CLUSTER_NAME": []}')
    assert (message.context, message.cluster) == ("", "")


@pytest.mark.parametrize(
    "job_id", ["", "0", "-1", "+1", "1.5", "1 ", "\u00b2", "\u0661", "9" * 19, "9" * 5000, str(2**31), 5, None, True]
)
def test_job_ids_that_are_none(job_id: object) -> None:
    with pytest.raises(BadMessage, match="SLURM_JOB_ID"):
        decode(json.dumps({"SLURM_JOB_ID": job_id}).encode())


def test_largest_job_id() -> None:
    assert decode(json.dumps({"SLURM_JOB_ID": str(2**31 - 1)}).encode()).job_id == 2**31 - 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000, b'{"a":' * 20_000, b"9" * 60_000])
def test_bytes_that_are_no_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(data)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # other work may keep this machine busy
@given(
    st.binary(max_size=80)
    | st.dictionaries(
        st.sampled_from(VARIABLES), st.text(max_size=5) | st.integers() | st.none() | st.lists(st.integers())
    ).map(lambda values: json.dumps(values).encode())
)
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    try:
        message = decode(data)
    except BadMessage as error:
        assert str(error)
    else:
        assert 0 < message.job_id <= MAX_JOB_ID


def test_event_names() -> None:
    assert event_name(HookMessage(7, "prolog_slurmctld", "lab"), 99) == "7.prolog_slurmctld.lab.99"
    assert event_name(HookMessage(7, "", ""), 99) == "7...99"
    assert event_name(HookMessage(7, "", "no/such.cluster"), 99) == "7...99"

    event = parse_event_name("7.epilog_slurmctld.my-Lab_1.99")
    assert event is not None
    assert (event.job_id, event.context, event.cluster) == (7, "epilog_slurmctld", "my-Lab_1")
    event = parse_event_name("7...99")
    assert event is not None
    assert (event.job_id, event.context, event.cluster) == (7, "", "")


@pytest.mark.parametrize(
    "name",
    [
        *("", "7", "7.a.b", "7.a.b.", ".a.b.1", "0.a.b.1", "x.a.b.1", "7.A.b.1", "7.a.b c.1", "7.a.b.1.2"),
        *("7.a.b.1\n", f"{2**31}.a.b.1", "\u0667.a.b.1", "7.a.b.\u0667", ".nfs0001", "9" * 200),
    ],
)
def test_names_that_are_no_events(name: str) -> None:
    assert parse_event_name(name) is None


@given(st.text(max_size=30) | st.text(alphabet="0123456789abz_.-", max_size=30))
def test_any_name_is_an_event_or_not(name: str) -> None:
    event = parse_event_name(name)
    if event is not None:
        again = parse_event_name(event_name(event, 1))
        assert again is not None
        assert again.job_id == event.job_id

"""Which messages are meant: by flags, by a query, and by a JSON object."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.errors import UsageError
from cc_slurm_adapter.outbox.selection import KEYS, Selection, parse, parse_for_change, parse_number
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST


def test_what_is_selected_comes_back() -> None:
    selection = Selection(("parked", "conflict"), "no such host", "lab", CC_REST, 7)
    assert parse(selection.as_words()) == selection
    assert parse({}) == Selection()
    assert str(Selection()) == "all"
    assert str(selection) == "state parked,conflict, reason no such host, cluster lab, sink cc-backend, job 7"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"state": "Parked, parked"}, Selection(("parked",))),
        ({"state": "all", "sink": "all", "job": "all"}, Selection()),
        ({"sink": "cc-backend"}, Selection(sink=CC_REST)),
        ({"sink": "NATS"}, Selection(sink=CC_NATS)),
        ({"job": "0004711"}, Selection(job_id=4711)),
        ({"job": 4711}, Selection(job_id=4711)),
        ({"reason": None, "cluster": ""}, Selection()),
    ],
)
def test_words_may_be_written_in_several_ways(words: dict[str, object], expected: Selection) -> None:
    assert parse(words) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"State": "parked"}, "'State' selects nothing: there are state, reason, cluster, sink, job"),
        ({"state": "lost"}, "'lost' is no state of a message that waits: there are pending, parked, conflict"),
        ({"state": []}, "state is"),
        ({"sink": "influx"}, "'influx' is no destination"),
        ({"reason": "x" * 501}, "reason is"),
        ({"cluster": 7}, "cluster is 7, but must be a text"),
        ({"job": "x"}, "'x' is no job id"),
        ({"job": "²"}, "'²' is no job id"),
        ({"job": 0}, "0 is no job id"),
        ({"job": True}, "True is no job id"),
        ({"job": 1.0}, "1.0 is no job id"),
        ({"job": "4294967296"}, "'4294967296' is no job id"),
        ({"job": "9" * 5000}, "'999"),
    ],
)
def test_what_cannot_be_meant_is_said(words: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(words)
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"all": False},
        {"all": 1},
        {"all": "true"},
        {"all": True, "job": 1},
        {"state": "all"},
        {"reason": None},
        {"job": "all"},
    ],
)
def test_a_change_of_all_messages_must_be_asked_for(words: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="or all of them with all: true"):
        parse_for_change(words)
    assert parse_for_change({"all": True}) == Selection()


@pytest.mark.parametrize(("word", "expected"), [(None, 5), ("", 5), ("0", 0), (7, 7), ("10", 10)])
def test_a_number(word: object, expected: int) -> None:
    assert parse_number({"limit": word}, "limit", 5, 10) == expected


@pytest.mark.parametrize("word", ["11", "-1", "x", "²", True, 1.0, "9" * 5000, [1]])
def test_a_number_that_cannot_be_used(word: object) -> None:
    with pytest.raises(UsageError, match="limit is"):
        parse_number({"limit": word}, "limit", 5, 10)


def test_a_number_may_have_to_be_more_than_none() -> None:
    with pytest.raises(UsageError, match="must be from 1 to 10"):
        parse_number({"limit": "0"}, "limit", 5, 10, least=1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*KEYS, "x"]), st.text(max_size=12) | st.integers() | st.none() | st.booleans()))
def test_any_words_are_a_selection_or_refused_in_one_line(words: dict[str, object]) -> None:
    try:
        selection = parse(words)
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert parse(selection.as_words()) == selection

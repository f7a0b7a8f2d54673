"""What a start and a row say about nodes, and how the difference is told."""

from __future__ import annotations

import json
import re

import pytest

from cc_slurm_adapter.model import Missing, Resource
from cc_slurm_adapter.sinks.allocation import Allocation, Share, parse_allocation
from cc_slurm_adapter.sinks.messages import CcMessages
from tests.fakes.slurm_and_sinks import make_run

BOTH = Share((0, 1), ("a", "b"))


def test_order_and_what_is_left_out_mean_nothing() -> None:
    start = {"resources": [{"hostname": "n2"}, {"hostname": "n1", "hwthreads": [1, 0], "accelerators": ["b", "a"]}]}
    row = {
        "resources": [
            {"hostname": "n1", "hwthreads": [0, 1], "accelerators": ["a", "b"]},
            {"hostname": "n2", "hwthreads": None, "accelerators": []},
        ],
        "numAcc": 0,
        "user": "alice",
    }
    assert parse_allocation(start) == parse_allocation(row) == Allocation({"n1": BOTH, "n2": Share()})
    assert parse_allocation({"resources": None}) == Allocation({})


@pytest.mark.parametrize("job", [{}, {"resources": [{}]}, {"resources": [{"hostname": "n", "hwthreads": ["x"]}]}])
def test_another_form_is_an_error(job: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        parse_allocation(job)


def test_what_is_compared_is_what_a_start_says_and_nothing_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[int] = []
    addresses = ((re.compile("node01"), ("a", "")), (re.compile("node"), ("z", "y")))
    messages = CcMessages(addresses, (), counted.append, str.upper)
    nodes = (Resource("node01", (1, 0), (0, 1), 8, 2), Resource("node02", (3,), (1, 0), 8, 2))
    for run in (make_run(1, resources=nodes), make_run(1, resources=nodes, missing=frozenset(Missing), num_gpus=9)):
        found = messages.allocation_of(run)
        assert (counted, caplog.text) == ([], "")
        assert found == parse_allocation(json.loads(messages.encode_start(run).whole()))
        counted.clear()
        caplog.clear()
    assert found == Allocation({"NODE01": Share((0, 1, 8, 9), ("a",)), "NODE02": Share((3, 11), ("y", "z"))}, 9)


@pytest.mark.parametrize(
    ("now", "before", "lacks"),
    [
        (BOTH, BOTH, ""),
        (Share((5,), ("z",)), BOTH, ""),
        (BOTH, Share(), ""),
        (Share(), BOTH, "hwthreads and accelerators of n1"),
        (Share((0,)), BOTH, "accelerators of n1"),
        (Share((), ("a",)), BOTH, "hwthreads of n1"),
    ],
)
def test_what_a_host_no_longer_has_is_named(now: Share, before: Share, lacks: str) -> None:
    assert Allocation({"n1": now}).lacks_of(Allocation({"n1": before})) == lacks


def test_hosts_of_other_names_are_compared_together() -> None:
    before = Allocation({"n1": BOTH, "n2": Share((0,))})
    assert Allocation({"m1": BOTH, "m2": Share((0,))}).lacks_of(before) == ""
    assert Allocation({"m1": Share((0,)), "m2": Share((0,))}).lacks_of(before) == "accelerators of all its nodes"


def test_the_difference_is_short_however_large_the_run_is() -> None:
    before = Allocation({f"n{number}": Share(tuple(range(100))) for number in range(5)}, 4)
    now = Allocation({f"n{number}": Share(tuple(range(100, 200)), ("a",)) for number in range(5)}, 5)
    text = now.changes_from(before)
    assert text.startswith("n0: hwthreads 0 1 2 3 4 5 6 7 and 92 more -> 100 101 102 103 104 105 106 107 and 92 more, ")
    assert ", accelerators none -> a; n1: " in text
    assert text.endswith("; 2 more hosts; numAcc 4 -> 5")
    assert "n3" not in text


def test_hosts_that_came_and_went_are_named() -> None:
    before, now = Allocation({"a": BOTH, "b": BOTH}), Allocation({"b": BOTH, "c": BOTH})
    assert now.changes_from(before) == "hosts a -> c"

"""slurmctld's clock beside ours, and its messages for slurmdbd, as sdiag of real Slurms prints them."""

from __future__ import annotations

import re

import pytest

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.controller_state import ControllerState, parse_controller_state
from tests.recorded.fixture_files import FIXTURES

# The number in the first line of each recording.
RECORDED = {"22.05.8": 1795934115, "24.11.5": 1795934119, "26.05.5": 1795934376}
TEXT = "sdiag output at Sun Nov 29 06:35:15 2026 (1000)\nDBD Agent queue size: 7\n"


@pytest.mark.parametrize(("version", "expected"), RECORDED.items())
def test_the_clock_is_read_from_what_each_release_prints(version: str, expected: int) -> None:
    text = (FIXTURES / f"slurm-{version}" / "cluster" / "sdiag.txt").read_text()
    state = parse_controller_state(text, expected, expected + 0.5)
    assert (state.time, state.backlog, state.difference) == (expected, 0, 0.0)


@pytest.mark.parametrize("version", RECORDED)
def test_what_has_no_time_is_not_taken_for_one(version: str) -> None:
    text = (FIXTURES / f"slurm-{version}" / "cluster" / "sdiag.txt").read_text()
    with pytest.raises(UnexpectedOutput, match="sdiag output at"):
        parse_controller_state(re.sub(r"sdiag output at.*", "", text), 0.0, 1.0)


@pytest.mark.parametrize(
    ("asked", "answered", "difference"),
    [
        (999.5, 999.9, 0.1),  # it shows 1000, so it is 0.1 s ahead at least
        (1000.2, 1000.4, 0.0),
        (1001.0, 1003.0, 0.0),  # it may have been 1000.999 when it was asked
        (1005.0, 1005.2, 4.0),
        (940.0, 941.0, 59.0),
    ],
)
def test_clocks_differ_only_as_far_as_whole_seconds_and_the_way_show(
    asked: float, answered: float, difference: float
) -> None:
    state = parse_controller_state(TEXT, asked, answered)
    assert state.difference == pytest.approx(difference)
    assert state.backlog == 7


def test_the_sign_says_whose_clock_is_ahead() -> None:
    assert ControllerState(1000, 940.0, 941.0, 0).least_ahead > 0
    assert ControllerState(1000, 1005.0, 1006.0, 0).most_ahead < 0

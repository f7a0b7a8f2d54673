"""The form in which a status goes over the control socket."""

from __future__ import annotations

import json

import pytest

from cc_slurm_adapter.daemon.report import (
    from_json,
)
from tests.fakes.statuses import REPORT


def test_it_comes_back_as_it_was() -> None:
    assert from_json(REPORT.as_json()) == REPORT


def test_it_is_an_object_with_a_version_and_names() -> None:
    plain = json.loads(REPORT.as_json())
    assert plain["version"] == 1
    assert plain["destinations"][0]["queue"]["pending"] == 12
    assert plain["parked"][0]["first"] == {"cluster": "alex", "job_id": 5, "start_time": 1_799_000_100}
    assert plain["steps"]["accounting"]["failures"] == 7


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "{}", '{"version": 1}', '{"version": 2}', "[" * 100_000, '{"version": 1, "time": 0, "program": 3}'],
)
def test_anything_else_is_refused_with_one_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"version|status|Expecting"):
        from_json(text)

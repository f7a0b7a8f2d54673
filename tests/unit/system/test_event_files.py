"""Names of files in the events folder."""

from __future__ import annotations

import pytest

from cc_slurm_adapter.system.event_files import is_marker_name, looks_like_event, marker_name


@pytest.mark.parametrize("name", ["1..lab.1", "0...1", "9" * 20 + ".prolog_slurmctld.aZ09_-x.77"])
def test_names_that_the_shell_part_can_leave_look_like_events(name: str) -> None:
    assert looks_like_event(name)
    assert not looks_like_event(name + ".swp")
    assert not is_marker_name(name)


@pytest.mark.parametrize("cluster", ["lab", "", "a b", "../x"])
def test_marks_have_names_of_their_own(cluster: str) -> None:
    name = marker_name(cluster)
    assert is_marker_name(name)
    assert not looks_like_event(name)
    assert "/" not in name

"""Lines of the listing that are not read again: few are read, and no job is lost or wrong because of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.jobs.decisions import compare, vanished
from cc_slurm_adapter.jobs.open_runs import OpenRuns
from cc_slurm_adapter.jobs.quiet_lines import QuietLines
from cc_slurm_adapter.model import ListedJob, Phase, RunKey
from cc_slurm_adapter.outbox.outbox import OpenRun, Stage
from cc_slurm_adapter.sinks.base import Kind
from cc_slurm_adapter.slurm.interface import Sift
from cc_slurm_adapter.slurm.parse.listing import parse_listing
from tests.fakes.slurm_and_sinks import NOW, FakeSlurm, make_run
from tests.unit.jobs.test_watch import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.outbox.close()


def settle(lab: Lab, *job_ids: int) -> None:
    """These jobs run and are reported, and a poll finds nothing new any more."""
    for job_id in job_ids:
        lab.slurm.put(make_run(job_id))
    lab.poll()
    lab.poll()
    lab.pop_pending()
    lab.poll()
    assert lab.slurm.read == []


def test_a_poll_in_which_nothing_has_changed_reads_no_line_at_all(lab: Lab) -> None:
    settle(lab, 1, 2, 3)
    lab.slurm.asked.clear()
    lab.poll()
    assert lab.slurm.read == []
    assert set(lab.slurm.asked) == {"node_states", "list_jobs"}
    assert lab.watch.report.started == 3


def test_only_the_line_that_has_changed_is_read(lab: Lab) -> None:
    settle(lab, 1, 2, 3)
    ended = lab.slurm.put(make_run(2, phase=Phase.ENDED))
    lab.poll()
    assert len(lab.slurm.read) == 1
    assert lab.pop_pending() == [(Kind.STOP, ended.key)]
    assert lab.watch.report.started == 2


def test_a_new_job_is_reported_between_others_that_are_not_read(lab: Lab) -> None:
    settle(lab, 1, 3)
    new = lab.slurm.put(make_run(2, start=NOW - 5))
    lab.poll()
    assert len(lab.slurm.read) == 1
    assert lab.pop_pending() == [(Kind.START, new.key)]


def test_a_job_that_is_requeued_and_runs_again_under_its_id_is_a_new_run(lab: Lab) -> None:
    settle(lab, 1, 2)
    first = make_run(1)
    second = lab.slurm.put(make_run(1, start=NOW - 5))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, second.key)]
    assert {run.key for run in (first, second)} == {key for key in lab.watch._store.open_runs if key.job_id == 1}
    lab.slurm.put(replace(second, phase=Phase.ENDED, end=make_run(1, start=NOW - 5, phase=Phase.ENDED).end))
    lab.poll()
    assert lab.pop_pending() == [(Kind.STOP, second.key)]


def test_what_vanishes_is_noticed_at_the_first_poll_that_lacks_it_and_at_all_later_ones(lab: Lab) -> None:
    settle(lab, 1, 2)
    gone = lab.slurm.jobs.pop(1)
    for _ in range(2):
        lab.poll()
        assert list(lab.watch._vanished) == [gone.key]
        assert lab.slurm.read == []
    lab.slurm.put(gone)
    lab.poll()
    assert len(lab.slurm.read) == 1
    assert lab.watch._vanished == {}


def test_the_line_of_a_run_that_a_hook_event_has_ended_is_read(lab: Lab) -> None:
    settle(lab, 1, 2)
    running = lab.slurm.jobs[1]
    lab.slurm.put(make_run(1, phase=Phase.ENDED))
    lab.watch.look_up([1])
    assert lab.pop_pending() == [(Kind.STOP, running.key)]
    lab.slurm.put(running)  # the listing was older than the lookup
    lab.poll()
    assert len(lab.slurm.read) == 1
    assert lab.pop_pending() == []
    assert lab.watch.report.started == 1


def test_a_listing_that_fails_in_its_middle_changes_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(lab, 1, 2, 3)
    whole = FakeSlurm.list_jobs

    def fail(self: FakeSlurm, sift: Sift) -> Iterator[ListedJob]:
        yield from whole(self, lambda lines: sift(list(lines)[:1]))
        raise CommandFailed("slurmctld is gone")

    lab.slurm.put(make_run(2, phase=Phase.ENDED))
    with monkeypatch.context() as patch:
        patch.setattr(FakeSlurm, "list_jobs", fail)
        with pytest.raises(CommandFailed):
            lab.poll()
    assert lab.pop_pending() == []
    lab.poll()
    assert len(lab.slurm.read) == 1
    assert lab.pop_pending() == [(Kind.STOP, make_run(2).key)]
    assert lab.watch._vanished == {}


def test_a_restart_reads_all_lines_and_a_reload_or_a_step_of_the_clock_changes_nothing(lab: Lab) -> None:
    settle(lab, 1, 2)
    lab.now -= 7200
    lab.watch.forget_broken()
    lab.poll()
    assert lab.slurm.read == []
    lab.restart()
    lab.poll()
    assert len(lab.slurm.read) == 2
    assert lab.pop_pending() == []
    assert lab.watch.report.started == 2


def test_a_run_whose_nodes_are_made_ready_is_followed(lab: Lab) -> None:
    preparing = lab.slurm.put(make_run(1, phase=Phase.CONFIGURING))
    lab.poll()
    lab.poll()
    lab.poll()
    assert lab.slurm.read == []
    assert lab.pop_pending() == []
    lab.slurm.put(replace(preparing, phase=Phase.RUNNING))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, preparing.key)]


def test_a_run_that_is_listed_twice_has_vanished_only_when_both_lines_are_gone() -> None:
    key, other = RunKey("lab", 1, 10), RunKey("lab", 2, 10)
    quiet = QuietLines()

    def listing(*lines: bytes) -> list[bytes]:
        part = quiet.begin()
        read = list(part.sift(lines))
        quiet.finish(part, dict.fromkeys([key] * len(read), read[-1] if read else b""))
        return read

    assert listing(b"1 a") == [b"1 a"]
    assert listing(b"1 a", b"1 b", b"1 a") == [b"1 b"]
    assert list(quiet.without([key, other])) == [other]
    assert listing(b"1 b") == [b"1 b"]
    assert listing(b"1 b") == []
    assert listing() == []
    assert list(quiet.without([key, other])) == [key, other]


# So few different ones that most lines and runs come again.
WORDS = ("RUNNING", "CONFIGURING", "COMPLETING", "COMPLETED")
JOBS, STARTS = st.integers(1, 2), st.sampled_from((10, 10, 10, 20))
LINES = st.lists(st.builds("{}|{}|{}|30|n".format, JOBS, st.sampled_from(WORDS), STARTS), max_size=3)
RUNS = st.builds(
    lambda job, start, stage, lost: OpenRun(RunKey("lab", job, start), stage, "n", None, lost),
    JOBS,
    STARTS,
    st.sampled_from((Stage.STARTED, *Stage)),
    st.sampled_from((None, None, 25)),
)
STEPS = st.lists(st.tuples(st.lists(RUNS, max_size=2), LINES, st.integers(0, 3).map(bool)), max_size=12)


@given(STEPS)
def test_whatever_is_listed_and_known_the_same_follows_as_if_all_lines_were_read(
    steps: list[tuple[list[OpenRun], list[str], bool]],
) -> None:
    """Between the listings any runs begin, change and end. Some listings break off after their first line."""
    runs = OpenRuns()
    for changes, lines, is_complete in steps:
        for run in changes:
            runs.put(run)
        listing = [line.encode() for line in lines]
        part = runs.quiet.begin()
        if not is_complete:
            compare(parse_listing(part.sift(listing[:1])), runs, "lab")
            continue
        found = compare(parse_listing(part.sift(listing)), runs, "lab")
        runs.quiet.finish(part, found.seen)
        absent = vanished(found, runs, runs.quiet.without(runs))
        whole = compare(parse_listing(listing), runs, "lab")
        assert (found.ended, found.to_read, found.unknown_keys) == (whole.ended, whole.to_read, whole.unknown_keys)
        assert set(absent) == set(vanished(whole, runs, runs))

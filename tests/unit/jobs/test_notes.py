"""What the state file keeps about exceptional runs, and that ordinary ones have no note."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cc_slurm_adapter.jobs import broken_jobs, notes
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.report import JobNotes
from cc_slurm_adapter.model import End, EndState, Missing, Phase, RunKey
from cc_slurm_adapter.sinks.base import CC_REST, RunningRow, RunningRows
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.unit.jobs.test_watch import Lab

REQUEUED = End(EndState.CANCELLED, NOW - 50, "REQUEUED")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.outbox.close()


def noted(lab: Lab, job_id: int = 1) -> list[tuple[str, str]]:
    """The stage and the note of each run of a job in the state file, the latest first."""
    return [(run.stage, run.note) for run in lab.outbox.admin.rows_of_job(job_id).runs]


def test_an_ordinary_run_has_no_note(lab: Lab) -> None:
    lab.slurm.put(make_run(1))
    lab.poll()
    lab.slurm.put(make_run(1, phase=Phase.ENDED))
    lab.poll()
    assert noted(lab) == [("done", "")]


def test_a_run_that_is_left_out_says_by_what_also_when_it_is_over(lab: Lab) -> None:
    lab.ignore = IgnoreRules(partitions=re.compile("main"))
    lab.restart()
    lab.slurm.put(make_run(1))
    lab.slurm.put(make_run(2, opted_out=True))
    lab.poll()
    assert noted(lab) == [("ignored", "left out: ignorePartitions")]
    assert noted(lab, 2) == [("ignored", "left out: its AdminComment has disable_cc_submission")]
    lab.restart()
    lab.slurm.put(make_run(1, phase=Phase.ENDED))
    lab.poll()
    assert noted(lab) == [("done", "left out: ignorePartitions")]


def test_the_note_stays_if_the_end_is_read_with_the_details(lab: Lab) -> None:
    lab.ignore = IgnoreRules(users=re.compile("alice"))
    lab.restart()
    lab.slurm.put(make_run(1))
    lab.watch.look_up([1])
    lab.slurm.put(make_run(1, phase=Phase.ENDED))
    lab.watch.look_up([1])
    assert noted(lab) == [("done", "left out: ignoreUsers")]


def test_a_run_without_all_its_resources_says_which_and_why(lab: Lab) -> None:
    lab.slurm.close(make_run(1, phase=Phase.ENDED))
    lab.slurm.put(make_run(2, missing=frozenset({Missing.GPUS})))
    lab.poll()
    lab.catch_up(NOW - 1000)
    assert noted(lab) == [("done", "without its cores and gpus: ended before it was seen")]
    assert noted(lab, 2) == [("started", "without its gpus: Slurm does not say which")]


def test_a_run_that_launched_nothing_says_so(lab: Lab) -> None:
    idle = lab.slurm.close(make_run(1, NOW - 100, Phase.ENDED, end=REQUEUED))
    lab.slurm.idle.add(idle.key)
    lab.catch_up(NOW - 1000)
    assert noted(lab) == [("done", notes.IDLE)]


def test_a_part_of_a_resized_run_says_so(lab: Lab) -> None:
    run = lab.slurm.close(make_run(1, NOW - 100, Phase.ENDED))
    lab.slurm.rests[run.key] = RunKey("lab", 1, NOW - 80)
    lab.catch_up(NOW - 1000)
    assert ("done", notes.REMAINDER) in noted(lab)


def test_a_run_that_never_ran_says_so(lab: Lab) -> None:
    lab.slurm.put(make_run(1, phase=Phase.ENDED, resources=()))
    lab.watch.look_up([1])
    assert noted(lab) == [("done", notes.NEVER_RAN)]


def test_a_run_that_only_slurmctld_could_have_told_of_says_that_it_was_forgotten(lab: Lab) -> None:
    lab.has_accounting = False
    lab.restart()
    lab.slurm.put(make_run(1))
    lab.poll()
    del lab.slurm.jobs[1]
    lab.slurm.forgotten.add(1)
    lab.poll()
    lab.catch_up(NOW - 1000)
    assert noted(lab) == [("done", notes.FORGOTTEN_BY_SLURM)]


def test_a_run_that_was_stopped_because_cc_backend_had_it_says_so(lab: Lab) -> None:
    run = lab.slurm.close(make_run(1, NOW - 1000, Phase.ENDED))
    lab.watch.reconcile(RunningRows(CC_REST, [RunningRow(1, run.key.start_time)], NOW))
    assert noted(lab) == [("done", notes.STOPPED_THERE)]


def test_what_only_the_daemon_knows_about_a_job(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken_jobs, "MAX_BROKEN", 2)
    waiting = lab.slurm.put(replace(make_run(1), awaits_layout=True))
    for job_id in (2, 3, 4):
        lab.slurm.put(make_run(job_id))
        lab.slurm.broken[job_id] = f"jobs[{job_id}].nodes: it is missing"
    lab.watch.look_up([1, 2, 3, 4])
    assert lab.watch.notes_of(1) == JobNotes("", (waiting.key.start_time,))
    assert lab.watch.notes_of(2) == JobNotes()  # the oldest one, and only two are remembered
    assert lab.watch.notes_of(4) == JobNotes("jobs[4].nodes: it is missing")
    lab.watch.forget_broken()
    assert lab.watch.notes_of(4) == JobNotes()

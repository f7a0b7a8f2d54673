"""A list of what cc-backend believes to run is some seconds old when it is compared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.model import Phase, Run, RunKey
from cc_slurm_adapter.sinks.base import Kind, RunningRow, RunningRows
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.unit.jobs.test_watch import SINK, Lab, stop_times


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Its clock is the host's, as the outbox notes by that when something was settled."""
    made = Lab(tmp_path)
    made.now = int(time.time())
    yield made
    made.outbox.close()


def run_of(lab: Lab, job_id: int = 1, phase: Phase = Phase.RUNNING, *, ended_ago: int = 0) -> Run:
    run = make_run(job_id, start=lab.now - 9000, phase=phase)
    if run.end is None:
        return run
    return make_run(job_id, start=lab.now - 9000, phase=phase, end=run.end._replace(end_time=lab.now - ended_ago))


def listed(*runs: Run, asked: float) -> RunningRows:
    rows = [RunningRow(run.key.job_id, run.key.start_time) for run in runs]
    return RunningRows(SINK.name, rows, asked)


def end(lab: Lab, run: Run, *, ended_ago: int = 0) -> None:
    over = run_of(lab, run.key.job_id, Phase.ENDED, ended_ago=ended_ago)
    lab.slurm.put(over)
    lab.slurm.close(over)


def test_what_was_told_to_be_over_since_the_list_was_asked_for_is_not_told_again(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    run = lab.slurm.put(run_of(lab))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, run.key)]
    asked = time.time()
    end(lab, run, ended_ago=500)  # which Slurm shows only now
    lab.poll()
    assert lab.pop_pending() == [(Kind.STOP, run.key)]
    lab.watch.reconcile(listed(run, asked=asked))
    assert lab.pop_pending() == []
    assert "not known to run" not in caplog.text


def test_what_waited_to_be_told_when_the_list_was_asked_for_is_not_told_again(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.slurm.put(run_of(lab))
    lab.poll()
    end(lab, run, ended_ago=500)
    lab.poll()
    real, later = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + later)
    later = 100.0  # cc-backend was away, and is back
    asked = time.time()
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]
    lab.watch.reconcile(listed(run, asked=asked))
    assert lab.pop_pending() == []
    assert "not known to run" not in caplog.text


def test_what_ended_since_the_list_was_asked_for_is_left_to_the_poll_that_finds_it(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(lab)
    lab.poll()
    end(lab, run, ended_ago=5)  # it was never seen here
    lab.watch.reconcile(listed(run, asked=lab.now - 5))
    assert lab.pop_pending() == []
    assert "not known to run" not in caplog.text
    lab.watch.reconcile(listed(run, asked=lab.now - 4))
    assert lab.pop_pending() == [(Kind.STOP, run.key)]
    assert "1 running jobs that are not known to run: according to Slurm 1 of them are over" in caplog.text


def test_a_stop_that_was_lost_is_told_again_by_a_later_list(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lab.slurm.put(run_of(lab))
    lab.poll()
    end(lab, run, ended_ago=500)
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]
    lab.watch.reconcile(listed(run, asked=time.time() + 2))
    assert lab.pop_pending() == [(Kind.STOP, run.key)]


def test_without_accounting_a_forgotten_job_is_over_although_nobody_knows_since_when(tmp_path: Path) -> None:
    lone = Lab(tmp_path)
    lone.has_accounting = False
    lone.restart()
    lone.slurm.forgotten = {3}
    lone.watch.reconcile(RunningRows(SINK.name, [RunningRow(3, NOW - 9000)], NOW - 10))
    assert stop_times(lone) == {RunKey("lab", 3, NOW - 9000): ("failed", NOW)}
    lone.outbox.close()

"""Runs are recorded some at a time, with their texts; each job is isolated from the others."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Label, Sample
from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.jobs import recorder
from cc_slurm_adapter.model import Missing, Phase, Run
from cc_slurm_adapter.outbox.outbox import Batch
from cc_slurm_adapter.sinks.base import Kind
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.unit.jobs.test_watch import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.outbox.close()


@pytest.fixture
def lone(lab: Lab) -> Lab:
    """A site without slurmdbd."""
    lab.has_accounting = False
    lab.restart()
    return lab


def test_texts_that_could_not_be_had_are_asked_for_in_smaller_groups(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    with_texts = lab.slurm.with_texts

    def some(runs: list[Run]) -> Generator[Run, None, None]:
        sizes.append(len(runs))
        if len(sizes) <= 3:
            raise CommandFailed("scontrol gave no answer within 900 s")
        return with_texts(runs)

    monkeypatch.setattr(lab.slurm, "with_texts", some)
    for job_id in range(1, 101):
        lab.slurm.put(make_run(job_id))
    for _ in range(3):
        with pytest.raises(CommandFailed):
            lab.poll()
    lab.poll()
    assert sizes[:4] == [100, 50, 25, 12]
    assert len(lab.pop_pending()) == 100


def test_fewer_texts_are_asked_for_at_once_while_they_take_long(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds_for_each, now, sizes = 0.5, 0.0, []
    with_texts = lab.slurm.with_texts

    def limited(runs: list[Run]) -> Generator[Run, None, None]:
        nonlocal now
        sizes.append(len(runs))
        now += seconds_for_each * len(runs)
        return with_texts(runs)

    monkeypatch.setattr(lab.slurm, "with_texts", limited)
    monkeypatch.setattr("cc_slurm_adapter.jobs.recorder.time.monotonic", lambda: now)
    for job_id in range(1, 151):
        lab.slurm.put(make_run(job_id))
    lab.poll()
    assert sizes[:3] == [100, 4, 4]
    assert sum(sizes) == 150
    sizes.clear()
    seconds_for_each = 0.0
    for job_id in range(200, 300):
        lab.slurm.put(make_run(job_id))
    lab.poll()
    assert sizes[:4] == [4, 8, 16, 32]
    assert len(lab.pop_pending()) == 250


def test_many_long_scripts_are_written_in_parts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for job_id in range(1, 9):
        lab.slurm.put(make_run(job_id))
    monkeypatch.setattr(recorder, "COMMIT_BYTES", 500)
    written: list[int] = []
    commit = lab.outbox.commit

    def watched(cluster: str, batch: Batch) -> None:
        written.append(batch.size)
        commit(cluster, batch)

    monkeypatch.setattr(lab.outbox, "commit", watched)
    lab.poll()
    assert len(lab.pop_pending()) == 8
    assert len(written) > 2
    assert max(written) < 1000


def test_runs_whose_texts_were_complete_are_kept_when_slurm_fails_for_the_next(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [lab.slurm.put(make_run(job_id)) for job_id in range(1, 5)]
    with_texts = lab.slurm.with_texts

    def breaks(wanted: list[Run]) -> Generator[Run, None, None]:
        yield from with_texts(wanted[:2])
        raise CommandFailed("scontrol: Unable to contact slurm controller")

    with monkeypatch.context() as failing:
        failing.setattr(lab.slurm, "with_texts", breaks)
        with pytest.raises(CommandFailed):
            lab.poll()
    assert lab.pop_pending() == [(Kind.START, run.key) for run in runs[:2]]
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, run.key) for run in runs[2:]]


def test_a_running_job_without_gpu_indices_was_not_seen_too_late(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lab.slurm.put(make_run(missing=frozenset({Missing.GPUS})))
    lab.poll()
    lab.catch_up(NOW - 60)
    assert "reported without its gpus" in caplog.text
    assert "too late" not in caplog.text
    assert lab.status.samples() == (Sample("incomplete_runs", (Label("missing", "gpus"), Label("why", "not_told")), 1),)


def test_what_is_left_out_is_said_also_when_it_is_over_already(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lab.slurm.put(make_run(phase=Phase.ENDED, opted_out=True))
    lab.poll()
    assert "is left out: its AdminComment" in caplog.text


def test_a_run_whose_cores_cannot_be_numbered_yet_waits_for_the_nodes(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    run = lab.slurm.put(make_run(1, awaits_layout=True))
    other = lab.slurm.put(make_run(2))
    for _ in range(3):
        list(lab.watch.poll())
        assert not lab.watch.is_settled(1, over=False)
    assert lab.pop_pending() == [(Kind.START, other.key)]
    assert lab.slurm.asked.count("read_details") == 1
    assert caplog.text.count("1 run waits until sinfo lists the nodes") == 1
    lab.slurm.put(make_run(1))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, run.key)]


def test_a_run_that_waits_for_the_nodes_is_not_told_from_accounting_but_what_is_known_ends(lab: Lab) -> None:
    known = lab.slurm.put(make_run(1))
    lab.poll()
    lab.pop_pending()
    for job_id in (1, 2):
        lab.slurm.put(make_run(job_id, phase=Phase.ENDED, awaits_layout=True))
        lab.slurm.close(make_run(job_id, phase=Phase.ENDED))
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == [(Kind.STOP, known.key)]
    whole = lab.slurm.put(make_run(2, phase=Phase.ENDED))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, whole.key), (Kind.STOP, whole.key)]


def test_without_accounting_a_run_that_waits_is_read_again_and_reported_as_it_is_once_it_is_over(lone: Lab) -> None:
    """Nobody tells of it later: slurmctld forgets it, and then it would be lost."""
    run = lone.slurm.put(make_run(1, awaits_layout=True))
    for _ in range(3):
        list(lone.watch.poll())
    assert lone.pop_pending() == []
    lone.slurm.put(make_run(1, awaits_layout=True, phase=Phase.ENDED))
    lone.poll()
    assert lone.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]


def test_a_run_that_is_left_out_waits_for_nothing(lab: Lab) -> None:
    lab.slurm.put(make_run(1, awaits_layout=True, opted_out=True))
    lab.poll()
    assert lab.watch.report.open == 1
    assert lab.pop_pending() == []


def test_a_job_that_cannot_be_understood_costs_no_other_job_anything(lab: Lab) -> None:
    lab.slurm.put(make_run(1))
    other = lab.slurm.put(make_run(2))
    lab.slurm.broken = {1: "jobs[1].nodes: no host list"}
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, other.key)]
    lab.slurm.asked.clear()
    lab.poll()
    assert "read_details" not in lab.slurm.asked
    lab.slurm.broken = {}
    lab.watch.forget_broken()
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, lab.slurm.jobs[1].key)]


def test_a_job_that_could_not_be_understood_counts_as_long_as_slurmctld_lists_it(lab: Lab) -> None:
    lab.slurm.put(make_run(1))
    lab.slurm.broken = {1: "jobs[1].nodes: no host list"}
    lab.poll()
    assert lab.watch.report.not_understood == 1
    del lab.slurm.jobs[1]
    lab.poll()
    assert lab.watch.report.not_understood == 0
    assert lab.watch.notes_of(1).not_understood == "jobs[1].nodes: no host list"

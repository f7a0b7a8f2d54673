"""How a single round is shown and reported: what is not done, what waits and why, and the exit code."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cc_slurm_adapter.__main__ import main
from cc_slurm_adapter.cli.main import USAGE
from cc_slurm_adapter.cli.once import DELIVERED, NOT_ALL, RoundBar, refuse_root, report_end
from cc_slurm_adapter.cli.progress import Bar
from cc_slurm_adapter.daemon.one_round import RoundEnd
from cc_slurm_adapter.daemon.report import DestinationReport, StatusReport
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.jobs.report import RunsReport
from cc_slurm_adapter.log import Work
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.report import Parked, QueueReport, SinkReport
from tests.fakes.clock import Clock
from tests.fakes.statuses import NOW, WELL

NOBODY = 65534
REST = SinkReport("cc_rest", "cc-backend", last_answer=NOW)
IDLE = replace(WELL, destinations=(DestinationReport(REST, QueueReport("cc_rest")),), parked=(), runs=RunsReport())


def end(
    report: StatusReport = IDLE,
    undone: tuple[str, ...] = (),
    *,
    is_delivered: bool = True,
    is_late: bool = False,
    is_stopped: bool = False,
) -> RoundEnd:
    return RoundEnd(report, undone, is_delivered, is_late, is_stopped)


def reported(made: RoundEnd, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = report_end("once", made, 600)
    return code, [line.removeprefix("cc-slurm-adapter: once: ") for line in capsys.readouterr().err.splitlines()]


def test_all_is_delivered(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(end(), capsys) == (DELIVERED, ["all was read and is delivered"])


def test_what_waits_is_said_with_the_reason_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    away = REST._replace(failing_since=NOW - 5, why="connection refused")
    waiting = replace(IDLE, destinations=(DestinationReport(away, QueueReport("cc_rest", 12)),))
    code, said = reported(end(waiting, is_delivered=False, is_late=True), capsys)
    assert code == NOT_ALL
    assert said == [
        "not complete after 10 min (-timeout allows more)",
        "12 messages wait for cc-backend, which cannot be reached: connection refused: it is in the state file, and the"
        " next -once or daemon sends it",
    ]


def test_a_delivery_that_takes_too_long_is_said_although_reading_had_no_limit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report_end("sync", end(is_late=True), float("inf")) == NOT_ALL
    assert "sync: not delivered yet (-timeout allows more)" in capsys.readouterr().err


def test_what_was_refused_or_not_understood_is_not_delivered(capsys: pytest.CaptureFixture[str]) -> None:
    parked = (Parked("cc_rest", 3, RunKey("lab", 7, 10), "HTTP 400: no such host"),)
    code, said = reported(end(replace(IDLE, parked=parked, runs=RunsReport(not_understood=2))), capsys)
    assert code == NOT_ALL
    assert said[0].startswith("parked: 3 for cc_rest, the first of job 7 of lab")
    assert said[1].startswith("2 jobs are not understood")


def test_a_step_that_failed_is_said_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    step = IDLE.steps["accounting"]._replace(why="sacct: slurmdbd is down", failing_since=NOW)
    steps = {**IDLE.steps, "accounting": step}
    code, said = reported(end(replace(IDLE, steps=steps), ("accounting",), is_late=True), capsys)
    assert (code, said[1]) == (NOT_ALL, f"not done: {step.name}: sacct: slurmdbd is down")


def test_a_start_that_was_not_complete_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    phase = "waiting for Slurm, which does not answer: it is down"
    starting = replace(IDLE, program=IDLE.program._replace(phase=phase), steps={})
    assert reported(end(starting, is_late=True), capsys)[1][1] == f"nothing was read: {phase}"


def test_nodes_that_nobody_was_told_of_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    for sink, says in (
        (REST._replace(failing_since=NOW, why="refused"), "it was not told the states of the nodes"),
        (REST._replace(nodes_why="HTTP 404"), "does not take the states of the nodes: HTTP 404"),
    ):
        report = replace(IDLE, destinations=(DestinationReport(sink, QueueReport("cc_rest")),))
        code, said = reported(end(report), capsys)
        assert code == NOT_ALL
        assert says in said[0]


def test_a_signal_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = reported(end(is_stopped=True), capsys)
    assert (code, said) == (NOT_ALL, ["stopped by a signal before its end; what waits is on disk"])


def test_long_work_and_then_the_delivery_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, drawn = Clock(), list[str]()
    bar = RoundBar("once")
    monkeypatch.setattr(bar, "bar", Bar("once", clock=clock, is_drawn=True, draw=drawn.append))
    bar.show(IDLE)
    assert drawn == []
    bar.show(replace(IDLE, work=(Work("reading new jobs", 250, 1000, NOW),)))
    for waiting in (40, 10):
        clock.now += 5
        bar.show(replace(IDLE, destinations=(DestinationReport(REST, QueueReport("cc_rest", waiting)),)))
    assert drawn == [
        "reading new jobs [#####...............] 25 % 250 of 1,000",
        "delivering [....................] 0 % 0 messages",
        "delivering [###############.....] 75 % 30 messages, 6.0/s, 1.6 s left",
    ]


def test_root_does_not_use_the_state_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    config = SimpleNamespace(state_path=str(tmp_path / "state.sqlite"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(StateError, match=r"belongs to .*: run this as .*, with `runuser -u"):
        refuse_root(config)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    refuse_root(config)  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [["-timeout", "x"], ["-timeout", "0s"], ["-json"], ["-since", "1h"], ["-daemon"]])
def test_wrong_flags(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-once", *flags]) == USAGE
    assert capsys.readouterr().err.count("\n") == 1

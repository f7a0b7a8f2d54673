"""The board that collects what all parts report."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cc_slurm_adapter.config.changes import Changes
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.answers import Answers
from cc_slurm_adapter.daemon.hook_check import HOOKS
from cc_slurm_adapter.daemon.job_state import parse_state
from cc_slurm_adapter.daemon.report import RUNNING, SLURMCTLD_HOOKS, HooksReport, StatusReport, from_json
from cc_slurm_adapter.daemon.status import MAX_FINDINGS, StatusBoard
from cc_slurm_adapter.errors import ConfigError, StateError
from cc_slurm_adapter.jobs.report import JobNotes, RunsReport
from cc_slurm_adapter.log import Work
from cc_slurm_adapter.model import Finding, RunKey
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.outbox.report import QueueReport, SinkReport
from cc_slurm_adapter.sinks.base import CC_REST, Encoded, Kind


def no_reload(by: str) -> Changes:
    raise AssertionError(f"{by} asks for a reload")


class Woken:
    """Destinations that count how often they were woken."""

    reports = (SinkReport(CC_REST, "cc-backend"),)

    def __init__(self) -> None:
        self.times = 0

    def wake(self) -> None:
        self.times += 1

    def retry_now(self) -> None:
        self.times += 10


@pytest.fixture
def board(tmp_path: Path) -> StatusBoard:
    return StatusBoard("/etc/config.json", str(tmp_path / "state.sqlite"), 1000, Counters())


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(str(tmp_path / "state.sqlite"), {CC_REST: ""})
    yield made
    made.close()


def collected(board: StatusBoard) -> StatusReport:
    """A report, by the way that it takes over the control socket."""
    report = board.collect()
    assert from_json(report.as_json()) == report
    return report


def test_a_daemon_that_has_only_begun_has_a_report(board: StatusBoard) -> None:
    board.phase = "waiting for Slurm"
    report = collected(board)
    assert report.program.phase == "waiting for Slurm"
    assert report.program.pid == os.getpid()
    assert report.program.config_path == "/etc/config.json"
    assert (report.destinations, report.steps, report.nodes) == ((), {}, {})
    assert report.state.max_bytes == 1000


def test_each_destination_has_the_queue_of_its_name(board: StatusBoard, outbox: Outbox) -> None:
    board.add(outbox=outbox, destinations=Woken())
    (destination,) = collected(board).destinations
    assert destination.sink.label == "cc-backend"
    assert destination.queue == QueueReport(CC_REST)


def test_progress_is_a_time_of_the_clock(board: StatusBoard) -> None:
    board.note_progress()
    assert abs(collected(board).program.progress_at - time.time()) < 60


def test_nodes_are_counted_by_the_state_that_is_reported(board: StatusBoard) -> None:
    words = {("IDLE",): 3, ("IDLE", "DRAIN"): 2, ("MIXED",): 4}
    activities = SimpleNamespace(
        steps={},
        hooks=SimpleNamespace(report=collected(board).hooks),
        nodes=SimpleNamespace(words=words),
        catch_up=SimpleNamespace(read_until=1_800_000_000),
    )
    board.add(activities=activities)
    report = collected(board)
    assert report.nodes == {"allocated": 0, "mixed": 4, "idle": 3, "reserved": 0, "down": 2}
    assert report.slurm.accounting_read_until == 1_800_000_000


def test_findings_are_logged_and_kept_once(board: StatusBoard, caplog: pytest.LogCaptureFixture) -> None:
    found = Finding(logging.WARNING, "hooks", "no hook is set", "set it")
    board.report_findings(found)
    board.report_findings(found)
    assert [record.message for record in caplog.records] == ["no hook is set: set it"] * 2
    (kept,) = collected(board).findings
    assert (kept.subject, kept.text) == ("hooks", "no hook is set")
    assert abs(kept.since - time.time()) < 60


@pytest.mark.parametrize(
    ("heard", "lasts"), [((), True), (("prolog_slurmctld",), True), (SLURMCTLD_HOOKS, False)], ids=["", "one", "both"]
)
def test_missing_hooks_are_no_fault_any_more_when_they_call(
    board: StatusBoard, heard: tuple[str, ...], lasts: bool
) -> None:
    board.keep_findings(Finding(logging.WARNING, HOOKS, "PrologSlurmctld is not set"))
    board.keep_findings(Finding(logging.WARNING, "user", "the daemon runs as root"))
    hooks = SimpleNamespace(report=HooksReport(2, 1.0, from_slurmctld=heard))
    parts = SimpleNamespace(
        hooks=hooks, steps={}, nodes=SimpleNamespace(words={}), catch_up=SimpleNamespace(read_until=0)
    )
    board.add(activities=parts)
    assert [each.subject for each in board.collect().findings] == [*([HOOKS] if lasts else []), "user"]


def test_findings_of_the_configuration_replace_those_before_and_keep_their_time(
    board: StatusBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting, over, new = (Finding(logging.WARNING, "configuration", text) for text in ("lasting", "over", "new"))
    monkeypatch.setattr("time.time", lambda: 1000.0)
    board.keep_of_config(lasting, over)
    monkeypatch.setattr("time.time", lambda: 2000.0)
    board.keep_of_config(lasting, new)
    board.keep_findings(Finding(logging.WARNING, "hooks", "of the site"))
    assert [(each.text, each.since) for each in board.collect().findings] == [
        ("lasting", 1000.0),
        ("new", 2000.0),
        ("of the site", 2000.0),
    ]
    board.keep_of_config(*[lasting] * 1000)
    assert len(board.collect().findings) == MAX_FINDINGS + 1


def test_of_many_findings_the_newest_are_kept(board: StatusBoard) -> None:
    for number in range(MAX_FINDINGS + 5):
        board.keep_findings(Finding(logging.WARNING, "host", f"number {number}"))
    kept = collected(board).findings
    assert len(kept) == MAX_FINDINGS
    assert kept[-1].text == f"number {MAX_FINDINGS + 4}"


def test_before_the_state_file_is_open_the_queue_cannot_be_asked(board: StatusBoard) -> None:
    board.phase = "opening the state file"
    answers = Answers(board, tuple, no_reload)
    with pytest.raises(StateError, match="has not opened its state file yet: opening the state file"):
        answers.queue_list({})


def test_after_a_change_the_senders_are_woken(board: StatusBoard, outbox: Outbox) -> None:
    woken = Woken()
    board.add(outbox=outbox, destinations=woken)
    answers = Answers(board, tuple, no_reload)
    answers.queue_retry({"all": True})
    answers.queue_drop({"all": True})
    assert woken.times == 11
    assert answers.queue_list({})["rows"] == []
    assert answers.job(7)["rows"] == []


def test_what_is_answered_about_a_job_is_what_the_command_reads(board: StatusBoard, outbox: Outbox) -> None:
    board.add(
        outbox=outbox, watch=SimpleNamespace(notes_of=lambda job_id: JobNotes(f"{job_id} is odd"), report=RunsReport())
    )
    state = parse_state(Answers(board, tuple, no_reload).job(7))
    assert state.rows.rows == ()
    assert state.daemon is not None
    assert (state.daemon.phase, state.daemon.not_understood) == ("starting", "7 is odd")


def test_what_is_answered_about_a_job_can_be_read_and_is_what_the_state_file_has(
    board: StatusBoard, outbox: Outbox
) -> None:
    """A message that is parked behind the probe of its reason, and a stop behind its start, wait for another one."""
    keys = [RunKey("lab", job_id, 1_700_000_000) for job_id in (7, 8)]
    runs = {key: OpenRun(key, Stage.DONE, "", None, note="cancelled before it began") for key in keys}
    kinds = (Kind.START, Kind.STOP)
    messages = [Message((CC_REST,), key, kind, Encoded(b'{"jobId":7}')) for kind in kinds for key in keys]
    outbox.commit("lab", Batch(runs=runs, messages=messages, checkpoint=1_700_000_100))
    for delivery in outbox.deliveries.due(CC_REST, time.time(), 10):
        outbox.deliveries.parked(delivery, "HTTP 400: no")
    board.add(outbox=outbox, watch=SimpleNamespace(notes_of=lambda _: JobNotes("why", (5,)), report=RunsReport()))
    for key in keys:
        state = parse_state(json.loads(json.dumps(Answers(board, tuple, no_reload).job(key.job_id))))
        assert state.rows == outbox.admin.rows_of_job(key.job_id)
        assert state.daemon is not None
        assert (state.daemon.not_understood, state.daemon.awaiting_layout) == ("why", (5,))


def test_the_page_and_the_metrics_are_made_from_the_report(board: StatusBoard) -> None:
    answers = Answers(board, lambda: (None,) * 60, no_reload)
    assert answers.page().startswith("<!DOCTYPE html>")
    assert "cc_slurm_adapter_build_info" in answers.metrics()
    assert answers.healthy() == []
    assert answers.ready() == ["starting"]


def test_a_reload_is_asked_for_by_whom_and_answered_with_what_changes(board: StatusBoard) -> None:
    asked: list[str] = []

    def ask(by: str) -> Changes:
        asked.append(by)
        return Changes(("ignoreUsers",), ("statePath",))

    answers = Answers(board, tuple, ask)
    board.phase = "waiting for Slurm"
    assert answers.reload(7) == {
        "in_force": ["ignoreUsers"],
        "need_restart": ["statePath"],
        "next": "it is done when the start is over (waiting for Slurm)",
    }
    board.phase = RUNNING
    assert answers.reload(0)["next"] == "it is done within seconds; the log and GET /status say how it went"
    assert asked == ["POST /reload of uid 7", "POST /reload of uid 0"]


@pytest.mark.parametrize(
    ("in_file", "words"),
    [
        (Changes(("gpuPciAddrs",), ()), "the configuration has changed since the daemon has read it (gpuPciAddrs)"),
        (ConfigError(["gpuPciAddrs: got 1", "xyzzy: no"]), "cannot be used: gpuPciAddrs: got 1; xyzzy: no"),
    ],
)
def test_nothing_is_sent_anew_before_a_reload_that_is_due(
    board: StatusBoard, in_file: Changes | ConfigError, words: str
) -> None:
    def preview() -> Changes:
        if isinstance(in_file, ConfigError):
            raise in_file
        return in_file

    answers = Answers(board, tuple, lambda by: Changes((), ()), preview=preview)
    with pytest.raises(StateError, match=re.escape(words)):
        answers.resend({"job": 1})


def test_long_work_is_in_the_report_while_it_lasts(board: StatusBoard) -> None:
    board.note_work("reading", Work("reading", 2, 9, 1_800_000_000.0))
    board.note_work("catching up", Work("catching up", 1, 2, 1_800_000_000.0))
    board.note_work("reading", Work("reading", 3, 9, 1_800_000_000.0))
    assert [(each.what, each.done) for each in collected(board).work] == [("catching up", 1), ("reading", 3)]
    board.note_work("reading", None)
    board.note_work("reading", None)
    assert [each.what for each in collected(board).work] == ["catching up"]


def test_all_is_delivered_when_no_message_waits_and_no_sender_has_anything(board: StatusBoard, outbox: Outbox) -> None:
    senders = SimpleNamespace(reports=(), is_idle=lambda: True)
    assert not board.is_delivered()  # nothing is known yet
    board.add(outbox=outbox, destinations=senders)
    assert board.is_delivered()
    senders.is_idle = lambda: False
    assert not board.is_delivered()
    senders.is_idle = lambda: True
    start = Message((CC_REST,), RunKey("lab", 1, 10), Kind.START, Encoded(b"{}"))
    outbox.commit("lab", Batch(messages=[start]))
    assert not board.is_delivered()
    assert board.collect(is_last=True).state.is_durable

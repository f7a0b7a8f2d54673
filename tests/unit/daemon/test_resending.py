"""The resend in the main loop: in steps, with cc-backend asked aside, and with an end in every case."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from cc_slurm_adapter.daemon.resend_requests import DONE, FAILED, UNDER_WAY, ResendRequest, ResendRequests
from cc_slurm_adapter.daemon.resending import Resending, Timing
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.resend import Resend
from cc_slurm_adapter.model import Run
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import CC_REST, Kind
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from examples.practice.cc_backend import CcBackend, CcBackendServer, NoAnswer, OtherAnswer
from tests.fakes.slurm_and_sinks import FakeSlurm, make_run
from tests.fakes.waiting import comes

WRONG, RIGHT = (CcMessages(((re.compile("node"), gpus),)) for gpus in (("wrong0", "wrong1"), ("right0", "right1")))
RUN = make_run(1)


class OneAnswer(NoAnswer):
    """Only the first request is answered."""

    def hits(self, path: str, job_id: int | None) -> bool:
        is_first = path.startswith(self.path) and not self.answered
        self.answered = self.answered or is_first
        return not is_first and super().hits(path, job_id)

    answered = False


class Daemon:
    """What of a daemon is needed: cc-backend has a run with the wrong GPUs, which Slurm shows."""

    def __init__(self, folder: Path) -> None:
        self.backend = CcBackend(commit_interval=0)
        self.server = CcBackendServer(self.backend)
        self.server.start()
        self.slurm = FakeSlurm()
        self.outbox = Outbox(str(folder / "state.sqlite"), {CC_REST: ""})
        self.report(RUN)
        self.handed: list[ResendRequest] = []
        self.requests = ResendRequests("lab", self.handed.append, over_rest=True)
        self.sink = CcRest(self.server.url, lambda: self.backend.token)
        self.make(Timing(tick=0.01))
        self.deliver()

    def make(self, timing: Timing) -> None:
        resend = Resend(self.slurm, self.outbox, RIGHT, CC_REST, "lab", IgnoreRules())
        self.resending = Resending(self.requests, resend, self.sink, "lab", timing=timing)

    def report(self, run: Run) -> None:
        """Slurm shows a run, and its start with the wrong GPUs waits."""
        self.slurm.put(run)
        self.outbox.commit(
            "lab",
            Batch(
                runs={run.key: OpenRun(run.key, Stage.STARTED, "node01", None)},
                messages=[Message((CC_REST,), run.key, Kind.START, WRONG.encode_start(run))],
            ),
        )

    def deliver(self) -> list[Kind]:
        """Send all that waits."""
        connection, sent = self.sink.connect(), []
        for (due,) in iter(lambda: self.outbox.deliveries.due(CC_REST, 1e12, 1), []):
            connection.deliver(due)
            self.outbox.deliveries.delivered(due)
            sent.append(due.kind)
        connection.close()
        return sent

    def begin(self, words: Mapping[str, object] = MappingProxyType({"job": 1})) -> None:
        self.requests.answer(self.outbox.admin, words, 0)
        self.resending.begin(self.handed[-1])

    def finish(self) -> dict[str, object]:
        assert comes(self.is_done)
        return self.requests.as_object()

    def is_done(self) -> bool:
        self.resending.attempt_step()
        return not self.resending.is_under_way

    def is_done_or_delivers(self) -> bool:
        """Whether it is done. If not, what waits is sent."""
        is_done = self.is_done()
        if not is_done:
            self.deliver()
        return is_done

    def close(self) -> None:
        self.outbox.close()
        self.server.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.close()


def test_a_run_is_sent_anew_and_the_difference_is_told(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    daemon.begin()
    assert daemon.requests.as_object()["state"] == UNDER_WAY
    report = daemon.finish()
    assert (report["state"], report["next"]) == (DONE, None)
    text = "node01: accelerators wrong0 wrong1 -> right0 right1"
    assert report["runs"] == [{"job_id": 1, "start_time": RUN.key.start_time, "result": "sent", "text": text}]
    said = "sent anew for an administrator (uid 0: job 1): 1 run; 0 stored as they are, 0 left alone"
    assert [each.message for each in caplog.records if each.levelname == "NOTICE"] == [said]
    assert daemon.deliver() == [Kind.REMOVE, Kind.START]
    daemon.begin()
    assert daemon.finish()["runs"] == [{"job_id": 1, "start_time": RUN.key.start_time, "result": "same", "text": ""}]
    assert daemon.deliver() == []


def test_without_a_request_there_is_nothing_to_do(daemon: Daemon) -> None:
    daemon.resending.attempt_step()
    assert not daemon.resending.is_under_way
    assert daemon.slurm.asked == []


def test_a_slurm_that_does_not_answer_ends_it(daemon: Daemon) -> None:
    daemon.slurm.failing.add("read_details")
    daemon.begin()
    report = daemon.finish()
    assert (report["state"], report["failure"]) == (FAILED, "read_details fails")
    assert daemon.deliver() == []


def test_a_cc_backend_that_cannot_be_asked_ends_it(daemon: Daemon) -> None:
    daemon.backend.add_fault(OtherAnswer("/api/jobs/", status=503, body=b"busy"))
    daemon.begin()
    report = daemon.finish()
    assert report["state"] == FAILED
    assert str(report["failure"]).startswith("cc-backend does not list jobs: HTTP 503")


def test_a_cc_backend_that_hangs_ends_it_and_no_thread_is_left(daemon: Daemon) -> None:
    daemon.make(Timing(tick=0.01, limit=0.3))
    with daemon.backend.fault(NoAnswer("/api/jobs/")):
        daemon.begin()
        report = daemon.finish()
    assert str(report["failure"]).startswith("cc-backend does not list these runs within")
    assert comes(lambda: "stored-runs" not in {each.name for each in threading.enumerate()})


def test_a_cc_backend_that_takes_no_new_start_loses_one_row(daemon: Daemon) -> None:
    """Nothing sends here, so the first new start is never accepted."""
    daemon.report(make_run(2))
    daemon.deliver()
    daemon.make(Timing(tick=0.01, starts=0.05))
    daemon.begin({"since": 1})
    first, second = sorted(daemon.finish()["runs"], key=lambda run: run["job_id"])  # type: ignore[call-overload]
    assert (first["result"], second["result"]) == ("sent", "left")
    assert second["text"] == "cc-backend has not accepted the new start of job 1 yet: ask again when it has"
    assert daemon.deliver() == [Kind.REMOVE, Kind.START]


def test_when_cc_backend_takes_the_new_starts_all_are_sent(daemon: Daemon) -> None:
    daemon.report(make_run(2))
    daemon.deliver()
    daemon.begin({"since": 1})
    assert comes(lambda: daemon.is_done_or_delivers())
    assert [run["result"] for run in daemon.requests.as_object()["runs"]] == ["sent", "sent"]


def test_what_cc_backend_does_not_list_in_time_is_left_to_the_next_step(daemon: Daemon) -> None:
    late = make_run(2, start=RUN.key.start_time + 10_000)
    daemon.report(late)
    daemon.deliver()
    daemon.make(Timing(tick=0.01, limit=2.0))
    with daemon.backend.fault(OneAnswer("/api/jobs/")):
        daemon.begin({"since": 1})
        report = daemon.finish()
    assert (report["state"], report["next"]) == (DONE, [1, RUN.key.start_time])
    assert [run["job_id"] for run in report["runs"]] == [1]  # type: ignore[attr-defined]
    assert daemon.deliver() == [Kind.REMOVE, Kind.START]
    daemon.begin({"since": 1, "after": report["next"]})
    report = daemon.finish()
    assert (report["state"], report["next"]) == (DONE, None)
    assert [run["job_id"] for run in report["runs"]] == [2]  # type: ignore[attr-defined]


def test_an_error_of_the_program_ends_it_too(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(daemon.outbox.resends, "runs", fail)
    daemon.begin()
    assert "ZeroDivisionError" in str(daemon.finish()["failure"])
    monkeypatch.undo()
    daemon.begin()
    assert daemon.finish()["state"] == DONE

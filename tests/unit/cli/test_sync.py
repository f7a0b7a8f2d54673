"""`-sync` follows what a daemon does, and says what was brought, however that ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cc_slurm_adapter.__main__ import main
from cc_slurm_adapter.cli import control_client
from cc_slurm_adapter.cli.main import OTHER, USAGE
from cc_slurm_adapter.cli.progress import Bar
from cc_slurm_adapter.cli.sync import SILENT_FOR, Follower, code_of
from cc_slurm_adapter.errors import NotAllowed, NotRunning, StateError
from cc_slurm_adapter.jobs.report import COMPLETE, STOPPED, SyncReport
from cc_slurm_adapter.outbox.report import QueueReport
from tests.fakes.clock import Clock
from tests.fakes.statuses import WELL

NOW = 1_800_000_000
BEGUN = SyncReport(began=5.5, since=NOW - 36_000, until=NOW, reached=NOW - 36_000)
DONE = BEGUN._replace(ended=9.0, result=COMPLETE, reached=NOW, found=40, enqueued=30)


class FakeClient:
    """A daemon that answers with one status after the other; the last one again and again."""

    def __init__(self, *answers: SyncReport | Exception) -> None:
        self.answers = list(answers)
        self.posted: list[tuple[str, dict[str, object]]] = []
        self.asked = 0

    def get(self, path: str, socket_path: str, /) -> tuple[int, bytes]:
        assert (path, socket_path) == ("/status", "/s")
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return 200, replace(WELL, sync=answer).as_json().encode()

    def post(self, path: str, value: dict[str, object], socket_path: str, /) -> tuple[int, bytes]:
        self.posted.append((path, value))
        return 200, b'{"version": 1}'


class Followed:
    """A follower with a clock of its own."""

    def __init__(self, client: FakeClient, limit: float = float("inf"), interrupt_after: int = 10**6) -> None:
        self.clock = Clock()
        self.drawn: list[str] = []
        bar = Bar("sync", clock=self.clock, is_drawn=True, draw=self.drawn.append)
        self._waits_left = interrupt_after
        self.follower = Follower(client, "/s", 5.5, limit, bar, clock=self.clock, wait=self._wait)

    def _wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self._waits_left -= 1
        if self._waits_left <= 0:
            raise KeyboardInterrupt

    def follow(self) -> int:
        return self.follower.follow()


def errors(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_it_follows_until_the_end_and_says_what_was_brought(capsys: pytest.CaptureFixture[str]) -> None:
    half = BEGUN._replace(reached=NOW - 18_000, found=20)
    followed = Followed(FakeClient(BEGUN, half, half, DONE))
    assert followed.follow() == 0
    assert followed.drawn[0].startswith("sync [....................] 0 % 0 runs")
    assert followed.drawn[2] == "sync [##########..........] 50 % 20 runs, 10/s, 2 s left"
    assert followed.drawn[-1] == ""
    said = errors(capsys)
    assert "sync complete: what ended from" in said
    assert "40 runs, 30 not known before" in said


def test_messages_that_still_wait_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    (destination, *_) = WELL.destinations
    waiting = destination._replace(queue=QueueReport("cc_rest", 12))
    client = FakeClient(DONE)
    report = replace(WELL, sync=DONE, destinations=(waiting,))
    client.get = lambda path, socket_path, /: (200, report.as_json().encode())  # type: ignore[method-assign]
    assert Followed(client).follow() == 0
    assert "12 messages wait to be delivered (-status)" in errors(capsys)


def test_what_keeps_it_from_going_on_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    failing = BEGUN._replace(failing_since=8.0, why="sacct: slurmdbd is down")
    waiting = BEGUN._replace(waits_for="more than 5,000 messages wait")
    Followed(FakeClient(failing, failing, BEGUN, failing, waiting, BEGUN, waiting, DONE)).follow()
    first, second, last = errors(capsys).splitlines()
    assert first == "cc-slurm-adapter: sync: it fails and is tried again: sacct: slurmdbd is down"
    assert second == "cc-slurm-adapter: sync: it waits: more than 5,000 messages wait"
    assert "sync complete" in last


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (DONE, 0),
        (DONE._replace(found=0, enqueued=0), 0),
        (DONE._replace(unread=1), 1),
        (DONE._replace(result=STOPPED), 1),
        (DONE._replace(job=7), 0),
        (DONE._replace(job=7, found=0, enqueued=0), 2),
    ],
)
def test_the_exit_code_says_how_it_ended(report: SyncReport, code: int) -> None:
    assert code_of(report) == code


def test_ctrl_c_stops_it_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient(BEGUN._replace(reached=NOW - 20_000, found=9, enqueued=8))
    followed = Followed(client, interrupt_after=3)
    assert followed.follow() == 1
    assert client.posted == [("/sync/stop", {})]
    said = errors(capsys)
    assert "9 runs, 8 not known before; the same command goes on from there" in said
    assert followed.drawn[-1] == ""


def test_a_timeout_stops_it(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient(BEGUN)
    assert Followed(client, limit=10).follow() == 1
    assert client.posted == [("/sync/stop", {})]
    assert 10 <= client.asked <= 11
    assert "-timeout: stopped" in errors(capsys)


@pytest.mark.parametrize("after", [SyncReport(), SyncReport(began=7.5)], ids=["none", "another"])
def test_a_daemon_that_was_restarted_is_said(capsys: pytest.CaptureFixture[str], after: SyncReport) -> None:
    client = FakeClient(BEGUN._replace(found=9, enqueued=8), after)
    assert Followed(client).follow() == 1
    assert client.posted == []
    said = errors(capsys)
    assert "not complete, the daemon was restarted meanwhile" in said
    assert "9 runs, 8 not known before; the same command goes on from there" in said


def test_a_daemon_that_ends_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert Followed(FakeClient(BEGUN, NotRunning("no daemon answers on /s"))).follow() == 1
    assert "not complete, no daemon answers on /s" in errors(capsys)


def test_a_daemon_that_does_not_answer_for_a_moment_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert Followed(FakeClient(BEGUN, *[StateError("it does not answer")] * 5, DONE)).follow() == 0
    frozen = FakeClient(BEGUN, StateError("it does not answer within 5 s"))
    assert Followed(frozen).follow() == 1
    assert SILENT_FOR <= frozen.asked <= SILENT_FOR + 3
    assert "it does not answer within 5 s" in errors(capsys)


# --- the flags


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"controlSockPath": "/s"}))
    return str(path)


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """What is asked of a daemon that refuses it."""
    found: list[dict[str, object]] = []

    def post(path: str, value: dict[str, object], socket_path: str) -> tuple[int, bytes]:
        assert (path, socket_path) == ("/sync", "/s")
        found.append(value)
        return 409, b'{"version": 1, "error": "a sync is under way"}'

    monkeypatch.setattr(control_client, "post", post)
    yield found


def test_a_sync_under_way_is_said(config: str, posted: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-sync", "-since", "1769814000", "-until", "1769900000", "-config", config]) == OTHER
    assert posted == [{"since": 1_769_814_000, "until": 1_769_900_000}]
    assert errors(capsys) == "cc-slurm-adapter: a sync is under way\n"


def test_a_job_needs_no_since(config: str, posted: list[dict[str, object]]) -> None:
    main(["-sync", "-job", "4711", "-until", "1769900000", "-config", config])
    assert posted == [{"since": 1_000_001, "until": 1_769_900_000, "job": 4711}]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "-sync needs -since or -job"),
        (["-until", "1d"], "-sync needs -since or -job"),
        (["-since", "soon"], "-since 'soon' is no moment"),
        (["-since", "1d", "-until", "2d"], "-since 1d is not before -until 2d"),
        (["-since", "99999999999"], "is no moment"),
        (["-job", "x"], "is no job"),
        (["-since", "1d", "-timeout", "x"], "is no span"),
        (["-since", "1d", "-json"], "-json goes with"),
    ],
)
def test_wrong_flags(
    config: str, posted: list[object], capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    assert main(["-sync", *flags, "-config", config]) == USAGE
    assert says in errors(capsys)
    assert posted == []


@pytest.mark.parametrize("flag", ["-until", "-timeout"])
def test_flags_of_sync_alone_are_refused_without_it(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-status", flag, "1d"]) == USAGE
    assert f"{flag} goes with" in errors(capsys)


def test_who_may_not_ask_is_told_and_nothing_is_done_alone(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def post(*_: object) -> tuple[int, bytes]:
        raise NotAllowed("only root may ask: run this as root")

    monkeypatch.setattr(control_client, "post", post)
    assert main(["-sync", "-since", "1d", "-config", config]) == OTHER
    assert "run this as root" in errors(capsys)

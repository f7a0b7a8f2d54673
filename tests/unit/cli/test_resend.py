"""`-resend`: what it asks the daemon, the question before, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.cli.resend import OverSocket, Timing, parse_words, resend
from cc_slurm_adapter.errors import StateError, UsageError

NOW = 1_800_000_000
SOON = Timing(every=0.0, limit=5.0)


def run(job: int, result: str, text: str = "") -> dict[str, object]:
    return {"job_id": job, "start_time": NOW, "result": result, "text": text}


class FakeDaemon:
    """Does steps: each is a list of runs, and answers twice that it is under way."""

    def __init__(self, *steps: list[dict[str, object]]) -> None:
        self.steps = list(steps)
        self.asked: list[dict[str, Any]] = []
        self.failure = ""
        self.state = "none"
        self.id = 0
        self._left = 0

    def resend(self, words: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(words)
        if words.get("dry_run"):
            return {"runs": sum(map(len, self.steps)), "jobs": 2}
        self.id, self._left = self.id + 1, 2
        return {"id": self.id}

    def report(self) -> dict[str, Any]:
        self._left -= 1
        if self._left >= 0:
            return {"id": self.id, "state": "under way"}
        following = [9, NOW] if len(self.steps) > self.id else None
        state = self.state if self.state != "none" else "failed" if self.failure else "done"
        return {
            "id": self.id,
            "state": state,
            "failure": self.failure,
            "runs": self.steps[self.id - 1],
            "next": following,
        }


def called(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], *, yes: bool = True) -> tuple[bool, str]:
    is_well = resend({"since": 5}, daemon, None if yes else lambda text: True, yes=yes, timing=SOON)
    return is_well, capsys.readouterr().out


def test_all_steps_are_done_and_each_run_that_is_sent_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = FakeDaemon([run(1, "sent", "node01: hwthreads 0 -> 1")], [run(2, "same"), run(3, "sent", "numAcc 1 -> 2")])
    is_well, printed = called(daemon, capsys)
    assert is_well
    assert daemon.asked == [{"since": 5, "dry_run": True}, {"since": 5}, {"since": 5, "after": [9, NOW]}]
    first, second, last = printed.splitlines()
    assert first.startswith("job 1, began 2027-01-15")
    assert first.endswith(": node01: hwthreads 0 -> 1")
    assert second.endswith(": numAcc 1 -> 2")
    assert last == "2 runs sent anew, 1 stored as they are, 0 left alone; -queue list shows what is still to be sent"


def test_runs_that_are_left_alone_are_a_line_for_each_reason(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = FakeDaemon([run(job, "left", "not listed") for job in range(1, 13)] + [run(20, "left", "dropped")])
    is_well, printed = called(daemon, capsys)
    assert not is_well
    assert printed.splitlines() == [
        "left alone: jobs 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more: not listed",
        "left alone: job 20: dropped",
        "0 runs sent anew, 0 stored as they are, 13 left alone",
    ]


@pytest.mark.parametrize(
    ("words", "result", "is_well"),
    [
        ({"since": 5}, "over", True),
        ({"job": 1}, "over", False),
        ({"job": 1, "since": 5}, "over", False),
        ({"since": 5}, "left", False),
        ({"since": 5}, "same", True),
        ({"job": 1}, "same", True),
    ],
)
def test_what_nobody_can_correct_any_more_is_a_failure_only_of_a_job_that_was_named(
    words: dict[str, Any], result: str, is_well: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resend(words, FakeDaemon([run(1, result, "why")]), None, yes=True, timing=SOON) is is_well
    assert ("left alone: job 1: why" in capsys.readouterr().out) == (result != "same")


def test_a_span_in_which_nothing_ran_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert resend({"since": 5}, FakeDaemon(), None, yes=False)
    assert "knows no such run that has begun" in capsys.readouterr().out


def test_it_asks_before_it_begins_and_a_no_is_a_no(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = FakeDaemon([run(1, "same")])
    questions: list[str] = []

    def say_no(text: str) -> bool:
        questions.append(text)
        return False

    assert not resend({"job": 1}, daemon, say_no, yes=False, timing=SOON)
    assert questions[0].startswith("compare 1 run of 2 jobs with Slurm")
    assert "nothing is sent anew" in capsys.readouterr().err
    assert daemon.asked == [{"job": 1, "dry_run": True}]
    assert called(daemon, capsys, yes=False)[0]


def test_where_nobody_can_be_asked_nothing_begins() -> None:
    daemon = FakeDaemon([run(1, "same")])
    with pytest.raises(UsageError, match="give -yes to begin"):
        resend({"job": 1}, daemon, None, yes=False)
    assert len(daemon.asked) == 1


def test_a_job_that_is_not_known_is_no_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert not resend({"job": 1}, FakeDaemon(), None, yes=False)
    assert "knows no such run that has begun" in capsys.readouterr().out


def test_a_failure_is_told_after_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = FakeDaemon([run(1, "sent", "numAcc 1 -> 2")], [])
    daemon.failure = "squeue: no answer"
    with pytest.raises(
        StateError, match=r"squeue: no answer: what is not named above is as it was; ask again for the rest"
    ):
        called(daemon, capsys)
    assert "numAcc 1 -> 2" in capsys.readouterr().out


def test_a_daemon_that_was_restarted_meanwhile_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = FakeDaemon([run(1, "sent")])
    daemon.state = "unheard of"
    with pytest.raises(StateError, match="the daemon was restarted"):
        called(daemon, capsys)


def test_a_daemon_that_takes_too_long_is_not_waited_for() -> None:
    daemon = FakeDaemon([run(1, "sent")])
    with pytest.raises(StateError, match="is not done within 0 s, and goes on"):
        resend({"job": 1}, daemon, None, yes=True, timing=Timing(every=0.0, limit=0.0))


def test_ctrl_c_says_that_the_daemon_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = FakeDaemon([run(1, "sent")])

    def interrupted() -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(daemon, "report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        called(daemon, capsys)
    assert "the daemon ends the step that it has begun: -queue list" in capsys.readouterr().err


def test_another_form_of_answer_is_another_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StateError, match="answers in another form"):
        called(FakeDaemon([{"job": 1}]), capsys)


def test_what_is_typed_says_which_runs() -> None:
    assert parse_words("7", None, NOW) == {"job": 7}
    assert parse_words("", "1h", NOW) == {"since": NOW - 3600}
    assert parse_words("7", "1h", NOW) == {"job": 7, "since": NOW - 3600}


@pytest.mark.parametrize(
    ("job", "since", "text"),
    [
        ("", None, "needs a job id, or -since TIME"),
        ("all", None, "is no job id: give a number, or -since TIME for all jobs since then"),
        ("1_4", None, "is no job id"),
        ("1", "soon", "is no moment"),
    ],
)
def test_what_is_typed_wrong_is_said(job: str, since: str | None, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse_words(job, since, NOW)


def test_without_a_daemon_it_says_that_it_needs_one(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"no daemon answers on .* Runs are sent anew by the running daemon"):
        OverSocket(str(tmp_path / "control.sock")).resend({"job": 1})

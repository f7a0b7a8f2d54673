"""The status in one line and on one screen."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.counters import Label, Sample
from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.daemon.screen_text import columns
from cc_slurm_adapter.daemon.status_text import LONGEST_LINE, first_line, item, lines
from cc_slurm_adapter.jobs.report import SyncReport
from cc_slurm_adapter.log import Work
from cc_slurm_adapter.model import Finding, RunKey
from cc_slurm_adapter.outbox.report import Parked, QueueReport
from tests.fakes.statuses import NOW, WELL, with_rest, with_step

AWAY = Finding(logging.ERROR, "cc-backend", "cc-backend cannot be reached: refused", "start it", NOW - 720)
HOOKS = Finding(logging.WARNING, "hooks", "no hook is set", "set PrologSlurmctld")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_the_first_line_says_that_all_is_well() -> None:
    assert first_line(WELL) == "reports alex to cc-backend and NATS: 817 open runs, 0 pending; all is well"


def test_the_first_line_names_the_worst_fault() -> None:
    waiting = with_rest(QueueReport("cc_rest", 12, 3, 1))
    assert first_line(replace(waiting, faults=(AWAY, HOOKS))) == (
        "reports alex to cc-backend and NATS: 817 open runs, 12 pending, 3 parked, 1 in conflict; 2 faults, the worst:"
        " cc-backend cannot be reached: refused (since 07:48, 12 min)"
    )
    assert first_line(replace(WELL, faults=(HOOKS,))).endswith("0 pending; 1 fault: no hook is set")


def test_the_first_line_changes_once_a_minute_at_most() -> None:
    def at(seconds: float) -> str:
        return first_line(replace(WELL, faults=(replace(AWAY, since=NOW - seconds),)))

    assert at(1) == at(59) != at(61)


def test_the_first_line_of_a_start_says_what_it_waits_for() -> None:
    starting = replace(WELL, program=WELL.program._replace(phase="waiting for Slurm,\nwhich does not answer"))
    assert first_line(starting) == "waiting for Slurm, which does not answer"


def test_one_screen_of_a_daemon_that_is_well() -> None:
    assert lines(WELL) == [
        "reports alex to cc-backend and NATS: 817 open runs, 0 pending; all is well",
        "",
        "program      0.1.0 (Python 3.11.7), pid 4711, user slurm, since 2027-01-03 18:13",
        "             (11 d); /etc/x.json",
        "cluster      alex, Slurm 24.11.1, data_parser/v0.0.42; accounting read until 1",
        "             min ago",
        "poll         10 s ago, took 0.4 s",
        "lookup       10 s ago, took 0.4 s",
        "nodes        10 s ago, took 0.4 s",
        "accounting   10 s ago, took 0.4 s",
        "comparison   10 s ago, took 0.4 s",
        "upkeep       10 s ago, took 0.4 s",
        "cc-backend   answers, 4 s ago; nothing pending",
        "NATS         answers, 30 s ago; nothing pending",
        "runs         817 open: 812 started, 3 preparing, 2 left out",
        "hooks        37 events since the start, 2 a minute; the last 1 s ago",
        "node states  97 allocated, 3 idle",
        "state file   /var/lib/x/state.sqlite: 4 kB of 256 MB",
    ]


def test_what_is_wrong_is_told_beside_it_and_at_the_end_with_what_to_do() -> None:
    queue = QueueReport("cc_rest", 12, 3, 1, NOW - 900)
    report = with_rest(queue, failing_since=NOW - 720, why="Connection refused", last_answer=NOW - 730)
    steps = with_step("accounting", failing_since=NOW - 7200, failures=7, why="sacct: Connection refused").steps
    parked = (
        Parked("cc_rest", 2, RunKey("alex", 5, 1), "HTTP 400: no such cluster: alex"),
        *(Parked("cc_rest", 1, RunKey("alex", 6, 1), f"HTTP 50{number}") for number in range(6)),
    )
    late = Sample("incomplete_runs", (Label("missing", "cores_gpus"), Label("why", "late")), 4)
    shown = lines(replace(report, steps=steps, parked=parked, samples=(late,), faults=(AWAY, HOOKS)))
    assert "accounting   fails for 2 h (7 times): sacct: Connection refused; worked 10 s ago" in shown
    first = shown.index("cc-backend   cannot be reached for 12 min: Connection refused; the last answer")
    assert shown[first + 1 : first + 4] == [
        "             12 min ago; 12 pending, the oldest for 15 min; 3 parked; 1 in",
        "             conflict",
        "NATS         answers, 30 s ago; nothing pending",
    ]
    assert "parked       2 refused by cc-backend: HTTP 400: no such cluster: alex (first:" in shown
    assert "             job 5)" in shown
    assert "             1 refused by cc-backend: HTTP 503 (first: job 6)" in shown
    assert "             1 refused by cc-backend: HTTP 504 (first: job 6)" not in shown
    assert "             and 2 more reasons: -queue list" in shown
    assert "             the start: 4 without cores and gpus (late)" in shown
    assert shown[-3:] == [
        "",
        "ERROR cc-backend cannot be reached: refused (for 12 min) -> start it",
        "WARNING no hook is set -> set PrologSlurmctld",
    ]


def test_very_many_faults_are_counted() -> None:
    shown = lines(replace(WELL, faults=(HOOKS,) * 15))
    assert shown[-1] == "and 3 more: -status -json lists all"
    assert len([line for line in shown if line.startswith("WARNING")]) == 12


@pytest.mark.parametrize(
    ("faults", "color"), [((), "32"), ((HOOKS,), "33"), ((AWAY, HOOKS), "31")], ids=["well", "warning", "error"]
)
def test_colours_say_what_the_words_say(faults: tuple[Finding, ...], color: str) -> None:
    report = replace(WELL, faults=faults)
    colored = lines(report, colors=True)
    assert colored[0].startswith(f"\x1b[{color}mreports alex")
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in colored] == lines(report)


def test_an_item_has_its_label_beside_its_text_or_before_it() -> None:
    assert item("nodes", ["one two", "", "three"], 39) == ["nodes        one two; three"]
    assert item("nodes", ["one two", "three"], 20) == ["nodes one two; three"]
    assert item("node states", ["a" * 30], 40) == [f"node states  {'a' * 27}", f"{' ' * 13}aaa"]


HOSTILE = ("\x1b]0;title\a" * 90, "a" * 900, "漢" * 900, "\n" * 900, "x\u202ey\r<3>forged", "e" + "\u0301" * 900)
hostile = st.text(st.characters(), max_size=100) | st.sampled_from(HOSTILE)
times = st.floats(0, 4e9)


@st.composite
def reports(draw: st.DrawFn) -> StatusReport:
    """A status with any texts of others."""
    queue = QueueReport("cc_rest", draw(st.integers(0, 10**9)), 3, 1, draw(times))
    report = with_rest(queue, failing_since=draw(times), why=draw(hostile), nodes_why=draw(hostile))
    step = report.steps["poll"]._replace(failing_since=draw(times), why=draw(hostile))
    fault = Finding(draw(st.sampled_from([30, 40])), draw(hostile), draw(hostile), draw(hostile), draw(times))
    return replace(
        report,
        program=report.program._replace(phase=draw(st.just("running") | hostile), config_path=draw(hostile)),
        slurm=report.slurm._replace(cluster=draw(hostile), version=draw(hostile)),
        steps={**report.steps, "poll": step, draw(hostile): step},
        parked=(Parked(draw(hostile), 3, RunKey("alex", 5, 1), draw(hostile)),) * draw(st.integers(0, 8)),
        nodes={draw(hostile): draw(st.integers(0, 10**9))},
        samples=(Sample("incomplete_runs", (Label("missing", draw(hostile)),), 5),),
        faults=(fault,) * draw(st.integers(0, 20)),
    )


@settings(deadline=None)
@given(reports(), st.integers(1, 200))
def test_whatever_others_write_no_line_is_too_long_or_commands_a_terminal(report: StatusReport, width: int) -> None:
    shown = lines(report, width)
    for line in shown:
        assert line.isprintable()
        assert columns(line) <= max(width, 20)
    assert len(shown) < 600 if width >= 80 else shown  # 20 faults of 800 wide characters each, and the rest
    first = first_line(report)
    assert first.isprintable()
    assert 0 <= len(first) <= LONGEST_LINE


@pytest.mark.parametrize("text", HOSTILE, ids=["title", "word", "wide", "newlines", "forged", "accents"])
def test_a_text_of_any_length_takes_some_lines(text: str) -> None:
    fault = Finding(logging.ERROR, "x", text * 20, text * 20)
    report = replace(with_rest(failing_since=NOW - 5, why=text * 20), faults=(fault,))
    assert len(lines(report)) < 70
    assert len(first_line(report)) <= LONGEST_LINE


def test_long_work_is_shown_with_the_time_that_is_left() -> None:
    work = (Work("reading new jobs", 250, 1000, NOW - 60), Work("just begun", 0, 5, NOW - 1))
    text = "\n".join(lines(replace(WELL, work=work), 200))
    assert "under way    reading new jobs: 250 of 1,000, for 1 min, 3 min left" in text
    assert "just begun" not in text


def test_a_sync_is_shown_while_it_is_under_way() -> None:
    sync = SyncReport(
        began=NOW - 60, since=int(NOW) - 7200, until=int(NOW), reached=int(NOW) - 5400, found=9, enqueued=7
    )
    text = "\n".join(lines(replace(WELL, sync=sync), 200))
    assert "25 % for 1 min, 3 min left; 9 runs, 7 not known before" in text
    failing = replace(WELL, sync=sync._replace(failing_since=NOW - 30, why="sacct: slurmdbd is down"))
    assert "fails for 30 s: sacct: slurmdbd is down" in "\n".join(lines(failing, 200))
    waiting = replace(WELL, sync=sync._replace(waits_for="more than 5,000 messages wait"))
    assert "waits: more than 5,000 messages wait" in "\n".join(lines(waiting, 200))
    assert "not known before" not in "\n".join(lines(replace(WELL, sync=sync._replace(ended=NOW)), 200))
    one_job = replace(WELL, sync=sync._replace(job=4711))
    assert "sync         job 4711; " in "\n".join(lines(one_job, 200))


def test_what_is_not_known_yet_leaves_no_gap() -> None:
    shown = " ".join(" ".join(lines(replace(WELL, slurm=WELL.slurm._replace(format="")))).split())
    assert f"cluster alex, Slurm {WELL.slurm.version}; accounting" in shown

"""Runs that launched nothing before their job went back to the queue: cc-backend hears of the real run alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.jobs import decisions
from cc_slurm_adapter.jobs.decisions import decide, never_launched
from cc_slurm_adapter.model import AccountedLaunch, End, EndState, Phase, Run, RunKey
from cc_slurm_adapter.outbox.outbox import OpenRun, Stage
from cc_slurm_adapter.sinks.base import Kind
from cc_slurm_adapter.slurm.cluster_config import parse_cluster_config
from cc_slurm_adapter.slurm.parse.accounting import launches_command, parse_launches
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.recorded.fixture_files import FIXTURES, VERSIONS
from tests.unit.jobs.test_watch import Lab

# What sacct of Slurm 24.11.5 printed, in these columns. 1: PrologSlurmctld exited 1, then it was begun again. 3: its
# node went down while PrologSlurmctld ran. 6: requeued by scontrol while its script ran. 7 and 8 are made up of
# such lines: where PrologFlags=Contain makes its step before the prolog of the node fails, and salloc without a script.
STEPS = """\
1|1795931604|1795931604
1|1795931625|Unknown
1.batch|1795931625|Unknown
3|1795931604|1795931607
3|Unknown|Unknown
6|1795932673|1795932677
6.batch|1795932673|1795932677
6.extern|1795932673|1795932677
6|1795932695|Unknown
6.batch|1795932695|Unknown
6.extern|1795932695|Unknown
7|1795932673|1795932677
7.extern|1795932673|1795932677
8|1795932700|1795932709
8.0|1795932701|1795932702
"""
ENDS = {
    "requeued": End(EndState.CANCELLED, NOW - 40, "REQUEUED"),
    "preempted": End(EndState.PREEMPTED, NOW - 40, "PREEMPTED"),
    "node_fail": End(EndState.NODE_FAIL, NOW - 40, "NODE_FAIL"),
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.outbox.close()


def requeued(end: End, job_id: int = 1, **changes: object) -> Run:
    return make_run(job_id, start=NOW - 50, phase=Phase.ENDED, end=end, **changes)


def waits(job_id: int = 1) -> Run:
    """How slurmctld shows the job after that: it has a time from which on it may start."""
    return make_run(job_id, start=NOW + 80, phase=Phase.WAITING, submit_time=NOW - 40, resources=())


def test_each_record_is_followed_by_its_own_steps_and_extern_is_none() -> None:
    launches = parse_launches(STEPS, "lab")
    assert [(each.key.job_id, each.key.start_time, each.has_launched) for each in launches] == [
        (1, 1795931604, False),
        (1, 1795931625, True),
        (3, 1795931604, False),
        (6, 1795932673, True),
        (6, 1795932695, True),
        (7, 1795932673, False),
        (8, 1795932700, True),
    ]
    assert launches[0].end_time == 1795931604
    assert launches[1].end_time is None


def test_a_line_of_another_form_says_nothing_of_any_run(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_launches("1|1795931604|1795931604|x\n1.batch|1795931604|1795931604\n", "lab") == []
    assert "cannot be understood" in caplog.text


def test_the_question_is_bounded_and_selects_no_column_that_users_write() -> None:
    words = " ".join(launches_command([1, 2], 1_700_000_100, 1_700_000_200))
    assert words == "sacct -a -D -n -P -j 1,2 -S uts1700000100 -E uts1700000200 --format=JobIDRaw,Start,End"


@pytest.mark.parametrize("reason", ENDS)
def test_a_requeued_run_that_launched_nothing_is_not_reported_but_counted(
    lab: Lab, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = lab.slurm.close(requeued(ENDS[reason]))
    lab.slurm.idle.add(first.key)
    lab.slurm.put(waits())
    lab.catch_up(NOW - 600)
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == []
    assert lab.status.counts() == {f"never_launched_{reason}": 1}
    assert (
        f"{first.key} launched nothing before its job went back to the queue ({ENDS[reason].raw_state})" in caplog.text
    )
    second = lab.slurm.put(make_run(1, start=NOW - 5, submit_time=NOW - 40))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, second.key)]


def test_a_run_that_was_only_configuring_and_is_begun_again_is_not_reported(lab: Lab) -> None:
    """Its job has another start before anybody has told of the end of the first."""
    first = lab.slurm.put(make_run(1, start=NOW - 50, phase=Phase.CONFIGURING))
    lab.poll()
    second = lab.slurm.put(make_run(1, start=NOW - 5, submit_time=NOW - 40))
    lab.poll()
    lab.slurm.close(requeued(ENDS["requeued"]))
    lab.slurm.idle.add(first.key)
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == [(Kind.START, second.key)]
    assert lab.watch.report.open == 1


def test_a_run_that_was_seen_configuring_only_but_launched_something_is_reported(lab: Lab) -> None:
    first = lab.slurm.put(make_run(1, start=NOW - 50, phase=Phase.CONFIGURING))
    lab.poll()
    del lab.slurm.jobs[1]
    lab.poll()
    lab.slurm.close(requeued(ENDS["requeued"]))
    lab.slurm.put(waits())
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == [(Kind.START, first.key), (Kind.STOP, first.key)]


@pytest.mark.parametrize(
    "end", [ENDS["preempted"], ENDS["node_fail"], End(EndState.CANCELLED, NOW - 40, "CANCELLED by 0")]
)
def test_a_run_that_launched_nothing_and_is_the_last_of_its_job_is_reported(lab: Lab, end: End) -> None:
    """As one that was cancelled while its nodes were made ready: the job held them."""
    last = lab.slurm.close(requeued(end))
    lab.slurm.idle.add(last.key)
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == [(Kind.START, last.key), (Kind.STOP, last.key)]
    assert "launches_of" not in lab.slurm.asked


def test_a_run_whose_start_was_enqueued_before_has_its_stop_too(lab: Lab) -> None:
    first = lab.slurm.put(make_run(1, start=NOW - 50))
    lab.poll()
    lab.slurm.close(requeued(ENDS["requeued"]))
    lab.slurm.idle.add(first.key)
    lab.slurm.put(waits())
    lab.poll()
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == [(Kind.START, first.key), (Kind.STOP, first.key)]


def test_where_accounting_has_no_steps_nothing_is_concluded_from_that(lab: Lab) -> None:
    lab.records_steps = False
    lab.restart()
    first = lab.slurm.close(requeued(ENDS["requeued"]))
    lab.slurm.idle.add(first.key)
    lab.slurm.put(waits())
    lab.catch_up(NOW - 600)
    assert lab.pop_pending() == [(Kind.START, first.key), (Kind.STOP, first.key)]


@pytest.mark.parametrize("words", ["nosteps", "associations,limits,nosteps", "NoJobs"])
def test_accounting_without_steps_is_known_from_the_configuration(words: str) -> None:
    text = (FIXTURES / f"slurm-{VERSIONS[-1]}" / "cluster" / "scontrol-show-config.txt").read_text(encoding="utf-8")
    assert parse_cluster_config(text).records_steps
    line = next(line for line in text.splitlines() if line.startswith("AccountingStorageEnforce"))
    assert not parse_cluster_config(text.replace(line, f"AccountingStorageEnforce = {words}")).records_steps


def test_a_run_of_which_accounting_has_no_record_is_not_taken_for_one_without_steps() -> None:
    assert never_launched([requeued(ENDS["requeued"])], []) == []


def test_a_component_of_a_heterogeneous_job_has_launched_what_its_leader_has() -> None:
    leader, component = (requeued(ENDS["requeued"], job_id, het_job_id=1) for job_id in (1, 2))
    begun_later = RunKey("lab", 1, component.key.start_time - 1)
    records = [AccountedLaunch(begun_later, NOW - 40, True), AccountedLaunch(component.key, NOW - 40, False)]
    assert never_launched([component], records) == []
    before = records[0]._replace(key=RunKey("lab", 1, 100), end_time=200)
    assert never_launched([component], [before, records[1]]) == [component]
    assert never_launched([leader], [AccountedLaunch(leader.key, NOW - 40, False)]) == [leader]


def test_without_accounting_a_run_that_was_only_configuring_is_counted_when_its_job_begins_again(lab: Lab) -> None:
    lab.has_accounting = False
    lab.restart()
    lab.slurm.put(make_run(1, start=NOW - 50, phase=Phase.CONFIGURING))
    lab.slurm.put(make_run(2, start=NOW - 50, phase=Phase.CONFIGURING))
    lab.poll()
    second = lab.slurm.put(make_run(1, start=NOW - 5, submit_time=NOW - 40))
    powered_up = lab.slurm.put(make_run(2, start=NOW - 5, submit_time=NOW - 60))
    lab.poll()
    assert lab.pop_pending() == [(Kind.START, second.key), (Kind.START, powered_up.key)]
    assert lab.status.counts() == {"never_launched_requeued": 1}


def rows_of_the_table() -> list[list[str]]:
    """The second table that `decisions` begins with: state before, and what follows from each phase."""
    lines = (decisions.__doc__ or "").splitlines()
    first = next(number for number, line in enumerate(lines) if line.split()[:2] == ["state", "before"])
    return [re.split(r"\s{2,}", line.strip()) for line in lines[first : first + 7] if "---" not in line]


@pytest.mark.parametrize("row", rows_of_the_table()[1:], ids=lambda row: row[0])
def test_what_is_decided_is_what_the_table_says(row: list[str]) -> None:
    before, *expected = row
    for name, cell in zip(rows_of_the_table()[0][1:], expected):
        run = make_run(phase=Phase[name])
        is_open = before not in ("unknown", "DONE")
        same_job = [OpenRun(run.key, Stage[before], "node01", None)] if is_open else []
        found = decide(run, same_job, reported=before == "DONE", left_out="")
        messages = [word for word, is_new in (("start", found.enqueue_start), ("stop", found.enqueue_stop)) if is_new]
        words = [found.stage.name if found.stage else "-", *([" and ".join(messages)] if messages else [])]
        assert " + ".join(words) == cell, name

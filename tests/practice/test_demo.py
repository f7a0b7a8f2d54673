"""The demo's parts: what it shows, which jobs it runs, and that its comparison finds what is wrong."""

from __future__ import annotations

import io
from typing import Any, Callable

import pytest

from examples.practice.cc_backend import JobRow, RowKey
from examples.practice.comparison import differences
from examples.practice.demo import conclude
from examples.practice.demo.jobs import plan_jobs
from examples.practice.demo.table import AWAY, UP, JobLine, LiveTable, Picture, PlainLines, choose, draw, fit
from examples.practice.slurm.model import HostShare, Settings, TrueRun

ADDRESSES = {"^node": ["00:01.0", "00:02.0", "00:03.0", "00:04.0"]}


def job(job_id: int, state: str = "RUNNING", start_sent: str = "", stop_sent: str = "") -> JobLine:
    return JobLine(job_id, "alice", "a job", state, start_sent, stop_sent, "2/1" if start_sent else "")


def picture(*jobs: JobLine, backend: str = UP, activity: str = "jobs are submitted") -> Picture:
    return Picture("the demo", 12.3, activity, "(3 of 40)", 2, 1, 5, 6, 4, 3, backend, jobs)


# --- the table


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 3)])
def test_table_fits_the_terminal(width: int, height: int) -> None:
    lines = draw(picture(*(job(number) for number in range(100))), width, height)
    assert len(lines) <= height - 1
    assert all(len(line) < width for line in lines)


def test_table_of_80_columns_cuts_no_number() -> None:
    lines = draw(picture(JobLine(1234567, "alice", "name", "OUT_OF_MEMORY", "12.34 s", "99.99 s", "1024/32")), 80, 24)
    assert lines[-1].split() == ["1234567", "alice", "name", "OUT_OF_MEMORY", "12.34", "s", "99.99", "s", "1024/32"]
    assert lines[-2].split()[-1] == "THREADS/GPUS"


def test_header_tells_counts_and_what_is_waited_for() -> None:
    text = "\n".join(draw(picture(backend=AWAY), 80, 24))
    for part in ("1 pending, 2 running, 5 over", "cc-backend: AWAY", "6 starts, 4 stops", "outbox: 3", "(3 of 40)"):
        assert part in text


def test_names_cannot_steer_the_terminal() -> None:
    shown = fit("\x1b[31mred\n\x9b0m", 20)
    assert shown.isprintable()
    assert shown == "?[31mred??0m        "


def test_wide_characters_take_two_columns() -> None:
    assert fit("\u8a08\u7b97", 5) == "\u8a08\u7b97 "
    assert fit("\u8a08\u7b97", 3) == "\u8a08 "


def test_finished_jobs_keep_a_third_of_the_room() -> None:
    finished = [job(number, stop_sent="1 s") for number in range(50)]
    unfinished = [job(number) for number in range(50, 100)]
    assert [line.job_id for line in choose([*finished, *unfinished], 9)] == [47, 48, 49, *range(94, 100)]
    assert [line.job_id for line in choose([*finished, unfinished[0]], 4)] == [47, 48, 49, 50]
    assert choose(finished, 0) == []


def test_live_table_is_redrawn_in_place() -> None:
    stream = io.StringIO()
    table = LiveTable(stream, colours=False)
    table.show(picture(job(1)))
    first = stream.getvalue()
    table.show(picture(job(1), job(2)))
    table.close()
    again = stream.getvalue()[len(first) :]
    assert f"\x1b[{first.count(chr(10))}A\r" in again
    assert again.endswith("\x1b[?25h")


def test_plain_lines_come_once_for_each_event() -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    pictures = [
        picture(job(1, "PENDING")),
        picture(job(1, "PENDING")),
        picture(job(1, "RUNNING", "0.2 s")),
        picture(job(1, "COMPLETED", "0.2 s", "0.1 s"), backend=AWAY),
        picture(job(1, "COMPLETED", "0.2 s", "0.1 s"), backend=AWAY),
    ]
    for each in pictures:
        lines.show(each)
    assert [line[10:] for line in stream.getvalue().splitlines()] == [
        "jobs are submitted",
        "job 1 (a job, of alice) is PENDING",
        "job 1 is RUNNING",
        "job 1: start sent (0.2 s), threads/GPUs 2/1",
        "cc-backend is AWAY, 3 messages wait in the outbox",
        "job 1 is COMPLETED",
        "job 1: stop sent (0.1 s)",
    ]


# --- the jobs


@pytest.mark.parametrize("count", [1, 7, 40, 200])
def test_plan_makes_as_many_runs_as_wanted(count: int) -> None:
    plan = plan_jobs(count, 40, seed=3)
    assert sum(planned.runs for planned in plan) == count
    assert [planned.at for planned in plan] == sorted(planned.at for planned in plan)
    assert all(planned.at < 40 * 0.75 for planned in plan)


def test_plan_of_40_has_every_kind() -> None:
    requests = [planned.request for planned in plan_jobs(40, 40, seed=1)]
    endings = {request.ending for request in requests}
    assert endings == {"completed", "failed", "timeout", "out_of_memory"}
    assert any(planned.cancel_after for planned in plan_jobs(40, 40, seed=1))
    assert any(request.array_size for request in requests)
    assert any("disable_cc_submission" in request.admin_comment for request in requests)
    assert any(request.exclusive for request in requests)
    assert any(request.gpus_per_node and request.duration == 1 for request in requests)
    assert max(request.nodes for request in requests) > 1
    assert len({request.user for request in requests}) == 3


# --- the comparison


def true_run(**changes: Any) -> TrueRun:
    shares = (HostShare("node02", (0, 1), (3,)), HostShare("node01", (4,), ()))
    run = TrueRun(17, 1000, 1060, "FAILED", shares, "a name", "alice", "proj", "main", 15, 2)
    return run._replace(**changes)


def row() -> JobRow:
    """With 8 cores a node, CPU 12 is the second thread of core 4."""
    start = {
        "resources": [
            {"hostname": "node01", "hwthreads": [4, 12]},
            {"hostname": "node02", "hwthreads": [0, 1, 8, 9], "accelerators": ["00:04.0"]},
        ],
        "metaData": {"jobName": "a name"},
        "user": "alice",
        "project": "proj",
        "partition": "main",
        "arrayJobId": 15,
        "numNodes": 2,
        "numHwthreads": 6,
        "numAcc": 1,
    }
    return JobRow(1, RowKey("lab", 17, 1000), start, "main", state="failed", stop_time=1060)


def compared(rows: list[JobRow], truth: list[TrueRun]) -> list[str]:
    return differences(rows, truth, Settings(), ADDRESSES)


def test_right_row_has_no_difference() -> None:
    assert compared([row()], [true_run()]) == []


def test_missing_doubled_and_made_up_rows_are_found() -> None:
    assert compared([], [true_run()]) == ["job 17 of alice, started 1000: is missing"]
    assert compared([row(), row()], [true_run()]) == ["job 17 of alice, started 1000: has 2 rows"]
    assert compared([row()], []) == ["job 17, started 1000: is reported and never ran so"]
    assert len(compared([row()], [true_run(start=999)])) == 2


def test_a_job_that_opted_out_must_not_be_reported() -> None:
    opted_out = true_run(opted_out=True)
    assert compared([], [opted_out]) == []
    assert compared([row()], [opted_out]) == ["job 17 of alice, started 1000: is reported although it opted out"]


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("state", {"state": "COMPLETED"}),
        ("stop", {"end": 1061}),
        ("user", {"user": "bob"}),
        ("account", {"account": "chem"}),
        ("partition", {"partition": "excl"}),
        ("array", {"array_job_id": None}),
        ("name", {"name": "another"}),
        ("hwthreads", {"hosts": (HostShare("node02", (0, 2), (3,)), HostShare("node01", (4,), ()))}),
        ("GPUs", {"hosts": (HostShare("node02", (0, 1), (2,)), HostShare("node01", (4,), ()))}),
    ],
)
def test_every_wrong_value_is_found(key: str, changes: dict[str, Any]) -> None:
    (line,) = compared([row()], [true_run(**changes)])
    assert line.startswith(f"job 17 of {changes.get('user', 'alice')}, started 1000: {key} was reported as ")


@pytest.mark.parametrize("key", ["numNodes", "numHwthreads", "numAcc"])
def test_every_wrong_count_is_found(key: str) -> None:
    wrong = row()
    wrong.start[key] += 1
    (line,) = compared([wrong], [true_run()])
    assert key in line


def test_incomplete_row_is_a_difference() -> None:
    wrong = row()
    wrong.start["metaData"]["incomplete"] = "gpus"
    assert compared([wrong], [true_run()]) == [
        "job 17 of alice, started 1000: incomplete was reported as 'gpus' and is ''"
    ]


def test_a_difference_is_shown_and_makes_the_demo_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(Played(["job 17: is missing"]), [], None) == 1
    assert "WRONG: job 17: is missing" in capsys.readouterr().out
    assert conclude(Played([]), [], None) == 0
    assert "nothing is missing" in capsys.readouterr().out


class Played:
    """A demo that is over."""

    def __init__(self, wrong: list[str]) -> None:
        self.differences: Callable[[], list[str]] = lambda: wrong

    def turn(self) -> None: ...

    def finished(self) -> bool:
        return True

    def picture(self) -> Picture:
        return picture()

    def summary(self) -> list[str]:
        return ["2 jobs ran"]

"""What the state file has about one job, from a daemon that runs and from the file alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import job_rows
from cc_slurm_adapter.outbox.admin import QueueAdmin
from cc_slurm_adapter.outbox.job_rows import MOST_RUNS, JobRows
from cc_slurm_adapter.outbox.offline import open_to_read
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import Encoded, Kind, Text

KEY, LATER, ELSEWHERE = RunKey("lab", 1, 100), RunKey("lab", 1, 200), RunKey("other", 1, 150)
SCRIPT = (Text(b',"jobScript":', b'"#!/bin/sh"'),)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state.sqlite")


@pytest.fixture
def outbox(path: str) -> Iterator[Outbox]:
    made = Outbox(path)
    yield made
    made.close()


def read_file(path: str, job_id: int) -> JobRows:
    with open_to_read(path) as state:
        return QueueAdmin(state, state.leaders()).rows_of_job(job_id)


def fill(outbox: Outbox) -> None:
    """Two runs of job 1, one of the same id in another cluster, and another job."""
    start = Message(("cc_rest",), KEY, Kind.START, Encoded(b'{"jobId":1,"metaData":{"a":"b"', SCRIPT, b"}}"))
    runs = {
        KEY: OpenRun(KEY, Stage.STARTED, "n1,n2", None),
        LATER: OpenRun(LATER, Stage.IGNORED, "n1", None, note="left out: ignoreUsers"),
        RunKey("lab", 2, 100): OpenRun(RunKey("lab", 2, 100), Stage.DONE, "", None),
    }
    outbox.commit("lab", Batch(runs=runs, messages=[start], checkpoint=777))
    outbox.commit("other", Batch(runs={ELSEWHERE: OpenRun(ELSEWHERE, Stage.STARTED, "n9", None)}))


def test_runs_and_messages_of_a_job_are_read_the_latest_first(outbox: Outbox, path: str) -> None:
    fill(outbox)
    (delivery,) = outbox.deliveries.begin(outbox.deliveries.due("cc_rest", 1e12, 9), 12.5)
    outbox.deliveries.parked(delivery, "HTTP 400: host 'n1' is unknown")
    for found in (outbox.admin.rows_of_job(1), read_file(path, 1)):
        assert [(run.cluster, run.start_time, run.stage, run.hosts, run.note) for run in found.runs] == [
            ("lab", 200, "ignored", "n1", "left out: ignoreUsers"),
            ("other", 150, "started", "n9", ""),
            ("lab", 100, "started", "n1,n2", ""),
        ]
        (row,) = found.rows
        assert (row.cluster, row.start_time, row.kind, row.sink, row.state) == (
            "lab",
            100,
            "start",
            "cc_rest",
            "parked",
        )
        assert (row.first_sent, row.parkings, row.why) == (12.5, 1, "HTTP 400: host # is unknown")
        assert row.reason == "HTTP 400: host 'n1' is unknown"
        assert row.message == {"jobId": 1, "metaData": {"a": "b"}}
        assert found.checkpoints == {"lab": 777}
    assert outbox.admin.rows_of_job(3).runs == ()


def test_an_open_run_keeps_its_note_over_a_restart(outbox: Outbox, path: str) -> None:
    fill(outbox)
    outbox.close()
    again = Outbox(path)
    assert {run.key: run.note for run in again.open_runs("lab")} == {KEY: "", LATER: "left out: ignoreUsers"}
    again.close()


def test_large_messages_and_very_many_runs_are_left_out(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_rows, "ALL_PAYLOADS", 20)
    keys = [RunKey("lab", 1, start) for start in range(1, MOST_RUNS + 11)]
    messages = [Message(("cc_rest",), key, Kind.START, Encoded(b'{"a":1}')) for key in keys[-3:]]
    runs = {key: OpenRun(key, Stage.DONE, "", None) for key in keys}
    outbox.commit("lab", Batch(runs=runs, messages=messages))
    found = outbox.admin.rows_of_job(1)
    assert [run.start_time for run in found.runs] == list(range(MOST_RUNS + 10, 10, -1))
    assert [row.message for row in found.rows] == [{"a": 1}, {"a": 1}, None]
    monkeypatch.setattr(job_rows, "PAYLOAD_BYTES", 6)
    assert [(row.message, row.message_bytes) for row in outbox.admin.rows_of_job(1).rows] == [(None, 7)] * 3

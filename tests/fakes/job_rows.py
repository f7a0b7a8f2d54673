"""Rows of the state file for tests that change some fields of them."""

from __future__ import annotations

from typing import Any

from cc_slurm_adapter.outbox.job_rows import MessageRow


def make_row(start_time: int, kind: str = "start", state: str = "pending", **changes: Any) -> MessageRow:
    """A message of job 1 of the cluster lab for cc-backend that was never sent, and that is due if it waits."""
    row = MessageRow(
        id=1,
        sink="cc_rest",
        cluster="lab",
        job_id=1,
        start_time=start_time,
        kind=kind,
        state=state,
        created=start_time + 5,
        first_sent=0,
        refusals=0,
        parkings=0,
        parked_since=0,
        reason="",
        why="",
        cuts=0,
        message_bytes=11,
        text_bytes=0,
        next_try=0 if state in ("pending", "parked") else None,
        next="now" if state in ("pending", "parked") else "",
        message={"jobId": 1},
    )
    return row._replace(**changes)

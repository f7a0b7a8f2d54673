"""A state file as it is after the first sync: so that measurements with many running jobs need not wait for one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import Encoded, Kind

PAYLOAD = b"{" + b" " * 2400 + b"}"
"""As large as a start with its slurmInfo."""
AT_ONCE = 1000
"""Runs in a transaction."""


def prefill(path: Path, cluster: str, jobs: range, start: int, nodes: int, pending: int = 0, away: int = 0) -> None:
    """These jobs run since `start` (Unix seconds) on nodes that are called n00000 and so on, and are reported.

    The starts of the last `pending` ones wait. Accounting was read until `away` seconds ago.
    """
    outbox, checkpoint = Outbox(str(path)), int(time.time()) - away
    for at in range(0, len(jobs), AT_ONCE):
        keys = {job_id: RunKey(cluster, job_id, start) for job_id in jobs[at : at + AT_ONCE]}
        runs = {key: OpenRun(key, Stage.STARTED, f"n{job_id % nodes:05}", None) for job_id, key in keys.items()}
        messages = [Message(("cc_rest",), key, Kind.START, Encoded(PAYLOAD)) for key in keys.values()]
        outbox.commit(cluster, Batch(runs=runs, messages=messages, checkpoint=checkpoint))
    outbox.close()
    with closing(sqlite3.connect(path)) as state:
        reported = (time.time(), jobs.stop - pending)
        state.execute("UPDATE delivery SET state = 'delivered', first_sent = ? WHERE job_id < ?", reported)
        state.commit()


def prefill_over(path: Path, cluster: str, keys: Sequence[RunKey]) -> None:
    """These runs are over and reported."""
    outbox = Outbox(str(path))
    for at in range(0, len(keys), AT_ONCE):
        runs = {key: OpenRun(key, Stage.DONE, "", None) for key in keys[at : at + AT_ONCE]}
        outbox.commit(cluster, Batch(runs=runs))
    outbox.close()

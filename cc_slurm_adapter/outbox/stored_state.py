"""Reads what can be said about the queue from the state file of a daemon that does not run."""

from __future__ import annotations

import os
from typing import NamedTuple

from cc_slurm_adapter.outbox.offline import open_to_read
from cc_slurm_adapter.outbox.queue_watch import count
from cc_slurm_adapter.outbox.report import Parked, QueueReport

_CHECKPOINT = "SELECT COALESCE(MAX(seen_until), 0) FROM checkpoint WHERE cluster != ''"
_OPEN_RUNS = "SELECT COUNT(*) FROM run WHERE stage != 'done'"


class StoredState(NamedTuple):
    """What is in the state file."""

    bytes: int
    """Of the file with its write-ahead log."""
    read_until: int
    """Until when accounting was read, as a Unix time; 0 if it never was."""
    open_runs: int
    queues: tuple[QueueReport, ...]
    parked: tuple[Parked, ...]
    """Refused messages by destination and reason, the reason with most messages first."""


def read_stored_state(path: str) -> StoredState:
    """Read the state file as it is. Raises StateError."""
    with open_to_read(path) as state, state.reading() as database:
        queues, parked = count(database)
        return StoredState(
            sum(os.path.getsize(path + suffix) for suffix in ("", "-wal") if os.path.exists(path + suffix)),
            database.execute(_CHECKPOINT).fetchone()[0],
            database.execute(_OPEN_RUNS).fetchone()[0],
            tuple(queues[sink] for sink in sorted(queues)),
            parked,
        )

"""A state file with messages of very many runs that are over, as after a long outage of cc-backend."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import Encoded, Kind

from .installation import STATE_FOLDER, USER
from .slurm_conf import CLUSTER

if TYPE_CHECKING:
    from pathlib import Path

    from .slurm_lab import SlurmLab

AT_ONCE = 1000
REFUSED = """
UPDATE delivery SET state = 'parked', next_try = 1e15, parkings = 1, parked_since = :now, reason = 'lab', why = 'lab'
WHERE kind = 'start'
"""
REFUSED_STOPS = "UPDATE delivery SET next_try = 1e15 WHERE kind = 'stop'"
DUE = """
SELECT COUNT(*) FROM delivery
WHERE kind = 'start' AND state IN ('pending', 'parked') AND next_try < 1e15 AND job_id >= {}
"""
READ = """
import json, sqlite3, sys
state = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=30)
print(json.dumps(state.execute(sys.argv[2]).fetchall()))
"""
WAITING = "SELECT job_id, kind FROM delivery WHERE state IN ('pending', 'parked')"
STATE_FILE = STATE_FOLDER / "state.sqlite"


def put_messages(lab: SlurmLab, folder: Path, job_ids: range, start: int) -> None:
    """Makes a state file with a start and a stop of each of these jobs, which ran for a minute from `start` on.

    The starts were refused. It is made in `folder`, since SQLite would follow the way into the cluster's files only as
    far as this machine's, and takes the place of the daemon's, which must not run.
    """
    path = folder / STATE_FILE.name
    outbox = Outbox(str(path), {"cc_rest": ""})
    for at in range(0, len(job_ids), AT_ONCE):
        some = job_ids[at : at + AT_ONCE]
        runs = {key: OpenRun(key, Stage.DONE, "", None) for key in (RunKey(CLUSTER, each, start) for each in some)}
        starts = [Message(("cc_rest",), key, Kind.START, start_of(key)) for key in runs]
        stops = [Message(("cc_rest",), key, Kind.STOP, stop_of(key)) for key in runs]
        outbox.commit(CLUSTER, Batch(runs=runs, messages=[*starts, *stops], checkpoint=int(time.time())))
    outbox.close()
    with closing(sqlite3.connect(path)) as state:
        state.execute(REFUSED, {"now": time.time()})
        state.execute(REFUSED_STOPS)
        state.commit()
    for left in lab.path(STATE_FOLDER).glob("state.sqlite*"):
        left.unlink()
    shutil.copy(path, lab.path(STATE_FILE))
    lab.output("chown", USER, str(STATE_FILE))


def start_of(key: RunKey) -> Encoded:
    """As much as cc-backend demands."""
    resources = [{"hostname": "node01", "hwthreads": [0, 8]}]
    request = {
        **stop_fields(key),
        "user": "bob",
        "project": "chem",
        "partition": "main",
        "resources": resources,
        "numNodes": 1,
        "numHwthreads": 2,
        "jobState": "running",
    }
    return Encoded(json.dumps(request).encode())


def stop_of(key: RunKey) -> Encoded:
    """After a minute."""
    request = {**stop_fields(key), "stopTime": key.start_time + 60, "jobState": "completed"}
    return Encoded(json.dumps(request).encode())


def stop_fields(key: RunKey) -> dict[str, str | int]:
    """By what cc-backend knows a run."""
    return {"jobId": key.job_id, "cluster": key.cluster, "startTime": key.start_time}


def waiting(lab: SlurmLab, job_ids: range) -> dict[int, set[str]]:
    """By job, of these jobs: the kinds of the messages that wait, as the state file has them."""
    found: dict[int, set[str]] = {}
    for job_id, kind in read(lab, WAITING):
        if job_id in job_ids:
            found.setdefault(job_id, set()).add(kind)
    return found


def due(lab: SlurmLab, first: int) -> int:
    """How many starts, of this job and those after it, are to be sent at some time and do not wait for another one."""
    return int(read(lab, DUE.format(first))[0][0])


def read(lab: SlurmLab, query: str) -> list[list[Any]]:
    """Asks the state file, whoever has it open."""
    rows: list[list[Any]] = json.loads(lab.output("python3", "-c", READ, str(STATE_FILE), query, user=USER))
    return rows

"""Drains starts and stops that wait into a stand-in cc-backend, with nothing of the daemon but its sender.

    python3 drain_program.py FILE FOLDER PORT JOBS

FILE is the built file, whose modules are measured. Prints [seconds, seconds of CPU].
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, f"{sys.argv[1]}/site-packages")

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.jobs.recorder import SLICE
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.sinks.base import Encoded, Kind, Sink, Text
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system.threads import stop_all

BEGAN = 1_700_000_000
STAGES = {Kind.START: Stage.STARTED, Kind.STOP: Stage.DONE}


def message(key: RunKey, kind: Kind) -> Encoded:
    """As large as that of a job with one node, and with slurmInfo that no other job has."""
    head = b'{"jobId":%d,"cluster":"big","startTime":%d' % (key.job_id, key.start_time)
    if kind is Kind.STOP:
        return Encoded(head + b',"stopTime":%d%s}' % (BEGAN + 60, b" " * 60))
    return Encoded(head + b" " * 660, (Text(b',"slurmInfo":', b'"%d%s"' % (key.job_id, b" " * 1700)),), b"}")


def put_in(outbox: Outbox, sink: Sink, keys: list[RunKey], kind: Kind) -> None:
    for at in range(0, len(keys), SLICE):
        some = keys[at : at + SLICE]
        runs = {key: OpenRun(key, STAGES[kind], "n00001", None) for key in some}
        messages = [Message((sink.name,), key, kind, message(key, kind)) for key in some]
        outbox.commit("big", Batch(runs=runs, messages=messages))


def main(folder: str, port: int, jobs: int) -> None:
    outbox = Outbox(str(Path(folder) / "state.sqlite"))
    sink = CcRest(f"http://127.0.0.1:{port}", lambda: "token")
    keys = [RunKey("big", job_id, BEGAN) for job_id in range(1, jobs + 1)]
    for kind in STAGES:
        put_in(outbox, sink, keys, kind)
    sender = Sender(sink, outbox, Counters())
    began, used = time.perf_counter(), time.process_time()
    sender.start()
    while outbox.has_waiting(more_than=0):
        time.sleep(0.01)
    print(json.dumps([time.perf_counter() - began, time.process_time() - used]))
    stop_all([sender], 5)
    outbox.close()


main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

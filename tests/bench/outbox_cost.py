"""What the outbox costs: starts and stops go in as a pass puts them, and out to a destination that takes all at once.

    python3 outbox_cost.py FILE FOLDER JOBS

FILE is the built file, whose modules are measured; prints the seconds of CPU for a job.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

sys.path.insert(0, f"{sys.argv[1]}/site-packages")

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.jobs.recorder import SLICE
from cc_slurm_adapter.model import NodeState, RunKey
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.sinks.base import Answer, Delivery, Encoded, Kind, RunningRow, Sink, Text, Verdict
from cc_slurm_adapter.sinks.clusters import ClusterList
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system.threads import stop_all

STOP = Encoded(b"{" + b" " * 120 + b"}")


class TakesAll:
    """A connection whose other end accepts everything and costs nothing."""

    def deliver_all(self, deliveries: Sequence[Delivery]) -> list[Answer]:
        return [Answer(Verdict.DELIVERED)] * len(deliveries)

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> Answer:
        return Answer(Verdict.DELIVERED)

    def running_rows(self, cluster: str) -> list[RunningRow]:
        return []

    def clusters(self) -> ClusterList:
        return ClusterList(())

    def abort(self) -> None: ...
    def break_off(self) -> None: ...
    def close(self) -> None: ...


class EasySink(CcRest):
    """Names its rows as cc-backend's."""

    def connect(self, progress: object = None) -> TakesAll:  # type: ignore[override]
        return TakesAll()


def start(key: RunKey) -> Encoded:
    """As large as one with its slurmInfo, which no other job has."""
    return Encoded(b"{" + b" " * 700, (Text(b',"slurmInfo":', b'"%d%s"' % (key.job_id, b" " * 1700)),), b"}")


def put_in(outbox: Outbox, sink: Sink, keys: list[RunKey], kind: Kind, stage: Stage) -> None:
    for at in range(0, len(keys), SLICE):
        some = keys[at : at + SLICE]
        runs = {key: OpenRun(key, stage, "n00001", None) for key in some}
        messages = [Message((sink.name,), key, kind, start(key) if kind is Kind.START else STOP) for key in some]
        outbox.commit("big", Batch(runs=runs, messages=messages))


def main(folder: str, jobs: int) -> None:
    outbox = Outbox(f"{folder}/outbox.sqlite")
    sink = EasySink("http://127.0.0.1", lambda: "")
    keys = [RunKey("big", job_id, 1_700_000_000) for job_id in range(1, jobs + 1)]
    before = time.process_time()
    put_in(outbox, sink, keys, Kind.START, Stage.STARTED)
    put_in(outbox, sink, keys, Kind.STOP, Stage.DONE)
    sender = Sender(sink, outbox, Counters())
    sender.start()
    while outbox.waiting():
        time.sleep(0.2)
    stop_all([sender], 5)
    print((time.process_time() - before) / jobs)
    outbox.close()


main(sys.argv[2], int(sys.argv[3]))

"""The example consumer prints what the adapter publishes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from cc_slurm_adapter.model import Phase
from cc_slurm_adapter.sinks.base import Delivery, Kind
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.nats.client import NatsAccess, NatsClient
from cc_slurm_adapter.sinks.nats.sink import CcNats
from tests.fakes.slurm_and_sinks import make_run
from tests.nats.nats_server import NatsServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "nats_consumer.py"
PATIENCE = 60.0


def test_it_prints_job_events(nats_server: NatsServer) -> None:
    client = NatsClient(lambda: NatsAccess((nats_server.url,)))
    sink = CcNats(client, "here", "jobs")
    run = make_run(4711, phase=Phase.ENDED, name='a "b" \\ event="x" 5\n')
    assert run.end is not None
    rows = [
        Delivery(1, run.key, Kind.START, CcMessages(()).encode_start(run).whole(), 0, 0.0),
        Delivery(2, run.key, Kind.STOP, CcMessages(()).encode_stop(run.key, run.end).whole(), 0, 0.0),
    ]
    lines: list[str] = []
    command = [sys.executable, str(EXAMPLE), nats_server.url, "jobs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
        assert consumer.stdout is not None
        reader = threading.Thread(target=lines.extend, args=(consumer.stdout,))
        reader.start()
        deadline = time.monotonic() + PATIENCE
        while len(set(lines)) < len(rows) and time.monotonic() < deadline:
            sink.connect().deliver_all(rows)  # what comes before it has subscribed is not for it
            time.sleep(0.1)
        consumer.kill()
        reader.join(PATIENCE)
        client.close()
    assert set(lines) == {"start_job lab 4711 running\n", "stop_job lab 4711 completed\n"}

"""What NATS adds: CPU and memory of the daemon while a backlog drains, with it and without."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.backend import STOP
from tests.bench.practice import PracticeSite
from tests.bench.processes import BenchError, peak_memory, wait_until
from tests.bench.report import Budget, Other, median
from tests.bench.site import Amount, Bench
from tests.nats.nats_server import NatsServer
from tests.nats.server_program import NATS_SERVER
from tests.nats.subscriber import make_stream

JOBS = Amount(2_500, 500)
"""Each has a start and a stop."""
ROUNDS = 5
OF_REST_ALONE, STREAM_OF_REST_ALONE, PEAK_MB = 1.4, 2.0, 50
LIMIT = 600.0
SUBJECT = "jobs"


class Drained(NamedTuple):
    """Own CPU for each job in seconds, and the daemon's peak in MB."""

    cpu: float
    peak: float


def measure_nats(bench: Bench) -> None:
    """5,000 messages over REST alone, and with NATS beside it, in turn; needs a nats-server, fetched if need be."""
    problems: list[str] = []
    program = NATS_SERVER.find(problems)
    if program is None:
        raise BenchError(problems[0])
    jobs = bench.some(JOBS)
    with tempfile.TemporaryDirectory() as folder, NatsServer(program, Path(folder), jetstream=True) as server:
        make_stream(server.url, "bench", [SUBJECT])
        ways: Sequence[Mapping[str, Any]] = (
            {},
            {"natsServer": server.url},
            {"natsServer": server.url, "natsJetStream": True},
        )
        rounds = [[_drain(bench, jobs, **config) for config in ways] for _ in range(ROUNDS)]
    alone, beside, stream = (_median(drains) for drains in zip(*rounds))
    _tell(bench, "REST and NATS", beside, alone, OF_REST_ALONE)
    _tell(bench, "REST and a stream of NATS", stream, alone, STREAM_OF_REST_ALONE)


def _median(drains: Sequence[Drained]) -> Drained:
    return Drained(median(each.cpu for each in drains), max(each.peak for each in drains))


def _drain(bench: Bench, jobs: int, **config: Any) -> Drained:
    messages = 4 * jobs if config else 2 * jobs
    with PracticeSite(bench, jobs=0, backend=False, natsSubject=SUBJECT, **config) as site:
        site.start()
        job_ids = site.cluster.begin(jobs)
        site.poll(LIMIT)
        site.cluster.end(job_ids)
        site.poll(LIMIT)
        wait_until("the messages to wait", lambda: site.daemon.waiting_messages() >= messages, LIMIT)
        before = site.cpu
        site.start_backend()
        site.daemon.signal(signal.SIGHUP)
        site.backend.wait_for(STOP, job_ids, LIMIT)
        wait_until("the messages to leave", lambda: site.daemon.waiting_messages() == 0, LIMIT)
        return Drained(site.cpu.since(before).own / jobs, peak_memory(site.daemon.pid))


def _tell(bench: Bench, way: str, drained: Drained, alone: Drained, limit: float) -> None:
    add, other = bench.report.add, Other("REST alone", alone.cpu)
    budget = Budget(limit, of_ratio=True)
    add("nats", f"own CPU for a job, {way}", drained.cpu, "s", other=other, budget=budget)
    other = Other("REST alone", alone.peak)
    add("nats", f"peak memory, {way}", drained.peak, "MB", other=other, budget=Budget(PEAK_MB))

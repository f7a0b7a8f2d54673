"""What the sender takes for a message by itself: into a destination without cost, beside a bare loop of the same."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.bench.backend import BenchBackend
from tests.bench.processes import Cost
from tests.bench.report import Budget, Other
from tests.bench.site import Amount, Bench

JOBS, ROUNDS = Amount(5_000, 1_500), 7
"""Each job has a start and a stop. Of the rounds, the one with the middle ratio counts."""
OF_BARE_LOOP = 0.6
LIMIT = 600.0


class Round(NamedTuple):
    """The same messages by the sender, and in a bare loop right after that."""

    drain: Cost
    bare: Cost


def measure_sender(bench: Bench) -> None:
    """10,000 messages from the outbox into a destination without cost, and in a bare loop, seven times in turn."""
    jobs = bench.some(JOBS)
    rounds = sorted((_round(bench, jobs) for _ in range(ROUNDS)), key=lambda each: each.drain.wall / each.bare.wall)
    drain, bare = rounds[len(rounds) // 2]
    messages = 2 * jobs
    than = Other("a bare loop", messages / bare.wall)
    budget = Budget(OF_BARE_LOOP, of_ratio=True, at_least=True)
    what = "messages into a destination without cost"
    bench.report.add("sender", what, messages / drain.wall, "/s", other=than, budget=budget)
    than = Other("a bare loop", bare.cpu / messages)
    bench.report.add("sender", "CPU for a message", drain.cpu / messages, "s", other=than)


def _round(bench: Bench, jobs: int) -> Round:
    with BenchBackend(bench.python, "big") as backend:
        drain = _drain(bench, backend, jobs)
        backend.look()
        return Round(drain, backend.bare_loop(jobs, jobs))


def _drain(bench: Bench, backend: BenchBackend, jobs: int) -> Cost:
    program = str(Path(__file__).with_name("drain_program.py"))
    with tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-") as folder:
        command = [bench.python, "-I", "-S", "-B", program, str(bench.adapter), folder, str(backend.port), str(jobs)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT)
    return Cost(*json.loads(done.stdout))

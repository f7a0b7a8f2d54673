"""Another adapter on the same real Slurm, with the same config.json."""

from __future__ import annotations

import time
from typing import NamedTuple

from tests.bench.backend import START
from tests.bench.processes import Cpu, peak_memory
from tests.bench.site import Bench

SYNC_LIMIT, POLL_LIMIT = 1800.0, 600.0
PAUSE = 1
"""Seconds between its polls."""
POLLS = 2


class Another(NamedTuple):
    """What its first sync and a poll took (seconds), and the peaks of its memory and of its commands' (MB)."""

    sync: float
    cpu: Cpu
    wall: float
    peak: float
    command_peak: float


def polls_of_another(bench: Bench) -> Another:
    """Its first sync, then polls in which nothing has changed: it dates the file lastRunPath after each."""
    with bench.big_site(bench, program=bench.against, slurmPollInterval=PAUSE) as site:
        began = time.time()
        site.daemon.launch(debug=2)
        told = site.backend.wait_for(START, site.jobs, SYNC_LIMIT)
        sync = max(told.values()) - began
        site.next_pass(POLL_LIMIT)
        site.calls()
        before, since = site.cpu, time.monotonic()
        for _ in range(POLLS):
            site.next_pass(POLL_LIMIT)
        wall = (time.monotonic() - since) / POLLS - PAUSE
        used, peak = site.cpu.since(before), peak_memory(site.daemon.pid)
        site.daemon.stop(60)
        calls = site.calls()
        alone = site.alone(calls[: len(calls) // POLLS])
        return Another(sync, Cpu(used.own / POLLS, used.children / POLLS), wall, peak, alone.peak)

"""Jobs of a real Slurm over REST and NATS: what listens hears just what cc-backend took, whatever is killed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from examples.practice.cc_backend import CcBackend
from tests.nats.conftest import nats_program, start_nats
from tests.nats.points import take_in
from tests.nats.subscriber import make_stream, read_stream

from .namespaces import wait_for
from .slurm_jobs import Submission, submit, wait_until_running

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.nats.conftest import StartNats

    from .installation import Installation

__all__ = ["nats_program", "start_nats"]
"""Fixtures from elsewhere."""

pytestmark = pytest.mark.slurm

JOBS = [
    Submission(("-n1", "--gres=gpu:1"), "sleep 1"),
    Submission(("-N2", "-n4"), "sleep 4"),
    Submission(("-n1",), "sleep 3", name='a "quoted" \\ name, and=more'),
]


def rows_of(backend: CcBackend, jobs: Iterable[int]) -> list[tuple[Any, ...]]:
    rows = [row for job_id in jobs for row in backend.rows_of(job_id)]
    return [(row.key, row.start, row.state, row.stop_time) for row in rows]


def test_a_stream_hears_what_cc_backend_took(installation: Installation, start_nats: StartNats) -> None:
    """The NATS server is killed while jobs run, then the daemon; other jobs start meanwhile.

    There are also earlier jobs, which the daemon reports when it starts.
    """
    server = start_nats(jetstream=True)
    make_stream(server.url, "lab", ["jobs"])
    installation.configure(natsServer=server.url, natsJetStream=True)
    installation.start()
    jobs = [submit(installation.lab, job) for job in JOBS]
    installation.wait_for_starts(jobs, seconds=60)
    server.kill()
    jobs += [submit(installation.lab, job) for job in JOBS]
    wait_until_running(installation.lab, jobs[-2:])
    installation.kill()
    installation.start()
    installation.wait_for_stops(jobs, seconds=60)
    server.start()
    heard = partial(read_stream, server.url, "lab")
    wait_for("the stream to have all", lambda: 2 * len(installation.backend.rows) == len(heard()), seconds=60, every=1)
    listener = CcBackend()
    for message in heard():
        take_in(listener, message.payload)
    assert rows_of(listener, jobs) == rows_of(installation.backend, jobs)
    assert len(rows_of(listener, jobs)) == len(jobs)

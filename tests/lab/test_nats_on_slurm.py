"""Jobs of a real Slurm over REST and NATS: what listens hears just what cc-backend took, whatever is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from examples.practice.cc_backend import CcBackend
from tests.nats.conftest import nats_program, start_nats
from tests.nats.points import take_in
from tests.nats.subscriber import make_stream, read_stream

from .namespaces import wait_for
from .slurm_jobs import Submission, submit, wait_until_running

if TYPE_CHECKING:
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


def rows_of(backend: CcBackend) -> list[tuple[Any, ...]]:
    return sorted(((row.key, row.start, row.state, row.stop_time) for row in backend.rows), key=lambda row: row[0])


def test_a_stream_hears_what_cc_backend_took(installation: Installation, start_nats: StartNats) -> None:
    """The NATS server is killed while jobs run, then the daemon; other jobs start meanwhile."""
    server = start_nats(jetstream=True)
    make_stream(server.url, "lab", ["jobs"])
    installation.configure(natsServer=server.url, natsJetStream=True)
    installation.start()
    jobs = [submit(installation.lab, job) for job in JOBS]
    installation.wait_for_starts(jobs, seconds=20)
    server.kill()
    jobs += [submit(installation.lab, job) for job in JOBS]
    wait_until_running(installation.lab, jobs[-2:])
    installation.kill()
    installation.start()
    installation.wait_for_stops(jobs, seconds=60)
    server.start()
    expected = 2 * len(installation.backend.rows)
    wait_for("the stream to have all", lambda: len(read_stream(server.url, "lab")) == expected, seconds=40)
    listener = CcBackend()
    assert {take_in(listener, message.payload) for message in read_stream(server.url, "lab")} == {200, 201}
    assert rows_of(listener) == rows_of(installation.backend)
    assert len(listener.rows) == 2 * len(JOBS)

"""From a hook event to the accepted request: what is measured, and what is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters, HistogramSample
from cc_slurm_adapter.model import HookEvent
from cc_slurm_adapter.outbox.event_latency import EXPIRY, MAX_EVENTS, EventLatency
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.sinks.base import Kind
from examples.practice.cc_backend import refused_jobs
from tests.unit.outbox.test_sender import TIMING, Site, runs

LONG = 100.0
"""Seconds ago: far from the bounds of its bucket, which are 60 and 300, however busy the machine is."""


class Latency:
    """With the counters that it writes to."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.latency = EventLatency(self.counters)

    def hear(self, job_id: int, context: str = "prolog_slurmctld", ago: float = LONG) -> None:
        self.latency.announced(HookEvent(job_id, context, time.monotonic() - ago))

    def measured(self) -> dict[str, int]:
        """How many durations there are by kind."""
        return {each.labels[0].value: sum(each.buckets) for each in self.counters.histograms()}


@pytest.fixture
def lab() -> Latency:
    return Latency()


def test_start_and_stop_are_measured_once_each(lab: Latency) -> None:
    lab.hear(5)
    lab.latency.delivered(5, Kind.STOP)
    assert lab.measured() == {}
    lab.latency.delivered(5, Kind.START)
    lab.hear(5, "epilog_slurmctld")
    lab.latency.delivered(5, Kind.START)
    lab.latency.delivered(5, Kind.WITHDRAW)
    lab.latency.delivered(5, Kind.STOP)
    assert lab.measured() == {"start": 1, "stop": 1}
    assert all(between_60_and_300(each) == 1 for each in lab.counters.histograms())
    assert all(LONG <= each.seconds < LONG + 60 for each in lab.counters.histograms())


def between_60_and_300(sample: HistogramSample) -> int:
    return sample.buckets[11]


def test_a_run_that_no_event_announced_is_not_measured(lab: Latency) -> None:
    lab.hear(5)
    lab.latency.delivered(6, Kind.START)
    assert lab.measured() == {}


def test_of_the_events_from_many_nodes_the_first_counts(lab: Latency) -> None:
    lab.hear(5, "prolog_slurmd")
    lab.hear(5, "prolog_slurmd", ago=1.0)
    lab.latency.delivered(5, Kind.START)
    lab.hear(5, "prolog_slurmd", ago=0.0)  # of a node that was slow, which says nothing about the next start
    lab.latency.delivered(5, Kind.START)
    assert lab.measured() == {"start": 1}
    assert lab.counters.histograms()[0].seconds >= LONG


def test_each_start_of_a_requeued_job_is_measured_from_its_own_event(lab: Latency) -> None:
    lab.hear(5, ago=EXPIRY - 100)
    lab.hear(5)
    lab.latency.delivered(5, Kind.START)
    lab.hear(5)
    lab.latency.delivered(5, Kind.START)
    (sample,) = lab.counters.histograms()
    assert between_60_and_300(sample) == 2


def test_what_took_longer_than_ten_minutes_is_not_measured(lab: Latency) -> None:
    lab.hear(5, ago=EXPIRY)
    lab.latency.delivered(5, Kind.START)
    assert lab.measured() == {}


def test_an_event_that_has_expired_hides_no_other(lab: Latency) -> None:
    lab.hear(5, "prolog_slurmd", ago=EXPIRY)
    lab.hear(5, "prolog_slurmd")
    lab.latency.delivered(5, Kind.START)
    assert lab.measured() == {"start": 1}


def test_the_oldest_of_too_many_events_is_forgotten(lab: Latency) -> None:
    for job_id in range(MAX_EVENTS + 1):
        lab.hear(job_id)
    for job_id in range(MAX_EVENTS + 1):
        lab.latency.delivered(job_id, Kind.START)
    assert lab.measured() == {"start": MAX_EVENTS}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_it_ends_when_the_destination_has_accepted_and_not_before(site: Site, lab: Latency) -> None:
    site.sender = Sender(site.sink, site.outbox, site.status, event_latency=lab.latency, timing=TIMING)
    fault = site.backend.add_fault(refused_jobs([2]))
    lab.hear(1)
    lab.hear(2)
    lab.hear(1, "epilog_slurmctld")
    site.owe(*runs(1, 2))
    site.sender.start()
    assert site.settled(parked=1, pending=1)
    assert lab.measured() == {"start": 1, "stop": 1}
    site.backend.remove_fault(fault)
    site.outbox.retry_all()
    site.sender.retry_now()
    assert site.settled()
    assert lab.measured() == {"start": 2, "stop": 1}


def test_each_request_is_timed(site: Site) -> None:
    site.owe(*runs(1, 2))
    site.sender.start()
    assert site.settled()
    (sample,) = site.status.timings()
    assert (sample.name, sample.labels[0].value, sample.times) == ("requests", "cc_rest", 4)
    assert sample.seconds > 0

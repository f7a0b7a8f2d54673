"""Which ended jobs slurmctld can still show is told by one listing, and never concluded from an older one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.known_jobs import MANY, MARGIN, MAX_AGE, KnownJobs
from examples.practice.programs import write_program

NOW = 1_800_000_000
LONG_AGO = NOW - 86400


class Site:
    """A squeue that lists the ids of a file and counts its calls, and clocks that are set by hand."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        write_program(folder / "squeue", f'#!/bin/sh\necho "$*" >> {folder}/calls\ncat {folder}/ids\n')
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        self.now, self.running = float(NOW), 5000.0
        self.known = KnownJobs(Commands(), clock=lambda: self.now, monotonic=lambda: self.running)

    def put(self, *job_ids: int) -> None:
        (self._folder / "ids").write_text("".join(f"{job_id}\n" for job_id in job_ids), encoding="ascii")

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.running += seconds

    @property
    def calls(self) -> list[str]:
        path = self._folder / "calls"
        return path.read_text(encoding="ascii").splitlines() if path.exists() else []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def ended(end_time: int, count: int = MANY) -> dict[int, int]:
    return dict.fromkeys(range(1, count + 1), end_time)


def test_few_jobs_are_not_worth_a_listing(site: Site) -> None:
    few = ended(LONG_AGO, MANY - 1)
    assert site.known.among(few) == set(few)
    assert site.calls == []


def test_of_many_those_are_left_that_are_listed_pending_ones_too(site: Site) -> None:
    site.put(7, 9, 1234)
    assert site.known.among(ended(LONG_AGO)) == {7, 9}
    assert site.calls == ["-h -a -t all -o %A"]


def test_one_listing_is_enough_for_all_that_ended_before(site: Site) -> None:
    site.put(7)
    site.known.among(ended(LONG_AGO))
    site.wait(MAX_AGE)
    assert site.known.among({3: LONG_AGO, 7: LONG_AGO}) == {7}
    assert len(site.calls) == 1
    site.wait(1)
    assert site.known.among({3: LONG_AGO, 7: LONG_AGO}) == {3, 7}  # two are asked for by their ids
    site.put()
    assert site.known.among(ended(LONG_AGO)) == set()
    assert len(site.calls) == 2


def test_a_job_that_ended_about_then_or_later_is_never_left_out(site: Site) -> None:
    site.put()
    assert site.known.among({**ended(LONG_AGO), 1: NOW - MARGIN + 1, 2: NOW + 9}) == {1, 2}
    site.wait(100)
    assert site.known.among({1: NOW + 30, 2: LONG_AGO}) == {1}


def test_many_jobs_that_have_just_ended_are_not_worth_a_listing(site: Site) -> None:
    """It could tell nothing about them, at each poll of a site without hooks."""
    many = ended(NOW - MARGIN + 1, 10 * MANY)
    assert site.known.among(many) == set(many)
    assert site.calls == []


@pytest.mark.parametrize("step", [-3600, -6, 6, 3600])
def test_after_a_step_of_the_clock_the_listing_counts_no_more(site: Site, step: int) -> None:
    site.put()
    assert site.known.among(ended(LONG_AGO)) == set()
    site.now += step
    assert site.known.among({1: LONG_AGO}) == {1}


def test_nothing_is_concluded_from_a_failure(site: Site) -> None:
    with pytest.raises(SlurmError):
        site.known.among(ended(LONG_AGO))

"""Absences of any length, clocks that are set, and changes of daylight saving: nothing is lost, nothing is double."""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from examples.practice.cc_backend import JobRow
from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings, TrueRun
from tests.built import moved_clock
from tests.built.moved_clock import MovedClock

AT_ONCE = 5
HOUR, DAY = 3600, 86400
LONG = JobRequest("long", gpus_per_node=1, duration=1000 * DAY, time_limit=None)
SHORT = JobRequest("short", duration=0.3)
FORGETFUL = Settings(min_job_age=1)
"""slurmctld forgets a job at once."""
PROGRAM = """\
#!/bin/sh
exec {python} -I -S -B -X utf8 {program} {offset} {adapter} "$@"
"""


class ClockedSite(Site):
    """A site whose every program, cc-backend apart, has one clock that can be set.

    From the beginning it is wrong by `offset` seconds. `folder` is for its programs.
    """

    def __init__(self, adapter: Path, folder: Path, offset: float = 0.0, **settings: Any) -> None:
        file = folder / "offset"
        file.write_text(repr(offset), encoding="ascii")
        self.clock = MovedClock(file)
        super().__init__(adapter, python=str(write_clocked(folder, "python", "")), **settings)
        self.cluster.clock = self.clock.now
        self.daemon.adapter = write_clocked(folder, "daemon", str(adapter))

    def __enter__(self) -> ClockedSite:
        return self


def write_clocked(folder: Path, name: str, adapter: str) -> Path:
    words = {"python": sys.executable, "program": moved_clock.__file__, "offset": str(folder / "offset")}
    quoted = {key: shlex.quote(word) for key, word in words.items()}
    return write_program(folder / name, PROGRAM.format(**quoted, adapter=shlex.quote(adapter) if adapter else ""))


def told(row: JobRow) -> tuple[int, int, int | None, str]:
    return row.job_id, row.start_time, row.stop_time, row.state


def true(run: TrueRun) -> tuple[int, int, int | None, str]:
    """An end before the start, as after the clock was set back, is reported as the start: cc-backend takes no other."""
    return run.job_id, run.start, None if run.end is None else max(run.end, run.start), run.state.lower()


def run_and_forget(site: Site, *jobs: JobRequest) -> list[int]:
    """Submit jobs and wait until slurmctld has forgotten them."""
    ids = site.cluster.submit_all(jobs)
    site.wait_for("the jobs to end", lambda: set(ids) <= ended(site))
    wait_until_forgotten(site, *ids)
    return ids


def cancel(site: Site, *ids: int) -> None:
    for job_id in ids:
        site.cluster.cancel(job_id)
    site.wait_for("the end", lambda: set(ids) <= ended(site))


def ended(site: Site) -> set[int]:
    return {run.job_id for run in site.cluster.truth() if run.end is not None}


def wait_until_forgotten(site: Site, *ids: int) -> None:
    def is_forgotten() -> bool:
        with site.cluster.store() as store:
            known = {record.job_id for record in store.in_phases(("COMPLETING", "ENDED"))}
        return not known & set(ids)

    site.wait_for("slurmctld to forget", is_forgotten)


def caught_up_after_an_absence(adapter: Path, folder: Path, away: int, span: int) -> None:
    """Bounded by slurmQueryMaxSpan; what had been seen before gets its end however long ago that was."""
    with ClockedSite(adapter, folder, cluster=FORGETFUL, slurmPollInterval=1) as site:
        site.daemon.start()
        seen = site.cluster.submit(LONG)
        lasting = site.cluster.submit(LONG)
        site.wait_for("the starts", lambda: site.has_started(seen, lasting))
        site.wait_for("a complete pass", (site.daemon.state_folder / "lastrun").exists)
        site.daemon.kill()
        cancel(site, seen)
        (early,) = run_and_forget(site, SHORT)
        site.clock.set_by(away - 20)
        (late,) = run_and_forget(site, SHORT)
        site.clock.set_by(20)
        site.daemon.configure(slurmQueryMaxSpan=span)
        site.daemon.start()
        site.wait_for("the end of what was seen", lambda: site.has_stopped(seen, late))
        cancel(site, lasting)
        site.wait_for("the last end", lambda: site.has_stopped(lasting))
        reported = {seen, late, lasting, *([early] if away < span else [])}
        assert sorted(map(told, site.backend.rows)) == sorted(
            true(run) for run in site.cluster.truth() if run.job_id in reported
        )
        assert [line for line in site.differences() if line.startswith((f"job {seen} ", f"job {lasting} "))] == []


def set_while_jobs_run(adapter: Path, folder: Path, step: int) -> None:
    with ClockedSite(adapter, folder, cluster=FORGETFUL._replace(requeue_delay=600), slurmPollInterval=1) as site:
        site.daemon.start()
        jobs = site.cluster.submit_all([LONG] * 3)
        site.wait_for("the starts", lambda: site.has_started(*jobs))
        site.clock.set_by(step)
        cancel(site, jobs[0])
        site.cluster.requeue(jobs[1])
        jobs += site.cluster.submit_all([SHORT])
        site.wait_for("what ended", lambda: site.has_stopped(jobs[0], jobs[1], jobs[3]))
        site.daemon.kill()
        cancel(site, jobs[2])
        wait_until_forgotten(site, jobs[2])
        site.daemon.start()
        site.wait_for("the last end", lambda: site.has_stopped(jobs[2]))
        (requeued,) = (run for run in site.cluster.truth() if run.state == "REQUEUED")
        expected = [true(run) for run in site.cluster.truth() if run is not requeued and run.job_id != requeued.job_id]
        expected.append((requeued.job_id, requeued.start, max(requeued.end or 0, requeued.start), "cancelled"))
        assert sorted(map(told, site.backend.rows)) == sorted(expected)


def set_while_cc_backend_is_away(adapter: Path, folder: Path, step: int) -> None:
    """What waits for cc-backend does not wait for an hour to pass."""
    with ClockedSite(adapter, folder, slurmPollInterval=1) as site:
        site.daemon.start()
        (job,) = site.cluster.submit_all([LONG])
        site.wait_for("the start", lambda: site.has_started(job))
        site.server.stop()
        site.cluster.submit(SHORT)
        cancel(site, job)
        site.wait_for("the cluster to be idle", site.cluster.is_idle)
        site.wait_for("a failure", lambda: "cannot be reached" in site.daemon.log())
        site.clock.set_by(step)
        site.server.start()
        site.wait_for("all to be reported", site.is_reported)
        assert sorted(map(told, site.backend.rows)) == sorted(map(true, site.cluster.truth()))


def checkpoint_from_the_future(adapter: Path, folder: Path) -> None:
    """The clock was a month ahead and was set right while the daemon was away."""
    with ClockedSite(adapter, folder, 30 * DAY, cluster=FORGETFUL, slurmPollInterval=1) as site:
        site.daemon.start()
        job = site.cluster.submit(LONG)
        site.wait_for("the start", lambda: site.has_started(job))
        last_run = site.daemon.state_folder / "lastrun"
        site.wait_for("a complete pass", lambda: last_run.exists() and last_run.stat().st_mtime > time.time() + DAY)
        site.daemon.kill()
        site.clock.set_by(-30 * DAY)
        run_and_forget(site, SHORT)
        cancel(site, job)
        wait_until_forgotten(site, job)
        site.clock.set_by(1.5 * HOUR)  # longer than what every catch-up reads again
        site.daemon.start()
        site.wait_for("all to be reported", site.is_reported)
        assert sorted(map(told, site.backend.rows)) == sorted(map(true, site.cluster.truth()))


def change_of_daylight_saving(adapter: Path, folder: Path, change: str) -> None:
    """At 01:00 UTC clocks in Berlin change. Jobs of before, across and after it."""
    moment = datetime.fromisoformat(f"{change}T01:00:00").replace(tzinfo=timezone.utc).timestamp()
    with ClockedSite(adapter, folder, cluster=FORGETFUL, slurmPollInterval=1) as site:
        site.daemon.environ["TZ"] = "Europe/Berlin"
        site.clock.set_by(moment - 3 - site.clock.now())
        site.daemon.start()
        jobs = site.cluster.submit_all([SHORT, LONG, LONG])
        site.wait_for("the change", lambda: site.clock.now() > moment and site.has_started(*jobs))
        jobs += site.cluster.submit_all([SHORT])
        cancel(site, jobs[1])
        site.wait_for("the ends", lambda: site.has_stopped(jobs[0], jobs[1], jobs[3]))
        site.daemon.signal(signal.SIGKILL)
        site.daemon.wait()
        cancel(site, jobs[2])
        run_and_forget(site, SHORT)
        wait_until_forgotten(site, jobs[2])
        site.daemon.start()
        site.wait_for("all to be reported", site.is_reported)
        assert sorted(map(told, site.backend.rows)) == sorted(map(true, site.cluster.truth()))


def has_said(site: Site, words: str, times: int) -> bool:
    return site.daemon.log().count(words) == times


def started_in(adapter: Path, folder: Path, year: int) -> None:
    """A host whose clock is set only after the daemon was started, and after it was told to stop and started again."""
    with ClockedSite(adapter, folder, cluster=FORGETFUL, slurmPollInterval=1) as site:
        wrong = datetime(year, 1, 1, tzinfo=timezone.utc).timestamp() - site.clock.now()
        site.clock.set_by(wrong)
        for number in (1, 2):
            site.daemon.launch()
            site.wait_for("the daemon to wait", partial(has_said, site, "waiting until it is set", number))
            if number == 1:
                assert site.daemon.stop()[0] == 0
        assert not (site.daemon.state_folder / "state.sqlite").exists()
        site.clock.set_by(-wrong)
        job = site.cluster.submit(LONG)
        site.wait_for("the start", lambda: site.has_started(job))
        assert "the clock of this host was set" in site.daemon.log()
        cancel(site, job)
        site.wait_for("all to be reported", site.is_reported)
        assert sorted(map(told, site.backend.rows)) == sorted(map(true, site.cluster.truth()))


def set_forward_by_months(adapter: Path, folder: Path) -> None:
    """What waits for cc-backend is not too old then, and what was reported is not forgotten."""
    with ClockedSite(adapter, folder, cluster=FORGETFUL, slurmPollInterval=1) as site:
        site.daemon.start()
        first = site.cluster.submit(LONG)
        site.wait_for("the start", lambda: site.has_started(first))
        site.server.stop()
        second = site.cluster.submit(LONG)
        site.wait_for("a failure", lambda: "cannot be reached" in site.daemon.log())
        site.clock.set_by(150 * DAY)
        site.wait_for("a look at the clock", lambda: "the clock was set by" in site.daemon.log())
        site.server.start()
        site.wait_for("the start", lambda: site.has_started(second))
        cancel(site, first, second)
        site.wait_for("the ends", lambda: site.has_stopped(first, second))
        assert "parked" not in site.daemon.log()


SCENARIOS: dict[str, Callable[[Path, Path], None]] = {
    "away for a minute": partial(caught_up_after_an_absence, away=60, span=HOUR),
    "away for a day": partial(caught_up_after_an_absence, away=DAY, span=DAY + HOUR),
    "away for 30 days": partial(caught_up_after_an_absence, away=30 * DAY, span=6 * HOUR),
    "set forward while jobs run": partial(set_while_jobs_run, step=HOUR),
    "set back while jobs run": partial(set_while_jobs_run, step=-HOUR),
    "set forward while cc-backend is away": partial(set_while_cc_backend_is_away, step=HOUR),
    "set back while cc-backend is away": partial(set_while_cc_backend_is_away, step=-HOUR),
    "a host that begins in 1970": partial(started_in, year=1970),
    "a host that begins in 2099": partial(started_in, year=2099),
    "set forward by months": set_forward_by_months,
    "a checkpoint from the future": checkpoint_from_the_future,
    "to winter time": partial(change_of_daylight_saving, change="2026-10-25"),
    "to summer time": partial(change_of_daylight_saving, change="2027-03-28"),
}


def play(scenario: Callable[[Path, Path], None], adapter: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-") as folder:
        scenario(adapter, Path(folder))


@pytest.fixture(scope="module")
def played(adapter: Path) -> Iterator[dict[str, Future[None]]]:
    """Side by side, as each waits most of the time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(play, scenario, adapter) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_and_nothing_double(played: dict[str, Future[None]], name: str) -> None:
    played[name].result()

"""What was before the first start stays out; what the adapter has lost comes again; what Slurm has lost ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from examples.practice.site import Site
from tests.built.test_end_to_end import report_as_existing_adapter
from tests.built.test_moved_clock import (
    DAY,
    FORGETFUL,
    HOUR,
    LONG,
    SHORT,
    ClockedSite,
    cancel,
    play,
    run_and_forget,
    told,
    true,
    wait_until_forgotten,
)

OLDER = 100
"""Jobs that the existing adapter has reported, or left out."""
SPAN = 3 * DAY
PATIENCE = 180
"""Seconds: each hour of accounting is a command, and a busy machine takes long for it."""


def passes(site: Site, count: int) -> None:
    """Wait until so many passes are complete."""
    last_run = site.daemon.state_folder / "lastrun"
    site.wait_for("a first pass", last_run.exists, PATIENCE)
    for _ in range(count):
        before = last_run.stat().st_mtime_ns
        site.wait_for("a complete pass", partial(has_moved, last_run, before), PATIENCE)


def has_moved(path: Path, before: int) -> bool:
    return path.stat().st_mtime_ns != before


def lose_state(site: Site) -> None:
    for file in site.daemon.state_folder.glob("state.sqlite*"):
        file.unlink()


def migrated_with_a_lastrun_of_this_moment(adapter: Path, folder: Path) -> None:
    """None of the older jobs is ever started: not at the start, not after two days, not when the state is lost.

    Of the jobs that cc-backend lists as running, one has ended long ago, one after the last run, and one runs.
    """
    with ClockedSite(adapter, folder, cluster=FORGETFUL, slurmPollInterval=1, slurmQueryMaxSpan=SPAN) as site:
        listed = site.cluster.submit_all([LONG] * 3)
        site.wait_for("the jobs to run", lambda: len(site.cluster.truth()) == len(listed), PATIENCE)
        report_as_existing_adapter(site)
        run_and_forget(site, *[SHORT] * OLDER)
        cancel(site, listed[0])
        wait_until_forgotten(site, listed[0])
        site.clock.set_by(HOUR)
        site.backend.commit()
        last_run = site.daemon.state_folder / "lastrun"
        last_run.touch()
        os.utime(last_run, (site.clock.now(), site.clock.now()))
        cancel(site, listed[1])
        site.daemon.start()
        site.wait_for("the stops of what cc-backend believed to run", lambda: site.has_stopped(*listed[:2]), PATIENCE)
        site.clock.set_by(2 * DAY)
        job = site.cluster.submit(SHORT)
        site.wait_for("a new job", lambda: site.has_stopped(job), PATIENCE)
        passes(site, 2 * DAY // HOUR // 4 + 3)  # all windows of the wide audit, four with each pass
        site.daemon.kill()
        lose_state(site)
        site.backend.commit()
        site.daemon.start()
        passes(site, 1)
        cancel(site, listed[2])
        site.wait_for("the last stop", lambda: site.has_stopped(listed[2]), PATIENCE)
        expected = [run for run in site.cluster.truth() if run.job_id in {*listed, job}]
        assert sorted(map(told, site.backend.rows)) == sorted(map(true, expected))


def state_lost_after_two_days_without_cc_backend(adapter: Path, folder: Path) -> None:
    """The time of the last run has moved on all the time, since what was pending was written down."""
    with ClockedSite(adapter, folder, cluster=FORGETFUL, slurmPollInterval=1, slurmQueryMaxSpan=HOUR) as site:
        site.daemon.start()
        running = site.cluster.submit(LONG)
        site.wait_for("the start", lambda: site.has_started(running), PATIENCE)
        site.server.stop()
        early = run_and_forget(site, *[SHORT] * 3)
        site.wait_for("messages in the outbox", lambda: site.daemon.waiting_messages() == 2 * len(early), PATIENCE)
        site.clock.set_by(2 * DAY)
        run_and_forget(site, SHORT)
        passes(site, 2)
        site.daemon.kill()
        lose_state(site)
        cancel(site, running)
        wait_until_forgotten(site, running)
        site.backend.commit()
        site.server.start()
        site.daemon.configure(slurmQueryMaxSpan=SPAN)
        site.daemon.start()
        site.wait_for("all to be reported", site.is_reported, PATIENCE)
        assert sorted(map(told, site.backend.rows)) == sorted(map(true, site.cluster.truth()))


def lost_by_slurm(adapter: Path, folder: Path) -> None:
    """A job of which slurmctld knows nothing any more, and accounting no end."""
    with ClockedSite(adapter, folder, cluster=FORGETFUL, slurmPollInterval=1, slurmQueryMaxSpan=HOUR) as site:
        site.daemon.start()
        lost, other = site.cluster.submit_all([LONG] * 2)
        site.wait_for("the starts", lambda: site.has_started(lost, other), PATIENCE)
        passes(site, 2)
        site.cluster.lose(lost)
        seen_until = site.clock.now()
        passes(site, 2)
        site.clock.set_by(60)
        site.wait_for("the word", lambda: "`sacctmgr show runawayjobs` lists such jobs" in site.daemon.log(), PATIENCE)
        site.clock.set_by(DAY + HOUR)
        run_and_forget(site, SHORT)
        passes(site, 2)
        site.clock.set_by(2 * HOUR)
        site.wait_for("its end", lambda: site.has_stopped(lost), PATIENCE)
        (row,) = site.backend.rows_of(lost)
        assert row.state == "failed"
        assert row.stop_time is not None
        assert seen_until - 10 < row.stop_time <= seen_until + 2
        assert not site.has_stopped(other)


SCENARIOS: dict[str, Callable[[Path, Path], None]] = {
    "migrated with a lastrun of this moment": migrated_with_a_lastrun_of_this_moment,
    "the state is lost after two days without cc-backend": state_lost_after_two_days_without_cc_backend,
    "a job that Slurm has lost": lost_by_slurm,
}


@pytest.fixture(scope="module")
def played(adapter: Path) -> Iterator[dict[str, Future[None]]]:
    """Side by side, as each waits most of the time."""
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {name: pool.submit(play, scenario, adapter) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_history_stays_out_and_nothing_that_is_ours_is_lost(played: dict[str, Future[None]], name: str) -> None:
    played[name].result()

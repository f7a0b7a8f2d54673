"""Whatever cc-backend and Slurm do, every job arrives once and whole, and none ends before its time."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from examples.practice.cc_backend.faults import START_PATH

from .expectations import WHAT_IT_HOLDS, choose, expected_holdings, reported_holdings
from .installation import POLL_SECONDS, Installation, expected_times_and_end, listed_cpus, times_and_end
from .slurm_troubles import ENDING_SECONDS, FROZEN_SECONDS
from .troubles import AWAY_SECONDS, BATCH, FLAKY, HOOKED, LATE, NAMES, POISONED, SILENT, Troubles

pytestmark = pytest.mark.slurm

PARKED = "refused and parked"


def assert_reported_once(troubles: Troubles, name: str, job_ids: Iterable[int]) -> None:
    """One row for each job, with the times and the end of Slurm's accounting, and one stop."""
    installed = troubles.installed[name]
    for job_id in job_ids:
        row = installed.only_row(job_id)
        assert times_and_end(row) == expected_times_and_end(troubles.ended[job_id]), installed.said_about([job_id])


def assert_holds_all(troubles: Troubles, name: str, job_ids: Iterable[int]) -> None:
    """The rows have the very cores and GPUs that Slurm showed while the jobs ran."""
    installed = troubles.installed[name]
    for job_id in job_ids:
        reported = choose(reported_holdings(installed.only_row(job_id).start), WHAT_IT_HOLDS)
        assert reported == expected_holdings(troubles.running[job_id]), installed.said_about([job_id])


def log_of(installed: Installation) -> str:
    return installed.log.read_text(encoding="utf-8", errors="replace")


def arrivals(installed: Installation) -> dict[int, float]:
    """When cc-backend took the start of each job, in Unix seconds."""
    return {
        request.job[1]: request.time + request.seconds
        for request in installed.backend.log
        if request.path == START_PATH and request.job and request.status == 201
    }


def test_the_jobs_beside_a_refused_one_arrive_within_a_poll(
    troubles: Troubles, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned = troubles.poisoned.result()
    assert_reported_once(troubles, POISONED, [*troubles.batch, *poisoned.beside_it])
    assert_holds_all(troubles, POISONED, [*troubles.batch, *poisoned.beside_it])
    arrived = arrivals(troubles.installed[POISONED])
    # Slurm leaves the fraction of the second away.
    waits = {
        job_id: arrived[job_id] - troubles.running[job_id].start_time - 1
        for job_id in [*troubles.batch, *poisoned.beside_it]
    }
    with capsys.disabled():
        print(f"\n  longest wait of a job beside a refused one: {max(waits.values()):.1f} s", end="")
    assert max(waits.values()) <= POLL_SECONDS + 2


def test_a_refused_job_is_parked_and_arrives_whole_after_sighup(troubles: Troubles) -> None:
    poisoned = troubles.poisoned.result()
    assert poisoned.rows_of_poison == 0
    start_time = troubles.running[poisoned.poison].start_time
    lines = troubles.installed[POISONED].lines_about(poisoned.poison, start_time)
    assert [line for line in lines if PARKED in line], lines
    assert_reported_once(troubles, POISONED, [poisoned.poison])
    assert_holds_all(troubles, POISONED, [poisoned.poison])


def test_jobs_that_ended_while_cc_backend_was_away_arrive_whole(troubles: Troubles) -> None:
    away = troubles.away.result()
    assert away.seconds >= AWAY_SECONDS
    assert max(troubles.ended[job_id].end_time for job_id in [*troubles.batch, *troubles.brief]) + 30 < away.returned
    assert_reported_once(troubles, HOOKED, [*troubles.batch, *troubles.brief])
    assert_holds_all(troubles, HOOKED, troubles.batch)


def test_gpu_jobs_of_one_second_arrive_whole_after_cc_backend_was_away(troubles: Troubles) -> None:
    """No test can look at so short a job while it runs, but accounting knows how much it held, and where."""
    assert len(troubles.brief) == 4
    for job_id in troubles.brief:
        (resource,) = troubles.installed[HOOKED].only_row(job_id).start["resources"]
        job = troubles.ended[job_id]
        assert (resource["hostname"],) == job.hosts
        assert listed_cpus(resource) == job.num_cpus
        assert len(resource.get("accelerators", [])) == job.num_gpus == 1


def test_a_daemon_that_starts_without_cc_backend_delivers_when_it_comes(troubles: Troubles) -> None:
    late = troubles.late.result()
    assert (late.survived, late.rows) == (True, 0)
    assert late.ran
    assert_holds_all(troubles, LATE, {*late.ran, *troubles.batch})
    assert_reported_once(troubles, LATE, [*troubles.batch, *troubles.brief])


def test_everything_is_delivered_within_30_seconds_after_cc_backend_hung(
    troubles: Troubles, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = troubles.silent.result()
    assert silent.stopped_meanwhile == set()
    with capsys.disabled():
        print(f"\n  delivered {silent.waited:.1f} s after cc-backend had hung", end="")
    assert silent.waited <= 30
    assert_reported_once(troubles, SILENT, [*troubles.batch, *troubles.brief])
    assert_holds_all(troubles, SILENT, troubles.batch)


def test_sigterm_is_obeyed_while_cc_backend_hangs_and_nothing_is_missing_after_the_restart(troubles: Troubles) -> None:
    silent = troubles.silent.result()
    seconds, code = silent.sigterm
    assert (seconds <= 2, code) == (True, 0)
    assert_reported_once(troubles, SILENT, [silent.job_id])
    assert_holds_all(troubles, SILENT, [silent.job_id])


def test_every_job_arrives_once_and_whole_while_half_of_all_requests_fail(troubles: Troubles) -> None:
    flaky = troubles.flaky.result()
    assert flaky.failed / flaky.requests == pytest.approx(0.5, abs=0.15)
    assert len(troubles.batch) == len(BATCH) == 40
    assert_reported_once(troubles, FLAKY, [*troubles.batch, *troubles.brief])
    assert_holds_all(troubles, FLAKY, troubles.batch)
    assert PARKED not in log_of(troubles.installed[FLAKY])


def test_stops_arrive_while_slurmdbd_is_stopped(troubles: Troubles) -> None:
    without = troubles.without_slurmdbd.result()
    assert without.stopped_in_time >= {*without.jobs, without.wholly}
    assert_reported_once(troubles, POISONED, [*without.jobs, without.wholly])


def test_stops_that_only_slurmdbd_knows_arrive_after_it_was_stopped(troubles: Troubles) -> None:
    without = troubles.without_slurmdbd.result()
    assert without.survived
    assert not without.stopped_at_first & {*without.jobs, without.wholly}
    assert_reported_once(troubles, LATE, [*without.jobs, without.wholly])
    assert_holds_all(troubles, LATE, without.jobs)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_ends_wrongly_while_slurmctld_is_frozen(troubles: Troubles, name: str) -> None:
    frozen = troubles.frozen.result()
    assert frozen.ended - frozen.began >= FROZEN_SECONDS
    for job_id in frozen.ending:
        assert frozen.began < troubles.running[job_id].start_time + ENDING_SECONDS < frozen.ended - POLL_SECONDS
    assert frozen.running[name]
    assert not frozen.stopped[name] & {*frozen.ending, *frozen.lasting}
    assert not frozen.stopped_later[name] & set(frozen.lasting)


@pytest.mark.parametrize("name", NAMES)
def test_everything_arrives_after_slurmctld_was_frozen(troubles: Troubles, name: str) -> None:
    frozen = troubles.frozen.result()
    jobs = [*frozen.ending, *frozen.lasting, frozen.afterwards]
    assert_reported_once(troubles, name, jobs)
    assert_holds_all(troubles, name, [*frozen.ending, *frozen.lasting])

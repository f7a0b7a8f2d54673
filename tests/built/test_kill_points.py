"""SIGKILL at every step of a pass and of a delivery: nothing is lost, nothing is double.

A site for each point, several side by side. Its daemon kills itself there (`killed_daemon.py`); one that is
as it is shipped takes over, and when all jobs are over cc-backend's rows are compared with what really ran.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings
from tests.built import killed_daemon, old_state
from tests.built.dying import write_dying

AT_ONCE = 6
"""Sites side by side: each waits most of the time."""
POLL_SECONDS = 2
LONG = JobRequest("long", gpus_per_node=1, duration=600)
REQUEUES = Settings(requeue_delay=1)
SHORT = JobRequest("short", tasks=2, duration=1.5)
"""Without GPUs: a run that no daemon saw in time is reported without their numbers, as Slurm no longer tells them."""
BEFORE = [LONG, LONG._replace(tasks=3, gpus_per_node=2), LONG._replace(nodes=2), SHORT]
"""They run when the daemon starts; another short one is submitted as soon as it has reported something."""
WHILE_AWAY = [SHORT._replace(duration=0.1), LONG._replace(tasks=5)]


class Point(NamedTuple):
    """The daemon dies at the NUMBERth passage of a step, counted once the step `since` was passed."""

    step: str
    number: int
    since: str = ""
    committed: bool = False
    """Whether cc-backend's commit worker runs in between: a repeated start then gets another answer."""
    later: bool = False
    """Whether an hour has passed when the next daemon begins."""

    def __str__(self) -> str:
        words = [self.step, str(self.number), self.since and f"since {self.since}"]
        words += ["committed" * self.committed, "later" * self.later]
        return " ".join(word for word in words if word)


class Outcome(NamedTuple):
    """What came of it."""

    exit_code: int
    differences: list[str]
    rows: int


POINTS = [
    Point("state file made", 1),
    Point("state file ready", 1),
    *(Point("query begins", number) for number in (1, 3, 5, 7, 9)),
    Point("query runs", 4),
    Point("query answered", 5),
    Point("query begins", 2, since="start answered"),
    Point("event file found", 1, since="start answered"),
    Point("event file removed", 1, since="start answered"),
    Point("query begins", 1, since="event file removed"),
    Point("transaction open", 1),
    *(Point("transaction full", number) for number in (1, 2, 3, 5)),
    *(Point("transaction closed", number) for number in (1, 2, 4)),
    *(Point(f"{kind} {step}", 1) for kind in ("start", "stop") for step in ("leaves", "left", "answered")),
    *(Point(f"{kind} {step}", 1, committed=True) for kind in ("start", "stop") for step in ("left", "answered")),
    *(
        Point(f"transaction {step}", 1, since=f"{kind} answered")
        for kind in ("start", "stop")
        for step in ("full", "closed")
    ),
    Point("last run begins", 1),
    Point("last run written", 1),
]
WITHDRAWN = "withdrawal answered"
WITHDRAWAL_POINTS = [
    Point("start answered", 1, since="stop answered", later=True),
    *(Point(f"withdrawal {step}", 1) for step in ("leaves", "left", "answered")),
    *(Point("transaction full", number, since=WITHDRAWN) for number in (1, 2, 3)),
    *(Point("transaction closed", number, since=WITHDRAWN) for number in (1, 2, 3)),
    *(Point(f"start {step}", 1, since=WITHDRAWN) for step in ("leaves", "left", "answered")),
    *(Point(f"start {step}", 1, since=WITHDRAWN, committed=True) for step in ("left", "answered")),
]
"""While the row of a requeued run makes room for the next one."""


def run(adapter: Path, point: Point) -> Outcome:
    """Runs until it is killed, and on without the wrapper until all is reported."""
    with Site(adapter, slurmPollInterval=POLL_SECONDS) as site:
        site.daemon.adapter = write_dying(site.folder, adapter, point.step, point.number, point.since)
        jobs = site.cluster.submit_all(BEFORE)
        site.wait_for("the jobs to run", lambda: len(site.cluster.truth()) == len(BEFORE))
        site.daemon.launch()
        site.wait_for("the first start", lambda: site.has_started(jobs[0]) or not site.daemon.running)
        jobs += site.cluster.submit_all([SHORT])
        exit_code = site.daemon.wait(20)
        jobs += site.cluster.submit_all(WHILE_AWAY)
        if point.committed:
            site.backend.commit()
        site.daemon.adapter = adapter
        site.daemon.start()
        site.wait_for("all starts", lambda: site.has_started(*jobs))
        for job_id in jobs:
            site.cluster.cancel(job_id)
        site.wait_for("all to be reported", site.is_reported)
        site.wait_for("an empty outbox", lambda: site.daemon.waiting_messages() == 0)
        return Outcome(exit_code, site.differences(), len(site.backend.rows))


def run_requeued(adapter: Path, point: Point) -> Outcome:
    """The same where one of two jobs is requeued, of which cc-backend is to have the last run."""
    with Site(adapter, cluster=REQUEUES, slurmPollInterval=POLL_SECONDS, requeuedRuns="last") as site:
        site.daemon.adapter = write_dying(site.folder, adapter, point.step, point.number, point.since)
        jobs = site.cluster.submit_all([LONG, LONG])
        site.wait_for("the jobs to run", lambda: len(site.cluster.truth()) == len(jobs))
        site.daemon.launch()
        site.wait_for("the starts", lambda: site.has_started(*jobs))
        site.backend.commit()
        site.cluster.requeue(jobs[0])
        exit_code = site.daemon.wait(40)
        if point.committed:
            site.backend.commit()
        if point.later:
            state = site.daemon.state_folder / "state.sqlite"
            old_state.change(state, "UPDATE delivery SET first_sent = first_sent - 3600 WHERE first_sent > 0")
        site.daemon.adapter = adapter
        site.daemon.start()
        site.wait_for("the second run", lambda: len(site.cluster.truth()) == len(jobs) + 1)
        first, second = (each for each in site.cluster.truth() if each.job_id == jobs[0])
        site.wait_for(
            "its start", lambda: [each.start_time for each in site.backend.rows_of(jobs[0])] == [second.start], 40
        )
        for job_id in jobs:
            site.cluster.cancel(job_id)
        site.wait_for("the stops", lambda: site.cluster.is_idle() and site.has_stopped(*jobs))
        site.wait_for("an empty outbox", lambda: site.daemon.waiting_messages() == 0)
        differences = site.differences()
        differences.remove(f"job {first.job_id} of {first.user}, started {first.start}: is missing")
        return Outcome(exit_code, differences, len(site.backend.rows))


@pytest.fixture(scope="module")
def outcomes(adapter: Path) -> Iterator[dict[Point, Future[Outcome]]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            **{point: pool.submit(run, adapter, point) for point in POINTS},
            **{point: pool.submit(run_requeued, adapter, point) for point in WITHDRAWAL_POINTS},
        }


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_kill_loses_and_doubles_nothing(outcomes: dict[Point, Future[Outcome]], point: Point) -> None:
    outcome = outcomes[point].result()
    assert outcome.exit_code == -signal.SIGKILL, "it never came to this point"
    assert outcome.differences == []
    assert outcome.rows == len(BEFORE) + 1 + len(WHILE_AWAY)


@pytest.mark.parametrize("point", WITHDRAWAL_POINTS, ids=str)
def test_a_kill_amid_a_withdrawal_leaves_the_last_run_and_no_other(
    outcomes: dict[Point, Future[Outcome]], point: Point
) -> None:
    outcome = outcomes[point].result()
    assert outcome.exit_code == -signal.SIGKILL, "it never came to this point"
    assert outcome.differences == []
    assert outcome.rows == 2


def test_every_step_has_a_point() -> None:
    assert {point.step for point in POINTS + WITHDRAWAL_POINTS} == set(killed_daemon.STEPS)

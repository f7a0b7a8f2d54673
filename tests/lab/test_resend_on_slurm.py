"""`-resend`: what cc-backend has of jobs is corrected, also by a daemon that is killed amid it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.practice.cc_backend import OtherAnswer

from .expectations import WHAT_IT_HOLDS, choose, expected_holdings, reported_holdings
from .namespaces import PATIENCE, wait_for
from .questions import Told, tell
from .slurm_jobs import Submission, cancel, running_job, submit, wait_until_running

if TYPE_CHECKING:
    from .installation import Installation
    from .slurm_lab import SlurmLab

pytestmark = pytest.mark.slurm

WRONG = [f"00000000:{number:02X}:00.0" for number in (0xA1, 0xA2, 0xA3, 0xA4)]
LONG = Submission(("-n2", "--gres=gpu:1"), "sleep 600")
SHORT = Submission(("-n2",), "sleep 4")
START_PATH = "/api/jobs/start_job/"


def test_a_daemon_that_is_killed_between_the_two_requests_leaves_one_right_row(installation: Installation) -> None:
    """It was configured with other GPUs and another numbering when it reported the jobs."""
    lab, backend = installation.lab, installation.backend
    installation.configure(gpuPciAddrs={"^node": WRONG}, hwthreadNumbering={"^node": "cores"})
    installation.touch_last_run()  # starts of older jobs must not meet the refusal: that would be an outage
    installation.start()
    submissions = {submit(lab, each): each for each in (LONG, SHORT)}
    long, short = submissions
    wait_until_running(lab, submissions)
    expected = {job: expected_holdings(running_job(lab, job, each)) for job, each in submissions.items()}
    installation.wait_for_stops([short], seconds=60)
    backend.commit()
    for job in submissions:
        assert choose(reported_holdings(installation.only_row(job).start), WHAT_IT_HOLDS) != expected[job]

    installation.kill()
    installation.configure()
    installation.start()
    refusal = backend.add_fault(OtherAnswer(START_PATH, status=503))
    answers = {job: resend(lab, job) for job in submissions}  # their starts wait
    assert [(each.code, each.errors) for each in answers.values()] == [(0, "")] * 2
    assert [each.text.startswith(f"job {job},") for job, each in answers.items()] == [True, True], answers
    assert f"accelerators {WRONG[0][:9]}" in answers[long].text
    assert backend.wait_for(lambda: not all(map(backend.rows_of, submissions)), PATIENCE * 60), "a row is removed"
    installation.kill()
    backend.remove_fault(refusal)
    installation.start()
    installation.backend.wait_for(
        lambda: all(is_right(installation, *each) for each in expected.items()), PATIENCE * 60
    )
    installation.wait_for_stops([short], seconds=60)
    backend.commit()
    for job in submissions:
        assert choose(reported_holdings(installation.only_row(job).start), WHAT_IT_HOLDS) == expected[job]
    cancel(lab, [long])
    installation.wait_for_stops([long], seconds=60)
    backend.commit()
    installation.configure(gpuPciAddrs={"^node": WRONG})
    installation.kill()
    installation.start()
    told = resend(lab, long)  # its GPUs are known no more
    assert (told.code, told.text.startswith(f"left alone: job {long}: ")) == (1, True), told
    assert choose(reported_holdings(installation.only_row(long).start), WHAT_IT_HOLDS) == expected[long]


def is_right(installation: Installation, job: int, expected: object) -> bool:
    """Whether cc-backend has one row of a job, with what it held: the wrong one is removed some time after."""
    rows = installation.backend.rows_of(job)
    return len(rows) == 1 and choose(reported_holdings(rows[0].start), WHAT_IT_HOLDS) == expected


def resend(lab: SlurmLab, job: int) -> Told:
    """What is answered as soon as the daemon takes such requests: a start waits for Slurm first."""

    def answers() -> list[Told]:
        told = tell(lab, "-resend", str(job), "-yes")
        is_starting = any(words in told.errors for words in ("still starting", "not opened its state file yet"))
        return [] if is_starting else [told]

    return wait_for("the daemon to take requests", answers, seconds=60, every=0.5)[0]

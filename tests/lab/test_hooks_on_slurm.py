"""How soon after Slurm's hooks cc-backend knows: measured with the hooks alone, polling is far away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .campaign import one_burst
from .conftest import BUILT_FILE
from .debian import FOLDER, SUITES, make_chroot
from .installation import Installation
from .last_runs import use_hook
from .namespaces import wait_for
from .requeues import let_begin_again
from .slurm_conf import SHIPPED_FILE
from .slurm_jobs import Submission, submit, wait_until_ended
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.slurm

JOBS = 24
MEDIAN_SECONDS = 0.5
WRAPPER = "/opt/cc/timed-hook"
TIMES = "/run/slurm/hook-times"
SCRIPT = f"""\
#!/bin/sh
/bin/date "+$SLURM_JOB_ID $SLURM_SCRIPT_CONTEXT %s.%N" >> {TIMES}
exec {SHIPPED_FILE}
"""
"""Notes when slurmctld called it and goes on as the shipped file."""

EVENTS = {"/api/jobs/start_job/": "prolog_slurmctld", "/api/jobs/stop_job/": "epilog_slurmctld"}
"""The request that each hook leads to."""


class Call(NamedTuple):
    """A call of the hook, or the accepted request that must follow it."""

    job_id: int
    context: str


@pytest.fixture
def timed_hooks(lab: SlurmLab) -> Iterator[None]:
    """slurmctld calls the wrapper for the length of a test."""
    lab.path(WRAPPER).write_text(SCRIPT, encoding="ascii")
    lab.path(WRAPPER).chmod(0o755)
    use_hook(lab, str(SHIPPED_FILE), WRAPPER)
    yield
    use_hook(lab, WRAPPER, str(SHIPPED_FILE))


def hook_calls(lab: SlurmLab, jobs: list[int]) -> dict[Call, float]:
    """When slurmctld called the hook, in Unix seconds."""
    lines = [line.split() for line in lab.path(TIMES).read_text(encoding="ascii").splitlines()]
    return {Call(int(job), context): float(when) for job, context, when in lines if int(job) in jobs}


def accepted_requests(installation: Installation, jobs: list[int]) -> dict[Call, float]:
    """When cc-backend had taken in the request, in Unix seconds."""
    return {
        Call(request.job[1], EVENTS[request.path]): request.time + request.seconds
        for request in installation.backend.log
        if request.path in EVENTS and request.job and request.job[1] in jobs and request.status in (200, 201)
    }


@pytest.mark.usefixtures("timed_hooks")
def test_hook_event_to_accepted_request_takes_less_than_half_a_second(
    lab: SlurmLab, installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.configure(slurmPollInterval=3600)
    installation.touch_last_run()
    installation.start()
    jobs = []
    with one_burst():
        for number in range(JOBS):
            jobs.append(submit(lab, Submission(("-n1", f"--gres=gpu:{number % 2}"), "sleep 1")))
            time.sleep(0.6)
        wait_until_ended(lab, jobs)
    installation.wait_for_stops(jobs, seconds=60)
    calls, accepted = hook_calls(lab, jobs), accepted_requests(installation, jobs)
    assert set(calls) == set(accepted)
    medians = []
    for context in EVENTS.values():
        waits = [accepted[call] - when for call, when in calls.items() if call.context == context]
        assert len(waits) == JOBS
        medians.append(statistics.median(waits))
        with capsys.disabled():
            print(f"\n  Slurm {lab.suite.slurm}, {context} to accepted request: {summary(waits)}", end="")
    assert max(medians) < MEDIAN_SECONDS


def summary(waits: list[float]) -> str:
    return f"median {statistics.median(waits):.3f} s, longest {max(waits):.3f} s of {len(waits)}"


FAILING = "/opt/cc/hook-that-fails"
FAILS_ONCE = """\
#!/bin/sh
case $SLURM_SCRIPT_CONTEXT.${SLURM_JOB_RESTART_COUNT:-0} in prolog_slurmctld.0) exit 1 ;; esac
exit 0
"""


@pytest.fixture
def failing_hook(lab: SlurmLab) -> Iterator[Path]:
    """slurmctld calls a hook for the length of a test whose first PrologSlurmctld for each job fails."""
    path = lab.path(FAILING)
    path.write_text(FAILS_ONCE, encoding="ascii")
    path.chmod(0o755)
    use_hook(lab, str(SHIPPED_FILE), FAILING)
    yield path
    path.chmod(0o755)
    use_hook(lab, FAILING, str(SHIPPED_FILE))


@pytest.mark.parametrize(("mode", "restarts"), [(0o644, 0), (0o755, 1)], ids=["not executable", "exits 1"])
def test_a_hook_of_slurmctld_that_fails_requeues_the_job_and_one_that_is_not_executable_does_nothing(
    mode: int, restarts: int, failing_hook: Path, lab: SlurmLab
) -> None:
    """What docs/install.md says of Slurm. No node is drained."""
    failing_hook.chmod(mode)
    job = submit(lab, Submission(script="sleep 1"))
    if restarts:
        let_begin_again(lab, [job])
    wait_for("the job to be over", lambda: "JobState=COMPLETED" in shown(lab, job), seconds=200)
    assert f"Restarts={restarts} " in shown(lab, job)
    assert "drain" not in lab.output("sinfo", "-h", "-N", "-o", "%T")


def shown(lab: SlurmLab, job: int) -> str:
    return lab.output("scontrol", "show", "job", str(job))


def test_newer_slurmctlds_end_when_they_are_reconfigured_with_a_hook_that_is_not_executable(release: str) -> None:
    """Therefore docs/install.md has the file installed and tried before slurm.conf names it."""
    with SlurmLab(SUITES[release], make_chroot(SUITES[release], FOLDER), slurmdbd=False) as own:
        own.start(BUILT_FILE)
        own.path(SHIPPED_FILE).chmod(0o644)
        own.output("scontrol", "reconfigure")
        if release == "22.05":
            wait_for("slurmctld's word", lambda: own.run("scontrol", "ping").returncode == 0, seconds=30)
        else:
            wait_for("slurmctld's end", lambda: own.run("scontrol", "ping").returncode == 1, seconds=30)
            log = own.path("/var/log/slurm/slurmctld.log").read_text(encoding="utf-8", errors="replace")
            assert "fatal: failed to initialize prep plugin" in log

"""Jobs that Slurm takes from their nodes and runs again, or not: what Slurm knows of each of their runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from .namespaces import wait_for
from .slurm_conf import FRAGILE_NODE
from .slurm_jobs import (
    EndedJob,
    RunningJob,
    Submission,
    running_ids,
    running_job,
    runs_of,
    submit,
    wait_until_ended,
    wait_until_running,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .installation import Installation
    from .slurm_lab import SlurmLab


SLEEP = 'if [ -n "$SLURM_RESTART_COUNT" ]; then sleep 10; else sleep 300; fi'
"""The first run lasts until it is ended from outside, however long a busy machine takes for that."""


class Kind(NamedTuple):
    """How the first run of a job ends, in cc-backend's word, and whether the job runs again."""

    job: Submission
    state: str
    runs_again: bool = True


KINDS = {
    "by an administrator": Kind(Submission(("-N2", "-n4", "--gres=gpu:1"), SLEEP), "cancelled"),
    # slurmctld then expects the next run to end in 136 years.
    "without a time limit": Kind(Submission(("-n2", "--gres=gpu:1", "--time=UNLIMITED"), SLEEP), "cancelled"),
    "by preemption": Kind(Submission(("-N1", "--exclusive", "--partition=low", "--requeue"), SLEEP), "preempted"),
    "by node failure": Kind(Submission(("-n1", "--partition=fragile", "--requeue"), SLEEP), "node_fail"),
    "not, after node failure": Kind(
        Submission(("-n1", "--partition=fragile", "--no-requeue"), SLEEP), "node_fail", runs_again=False
    ),
}
PREEMPTING = Submission(("-N1", "--exclusive", "--partition=high"), "sleep 3")


class Requeued(NamedTuple):
    """A job of KINDS: what it held in its first run, and all its runs as accounting knows them, the oldest first."""

    job_id: int
    held: RunningJob
    runs: list[EndedJob]


CLEARED = 2.0
"""Seconds for slurmd to clear away the first run. If a job begins again in the same second, its script may fail at once
(24.11: exit code 1, and it is not requeued any more)."""


def run_requeues(installed: Installation) -> dict[str, Requeued]:
    """Runs all kinds at the same time, from their start until none of them runs again; about a minute."""
    lab = installed.lab
    jobs = {name: submit(lab, kind.job) for name, kind in KINDS.items()}
    wait_until_running(lab, jobs.values())
    held = {name: running_job(lab, job_id, KINDS[name].job) for name, job_id in jobs.items()}
    installed.wait_for_starts(jobs.values(), seconds=60)
    end_first_runs(lab, jobs["by an administrator"], jobs["without a time limit"])
    wait_for("the ends of the first runs", lambda: all(runs_of(lab, job_id) for job_id in jobs.values()), seconds=90)
    again = [jobs[name] for name, kind in KINDS.items() if kind.runs_again]
    run_again(lab, again)
    wait_until_ended(lab, jobs.values())
    return {name: Requeued(job_id, held[name], runs_of(lab, job_id)) for name, job_id in jobs.items()}


def end_first_runs(lab: SlurmLab, *to_be_requeued: int) -> None:
    lab.output("scontrol", "requeue", ",".join(map(str, to_be_requeued)))
    submit(lab, PREEMPTING)
    lab.output("scontrol", "update", f"NodeName={FRAGILE_NODE}", "State=DOWN", "Reason=lab")


def run_again(lab: SlurmLab, job_ids: list[int]) -> None:
    lab.output("scontrol", "update", f"NodeName={FRAGILE_NODE}", "State=RESUME")
    let_begin_again(lab, job_ids)
    wanted, seen = set(job_ids), set[int]()

    def have_all_run() -> bool:
        seen.update(running_ids(lab))  # one may be over before the next one begins
        return wanted <= seen

    wait_for(f"jobs {sorted(wanted)} to run again", have_all_run, seconds=60, every=0.2)


def let_begin_again(lab: SlurmLab, job_ids: Iterable[int]) -> None:
    """By itself Slurm would wait two minutes, which begin when the nodes have let go of the requeued jobs."""
    wanted = set(job_ids)
    wait_for("the requeued jobs to wait for their time", lambda: wanted <= delayed_ids(lab), seconds=120, every=0.2)
    time.sleep(CLEARED)
    for job_id in wanted:
        lab.output("scontrol", "update", f"JobId={job_id}", "StartTime=now")


def delayed_ids(lab: SlurmLab) -> set[int]:
    rows = [line.split() for line in lab.output("squeue", "-h", "-a", "-t", "PD", "-o", "%A %r").splitlines()]
    return {int(job) for job, *reason in rows if reason == ["BeginTime"]}

"""Jobs whose first run comes to nothing or is taken from its node, and which of their runs cc-backend has then."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from examples.practice.cc_backend import OtherAnswer

from .namespaces import PATIENCE, wait_for
from .requeues import PREEMPTING, let_begin_again
from .slurm_conf import FRAGILE_NODE, SHIPPED_FILE
from .slurm_jobs import (
    EndedJob,
    RunningJob,
    Submission,
    running_job,
    runs_of,
    submit,
    wait_until_ended,
    wait_until_running,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .installation import Installation
    from .slurm_lab import SlurmLab

FAILING_HOOK = "/opt/cc/failing-hook"
FAILING_SCRIPT = f"""\
#!/bin/sh
case $SLURM_SCRIPT_CONTEXT.$SLURM_JOB_NAME.${{SLURM_JOB_RESTART_COUNT:-0}} in
prolog_slurmctld.prolog-fails.0) {SHIPPED_FILE}; /bin/sleep 2; exit 1 ;;
prolog_slurmctld.prolog-hangs.0) {SHIPPED_FILE}; /bin/sleep 6; exit 0 ;;
esac
exec {SHIPPED_FILE}
"""
"""The shipped file, and for jobs of two names something else that slurmctld waits for in their first run."""
DELETE_PATH, START_PATH = "/api/jobs/delete_job/", "/api/jobs/start_job/"
RUNS_ON = 'sleep $([ -n "$SLURM_RESTART_COUNT" ] && echo 6 || echo 600)'
"""Ten minutes, and when it was begun again some seconds."""
IDLE = {
    "REQUEUED": Submission(("-n1", "--gres=gpu:1"), "sleep 15", name="prolog-fails"),
    "REQUEUED, by hand": Submission(("-N2", "-n4"), "sleep 15", name="prolog-hangs"),
    "NODE_FAIL": Submission(("-n1", "--partition=fragile", "--requeue"), "sleep 15", name="prolog-hangs"),
}
"""By the word with which accounting closes the first run: the prolog fails, or while it runs something else happens."""
PREEMPTED = Submission(("-N1", "--exclusive", "--partition=low", "--requeue"), RUNS_ON)


class StartsAfterRemoval(OtherAnswer):
    """cc-backend is busy for starts as soon as it was asked to remove a row."""

    removed = False

    def hits(self, path: str, job_id: int | None) -> bool:
        self.removed = self.removed or path == DELETE_PATH
        return self.removed and super().hits(path, job_id)


class LastRun(NamedTuple):
    """What a job held in its second run, and all its runs as accounting knows them, the oldest first."""

    job_id: int
    held: RunningJob
    runs: list[EndedJob]


@contextlib.contextmanager
def failing_hooks(lab: SlurmLab) -> Iterator[None]:
    """slurmctld calls FAILING_SCRIPT for the length of a block."""
    lab.path(FAILING_HOOK).write_text(FAILING_SCRIPT, encoding="ascii")
    lab.path(FAILING_HOOK).chmod(0o755)
    use_hook(lab, str(SHIPPED_FILE), FAILING_HOOK)
    try:
        yield
    finally:
        use_hook(lab, FAILING_HOOK, str(SHIPPED_FILE))


def use_hook(lab: SlurmLab, old: str, new: str) -> None:
    conf = lab.path("/etc/slurm/slurm.conf")
    text = conf.read_text(encoding="ascii")
    conf.write_text(text.replace(f"Slurmctld={old}\n", f"Slurmctld={new}\n"), encoding="ascii")
    lab.output("scontrol", "reconfigure")
    # Newer releases number the hooks: PrologSlurmctld[0].
    question = ["sh", "-c", f"scontrol show config | grep -cE 'logSlurmctld(\\[0\\])? *= {new}$'"]
    wait_for("slurmctld's new hooks", lambda: lab.run(*question).stdout.strip() == "2", seconds=60)


def run_idle(installed: Installation) -> dict[str, LastRun]:
    """Jobs that launch nothing in their first run, from their start until cc-backend has their real run."""
    lab = installed.lab
    with failing_hooks(lab):
        jobs = {name: submit(lab, job) for name, job in IDLE.items()}
        by_hand, by_node = jobs["REQUEUED, by hand"], jobs["NODE_FAIL"]
        wait_for("prologs that hang", lambda: {by_hand, by_node} <= configuring_ids(lab), seconds=30, every=0.2)
        lab.output("scontrol", "requeue", str(by_hand))
        lab.output("scontrol", "update", f"NodeName={FRAGILE_NODE}", "State=DOWN", "Reason=lab")
        wait_for("the node failure", lambda: by_node in requeued_ids(lab), seconds=40, every=0.2)
        lab.output("scontrol", "update", f"NodeName={FRAGILE_NODE}", "State=RESUME")
        begin_again(lab, jobs.values())
        held = {name: running_job(lab, job_id, IDLE[name]) for name, job_id in jobs.items()}
        wait_until_ended(lab, jobs.values())
    installed.wait_for_stops(jobs.values(), seconds=30)
    return {name: LastRun(job_id, held[name], runs_of(lab, job_id)) for name, job_id in jobs.items()}


def run_preempted(installed: Installation, *, killed_amid_removal: bool) -> LastRun:
    """A job that is taken from its node while it runs, until its second run is over and nothing is to be told."""
    lab = installed.lab
    installed.backend.commit_interval = 1  # seconds: cc-backend refuses a run only because of a committed one
    installed.backend.commit()
    job_id = submit(lab, PREEMPTED)
    installed.wait_for_starts([job_id], seconds=30)
    submit(lab, PREEMPTING)
    installed.wait_for_stops([job_id], seconds=30)
    busy = installed.backend.add_fault(StartsAfterRemoval(START_PATH, status=503))
    begin_again(lab, [job_id])
    held = running_job(lab, job_id, PREEMPTED)
    if killed_amid_removal:
        asked = [each for each in installed.backend.log if each.path == DELETE_PATH]
        installed.backend.wait_for(lambda: removals(installed) > len(asked), PATIENCE * 30)
        installed.kill()
    installed.backend.remove_fault(busy)
    if killed_amid_removal:
        installed.start()
    wait_until_ended(lab, [job_id])
    second = held.start_time
    installed.backend.wait_for(lambda: is_settled(installed, job_id, second), PATIENCE * 40)
    return LastRun(job_id, held, runs_of(lab, job_id))


def removals(installed: Installation) -> int:
    return sum(each.path == DELETE_PATH and each.status == 200 for each in installed.backend.log)


def is_settled(installed: Installation, job_id: int, start_time: int) -> bool:
    """Whether a run is stored with its end, or refused."""
    stored = [row for row in installed.backend.rows_of(job_id) if row.start_time == start_time]
    if stored:
        return stored[0].stop_time is not None
    return any("not stored" in line for line in installed.lines_about(job_id, start_time))


def begin_again(lab: SlurmLab, job_ids: Iterable[int]) -> None:
    """Returns when all these requeued jobs run."""
    wanted = set(job_ids)
    wait_for("the requeued jobs to wait", lambda: wanted <= requeued_ids(lab), seconds=40, every=0.2)
    let_begin_again(lab, wanted)
    wait_until_running(lab, wanted)


def requeued_ids(lab: SlurmLab) -> set[int]:
    """Jobs that wait again, and of which accounting has closed a run."""
    return {job_id for job_id in pending_ids(lab) if runs_of(lab, job_id)}


def pending_ids(lab: SlurmLab) -> set[int]:
    return set(map(int, lab.output("squeue", "-h", "-a", "-t", "PD", "-o", "%A").split()))


def configuring_ids(lab: SlurmLab) -> set[int]:
    return set(map(int, lab.output("squeue", "-h", "-a", "-t", "CF", "-o", "%A").split()))

"""Jobs that are missing in cc-backend, each for another reason, and what `-job` says of them to whom."""

from __future__ import annotations

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from examples.practice.cc_backend import DEFAULT_TOKEN

from .installation import USER, expected_times_and_end
from .kinds import IGNORED
from .namespaces import PATIENCE, LabError, wait_for
from .questions import Told, leading_sink, owners, tell, wait_for_state
from .requeues import let_begin_again
from .slurm_conf import CLUSTER, FRAGILE_NODE, NODES
from .slurm_jobs import Submission, cancel, clear_queue, running_ids, submit, wait_until_ended, wait_until_running

if TYPE_CHECKING:
    from examples.practice.cc_backend.clusters import Clusters

    from .installation import Installation
    from .slurm_lab import SlurmLab

CLUSTERS: Clusters = {CLUSTER: [node for node in NODES if node != FRAGILE_NODE]}
"""cc-backend has not been told of this node."""
LONG = "sleep 600"
LAUNCHED = "/tmp/the-requeued-job-was-launched"
JOBS = {
    "runs": Submission(("-n1", "--gres=gpu:1"), LONG),
    "is over": Submission(("-n1",), "sleep 1"),
    "on an unknown host": Submission(("-n1", "--partition=fragile"), LONG),
    "of an ignored user": Submission(("-n1",), LONG, user="carol"),
    "in an ignored partition": Submission(("-n1", "--partition=private"), LONG),
    "cancelled while pending": Submission(("-n1", "--hold"), LONG),
    "pending": Submission(("-n1", "--hold"), LONG),
    "requeued": Submission(("-n1", "--requeue"), f"touch {LAUNCHED}; {LONG}"),
    "array": Submission(("-n1", "--array=0-1"), LONG),
    "heterogeneous": Submission(("-n1", ":", "-n1"), LONG),
}
ORDINARY = Submission(("-n1", "--gres=gpu:1"), LONG)
BRIEF = Submission(("-n1", "--gres=gpu:1"), "sleep 1")
UNKNOWN_ID = 9_999_999
ALSO_FOR_DAEMON = {"parked", "partition", "conflict", "task", "away", "stopped_waits", "hidden"}
"""What is asked as the daemon's user, too. All is asked as root."""
SHOWN_LEVEL, HIDDEN_LEVEL = "Operator", "None"


class Missing(NamedTuple):
    """What came of it."""

    jobs: dict[str, int]
    told: dict[tuple[str, str], Told]
    """By what is asked about and by who asks."""
    first_run: int
    """When the run of the requeued job began that cc-backend has, in Unix seconds."""
    replaced_by: list[int]
    """When the runs of that job began that cc-backend has when what -job says is done."""
    owners: list[dict[str, str]]
    """Of the state folder, before and after each question about a daemon that does not run."""


class Asker:
    """Asks about jobs, several at a time, and keeps what is said."""

    def __init__(self, lab: SlurmLab) -> None:
        self.told: dict[tuple[str, str], Told] = {}
        self._lab = lab

    def ask(self, **names: str) -> None:
        """What the names mean is asked about, as each user who is to ask."""
        questions = [(about, name, user) for about, name in names.items() for user in users_of(about)]
        with ThreadPoolExecutor(max_workers=4) as threads:
            answers = threads.map(lambda each: tell(self._lab, "-job", each[1], user=each[2]), questions)
            self.told.update({(about, user): told for (about, _, user), told in zip(questions, answers)})


def users_of(about: str) -> tuple[str, ...]:
    """Who asks."""
    return ("root", USER) if about in ALSO_FOR_DAEMON else ("root",)


def run_missing(installed: Installation) -> Missing:
    """Lets each reason come true, and asks; about 40 seconds."""
    lab = installed.lab
    asker = Asker(lab)
    early = end_before_the_first_moment(installed)
    installed.configure(**IGNORED)
    installed.start()
    jobs = {"early": early, **{name: submit(lab, job) for name, job in JOBS.items()}}
    first_run = let_cc_backend_know(installed, jobs)
    asker.ask(
        early=str(early),
        runs=str(jobs["runs"]),
        over=str(jobs["is over"]),
        parked=str(jobs["on an unknown host"]),
        user=str(jobs["of an ignored user"]),
        partition=str(jobs["in an ignored partition"]),
        cancelled=str(jobs["cancelled while pending"]),
        pending=str(jobs["pending"]),
        conflict=str(jobs["requeued"]),
        task=f"{jobs['array']}_1",
        component=f"{jobs['heterogeneous']}+1",
        unknown=str(UNKNOWN_ID),
        no_task=f"{jobs['array']}_7",
    )
    seen = [owners(lab)]
    ask_while_cc_backend_is_away(installed, jobs, asker)
    ask_while_the_daemon_is_away(installed, jobs, asker, seen)
    replaced_by = retry_conflict(installed, jobs["requeued"], first_run)
    ask_without_permission(lab, jobs, asker)
    installed.kill()
    clear_queue(lab)
    return Missing(jobs, asker.told, first_run, replaced_by, seen)


def end_before_the_first_moment(installed: Installation) -> int:
    """A job that is over when another program has polled for the last time."""
    job = submit(installed.lab, BRIEF)
    (ended,) = wait_until_ended(installed.lab, [job]).values()
    # Not just as the second begins: a file's time is that of the last tick of the kernel.
    wait_for("the second after its end", lambda: time.time() >= ended.end_time + 1.1, seconds=10)
    installed.touch_last_run()
    return job


def let_cc_backend_know(installed: Installation, jobs: dict[str, int]) -> int:
    """cc-backend gets what it takes, and lists it. Returns when the requeued job began first."""
    lab = installed.lab
    cancel(lab, [jobs["cancelled while pending"]])
    reported = ["runs", "requeued", "array", "heterogeneous"]
    installed.wait_for_starts([*(jobs[name] for name in reported), jobs["heterogeneous"] + 1], seconds=60)
    installed.wait_for_stops([jobs["is over"]], seconds=60)
    installed.backend.commit()
    requeued = jobs["requeued"]
    first_run = installed.only_row(requeued).start_time
    wait_for("the job to be launched", lab.path(LAUNCHED).exists, seconds=30)
    lab.output("scontrol", "requeue", str(requeued))
    let_begin_again(lab, [requeued])
    try:
        wait_for("the requeued job to run again", lambda: requeued in running_ids(lab), seconds=180, every=0.5)
    except LabError as error:
        raise LabError(f"{error}:\n{lab.output('scontrol', 'show', 'job', str(requeued))}") from error
    wait_for_state(installed, requeued, "conflict")
    wait_for_state(installed, jobs["on an unknown host"], "parked")
    return first_run


def ask_while_cc_backend_is_away(installed: Installation, jobs: dict[str, int], asker: Asker) -> None:
    """First it refuses the token, then nobody is there."""
    token, installed.backend.token = installed.backend.token, "another token"
    jobs["away"] = submit(installed.lab, ORDINARY)
    wait_for_state(installed, jobs["away"], "pending")
    wait_for("refusals", lambda: leading_sink(installed)["refuses_all"], seconds=60, every=0.2)
    asker.ask(refused=str(jobs["away"]))
    installed.server.stop()
    installed.backend.token = token
    wait_for("an outage", lambda: not leading_sink(installed)["refuses_all"], seconds=60, every=0.2)
    asker.ask(away=str(jobs["away"]))


def ask_while_the_daemon_is_away(
    installed: Installation, jobs: dict[str, int], asker: Asker, seen: list[dict[str, str]]
) -> None:
    """It is killed, so that its state file was not closed, and a job begins and ends meanwhile."""
    lab = installed.lab
    installed.kill()
    installed.server.start()
    jobs["late"] = submit(lab, BRIEF)
    ended = wait_until_ended(lab, [jobs["late"]])[jobs["late"]]
    seen.append(owners(lab))
    asker.ask(stopped_runs=str(jobs["runs"]), stopped_waits=str(jobs["away"]), stopped_late=str(jobs["late"]))
    seen.append(owners(lab))
    installed.start()
    installed.wait_for_stops([jobs["late"]], seconds=60)
    assert expected_times_and_end(ended)[0] == installed.only_row(jobs["late"]).start_time
    installed.backend.commit()
    asker.ask(late=str(jobs["late"]))


def retry_conflict(installed: Installation, job_id: int, first_run: int) -> list[int]:
    """Does what -job says. Returns when the runs began that cc-backend has then."""
    delete_run(installed, job_id, first_run)
    told = tell(installed.lab, "-queue", "retry", str(job_id))
    assert told.code == 0, told

    def starts() -> list[int]:
        return [row.start_time for row in installed.backend.rows_of(job_id)]

    installed.backend.wait_for(lambda: bool(starts()), PATIENCE * 30)
    return starts()


def delete_run(installed: Installation, job_id: int, start_time: int) -> None:
    """As cc-backend's administrator does it."""
    body = json.dumps({"jobId": job_id, "cluster": CLUSTER, "startTime": start_time}).encode()
    headers = {"X-AUTH-TOKEN": DEFAULT_TOKEN, "Content-Type": "application/json"}
    url = f"{installed.server.url}/api/jobs/delete_job/"
    request = urllib.request.Request(url, body, headers, method="DELETE")  # noqa: S310 (the stand-in's URL)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.status == 200


def ask_without_permission(lab: SlurmLab, jobs: dict[str, int], asker: Asker) -> None:
    """Slurm hides jobs from whoever is no operator, and the daemon's user is none any more."""
    file = lab.path("/etc/slurm/slurm.conf")
    text = file.read_text(encoding="ascii")
    try:
        file.write_text(f"{text}PrivateData=jobs\n", encoding="ascii")
        lab.output("scontrol", "reconfigure")
        set_level(lab, HIDDEN_LEVEL)
        jobs["hidden"] = submit(lab, ORDINARY)
        wait_until_running(lab, [jobs["hidden"]])
        question = ("sacct", "-a", "-X", "-n", "-P", "-o", "State", "-j", str(jobs["hidden"]))
        wait_for("accounting to know that it runs", lambda: "RUNNING" in lab.output(*question), seconds=30, every=0.2)
        wait_for("Slurm to hide jobs", lambda: not lab.output("squeue", "-h", "-a", user=USER), seconds=30, every=0.2)
        asker.ask(hidden=str(jobs["hidden"]))
    finally:
        file.write_text(text, encoding="ascii")
        set_level(lab, SHOWN_LEVEL)
        lab.output("scontrol", "reconfigure")


def set_level(lab: SlurmLab, level: str) -> None:
    """What the daemon's user may see."""
    lab.output("sacctmgr", "-i", "modify", "user", "cc-slurm-adapter", "set", f"AdminLevel={level}")

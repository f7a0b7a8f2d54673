"""Submits jobs to the lab and keeps what Slurm itself says of them: the right answers of the tests.

While a job runs the text of `scontrol show job -d` says what it holds; when it is over sacct knows its
times and its end. The program under test reads neither of these the way it is done here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .namespaces import LabError, wait_for
from .slurm_conf import CORES, THREADS_PER_CORE

if TYPE_CHECKING:
    from collections.abc import Iterable

PCI_ADDRESSES = [f"00000000:{gpu:02}:00.0" for gpu in range(4)]
"""What the lab's configuration calls Slurm's GPUs 0 to 3 of every node."""

EPOCH_SECONDS = ("env", "SLURM_TIME_FORMAT=%s")
ENDED_COLUMNS = "JobIDRaw,State,Start,End,Submit,NodeList,AllocCPUS,AllocTRES,User,Account,Partition"
GO_ON = {"REQUEUED", "RESIZING"}
"""Accounting closes a record with these, and the job goes on in another one."""


class Shell(Protocol):
    """A place where Slurm's commands are run."""

    def output(self, *argv: str, user: str = "root", seconds: float = 30, text: str = "") -> str:
        """What a command prints; a LabError if it fails."""
        ...


class Submission(NamedTuple):
    """What is given to sbatch."""

    options: tuple[str, ...] = ("-n1",)
    script: str = "sleep 5"
    name: str = "lab-job"
    user: str = "bob"
    minutes: int = 10
    """The time limit."""
    comment: str = "lab-comment"

    @property
    def whole_script(self) -> str:
        return f"#!/bin/sh\n# submitted by {self.user}\n{self.script}\n"


class Held(NamedTuple):
    """What a job holds of one node."""

    cpu_ids: tuple[int, ...]
    """Slurm's CPU_IDs: the hardware threads of a core follow each other."""
    gpus: tuple[int, ...]

    @property
    def cores(self) -> tuple[int, ...]:
        """Numbers within the node: socket * cores per socket + core."""
        return tuple(sorted({cpu // THREADS_PER_CORE for cpu in self.cpu_ids}))


class RunningJob(NamedTuple):
    """A job as scontrol shows it while it runs. Times are Unix seconds."""

    job_id: int
    array_job_id: int | None
    het_job_id: int | None
    """The leader's id, also of the leader itself."""
    het_job_offset: int | None
    user: str
    account: str
    partition: str
    num_nodes: int
    num_cpus: int
    submit_time: int
    start_time: int
    held: dict[str, Held]


class EndedJob(NamedTuple):
    """A job as sacct shows it when it is over. Times are Unix seconds."""

    job_id: int
    state: str
    """Slurm's word, without the ` by UID` of a cancelled one."""
    start_time: int | None
    """None for a job that never ran."""
    end_time: int
    submit_time: int
    hosts: tuple[str, ...]
    num_cpus: int
    num_gpus: int
    user: str
    account: str
    partition: str


def submit(lab: Shell, job: Submission) -> int:
    """Gives the job to sbatch and returns its id."""
    argv = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", f"--time={job.minutes}"]
    argv += [f"--job-name={job.name}", f"--comment={job.comment}"]
    return int(lab.output(*argv, *job.options, user=job.user, text=job.whole_script))


def cancel(lab: Shell, job_ids: Iterable[int]) -> None:
    lab.output("scancel", *map(str, job_ids))


def running_ids(lab: Shell) -> list[int]:
    """The jobs that run now; not those that are being made ready or wind up."""
    return [int(word) for word in lab.output("squeue", "-h", "-r", "-a", "-t", "R", "-o", "%A").split()]


def wait_until_running(lab: Shell, job_ids: Iterable[int], seconds: float = 60) -> None:
    wanted = set(job_ids)
    wait_for(f"jobs {sorted(wanted)} to run", lambda: wanted <= set(running_ids(lab)), seconds=seconds, every=0.2)


def wait_until_ended(lab: Shell, job_ids: Iterable[int], seconds: float = 90) -> dict[int, EndedJob]:
    """Waits for Slurm's accounting of all these jobs, and returns it."""
    wanted = set(job_ids)

    def all_ended() -> dict[int, EndedJob]:
        ended = ended_jobs(lab, wanted)
        return ended if wanted <= set(ended) else {}

    return wait_for(f"jobs {sorted(wanted)} to end", all_ended, seconds=seconds, every=0.5)


def clear_queue(lab: Shell) -> None:
    """Cancels every job and waits until the nodes are free."""
    for user in ("alice", "bob", "carol"):
        lab.output("scancel", f"--user={user}")
    wait_for("an empty queue", lambda: not lab.output("squeue", "-h", "-a", "-o", "%A"), seconds=60, every=0.2)


def running_job(lab: Shell, job_id: int, job: Submission) -> RunningJob:
    """What the job holds; it must be running."""
    text = lab.output(*EPOCH_SECONDS, "scontrol", "show", "job", "-d", str(job_id))
    # What its user wrote may imitate Slurm's own words, and 26.05 repeats it in SubmitLine.
    text = text.replace(job.name, "").replace(job.comment, "")
    return parse_running_job(record_of(text, job_id))


def record_of(text: str, job_id: int) -> str:
    """The job's own part: for the id of an array scontrol prints all of its tasks."""
    records = [record for record in text.split("\n\n") if record.startswith(f"JobId={job_id} ")]
    if len(records) != 1:
        raise LabError(f"{len(records)} records of job {job_id} in what scontrol says:\n{text}")
    return records[0]


def parse_running_job(text: str) -> RunningJob:
    """From one record, without what the job's user wrote."""
    array = re.match(r"JobId=\d+ ArrayJobId=(\d+) ", text)
    het = re.match(r"JobId=\d+ HetJobId=(\d+) HetJobOffset=(\d+) ", text)
    return RunningJob(
        job_id=int(field(text, "JobId", r"(\d+)")),
        array_job_id=int(array[1]) if array else None,
        het_job_id=int(het[1]) if het else None,
        het_job_offset=int(het[2]) if het else None,
        user=field(text, "UserId", r"(\w+)\("),
        account=field(text, "Account", r"([\w()]+)"),
        partition=field(text, "Partition", r"(\w+)"),
        num_nodes=int(field(text, "NumNodes", r"(\d+)")),
        num_cpus=int(field(text, "NumCPUs", r"(\d+)")),
        submit_time=int(field(text, "SubmitTime", r"(\d+)")),
        start_time=int(field(text, "StartTime", r"(\d+)")),
        held=parse_held(text),
    )


def field(text: str, name: str, pattern: str) -> str:
    found = re.search(rf"(?:^|\s){name}={pattern}", text)
    if not found:
        raise LabError(f"no {name} in what scontrol says:\n{text}")
    return found[1]


def parse_held(text: str) -> dict[str, Held]:
    """Hardware threads and GPUs by host."""
    held = {}
    for hosts, cpu_ids, gres in re.findall(r"^     Nodes=(\S+) CPU_IDs=(\S+) Mem=\d+ GRES=(\S*)$", text, re.M):
        threads = tuple(numbers(cpu_ids))
        assert all(thread < CORES * THREADS_PER_CORE for thread in threads)
        indices = re.search(r"\(IDX:([\d,-]+)\)", gres)
        for host in hostnames(hosts):
            held[host] = Held(threads, tuple(numbers(indices[1])) if indices else ())
    return held


def hostnames(expression: str) -> list[str]:
    """Expands `node[01-02,04]`; the lab has no other host names."""
    found = re.fullmatch(r"node(?:\[([\d,-]+)\]|(\d+))", expression)
    if not found:
        raise LabError(f"{expression} is not a list of the lab's nodes")
    return [f"node{number:02}" for number in numbers(found[1] or found[2])]


def numbers(ranges: str) -> list[int]:
    """Expands `0-1,4`."""
    parts = [part.partition("-") for part in ranges.split(",")]
    return [number for first, _, last in parts for number in range(int(first), int(last or first) + 1)]


def ended_jobs(lab: Shell, job_ids: Iterable[int]) -> dict[int, EndedJob]:
    """Those of the jobs, array tasks included, that accounting says are over."""
    return {job.job_id: job for job in accounted(lab, job_ids) if job.state not in GO_ON}


def runs_of(lab: Shell, job_id: int) -> list[EndedJob]:
    """The runs of a job that are over, the oldest first; a requeued job has several."""
    runs = accounted(lab, [job_id], "-D")
    return sorted(runs, key=lambda run: run.start_time or 0)


def accounted(lab: Shell, job_ids: Iterable[int], *options: str) -> list[EndedJob]:
    """What accounting has closed. `-D` among the options: also runs that another run of the job followed."""
    argv = ["sacct", "-X", "-n", "-P", "-S", "now-1hour", f"--format={ENDED_COLUMNS}", *options]
    lines = lab.output(*EPOCH_SECONDS, *argv, "-j", ",".join(map(str, job_ids))).splitlines()
    return [parse_ended_job(line) for line in lines if line.split("|")[3].isdigit()]


def parse_ended_job(line: str) -> EndedJob:
    job_id, state, start, end, submitted, nodes, cpus, tres, user, account, partition = line.split("|")
    gpus = re.search(r"gres/gpu=(\d+)", tres)
    return EndedJob(
        job_id=int(job_id),
        state=state.split()[0],
        start_time=int(start) if start.isdigit() else None,
        end_time=int(end),
        submit_time=int(submitted),
        hosts=tuple(hostnames(nodes)) if nodes.startswith("node") else (),
        num_cpus=int(cpus),
        num_gpus=int(gpus[1]) if gpus else 0,
        user=user,
        account=account,
        partition=partition,
    )

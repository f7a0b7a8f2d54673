"""Submits jobs to the lab and keeps what Slurm itself says of them: the right answers of the tests.

While a job runs the text of `scontrol show job -d` says what it holds; when it is over sacct knows its
times and its end. The program under test reads neither of these the way it is done here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .namespaces import LabError, wait_for
from .slurm_lab import CORES, THREADS_PER_CORE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .slurm_lab import SlurmLab

PCI_ADDRESSES = [f"00000000:{gpu:02}:00.0" for gpu in range(4)]
"""What the lab's configuration calls Slurm's GPUs 0 to 3 of every node."""

EPOCH_SECONDS = ("env", "SLURM_TIME_FORMAT=%s")
ENDED_COLUMNS = "JobIDRaw,State,Start,End,Submit,NodeList,AllocCPUS,AllocTRES,User,Account,Partition"
NOT_ENDED = {"PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED"}


class Submission(NamedTuple):
    """What is given to sbatch."""

    options: tuple[str, ...] = ("-n1",)
    script: str = "sleep 5"
    name: str = "lab-job"
    user: str = "bob"
    minutes: int = 10
    """The time limit."""

    @property
    def whole_script(self) -> str:
        return f"#!/bin/sh\n# submitted by {self.user}\n{self.script}\n"


class Held(NamedTuple):
    """What a job holds of one node."""

    cores: tuple[int, ...]
    """Numbers within the node: socket * cores per socket + core."""
    gpus: tuple[int, ...]


class RunningJob(NamedTuple):
    """A job as scontrol shows it while it runs. Times are Unix seconds."""

    job_id: int
    array_job_id: int | None
    user: str
    account: str
    partition: str
    num_nodes: int
    num_cpus: int
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


def submit(lab: SlurmLab, job: Submission) -> int:
    """Gives the job to sbatch and returns its id."""
    argv = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", f"--time={job.minutes}"]
    answer = lab.output(*argv, f"--job-name={job.name}", *job.options, user=job.user, text=job.whole_script)
    return int(answer)


def cancel(lab: SlurmLab, job_ids: Iterable[int]) -> None:
    lab.output("scancel", *map(str, job_ids))


def running_ids(lab: SlurmLab) -> list[int]:
    """The jobs that run now; not those that are being made ready or wind up."""
    return [int(word) for word in lab.output("squeue", "-h", "-r", "-a", "-t", "R", "-o", "%A").split()]


def wait_until_running(lab: SlurmLab, job_ids: Iterable[int], seconds: float = 60) -> None:
    wanted = set(job_ids)
    wait_for(f"jobs {sorted(wanted)} to run", lambda: wanted <= set(running_ids(lab)), seconds=seconds, every=0.2)


def wait_until_ended(lab: SlurmLab, job_ids: Iterable[int], seconds: float = 90) -> dict[int, EndedJob]:
    """Waits for Slurm's accounting of all these jobs, and returns it."""
    wanted = set(job_ids)

    def all_ended() -> dict[int, EndedJob]:
        ended = ended_jobs(lab, wanted)
        return ended if wanted <= set(ended) else {}

    return wait_for(f"jobs {sorted(wanted)} to end", all_ended, seconds=seconds, every=0.5)


def clear_queue(lab: SlurmLab) -> None:
    """Cancels every job and waits until the nodes are free."""
    lab.output("scancel", "--user=alice")
    lab.output("scancel", "--user=bob")
    wait_for("an empty queue", lambda: not lab.output("squeue", "-h", "-a", "-o", "%A"), seconds=60, every=0.2)


def running_job(lab: SlurmLab, job_id: int, name: str) -> RunningJob:
    """What the job holds; it must be running. `name` is its name, which may imitate Slurm's own words."""
    text = lab.output(*EPOCH_SECONDS, "scontrol", "show", "job", "-d", str(job_id))
    text = text.replace(f"JobName={name}\n", "JobName=\n")
    return parse_running_job(record_of(text, job_id))


def record_of(text: str, job_id: int) -> str:
    """The job's own part: for the id of an array scontrol prints all of its tasks."""
    records = [record for record in text.split("\n\n") if record.startswith(f"JobId={job_id} ")]
    if len(records) != 1:
        raise LabError(f"{len(records)} records of job {job_id} in what scontrol says:\n{text}")
    return records[0]


def parse_running_job(text: str) -> RunningJob:
    """From one record, without the job's name."""
    array_job_id = re.search(r"^JobId=\d+ ArrayJobId=(\d+) ", text)
    return RunningJob(
        job_id=int(field(text, "JobId", r"(\d+)")),
        array_job_id=int(array_job_id[1]) if array_job_id else None,
        user=field(text, "UserId", r"(\w+)\("),
        account=field(text, "Account", r"(\w+)"),
        partition=field(text, "Partition", r"(\w+)"),
        num_nodes=int(field(text, "NumNodes", r"(\d+)")),
        num_cpus=int(field(text, "NumCPUs", r"(\d+)")),
        start_time=int(field(text, "StartTime", r"(\d+)")),
        held=parse_held(text),
    )


def field(text: str, name: str, pattern: str) -> str:
    found = re.search(rf"(?:^|\s){name}={pattern}", text)
    if not found:
        raise LabError(f"no {name} in what scontrol says:\n{text}")
    return found[1]


def parse_held(text: str) -> dict[str, Held]:
    """Cores and GPUs by host. CPU_IDs are hardware threads, two for each core."""
    held = {}
    for hosts, threads, gres in re.findall(r"^     Nodes=(\S+) CPU_IDs=(\S+) Mem=\d+ GRES=(\S*)$", text, re.M):
        cores = sorted({thread // THREADS_PER_CORE for thread in numbers(threads)})
        assert all(core < CORES for core in cores)
        indices = re.search(r"\(IDX:([\d,-]+)\)", gres)
        for host in hostnames(hosts):
            held[host] = Held(tuple(cores), tuple(numbers(indices[1])) if indices else ())
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


def ended_jobs(lab: SlurmLab, job_ids: Iterable[int]) -> dict[int, EndedJob]:
    """Those of the jobs, array tasks included, that accounting says are over."""
    argv = ["sacct", "-X", "-n", "-P", "-S", "now-1hour", f"--format={ENDED_COLUMNS}"]
    lines = lab.output(*EPOCH_SECONDS, *argv, "-j", ",".join(map(str, job_ids))).splitlines()
    jobs = [parse_ended_job(line) for line in lines if line.split("|")[1] not in NOT_ENDED]
    return {job.job_id: job for job in jobs}


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

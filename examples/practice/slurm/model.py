"""What the practice cluster is made of: its settings, what can be submitted, the record of a job."""

from __future__ import annotations

import json
from typing import NamedTuple

from examples.practice.slurm.hostlist import parse_numbers

MEMORY_PER_CPU = 100
"""MB that a job gets for each CPU, as with DefMemPerCPU=100."""


class Settings(NamedTuple):
    """One cluster. The defaults are those of the recorded cluster under tests/recorded/slurm."""

    cluster: str = "lab"
    release: str = "24.11.5"
    """The Slurm that its commands are, one of release.RELEASES."""
    nodes: str = "node[01-04]"
    sockets: int = 2
    cores_per_socket: int = 4
    threads_per_core: int = 2
    gpus_per_node: int = 4
    gpu_type: str = "h100"
    memory_per_node: int = 4000
    """MB. Shown, but not what limits jobs: they are placed by cores and GPUs."""
    min_job_age: float = 300.0
    """Seconds after its end for which slurmctld's commands still know a job."""
    configure_seconds: float = 0.0
    """How long a job is CONFIGURING at least; it stays so for as long as the hook runs."""
    completing_seconds: float = 0.0
    """How long a job is COMPLETING at least; it stays so for as long as the hook runs."""
    requeue_delay: float = 120.0
    """Seconds until a requeued job may start again."""
    hook: str = ""
    """The file that is called as PrologSlurmctld and EpilogSlurmctld; '' for none."""
    private_data: str = "none"
    store_flags: str = "job_comment,job_env,job_script"
    slurm_user: str = ""
    slurm_uid: int = 0
    machine: str = "localhost"
    admin_levels: tuple[tuple[str, str], ...] = (("alice", "None"), ("root", "Administrator"))
    """Slurm's users and their AdminLevel; who creates the cluster is added as an Administrator."""

    @property
    def cores_per_node(self) -> int:
        return self.sockets * self.cores_per_socket

    @property
    def cpus_per_node(self) -> int:
        return self.cores_per_node * self.threads_per_core


class Partition(NamedTuple):
    """A partition; every partition has all nodes."""

    name: str
    select_type: str
    """How the JSON calls its OverSubscribe."""


PARTITIONS = {
    "main": Partition("main", "ONE_ROW"),
    "shared": Partition("shared", "AVAILABLE"),
    "excl": Partition("excl", "RESERVED"),
}
"""The first one is the default; OverSubscribe is NO, YES:4 and EXCLUSIVE."""


class JobRequest(NamedTuple):
    """A job to submit. It holds its nodes for `duration` seconds and then ends as `ending` says."""

    name: str = "job"
    user: str = ""
    """'' is whoever submits."""
    account: str = ""
    """'' is the account with the user's name."""
    partition: str = "main"
    nodes: int = 1
    tasks: int = 0
    """In all; 0 is one on every node."""
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    typed_gpus: bool = False
    """Ask for gpu:h100:2 instead of gpu:2."""
    duration: float = 10.0
    ending: str = "completed"
    """A key of ENDINGS."""
    exit_code: int = 1
    """Of a job that fails."""
    begin_delay: float = 0.0
    """Seconds before which it may not start."""
    cancel_pending: bool = False
    """Never starts: it is cancelled after waiting for `duration` seconds."""
    array_size: int = 0
    """0 is no array; else tasks 0 to array_size - 1."""
    array_limit: int = 0
    """How many tasks may run at once; 0 is any number."""
    exclusive: bool = False
    oversubscribe: bool = False
    """Submitted with --oversubscribe. It is shown so, but no two jobs here ever share a core."""
    script: str | None = "#!/bin/bash\nsleep 10\n"
    """None is an allocation without a script, as of salloc."""
    comment: str = ""
    admin_comment: str = ""
    time_limit: int | None = 60
    """Minutes, None is UNLIMITED. A job that would run longer ends as a timeout."""


class Ending(NamedTuple):
    """How a job ends, as slurmctld tells it and, where it differs, as accounting does."""

    state: str
    reason: str
    exit_code: int
    signal: int
    accounting_exit_code: int
    accounting_signal: int


ENDINGS = {
    "completed": Ending("COMPLETED", "None", 0, 0, 0, 0),
    "failed": Ending("FAILED", "NonZeroExitCode", 1, 0, 1, 0),
    "timeout": Ending("TIMEOUT", "TimeLimit", 0, 15, 0, 0),
    "cancelled": Ending("CANCELLED", "None", 0, 15, 0, 0),
    "node_fail": Ending("NODE_FAIL", "NodeDown", 0, 1, 1, 0),
    "out_of_memory": Ending("OUT_OF_MEMORY", "OutOfMemory", 0, 125, 0, 125),
}

PENDING, CONFIGURING, RUNNING, COMPLETING, ENDED = "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "ENDED"
"""The phases of a record. ENDED has its own word in `end_state`."""

OPT_OUT = "disable_cc_submission"
"""In its administrator's comment: cc-backend is not to know the job."""

REQUEUED = "REQUEUED"
"""The end_state of a run whose job waits again."""


class Record(NamedTuple):
    """One run of a job, or the tasks of an array that wait together: one row of the database.

    Accounting keeps all rows. slurmctld knows those that are `in_memory`. Times are in Unix seconds.
    """

    db_index: int
    job_id: int
    array_job_id: int
    """0 outside arrays."""
    array_task_id: int | None
    array_first: int | None
    """The first of the tasks that still wait together in this record; None for a single job or task."""
    array_size: int
    array_limit: int
    name: str
    user: str
    uid: int
    group_name: str
    gid: int
    account: str
    partition: str
    nodes: int
    tasks: int
    cpus_per_task: int
    gpus_per_node: int
    typed_gpus: bool
    exclusive: bool
    oversubscribe: bool
    batch: bool
    comment: str
    admin_comment: str
    time_limit: int | None
    duration: float
    ending: str
    planned_exit_code: int
    cancel_pending: bool
    phase: str
    end_state: str
    reason: str
    exit_code: int
    exit_signal: int
    killed_by: str
    """Who cancelled it, '' for nobody."""
    killed_by_uid: int
    restarts: int
    submit_time: int
    begin_time: int
    """May not start before; 0 is at once."""
    start_time: int | None
    run_time: int | None
    """When it was no longer CONFIGURING."""
    end_time: int | None
    node_list: str
    """The host list of what it holds or held, '' if it never had nodes."""
    hosts: str
    """What it holds or held of each node, see `shares`."""
    in_memory: bool
    due: float | None
    """When the next thing happens to it, None if that depends on others."""


class HostShare(NamedTuple):
    """What a job holds of one node."""

    host: str
    cores: tuple[int, ...]
    """Core numbers of the node: socket * cores per socket + core."""
    gpus: tuple[int, ...]


class TrueRun(NamedTuple):
    """What really happened in one run, for comparison with what was reported of it."""

    job_id: int
    start: int
    end: int | None
    """None while it holds its nodes."""
    state: str
    """Slurm's word: RUNNING, or how it ended (REQUEUED too)."""
    hosts: tuple[HostShare, ...]
    name: str
    user: str
    account: str
    partition: str
    array_job_id: int | None
    array_task_id: int | None
    opted_out: bool = False
    """It is not to be reported at all."""
    is_idle: bool = False
    """Nothing was launched in it before its job went back to the queue: it is not to be reported either."""

    @property
    def is_secret(self) -> bool:
        """Whether cc-backend is not to know of it."""
        return self.opted_out or self.is_idle


def shares(record: Record) -> tuple[HostShare, ...]:
    """What a record holds or held, node by node; also the GPU indices that the commands no longer tell."""
    return tuple(
        HostShare(host, parse_numbers(cores), parse_numbers(gpus)) for host, cores, gpus in json.loads(record.hosts)
    )

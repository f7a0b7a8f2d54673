"""What is known about jobs, in this program's own words.

Slurm's words are used only in `slurm/`, and cc-backend's words only in `sinks/`. Between them there is `Run`. A run is
a job from one start to one end; a requeued job has several, and so has a job id that Slurm has used again.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Union

NAMED = 10
"""How many jobs a line of the log names."""


class RunKey(NamedTuple):
    """The permanent name of one run. `start_time` is in Unix seconds."""

    cluster: str
    job_id: int
    start_time: int

    def __str__(self) -> str:
        return f"job {self.job_id} of {self.cluster} (start {self.start_time})"


def job_list(keys: Iterable[RunKey]) -> str:
    """Return, for the log, the ids of the first ten jobs and how many more there are."""
    ids = sorted({key.job_id for key in keys})
    named = ", ".join(map(str, ids[:NAMED]))
    return f"{named} and {len(ids) - NAMED} more" if len(ids) > NAMED else named


@dataclass(frozen=True)
class Finding:
    """Something about a site that an administrator should know or correct. As text it is one line for the log."""

    level: int
    """A level of `logging`: WARNING for what an administrator should check, ERROR if an administrator must act.

    INFO says that something was looked at and is well, or why it could not be looked at; only `-check` shows that.
    """
    subject: str
    """What it is about: a key of the configuration, or a word for a part of the site, such as `hooks`."""
    text: str
    next_step: str = ""
    """What to do about it: a clause, or a sentence of its own, which begins with a capital letter."""
    since: float = 0.0
    """The Unix time when it began; 0 if that is not known."""

    def __str__(self) -> str:
        if not self.next_step:
            return self.text
        return f"{self.text}{'. ' if self.next_step[0].isupper() else ': '}{self.next_step}"


class Phase(enum.Enum):
    """The state of a run in Slurm, as far as it matters here."""

    WAITING = "waiting"
    """Nothing is allocated to it: pending, or requeued and pending again."""
    CONFIGURING = "configuring"
    """Its nodes are allocated, but they are still being made ready: its start time may move."""
    RUNNING = "running"
    """Its nodes are allocated and ready. Suspended and stopped runs belong here."""
    ENDED = "ended"
    """Over; `EndState` says how. COMPLETING belongs here: its state and end time are final."""


class EndState(enum.Enum):
    """How a run ended. The values are the words for people and for the outbox."""

    BOOT_FAIL = "boot_fail"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    DEADLINE = "deadline"
    FAILED = "failed"
    NODE_FAIL = "node_fail"
    OUT_OF_MEMORY = "out_of_memory"
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"


class Sharing(enum.Enum):
    """Who else may be on the nodes of a run."""

    WHOLE_NODE = "whole_node"
    ONE_USER = "one_user"
    ANY_USER = "any_user"


class Missing(enum.Enum):
    """A fact that could not be read any more when the run was first seen."""

    CORES = "cores"
    GPUS = "gpus"
    SHARING = "sharing"
    """Who else may have been on the nodes. Then it is reported that any user may."""


class ListedJob(NamedTuple):
    """A line of the short listing: the state of one job now, from columns that no user controls."""

    job_id: int
    phase: Phase
    start_time: int | None
    """Unix seconds; None while the job waits."""
    end_time: int | None
    """Unix seconds, only for a run that is over."""
    end_state: EndState | None
    """None unless the listing itself names it. For a completing run it comes with the details."""
    raw_state: str
    has_nodes: bool = True
    line: bytes = b""
    """The whole line."""

    @property
    def never_ran(self) -> bool:
        """Whether the job was cancelled while it waited. Then Slurm shows the same start and end time, and no nodes.

        This is not judged while it completes, because Slurm then removes its nodes one by one.
        """
        return self.end_state is not None and not self.has_nodes and self.start_time == self.end_time


class End(NamedTuple):
    """How and when a run ended. `end_time` is in Unix seconds; `raw_state` is Slurm's own word."""

    end_state: EndState
    end_time: int
    raw_state: str

    @property
    def is_requeue(self) -> bool:
        """Whether Slurm's word itself says that the job went back to the queue."""
        return "REQUEUED" in self.raw_state

    @property
    def may_run_again(self) -> bool:
        """Whether the job may run again by itself: it was requeued, preempted or lost its node."""
        return self.is_requeue or self.end_state in (EndState.PREEMPTED, EndState.NODE_FAIL, EndState.BOOT_FAIL)


@dataclass(frozen=True)
class Resource:
    """What is allocated to a run on one node."""

    hostname: str
    cores: tuple[int, ...] = ()
    """Core numbers of the node, socket by socket: socket * cores per socket + core."""
    gpus: tuple[int, ...] = ()
    """Slurm's indices of the node's GPUs."""
    node_cores: int = 0
    """How many cores the node has; needed to number its hardware threads. 0 where `cores` is empty."""
    threads_per_core: int = 1
    """Hardware threads of each core: all threads of its cores are allocated to the run."""
    other_gres: tuple[str, ...] = ()
    """GRES that have devices allocated to the run, but that the site does not name as accelerators."""


@dataclass(frozen=True)
class Run:
    """A run is a job from one start to one end; a requeued job has several. This is all that is reported about one."""

    key: RunKey
    phase: Phase
    end: End | None
    user: str
    account: str
    partition: str
    name: str
    submit_time: int
    """Unix seconds."""
    walltime: int | None
    """Seconds; None when there is no limit."""
    num_cpus: int
    """CPUs as Slurm counts them: hardware threads."""
    num_gpus: int
    """As Slurm counts them, also when their indices are no longer known."""
    sharing: Sharing
    resources: tuple[Resource, ...]
    array_job_id: int | None = None
    array_task_id: int | None = None
    het_job_id: int | None = None
    """The leader of the heterogeneous job that this job is a component of; the leader names itself."""
    het_job_offset: int | None = None
    """Which component it is, counted from 0."""
    has_script: bool = True
    """False for jobs of salloc and srun. It is not known for runs that only accounting knows."""
    opted_out: bool = False
    """Whether its administrator's comment says that it must not be reported to cc-backend."""
    missing: frozenset[Missing] = field(default_factory=frozenset)
    awaits_layout: bool = False
    """Whether its cores cannot be numbered now: the layout of a node is not known, and sinfo does not answer. Such a
    run is read again, and is never stored like this."""
    slurm_info: str = ""
    """The text of `scontrol show job`, for people."""
    job_script: str = ""

    def with_texts(self, slurm_info: str, job_script: str) -> Run:
        """Return the run with these texts. It is faster than `dataclasses.replace`: nearly every run gets its texts."""
        return Run(**{**vars(self), "slurm_info": slurm_info, "job_script": job_script})

    @property
    def never_ran(self) -> bool:
        """Whether the job was cancelled while it waited: it has a state and times but never had a node.

        This is not judged while it completes, because Slurm then removes its nodes one by one.
        """
        return self.end is not None and not self.resources and not self.is_completing

    @property
    def is_completing(self) -> bool:
        """Whether it is over, but its nodes are still being cleaned."""
        return self.end is not None and "COMPLETING" in self.end.raw_state


class NodeState(NamedTuple):
    """One node after a poll. Memory in MB; GPUs and CPUs as counts."""

    hostname: str
    states: tuple[str, ...]
    cpus_allocated: int
    memory_allocated: int
    gpus_allocated: int
    jobs_running: int = 0
    gpus_in_use: tuple[int, ...] = ()
    """Slurm's indices of the allocated GPUs; () where Slurm only counts them."""
    cpus: int = 0
    """All CPUs of the node, by Slurm's layout of it: sockets * cores * threads."""
    gpus: int = 0
    """All GPUs of the node, in use or not."""
    gpu_types: str = ""
    """The same as text for people: `4 gpu:h100`."""


@dataclass(frozen=True)
class HookEvent:
    """A prolog or epilog call that named a job of our cluster."""

    job_id: int
    context: str
    """Slurm's SLURM_SCRIPT_CONTEXT (prolog_slurmctld, epilog_slurmd ...), or '' where there was none."""
    received: float
    """time.monotonic() of its arrival; if it was in a file, of the moment when that was written."""

    @property
    def is_end(self) -> bool:
        """Whether it is from an epilog: then the job should be over."""
        return self.context.startswith("epilog")

    @property
    def comes_once(self) -> bool:
        """Whether it is from slurmctld's own hooks, which are called once for each start and end.

        Other hooks are called on every node or for every task. An event without a context counts as one of slurmctld's,
        so that it is served immediately.
        """
        return not self.context or self.context.endswith("_slurmctld")


class AccountedEnd(NamedTuple):
    """A run that accounting has closed."""

    key: RunKey
    end: End
    may_be_remainder: bool = False
    """Whether its record was made when it began. Then it may be the remainder of a run that was resized then."""


class AccountedLaunch(NamedTuple):
    """A record of accounting, and whether anything was launched in it."""

    key: RunKey
    end_time: int | None
    """Unix seconds; None while it is open."""
    has_launched: bool
    """Whether it has its batch script or another step."""


@dataclass
class Details:
    """Runs that were read, and the jobs that could not be understood or not even be asked for, with the reason."""

    runs: list[Run] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    """Jobs for which Slurm's command fails while it answers for others, but not so long yet that they are given up."""
    listed: int = 0
    """How many jobs Slurm printed, wanted or not."""


class Numbering(enum.Enum):
    """How the hardware threads of a node are numbered. The values are the words of the configuration."""

    BLOCK = "block"
    """First one thread of every core, then their second ones: thread t of core c is c + t * cores."""
    INTERLEAVED = "interleaved"
    """The threads of a core follow each other: thread t of core c is c * threads + t."""
    CORES = "cores"
    """No threads at all: the numbers of the cores are listed, as the existing adapter does."""


CpuNumbers = tuple[tuple[int, ...], ...]
"""The operating system's numbers for each CPU that Slurm sees on a node; mostly one."""
NumberingByHost = tuple[tuple["re.Pattern[str]", Union[Numbering, CpuNumbers]], ...]
"""The first regular expression that is found in a host name counts."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. `authorization` is the value of Proxy-Authorization, '' without a user."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

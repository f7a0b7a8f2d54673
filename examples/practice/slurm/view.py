"""What slurmctld and accounting make of a record: states, times, counts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from examples.practice.slurm.hostlist import format_numbers
from examples.practice.slurm.model import (
    COMPLETING,
    CONFIGURING,
    ENDED,
    MEMORY_PER_CPU,
    PENDING,
    REQUEUED,
    RUNNING,
    HostShare,
    Record,
    Settings,
)
from examples.practice.slurm.release import release_of

YEAR = 365 * 86400
"""slurmctld expects the end of a job without time limit after this many seconds."""

TRES_IDS = {"cpu": 1, "mem": 2, "energy": 3, "node": 4, "billing": 5, "gres/gpu": 1001}
TYPED_GPU_ID = 1002

STATE_CODES = {
    "PENDING": "PD",
    "RUNNING": "R",
    "SUSPENDED": "S",
    "COMPLETED": "CD",
    "CANCELLED": "CA",
    "FAILED": "F",
    "TIMEOUT": "TO",
    "NODE_FAIL": "NF",
    "PREEMPTED": "PR",
    "BOOT_FAIL": "BF",
    "DEADLINE": "DL",
    "OUT_OF_MEMORY": "OOM",
    "COMPLETING": "CG",
    "CONFIGURING": "CF",
    "RESIZING": "RS",
    "RESV_DEL_HOLD": "RD",
    "REQUEUED": "RQ",
    "REQUEUE_FED": "RF",
    "REQUEUE_HOLD": "RH",
    "REVOKED": "RV",
    "SIGNALING": "SI",
    "SPECIAL_EXIT": "SE",
    "STAGE_OUT": "SO",
    "STOPPED": "ST",
}
STATE_WORDS = {code: word for word, code in STATE_CODES.items()}


class Moments(NamedTuple):
    """Start and end as slurmctld shows them, in Unix seconds; None where it has none."""

    start: int | None
    end: int | None


def parse_state(word: str) -> str | None:
    """The long name of a state given by its long name or its code, in any case; None for other words."""
    upper = word.upper()
    return STATE_WORDS.get(upper, upper if upper in STATE_CODES else None)


def shown_state(record: Record) -> str:
    """The one word that squeue and scontrol print."""
    return record.end_state if record.phase == ENDED else record.phase


def controller_states(record: Record) -> list[str]:
    """`job_state` in the JSON: the state and its flag."""
    if record.phase == CONFIGURING:
        return [RUNNING, CONFIGURING]
    if record.phase == COMPLETING:
        return [PENDING if record.end_state == REQUEUED else record.end_state, COMPLETING]
    return [shown_state(record)]


def accounting_state(record: Record) -> str:
    """The word that accounting keeps: it knows neither CONFIGURING nor COMPLETING."""
    return record.end_state or (RUNNING if record.phase == CONFIGURING else record.phase)


def limit_seconds(record: Record) -> int:
    return YEAR if record.time_limit is None else record.time_limit * 60


def moments(record: Record) -> Moments:
    """Start and end: what was, or what slurmctld expects."""
    if record.phase == PENDING and not record.begin_time:
        return Moments(None, None)
    if record.phase == PENDING:
        return Moments(record.begin_time, record.begin_time + limit_seconds(record))
    if record.end_time is None:
        # The limit counts from the end of CONFIGURING.
        started = record.start_time or 0
        return Moments(started, (record.run_time or started) + limit_seconds(record))
    if record.end_state == REQUEUED:
        # slurmctld already speaks of the next run.
        return Moments(record.end_time, record.end_time + limit_seconds(record))
    return Moments(record.end_time if record.start_time is None else record.start_time, record.end_time)


def work_dir(record: Record) -> str:
    return f"/home/{record.user}"


def shown_restarts(record: Record) -> int:
    return record.restarts + (record.end_state == REQUEUED)


def holds_nodes(record: Record) -> bool:
    return record.phase in (CONFIGURING, RUNNING)


def shown_nodes(record: Record) -> str:
    """The host list that slurmctld shows: of a completing job only nodes that still have processes of it.

    So it is empty for a job that ended by itself, until it is no longer COMPLETING.
    """
    gone = record.phase == COMPLETING and record.end_state not in ("CANCELLED", "TIMEOUT", REQUEUED)
    return "" if gone else record.node_list


def elapsed(record: Record, now: float) -> int:
    """Seconds that it ran."""
    if record.start_time is None:
        return 0
    return max(0, int(now if record.end_time is None else record.end_time) - record.start_time)


def reason(record: Record, now: float) -> str:
    """Why it waits, or why it ended."""
    if record.phase == PENDING and record.begin_time > now:
        return "BeginTime"
    return record.reason


def shown_task(record: Record, settings: Settings) -> int | None:
    """The task of an array that a record is; from 25.11 on not the last one while it waits: its job is the array."""
    is_array = record.phase == PENDING and record.job_id == record.array_job_id
    return None if is_array and not release_of(settings.release).is_before("25.11") else record.array_task_id


def waiting_tasks(record: Record, settings: Settings) -> str:
    """The tasks of an array that wait together, such as 2-5%2; '' for anything else."""
    if record.array_first is not None:
        tasks = format_numbers(range(record.array_first, record.array_size))
    elif record.array_task_id is not None and shown_task(record, settings) is None:
        tasks = str(record.array_task_id)
    else:
        return ""
    return f"{tasks}%{record.array_limit}" if record.array_limit else tasks


def task_name(record: Record, settings: Settings) -> str:
    """JobID as squeue %i and sacct print it: 9_[2-5%2], 9_1 or 9."""
    waiting = waiting_tasks(record, settings)
    if waiting:
        return f"{record.array_job_id}_[{waiting}]"
    if record.array_task_id is not None:
        return f"{record.array_job_id}_{record.array_task_id}"
    return str(record.job_id)


def sluid(record: Record) -> str:
    """A name for the run that no other run ever has, as long as Slurm's."""
    return f"s{record.db_index:013X}"


def submit_line(record: Record) -> str:
    """The command with which a user would have submitted it."""
    return f"{'sbatch' if record.batch else 'salloc'} -J {record.name} -p {record.partition}"


def cpus_asked(record: Record) -> int:
    return record.tasks * record.cpus_per_task


def cpus_held(held: Sequence[HostShare], settings: Settings) -> int:
    return sum(len(share.cores) for share in held) * settings.threads_per_core


def gpus_held(held: Sequence[HostShare]) -> int:
    return sum(len(share.gpus) for share in held)


def tres_asked(record: Record, settings: Settings) -> dict[str, int]:
    """What was asked for, by Slurm's names; mem in MB."""
    cpus = cpus_asked(record)
    gpus = record.gpus_per_node * record.nodes
    typed = settings.gpu_type if record.typed_gpus else ""
    return _tres(cpus, record.nodes, gpus, typed)


def tres_held(held: Sequence[HostShare], settings: Settings) -> dict[str, int]:
    """What it was given, by Slurm's names; empty before it starts."""
    if not held:
        return {}
    return _tres(cpus_held(held, settings), len(held), gpus_held(held), settings.gpu_type)


def _tres(cpus: int, nodes: int, gpus: int, gpu_type: str) -> dict[str, int]:
    tres = {"cpu": cpus, "mem": cpus * MEMORY_PER_CPU, "node": nodes, "billing": cpus}
    if gpus:
        tres["gres/gpu"] = gpus
    if gpus and gpu_type:
        tres[f"gres/gpu:{gpu_type}"] = gpus
    return tres


def format_tres(tres: dict[str, int]) -> str:
    """cpu=4,mem=400M,node=2,... in the order of the dict."""
    return ",".join(f"{name}={format_memory(count) if name == 'mem' else count}" for name, count in tres.items())


def format_memory(megabytes: int) -> str:
    """400M, or 2G where nothing is lost."""
    units = iter("MGTP")
    unit = next(units)
    while megabytes and megabytes % 1024 == 0:
        megabytes //= 1024
        unit = next(units)
    return f"{megabytes}{unit}"


def gres_text(share: HostShare, settings: Settings) -> str:
    """gpu:h100:2(IDX:0-1), '' for a node without GPUs of this job."""
    if not share.gpus:
        return ""
    return f"gpu:{settings.gpu_type}:{len(share.gpus)}(IDX:{format_numbers(share.gpus)})"


def gres_request(record: Record, settings: Settings) -> str:
    """What it asked for on each node, as TresPerNode; '' for no GPUs."""
    if not record.gpus_per_node:
        return ""
    separator = ":" if release_of(settings.release).is_before("23.11") else "/"
    kind = f"{settings.gpu_type}:" if record.typed_gpus else ""
    return f"gres{separator}gpu:{kind}{record.gpus_per_node}"


def format_exit(code: int, signal: int) -> str:
    return f"{code}:{signal}"

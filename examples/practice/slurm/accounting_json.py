"""A job as `sacct -X --json` prints it, v0.0.40 to 42 and the older formats by them: no cores, no GPU indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from examples.practice.slurm.job_template import INFINITE, UNSET, exit_object, number
from examples.practice.slurm.model import (
    ENDINGS,
    MEMORY_PER_CPU,
    PENDING,
    REQUEUED,
    Ending,
    HostShare,
    Record,
    Settings,
    shares,
)
from examples.practice.slurm.older_formats import accounted_plain, accounted_v39
from examples.practice.slurm.release import PLAIN, V39, V40, V42, release_of
from examples.practice.slurm.view import (
    TRES_IDS,
    TYPED_GPU_ID,
    accounting_state,
    cpus_asked,
    elapsed,
    shown_task,
    submit_line,
    tres_asked,
    tres_held,
    work_dir,
)

NO_TIME = 4294967294
"""Start of a job that was cancelled before it ever started."""

NOT_ELIGIBLE = 4294967295
ENERGY_UNKNOWN = -2
NAME_BYTES = 255
NO_CPU_TIME = {"seconds": 0, "microseconds": 0}
BY_STATE = {ending.state: ending for ending in ENDINGS.values()}
NO_ENDING = Ending("", "None", 0, 0, 0, 0)


def accounting_exit(record: Record) -> tuple[int, int]:
    """Exit code and signal as accounting keeps them; it lacks those of jobs that Slurm itself ended."""
    ending = BY_STATE.get(record.end_state, NO_ENDING)
    return record.exit_code or ending.accounting_exit_code, ending.accounting_signal


def admin_comment(record: Record) -> str:
    """It reaches accounting only when the job ends."""
    return record.admin_comment if record.end_time is not None else ""


def accounting_name(record: Record) -> str:
    """Accounting alters job names: no double quotes, at most 255 bytes."""
    return record.name.replace('"', "`").encode()[:NAME_BYTES].decode(errors="ignore")


def accounting_object(record: Record, settings: Settings, now: float, version: str) -> dict[str, Any]:
    """One element of `jobs`."""
    if version == PLAIN:
        return accounted_plain(accounting_object(record, settings, now, V39))
    if version == V39:
        return accounted_v39(accounting_object(record, settings, now, V40))
    held = shares(record)
    return {
        **_who(record, settings),
        "time": _times(record, now, version),
        "exit_code": exit_object(*accounting_exit(record)),
        "extra": "",
        "failed_node": held[0].host if record.end_state == "NODE_FAIL" else "",
        "flags": _flags(record, settings),
        "group": record.group_name,
        "het": {"job_id": 0, "job_offset": UNSET},
        "job_id": record.job_id,
        "name": accounting_name(record),
        "licenses": "",
        "mcs": {"label": ""},
        "nodes": record.node_list or "None assigned",
        "partition": record.partition,
        "hold": False,
        "priority": number(1),
        "qos": "normal",
        **({"qosreq": ""} if version == V42 else {}),
        "required": {
            "CPUs": cpus_asked(record),
            "memory_per_cpu": number(MEMORY_PER_CPU),
            "memory_per_node": UNSET,
        },
        "kill_request_user": record.killed_by,
        **({"restart_cnt": record.restarts} if version == V42 else {}),
        "reservation": {"id": 0, "name": ""},
        "script": "",
        **({} if version == V40 else _streams(record)),
        "state": {"current": _states(record), "reason": "None"},
        "steps": [],
        "submit_line": submit_line(record),
        "tres": _tres(record, held, settings),
        "used_gres": "",
        "user": record.user,
        "wckey": {"wckey": "", "flags": []},
        "working_directory": work_dir(record),
    }


def _flags(record: Record, settings: Settings) -> list[str]:
    release = release_of(settings.release)
    started = [] if record.start_time is None else ["STARTED_ON_SCHEDULE"]
    if release.is_before("23.02"):
        return ["CLEAR_SCHEDULING", *started] if started else []
    return started if release.is_before("23.11") else [*started, "START_RECEIVED"]


def _who(record: Record, settings: Settings) -> dict[str, Any]:
    comment = record.comment if record.end_time is not None else ""
    return {
        "account": record.account,
        "comment": {"administrator": admin_comment(record), "job": comment, "system": ""},
        "allocation_nodes": record.nodes if record.node_list else 0,
        "array": _array(record, settings),
        "association": {
            "account": record.account,
            "cluster": settings.cluster,
            "partition": "",
            "user": record.user,
            "id": 2,
        },
        "block": "",
        "cluster": settings.cluster,
        "constraints": "",
        "container": "",
        "derived_exit_code": exit_object(0, 0),
    }


def _array(record: Record, settings: Settings) -> dict[str, Any]:
    waiting = range(record.array_first or 0, record.array_size if record.array_first is not None else 0)
    task_id = shown_task(record, settings)
    if record.array_task_id is not None and task_id is None:
        waiting = range(record.array_task_id, record.array_task_id + 1)
    limit = record.array_limit if record.job_id == record.array_job_id else 0
    return {
        "job_id": record.array_job_id,
        "limits": {"max": {"running": {"tasks": limit}}},
        "task_id": UNSET if task_id is None else number(task_id),
        # The waiting tasks as bits.
        "task": f"0x{sum(1 << task for task in waiting):X}" if waiting else "",
    }


def _times(record: Record, now: float, version: str) -> dict[str, Any]:
    eligible = eligible_time(record)
    start = NO_TIME if record.start_time is None and record.end_time is not None else record.start_time or 0
    is_throttled = record.array_first is not None or record.reason == "JobArrayTaskLimit"
    waited = int(now if record.start_time is None else record.start_time) - eligible
    return {
        "elapsed": elapsed(record, now),
        "eligible": NOT_ELIGIBLE if is_throttled else eligible,
        "end": record.end_time or 0,
        **({} if version == V40 else {"planned": number(waited)}),
        "start": start,
        "submission": record.submit_time,
        "suspended": 0,
        "system": NO_CPU_TIME,
        "limit": INFINITE if record.time_limit is None else number(record.time_limit),
        "total": NO_CPU_TIME,
        "user": NO_CPU_TIME,
    }


def eligible_time(record: Record) -> int:
    return record.begin_time or record.submit_time


def _streams(record: Record) -> dict[str, str]:
    used = "/dev/null" if record.batch else ""
    return {
        "stdin_expanded": used,
        "stdout_expanded": used,
        "stderr_expanded": "",
        "stdout": used,
        "stderr": "",
        "stdin": used,
    }


def _states(record: Record) -> list[str]:
    state = accounting_state(record)
    return [PENDING, REQUEUED] if state == REQUEUED else [state]


def _tres(record: Record, held: Sequence[HostShare], settings: Settings) -> dict[str, Any]:
    allocated = _tres_list(tres_held(held, settings))
    if allocated:
        allocated.insert(2, _tres_entry("energy", ENERGY_UNKNOWN))
    return {"allocated": allocated, "requested": _tres_list(tres_asked(record, settings))}


def _tres_list(tres: dict[str, int]) -> list[dict[str, Any]]:
    return [_tres_entry(name, count) for name, count in tres.items()]


def _tres_entry(tres: str, count: int) -> dict[str, Any]:
    kind, _, name = tres.partition("/")
    return {"type": kind, "name": name, "id": TRES_IDS.get(tres, TYPED_GPU_ID), "count": count}

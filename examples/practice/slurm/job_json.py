"""A job as `squeue --json` and `scontrol show job --json` print it: v0.0.40 to 42, and the older formats by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from examples.practice.slurm.job_template import (
    INFINITE,
    OLDER_TEMPLATE,
    TEMPLATE,
    UNSET,
    ZERO,
    exit_object,
    number,
)
from examples.practice.slurm.model import (
    MEMORY_PER_CPU,
    PARTITIONS,
    PENDING,
    HostShare,
    Record,
    Settings,
    shares,
)
from examples.practice.slurm.older_formats import job_plain, job_v39
from examples.practice.slurm.release import PLAIN, V39, V40, V42, release_of
from examples.practice.slurm.view import (
    controller_states,
    cpus_asked,
    cpus_held,
    format_tres,
    gres_request,
    gres_text,
    holds_nodes,
    moments,
    reason,
    shown_nodes,
    shown_restarts,
    shown_task,
    tres_asked,
    tres_held,
    waiting_tasks,
    work_dir,
)


def job_object(record: Record, settings: Settings, now: float, version: str) -> dict[str, Any]:
    """One element of `jobs`."""
    if version == PLAIN:
        return job_plain(job_object(record, settings, now, V39))
    if version == V39:
        return job_v39(job_object(record, settings, now, V40))
    held = shares(record)
    return {
        **(TEMPLATE if version == V42 else _older_template(settings)),
        **_identity(record, settings),
        **_state(record, now),
        **_request(record, settings, version),
        **_allocation(record, held, settings, version),
    }


def _older_template(settings: Settings) -> dict[str, Any]:
    flags = ["ALL", "DETAIL", "LOCAL"] if release_of(settings.release).is_before("24.11") else []
    return {**OLDER_TEMPLATE, "show_flags": flags}


def _identity(record: Record, settings: Settings) -> dict[str, Any]:
    silent = {} if record.batch else {"standard_error": "", "standard_input": "", "standard_output": ""}
    task_id = shown_task(record, settings)
    return {
        "account": record.account,
        "admin_comment": record.admin_comment,
        "array_job_id": number(record.array_job_id),
        "array_task_id": UNSET if task_id is None else number(task_id),
        "array_max_tasks": number(record.array_limit),
        "array_task_string": waiting_tasks(record, settings),
        "batch_flag": bool(record.batch),
        "cluster": settings.cluster,
        "comment": record.comment,
        "group_id": record.gid,
        "group_name": record.group_name,
        "job_id": record.job_id,
        "mail_user": record.user,
        "name": record.name,
        "partition": record.partition,
        "user_id": record.uid,
        "user_name": record.user,
        "current_working_directory": work_dir(record),
        **silent,
    }


def _state(record: Record, now: float) -> dict[str, Any]:
    times = moments(record)
    eligible = number(record.begin_time or record.submit_time)
    return {
        "accrue_time": ZERO if record.phase == PENDING and record.begin_time > now else eligible,
        "eligible_time": ZERO if reason(record, now) == "JobArrayTaskLimit" else eligible,
        "start_time": number(times.start or 0),
        "end_time": number(times.end or 0),
        "submit_time": number(record.submit_time),
        "last_sched_evaluation": number(record.start_time or record.submit_time),
        "exit_code": exit_object(record.exit_code, record.exit_signal),
        "failed_node": shares(record)[0].host if record.end_state == "NODE_FAIL" else "",
        "flags": _flags(record),
        "job_state": controller_states(record),
        "restart_cnt": shown_restarts(record),
        "state_reason": reason(record, now),
    }


def _flags(record: Record) -> list[str]:
    default_partition = record.partition == next(iter(PARTITIONS))
    flags = {
        "EXACT_TASK_COUNT_REQUESTED": True,
        "EXACT_CPU_COUNT_REQUESTED": record.cpus_per_task > 1,
        "JOB_WAS_RUNNING": holds_nodes(record),
        "USING_DEFAULT_ACCOUNT": record.account == record.user,
        "USING_DEFAULT_PARTITION": default_partition,
        "USING_DEFAULT_QOS": True,
        "USING_DEFAULT_WCKEY": True,
        "PARTITION_ASSIGNED": default_partition,
    }
    return [flag for flag, holds in flags.items() if holds]


def _request(record: Record, settings: Settings, version: str) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "cpus_per_task": number(record.cpus_per_task),
        "minimum_cpus_per_node": number(record.cpus_per_task),
        "node_count": number(record.nodes),
        "tasks": number(record.tasks),
        "time_limit": INFINITE if record.time_limit is None else number(record.time_limit),
        "shared": ["none"] if record.exclusive else ["oversubscribe"] if record.oversubscribe else [],
        "tres_per_node": gres_request(record, settings),
        "tres_per_task": f"cpu={record.cpus_per_task}" if record.cpus_per_task > 1 else "",
        "tres_req_str": format_tres(tres_asked(record, settings)),
    }
    if version != V42:
        wanted["exclusive"] = ["true"] if record.exclusive else ["false"] if record.oversubscribe else []
        wanted["oversubscribe"] = not record.exclusive
    return wanted


def _allocation(record: Record, held: Sequence[HostShare], settings: Settings, version: str) -> dict[str, Any]:
    if not held:
        return {"cpus": number(cpus_asked(record)), "job_resources": {} if version == V40 else None}
    cpus = cpus_held(held, settings)
    layout = _resources_v40 if version == V40 else _resources_v41
    gres = [gres_text(share, settings) for share in held if share.gpus]
    return {
        "batch_host": held[0].host,
        "billable_tres": number(float(cpus)),
        "cpus": number(cpus),
        "gres_detail": gres if holds_nodes(record) else [],
        "job_resources": layout(record, held, settings),
        "nodes": shown_nodes(record),
        "tres_alloc_str": format_tres(tres_held(held, settings)),
    }


def _resources_v40(record: Record, held: Sequence[HostShare], settings: Settings) -> dict[str, Any]:
    """v0.0.40: only the allocated cores, by socket."""
    nodes = [
        {
            "sockets": {
                str(socket): {"cores": {str(core): "allocated" for core in cores}}
                for socket, cores in _by_socket(share, settings).items()
            },
            "nodename": share.host,
            "cpus_used": 0,
            "memory_used": 0,
            "memory_allocated": _memory(share, settings),
        }
        for share in held
    ]
    return {
        "nodes": record.node_list,
        "allocated_cores": cpus_asked(record),
        "allocated_cpus": 0,
        "allocated_hosts": len(held),
        "allocated_nodes": nodes,
    }


def _resources_v41(record: Record, held: Sequence[HostShare], settings: Settings) -> dict[str, Any]:
    """From v0.0.41: all cores of each node, each with its status."""
    allocation = [
        {
            "index": index,
            "name": share.host,
            "cpus": {"count": len(share.cores) * settings.threads_per_core, "used": 0},
            "memory": {"used": 0, "allocated": _memory(share, settings)},
            "sockets": _sockets(share, settings),
        }
        for index, share in enumerate(held)
    ]
    return {
        "select_type": ["CORE"],
        "nodes": {
            "count": len(held),
            "select_type": [PARTITIONS[record.partition].select_type],
            "list": record.node_list,
            "whole": bool(record.exclusive),
            "allocation": allocation,
        },
        "cpus": cpus_asked(record),
        "threads_per_core": UNSET,
    }


def _sockets(share: HostShare, settings: Settings) -> list[dict[str, Any]]:
    by_socket = _by_socket(share, settings)
    return [
        {
            "index": socket,
            "cores": [
                {
                    "index": core,
                    "status": ["ALLOCATED" if core in by_socket.get(socket, ()) else "UNALLOCATED"],
                }
                for core in range(settings.cores_per_socket)
            ],
        }
        for socket in range(settings.sockets)
    ]


def _by_socket(share: HostShare, settings: Settings) -> dict[int, list[int]]:
    """Core numbers that count from 0 in each socket."""
    sockets: dict[int, list[int]] = {}
    for core in share.cores:
        socket, index = divmod(core, settings.cores_per_socket)
        sockets.setdefault(socket, []).append(index)
    return sockets


def _memory(share: HostShare, settings: Settings) -> int:
    return len(share.cores) * settings.threads_per_core * MEMORY_PER_CPU

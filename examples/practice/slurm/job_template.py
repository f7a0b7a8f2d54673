"""The keys of a job in slurmctld's JSON formats, and the layouts that all of Slurm's formats share."""

from __future__ import annotations

from typing import Any

from examples.practice.slurm.model import MEMORY_PER_CPU

SIGNALS = {1: "HUP", 9: "KILL", 15: "TERM"}


def number(value: float) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


UNSET = {"set": False, "infinite": False, "number": 0}
UNSET_FRACTION = {"set": False, "infinite": False, "number": 0.0}
INFINITE = {"set": False, "infinite": True, "number": 0}
ZERO = number(0)


def exit_object(code: int, signal: int) -> dict[str, Any]:
    """An exit code or a signal, in the layout that all formats share."""
    status = "SIGNALED" if signal else "ERROR" if code else "SUCCESS"
    return {
        "status": [status],
        "return_code": UNSET if signal else number(code),
        "signal": {
            "id": number(signal) if signal else UNSET,
            "name": SIGNALS.get(signal, str(signal)) if signal else "",
        },
    }


# The keys of v0.0.42 in their order, with the values that no job here ever changes.
TEMPLATE: dict[str, Any] = {
    "account": "",
    "accrue_time": ZERO,
    "admin_comment": "",
    "allocating_node": "localhost",
    "array_job_id": ZERO,
    "array_task_id": UNSET,
    "array_max_tasks": ZERO,
    "array_task_string": "",
    "association_id": 2,
    "batch_features": "",
    "batch_flag": True,
    "batch_host": "",
    "flags": [],
    "burst_buffer": "",
    "burst_buffer_state": "",
    "cluster": "",
    "cluster_features": "",
    "command": "",
    "comment": "",
    "container": "",
    "container_id": "",
    "contiguous": False,
    "core_spec": 0,
    "thread_spec": 32766,
    "cores_per_socket": UNSET,
    "billable_tres": UNSET_FRACTION,
    "cpus_per_task": number(1),
    "cpu_frequency_minimum": UNSET,
    "cpu_frequency_maximum": UNSET,
    "cpu_frequency_governor": UNSET,
    "cpus_per_tres": "",
    "cron": "",
    "deadline": ZERO,
    "delay_boot": ZERO,
    "dependency": "",
    "derived_exit_code": exit_object(0, 0),
    "eligible_time": ZERO,
    "end_time": ZERO,
    "excluded_nodes": "",
    "exit_code": exit_object(0, 0),
    "extra": "",
    "failed_node": "",
    "features": "",
    "federation_origin": "",
    "federation_siblings_active": "",
    "federation_siblings_viable": "",
    "gres_detail": [],
    "group_id": 0,
    "group_name": "",
    "het_job_id": ZERO,
    "het_job_id_set": "",
    "het_job_offset": ZERO,
    "job_id": 0,
    "job_resources": None,
    "job_size_str": [],
    "job_state": [],
    "last_sched_evaluation": ZERO,
    "licenses": "",
    "mail_type": [],
    "mail_user": "",
    "max_cpus": ZERO,
    "max_nodes": ZERO,
    "mcs_label": "",
    "memory_per_tres": "",
    "name": "",
    "network": "",
    "nodes": "",
    "nice": 0,
    "tasks_per_core": INFINITE,
    "tasks_per_tres": ZERO,
    "tasks_per_node": ZERO,
    "tasks_per_socket": INFINITE,
    "tasks_per_board": ZERO,
    "cpus": ZERO,
    "node_count": ZERO,
    "tasks": ZERO,
    "partition": "",
    "prefer": "",
    "memory_per_cpu": number(MEMORY_PER_CPU),
    "memory_per_node": UNSET,
    "minimum_cpus_per_node": number(1),
    "minimum_tmp_disk_per_node": ZERO,
    "power": {"flags": []},
    "preempt_time": ZERO,
    "preemptable_time": ZERO,
    "pre_sus_time": ZERO,
    "hold": False,
    "priority": number(1),
    "priority_by_partition": [],
    "profile": ["NOT_SET"],
    "qos": "normal",
    "reboot": False,
    "required_nodes": "",
    "required_switches": 0,
    "requeue": True,
    "resize_time": ZERO,
    "restart_cnt": 0,
    "resv_name": "",
    "scheduled_nodes": "",
    "selinux_context": "",
    "shared": [],
    "sockets_per_board": 0,
    "sockets_per_node": UNSET,
    "start_time": ZERO,
    "state_description": "",
    "state_reason": "",
    "standard_error": "/dev/null",
    "standard_input": "/dev/null",
    "standard_output": "/dev/null",
    "submit_time": ZERO,
    "suspend_time": ZERO,
    "system_comment": "",
    "time_limit": INFINITE,
    "time_minimum": ZERO,
    "threads_per_core": UNSET,
    "tres_bind": "",
    "tres_freq": "",
    "tres_per_job": "",
    "tres_per_node": "",
    "tres_per_socket": "",
    "tres_per_task": "",
    "tres_req_str": "",
    "tres_alloc_str": "",
    "user_id": 0,
    "user_name": "",
    "maximum_switch_wait_time": 0,
    "wckey": "",
    "current_working_directory": "",
}


def _older_template() -> dict[str, Any]:
    """v0.0.42 renamed one key, added one and dropped three."""
    older: dict[str, Any] = {}
    for key, value in TEMPLATE.items():
        if key == "sockets_per_board":
            older.update({"exclusive": [], "oversubscribe": True, "show_flags": []})
        if key != "priority_by_partition":
            older["minimum_switches" if key == "required_switches" else key] = value
    return older


OLDER_TEMPLATE = _older_template()

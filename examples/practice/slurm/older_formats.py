"""The JSON of Slurm 22.05 (which has no name) and v0.0.39, made of the one that came next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TIMES = (
    *("accrue_time", "deadline", "eligible_time", "end_time", "last_sched_evaluation", "preempt_time"),
    *("preemptable_time", "pre_sus_time", "resize_time", "start_time", "submit_time", "suspend_time"),
)
NOT_IN_22_05 = (
    *("allocating_node", "container_id", "cron", "extra", "failed_node", "job_size_str", "mail_type", "mail_user"),
    *("network", "tasks_per_tres", "power", "preemptable_time", "hold", "minimum_switches", "scheduled_nodes"),
    *("selinux_context", "exclusive", "oversubscribe", "maximum_switch_wait_time"),
)
NEVER_TOLD = ("core_spec", "thread_spec", "cpus_per_task", "nice", "profile")
"""22.05 prints null for them, whatever the job has."""
MOVED = {"tasks": ("het_job_id", "het_job_id_set", "het_job_offset"), "prefer": ("memory_per_node",)}
"""22.05 prints these keys behind the one that they stand under here."""
ACCOUNTING_NOT_IN_22_05 = frozenset(
    {"block", "extra", "failed_node", "licenses", "hold", "script", "submit_line", "used_gres"}
)
ALWAYS_A_SUCCESS = {"status": "SUCCESS", "return_code": 0}
"""What accounting tells of every job in v0.0.39 and before, also of one that failed with 3."""
MEMORY_PER_CPU_BIT = 1 << 63
NO_VALUES = (4294967294, 4294967295, -2)


def job_v39(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job of slurmctld in v0.0.39, from v0.0.40."""
    times = {key: job[key]["number"] for key in TIMES}
    codes = {key: _number(_wait_status(job[key])) for key in ("exit_code", "derived_exit_code")}
    # Of a state and its flag the flag alone is shown.
    return {**job, **times, **codes, "job_state": job["job_state"][-1]}


def job_plain(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job of slurmctld as 22.05 prints it, from v0.0.39."""
    older = {key: _plain(value) for key, value in job.items() if key not in NOT_IN_22_05}
    older.update(dict.fromkeys(NEVER_TOLD))
    older["shared"] = next(("shared" if word == "oversubscribe" else word for word in job["shared"]), None)
    older["flags"] = [flag for flag in job["flags"] if flag == "JOB_WAS_RUNNING"]
    older["show_flags"] = [f"SHOW_{flag}" for flag in job["show_flags"]]
    if older["job_resources"]:
        older["job_resources"].pop("allocated_cpus")
    else:
        del older["job_resources"]
    return _in_order_of_22_05(older)


def _in_order_of_22_05(job: Mapping[str, Any]) -> dict[str, Any]:
    elsewhere = {key for keys in MOVED.values() for key in keys}
    ordered: dict[str, Any] = {}
    for key, value in job.items():
        if key not in elsewhere:
            ordered[key] = value
            ordered.update({each: job[each] for each in MOVED.get(key, ())})
    return ordered


def accounted_v39(job: Mapping[str, Any]) -> dict[str, Any]:
    """A record of accounting in v0.0.39, from v0.0.40."""
    association = {key: value for key, value in job["association"].items() if key != "id"}
    per_cpu = job["required"]["memory_per_cpu"]["number"] - MEMORY_PER_CPU_BIT
    # Of a state and its flag the flag alone is shown.
    state = {**job["state"], "current": job["state"]["current"][-1]}
    return {
        **job,
        "exit_code": ALWAYS_A_SUCCESS,
        "derived_exit_code": ALWAYS_A_SUCCESS,
        "association": association,
        "required": {**job["required"], "memory": per_cpu},
        "state": state,
    }


def accounted_plain(job: Mapping[str, Any]) -> dict[str, Any]:
    """A record of accounting as 22.05 prints it, from v0.0.39."""
    older = {key: _plain(value) for key, value in job.items() if key not in ACCOUNTING_NOT_IN_22_05}
    older["required"] = {"CPUs": job["required"]["CPUs"], "memory": older["required"]["memory_per_cpu"]}
    older["reservation"] = {"id": 0, "name": 0}
    array = older["array"]
    older["array"] = {key: array[key] for key in ("job_id", "limits")} | {"task": None, "task_id": array["task_id"]}
    for place in (older["comment"], older["association"]):
        place.update({key: value or None for key, value in place.items()})
    for key in ("container", "kill_request_user"):
        older[key] = older[key] or None
    older["time"].update({key: None for key in ("start", "eligible") if older["time"][key] in NO_VALUES})
    for rows in older["tres"].values():
        for row in rows:
            row["name"] = row["name"] or None
            row["count"] = None if row["count"] in NO_VALUES else row["count"]
    return older


def _plain(value: Any) -> Any:
    """{set, infinite, number} as a number or null, however deep it stands; the rest is copied."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"set", "infinite", "number"}:
        return value["number"] if value["set"] else None
    return {key: _plain(each) for key, each in value.items()}


def _number(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


def _wait_status(code: Mapping[str, Any]) -> int:
    """As wait(2) gives it: the exit code above the signal."""
    return int(code["return_code"]["number"]) * 256 + int(code["signal"]["id"]["number"])

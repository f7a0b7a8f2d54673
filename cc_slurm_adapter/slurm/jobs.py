"""One job from squeue's or scontrol's JSON, in any of its formats, as a Run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from cc_slurm_adapter.job import End, Missing, Resource, Run, RunKey, Sharing
from cc_slurm_adapter.slurm.cores import held_nodes, read_cores
from cc_slurm_adapter.slurm.gres import cpus_of_tres, gpus_by_host, gpus_of_tres
from cc_slurm_adapter.slurm.hostlist import expand
from cc_slurm_adapter.slurm.json_values import Json, get_list, get_number, get_text, get_texts, need_number
from cc_slurm_adapter.slurm.nodes import NodeLayout
from cc_slurm_adapter.slurm.states import read_states

Layouts = Mapping[str, NodeLayout]
_OPT_OUT = "disable_cc_submission"


def job_id_of(job: Json) -> int:
    """The id that names the job in the documents of squeue, scontrol and sacct."""
    return need_number(job, "job_id", "jobs[]")


def parse_job(job: Json, cluster: str, layouts: Layouts) -> Run:
    """A Run of `cluster`. Raises UnexpectedOutput with the path in the JSON that broke."""
    path = f"jobs[{job_id_of(job)}]"
    words = get_texts(job, "job_state", path)
    phase, end_state = read_states(words)
    start = get_number(job, "start_time", path) or 0
    end_time = get_number(job, "end_time", path) or start
    resources = _resources(job, layouts)
    tres = get_text(job, "tres_alloc_str", path)
    num_gpus = gpus_of_tres(tres)
    het_job_id = get_number(job, "het_job_id", path) or None
    return Run(
        key=RunKey(cluster, job_id_of(job), start),
        phase=phase,
        end=End(end_state, end_time, "+".join(words)) if end_state else None,
        user=get_text(job, "user_name", path),
        account=get_text(job, "account", path),
        partition=get_text(job, "partition", path),
        name=get_text(job, "name", path),
        submit_time=get_number(job, "submit_time", path) or 0,
        walltime=_seconds(get_number(job, "time_limit", path)),
        # Not `cpus`: while a job completes, Slurm takes its CPUs out of that node by node.
        num_cpus=cpus_of_tres(tres) or get_number(job, "cpus", path) or 0,
        num_gpus=num_gpus,
        sharing=_sharing(job),
        resources=resources,
        array_job_id=get_number(job, "array_job_id", path) or None,
        array_task_id=get_number(job, "array_task_id", path),
        het_job_id=het_job_id,
        het_job_offset=get_number(job, "het_job_offset", path) if het_job_id else None,
        opted_out=is_opt_out(get_text(job, "admin_comment", path)),
        missing=missing_of(resources, num_gpus),
    )


def missing_of(resources: Sequence[Resource], num_gpus: int) -> frozenset[Missing]:
    """What the resources should have and lack."""
    missing = set()
    if any(not resource.cores for resource in resources):
        missing.add(Missing.CORES)
    if sum(len(resource.gpus) for resource in resources) < num_gpus:
        missing.add(Missing.GPUS)
    return frozenset(missing)


def _seconds(minutes: int | None) -> int | None:
    return None if minutes is None else minutes * 60


def is_opt_out(admin_comment: str) -> bool:
    """Whether the administrator's comment has `"disable_cc_submission": true`, alone or in JSON among other keys."""
    if _OPT_OUT not in admin_comment:
        return False
    try:
        comment = json.loads(admin_comment)
    except (ValueError, RecursionError):
        return bool(re.search(rf'"{_OPT_OUT}"\s*:\s*true\b', admin_comment))
    return isinstance(comment, dict) and comment.get(_OPT_OUT) is True


def _resources(job: Json, layouts: Layouts) -> tuple[Resource, ...]:
    hosts = expand(held_nodes(job) or get_text(job, "nodes", "jobs[]"))
    cores = read_cores(job, layouts)
    details = [text for text in get_list(job, "gres_detail", "jobs[]") if isinstance(text, str)]
    equipment = {host: layouts[host].gpus for host in hosts if host in layouts}
    gpus = gpus_by_host(details, hosts, equipment, get_text(job, "tres_alloc_str", "jobs[]"))
    return tuple(_resource(host, cores.get(host, ()), gpus.get(host, ()), layouts.get(host)) for host in hosts)


def _resource(host: str, cores: tuple[int, ...], gpus: tuple[int, ...], layout: NodeLayout | None) -> Resource:
    if layout is None or not cores:  # of an unknown node the cores cannot be numbered
        return Resource(host, (), gpus)
    return Resource(host, cores, gpus, layout.cores, layout.threads_per_core)


def _sharing(job: Json) -> Sharing:
    """Who else may be on the nodes.

    `shared` is "none" for whole nodes and "user" for one user; `exclusive` says the same in v0.0.40
    and 41. In v0.0.45 both are gone: there `whole` stands for either (see `SlurmClient.read_details`).
    """
    shared = get_texts(job, "shared", "jobs[]")
    exclusive = get_list(job, "exclusive", "jobs[]")
    if "user" in shared or "user" in exclusive:
        return Sharing.ONE_USER
    if "none" in shared or "true" in exclusive or (not shared and _has_whole_nodes(job)):
        return Sharing.WHOLE_NODE
    return Sharing.ANY_USER


def _has_whole_nodes(job: Json) -> bool:
    resources = job.get("job_resources")
    nodes = resources.get("nodes") if isinstance(resources, dict) else None
    return isinstance(nodes, dict) and nodes.get("whole") is True

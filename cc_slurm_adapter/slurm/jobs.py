"""One job from squeue's or scontrol's JSON (22.05, v0.0.40 to v0.0.42) as a Run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cc_slurm_adapter.job import End, Missing, Resource, Run, RunKey, Sharing
from cc_slurm_adapter.slurm.cores import held_nodes, read_cores
from cc_slurm_adapter.slurm.gres import gpu_indices, gpus_of_tres
from cc_slurm_adapter.slurm.hostlist import expand
from cc_slurm_adapter.slurm.json_values import Json, get_list, get_number, get_text, get_texts, need_number
from cc_slurm_adapter.slurm.nodes import NodeLayout
from cc_slurm_adapter.slurm.states import read_states

Layouts = Mapping[str, NodeLayout]


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
    num_gpus = gpus_of_tres(get_text(job, "tres_alloc_str", path))
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
        num_cpus=get_number(job, "cpus", path) or 0,
        num_gpus=num_gpus,
        sharing=_sharing(job),
        resources=resources,
        array_job_id=get_number(job, "array_job_id", path) or None,
        array_task_id=get_number(job, "array_task_id", path),
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


def _resources(job: Json, layouts: Layouts) -> tuple[Resource, ...]:
    hosts = expand(held_nodes(job) or get_text(job, "nodes", "jobs[]"))
    cores = read_cores(job, layouts)
    gpus = _gpus(job, hosts, layouts)
    return tuple(Resource(host, cores.get(host, ()), gpus.get(host, ())) for host in hosts)


def _gpus(job: Json, hosts: list[str], layouts: Layouts) -> dict[str, tuple[int, ...]]:
    """GPU indices by node.

    `gres_detail` has an entry for each node with GRES, in node order, while the job runs. Later it
    is empty: then the indices are known only when the job had every GPU of its nodes.
    """
    details = [text for text in get_list(job, "gres_detail", "jobs[]") if isinstance(text, str)]
    equipped = [host for host in hosts if host in layouts and layouts[host].gpus]
    for owners in (hosts, equipped):
        if details and len(owners) == len(details):
            return {host: gpu_indices(text) for host, text in zip(owners, details)}
    every = sum(layouts[host].gpus for host in equipped)
    if every and every == gpus_of_tres(get_text(job, "tres_alloc_str", "jobs[]")):
        return {host: tuple(range(layouts[host].gpus)) for host in equipped}
    return {}


def _sharing(job: Json) -> Sharing:
    """`shared` is "none" for whole nodes and "user" for one user; `exclusive` says the same in v0.0.40 and 41."""
    shared = get_texts(job, "shared", "jobs[]")
    exclusive = get_list(job, "exclusive", "jobs[]")
    if "none" in shared or "true" in exclusive:
        return Sharing.WHOLE_NODE
    if "user" in shared or "user" in exclusive:
        return Sharing.ONE_USER
    return Sharing.ANY_USER

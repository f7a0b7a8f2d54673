"""One job as a Run, from the JSON of squeue or scontrol in any of its formats.

In v0.0.39 ids, minutes and counts are like those of later formats. But times are plain numbers, the state is a single
word as in 22.05, and job_resources is as in v0.0.40.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.model import End, EndState, Missing, Phase, Resource, Run, RunKey, Sharing
from cc_slurm_adapter.slurm.parse.cores import allocated_nodes_of, has_whole_nodes, read_cores
from cc_slurm_adapter.slurm.parse.gres import (
    GPU,
    Names,
    cpus_of_tres,
    gpus_by_host,
    gpus_of_details,
    gpus_of_tres,
    other_devices,
    requests_gpus,
)
from cc_slurm_adapter.slurm.parse.hostlist import expand
from cc_slurm_adapter.slurm.parse.json_values import (
    Json,
    get_list,
    get_number,
    get_text,
    get_texts,
    in_job,
    need_number,
    read_digits,
)
from cc_slurm_adapter.slurm.parse.left_out import log_left_out
from cc_slurm_adapter.slurm.parse.nodes import NodeLayout
from cc_slurm_adapter.slurm.parse.states import read_shown, read_states

log = logging.getLogger(__name__)

Layouts = Mapping[str, NodeLayout]
_OPT_OUT = "disable_cc_submission"
_JOB = "jobs[]"
_ON_NODES = (Phase.CONFIGURING, Phase.RUNNING)
_REQUESTS = ("tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket")
_SHARED = {
    "none": Sharing.WHOLE_NODE,
    "user": Sharing.ONE_USER,
    "topo": Sharing.WHOLE_NODE,  # whole parts of the network belong to the job
    "mcs": Sharing.ANY_USER,
    "oversubscribe": Sharing.ANY_USER,
    "shared": Sharing.ANY_USER,  # 22.05's word for oversubscribe
}
_EXCLUSIVE = {
    "NO": Sharing.ANY_USER,
    "NODE": Sharing.WHOLE_NODE,
    "USER": Sharing.ONE_USER,
    "MCS": Sharing.ANY_USER,
    "TOPO": Sharing.WHOLE_NODE,
}


def job_id_of(job: Json) -> int:
    """Return the job's id in the JSON of squeue, scontrol and sacct; never 0."""
    job_id = need_number(job, "job_id", _JOB)
    if job_id == 0:
        raise UnexpectedOutput(f"{_JOB}.job_id", "no job has the id 0")
    return job_id


def parse_job(job: Json, cluster: str, layouts: Layouts, accelerators: Names = GPU) -> Run:
    """Parse a Run. `accelerators` are names of GRES. Raises UnexpectedOutput with the wrong path in the JSON."""
    job_id = job_id_of(job)
    try:
        return _parse_job(job, job_id, cluster, layouts, accelerators)
    except UnexpectedOutput as error:
        raise in_job(error, job_id) from error


def _parse_job(job: Json, job_id: int, cluster: str, layouts: Layouts, accelerators: Names) -> Run:
    """Parse a run. Values are read only if the state makes them facts.

    For a pending job slurmctld forecasts start and end, in any year (a job without a limit ends after 2^32 seconds). It
    may also show nodes of an earlier run. For a running job it forecasts the end.
    """
    words = state_words(job, "job_state", _JOB)
    is_shown = isinstance(job["job_state"], str)
    phase, end_state = read_shown(words[0]) if is_shown else read_states(words)
    allocated = NOTHING_ALLOCATED
    if end_state is not None or phase in _ON_NODES:
        allocated = _read_allocation(job, phase, layouts, accelerators)
    het_job_id = get_number(job, "het_job_id", _JOB) or None
    return Run(
        key=RunKey(cluster, job_id, allocated.start),
        phase=phase,
        end=_end(job, end_state, words, allocated) if end_state else None,
        user=_user(job),
        account=get_text(job, "account", _JOB),
        partition=allocated.partition,
        name=get_text(job, "name", _JOB),
        submit_time=need_number(job, "submit_time", _JOB),
        walltime=allocated.walltime,
        num_cpus=allocated.num_cpus,
        num_gpus=allocated.num_gpus,
        sharing=allocated.sharing,
        resources=allocated.resources,
        array_job_id=get_number(job, "array_job_id", _JOB) or None,
        array_task_id=get_number(job, "array_task_id", _JOB),
        het_job_id=het_job_id,
        het_job_offset=get_number(job, "het_job_offset", _JOB) if het_job_id else None,
        has_script=job.get("batch_flag") is not False,
        opted_out=is_opt_out(get_text(job, "admin_comment", _JOB)),
        missing=allocated.missing,
    )


class Allocation(NamedTuple):
    """What is or was allocated to a job, and other values that are facts only for a job that was started."""

    start: int
    partition: str
    walltime: int | None
    num_cpus: int
    num_gpus: int
    sharing: Sharing
    resources: tuple[Resource, ...]
    missing: frozenset[Missing]


NOTHING_ALLOCATED = Allocation(0, "", None, 0, 0, Sharing.ANY_USER, (), frozenset())


def _read_allocation(job: Json, phase: Phase, layouts: Layouts, accelerators: Names) -> Allocation:
    tres, details = get_text(job, "tres_alloc_str", _JOB), _gres_detail(job)
    resources = _resources(job, details, tres, layouts, accelerators)
    start, sharing = _start_time(job, phase, resources), _sharing(job)
    num_gpus = max(gpus_of_tres(tres, accelerators), gpus_of_details(details, accelerators))
    had_whole_nodes = phase is Phase.ENDED and sharing is Sharing.WHOLE_NODE
    had_gpus = bool(resources) and (
        _requests_gpus(job, accelerators) or (had_whole_nodes and _are_equipped(resources, layouts))
    )
    return Allocation(
        start=start,
        partition=get_text(job, "partition", _JOB),
        walltime=seconds(get_number(job, "time_limit", _JOB)),
        # Not `cpus` alone: while a job completes, Slurm subtracts its CPUs from that node by node.
        num_cpus=cpus_of_tres(tres) or get_number(job, "cpus", _JOB) or 0,
        num_gpus=num_gpus,
        sharing=sharing,
        resources=resources,
        missing=missing_of(resources, num_gpus, had_gpus=had_gpus),
    )


def state_words(value: Json, key: str, path: str) -> list[str]:
    """Return the words of a state. Raises UnexpectedOutput if there is none: then nothing is known about the job."""
    words = get_texts(value, key, path)
    if not any(words):
        raise UnexpectedOutput(f"{path}.{key}", "it has no state")
    return words


def _start_time(job: Json, phase: Phase, resources: Sequence[Resource]) -> int:
    start = get_number(job, "start_time", _JOB) or 0
    if not start and (phase in _ON_NODES or resources):
        raise UnexpectedOutput(f"{_JOB}.start_time", "a job that has nodes has no start")
    return start


def _end(job: Json, end_state: EndState, words: Sequence[str], allocated: Allocation) -> End:
    return end_of(end_state, words, get_number(job, "end_time", _JOB), f"{_JOB}.end_time", allocated)


def end_of(state: EndState, words: Sequence[str], end_time: int | None, path: str, allocated: Allocation) -> End:
    """Return the end of a job. Raises UnexpectedOutput with the path of the end time if it had nodes and has no end."""
    if not end_time and allocated.resources:
        raise UnexpectedOutput(path, "a job that is over has no end")
    return End(state, end_time or allocated.start, "+".join(words))


def _user(job: Json) -> str:
    """Return the user's name, or the number if the host of slurmctld has no name, as Slurm's own tools do."""
    return get_text(job, "user_name", _JOB) or str(need_number(job, "user_id", _JOB))


def missing_of(resources: Sequence[Resource], num_gpus: int, *, had_gpus: bool) -> frozenset[Missing]:
    """Return what the resources should have and lack.

    `had_gpus` tells that there were GPUs, even if none is counted.
    """
    missing = set()
    if any(not resource.cores for resource in resources):
        missing.add(Missing.CORES)
    listed = sum(len(resource.gpus) for resource in resources)
    if listed < num_gpus or (had_gpus and not listed):
        missing.add(Missing.GPUS)
    return frozenset(missing)


def seconds(minutes: int | None) -> int | None:
    """Convert a time limit; None means no limit."""
    return None if minutes is None else minutes * 60


def is_opt_out(admin_comment: str) -> bool:
    """Return whether AdminComment has `"disable_cc_submission": true`, alone or in JSON among other keys."""
    if _OPT_OUT not in admin_comment:
        return False
    try:
        comment = json.loads(admin_comment)
    except (ValueError, RecursionError):
        return bool(re.search(rf'"{_OPT_OUT}"\s*:\s*true\b', admin_comment))
    return isinstance(comment, dict) and comment.get(_OPT_OUT) is True


def _resources(
    job: Json, details: Sequence[str | None], tres: str, layouts: Layouts, accelerators: Names
) -> tuple[Resource, ...]:
    allocated = expand(allocated_nodes_of(job))
    hosts = allocated or expand(get_text(job, "nodes", _JOB))
    cores = read_cores(job, layouts, allocated)
    equipment = {host: layouts[host].gpus for host in hosts if host in layouts}
    gpus = gpus_by_host(details, hosts, equipment, tres, accelerators)
    of_node = details if len(details) == len(hosts) else [None] * len(hosts)
    return tuple(
        _resource(
            host,
            cores.get(host, ()),
            gpus.get(host, ()),
            other_devices(detail, accelerators) if detail else (),
            layouts.get(host),
        )
        for host, detail in zip(hosts, of_node)
    )


def _gres_detail(job: Json) -> list[str | None]:
    """Return an entry for each node of the job, None for a node without GRES. The list is empty if the job is over."""
    details = get_list(job, "gres_detail", _JOB)
    if not all(text is None or isinstance(text, str) for text in details):
        raise UnexpectedOutput(f"{_JOB}.gres_detail[]", "expected text or null")
    return details


def _requests_gpus(job: Json, accelerators: Names) -> bool:
    """Return whether GPUs must have been allocated, even if the job's TRES do not have them.

    TRES lack GPUs if AccountingStorageTRES leaves them out, and they always lack the devices of shares.
    """
    requests = [get_text(job, key, _JOB) for key in _REQUESTS]
    return any(requests_gpus(text, accelerators) for text in requests if text)


def _are_equipped(resources: Sequence[Resource], layouts: Layouts) -> bool:
    """Return whether a node has GPUs.

    A job with whole nodes gets their GPUs without a request; while it runs, `gres_detail` has them.
    """
    return any(each.hostname in layouts and any(layouts[each.hostname].gpus) for each in resources)


def _resource(
    host: str, cores: tuple[int, ...], gpus: tuple[int, ...], others: tuple[str, ...], layout: NodeLayout | None
) -> Resource:
    if layout is None or not cores:  # the cores of an unknown node cannot be numbered
        return Resource(host, (), gpus, other_gres=others)
    return Resource(host, cores, gpus, layout.cores, layout.threads_per_core, others)


def _sharing(job: Json) -> Sharing:
    """Return who else may be on the nodes.

    v0.0.45 always prints an empty list; there `whole` means a whole node or one user (see `parse_sharing`).
    """
    words = get_texts(job, "shared", _JOB)
    if not words:
        return Sharing.WHOLE_NODE if has_whole_nodes(job) else Sharing.ANY_USER
    if words[0] not in _SHARED:
        raise UnexpectedOutput(f"{_JOB}.shared", f"{words[0][:40]!r} is not a word that this version knows")
    return _SHARED[words[0]]


def sharing_command(job_ids: Iterable[int]) -> list[str]:
    """Return the squeue command (26.05 and later) for what v0.0.45 lacks, with columns that no user controls."""
    jobs = ",".join(map(str, job_ids))
    return ["squeue", "-h", "-a", "-t", "all", "-j", jobs, "-O", "JobID:20,Exclusive:20"]


def parse_sharing(text: str) -> dict[int, Sharing]:
    """Parse the output of `sharing_command`. Return the sharing by job id. A line that does not fit is logged."""
    found = {}
    left_out: list[str] = []
    for line in text.splitlines():
        job_id, _, word = " ".join(line.split()).partition(" ")
        number = read_digits(job_id)
        try:
            if number is None:
                raise UnexpectedOutput("squeue JobID", f"{job_id[:40]!r} is not a number")
            found[number] = sharing_of(word, "squeue Exclusive")
        except UnexpectedOutput as error:
            left_out.append(str(error))
    log_left_out("squeue", left_out)
    return found


def sharing_of(word: str, path: str) -> Sharing:
    """Parse the value of Exclusive, as 26.05 and later print it."""
    if word not in _EXCLUSIVE:
        raise UnexpectedOutput(path, f"{word[:40]!r} is not a word that this version knows")
    return _EXCLUSIVE[word]

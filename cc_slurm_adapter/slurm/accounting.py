"""What accounting (sacct) knows of runs: their times and ends for good, but neither cores nor GPU indices."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.job import End, Missing, Resource, Run, RunKey, Sharing
from cc_slurm_adapter.slurm.hostlist import expand
from cc_slurm_adapter.slurm.jobs import is_opt_out, job_id_of
from cc_slurm_adapter.slurm.json_values import (
    Json,
    get_list,
    get_number,
    get_object,
    get_text,
    get_texts,
    need_number,
)
from cc_slurm_adapter.slurm.states import FINAL, WAITING, read_states

log = logging.getLogger(__name__)

ENDED_COLUMNS = "JobIDRaw,State,Start,End,NNodes"
"""None of them can be written by a user."""


class AccountedEnd(NamedTuple):
    """A run that accounting has closed."""

    key: RunKey
    end: End


def ended_command(since: int, until: int, job_ids: Iterable[int] = ()) -> list[str]:
    """sacct for the runs closed between two moments (Unix seconds), requeued ones (-D) included."""
    jobs = ",".join(map(str, job_ids))
    window = ["-S", f"uts{since}", "-E", f"uts{until}", *(["-j", jobs] if jobs else [])]
    return ["sacct", "-X", "-a", "-D", "-n", "-P", "-s", FINAL, *window, f"--format={ENDED_COLUMNS}"]


def runs_command(job_ids: list[int], since: int, until: int, json_option: str) -> list[str]:
    """sacct for everything it knows of these jobs in a window; without one it searches back to 1970."""
    ids = ",".join(map(str, job_ids))
    return ["sacct", "-X", "-a", "-D", json_option, "-j", ids, "-S", f"uts{since}", "-E", f"uts{until}"]


def parse_ended(text: str, cluster: str) -> list[AccountedEnd]:
    """Runs from the output of `ended_command` under SLURM_TIME_FORMAT=%s. Jobs that never ran are left out."""
    ended = []
    for line in text.splitlines():
        try:
            found = _parse_ended_line(line, cluster)
        except UnexpectedOutput as error:
            log.error("a line of sacct cannot be understood and is left out: %s", error)
            continue
        if found:
            ended.append(found)
    return ended


def _parse_ended_line(line: str, cluster: str) -> AccountedEnd | None:
    columns = line.split("|")
    if len(columns) != 5 or not columns[0].isdigit():
        raise UnexpectedOutput("sacct", f"{line[:100]!r} has not the columns {ENDED_COLUMNS}")
    job_id, raw_state, start, end, num_nodes = columns
    if not (start.isdigit() and end.isdigit()) or int(start) == 0 or num_nodes == "0":
        return None  # Start is None or Unknown: cancelled while it waited
    _, end_state = read_states([raw_state.split(" ")[0]])
    if end_state is None:
        return None
    return AccountedEnd(RunKey(cluster, int(job_id), int(start)), End(end_state, int(end), raw_state))


def parse_accounted_run(job: Json, cluster: str) -> Run:
    """A Run from sacct's JSON: without cores and GPU indices, and with a name that accounting may have altered.

    Raises UnexpectedOutput with the path in the JSON that broke.
    """
    path = f"jobs[{job_id_of(job)}]"
    time, state, array, comment = (get_object(job, key, path) for key in ("time", "state", "array", "comment"))
    start = get_number(time, "start", f"{path}.time") or 0
    end_time = get_number(time, "end", f"{path}.time") or 0
    words = get_texts(state, "current", f"{path}.state")
    # A requeued run is ["PENDING", "REQUEUED"] here, with its end: what waits is the job's next run.
    phase, end_state = read_states([word for word in words if not (end_time and word in WAITING)])
    num_gpus = _allocated(job, path, "gres", "gpu")
    hosts = _hosts(get_text(job, "nodes", path))
    het_job_id, het_job_offset = _het(job, path)
    limit = get_number(time, "limit", f"{path}.time")
    return Run(
        key=RunKey(cluster, job_id_of(job), start),
        phase=phase,
        end=End(end_state, end_time or start, "+".join(words)) if end_state else None,
        user=get_text(job, "user", path),
        account=get_text(job, "account", path),
        partition=get_text(job, "partition", path),
        name=get_text(job, "name", path),
        submit_time=get_number(time, "submission", f"{path}.time") or 0,
        walltime=None if limit is None else limit * 60,
        num_cpus=_allocated(job, path, "cpu", ""),
        num_gpus=num_gpus,
        sharing=Sharing.ANY_USER,
        resources=tuple(Resource(host) for host in hosts),
        array_job_id=need_number(array, "job_id", f"{path}.array") or None,
        array_task_id=get_number(array, "task_id", f"{path}.array"),
        het_job_id=het_job_id,
        het_job_offset=het_job_offset,
        opted_out=is_opt_out(get_text(comment, "administrator", f"{path}.comment")),
        missing=frozenset({Missing.CORES, Missing.GPUS} if num_gpus else {Missing.CORES}),
    )


def _het(job: Json, path: str) -> tuple[int | None, int | None]:
    """The leader of a heterogeneous job and which component this one is; (None, None) for any other job."""
    het = get_object(job, "het", path)
    leader = get_number(het, "job_id", f"{path}.het") or None
    return leader, get_number(het, "job_offset", f"{path}.het") if leader else None


def _hosts(nodes: str) -> list[str]:
    return [] if nodes in ("None assigned", "") else expand(nodes)


def _allocated(job: Json, path: str, kind: str, name: str) -> int:
    """How many of a trackable resource the run got. The untyped row is the sum of the typed ones."""
    tres = get_list(get_object(job, "tres", path), "allocated", f"{path}.tres")
    counts = [get_number(row, "count", f"{path}.tres") for row in tres if _is(row, kind, name)]
    return max(counts[0] or 0, 0) if counts else 0


def _is(row: Json, kind: str, name: str) -> bool:
    return row.get("type") == kind and (row.get("name") or "") == name

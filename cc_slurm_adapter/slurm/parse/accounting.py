"""Runs in accounting (sacct), which keeps their times and ends permanently, but neither cores nor GPU indices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.model import (
    AccountedEnd,
    AccountedLaunch,
    End,
    EndState,
    Missing,
    Phase,
    Resource,
    Run,
    RunKey,
    Sharing,
)
from cc_slurm_adapter.slurm.parse.gres import GPU, Names
from cc_slurm_adapter.slurm.parse.hostlist import expand
from cc_slurm_adapter.slurm.parse.jobs import (
    NOTHING_ALLOCATED,
    Allocation,
    end_of,
    is_opt_out,
    job_id_of,
    seconds,
    sharing_of,
    state_words,
)
from cc_slurm_adapter.slurm.parse.json_values import (
    Json,
    get_number,
    get_object,
    get_objects,
    get_text,
    in_job,
    need_number,
    read_digits,
    read_job_id,
)
from cc_slurm_adapter.slurm.parse.left_out import log_left_out
from cc_slurm_adapter.slurm.parse.nodes import NodeLayout
from cc_slurm_adapter.slurm.parse.partitions import Partition
from cc_slurm_adapter.slurm.parse.states import CLOSED, WAITING, read_states

ENDED_COLUMNS = "JobIDRaw,State,Submit,Start,End,NNodes"
"""No user can write into any of them."""
LAUNCH_COLUMNS = "JobIDRaw,Start,End"
EXTERN = "extern"
"""The step for processes that others start on a node: Slurm makes it with the allocation (PrologFlags=Contain)."""
DAY = 86400
EARLIEST = 1_000_001
"""The smallest Unix time that sacct accepts after `uts` (src/common/parse_time.c): for `since the beginning`."""
RESIZING = "RESIZING"
"""The state of a record that was closed because the run continues on other nodes."""
_JOB = "jobs[]"
_CPUS = ("cpu", "")
"""Type and name of the trackable resource."""
_BACKLOG = re.compile(r"^DBD Agent queue size: *(\d{1,10})$", re.MULTILINE | re.ASCII)
"""The line that src/sdiag/sdiag.c (_print_stats) prints."""


def ended_command(since: int, until: int, job_ids: Iterable[int] = ()) -> list[str]:
    """Return the sacct command for the runs closed between two moments (Unix seconds), requeued ones (-D) included."""
    jobs = ",".join(map(str, job_ids))
    window = [*_window(since, until), *(["-j", jobs] if jobs else [])]
    return ["sacct", "-X", "-a", "-D", "-n", "-P", "-s", CLOSED, *window, f"--format={ENDED_COLUMNS}"]


def launches_command(job_ids: Iterable[int], since: int, until: int) -> list[str]:
    """Return the sacct command for the records of jobs with their steps, requeued ones (-D) included."""
    jobs = ",".join(map(str, job_ids))
    window = _window(since, until)
    return ["sacct", "-a", "-D", "-n", "-P", "-j", jobs, *window, f"--format={LAUNCH_COLUMNS}"]


def runs_command(job_ids: Iterable[int], since: int, until: int, json_option: str) -> list[str]:
    """Return the sacct command for everything about these jobs in a window.

    Without a window sacct would search back to 1970.
    """
    ids = ",".join(map(str, job_ids))
    return ["sacct", "-X", "-a", "-D", json_option, "-j", ids, *_window(since, until)]


def users_command(job_ids: Iterable[int], since: int, until: int) -> list[str]:
    """Return the sacct command for the users of jobs.

    sacct's JSON has no user if it finds no association (22.05) or no account with the id.
    """
    jobs = ",".join(map(str, job_ids))
    window = _window(since, until)
    return ["sacct", "-X", "-a", "-D", "-n", "-P", "-j", jobs, *window, "--format=JobIDRaw,UID,User"]


def _window(since: int, until: int) -> list[str]:
    """Return the options for a window of time, which begins at EARLIEST at least.

    sacct refuses a window that begins after its end. A run may begin in the future, because the clock was set back
    after its start. It may have been closed before or after now, so such a window is widened to both sides.
    """
    if since > until:
        since, until = until - DAY, since + DAY
    return ["-S", f"uts{max(since, EARLIEST)}", "-E", f"uts{until}"]


def parse_users(text: str) -> dict[int, str]:
    """Parse the output of `users_command`. Return user names by job id, or the user's number if it has no name here."""
    rows = [line.split("|") for line in text.splitlines()]
    found = {read_digits(job_id): user or uid for job_id, uid, user in (row for row in rows if len(row) == 3)}
    return {job_id: user for job_id, user in found.items() if job_id is not None}


def parse_backlog(text: str) -> int:
    """Parse from sdiag how many messages wait in slurmctld for slurmdbd.

    The line is the same from 22.05 to 26.05. Raises UnexpectedOutput.
    """
    found = _BACKLOG.search(text)
    if found is None:
        raise UnexpectedOutput("sdiag", "it has no line `DBD Agent queue size`")
    return int(found[1])


def parse_launches(text: str, cluster: str) -> list[AccountedLaunch]:
    """Parse the output of `launches_command` under SLURM_TIME_FORMAT=%s, where each record precedes its own steps.

    Records that never had nodes are left out.
    """
    found: list[AccountedLaunch] = []
    left_out: list[str] = []
    current: AccountedLaunch | None = None
    for line in text.splitlines():
        name, *times = line.split("|")
        job_id, _, step = name.partition(".")
        number = read_job_id(job_id)
        if number is None or len(times) != 2:
            left_out.append(repr(line[:100]))
            current = None
        elif not step:
            start, end = map(read_digits, times)
            current = AccountedLaunch(RunKey(cluster, number, start), end, has_launched=False) if start else None
            found += [current] if current else []
        elif current and current.key.job_id == number and step != EXTERN:
            found[-1] = current = current._replace(has_launched=True)
    log_left_out("sacct", left_out)
    return found


class EndedParser:
    """Parses the output of `ended_command` under SLURM_TIME_FORMAT=%s, in one piece or in several.

    A run that was resized has several records. It is one run, which began at the start of the first record. sacct
    prints the records in the order of their submit times. For all records but the first that is when they were made.
    """

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._resized: dict[tuple[int, int], _Record] = {}
        """Closed records of resized runs, by job and end."""

    def parse(self, lines: Iterable[str]) -> list[AccountedEnd]:
        """Return the runs in these lines. Jobs that never ran are left out."""
        records = list(_ended_records(lines))
        self._resized.update({(each.job_id, each.end): each for each in records if each.state == RESIZING})
        return [ended for ended in map(self._ended, records) if ended is not None]

    def _ended(self, record: _Record) -> AccountedEnd | None:
        _, end_state = read_states([record.state.split(" ")[0]])
        if record.state == RESIZING or end_state is None:
            return None
        first = _first_record(record, self._resized)
        key = RunKey(self._cluster, record.job_id, first.start)
        return AccountedEnd(key, End(end_state, record.end, record.state), may_be_remainder=first.start == first.submit)


class _Record(NamedTuple):
    """A line of sacct; times in Unix seconds."""

    job_id: int
    state: str
    submit: int
    start: int
    end: int


def _ended_records(lines: Iterable[str]) -> Iterator[_Record]:
    left_out: list[str] = []
    for line in lines:
        columns = line.split("|")
        job_id = read_job_id(columns[0])
        if len(columns) != len(ENDED_COLUMNS.split(",")) or job_id is None:
            left_out.append(f"{line[:100]!r} does not have the columns {ENDED_COLUMNS}")
            continue
        state, num_nodes = columns[1], columns[5]
        submit, start, end = map(read_digits, columns[2:5])
        # Start is None or Unknown for a job that was cancelled while it was pending.
        if start and end is not None and num_nodes != "0":
            yield _Record(job_id, state, submit or 0, start, end)
    log_left_out("sacct", left_out)


def _first_record(record: _Record, resized: Mapping[tuple[int, int], _Record]) -> _Record:
    """Return the record with which the run began.

    At a resize newer versions make a record, while 22.05 keeps the start.
    """
    while True:
        before = resized.get((record.job_id, record.start))
        if before is None or before.start >= record.start:
            return record
        record = before


def parse_accounted_run(job: Json, cluster: str, accelerators: Names = GPU) -> Run:
    """Parse a Run from sacct's JSON.

    It has no cores and GPU indices, and accounting may have altered its name. Raises UnexpectedOutput with the path in
    the JSON that is wrong.
    """
    job_id = job_id_of(job)
    try:
        return _parse_accounted_run(job, job_id, cluster, accelerators)
    except UnexpectedOutput as error:
        raise in_job(error, job_id) from error


def _parse_accounted_run(job: Json, job_id: int, cluster: str, accelerators: Names) -> Run:
    """Parse a run. Values are read only if the state makes them facts.

    A record of 23.02 to 24.05 may be PENDING with nodes and a start, and lack everything else: for a moment accounting
    has a step of the job before the job's own start. It counts as pending, and is read again later.
    """
    time, array = get_object(job, "time", _JOB), get_object(job, "array", _JOB)
    words = state_words(get_object(job, "state", _JOB), "current", f"{_JOB}.state")
    phase, end_state, end_time = _phase_and_end(words, time)
    het_job_id, het_job_offset = _het(job)
    allocated = NOTHING_ALLOCATED if phase is Phase.WAITING else _read_allocation(job, time, accelerators)
    return Run(
        key=RunKey(cluster, job_id, allocated.start),
        phase=phase,
        end=end_of(end_state, words, end_time, f"{_JOB}.time.end", allocated) if end_state else None,
        user=get_text(job, "user", _JOB),
        account=get_text(job, "account", _JOB),
        partition=allocated.partition,
        name=get_text(job, "name", _JOB),
        submit_time=need_number(time, "submission", f"{_JOB}.time"),
        walltime=allocated.walltime,
        num_cpus=allocated.num_cpus,
        num_gpus=allocated.num_gpus,
        sharing=allocated.sharing,
        resources=allocated.resources,
        array_job_id=need_number(array, "job_id", f"{_JOB}.array") or None,
        array_task_id=get_number(array, "task_id", f"{_JOB}.array"),
        het_job_id=het_job_id,
        het_job_offset=het_job_offset,
        opted_out=is_opt_out(get_text(get_object(job, "comment", _JOB), "administrator", f"{_JOB}.comment")),
        missing=allocated.missing,
    )


def _phase_and_end(words: list[str], time: Json) -> tuple[Phase, EndState | None, int]:
    """Return the phase, and how and when the run ended (Unix seconds; 0 if there is no end).

    Here a requeued run is ["PENDING", "REQUEUED"], with its end. Only the job's next run is pending.
    """
    closing = [word for word in words if word not in WAITING]
    phase, end_state = read_states(closing or words)
    end_time = (get_number(time, "end", f"{_JOB}.time") or 0) if end_state else 0
    if closing != words and not end_time:
        phase, end_state = read_states(words)
    return phase, end_state, end_time


def _read_allocation(job: Json, time: Json, accelerators: Names) -> Allocation:
    hosts = _hosts(job)
    start = get_number(time, "start", f"{_JOB}.time") or 0
    if hosts and not start:
        raise UnexpectedOutput(f"{_JOB}.time.start", "a run that has nodes has no start")
    counts = _read_counts(job, accelerators)
    num_cpus, num_gpus = counts.get(_CPUS, 0), sum(_num_gpus(counts, name) for name in accelerators)
    if hosts and not num_cpus:
        raise UnexpectedOutput(f"{_JOB}.tres.allocated", "a run that has nodes has no CPUs")
    return Allocation(
        start=start,
        partition=get_text(job, "partition", _JOB),
        walltime=seconds(get_number(time, "limit", f"{_JOB}.time")),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        sharing=_sharing(job),
        resources=tuple(Resource(host) for host in hosts),
        missing=frozenset(_missing(job, num_gpus)),
    )


def _missing(job: Json, num_gpus: int) -> Iterator[Missing]:
    yield Missing.CORES
    if num_gpus:
        yield Missing.GPUS
    if not _has_sharing(job):
        yield Missing.SHARING


def with_sharing(run: Run, layouts: Mapping[str, NodeLayout], partitions: Mapping[str, Partition]) -> Run:
    """Add who else was on the run's nodes, if its partition or its CPUs prove it.

    A run with all CPUs of its nodes had them to itself, unless several jobs may have the same CPUs there. A run with
    fewer CPUs did not have whole nodes. Whether they were reserved for its user is not known.
    """
    partition = partitions.get(run.partition)
    if Missing.SHARING not in run.missing or partition is None:
        return run
    cpus = [layouts[each.hostname].cpus if each.hostname in layouts else 0 for each in run.resources]
    has_all = all(cpus) and sum(cpus) == run.num_cpus
    if partition.gives_whole_nodes or (has_all and not partition.shares_cores):
        return replace(run, sharing=Sharing.WHOLE_NODE, missing=run.missing - {Missing.SHARING})
    return run


def _het(job: Json) -> tuple[int | None, int | None]:
    """Return the leader of a heterogeneous job and the number of this component; (None, None) for any other job."""
    het = get_object(job, "het", _JOB)
    leader = get_number(het, "job_id", f"{_JOB}.het") or None
    return leader, get_number(het, "job_offset", f"{_JOB}.het") if leader else None


def _hosts(job: Json) -> list[str]:
    nodes = get_text(job, "nodes", _JOB)
    return [] if nodes == "None assigned" else expand(nodes)


def _num_gpus(counts: Mapping[tuple[str, str], int], name: str) -> int:
    """Count GPUs. The row without a type is the sum of the rows with one. A site may track only one kind of row."""
    of_types = (count for (kind, gres), count in counts.items() if kind == "gres" and gres.startswith(f"{name}:"))
    return counts["gres", name] if ("gres", name) in counts else sum(of_types)


def _read_counts(job: Json, accelerators: Names) -> dict[tuple[str, str], int]:
    """Return how many CPUs and accelerators were allocated, by type and name; the latter as `NAME` or `NAME:TYPE`.

    Other counts are not read: a site's own resource may be counted in bytes, and the count be larger than any number
    here.
    """
    path = f"{_JOB}.tres.allocated"
    counts = {}
    for row in get_objects(get_object(job, "tres", _JOB), "allocated", f"{_JOB}.tres"):
        kind, name = get_text(row, "type", path), get_text(row, "name", path)
        if (kind, name) == _CPUS or (kind == "gres" and name.partition(":")[0] in accelerators):
            counts[kind, name] = get_number(row, "count", path) or 0
    return counts


def _has_sharing(job: Json) -> bool:
    """Return whether the format tells who else may be on the nodes. Only v0.0.45 does."""
    return "exclusive" in job


def _sharing(job: Json) -> Sharing:
    if not _has_sharing(job):
        return Sharing.ANY_USER
    return sharing_of(get_text(job, "exclusive", _JOB) or "NO", f"{_JOB}.exclusive")

"""Asks Slurm and cc-backend about one job, for `-job`. What fails is returned as a text, and never the end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from cc_slurm_adapter.cli.job_facts import NEAR, BackendFacts, SlurmFacts, SlurmRun
from cc_slurm_adapter.errors import AdapterError, SlurmError
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.model import End, Phase, Run, RunKey
from cc_slurm_adapter.outbox.job_rows import JobRows
from cc_slurm_adapter.sinks.base import StoredRun
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, read_cluster_config
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.interface import Slurm
from cc_slurm_adapter.slurm.one_job import HOW_TO_FIND, JobName, QueueLine, id_in_queue, read_accounted_id, read_queue
from cc_slurm_adapter.slurm.parse.accounting import EARLIEST
from cc_slurm_adapter.slurm.privileges import AdminLevels, find_hidden

BACKEND_SECONDS = 30.0
"""After this time cc-backend is not asked about further runs."""
MOST_RUNS = 20
"""The most runs that are shown, and that cc-backend is asked for: the latest ones."""
DAY = 86400


class UnknownName(AdapterError):
    """Slurm knows no task or component of this name."""


# --- Slurm


def read_cluster(commands: Commands) -> tuple[ClusterConfig | None, str]:
    """Return Slurm's configuration, or why slurmctld cannot be asked."""
    try:
        return read_cluster_config(commands), ""
    except SlurmError as error:
        return None, str(error)


def read_lines(commands: Commands, name: JobName, failure: str) -> tuple[list[QueueLine], str]:
    """Return what squeue lists, and why slurmctld cannot be asked. After a failure it is not asked again."""
    if failure:
        return [], failure
    try:
        return read_queue(commands, name), ""
    except SlurmError as error:
        return [], str(error)


def find_id(commands: Commands, name: JobName, queue: list[QueueLine], failure: str) -> int:
    """Return the job id that a name means. Raises UnknownName if Slurm knows none, and SlurmError if it cannot tell."""
    job_id = id_in_queue(name, queue)
    if job_id is not None:
        return job_id
    why = "Slurm knows none of this name"
    try:
        job_id = read_accounted_id(commands, name)
    except SlurmError as error:
        failure = failure or str(error)
    if job_id is None and failure:
        why = f"Slurm cannot be asked for it ({failure})"
    if job_id is None:
        kind = SlurmError if failure else UnknownName
        raise kind(f"the job id of {name} is not known, {why}: give the id itself; {HOW_TO_FIND}")
    return job_id


def read_slurm(  # noqa: PLR0913 - what is asked, and what is known before
    slurm: Slurm, job_id: int, ignore: IgnoreRules, now: int, failure: str, cluster_config: ClusterConfig | None
) -> SlurmFacts:
    """Ask slurmctld and accounting about a job. `failure` is why slurmctld cannot be asked, or ''."""
    current = _Shown(failure=failure) if failure else _ask_slurmctld(slurm, job_id)
    has_accounting = cluster_config is None or cluster_config.has_accounting
    accounted = _ask_accounting(slurm, job_id, now) if has_accounting else _Shown()
    now_there = {run.start: run for run in _slurm_runs("slurmctld", current, ignore)}
    latest = max(now_there, default=now)
    runs = {
        run.start: run
        for run in _slurm_runs("accounting", accounted, ignore)
        if run.is_over or not latest or run.start <= latest  # else a later record of a run that was resized
    }
    runs.update(now_there)
    return SlurmFacts(
        cluster=cluster_config.cluster if cluster_config else "",
        version=cluster_config.version if cluster_config else "",
        slurm_user=cluster_config.slurm_user if cluster_config else "",
        private_data=cluster_config.private_data if cluster_config else "",
        has_accounting=has_accounting,
        runs=tuple(sorted(runs.values(), key=lambda run: run.start or now * 2, reverse=True)[:MOST_RUNS]),
        not_understood=current.broken or accounted.broken,
        is_forgotten=current.is_forgotten,
        slurmctld_failure=current.failure,
        accounting_failure=accounted.failure,
    )


class _Shown(NamedTuple):
    """What slurmctld or accounting shows of a job."""

    runs: tuple[Run, ...] = ()
    launched: Collection[RunKey] | None = None
    """Runs that have launched something; None if accounting was not asked for that."""
    broken: str = ""
    is_forgotten: bool = False
    failure: str = ""


def _ask_slurmctld(slurm: Slurm, job_id: int) -> _Shown:
    runs: list[Run] = []
    broken = ""
    try:
        for details in slurm.read_details([job_id]):
            runs += details.runs
            broken = broken or details.broken.get(job_id, "") or details.failed.get(job_id, "")
        return _Shown(tuple(runs), None, broken, not runs and not broken and slurm.is_forgotten(job_id))
    except SlurmError as error:
        return _Shown(tuple(runs), None, broken, failure=str(error))


def _ask_accounting(slurm: Slurm, job_id: int, now: int) -> _Shown:
    """Ask for all runs of a job, however long ago."""
    runs: list[Run] = []
    broken = ""
    try:
        for details in slurm.read_accounted([job_id], EARLIEST, now):
            runs += details.runs
            broken = broken or details.broken.get(job_id, "") or details.failed.get(job_id, "")
        ends = {each.key: each.end for some in slurm.ends_of([job_id], EARLIEST, now) for each in some}
        whole = _whole_runs(runs, ends)
        launched = None
        if len(whole) > 1:
            found = [each for some in slurm.launches_of([job_id], EARLIEST, now) for each in some]
            launched = {each.key for each in found if each.has_launched}
        return _Shown(tuple(whole), launched, broken)
    except SlurmError as error:
        return _Shown(tuple(runs), None, broken, failure=str(error))


def _whole_runs(runs: Iterable[Run], ends: Mapping[RunKey, End]) -> list[Run]:
    """Return the runs without the later records of a run that was resized, each with the end of the whole run."""
    found: dict[RunKey, Run] = {}
    for run in runs:
        if run.key in ends:
            found.setdefault(run.key, replace(run, phase=Phase.ENDED, end=ends[run.key]))
        elif run.end is None or not run.resources:
            found.setdefault(run.key, run)
    return list(found.values())


def _slurm_runs(source: str, shown: _Shown, ignore: IgnoreRules) -> Iterator[SlurmRun]:
    for run in shown.runs:
        yield SlurmRun(
            source=source,
            start=0 if run.phase is Phase.WAITING else run.key.start_time,
            phase=run.phase.value,
            state=run.end.raw_state if run.end else "",
            end=run.end.end_time if run.end else 0,
            submit=run.submit_time,
            user=run.user,
            partition=run.partition,
            hosts=tuple(resource.hostname for resource in run.resources),
            left_out=ignore.reason(run),
            never_ran=run.never_ran,
            has_launched=None if shown.launched is None or not run.end else run.key in shown.launched,
        )


def hidden_from(slurm: AdminLevels, cluster_config: ClusterConfig | None, user: str) -> tuple[str, ...]:
    """Return what Slurm hides from the daemon's user, each with the next step."""
    if cluster_config is None or not user:
        return ()
    try:
        return tuple(str(finding) for finding in find_hidden(slurm, cluster_config, user))
    except SlurmError as error:
        return (f"its rights are not known: {error}",)


# --- cc-backend


class Windows(NamedTuple):
    """When the runs of a job began, for which cc-backend is asked. Unix seconds."""

    starts: tuple[int, ...]
    refused: tuple[int, ...]
    """Those that cc-backend refuses because of another run."""


def windows_of(cluster: str, slurm: SlurmFacts, rows: JobRows) -> Windows:
    """Return the starts of all known runs of a cluster, the latest first."""
    starts = {run.start for run in slurm.runs if run.start}
    starts |= {run.start_time for run in rows.runs if run.cluster == cluster}
    starts |= {row.start_time for row in rows.rows if row.cluster == cluster}
    refused = {row.start_time for row in rows.rows if row.cluster == cluster and row.state == "conflict"}
    return Windows(tuple(sorted(starts, reverse=True)[:MOST_RUNS]), tuple(sorted(refused, reverse=True)))


def read_backend(
    find: Callable[[int, int], list[StoredRun]], windows: Windows, clock: Callable[[], float]
) -> BackendFacts:
    """Ask cc-backend for the runs around these starts, and for one within a day of those that it refuses."""
    deadline = clock() + BACKEND_SECONDS
    found: dict[int, StoredRun] = {}
    searched: list[tuple[int, int]] = []
    spans = [(start - NEAR, start + NEAR) for start in windows.starts]
    others = [(start - DAY, start + DAY) for start in windows.refused[:1]]
    try:
        for first, last in [*spans, *others]:
            is_search = (first, last) in others
            if clock() >= deadline or (is_search and _has_other(found, windows.refused[0])):
                break
            for row in find(first, last):
                found[row.start_time] = row
            searched.append((first, last))
    except AdapterError as error:
        return BackendFacts("", _latest_first(found), str(error), tuple(searched))
    return BackendFacts("", _latest_first(found), "", tuple(searched))


def _has_other(found: Iterable[int], start: int) -> bool:
    return any(0 < abs(each - start) <= DAY for each in found)


def _latest_first(found: dict[int, StoredRun]) -> tuple[StoredRun, ...]:
    return tuple(found[start] for start in sorted(found, reverse=True))

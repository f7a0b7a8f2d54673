"""Pure decisions: what Slurm says, held against what is known, gives what is to be asked and what is owed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cc_slurm_adapter.model import AccountedEnd, AccountedLaunch, End, EndState, ListedJob, Phase, Run, RunKey
from cc_slurm_adapter.outbox.outbox import OpenRun, Stage

NEAR = 300
"""Seconds by which the start times of cc-backend's row and of Slurm's run may differ to be one run."""


@dataclass
class Comparison:
    """What a listing means."""

    ended: dict[RunKey, End] = field(default_factory=dict)
    """Live and ignored runs that the listing itself says are over."""
    to_read: set[int] = field(default_factory=set)
    """Jobs of known runs whose details tell more: ready nodes, how a completing run ended, what a lost one holds."""
    strangers: list[RunKey] = field(default_factory=list)
    """Runs that are not open; the outbox may know them as done."""
    vanished: list[RunKey] = field(default_factory=list)
    """Open runs of which the listing says nothing: that alone ends none of them."""


def compare(
    listing: Iterable[ListedJob], open_runs: Mapping[RunKey, OpenRun], cluster: str, first_moment: int = 0
) -> Comparison:
    """Hold a complete listing against all open runs. What ended before the first moment is history, no stranger."""
    found = Comparison()
    seen: set[RunKey] = set()
    for sighting in listing:
        if not sighting.start_time or sighting.phase is Phase.WAITING:
            continue
        key = RunKey(cluster, sighting.job_id, sighting.start_time)
        known = open_runs.get(key)
        if known is None:
            if not sighting.never_ran and (sighting.end_time is None or sighting.end_time >= first_moment):
                found.strangers.append(key)
            continue
        seen.add(key)
        if known.stage is Stage.PREPARING:
            if sighting.phase is not Phase.CONFIGURING:
                found.to_read.add(sighting.job_id)
        elif sighting.phase is Phase.ENDED:
            _note_end(found, key, sighting)
        elif known.lost_since is not None:
            found.to_read.add(sighting.job_id)
    moved = {key.job_id for key in found.strangers}
    found.vanished = [
        key
        for key, known in open_runs.items()
        if key not in seen and not (known.stage is Stage.PREPARING and key.job_id in moved)
    ]
    return found


def _note_end(found: Comparison, key: RunKey, sighting: ListedJob) -> None:
    if sighting.end_state is not None and sighting.end_time is not None:
        found.ended[key] = End(sighting.end_state, sighting.end_time, sighting.raw_state)
    else:
        found.to_read.add(key.job_id)


@dataclass(frozen=True)
class Decision:
    """What follows for one run whose details were read."""

    run: Run
    stage: Stage | None = None
    """What it becomes; None: nothing new."""
    start_owed: bool = False
    left_out: str = ""
    """Why its start, which would be owed, is not to be told."""
    put_off: bool = False
    """Its start would be owed, but not all can be told of it yet."""
    stop_owed: bool = False
    replaces: tuple[RunKey, ...] = ()
    """Runs that were seen while their nodes were made ready, with a start time that has moved since."""


def decide(run: Run, same_job: Collection[OpenRun], *, reported: bool, left_out: str) -> Decision:
    """What a run's details mean.

    `same_job` are the open runs of its job; `reported` says that this very run is done already;
    `left_out` says why its start is not to be told, if so: once it was, its stop is told all the same.
    """
    if reported or run.phase is Phase.WAITING or not run.key.start_time:
        return Decision(run)
    known = next((each for each in same_job if each.key == run.key), None)
    if known is not None and known.stage is not Stage.PREPARING:
        if run.end is None:
            is_back = known.lost_since is not None and bool(run.resources)
            return Decision(run, known.stage if is_back else None)
        return Decision(run, Stage.DONE, stop_owed=known.stage is Stage.STARTED)
    return _begin(run, same_job, is_new=known is None, left_out=left_out)


def _begin(run: Run, same_job: Collection[OpenRun], *, is_new: bool, left_out: str) -> Decision:
    """A run whose start is not owed yet."""
    if run.never_ran:
        return Decision(run, Stage.DONE)
    if not run.resources or (run.phase is Phase.ENDED and not run.end):
        return Decision(run)
    replaces = tuple(each.key for each in same_job if each.stage is Stage.PREPARING and each.key != run.key)
    if run.phase is Phase.CONFIGURING:
        return Decision(run, Stage.PREPARING if is_new else None, replaces=replaces)
    if left_out:
        return Decision(run, Stage.DONE if run.end else Stage.IGNORED, left_out=left_out, replaces=replaces)
    if run.awaits_layout:
        return Decision(run, put_off=True)
    whole = complete_from_seen(run, same_job)
    stage = Stage.DONE if run.end else Stage.STARTED
    return Decision(whole, stage, start_owed=True, stop_owed=run.end is not None, replaces=replaces)


def complete_from_seen(run: Run, same_job: Iterable[OpenRun]) -> Run:
    """The run with what was read of it while its nodes were made ready, when less can be had now."""
    if not run.missing:
        return run
    hosts = [resource.hostname for resource in run.resources]
    for known in same_job:
        before = known.details
        if before is not None and [each.hostname for each in before.resources] == hosts and not before.missing:
            return replace(run, resources=before.resources, sharing=before.sharing, missing=frozenset())
    return run


def with_ends(runs: Iterable[Run], ends: Mapping[RunKey, End]) -> list[Run]:
    """The runs that have one of these ends. Of a resized run accounting has several records: the first one counts."""
    found: dict[RunKey, Run] = {}
    for run in runs:
        if run.key in ends:
            found.setdefault(run.key, replace(run, phase=Phase.ENDED, end=ends[run.key]))
    return list(found.values())


def requeued_end(key: RunKey, current: Run | None, starts: Iterable[int]) -> End | None:
    """Of a run whose job slurmctld shows with another one, if that is a later one, else None.

    A requeued job has a new submit time: that of the requeue. One that was requeued more than once ended before
    the next of its `starts`.
    """
    if current is None or current.key == key:
        return None
    # A run that was submitted in the second in which this one began is a later one for sure only while it waits.
    begins_later = current.submit_time > key.start_time
    if not begins_later and not (current.submit_time == key.start_time and current.phase is Phase.WAITING):
        return None
    end_time = min([current.submit_time, *(start for start in starts if start > key.start_time)])
    return End(EndState.CANCELLED, end_time, "REQUEUED")


def went_back(run: Run, others: Iterable[Run]) -> bool:
    """Whether the job of a run that is over waits or runs again: it says so itself, or a later run of it is known."""
    end = run.end
    if end is None:
        return False
    later = (each for each in others if each.key.job_id == run.key.job_id and each.key != run.key)
    return end.is_requeue or any(each.submit_time >= end.end_time for each in later)


def never_launched(runs: Iterable[Run], launches: Iterable[AccountedLaunch]) -> list[Run]:
    """Those of the runs that are over of which accounting has a record without a step.

    Of a heterogeneous job the leader has the batch script of all components.
    """
    records = list(launches)
    known = {each.key for each in records}
    launched = [each for each in records if each.has_launched]
    return [run for run in runs if run.key in known and not any(_is_launch_of(run, each) for each in launched)]


def _is_launch_of(run: Run, launch: AccountedLaunch) -> bool:
    if launch.key == run.key:
        return True
    if launch.key.job_id != run.het_job_id or run.end is None:
        return False
    ended = run.end.end_time if launch.end_time is None else launch.end_time
    return launch.key.start_time <= run.end.end_time and run.key.start_time <= ended


def forgotten_end(now: int) -> End:
    """Of a run of which slurmctld says only that it knows no such job, at a site without slurmdbd."""
    return End(EndState.FAILED, now, "forgotten by slurmctld")


def lost_end(last_seen: int) -> End:
    """Of a run that Slurm has lost, which was seen last at a Unix time."""
    return End(EndState.FAILED, last_seen, "lost by Slurm")


def rests_of_resized(doubtful: Iterable[AccountedEnd], whole: Iterable[AccountedEnd]) -> set[RunKey]:
    """Those of the doubtful ends that are no runs: a run of the same job began before and has the same end."""
    starts = {(each.key.job_id, each.end.end_time): each.key.start_time for each in whole}
    first = {each.key: starts.get((each.key.job_id, each.end.end_time)) for each in doubtful}
    return {key for key, start in first.items() if start is not None and start < key.start_time}


def nearest_end(key: RunKey, ends: Iterable[AccountedEnd], still_open: Iterable[OpenRun]) -> End | None:
    """The end of the run of this job that began at this time, or else at nearly this time and is over."""
    ended = {each.key: each.end for each in ends if each.key.job_id == key.job_id}
    candidates = [*(run.key for run in still_open), *ended]
    nearest = min(candidates, key=lambda each: abs(each.start_time - key.start_time), default=None)
    if nearest is None or abs(nearest.start_time - key.start_time) > NEAR:
        return None
    return ended.get(nearest)

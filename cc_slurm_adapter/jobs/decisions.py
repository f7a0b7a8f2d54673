"""Decides what to ask next and what to enqueue, from what Slurm shows and what is known. All functions are pure.

A run is a job from one start to one end; a requeued job has several (`model.Run`). Which of Slurm's words for a job's
state count as ended is decided in `slurm/parse/states.py`.

The states of a run (`Stage`; each run that is not DONE is an open one):

    state      Slurm shows                       holds nodes   the sinks get
    ---------  --------------------------------  ------------  -------------------------------
    PREPARING  CONFIGURING: its nodes are made   yes           nothing
               ready, its start time may move
    STARTED    RUNNING, suspended, stopped       yes           its start
    IGNORED    the same, but a rule or an        yes           nothing, ever
               administrator leaves it out
    DONE       ENDED, COMPLETING included        no            start and stop; nothing if it
                                                               was IGNORED or never ran

IGNORED runs are open as well: they count on their nodes, and their end is awaited. A run that is DONE is remembered
for a day longer than accounting is read back, so that it is recognized when accounting shows it again.

What happens when the details of a run were read. After the `+` is what is enqueued with the new state:

    state before   WAITING   CONFIGURING   RUNNING           ENDED
    ------------   -------   -----------   ---------------   ----------------------
    unknown        -         PREPARING     STARTED + start   DONE + start and stop
    PREPARING      -         -             STARTED + start   DONE + start and stop
    STARTED        -         -             -                 DONE + stop
    IGNORED        -         -             -                 DONE
    DONE           -         -             -                 -

For some runs the start that the table shows is not enqueued:

- A run that is left out becomes IGNORED, or DONE if it is over, and nothing is enqueued.
- A run that never ran (it was cancelled while it waited) becomes DONE, and nothing is enqueued.
- A run that launched nothing before its job was requeued (`never_launched`) becomes DONE, and nothing is enqueued.
- A run without nodes (Slurm removes them one by one while a job completes), or without an end although it is ENDED, is
  read again.
- A run whose cores cannot be numbered yet (`awaits_layout`) is read again when sinfo has answered.
- A run that ended before the first moment is history: it counts as DONE.

The start time of a PREPARING run may move, and with it the key of the run. So when another run of the same job begins
or prepares, the PREPARING one is dropped: both are the same run (`Decision.replaces`). A PREPARING run that never
starts is dropped when it is older than accounting is read back.

A STARTED or IGNORED run that Slurm has lost keeps its state but not its nodes. The time when it was last seen is stored
(`OpenRun.lost_since`). If Slurm shows it again, it gets its nodes back; else `lost_runs` ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cc_slurm_adapter.model import AccountedEnd, AccountedLaunch, End, EndState, ListedJob, Phase, Run, RunKey
from cc_slurm_adapter.outbox.outbox import OpenRun, Stage

NEAR = 300
"""If the start times of cc-backend's row and of Slurm's run differ by at most this many seconds, they are one run."""
LOST, FORGOTTEN = "lost by Slurm", "forgotten by slurmctld"
"""In place of Slurm's word, how a run ended that Slurm does not know any more."""


@dataclass
class Comparison:
    """What follows from a listing."""

    ended: dict[RunKey, End] = field(default_factory=dict)
    """STARTED and IGNORED runs that are over according to the listing alone."""
    to_read: set[int] = field(default_factory=set)
    """Jobs of open runs whose details are needed: ready nodes, how a completing run ended, the nodes of a lost run."""
    unknown_keys: list[RunKey] = field(default_factory=list)
    """Runs that are not open; the outbox may know them as DONE."""
    seen: dict[RunKey, bytes] = field(default_factory=dict)
    """Open runs that were listed, each with its line if nothing follows from it, else b''."""


def compare(
    listing: Iterable[ListedJob], open_runs: Mapping[RunKey, OpenRun], cluster: str, first_moment: int = 0
) -> Comparison:
    """Compare a complete listing with the open runs. A run that ended before the first moment is not unknown.

    The listing may be without lines from which nothing follows, so only `vanished` tells which runs it lacks.
    """
    found = Comparison()
    for listed in listing:
        if not listed.start_time or listed.phase is Phase.WAITING:
            continue
        key = RunKey(cluster, listed.job_id, listed.start_time)
        known = open_runs.get(key)
        if known is None:
            if not listed.never_ran and (listed.end_time is None or listed.end_time >= first_moment):
                found.unknown_keys.append(key)
            continue
        found.seen[known.key] = b""
        if known.stage is Stage.PREPARING:
            if listed.phase is not Phase.CONFIGURING:
                found.to_read.add(listed.job_id)
                continue
        elif listed.phase is Phase.ENDED:
            _note_end(found, key, listed)
            continue
        elif known.lost_since is not None:
            found.to_read.add(listed.job_id)
            continue
        found.seen[known.key] = listed.line
    return found


def vanished(found: Comparison, open_runs: Mapping[RunKey, OpenRun], candidates: Iterable[RunKey]) -> list[RunKey]:
    """Return those of the candidates, which are open runs, that a listing does not have. That alone ends no run."""
    moved = {key.job_id for key in found.unknown_keys}
    return [
        key
        for key in candidates
        if key not in found.seen and not (open_runs[key].stage is Stage.PREPARING and key.job_id in moved)
    ]


def _note_end(found: Comparison, key: RunKey, listed: ListedJob) -> None:
    if listed.end_state is not None and listed.end_time is not None:
        found.ended[key] = End(listed.end_state, listed.end_time, listed.raw_state)
    else:
        found.to_read.add(key.job_id)


@dataclass(frozen=True)
class Decision:
    """What follows for one run whose details were read."""

    run: Run
    stage: Stage | None = None
    """Its new state; None if it does not change."""
    enqueue_start: bool = False
    left_out: str = ""
    """Why its start is left out, which would be enqueued now; '' if it is not left out."""
    awaits_layout: bool = False
    """Its start is not enqueued yet: its cores cannot be numbered."""
    enqueue_stop: bool = False
    replaces: tuple[RunKey, ...] = ()
    """PREPARING runs of its job, whose start time has moved since."""


def decide(run: Run, same_job: Collection[OpenRun], *, reported: bool, left_out: str) -> Decision:
    """Return what follows from the details of a run, see the tables above.

    `same_job` are the open runs of its job. `reported` says that this run itself is DONE already. `left_out` is the
    reason why its start is not to be enqueued, or ''. A run whose start was enqueued before still gets its stop.
    """
    if reported or run.phase is Phase.WAITING or not run.key.start_time:
        return Decision(run)
    known = next((each for each in same_job if each.key == run.key), None)
    if known is not None and known.stage is not Stage.PREPARING:
        if run.end is None:
            is_back = known.lost_since is not None and bool(run.resources)
            return Decision(run, known.stage if is_back else None)
        return Decision(run, Stage.DONE, enqueue_stop=known.stage is Stage.STARTED)
    return _begin(run, same_job, is_new=known is None, left_out=left_out)


def _begin(run: Run, same_job: Collection[OpenRun], *, is_new: bool, left_out: str) -> Decision:
    """Return what follows for a run that is unknown or PREPARING."""
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
        return Decision(run, awaits_layout=True)
    whole = complete_from_seen(run, same_job)
    stage = Stage.DONE if run.end else Stage.STARTED
    return Decision(whole, stage, enqueue_start=True, enqueue_stop=run.end is not None, replaces=replaces)


def complete_from_seen(run: Run, same_job: Iterable[OpenRun]) -> Run:
    """Return the run. If Slurm shows less now, add what was read while its nodes were made ready."""
    if not run.missing:
        return run
    hosts = [resource.hostname for resource in run.resources]
    for known in same_job:
        before = known.details
        if before is not None and [each.hostname for each in before.resources] == hosts and not before.missing:
            return replace(run, resources=before.resources, sharing=before.sharing, missing=frozenset())
    return run


def with_ends(runs: Iterable[Run], ends: Mapping[RunKey, End]) -> list[Run]:
    """Return the runs that have one of these ends. If a run was resized, the first of its records counts."""
    found: dict[RunKey, Run] = {}
    for run in runs:
        if run.key in ends and run.key not in found:
            end = ends[run.key]
            is_so = run.phase is Phase.ENDED and run.end == end
            found[run.key] = run if is_so else replace(run, phase=Phase.ENDED, end=end)
    return list(found.values())


def requeued_end(key: RunKey, current: Run | None, starts: Iterable[int]) -> End | None:
    """Return the end of a run if slurmctld shows a later run of its job, else None.

    A requeued job has a new submit time: the time of the requeue. If the job was requeued more than once, the run ended
    before the next of its `starts`.
    """
    if current is None or current.key == key:
        return None
    # A run that was submitted in the same second in which this one began is certainly later only while it waits.
    begins_later = current.submit_time > key.start_time
    if not begins_later and not (current.submit_time == key.start_time and current.phase is Phase.WAITING):
        return None
    end_time = min([current.submit_time, *(start for start in starts if start > key.start_time)])
    return End(EndState.CANCELLED, end_time, "REQUEUED")


def went_back(runs: Iterable[Run], others: Iterable[Run]) -> list[Run]:
    """Return those of the ended runs whose job waits or runs again: the end says so, or a later run of it is known."""
    of_job: dict[int, list[Run]] = {}
    for other in others:
        of_job.setdefault(other.key.job_id, []).append(other)
    return [run for run in runs if run.end and _went_back(run, run.end, of_job.get(run.key.job_id, ()))]


def _went_back(run: Run, end: End, of_job: Iterable[Run]) -> bool:
    return end.is_requeue or any(each.submit_time >= end.end_time for each in of_job if each.key != run.key)


def never_launched(runs: Iterable[Run], launches: Iterable[AccountedLaunch]) -> list[Run]:
    """Return those of these ended runs that have a record in accounting, but no step.

    In a heterogeneous job the leader has the batch script of all components.
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
    """Return the end of a run whose job slurmctld does not know any more, at a site without slurmdbd."""
    return End(EndState.FAILED, now, FORGOTTEN)


def lost_end(last_seen: int) -> End:
    """Return the end of a run that Slurm has lost and that was last seen at `last_seen` (Unix time)."""
    return End(EndState.FAILED, last_seen, LOST)


def resize_remainders(doubtful: Iterable[AccountedEnd], whole: Iterable[AccountedEnd]) -> set[RunKey]:
    """Return those doubtful ends that are not runs: another run of the same job began earlier and has the same end."""
    starts = {(each.key.job_id, each.end.end_time): each.key.start_time for each in whole}
    first = {each.key: starts.get((each.key.job_id, each.end.end_time)) for each in doubtful}
    return {key for key, start in first.items() if start is not None and start < key.start_time}


def nearest_end(key: RunKey, ends: Iterable[AccountedEnd], still_open: Iterable[OpenRun]) -> End | None:
    """Return the end of the job's run that began nearest to this time; None if that is not near or the run is open."""
    ended = {each.key: each.end for each in ends if each.key.job_id == key.job_id}
    candidates = [*(run.key for run in still_open), *ended]
    nearest = min(candidates, key=lambda each: abs(each.start_time - key.start_time), default=None)
    if nearest is None or abs(nearest.start_time - key.start_time) > NEAR:
        return None
    return ended.get(nearest)

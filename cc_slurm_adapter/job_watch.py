"""One pass: asks Slurm, decides what is owed, and puts it into the outbox.

A query that failed ends the pass with a SlurmError; what was concluded before it stays, and nothing
is concluded from the failure.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cc_slurm_adapter.job import End, EndState, Missing, NodeState, Run, RunKey, Sighting
from cc_slurm_adapter.job_diff import Comparison, Decision, compare, decide
from cc_slurm_adapter.open_runs import OpenRuns
from cc_slurm_adapter.outbox import Changes, KnownRun, Message, Outbox, Stage
from cc_slurm_adapter.progress import Progress
from cc_slurm_adapter.sinks import Kind, RunningRow, Sink
from cc_slurm_adapter.slurm.accounting import AccountedEnd
from cc_slurm_adapter.slurm.client import Details
from cc_slurm_adapter.status import Status

log = logging.getLogger(__name__)

SLICE = 25
"""Runs that are taken at once with their texts: each may have a script of a megabyte."""
WINDOW = 3600
"""Seconds of accounting in one question."""
OVERLAP = 600
"""Seconds that every catch-up reads again: accounting gets its records late."""
AUDIT_EVERY, AUDIT_OVERLAP = 3600, 6 * 3600
"""Once an hour a catch-up reads six hours again, for records that came very late."""
YOUNG = 300
"""Seconds in which cc-backend may not list a run yet: two intervals of its commit worker, and a bit."""
NEAR = 300
"""Seconds by which the start times of cc-backend's row and of Slurm's run may differ to be one run."""


class Slurm(Protocol):
    """The questions a pass asks; each may raise SlurmError."""

    def list_jobs(self) -> list[Sighting]: ...
    def read_details(self, job_ids: Iterable[int]) -> Iterator[Details]: ...
    def add_texts(self, runs: list[Run]) -> list[Run]: ...
    def ended_between(self, since: int, until: int) -> list[AccountedEnd]: ...
    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> list[AccountedEnd]: ...
    def read_accounted(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[Details]: ...
    def node_states(self) -> list[NodeState]: ...


@dataclass(frozen=True)
class WatchSettings:
    """What a pass needs of the configuration and of Slurm's."""

    cluster: str
    ignore_hosts: re.Pattern[str] | None
    has_accounting: bool
    max_span: int
    """Seconds that accounting is read back at most."""
    on_owed: Callable[[], None] = lambda: None
    """Called when something new is in the outbox."""
    clock: Callable[[], float] = time.time


class JobWatch:
    """Knows the open runs of one cluster and moves them on. Used from one thread."""

    def __init__(
        self, slurm: Slurm, outbox: Outbox, sinks: Sequence[Sink], status: Status, settings: WatchSettings
    ) -> None:
        self._slurm = slurm
        self._outbox = outbox
        self._sinks = sinks
        self._status = status
        self._settings = settings
        self._cluster = settings.cluster
        self._open = OpenRuns(outbox.open_runs(settings.cluster))
        self._broken: set[int] = set()
        self._vanished: list[RunKey] = []
        """Open runs that the last listing did not have: accounting is asked for them."""
        self._unresolved: set[RunKey] = set()
        self._late = 0
        """Incomplete runs since the last catch-up was over."""
        self._next_audit = 0.0

    @property
    def open_runs(self) -> int:
        """How many runs hold nodes as far as is known."""
        return len(self._open)

    def poll(self) -> Iterator[None]:
        """Compare all of slurmctld's jobs with what is known; yields between its questions. Raises SlurmError."""
        found = compare(self._slurm.list_jobs(), self._open, self._cluster)
        self._end(found.ended)
        for details in self._details(self._worth_reading(found)):
            self._take_details(details, details.runs)
            yield
        self._vanished = [key for key in found.vanished if key in self._open]
        if not self._settings.has_accounting:
            self._end_replaced()

    def node_states(self) -> list[NodeState]:
        """All nodes that are not ignored, each with the number of runs on it. Raises SlurmError."""
        jobs = self._open.jobs_by_host()
        pattern = self._settings.ignore_hosts
        nodes = [node for node in self._slurm.node_states() if not (pattern and pattern.search(node.hostname))]
        return [replace(node, jobs_running=jobs[node.hostname]) for node in nodes]

    def look_at(self, job_ids: Iterable[int]) -> set[int]:
        """Ask for some jobs only, as hook events tell to; returns those that slurmctld knows. Raises SlurmError."""
        known: set[RunKey] = set()
        for details in self._details(set(job_ids)):
            known |= {run.key for run in details.runs}
            self._take_details(details, details.runs)
        known_jobs = {key.job_id for key in known}
        replaced = [run.key for job_id in known_jobs for run in self._open.of_job(job_id) if run.key not in known]
        if replaced and self._settings.has_accounting:
            self._ask_accounting_for(replaced)  # the job was requeued: slurmctld knows its next run only
        return known_jobs

    def is_settled(self, job_id: int, *, over: bool) -> bool:
        """Whether a job stands where its event says: its start owed, or for an epilog no run of it open any more."""
        stages = [known.stage for known in self._open.of_job(job_id)]
        if not stages:
            return self._outbox.knows_job(self._cluster, job_id)
        return not over and Stage.SEEN not in stages

    def catch_up(self, since: int) -> Iterator[int]:
        """Read accounting from `since` until now, an hour at a time, and move the checkpoint. Raises SlurmError.

        All in Unix seconds; yields how far it has come.
        """
        now = int(self._settings.clock())
        if not self._settings.has_accounting:
            self._commit(Changes(checkpoint=now))
            return
        self._ask_accounting_for([key for key in self._vanished if key in self._open])
        begin = max(since - self._overlap(now), now - self._settings.max_span)
        progress = Progress("catching up with accounting, hours", -(-(now - begin) // WINDOW))
        for number, start in enumerate(range(begin, now, WINDOW)):
            progress.say(number)
            until = min(start + WINDOW, now)
            self._take_ended(self._slurm.ended_between(start, until), until)
            yield until
        if self._late:
            log.warning(
                "%d runs were seen too late and are reported incomplete, unless cc-backend has them", self._late
            )
            self._late = 0

    def reconcile(self, rows: Iterable[RunningRow]) -> None:
        """Stop what cc-backend believes to be running and Slurm says is over. Raises SlurmError."""
        now = int(self._settings.clock())
        keys = [RunKey(self._cluster, row.job_id, row.start_time) for row in rows]
        stale = [key for key in keys if self._is_stale(key, now)]
        if not stale or not self._settings.has_accounting:
            return
        ends = self._slurm.ends_of({key.job_id for key in stale}, min(key.start_time for key in stale) - NEAR, now)
        changes = Changes()
        for key in stale:
            end = _nearest_end(key, ends, self._open.of_job(key.job_id))
            if end is not None:
                self._owe_stop(changes, key, end)
                changes.runs[key] = KnownRun(key, Stage.DONE, "", None)
        log.warning(
            "cc-backend has %d running jobs that are not known to run: Slurm says of %d of them that they are over",
            len(stale),
            len(changes.runs),
        )
        self._status.count("reconciled_stops", len(changes.runs))
        self._commit(changes)

    def forget_never_started(self, max_age: float) -> None:
        """Runs whose nodes were made ready for longer than this, without a start or an end, are given up."""
        oldest = self._settings.clock() - max_age
        old = [key for key, run in self._open.items() if run.stage is Stage.SEEN and key.start_time < oldest]
        self._commit(Changes(dropped=old))

    def forget_broken(self) -> None:
        """Read jobs again that could not be understood."""
        self._broken.clear()

    def _worth_reading(self, found: Comparison) -> set[int]:
        strangers = self._outbox.unknown(key for key in found.strangers if key.job_id not in self._broken)
        return found.to_read | {key.job_id for key in strangers}

    def _details(self, job_ids: set[int]) -> Iterator[Details]:
        return self._slurm.read_details(job_ids) if job_ids else iter(())

    def _take_details(self, details: Details, runs: Iterable[Run]) -> None:
        for job_id, reason in details.broken.items():
            self._set_aside(job_id, reason)
        read = list(runs)
        for at in range(0, len(read), SLICE):
            self._take_runs(read[at : at + SLICE])

    def _set_aside(self, job_id: int, reason: str) -> None:
        """Said once for each job, and tried again after a reload or a restart."""
        if job_id not in self._broken:
            self._broken.add(job_id)
            self._status.count("jobs_not_understood")
            log.error("job %d cannot be understood and is left out: %s", job_id, reason)

    def _take_runs(self, runs: list[Run]) -> None:
        changes = Changes()
        decisions = self._with_texts(self._decide(runs))
        for decision in decisions:
            try:
                self._note(changes, decision)
            except Exception:  # the one place that isolates a job
                log.exception("%s", decision.run.key)
                self._set_aside(decision.run.key.job_id, "an error of this program, see the log")
        self._commit(changes)
        self._late += sum(1 for each in decisions if each.start_owed and each.run.missing)

    def _decide(self, runs: list[Run]) -> list[Decision]:
        closed = [run.key for run in runs if run.key not in self._open]
        reported = set(closed) - set(self._outbox.unknown(closed))
        return [decide(run, self._open.of_job(run.key.job_id), reported=run.key in reported) for run in runs]

    def _with_texts(self, decisions: list[Decision]) -> list[Decision]:
        starting = [each.run for each in decisions if each.start_owed and not self._is_ignored(each.run)]
        complete = {run.key: run for run in self._slurm.add_texts(starting)} if starting else {}
        return [replace(each, run=complete.get(each.run.key, each.run)) for each in decisions]

    def _note(self, changes: Changes, decision: Decision) -> None:
        run = decision.run
        changes.dropped += decision.replaces
        if decision.stage is not None and self._is_ignored(run):
            changes.runs[run.key] = _known(run, Stage.IGNORED)
            return
        if decision.start_owed:
            self._owe_start(changes, run)
        if decision.stop_owed and run.end:
            self._owe_stop(changes, run.key, run.end)
        if decision.stage is not None:
            changes.runs[run.key] = _known(run, decision.stage)

    def _end(self, ends: Mapping[RunKey, End], checkpoint: int | None = None) -> None:
        changes = Changes(checkpoint=checkpoint)
        for key, end in ends.items():
            self._owe_stop(changes, key, end)
            changes.runs[key] = self._open[key]._replace(stage=Stage.DONE, details=None)
        self._commit(changes)

    def _end_replaced(self) -> None:
        """Without accounting: a run whose job has a later run is over, and ended when that one began at the latest."""
        ends = {}
        for key in self._vanished:
            later = [run.key.start_time for run in self._open.of_job(key.job_id) if run.key.start_time > key.start_time]
            if later and self._open.stage(key) is Stage.LIVE:
                ends[key] = End(EndState.CANCELLED, min(later), "REQUEUED")
        self._end(ends)

    def _ask_accounting_for(self, vanished: list[RunKey]) -> None:
        """Open runs that slurmctld has forgotten, or whose job has another run now."""
        if vanished:
            oldest = min(key.start_time for key in vanished)
            ends = self._slurm.ends_of({key.job_id for key in vanished}, oldest, int(self._settings.clock()))
            self._take_ended([each for each in ends if each.key in self._open], None)

    def _take_ended(self, ended: list[AccountedEnd], checkpoint: int | None) -> None:
        """Runs that accounting has closed: live ones get their stop, the others start and stop together."""
        live = {each.key: each.end for each in ended if self._open.stage(each.key) is Stage.LIVE}
        seen = {each.key for each in ended if self._open.stage(each.key) is Stage.SEEN}
        self._take_late(seen | set(self._outbox.unknown(each.key for each in ended if each.key not in self._open)))
        self._end(live, checkpoint)

    def _take_late(self, keys: set[RunKey]) -> None:
        """Runs that ended before their start was owed: with the best resources that can still be had."""
        for details in self._details({key.job_id for key in keys}):
            self._take_details(details, [run for run in details.runs if run.key in keys and run.end])
        left = self._unreported(keys)
        if left:
            since = min(key.start_time for key in left)
            late = self._slurm.read_accounted({key.job_id for key in left}, since, int(self._settings.clock()))
            for details in late:
                self._take_details(details, [run for run in details.runs if run.key in left and run.end])
            for key in self._unreported(left) - self._unresolved:
                log.error("%s is over, but neither slurmctld nor accounting tells more: tried again for hours", key)
            self._unresolved = self._unreported(left)

    def _unreported(self, keys: Iterable[RunKey]) -> set[RunKey]:
        return {key for key in keys if key in self._open or self._outbox.unknown([key])}

    def _owe_start(self, changes: Changes, run: Run) -> None:
        if run.missing:
            self._status.count("incomplete_runs")
            log.info("%s was seen too late: its %s cannot be had any more", run.key, _words(run.missing))
        for sink in self._sinks:
            changes.messages.append(Message(sink.name, run.key, Kind.START, sink.encode_start(run)))

    def _owe_stop(self, changes: Changes, key: RunKey, end: End) -> None:
        log.info("%s is over: %s", key, end.raw_state)
        for sink in self._sinks:
            changes.messages.append(Message(sink.name, key, Kind.STOP, sink.encode_stop(key, end)))

    def _commit(self, changes: Changes) -> None:
        if not changes:
            return
        self._outbox.commit(self._cluster, changes)
        for key in changes.dropped:
            self._open.drop(key)
        for run in changes.runs.values():
            self._open.put(run)
        if changes.messages:
            self._settings.on_owed()

    def _is_ignored(self, run: Run) -> bool:
        pattern = self._settings.ignore_hosts
        return bool(pattern and run.resources and all(pattern.search(each.hostname) for each in run.resources))

    def _is_stale(self, key: RunKey, now: int) -> bool:
        old = key.start_time < now - YOUNG
        names = [sink.name for sink in self._sinks]
        return old and key not in self._open and not self._outbox.has_message(names, key, Kind.STOP)

    def _overlap(self, now: int) -> int:
        """Seconds to read again: few at most times, many once an hour."""
        if now < self._next_audit:
            return OVERLAP
        self._next_audit = now + AUDIT_EVERY
        return AUDIT_OVERLAP


def _known(run: Run, stage: Stage) -> KnownRun:
    """A run as the outbox keeps it: its nodes while it holds them, all of it while its start may still move."""
    hosts = ",".join(resource.hostname for resource in run.resources) if stage in (Stage.SEEN, Stage.LIVE) else ""
    return KnownRun(run.key, stage, hosts, run if stage is Stage.SEEN else None)


def _words(missing: Iterable[Missing]) -> str:
    return " and ".join(sorted(each.value for each in missing))


def _nearest_end(key: RunKey, ends: Iterable[AccountedEnd], still_open: Iterable[KnownRun]) -> End | None:
    """The end of the run of this job that began at this time, or else at nearly this time and is over."""
    ended = {each.key: each.end for each in ends if each.key.job_id == key.job_id}
    candidates = [*(run.key for run in still_open), *ended]
    nearest = min(candidates, key=lambda each: abs(each.start_time - key.start_time), default=None)
    if nearest is None or abs(nearest.start_time - key.start_time) > NEAR:
        return None
    return ended.get(nearest)

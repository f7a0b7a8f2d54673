"""One pass: asks Slurm, decides what is owed, and puts it into the outbox.

A query that failed ends the pass with a SlurmError; what was concluded before it stays, and nothing
is concluded from the failure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cc_slurm_adapter.ignore_rules import IgnoreRules
from cc_slurm_adapter.job import End, EndState, Missing, NodeState, Run, RunKey, Sighting
from cc_slurm_adapter.job_diff import NEAR, Comparison, Decision, compare, decide, nearest_end, with_ends
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


class Slurm(Protocol):
    """The questions a pass asks; each may raise SlurmError."""

    def list_jobs(self) -> list[Sighting]: ...
    def read_details(self, job_ids: Iterable[int]) -> Iterator[Details]: ...
    def add_texts(self, runs: list[Run]) -> list[Run]: ...
    def ended_between(self, since: int, until: int) -> list[AccountedEnd]: ...
    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> list[AccountedEnd]: ...
    def read_accounted(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[Details]: ...
    def is_forgotten(self, job_id: int) -> bool: ...
    def node_states(self) -> list[NodeState]: ...


@dataclass(frozen=True)
class WatchSettings:
    """What a pass needs of the configuration and of Slurm's."""

    cluster: str
    ignore: IgnoreRules
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
            self._settle_without_accounting()

    def node_states(self) -> list[NodeState]:
        """All nodes that are not ignored, each with the number of runs on it. Raises SlurmError."""
        jobs = self._open.jobs_by_host()
        rules = self._settings.ignore
        nodes = [node for node in self._slurm.node_states() if not rules.ignores_host(node.hostname)]
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
            end = nearest_end(key, ends, self._open.of_job(key.job_id))
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
        return [
            decide(
                run,
                self._open.of_job(run.key.job_id),
                reported=run.key in reported,
                left_out=bool(self._settings.ignore.reason(run)),
            )
            for run in runs
        ]

    def _with_texts(self, decisions: list[Decision]) -> list[Decision]:
        starting = [each.run for each in decisions if each.start_owed]
        complete = {run.key: run for run in self._slurm.add_texts(starting)} if starting else {}
        return [replace(each, run=complete.get(each.run.key, each.run)) for each in decisions]

    def _note(self, changes: Changes, decision: Decision) -> None:
        run = decision.run
        changes.dropped += decision.replaces
        if decision.stage is Stage.IGNORED:
            log.info("%s is left out: %s", run.key, self._settings.ignore.reason(run))
        if decision.start_owed:
            self._owe_start(changes, run)
        if decision.stop_owed and run.end:
            self._owe_stop(changes, run.key, run.end)
        if decision.stage is not None:
            changes.runs[run.key] = _known(run, decision.stage)

    def _end(self, ends: Mapping[RunKey, End], checkpoint: int | None = None) -> None:
        changes = Changes(checkpoint=checkpoint)
        for key, end in ends.items():
            if self._open.stage(key) is Stage.LIVE:
                self._owe_stop(changes, key, end)
            changes.runs[key] = self._open[key]._replace(stage=Stage.DONE, details=None)
        self._commit(changes)

    def _settle_without_accounting(self) -> None:
        """Runs that slurmctld no longer lists, at a site without slurmdbd: only slurmctld can say what became of them.

        A requeued job has a new submit time: that of the requeue.
        """
        vanished = [key for key in self._vanished if self._open.stage(key) is not Stage.SEEN]
        read = list(self._details({key.job_id for key in vanished}))
        broken = {job_id for details in read for job_id in details.broken}
        current = {run.key.job_id: run for details in read for run in details.runs}
        ends = {}
        for key in vanished:
            run = current.get(key.job_id)
            if run is not None and run.key != key and run.submit_time >= key.start_time:
                ends[key] = End(EndState.CANCELLED, run.submit_time, "REQUEUED")
            elif run is None and key.job_id not in broken and self._slurm.is_forgotten(key.job_id):
                log.warning("%s is over, but nobody knows since when and how: taken as failed now", key)
                ends[key] = End(EndState.FAILED, int(self._settings.clock()), "forgotten by slurmctld")
        self._end(ends)

    def _ask_accounting_for(self, vanished: list[RunKey]) -> None:
        """Open runs that slurmctld has forgotten, or whose job has another run now."""
        if vanished:
            oldest = min(key.start_time for key in vanished)
            ends = self._slurm.ends_of({key.job_id for key in vanished}, oldest, int(self._settings.clock()))
            self._take_ended([each for each in ends if each.key in self._open], None)

    def _take_ended(self, ended: list[AccountedEnd], checkpoint: int | None) -> None:
        """Runs that accounting has closed: live ones get their stop, the others start and stop together."""
        ends = {each.key: each.end for each in self._whole(ended)}
        strangers = set(self._outbox.unknown(key for key in ends if key not in self._open))
        self._take_late({key: end for key, end in ends.items() if key in strangers or self._is_seen(key)})
        self._end({key: end for key, end in ends.items() if key in self._open and not self._is_seen(key)}, checkpoint)

    def _whole(self, ended: list[AccountedEnd]) -> list[AccountedEnd]:
        """The same ends, where what may be the rest of a resized run is known for what it is.

        Accounting closes the record of a resized run and goes on with another one, often out of this window.
        """
        strangers = (each.key for each in ended if each.may_be_rest and each.key not in self._open)
        doubtful = set(self._outbox.unknown(strangers))
        if not doubtful:
            return ended
        now = int(self._settings.clock())
        jobs = {key.job_id for key in doubtful}
        begun = [run.key.start_time for job_id in jobs for run in self._open.of_job(job_id)]
        whole = self._slurm.ends_of(jobs, min([now - self._settings.max_span, *begun]), now)
        rests = doubtful - {each.key for each in whole}
        self._commit(Changes(runs={key: KnownRun(key, Stage.DONE, "", None) for key in rests}))
        resized = {key.job_id for key in rests}
        return [each for each in ended if each.key not in rests] + [
            each for each in whole if each.key.job_id in resized
        ]

    def _is_seen(self, key: RunKey) -> bool:
        return self._open.stage(key) is Stage.SEEN

    def _take_late(self, ends: Mapping[RunKey, End]) -> None:
        """Runs that ended before their start was owed: with the best resources that can still be had."""
        for details in self._details({key.job_id for key in ends}):
            self._take_details(details, [run for run in details.runs if run.key in ends and run.end])
        left = self._unreported(ends)
        if left:
            since = min(key.start_time for key in left)
            late = self._slurm.read_accounted({key.job_id for key in left}, since, int(self._settings.clock()))
            for details in late:
                self._take_details(details, with_ends(details.runs, {key: ends[key] for key in left}))
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
    hosts = ",".join(resource.hostname for resource in run.resources) if stage is not Stage.DONE else ""
    return KnownRun(run.key, stage, hosts, run if stage is Stage.SEEN else None)


def _words(missing: Iterable[Missing]) -> str:
    return " and ".join(sorted(each.value for each in missing))

"""One pass: asks Slurm, decides what is owed, and puts it into the outbox.

A query that failed ends the pass with a SlurmError; what was concluded before it stays, and nothing
is concluded from the failure.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cc_slurm_adapter.counters import Status
from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.jobs.catch_up import Endings
from cc_slurm_adapter.jobs.decisions import Decision, compare, decide
from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.reconcile import Reconciliation
from cc_slurm_adapter.jobs.recorder import Recorder
from cc_slurm_adapter.log import Progress, Reminder
from cc_slurm_adapter.model import Details, NodeState, Phase, Run, RunKey
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, Outbox, Stage
from cc_slurm_adapter.sinks.base import Encoder, RunningRows, Sink
from cc_slurm_adapter.slurm.interface import Slurm

log = logging.getLogger(__name__)

SLICE = 100
"""Runs whose texts are asked for at once, or fewer, so that it takes no longer than SLICE_SECONDS."""
SLICE_SECONDS = 2.0
COMMIT_BYTES = 2 * 1024 * 1024
"""So many bytes of messages are written before more texts are read: each may have a script of a megabyte."""


@dataclass(frozen=True)
class WatchSettings:
    """What a pass needs of the configuration and of Slurm's."""

    cluster: str
    ignore: IgnoreRules
    has_accounting: bool
    max_span: int
    """Seconds that accounting is read back at most."""
    records_steps: bool = True
    """Whether accounting, where there is any, knows what was launched in a run."""
    on_owed: Callable[[], None] = lambda: None
    """Called when something new is in the outbox."""
    on_nodes: Callable[[Sequence[NodeState]], None] = lambda nodes: None
    """Called with all nodes, ignored ones as well, as soon as a poll has read them."""
    on_start: Callable[[Run], None] = lambda run: None
    """Called with each run whose start is owed now."""
    clock: Callable[[], float] = time.time
    first_moment: FirstMoment = field(default_factory=FirstMoment)
    """What ended before it and was not known then is not started."""
    late_runs: LateRuns = field(default_factory=LateRuns)


class JobWatch:
    """Knows the open runs of one cluster and moves them on. Used from one thread."""

    def __init__(  # noqa: PLR0913 - the parts it needs
        self,
        slurm: Slurm,
        outbox: Outbox,
        encoder: Encoder,
        sinks: Sequence[Sink],
        status: Status,
        settings: WatchSettings,
    ) -> None:
        self._slurm = slurm
        self._outbox = outbox
        self._status = status
        self._settings = settings
        self._cluster = settings.cluster
        self._recorder = Recorder(
            settings.cluster, outbox, encoder, sinks, status, settings.on_owed, settings.late_runs
        )
        self._open = self._recorder.open
        self._reconciliation = Reconciliation(
            slurm, self._recorder, status, settings.cluster, settings.clock, has_accounting=settings.has_accounting
        )
        self._endings = Endings(
            slurm,
            outbox,
            self._recorder,
            self._take_details,
            settings.clock,
            settings.max_span,
            settings.first_moment,
            has_accounting=settings.has_accounting,
            records_steps=settings.records_steps,
        )
        self._broken: set[int] = set()
        """Jobs of which some run could not be understood: said once."""
        self._broken_now: set[int] = set()
        """Those that the poll which reads now could not understand, or the last one."""
        self._read_for_hooks: dict[int, RunKey] = {}
        """Jobs that were read since a poll began to read its own, each with its run."""
        self._at_once = SLICE
        self._skipped: set[RunKey] = set()
        """Runs of them that polls do not read again."""
        self._listed = outbox.checkpoint(settings.cluster) or 0
        """Unix seconds of the last listing; each was followed by a catch-up."""
        self._vanished: dict[RunKey, int] = {}
        """Open runs that the last listing did not have, each with the time of the last one that had it."""
        self._nodes: list[NodeState] = []
        self._put_off: set[RunKey] = set()
        """Runs that wait for the layout of their nodes: they are not read again before sinfo has answered."""
        self._waiting_for_nodes = Reminder()
        self._unasked = Reminder()

    @property
    def open_runs(self) -> int:
        """How many runs hold nodes as far as is known."""
        return len(self._open)

    def poll(self) -> Iterator[None]:
        """Compare all of slurmctld's jobs with what is known; yields between its questions. Raises SlurmError."""
        now = int(self._settings.clock())
        first_moment = self._settings.first_moment.limit(now)
        found = compare(self._slurm.list_jobs(), self._open, self._cluster, first_moment)
        self._recorder.end(found.ended)
        self._note_vanished(found.vanished)
        self._listed = now
        # Without accounting nobody tells of a run later: it is read as long as slurmctld has it.
        to_skip = self._skipped | self._put_off if self._settings.has_accounting else self._skipped
        strangers = self._outbox.unknown(key for key in found.strangers if key not in to_skip)
        with self._slurm.prefetch_job_info(strangers, len(self._open) + len(strangers)):
            yield from self._read(found.to_read | {key.job_id for key in strangers})
        broken = self._broken_now
        self._skipped |= {key for key in found.strangers if key.job_id in broken and key not in self._open}
        self._tell_put_off()

    def _tell_put_off(self) -> None:
        if self._put_off and self._waiting_for_nodes.is_due():
            log.warning(
                "%d runs wait until sinfo lists their nodes: their cores cannot be numbered without the layout",
                len(self._put_off),
            )

    def _note_vanished(self, vanished: Iterable[RunKey]) -> None:
        before = self._vanished
        self._vanished = {key: before.get(key, max(self._listed, key.start_time)) for key in vanished}

    def _read(self, job_ids: set[int]) -> Iterator[None]:
        """Take jobs as they are; what hook events have read in between is newer than what was asked here."""
        self._read_for_hooks.clear()
        self._broken_now.clear()
        if not job_ids:
            return
        progress, read = Progress("reading new jobs", len(job_ids)), 0
        with contextlib.closing(self._slurm.read_details(job_ids)) as chunks:
            for details in chunks:
                self._set_broken_aside(details)
                for some in self._slices(details.runs):
                    self._take_in_time([run for run in some if not self._is_outdated(run)])
                    read += len(some)
                    progress.say(read)
                    yield

    def _is_outdated(self, run: Run) -> bool:
        """Whether a hook event has read this run since the poll asked, or another start of it. Not an earlier run."""
        newer = self._read_for_hooks.get(run.key.job_id)
        if newer is None or newer == run.key:
            return newer is not None
        may_move = run.phase not in (Phase.RUNNING, Phase.ENDED)
        return may_move or any(each.stage is Stage.PREPARING for each in self._open.of_job(run.key.job_id))

    def read_nodes(self) -> None:
        """Ask how the nodes stand. Their layouts number the cores: what waited for them is read again.

        Raises SlurmError.
        """
        self._nodes = self._slurm.node_states()
        if self._nodes:
            self._put_off.clear()
            self._waiting_for_nodes.over()
        self._settings.on_nodes(self._nodes)

    def reads_all_jobs(self, count: int) -> bool:
        """Whether a question for so many jobs makes slurmctld print all that it knows."""
        return self._slurm.reads_all_jobs(count)

    def node_states(self) -> list[NodeState]:
        """All nodes that are not ignored, as they were last read, each with the number of runs on it."""
        nodes = [node for node in self._nodes if not self._settings.ignore.ignores_host(node.hostname)]
        return [replace(node, jobs_running=self._open.jobs_on(node.hostname)) for node in nodes]

    def look_at(self, job_ids: Iterable[int]) -> set[int]:
        """Ask for some jobs only, as hook events tell to; returns those that slurmctld knows. Raises SlurmError."""
        known: set[int] = set()
        for details in self._details(set(job_ids)):
            self._end_replaced(details)
            known |= {run.key.job_id for run in details.runs} | details.broken.keys() | details.failed.keys()
            self._read_for_hooks.update((run.key.job_id, run.key) for run in details.runs)
            self._take_details(details, details.runs, urgent=True)
        return known

    def _end_replaced(self, details: Details) -> None:
        """What slurmctld shows of a requeued job is its next run, so accounting is asked for the one before.

        When it does not answer, the event waits on, and the next pass asks again: that holds up no other event.
        """
        keys = {run.key for run in details.runs}
        jobs = {key.job_id for key in keys} | details.broken.keys()
        live = {run.key for job_id in jobs for run in self._open.of_job(job_id) if run.stage is not Stage.PREPARING}
        try:
            if live - keys and self._settings.has_accounting:
                list(self._endings.ask_for(sorted(live - keys)))
        except CommandCancelled:
            raise
        except SlurmError as error:
            if self._unasked.is_due():
                log.error("accounting cannot be asked for requeued runs, the next pass does that: %s", error)
        else:
            self._unasked.over()

    def is_known(self, job_id: int, *, over: bool) -> bool:
        """Whether what an event says of a job is known already: the start of a run of it that is open, or, for an
        epilog, the end of all of them.
        """
        stages = [known.stage for known in self._open.of_job(job_id)]
        if over:
            return not stages and self._outbox.knows_job(self._cluster, job_id)
        return bool(stages) and Stage.PREPARING not in stages

    def is_settled(self, job_id: int, *, over: bool) -> bool:
        """Whether a job stands where its event says. A prolog is late where its run is known and over."""
        return self.is_known(job_id, over=over) or (not over and self.is_known(job_id, over=True))

    def catch_up(self, since: int) -> Iterator[int]:
        """Read accounting from `since` until now; see Endings.catch_up. Raises SlurmError."""
        return self._endings.catch_up(since, self._vanished)

    def reconcile(self, running: RunningRows) -> None:
        """Hold what a destination believes to be running against Slurm. Raises SlurmError.

        What Slurm says is over gets its stop; what runs and the destination has lost gets its start again.
        """
        self._reconciliation.compare(running)

    def forget_never_started(self, max_age: float) -> None:
        """Runs whose nodes were made ready for longer than this, without a start or an end, are given up."""
        oldest = self._settings.clock() - max_age
        old = [key for key, run in self._open.items() if run.stage is Stage.PREPARING and key.start_time < oldest]
        self._recorder.commit(Batch(dropped=old))

    def forget_broken(self) -> None:
        """Read jobs again that could not be understood, or not be asked for."""
        self._slurm.retry_all()
        self._broken.clear()
        self._skipped.clear()

    def _details(self, job_ids: set[int]) -> Iterator[Details]:
        return self._slurm.read_details(job_ids) if job_ids else iter(())

    def _take_details(self, details: Details, runs: Sequence[Run], *, urgent: bool = False) -> None:
        self._set_broken_aside(details)
        for some in self._slices(runs):
            self._take_in_time(some, urgent=urgent)

    def _slices(self, runs: Sequence[Run]) -> Iterator[list[Run]]:
        rest = list(runs)
        while rest:
            some, rest = rest[: self._at_once], rest[self._at_once :]
            yield some

    def _take_in_time(self, runs: list[Run], *, urgent: bool = False) -> None:
        """Fewer at once while texts take long, as with rl_enable, so that hook events are served in between."""
        began = time.monotonic()
        try:
            self._take_runs(runs, urgent=urgent)
        except SlurmError:
            self._at_once = max(len(runs) // 2, 1)
            raise
        took = time.monotonic() - began
        if took > SLICE_SECONDS:
            self._at_once = max(int(len(runs) * SLICE_SECONDS / took), 1)
        elif took < SLICE_SECONDS / 4:
            self._at_once = min(2 * self._at_once, SLICE)

    def _set_broken_aside(self, details: Details) -> None:
        for job_id, reason in details.broken.items():
            self._set_aside(job_id, reason)

    def _set_aside(self, job_id: int, reason: str) -> None:
        """Said once for each job, and tried again after a reload or a restart."""
        self._broken_now.add(job_id)
        if job_id not in self._broken:
            self._broken.add(job_id)
            self._status.count("jobs_not_understood")
            log.error("job %d cannot be understood and is left out: %s", job_id, reason)

    def _take_runs(self, runs: list[Run], *, urgent: bool = False) -> None:
        decisions = self._decide(runs)
        batch = Batch(urgent=urgent)
        with contextlib.closing(self._slurm.with_texts([each.run for each in decisions if each.start_owed])) as whole:
            for each in decisions:
                try:
                    decision = replace(each, run=next(whole)) if each.start_owed else each
                except SlurmError:
                    self._recorder.commit(batch)  # what is complete counts
                    raise
                try:
                    self._note(batch, decision)
                except MemoryError:
                    raise
                except Exception:  # the one place that isolates a job
                    log.exception("%s", decision.run.key)
                    self._set_aside(decision.run.key.job_id, "an error of this program, see the log")
                if batch.size >= COMMIT_BYTES:
                    self._recorder.commit(batch)
                    batch = Batch(urgent=urgent)
        self._recorder.commit(batch)

    def _decide(self, runs: list[Run]) -> list[Decision]:
        closed = [run.key for run in runs if run.key not in self._open]
        reported = set(closed) - set(self._outbox.unknown(closed))
        first_moment = self._settings.first_moment.limit(self._settings.clock())
        history = {run.key for run in runs if run.end and run.end.end_time < first_moment} & set(closed)
        return [
            decide(
                self._as_good_as_it_gets(run),
                self._open.of_job(run.key.job_id),
                reported=run.key in reported or run.key in history,
                left_out=self._settings.ignore.reason(run),
            )
            for run in runs
        ]

    def _as_good_as_it_gets(self, run: Run) -> Run:
        """Where there is no accounting a run that is over does not wait for the layout of its nodes any longer."""
        return replace(run, awaits_layout=False) if run.end and not self._settings.has_accounting else run

    def _tell_idle(self, decision: Decision) -> None:
        """Of runs that this one replaces: those of another submission were requeued, of others the start has moved."""
        for key in decision.replaces:
            before = self._open[key].details
            if before is not None and before.submit_time != decision.run.submit_time:
                self._recorder.tell_idle(key, "REQUEUED")

    def _note(self, batch: Batch, decision: Decision) -> None:
        run = decision.run
        batch.dropped += decision.replaces
        if not self._settings.has_accounting:  # else that tells of it, also whether it launched something
            self._tell_idle(decision)
        if decision.left_out:
            self._status.count("left_out")
            log.info("%s is left out: %s", run.key, decision.left_out)
        if decision.put_off:
            self._put_off.add(run.key)
        if decision.start_owed:
            self._recorder.owe_start(batch, run)
            self._settings.on_start(run)
        if decision.stop_owed and run.end:
            self._recorder.owe_stop(batch, run.key, run.end)
        if decision.stage is not None:
            self._recorder.stands(batch, run, decision.stage)

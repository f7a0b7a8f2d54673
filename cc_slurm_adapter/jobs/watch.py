"""Follows the jobs of a cluster: polls all of them, and looks up single ones when hook events name them.

A failed query ends a poll or a lookup with a SlurmError. What was concluded before it is kept, and nothing is concluded
from the failure.

Why lookups run inside a poll: after an absence a poll reads thousands of jobs, which may take an hour (see `recorder`).
By then a job that a hook announces may be over and forgotten, and its cores and GPUs with it. So `poll` yields after
each slice, and the main loop serves hook events there, in the same thread and without a lock.

What that requires: after a yield, anything that the poll has read may be outdated. So what follows from the listing
alone is committed before the first yield, and no batch stays open across a yield. Each slice is decided with the runs
that are open at that moment, without those that a lookup has read since (`JobLookups.is_outdated`). A lookup never
yields, and never polls.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.jobs.accounted_runs import AccountedRuns
from cc_slurm_adapter.jobs.catch_up import CatchUp
from cc_slurm_adapter.jobs.decisions import compare, vanished
from cc_slurm_adapter.jobs.lost_runs import LostRuns
from cc_slurm_adapter.jobs.reconcile import Reconciliation
from cc_slurm_adapter.jobs.recorder import Recorder
from cc_slurm_adapter.jobs.report import JobNotes, RunsReport
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.sync import Syncs
from cc_slurm_adapter.log import NOTICE, Progress
from cc_slurm_adapter.model import Details, NodeState, Phase, Run, RunKey
from cc_slurm_adapter.outbox.outbox import Batch, Outbox, Stage
from cc_slurm_adapter.sinks.base import Encoder, RunningRows, Sink
from cc_slurm_adapter.slurm.interface import Slurm
from cc_slurm_adapter.system.outages import Outages

log = logging.getLogger(__name__)

READING = "reading new jobs"
"""The name of this work, for the log and the status."""
REQUEUED = "asking accounting for requeued runs"
"""What fails while accounting cannot be asked at a hook event, for the log."""


class JobWatch:
    """The open runs of one cluster, and the steps that update them. Used from one thread."""

    def __init__(  # noqa: PLR0913 - the parts it needs
        self,
        slurm: Slurm,
        outbox: Outbox,
        encoder: Encoder,
        sinks: Sequence[Sink],
        counters: Counters,
        settings: WatchSettings,
    ) -> None:
        self._slurm = slurm
        self._settings = settings
        self._store = RunStore(
            settings.cluster, outbox, encoder, sinks, counters, settings.on_pending, settings.late_runs
        )
        self._recorder = Recorder(slurm, self._store, counters, settings)
        lost = LostRuns(slurm, self._store, settings)
        accounted = AccountedRuns(slurm, self._store, self._recorder, lost, settings)
        self.syncs = Syncs(slurm, self._store, counters, settings)
        """Brings on request what ended long ago."""
        self._catch_up = CatchUp(slurm, self._store, accounted, lost, settings)
        self._reconciliation = Reconciliation(slurm, self._store, counters, settings)
        self._lookups = JobLookups(slurm, self._store, self._recorder, accounted, settings)
        self._skipped: set[RunKey] = set()
        """Runs of jobs that could not be understood: polls do not read them again."""
        self._listed = outbox.checkpoint(settings.cluster) or 0
        """Unix seconds of the last listing; each was followed by a catch-up."""
        self._vanished: dict[RunKey, int] = {}
        """Open runs that the last listing did not have, each with the time of the last listing that had it."""
        self._nodes: list[NodeState] = []

    @property
    def outages(self) -> Outages:
        """The failures that all who ask Slurm share, so that each is logged once."""
        return self._settings.outages

    @property
    def report(self) -> RunsReport:
        """How many runs are in which state. Any thread may read it."""
        stages = self._store.open_runs.stages
        return RunsReport(
            started=stages[Stage.STARTED],
            preparing=stages[Stage.PREPARING],
            ignored=stages[Stage.IGNORED],
            not_understood=self._recorder.broken.listed,
            awaiting_layout=len(self._recorder.awaiting_layout),
        )

    def poll(self) -> Iterator[None]:
        """Compare all of slurmctld's jobs with what is known. Yields between its queries. Raises SlurmError."""
        now, open_runs = self._settings.now(), self._store.open_runs
        history_until = self._settings.first_moment.limit(now)
        part = open_runs.quiet.begin()
        found = compare(self._slurm.list_jobs(part.sift), open_runs, self._settings.cluster, history_until)
        open_runs.quiet.finish(part, found.seen)
        absent = vanished(found, open_runs, open_runs.quiet.without(open_runs))
        self._store.end(found.ended)
        self._note_vanished(absent)
        self._listed = now
        to_skip = self._runs_to_skip()
        unknown = self._store.unknown(key for key in found.unknown_keys if key not in to_skip)
        with self._slurm.prefetch_job_info(unknown, len(open_runs) + len(unknown)):
            yield from self._read(found.to_read | {key.job_id for key in unknown})
        self._skipped |= {
            key for key in found.unknown_keys if key.job_id in self._recorder.broken and key not in open_runs
        }
        listed = {key.job_id for key in found.unknown_keys}
        self._recorder.broken.count_listed(lambda job_id: job_id in listed or bool(open_runs.of_job(job_id)))
        self._recorder.log_what_waits()

    def _runs_to_skip(self) -> set[RunKey]:
        """Return the runs that a poll does not read.

        Without accounting nothing shows a run later. So a run that waits for a layout is then read as long as slurmctld
        has it.
        """
        return self._skipped.union(self._recorder.awaiting_layout if self._settings.has_accounting else ())

    def _note_vanished(self, vanished: Iterable[RunKey]) -> None:
        before = self._vanished
        self._vanished = {key: before.get(key, max(self._listed, key.start_time)) for key in vanished}

    def _read(self, job_ids: set[int]) -> Iterator[None]:
        """Read these jobs and record them, without runs that a lookup has read meanwhile: what it has read is newer."""
        self._lookups.start_poll()
        self._recorder.broken.start_poll()
        if not job_ids:
            return
        read = 0
        with (
            contextlib.closing(self._slurm.read_details(job_ids)) as chunks,
            Progress(READING, len(job_ids), tell=self._settings.on_work) as progress,
        ):
            for details in chunks:
                self._recorder.broken.set_aside_all(details.broken)
                for some in self._recorder.slices(details.runs):
                    self._recorder.record_slice([run for run in some if not self._lookups.is_outdated(run)])
                    read += len(some)
                    progress.say(read)
                    yield

    def read_nodes(self) -> None:
        """Ask for the states of all nodes. Their layouts number the cores, so runs that waited for them are read again.

        Raises SlurmError.
        """
        self._nodes = self._slurm.node_states()
        if self._nodes:
            self._recorder.layouts_are_known()
        self._settings.on_nodes(self._nodes)

    def node_states(self) -> list[NodeState]:
        """Return all nodes that are not ignored, as they were last read, each with the number of runs on it."""
        nodes = [node for node in self._nodes if not self._settings.ignore.ignores_host(node.hostname)]
        return [node._replace(jobs_running=self._store.open_runs.jobs_on(node.hostname)) for node in nodes]

    def reads_all_jobs(self, count: int) -> bool:
        """Return whether a query for `count` jobs makes slurmctld print all jobs that it knows."""
        return self._slurm.reads_all_jobs(count)

    def look_up(self, job_ids: Iterable[int]) -> set[int]:
        """Look up the jobs that hook events name. Return those that slurmctld knows. Raises SlurmError."""
        return self._lookups.look_up(job_ids)

    def look_up_ended(self, job_ids: Iterable[int], since: int) -> Iterator[None]:
        """Record the runs of these jobs that accounting has closed since a Unix time. Yields between its queries.

        Raises SlurmError.
        """
        return self._lookups.look_up_ended(job_ids, since)

    def is_known(self, job_id: int, *, over: bool) -> bool:
        """Return whether what an event says about a job is already known, see `JobLookups.is_known`."""
        return self._lookups.is_known(job_id, over=over)

    def is_settled(self, job_id: int, *, over: bool) -> bool:
        """Return whether an event has nothing more to announce, see `JobLookups.is_settled`."""
        return self._lookups.is_settled(job_id, over=over)

    def catch_up(self, since: int) -> Iterator[int]:
        """Read accounting from `since` until now, see `CatchUp.run`. Raises SlurmError."""
        return self._catch_up.run(since, self._vanished)

    def reconcile(self, running: RunningRows) -> None:
        """Compare what a destination believes to be running with Slurm, see `Reconciliation`. Raises SlurmError."""
        self._reconciliation.reconcile(running)

    def notes_of(self, job_id: int) -> JobNotes:
        """Return what is known about a job and is not in the state file. Any thread may call this."""
        waiting = list(self._recorder.awaiting_layout)  # in one step, as the main thread changes it
        starts = sorted(key.start_time for key in waiting if key.job_id == job_id)
        return JobNotes(self._recorder.broken.why(job_id), tuple(starts))

    def forget_never_started(self, max_age: float) -> None:
        """Forget runs that have been PREPARING for longer than `max_age` seconds, without a start or an end."""
        oldest = self._settings.clock() - max_age
        old = [
            key
            for key, run in self._store.open_runs.items()
            if run.stage is Stage.PREPARING and key.start_time < oldest
        ]
        self._store.commit(Batch(dropped=old))

    def encode_with(self, encoder: Encoder) -> None:
        """Make all further messages with this encoder."""
        self._store.encoder = encoder

    def forget_broken(self) -> None:
        """Let jobs be read again that could not be understood, or that Slurm could not be asked about."""
        self._slurm.retry_all()
        self._recorder.broken.forget()
        self._skipped.clear()


class JobLookups:
    """Looks up single jobs that hook events name, also between two slices of a poll."""

    def __init__(
        self, slurm: Slurm, store: RunStore, recorder: Recorder, accounted: AccountedRuns, settings: WatchSettings
    ) -> None:
        self._slurm = slurm
        self._store = store
        self._open = store.open_runs
        self._recorder = recorder
        self._accounted = accounted
        self._settings = settings
        self._read_since_poll: dict[int, RunKey] = {}
        """Jobs that were looked up since the poll began to read its own, each with its run."""

    def start_poll(self) -> None:
        """Forget what was looked up before this poll began to read."""
        self._read_since_poll.clear()

    def is_outdated(self, run: Run) -> bool:
        """Return whether a lookup has read this run since the poll asked, or the same run with another start time.

        A lookup of a later run of the job does not make an earlier run outdated.
        """
        newer = self._read_since_poll.get(run.key.job_id)
        if newer is None or newer == run.key:
            return newer is not None
        may_move = run.phase not in (Phase.RUNNING, Phase.ENDED)
        return may_move or any(each.stage is Stage.PREPARING for each in self._open.of_job(run.key.job_id))

    def look_up(self, job_ids: Iterable[int]) -> set[int]:
        """Read these jobs and record them as urgent. Return those that slurmctld knows. Raises SlurmError."""
        known: set[int] = set()
        wanted = set(job_ids)
        for details in self._slurm.read_details(wanted) if wanted else ():
            self._end_replaced(details)
            known |= {run.key.job_id for run in details.runs} | details.broken.keys() | details.failed.keys()
            self._read_since_poll.update((run.key.job_id, run.key) for run in details.runs)
            self._recorder.record(details, details.runs, urgent=True)
        return known

    def look_up_ended(self, job_ids: Iterable[int], since: int) -> Iterator[None]:
        """Record the runs of these jobs that accounting has closed since a Unix time. Yields between its queries.

        Raises SlurmError.
        """
        for ended in self._slurm.ends_of(job_ids, since, self._settings.now()):
            self._accounted.record(ended)
            yield

    def _end_replaced(self, details: Details) -> None:
        """Ask accounting about the runs before those that were read.

        slurmctld shows only the next run of a requeued job. If accounting does not answer, the event waits longer, and
        the next catch-up asks again. No other event waits for that.
        """
        keys = {run.key for run in details.runs}
        jobs = {key.job_id for key in keys} | details.broken.keys()
        begun = {run.key for job_id in jobs for run in self._open.of_job(job_id) if run.stage is not Stage.PREPARING}
        try:
            if begun - keys and self._settings.has_accounting:
                for _ in self._accounted.look_up(sorted(begun - keys)):
                    pass
        except CommandCancelled:
            raise
        except SlurmError as error:
            note = self._settings.outages.failed(REQUEUED, str(error))
            if note is not None:
                log.error(
                    "accounting cannot be asked for requeued runs, the next catch-up does that: %s%s", error, note
                )
        else:
            if begun - keys:
                self._log_accounting_works()

    def _log_accounting_works(self) -> None:
        note = self._settings.outages.works(REQUEUED)
        if note is not None:
            log.log(NOTICE, "%s works again%s", REQUEUED, note)

    def is_known(self, job_id: int, *, over: bool) -> bool:
        """Return whether what an event says about a job is already known.

        For a prolog that means that an open run of the job has begun; for an epilog, that all its runs are over.
        """
        stages = [known.stage for known in self._open.of_job(job_id)]
        if over:
            return not stages and self._store.knows_job(job_id)
        return bool(stages) and Stage.PREPARING not in stages

    def is_settled(self, job_id: int, *, over: bool) -> bool:
        """Return whether an event has nothing more to announce.

        A prolog is late if a run of its job is known and over.
        """
        return self.is_known(job_id, over=over) or (not over and self.is_known(job_id, over=True))

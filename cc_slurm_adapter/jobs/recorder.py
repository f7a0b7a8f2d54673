"""Records runs as Slurm shows them: decides what follows, adds their texts, and commits them in batches.

The modules that find runs call it: `watch` (polls and hook events) and `catch_up` (accounting). Each job is isolated: a
job that cannot be understood, or that causes an error of this program, is set aside, and the others are recorded.

Why texts are a second query: squeue prints many jobs in one query, but neither their scripts nor the text of `scontrol
show job`. scontrol must be asked for the script of each job: with rl_enable, which allows 2 queries a second, 10,000
jobs take 83 minutes. So decisions come first, and texts are read only for runs whose start is enqueued, one slice at a
time. Hook events are served between two slices. A script may have a megabyte, so texts are read one by one, and a batch
is committed as soon as it has 2 MB. If the query for a text fails, the runs whose texts are complete are kept.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.jobs.broken_jobs import BrokenJobs
from cc_slurm_adapter.jobs.decisions import Decision, decide
from cc_slurm_adapter.jobs.notes import note_of
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.log import Reminder, Repeated
from cc_slurm_adapter.model import Details, Run, RunKey
from cc_slurm_adapter.outbox.outbox import Batch
from cc_slurm_adapter.slurm.interface import Slurm
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

SLICE = 100
"""The most runs whose texts are asked for together; fewer if that takes longer than SLICE_SECONDS."""
SLICE_SECONDS = 2.0
"""About as long as a hook event waits for the slice under way."""
COMMIT_BYTES = 2 * 1024 * 1024
"""A batch with this many bytes of messages is written before more texts are read: a script may have a megabyte."""


class Recorder:
    """Records the runs of one cluster."""

    def __init__(self, slurm: Slurm, store: RunStore, counters: Counters, settings: WatchSettings) -> None:
        self._slurm = slurm
        self._store = store
        self._open = store.open_runs
        self._counters = counters
        self._settings = settings
        self._slice_size = SLICE
        self.broken = BrokenJobs(counters, settings.monotonic)
        self._awaiting_layout: set[RunKey] = set()
        """Runs that wait for the layout of their nodes: they are not read again before sinfo has answered."""
        self._no_layout = Reminder(settings.monotonic)
        self._errors = Repeated(settings.monotonic)

    def record(self, details: Details, runs: Sequence[Run], *, urgent: bool = False, has_texts: bool = True) -> None:
        """Record some of the runs that were read. Urgent ones are sent before all messages that already wait.

        `has_texts` is whether slurmctld may have their texts. Raises SlurmError if they cannot be read, and StateError.
        """
        self.broken.set_aside_all(details.broken)
        for some in self.slices(runs):
            self.record_slice(some, urgent=urgent, has_texts=has_texts)

    def slices(self, runs: Sequence[Run]) -> Iterator[list[Run]]:
        """Yield the runs in lists for `record_slice`. The time that a list takes decides how long the next one is."""
        rest = list(runs)
        while rest:
            some, rest = rest[: self._slice_size], rest[self._slice_size :]
            yield some

    def record_slice(self, runs: list[Run], *, urgent: bool = False, has_texts: bool = True) -> None:
        """Record these runs. Make the next slices shorter while texts take long, as they do with rl_enable."""
        began = time.monotonic()
        try:
            self._record_runs(runs, urgent=urgent, has_texts=has_texts)
        except SlurmError:
            self._slice_size = max(len(runs) // 2, 1)
            raise
        elapsed = time.monotonic() - began
        if elapsed > SLICE_SECONDS:
            self._slice_size = max(int(len(runs) * SLICE_SECONDS / elapsed), 1)
        elif elapsed < SLICE_SECONDS / 4:
            self._slice_size = min(2 * self._slice_size, SLICE)

    def _record_runs(self, runs: list[Run], *, urgent: bool, has_texts: bool) -> None:
        decisions = self._decide(runs)
        starting = [each.run for each in decisions if each.enqueue_start and has_texts]
        batch = Batch(urgent=urgent)
        with contextlib.closing(self._slurm.with_texts(starting)) as with_texts:
            for each in decisions:
                try:
                    run = next(with_texts) if each.enqueue_start and has_texts else each.run
                except SlurmError:
                    self._store.commit(batch)  # runs whose texts are complete are kept
                    raise
                try:
                    self._add(batch, each, run)
                except MemoryError:
                    raise
                except Exception as error:  # the one place that isolates a job
                    if self._errors.is_due(type(error).__name__):
                        log.exception("%s cannot be recorded%s", run.key, self._errors.note)
                    self.broken.set_aside(run.key.job_id, "an error of this program, see the log")
                if batch.size >= COMMIT_BYTES:
                    self._store.commit(batch)
                    batch = Batch(urgent=urgent)
        self._store.commit(batch)

    def _decide(self, runs: list[Run]) -> list[Decision]:
        not_open = [run.key for run in runs if run.key not in self._open]
        reported = set(not_open) - set(self._store.unknown(not_open))
        history_until = self._settings.history_until()
        history = {run.key for run in runs if run.end and run.end.end_time < history_until} & set(not_open)
        return [
            decide(
                self._without_waiting(run),
                self._open.of_job(run.key.job_id),
                reported=run.key in reported or run.key in history,
                left_out=self._settings.ignore.reason(run),
            )
            for run in runs
        ]

    def _without_waiting(self, run: Run) -> Run:
        """Return the run. If it is over and there is no accounting, it does not wait for a layout any longer.

        Accounting would show the run later. Without it slurmctld forgets the run, and nothing shows it any more.
        """
        return replace(run, awaits_layout=False) if run.end and not self._settings.has_accounting else run

    def _add(self, batch: Batch, decision: Decision, run: Run) -> None:
        """Add to a batch what follows for one run, which has its texts."""
        batch.dropped += decision.replaces
        if not self._settings.has_accounting:  # accounting would show the run, and whether it launched something
            self._log_idle(decision)
        if decision.left_out:
            self._counters.count("left_out")
            log.info("%s is left out: %s", run.key, decision.left_out)
        if decision.awaits_layout:
            self._awaiting_layout.add(run.key)
        if decision.enqueue_start:
            self._store.enqueue_start(batch, run)
            self._settings.on_start(run)
        if decision.enqueue_stop and run.end:
            self._store.enqueue_stop(batch, run.key, run.end)
        if decision.stage is not None:
            self._store.set_state(batch, run, decision.stage, note_of(decision))

    def _log_idle(self, decision: Decision) -> None:
        """Log the runs that this one replaces if they were requeued: then their submit time is another one.

        If the submit time is the same, only the start has moved.
        """
        for key in decision.replaces:
            before = self._open[key].details
            if before is not None and before.submit_time != decision.run.submit_time:
                self._store.log_idle(key, "REQUEUED")

    @property
    def awaiting_layout(self) -> Collection[RunKey]:
        """Runs whose start waits until sinfo lists their nodes."""
        return self._awaiting_layout

    def log_what_waits(self) -> None:
        """Log from time to time how many such runs there are, and how many jobs could not be understood."""
        self.broken.log_more()
        if self._awaiting_layout and self._no_layout.is_due():
            log.warning(
                "%s until sinfo lists the nodes: the cores cannot be numbered without the layout%s",
                counted(len(self._awaiting_layout), "run waits", "runs wait"),
                self._no_layout.note,
            )

    def layouts_are_known(self) -> None:
        """Record that sinfo has answered: runs that waited for that are read again."""
        self._awaiting_layout.clear()
        self._no_layout.over()

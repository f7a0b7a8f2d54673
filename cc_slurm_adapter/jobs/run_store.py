"""Keeps the open runs of a cluster in memory and in the outbox, and enqueues the messages about them.

In `jobs/`, this is the module that reads runs from the outbox and writes to it. All changes are collected in a `Batch`,
which is committed as a whole: a run never has a state without the messages that belong to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from sys import intern

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.jobs import notes
from cc_slurm_adapter.jobs.open_runs import OpenRuns
from cc_slurm_adapter.model import End, Run, RunKey
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import Encoded, Encoder, Kind, Sink

log = logging.getLogger(__name__)


class RunStore:
    """The runs of one cluster. `on_pending` is called when there are new messages to send."""

    def __init__(  # noqa: PLR0913 - the parts it needs
        self,
        cluster: str,
        outbox: Outbox,
        encoder: Encoder,
        sinks: Sequence[Sink],
        counters: Counters,
        on_pending: Callable[[], None],
        late_runs: LateRuns,
    ) -> None:
        self.open_runs = OpenRuns(outbox.open_runs(cluster))
        """Only `commit` changes it."""
        self._cluster = cluster
        self._outbox = outbox
        self.encoder = encoder
        """What makes the messages; a reload replaces it."""
        self._sink_names = tuple(sink.name for sink in sinks)
        self._leading = sinks[0]
        self._counters = counters
        self._on_pending = on_pending
        self._late_runs = late_runs

    def enqueue_start(self, batch: Batch, run: Run) -> None:
        """Add the start of a run to a batch, for every sink."""
        if run.missing:
            missing = "_".join(sorted(each.value for each in run.missing))
            self._counters.count("incomplete_runs", missing=missing, why="late" if run.end else "not_told")
            self._log_incomplete(run)
        self._enqueue(batch, run.key, Kind.START, self.encoder.encode_start(run))

    def enqueue_stop(self, batch: Batch, key: RunKey, end: End) -> None:
        """Add the stop of a run to a batch, for every sink.

        If a later run of the job may be refused because of this run, the message that would withdraw it is added, too.
        """
        batch.over.append((key, end))
        self._enqueue(batch, key, Kind.STOP, self.encoder.encode_stop(key, end))
        if self._leading.withdraws and end.may_run_again:
            withdrawal = self.encoder.encode_withdrawal(key)
            batch.add(Message((self._leading.name,), key, Kind.WITHDRAW, withdrawal))

    def _enqueue(self, batch: Batch, key: RunKey, kind: Kind, body: Encoded) -> None:
        batch.add(Message(self._sink_names, key, kind, body))

    def set_state(self, batch: Batch, run: Run, stage: Stage, note: str = "") -> None:
        """Add the new state of a run to a batch. It keeps its note, if it has one.

        Its nodes are stored while it holds them, and all its details while its start may still move.
        """
        hosts = intern(",".join(resource.hostname for resource in run.resources)) if stage is not Stage.DONE else ""
        known = self.open_runs.get(run.key)
        note = known.note if known and known.note else note
        batch.runs[run.key] = OpenRun(run.key, stage, hosts, run if stage is Stage.PREPARING else None, note=note)

    def end(self, ends: Mapping[RunKey, End]) -> None:
        """End these open runs: those whose start was enqueued get their stop. Raises StateError."""
        batch = Batch()
        for key, end in ends.items():
            if self.open_runs.stage(key) is Stage.STARTED:
                self.enqueue_stop(batch, key, end)
            known = self.open_runs[key]
            note = known.note or notes.note_of_end(end)
            batch.runs[key] = known._replace(stage=Stage.DONE, details=None, lost_since=None, note=note)
        self.commit(batch)

    def leave_out_idle(self, ends: Mapping[RunKey, End]) -> None:
        """Record as DONE, without a message, runs that launched nothing before their job went back to the queue."""
        self.leave_out(ends, notes.IDLE)
        for key, end in ends.items():
            self.log_idle(key, end.raw_state)

    def leave_out(self, keys: Iterable[RunKey], note: str) -> None:
        """Record runs as DONE, without a message."""
        self.commit(Batch(runs={key: OpenRun(key, Stage.DONE, "", None, note=note) for key in keys}))

    def log_idle(self, key: RunKey, why: str) -> None:
        """Log a run that launched nothing, and count it by the reason, a word of Slurm."""
        self._counters.count("never_launched", reason=why.split()[0].lower())
        log.info("%s launched nothing before its job went back to the queue (%s): not reported", key, why)

    def commit(self, batch: Batch) -> None:
        """Write all of a batch, or nothing. Raises StateError."""
        if not batch:
            return
        self._outbox.commit(self._cluster, batch)
        for key, end in batch.over:
            log.info("%s is over: %s", key, end.raw_state)
        for key in batch.dropped:
            self.open_runs.drop(key)
        for run in batch.runs.values():
            self.open_runs.put(run)
        if batch.messages:
            self._on_pending()

    def resend_starts(self, sink: str, is_lost: Callable[[RunKey], bool], sent_before: float) -> list[RunKey]:
        """Make starts pending again that a sink has lost, if they were sent before `sent_before` (Unix time)."""
        lost = self._outbox.resend_starts(sink, self._cluster, is_lost, sent_before)
        if lost:
            self._on_pending()
        return lost

    def has_pending_stop(self, key: RunKey) -> bool:
        """Return whether the stop of a run waits to be sent to the leading sink."""
        return self._outbox.has_message([self._leading.name], key, Kind.STOP)

    def settled_since(self, keys: Iterable[RunKey], when: float) -> set[RunKey]:
        """Return those runs that were found to be over, or whose stop was delivered, at `when` (Unix time) or later."""
        return self._outbox.settled_since(keys, when)

    def unknown(self, keys: Iterable[RunKey]) -> list[RunKey]:
        """Return those keys for which no run is known in any state, in their order."""
        return self._outbox.unknown(keys)

    def forgotten_until(self) -> int:
        """Return the Unix time up to which runs that are over may be forgotten; 0 if none is."""
        return self._outbox.forgotten_until()

    def knows_job(self, job_id: int) -> bool:
        """Return whether any run of a job is known, in any state."""
        return self._outbox.knows_job(self._cluster, job_id)

    def has_pending(self, *, more_than: int) -> bool:
        """Return whether more than `more_than` messages wait to be sent, without parked ones. Raises StateError."""
        return self._outbox.has_waiting(more_than=more_than)

    def _log_incomplete(self, run: Run) -> None:
        if run.end:
            self._late_runs.found(run.key)
            log.info("%s was seen too late: its %s can no longer be found out", run.key, notes.list_of(run.missing))
        else:
            log.info("%s is reported without its %s: Slurm does not say which", run.key, notes.list_of(run.missing))

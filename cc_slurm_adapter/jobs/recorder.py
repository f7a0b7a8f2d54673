"""Writes down what is owed for a run: its start and stop for every sink, and where it stands now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from cc_slurm_adapter.counters import Status
from cc_slurm_adapter.jobs.open_runs import OpenRuns
from cc_slurm_adapter.model import End, Missing, Run, RunKey
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import Encoded, Encoder, Kind, Sink

log = logging.getLogger(__name__)


class Recorder:
    """The outbox and the open runs of one cluster, kept in step. `on_owed` is called when something new is owed."""

    def __init__(  # noqa: PLR0913 - the parts it needs
        self,
        cluster: str,
        outbox: Outbox,
        encoder: Encoder,
        sinks: Sequence[Sink],
        status: Status,
        on_owed: Callable[[], None],
        late_runs: LateRuns,
    ) -> None:
        self.open = OpenRuns(outbox.open_runs(cluster))
        self.late_runs = late_runs
        self._cluster = cluster
        self._outbox = outbox
        self._encoder = encoder
        self._sinks = sinks
        self._leading = sinks[0]
        self._status = status
        self._on_owed = on_owed

    def owe_start(self, batch: Batch, run: Run) -> None:
        """Every sink is to be told that the run began."""
        if run.missing:
            self._status.count("incomplete_runs")
            self._tell_incomplete(run)
        self._owe(batch, run.key, Kind.START, self._encoder.encode_start(run))

    def owe_stop(self, batch: Batch, key: RunKey, end: End) -> None:
        """Every sink is to be told that the run is over.

        Where a later run of the job may be refused because of it, what would withdraw it is kept.
        """
        batch.over.append((key, end))
        self._owe(batch, key, Kind.STOP, self._encoder.encode_stop(key, end))
        if self._leading.withdraws and end.may_run_again:
            withdrawal = self._encoder.encode_withdrawal(key)
            batch.messages.append(Message((self._leading.name,), key, Kind.WITHDRAW, withdrawal))

    def _owe(self, batch: Batch, key: RunKey, kind: Kind, body: Encoded) -> None:
        batch.messages.append(Message(tuple(sink.name for sink in self._sinks), key, kind, body))

    def resend_starts(self, sink: str, is_lost: Callable[[RunKey], bool], sent_before: float) -> list[RunKey]:
        """Starts that a sink had and has lost are owed again, if they left before a Unix time."""
        lost = self._outbox.resend_starts(sink, self._cluster, is_lost, sent_before)
        if lost:
            self._on_owed()
        return lost

    def owes_stop(self, key: RunKey) -> bool:
        """Whether the leading sink is still to be told that the run is over."""
        return self._outbox.has_message([self._leading.name], key, Kind.STOP)

    def settled_since(self, keys: Iterable[RunKey], when: float) -> set[RunKey]:
        """Those of the runs that were found to be over, or of which that was delivered, at a Unix time or later."""
        return self._outbox.settled_since(keys, when)

    def stands(self, batch: Batch, run: Run, stage: Stage) -> None:
        """The run is kept: with its nodes while it holds them, with all of it while its start may still move."""
        hosts = ",".join(resource.hostname for resource in run.resources) if stage is not Stage.DONE else ""
        batch.runs[run.key] = OpenRun(run.key, stage, hosts, run if stage is Stage.PREPARING else None)

    def end(self, ends: Mapping[RunKey, End]) -> None:
        """These open runs are over: those whose start is owed get their stop. Raises StateError."""
        batch = Batch()
        for key, end in ends.items():
            if self.open.stage(key) is Stage.STARTED:
                self.owe_stop(batch, key, end)
            batch.runs[key] = self.open[key]._replace(stage=Stage.DONE, details=None, lost_since=None)
        self.commit(batch)

    def leave_out_idle(self, ends: Mapping[RunKey, End]) -> None:
        """Runs that launched nothing before their job went back to the queue are over and not reported."""
        self.commit(Batch(runs={key: OpenRun(key, Stage.DONE, "", None) for key in ends}))
        for key, end in ends.items():
            self.tell_idle(key, end.raw_state)

    def tell_idle(self, key: RunKey, why: str) -> None:
        """Such a run is counted by the reason, a word of Slurm, and named in the log."""
        self._status.count(f"never_launched_{why.split()[0].lower()}")
        log.info("%s launched nothing before its job went back to the queue (%s): not reported", key, why)

    def commit(self, batch: Batch) -> None:
        """Write it all as a whole. Raises StateError."""
        if not batch:
            return
        self._outbox.commit(self._cluster, batch)
        for key, end in batch.over:
            log.info("%s is over: %s", key, end.raw_state)
        for key in batch.dropped:
            self.open.drop(key)
        for run in batch.runs.values():
            self.open.put(run)
        if batch.messages:
            self._on_owed()

    def _tell_incomplete(self, run: Run) -> None:
        if run.end:
            self.late_runs.found(run.key)
            log.info("%s was seen too late: its %s cannot be had any more", run.key, _words(run.missing))
        else:
            log.info("%s is reported without its %s: Slurm does not say which", run.key, _words(run.missing))


def _words(missing: Iterable[Missing]) -> str:
    return " and ".join(sorted(each.value for each in missing))

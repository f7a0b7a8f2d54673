"""Sends runs anew that an administrator names, with what slurmctld says about them now, in place of what is stored.

It is for sites that have corrected gpuPciAddrs or hwthreadNumbering, or have seen another mistake in stored runs. A run
is only sent anew if that makes nothing worse. It is left alone, and the reason is told, if

- slurmctld does not show it any more: accounting has neither cores nor GPU indices, and the state file keeps no details
  of runs that have begun,
- what would be sent says nothing about cores or GPUs of which cc-backend has some,
- cc-backend does not list it: then there is nothing to replace, or it was stored in these minutes. Only a start that
  was refused is made anew without that,
- cc-backend has another run of its job with which it would refuse this one, once it is removed,
- it is not to be reported, or its start, or that of another run of its job, is still to be sent,
- Slurm does not give its job script and text, which cc-backend has, or the state file has no room for them,
- cc-backend has refused the new start of a run before it, or does not accept it in time.

If what is stored is the same already, nothing is sent.

First slurmctld is asked (`find`). Then whoever uses this asks cc-backend, which may take long, for the runs of the
plan. At last the texts are read and committed in slices, each when cc-backend has accepted the one before (`send`). So
a mistake in the new configuration costs one row, not all.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.model import Run, RunKey
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.resends import RUNS_AT_ONCE, Again, KnownRun, Wanted
from cc_slurm_adapter.sinks.base import Allocation, Encoder
from cc_slurm_adapter.slurm.interface import Slurm

log = logging.getLogger(__name__)

SLICE = 20
"""The most runs whose texts are read and that are committed together: hook events wait meanwhile. As many rows at most
are removed before cc-backend has accepted what takes their place."""
FEW = 20
"""Of more jobs than these, only those are read that slurmctld lists: a step may name hundreds that it has forgotten."""
DAY = 86400
"""If another run of a job is stored that began less than these seconds before a run, or later, that one is refused."""
GAP, LONGEST = 600, 3600
"""cc-backend is asked for spans of at most LONGEST seconds, in which runs began at most GAP seconds apart."""
SENT, SAME, LEFT, OVER = "sent", "same", "left", "over"
"""What became of a run. OVER is a run that is over and that Slurm does not show any more: nobody can correct it."""
NOT_SHOWN = (
    "slurmctld does not show this run any more, and accounting has neither its cores nor its GPUs: cc-backend keeps"
    " what it has"
)
NOT_REMOVED = (
    "cc-backend does not remove its row, which stays as it was there: the daemon's log says why; when the cause is"
    " gone, ask again"
)
NO_TEXTS = "Slurm does not give its job script and slurmInfo now, which cc-backend would lose: ask again"
NOT_LISTED = "cc-backend does not list it: what it was sent in the last minutes it lists later"


class Outcome(NamedTuple):
    """What became of a run."""

    job_id: int
    start_time: int
    result: str
    """SENT, SAME, LEFT or OVER."""
    text: str = ""
    """What has changed, or why the run is left alone."""


@dataclass
class Plan:
    """What is to be done for some runs."""

    runs: dict[RunKey, Run] = field(default_factory=dict)
    """The runs to compare with what is stored, as slurmctld shows them."""
    refused: set[RunKey] = field(default_factory=set)
    """Those of them whose start was refused: they may be sent anew although nothing is stored."""
    bare: set[RunKey] = field(default_factory=set)
    """Those of them that have neither job script nor slurmInfo to lose."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """The spans of start times (Unix seconds, both included) for which cc-backend is to be asked, those of the first
    jobs first."""
    asked: set[RunKey] = field(default_factory=set)
    """The runs that matter in the answer: all that are known of these jobs."""
    outcomes: list[Outcome] = field(default_factory=list)
    """What is decided already."""
    next: tuple[int, int] | None = None
    """The job id and start time after which there are more runs; None if these are the last."""

    def keep_answered(self, answered: Sequence[tuple[int, int]]) -> bool:
        """Keep only the first runs, those before any whose job has runs outside the spans that were answered.

        The next step goes on behind them. Return False if there is none.
        """
        unread = {
            key.job_id for key in self.asked if not any(first <= key.start_time <= last for first, last in answered)
        }
        late = min((key[1:] for key in self.runs if key.job_id in unread), default=None)
        if late is None:
            return True
        self.runs = {key: run for key, run in self.runs.items() if key[1:] < late}
        self.outcomes = [each for each in self.outcomes if each[:2] < late]
        self.next = max([*(key[1:] for key in self.runs), *(each[:2] for each in self.outcomes)], default=None)
        return self.next is not None


class Resend:
    """Sends runs of one cluster anew to the leading sink. Used from the main thread."""

    def __init__(  # noqa: PLR0913 - the parts it needs
        self,
        slurm: Slurm,
        outbox: Outbox,
        encoder: Encoder,
        sink: str,
        cluster: str,
        ignore: IgnoreRules,
        on_pending: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_pending` is called when there are new messages to send."""
        self._slurm = slurm
        self._outbox = outbox
        self._encoder = encoder
        self._sink = sink
        self._cluster = cluster
        self._ignore = ignore
        self._on_pending = on_pending

    def use(self, encoder: Encoder, ignore: IgnoreRules) -> None:
        """Go on with another configuration."""
        self._encoder, self._ignore = encoder, ignore

    def find(self, wanted: Wanted, after: tuple[int, int] = (0, 0)) -> Plan:
        """Ask slurmctld for the next of the wanted runs, RUNS_AT_ONCE at most. Raises SlurmError and StateError."""
        plan = Plan()
        known = self._outbox.resends.runs(self._sink, self._cluster, wanted, after)
        if len(known) > RUNS_AT_ONCE:
            known = known[:RUNS_AT_ONCE]
            plan.next = known[-1].key[1:]
        possible = {each.key.job_id for each in known if not each.why_not}
        shown, unreadable = self._read(possible)
        for each in known:
            run = shown.get(each.key)
            why_not = each.why_not or unreadable.get(each.key.job_id) or self._why_not(each, run)
            if why_not or run is None:
                result = OVER if each.is_over and why_not == NOT_SHOWN else LEFT
                plan.outcomes.append(Outcome(*each.key[1:], result, why_not))
                continue
            plan.runs[each.key] = run
            if each.start_state == "parked":
                plan.refused.add(each.key)
            if each.is_bare:
                plan.bare.add(each.key)
        plan.asked = set(self._outbox.resends.starts_of(self._cluster, {key.job_id for key in plan.runs}))
        plan.spans = sorted(
            spans_of(key.start_time for key in plan.asked),
            key=lambda span: min(key.job_id for key in plan.asked if span[0] <= key.start_time <= span[1]),
        )
        return plan

    def _read(self, job_ids: set[int]) -> tuple[dict[RunKey, Run], dict[int, str]]:
        """Return the runs that slurmctld shows of these jobs, and why other jobs cannot be read."""
        if len(job_ids) > FEW:
            job_ids = job_ids & {listed.job_id for listed in self._slurm.list_jobs()}
        runs: dict[RunKey, Run] = {}
        unreadable: dict[int, str] = {}
        for details in self._slurm.read_details(job_ids) if job_ids else ():
            runs.update((run.key, run) for run in details.runs)
            unreadable.update(details.broken)
            unreadable.update(details.failed)
        return runs, {job: f"what Slurm shows of it cannot be used: {why}" for job, why in unreadable.items()}

    def _why_not(self, known: KnownRun, run: Run | None) -> str:
        """Return why a run is left alone, whatever cc-backend has of it; '' if nothing speaks against it."""
        if run is None:
            return NOT_SHOWN
        if run.is_completing or not run.resources:
            return "Slurm is just taking its nodes away: ask again when it is no longer COMPLETING"
        if known.is_over and run.end is None:
            return "it is over as far as was known here, but slurmctld shows it running"
        if run.awaits_layout:
            return "the layout of its nodes is not known now: ask again in a minute"
        return ""

    def send(
        self,
        plan: Plan,
        stored: Mapping[RunKey, Allocation],
        wait: Callable[[], bool],
        wait_at_end: Callable[[], bool] = lambda: False,
    ) -> Iterator[None]:
        """Send the runs of a plan anew that are `stored` with something else. Yields between its queries.

        The first is sent alone, and so is each with hosts that cc-backend does not have of it. No more rows are removed
        before the starts in the place of those before are accepted. `wait` waits for that a moment, and returns whether
        to go on waiting; `wait_at_end` does so for the last ones. Each run is compared just before it is sent, as a
        reload may come in between.

        Raises SlurmError and StateError: what was committed before is in the outcomes.
        """
        left, size = deque(plan.runs), 1
        removed: list[RunKey] = []
        while left:
            why_not = yield from self._wait_for(removed, wait)
            why_not = self._note_kept(plan, removed) or why_not
            if why_not:
                self._leave(plan, left, stored, why_not)
                return
            size = SLICE if removed else size
            changes = self._next_changes(plan, left, stored, size)
            sent = self._commit(plan, self._with_texts(plan, changes), changes) if changes else []
            removed = [key for key in sent if key in stored]
            yield
        yield from self._wait_for(removed, wait_at_end)
        _, refused = self._outbox.resends.answers(self._sink, removed)
        if self._note_kept(plan, removed) or refused:
            plan.next = None  # no step removes more after a mistake that is known

    def _note_kept(self, plan: Plan, removed: Sequence[RunKey]) -> str:
        """Leave those runs alone that cc-backend has not removed. Return why no more are to be removed, or ''."""
        kept = self._outbox.resends.kept(self._sink, removed)
        places = {key[1:] for key in kept}
        plan.outcomes = [
            each._replace(result=LEFT, text=NOT_REMOVED) if each[:2] in places else each for each in plan.outcomes
        ]
        return f"cc-backend does not remove the row of job {kept[0].job_id}, so no more are sent anew" if kept else ""

    def _wait_for(self, removed: Sequence[RunKey], wait: Callable[[], bool]) -> Generator[None, None, str]:
        """Wait until these starts are accepted. Return why no more runs may be removed, or ''."""
        while True:
            waiting, refused = self._outbox.resends.answers(self._sink, removed)
            for key, reason in refused.items():
                return f"cc-backend has refused the new start of job {key.job_id}, so no more are sent anew: {reason}"
            if not waiting:
                return ""
            if not wait():
                return (
                    f"cc-backend has not accepted the new start of job {waiting[0].job_id} yet: ask again when it has"
                )
            yield

    def _leave(self, plan: Plan, left: Iterable[RunKey], stored: Mapping[RunKey, Allocation], why: str) -> None:
        """Leave these runs alone, as far as they are to be sent, and all that come after this plan."""
        for key in left:
            outcome = self._compare(plan, plan.runs[key], stored)
            plan.outcomes.append(_left(key, why) if outcome.result == SENT else outcome)
        plan.next = None

    def _next_changes(
        self, plan: Plan, left: deque[RunKey], stored: Mapping[RunKey, Allocation], size: int
    ) -> dict[RunKey, str]:
        """Take the next runs that are to be sent, `size` at most, with what changes."""
        changes: dict[RunKey, str] = {}
        while left and len(changes) < size:
            run = plan.runs[left.popleft()]
            outcome = self._compare(plan, run, stored)
            if outcome.result != SENT:
                plan.outcomes.append(outcome)
                continue
            changes[run.key] = outcome.text
            if run.key in stored and self._encoder.allocation_of(run).shares.keys() - stored[run.key].shares.keys():
                break
        return changes

    def _with_texts(self, plan: Plan, keys: Iterable[RunKey]) -> list[Run]:
        """Return these runs with their texts, without those that would lose theirs."""
        found: list[Run] = []
        with closing(self._slurm.with_texts([plan.runs[key] for key in keys])) as with_texts:
            for run in with_texts:
                if run.slurm_info or run.job_script or run.key in plan.bare:
                    found.append(run)
                else:
                    plan.outcomes.append(_left(run.key, NO_TEXTS))
        return found

    def _compare(self, plan: Plan, run: Run, stored: Mapping[RunKey, Allocation]) -> Outcome:
        key, before = run.key, stored.get(run.key)
        others = [each for each in stored if each.job_id == key.job_id and each != key]
        if any(each.start_time > key.start_time - DAY for each in others):
            return _left(key, "cc-backend has another run of its job, with which it would not take this one again")
        reason = self._ignore.reason(run)
        if reason:
            return _left(key, f"the configuration leaves it out now ({reason})")
        now = self._encoder.allocation_of(run)
        if before is None:
            text = "its start was refused, and is made anew"
            return Outcome(*key[1:], SENT, text) if key in plan.refused else _left(key, NOT_LISTED)
        if now == before:
            return Outcome(*key[1:], SAME)
        lacks = now.lacks_of(before)
        if not lacks and run.end and len(now.shares) < len(before.shares):
            lacks = f"{len(before.shares) - len(now.shares)} of its nodes"
        if lacks:
            return _left(key, f"Slurm and the configuration no longer tell what cc-backend has: {lacks}")
        return Outcome(*key[1:], SENT, now.changes_from(before))

    def _commit(self, plan: Plan, runs: Sequence[Run], changes: Mapping[RunKey, str]) -> list[RunKey]:
        """Return which of these runs are sent anew."""
        refused = self._outbox.resends.send(self._sink, [self._again(run) for run in runs])
        for run in runs:
            why_not = refused.get(run.key)
            outcome = _left(run.key, why_not) if why_not else Outcome(*run.key[1:], SENT, changes[run.key])
            plan.outcomes.append(outcome)
            if not why_not:
                log.info("%s: sent anew: %s", run.key, outcome.text)
        self._on_pending()
        return [run.key for run in runs if run.key not in refused]

    def _again(self, run: Run) -> Again:
        stop = self._encoder.encode_stop(run.key, run.end) if run.end else None
        return Again(run.key, self._encoder.encode_withdrawal(run.key), self._encoder.encode_start(run), stop)


def spans_of(moments: Iterable[int]) -> list[tuple[int, int]]:
    """Return spans (first, last) that contain all these moments, and little else."""
    spans: list[tuple[int, int]] = []
    for moment in sorted(moments):
        if spans and moment - spans[-1][1] <= GAP and moment - spans[-1][0] <= LONGEST:
            spans[-1] = (spans[-1][0], moment)
        else:
            spans.append((moment, moment))
    return spans


def _left(key: RunKey, why: str) -> Outcome:
    return Outcome(*key[1:], LEFT, why)

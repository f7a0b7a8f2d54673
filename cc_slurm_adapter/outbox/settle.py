"""What an answer does to its row, and what it says about the destination.

Verdict        The row                                                     The destination
-------        -------                                                     ---------------
DELIVERED      delivered, retained or done: see schema                     answers
REJECTED       parked. A removal that is refused is given up: the start    answers
               for which it made room is in conflict, its own start is
               sent all the same.
CONFLICT       in conflict, or pending until an earlier run of its job     answers
               is removed
UNKNOWN_RUN    pending, behind its start that is sent again; parked        answers
               after MAX_TRIES refusals, or where there is no start
TOO_LARGE      pending without its next text; parked when it has none      nothing is concluded
NOT_YET        pending from `retry_after` on                               nothing is concluded
FAILED         pending after a wait of its own; parked after some          pauses when row after row fails
               refusals while others succeed
UNAVAILABLE    pending; as if too large when its connection is broken      pauses, unless others succeed
               off again and again while others succeed
MISCONFIGURED  pending; parked after some refusals while others succeed    pauses, unless others succeed

The last three pause the destination in any case if they give a time in `retry_after`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.answered import Answered, Answers
from cc_slurm_adapter.outbox.deliveries import Deliveries
from cc_slurm_adapter.outbox.event_latency import EventLatency
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.row_failures import MAX_TRIES, RowFailures
from cc_slurm_adapter.outbox.row_lines import RowLines
from cc_slurm_adapter.outbox.sink_health import CONCERN_ALL, SinkHealth, wait_of_row
from cc_slurm_adapter.outbox.tasks import Request, Rows
from cc_slurm_adapter.outbox.withdrawals import Room
from cc_slurm_adapter.sinks.base import REMOVALS, Answer, Delivery, Kind, Sink, Verdict

log = logging.getLogger(__name__)

NOTHING_CONCLUDED = (Verdict.TOO_LARGE, Verdict.NOT_YET)
"""Verdicts that may be given without an answer from the destination, so they say nothing about it."""


class Settler:
    """Settles the answers of one destination; used by all threads that send to it. Raises StateError."""

    def __init__(  # noqa: PLR0913 - the parts that an answer changes
        self,
        sink: Sink,
        deliveries: Deliveries,
        counters: Counters,
        health: SinkHealth,
        failures: RowFailures,
        on_unknown: Callable[[], None],
        on_delivered: Callable[[], None],
        late_runs: LateRuns | None,
        event_latency: EventLatency | None = None,
    ) -> None:
        """See `Sender`."""
        self._sink = sink
        self._deliveries = deliveries
        self._counters = counters
        self._health = health
        self._failures = failures
        self._on_unknown = on_unknown
        self._on_delivered = on_delivered
        self._late_runs = late_runs
        self._event_latency = event_latency
        self.answered = Answered(self._settle_delivered)
        """What was delivered, until it is settled."""
        self._lines = RowLines(sink.label)
        self._what_follows: Mapping[Verdict, Callable[[Delivery, Answer], None]] = {
            Verdict.REJECTED: self._park,
            Verdict.CONFLICT: self._make_room_or_conflict,
            Verdict.UNKNOWN_RUN: self._send_start_first,
            Verdict.TOO_LARGE: self._cut,
            Verdict.NOT_YET: self._put_off,
        }

    def settle(
        self,
        deliveries: Sequence[Delivery],
        answers: Sequence[Answer],
        request: Request,
        is_stopping: Callable[[], bool] = lambda: False,
        *,
        can_wait: bool = False,
    ) -> None:
        """Settle the answers to rows that were sent together.

        A sender that `is_stopping` breaks requests off itself. Such answers say nothing about the destination. Messages
        that were delivered `can_wait` if more is sent right now: then their rows are settled with those.
        """
        self._counters.observe("requests", time.monotonic() - request.began, sink=self._sink.name)
        done: list[tuple[Delivery, Answer]] = []
        others: list[tuple[Delivery, Answer]] = []
        for answered in zip(deliveries, answers):
            (done if answered[1].verdict is Verdict.DELIVERED else others).append(answered)
        is_full = False
        if done:
            self._note_delivered(done, request)
            is_full = self.answered.add(done)
        if others or is_full or not can_wait:
            self.answered.settle()
        if others:
            if done:
                request = request._replace(successes=self._health.successes)  # its own say nothing about other rows
            self._settle_others(others, request, is_stopping)

    def _settle_others(self, answered: Answers, request: Request, is_stopping: Callable[[], bool]) -> None:
        """Settle answers other than that it was delivered."""
        if isinstance(request.task, Rows) and len(request.task.deliveries) > 1:
            self._failures.suspect(each.row_id for each, answer in answered if answer.verdict in CONCERN_ALL)
        is_away = is_stopping()
        for delivery, answer in answered:
            if answer.verdict in CONCERN_ALL:
                # This is one failure, however many rows were not sent because of it: the others just stay pending.
                if not is_away:
                    self._fail(delivery, answer, request)
                is_away = True
            elif answer.verdict is Verdict.FAILED:
                self._fail(delivery, answer, request)
            else:
                if answer.verdict not in NOTHING_CONCLUDED:
                    self._note_answers([delivery], request)
                self._what_follows[answer.verdict](delivery, answer)
            self._count(delivery.kind, answer.verdict)

    def _count(self, kind: Kind, verdict: Verdict, answers: int = 1) -> None:
        """Count answers: last, so that everything that follows from them is done when the number can be seen."""
        result = verdict.name.lower()
        self._counters.count("deliveries", answers, sink=self._sink.name, kind=kind.value, result=result)

    def report_due(self) -> None:
        """Log how many more rows were refused for reasons that were logged before, if that is due."""
        self._lines.report_due()

    def _note_answers(self, deliveries: Sequence[Delivery], request: Request) -> None:
        for delivery in deliveries:
            self._failures.settled(delivery.row_id)
        self._health.answers(len(deliveries), request)

    def _note_delivered(self, done: Answers, request: Request) -> None:
        self._note_answers([delivery for delivery, _ in done], request)
        for delivery, answer in done:
            if self._late_runs is not None and delivery.kind is Kind.START:
                self._late_runs.start_delivered(delivery.key, is_new=not answer.reason)
            if self._event_latency is not None:
                self._event_latency.delivered(delivery.key.job_id, delivery.kind)

    def _settle_delivered(self, done: Answers) -> None:
        """Settle messages that were delivered, whenever that was."""
        had_before = {delivery.row_id for delivery, answer in done if answer.had_it and not delivery.first_sent}
        self._deliveries.delivered(*(delivery for delivery, _ in done), had_before=had_before)
        self._on_delivered()
        for delivery, answer in done:
            self._log_delivered(delivery, answer)
        for kind, answers in Counter(delivery.kind for delivery, _ in done).items():
            self._count(kind, Verdict.DELIVERED, answers)

    def _log_delivered(self, delivery: Delivery, answer: Answer) -> None:
        label = self._sink.label
        if delivery.kind in REMOVALS:
            text = f"removed from {label} to make room for the next run of its job"
            if delivery.kind is Kind.REMOVE:
                text = f"removed from {label} to be sent anew"
            self._lines.report_run(delivery.key, text, level=NOTICE)
            return
        why = f" ({answer.reason})" if answer.reason else ""
        log.info("%s: %s delivered to %s%s", delivery.key, delivery.kind.value, label, why)
        if delivery.parkings:
            self._lines.report(delivery, "delivered after it was parked", answer.reason or "it was stored", NOTICE)

    def _park(self, delivery: Delivery, answer: Answer) -> None:
        if delivery.kind is Kind.WITHDRAW:
            self._give_up_removal(delivery, answer)
            return
        if delivery.kind is Kind.REMOVE:
            self._deliveries.not_removed(delivery)
            self._failures.forget(delivery.row_id)
            text = (
                f"{self._sink.label} does not remove it, so it cannot be sent anew: its row stays as it is there; when"
                " the cause is gone, give -resend again"
            )
            self._lines.report_run(delivery.key, text, answer.reason)
            return
        self._log_restored(self._deliveries.parked(delivery, answer.reason))
        self._failures.forget(delivery.row_id)
        self._lines.report(delivery, "refused and parked, tried again later or after SIGHUP", answer.reason)

    def _give_up_removal(self, delivery: Delivery, answer: Answer) -> None:
        refused, restored = self._deliveries.not_withdrawn(delivery, answer.reason)
        self._failures.forget(delivery.row_id)
        label = self._sink.label
        self._lines.report_run(delivery.key, f"{label} does not remove it for the next run of its job", answer.reason)
        if refused:
            why = "an earlier run could not be removed"
            self._lines.report_run(refused, f"start not stored, another run of this job is: {label}", why)
        self._log_restored(restored)

    def _make_room_or_conflict(self, delivery: Delivery, answer: Answer) -> None:
        if self._sink.withdraws:
            room = self._deliveries.make_room(delivery, time.time() + self._health.timing.longest_wait)
            if room is not Room.NONE:
                log.info("%s: another run of this job is stored, %s: %s", delivery.key, room.value, answer.reason)
                return
        restored = self._deliveries.conflict(delivery, answer.reason)
        self._lines.report(delivery, "not stored, another run of this job is", answer.reason)
        self._log_restored(restored)

    def _log_restored(self, keys: Sequence[RunKey]) -> None:
        for key in keys:
            self._lines.report_run(key, f"sent to {self._sink.label} again, as the later run was refused after all")

    def _send_start_first(self, delivery: Delivery, answer: Answer) -> None:
        if delivery.refusals >= MAX_TRIES or not self._deliveries.start_first(delivery):
            self._park(delivery, answer)
            return
        self._deliveries.put_off(delivery, 0, answer.reason, refused=True)
        what = "of a run that is not (or no longer) known there, sending its start again"
        self._lines.report(delivery, what, answer.reason)
        self._on_unknown()

    def _cut(self, delivery: Delivery, answer: Answer) -> None:
        if self._deliveries.cut(delivery):
            self._lines.report(delivery, "too large, sending it with less text", answer.reason)
        else:
            self._park(delivery, answer)

    def _put_off(self, delivery: Delivery, answer: Answer) -> None:
        wait = answer.retry_after or self._health.timing.longest_wait
        self._deliveries.put_off(delivery, time.time() + wait, answer.reason)

    def _fail(self, delivery: Delivery, answer: Answer, request: Request) -> None:
        """Decide whether the row or the destination is at fault, and let that one wait.

        Only a row that is refused while others succeed is at fault: it is parked after some tries. A missing answer
        says nothing about the row, however often that happens. Rows that failed are sent last, so all rows get their
        turn in either case. A connection that breaks for one row while others succeed means that the row is too large.
        """
        failure = self._failures.of(delivery.row_id, request.successes)
        if answer.broke_off:
            self._failures.was_refused(delivery.row_id)
            if failure.broke_off(self._health.successes) >= self._failures.tries_of(delivery.row_id):
                self._failures.forget(delivery.row_id)
                self._cut(delivery, answer)
                return
        self._health.count_failure()
        others_succeed = self._health.successes > failure.successes_before
        is_refusal = answer.verdict is Verdict.FAILED or (answer.verdict is Verdict.MISCONFIGURED and others_succeed)
        if is_refusal:
            self._failures.was_refused(delivery.row_id)
        if is_refusal and others_succeed and delivery.refusals + 1 >= self._failures.tries_of(delivery.row_id):
            self._park(delivery, answer)
            return
        pause = 0.0
        if answer.retry_after or (not others_succeed and self._health.fails_as_a_whole(answer)):
            pause = self._health.pause_after(answer, request)
        wait = wait_of_row(failure.times, pause, timing=self._health.timing)
        failure.times += 1
        self._deliveries.put_off(delivery, time.time() + wait, answer.reason, refused=is_refusal)
        what = f"{delivery.kind.value} to {self._sink.label} failed"
        log.info("%s: %s, again in %.0f s: %s", delivery.key, what, wait, answer.reason)

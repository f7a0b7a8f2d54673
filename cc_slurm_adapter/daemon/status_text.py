"""A status as text: one line for systemd and the log, and one screen for `-status`.

Reasons come from Slurm and from destinations, so every text is made printable, and is cut if it is long. A colour never
says anything that the words do not say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cc_slurm_adapter.daemon.report import RUNNING, STEPS, DestinationReport, StatusReport
from cc_slurm_adapter.daemon.screen_text import LONGEST, clipped, columns, wrapped
from cc_slurm_adapter.jobs.report import SyncReport
from cc_slurm_adapter.log import Work
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.report import QueueReport, SinkReport
from cc_slurm_adapter.system.backoff import StepReport
from cc_slurm_adapter.system.quantities import ago, counted, duration, moment, size

LONGEST_LINE = 300
"""The most characters of the first line: systemctl and the log show it as one line."""
LEAST_WIDTH = 20
"""In narrower terminals, lines are wider than the terminal."""
LABEL = 13
"""Columns of the labels at the left, if the screen is at least three times as wide."""
SHORT_WORK = 2.0
"""Seconds: work that has not taken longer is not shown, as it is probably over now."""
MOST_REASONS, MOST_FAULTS, MOST_WORDS = 5, 12, 8
"""The most reasons of refusals, faults and words of nodes that a screen shows."""
RED, YELLOW, GREEN = "31", "33", "32"
"""Parameters of the escape sequence that colours a text (ECMA-48, SGR)."""


class Line(NamedTuple):
    """A line of the screen, with the colour of all of it; '' for none."""

    text: str
    color: str = ""


def first_line(report: StatusReport) -> str:
    """Return the status in one printable line of at most LONGEST_LINE characters."""
    if report.program.phase != RUNNING:
        return clipped(report.program.phase, LONGEST_LINE)
    queues = [destination.queue for destination in report.destinations]
    pending, parked, conflicts = (sum(each) for each in zip((0, 0, 0), *map(_numbers, queues)))
    to = " and ".join(destination.sink.label for destination in report.destinations) or "nobody"
    text = f"reports {report.slurm.cluster} to {to}: {counted(report.runs.open, 'open run')}, {pending:,} pending"
    text += f", {parked:,} parked" if parked else ""
    text += f", {conflicts:,} in conflict" if conflicts else ""
    return clipped(f"{text}; {_summary(report)}", LONGEST_LINE)


def _numbers(queue: QueueReport) -> tuple[int, int, int]:
    return queue.pending, queue.parked, queue.conflicts


def _summary(report: StatusReport) -> str:
    """Return whether all is well, or how many faults there are and the worst one."""
    if not report.faults:
        return "all is well"
    worst = report.faults[0]
    since = f" (since {moment(worst.since, report.time)}{_age(worst, report.time)})" if worst.since else ""
    number = len(report.faults)
    return f"{counted(number, 'fault')}{', the worst' if number > 1 else ''}: {clipped(worst.text, 160)}{since}"


def _age(fault: Finding, now: float) -> str:
    """Return how long a fault lasts, from a minute on: so systemd gets another line once a minute at most."""
    return f", {duration(now - fault.since)}" if now - fault.since >= 60 else ""


def lines(report: StatusReport, width: int = 80, *, colors: bool = False) -> list[str]:
    """Return the status as lines of at most `width` columns (LEAST_WIDTH at least), without a newline.

    With `colors`, a line may begin and end with an escape sequence, which takes no column.
    """
    return [colored(line) if colors else line.text for line in screen(report, width)]


def screen(report: StatusReport, width: int) -> list[Line]:
    """Return the same as `lines`, with the colours apart from the texts."""
    return list(_lines(report, max(width, LEAST_WIDTH)))


def colored(line: Line) -> str:
    """Return a line with the escape sequences of its colour."""
    return f"\x1b[{line.color}m{line.text}\x1b[0m" if line.color and line.text else line.text


def _lines(report: StatusReport, width: int) -> Iterator[Line]:
    color = color_of(report.faults)
    yield from (Line(each, color) for each in wrapped(first_line(report), width))
    yield Line("")
    for label, texts, of_item in _items(report):
        yield from (Line(each, of_item) for each in item(label, texts, width))
    if report.faults:
        yield Line("")
    for fault in report.faults[:MOST_FAULTS]:
        yield from (Line(each, color_of([fault])) for each in wrapped(_fault_text(fault, report.time), width, 2))
    if len(report.faults) > MOST_FAULTS:
        yield from map(Line, wrapped(f"and {len(report.faults) - MOST_FAULTS} more: -status -json lists all", width, 2))


def color_of(faults: Iterable[Finding]) -> str:
    """Return the colour of the worst of some faults; green if there are none."""
    worst = max((fault.level for fault in faults), default=0)
    return RED if worst >= logging.ERROR else YELLOW if worst else GREEN


def _fault_text(fault: Finding, now: float) -> str:
    word = "ERROR" if fault.level >= logging.ERROR else "WARNING"
    since = f" (for {duration(now - fault.since)})" if fault.since else ""
    next_step = f" -> {clipped(fault.next_step)}" if fault.next_step else ""
    return f"{word} {clipped(fault.text)}{since}{next_step}"


Items = Iterator[tuple[str, list[str], str]]
"""Each item of the screen: its label, its texts, which are separated by semicolons, and its colour."""


def _items(report: StatusReport) -> Items:
    yield from _of_program(report)
    for name in (*STEPS, *(each for each in report.steps if each not in STEPS)):
        if name in report.steps:
            step = report.steps[name]
            yield name, [_step_text(step, report.time)], RED if step.failing_since else ""
    for work in report.work:
        if report.time - work.began >= SHORT_WORK:
            yield "under way", [_work_text(work, report.time)], ""
    if report.sync.is_under_way:
        yield "sync", list(_sync_texts(report.sync, report.time)), RED if report.sync.failing_since else ""
    for destination in report.destinations:
        texts = [_sink_text(destination.sink, report.time), *_queue_texts(destination, report.time)]
        yield destination.sink.label, texts, RED if destination.sink.failing_since else ""
    yield from _of_parked(report)
    yield from _of_runs(report)
    state = report.state
    kept = "" if state.is_durable else ", cannot be written: all is kept in memory"
    limit = f" of {size(state.max_bytes)}" if state.max_bytes else ""
    yield "state file", [f"{clipped(state.path)}: {size(state.bytes)}{limit}{kept}"], "" if state.is_durable else RED


def _of_program(report: StatusReport) -> Items:
    program, slurm, now = report.program, report.slurm, report.time
    since = f"since {moment(program.started, now)} ({duration(now - program.started)})"
    version = f"{program.version} (Python {program.python}), pid {program.pid}, user {program.user}"
    yield "program", [f"{version}, {since}", program.config_path], ""
    if not slurm.cluster:
        yield "cluster", ["not known yet"], ""
        return
    texts = [", ".join(filter(None, (slurm.cluster, slurm.version and f"Slurm {slurm.version}", slurm.format)))]
    if not slurm.has_accounting:
        texts.append("no accounting")
    elif slurm.accounting_read_until:
        texts.append(f"accounting read until {ago(slurm.accounting_read_until, now)}")
    if slurm.first_moment:
        texts.append(f"nothing is reported that ended before {moment(slurm.first_moment, now)}")
    yield "cluster", texts, ""


def _step_text(step: StepReport, now: float) -> str:
    if step.failing_since:
        times = f" ({counted(step.failures, 'time')})" if step.failures else ""
        worked = f"; worked {ago(step.last_success, now)}" if step.last_success else "; never worked"
        return f"fails for {duration(now - step.failing_since)}{times}: {clipped(step.why)}{worked}"
    if step.waits:
        return f"waits: {clipped(step.waits)}"
    if not step.last_success:
        return "not yet"
    return f"{ago(step.last_success, now)}, took {duration(step.seconds)}"


def _work_text(work: Work, now: float) -> str:
    elapsed = now - work.began
    left = f", {duration(elapsed * (work.total - work.done) / work.done)} left" if 0 < work.done < work.total else ""
    return f"{work.what}: {work.done:,} of {work.total:,}, for {duration(elapsed)}{left}"


def _sync_texts(sync: SyncReport, now: float) -> Iterator[str]:
    """Yield what is brought, how far it is, and what keeps it from going on."""
    yield f"job {sync.job}" if sync.job else f"what ended from {moment(sync.since, now)} to {moment(sync.until, now)}"
    share = (sync.reached - sync.since) / max(sync.until - sync.since, 1)
    left = f", {duration((now - sync.began) * (1 - share) / share)} left" if 0 < share < 1 else ""
    yield f"{int(100 * share)} % for {duration(now - sync.began)}{left}"
    yield f"{counted(sync.found, 'run')}, {sync.enqueued:,} not known before"
    if sync.failing_since:
        yield f"fails for {duration(now - sync.failing_since)}: {clipped(sync.why)}"
    elif sync.waits_for:
        yield f"waits: {clipped(sync.waits_for)}"


def _sink_text(sink: SinkReport, now: float) -> str:
    answered = f"the last answer {ago(sink.last_answer, now)}" if sink.last_answer else "no answer since the start"
    if sink.failing_since:
        return f"{sink.trouble} for {duration(now - sink.failing_since)}: {clipped(sink.why)}; {answered}"
    refused = f"; does not take the node states: {clipped(sink.nodes_why)}" if sink.nodes_why else ""
    return f"answers, {ago(sink.last_answer, now)}{refused}" if sink.last_answer else f"{answered}{refused}"


def _queue_texts(destination: DestinationReport, now: float) -> Iterator[str]:
    queue = destination.queue
    oldest = f", the oldest for {duration(now - queue.oldest_pending)}" if queue.oldest_pending else ""
    yield f"{queue.pending:,} pending{oldest}" if queue.pending else "nothing pending"
    if queue.parked:
        yield f"{queue.parked:,} parked"
    if queue.conflicts:
        yield f"{queue.conflicts:,} in conflict"


def _of_parked(report: StatusReport) -> Items:
    labels = {each.sink.name: each.sink.label for each in report.destinations}
    for number, parked in enumerate(report.parked[:MOST_REASONS]):
        who = f"{parked.messages:,} refused by {labels.get(parked.sink, parked.sink)}"
        yield (
            "" if number else "parked",
            [f"{who}: {clipped(parked.reason, 160)} (first: job {parked.first.job_id})"],
            "",
        )
    if len(report.parked) > MOST_REASONS:
        yield "", [f"and {counted(len(report.parked) - MOST_REASONS, 'more reason')}: -queue list"], ""


def _of_runs(report: StatusReport) -> Items:
    runs, hooks, now = report.runs, report.hooks, report.time
    stages = f"{runs.started:,} started, {runs.preparing:,} preparing, {runs.ignored:,} left out"
    texts = [f"{runs.open:,} open: {stages}"]
    if runs.not_understood:
        texts.append(f"{runs.not_understood} not understood")
    if runs.awaiting_layout:
        texts.append(f"{runs.awaiting_layout} wait for sinfo")
    incomplete = list(_incomplete(report))
    if incomplete:
        texts.append(f"incomplete since the start: {', '.join(incomplete[:MOST_WORDS])}")
    yield "runs", texts, ""
    if hooks.events:
        texts = [f"{counted(hooks.events, 'event')} since the start, {hooks.a_minute:g} a minute"]
        yield "hooks", [*texts, f"the last {ago(hooks.last_event, now)}"], ""
    else:
        yield "hooks", ["no event since the start"], ""
    words = sorted(report.nodes.items(), key=lambda each: (-each[1], each[0]))
    if words:
        yield "node states", [", ".join(f"{number:,} {word}" for word, number in words[:MOST_WORDS])], ""


def _incomplete(report: StatusReport) -> Iterator[str]:
    """Yield how many runs were reported without what, and why, by the labels of the counter."""
    for sample in report.samples:
        if sample.name == "incomplete_runs":
            labels = {label.name: clipped(label.value, 40) for label in sample.labels}
            missing = " and ".join(labels.pop("missing", "").split("_"))
            others = " ".join(labels.values()).replace("_", " ")
            yield f"{sample.value:,}{missing and f' without {missing}'}{others and f' ({others})'}"


def item(label: str, texts: Iterable[str], width: int) -> list[str]:
    """Return the lines of an item: its label at the left, its texts beside it, or below it on a narrow screen."""
    text = clipped("; ".join(each for each in texts if each), 2 * LONGEST)
    label = next(iter(wrapped(label, LABEL - 1)), "")
    if width < 3 * LABEL:
        return wrapped(f"{label} {text}".strip(), width, 2)
    first, *rest = wrapped(text, width - LABEL) or [""]
    padded = label + " " * (LABEL - columns(label))
    return [f"{padded}{first}".rstrip(), *(f"{' ' * LABEL}{each}" for each in rest)]

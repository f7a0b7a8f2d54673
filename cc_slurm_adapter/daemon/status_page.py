"""The status as one HTML page, for people who would rather look than type.

It needs nothing from anywhere: one style sheet within it, charts as inline SVG, no script. It loads itself again twice
a minute, which a Content-Security-Policy does not forbid. Whoever reaches metricsListen may read it, so it shows
nothing that comes from a job: see `public_text`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from cc_slurm_adapter.daemon import chart
from cc_slurm_adapter.daemon.history import Points
from cc_slurm_adapter.daemon.markup import Content, Markup, element, joined
from cc_slurm_adapter.daemon.page_style import STYLE
from cc_slurm_adapter.daemon.public_text import public_report
from cc_slurm_adapter.daemon.report import RUNNING, STEPS, DestinationReport, StatusReport
from cc_slurm_adapter.daemon.status_text import first_line
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.report import Parked, SinkReport
from cc_slurm_adapter.system.backoff import StepReport
from cc_slurm_adapter.system.quantities import ago, counted, duration, moment, size

REFRESH = 30
"""Seconds until the page loads itself again."""
MOST_FAULTS, MOST_REASONS, MOST_WORDS, MOST_COUNTERS = 50, 20, 20, 300
"""The most faults, reasons of refusals, words of nodes and counters that are shown."""

Fact = tuple[str, Content]
"""A name and what is known."""


def page(report: StatusReport, points: Points) -> str:
    """Return the page. `points` are the last 60 minutes, see `history`."""
    report = public_report(report)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="refresh", content=REFRESH),
        element("meta", name="color-scheme", content="light dark"),
        element("title", first_line(report)),
        element("style", STYLE),
    )
    parts = (_header(report), element("main", *_sections(report, points)), _footer(report))
    return f"<!DOCTYPE html>\n{element('html', head, element('body', *parts), lang='en')}\n"


def _sections(report: StatusReport, points: Points) -> Iterator[Markup]:
    yield from _faults(report)
    if report.destinations:
        yield element("section", _tiles(report), aria_label="Numbers")
    yield _section("Destinations", element("div", *_destinations(report, points), class_="stack"))
    if report.parked:
        yield _section("Refused messages", _parked(report))
    yield _section("Recurring work", _steps(report))
    yield _section("Details", element("div", *_details(report), class_="grid"))
    yield element("section", _counters(report), aria_label="Counters")


def _section(title: str, *contents: Content) -> Markup:
    name = title.lower().replace(" ", "-")
    return element("section", element("h2", title, id=name), *contents, aria_labelledby=name)


# --- the top of the page


def _header(report: StatusReport) -> Markup:
    program, slurm = report.program, report.slurm
    who = [f"cc-slurm-adapter {program.version}", slurm.cluster, slurm.version and f"Slurm {slurm.version}"]
    title, class_ = _headline(report)
    return element(
        "header",
        element("p", " · ".join(filter(None, who)), class_="who"),
        element("h1", title, class_=class_),
        element("p", _lead(report), class_="lead"),
    )


def _headline(report: StatusReport) -> tuple[str, str]:
    """Return the state in a few words, and the class of its colour."""
    if report.faults:
        return counted(len(report.faults), "fault"), _class_of(max(fault.level for fault in report.faults))
    return ("All is well", "good") if report.program.phase == RUNNING else ("Starting", "")


def _class_of(level: int) -> str:
    return "error" if level >= logging.ERROR else "warning"


def _lead(report: StatusReport) -> str:
    """Return one sentence: what it does, and since when."""
    if report.program.phase != RUNNING:
        return report.program.phase
    to = " and ".join(each.sink.label for each in report.destinations) or "nobody"
    started = report.program.started
    since = f"{moment(started, report.time)} ({duration(report.time - started)})"
    return f"Reports the jobs of {report.slurm.cluster or 'a cluster'} to {to}, since {since}."


def _faults(report: StatusReport) -> Iterator[Markup]:
    """Yield what is wrong, the worst first, each with the next step."""
    if not report.faults:
        return
    items = [_fault(fault, report.time) for fault in report.faults[:MOST_FAULTS]]
    left_out = len(report.faults) - len(items)
    more = [element("p", f"And {left_out} more.", class_="quiet")] if left_out else []
    yield _section("What to look at", element("ol", *items, class_="faults"), *more)


def _fault(fault: Finding, now: float) -> Markup:
    class_ = _class_of(fault.level)
    since = f"since {moment(fault.since, now)} ({duration(now - fault.since)})" if fault.since else ""
    row = element(
        "div",
        element("span", class_.capitalize(), class_=f"badge {class_}"),
        element("span", " · ".join(filter(None, (fault.subject, since))), class_="quiet"),
        class_="row",
    )
    step = [element("p", element("strong", "Next step: "), fault.next_step)] if fault.next_step else []
    return element("li", row, element("p", fault.text, class_="text"), *step, class_=f"fault-{class_}")


def _tiles(report: StatusReport) -> Markup:
    queues = [each.queue for each in report.destinations]
    runs = report.runs
    parked = sum(queue.parked for queue in queues)
    tiles = (
        _tile("open runs", runs.open),
        _tile("messages to send", sum(queue.pending for queue in queues)),
        _tile("refused messages", parked, "warning" if parked else ""),
        _tile("hook events a minute", report.hooks.a_minute),
    )
    return element("dl", *tiles, class_="tiles")


def _tile(name: str, number: int, class_: str = "") -> Markup:
    return element("div", element("dt", name), element("dd", _number(number), class_=class_))


def _number(number: int) -> str:
    """Return a number that people can read: `1,234,567`."""
    return f"{number:,}"


# --- destinations


def _destinations(report: StatusReport, points: Points) -> Iterator[Markup]:
    if not report.destinations:
        yield element("p", "None is known yet.", class_="card")
    for number, destination in enumerate(report.destinations):
        yield _destination(destination, report.time, number, points)


def _destination(destination: DestinationReport, now: float, number: int, points: Points) -> Markup:
    sink = destination.sink
    title = element("div", element("h3", sink.label), _sink_badge(sink), class_="row")
    why = [element("p", text, class_="why") for text in _sink_problems(sink, now)]
    facts = element("div", title, *why, _facts(_destination_facts(destination, now, points)))
    return element("article", facts, element("div", *_charts(sink, number, points)), class_="card destination")


def _sink_badge(sink: SinkReport) -> Markup:
    if sink.failing_since:
        return _badge(sink.trouble, "error")
    if sink.nodes_why:
        return _badge("does not take node states", "warning")
    return _badge("answers", "good") if sink.last_answer else _badge("no answer yet", "unknown")


def _badge(text: str, class_: str) -> Markup:
    return element("span", text, class_=f"badge {class_}")


def _sink_problems(sink: SinkReport, now: float) -> Iterator[str]:
    if sink.failing_since:
        yield f"For {duration(now - sink.failing_since)}: {sink.why or 'the reason is not known'}"
    elif sink.nodes_why:
        yield f"Node states: {sink.nodes_why}"


def _destination_facts(destination: DestinationReport, now: float, points: Points) -> Iterator[Fact]:
    sink, queue = destination
    yield "Last answer", ago(sink.last_answer, now)
    yield "To be sent", _number(queue.pending)
    if queue.oldest_pending:
        yield "Oldest of them", duration(now - queue.oldest_pending)
    yield "Refused", _number(queue.parked)
    yield "In conflict", _number(queue.conflicts)
    minutes = [point.of(sink.name) for point in points if point]
    if minutes:
        yield "Delivered in the last hour", _number(sum(each.delivered for each in minutes if each))


def _charts(sink: SinkReport, number: int, points: Points) -> Iterator[Markup]:
    minutes = [point.of(sink.name) if point else None for point in points]
    if any(minutes):
        yield chart.draw(sink.label, number, minutes)
    else:
        yield element("p", "The chart of the last hour begins a minute after the start.", class_="quiet")


def _parked(report: StatusReport) -> Markup:
    labels = {each.sink.name: each.sink.label for each in report.destinations}
    shown = report.parked[:MOST_REASONS]
    left_out = len(report.parked) - len(shown)
    rows = [_parked_row(each, labels.get(each.sink, each.sink)) for each in shown]
    note = "cc-slurm-adapter -queue list --state parked shows the jobs, and what exactly was answered."
    caption = f"{note} {counted(left_out, 'more reason')} not shown here." if left_out else note
    head = ("Reason", ("Destination", "short"), ("Messages", "number"))
    return element("div", _table(caption, head, rows), class_="card")


def _parked_row(parked: Parked, label: str) -> Markup:
    return _row((parked.reason, "long"), (label, "short"), _count(parked.messages))


# --- Slurm, and all else


def _steps(report: StatusReport) -> Markup:
    names = [name for name in STEPS if name in report.steps]
    rows = [_step(report.steps[name], report.time) for name in names]
    if not rows:
        return element("p", "Nothing was done yet: it begins when Slurm has answered.", class_="card")
    head = ("What is done", ("Last success", "short"), ("Took", "number optional"), ("State", "short"))
    return element("div", _table("", head, rows), class_="card")


def _step(step: StepReport, now: float) -> Markup:
    took = duration(step.seconds) if step.last_success or step.failing_since else ""
    if step.failing_since:
        state = _badge("fails", "error")
    else:
        state = _badge("works", "good") if step.last_success else _badge("not yet", "unknown")
    row = _row(step.name, (ago(step.last_success, now), "short"), (took, "number optional"), (state, "short"))
    if not step.failing_since:
        return row
    return joined(row, element("tr", element("td", _failure(step, now), colspan=4), class_="failure"))


def _failure(step: StepReport, now: float) -> str:
    return f"Fails for {duration(now - step.failing_since)}, {counted(step.failures, 'time')} in a row: {step.why}"


def _details(report: StatusReport) -> Iterator[Markup]:
    yield _card("Runs", _facts(_run_facts(report)))
    yield _card("Nodes", _facts(_node_facts(report)))
    yield _card("Hooks", _facts(_hook_facts(report)))
    yield _card("State file", _facts(_state_facts(report)), *_share(report.state.bytes, report.state.max_bytes))
    yield _card("Slurm", _facts(_slurm_facts(report)))
    yield _card("Program", _facts(_program_facts(report)))


def _card(title: str, *contents: Content) -> Markup:
    return element("article", element("h3", title), *contents, class_="card")


def _facts(facts: Iterable[Fact]) -> Markup:
    pairs = (joined(element("dt", name), element("dd", value)) for name, value in facts)
    return element("dl", *pairs, class_="facts")


def _run_facts(report: StatusReport) -> Iterator[Fact]:
    runs = report.runs
    yield "Running", _number(runs.started)
    yield "Being prepared", _number(runs.preparing)
    yield "Left out", _number(runs.ignored)
    yield "Not understood", _number(runs.not_understood)
    yield "Waiting for sinfo", _number(runs.awaiting_layout)
    incomplete = [sample.value for sample in report.samples if sample.name == "incomplete_runs"]
    yield "Incomplete since the start", _number(sum(incomplete))


def _node_facts(report: StatusReport) -> Iterator[Fact]:
    words = sorted(report.nodes.items(), key=lambda each: (-each[1], each[0]))
    yield from ((word, _number(number)) for word, number in words[:MOST_WORDS])
    if not words:
        yield "Known", "none yet"


def _hook_facts(report: StatusReport) -> Iterator[Fact]:
    hooks = report.hooks
    yield "Events since the start", _number(hooks.events)
    yield "In the last minute", _number(hooks.a_minute)
    yield "Last event", ago(hooks.last_event, report.time)


def _state_facts(report: StatusReport) -> Iterator[Fact]:
    state = report.state
    yield "Written to", "disk" if state.is_durable else element("span", "memory only", class_="error")
    yield "Size", size(state.bytes)
    if state.max_bytes:
        yield "Limit", size(state.max_bytes)
    yield "Counted", ago(state.taken_at, report.time)


def _share(part: int, whole: int) -> Iterator[Markup]:
    """Yield a bar that shows how much of a limit is used."""
    if whole > 0:
        used = min(100 * part / whole, 100.0)
        yield element(
            "svg",
            element("title", f"{used:.0f} % of the limit are used"),
            element("rect", class_="unused", x=0, y=0, width=100, height=4),
            element("rect", class_="used", x=0, y=0, width=f"{used:.3g}", height=4),
            class_="share",
            role="img",
            viewBox="0 0 100 4",
            preserveAspectRatio="none",
        )


def _slurm_facts(report: StatusReport) -> Iterator[Fact]:
    slurm, now = report.slurm, report.time
    yield "Cluster", slurm.cluster or "not known yet"
    yield "Version", slurm.version or "not known yet"
    yield "Format", slurm.format or "not known yet"
    if not slurm.version:
        return
    yield "Accounting", "yes" if slurm.has_accounting else "none"
    if slurm.has_accounting:
        yield "Read until", moment(slurm.accounting_read_until, now) if slurm.accounting_read_until else "not read yet"
    if slurm.first_moment:
        yield "Nothing that ended before", moment(slurm.first_moment, now)


def _program_facts(report: StatusReport) -> Iterator[Fact]:
    program, now = report.program, report.time
    yield "Version", program.version
    yield "Python", program.python
    yield "Process", program.pid
    yield "Started", moment(program.started, now)
    yield "Main thread's last progress", ago(program.progress_at, now)


def _counters(report: StatusReport) -> Markup:
    rows = [
        _row(sample.name, ", ".join(f"{label.name}: {label.value}" for label in sample.labels), _count(sample.value))
        for sample in report.samples[:MOST_COUNTERS]
    ]
    head = ("Counter", "Of", ("Number", "number"))
    table = _table("Since the start of the program.", head, rows) if rows else element("p", "Nothing was counted yet.")
    return element("details", element("summary", "Counters"), table, class_="card")


def _footer(report: StatusReport) -> Markup:
    when = moment(report.time, 0)
    return element("footer", f"Status of {when}. This page only shows, and loads itself again every {REFRESH} s.")


# --- tables

Cell = tuple[Content, str]
"""What a cell contains, and its class."""


def _table(caption: str, head: Sequence[str | Cell], rows: Iterable[Markup]) -> Markup:
    titles = (element("th", text, scope="col", class_=class_) for text, class_ in map(_cell, head))
    return element(
        "table",
        *([element("caption", caption)] if caption else []),
        element("thead", element("tr", *titles)),
        element("tbody", *rows),
    )


def _count(number: int) -> Cell:
    return _number(number), "number"


def _row(title: Content | Cell, *cells: Content | Cell) -> Markup:
    """Return a row. Its first cell says what it is about."""
    text, of_title = _cell(title)
    others = (element("td", content, class_=class_) for content, class_ in map(_cell, cells))
    return element("tr", element("th", text, scope="row", class_=of_title), *others)


def _cell(cell: Content | Cell) -> Cell:
    return cell if isinstance(cell, tuple) else (cell, "")

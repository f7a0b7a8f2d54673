"""The status as metrics, in Prometheus' text format 0.0.4.

METRICS is the table of all metrics. Their names and labels are a contract: dashboards and alert rules of sites use
them. docs/metrics.md is made from this table.

The text is written here and not by prometheus_client, which costs 5.5 to 6.5 MB of memory: see docs/costs.md.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Union

from cc_slurm_adapter.counters import BUCKETS, HistogramSample, Label, Sample, TimingSample
from cc_slurm_adapter.daemon.report import RUNNING, StatusReport
from cc_slurm_adapter.lines import printable
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.report import QueueReport
from cc_slurm_adapter.system.backoff import StepReport

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "cc_slurm_adapter_"
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

Number = Union[int, float]
Values = tuple[str, ...]
"""The values of a metric's labels, in their order."""
Series = Iterable[tuple[Values, Union[Number, HistogramSample]]]


class Metric(NamedTuple):
    """A metric: its name without the prefix, and how it is read from a report."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[StatusReport], Series]


def exposition(report: StatusReport) -> str:
    """Return all metrics of a report, a line each. A metric without a value is left out."""
    return "".join(f"{line}\n" for metric in METRICS for line in _lines(metric, report))


def _lines(metric: Metric, report: StatusReport) -> Iterator[str]:
    # A reader refuses the whole text if labels occur twice. They can if texts differ in what is not printable only.
    series = {tuple(map(printable, values)): value for values, value in metric.read(report)}
    if not series:
        return
    name = PREFIX + metric.name
    yield f"# HELP {name} {_escaped(metric.help)}"
    yield f"# TYPE {name} {metric.kind}"
    for values, value in sorted(series.items(), key=lambda each: each[0]):
        labels = tuple(zip(metric.labels, values))
        if isinstance(value, HistogramSample):
            yield from _histogram_lines(name, labels, value)
        else:
            yield f"{name}{_in_braces(labels)} {_number(value)}"


def _histogram_lines(name: str, labels: tuple[tuple[str, str], ...], sample: HistogramSample) -> Iterator[str]:
    count = 0
    for bound, in_bucket in zip((*BUCKETS, math.inf), sample.buckets):
        count += in_bucket
        yield f"{name}_bucket{_in_braces((*labels, ('le', _number(bound))))} {count}"
    yield f"{name}_sum{_in_braces(labels)} {_number(sample.seconds)}"
    yield f"{name}_count{_in_braces(labels)} {count}"


def _in_braces(labels: Iterable[tuple[str, str]]) -> str:
    text = ",".join(f'{name}="{_escaped(value, quoted=True)}"' for name, value in labels)
    return f"{{{text}}}" if text else ""


def _escaped(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text


def _number(value: Number) -> str:
    if isinstance(value, int):
        return str(int(value))  # int() makes numbers of truth values
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _one(value: Number) -> Series:
    return [((), value)]


def _moment(value: float) -> Series:
    """A Unix time, unless it is 0: what has never happened has no time."""
    return [((), value)] if value else []


def _counted(name: str, *labels: str, zeros: Iterable[Values] = ()) -> Callable[[StatusReport], Series]:
    """Return what reads a counter. It is 0 for the label values in `zeros` until it was counted."""

    def read(report: StatusReport) -> Series:
        found = dict.fromkeys(zeros if labels else [()], 0)
        found.update((_values(sample, labels), sample.value) for sample in report.samples if sample.name == name)
        return found.items()

    return read


def _timed(name: str, number: Callable[[TimingSample], Number], *labels: str) -> Callable[[StatusReport], Series]:
    """Return what reads how often something was done, or how long that took."""
    return lambda report: [(_values(each, labels), number(each)) for each in report.timings if each.name == name]


def _distribution(name: str, label: str, *values: str) -> Callable[[StatusReport], Series]:
    """Return what reads a histogram. It has no durations for those of these label values that were not observed."""
    none = (0,) * (len(BUCKETS) + 1)

    def read(report: StatusReport) -> Series:
        found: dict[Values, HistogramSample] = {
            (value,): HistogramSample(name, (Label(label, value),), none, 0.0) for value in values
        }
        found.update((_values(each, (label,)), each) for each in report.histograms if each.name == name)
        return found.items()

    return read


def _values(sample: Sample | TimingSample | HistogramSample, labels: tuple[str, ...]) -> Values:
    known = dict(sample.labels)
    return tuple(known.get(label, "") for label in labels)


def _steps(number: Callable[[StepReport], Number], *, is_moment: bool = False) -> Callable[[StatusReport], Series]:
    """Return what reads a number of each step."""

    def read(report: StatusReport) -> Series:
        found = {(name,): number(step) for name, step in report.steps.items()}
        return [(values, value) for values, value in found.items() if value or not is_moment]

    return read


def _rows(report: StatusReport) -> Series:
    for queue in (each.queue for each in report.destinations):
        yield (queue.sink, "pending"), queue.pending
        yield (queue.sink, "parked"), queue.parked
        yield (queue.sink, "conflict"), queue.conflicts


def _lag(report: StatusReport, queue: QueueReport) -> float:
    return max(report.time - queue.oldest_pending, 0.0) if queue.oldest_pending else 0.0


def _by_level(findings: Iterable[Finding]) -> Series:
    names = Counter({"error": 0, "warning": 0})
    names.update("error" if each.level >= logging.ERROR else "warning" for each in findings)
    return [((name,), count) for name, count in names.items()]


def _open_runs(report: StatusReport) -> Series:
    runs = report.runs
    return [(("started",), runs.started), (("preparing",), runs.preparing), (("ignored",), runs.ignored)]


def _build(report: StatusReport) -> Series:
    return [((report.program.version, report.program.python, report.slurm.version), 1)]


METRICS = (
    Metric("build_info", GAUGE, "Always 1: the labels say what runs.", ("version", "python", "slurm"), _build),
    Metric(
        "start_time_seconds", GAUGE, "Unix time of the daemon's start.", (), lambda report: _one(report.program.started)
    ),
    Metric(
        "started",
        GAUGE,
        "1 if the daemon reports; 0 while its start waits for something.",
        (),
        lambda report: _one(report.program.phase == RUNNING),
    ),
    Metric(
        "progress_age_seconds",
        GAUGE,
        "How long ago the main thread last made progress.",
        (),
        lambda report: _one(max(report.time - report.program.progress_at, 0.0)),
    ),
    Metric("faults", GAUGE, "What is wrong now.", ("level",), lambda report: _by_level(report.faults)),
    Metric(
        "findings",
        GAUGE,
        "What was found at the start or since, and stays until an administrator acts.",
        ("level",),
        lambda report: _by_level(report.findings),
    ),
    # Slurm
    Metric(
        "step_failing",
        GAUGE,
        "1 if the last attempt at a step failed, else 0.",
        ("step",),
        _steps(lambda step: step.failing_since > 0),
    ),
    Metric(
        "step_last_success_timestamp_seconds",
        GAUGE,
        "Unix time of a step's last success.",
        ("step",),
        _steps(lambda step: step.last_success, is_moment=True),
    ),
    Metric(
        "step_last_duration_seconds",
        GAUGE,
        "How long the last attempt at a step took.",
        ("step",),
        _steps(lambda step: step.seconds),
    ),
    Metric(
        "steps_total",
        COUNTER,
        "Attempts at a step.",
        ("step", "result"),
        _timed("steps", lambda each: each.times, "step", "result"),
    ),
    Metric(
        "step_seconds_total",
        COUNTER,
        "How long these attempts took.",
        ("step", "result"),
        _timed("steps", lambda each: each.seconds, "step", "result"),
    ),
    Metric(
        "commands_total",
        COUNTER,
        "Commands of Slurm that have ended.",
        ("command", "result"),
        _timed("commands", lambda each: each.times, "command", "result"),
    ),
    Metric(
        "command_seconds_total",
        COUNTER,
        "How long these commands were waited for.",
        ("command", "result"),
        _timed("commands", lambda each: each.seconds, "command", "result"),
    ),
    Metric(
        "commands_left_behind_total",
        COUNTER,
        "Commands of Slurm that did not end after SIGKILL.",
        (),
        _counted("commands_left_behind"),
    ),
    Metric(
        "first_moment_timestamp_seconds",
        GAUGE,
        "Unix time: what ended before it and was not known then is not reported.",
        (),
        lambda report: _moment(report.slurm.first_moment),
    ),
    Metric(
        "accounting_read_until_timestamp_seconds",
        GAUGE,
        "Unix time up to which accounting was read.",
        (),
        lambda report: _moment(report.slurm.accounting_read_until),
    ),
    Metric(
        "nodes",
        GAUGE,
        "Nodes of Slurm by the state that is reported.",
        ("state",),
        lambda report: [((word,), count) for word, count in report.nodes.items()],
    ),
    # Hooks
    Metric(
        "hook_events_total",
        COUNTER,
        "Events of this cluster's hooks that have arrived.",
        ("way",),
        _counted("hook_events", "way", zeros=[("file",), ("socket",)]),
    ),
    Metric(
        "hook_last_event_timestamp_seconds",
        GAUGE,
        "Unix time of the last event.",
        (),
        lambda report: _moment(report.hooks.last_event),
    ),
    Metric(
        "hook_events_refused_total",
        COUNTER,
        "Events from a sender without permission, too long, too slow or wrongly signed.",
        (),
        _counted("hook_events_refused"),
    ),
    Metric(
        "hook_events_garbage_total",
        COUNTER,
        "Events that could not be understood.",
        (),
        _counted("hook_events_garbage"),
    ),
    Metric(
        "hook_events_of_other_clusters_total",
        COUNTER,
        "Events over the socket from the hooks of other clusters.",
        (),
        _counted("hook_events_of_other_clusters"),
    ),
    Metric(
        "hook_events_left_to_polls_total",
        COUNTER,
        "Events that were not looked up because too many waited: the next poll covers them.",
        (),
        _counted("hook_events_left_to_polls"),
    ),
    Metric(
        "event_to_accepted_seconds",
        HISTOGRAM,
        "From a hook event until the leading destination has accepted what follows from it, if within 10 minutes.",
        ("kind",),
        _distribution("event_to_accepted", "kind", "start", "stop"),
    ),
    # Runs
    Metric("open_runs", GAUGE, "Runs that hold nodes.", ("stage",), _open_runs),
    Metric(
        "runs_awaiting_layout",
        GAUGE,
        "Runs whose cores cannot be numbered before Slurm has listed their nodes.",
        (),
        lambda report: _one(report.runs.awaiting_layout),
    ),
    Metric(
        "jobs_not_understood_now",
        GAUGE,
        "Jobs that are left out now because they cannot be understood.",
        (),
        lambda report: _one(report.runs.not_understood),
    ),
    Metric(
        "jobs_not_understood_total",
        COUNTER,
        "Jobs that could not be understood.",
        (),
        _counted("jobs_not_understood"),
    ),
    Metric(
        "incomplete_runs_total",
        COUNTER,
        "Runs reported without all that is to be said about them.",
        ("missing", "why"),
        _counted("incomplete_runs", "missing", "why"),
    ),
    Metric("left_out_total", COUNTER, "Runs that are not to be reported.", (), _counted("left_out")),
    Metric(
        "never_launched_total",
        COUNTER,
        "Runs that are not reported because they launched nothing.",
        ("reason",),
        _counted("never_launched", "reason"),
    ),
    Metric(
        "starts_sent_again_total",
        COUNTER,
        "Starts sent again because cc-backend had lost the runs.",
        (),
        _counted("starts_sent_again"),
    ),
    Metric(
        "reconciled_stops_total",
        COUNTER,
        "Runs stopped because only cc-backend believed them to be running.",
        (),
        _counted("reconciled_stops"),
    ),
    Metric(
        "gpus_without_address_total",
        COUNTER,
        "GPUs of jobs that have no address in gpuPciAddrs.",
        (),
        _counted("gpus_without_address"),
    ),
    # Messages and destinations
    Metric("rows", GAUGE, "Messages for a destination that are not delivered.", ("sink", "state"), _rows),
    Metric(
        "rows_counted_timestamp_seconds",
        GAUGE,
        "Unix time at which these messages were counted: long ago if the disk does not answer.",
        (),
        lambda report: _moment(report.state.taken_at),
    ),
    Metric(
        "lag_seconds",
        GAUGE,
        "Age of the oldest message that is pending for a destination; 0 if there is none.",
        ("sink",),
        lambda report: [((each.queue.sink,), _lag(report, each.queue)) for each in report.destinations],
    ),
    Metric(
        "deliveries_total",
        COUNTER,
        "Answers to messages, by their meaning.",
        ("sink", "kind", "result"),
        _counted("deliveries", "sink", "kind", "result"),
    ),
    Metric(
        "requests_total",
        COUNTER,
        "Requests with messages that have ended, answered or not.",
        ("sink",),
        _timed("requests", lambda each: each.times, "sink"),
    ),
    Metric(
        "request_seconds_total",
        COUNTER,
        "How long these requests took.",
        ("sink",),
        _timed("requests", lambda each: each.seconds, "sink"),
    ),
    Metric(
        "parked_given_up_total",
        COUNTER,
        "Messages that were refused for longer than parkedMaxAge.",
        (),
        _counted("parked_given_up"),
    ),
    Metric(
        "destination_failing",
        GAUGE,
        "1 if a destination cannot be reached or refuses everything, else 0.",
        ("sink",),
        lambda report: [((each.sink.name,), each.sink.failing_since > 0) for each in report.destinations],
    ),
    Metric(
        "destination_refusing",
        GAUGE,
        "1 if a destination refuses everything, so that an administrator must act, else 0.",
        ("sink",),
        lambda report: [((each.sink.name,), each.sink.refuses_all) for each in report.destinations],
    ),
    Metric(
        "destination_last_answer_timestamp_seconds",
        GAUGE,
        "Unix time of a destination's last answer.",
        ("sink",),
        lambda report: [
            ((each.sink.name,), each.sink.last_answer) for each in report.destinations if each.sink.last_answer
        ],
    ),
    Metric(
        "node_states_failing",
        GAUGE,
        "1 if a destination does not accept the node states, else 0.",
        ("sink",),
        lambda report: [((each.sink.name,), each.sink.nodes_why != "") for each in report.destinations],
    ),
    # State file
    Metric(
        "state_durable",
        GAUGE,
        "1 if all of the state is in the file; 0 while the file cannot be written.",
        (),
        lambda report: _one(report.state.is_durable),
    ),
    Metric("state_file_bytes", GAUGE, "Size of the state file.", (), lambda report: _one(report.state.bytes)),
    Metric(
        "state_file_max_bytes",
        GAUGE,
        "stateMaxBytes: above it texts are left out.",
        (),
        lambda report: _one(report.state.max_bytes),
    ),
)
"""All metrics, in the order in which they are printed."""

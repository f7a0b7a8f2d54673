"""The status as metrics: their names, their values, and the text that Prometheus reads."""

from __future__ import annotations

import ast
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.counters import BUCKETS, HistogramSample, Label, Sample, TimingSample
from cc_slurm_adapter.daemon.metrics import METRICS, PREFIX, exposition
from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.hooks import intake
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.system.backoff import StepReport
from tests.fakes.statuses import JUST_STARTED, REPORT

PACKAGE = Path(__file__).parents[3] / "cc_slurm_adapter"


def labels(**values: str) -> tuple[Label, ...]:
    return tuple(Label(*each) for each in values.items())


FULL = replace(
    REPORT,
    steps={**REPORT.steps, "comparison": StepReport("comparing with cc-backend")},
    samples=(
        Sample("deliveries", labels(sink="cc_rest", kind="start", result="delivered"), 19),
        Sample("hook_events", labels(way="file"), 36),
        Sample("hook_events_refused", (), 2),
        Sample("incomplete_runs", labels(missing="cores_gpus", why="late"), 4),
        Sample("never_launched", labels(reason="requeued"), 1),
    ),
    timings=(
        TimingSample("commands", labels(command="squeue", result="ok"), 60, 7.25),
        TimingSample("requests", labels(sink="cc_rest"), 38, 1.5),
        TimingSample("steps", labels(step="poll", result="failed"), 1, 90.0),
        TimingSample("steps", labels(step="poll", result="succeeded"), 59, 11.75),
    ),
    histograms=(
        HistogramSample("event_to_accepted", labels(kind="start"), (3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 401.5),
    ),
)
"""A report of a daemon that has done something of most kinds."""

CONTRACT = """
gauge accounting_read_until_timestamp_seconds
gauge build_info version python slurm
counter command_seconds_total command result
counter commands_left_behind_total
counter commands_total command result
counter deliveries_total sink kind result
gauge destination_failing sink
gauge destination_last_answer_timestamp_seconds sink
gauge destination_refusing sink
histogram event_to_accepted_seconds kind
gauge faults level
gauge findings level
gauge first_moment_timestamp_seconds
counter gpus_without_address_total
counter hook_events_garbage_total
counter hook_events_left_to_polls_total
counter hook_events_of_other_clusters_total
counter hook_events_refused_total
counter hook_events_total way
gauge hook_last_event_timestamp_seconds
counter incomplete_runs_total missing why
gauge jobs_not_understood_now
counter jobs_not_understood_total
gauge lag_seconds sink
counter left_out_total
counter never_launched_total reason
gauge node_states_failing sink
gauge nodes state
gauge open_runs stage
counter parked_given_up_total
gauge progress_age_seconds
counter reconciled_stops_total
counter request_seconds_total sink
counter requests_total sink
gauge rows sink state
gauge rows_counted_timestamp_seconds
gauge runs_awaiting_layout
gauge start_time_seconds
gauge started
counter starts_sent_again_total
gauge state_durable
gauge state_file_bytes
gauge state_file_max_bytes
gauge step_failing step
gauge step_last_duration_seconds step
gauge step_last_success_timestamp_seconds step
counter step_seconds_total step result
counter steps_total step result
"""
"""Type, name and labels. Dashboards and alert rules of sites use them: one that goes or changes breaks those."""


def test_the_names_and_labels_are_what_was_promised() -> None:
    found = sorted((each.name, " ".join([each.kind, each.name, *each.labels])) for each in METRICS)
    assert [line for _, line in found] == CONTRACT.split("\n")[1:-1]


FULL_LINES = """
build_info{version="0.1.0",python="3.11.7",slurm="24.11.1"} 1
start_time_seconds 1799000000.0
started 1
progress_age_seconds 0.5
faults{level="error"} 1
faults{level="warning"} 0
findings{level="error"} 0
findings{level="warning"} 1
step_failing{step="accounting"} 1
step_failing{step="comparison"} 0
step_failing{step="poll"} 0
step_last_success_timestamp_seconds{step="accounting"} 1799990000.0
step_last_success_timestamp_seconds{step="poll"} 1799999990.0
step_last_duration_seconds{step="accounting"} 2.0
step_last_duration_seconds{step="comparison"} 0.0
step_last_duration_seconds{step="poll"} 0.4
steps_total{step="poll",result="failed"} 1
steps_total{step="poll",result="succeeded"} 59
step_seconds_total{step="poll",result="failed"} 90.0
step_seconds_total{step="poll",result="succeeded"} 11.75
commands_total{command="squeue",result="ok"} 60
command_seconds_total{command="squeue",result="ok"} 7.25
commands_left_behind_total 0
first_moment_timestamp_seconds 1798000000
accounting_read_until_timestamp_seconds 1799999940
nodes{state="allocated"} 97
nodes{state="idle"} 3
hook_events_total{way="file"} 36
hook_events_total{way="socket"} 0
hook_last_event_timestamp_seconds 1799999999.0
hook_events_refused_total 2
hook_events_garbage_total 0
hook_events_of_other_clusters_total 0
hook_events_left_to_polls_total 0
event_to_accepted_seconds_bucket{kind="start",le="0.05"} 3
event_to_accepted_seconds_bucket{kind="start",le="0.1"} 5
event_to_accepted_seconds_bucket{kind="start",le="0.2"} 5
event_to_accepted_seconds_bucket{kind="start",le="0.3"} 5
event_to_accepted_seconds_bucket{kind="start",le="0.5"} 5
event_to_accepted_seconds_bucket{kind="start",le="1.0"} 5
event_to_accepted_seconds_bucket{kind="start",le="2.0"} 5
event_to_accepted_seconds_bucket{kind="start",le="5.0"} 5
event_to_accepted_seconds_bucket{kind="start",le="10.0"} 5
event_to_accepted_seconds_bucket{kind="start",le="30.0"} 5
event_to_accepted_seconds_bucket{kind="start",le="60.0"} 5
event_to_accepted_seconds_bucket{kind="start",le="300.0"} 5
event_to_accepted_seconds_bucket{kind="start",le="+Inf"} 6
event_to_accepted_seconds_sum{kind="start"} 401.5
event_to_accepted_seconds_count{kind="start"} 6
open_runs{stage="ignored"} 2
open_runs{stage="preparing"} 3
open_runs{stage="started"} 812
runs_awaiting_layout 0
jobs_not_understood_now 1
jobs_not_understood_total 0
incomplete_runs_total{missing="cores_gpus",why="late"} 4
left_out_total 0
never_launched_total{reason="requeued"} 1
starts_sent_again_total 0
reconciled_stops_total 0
gpus_without_address_total 0
rows{sink="cc_rest",state="conflict"} 1
rows{sink="cc_rest",state="parked"} 3
rows{sink="cc_rest",state="pending"} 12
rows_counted_timestamp_seconds 1800000000.0
lag_seconds{sink="cc_rest"} 900.5
deliveries_total{sink="cc_rest",kind="start",result="delivered"} 19
requests_total{sink="cc_rest"} 38
request_seconds_total{sink="cc_rest"} 1.5
parked_given_up_total 0
destination_failing{sink="cc_rest"} 1
destination_refusing{sink="cc_rest"} 0
destination_last_answer_timestamp_seconds{sink="cc_rest"} 1799999000.0
node_states_failing{sink="cc_rest"} 0
state_durable 1
state_file_bytes 4096
state_file_max_bytes 268435456
"""


def test_every_number_of_a_report_is_there() -> None:
    lines = [line for line in exposition(FULL).splitlines() if not line.startswith("#")]
    of_stops = f"{PREFIX}event_to_accepted_seconds_"
    assert [line for line in lines if not (line.startswith(of_stops) and 'kind="stop"' in line)] == [
        PREFIX + line for line in FULL_LINES.split("\n")[1:-1]
    ]


def test_a_histogram_without_durations_is_there() -> None:
    lines = [line for line in exposition(JUST_STARTED).splitlines() if f"{PREFIX}event_to_accepted_seconds_" in line]
    assert len(lines) == 2 * (len(BUCKETS) + 3)
    assert {line.rpartition(" ")[2] for line in lines} == {"0", "0.0"}


def test_what_has_not_happened_has_no_time_and_no_empty_metric() -> None:
    families = parse(exposition(JUST_STARTED))
    assert [name for name in families if "timestamp" in name] == []
    assert families[PREFIX + "started"].samples == {(): 0}
    assert families[PREFIX + "progress_age_seconds"].samples == {(): 1}
    assert families[PREFIX + "hook_events_total"].samples == {(("way", "file"),): 0, (("way", "socket"),): 0}
    assert PREFIX + "deliveries_total" not in families


def test_each_family_begins_with_its_help_and_its_type() -> None:
    text = exposition(JUST_STARTED)
    assert text.startswith(
        "# HELP cc_slurm_adapter_build_info Always 1: the labels say what runs.\n"
        "# TYPE cc_slurm_adapter_build_info gauge\n"
        'cc_slurm_adapter_build_info{version="0.1.0",python="3.11.7",slurm=""} 1\n'
    )
    assert text.endswith("\ncc_slurm_adapter_state_file_max_bytes 1000\n")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('a "quoted" word', r"a \"quoted\" word"),
        (r"C:\lab", r"C:\\lab"),
        ("ends with \\", r"ends with \\"),
        ("two\nlines", r"two\\nlines"),
        ("\x1b[2J", r"\\x1b[2J"),
        ("\udcff", r"\\udcff"),
        ("größer", "größer"),
        ("", ""),
    ],
)
def test_labels_are_escaped(value: str, written: str) -> None:
    report = with_slurm(value)
    assert f'slurm="{written}"}} 1\n' in exposition(report)


def with_slurm(version: str) -> StatusReport:
    return replace(JUST_STARTED, slurm=JUST_STARTED.slurm._replace(version=version))


@pytest.mark.parametrize(
    ("value", "written"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (1e-7, "1e-07"), (3.0, "3.0")]
)
def test_numbers_are_written_as_prometheus_reads_them(value: float, written: str) -> None:
    report = replace(JUST_STARTED, steps={"poll": StepReport("poll", seconds=value)})
    assert f'{PREFIX}step_last_duration_seconds{{step="poll"}} {written}\n' in exposition(report)


def test_texts_that_differ_in_what_is_not_printable_do_not_make_a_series_twice() -> None:
    report = replace(JUST_STARTED, nodes={"\n": 1, "\\n": 2})
    parse(exposition(report))


def test_a_counter_that_has_no_metric_breaks_nothing() -> None:
    report = replace(
        JUST_STARTED, samples=(Sample("new", labels(of="course"), 5),), timings=(TimingSample("x", (), 1, 1.0),)
    )
    assert exposition(report) == exposition(JUST_STARTED)


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    families = parse(exposition(replace(FULL, time=1.0)))
    assert families[PREFIX + "lag_seconds"].samples == {(("sink", "cc_rest"),): 0}
    assert families[PREFIX + "progress_age_seconds"].samples == {(): 0}


def test_findings_are_counted_by_their_level() -> None:
    found = [Finding(level, "x", "y") for level in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)]
    families = parse(exposition(replace(JUST_STARTED, faults=tuple(found))))
    assert families[PREFIX + "faults"].samples == {(("level", "error"),): 2, (("level", "warning"),): 2}


# --- all counters of the program


def counted() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The method, the name and the labels of whatever is counted anywhere in the program."""
    constants = {name: getattr(intake, name) for name in ("RECEIVED", "REFUSED", "GARBAGE", "FOREIGN")}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            owner, method, first = ast.unparse(node.func), node.func.attr, node.args[0]
            names = tuple(word.arg for word in node.keywords if word.arg)
            if re.search(r"counters\.(count|observe|observe_in_buckets)$", owner) and isinstance(first, ast.Constant):
                yield method, str(first.value), names
            elif owner == "self._count" and ast.unparse(first) in constants:
                yield "count", constants[ast.unparse(first)], names
    yield from (("count", name, ()) for name in constants.values() if name != constants["RECEIVED"])


COUNTED = sorted(set(counted()))


def test_all_that_is_counted_is_found() -> None:
    assert len(COUNTED) >= 17
    assert {("count", "deliveries", ("sink", "kind", "result")), ("count", "hook_events", ("way",))} <= set(COUNTED)


@pytest.mark.parametrize(("method", "name", "names"), COUNTED)
def test_whatever_is_counted_has_a_metric(method: str, name: str, names: tuple[str, ...]) -> None:
    own = tuple(Label(each, f"a {each}") for each in names)
    some = {
        "count": replace(JUST_STARTED, samples=(Sample(name, own, 987),)),
        "observe": replace(JUST_STARTED, timings=(TimingSample(name, own, 987, 1.5),)),
        "observe_in_buckets": replace(JUST_STARTED, histograms=(HistogramSample(name, own, (987, *[0] * 12), 1.5),)),
    }
    text = exposition(some[method])
    (line,) = {line for line in text.splitlines() if line.endswith(" 987") and 'le="' not in line}
    assert all(f'{each}="a {each}"' in line for each in names), line


# --- the text, read by a parser of its own


class Family:
    """What a parser reads of a metric. Samples of a histogram have the ending of their name as a label."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.samples: dict[tuple[tuple[str, str], ...], float] = {}


PAIR = r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"'
LABEL = re.compile(PAIR)
SAMPLE = re.compile(rf"([a-z][a-z0-9_]*)(?:\{{((?:{PAIR})(?:,{PAIR})*)\}})? (?P<value>\S+)")
ENDINGS = ("_bucket", "_sum", "_count")


def parse(text: str) -> dict[str, Family]:
    """Read the text format strictly: whatever is not as Prometheus describes it fails."""
    families: dict[str, Family] = {}
    assert text.endswith("\n")
    lines = iter(text[:-1].split("\n"))
    for line in lines:
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in families
            assert line.split(" ", 3)[3]
            mark, word, typed, kind = next(lines).split(" ")
            assert (mark, word, typed) == ("#", "TYPE", name)
            families[name] = Family(kind)
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        inner = match[2] or ""
        pairs = tuple((label[1], unescaped(label[2])) for label in LABEL.finditer(inner))
        assert ",".join(label[0] for label in LABEL.finditer(inner)) == inner
        ending = next((each for each in ENDINGS if match[1] == name + each), "")
        assert match[1] == name + ending
        assert bool(ending) == (families[name].kind == "histogram")
        key = (*pairs, *([("", ending)] if ending else []))
        assert key not in families[name].samples, line
        families[name].samples[key] = float(match["value"])
    assert all(family.samples for family in families.values())
    return families


def unescaped(text: str) -> str:
    return re.sub(r'\\(["\\n])', lambda match: {"n": "\n"}.get(match[1], match[1]), text)


TEXTS = st.text(max_size=20) | st.text(alphabet='\\"\n{},= \udc80\u202e', max_size=8)
NUMBERS = st.floats() | st.integers(0, 2**63)


@given(texts=st.lists(TEXTS, min_size=4, max_size=4), more=st.dictionaries(TEXTS, st.integers(0)), number=NUMBERS)
def test_whatever_the_texts_are_each_line_can_be_read(texts: list[str], more: dict[str, int], number: float) -> None:
    one, two, three, four = texts
    report = replace(
        FULL,
        program=FULL.program._replace(version=one, python=two, phase=three),
        slurm=FULL.slurm._replace(version=four, accounting_read_until=int(number) if math.isfinite(number) else 0),
        nodes=more,
        steps={one: StepReport(two, number, number), two: StepReport(three, number, number)},
        samples=tuple(
            Sample("deliveries", labels(sink=one, kind=two, result=each), 1) for each in [three, four, *more]
        ),
        timings=tuple(TimingSample("steps", labels(step=each, result=four), 1, number) for each in texts),
        histograms=tuple(HistogramSample("event_to_accepted", labels(kind=each), (1,) * 13, number) for each in texts),
    )
    text = exposition(report)
    families = parse(text.encode("utf-8").decode("utf-8"))
    assert {name.removeprefix(PREFIX) for name in families} <= {each.name for each in METRICS}

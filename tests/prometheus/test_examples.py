"""The alert rules and the dashboard in examples/ use metrics that exist, and promtool finds nothing wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cc_slurm_adapter.daemon.metrics import COUNTER, GAUGE, HISTOGRAM, METRICS, PREFIX
from cc_slurm_adapter.daemon.report import STEPS
from tests.prometheus.promtool import Promtool

EXAMPLES = Path(__file__).parents[2] / "examples"
RULES = EXAMPLES / "prometheus" / "alerts.yml"
TESTS = EXAMPLES / "prometheus" / "alerts_test.yml"
DASHBOARD = EXAMPLES / "grafana" / "dashboard.json"

OF_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus adds to whatever it scrapes."""
OF_OTHERS = {"up": set[str](), "node_textfile_mtime_seconds": {"file"}}
"""Metrics of Prometheus itself and of node_exporter, with their labels."""
LABELS = {PREFIX + metric.name: set(metric.labels) for metric in METRICS if metric.kind in (COUNTER, GAUGE)}
LABELS.update(
    {f"{PREFIX}{metric.name}_bucket": {*metric.labels, "le"} for metric in METRICS if metric.kind == HISTOGRAM}
)
WORDS = {*("and", "or", "unless", "on", "by", "sum", "max", "rate", "increase", "time", "absent")} | {
    *("min_over_time", "histogram_quantile", "offset", "label_values", "m", "h", "d")
}
"""Of the query language."""


class Rule(NamedTuple):
    name: str
    expression: str
    text: str
    """All of the rule."""


def rules() -> list[Rule]:
    """Each begins with its name; its expression is one line, or the lines that are indented below `expr`."""
    found = []
    for part in RULES.read_text(encoding="utf-8").split("      - alert: ")[1:]:
        match = re.search(r"expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", part)
        assert match is not None, part
        found.append(Rule(part.split()[0], match[1] or match[2], part))
    return found


def dashboard_expressions() -> Iterator[str]:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query")


def problems(expression: str) -> list[str]:
    """What an expression names and what does not exist."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    known = {**LABELS, **OF_OTHERS}
    metrics = re.findall(r"\b(cc_slurm_adapter_\w+|up|node_\w+)\b", bare)
    labels = set().union(OF_PROMETHEUS, *(known.get(metric, set()) for metric in metrics))
    named = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\"", bare))
    named.update(*(re.findall(r"\w+", each) for each in re.findall(r"\b(?:by|on) \(([^)]*)\)", bare)))
    others = set(re.findall(r"[a-zA-Z_]\w*", bare)) - set(metrics) - named - WORDS
    return sorted([*(metric for metric in metrics if metric not in known), *(named - labels), *(others - labels)])


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("cc_slurm_adapter_lag_seconds > 3", []),
        ("cc_slurm_adapter_lag_minutes > 3", ["cc_slurm_adapter_lag_minutes"]),
        ('cc_slurm_adapter_rows{sink="x", why="y"} > 3', ["why"]),
        ("sum by (sink, why) (cc_slurm_adapter_rows)", ["why"]),
        ("rate(other_total[5m])", ["other_total"]),
    ],
)
def test_a_name_that_does_not_exist_is_found(expression: str, found: list[str]) -> None:
    assert problems(expression) == found


@pytest.mark.parametrize("rule", rules(), ids=[rule.name for rule in rules()])
def test_a_rule_uses_what_exists_and_says_what_to_do(rule: Rule) -> None:
    assert problems(rule.expression) == []
    metrics = re.findall(r"\b(cc_slurm_adapter_\w+|up|node_\w+)\b", rule.expression)
    labels = set().union(OF_PROMETHEUS, *({**LABELS, **OF_OTHERS}[metric] for metric in metrics))
    assert set(re.findall(r"\$labels\.(\w+)", rule.text)) <= labels
    for what in ("severity: (critical|warning|info)}", 'summary: "', 'description: "', r"for: \d+[mh]\n"):
        assert re.search(what, rule.text), what


def test_rules_name_steps_that_exist() -> None:
    named = re.findall(r'step=~?"([^"]+)"', RULES.read_text(encoding="utf-8"))
    assert named
    assert {step for each in named for step in each.split("|")} <= set(STEPS)


def test_the_rules_cover_what_can_go_wrong() -> None:
    """A metric for which there is no rule any more, although something that is wrong shows in it, is missed here."""
    used = {word for rule in rules() for word in re.findall(r"cc_slurm_adapter_(\w+)", rule.expression)}
    assert used >= {
        *("progress_age_seconds", "started", "step_failing", "rows", "lag_seconds", "deliveries_total"),
        *("destination_failing", "destination_refusing", "incomplete_runs_total", "jobs_not_understood_now"),
        *("state_durable", "state_file_bytes", "rows_counted_timestamp_seconds", "build_info"),
    }


def test_each_rule_is_seen_firing_and_silent() -> None:
    text = TESTS.read_text(encoding="utf-8")
    for rule in rules():
        cases = text.split(f'alertname="{rule.name}", alertstate="firing"}}\'\n')[1:]
        firing = ["exp_samples: []" not in case.split("- ")[0] for case in cases]
        assert set(firing) == {True, False}, rule.name


@pytest.mark.parametrize("expression", dashboard_expressions())
def test_the_dashboard_shows_what_exists(expression: str) -> None:
    assert problems(expression) == []


def test_panels_of_the_dashboard_lie_beside_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_promtool_finds_nothing_wrong_with_the_rules(promtool: Promtool) -> None:
    assert promtool.check_rules(RULES) == []


def test_the_tests_of_the_rules_succeed(promtool: Promtool) -> None:
    assert promtool.test_rules(RULES.parent) == []


def test_promtool_understands_the_dashboard(promtool: Promtool, tmp_path: Path) -> None:
    """As rules, since promtool checks the expressions of rules only."""
    expressions = [each.replace("$instance", "x") for each in dashboard_expressions() if "label_values" not in each]
    recorded = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions)]
    path = tmp_path / "dashboard.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}), encoding="ascii")
    assert promtool.check_rules(path) == []

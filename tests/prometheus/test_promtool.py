"""promtool says what is wrong with metrics and rules, and is silent if nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.prometheus.exposition import GOOD
from tests.prometheus.promtool import Promtool

RULES = {
    "groups": [
        {
            "name": "lab",
            "rules": [{"alert": "Lag", "expr": "lab_lag_seconds > 600", "for": "1m", "labels": {"severity": "page"}}],
        }
    ]
}


def rule_test(lag: str, alerts: int) -> dict[str, object]:
    """A test of RULES: the lag at each minute, and how many alerts there are after five."""
    firing = [{"exp_labels": {"severity": "page"}}] * alerts
    return {
        "rule_files": ["lab.yml"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": "lab_lag_seconds", "values": lag}],
                "alert_rule_test": [{"eval_time": "5m", "alertname": "Lag", "exp_alerts": firing}],
            }
        ],
    }


def write(path: Path, content: object) -> Path:
    """All JSON is YAML."""
    path.write_text(json.dumps(content), encoding="ascii")
    return path


def test_good_exposition(promtool: Promtool) -> None:
    assert promtool.check_metrics(GOOD) == []


@pytest.mark.parametrize(
    ("line", "instead", "words"),
    [
        ("# HELP lab_lag_seconds Age of the oldest pending message, in C:\\\\lab\\nand elsewhere.\n", "", "help text"),
        ("lab_polls_total", "lab_polls", "_total"),
        ("lab_lag_seconds", "lab_lag_milliseconds", "base unit"),
        ("_count 42\n", "_count\n", "parsing error"),
        ('le="+Inf"', 'le="many"', "parsing error"),
        ('{result="ok"}', '{result="ok}', "parsing error"),
        ('{result="failed"}', '{result="ok"}', 'lab_polls_total{result="ok"} is there 2 times'),
        ("# TYPE lab_lag_seconds gauge\n", "# TYPE lab_lag_seconds gauge\n" * 2, "second TYPE"),
    ],
)
def test_bad_exposition(promtool: Promtool, line: str, instead: str, words: str) -> None:
    assert line in GOOD
    said = promtool.check_metrics(GOOD.replace(line, instead))
    assert words in "\n".join(said)


def test_rules_and_their_tests(promtool: Promtool, tmp_path: Path) -> None:
    rules = write(tmp_path / "lab.yml", RULES)
    write(tmp_path / "lab_test.yml", rule_test("700x10", alerts=1))
    assert promtool.check_rules(rules) == []
    assert promtool.test_rules(tmp_path) == []


def test_rule_that_does_not_parse(promtool: Promtool, tmp_path: Path) -> None:
    rules = write(tmp_path / "lab.yml", json.loads(json.dumps(RULES).replace("> 600", ">> 600")))
    assert "could not parse expression" in "\n".join(promtool.check_rules(rules))


@pytest.mark.parametrize(("lag", "alerts"), [("500x10", 1), ("700x10", 0)])
def test_rule_that_alerts_at_the_wrong_time(promtool: Promtool, tmp_path: Path, lag: str, alerts: int) -> None:
    write(tmp_path / "lab.yml", RULES)
    write(tmp_path / "lab_test.yml", rule_test(lag, alerts))
    assert "FAILED" in "\n".join(promtool.test_rules(tmp_path))


def test_folder_without_tests_of_rules_is_no_success(promtool: Promtool, tmp_path: Path) -> None:
    write(tmp_path / "lab.yml", RULES)
    assert promtool.test_rules(tmp_path) == [f"no *_test.yml in {tmp_path}"]

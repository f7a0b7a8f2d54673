"""promtool and a real Prometheus: without promtool the tests that use it are skipped and say why.

A real Prometheus is used only by tests with the mark `prometheus`. These run only if somebody asks for them: without
it they fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.prometheus.programs import PROMETHEUS, PROMTOOL
from tests.prometheus.promtool import Promtool
from tests.prometheus.server import PrometheusServer


class StartPrometheus(Protocol):
    def __call__(self, target: str) -> PrometheusServer: ...


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    problems: list[str] = []
    program = PROMTOOL.find(problems)
    if program is None:
        pytest.skip(problems[0])
    return Promtool(program)


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    problems: list[str] = []
    program = PROMETHEUS.find(problems)
    if program is None:
        pytest.fail(problems[0], pytrace=False)
    return program


@pytest.fixture
def start_prometheus(prometheus_program: Path, tmp_path: Path) -> Iterator[StartPrometheus]:
    """Starts Prometheus for an address that is to be scraped; it ends with the test."""
    with contextlib.ExitStack() as servers:
        count = iter(range(100))

        def start(target: str) -> PrometheusServer:
            folder = tmp_path / f"prometheus-{next(count)}"
            return servers.enter_context(PrometheusServer(prometheus_program, folder, target))

        yield start

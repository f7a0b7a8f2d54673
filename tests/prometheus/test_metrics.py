"""Prometheus' own tool reads the metrics, and finds nothing that breaks its conventions."""

from __future__ import annotations

import pytest

from cc_slurm_adapter.daemon.metrics import exposition
from cc_slurm_adapter.daemon.report import StatusReport
from tests.fakes.statuses import JUST_STARTED
from tests.prometheus.promtool import Promtool
from tests.unit.daemon.test_metrics import FULL


@pytest.mark.parametrize("report", [FULL, JUST_STARTED], ids=["full", "nothing"])
def test_promtool_finds_nothing_wrong_with_the_metrics(promtool: Promtool, report: StatusReport) -> None:
    assert promtool.check_metrics(exposition(report)) == []

"""What a start says while it waits."""

from __future__ import annotations

import logging

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon import daemon as daemon_module
from cc_slurm_adapter.daemon.daemon import Daemon, Timing
from cc_slurm_adapter.daemon.inbox import Reload
from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.system import backoff

SETUP = ClusterConfig("lab", "24.11.5", "slurm", "none", has_accounting=True, records_steps=True, question_rate=None)
DOWN = "scontrol show config: slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)"


def test_a_slurmctld_that_is_away_at_the_start_is_one_line_and_one_when_it_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE)
    answers: list[ClusterConfig | CommandFailed] = [*([CommandFailed(DOWN)] * 6), SETUP]

    def read_cluster_config(_: object) -> ClusterConfig:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(daemon_module, "read_cluster_config", read_cluster_config)
    daemon = Daemon(parse_config({"ccRestUrl": "http://127.0.0.1:1", "ccRestJwt": "token"})[0])
    assert daemon._wait_for_slurm(timing=Timing(retries=backoff.Timing(first_retry=0.001))) is SETUP
    away, back = caplog.records
    assert (away.levelno, back.levelno) == (logging.ERROR, NOTICE)
    assert f"Slurm does not answer, it is asked again, at least every 60 s: {DOWN}" in away.getMessage()
    assert back.getMessage().startswith("Slurm answers now after ")


def test_a_slurmctld_that_answers_at_once_is_no_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE)
    monkeypatch.setattr(daemon_module, "read_cluster_config", lambda _: SETUP)
    daemon = Daemon(parse_config({"ccRestUrl": "http://127.0.0.1:1", "ccRestJwt": "token"})[0])
    assert daemon._wait_for_slurm() is SETUP
    assert caplog.records == []


def test_a_reload_during_the_start_is_kept_for_the_main_loop_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE)
    daemon = Daemon(parse_config({"ccRestUrl": "http://127.0.0.1:1", "ccRestJwt": "token"})[0])
    answers: list[ClusterConfig | CommandFailed] = [*([CommandFailed(DOWN)] * 6), SETUP]

    def read_cluster_config(_: object) -> ClusterConfig:
        daemon._inbox.put(Reload())
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(daemon_module, "read_cluster_config", read_cluster_config)
    daemon._wait_for_slurm(timing=Timing(retries=backoff.Timing(first_retry=0.001)))
    assert Reload("SIGHUP", is_postponed=True) in daemon._inbox.pop_all(0)
    (line,) = (line for line in caplog.messages if line.startswith("SIGHUP"))
    assert line.startswith("SIGHUP: done when the start is over (waiting for Slurm, which does not answer: ")

"""The built file's metrics: what a job on the practice cluster leads to, as `-metrics` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.practice.site import Site
from examples.practice.slurm.hooks import EPILOG, PROLOG
from tests.built.installed import call
from tests.built.test_hook_ways import call_hook, run_job, start
from tests.prometheus.promtool import Promtool


@pytest.fixture
def site(adapter: Path) -> Iterator[Site]:
    """Slurm calls no hook here, and the daemon polls only once."""
    with Site(adapter, hook="", slurmPollInterval=3600) as new:
        yield new


def read_metrics(site: Site) -> str:
    done = call([site.daemon.adapter, "-metrics", "-config", site.daemon.config_path], {})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_metrics_show_a_job_from_its_hooks_to_cc_backend(site: Site, promtool: Promtool) -> None:
    """The prolog's event comes over the socket, the epilog's in a file."""
    start(site)
    job = run_job(site)
    call_hook(site, job, PROLOG)
    site.wait_for("the start", lambda: site.has_started(job))
    site.cluster.cancel(job)
    site.wait_for("the job to be over", site.cluster.is_idle)
    (site.daemon.events_folder / f"{job}.{EPILOG}.lab.1").touch()
    counted = 'cc_slurm_adapter_deliveries_total{sink="cc_rest",kind="stop",result="delivered"} 1\n'
    site.wait_for("the stop to be counted", lambda: counted in read_metrics(site))
    text = read_metrics(site)
    for line in (
        'deliveries_total{sink="cc_rest",kind="start",result="delivered"} 1',
        'event_to_accepted_seconds_count{kind="start"} 1',
        'event_to_accepted_seconds_count{kind="stop"} 1',
        'hook_events_total{way="file"} 1',
        'hook_events_total{way="socket"} 1',
        'open_runs{stage="started"} 0',
        'requests_total{sink="cc_rest"} 2',
        'step_failing{step="poll"} 0',
        'steps_total{step="poll",result="succeeded"} 1',
        "started 1",
    ):
        assert f"\ncc_slurm_adapter_{line}\n" in text, line
    assert '\ncc_slurm_adapter_commands_total{command="squeue",result="ok"} ' in text
    assert promtool.check_metrics(text) == []


def test_without_a_daemon_nothing_is_printed(site: Site) -> None:
    done = call([site.daemon.adapter, "-metrics", "-config", site.daemon.config_path], {})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cc-slurm-adapter: no daemon answers on ")

"""Two clusters on one host: two slurmctld call the same file, and each daemon reports its own jobs."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from .namespaces import PATIENCE, wait_for
from .slurm_jobs import Submission, wait_until_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .two_clusters import Cluster, TwoClusters

pytestmark = pytest.mark.slurm

SHORT = Submission(script="sleep 2")


def wait_for_stop(site: TwoClusters, cluster: Cluster, job: int) -> None:
    """Waits until cc-backend has the end of a job, and compares it with the cluster's own accounting."""

    def has_ended() -> bool:
        row = site.rows().get((cluster.name, job))
        return row is not None and row.stop_time is not None

    said = site.machine.journal(f"--unit={cluster.unit}", "--lines=20")
    assert site.backend.wait_for(has_ended, PATIENCE * 60), f"no end of job {job} of {cluster.name}\n{said}"
    ended = wait_until_ended(cluster, [job])[job]
    row = site.rows()[cluster.name, job]
    assert (row.start_time, row.stop_time, row.state) == (ended.start_time, ended.end_time, ended.state.lower())


def pid_of(site: TwoClusters, cluster: Cluster) -> int:
    return int(site.machine.property_of(cluster.unit, "MainPID"))


def test_jobs_with_the_same_ids_are_told_by_each_cluster_s_own_hooks(two_clusters: TwoClusters) -> None:
    site = two_clusters
    jobs = {cluster: [cluster.submit(SHORT) for _ in range(3)] for cluster in (site.first, site.second)}
    assert set(jobs[site.second]) == {1, 2, 3}
    for cluster, ids in jobs.items():
        for job in ids:
            wait_for_stop(site, cluster, job)
    expected = {(cluster.name, job) for cluster, ids in jobs.items() for job in ids}
    assert {key for key in site.rows() if key in expected} == expected
    assert len(site.backend.rows) == len(site.rows())


@contextmanager
def stopped(site: TwoClusters, cluster: Cluster) -> Iterator[None]:
    """The daemon of a cluster does not run meanwhile, and does afterwards, whatever happened."""
    site.machine.output("systemctl", "stop", cluster.unit)
    try:
        yield
    finally:
        site.machine.output("systemctl", "start", cluster.unit, seconds=60)


def waiting_events(site: TwoClusters, cluster: Cluster, job: int) -> int:
    """How many events of a job lie in the shared folder for the daemon of its cluster."""
    names = site.machine.output("find", "/run/cc-slurm-adapter/events", "-name", f"{job}.*").split()
    return sum(name.rsplit("/", 1)[1].split(".")[2] == cluster.name for name in names)


def test_what_happens_to_one_daemon_is_no_matter_to_the_other(two_clusters: TwoClusters) -> None:
    site = two_clusters
    with stopped(site, site.second):
        while_away = site.second.submit(SHORT)
        wait_for_stop(site, site.first, site.first.submit(SHORT))
        told = lambda: waiting_events(site, site.second, while_away) == 2  # noqa: E731
        wait_for("the events of a start and an end", told, seconds=60, every=0.2)
    wait_for_stop(site, site.second, while_away)
    before = pid_of(site, site.first)
    site.machine.output("kill", f"-{int(signal.SIGKILL)}", str(before))
    other = site.second.submit(SHORT)
    wait_for_stop(site, site.second, other)
    wait_for("the first daemon", lambda: pid_of(site, site.first) not in (0, before), seconds=30, every=0.2)
    wait_for_stop(site, site.first, site.first.submit(SHORT))


def test_each_is_asked_with_its_own_configuration(two_clusters: TwoClusters) -> None:
    site = two_clusters
    for cluster in (site.first, site.second):
        status = site.machine.run("cc-slurm-adapter", "-status", "-config", cluster.config)
        assert f"cluster {cluster.name}" in " ".join(status.stdout.split()), status
        check = site.machine.run("cc-slurm-adapter", "-check", "-config", cluster.config, seconds=90)
        about_unit = [line for line in check.stdout.splitlines() if cluster.unit in line]
        assert any("is installed" in line for line in about_unit), check.stdout
        assert "FAIL" not in check.stdout, check.stdout


def test_both_are_there_again_after_a_boot(two_clusters: TwoClusters) -> None:
    site = two_clusters
    site.machine.shut_down()
    site.machine.boot()
    site.machine.wait_for_target()
    for cluster in (site.first, site.second):
        active = lambda unit=cluster.unit: site.machine.state_of(unit) == "active"  # noqa: E731
        wait_for(cluster.unit, active, seconds=60, every=0.2)
        run_folder = f"/run/cc-slurm-adapter/{cluster.name}"
        found = site.machine.output("stat", "-c", "%U:%G:%a", run_folder).strip()
        assert found == "cc-slurm-adapter:slurm:750"

"""Nodes as odd as real sites have them: what is reported is what Slurm itself says and does, on Slurm 24.11.

What was seen there, beyond the comments in odd_conf.py:
- `sinfo -N -a` does not list a node without partition; its jobs run on, and `scontrol show job -d` has their cores.
- A job that waits for its node to boot is RUNNING+CONFIGURING+POWER_UP_NODE with start time, cores and GPUs. slurmctld
  looks twice a minute whether the node is ready, and then sets the start time anew.
- A free node that boots is IDLE+CLOUD+NOT_RESPONDING+POWERING_UP, and slurmctld gives it jobs; one that goes off is
  IDLE+CLOUD+POWERING_DOWN, and jobs wait until it is POWERED_DOWN.
- IDX counts the devices of a node by the types in slurm.conf's Gres=, not by the lines of gres.conf; `slurmd -G` prints
  its lines in that order, but the `Index=` in them is another number.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .expectations import reported_holdings
from .installation import Installation, times_and_end
from .odd_conf import ADDED, ADDRESSES, ALL_NODES, CLOUD_NODES, DEVICES_OF, ODD_CLUSTER
from .odd_nodes import (
    ACROSS,
    BOOTING,
    BOOTS,
    BOOTS_FOR_A_JOB,
    GOES_OFF,
    IN_NO_PARTITION,
    JOBS,
    OFF,
    OTHER_NAME,
    TOPOLOGY,
    OddJob,
    OddNodes,
)

pytestmark = pytest.mark.slurm

WITH_DEVICES = [name for name, job in JOBS.items() if any(option.startswith("--gres") for option in job.options)]
SLURM_WORDS = {
    OFF: {"IDLE+CLOUD+POWERED_DOWN"},
    BOOTS: {"IDLE+CLOUD+NOT_RESPONDING+POWERING_UP"},
    # Which of the two changes while a job that has not begun is on the node.
    BOOTS_FOR_A_JOB: {f"{word}+CLOUD+NOT_RESPONDING+POWERING_UP" for word in ("ALLOCATED", "MIXED")},
    GOES_OFF: {"IDLE+CLOUD+POWERING_DOWN"},
    IN_NO_PARTITION: {"MIXED"},
}


def hwthreads_by_host(row_or_job: dict[str, Any] | OddJob) -> dict[str, list[int]]:
    """Of a start request, or as they must be."""
    if isinstance(row_or_job, OddJob):
        return {node: row_or_job.hwthreads(node) for node in row_or_job.held}
    return {resource["hostname"]: resource["hwthreads"] for resource in reported_holdings(row_or_job)["resources"]}


def cards_by_host(start: dict[str, Any]) -> dict[str, list[str]]:
    return {
        resource["hostname"]: sorted(resource["accelerators"]) for resource in reported_holdings(start)["resources"]
    }


def start_of(installed: Installation, job: OddJob) -> dict[str, Any]:
    return installed.only_row(job.job_id).start


@pytest.mark.parametrize("name", JOBS)
def test_hosts_and_hwthreads_are_those_that_slurmd_binds_jobs_to(odd_nodes: OddNodes, name: str) -> None:
    job = odd_nodes.jobs[name]
    start = start_of(odd_nodes.hooked, job)
    assert hwthreads_by_host(start) == hwthreads_by_host(job)
    assert (start["numNodes"], start["numHwthreads"]) == (job.num_nodes, job.num_cpus)


@pytest.mark.parametrize("name", JOBS)
def test_a_daemon_that_comes_later_and_hears_no_hooks_reports_the_same(odd_nodes: OddNodes, name: str) -> None:
    """By then a node has lost its only partition, and has a job."""
    job = odd_nodes.jobs[name]
    assert hwthreads_by_host(start_of(odd_nodes.late, job)) == hwthreads_by_host(job)


@pytest.mark.parametrize("name", WITH_DEVICES)
def test_devices_are_reported_by_the_addresses_of_their_cards(odd_nodes: OddNodes, name: str) -> None:
    """Each card once, however many of its slices a job has; without an address it is still counted."""
    job = odd_nodes.jobs[name]
    start = start_of(odd_nodes.hooked, job)
    assert cards_by_host(start) == {node: job.cards(node) for node in job.held}
    assert start.get("numAcc") == sum(job.num_cards(node) for node in job.held)


@pytest.mark.parametrize("name", JOBS)
def test_start_and_end_are_those_of_slurmctld(odd_nodes: OddNodes, name: str) -> None:
    job, ended = odd_nodes.jobs[name], odd_nodes.ended[name]
    for installed in (odd_nodes.hooked, odd_nodes.late):
        row = installed.only_row(job.job_id)
        assert times_and_end(row) == (*ended, "cancelled"), installed.said_about([job.job_id])


def test_a_job_whose_node_has_to_boot_begins_when_the_node_is_ready(odd_nodes: OddNodes) -> None:
    job = odd_nodes.jobs[BOOTING]
    assert odd_nodes.begun.first_start < job.start_time
    assert odd_nodes.hooked.only_row(job.job_id).start_time == job.start_time


@pytest.mark.parametrize("moment", SLURM_WORDS)
def test_a_free_node_is_idle_when_slurm_gives_it_jobs(odd_nodes: OddNodes, moment: str) -> None:
    """And down when it does not; one with jobs is mixed, also when it boots or is in no partition."""
    seen = odd_nodes.begun.moments[moment]
    assert seen.slurm_words in SLURM_WORDS[moment]
    assert seen.reported == {{True: "idle", False: "down", None: "mixed"}[seen.is_given_jobs]}
    assert seen.is_given_jobs is {OFF: True, BOOTS: True, GOES_OFF: False}.get(moment)


@pytest.mark.parametrize("node", ALL_NODES)
def test_figures_of_nodes_count_all_jobs_and_cards(odd_nodes: OddNodes, node: str) -> None:
    assert odd_nodes.figures.get(node) == odd_nodes.expected_figures[node]


def test_one_line_tells_of_all_nodes_of_a_kind_that_lack_addresses(odd_nodes: OddNodes) -> None:
    log = odd_nodes.hooked.log.read_text(encoding="utf-8")
    lines = [line for line in log.splitlines() if "WARNING" in line and "gpuPciAddrs" in line]
    assert len([line for line in lines if all(node in line for node in CLOUD_NODES)]) == 1
    assert [line for line in lines if any(re.search(rf"\b{node}\b", line) for node in ADDRESSES)] == []


def test_one_line_tells_of_devices_that_accelerator_gres_does_not_name(odd_nodes: OddNodes) -> None:
    lines = odd_nodes.renamed.log.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if "WARNING" in line and "acceleratorGres" in line and "dcu" in line]) == 1


def test_the_added_node_is_sent_by_the_name_that_hostname_rewrite_makes(odd_nodes: OddNodes) -> None:
    job = odd_nodes.jobs[ACROSS]
    hosts = [OTHER_NAME if node == ADDED else node for node in job.held]
    assert sorted(hwthreads_by_host(start_of(odd_nodes.renamed, job))) == sorted(hosts)
    reported = {host for cluster, host in odd_nodes.renamed.backend.node_states if cluster == ODD_CLUSTER}
    assert reported & {ADDED, OTHER_NAME} == {OTHER_NAME}


@pytest.mark.parametrize("node", TOPOLOGY)
def test_topology_prints_what_the_node_needs(odd_nodes: OddNodes, node: str) -> None:
    """With it the jobs above have the very CPUs that slurmd binds them to."""
    printed = json.loads(odd_nodes.topology[node])
    assert (printed["hostname"], printed["hwthreadNumbering"]) == (node, TOPOLOGY[node])


def test_the_jobs_hold_what_makes_them_odd(odd_nodes: OddNodes) -> None:
    """What the tests above rest on."""
    assert odd_nodes.devices == DEVICES_OF
    across = odd_nodes.jobs[ACROSS]
    assert list(across.held) == ["types1", "n10", "n2", ADDED]
    assert len(set(across.held.values())) == len(across.held)
    assert odd_nodes.jobs["both slices of a card"].held["mig1"].gpus == (0, 1)
    assert len(odd_nodes.jobs["CPUs that are cores"].hwthreads("halved1")) == 6
    for job in odd_nodes.jobs.values():
        ((host, bound),) = job.bound.items()
        assert len(bound) == len(job.held[host].cpu_ids)

"""Holds what cc-backend was told against what really ran on the practice cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from examples.practice.cc_backend import JobRow
from examples.practice.slurm.model import Settings, TrueRun

STATES = {"REQUEUED": "cancelled"}
"""cc-backend's words where they are not Slurm's in small letters."""

Addresses = Mapping[str, Sequence[str]]
"""gpuPciAddrs: PCI addresses by regular expression on host names."""


def differences(
    rows: Iterable[JobRow], truth: Iterable[TrueRun], settings: Settings, addresses: Addresses
) -> list[str]:
    """One line for each thing that is missing, double or not as it was; none when all agree."""
    reported: dict[tuple[int, int], list[JobRow]] = {}
    for row in rows:
        reported.setdefault((row.job_id, row.start_time), []).append(row)
    found: list[str] = []
    for run in truth:
        name = f"job {run.job_id} of {run.user}, started {run.start}"
        of_run = reported.pop((run.job_id, run.start), [])
        if run.is_secret:
            why = "it opted out" if run.opted_out else "nothing was launched in it"
            found += [f"{name}: is reported although {why}"] if of_run else []
        elif len(of_run) == 1:
            found += [f"{name}: {text}" for text in _differing(of_run[0], run, settings, addresses)]
        else:
            found.append(f"{name}: has {len(of_run) or 'no'} rows" if of_run else f"{name}: is missing")
    found += [f"job {job_id}, started {start}: is reported and never ran so" for job_id, start in reported]
    return found


def _differing(row: JobRow, run: TrueRun, settings: Settings, addresses: Addresses) -> list[str]:
    told, true = told_of(row), true_of(run, settings, addresses)
    return [f"{key} was reported as {told[key]!r} and is {true[key]!r}" for key in true if told[key] != true[key]]


def told_of(row: JobRow) -> dict[str, Any]:
    """A row as it is compared; hosts in their order, and what may be left out filled in."""
    start = row.start
    meta_data = start.get("metaData") or {}
    hosts = sorted(start["resources"], key=lambda resource: str(resource["hostname"]))
    return {
        "cluster": row.cluster,
        "state": row.state,
        "stop": row.stop_time,
        "user": start.get("user"),
        "account": start.get("project"),
        "partition": start.get("partition"),
        "array": start.get("arrayJobId") or None,
        "name": meta_data.get("jobName"),
        "incomplete": meta_data.get("incomplete", ""),
        "hwthreads": {host["hostname"]: list(host.get("hwthreads") or ()) for host in hosts},
        "GPUs": {host["hostname"]: list(host.get("accelerators") or ()) for host in hosts},
        "numNodes": start.get("numNodes"),
        "numHwthreads": start.get("numHwthreads"),
        "numAcc": start.get("numAcc") or 0,
    }


def true_of(run: TrueRun, settings: Settings, addresses: Addresses) -> dict[str, Any]:
    """What the row of a run must be."""
    return {
        "cluster": settings.cluster,
        "state": STATES.get(run.state, run.state.lower()),
        "stop": run.end,
        "user": run.user,
        "account": run.account,
        "partition": run.partition,
        "array": run.array_job_id,
        "name": run.name,
        "incomplete": "",
        "hwthreads": {share.host: _hwthreads(share.cores, settings) for share in run.hosts},
        "GPUs": {share.host: [_addresses_of(share.host, addresses)[gpu] for gpu in share.gpus] for share in run.hosts},
        "numNodes": len(run.hosts),
        "numHwthreads": sum(len(share.cores) for share in run.hosts) * settings.threads_per_core,
        "numAcc": sum(len(share.gpus) for share in run.hosts),
    }


def _hwthreads(cores: Iterable[int], settings: Settings) -> list[int]:
    """All threads of these cores, numbered as most machines do: the first threads of all cores, then the second."""
    return [core + thread * settings.cores_per_node for thread in range(settings.threads_per_core) for core in cores]


def _addresses_of(host: str, addresses: Addresses) -> Sequence[str]:
    return next(found for pattern, found in addresses.items() if re.search(pattern, host))

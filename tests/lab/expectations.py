"""What cc-backend must be told of a job, from what Slurm says of it while it runs."""

from __future__ import annotations

from typing import Any

from .installation import expected_hwthreads, numbering_of
from .slurm_conf import THREADS_PER_CORE
from .slurm_jobs import PCI_ADDRESSES, RunningJob

WHAT_IT_HOLDS = ("resources", "numNodes", "numHwthreads", "numAcc", "smt")


def expected_holdings(job: RunningJob) -> dict[str, Any]:
    """The fields of WHAT_IT_HOLDS, hosts in their order."""
    return {
        "resources": [
            {
                "hostname": host,
                "hwthreads": expected_hwthreads(host, held.cpu_ids),
                "accelerators": [PCI_ADDRESSES[gpu] for gpu in held.gpus],
            }
            for host, held in sorted(job.held.items())
        ],
        "numNodes": job.num_nodes,
        "numHwthreads": job.num_cpus,
        "numAcc": sum(len(held.gpus) for held in job.held.values()),
        "smt": expected_smt(job),
    }


def expected_smt(job: RunningJob) -> int | None:
    """None where no threads but cores are listed."""
    if any(numbering_of(host) == "cores" for host in job.held):
        return None
    counts = {len(held.cpu_ids) == len(held.cores) * THREADS_PER_CORE for held in job.held.values()}
    return int(counts == {True})


def reported_holdings(start: dict[str, Any]) -> dict[str, Any]:
    """The same of a start request; what is empty may be left out there, and order within a host means nothing."""
    resources = sorted(start["resources"], key=lambda resource: str(resource["hostname"]))
    full = [{"hwthreads": [], "accelerators": [], **resource} for resource in resources]
    ordered = [{**resource, "hwthreads": sorted(resource["hwthreads"])} for resource in full]
    return {"numAcc": 0, **start, "resources": ordered}


def choose(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: fields.get(name) for name in names}


def as_text(name: str) -> str:
    """What a user wrote as text: what is not UTF-8 becomes U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

"""cc-backend's words: start, stop and node states as it decodes them, strictly.

Fields and their meaning: the README of the recorded exchanges under tests/cc_backend_contract.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cc_slurm_adapter.hwthreads import CpuNumbers, Numbering, NumberingByHost, has_smt, hwthreads, numbering_of
from cc_slurm_adapter.job import End, Missing, NodeState, Resource, Run, RunKey, Sharing
from cc_slurm_adapter.sinks.node_words import node_words

log = logging.getLogger(__name__)

SHARED = {Sharing.WHOLE_NODE: "none", Sharing.ONE_USER: "single_user", Sharing.ANY_USER: "multi_user"}
CUT_NOTE = "[left out by cc-slurm-adapter: the whole message was too large]"
CUTTABLE = ("jobScript", "slurmInfo")

GpuAddresses = tuple[tuple["re.Pattern[str]", tuple[str, ...]], ...]


class StartMessages:
    """Makes start messages; knows what Slurm does not.

    That is the PCI addresses of each host's GPUs, in Slurm's order, how its hardware threads are
    numbered, and what it is called elsewhere: `sent_name` makes that of Slurm's NodeName, by which all else
    goes. `on_missing_address` is told how many GPUs were left out because they have no address.
    """

    def __init__(
        self,
        gpu_addresses: GpuAddresses,
        numberings: NumberingByHost = (),
        on_missing_address: Callable[[int], None] = lambda count: None,
        sent_name: Callable[[str], str] = str,
    ) -> None:
        self._gpu_addresses = gpu_addresses
        self._numberings = numberings
        self._on_missing_address = on_missing_address
        self._sent_name = sent_name
        self._warned: set[str] = set()

    def encode(self, run: Run) -> bytes:
        """The body of start_job for a run."""
        resources = [self._resource(resource) for resource in run.resources]
        listed = sum(len(resource.get("accelerators", ())) for resource in resources)
        message: dict[str, Any] = {
            "cluster": run.key.cluster,
            "partition": run.partition,
            "project": run.account,
            "user": run.user,
            "shared": SHARED[run.sharing],
            "resources": resources,
            "metaData": _meta_data(run, self._missing(run, resources)),
            "jobId": run.key.job_id,
            "numHwthreads": run.num_cpus,
            "numNodes": len(resources),
            "startTime": run.key.start_time,
        }
        optional = {
            "numAcc": (run.num_gpus if Missing.GPUS in run.missing else listed) or None,
            "arrayJobId": run.array_job_id or None,
            "walltime": run.walltime or None,
            "smt": self._smt(run),
        }
        message.update({key: value for key, value in optional.items() if value is not None})
        return encode_json(message)

    def _resource(self, resource: Resource) -> dict[str, Any]:
        message: dict[str, Any] = {"hostname": self._sent_name(resource.hostname)}
        listed = hwthreads(resource, self._numbering(resource))
        if listed:
            message["hwthreads"] = listed
        accelerators = self._accelerators(resource)
        if accelerators:
            message["accelerators"] = accelerators
        return message

    def _missing(self, run: Run, resources: list[dict[str, Any]]) -> frozenset[Missing]:
        """Also cores that are known, but not by the operating system's numbers."""
        unnumbered = any(
            resource.cores and "hwthreads" not in message for resource, message in zip(run.resources, resources)
        )
        return run.missing | {Missing.CORES} if unnumbered else run.missing

    def _numbering(self, resource: Resource) -> Numbering | CpuNumbers:
        return numbering_of(resource.hostname, self._numberings)

    def _smt(self, run: Run) -> int | None:
        """1 when a core has several listed threads, else 0; None where cores are listed, or nothing."""
        numbered = [(resource, self._numbering(resource)) for resource in run.resources]
        if Numbering.CORES in (numbering for _, numbering in numbered) or not any(
            hwthreads(*each) for each in numbered
        ):
            return None
        return int(any(has_smt(*each) for each in numbered))

    def _accelerators(self, resource: Resource) -> list[str]:
        if not resource.gpus:
            return []
        addresses = addresses_of(resource.hostname, self._gpu_addresses)
        known = {index: addresses[index] for index in resource.gpus if index < len(addresses) and addresses[index]}
        if len(known) < len(resource.gpus):
            self._on_missing_address(len(resource.gpus) - len(known))
            self._warn_once(resource.hostname, [index for index in resource.gpus if index not in known])
        return list(dict.fromkeys(known.values()))

    def _warn_once(self, hostname: str, gpus: list[int]) -> None:
        """One line for each host, however many jobs its GPUs have."""
        if hostname not in self._warned:
            self._warned.add(hostname)
            numbers = ", ".join(map(str, gpus))
            log.warning("gpuPciAddrs has no address for GPU %s of %s: left out of what is reported", numbers, hostname)


def addresses_of(hostname: str, by_host: GpuAddresses) -> tuple[str, ...]:
    """The PCI addresses of a host's GPUs in Slurm's order, '' for one without. Parts of a card (MIG) have one."""
    return next((found for regex, found in by_host if regex.search(hostname)), ())


def count_cards(node: NodeState, by_host: GpuAddresses) -> NodeState:
    """The same with each allocated card counted once, however many of its parts are; by its address, if it has one."""
    if not node.gpus_in_use:
        return node
    addresses = addresses_of(node.hostname, by_host)
    known = [addresses[index] for index in node.gpus_in_use if index < len(addresses) and addresses[index]]
    return replace(node, gpus_allocated=node.gpus_allocated - len(known) + len(set(known)))


def _meta_data(run: Run, missing: frozenset[Missing]) -> dict[str, str]:
    meta_data = {
        "jobName": run.name,
        "jobScript": run.job_script,
        "slurmInfo": run.slurm_info,
        "submitTime": str(run.submit_time),
        "incomplete": ",".join(sorted(each.value for each in missing)),
        "hetJobId": _as_text(run.het_job_id),
        "hetJobOffset": _as_text(run.het_job_offset),
    }
    return {key: text for key, text in meta_data.items() if text}


def _as_text(number: int | None) -> str:
    return "" if number is None else str(number)


def encode_stop(key: RunKey, end: End) -> bytes:
    """The body of stop_job. cc-backend refuses an end before the start, which clock steps can cause."""
    return encode_json(
        {
            "jobId": key.job_id,
            "cluster": key.cluster,
            "startTime": key.start_time,
            "jobState": end.end_state.value,
            "stopTime": max(end.end_time, key.start_time),
        }
    )


def encode_nodes(cluster: str, nodes: list[NodeState]) -> bytes:
    """The body of nodestate."""
    return encode_json({"cluster": cluster, "nodes": [_node(node) for node in nodes]})


def _node(node: NodeState) -> dict[str, Any]:
    return {
        "hostname": node.hostname,
        "states": node_words(node.states),
        "cpusAllocated": node.cpus_allocated,
        "memoryAllocated": node.memory_allocated,
        "gpusAllocated": node.gpus_allocated,
        "jobsRunning": node.jobs_running,
    }


def cut_start(payload: bytes) -> bytes | None:
    """A start without its job script, or without slurmInfo when that is already gone; None when both are."""
    message = json.loads(payload)
    meta_data = message.get("metaData", {})
    for key in CUTTABLE:
        if meta_data.get(key, CUT_NOTE) != CUT_NOTE:
            meta_data[key] = CUT_NOTE
            return encode_json(message)
    return None


class CcMessages:
    """What all sinks of cc-backend's messages have in common."""

    def __init__(self, start_messages: StartMessages) -> None:
        self._start_messages = start_messages

    def encode_start(self, run: Run) -> bytes:
        """The JSON of start_job."""
        return self._start_messages.encode(run)

    def encode_stop(self, key: RunKey, end: End) -> bytes:
        """The JSON of stop_job."""
        return encode_stop(key, end)

    def cut(self, payload: bytes) -> bytes | None:
        """A start without its longest text."""
        return cut_start(payload)


def encode_json(message: dict[str, Any]) -> bytes:
    """JSON as cc-backend takes it. Lone surrogates, which are no UTF-8, become question marks."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")

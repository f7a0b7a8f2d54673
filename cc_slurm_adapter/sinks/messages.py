"""cc-backend's messages: start, stop and node states, exactly as it decodes them.

The README of the recorded exchanges under tests/recorded/cc_backend describes the fields and their meaning.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from cc_slurm_adapter.model import (
    CpuNumbers,
    End,
    Missing,
    NodeState,
    Numbering,
    NumberingByHost,
    Resource,
    Run,
    RunKey,
    Sharing,
)
from cc_slurm_adapter.sinks.allocation import Allocation, Share
from cc_slurm_adapter.sinks.base import Encoded, Text
from cc_slurm_adapter.sinks.gpu_addresses import GpuAddresses, addresses_of, further_parts
from cc_slurm_adapter.sinks.hwthreads import has_smt, hwthreads, numbering_of
from cc_slurm_adapter.sinks.node_states import states_for_cc_backend

log = logging.getLogger(__name__)

_END = b"}}"
"""The end of metaData, which is never empty, and of the message."""

SHARED = {Sharing.WHOLE_NODE: "none", Sharing.ONE_USER: "single_user", Sharing.ANY_USER: "multi_user"}


class CcMessages:
    """Makes the messages about runs. It knows what the configuration adds to Slurm's data.

    The configuration adds the PCI addresses of each host's GPUs in Slurm's order, the numbering of its hardware
    threads, and the name under which cc-backend knows the host. `sent_name` returns that name for Slurm's NodeName,
    which everything else uses. `on_missing_address` is called with the number of GPUs that a message does not list
    because they have no address.
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
        self._warned: set[tuple[str, ...] | str] = set()
        """Lists of addresses that lack some, and names of GRES. Each is logged once."""

    def encode_start(self, run: Run) -> Encoded:
        """Encode the body of start_job. The job's script and Slurm's text are kept apart, at the end of metaData."""
        numberings = [numbering_of(resource.hostname, self._numberings) for resource in run.resources]
        resources = list(map(self._resource, run.resources, numberings))
        message: dict[str, Any] = {
            "cluster": run.key.cluster,
            "partition": run.partition,
            "project": run.account,
            "user": run.user,
            "shared": SHARED[run.sharing],
            "resources": resources,
            "jobId": run.key.job_id,
            "numHwthreads": run.num_cpus,
            "numNodes": len(resources),
            "startTime": run.key.start_time,
        }
        optional = (
            ("numAcc", self._num_accelerators(run) or None),
            ("arrayJobId", run.array_job_id or None),
            ("walltime", run.walltime or None),
            ("smt", _smt(run.resources, numberings, resources)),
        )
        message.update({key: value for key, value in optional if value is not None})
        message["metaData"] = _meta_data(run, _missing(run, resources))
        texts = [Text(b',"jobScript":', encode_json(run.job_script))] if run.job_script else []
        if run.slurm_info:
            texts.append(Text(b',"slurmInfo":', encode_json(run.slurm_info)))
        return Encoded(encode_json(message)[: -len(_END)], tuple(texts), _END)

    def encode_stop(self, key: RunKey, end: End) -> Encoded:
        """Encode the body of stop_job. cc-backend refuses an end before the start, which a clock step can cause."""
        message = {
            "jobId": key.job_id,
            "cluster": key.cluster,
            "startTime": key.start_time,
            "jobState": end.end_state.value,
            "stopTime": max(end.end_time, key.start_time),
        }
        return Encoded(encode_json(message))

    def encode_withdrawal(self, key: RunKey) -> Encoded:
        """Encode the body of delete_job."""
        return Encoded(encode_json({"cluster": key.cluster, "jobId": key.job_id, "startTime": key.start_time}))

    def allocation_of(self, run: Run) -> Allocation:
        """Return what `encode_start` says about the nodes of a run. Nothing is counted or logged."""
        shares = {
            self._sent_name(each.hostname): Share(
                tuple(sorted(set(hwthreads(each, numbering_of(each.hostname, self._numberings))))),
                tuple(sorted(set(self._known_addresses(each).values()))),
            )
            for each in run.resources
        }
        return Allocation(shares, self._num_accelerators(run))

    def _resource(self, resource: Resource, numbering: Numbering | CpuNumbers) -> dict[str, Any]:
        message: dict[str, Any] = {"hostname": self._sent_name(resource.hostname)}
        listed = hwthreads(resource, numbering)
        if listed:
            message["hwthreads"] = listed
        accelerators = self._accelerators(resource)
        if accelerators:
            message["accelerators"] = accelerators
        return message

    def _accelerators(self, resource: Resource) -> list[str]:
        if not resource.gpus and not resource.other_gres:  # as on most nodes
            return []
        addresses = addresses_of(resource.hostname, self._gpu_addresses)
        if addresses and resource.other_gres:
            self._warn_of_other_gres(resource)
        known = self._known_addresses(resource)
        if len(known) < len(resource.gpus):
            self._on_missing_address(len(resource.gpus) - len(known))
            self._warn_of_missing(resource, addresses, [index for index in resource.gpus if index not in known])
        return list(dict.fromkeys(known.values()))

    def _known_addresses(self, resource: Resource) -> dict[int, str]:
        """Return the addresses of its GPUs by Slurm's indices, without those that have none."""
        addresses = addresses_of(resource.hostname, self._gpu_addresses)
        return {index: addresses[index] for index in resource.gpus if index < len(addresses) and addresses[index]}

    def _num_accelerators(self, run: Run) -> int:
        return run.num_gpus if Missing.GPUS in run.missing else sum(map(self._cards, run.resources))

    def _cards(self, resource: Resource) -> int:
        gpus = resource.gpus
        return len(gpus) - further_parts(gpus, addresses_of(resource.hostname, self._gpu_addresses)) if gpus else 0

    def _warn_of_missing(self, resource: Resource, addresses: tuple[str, ...], gpus: list[int]) -> None:
        """Log one line for all hosts with the same addresses, however many jobs use their GPUs."""
        if addresses not in self._warned:
            self._warned.add(addresses)
            numbers = ", ".join(map(str, gpus))
            text = "gpuPciAddrs has no address for GPU %s of %s: of these and similar ones only the number is reported"
            log.warning(text, numbers, resource.hostname)

    def _warn_of_other_gres(self, resource: Resource) -> None:
        for name in resource.other_gres:
            if name not in self._warned:
                self._warned.add(name)
                log.warning(
                    "a job has devices of the GRES %.40s on %s, which are not reported: name it in acceleratorGres if"
                    " the addresses in gpuPciAddrs are those of such devices",
                    name,
                    resource.hostname,
                )


def _missing(run: Run, resources: Sequence[dict[str, Any]]) -> frozenset[Missing]:
    """Return what the message lacks, including cores for which the operating system's numbers are unknown."""
    unnumbered = any(
        resource.cores and "hwthreads" not in message for resource, message in zip(run.resources, resources)
    )
    return run.missing | {Missing.CORES} if unnumbered else run.missing


def _smt(
    allocated: Iterable[Resource], numberings: Sequence[Numbering | CpuNumbers], resources: Iterable[dict[str, Any]]
) -> int | None:
    """Return 1 if a core has several listed threads, else 0; None if cores are listed, or nothing."""
    if Numbering.CORES in numberings or not any("hwthreads" in message for message in resources):
        return None
    return int(any(map(has_smt, allocated, numberings)))


def _meta_data(run: Run, missing: frozenset[Missing]) -> dict[str, str]:
    meta_data = {
        "jobName": run.name,
        "submitTime": str(run.submit_time),
        "incomplete": ",".join(sorted(each.value for each in missing)),
        "hetJobId": _as_text(run.het_job_id),
        "hetJobOffset": _as_text(run.het_job_offset),
    }
    return {key: text for key, text in meta_data.items() if text}


def _as_text(number: int | None) -> str:
    return "" if number is None else str(number)


def encode_nodes(cluster: str, nodes: list[NodeState]) -> bytes:
    """Encode the body of nodestate."""
    # Node by node: as one value, the JSON of a large cluster would take many times its size of memory.
    body = bytearray(f'{{"cluster":{_json(cluster)},"nodes":['.encode("utf-8", errors="replace"))
    for number, node in enumerate(nodes):
        body += f"{',' if number else ''}{_node(node)}".encode("utf-8", errors="replace")
    body += b"]}"
    return bytes(body)


def encode_node_parts(
    cluster: str, nodes: list[NodeState], limit: int, wrap: Callable[[bytes], bytes] = bytes
) -> Iterator[bytes]:
    """Yield bodies of nodestate for all these nodes, each of at most `limit` bytes after `wrap`.

    A single node that needs more still gets a body. cc-backend handles each node by itself, so it does not matter which
    nodes share a body.
    """
    whole = wrap(encode_nodes(cluster, nodes))
    if len(whole) <= limit or len(nodes) <= 1:
        yield whole
        return
    count = len(whole) // limit + 1
    size = -(-len(nodes) // count)
    for at in range(0, len(nodes), size):
        yield from encode_node_parts(cluster, nodes[at : at + size], limit, wrap)


def _node(node: NodeState) -> str:
    return (
        f'{{"hostname":{_json(node.hostname)},"states":{_states(node.states)},"cpusAllocated":{node.cpus_allocated},'
        f'"memoryAllocated":{node.memory_allocated},"gpusAllocated":{node.gpus_allocated},'
        f'"jobsRunning":{node.jobs_running}}}'
    )


@lru_cache(maxsize=1000)
def _states(words: tuple[str, ...]) -> str:
    """Return the JSON of a node's states. It is cached, because thousands of nodes have the same."""
    return _json(states_for_cc_backend(words))


def encode_json(message: dict[str, Any] | str) -> bytes:
    """Encode JSON for cc-backend. Lone surrogates, which are not valid in UTF-8, become question marks."""
    return _json(message).encode("utf-8", errors="replace")


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

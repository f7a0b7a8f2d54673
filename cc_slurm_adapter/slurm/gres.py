"""Slurm's generic resources (GRES) and trackable resources (TRES): which GPUs, and how many.

An index is Slurm's own number of a device on its node. It counts all devices of a node, whatever
their types: on a node with `gpu:a:2,gpu:b:2` the type b has 2 and 3. The order is that of the lines
in gres.conf, and gpuPciAddrs must have the same. (Seen on 22.05, 24.11 and 26.05.)

Shares of a GPU (shard, mps) count as the device they sit on. Up to 23.02 they name it, `shard:2(IDX:2)`;
later a job has used/all of every device of the node, `shard:3(0/2,0/2,2/2,1/2)`, in the order of the
indices. For a node they come type by type, `shard:a:4(2/2,2/2),shard:b:1(1/2,0/2)`: these tell how many
devices are in use, but not which. There `-/2` is a device that is in use as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.hostlist import split_outside

MAX_DEVICES = 1024
"""More than any node has: a higher index is damaged output, not a device."""
_SHARED = ("shard", "mps")
# Older versions print `gpu:(null):1(IDX:0)` for a GPU without a type. The details stand in brackets at the end.
_ENTRY = re.compile(r"\s*(gpu|shard|mps)(?![^:(])(?::\(null\))?([^(]*)(?:\(([^()]*)\))?", re.ASCII)
_COUNT = re.compile(r":([0-9]{1,9})\Z")
_CNT = re.compile(r"CNT:([0-9]{1,9})\Z")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z")
_USED = re.compile(r"([0-9]{1,18}|-)/[0-9]{1,18}\Z")
_REQUEST = re.compile(r"(?:\A|,)gres[:/](?:gpu|shard|mps)(?![^:=,])([^,]*)")
_CPU_TRES = re.compile(r"(?:\A|,)cpu=([0-9]{1,9})(?![0-9])")
_GPU_TRES = re.compile(r"(?:\A|,)gres/gpu(:[^=,]*)?=([0-9]{1,9})(?![0-9])")


class _Entry(NamedTuple):
    """`gpu:h100:2(IDX:0-1)` in its parts."""

    name: str
    number: int
    detail: str
    """What stands in brackets; '' where there are none."""


def gpu_indices(gres: str) -> tuple[int, ...]:
    """The devices in a job's `gpu:h100:2(IDX:0-1,3)` or `shard:3(2/2,1/2)` of one node, ascending.

    `IDX:N/A`, `IDX:` and `CNT:2` name none. Raises UnexpectedOutput for what is no list of devices.
    """
    return tuple(sorted({index for entry in _entries(gres) for index in _devices(entry, gres)}))


def gpus_in_use(used: str) -> tuple[int, ...]:
    """The devices in a node's GresUsed, `gpu:a:2(IDX:0-1),gpu:b:1(IDX:4)`, ascending.

    () where it does not name all of them, as when shares of GPUs are in use: those are told without indices.
    """
    if any(entry.name in _SHARED and _devices(entry, used) for entry in _entries(used)):
        return ()
    indices = gpu_indices(used)
    return indices if len(indices) == gpu_count(used) else ()


def gpu_count(gres: str) -> int:
    """How many GPUs `gpu:h100:4(S:0-1),gpu:a100:2`, `gpu(CNT:4)` or `gpu:4` names.

    Of shares it is the devices in use, so that this reads a node's Gres and GresUsed alike.
    """
    return sum(len(_devices(entry, gres)) if entry.name in _SHARED else entry.number for entry in _entries(gres))


def gpus_of_details(details: Iterable[str | None]) -> int:
    """GPUs of all nodes in a job's `gres_detail`, whether or not their indices are known."""
    return sum(gpu_count(text) for text in details if text)


def gpus_of_tres(tres: str) -> int:
    """GPUs in `cpu=4,gres/gpu=4,gres/gpu:h100=4`. Slurm prints the sum and its parts: never both are added.

    0 where AccountingStorageTRES does not name GPUs, too few where it names some of their types alone.
    Shares of GPUs are not in it.
    """
    counts = _GPU_TRES.findall(tres)
    untyped = [int(count) for kind, count in counts if not kind]
    return untyped[0] if untyped else sum(int(count) for _, count in counts)


def cpus_of_tres(tres: str) -> int:
    """CPUs in `cpu=4,mem=100M,node=1`; 0 where it names none."""
    match = _CPU_TRES.search(tres)
    return int(match.group(1)) if match else 0


def requests_gpus(tres: str) -> bool:
    """Whether `tres_per_node` or its like asks for GPUs or shares of them: `gres/gpu`, `gres:gpu:a:2`, `gres/gpu=1`.

    `gres/gpu:0` asks for none.
    """
    return any(not re.search(r"[:=]0+\Z", amount) for amount in _REQUEST.findall(tres))


def gpus_by_host(
    details: Sequence[str | None], hosts: Sequence[str], equipment: Mapping[str, int], tres: str
) -> dict[str, tuple[int, ...]]:
    """GPU indices by node, from the `gres_detail` of a job on `hosts`; `equipment` is how many GPUs each node has.

    While the job runs `gres_detail` has an entry for each of its nodes, in their order, None for a node
    without GRES. Later it is empty: then the indices are known only when the job had every GPU of its
    nodes, going by its TRES. What cannot be told is left out.
    """
    if details and len(details) == len(hosts):
        return {host: gpu_indices(text) for host, text in zip(hosts, details) if text}
    if not all(host in equipment for host in hosts):
        return {}
    every = sum(equipment[host] for host in hosts)
    if every and every == gpus_of_tres(tres):
        return {host: tuple(range(equipment[host])) for host in hosts}
    return {}


def _entries(gres: str) -> Iterator[_Entry]:
    """The GPUs and shares of GPUs among the entries."""
    for text in split_outside(gres, "(", ")"):
        match = _ENTRY.match(text)
        if match:
            name, count, detail = match.group(1), _COUNT.search(match.group(2)), match.group(3) or ""
            # `gpu:4090(CNT:2)`: what stands before the bracket is the type.
            count = _CNT.match(detail) or count
            entry = _Entry(name, int(count.group(1)) if count else 0, detail)
            if name == "gpu" and entry.number > MAX_DEVICES:
                raise UnexpectedOutput("gres", f"no node has {entry.number} GPUs, as {gres[:100]!r} says")
            yield entry


def _devices(entry: _Entry, text: str) -> list[int]:
    if entry.detail in ("", "IDX:", "IDX:N/A") or entry.detail.startswith(("CNT:", "S:")):
        return []
    if entry.detail.startswith("IDX:"):
        return _numbers(entry.detail[len("IDX:") :], text)
    return _shared_devices(entry.detail, text)


def _shared_devices(detail: str, text: str) -> list[int]:
    used = [_USED.match(share) for share in detail.split(",")]
    if not all(used) or len(used) > MAX_DEVICES:
        raise UnexpectedOutput("gres", f"{detail[:40]!r} tells no devices in {text[:100]!r}")
    return [index for index, share in enumerate(used) if share and share.group(1).strip("-0")]


def _numbers(ranges: str, text: str) -> list[int]:
    numbers: set[int] = set()
    for item in ranges.split(","):
        match = _RANGE.match(item)
        first, last = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (0, -1)
        if not first <= last < MAX_DEVICES:
            raise UnexpectedOutput("gres", f"{item[:40]!r} is no range of indices in {text[:100]!r}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)

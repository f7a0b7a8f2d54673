"""Which GPUs a job has on each of its nodes, and how many GPUs a node has and has in use.

They are read from Slurm's generic resources (GRES) and trackable resources (TRES). Here a GPU is a device of any GRES
that the site names an accelerator: `gpu`, or also `dcu`, `npu` and so on (`acceleratorGres`).

An index is Slurm's own number of a device on its node. All devices of a GRES are counted together, whatever their
types: on a node with `gpu:a:2,gpu:b:2` the devices of type b have the indices 2 and 3. The order is that of the types
in the node's Gres of slurm.conf (seen on 24.11; `slurmd -G` prints it), and gpuPciAddrs must have the same order. Each
GRES counts from 0. If several GRES are accelerators, the devices of each name follow those of the name before it: on a
node with `gpu:2,npu:4` and the names gpu, npu the npu 0 is the index 2.

A share of a GPU (shard, mps) counts as the device that it is a share of. Up to 23.02 the job's shares name that device,
`shard:2(IDX:2)`. Later a job has used/total of every device of the node, `shard:3(0/2,0/2,2/2,1/2)`, in the order of
the indices. For a node the shares are listed type by type, `shard:a:4(2/2,2/2),shard:b:1(1/2,0/2)`: this shows how many
devices are in use, but not which ones. There `-/2` is a device that is in use as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.parse.hostlist import split_outside
from cc_slurm_adapter.system.quantities import counted

MAX_DEVICES = 1024
"""More than any node has: a higher index is damaged output, not a device."""
Names = tuple[str, ...]
"""Names of the GRES that are accelerators."""
GPU: Names = ("gpu",)
"""The names of GRES that are accelerators if the site names no others."""
_SHARED = ("shard", "mps")
"""Shares of the devices of the GRES gpu, and of no other."""
# Older versions print `gpu:(null):1(IDX:0)` for a GPU without a type. The details are in brackets at the end.
_ENTRY = re.compile(r"\s*([^\s:(]+)(?::\(null\))?([^(]*)(?:\(([^()]*)\))?")
_COUNT = re.compile(r":([0-9]{1,9})\Z")
_CNT = re.compile(r"CNT:([0-9]{1,9})\Z")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z")
_HAS_DEVICES = re.compile(r"IDX:[0-9]")
_USED = re.compile(r"([0-9]{1,18}|-)/[0-9]{1,18}\Z")
_REQUEST = re.compile(r"(?:\A|,)gres[:/]([^:=,]+)([^,]*)")
_CPU_TRES = re.compile(r"(?:\A|,)cpu=([0-9]{1,9})(?![0-9])")
_GRES_TRES = re.compile(r"(?:\A|,)gres/([^:=,]+)(:[^=,]*)?=([0-9]{1,9})(?![0-9])")


class _Entry(NamedTuple):
    """`gpu:h100:2(IDX:0-1)` in its parts."""

    name: str
    kind: str
    """Its type; '' where there is none."""
    number: int
    detail: str
    """The text in brackets; '' where there are none."""

    @property
    def accelerator(self) -> str:
        """Return the GRES whose devices it names."""
        return "gpu" if self.name in _SHARED else self.name


def gpu_indices(gres: str, names: Names = GPU, counts: Sequence[int] = ()) -> tuple[int, ...]:
    """Return a job's devices on one node, ascending, from `gpu:h100:2(IDX:0-1,3)` or `shard:3(2/2,1/2)`.

    `counts` is how many devices the node has of each name. If that is not known, only devices of the first name have an
    index. `IDX:N/A`, `IDX:` and `CNT:2` name no device. Raises UnexpectedOutput for anything else.
    """
    found: set[int] = set()
    for entry in _entries(gres, names):
        position = names.index(entry.accelerator)
        if position <= len(counts):
            found.update(sum(counts[:position]) + index for index in _devices(entry, gres))
    return tuple(sorted(found))


def gpus_in_use(used: str, names: Names = GPU, counts: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the devices in a node's GresUsed, `gpu:a:2(IDX:0-1),gpu:b:1(IDX:4)`; `counts` as in `gpu_indices`.

    Return () if not all devices are named, for example if shares of GPUs are in use, which have no indices.
    """
    if any(entry.name in _SHARED and _devices(entry, used) for entry in _entries(used, names)):
        return ()
    indices = gpu_indices(used, names, counts)
    return indices if len(indices) == gpu_count(used, names) else ()


@lru_cache(maxsize=1024)
def gpu_counts(gres: str, names: Names = GPU) -> tuple[int, ...]:
    """Count the GPUs in `gpu:h100:4(S:0-1),gpu:a100:2`, `gpu(CNT:4)` or `gpu:4`, for each name.

    With shares, the devices in use are counted. So this reads a node's Gres and its GresUsed in the same way.
    """
    counts = dict.fromkeys(names, 0)
    for entry in _entries(gres, names):
        counts[entry.accelerator] += len(_devices(entry, gres)) if entry.name in _SHARED else entry.number
    return tuple(counts.values())


def gpu_count(gres: str, names: Names = GPU) -> int:
    """Count the GPUs of all names together."""
    return sum(gpu_counts(gres, names))


@lru_cache(maxsize=1024)
def gpu_types(gres: str, names: Names = GPU) -> str:
    """Describe the Gres of a node for people: `4 gpu:h100, 2 gpu:a100`. Shares are left out."""
    entries = [entry for entry in _entries(gres, names) if entry.name not in _SHARED and entry.number]
    return ", ".join(f"{entry.number} {entry.name}{entry.kind and ':'}{entry.kind}" for entry in entries)


def other_devices(gres: str, names: Names = GPU) -> tuple[str, ...]:
    """Return the names of GRES that are not accelerators and of which a job has devices, as in `dcu:2(IDX:0-1)`."""
    others = (entry for entry in _all_entries(gres) if entry.accelerator not in names and entry.name not in _SHARED)
    return tuple(sorted({entry.name for entry in others if _HAS_DEVICES.match(entry.detail)}))


def gpus_of_details(details: Iterable[str | None], names: Names = GPU) -> int:
    """Count the GPUs of all nodes in a job's `gres_detail`, whether or not their indices are known."""
    return sum(gpu_count(text, names) for text in details if text)


def gpus_of_tres(tres: str, names: Names = GPU) -> int:
    """Count the GPUs in `cpu=4,gres/gpu=4,gres/gpu:h100=4`. Slurm prints the sum and its parts: only one is counted.

    The count is 0 if AccountingStorageTRES lacks GPUs, and too low if it has only some of their types. Shares of GPUs
    are never in it.
    """
    counts = _GRES_TRES.findall(tres)
    if not counts:
        return 0
    return sum(_sum_of_tres({kind: int(count) for of, kind, count in counts if of == name}) for name in names)


def _sum_of_tres(by_type: Mapping[str, int]) -> int:
    """Return the row without a type (''), which is the sum of the others. A site may track only one kind of row."""
    return by_type.get("", sum(by_type.values()))


def cpus_of_tres(tres: str) -> int:
    """Return the CPUs in `cpu=4,mem=100M,node=1`; 0 if it has none."""
    match = _CPU_TRES.search(tres)
    return int(match.group(1)) if match else 0


def requests_gpus(tres: str, names: Names = GPU) -> bool:
    """Return whether `tres_per_node` or its like requests GPUs or shares: `gres/gpu`, `gres:gpu:a:2`, `gres/gpu=1`.

    `gres/gpu:0` requests none.
    """
    wanted = {*names, *_SHARED} if "gpu" in names else {*names}
    return any(name in wanted and not re.search(r"[:=]0+\Z", amount) for name, amount in _REQUEST.findall(tres))


def gpus_by_host(
    details: Sequence[str | None],
    hosts: Sequence[str],
    equipment: Mapping[str, Sequence[int]],
    tres: str,
    names: Names = GPU,
) -> dict[str, tuple[int, ...]]:
    """Return GPU indices by node, from a job's `gres_detail` on `hosts`.

    `equipment` is how many devices of each name a node has. While the job runs, `gres_detail` has an entry for each of
    its nodes, in their order, and None for a node without GRES. Later it is empty. Then the indices are known only if
    the job had every GPU of its nodes, according to its TRES. Nodes whose indices are not known are left out.
    """
    if details and len(details) == len(hosts):
        found = zip(hosts, details)
        return {host: gpu_indices(text, names, equipment.get(host, ())) for host, text in found if text}
    if not all(host in equipment for host in hosts):
        return {}
    every = sum(sum(equipment[host]) for host in hosts)
    if every and every == gpus_of_tres(tres, names):
        return {host: tuple(range(sum(equipment[host]))) for host in hosts}
    return {}


@lru_cache(maxsize=1024)
def _entries(gres: str, names: Names) -> tuple[_Entry, ...]:
    """Return the entries of GPUs and shares of GPUs. They are cached, because thousands of nodes have the same."""
    return tuple(_accelerators(gres, names))


def _accelerators(gres: str, names: Names) -> Iterator[_Entry]:
    for entry in _all_entries(gres):
        if entry.accelerator in names:
            if entry.name not in _SHARED and entry.number > MAX_DEVICES:
                raise UnexpectedOutput("gres", f"no node has {counted(entry.number, 'GPU')}, as {gres[:100]!r} says")
            yield entry


def _all_entries(gres: str) -> Iterator[_Entry]:
    for text in split_outside(gres, "(", ")"):
        match = _ENTRY.match(text)
        if match:
            name, rest, detail = match.group(1), match.group(2), match.group(3) or ""
            at_end = _COUNT.search(rest)
            # `gpu:4090(CNT:2)`: the text before the bracket is the type.
            count = _CNT.match(detail) or at_end
            kind = rest if count is not at_end or at_end is None else rest[: at_end.start()]
            yield _Entry(name, kind.strip(":"), int(count.group(1)) if count else 0, detail)


def _devices(entry: _Entry, text: str) -> list[int]:
    if entry.detail in ("", "IDX:", "IDX:N/A") or entry.detail.startswith(("CNT:", "S:")):
        return []
    if entry.detail.startswith("IDX:"):
        return _numbers(entry.detail[len("IDX:") :], text)
    return _shared_devices(entry.detail, text)


def _shared_devices(detail: str, text: str) -> list[int]:
    used = [_USED.match(share) for share in detail.split(",")]
    if not all(used) or len(used) > MAX_DEVICES:
        raise UnexpectedOutput("gres", f"{detail[:40]!r} names no devices in {text[:100]!r}")
    return [index for index, share in enumerate(used) if share and share.group(1).strip("-0")]


def _numbers(ranges: str, text: str) -> list[int]:
    numbers: set[int] = set()
    for item in ranges.split(","):
        match = _RANGE.match(item)
        first, last = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (0, -1)
        if not first <= last < MAX_DEVICES:
            raise UnexpectedOutput("gres", f"{item[:40]!r} is not a range of indices in {text[:100]!r}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)

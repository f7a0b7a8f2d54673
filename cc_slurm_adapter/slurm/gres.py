"""Slurm's generic resources (GRES) and trackable resources (TRES): which GPUs, and how many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.hostlist import split_outside

_INDICES = re.compile(r"\(IDX:([^)]*)\)")
_COUNT = re.compile(r":(\d+)(?:\(|\Z)")
_CPU_TRES = re.compile(r"(?:\A|,)cpu=(\d+)")
_GPU_TRES = re.compile(r"gres/gpu(:[^=,]*)?=(\d+)")


def gpu_indices(gres: str) -> tuple[int, ...]:
    """Slurm's GPU indices in `gpu:h100:2(IDX:0-1,3),shard:2(1/4,1/4)`, ascending. `N/A` is none."""
    found: set[int] = set()
    for entry in split_outside(gres, "(", ")"):
        match = _INDICES.search(entry)
        if match and _name(entry) == "gpu" and match.group(1) != "N/A":
            found.update(_numbers(match.group(1), gres))
    return tuple(sorted(found))


def gpu_count(gres: str) -> int:
    """How many GPUs `gpu:h100:4(S:0-1),gpu:a100:2` or `gpu:4` names."""
    total = 0
    for entry in split_outside(gres, "(", ")"):
        match = _COUNT.search(entry)
        if match and _name(entry) == "gpu":
            total += int(match.group(1))
    return total


def gpus_of_tres(tres: str) -> int:
    """GPUs in `cpu=4,gres/gpu=4,gres/gpu:h100=4`. Slurm prints the sum and its parts: never both are added."""
    counts = _GPU_TRES.findall(tres)
    untyped = [int(count) for kind, count in counts if not kind]
    return untyped[0] if untyped else sum(int(count) for _, count in counts)


def cpus_of_tres(tres: str) -> int:
    """CPUs in `cpu=4,mem=100M,node=1`; 0 where it names none."""
    match = _CPU_TRES.search(tres)
    return int(match.group(1)) if match else 0


def gpus_by_host(
    details: Sequence[str], hosts: Sequence[str], equipment: Mapping[str, int], tres: str
) -> dict[str, tuple[int, ...]]:
    """GPU indices by node, from the `gres_detail` of a job on `hosts`; `equipment` is how many GPUs each node has.

    `gres_detail` has an entry for each node with GRES, in node order, while the job runs. Later it
    is empty: then the indices are known only when the job had every GPU of its nodes, going by its TRES.
    """
    equipped = [host for host in hosts if equipment.get(host)]
    for owners in (hosts, equipped):
        if details and len(owners) == len(details):
            return {host: gpu_indices(text) for host, text in zip(owners, details)}
    every = sum(equipment[host] for host in equipped)
    if every and every == gpus_of_tres(tres):
        return {host: tuple(range(equipment[host])) for host in equipped}
    return {}


def _name(entry: str) -> str:
    return re.split(r"[:(]", entry.strip(), maxsplit=1)[0]


def _numbers(ranges: str, text: str) -> list[int]:
    numbers: list[int] = []
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise UnexpectedOutput("gres", f"{item[:40]!r} is no range of indices in {text[:100]!r}")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers

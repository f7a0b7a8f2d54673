"""hwthreadNumbering against topologies: those of recorded machines, whose order slurmds have shown, and odd ones."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.daemon.checks.cores import find_cores
from cc_slurm_adapter.model import CpuNumbers, Finding, NodeState, Numbering, NumberingByHost
from cc_slurm_adapter.sinks.clusters import Groups, SubCluster
from cc_slurm_adapter.slurm.topology import read_machine

MACHINES = Path(__file__).parents[3] / "recorded" / "machines"
SYSTEM = "sys/devices/system"


def numbers(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for item in filter(None, text.split(",")):
        first, _, last = item.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def topology_of(machine: str) -> SubCluster:
    """The topology of a recorded machine, as a person or likwid writes it from the same files."""
    files: dict[str, str] = json.loads((MACHINES / f"{machine}.json").read_text(encoding="ascii"))
    cpus = numbers(files[f"{SYSTEM}/cpu/online"])

    def groups(name: str) -> Groups:
        found = {numbers(files.get(f"{SYSTEM}/cpu/cpu{cpu}/topology/{name}", str(cpu))) for cpu in cpus}
        return tuple(sorted(found, reverse=True))

    nodes = [text for path, text in files.items() if re.search(r"node/node\d+/cpulist", path)]
    domains = tuple(numbers(text) for text in nodes)
    return SubCluster("main", "*", cpus, groups("core_cpus_list"), groups("package_cpus_list"), domains)


def find(sub: SubCluster, numbering: Numbering | CpuNumbers | None, cpus: int = 0) -> list[Finding]:
    """What is found of one node of a subcluster; None is no setting."""
    node = NodeState("n1", ("idle",), 0, 0, 0, cpus=cpus or len(sub.hwthreads))
    by_host: NumberingByHost = () if numbering is None else ((re.compile("^n"), numbering),)
    return list(find_cores([(node, sub)], by_host))


def is_right(sub: SubCluster, numbering: Numbering | CpuNumbers | None, cpus: int = 0) -> bool:
    return [each.level for each in find(sub, numbering, cpus)] == [logging.INFO]


def as_list(cpus: tuple[int, ...]) -> CpuNumbers:
    return tuple((cpu,) for cpu in cpus)


MACHINES_BY_WORD = {
    "block": ["block", "without-smt", "smt-off", "virtual-machine"],
    "interleaved": ["interleaved"],
}


@pytest.mark.parametrize("machine", MACHINES_BY_WORD["block"])
def test_machines_that_need_no_setting(machine: str) -> None:
    assert is_right(topology_of(machine), None)
    assert is_right(topology_of(machine), Numbering.BLOCK)


@pytest.mark.parametrize("machine", MACHINES_BY_WORD["interleaved"])
def test_a_word_that_would_fit_is_named(machine: str) -> None:
    sub = topology_of(machine)
    assert is_right(sub, Numbering.INTERLEAVED)
    (found,) = find(sub, None)
    assert found.level == logging.WARNING
    assert found.text.endswith(': "interleaved" would fit that')
    assert "numbered as block" in found.text


LISTED = [
    "alternating-sockets",
    "alternating-sockets-without-smt",
    "gaps",
    "second-socket-first",
    "numa-in-socket",
]


@pytest.mark.parametrize("machine", LISTED)
def test_the_list_of_the_machine_itself_is_right_and_the_one_that_would_fit(machine: str, tmp_path: Path) -> None:
    files: dict[str, str] = json.loads((MACHINES / f"{machine}.json").read_text(encoding="ascii"))
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="ascii")
    cpus = read_machine(str(tmp_path)).cpus
    sub = topology_of(machine)
    assert is_right(sub, as_list(cpus))
    turned = cpus[len(cpus) // 2 :] + cpus[: len(cpus) // 2]
    (found,) = find(sub, as_list(turned))
    assert found.level == logging.WARNING
    fits = re.search(r"main: (.*) would fit that", found.text)
    assert fits
    said: Any = json.loads(fits[1])
    assert is_right(sub, Numbering(said) if isinstance(said, str) else as_list(tuple(said)))
    if isinstance(said, list):
        assert said == list(cpus)


def test_sockets_in_turn_are_no_block_although_the_cores_are_the_same() -> None:
    assert not is_right(topology_of("alternating-sockets"), Numbering.BLOCK)


SMT = SubCluster("main", "*", tuple(range(8)), ((0, 4), (1, 5), (2, 6), (3, 7)), (tuple(range(8)),))
"""Four cores with two threads each."""


def test_slurm_without_threads_gets_any_thread_of_each_core() -> None:
    assert is_right(SMT, Numbering.BLOCK, 4)
    assert is_right(SMT, as_list((4, 1, 6, 3)), 4)
    assert is_right(SMT, ((0, 4), (1, 5), (2, 6), (3, 7)), 4)
    (found,) = find(SMT, as_list((0, 4, 1, 5)), 4)
    assert found.text.endswith(': "block" would fit that')


def test_numbers_of_cores_fit_only_a_topology_of_cores() -> None:
    assert not is_right(SMT, Numbering.CORES)
    cores = SubCluster("main", "*", (0, 1, 2, 3), ((0,), (1,), (2,), (3,)), ((0, 1), (2, 3)))
    assert is_right(cores, Numbering.CORES)
    assert is_right(cores, Numbering.CORES, 8)


def test_another_number_of_hardware_threads() -> None:
    (found,) = find(SMT, None, 16)
    assert found.level == logging.WARNING
    assert found.text == (
        "n1: 16 CPUs in Slurm, but cc-backend's topology of the subcluster main has 8 hardware threads on 4 cores"
    )


@pytest.mark.parametrize(
    ("sub", "said"),
    [
        (SubCluster("main", "*", (0, 1)), "topology.core as in topology.node"),
        (SubCluster("main", "*", (0, 1, 2), ((0,), (1,))), "topology.core as in topology.node"),
        (SubCluster("main", "*", (0, 1), ((0,), (1,), (1,))), "topology.core as in topology.node"),
    ],
)
def test_a_topology_that_is_not_complete(sub: SubCluster, said: str) -> None:
    (found,) = find(sub, None, 2)
    assert found.level == logging.WARNING
    assert said in found.text
    assert "cluster.json" in found.next_step


def test_a_topology_that_is_not_described_is_not_compared() -> None:
    (found,) = find(SubCluster("main"), None, 2)
    assert (found.level, found.next_step) == (logging.INFO, "")
    assert "lists no hardware threads" in found.text


def test_cores_of_different_kinds_are_not_compared() -> None:
    (found,) = find(SubCluster("main", "*", (0, 1, 2), ((0, 1), (2,))), None)
    assert (found.level, found.next_step) == (logging.INFO, "")
    assert "cannot be compared" in found.text


def test_what_is_not_known_or_found_elsewhere_is_left_out() -> None:
    assert list(find_cores([(NodeState("n1", ("idle",), 0, 0, 0), SMT)], ())) == []
    assert find(SMT, as_list((0, 1, 2))) == []

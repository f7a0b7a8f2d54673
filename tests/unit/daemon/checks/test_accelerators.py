"""gpuPciAddrs against Slurm's GPUs and against the accelerators of a subcluster."""

from __future__ import annotations

import logging
import re

from cc_slurm_adapter.daemon.checks.accelerators import find_accelerators, find_surplus
from cc_slurm_adapter.model import Finding, NodeState
from cc_slurm_adapter.sinks.clusters import SubCluster

A, B, C = "00000000:01:00.0", "00000000:C1:00.0", "00000000:E1:00.0"


def node(name: str, gpus: int = 2) -> NodeState:
    return NodeState(name, ("idle",), 0, 0, 0, gpus=gpus)


def find(addresses: tuple[str, ...], ids: tuple[str, ...], *nodes: NodeState) -> list[Finding]:
    sub = SubCluster("gpu", hwthreads=(0,), accelerators=ids)
    return list(find_accelerators([(each, sub) for each in nodes or [node("g1")]], ((re.compile("^g"), addresses),)))


def test_the_same_addresses_in_any_order() -> None:
    (found,) = find((A, B), (B, A), node("g1"), node("g2"))
    assert (found.level, found.text) == (
        logging.INFO,
        "gpuPciAddrs: the addresses of 2 nodes are those of cc-backend's topology",
    )


def test_other_addresses_are_one_line_for_nodes_of_one_kind() -> None:
    (found,) = find((A, B), (A, C), node("g2"), node("g1"))
    assert found.level == logging.WARNING
    assert found.text == (
        f"gpuPciAddrs differs from cc-backend's topology of the subcluster gpu: {B} of g1, g2 is not in it, and {C} of"
        " it is not among those of g1, g2"
    )


def test_accelerators_that_gpu_pci_addrs_lacks() -> None:
    (found,) = find((A, B), (A, B, C))
    assert found.text.endswith(f": {C} of it is not among those of g1")


def test_a_topology_without_accelerators() -> None:
    (found,) = find((A, B), ())
    assert found.text.endswith(f": {A}, {B} of g1 are not in it")


def test_a_subcluster_whose_hardware_is_not_described_is_not_compared() -> None:
    assert list(find_accelerators([(node("g1"), SubCluster("gpu"))], ((re.compile("^g"), (A, B)),))) == []


def test_the_same_addresses_in_another_spelling() -> None:
    (found,) = find((A, "0000:c1:00.0"), (A, B))
    step = "they are the same addresses: write them in gpuPciAddrs as cluster.json does, then reload"
    assert found.next_step == step


def test_what_has_no_address_is_not_compared() -> None:
    """Another line says that gpuPciAddrs lacks them."""
    assert find((), (A, B)) == []
    assert [each.level for each in find((A, ""), (A, B))] == [logging.INFO]
    assert [each.level for each in find((A,), (A, B))] == [logging.INFO]
    assert find((A, B), (A, B), node("other")) == []


def test_addresses_beyond_the_gpus_of_a_node_do_not_count() -> None:
    assert [each.level for each in find((A, B, C), (A, B))] == [logging.INFO]


def test_parts_of_a_card_have_one_address() -> None:
    assert [each.level for each in find((A, A, B, B), (A, B), node("g1", 4))] == [logging.INFO]


def test_accelerators_of_nodes_that_have_no_gpus_in_slurm() -> None:
    (found,) = find((A, B), (A, B), node("g1", 0))
    assert found.text == ("cc-backend has 2 accelerators for the subcluster gpu, but Slurm has no GPUs on g1")
    assert found.level == logging.WARNING


def test_nodes_without_gpus_on_both_sides() -> None:
    assert find((A, B), (), node("g1", 0)) == []


def test_many_addresses_are_not_all_named() -> None:
    listed = tuple(f"00000000:{number:02x}:00.0" for number in range(20))
    (found,) = find(listed, (), node("g1", 20))
    assert " and 12 more of g1 are not in it" in found.text


def test_fewer_gpus_than_addresses() -> None:
    by_host = ((re.compile("^g"), (A, B, C)),)
    (found,) = find_surplus([node("g1"), node("g2"), node("g3", 3), node("g4", 0), node("n1")], by_host)
    assert found.text == "gpuPciAddrs has 3 addresses for nodes that have 2 GPUs in Slurm: g1, g2"
    assert found.level == logging.WARNING

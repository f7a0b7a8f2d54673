"""Nodes with GPUs that have no address are told once the nodes are known: one line for each kind of node."""

from __future__ import annotations

import re

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.destinations import Destinations
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.sinks.gpu_addresses import MissingAddresses

FOUR = tuple(f"00000000:0{number}:00.0" for number in range(4))


def node(name: str, gpus: int, gpu_types: str) -> NodeState:
    return NodeState(name, ("idle",), 0, 0, 0, gpus=gpus, gpu_types=gpu_types)


NODES = [
    node("login", 0, ""),
    *(node(f"gpu{number:02}", 4, "4 gpu:h100") for number in range(1, 13)),
    node("fat01", 8, "8 gpu:a100"),
]


def test_one_line_for_each_kind_and_no_other_at_the_next_poll(caplog: pytest.LogCaptureFixture) -> None:
    missing = MissingAddresses(())
    missing.check(NODES)
    missing.check(NODES)
    assert [line.partition(": cc-backend gets")[0] for line in caplog.messages] == [
        "12 nodes (gpu01, gpu02, gpu03 and 9 more) with 4 gpu:h100 each, for which gpuPciAddrs has 0 addresses, none"
        " for the GPU indices 0-3",
        "1 node (fat01) with 8 gpu:a100, for which gpuPciAddrs has 0 addresses, none for the GPU indices 0-7",
    ]
    assert "Complete gpuPciAddrs" in caplog.messages[0]


def test_too_few_addresses_are_told_and_enough_are_not(caplog: pytest.LogCaptureFixture) -> None:
    MissingAddresses(((re.compile("^gpu|^fat"), FOUR),)).check(NODES)
    (line,) = caplog.messages
    assert line.startswith(
        "1 node (fat01) with 8 gpu:a100, for which gpuPciAddrs has 4 addresses, none for the GPU indices 4-7: "
    )


def test_an_empty_entry_is_no_address(caplog: pytest.LogCaptureFixture) -> None:
    MissingAddresses(((re.compile(""), (*FOUR[:3], "")),)).check(NODES[1:3])
    (line,) = caplog.messages
    assert line.startswith(
        "2 nodes (gpu01, gpu02) with 4 gpu:h100 each, for which gpuPciAddrs has 3 addresses, none for the GPU index 3: "
    )


def test_nodes_that_lack_other_indices_are_another_kind(caplog: pytest.LogCaptureFixture) -> None:
    by_host = ((re.compile("gpu01"), ("", *FOUR[1:])), (re.compile("gpu02"), (*FOUR[:3], "")))
    MissingAddresses(by_host).check(NODES[1:3])
    assert [re.findall(r"\((\w+)\).* index (\d):", line) for line in caplog.messages] == [
        [("gpu01", "0")],
        [("gpu02", "3")],
    ]


def test_a_kind_of_node_that_comes_later_is_told_then(caplog: pytest.LogCaptureFixture) -> None:
    missing = MissingAddresses(((re.compile("^gpu"), FOUR),))
    missing.check(NODES[:5])
    assert not caplog.messages
    missing.check(NODES)
    assert "fat01" in caplog.text


def test_the_nodes_of_a_poll_are_looked_at_whoever_they_are_sent_to(caplog: pytest.LogCaptureFixture) -> None:
    config, _ = parse_config({"ccRestUrl": "http://127.0.0.1:1", "ccRestJwt": "a.b.c"})
    Destinations(config, Counters()).post_nodes("lab", NODES)
    assert len(caplog.messages) == 2

"""All nodes against a whole cluster: whatever cc-backend says, and under the names that are sent."""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.config.config import Config, parse_config
from cc_slurm_adapter.daemon.checks.cluster_topology import compare_topology, find_refused
from cc_slurm_adapter.model import Finding, NodeState
from cc_slurm_adapter.sinks.clusters import Cluster, SubCluster, parse_clusters

NEEDED = {"ccRestUrl": "https://cc-backend.example.org", "ccRestJwt": "token"}
SMALL = st.lists(st.integers(0, 9), max_size=6)
TOPOLOGY = st.fixed_dictionaries(
    {
        **dict.fromkeys(["socket", "memoryDomain", "die", "core"], st.lists(SMALL, max_size=4)),
        "node": SMALL,
        "accelerators": st.lists(st.fixed_dictionaries({"id": st.sampled_from(["", "0:1", "0:2", "x"])}), max_size=3),
    }
)
SUB_CLUSTER = st.fixed_dictionaries(
    {"name": st.sampled_from("ab"), "nodes": st.sampled_from(["n[1-2]", "n2,n3", "*", "", "["]), "topology": TOPOLOGY}
)
NUMBERINGS = ["block", "interleaved", "cores", {"^n": [0, 1]}, {"^n": [[0, 2], [1, 3]]}]


def node(name: str, cpus: int = 4, gpus: int = 0) -> NodeState:
    return NodeState(name, ("idle",), 0, 0, 0, cpus=cpus, gpus=gpus)


def config_of(**settings: Any) -> Config:
    return parse_config({**NEEDED, **settings})[0]


@given(
    st.lists(SUB_CLUSTER, max_size=3),
    st.sampled_from(NUMBERINGS),
    st.lists(
        st.builds(node, st.sampled_from(["n1", "n2", "n3", "x"]), st.integers(0, 6), st.integers(0, 3)), max_size=4
    ),
)
def test_any_topology_is_compared_with_any_nodes(subs: list[Any], numbering: Any, nodes: list[NodeState]) -> None:
    (cluster,) = parse_clusters({"clusters": [{"name": "lab", "subClusters": subs}]})
    config = config_of(hwthreadNumbering=numbering, gpuPciAddrs={"^n": ["0:1", "", "0:2"]})
    found = list(compare_topology(config, cluster, nodes))
    assert all(isinstance(each, Finding) and "\n" not in str(each) for each in found)
    assert all(each in found for each in find_refused(config, cluster, nodes))


@given(st.sampled_from(["block", "interleaved"]), st.integers(1, 2), st.integers(1, 4), st.integers(1, 3))
def test_a_node_that_is_numbered_as_it_says_fits_its_topology(
    word: str, sockets: int, cores: int, threads: int
) -> None:
    """Each word's own definition makes the topology: docs/configuration.md, Hardware threads."""
    count = sockets * cores
    groups = [
        tuple(core + thread * count if word == "block" else core * threads + thread for thread in range(threads))
        for core in range(count)
    ]
    of_sockets = tuple(tuple(sum(groups[at * cores : (at + 1) * cores], ())) for at in range(sockets))
    sub = SubCluster("main", "n1", tuple(range(count * threads)), tuple(groups[::-1]), of_sockets)
    config = config_of(hwthreadNumbering=word)
    found = list(compare_topology(config, Cluster("lab", (sub,)), [node("n1", count * threads)]))
    assert {each.level for each in found} == {logging.INFO}


def test_nodes_are_refused_under_the_names_that_are_sent() -> None:
    cluster = Cluster("lab", (SubCluster("main", "n[1-2]"),))
    nodes = [node("cn1"), node("cn2"), node("vis1")]
    config = config_of(hostnameRewrite=[["^c", ""]], ignoreHosts="^vis")
    assert find_refused(config, cluster, nodes) == []
    (found,) = find_refused(config_of(hostnameRewrite=[["^c", ""]]), cluster, nodes)
    assert "(vis1)" in found.text

"""What the configuration says of hosts, compared with the nodes of a poll."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.host_checks import HostChecks
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.sinks.clusters import Cluster, ClusterList, SubCluster

NEEDED = {"ccRestUrl": "https://cc-backend.example.org", "ccRestJwt": "token"}


def make_checks(**settings: Any) -> HostChecks:
    return HostChecks(parse_config({**NEEDED, **settings})[0])


def node(name: str, cpus: int = 16) -> NodeState:
    return NodeState(name, ("idle",), 0, 0, 0, cpus=cpus)


@pytest.mark.parametrize(
    ("key", "value", "unused"),
    [
        ("gpuPciAddrs", {"^gpu": [], "^node": []}, "'^gpu'"),
        ("hwthreadNumbering", {"^node": "cores", "^power": "interleaved", "9$": "block"}, "'^power', '9$'"),
        ("hostnameRewrite", [["^cn", "node"], ["^node", "cn"]], "'^cn'"),
        ("ignoreHosts", "^login|^vis", "'^login|^vis'"),
    ],
)
def test_a_pattern_that_matches_no_node_is_said_once(key: str, value: object, unused: str) -> None:
    checks = make_checks(**{key: value})
    assert checks.check([]) == []  # a cluster may have no nodes for a while
    found = checks.check([node("node01"), node("node02")])
    assert [(finding.level, finding.subject, str(finding)) for finding in found] == [
        (logging.WARNING, key, f"{key}: {unused} matches none of Slurm's 2 nodes: correct or remove it, then reload")
    ]
    assert checks.check([node("node01"), node("node02")]) == []


@pytest.mark.parametrize(
    ("named", "types", "unused"),
    [
        (["npu"], ["", "4 gpu:h100"], "'npu'"),
        (["gpu", "dcu", "npu"], ["4 gpu:npu", "2 dcu, 2 dcu:z100"], "'npu'"),
        (["npu", "dcu"], [""], "'npu', 'dcu'"),
    ],
)
def test_a_gres_that_no_node_has_is_said_once(named: list[str], types: list[str], unused: str) -> None:
    checks = make_checks(acceleratorGres=named)
    nodes = [NodeState(f"n{number}", ("idle",), 0, 0, 0, gpu_types=each) for number, each in enumerate(types)]
    (finding,) = [each for _ in range(2) for each in checks.check(nodes)]
    assert str(finding).startswith(f"acceleratorGres: {unused} is a GRES of none of Slurm's {len(nodes)} nodes: ")


def test_a_cluster_without_gpus_needs_no_setting() -> None:
    assert make_checks().check([node("n1")]) == []
    npus = NodeState("n1", ("idle",), 0, 0, 0, gpu_types="8 npu:910b")
    assert make_checks(acceleratorGres=["npu"]).check([npus]) == []


def test_nothing_is_said_when_all_patterns_match() -> None:
    checks = make_checks(gpuPciAddrs={"1$": []}, hostnameRewrite=[["^n", "m"]], ignoreHosts="^x|2$")
    assert checks.check([node("node01"), node("node02")]) == []
    assert make_checks().check([node("node01")]) == []


def test_a_list_that_does_not_fit_its_nodes_is_said_once_for_all_of_them() -> None:
    checks = make_checks(hwthreadNumbering={"^short": [0, 1, 2], "^fits": [[0, 1], 2], "^block": "block"})
    nodes = [node("short2", 4), node("short1", 4), node("long", 4), node("fits", 2), node("block", 4)]
    found = [each for _ in range(2) for each in checks.check(nodes)]
    assert [(finding.level, str(finding)) for finding in found] == [
        (
            logging.WARNING,
            "hwthreadNumbering lists 3 CPUs for nodes that have 4 in Slurm: the hardware threads of short1, short2 are"
            " left out. Run cc-slurm-adapter -topology there for the right list, then reload",
        )
    ]
    # A new node, one that has changed, and one of which nobody knows.
    found = checks.check([*nodes[:4], node("short3", 2), node("fits", 3), node("short4", 0)])
    assert [str(finding)[:58] for finding in found] == [
        "hwthreadNumbering lists 3 CPUs for nodes that have 2 in Sl",
        "hwthreadNumbering lists 2 CPUs for nodes that have 3 in Sl",
    ]


def known(*hosts: str) -> ClusterList:
    return ClusterList((Cluster("lab", (SubCluster("main", ",".join(hosts), (0,), ((0,),)),)),))


def test_cc_backends_clusters_are_compared_once_for_each_time_it_was_asked() -> None:
    checks, nodes = make_checks(), [node("n1", 1), node("n2", 1)]
    checks.clusters = known("n1")
    assert checks.check(nodes) == []  # which cluster it is, the start has not said yet
    checks.cluster = "lab"
    found = [each for _ in range(2) for each in checks.check(nodes)]
    assert [(finding.level, finding.subject) for finding in found] == [(logging.WARNING, "subclusters")]
    checks.clusters = known("n1", "n2")
    forgotten: list[str] = []
    assert checks.check([], forgotten.extend) == []
    assert forgotten == []
    assert [checks.check(nodes, forgotten.extend) for _ in range(2)] == [[], []]
    assert forgotten == ["subclusters"]


def test_what_costs_no_job_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    checks = make_checks()
    checks.cluster, checks.clusters = "lab", known("n1", "n2", "n3")
    found = [each for _ in range(2) for each in checks.check([node("n1", 1), node("n2", 4)])]
    assert found == []
    assert [(record.levelno, record.getMessage().partition(":")[0]) for record in caplog.records] == [
        (logging.WARNING, "1 host of subclusters of lab is no node of Slurm (n3)"),
        (logging.WARNING, "n2"),
    ]


def test_a_cluster_that_cc_backend_does_not_have_is_not_compared() -> None:
    checks = make_checks()
    checks.cluster, checks.clusters = "other", known("n1")
    assert checks.check([node("n2")]) == []

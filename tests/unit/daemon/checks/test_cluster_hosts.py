"""Slurm's nodes and the hosts of cc-backend's subclusters."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest

from cc_slurm_adapter.daemon.checks.cluster_hosts import NodeNames, find_hosts, read_hosts
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.sinks.clusters import Cluster, SubCluster


def find(subs: dict[str, str], nodes: Iterable[str], ignored: Iterable[str] = ()) -> list[Finding]:
    cluster = Cluster("lab", tuple(SubCluster(name, hosts) for name, hosts in subs.items()))
    sent = {node: node for node in nodes}
    reported = {node: node for node in sent if node not in ignored}
    return list(find_hosts(read_hosts(cluster), NodeNames(sent, reported)))


def problems(subs: dict[str, str], nodes: Iterable[str], ignored: Iterable[str] = ()) -> list[tuple[int, str]]:
    return [(each.level, each.text) for each in find(subs, nodes, ignored) if each.level > logging.INFO]


def test_all_nodes_and_no_others() -> None:
    (found,) = find({"main": "node[01-02]", "gpu": "gpu1,gpu2"}, ["node01", "node02", "gpu1", "gpu2"])
    assert (found.level, found.text) == (
        logging.INFO,
        "all 4 nodes of Slurm are in subclusters of lab, and no other hosts are",
    )


def test_nodes_in_no_subcluster() -> None:
    (found,) = find({"main": "node[01-02]"}, ["node01", "node02", "vis2", "vis1"])
    assert found.level == logging.WARNING
    assert found.text == (
        "2 nodes of Slurm (vis1, vis2) are not in a subcluster of lab: cc-backend refuses jobs that begin there"
    )
    assert "cluster.json" in found.next_step


def test_when_no_node_is_in_one_every_job_is_refused() -> None:
    ((level, text), _) = problems({"main": "cn[1-2]"}, ["node1", "node2"])
    assert level == logging.ERROR
    assert text == (
        "none of Slurm's 2 nodes is in a subcluster of lab: cc-backend refuses jobs that begin there (node1, node2)"
    )


def test_nodes_that_are_ignored_need_no_subcluster() -> None:
    assert problems({"main": "node1"}, ["node1", "vis1"], ignored=["vis1"]) == []
    assert problems({"main": "node1,vis1"}, ["node1", "vis1"], ignored=["vis1"]) == []


def test_hosts_that_slurm_does_not_have() -> None:
    assert problems({"main": "node[1-3]"}, ["node1", "node2"]) == [
        (logging.WARNING, "1 host of subclusters of lab is no node of Slurm (node3)")
    ]
    ((_, text),) = problems({"main": "node[001-999]"}, ["node001"])
    assert text.startswith("998 hosts of subclusters of lab are no nodes of Slurm (node002, node003, ")
    assert text.endswith(" and 988 more)")


def test_zeros_in_front_make_another_name() -> None:
    assert len(problems({"main": "node[1-2]"}, ["node01", "node02"])) == 2


def test_a_host_in_two_subclusters() -> None:
    assert problems({"a": "n[1-2]", "b": "n[2-3]"}, ["n1", "n2", "n3"]) == [
        (logging.WARNING, "1 host is in more than one subcluster of lab, of which cc-backend takes any: n2")
    ]


def test_the_first_subcluster_may_have_all_others() -> None:
    assert problems({"rest": "*", "gpu": "gpu1"}, ["gpu1", "a", "b"]) == []
    ((level, _),) = problems({"gpu": "gpu1", "rest": "*"}, ["gpu1", "a"])
    assert level == logging.WARNING


@pytest.mark.parametrize("hosts", ["node[1-", "node[a-b]", "node[1-99999999]"])
def test_a_list_of_hosts_that_cannot_be_read(hosts: str) -> None:
    found = find({"bad": hosts, "good": "n1"}, ["n1"])
    assert found[0].level == logging.WARNING
    assert found[0].text.startswith("cc-backend's hosts of the subcluster bad: host list: ")


def test_more_hosts_than_any_cluster_has_are_not_kept() -> None:
    found = find({f"s{number}": f"{chr(97 + number)}[1-50000]" for number in range(3)}, ["a1"])
    assert (
        found[0].text == "cc-backend's hosts of the subcluster s2: host list: more than 100000 hosts in all subclusters"
    )


def test_a_cluster_without_subclusters_and_one_without_nodes() -> None:
    assert problems({}, ["n1"])[0][0] == logging.ERROR
    assert find({}, []) == []
    assert find({"main": ""}, []) == []

"""What the configuration says about hosts, and what becomes of it when that changes."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from cc_slurm_adapter.config.config import Config, parse_config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.hosts import Hosts
from cc_slurm_adapter.daemon.status import StatusBoard
from cc_slurm_adapter.model import Finding, NodeState
from cc_slurm_adapter.sinks.clusters import Cluster, ClusterList, SubCluster
from tests.fakes.slurm_and_sinks import make_run

ADDRESSES = ["00000000:0E:00.0", "00000000:13:00.0"]


def config(**settings: Any) -> Config:
    return parse_config({"ccRestUrl": "http://h", "ccRestJwt": "t", **settings})[0]


def make_hosts(report: Any = lambda *_: None, **settings: Any) -> Hosts:
    return Hosts(config(**settings), Counters(), report)


def node(name: str) -> NodeState:
    return NodeState(name, ("IDLE",), 0, 0, 0, 0)


def resource(hosts: Hosts) -> dict[str, Any]:
    """What a message says about the node of a run."""
    (found,) = json.loads(hosts.encoder.encode_start(make_run()).whole())["resources"]
    return dict(found)


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({}, True),
        ({"slurmPollInterval": 5, "ignoreUsers": "x"}, True),
        ({"gpuPciAddrs": {"^n": ADDRESSES}}, False),
        ({"hwthreadNumbering": "cores"}, False),
        ({"hostnameRewrite": [["^n", "m"]]}, False),
        ({"ignoreHosts": "^x"}, False),
    ],
)
def test_only_what_is_about_hosts_makes_a_difference(settings: dict[str, Any], same: bool) -> None:
    assert make_hosts().is_of(config(**settings)) == same


def test_another_configuration_is_in_the_next_message() -> None:
    hosts = make_hosts()
    assert resource(hosts)["hostname"] == "node01"
    assert "accelerators" not in resource(hosts)
    other = config(gpuPciAddrs={"^node": ADDRESSES}, hostnameRewrite=[["^node", "n"]], hwthreadNumbering="cores")
    changed = hosts.changed(other, Counters(), lambda *_: None)
    assert resource(changed) == {"hostname": "n01", "hwthreads": [0, 1], "accelerators": ADDRESSES}


def test_names_that_clash_are_found_before_the_next_poll() -> None:
    """Else two nodes would be sent under one name until then."""
    found: list[Finding] = []
    hosts = make_hosts()
    hosts.learn([node("node01"), node("node02")])
    changed = hosts.changed(config(hostnameRewrite=[["^node.*", "n"]]), Counters(), found.append)
    assert resource(changed)["hostname"] == "node01"
    assert [(each.level, each.subject) for each in found] == [(logging.ERROR, "hostnameRewrite")]


def test_the_nodes_are_known_after_a_second_change_before_the_next_poll() -> None:
    rewrite = [["^node.*", "n"]]
    hosts = make_hosts()
    hosts.learn([node("node01"), node("node02")])
    for settings in ({"hostnameRewrite": rewrite}, {"hostnameRewrite": rewrite, "ignoreHosts": "^x"}):
        hosts = hosts.changed(config(**settings), Counters(), lambda *_: None)
        assert resource(hosts)["hostname"] == "node01"


def test_patterns_are_compared_with_the_nodes_again() -> None:
    hosts = make_hosts()
    assert hosts.learn([node("node01")]) == []
    changed = hosts.changed(config(ignoreHosts="^nothing"), Counters(), lambda *_: None)
    (found,) = changed.learn([node("node01")])
    assert found.subject == "ignoreHosts"


def test_nodes_are_compared_with_cc_backends_clusters_again_and_what_was_found_before_is_over() -> None:
    """Also before cc-backend is asked again. The rest that is refused is another finding, not one more."""
    board = StatusBoard("", "/nonexistent/state.sqlite", 0, Counters())
    nodes = [node("n1"), node("login1"), node("login2")]

    def found(hosts: Hosts) -> list[str]:
        board.report_findings(*hosts.learn(nodes, board.forget_findings))
        return [each.text.partition(" in a ")[0] for each in board.collect().findings if each.subject == "subclusters"]

    hosts = make_hosts()
    hosts.checks.cluster = "lab"
    hosts.checks.clusters = ClusterList((Cluster("lab", (SubCluster("main", "n1"),)),))
    (both,) = found(hosts)
    assert "login1, login2" in both
    hosts = hosts.changed(config(ignoreHosts="^login1"), Counters(), lambda *_: None)
    (one,) = found(hosts)
    assert "login2" in one
    assert found(hosts.changed(config(ignoreHosts="^login"), Counters(), lambda *_: None)) == []

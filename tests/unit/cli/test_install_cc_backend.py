"""What -install learns from cc-backend, and that it asks it once and only reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cc_slurm_adapter.cli.install_cc_backend import Described, ask_cc_backend, describe
from cc_slurm_adapter.cli.install_script import make_script
from cc_slurm_adapter.config.config import Config, parse_config
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.sinks.clusters import Cluster, SubCluster
from examples.practice.cc_backend import CcBackend, serving
from tests.fakes.hosts import installed_host, node, of_slurm

ADDRESSES = ("00000000:0E:00.0", "00000000:13:00.0")
GPU_NODES = SubCluster(
    "gpus", "gpu[1-2]", tuple(range(8)), cores=((0, 1), (2, 3), (4, 5), (6, 7)), accelerators=ADDRESSES
)


def config_for(url: str, **settings: Any) -> Config:
    return parse_config({"ccRestUrl": url, "ccRestJwt": "x.y.z", **settings})[0]


@pytest.fixture
def backend() -> CcBackend:
    return CcBackend(token="x.y.z")


@pytest.fixture
def url(backend: CcBackend) -> Iterator[str]:
    with serving(backend) as address:
        yield address


def gpu_nodes() -> list[NodeState]:
    return [node(f"gpu{number}", 2, "2 gpu:a100", cpus=8) for number in (1, 2)]


def test_the_topology_says_which_numbering_fits_and_which_addresses_there_are() -> None:
    found = describe(config_for("https://cc.example.org"), Cluster("emmy", (GPU_NODES,)), gpu_nodes())
    (line,) = found.numbering
    assert '"interleaved" would fit that' in line
    assert found.accelerators == {"gpu1": ADDRESSES, "gpu2": ADDRESSES}


def test_nodes_are_found_by_the_names_that_are_sent() -> None:
    config = config_for("https://cc.example.org", hostnameRewrite=[["^gpu", "g"]])
    renamed = SubCluster("gpus", "g[1-2]", accelerators=ADDRESSES)
    assert describe(config, Cluster("emmy", (renamed,)), gpu_nodes()).accelerators["gpu2"] == ADDRESSES


def test_cc_backend_is_asked_once(url: str, backend: CcBackend) -> None:
    found = ask_cc_backend(config_for(url), "lab", [node("node01", cpus=16)])
    assert found.failure == ""
    assert [(each.method, each.path) for each in backend.log] == [("GET", "/api/clusters/")]
    assert ask_cc_backend(config_for(url), "nowhere", []).failure == "it has no cluster nowhere"


@pytest.mark.parametrize(("token", "said"), [("wrong", "token"), ("x.y.z", "")])
def test_why_it_is_not_known_is_said(token: str, said: str, url: str) -> None:
    config = parse_config({"ccRestUrl": url, "ccRestJwt": token})[0]
    assert said in ask_cc_backend(config, "lab", []).failure
    away = ask_cc_backend(config_for("http://127.0.0.1:1"), "lab", [])
    assert away.failure != ""


def script(described: Described, nodes: Sequence[NodeState]) -> str:
    host = of_slurm(installed_host(described=described), nodes=nodes)
    return "\n".join(make_script(host))


def test_it_is_printed_beside_the_configuration() -> None:
    described = Described("", ["hwthreadNumbering: x would fit"], {"gpu1": ADDRESSES})
    text = script(described, gpu_nodes())
    assert f"#     gpu1 and 1 other with 2 gpu:a100: cluster.json has {', '.join(ADDRESSES)}\n" in text
    assert "# hwthreadNumbering: x would fit\n" in script(described, [node("cn1")])
    assert "# cc-backend's topology is not known: HTTP 502\n" in script(Described("HTTP 502"), [node("cn1")])

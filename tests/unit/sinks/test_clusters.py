"""What cc-backend says of its clusters, in the recorded form and in any other."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import SinkError, TokenRefused
from cc_slurm_adapter.sinks.clusters import Cluster, SubCluster, parse_clusters
from cc_slurm_adapter.sinks.rest import CcRest
from examples.practice.cc_backend import CcBackend, OtherAnswer, serving

RECORDED = Path(__file__).parents[2] / "recorded" / "cc_backend" / "exchanges.json"
GPU_NODE: dict[str, Any] = {
    "name": "a100",
    "nodes": "a[0101-0104],a0201",
    "topology": {
        "node": [0, 1, 2, 3],
        "socket": [[0, 1], [2, 3]],
        "memoryDomain": [[0, 1], [2, 3]],
        "die": [[0, 1, 2, 3]],
        "core": [[0], [1], [2], [3]],
        "accelerators": [{"id": "00000000:0E:00.0", "type": "Nvidia GPU", "model": "A100"}],
    },
}


def ask(backend: CcBackend, token: str = "") -> Any:
    with serving(backend) as url:
        connection = CcRest(url, lambda: token or backend.token).connect()
        try:
            return connection.clusters()
        finally:
            connection.close()


def test_the_beginning_of_the_recorded_answer_is_the_practice_ones() -> None:
    """The recording was cut. What it shows of a cluster is what is read here: its name comes first."""
    recorded = {each["name"]: each for each in json.loads(RECORDED.read_text(encoding="utf-8"))}["clusters"]
    assert recorded["answer"].startswith('{"clusters":[{"name":"big",')
    found = ask(CcBackend())
    assert found.names == ["big", "lab"]


def test_subclusters_of_the_practice_cc_backend() -> None:
    found = ask(CcBackend({"lab": {"main": ["node01", "node02"], "gpu": ["gpu1"]}}))
    cluster = found.get("lab")
    assert [(sub.name, sub.nodes) for sub in cluster.sub_clusters] == [("main", "node01,node02"), ("gpu", "gpu1")]
    (sub, _) = cluster.sub_clusters
    assert sub.hwthreads == tuple(range(16))
    assert sub.cores[:2] == ((0, 8), (1, 9))
    assert [len(socket) for socket in sub.sockets] == [8, 8]
    assert sub.accelerators == ()
    assert found.get("other") is None


def test_all_that_is_read_of_a_subcluster() -> None:
    assert parse_clusters({"clusters": [{"name": "alex", "subClusters": [GPU_NODE]}]}) == (
        Cluster(
            "alex",
            (
                SubCluster(
                    name="a100",
                    nodes="a[0101-0104],a0201",
                    hwthreads=(0, 1, 2, 3),
                    cores=((0,), (1,), (2,), (3,)),
                    sockets=((0, 1), (2, 3)),
                    memory_domains=((0, 1), (2, 3)),
                    dies=((0, 1, 2, 3),),
                    accelerators=("00000000:0E:00.0",),
                ),
            ),
        ),
    )


def test_the_clock_of_the_response() -> None:
    before = time.time()
    clock = ask(CcBackend()).clock
    least, most = clock.ahead
    assert before <= clock.sent <= clock.received <= time.time()
    assert least <= 0 <= most


ODD: list[Any] = [
    {"name": "x"},
    {"name": "x", "subClusters": None},
    {"name": "x", "subClusters": "main"},
    {"name": "x", "subClusters": [None, 1, "main", []]},
]


@pytest.mark.parametrize("cluster", ODD)
def test_a_cluster_of_which_only_the_name_is_known(cluster: Any) -> None:
    assert parse_clusters({"clusters": [cluster]}) == (Cluster("x"),)


ODD_TOPOLOGIES: list[Any] = [
    None,
    [],
    "x",
    {"node": None, "core": [None, [], "a", [True, 1.5, "2"]], "accelerators": [None, {}, 1]},
]


@pytest.mark.parametrize("topology", ODD_TOPOLOGIES)
def test_a_topology_of_another_form_is_none(topology: Any) -> None:
    ((sub,),) = [
        each.sub_clusters
        for each in parse_clusters({"clusters": [{"name": "x", "subClusters": [{"topology": topology}]}]})
    ]
    assert sub == SubCluster("")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner)
    | st.dictionaries(st.sampled_from(["name", "subClusters", "topology", "core", "id"]), inner),
)


@given(JSON)
def test_any_clusters_are_read_or_none(value: Any) -> None:
    for document in ({"clusters": value}, {"clusters": [{"name": "x", "subClusters": value}]}):
        with contextlib.suppress(KeyError, TypeError):
            assert all(isinstance(each, Cluster) for each in parse_clusters(document))


ANSWERS = [
    (
        200,
        b"<html><head><title>Welcome</title></head></html>",
        "text/html",
        "this is not cc-backend's answer, is ccRestUrl right?",
    ),
    (200, b"[]", "application/json", "this is not cc-backend's answer, is ccRestUrl right?"),
    (404, b"not found", "text/plain", "this is not cc-backend's answer, is ccRestUrl right?"),
    (
        404,
        b'{"error":"the requested endpoint does not exist"}',
        "application/json",
        "does not list its clusters: HTTP 404",
    ),
    (502, b"<html><head><title>Bad Gateway</title></head></html>", "text/html", "does not list its clusters: HTTP 502"),
    (302, b"", "text/plain", "ccRestUrl is redirected"),
    (401, b"<html></html>", "text/html", "is ccRestUrl right?"),
    (407, b"", "text/plain", "the proxy requires a user and a password"),
]


@pytest.mark.parametrize(("status", "body", "content_type", "said"), ANSWERS)
def test_an_answer_without_clusters(status: int, body: bytes, content_type: str, said: str) -> None:
    backend = CcBackend()
    backend.add_fault(OtherAnswer(path="/api/clusters/", status=status, body=body, content_type=content_type))
    with pytest.raises(SinkError) as error:
        ask(backend)
    assert said in str(error.value)
    assert not isinstance(error.value, TokenRefused)


def test_a_token_that_is_refused() -> None:
    with pytest.raises(TokenRefused, match="refuses the token"):
        ask(CcBackend(), token="a.b.c")

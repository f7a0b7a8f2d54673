"""All checks of cc-backend together, against the stand-in."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.checks.cc_backend import find_cc_backend
from cc_slurm_adapter.model import Finding, NodeState
from examples.practice.cc_backend import CcBackend, OtherAnswer, html_page, serving
from tests.unit.daemon.checks.test_token import make_token

NOW = 1_800_000_000.0
DAY = 86400
TOKEN = make_token({"sub": "slurm", "roles": ["api"], "exp": NOW + 100 * DAY})
HOSTS = [f"node{number:02}" for number in range(1, 10)]


def nodes(*names: str, cpus: int = 16, gpus: int = 0) -> list[NodeState]:
    types = f"{gpus} gpu:a100" if gpus else ""
    return [NodeState(name, ("idle",), 0, 0, 0, cpus=cpus, gpus=gpus, gpu_types=types) for name in names or HOSTS]


@pytest.fixture
def backend() -> CcBackend:
    return CcBackend(token=TOKEN)


@pytest.fixture
def url(backend: CcBackend) -> Iterator[str]:
    with serving(backend) as address:
        yield address


def find(
    url: str, listed: Sequence[NodeState] | None = None, *, cluster: str = "lab", **settings: Any
) -> list[Finding]:
    needed = {"ccRestUrl": url, "ccRestJwt": TOKEN}
    config, _ = parse_config({**needed, **settings})
    return list(find_cc_backend(config, cluster, listed, NOW))


def find_them(url: str, hidden: dict[str, str]) -> list[Finding]:
    config, _ = parse_config({"ccRestUrl": url, "ccRestJwt": TOKEN})
    return list(find_cc_backend(config, "lab", nodes(), NOW, hidden))


def failures(found: Sequence[Finding], level: int = logging.WARNING) -> list[tuple[str, str]]:
    return [(each.subject, str(each)) for each in found if each.level >= level]


def test_all_is_well(url: str) -> None:
    found = find(url, nodes())
    assert failures(found) == []
    assert [each.subject for each in found] == [
        "ccRestUrl",
        "token",
        "token",
        "clock",
        "clusterName",
        "subclusters",
        "hwthreadNumbering",
    ]
    assert not any(each.next_step for each in found)


def test_only_one_question_is_asked(url: str, backend: CcBackend) -> None:
    find(url, nodes())
    assert [(each.method, each.path) for each in backend.log] == [("GET", "/api/clusters/")]
    assert backend.rows == []
    assert backend.node_states == {}


def test_a_cluster_that_cc_backend_does_not_know(url: str) -> None:
    ((subject, line),) = failures(find(url, nodes(), cluster="alex"), logging.ERROR)
    assert subject == "clusterName"
    assert line == (
        f"cc-backend at {url} does not know the cluster alex, only big, lab: add it there, or set clusterName to the"
        " name it has there"
    )


def test_nodes_that_are_not_known(url: str) -> None:
    ((subject, line),) = failures(find(url, None))
    assert subject == "subclusters"
    assert line.startswith("Slurm's nodes are not known: they are not compared")


def test_every_difference_from_the_topology(url: str) -> None:
    listed = [*nodes("node01", cpus=32), *nodes("gpu1", gpus=2), *nodes(*HOSTS[1:])]
    found = failures(find(url, listed, hwthreadNumbering="interleaved"))
    assert [subject for subject, _ in found] == [
        "gpuPciAddrs",
        "subclusters",
        "hwthreadNumbering",
        "hwthreadNumbering",
    ]
    lines = [line for _, line in found]
    assert lines[0].startswith("1 node (gpu1) with 2 gpu:a100, for which gpuPciAddrs has 0 addresses")
    assert lines[1].startswith("1 node of Slurm (gpu1) is not in a subcluster of lab")
    assert lines[2].startswith("node01: 32 CPUs in Slurm, but cc-backend's topology of the subcluster main has 16")
    assert '"block" would fit that' in lines[3]


def test_hosts_are_compared_by_the_names_that_are_sent(url: str) -> None:
    listed = nodes(*(f"cn{number:02}" for number in range(1, 10)))
    assert failures(find(url, listed, hostnameRewrite=[["^cn", "node"]])) == []
    assert failures(find(url, listed), logging.ERROR)


def test_nodes_whose_jobs_are_left_out_are_not_compared(url: str) -> None:
    assert failures(find(url, [*nodes(), *nodes("vis1", cpus=4)], ignoreHosts="^vis")) == []


def test_a_cluster_whose_topology_is_odd_is_one_line_for_each_kind(backend: CcBackend, url: str) -> None:
    subs = [{"name": f"s{number}", "nodes": f"n{number}", "topology": {"node": [0]}} for number in range(100)]
    answer = json.dumps({"clusters": [{"name": "lab", "subClusters": subs}]}).encode()
    backend.add_fault(OtherAnswer(path="/api/clusters/", status=200, body=answer, content_type="application/json"))
    found = failures(find(url, nodes(*(f"n{number}" for number in range(100)))))
    assert {subject for subject, _ in found} == {"hwthreadNumbering"}
    assert len(found) == 20


# What is wrong with the token


@pytest.mark.parametrize(
    ("claims", "level", "said"),
    [
        ({"roles": ["api"], "exp": NOW + 3 * DAY}, logging.WARNING, "the token expires at"),
        ({"roles": ["api"], "exp": NOW - DAY}, logging.ERROR, "the token has expired, at"),
    ],
)
def test_a_token_that_is_accepted_but_ends(claims: dict[str, Any], level: int, said: str) -> None:
    backend = CcBackend(token=make_token(claims))
    with serving(backend) as url:
        (found,) = [each for each in find(url, nodes(), ccRestJwt=backend.token) if each.level > logging.INFO]
    assert (found.subject, found.level) == ("token", level)
    assert said in found.text


NEW_TOKEN = "put a new token with the role api into ccRestJwt, then reload"


@pytest.mark.parametrize(
    ("token", "named", "step"),
    [
        (make_token({"roles": ["user"]}), ["has the role user, but cc-backend accepts jobs only with"], NEW_TOKEN),
        (make_token({"roles": ["api"], "exp": NOW - DAY}), ["has expired, at "], NEW_TOKEN),
        (make_token({"roles": ["user"], "exp": NOW - DAY}), ["the role user", ", and has expired, at "], NEW_TOKEN),
        (make_token({"roles": ["api"], "exp": NOW + DAY}), ["although its role and its end are right"], NEW_TOKEN),
        ("aaaaaa.bbbbbb", ["the token is no JWT"], "copy the whole token of cc-backend into ccRestJwt, then reload"),
    ],
)
def test_a_token_that_is_refused_is_one_failure_that_says_why(
    url: str, token: str, named: list[str], step: str
) -> None:
    ((subject, line),) = failures(find(url, nodes(), ccRestJwt=token))
    assert subject == "token"
    assert line.startswith("ccRestJwt: ")
    assert all(each in line for each in named)
    assert "cc-backend refuses the token (ccRestJwt or ccRestJwtFile): HTTP 401" in line
    assert line.endswith(f": {step}")
    assert token not in line


def test_without_slurm_no_cluster_without_a_name_is_looked_for(url: str) -> None:
    ((subject, line),) = failures(find(url, None, cluster=""))
    assert subject == "clusterName"
    assert "the cluster's name is not known" in line
    assert "does not know" not in line


def test_the_token_is_read_from_its_file(url: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n", encoding="ascii")
    found = find(url, nodes(), ccRestJwt="", ccRestJwtFile=str(file))
    assert failures(found) == []
    assert "ccRestJwtFile: the token has the role api" in [each.text for each in found]


def test_a_token_that_cannot_be_read(url: str, tmp_path: Path, backend: CcBackend) -> None:
    """The configuration says what is wrong with it, so this is no second failure."""
    found = find(url, nodes(), ccRestJwt="", ccRestJwtFile=str(tmp_path / "missing"))
    assert [(each.subject, each.level) for each in found] == [("ccRestUrl", logging.INFO)]
    assert "there is no token to ask it with: see what is said of ccRestJwtFile" in found[0].text
    assert backend.log == []


# What is wrong with the address


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_nothing_listens_there() -> None:
    ((subject, line),) = failures(find(f"http://127.0.0.1:{unused_port()}", nodes()))
    assert subject == "ccRestUrl"
    assert "connection refused: nothing listens there" in line
    assert line.endswith(": start cc-backend there, or correct the port in ccRestUrl and restart")


def test_a_name_that_does_not_resolve() -> None:
    ((_, line),) = failures(find("http://no-such-host.invalid:8080", nodes()))
    assert "the name cannot be resolved" in line
    assert line.endswith(": correct the host in ccRestUrl and restart, or see the name server (getent hosts)")


def test_https_to_a_server_without_tls(url: str) -> None:
    ((_, line),) = failures(find(url.replace("http:", "https:"), nodes()))
    assert "does not speak TLS: should ccRestUrl begin with http instead of https?" in line
    assert line.endswith(": correct ccRestUrl and restart")


def test_another_program_answers(backend: CcBackend, url: str) -> None:
    backend.add_fault(html_page())
    ((_, line),) = failures(find(url, nodes()))
    assert "this is not cc-backend's answer, is ccRestUrl right?" in line
    assert "'Maintenance'" in line
    assert line.endswith(": correct ccRestUrl and restart")


@pytest.mark.parametrize("path", ["/monitoring", "/api/jobs"])
def test_a_path_where_cc_backend_is_not_is_told_to_be_removed(backend: CcBackend, url: str, path: str) -> None:
    ((subject, line),) = failures(find(url + path, nodes()))
    assert subject == "ccRestUrl"
    assert "HTTP 404" in line
    assert line.endswith(
        f": write {url} and restart, unless cc-backend is behind the path {path} there: it is asked at {url}{path}/api/"
    )


def test_a_path_is_not_blamed_where_nothing_answers() -> None:
    ((_, line),) = failures(find(f"http://127.0.0.1:{unused_port()}/monitoring", nodes()))
    assert line.endswith(": start cc-backend there, or correct the port in ccRestUrl and restart")


def test_an_address_that_is_redirected(backend: CcBackend, url: str) -> None:
    backend.add_fault(OtherAnswer(path="/api/", status=301, headers={"Location": "https://cc.example.org/"}))
    ((_, line),) = failures(find(url, nodes()))
    assert "ccRestUrl is redirected to 'https://cc.example.org/'" in line


def test_a_certificate_file_without_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("none", encoding="ascii")
    ((subject, line),) = failures(find("https://cc.example.org", nodes(), ccRestCaFile=str(tmp_path / "ca")))
    assert subject == "ccRestCaFile"
    assert "contains no usable certificate" in line


def test_a_token_is_judged_although_cc_backend_is_away() -> None:
    claims = make_token({"roles": ["api"], "exp": NOW + DAY})
    found = failures(find(f"http://127.0.0.1:{unused_port()}", None, ccRestJwt=claims))
    assert [subject for subject, _ in found] == ["ccRestUrl", "token"]


def test_with_a_token_that_only_the_daemon_can_read_it_is_not_asked_which_is_no_failure(
    url: str, backend: CcBackend
) -> None:
    config, _ = parse_config({"ccRestUrl": url, "ccRestJwtFile": "cc-token"})
    found = list(find_cc_backend(config, "lab", nodes("gpu1", gpus=2), NOW, {"ccRestJwtFile": "cc-token"}))
    assert [(each.subject, each.level) for each in found] == [
        ("gpuPciAddrs", logging.WARNING),
        ("ccRestUrl", logging.INFO),
    ]
    assert found[-1].text.startswith("cc-backend is not asked: ccRestJwtFile names a credential of the unit")
    assert backend.log == []
    assert failures(find_them(url, {"prepSecretFile": "secret"})) == []


def test_the_proxy_of_the_daemon_s_environment_is_used_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = parse_config({"ccRestUrl": "http://cc.example.invalid", "ccRestJwt": TOKEN})
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    here = {"HTTP_PROXY": f"http://127.0.0.1:{unused_port()}"}
    for environment, is_through in ((here, True), ({}, False)):
        found = next(find_cc_backend(config, "lab", None, NOW, (), environment))
        assert (f"127.0.0.1:{here['HTTP_PROXY'].rpartition(':')[2]}" in found.text) is is_through
        assert "cannot be asked" in found.text


def test_without_an_address_nothing_is_asked() -> None:
    config, _ = parse_config({"ccRestSubmitJobs": False, "natsServer": "127.0.0.1"})
    (found,) = find_cc_backend(config, "lab", nodes(), NOW)
    assert (found.level, found.subject) == (logging.INFO, "ccRestUrl")

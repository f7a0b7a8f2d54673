"""All checks of NATS on a real nats-server, which gets no message on any subject of ours meanwhile."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.checks.nats import find_nats
from cc_slurm_adapter.model import Finding
from tests.nats.accounts import Site
from tests.nats.certificates import Certificates
from tests.nats.conftest import StartNats
from tests.nats.nats_server import NatsServer, free_port
from tests.nats.subscriber import make_stream, read_stream, with_password

LOGIN = {"natsUser": "adapter", "natsPassword": "right"}
ADMIN = with_password("admin", "right")
QUESTIONS = ["$SYS.REQ.USER.INFO", "$JS.API.STREAM.NAMES"]


def find(*servers: str, **settings: Any) -> list[Finding]:
    needed = {"ccRestSubmitJobs": False, "natsServer": ",".join(servers), "natsSubject": "hpc.jobs"}
    return list(find_nats(parse_config({**needed, **settings})[0]))


def by_subject(found: Sequence[Finding]) -> dict[str, Finding]:
    assert len({each.subject for each in found}) == len(found)
    return {each.subject: each for each in found}


def users(**permissions: Any) -> dict[str, Any]:
    """The user adapter with these permissions, and one who may do everything."""
    adapter = {"user": "adapter", "password": "right", "permissions": permissions}
    return {"authorization": {"users": [adapter, {"user": "admin", "password": "right"}]}}


def knows_permissions(server: NatsServer) -> bool:
    """Whether this release tells a user what it may do; see docs.nats.io about 2.10."""
    version = re.search(r"Version:\s+(\d+)\.(\d+)", server.log_text())
    assert version
    return (int(version[1]), int(version[2])) >= (2, 10)


def test_a_server_for_everybody(nats_server: NatsServer) -> None:
    found = by_subject(find(nats_server.url, natsNodeSubject="hpc.nodes"))
    assert list(found) == ["natsServer", "natsSubject", "natsNodeSubject"]
    assert {each.level for each in found.values()} == {logging.INFO}
    assert str(found["natsServer"]) == f"{nats_server.url} accepts the login"
    if knows_permissions(nats_server):
        assert str(found["natsSubject"]) == "natsSubject: this user may publish to hpc.jobs"
    else:
        assert "cannot be seen without publishing: nobody answers it" in str(found["natsSubject"])


def test_without_nats_nothing_is_found() -> None:
    assert list(find_nats(parse_config({"ccRestUrl": "http://x", "ccRestJwt": "x"})[0])) == []


def test_a_wrong_password(start_nats: StartNats) -> None:
    server = start_nats(users())
    (found,) = find(server.url, natsUser="adapter", natsPassword="wrong")
    assert (found.level, found.subject) == (logging.ERROR, "natsServer")
    assert f"{server.url}: it refuses the user" in found.text
    assert found.next_step == "correct natsUser and natsPassword, natsCredsFile or natsNKeySeedFile"
    assert "wrong" not in str(found)


def test_nothing_listens_there() -> None:
    (found,) = find(f"nats://127.0.0.1:{free_port()}")
    assert (found.level, found.next_step) == (logging.ERROR, "see that it runs, and that this host reaches it")


def test_one_of_several_servers_is_away(nats_server: NatsServer) -> None:
    away = f"nats://127.0.0.1:{free_port()}"
    found = find(away, nats_server.url)
    assert [(each.level, each.subject) for each in found[:2]] == [
        (logging.WARNING, "natsServer"),
        (logging.INFO, "natsServer"),
    ]
    assert away in found[0].text


def test_a_certificate_that_is_not_trusted(start_nats: StartNats, certificates: Certificates, tmp_path: Path) -> None:
    server = start_nats(certificates.server_config(verify=False))
    (found,) = find(server.url, natsTlsCaFile=str(Certificates(tmp_path / "others").ca))
    assert found.level == logging.ERROR
    assert found.next_step == "correct natsTlsCaFile, natsTlsCertFile or natsTlsKeyFile"


def test_a_stream_takes_the_subject(start_nats: StartNats) -> None:
    server = start_nats(users(publish=["hpc.>", "_INBOX.>", *QUESTIONS]), jetstream=True)
    make_stream(server.url, "JOBS", ["hpc.jobs"], login=ADMIN)
    found = by_subject(find(server.url, **LOGIN, natsJetStream=True))
    assert str(found["natsJetStream"]) == "natsJetStream: the stream JOBS takes the subject hpc.jobs"
    assert found["natsJetStream"].level == logging.INFO


def test_no_stream_has_the_subject(start_nats: StartNats) -> None:
    server = start_nats(jetstream=True)
    make_stream(server.url, "OTHERS", ["hpc.other", "jobs"])
    found = by_subject(find(server.url, natsJetStream=True))["natsJetStream"]
    assert found.level == logging.ERROR
    assert str(found) == (
        "natsJetStream: no stream has the subject hpc.jobs: create one with nats stream add, or set natsJetStream to"
        " false"
    )


def test_a_server_without_jetstream(nats_server: NatsServer) -> None:
    found = by_subject(find(nats_server.url, natsJetStream=True))["natsJetStream"]
    assert found.level == logging.ERROR
    assert "as the server has no JetStream for this account" in found.text


def test_questions_that_are_not_permitted_leave_it_open(start_nats: StartNats) -> None:
    """As on a careful site. It takes no time to find out."""
    server = start_nats(users(publish=["hpc.jobs"]), jetstream=True)
    found = by_subject(find(server.url, **LOGIN, natsJetStream=True))
    for key in ("natsSubject", "natsJetStream"):
        assert found[key].level == logging.INFO
        assert "cannot be seen without publishing: this user is not permitted to ask that" in found[key].text


def test_replies_that_may_not_be_received(start_nats: StartNats) -> None:
    server = start_nats(users(subscribe=["hpc.>"]), jetstream=True)
    make_stream(server.url, "JOBS", ["hpc.jobs"], login=ADMIN)
    found = by_subject(find(server.url, **LOGIN, natsJetStream=True))
    assert found["natsSubject"].level == logging.INFO
    assert found["natsJetStream"].level == logging.ERROR
    assert "this user is not permitted to subscribe to _INBOX.>" in found["natsJetStream"].text


def test_a_subject_that_is_not_permitted(start_nats: StartNats) -> None:
    server = start_nats(users(publish={"deny": ["hpc.nodes"]}))
    found = by_subject(find(server.url, **LOGIN, natsNodeSubject="hpc.nodes"))
    if not knows_permissions(server):
        assert {each.level for each in found.values()} == {logging.INFO}
        return
    assert found["natsSubject"].level == logging.INFO
    assert found["natsNodeSubject"].level == logging.ERROR
    assert str(found["natsNodeSubject"]) == (
        "natsNodeSubject: the NATS server does not permit this user to publish to the subject hpc.nodes: allow"
        " natsSubject and natsNodeSubject in the permissions of the NATS server"
    )


@pytest.mark.parametrize(
    ("publish", "level", "said"),
    [
        (["hpc.jobs"], logging.INFO, "may publish to hpc.jobs"),
        (["hpc.nodes"], logging.ERROR, "does not permit this user to publish to the subject hpc.jobs"),
    ],
)
def test_the_limits_in_a_credentials_file(
    start_nats: StartNats, tmp_path: Path, publish: list[str], level: int, said: str
) -> None:
    """The JWT has them, whatever the server tells."""
    site, file = Site(), tmp_path / "creds"
    server = start_nats(site.config())
    file.write_text(site.credentials(publish=publish), encoding="ascii")
    found = by_subject(find(server.url, natsCredsFile=str(file)))["natsSubject"]
    assert found.level == level
    assert said in found.text


def test_nothing_is_published_but_the_questions(start_nats: StartNats) -> None:
    server = start_nats({"trace": True}, jetstream=True)
    make_stream(server.url, "JOBS", ["hpc.>"])
    before = len(server.log_text())
    find(server.url, natsJetStream=True, natsNodeSubject="hpc.nodes")
    published = re.findall(r" cid:\d+ .*<<- \[H?PUB (\S+)", server.log_text()[before:])
    assert published == QUESTIONS
    assert read_stream(server.url, "JOBS") == []


def test_a_server_that_hangs_has_a_limit(nats_server: NatsServer) -> None:
    with nats_server.frozen():
        (found,) = find(nats_server.url)
    assert found.level == logging.ERROR
    assert "no answer within" in found.text

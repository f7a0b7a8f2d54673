"""Our client on a real nats-server: every way in, and every trouble is the right answer and no loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from cc_slurm_adapter.sinks import Answer, Verdict
from cc_slurm_adapter.sinks import nats_client as nats_client_module
from cc_slurm_adapter.sinks.nats_client import NatsAccess, NatsClient
from cc_slurm_adapter.sinks.nats_keys import read_credentials
from tests.nats.accounts import Nkey, Site, nkey_config
from tests.nats.certificates import Certificates
from tests.nats.conftest import StartNats
from tests.nats.nats_server import NatsServer
from tests.nats.subscriber import Message, Subscriber, make_stream, read_stream

DELIVERED = Answer(Verdict.DELIVERED)
PASSWORD = {"authorization": {"users": [{"user": "adapter", "password": "correct horse"}]}}

MakeClient = Callable[[NatsAccess], NatsClient]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    made: list[NatsClient] = []

    def make(access: NatsAccess) -> NatsClient:
        made.append(NatsClient(lambda: access))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_what_is_delivered_has_arrived(nats_server: NatsServer, make_client: MakeClient) -> None:
    client = make_client(NatsAccess((nats_server.url,)))
    with Subscriber(nats_server.url, "jobs") as subscriber:
        for number in range(20):
            assert client.publish("jobs", b"%d" % number, f"id {number}") == DELIVERED
        messages = subscriber.wait_for(20)
    assert messages == [Message("jobs", b"%d" % number, {"Nats-Msg-Id": f"id {number}"}) for number in range(20)]


def test_several_threads_share_a_connection(nats_server: NatsServer, make_client: MakeClient) -> None:
    client = make_client(NatsAccess((nats_server.url,)))
    answers: list[Answer] = []

    def publish(name: str) -> None:
        answers.extend(client.publish("jobs", f"{name} {number}".encode()) for number in range(50))

    with Subscriber(nats_server.url, "jobs") as subscriber:
        threads = [threading.Thread(target=publish, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        received = [message.payload.decode().split() for message in subscriber.wait_for(200)]
    assert answers == [DELIVERED] * 200
    for name in "abcd":
        assert [int(number) for whose, number in received if whose == name] == list(range(50))


def test_user_and_password(start_nats: StartNats, make_client: MakeClient) -> None:
    server = start_nats(PASSWORD)
    assert make_client(NatsAccess((server.url,), "adapter", "correct horse")).publish("jobs", b"x") == DELIVERED
    refused = make_client(NatsAccess((server.url,), "adapter", "battery staple")).publish("jobs", b"x")
    assert refused.verdict is Verdict.HELD
    assert "check natsUser" in refused.reason
    assert "battery" not in refused.reason


def test_nkey(start_nats: StartNats, make_client: MakeClient) -> None:
    user, stranger = Nkey(), Nkey()
    server = start_nats(nkey_config(user))
    assert make_client(NatsAccess((server.url,), seed=user.seed)).publish("jobs", b"x") == DELIVERED
    assert make_client(NatsAccess((server.url,), seed=stranger.seed)).publish("jobs", b"x").verdict is Verdict.HELD


def test_credentials_of_an_operator(start_nats: StartNats, make_client: MakeClient) -> None:
    site, stranger = Site(), Site()
    server = start_nats(site.config())
    for whose, verdict in ((site, Verdict.DELIVERED), (stranger, Verdict.HELD)):
        credentials = read_credentials(whose.credentials())
        client = make_client(NatsAccess((server.url,), seed=credentials.seed, jwt=credentials.jwt))
        assert client.publish("jobs", b"x").verdict is verdict


def test_a_subject_that_is_not_permitted(start_nats: StartNats, make_client: MakeClient) -> None:
    site = Site()
    server = start_nats(site.config())
    credentials = read_credentials(site.credentials(publish=["jobs"]))
    client = make_client(NatsAccess((server.url,), seed=credentials.seed, jwt=credentials.jwt))
    refused = client.publish("Nodes", b"x")
    assert refused == Answer(Verdict.HELD, "the server does not permit this user to publish to the subject Nodes")
    assert client.publish("jobs", b"x") == DELIVERED


def test_mutual_tls(start_nats: StartNats, make_client: MakeClient, certificates: Certificates, tmp_path: Path) -> None:
    server = start_nats(certificates.server_config())
    url = server.url.replace("nats://", "tls://")
    known = NatsAccess(
        (url,),
        tls_ca_file=str(certificates.ca),
        tls_cert_file=str(certificates.client_certificate),
        tls_key_file=str(certificates.client_key),
    )
    assert make_client(known).publish("jobs", b"x") == DELIVERED
    without = make_client(replace(known, tls_cert_file="", tls_key_file="")).publish("jobs", b"x")
    assert without.verdict in (Verdict.HELD, Verdict.SINK_TROUBLE)
    others = Certificates(tmp_path / "others")
    refused = make_client(replace(known, tls_ca_file=str(others.ca))).publish("jobs", b"x")
    assert refused.verdict is Verdict.HELD
    assert "certificate" in refused.reason.lower()


def test_a_server_that_is_away_and_comes_back(nats_server: NatsServer, make_client: MakeClient) -> None:
    client = make_client(NatsAccess((nats_server.url,)))
    assert client.publish("jobs", b"x") == DELIVERED
    nats_server.kill()
    began = time.monotonic()
    assert client.publish("jobs", b"x").verdict is Verdict.SINK_TROUBLE
    assert client.publish("jobs", b"x").verdict is Verdict.SINK_TROUBLE
    assert time.monotonic() - began < 5
    nats_server.restart()
    with Subscriber(nats_server.url, "jobs") as subscriber:
        assert client.publish("jobs", b"y") == DELIVERED
        assert subscriber.wait_for(1)[0].payload == b"y"


def test_another_server_is_taken_when_one_is_away(nats_server: NatsServer, make_client: MakeClient) -> None:
    client = make_client(NatsAccess(("nats://127.0.0.1:9", nats_server.url)))
    assert [client.publish("jobs", b"x") for _ in range(5)] == [DELIVERED] * 5


def test_a_server_that_hangs_is_trouble_and_a_stop_does_not_wait_for_it(
    nats_server: NatsServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(NatsAccess((nats_server.url,)))
    assert client.publish("jobs", b"x") == DELIVERED
    with nats_server.frozen():
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(client.publish("jobs", b"x")))
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        client.close()
        thread.join(5)
        assert time.monotonic() - began < 1.5
    assert [answer.verdict for answer in answers] == [Verdict.SINK_TROUBLE]
    assert client.publish("jobs", b"x").verdict is Verdict.SINK_TROUBLE
    monkeypatch.setattr(nats_client_module, "TIME_LIMIT", 1.0)
    other = make_client(NatsAccess((nats_server.url,)))
    with nats_server.frozen():
        assert other.publish("jobs", b"x").verdict is Verdict.SINK_TROUBLE
    assert other.publish("jobs", b"x") == DELIVERED


def test_a_message_that_is_too_large(start_nats: StartNats, make_client: MakeClient) -> None:
    server = start_nats({"max_payload": 1000})
    client = make_client(NatsAccess((server.url,)))
    assert client.publish("jobs", b"x" * 1001).verdict is Verdict.TOO_LARGE
    assert client.publish("jobs", b"x" * 1000) == DELIVERED


def test_a_stream_acknowledges_and_removes_what_comes_twice(start_nats: StartNats, make_client: MakeClient) -> None:
    server = start_nats(jetstream=True)
    client = make_client(NatsAccess((server.url,), jet_stream=True))
    missing = client.publish("jobs", b"x", "id 1")
    assert missing.verdict is Verdict.HELD
    assert "nats stream add" in missing.reason
    make_stream(server.url, "lab", ["jobs"])
    assert [client.publish("jobs", b"x", name) for name in ("id 1", "id 1", "id 2")] == [DELIVERED] * 3
    assert [message.headers for message in read_stream(server.url, "lab")] == [
        {"Nats-Msg-Id": "id 1"},
        {"Nats-Msg-Id": "id 2"},
    ]

"""Our client on a real nats-server: every way in, and every trouble is the right answer and no loss."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from nats.js.api import DiscardPolicy

from cc_slurm_adapter.errors import UnreadableFile
from cc_slurm_adapter.sinks.base import Answer, Verdict
from cc_slurm_adapter.sinks.nats.client import TIMING, NatsAccess, NatsClient, Outgoing, Timing
from cc_slurm_adapter.sinks.nats.keys import read_credentials
from tests.nats.accounts import Nkey, Site, nkey_config
from tests.nats.certificates import Certificates
from tests.nats.conftest import StartNats
from tests.nats.nats_server import NatsServer
from tests.nats.subscriber import Message, Subscriber, make_stream, read_stream, with_password

DELIVERED = Answer(Verdict.DELIVERED)
PASSWORD = {"authorization": {"users": [{"user": "adapter", "password": "correct horse"}]}}
QUICK = Timing(time_limit=1.0)


class MakeClient(Protocol):
    def __call__(self, access: NatsAccess, *, timing: Timing = TIMING) -> NatsClient: ...


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    made: list[NatsClient] = []

    def make(access: NatsAccess, *, timing: Timing = TIMING) -> NatsClient:
        made.append(NatsClient(lambda: access, timing=timing))
        return made[-1]

    yield make
    for client in made:
        client.close()


def publish(client: NatsClient, subject: str, payload: bytes, message_id: str = "") -> Answer:
    (answer,) = client.publish([Outgoing(subject, payload, message_id)])
    return answer


def test_what_is_delivered_has_arrived(nats_server: NatsServer, make_client: MakeClient) -> None:
    client = make_client(NatsAccess((nats_server.url,)))
    with Subscriber(nats_server.url, "jobs") as subscriber:
        for number in range(20):
            assert publish(client, "jobs", b"%d" % number, f"id {number}") == DELIVERED
        messages = subscriber.wait_for(20)
    assert messages == [Message("jobs", b"%d" % number, {"Nats-Msg-Id": f"id {number}"}) for number in range(20)]


def test_several_threads_share_a_connection(nats_server: NatsServer, make_client: MakeClient) -> None:
    client = make_client(NatsAccess((nats_server.url,)))
    answers: list[Answer] = []

    def publish_50(name: str) -> None:
        answers.extend(publish(client, "jobs", f"{name} {number}".encode()) for number in range(50))

    with Subscriber(nats_server.url, "jobs") as subscriber:
        threads = [threading.Thread(target=publish_50, args=(name,)) for name in "abcd"]
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
    assert publish(make_client(NatsAccess((server.url,), "adapter", "correct horse")), "jobs", b"x") == DELIVERED
    refused = publish(make_client(NatsAccess((server.url,), "adapter", "battery staple")), "jobs", b"x")
    assert refused.verdict is Verdict.MISCONFIGURED
    assert "check natsUser" in refused.reason
    assert "battery" not in refused.reason


def test_a_renewed_access_is_used_for_the_next_message(start_nats: StartNats) -> None:
    server = start_nats(PASSWORD)
    right = NatsAccess((server.url,), "adapter", "correct horse")
    access = [right]
    client = NatsClient(lambda: access[0])
    assert publish(client, "jobs", b"1") == DELIVERED
    access[0] = replace(right, password="battery staple")
    assert publish(client, "jobs", b"2") == DELIVERED  # the connection is kept
    client.renew_access()
    assert publish(client, "jobs", b"3").verdict is Verdict.MISCONFIGURED
    access[0] = right
    assert publish(client, "jobs", b"4") == DELIVERED
    client.close()


def test_a_connection_is_kept_while_a_renewed_access_cannot_be_read(start_nats: StartNats) -> None:
    access = [NatsAccess((start_nats(PASSWORD).url,), "adapter", "correct horse")]

    def read_access() -> NatsAccess:
        if not access:
            raise UnreadableFile(["natsCredsFile: gone"])
        return access[0]

    client = NatsClient(read_access)
    assert publish(client, "jobs", b"1") == DELIVERED
    access.clear()
    client.renew_access()
    assert publish(client, "jobs", b"2") == DELIVERED
    client.close()


def test_nkey(start_nats: StartNats, make_client: MakeClient) -> None:
    user, stranger = Nkey(), Nkey()
    server = start_nats(nkey_config(user))
    assert publish(make_client(NatsAccess((server.url,), seed=user.seed)), "jobs", b"x") == DELIVERED
    assert (
        publish(make_client(NatsAccess((server.url,), seed=stranger.seed)), "jobs", b"x").verdict
        is Verdict.MISCONFIGURED
    )


def test_credentials_of_an_operator(start_nats: StartNats, make_client: MakeClient) -> None:
    site, stranger = Site(), Site()
    server = start_nats(site.config())
    for whose, verdict in ((site, Verdict.DELIVERED), (stranger, Verdict.MISCONFIGURED)):
        credentials = read_credentials(whose.credentials())
        client = make_client(NatsAccess((server.url,), seed=credentials.seed, jwt=credentials.jwt))
        assert publish(client, "jobs", b"x").verdict is verdict


def test_a_subject_that_is_not_permitted(start_nats: StartNats, make_client: MakeClient) -> None:
    site = Site()
    server = start_nats(site.config())
    credentials = read_credentials(site.credentials(publish=["jobs"]))
    client = make_client(NatsAccess((server.url,), seed=credentials.seed, jwt=credentials.jwt))
    refused = publish(client, "Nodes", b"x")
    assert refused == Answer(
        Verdict.MISCONFIGURED, "the server does not permit this user to publish to the subject Nodes"
    )
    assert publish(client, "jobs", b"x") == DELIVERED


def test_mutual_tls(start_nats: StartNats, make_client: MakeClient, certificates: Certificates, tmp_path: Path) -> None:
    server = start_nats(certificates.server_config())
    url = server.url.replace("nats://", "tls://")
    known = NatsAccess(
        (url,),
        tls_ca_file=str(certificates.ca),
        tls_cert_file=str(certificates.client_certificate),
        tls_key_file=str(certificates.client_key),
    )
    assert publish(make_client(known), "jobs", b"x") == DELIVERED
    without = publish(make_client(replace(known, tls_cert_file="", tls_key_file="")), "jobs", b"x")
    assert (without.verdict, "set natsTlsCertFile" in without.reason) == (Verdict.MISCONFIGURED, True)
    others = Certificates(tmp_path / "others")
    refused = publish(make_client(replace(known, tls_ca_file=str(others.ca))), "jobs", b"x")
    assert refused.verdict is Verdict.MISCONFIGURED
    assert "certificate" in refused.reason.lower()


def test_a_server_that_is_away_and_comes_back(nats_server: NatsServer, make_client: MakeClient) -> None:
    client = make_client(NatsAccess((nats_server.url,)))
    assert publish(client, "jobs", b"x") == DELIVERED
    nats_server.kill()
    began = time.monotonic()
    assert publish(client, "jobs", b"x").verdict is Verdict.UNAVAILABLE
    assert publish(client, "jobs", b"x").verdict is Verdict.UNAVAILABLE
    assert time.monotonic() - began < 5
    nats_server.restart()
    with Subscriber(nats_server.url, "jobs") as subscriber:
        assert publish(client, "jobs", b"y") == DELIVERED
        assert subscriber.wait_for(1)[0].payload == b"y"


def test_another_server_is_taken_when_one_is_away(nats_server: NatsServer, make_client: MakeClient) -> None:
    client = make_client(NatsAccess(("nats://127.0.0.1:9", nats_server.url)))
    assert [publish(client, "jobs", b"x") for _ in range(5)] == [DELIVERED] * 5


def test_all_servers_are_named_when_none_takes_us(start_nats: StartNats, make_client: MakeClient) -> None:
    server = start_nats(PASSWORD)
    client = make_client(NatsAccess(("nats://127.0.0.1:9", server.url)))
    answers = {publish(client, "jobs", b"x") for _ in range(8)}
    assert [answer.verdict for answer in answers] == [Verdict.MISCONFIGURED]
    (reason,) = (answer.reason for answer in answers)
    assert reason.index("nats://127.0.0.1:9: ") < reason.index(f"; {server.url}: it refuses the user")


@pytest.mark.parametrize("scheme", ["tls", "nats"])
def test_nothing_is_said_in_the_clear_to_a_server_without_tls(
    start_nats: StartNats, make_client: MakeClient, certificates: Certificates, scheme: str
) -> None:
    server = start_nats(PASSWORD)
    url = server.url.replace("nats://", f"{scheme}://")
    client = make_client(NatsAccess((url,), "adapter", "correct horse", tls_ca_file=str(certificates.ca)))
    with Subscriber(server.url, "jobs", login=with_password("adapter", "correct horse")) as subscriber:
        refused = publish(client, "jobs", b"x")
        assert (refused.verdict, ": the server does not offer TLS" in refused.reason) == (Verdict.MISCONFIGURED, True)
        assert subscriber.messages == []


def test_tls_is_taken_where_the_server_only_offers_it(
    start_nats: StartNats, make_client: MakeClient, certificates: Certificates
) -> None:
    server = start_nats({**certificates.server_config(), "allow_non_tls": True})
    access = NatsAccess(
        (server.url,),
        tls_ca_file=str(certificates.ca),
        tls_cert_file=str(certificates.client_certificate),
        tls_key_file=str(certificates.client_key),
    )
    assert publish(make_client(access), "jobs", b"x") == DELIVERED
    strangers = replace(access, tls_ca_file=str(certificates.client_certificate))
    assert publish(make_client(strangers), "jobs", b"x").verdict is Verdict.MISCONFIGURED


def test_a_server_that_hangs_is_trouble_and_a_stop_does_not_wait_for_it(
    nats_server: NatsServer, make_client: MakeClient
) -> None:
    client = make_client(NatsAccess((nats_server.url,)))
    assert publish(client, "jobs", b"x") == DELIVERED
    with nats_server.frozen():
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(publish(client, "jobs", b"x")))
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        client.close()
        thread.join(5)
        assert time.monotonic() - began < 1.5
    assert [answer.verdict for answer in answers] == [Verdict.UNAVAILABLE]
    assert publish(client, "jobs", b"x").verdict is Verdict.UNAVAILABLE
    other = make_client(NatsAccess((nats_server.url,)), timing=QUICK)
    with nats_server.frozen():
        assert publish(other, "jobs", b"x").verdict is Verdict.UNAVAILABLE
    assert publish(other, "jobs", b"x") == DELIVERED


@pytest.mark.parametrize("jet_stream", [False, True])
@pytest.mark.parametrize("message_id", ["", "lab/4711/1800000000/start"])
def test_a_message_that_is_too_large_counts_with_its_headers(
    start_nats: StartNats, make_client: MakeClient, message_id: str, *, jet_stream: bool
) -> None:
    server = start_nats({"max_payload": 1000}, jetstream=True)
    make_stream(server.url, "lab", ["jobs"])
    client = make_client(NatsAccess((server.url,), jet_stream=jet_stream))
    answers = {size: publish(client, "jobs", b"x" * size, message_id).verdict for size in range(900, 1010)}
    largest = max(size for size, verdict in answers.items() if verdict is Verdict.DELIVERED)
    assert largest == 1000 - (len(f"NATS/1.0\r\nNats-Msg-Id: {message_id}\r\n\r\n") if message_id else 0)
    assert {answers[size] for size in range(largest + 1, 1010)} == {Verdict.TOO_LARGE}


def test_what_a_stream_refuses(start_nats: StartNats, make_client: MakeClient) -> None:
    server = start_nats(jetstream=True)
    make_stream(server.url, "lab", ["jobs"], max_msg_size=500, max_msgs=2, discard=DiscardPolicy.NEW)
    client = make_client(NatsAccess((server.url,), jet_stream=True))
    assert publish(client, "jobs", b"x" * 600, "large").verdict is Verdict.TOO_LARGE
    assert [publish(client, "jobs", b"x", name) for name in ("1", "2")] == [DELIVERED] * 2
    full = publish(client, "jobs", b"x", "3")
    assert (full.verdict, "see its limits: maximum messages exceeded" in full.reason) == (Verdict.MISCONFIGURED, True)


def test_a_stream_is_missed_also_where_somebody_listens(start_nats: StartNats, make_client: MakeClient) -> None:
    server = start_nats(jetstream=True)
    client = make_client(NatsAccess((server.url,), jet_stream=True), timing=QUICK)
    with Subscriber(server.url, "jobs"):
        missing = publish(client, "jobs", b"x", "id 1")
    assert (missing.verdict, "no stream has acknowledged" in missing.reason) == (Verdict.MISCONFIGURED, True)


def test_an_acknowledgement_that_may_not_be_received(start_nats: StartNats, make_client: MakeClient) -> None:
    user = {"user": "adapter", "password": "right", "permissions": {"publish": [">"], "subscribe": ["jobs"]}}
    other = {"user": "other", "password": "right"}
    server = start_nats({"authorization": {"users": [user, other]}}, jetstream=True)
    make_stream(server.url, "lab", ["jobs"], login=with_password("other", "right"))
    client = make_client(NatsAccess((server.url,), "adapter", "right", jet_stream=True), timing=QUICK)
    answer = publish(client, "jobs", b"x", "id 1")
    assert (answer.verdict, "subscribe to _INBOX.>" in answer.reason) == (Verdict.MISCONFIGURED, True)


def test_nothing_is_delivered_that_nobody_confirms(nats_server: NatsServer, make_client: MakeClient) -> None:
    """Should nats-py's reader end by a mistake, it would still say that it is connected."""
    client = make_client(NatsAccess((nats_server.url,)), timing=QUICK)
    assert publish(client, "jobs", b"x") == DELIVERED
    connection = client._connection
    assert connection is not None
    reader = connection.client._reading_task
    assert reader is not None
    reader.cancel()
    time.sleep(0.1)
    assert publish(client, "jobs", b"x").verdict is Verdict.UNAVAILABLE
    assert publish(client, "jobs", b"x") == DELIVERED


def test_a_host_that_no_name_can_be(make_client: MakeClient) -> None:
    answer = publish(make_client(NatsAccess((f"nats://{'a' * 70}.example.org:4222",))), "jobs", b"x")
    assert answer.verdict is Verdict.UNAVAILABLE
    assert "label" in answer.reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_begins_again_when_its_thread_could_not_start_or_has_died(
    nats_server: NatsServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(NatsAccess((nats_server.url,)))

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        assert publish(client, "jobs", b"x").verdict is Verdict.UNAVAILABLE
    assert publish(client, "jobs", b"x") == DELIVERED
    loop = client._thread._loop
    assert loop is not None

    dying: list[threading.Thread] = []

    def die() -> None:
        dying.append(threading.current_thread())
        raise SystemExit  # the only thing that an asyncio loop does not survive

    loop.call_soon_threadsafe(die)
    deadline = time.monotonic() + 5
    while client._thread._loop is loop and time.monotonic() < deadline:
        time.sleep(0.01)
    dying[0].join(5)  # what it says at its end belongs to this test
    assert publish(client, "jobs", b"x") == DELIVERED


def test_a_server_that_has_gone_without_a_word_is_noticed_without_a_message(
    nats_server: NatsServer, make_client: MakeClient
) -> None:
    client = make_client(NatsAccess((nats_server.url,)), timing=QUICK)
    assert client.check() == DELIVERED
    with nats_server.frozen():
        assert client.check().verdict is Verdict.UNAVAILABLE


def test_a_name_server_that_hangs_keeps_no_program_from_ending() -> None:
    source = """
import socket, threading, time
from cc_slurm_adapter.sinks.nats.client import NatsAccess, NatsClient, Outgoing
socket.getaddrinfo = lambda *args, **options: time.sleep(30)
client = NatsClient(lambda: NatsAccess(("nats://nats.example.org:4222",)))
threading.Timer(0.5, client.close).start()
print(client.publish([Outgoing("jobs", b"x")])[0].reason)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "the daemon stops\n"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("jet_stream", [False, True])
def test_of_several_messages_each_has_its_answer(
    start_nats: StartNats, make_client: MakeClient, *, jet_stream: bool
) -> None:
    server = start_nats({"max_payload": 1000}, jetstream=True)
    make_stream(server.url, "lab", ["jobs"])
    client = make_client(NatsAccess((server.url,), jet_stream=jet_stream))
    payloads = [b"%d" % number for number in range(9)] + [b"x" * 1001, b"last"]
    answers = client.publish([Outgoing("jobs", payload, f"id {payload[:9]!r}") for payload in payloads])
    assert [answer.verdict for answer in answers] == [*[Verdict.DELIVERED] * 9, Verdict.TOO_LARGE, Verdict.DELIVERED]
    assert [message.payload for message in read_stream(server.url, "lab")] == [*payloads[:9], b"last"]


def test_a_stream_acknowledges_and_removes_what_comes_twice(start_nats: StartNats, make_client: MakeClient) -> None:
    server = start_nats(jetstream=True)
    client = make_client(NatsAccess((server.url,), jet_stream=True))
    missing = publish(client, "jobs", b"x", "id 1")
    assert missing.verdict is Verdict.MISCONFIGURED
    assert "nats stream add" in missing.reason
    make_stream(server.url, "lab", ["jobs"])
    assert [publish(client, "jobs", b"x", name) for name in ("id 1", "id 1", "id 2")] == [DELIVERED] * 3
    assert [message.headers for message in read_stream(server.url, "lab")] == [
        {"Nats-Msg-Id": "id 1"},
        {"Nats-Msg-Id": "id 2"},
    ]

"""What tests of NATS need works by itself: a real nats-server, logins and streams, with nats-py at both ends."""

from __future__ import annotations

import json
import re
import ssl
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from nats.aio.client import Client
from nats.errors import Error, FlushTimeoutError, MaxPayloadError
from nats.js.errors import NoStreamResponseError

from tests.nats.accounts import Nkey, Site, nkey_config
from tests.nats.certificates import Certificates
from tests.nats.conftest import StartNats
from tests.nats.nats_server import NatsServer, NatsServerError
from tests.nats.subscriber import (
    NOBODY,
    Login,
    Message,
    Subscriber,
    make_stream,
    publish,
    read_stream,
    talk,
    with_credentials,
    with_nkey,
    with_password,
)

PASSWORD = {"authorization": {"users": [{"user": "adapter", "password": "correct horse"}]}}
REFUSED = "(?i)authorization violation"
"""nats-py 2.16 has no exception of its own for it while it connects."""


def goes_through(server: NatsServer, login: Login = NOBODY) -> bool:
    """Whether a message of this user reaches a subscriber who is the same user."""
    with Subscriber(server.url, "jobs", login=login) as subscriber:
        publish(server.url, "jobs", b"a", b"b", login=login)
        return subscriber.wait_for(2) == [Message("jobs", b"a", {}), Message("jobs", b"b", {})]


def is_refused(server: NatsServer, login: Login = NOBODY) -> bool:
    with pytest.raises(Error, match=REFUSED):
        publish(server.url, "jobs", b"x", login=login)
    return True


def test_server_for_everybody(nats_server: NatsServer) -> None:
    assert goes_through(nats_server)


def test_headers_and_any_bytes_arrive(nats_server: NatsServer) -> None:
    everything = bytes(range(256))
    with Subscriber(nats_server.url, "jobs.*") as subscriber:
        publish(nats_server.url, "jobs.lab", everything, b"", headers={"Nats-Msg-Id": "lab 1"})
        first, second = subscriber.wait_for(2)
    assert first == Message("jobs.lab", everything, {"Nats-Msg-Id": "lab 1"})
    assert second.payload == b""


def test_flush_of_nats_py_overtakes_what_was_published(start_nats: StartNats) -> None:
    """When this fails, nats-py has mended it, and settle() needs one flush() only."""
    server = start_nats({"trace": True})

    async def publish_and_flush(client: Client) -> None:
        await client.publish("jobs", b"x")
        await client.flush()

    def commands() -> list[str]:
        return re.findall(r"<<- \[(PING|PUB)", server.log_text())

    talk(server.url, publish_and_flush)
    assert commands() == ["PING", "PING", "PUB", "PING", "PING"]  # connect, flush, and the two of settle()


def test_user_and_password(start_nats: StartNats) -> None:
    server = start_nats(PASSWORD)
    assert goes_through(server, with_password("adapter", "correct horse"))
    assert is_refused(server, with_password("adapter", "battery staple"))
    assert is_refused(server)


def test_subscriber_with_a_wrong_password_fails_at_once(start_nats: StartNats) -> None:
    server = start_nats(PASSWORD)
    with pytest.raises(Error, match=REFUSED), Subscriber(server.url, login=with_password("adapter", "x")):
        pass


def test_nkey(start_nats: StartNats) -> None:
    user, stranger = Nkey(), Nkey()
    server = start_nats(nkey_config(user))
    assert goes_through(server, with_nkey(user.seed))
    assert is_refused(server, with_nkey(stranger.seed))


def test_credentials(start_nats: StartNats) -> None:
    site, stranger = Site(), Site()
    server = start_nats(site.config())
    assert goes_through(server, with_credentials(site.credentials()))
    assert is_refused(server, with_credentials(stranger.credentials()))
    assert is_refused(server, with_credentials(site.credentials(expires=int(time.time()) - 60)))


def test_credentials_that_do_not_permit_a_subject(start_nats: StartNats) -> None:
    site = Site()
    server = start_nats(site.config())
    login = with_credentials(site.credentials(publish=["jobs"]))
    publish(server.url, "jobs", b"x", login=login)
    with pytest.raises(Error, match=r"(?i)permissions violation for publish to .?nodes"):
        publish(server.url, "nodes", b"x", login=login)


def test_credentials_with_a_stream(start_nats: StartNats) -> None:
    site = Site()
    login = with_credentials(site.credentials())
    server = start_nats(site.config(), jetstream=True)
    make_stream(server.url, "lab", ["jobs"], login=login)
    publish(server.url, "jobs", b"x", login=login)
    assert read_stream(server.url, "lab", login) == [Message("jobs", b"x", {})]


def test_mutual_tls(start_nats: StartNats, certificates: Certificates) -> None:
    server = start_nats(certificates.server_config())
    assert goes_through(server, Login({"tls": certificates.client_context()}))
    with pytest.raises((Error, OSError)):
        publish(server.url, "jobs", b"x", login=Login({"tls": certificates.client_context(with_certificate=False)}))


def test_tls_that_wants_no_certificate(start_nats: StartNats, certificates: Certificates) -> None:
    server = start_nats(certificates.server_config(verify=False))
    assert goes_through(server, Login({"tls": certificates.client_context(with_certificate=False)}))


def test_server_of_another_ca(start_nats: StartNats, certificates: Certificates, tmp_path: Path) -> None:
    others = Certificates(tmp_path / "others")
    server = start_nats(others.server_config(verify=False))
    with pytest.raises(ssl.SSLCertVerificationError):
        publish(server.url, "jobs", b"x", login=Login({"tls": certificates.client_context()}))


@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill], ids=["stopped", "killed"])
def test_server_comes_back_on_the_same_port(nats_server: NatsServer, end: Callable[[NatsServer], None]) -> None:
    url = nats_server.url
    with Subscriber(url, "jobs") as subscriber:
        publish(url, "jobs", b"before")
        subscriber.wait_for(1)
        end(nats_server)
        assert not nats_server.running
        with pytest.raises((Error, OSError)):
            publish(url, "jobs", b"meanwhile")
        nats_server.restart()
        assert nats_server.url == url
        subscriber.wait_until_connected(2)
        publish(url, "jobs", b"after")
        assert [message.payload for message in subscriber.wait_for(2)] == [b"before", b"after"]


def test_restart_with_another_configuration(nats_server: NatsServer) -> None:
    nats_server.restart(PASSWORD)
    assert is_refused(nats_server)
    publish(nats_server.url, "jobs", b"x", login=with_password("adapter", "correct horse"))


def test_server_that_is_frozen_says_nothing(nats_server: NatsServer) -> None:
    async def flush(client: Client) -> bool:
        with nats_server.frozen(), pytest.raises(FlushTimeoutError):
            await client.flush(timeout=1)
        await client.close()  # nats-py stumbles over a late answer
        return True

    assert talk(nats_server.url, flush)
    assert goes_through(nats_server)
    nats_server.freeze()
    nats_server.stop()
    assert not nats_server.running


def test_stream_removes_a_duplicate_and_outlives_a_kill(start_nats: StartNats) -> None:
    server = start_nats(jetstream=True)
    make_stream(server.url, "lab", ["jobs", "nodes"], duplicate_window=60)
    publish(server.url, "jobs", b"start", headers={"Nats-Msg-Id": "1"})
    publish(server.url, "nodes", b"idle")
    publish(server.url, "jobs", b"start again", headers={"Nats-Msg-Id": "1"})
    publish(server.url, "jobs", b"stop", headers={"Nats-Msg-Id": "2"})
    server.kill()
    server.restart()
    assert read_stream(server.url, "lab") == [
        Message("jobs", b"start", {"Nats-Msg-Id": "1"}),
        Message("nodes", b"idle", {}),
        Message("jobs", b"stop", {"Nats-Msg-Id": "2"}),
    ]


def test_stream_acknowledges_and_names_a_duplicate(start_nats: StartNats) -> None:
    server = start_nats(jetstream=True)
    make_stream(server.url, "lab", ["jobs"])

    async def acknowledged(client: Client) -> list[bool]:
        stream = client.jetstream()
        answers = [await stream.publish("jobs", b"x", headers={"Nats-Msg-Id": "1"}) for _ in range(2)]
        return [bool(answer.duplicate) for answer in answers]

    assert talk(server.url, acknowledged) == [False, True]


def test_subject_without_a_stream(start_nats: StartNats) -> None:
    async def send(client: Client) -> None:
        await client.jetstream().publish("jobs", b"x")

    with pytest.raises(NoStreamResponseError):
        talk(start_nats(jetstream=True).url, send)


def test_largest_message(start_nats: StartNats) -> None:
    server = start_nats({"max_payload": 1000})
    with Subscriber(server.url, "jobs") as subscriber:
        publish(server.url, "jobs", b"x" * 1000)
        with pytest.raises(MaxPayloadError):
            publish(server.url, "jobs", b"x" * 1001)
        assert [len(message.payload) for message in subscriber.wait_for(1)] == [1000]


def test_waiting_for_what_never_comes_has_a_limit(nats_server: NatsServer) -> None:
    with Subscriber(nats_server.url) as subscriber, pytest.raises(AssertionError, match=r"no 1 messages within 0\.1 s"):
        subscriber.wait_for(1, seconds=0.1)


@pytest.mark.parametrize("config", [{"max_payload": "much"}, {"no_such_key": {}, "port": None, "tls": {"ca_file": 1}}])
def test_configuration_that_the_server_refuses(start_nats: StartNats, config: dict[str, Any]) -> None:
    with pytest.raises(NatsServerError, match="does not run"):
        start_nats(config)


def test_jwt_has_the_parts_that_others_read() -> None:
    site = Site()
    config = json.loads(json.dumps(site.config()))
    assert set(config["resolver_preload"]) == {site.system.public, site.account.public}
    assert [key[0] for key in (site.operator.public, site.account.public, Nkey().public)] == ["O", "A", "U"]
    assert [key.seed[:2] for key in (site.operator, site.account, Nkey())] == ["SO", "SA", "SU"]

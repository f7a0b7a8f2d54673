"""Somebody in the middle who refuses a large message, or breaks the connection off, before it has all of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.outbox.outbox import Batch, Message, Outbox
from cc_slurm_adapter.outbox.row_failures import MAX_TRIES, RowFailures
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.sink_health import Timing
from cc_slurm_adapter.sinks.base import Delivery, Kind, Verdict
from cc_slurm_adapter.sinks.http_route import Route
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system.threads import stop_all
from tests.fakes.slurm_and_sinks import NOW, make_run

PATIENCE = 60.0
TIMING = Timing(first_wait=0.02, longest_wait=0.1)
TAKEN = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
STATES_TAKEN = TAKEN.replace(b"201 Created", b"200 OK")
TOO_LARGE = b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
LIMIT = 100_000


class Proxy:
    """Takes messages of LIMIT bytes. Of a larger one it reads the headers, says `refusal`, and is gone with a reset."""

    def __init__(self, refusal: bytes = TOO_LARGE, limit: int = LIMIT) -> None:
        self.refusal = refusal
        self.limit = limit
        self.taken: list[bytes] = []
        self.refused = 0
        self.tls: ssl.SSLContext | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https://localhost' if self.tls else 'http://127.0.0.1'}:{self.port}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                # Else a refusal waits for what the other side still has to acknowledge, and the reset takes it along.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection = self.tls.wrap_socket(plain, server_side=True) if self.tls else plain
            with connection, connection.makefile("rb") as file:
                while self._take(connection, file):
                    pass

    def _take(self, connection: socket.socket, file: BinaryIO) -> bool:
        request = file.readline()
        if not request:
            return False
        size = int(http.client.parse_headers(file)["Content-Length"])
        if size > self.limit:
            self.refused += 1
            if self.refusal:
                connection.sendall(self.refusal)
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        self.taken.append(file.read(size))
        connection.sendall(STATES_TAKEN if b"nodestate" in request else TAKEN)
        return True


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for localhost."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not here")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", str(path), "-out", f"{path}.cert"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.cert").read_bytes())
    return path


@pytest.fixture(params=["as the system has it", "small"])
def buffer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much the system takes before anybody reads it: sending fails earlier or later."""
    if request.param == "small":
        connect = Route.open

        def connect_small(route: Route, seconds: float) -> socket.socket:
            sock = connect(route, seconds)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
            return sock

        monkeypatch.setattr(Route, "open", connect_small)


def sink_of(proxy: Proxy, ca_file: str = "") -> CcRest:
    return CcRest(proxy.url, lambda: "token", ca_file)


def start_of(sink: CcRest, script_bytes: int, job_id: int = 1) -> Delivery:
    run = replace(make_run(job_id, start=NOW - 1000), job_script="x" * script_bytes)
    return Delivery(job_id, run.key, Kind.START, CcMessages(()).encode_start(run).whole(), 0, 0.0)


@pytest.mark.usefixtures("buffer")
@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("size", [2 * LIMIT, 9 * LIMIT, 80 * LIMIT])
@pytest.mark.parametrize("is_kept_alive", [False, True], ids=["first request", "later request"])
def test_a_refusal_is_read_although_the_message_could_not_be_sent(
    proxy: Proxy, request: pytest.FixtureRequest, size: int, *, with_tls: bool, is_kept_alive: bool
) -> None:
    ca_file = ""
    if with_tls:
        certificate: Path = request.getfixturevalue("certificate")
        ca_file = str(certificate)
        proxy.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        proxy.tls.load_cert_chain(certificate)
    sink = sink_of(proxy, ca_file)
    connection = sink.connect()
    try:
        if is_kept_alive:
            assert connection.deliver(start_of(sink, 10)).verdict is Verdict.DELIVERED
        assert connection.deliver(start_of(sink, size)).verdict is Verdict.TOO_LARGE
        assert connection.deliver(start_of(sink, 10)).verdict is Verdict.DELIVERED  # on a connection of its own
    finally:
        connection.close()


@pytest.mark.usefixtures("buffer")
@pytest.mark.parametrize("answer", [b"", TAKEN], ids=["none", "taken, it says"])
def test_without_a_refusal_nothing_is_taken_for_an_answer(proxy: Proxy, answer: bytes) -> None:
    proxy.refusal = answer
    sink = sink_of(proxy)
    connection = sink.connect()
    try:
        found = connection.deliver(start_of(sink, 80 * LIMIT))
    finally:
        connection.close()
    assert found.verdict is Verdict.UNAVAILABLE
    assert found.broke_off
    assert "before it had received the whole message" in found.reason or "broke the connection off" in found.reason


def test_node_states_become_smaller_where_the_connection_is_broken_off() -> None:
    proxy = Proxy(b"", limit=40_000)
    nodes = [NodeState(f"node{number:05}", ("idle",), 0, 0, 0) for number in range(10_000)]
    connection = sink_of(proxy).connect()
    try:
        verdicts = [connection.post_nodes("lab", nodes).verdict for _ in range(6)]
        sent = [node["hostname"] for body in proxy.taken for node in json.loads(body)["nodes"]]
    finally:
        connection.close()
        proxy.close()
    assert verdicts[0] is Verdict.UNAVAILABLE
    assert verdicts[-1] is Verdict.DELIVERED
    assert set(sent) == {node.hostname for node in nodes}


class Site:
    """An outbox, and a sender that reaches cc-backend through the proxy."""

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        self.proxy = proxy
        self.outbox = Outbox(str(folder / "state.sqlite"))
        self.sink = sink_of(proxy)
        self.sender = Sender(self.sink, self.outbox, Counters(), timing=TIMING)
        self.sender.start()
        self._last_job = 100

    def owe_start(self, job_id: int, script_bytes: int, info_bytes: int = 0) -> None:
        run = make_run(job_id, start=NOW - 1000)
        run = replace(run, job_script="x" * script_bytes, slurm_info="y" * info_bytes)
        message = Message((self.sink.name,), run.key, Kind.START, CcMessages(()).encode_start(run))
        self.outbox.commit("lab", Batch(messages=[message]))
        self.sender.wake()

    def others_pass_until(self, **expected: int) -> bool:
        """Small jobs come one after another, until so many messages stand so. False when that never comes."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            counts = self.outbox.counts()
            if counts.get("pending", 0) <= 1:
                self._last_job += 1
                self.owe_start(self._last_job, 10)
            if all(counts.get(outcome, 0) == count for outcome, count in expected.items()):
                return True
            time.sleep(0.005)
        return False

    def arrived(self, job_id: int) -> bool:
        """Whether the start of a job comes to be taken, while small ones come one after another."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not self.metadata(job_id):
            self.others_pass_until()
            time.sleep(0.005)
        return bool(self.metadata(job_id))

    def metadata(self, job_id: int) -> dict[str, str]:
        found = [json.loads(body) for body in list(self.proxy.taken)]
        return next((each["metaData"] for each in found if each["jobId"] == job_id), {})


@pytest.fixture
def site(tmp_path: Path, proxy: Proxy) -> Iterator[Site]:
    made = Site(tmp_path, proxy)
    yield made
    stop_all([made.sender], 2)
    made.outbox.close()


@pytest.mark.usefixtures("buffer")
@pytest.mark.parametrize("refusal", [TOO_LARGE, b""], ids=["refused", "broken off"])
def test_a_start_that_is_too_large_is_cut_and_arrives(site: Site, refusal: bytes) -> None:
    site.proxy.refusal = refusal
    site.owe_start(1, 40 * LIMIT, info_bytes=50)
    assert site.arrived(1)
    assert "left out" in site.metadata(1)["jobScript"]
    assert site.metadata(1)["slurmInfo"] == "y" * 50
    if refusal:
        assert site.proxy.refused == 1
    else:
        assert site.proxy.refused >= MAX_TRIES  # on a connection that was kept alive each try is made twice


def test_a_start_that_breaks_the_connection_off_without_any_text_is_parked(site: Site) -> None:
    site.proxy.refusal, site.proxy.limit = b"", 1000
    run = replace(make_run(1, start=NOW - 1000), account="p" * 40 * LIMIT)
    message = Message((site.sink.name,), run.key, Kind.START, CcMessages(()).encode_start(run))
    site.outbox.commit("lab", Batch(messages=[message]))
    site.sender.wake()
    assert site.others_pass_until(parked=1)
    assert len(site.proxy.taken) >= MAX_TRIES


def test_connections_that_are_broken_off_for_all_say_nothing_of_a_row() -> None:
    trouble = RowFailures().of(1, successes=7)
    assert {trouble.broke_off(7) for _ in range(100)} == {0}
    assert {trouble.broke_off(8) for _ in range(100)} == {1}  # one success between them
    assert [trouble.broke_off(200 + each) for each in range(3)] == [2, 3, 4]


def test_where_many_connections_are_broken_off_some_say_nothing_of_a_row() -> None:
    troubled = RowFailures()
    for other in range(2, 20):
        troubled.settled(other)
    assert troubled.tries_of(1) == MAX_TRIES
    for other in range(20, 30):
        troubled.was_refused(other)
    assert troubled.tries_of(1) > MAX_TRIES

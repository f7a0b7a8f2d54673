"""The built file with a real nats-server beside cc-backend, and with nothing but that."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest

from examples.practice.cc_backend.state import CcBackend
from examples.practice.cc_backend.store import JobRow
from examples.practice.comparison import differences
from examples.practice.demo.jobs import KINDS
from examples.practice.site import GPU_PCI_ADDRESSES, Site
from examples.practice.slurm.hostlist import expand_hosts
from examples.practice.slurm.model import JobRequest, Settings
from tests.bench.big_cluster import CLUSTER as BIG_CLUSTER
from tests.bench.practice import PracticeSite
from tests.bench.processes import peak_memory, wait_until
from tests.bench.report import Report
from tests.bench.site import Bench
from tests.nats.accounts import Nkey, nkey_config
from tests.nats.accounts import Site as Accounts
from tests.nats.certificates import Certificates, has_openssl
from tests.nats.conftest import StartNats
from tests.nats.nats_server import NatsServer
from tests.nats.points import decode, take_in
from tests.nats.subscriber import (
    Login,
    Message,
    Subscriber,
    make_stream,
    read_stream,
    with_credentials,
    with_nkey,
    with_password,
)

CLUSTER = Settings(nodes="node[01-08]")
SHORT = JobRequest(gpus_per_node=1, duration=1)
OF_EVERY_KIND = [kind._replace(duration=1) for kind in KINDS if kind.name != "cancelled"]
STOP_SECONDS, PEAK_MB = 2.0, 50
JOBS, PATIENCE = 2500, 60.0
PASSWORD = 'a "b" \\ c'

ComeBack = Callable[[PracticeSite], None]


def listener(messages: Iterable[Message]) -> CcBackend:
    """Another cc-backend, that has only what came over NATS, in its order."""
    backend = CcBackend({CLUSTER.cluster: expand_hosts(CLUSTER.nodes)})
    for message in messages:
        take_in(backend, message.payload)
    return backend


def told(backend: CcBackend) -> list[Any]:
    def of_row(row: JobRow) -> tuple[Any, ...]:
        return row.key, row.start, row.state, row.stop_time

    return sorted(map(of_row, backend.rows), key=lambda row: row[0])


def wait_for_all(site: Site, subscriber: Subscriber) -> list[Message]:
    """Start and stop of every run, once all jobs have ended."""
    site.wait_for("the jobs to end", site.cluster.is_idle)
    return subscriber.wait_for(2 * len([run for run in site.cluster.truth() if not run.is_secret]), PATIENCE)


def test_a_listener_gets_what_cc_backend_accepts(adapter: Path, nats_server: NatsServer) -> None:
    with Site(adapter, cluster=CLUSTER, natsServer=nats_server.url, natsNodeSubject="nodes") as site:
        with Subscriber(nats_server.url, "jobs") as jobs, Subscriber(nats_server.url, "nodes") as nodes:
            site.daemon.start()
            site.cluster.submit_all([*OF_EVERY_KIND, *[SHORT] * 8])
            site.wait_for("all to be reported", site.is_reported)
            messages = wait_for_all(site, jobs)
            (first, *_) = nodes.wait_for(1)
        assert len(messages) == 2 * len(site.backend.rows)
        assert told(listener(messages)) == told(site.backend)
        assert site.differences() == []
        hosts = {node["hostname"] for node in json.loads(decode(first.payload).fields["event"])["nodes"]}
        assert hosts == {f"node{number:02}" for number in range(1, 9)}
        assert peak_memory(site.daemon.pid) < PEAK_MB


def write_secret(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(text, encoding="ascii")
    return str(path)


def by_password(start: StartNats, folder: Path) -> tuple[NatsServer, dict[str, str], Login]:
    server = start({"authorization": {"users": [{"user": "adapter", "password": PASSWORD}]}})
    config = {"natsUser": "adapter", "natsPassword": PASSWORD}
    return server, config, with_password("adapter", PASSWORD)


def by_nkey(start: StartNats, folder: Path) -> tuple[NatsServer, dict[str, str], Login]:
    user = Nkey()
    config = {"natsNKeySeedFile": write_secret(folder, "seed", user.seed)}
    return start(nkey_config(user)), config, with_nkey(user.seed)


def by_credentials(start: StartNats, folder: Path) -> tuple[NatsServer, dict[str, str], Login]:
    accounts = Accounts()
    text = accounts.credentials()
    config = {"natsCredsFile": write_secret(folder, "creds", text)}
    return start(accounts.config()), config, with_credentials(text)


def by_certificate(start: StartNats, folder: Path) -> tuple[NatsServer, dict[str, str], Login]:
    if not has_openssl():
        pytest.skip("the command openssl, which makes certificates, is not installed")
    made = Certificates(folder / "certificates")
    config = {
        "natsTlsCaFile": str(made.ca),
        "natsTlsCertFile": str(made.client_certificate),
        "natsTlsKeyFile": write_secret(folder, "key", made.client_key.read_text(encoding="ascii")),
    }
    return start(made.server_config()), config, Login({"tls": made.client_context()})


@pytest.mark.parametrize("login", [by_password, by_nkey, by_credentials, by_certificate])
def test_every_way_to_log_in(
    adapter: Path,
    start_nats: StartNats,
    tmp_path: Path,
    login: Callable[[StartNats, Path], tuple[NatsServer, dict[str, str], Login]],
) -> None:
    server, config, ours = login(start_nats, tmp_path)
    with Site(adapter, cluster=CLUSTER, **{"natsServer": server.url, **config}) as site:
        with Subscriber(server.url, "jobs", login=ours) as subscriber:
            site.daemon.start()
            site.cluster.submit_all([SHORT] * 2)
            messages = wait_for_all(site, subscriber)
        assert told(listener(messages)) == told(site.backend)
        assert len(site.backend.rows) == 2
        assert PASSWORD not in site.daemon.log()


def test_nats_alone_tells_cc_backend_all_that_it_needs(adapter: Path, nats_server: NatsServer) -> None:
    alone: dict[str, Any] = {"ccRestSubmitJobs": False, "ccRestUrl": "", "ccRestJwt": ""}
    with Site(adapter, cluster=CLUSTER, natsServer=nats_server.url, natsStopDelay=2, **alone) as site:
        with Subscriber(nats_server.url, "jobs") as subscriber:
            site.daemon.start()
            site.cluster.submit_all([*OF_EVERY_KIND, *[SHORT] * 4])
            rows = listener(wait_for_all(site, subscriber)).rows
        assert len(rows) >= len(OF_EVERY_KIND)
        assert differences(rows, site.cluster.truth(), site.settings, GPU_PCI_ADDRESSES) == []
        assert site.backend.rows == []


def test_kill_9_while_nats_is_away_loses_nothing(adapter: Path, nats_server: NatsServer) -> None:
    with Site(adapter, cluster=CLUSTER, natsServer=nats_server.url) as site:
        nats_server.stop()
        site.daemon.start()
        site.cluster.submit_all([SHORT] * 8)
        site.wait_for("REST to have all, without NATS", site.is_reported)
        site.wait_for("its answers to be noted", lambda: site.daemon.waiting_messages() == 16)
        site.daemon.kill()
        nats_server.start()
        with Subscriber(nats_server.url, "jobs") as subscriber:
            site.daemon.start()
            messages = wait_for_all(site, subscriber)
        assert told(listener(messages)) == told(site.backend)
        assert site.differences() == []


def test_sigterm_while_nats_hangs(adapter: Path, start_nats: StartNats) -> None:
    server = start_nats(jetstream=True)
    with Site(adapter, cluster=CLUSTER, natsServer=server.url, natsJetStream=True) as site:
        site.daemon.start()
        site.cluster.submit_all([SHORT] * 2)
        site.wait_for("all to be reported", site.is_reported)
        with server.frozen():
            site.cluster.submit_all([SHORT] * 2)
            site.wait_for("all to be reported", site.is_reported)
            began = time.monotonic()
            site.daemon.signal(signal.SIGTERM)
            assert site.daemon.wait() == 0
            assert time.monotonic() - began < STOP_SECONDS


def test_a_missing_stream_is_said_once_with_what_to_do(adapter: Path, start_nats: StartNats) -> None:
    server = start_nats(jetstream=True)
    with Site(adapter, cluster=CLUSTER, natsServer=server.url, natsJetStream=True) as site:
        site.daemon.start()
        site.cluster.submit_all([SHORT] * 4)
        site.wait_for("all to be reported", site.is_reported)
        lines = [line for line in site.daemon.log().splitlines() if "ERROR NATS refuses" in line]
        assert len(lines) == 1
        assert "nats stream add" in lines[0]


def drain(bench: Bench, server: NatsServer, end: Callable[[], None], come_back: ComeBack, *, stream: bool) -> None:
    """JOBS jobs began and ended while the server was away; it is ended three times while that is published."""
    server.stop()
    config: dict[str, Any] = {"ccRestSubmitJobs": False, "natsStopDelay": 0, "natsJetStream": stream}
    with PracticeSite(bench, jobs=0, natsServer=server.url, **config) as site:
        waiting = site.daemon.waiting_messages
        site.start()
        job_ids = site.cluster.begin(JOBS)
        site.poll()
        site.cluster.end(job_ids)
        site.poll()
        wait_until("the messages to wait", lambda: waiting() == 2 * JOBS, PATIENCE)
        come_back(site)
        for left in (0.75, 0.5, 0.25):
            wait_until("some to leave", partial(has_at_most, waiting, 2 * JOBS * left), PATIENCE)
            assert waiting() > 0
            end()
            come_back(site)
        wait_until("all to leave", lambda: waiting() == 0, PATIENCE)
        assert peak_memory(site.daemon.pid) < PEAK_MB


def has_at_most(count: Callable[[], int], limit: float) -> bool:
    return count() <= limit


def assert_all_came_in_order(messages: Sequence[Message]) -> None:
    """Of each job the first start and, behind it, the first stop; cc-backend takes all of them as they are."""
    backend = CcBackend({BIG_CLUSTER: expand_hosts("n[00000-00099]")})
    first: dict[tuple[str, int], int] = {}
    for place, message in enumerate(messages):
        point = decode(message.payload)
        event = point.tags["function"], json.loads(point.fields["event"])["jobId"]
        if event not in first:
            first[event] = place
            assert take_in(backend, message.payload) in (200, 201)
    assert len(first) == 2 * JOBS
    assert len(backend.rows) == JOBS
    assert all(row.stop_time for row in backend.rows)


@pytest.fixture
def bench(adapter: Path) -> Bench:
    return Bench(adapter, sys.executable, Report(), PracticeSite)


def test_a_stream_has_every_message_once_although_the_server_is_killed_three_times(
    bench: Bench, start_nats: StartNats
) -> None:
    server = start_nats(jetstream=True)
    make_stream(server.url, "lab", ["jobs"])
    drain(bench, server, server.kill, lambda _: server.start(), stream=True)
    messages = read_stream(server.url, "lab")
    assert len(messages) == 2 * JOBS
    assert_all_came_in_order(messages)


def test_a_listener_hears_everything_although_the_server_is_restarted_three_times(
    bench: Bench, nats_server: NatsServer
) -> None:
    """Without a stream it hears what is published while it is connected: here it is back before the daemon."""
    with Subscriber(nats_server.url, "jobs") as subscriber:

        def come_back(site: PracticeSite) -> None:
            before = subscriber.connections
            site.daemon.signal(signal.SIGSTOP)
            nats_server.start()
            subscriber.wait_until_connected(before + 1)
            site.daemon.signal(signal.SIGCONT)

        drain(bench, nats_server, nats_server.stop, come_back, stream=False)
        assert subscriber.connections == 5
        messages = subscriber.wait_for(2 * JOBS)
    assert_all_came_in_order(messages)

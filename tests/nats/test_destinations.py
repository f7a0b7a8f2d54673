"""REST and NATS together and NATS alone, through the outbox and the senders, to a real nats-server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, NamedTuple, Protocol

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.destinations import Destinations, sinks_of
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.model import NodeState, Phase, Resource, Run
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, Outbox
from cc_slurm_adapter.outbox.sink_health import Timing
from cc_slurm_adapter.sinks.base import RunningRows
from examples.practice.cc_backend import CcBackend, OtherAnswer, serving
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.nats.certificates import Certificates
from tests.nats.conftest import StartNats
from tests.nats.nats_server import NatsServer
from tests.nats.points import Point, decode
from tests.nats.subscriber import Subscriber, make_stream, read_stream

PATIENCE = 60.0
TIMING = Timing(first_wait=0.02, longest_wait=0.2)


class Site:
    """What a daemon has between its watch and the destinations."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.config, _ = parse_config(config)
        self.outbox = Outbox(str(folder / "state.sqlite"), sinks_of(self.config))
        self.status = Counters()
        self.destinations = Destinations(self.config, self.status)
        self.store = RunStore(
            "lab",
            self.outbox,
            self.destinations.encoder,
            self.destinations.sinks,
            self.status,
            self.destinations.wake,
            LateRuns(),
        )
        self.is_open = True

    def start(self) -> None:
        self.destinations.start(self.outbox, "lab", lambda _: None, timing=TIMING)

    def close(self) -> float:
        """How many seconds the stop took."""
        began = time.monotonic()
        if self.is_open:
            self.is_open = False
            self.destinations.stop(1.0)
            self.outbox.close()
        return time.monotonic() - began

    def owe(self, *runs: Run) -> None:
        """Their starts, and the stops of those that are over."""
        batch = Batch()
        for run in runs:
            self.store.enqueue_start(batch, run)
            if run.end:
                self.store.enqueue_stop(batch, run.key, run.end)
        self.store.commit(batch)

    def wait(self) -> None:
        """Until nothing is owed any more."""
        deadline = time.monotonic() + PATIENCE
        while {"pending", "following"} & self.outbox.counts().keys():
            assert time.monotonic() < deadline, self.outbox.counts()
            time.sleep(0.01)


class MakeSite(Protocol):
    def __call__(self, **config: Any) -> Site: ...


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    with ExitStack() as sites:

        def make(**config: Any) -> Site:
            site = Site(tmp_path, config)
            sites.callback(site.close)
            return site

        yield make


@pytest.fixture
def backend() -> CcBackend:
    return CcBackend()


@pytest.fixture
def rest(backend: CcBackend) -> Iterator[dict[str, Any]]:
    """The configuration of a cc-backend that is there."""
    with serving(backend) as url:
        yield {"ccRestUrl": url, "ccRestJwt": "practice.api.token"}


def ended(*job_ids: int) -> list[Run]:
    return [make_run(job_id, start=NOW - 1000, phase=Phase.ENDED) for job_id in job_ids]


def events(points: Sequence[Point]) -> list[tuple[str, int]]:
    """Function and job id of each message."""
    return [(point.tags["function"], json.loads(str(point.fields["event"]))["jobId"]) for point in points]


def body(point: Point) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(str(point.fields["event"]))
    return found


def received(subscriber: Subscriber, count: int) -> list[Point]:
    return [decode(message.payload) for message in subscriber.wait_for(count, PATIENCE)]


def test_each_message_follows_its_rest_call(
    backend: CcBackend, rest: dict[str, Any], nats_server: NatsServer, make_site: MakeSite
) -> None:
    site = make_site(**rest, natsServer=nats_server.url)
    with Subscriber(nats_server.url, "jobs") as subscriber:
        site.owe(*ended(*range(1, 51)))
        site.start()
        site.wait()
        told = events(received(subscriber, 100))
    assert sorted(told) == sorted((function, job) for job in range(1, 51) for function in ("start_job", "stop_job"))
    assert all(told.index(("start_job", job)) < told.index(("stop_job", job)) for job in range(1, 51))
    assert len(backend.rows) == 50


def test_a_gpu_without_an_address_is_counted_once_for_all_destinations(
    rest: dict[str, Any], nats_server: NatsServer, make_site: MakeSite
) -> None:
    site = make_site(**rest, natsServer=nats_server.url)
    site.owe(make_run(1))  # it has two GPUs
    assert "gpus_without_address=2" in str(site.status)


def test_a_listener_gets_what_rest_was_sent(rest: dict[str, Any], nats_server: NatsServer, make_site: MakeSite) -> None:
    site = make_site(**rest, natsServer=nats_server.url)
    text = 'a "b" \\ \n c, d=e \u20ac \U0001f600 \u2028 \x7f'
    run = make_run(1, start=NOW - 1000, phase=Phase.ENDED, name=text, job_script=text)
    with Subscriber(nats_server.url, "jobs") as subscriber:
        site.owe(run)
        site.start()
        start, stop = received(subscriber, 2)
    assert body(start)["metaData"]["jobName"] == text
    assert body(start)["metaData"]["jobScript"] == text
    assert (start.measurement, start.tags["function"], start.time_ns) == ("job", "start_job", (NOW - 1000) * 10**9)
    assert (stop.tags["function"], stop.time_ns) == ("stop_job", body(stop)["stopTime"] * 10**9)


def test_what_cc_backend_does_not_take_is_not_published(
    backend: CcBackend, rest: dict[str, Any], nats_server: NatsServer, make_site: MakeSite
) -> None:
    site = make_site(**rest, natsServer=nats_server.url)
    backend.add_fault(OtherAnswer(status=400, body=b'{"status":"Bad Request","error":"no such host"}'))
    with Subscriber(nats_server.url, "jobs") as subscriber:
        site.owe(*ended(1, 2))
        site.start()
        deadline = time.monotonic() + PATIENCE
        while site.outbox.counts().get("parked") != 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert subscriber.messages == []
    assert site.outbox.counts() == {"parked": 2, "pending": 2, "following": 4}


def test_rest_goes_on_while_nats_is_away_and_nothing_is_lost(
    backend: CcBackend, rest: dict[str, Any], start_nats: StartNats, make_site: MakeSite
) -> None:
    """A stream keeps what comes as soon as NATS is back: a subscriber might be too late for it."""
    server = start_nats(jetstream=True)
    make_stream(server.url, "lab", ["jobs"])
    server.stop()
    site = make_site(**rest, natsServer=server.url)
    site.start()
    site.owe(*ended(*range(1, 21)))
    deadline = time.monotonic() + PATIENCE
    while len(backend.rows) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(backend.rows) == 20
    server.restart()
    site.wait()
    told = events([decode(message.payload) for message in read_stream(server.url, "lab")])
    assert {job for _, job in told} == set(range(1, 21))


class Trouble(NamedTuple):
    """What is wrong with NATS at first. `mend` puts it right; `said` is what the log says of it."""

    config: dict[str, Any]
    server: NatsServer
    mend: Callable[[], object]
    said: str


def allow(*subjects: str) -> dict[str, Any]:
    user = {"user": "adapter", "password": "right", "permissions": {"publish": [*subjects, "_INBOX.>"]}}
    return {"authorization": {"users": [user]}}


LOGIN = {"natsUser": "adapter", "natsPassword": "right"}


def away(start: StartNats, folder: Path) -> Trouble:
    server = start()
    server.stop()
    return Trouble({}, server, server.start, "NATS cannot be reached, everything waits")


def refused(start: StartNats, folder: Path) -> Trouble:
    server = start({"authorization": {"users": [{"user": "adapter", "password": "other"}]}})
    return Trouble(LOGIN, server, lambda: server.restart(allow(">")), "it refuses the user: check natsUser")


def not_permitted(start: StartNats, folder: Path) -> Trouble:
    server = start(allow("nodes"))
    return Trouble(LOGIN, server, lambda: server.restart(allow("jobs")), "publish to the subject jobs")


def without_stream(start: StartNats, folder: Path) -> Trouble:
    server = start(jetstream=True)
    config = {"natsJetStream": True}
    return Trouble(config, server, lambda: make_stream(server.url, "lab", ["jobs"]), "nats stream add")


def unknown_certificate(start: StartNats, folder: Path) -> Trouble:
    right, wrong = Certificates(folder / "right"), Certificates(folder / "wrong")
    server = start(right.server_config())
    config = {
        "natsTlsCaFile": str(wrong.ca),
        "natsTlsCertFile": str(right.client_certificate),
        "natsTlsKeyFile": str(right.client_key),
    }
    return Trouble(config, server, lambda: shutil.copy(right.ca, wrong.ca), "certificate")


@pytest.mark.parametrize("begin", [away, refused, not_permitted, without_stream, unknown_certificate])
def test_each_trouble_of_nats_is_said_once_and_rest_does_not_notice(
    backend: CcBackend,
    rest: dict[str, Any],
    start_nats: StartNats,
    make_site: MakeSite,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    begin: Callable[[StartNats, Path], Trouble],
) -> None:
    trouble = begin(start_nats, tmp_path)
    site = make_site(**rest, natsServer=trouble.server.url, **trouble.config)
    site.start()
    site.owe(*ended(*range(1, 21)))
    wait_until(lambda: len([row for row in backend.rows if row.stop_time]) == 20)
    wait_until(lambda: trouble.said in caplog.text)
    time.sleep(0.5)  # and it is tried again every 0.2 s
    assert len([record for record in caplog.records if trouble.said in record.getMessage()]) == 1
    assert {record.levelname for record in caplog.records if trouble.said in record.getMessage()} <= {
        "WARNING",
        "ERROR",
    }
    assert site.outbox.counts() == {"pending": 40}
    trouble.mend()
    site.wait()
    assert "NATS answers again" in caplog.text


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stop_that_waits_for_its_time_is_no_answer_of_nats(
    nats_server: NatsServer, make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(ccRestSubmitJobs=False, natsServer=nats_server.url, natsStopDelay=1)
    site.start()
    site.owe(make_run(1, start=NOW - 1000))
    site.wait()
    nats_server.stop()
    site.owe(*ended(1), make_run(2, start=NOW - 1000))
    wait_until(lambda: "NATS cannot be reached" in caplog.text)
    time.sleep(2)
    assert "answers again" not in caplog.text
    nats_server.start()
    site.wait()


def test_a_wrong_login_is_said_before_there_is_any_job(
    start_nats: StartNats, make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = refused(start_nats, Path())
    site = make_site(ccRestSubmitJobs=False, natsServer=trouble.server.url, **trouble.config)
    site.start()
    for _ in range(3):
        site.destinations.post_nodes("lab", [])
        time.sleep(0.3)
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == ["NATS cannot be used"]
    assert trouble.said in caplog.text
    trouble.mend()
    site.destinations.post_nodes("lab", [])
    wait_until(lambda: "NATS can be used again" in caplog.text)


def test_hosts_have_their_other_name_and_cards_are_counted_once_wherever_they_are_sent(
    backend: CcBackend, rest: dict[str, Any], nats_server: NatsServer, make_site: MakeSite
) -> None:
    """All keys but hostnameRewrite go by Slurm's names: `cn01` has two MIG instances of one card."""
    site = make_site(
        **rest,
        natsServer=nats_server.url,
        natsNodeSubject="nodes",
        hostnameRewrite=[["^cn([0-9]+)$", r"node\1"], ["^twin.$", "twin"]],
        gpuPciAddrs={"^cn": ["00000000:0E:00.0", "00000000:0E:00.0"]},
        hwthreadNumbering={"^cn": [1, 0]},
    )
    nodes = [NodeState(name, ("mixed",), 1, 1, 2, gpus_in_use=(0, 1), cpus=2) for name in ("cn01", "twin1", "twin2")]
    with Subscriber(nats_server.url, "jobs", "nodes") as subscriber:
        site.destinations.learn(nodes)
        site.owe(make_run(1, resources=(Resource("cn01", (0,), (0, 1), 2, 1),)))
        site.start()
        site.wait()
        (start,) = received(subscriber, 1)
        site.destinations.post_nodes("lab", nodes)
        (states,) = received(subscriber, 2)[1:]
    expected = [{"hostname": "node01", "hwthreads": [1], "accelerators": ["00000000:0E:00.0"]}]
    assert body(start)["resources"] == backend.rows[0].start["resources"] == expected
    gpus = {"node01": 1, "twin1": 2, "twin2": 2}
    assert {node["hostname"]: node["gpusAllocated"] for node in body(states)["nodes"]} == gpus
    wait_until(lambda: len(backend.node_states) == 3)
    assert {name: report.payload["gpusAllocated"] for (_, name), report in backend.node_states.items()} == gpus


def test_nats_alone_asks_cc_backend_what_runs_if_it_is_there(
    backend: CcBackend, rest: dict[str, Any], nats_server: NatsServer, make_site: MakeSite
) -> None:
    site = make_site(**rest, ccRestSubmitJobs=False, natsServer=nats_server.url)
    asked: list[RunningRows] = []
    site.destinations.start(site.outbox, "lab", asked.append, timing=TIMING)
    site.owe(make_run(1, start=NOW - 1000))
    site.wait()
    wait_until(lambda: bool(asked))
    assert asked[0].sink == "cc_nats"
    assert backend.rows == []


def test_nats_alone_needs_no_cc_backend_and_a_stop_waits(nats_server: NatsServer, make_site: MakeSite) -> None:
    site = make_site(ccRestSubmitJobs=False, natsServer=nats_server.url, natsStopDelay=1, natsNodeSubject="nodes")
    with Subscriber(nats_server.url, "jobs", "nodes") as subscriber:
        site.start()
        site.destinations.post_nodes("lab", [NodeState("node01", ("idle",), 0, 0, 0)])
        site.owe(*ended(1))
        began = time.monotonic()
        points = received(subscriber, 2)
        assert time.monotonic() - began < 0.9
        (stop,) = received(subscriber, 3)[2:]
        assert time.monotonic() - began >= 1.0
    assert {point.measurement for point in points} == {"job", "nodestate"}
    (nodes,) = (point for point in points if point.measurement == "nodestate")
    assert body(nodes)["nodes"][0]["hostname"] == "node01"
    assert stop.tags["function"] == "stop_job"


@pytest.mark.parametrize(("max_payload", "count"), [(None, 20_000), (2000, 200)])
@pytest.mark.parametrize("jet_stream", [False, True])
def test_the_states_of_many_nodes_come_in_messages_that_the_server_takes(
    start_nats: StartNats, make_site: MakeSite, max_payload: int | None, count: int, jet_stream: bool
) -> None:
    """A server takes a megabyte by default; 20,000 nodes are three."""
    server = start_nats({"max_payload": max_payload} if max_payload else {}, jetstream=jet_stream)
    nats = {"natsServer": server.url, "natsNodeSubject": "nodes", "natsJetStream": jet_stream}
    site = make_site(ccRestSubmitJobs=False, **nats)
    names = [f"node{number:05}" for number in range(count)]
    with Subscriber(server.url, "nodes") as subscriber:
        site.start()
        site.destinations.post_nodes("lab", [NodeState(name, ("idle",), 0, 0, 0) for name in names])
        sizes: list[int] = []
        told: list[str] = []
        times: set[int] = set()
        while len(told) < count:
            message = subscriber.wait_for(len(sizes) + 1, PATIENCE)[len(sizes)].payload
            sizes.append(len(message))
            point = decode(message)
            told += [node["hostname"] for node in body(point)["nodes"]]
            times.add(point.time_ns)
    assert max(sizes) <= (max_payload or 1 << 20)
    assert sum(sizes) / max(sizes) > len(sizes) / 2  # no swarm of small ones
    assert told == names
    assert len(times) == 1


def test_a_script_that_is_too_large_is_cut_and_says_so(start_nats: StartNats, make_site: MakeSite) -> None:
    server = start_nats({"max_payload": 5000})
    site = make_site(ccRestSubmitJobs=False, natsServer=server.url, natsStopDelay=0)
    with Subscriber(server.url, "jobs") as subscriber:
        site.owe(make_run(1, start=NOW - 1000, job_script="#" * 6000, slurm_info="JobId=1"))
        site.start()
        (start,) = received(subscriber, 1)
    assert "left out" in body(start)["metaData"]["jobScript"]
    assert body(start)["metaData"]["slurmInfo"] == "JobId=1"


def test_one_message_at_the_limit_holds_up_no_other(start_nats: StartNats, make_site: MakeSite) -> None:
    """The server closes the connection at a message above its limit; here one is just below for nats-py."""
    server = start_nats({"max_payload": 5000})
    site = make_site(ccRestSubmitJobs=False, natsServer=server.url, natsStopDelay=0)
    for job_id in range(1, 17):
        size = site.destinations.encoder.encode_start(make_run(job_id, start=NOW - 1000)).size
        site.owe(make_run(job_id, start=NOW - 1000, job_script="#" * (4800 - size - job_id * 3)))
    with Subscriber(server.url, "jobs") as subscriber:
        site.start()
        site.wait()
        assert len(received(subscriber, 16)) == 16


def test_broken_tls_files_are_told_at_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\n", encoding="ascii")
    config, _ = parse_config({"natsServer": "tls://localhost", "natsTlsCaFile": str(broken), "ccRestSubmitJobs": False})
    with pytest.raises(ConfigError, match="natsTlsCaFile"):
        Destinations(config, Counters())


def test_a_stop_takes_less_than_two_seconds_while_nats_hangs(
    rest: dict[str, Any], nats_server: NatsServer, make_site: MakeSite
) -> None:
    site = make_site(**rest, natsServer=nats_server.url)
    site.start()
    site.owe(*ended(1))
    site.wait()
    with nats_server.frozen():
        site.owe(*ended(2))
        time.sleep(0.3)
        assert site.close() < 1.5


def test_without_nats_nothing_of_it_is_imported() -> None:
    program = """
import sys
from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.destinations import Destinations
from cc_slurm_adapter.counters import Counters
import cc_slurm_adapter.daemon.daemon
config, _ = parse_config({"ccRestUrl": "http://127.0.0.1:1", "ccRestJwt": "a.b.c", **eval(sys.argv[1])})
Destinations(config, Counters())
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"nats", "ecdsa", "asyncio"}))
"""

    def imported(more: dict[str, str]) -> str:
        command = [sys.executable, "-c", program, repr(more)]
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout.strip()

    assert imported({}) == ""
    assert imported({"natsServer": "127.0.0.1"}) == "asyncio ecdsa nats"

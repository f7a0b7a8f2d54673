"""The intake: events from the folder and the socket, and whatever else arrives there."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import queue
import random
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.config.values import Network
from cc_slurm_adapter.counters import Counters, Label, Sample
from cc_slurm_adapter.daemon.assembly import events_folders
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.hooks import hook, intake, server, spool
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.folder_check import Place
from cc_slurm_adapter.hooks.intake import Intake, Timing
from cc_slurm_adapter.hooks.message import HookMessage, encode
from cc_slurm_adapter.hooks.signature import sign
from cc_slurm_adapter.hooks.spool import EventsFolder
from cc_slurm_adapter.model import HookEvent
from tests.fakes.waiting import comes

SECRET = b"a shared secret of some length"
LOCALHOST: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("::1"))
DEADLINE = 30.0


class Running:
    """An intake that runs, with what it has delivered."""

    def __init__(self, folder: Path, cluster: str = "lab", **arguments: object) -> None:
        self.events: queue.SimpleQueue[HookEvent] = queue.SimpleQueue()
        self.received = 0
        self.status = Counters()
        self.path = str(folder / "d.sock")
        self.folder = folder / "events"
        address = arguments.pop("address", UnixAddress(self.path))
        self.intake = Intake(
            address=address,  # type: ignore[arg-type]
            folders=arguments.pop("folders", [Place(str(self.folder))]),  # type: ignore[arg-type]
            deliver=self._deliver,
            count=self.status.count,
            **arguments,  # type: ignore[arg-type]
        )
        self._cluster = cluster

    def start(self) -> None:
        self.intake.open()
        self.start_serving()

    def start_serving(self, slurm_user: str = "root") -> None:
        self.intake.start(self._cluster, slurm_user)

    def _deliver(self, event: HookEvent) -> None:
        self.received += 1
        self.events.put(event)

    def count(self, name: str) -> int:
        return self.status.counts().get(name, 0)

    def next(self) -> HookEvent:
        return self.events.get(timeout=DEADLINE)

    def send(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(self.path)
            connection.sendall(data)

    def send_job(self, job_id: int, cluster: str = "lab") -> None:
        self.send(encode({"SLURM_JOB_ID": str(job_id), "SLURM_CLUSTER_NAME": cluster}))


@contextmanager
def running(folder: Path, cluster: str = "lab", **arguments: object) -> Iterator[Running]:
    started = Running(folder, cluster, **arguments)
    started.start()
    try:
        yield started
    finally:
        started.intake.stop()


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def events_in(folder: Path) -> list[str]:
    """Without the daemon's own marks."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


# The socket


def test_message_of_the_existing_adapter(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        before = time.monotonic()
        run.send(encode({"SLURM_JOB_ID": "7", "SLURM_SCRIPT_CONTEXT": "epilog_slurmctld", "SLURM_CLUSTER_NAME": "lab"}))
        event = run.next()
        assert (event.job_id, event.context, event.is_end) == (7, "epilog_slurmctld", True)
        assert before <= event.received <= time.monotonic()
        assert run.received == 1
        assert run.status.samples() == (Sample("hook_events", (Label("way", "socket"),), 1),)


def test_own_hook_reaches_the_daemon(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(f'{{"prepSockConnectPath": "{tmp_path}/d.sock"}}', encoding="utf-8")
    with running(tmp_path) as run:
        hook.run_hook(["-config", str(config)], {"SLURM_JOB_ID": "8", "SLURM_CLUSTER_NAME": "lab"})
        assert run.next().job_id == 8


def test_a_slurm_user_without_account_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started = Running(tmp_path)
    started.intake.open()
    started.start_serving("no-such-user")
    started.intake.stop()
    assert "SlurmUser no-such-user has no account here: hooks that run as this user cannot report" in caplog.messages


def test_jobs_of_other_clusters_are_left_out(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.send_job(1, "other")
        run.send_job(2, "LAB")
        run.send_job(3, "")
        assert sorted([run.next().job_id, run.next().job_id]) == [2, 3]
        assert comes(lambda: run.count(intake.FOREIGN) == 1)
        assert run.received == 2


def test_without_an_own_name_every_cluster_is_ours(tmp_path: Path) -> None:
    with running(tmp_path, cluster="") as run:
        run.send_job(1, "other")
        assert run.next().job_id == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\0" * 100, b"[" * 60_000, b'{"SLURM_JOB_ID": "x"}'])
def test_garbage_is_counted_and_service_goes_on(tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path) as run:
        run.send(data)
        run.send(data)
        assert comes(lambda: run.count(intake.GARBAGE) == 2)
        run.send_job(5)
        assert run.next().job_id == 5
    assert len(caplog.records) == 1


def test_sender_that_breaks_off(tmp_path: Path) -> None:
    with running(tmp_path, address=TcpAddress("127.0.0.1", 0)) as run:
        connection = socket.create_connection(run.intake.addresses[0])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
        connection.sendall(b"{")
        connection.close()
        assert comes(lambda: run.count(intake.GARBAGE) == 1)


def test_flood_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        block = b"x" * 1_000_000
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(run.path)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                for _ in range(300):
                    connection.sendall(block)
        assert comes(lambda: run.count(intake.REFUSED) == 1)
        run.send_job(5)
        assert run.next().job_id == 5


def test_longest_message_is_taken(tmp_path: Path) -> None:
    text = encode({"SLURM_JOB_ID": "9"})
    with running(tmp_path) as run:
        run.send(text + b" " * (65_536 - len(text)))
        assert run.next().job_id == 9


def test_slow_senders_are_given_up(tmp_path: Path) -> None:
    timing = Timing(server=server.Timing(message=0.1))
    with running(tmp_path, timing=timing) as run, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(run.path)
        connection.sendall(b'{"SLURM')
        connection.settimeout(DEADLINE)
        assert connection.recv(1) == b""
        assert run.count(intake.REFUSED) == 1


# TCP


def tcp_send(address: tuple[object, ...], data: bytes) -> None:
    with socket.create_connection((str(address[0]), int(str(address[1]))), timeout=DEADLINE) as connection:
        connection.sendall(data)


def test_loopback_needs_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path, address=TcpAddress("127.0.0.1", 0)) as run:
        tcp_send(run.intake.addresses[0], encode({"SLURM_JOB_ID": "4"}))
        assert run.next().job_id == 4
    assert caplog.records == []


@pytest.mark.parametrize(
    ("host", "bound"), [("", {"127.0.0.1", "::1"}), ("::", {"127.0.0.1", "::1"}), ("0.0.0.0", {"127.0.0.1"})]
)
def test_unprotected_wildcard_is_bound_on_loopback_only(
    tmp_path: Path, host: str, bound: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, address=TcpAddress(host, 0)) as run:
        assert {address[0] for address in run.intake.addresses} <= bound
        assert "127.0.0.1" in {address[0] for address in run.intake.addresses}
        tcp_send(run.intake.addresses[0], encode({"SLURM_JOB_ID": "4"}))
        assert run.next().job_id == 4
    assert len(caplog.records) == 1
    assert "prepSecretFile" in caplog.text
    assert "prepAllow" in caplog.text


def test_unprotected_address_of_a_network_is_not_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path, address=TcpAddress("192.0.2.1", 12345)) as run:
        assert run.intake.addresses == []
        put(run.folder, "6...1")
        assert run.next().job_id == 6
    assert len(caplog.records) == 1
    assert "does not listen there" in caplog.text


@pytest.mark.parametrize("host", ["", "::"])
def test_protected_wildcard_is_bound_everywhere(tmp_path: Path, host: str) -> None:
    with running(tmp_path, address=TcpAddress(host, 0), secret=SECRET) as run:
        assert run.intake.addresses[0][0] == "0.0.0.0"
        assert {address[0] for address in run.intake.addresses} <= {"0.0.0.0", "::"}


def test_both_families_are_served(tmp_path: Path) -> None:
    with running(tmp_path, address=TcpAddress("", 0), allow=LOCALHOST) as run:
        for number, address in enumerate(run.intake.addresses, start=1):
            host = "127.0.0.1" if address[0] == "0.0.0.0" else "::1"
            tcp_send((host, address[1]), encode({"SLURM_JOB_ID": str(number)}))
            assert run.next().job_id == number


def test_host_names_are_looked_up(tmp_path: Path) -> None:
    with running(tmp_path, address=TcpAddress("localhost", 0)) as run:
        tcp_send(run.intake.addresses[0], encode({"SLURM_JOB_ID": "4"}))
        assert run.next().job_id == 4


def test_secret_is_required_and_replays_are_refused(tmp_path: Path) -> None:
    message = encode({"SLURM_JOB_ID": "4"})
    with running(tmp_path, address=TcpAddress("127.0.0.1", 0), secret=SECRET) as run:
        address = run.intake.addresses[0]
        signed = sign(message, SECRET, time.time())
        for data in (message, sign(message, b"another secret, as long", time.time()), signed, signed):
            tcp_send(address, data)
        assert run.next().job_id == 4
        assert comes(lambda: run.count(intake.REFUSED) == 3)
        assert run.received == 1


def test_another_secret_is_in_force_at_once_and_the_same_one_forgets_no_message(tmp_path: Path) -> None:
    new = b"another secret, as long"
    with running(tmp_path, address=TcpAddress("127.0.0.1", 0), secret=SECRET) as run:
        address = run.intake.addresses[0]
        signed = sign(encode({"SLURM_JOB_ID": "4"}), SECRET, time.time())
        tcp_send(address, signed)
        assert run.next().job_id == 4
        run.intake.use_secret(SECRET)
        tcp_send(address, signed)
        assert comes(lambda: run.count(intake.REFUSED) == 1)
        run.intake.use_secret(new)
        tcp_send(address, sign(encode({"SLURM_JOB_ID": "5"}), SECRET, time.time()))
        assert comes(lambda: run.count(intake.REFUSED) == 2)
        tcp_send(address, sign(encode({"SLURM_JOB_ID": "6"}), new, time.time()))
        assert run.next().job_id == 6


def test_unix_socket_needs_no_signature_and_takes_it(tmp_path: Path) -> None:
    with running(tmp_path, secret=SECRET) as run:
        run.send_job(1)
        assert run.next().job_id == 1
        run.send(sign(encode({"SLURM_JOB_ID": "2"}), b"whatever it is", 0.0))
        assert run.next().job_id == 2


def test_addresses_that_are_not_allowed(tmp_path: Path) -> None:
    allow = (ipaddress.ip_network("10.0.0.0/8"),)
    with running(tmp_path, address=TcpAddress("127.0.0.1", 0), allow=allow) as run:
        tcp_send(run.intake.addresses[0], b"")
        assert comes(lambda: run.count(intake.REFUSED) == 1)
        assert run.received == 0


# The unix socket's file


def test_socket_is_made_for_the_group_and_removed_at_the_end(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        assert stat.S_IMODE(os.stat(run.path).st_mode) == 0o660
    assert not os.path.exists(run.path)


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "d.sock"))
    with running(tmp_path) as run:
        run.send_job(1)
        assert run.next().job_id == 1


def test_socket_that_is_served_is_left_alone(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        second = Running(tmp_path)
        with pytest.raises(StateError, match=f"{run.path} is in use, process {os.getpid()} serves it"):
            second.start()
        second.intake.stop()
        run.send_job(1)
        assert run.next().job_id == 1


def test_socket_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with running(tmp_path):
        path.unlink()
        path.touch()
    assert path.exists()


# The events folder


def test_event_files_are_taken_and_removed(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        assert stat.S_IMODE(os.stat(run.folder).st_mode) == 0o770
        put(run.folder, "7.prolog_slurmctld.lab.100")
        event = run.next()
        assert (event.job_id, event.context) == (7, "prolog_slurmctld")
        assert comes(lambda: events_in(run.folder) == [])


def test_event_files_of_the_moment_before_are_taken(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    put(tmp_path / "events", "1.prolog_slurmctld.lab.1", "2...2", "3.a.other.3")
    with running(tmp_path) as run:
        assert sorted([run.next().job_id, run.next().job_id]) == [1, 2]
        assert comes(lambda: events_in(run.folder) == ["3.a.other.3"])


def test_events_that_hooks_of_an_older_version_leave_are_taken(tmp_path: Path) -> None:
    """In the state folder, where the events folder was by default; the new one is served beside it."""
    former = tmp_path / "state" / "events"
    former.mkdir(parents=True)
    folders = [Place(str(tmp_path / "events"), [str(former.parent)]), Place(str(former), former=True)]
    with running(tmp_path, folders=folders) as run:
        put(former, "1.prolog_slurmctld.lab.1")
        assert run.next().job_id == 1
        put(run.folder, "2.prolog_slurmctld.lab.1")
        assert run.next().job_id == 2
        put(former, "3.prolog_slurmctld.lab.1", "4..other.1")
        assert run.next().job_id == 3
        assert comes(lambda: os.listdir(former) == ["4..other.1"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["/run/cc-slurm-adapter/events", "/var/lib/cc-slurm-adapter/events"]),
        (
            {"lastRunPath": "/d/last"},
            ["/run/cc-slurm-adapter/events", "/d/events", "/var/lib/cc-slurm-adapter/events"],
        ),
        (
            {"prepEventsPath": "/var/lib/cc-slurm-adapter/events"},
            ["/run/cc-slurm-adapter/events", "/var/lib/cc-slurm-adapter/events"],
        ),
        ({"prepEventsPath": "/own/events"}, ["/own/events"]),
    ],
)
def test_which_folders_are_read(settings: dict[str, str], expected: list[str]) -> None:
    """A folder of one's own keeps two daemons apart, so then no other is touched."""
    config, _ = parse_config({"ccRestUrl": "http://h", "ccRestJwt": "t", **settings})
    places = events_folders(config)
    assert [place.path for place in places] == expected
    assert [place.former for place in places] == [False] + [True] * (len(expected) - 1)


def test_event_files_are_noticed_at_once(tmp_path: Path) -> None:
    with running(tmp_path, timing=Timing(folders=spool.Timing(watched_list=1000.0))) as run:
        for number in range(1, 20):
            put(run.folder, f"{number}..lab.1")
            assert run.next().job_id == number
        put(tmp_path, "99..lab.1")
        os.rename(tmp_path / "99..lab.1", run.folder / "99..lab.1")
        assert run.next().job_id == 99


def test_without_inotify_the_folder_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_watch(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(spool, "FolderWatch", no_watch)
    with running(tmp_path) as run:
        put(run.folder, "1..lab.1")
        assert run.next().job_id == 1
        put(run.folder, "2..lab.1")
        assert run.next().job_id == 2


def test_folder_that_is_removed_is_made_again(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        assert comes((run.folder / "..open").exists)
        shutil.rmtree(run.folder)
        assert comes(run.folder.exists)
        put(run.folder, "1..lab.1")
        assert run.next().job_id == 1


def test_folder_that_vanishes_before_a_look_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_vanished = threading.Event()
    really_start = EventsFolder._start_watch

    def vanish_once(folder: EventsFolder) -> None:
        if has_vanished.is_set():
            really_start(folder)
        else:
            shutil.rmtree(tmp_path / "events")
            has_vanished.set()

    monkeypatch.setattr(EventsFolder, "_start_watch", vanish_once)
    with running(tmp_path) as run:
        assert has_vanished.wait(DEADLINE)
        assert comes(run.folder.exists)
        put(run.folder, "1..lab.1")
        assert run.next().job_id == 1


def test_folder_that_cannot_be_made_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "events").touch()
    with running(tmp_path) as run:
        run.send_job(1)
        assert run.next().job_id == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "hook events come over the socket only" in caplog.text


def test_folder_is_used_as_soon_as_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "events").touch()
    with running(tmp_path, timing=Timing(folders=spool.Timing(retry=0.02))) as run:
        run.folder.unlink()
        assert comes(run.folder.is_dir)
        put(run.folder, "1..lab.1")
        assert run.next().job_id == 1


def test_folder_that_fails_is_not_looked_into_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = []
    really_open = spool.EventsFolder.open

    def count(folder: spool.EventsFolder, allowed_senders: AllowedSenders) -> None:
        opened.append(folder)
        really_open(folder, allowed_senders)

    def exhausted(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(spool.EventsFolder, "open", count)
    monkeypatch.setattr(os, "scandir", exhausted)
    with running(tmp_path) as run:
        assert comes(lambda: "Too many open files" in caplog.text)
        put(run.folder, "1..lab.1")
        for number in range(10):
            run.send_job(number + 1)
            run.next()
        assert len(opened) == 1
    assert len(caplog.messages) == 1


# Strangers


def honest_job(run: Running, job_id: int) -> None:
    """Report over TCP as a hook does, and see it arrive."""
    tcp_send(run.intake.addresses[0], sign(encode({"SLURM_JOB_ID": str(job_id)}), SECRET, time.time()))
    while run.next().job_id != job_id:
        pass


def test_a_stranger_with_many_connections_ends_nothing_and_keeps_no_hook_out(tmp_path: Path) -> None:
    """More than there is room for; none says anything, then each a word as its place goes to another."""
    with running(tmp_path, address=TcpAddress("127.0.0.1", 0), secret=SECRET) as run:
        address = run.intake.addresses[0]
        for job_id in range(1, 4):
            with ExitStack() as stack:
                idle = [stack.enter_context(socket.create_connection(address[:2])) for _ in range(100)]
                honest_job(run, job_id)
                for old in idle:
                    stack.enter_context(socket.create_connection(address[:2]))
                    with suppress(OSError):
                        old.send(b"x")
                honest_job(run, 10 * job_id)
        put(run.folder, "77..lab.1")
        assert run.next().job_id == 77
        assert run.intake.workers[0].is_alive


def test_whatever_strangers_do_hooks_are_served(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with running(tmp_path, address=TcpAddress("127.0.0.1", 0), secret=SECRET) as run, ExitStack() as stack:
        address = run.intake.addresses[0]
        held: list[socket.socket] = []
        for step in range(2000):
            with suppress(OSError):
                if len(held) < 100 or chance.random() < 0.5:
                    held.append(stack.enter_context(socket.create_connection(address[:2], DEADLINE)))
                act_at_random(chance, held)
            if step % 200 == 199:
                honest_job(run, step)
        assert run.intake.workers[0].is_alive


def act_at_random(chance: random.Random, held: list[socket.socket]) -> None:
    connection = held.pop(chance.randrange(len(held)))
    act = chance.randrange(6)
    if act == 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
        connection.close()
    elif act == 1:
        connection.shutdown(socket.SHUT_WR)
    elif act == 2:
        connection.sendall(chance.randbytes(chance.randrange(1, 2000)))
        held.append(connection)
    elif act == 3:
        connection.sendall(sign(encode({"SLURM_JOB_ID": "5"}), b"of somebody else", time.time()))
        connection.close()
    elif act == 4:
        connection.sendall(b"x" * 70_000)
    else:
        connection.close()


def test_an_error_in_the_folder_does_not_stop_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: EventsFolder) -> None:
        raise MemoryError

    with running(tmp_path) as run:
        monkeypatch.setattr(EventsFolder, "pop_events", broken)
        put(run.folder, "99..lab.1")
        assert comes(lambda: "prepEventsPath: an error of this program" in caplog.text)
        for job_id in range(1, 5):
            run.send_job(job_id)
            found = run.next()
            if found.job_id == 99:  # the thread was just about to take it
                found = run.next()
            assert found.job_id == job_id


def test_an_error_that_nobody_thought_of_ends_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, timing=Timing(longest_pause=0.01)) as run:
        with monkeypatch.context() as patched:
            patched.setattr(server.HookServer, "tick", lambda _: 1 / 0)
            with contextlib.suppress(OSError):  # the connection may be closed before all of it is sent
                run.send(b"{")
            assert comes(lambda: "the thread intake: an error of this program, ZeroDivisionError" in caplog.text)
        run.send_job(5)
        assert run.next().job_id == 5


# Life of the thread


def test_hooks_that_come_before_slurm_has_answered_are_served_then(tmp_path: Path) -> None:
    run = Running(tmp_path)
    run.intake.open()
    for job_id in (1, 2, 3):
        run.send_job(job_id)
    assert run.events.empty()
    run.start_serving()
    assert sorted(run.next().job_id for _ in range(3)) == [1, 2, 3]
    run.intake.stop()


def test_one_that_was_only_opened_leaves_no_socket(tmp_path: Path) -> None:
    run = Running(tmp_path)
    run.intake.open()
    assert os.path.exists(run.path)
    run.intake.stop()
    assert not os.path.exists(run.path)


def test_a_folder_that_hangs_does_not_hold_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    thawed = threading.Event()
    really_open = EventsFolder.open

    def frozen(folder: EventsFolder, allowed_senders: AllowedSenders) -> None:
        thawed.wait(DEADLINE)
        really_open(folder, allowed_senders)

    monkeypatch.setattr(EventsFolder, "open", frozen)
    with running(tmp_path, timing=Timing(open=0.1)) as run:
        assert "is its file system stuck?" in caplog.text
        thawed.set()
        run.send_job(5)
        assert run.next().job_id == 5


def test_stop_is_quick_and_can_be_repeated(tmp_path: Path) -> None:
    run = Running(tmp_path)
    run.intake.stop()
    run.start()
    began = time.monotonic()
    run.intake.stop()
    run.intake.stop()
    assert time.monotonic() - began < 0.5
    assert "intake" not in [thread.name for thread in threading.enumerate()]
    assert not os.path.exists(run.path)


def test_idle_intake_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    turn = Intake._turn

    def counted(self: Intake) -> None:
        nonlocal turns
        turns += 1
        turn(self)

    monkeypatch.setattr(Intake, "_turn", counted)
    with running(tmp_path) as run:
        run.send_job(1)
        run.next()
        before = turns
        threading.Event().wait(0.3)
        assert turns - before <= 3


def test_log_says_how_often_a_kind_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    quiet = intake._Filter(lambda event: None, lambda name: None, lambda: now)
    for _ in range(5):
        quiet.refuse("garbage", "no JSON")
    quiet.refuse("refused", "uid 5")
    now += 61
    quiet.refuse("garbage", "no JSON again")
    assert [record.getMessage() for record in caplog.records] == [
        "hook events: no JSON",
        "hook events: uid 5",
        "hook events: no JSON again (4 more of this kind since the last such line)",
    ]


@pytest.mark.parametrize(("age", "counted"), [(20.0, 20.0), (-500.0, 0.0), (1e9, intake.MAX_AGE)])
def test_an_event_from_a_file_is_as_old_as_the_file_within_reason(age: float, counted: float) -> None:
    """The intake may have been held by a disk. The clock of the file's system may be wrong."""
    events: list[HookEvent] = []
    counters = Counters()
    message = HookMessage(7, "prolog_slurmctld", "lab")
    message.age = age
    before = time.monotonic()
    intake._Filter(events.append, counters.count).accept_file(message)
    assert before - counted <= events[0].received <= time.monotonic() - counted
    assert counters.samples() == (Sample("hook_events", (Label("way", "file"),), 1),)


def test_what_strangers_send_for_a_day_is_some_lines(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    quiet = intake._Filter(lambda event: None, lambda name: None, lambda: now)
    for _ in range(24 * 360):
        quiet.refuse("garbage", "no JSON")
        now += 10
    # At 0, 1, 3, 7, 15, 31 and 63 minutes, then every hour.
    assert len(caplog.records) == 7 + (24 * 3600 - 10 - 3780) // 3600

"""The intake: events from the folder and the socket, and whatever else arrives there."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import queue
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cc_slurm_adapter import events_folder, hook, intake, prep_server
from cc_slurm_adapter.admission import Admission
from cc_slurm_adapter.config_values import Network
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.events_folder import EventsFolder
from cc_slurm_adapter.intake import Intake
from cc_slurm_adapter.job import HookEvent
from cc_slurm_adapter.prep import TcpAddress, UnixAddress, encode, sign

SECRET = b"a shared secret of some length"
LOCALHOST: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("::1"))
DEADLINE = 5.0


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds that another thread brings about."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        threading.Event().wait(0.005)


class Running:
    """An intake that runs, with what it has delivered."""

    def __init__(self, folder: Path, cluster: str = "lab", **arguments: object) -> None:
        self.events: queue.SimpleQueue[HookEvent] = queue.SimpleQueue()
        self.path = str(folder / "d.sock")
        self.folder = folder / "events"
        address = arguments.pop("address", UnixAddress(self.path))
        self.intake = Intake(
            address=address,  # type: ignore[arg-type]
            events_path=str(self.folder),
            cluster=cluster,
            deliver=self.events.put,
            slurm_user="root",
            **arguments,  # type: ignore[arg-type]
        )

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
    started.intake.start()
    try:
        yield started
    finally:
        started.intake.stop()


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


# The socket


def test_message_of_the_existing_adapter(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        before = time.monotonic()
        run.send(encode({"SLURM_JOB_ID": "7", "SLURM_SCRIPT_CONTEXT": "epilog_slurmctld", "SLURM_CLUSTER_NAME": "lab"}))
        event = run.next()
        assert (event.job_id, event.context, event.is_end) == (7, "epilog_slurmctld", True)
        assert before <= event.received <= time.monotonic()
        assert run.intake.counters.received == 1


def test_own_hook_reaches_the_daemon(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(f'{{"prepSockConnectPath": "{tmp_path}/d.sock"}}', encoding="utf-8")
    with running(tmp_path) as run:
        hook.run_hook(["-config", str(config)], {"SLURM_JOB_ID": "8", "SLURM_CLUSTER_NAME": "lab"})
        assert run.next().job_id == 8


def test_jobs_of_other_clusters_are_left_out(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.send_job(1, "other")
        run.send_job(2, "LAB")
        run.send_job(3, "")
        assert sorted([run.next().job_id, run.next().job_id]) == [2, 3]
        eventually(lambda: run.intake.counters.foreign == 1)
        assert run.intake.counters.received == 2


def test_without_an_own_name_every_cluster_is_ours(tmp_path: Path) -> None:
    with running(tmp_path, cluster="") as run:
        run.send_job(1, "other")
        assert run.next().job_id == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\0" * 100, b"[" * 60_000, b'{"SLURM_JOB_ID": "x"}'])
def test_garbage_is_counted_and_service_goes_on(tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path) as run:
        run.send(data)
        run.send(data)
        eventually(lambda: run.intake.counters.garbage == 2)
        run.send_job(5)
        assert run.next().job_id == 5
    assert len(caplog.records) == 1


def test_sender_that_breaks_off(tmp_path: Path) -> None:
    with running(tmp_path, address=TcpAddress("127.0.0.1", 0)) as run:
        connection = socket.create_connection(run.intake.addresses[0])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
        connection.sendall(b"{")
        connection.close()
        eventually(lambda: run.intake.counters.garbage == 1)


def test_flood_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        block = b"x" * 1_000_000
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(run.path)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                for _ in range(300):
                    connection.sendall(block)
        eventually(lambda: run.intake.counters.refused == 1)
        run.send_job(5)
        assert run.next().job_id == 5


def test_longest_message_is_taken(tmp_path: Path) -> None:
    text = encode({"SLURM_JOB_ID": "9"})
    with running(tmp_path) as run:
        run.send(text + b" " * (65_536 - len(text)))
        assert run.next().job_id == 9


def test_slow_senders_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prep_server, "MESSAGE_SECONDS", 0.1)
    with running(tmp_path) as run, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(run.path)
        connection.sendall(b'{"SLURM')
        connection.settimeout(DEADLINE)
        assert connection.recv(1) == b""
        assert run.intake.counters.refused == 1


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
        eventually(lambda: run.intake.counters.refused == 3)
        assert run.intake.counters.received == 1


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
        eventually(lambda: run.intake.counters.refused == 1)
        assert run.intake.counters.received == 0


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
        with pytest.raises(StateError, match=f"{run.path} is taken, process {os.getpid()} serves it"):
            second.intake.start()
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
        assert stat.S_IMODE(os.stat(run.folder).st_mode) == 0o2770
        put(run.folder, "7.prolog_slurmctld.lab.100")
        event = run.next()
        assert (event.job_id, event.context) == (7, "prolog_slurmctld")
        eventually(lambda: os.listdir(run.folder) == [])


def test_event_files_of_the_moment_before_are_taken(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    put(tmp_path / "events", "1.prolog_slurmctld.lab.1", "2...2", "3.a.other.3")
    with running(tmp_path) as run:
        assert sorted([run.next().job_id, run.next().job_id]) == [1, 2]
        eventually(lambda: os.listdir(run.folder) == ["3.a.other.3"])


def test_event_files_are_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "WATCHED_LOOK_SECONDS", 1000.0)
    with running(tmp_path) as run:
        for number in range(1, 20):
            put(run.folder, f"{number}..lab.1")
            assert run.next().job_id == number
        put(tmp_path, "99..lab.1")
        os.rename(tmp_path / "99..lab.1", run.folder / "99..lab.1")
        assert run.next().job_id == 99


def test_without_inotify_the_folder_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_watch(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(events_folder, "FolderWatch", no_watch)
    with running(tmp_path) as run:
        put(run.folder, "1..lab.1")
        assert run.next().job_id == 1
        put(run.folder, "2..lab.1")
        assert run.next().job_id == 2


def test_folder_that_is_removed_is_made_again(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        run.folder.rmdir()
        eventually(run.folder.exists)
        put(run.folder, "1..lab.1")
        assert run.next().job_id == 1


def test_folder_that_vanishes_before_a_look_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(_: EventsFolder) -> None:
        with suppress(OSError):
            (tmp_path / "events").rmdir()

    monkeypatch.setattr(EventsFolder, "_start_watch", vanish)
    with running(tmp_path) as run:
        monkeypatch.undo()
        eventually(run.folder.exists)
        put(run.folder, "1..lab.1")
        assert run.next().job_id == 1


def test_folder_that_cannot_be_made_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "events").touch()
    with running(tmp_path) as run:
        run.send_job(1)
        assert run.next().job_id == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "hook events come over the socket only" in caplog.text


def test_folder_is_used_as_soon_as_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "REOPEN_SECONDS", 0.02)
    (tmp_path / "events").touch()
    with running(tmp_path) as run:
        run.folder.unlink()
        eventually(run.folder.is_dir)
        put(run.folder, "1..lab.1")
        assert run.next().job_id == 1


def test_folder_that_fails_is_not_looked_into_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = []
    really_open = events_folder.EventsFolder.open

    def count(folder: events_folder.EventsFolder, admission: Admission) -> None:
        opened.append(folder)
        really_open(folder, admission)

    def exhausted(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(events_folder.EventsFolder, "open", count)
    monkeypatch.setattr(os, "scandir", exhausted)
    with running(tmp_path) as run:
        eventually(lambda: "Too many open files" in caplog.text)
        put(run.folder, "1..lab.1")
        for number in range(10):
            run.send_job(number + 1)
            run.next()
        assert len(opened) == 1
    assert len(caplog.messages) == 1


# Life of the thread


def test_stop_is_quick_and_can_be_repeated(tmp_path: Path) -> None:
    run = Running(tmp_path)
    run.intake.stop()
    run.intake.start()
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


def test_log_says_how_often_a_kind_was_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    quiet = intake._Quiet()
    for _ in range(5):
        quiet.warn("garbage", "no JSON")
    quiet.warn("refused", "uid 5")
    now += 61
    quiet.warn("garbage", "no JSON again")
    assert [record.getMessage() for record in caplog.records] == [
        "hook events: no JSON",
        "hook events: uid 5",
        "hook events: no JSON again (4 more of this kind since the last such line)",
    ]

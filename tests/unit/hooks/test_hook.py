"""The hook: reports over the socket or as an event file, and never disturbs a job."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.config import file
from cc_slurm_adapter.hooks import hook
from cc_slurm_adapter.hooks.hook import run_hook
from cc_slurm_adapter.hooks.message import VARIABLES, decode
from cc_slurm_adapter.hooks.signature_check import SignatureCheck
from cc_slurm_adapter.system import own_files

ENVIRON = {"SLURM_JOB_ID": "4711", "SLURM_SCRIPT_CONTEXT": "prolog_slurmctld", "SLURM_CLUSTER_NAME": "lab"}
EVENT_NAME = f"4711.prolog_slurmctld.lab.{os.getpid()}"
SECRET = "0123456789abcdef"


class Receiver:
    """Takes one message and keeps it."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.message = b""
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        self.listener.settimeout(5)
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(5)
            while chunk := connection.recv(65536):
                self.message += chunk

    def wait(self) -> bytes:
        self._thread.join(5)
        self.listener.close()
        return self.message


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def unix_receiver(tmp_path: Path) -> Receiver:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "d.sock"))
    listener.listen()
    return Receiver(listener)


@pytest.fixture(autouse=True)
def no_default_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults lie in the test's own folder."""
    monkeypatch.setattr(hook, "DEFAULT_CONFIG_PATH", str(tmp_path / "default.json"))
    monkeypatch.setattr(hook, "DEFAULT_SOCKET_PATH", str(tmp_path / "d.sock"))
    monkeypatch.setattr(hook, "DEFAULT_EVENTS_PATH", str(tmp_path / "hooks" / "events"))
    monkeypatch.setattr(file, "DEFAULT_EVENTS_PATH", str(tmp_path / "hooks" / "events"))


def write_config(tmp_path: Path, **settings: object) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return str(path)


def make_events_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "hooks" / "events"
    folder.mkdir(parents=True)
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def tcp_receiver() -> tuple[Receiver, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return Receiver(listener), listener.getsockname()[1]


def test_reports_over_the_unix_socket(tmp_path: Path, unix_receiver: Receiver, lines: list[str]) -> None:
    folder = make_events_folder(tmp_path)
    assert run_hook([], ENVIRON, lines.append) == 0
    message = unix_receiver.wait()
    assert message.startswith(b"{")
    assert decode(message).job_id == 4711
    assert (os.listdir(folder), lines) == ([], [])


@pytest.mark.parametrize("arguments", [["-config", "PATH"], ["--config", "PATH"], ["-debug", "5", "-config=PATH"]])
def test_reports_where_the_configuration_says(tmp_path: Path, arguments: list[str], lines: list[str]) -> None:
    receiver, port = tcp_receiver()
    path = write_config(tmp_path, PREPSOCKCONNECTPATH=f"tcp:127.0.0.1:{port}")
    assert run_hook([argument.replace("PATH", path) for argument in arguments], ENVIRON, lines.append) == 0
    assert decode(receiver.wait()).context == "prolog_slurmctld"
    assert lines == []


def test_wildcard_address_means_this_host(tmp_path: Path, lines: list[str]) -> None:
    receiver, port = tcp_receiver()
    run_hook(["-config", write_config(tmp_path, prepSockConnectPath=f"tcp::{port}")], ENVIRON, lines.append)
    assert decode(receiver.wait()).job_id == 4711


def test_bare_call_uses_the_default_configuration(tmp_path: Path, lines: list[str]) -> None:
    receiver, port = tcp_receiver()
    config = write_config(tmp_path, prepSockConnectPath=f"tcp:127.0.0.1:{port}")
    os.rename(config, tmp_path / "default.json")
    run_hook([], ENVIRON, lines.append)
    assert decode(receiver.wait()).job_id == 4711
    assert lines == []


def test_signs_over_tcp_only(tmp_path: Path, unix_receiver: Receiver, lines: list[str]) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n", encoding="ascii")
    receiver, port = tcp_receiver()
    path = write_config(tmp_path, prepSockConnectPath=f"tcp:127.0.0.1:{port}", prepSecretFile=str(secret))
    run_hook(["-config", path], ENVIRON, lines.append)
    assert decode(SignatureCheck(SECRET.encode()).open(receiver.wait())).job_id == 4711

    run_hook(["-config", write_config(tmp_path, prepSecretFile=str(secret))], ENVIRON, lines.append)
    assert decode(unix_receiver.wait()).job_id == 4711
    assert lines == []


def test_leaves_an_event_file_when_the_daemon_is_down(tmp_path: Path, lines: list[str]) -> None:
    folder = make_events_folder(tmp_path)
    assert run_hook([], ENVIRON, lines.append) == 0
    assert os.listdir(folder) == [EVENT_NAME]
    assert (folder / EVENT_NAME).stat().st_size == 0
    assert lines == []


def test_leaves_the_event_file_where_the_configuration_says(tmp_path: Path, lines: list[str]) -> None:
    folder = tmp_path / "elsewhere" / "events"
    folder.mkdir(parents=True)
    run_hook(["-config", write_config(tmp_path, prepEventsPath=str(folder))], ENVIRON, lines.append)
    assert (os.listdir(folder), lines) == ([EVENT_NAME], [])


def test_leaves_nothing_where_events_were_left_before(tmp_path: Path, lines: list[str]) -> None:
    """In the state folder, on a disk; also where the configuration names it."""
    folder = make_events_folder(tmp_path)
    before = tmp_path / "state" / "events"
    before.mkdir(parents=True)
    last_run = str(tmp_path / "state" / "lastrun")
    run_hook(["-config", write_config(tmp_path, lastRunPath=last_run)], ENVIRON, lines.append)
    assert (os.listdir(before), os.listdir(folder), lines) == ([], [EVENT_NAME], [])
    (folder / EVENT_NAME).unlink()
    path = write_config(tmp_path, lastRunPath=last_run, prepEventsPath=str(before))
    run_hook(["-config", path], ENVIRON, lines.append)
    assert (os.listdir(before), os.listdir(folder), lines) == ([], [EVENT_NAME], [])


def test_leaves_nothing_for_a_daemon_that_has_been_away_for_long(tmp_path: Path, lines: list[str]) -> None:
    folder = make_events_folder(tmp_path)
    own_files.mark_open(str(folder), ".lab.open", -1)
    own_files.mark_open(str(folder), ".other.open", 60)
    run_hook([], ENVIRON, lines.append)
    assert sorted(os.listdir(folder)) == [".lab.open", ".other.open"]
    assert len(lines) == 1
    assert "no daemon has read it for a while" in lines[0]
    own_files.mark_open(str(folder), ".lab.open", 60)
    run_hook([], ENVIRON, lines.append)
    assert EVENT_NAME in os.listdir(folder)


def test_only_what_a_receiver_needs_leaves_the_node(tmp_path: Path, lines: list[str]) -> None:
    """Over TCP the message may be read on the way. The existing adapter's receiver wants all keys, with any value."""
    receiver, port = tcp_receiver()
    private = dict.fromkeys(VARIABLES, "private") | {"AWS_SECRET_ACCESS_KEY": "private"}
    path = write_config(tmp_path, prepSockConnectPath=f"tcp:127.0.0.1:{port}")
    run_hook(["-config", path], {**private, **ENVIRON}, lines.append)
    message = json.loads(receiver.wait())
    assert sorted(message) == sorted(VARIABLES)
    assert {key: value for key, value in message.items() if value} == ENVIRON
    assert lines == []


def test_stale_socket_is_as_good_as_none(tmp_path: Path, lines: list[str]) -> None:
    folder = make_events_folder(tmp_path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "d.sock"))
    run_hook([], ENVIRON, lines.append)
    assert (os.listdir(folder), lines) == ([EVENT_NAME], [])


def test_does_not_follow_links_nor_block_on_pipes(tmp_path: Path, lines: list[str]) -> None:
    folder = make_events_folder(tmp_path)
    victim = tmp_path / "victim"
    (folder / EVENT_NAME).symlink_to(victim)
    run_hook([], ENVIRON, lines.append)
    assert not victim.exists()
    assert len(lines) == 1

    (folder / EVENT_NAME).unlink()
    os.mkfifo(folder / EVENT_NAME)
    began = time.monotonic()
    run_hook([], ENVIRON, lines.append)
    assert time.monotonic() - began < 0.5
    assert len(lines) == 2


def test_tells_what_failed_and_what_to_do(tmp_path: Path, lines: list[str]) -> None:
    assert run_hook([], ENVIRON, lines.append) == 0
    assert len(lines) == 1
    for part in ("4711", f"{tmp_path}/d.sock", f"{tmp_path}/hooks/events", "prepSockConnectPath", "next poll"):
        assert part in lines[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"prepSockConnectPath": 5}', "prepSockConnectPath: expected text"),
        ('{"prepSockConnectPath": "udp:1"}', "prepSockConnectPath: 'udp:1'"),
        ('{"prepEventsPath": ["x"]}', "prepEventsPath: expected text"),
    ],
)
def test_broken_configuration_is_told_and_the_defaults_used(
    tmp_path: Path, text: str, told: str, lines: list[str]
) -> None:
    folder = make_events_folder(tmp_path)
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    assert run_hook(["-config", str(path)], ENVIRON, lines.append) == 0
    assert os.listdir(folder) == [EVENT_NAME]
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize("arguments", [["-config", "/nowhere/x.json"], ["-config"], ["-config", "a\0b"]])
def test_missing_configuration_is_told(tmp_path: Path, arguments: list[str], lines: list[str]) -> None:
    folder = make_events_folder(tmp_path)
    assert run_hook(arguments, ENVIRON, lines.append) == 0
    assert os.listdir(folder) == [EVENT_NAME]
    assert len(lines) == 1
    assert lines[0].startswith("cannot read ")


@pytest.mark.parametrize("secret", ["/nowhere/secret", "SHORT"])
def test_unusable_secret_sends_nothing_unsigned(tmp_path: Path, secret: str, lines: list[str]) -> None:
    (tmp_path / "short").write_text("x", encoding="ascii")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        path = write_config(
            tmp_path,
            prepSockConnectPath=f"tcp:127.0.0.1:{listener.getsockname()[1]}",
            prepSecretFile=secret.replace("SHORT", str(tmp_path / "short")),
        )
        run_hook(["-config", path], ENVIRON, lines.append)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert len(lines) == 1
    assert "prepSecretFile" in lines[0]


@pytest.mark.parametrize("job_id", ["", "x", "0", "9" * 30, "1;rm", "../1", "\udcff"])
def test_no_job_id(tmp_path: Path, job_id: str, lines: list[str]) -> None:
    folder = make_events_folder(tmp_path)
    assert run_hook([], {**ENVIRON, "SLURM_JOB_ID": job_id}, lines.append) == 0
    assert os.listdir(folder) == []
    assert len(lines) == 1
    assert "SLURM_JOB_ID" in lines[0]


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What hangs does so until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_hanging_name_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: threading.Event, lines: list[str]
) -> None:
    folder = make_events_folder(tmp_path)

    def hang(*_: object) -> list[object]:
        stuck.wait(10)
        raise OSError("late")

    monkeypatch.setattr("_socket.getaddrinfo", hang)
    began = time.monotonic()
    assert run_hook(["-config", write_config(tmp_path, prepSockConnectPath="tcp:h:1")], ENVIRON, lines.append) == 0
    assert time.monotonic() - began < 0.8
    assert (os.listdir(folder), lines) == ([EVENT_NAME], [])


def test_each_address_of_a_name_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    receiver, port = tcp_receiver()
    refuses = free_port()

    def both(name: bytes, *_: object) -> list[tuple[object, ...]]:
        assert name == b"node.example.org"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", to)) for to in (refuses, port)]

    monkeypatch.setattr("_socket.getaddrinfo", both)
    path = write_config(tmp_path, prepSockConnectPath=f"tcp:node.example.org:{refuses}")
    run_hook(["-config", path], ENVIRON, lines.append)
    assert decode(receiver.wait()).job_id == 4711
    assert lines == []


@pytest.mark.parametrize("names", ["unknown", "without an address", "refuses"])
def test_a_name_that_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, lines: list[str]
) -> None:
    refuses = free_port()

    def found(*_: object) -> list[tuple[object, ...]]:
        if names == "unknown":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", refuses))
        return [] if names == "without an address" else [place]

    monkeypatch.setattr("_socket.getaddrinfo", found)
    run_hook(["-config", write_config(tmp_path, prepSockConnectPath="tcp:node:1")], ENVIRON, lines.append)
    why = {"unknown": "Name or service not known", "refuses": "Connection refused"}.get(names, "has no address")
    assert len(lines) == 1
    assert "job 4711 not reported: tcp:node:1: " in lines[0]
    assert f"{why}; " in lines[0]


def test_server_that_accepts_and_never_reads(tmp_path: Path, lines: list[str]) -> None:
    make_events_folder(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "d.sock"))
        listener.listen()
        began = time.monotonic()
        assert run_hook([], {**ENVIRON, "SLURM_JOB_COMMENT": "x" * 60_000}, lines.append) == 0
        assert time.monotonic() - began < 0.8


def test_daemon_that_takes_no_connections(tmp_path: Path, lines: list[str]) -> None:
    folder = make_events_folder(tmp_path)
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "d.sock"))
        listener.listen(0)
        with pytest.raises(BlockingIOError):
            for _ in range(10):
                waiting = sockets.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(tmp_path / "d.sock"))
        assert run_hook([], ENVIRON, lines.append) == 0
    assert (os.listdir(folder), lines) == ([EVENT_NAME], [])


def test_everything_hangs(monkeypatch: pytest.MonkeyPatch, stuck: threading.Event) -> None:
    def hang(*_: object) -> None:
        stuck.wait(10)

    monkeypatch.setattr(hook, "read_config_file", hang)
    began = time.monotonic()
    assert run_hook([], ENVIRON, hang) == 0
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("function", ["read_environment", "read_config_file", "encode", "event_name"])
def test_mistake_in_the_program_is_told(function: str, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(hook, function, fail)
    assert run_hook([], ENVIRON, lines.append) == 0
    assert len(lines) == 1
    assert "ZeroDivisionError: oops" in lines[0]


def test_process_with_almost_no_environment_prints_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from cc_slurm_adapter.hooks.hook import run_hook; sys.exit(run_hook(sys.argv[1:], os.environ))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-c", code, "-config", str(tmp_path / "\udcff\n")],
        env={**ENVIRON, "SLURM_JOB_COMMENT": "\udcff", "PYTHONPATH": str(Path(hook.__file__).parents[2])},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_hook_loads_nothing_that_is_slow() -> None:
    code = "import sys; import cc_slurm_adapter.hooks.hook; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-c", code],
        env={"PYTHONPATH": str(Path(hook.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    slow = {
        "typing",
        "dataclasses",
        "logging",
        "pathlib",
        "hmac",
        "hashlib",
        "contextlib",
        "ipaddress",
        "subprocess",
        "sqlite3",
        "json",
        "re",
        "enum",
        "functools",
        "collections",
        "socket",
        "syslog",
    }
    assert slow & set(done.stdout.split()) == set()

"""`-metrics` prints what the daemon answers, or nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.cli.main import CONFIG, OTHER, USAGE, run_command
from cc_slurm_adapter.daemon.metrics import exposition
from tests.unit.daemon.test_metrics import FULL

LIMIT = 60.0
Answer = Callable[[str, bytes], None]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    # The secret cannot be read, and is not needed.
    settings = {
        "ccRestUrl": "http://localhost",
        "ccRestJwtFile": "/none",
        "controlSockPath": str(tmp_path / "control.sock"),
    }
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Answer]:
    """A socket that answers one request with these bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        listener.settimeout(LIMIT)
        threads: list[threading.Thread] = []

        def serve(answer: bytes) -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(LIMIT)
                request = connection.recv(65536)
                connection.sendall(answer if request.startswith(b"GET /metrics HTTP/1.1\r\n") else b"HTTP/1.1 404 \r\n")

        def answer(status: str, body: bytes) -> None:
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            threads.append(threading.Thread(target=serve, args=(head + body,), daemon=True))
            threads[-1].start()

        yield answer
        for thread in threads:
            thread.join(LIMIT)


def test_the_metrics_are_printed_as_the_daemon_has_written_them(
    config: Path, daemon: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    text = exposition(FULL)
    daemon("200 OK", text.encode())
    assert run_command(["-metrics", "-config", str(config)]) == 0
    assert capsys.readouterr() == (text, "")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        ("503 Service Unavailable", b'{"version": 1, "error": "the daemon stops"}', "the daemon stops"),
        ("500 Oops", b"", "without a JSON object"),
        ("200 OK", b"<html>", "answers without metrics: check controlSockPath"),
        ("200 OK", b"", "answers without metrics: check controlSockPath"),
    ],
)
def test_nothing_is_printed_for_any_other_answer(
    config: Path,
    daemon: Answer,
    capsys: pytest.CaptureFixture[str],
    status: str,
    body: bytes,
    error: str,
) -> None:
    daemon(status, body)
    assert run_command(["-metrics", "-config", str(config)]) == OTHER
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert error in printed.err


def test_nothing_is_printed_without_a_daemon(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["-metrics", "-config", str(config)]) == OTHER
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cc-slurm-adapter: no daemon answers on ")


def test_a_configuration_that_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text("{", encoding="utf-8")
    assert run_command(["-metrics", "-config", str(path)]) == CONFIG
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("other", ["-daemon", "-topology"])
def test_it_is_a_command_of_its_own(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["-metrics", other]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "-metrics" in line
    assert other in line

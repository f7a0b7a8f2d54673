"""Asks the daemon of a practice site as an administrator does: by its commands, and over its sockets."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from examples.practice.site import PATIENCE, Site
from tests.built.installed import call


class Answer(NamedTuple):
    """A response over HTTP."""

    status: int
    body: str
    content_type: str
    headers: dict[str, str]
    """By their names in small letters."""


class _OverUnix(HTTPConnection):
    """A connection of the standard library's client, over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def control_socket(site: Site) -> Path:
    """Where it is if the configuration does not say."""
    return site.daemon.run_folder / "control.sock"


def ask(place: Path | str, path: str, method: str = "GET", body: str | None = None) -> Answer:
    """Sends a request to a unix socket, or to an address as in 127.0.0.1:9517."""
    connection = _OverUnix(place) if isinstance(place, Path) else HTTPConnection(place, timeout=PATIENCE)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.read().decode(), headers.get("content-type", ""), headers)
    finally:
        connection.close()


def command(site: Site, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Calls the built file with the configuration of the daemon, without a terminal."""
    argv = [site.daemon.adapter, "-config", site.daemon.config_path, *words]
    return call(argv, {**site.daemon.environ, **environ})


class Terminal:
    """A command on a terminal of its own, `columns` wide. Use it in a `with` block."""

    def __init__(self, site: Site, *words: str, columns: int = 80, rows: int = 60, **environ: str) -> None:
        self._screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        # setsid makes it the terminal of the command, so that Ctrl-C reaches it.
        argv = ["setsid", "--ctty", str(site.daemon.adapter), "-config", str(site.daemon.config_path), *words]
        self._process = subprocess.Popen(
            argv,
            env={**site.daemon.environ, "TERM": "xterm", **environ},
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
        os.close(inside)
        self._shown = b""

    @property
    def shown(self) -> str:
        """All that was written to the terminal so far."""
        return self._shown.decode()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Waits until a text was written so often. TimeoutError if that takes too long, or if the command ends."""
        deadline = time.monotonic() + PATIENCE
        while self.shown.count(text) < times:
            if not self._read(deadline):
                raise TimeoutError(f"no {text!r}, but:\n{self.shown}")

    def wait_for_end(self) -> int:
        """Waits until the command ends, and gives its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE)

    def type(self, keys: str) -> None:
        """Types keys; a line ends with a newline, and Ctrl-C is the character 3."""
        os.write(self._screen, keys.encode())

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        try:
            read = os.read(self._screen, 65536) if ready else b""
        except OSError:  # nobody has the other end open any more
            read = b""
        self._shown += read
        return bool(read)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._screen)

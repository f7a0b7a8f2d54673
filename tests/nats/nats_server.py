"""A real nats-server on a free port of 127.0.0.1, for one test."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.server_process import ServerProcess

HOST = "127.0.0.1"
PORTS = range(20000, 32000)
"""Below the ports that the kernel gives to clients: none of them gets in the way while a server is down."""
START_LIMIT = 10.0
JET_STREAM_BYTES = 256 * 1024 * 1024


class NatsServerError(Exception):
    """It does not start, or does not answer; the text has the end of its log."""


class NatsServer(ServerProcess):
    """`config` is that of nats-server as a dictionary, as in {"max_payload": 1000}; the address is added to it.

    `folder` takes its configuration, its log and, with `jetstream`, its store. Used with `with`, or start() and stop().
    """

    def __init__(
        self, program: Path, folder: Path, config: Mapping[str, Any] | None = None, *, jetstream: bool = False
    ) -> None:
        super().__init__(folder / "nats-server.log")
        self.port = free_port()
        self.config = dict(config or {})
        self._program = program
        self._file = folder / "nats-server.json"
        self._jetstream = {"jetstream": jetstream_config(folder)} if jetstream else {}

    @property
    def url(self) -> str:
        """nats:// or, where it speaks TLS, tls://."""
        return f"{'tls' if 'tls' in self.config else 'nats'}://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers. Raises NatsServerError."""
        settings = {**self.config, **self._jetstream, "host": HOST, "port": self.port}
        self._file.write_text(json.dumps(settings), encoding="utf-8")
        self._launch([str(self._program), "-c", str(self._file)])
        self._wait_until_it_answers()

    def restart(self, config: Mapping[str, Any] | None = None) -> None:
        """Stop it if it runs, and start it on the same port with the same store; `config` replaces the old one."""
        self.stop()
        self.config = self.config if config is None else dict(config)
        self.start()

    def freeze(self) -> None:
        """From now on it takes connections and bytes, because the kernel does, and says nothing."""
        process = self._running_process()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        self._running_process().send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise NatsServerError(f"nats-server does not run:\n{self.log_text()}")
        return self._process

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not says_info(self.port):
            self._running_process()
            if time.monotonic() > deadline:
                raise NatsServerError(f"nats-server gave no answer within {START_LIMIT:.0f} s:\n{self.log_text()}")
            time.sleep(0.01)


def jetstream_config(folder: Path) -> dict[str, Any]:
    """A store on disk that a kill of the server does not harm; sizes in bytes."""
    return {"store_dir": str(folder / "store"), "max_mem": JET_STREAM_BYTES, "max_file": JET_STREAM_BYTES}


def free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


def says_info(port: int) -> bool:
    """Whether a server there begins to speak as NATS does."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False

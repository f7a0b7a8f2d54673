"""A server that a test starts, with its output in a file, and ends again whatever happens."""

from __future__ import annotations

import abc
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

STOP_LIMIT = 10.0
"""Seconds until a server that was told to end is killed."""

Self = TypeVar("Self", bound="ServerProcess")


class ServerProcess(abc.ABC):
    """Used with `with`, or start() and stop(). `log` takes what it says; its folder is made."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        log.parent.mkdir(parents=True, exist_ok=True)

    @abc.abstractmethod
    def start(self) -> None:
        """Starts it and waits until it answers."""

    def stop(self) -> None:
        """Ends it as an administrator would, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once, without a word."""
        self._end(signal.SIGKILL)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_text(self) -> str:
        """All that it has said so far, for the text of a failure."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else "(no log)"

    def __enter__(self: Self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, command: Sequence[str]) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(with_signal)
            process.send_signal(signal.SIGCONT)  # it may be frozen
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

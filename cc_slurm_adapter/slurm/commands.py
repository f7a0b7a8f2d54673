"""The one place that starts processes.

Each command is a list of words, looked up in PATH at every call, with the environment inherited
plus LC_ALL=C and without what would change Slurm's answers, in a process group of its own that is
killed whole. Time and output are limited, and `cancel()` ends whatever runs at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, CommandMissing

log = logging.getLogger(__name__)

TIME_LIMIT = 90.0
"""Seconds without a word. slurmctld may take a minute under load; its own clients give up by themselves before long.

A command that puts many questions to a slurmctld with rl_enable says something every few seconds."""
LONGEST = 900.0
"""Seconds that a command may take although it says something now and then."""
EXIT_LIMIT = 1.5
"""Seconds from the end of the output to that of the command: nothing interrupts this wait."""
SLOW = 10.0
"""Seconds after which it is said that a command is slow."""
OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes that are kept in memory. What is handed on in pieces is not kept and not limited by this."""
ERROR_LIMIT = 64 * 1024
PIECE = 256 * 1024
STEERING = ("SQUEUE_", "SINFO_", "SACCT_", "SCONTROL_")
"""Variables that begin so stand for options: of users, states, partitions, formats. None is inherited."""
UNWANTED = frozenset({"SLURM_CLUSTERS", "SLURM_JSON", "SLURM_YAML"})
"""Others that change the answers; SLURM_JSON can put a whole document on one line."""
OWN_CLUSTER = {f"{prefix}LOCAL": "1" for prefix in STEERING}
"""In a federation the commands would speak of the other clusters' jobs as well."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended by itself."""

    exit_code: int
    output: bytes
    errors: str

    def complaint(self) -> str:
        """The last line on standard error, for a log line."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"exit code {self.exit_code}"


class Commands:
    """Starts Slurm's commands. Used from one thread; `cancel()` may be called from any other."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self._cancel_read, self._cancel_write = os.pipe()
        os.set_blocking(self._cancel_write, False)
        self._cancelled = threading.Event()
        self.started = 0

    def close(self) -> None:
        """Give the cancel pipe back; no command can be started any more."""
        self._cancelled.set()
        os.close(self._cancel_read)
        os.close(self._cancel_write)

    def cancel(self) -> None:
        """End the command that runs, and refuse all later ones."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            os.write(self._cancel_write, b"x")

    def run(self, argv: list[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Finished:
        """Run a command and keep its output. Raises SlurmError; the exit code is the caller's to judge."""
        kept: list[bytes] = []
        size = 0

        def keep(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > OUTPUT_LIMIT:
                raise CommandFailed(f"{argv[0]} printed more than {OUTPUT_LIMIT} bytes")
            kept.append(piece)

        finished = _hand_on(self.pieces(argv, stdin=stdin, environment=environment), keep)
        return replace(finished, output=b"".join(kept))

    def pieces(
        self, argv: list[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Generator[bytes, None, Finished]:
        """Run a command and yield its output as it comes; closing the generator ends it. Raises SlurmError.

        Other commands may be run between two pieces: what the caller does there is not held against the time limit.
        """
        with self.begin(argv, stdin=stdin, environment=environment) as command:
            return (yield from command.pieces())

    def begin(self, argv: list[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Command:
        """Start a command whose output is wanted later; use it in a `with` block. Raises SlurmError."""
        if self._cancelled.is_set():
            raise CommandCancelled(f"{argv[0]} was not started: the daemon stops")
        return Command(argv, self._start(argv, bool(stdin), environment), stdin, self._cancel_read)

    def _start(self, argv: list[str], feeds: bool, environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        variables = {**_inherited(), **self._environment, **(environment or {}), **OWN_CLUSTER, "LC_ALL": "C"}
        program = shutil.which(argv[0], path=variables.get("PATH", os.defpath))
        if program is None:
            raise CommandMissing(
                f"the Slurm command {argv[0]} is not in PATH ({variables.get('PATH', '')}):"
                " install Slurm's client commands on this host or set PATH in the unit file"
            )
        self.started += 1
        try:
            return subprocess.Popen(
                [program, *argv[1:]],
                stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=variables,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(f"{program} cannot be started: {error}") from error


class Command:
    """One that was started. Leaving its `with` block ends it."""

    def __init__(self, argv: list[str], process: subprocess.Popen[bytes], stdin: bytes, cancel: int) -> None:
        self.argv = argv
        self.time_limit = TIME_LIMIT
        """Seconds without a word."""
        self._process = process
        self._stdin = stdin
        self._cancel = cancel

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it unless it has ended; may be called again."""
        _end(self._process)

    def pieces(self) -> Generator[bytes, None, Finished]:
        """Its output as it comes, once; the time limits begin now. Raises SlurmError."""
        try:
            errors = yield from self._exchange(self._process, self._stdin)
            return Finished(self._process.wait(EXIT_LIMIT), b"", errors)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{self.argv[0]} has closed its output and does not end") from error

    def hand_on(self, on_piece: Callable[[bytes], None]) -> Finished:
        """All its output, in pieces, so that a large one needs no memory. Raises SlurmError."""
        return _hand_on(self.pieces(), on_piece)

    def _exchange(self, process: subprocess.Popen[bytes], stdin: bytes) -> Generator[bytes, None, str]:
        assert process.stdout is not None  # noqa: S101 - both are pipes by construction
        assert process.stderr is not None  # noqa: S101
        errors, name = bytearray(), self.argv[0]
        began = time.monotonic()
        say_at, deadline, end = began + SLOW, began + self.time_limit, began + LONGEST
        with selectors.DefaultSelector() as selector:
            selector.register(self._cancel, selectors.EVENT_READ, "cancel")
            selector.register(process.stdout, selectors.EVENT_READ, "output")
            selector.register(process.stderr, selectors.EVENT_READ, "errors")
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE, "input")
            while len(selector.get_map()) > 1:
                ready = selector.select(max(min(say_at, deadline, end) - time.monotonic(), 0))
                now = time.monotonic()
                if now >= end or (now >= deadline and not ready):
                    raise CommandFailed(f"{name} gave no answer within {now - began:.0f} s")
                if now >= say_at:
                    log.warning("%s has been running for %.0f s", name, now - began)
                    say_at = now + TIME_LIMIT
                for key, _ in ready:
                    if key.data == "cancel":
                        raise CommandCancelled(f"{name} was ended: the daemon stops")
                    if key.data == "input":
                        stdin = _feed(process, stdin, selector)
                        continue
                    piece = os.read(key.fd, PIECE)
                    if not piece:
                        selector.unregister(key.fileobj)
                    elif key.data == "output":
                        yield piece
                        paused = time.monotonic() - now
                        say_at, deadline, end = say_at + paused, now + paused + self.time_limit, end + paused
                    else:
                        errors += piece[: ERROR_LIMIT - len(errors)]
        return errors.decode("utf-8", errors="replace")


def _hand_on(pieces: Generator[bytes, None, Finished], on_piece: Callable[[bytes], None]) -> Finished:
    with contextlib.closing(pieces):
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                finished: Finished = end.value
                return finished
            on_piece(piece)


def _feed(process: subprocess.Popen[bytes], stdin: bytes, selector: selectors.BaseSelector) -> bytes:
    """Write as much as the pipe takes; close it when all is written or nobody reads."""
    assert process.stdin is not None  # noqa: S101 - registered only when it is a pipe
    try:
        rest = stdin[os.write(process.stdin.fileno(), stdin[:PIECE]) :]
    except BrokenPipeError:
        rest = b""
    if not rest:
        selector.unregister(process.stdin)
        process.stdin.close()
    return rest


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group unless the command has ended by itself, and reap it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(STEERING) and name not in UNWANTED}

"""The only place that starts processes.

A command is a list of arguments. Its program is looked up in PATH at every call. It inherits the environment, except
variables that would change Slurm's output, and gets LC_ALL=C. It has a process group of its own, which is killed as a
whole. Time and output are limited, and `cancel()` ends the running command immediately. If not even SIGKILL ends a
process, because a file system does not respond, the process is left behind. There are at most a few of these.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, CommandMissing, SlurmError
from cc_slurm_adapter.log import Repeated
from cc_slurm_adapter.system.owner import Account

log = logging.getLogger(__name__)

MOST_LEFT_BEHIND = 8
"""Most processes that are left behind after SIGKILL. With this many no other is started, because it would hang, too."""
EXIT_TICK = 0.1
"""Seconds to wait for the end of a command before the cancel is checked. Nothing but that end interrupts this wait."""
OUTPUT_LIMIT = 64 * 1024 * 1024
"""Most bytes that are kept in memory. Output that is passed on in pieces is not kept, so this does not limit it."""
ERROR_LIMIT = 64 * 1024
PIECE = 256 * 1024
OPTION_PREFIXES = ("SQUEUE_", "SINFO_", "SACCT_", "SCONTROL_")
"""Variables with these prefixes set options: users, states, partitions, formats. None is inherited."""
KNOWN = frozenset({"squeue", "scontrol", "sacct", "sacctmgr", "sdiag", "sinfo", "slurmd"})
"""The commands that are counted by their names."""
UNWANTED = frozenset({"SLURM_CLUSTERS", "SLURM_JSON", "SLURM_YAML"})
"""Other variables that change the output. SLURM_JSON can put a whole document on one line."""
OWN_CLUSTER = {f"{prefix}LOCAL": "1" for prefix in OPTION_PREFIXES}
"""In a federation the commands would print the other clusters' jobs as well."""


class Timing(NamedTuple):
    """How long a command may take. All fields are in seconds."""

    time_limit: float = 90.0
    """Without output. slurmctld may take a minute under load, and its own clients soon give up by themselves.

    A command that sends many queries to a slurmctld with rl_enable prints something every few seconds.
    """
    longest: float = 900.0
    """In all, even if the command prints something now and then."""
    exit_limit: float = 1.5
    """From the end of the output to the end of the command."""
    kill_limit: float = 0.5
    """From SIGKILL to the end. A process in the state D (proc(5)) does not end before its file system responds."""
    tick: float = 1.0
    """The wait before the watchdog is fed again."""
    slow: float = 10.0
    """A command that takes at least this long is logged."""


TIMING = Timing()


@dataclass(frozen=True)
class Finished:
    """A command that has ended by itself."""

    exit_code: int
    output: bytes
    errors: str

    def last_error(self) -> str:
        """Return the last line on standard error, for a log line."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"exit code {self.exit_code}"


class Commands:
    """Starts Slurm's commands. One thread uses it; any other may call `cancel()`."""

    def __init__(  # noqa: PLR0913 - how commands are started, and what is called meanwhile
        self,
        environment: Mapping[str, str] | None = None,
        pulse: Callable[[], None] = lambda: None,
        on_left_behind: Callable[[], None] = lambda: None,
        on_ended: Callable[[str, str, float], None] = lambda command, result, seconds: None,
        *,
        timing: Timing = TIMING,
        run_as: Account | None = None,
    ) -> None:
        """Make the cancel pipe. `pulse` is called for each piece of output, and each second without one.

        `on_left_behind` is called for each process that not even SIGKILL has ended. `on_ended` is called for each
        command with its name (one of KNOWN, or `other`), its result, and the seconds that this program waited for it.
        The result is `ok`, `exit_code` for any but 0, `failed` for a command that could not be started or gave no
        answer, or `broken_off` if the rest of its output was not wanted. Root may `run_as` another user, to see what
        Slurm shows that one.
        """
        self.timing = timing
        self._run_as = run_as
        self._on_left_behind = on_left_behind
        self._on_ended = on_ended
        self._environment = dict(environment or {})
        self.pulse = pulse
        self._left_behind: list[subprocess.Popen[bytes]] = []
        self._left_behind_lines, self._slow_lines = Repeated(), Repeated()
        self.cancel_fd, self._cancel_write = os.pipe()
        os.set_blocking(self._cancel_write, False)
        self.is_cancelled = False
        """Whether no command may run any more. It has no lock, because signal handlers set it."""

    def close(self) -> None:
        """Close the cancel pipe. No command can be started afterwards."""
        self.is_cancelled = True
        os.close(self.cancel_fd)
        os.close(self._cancel_write)

    @property
    def left_behind(self) -> int:
        """Count the processes that have not ended after SIGKILL."""
        self._left_behind = [process for process in self._left_behind if process.poll() is None]
        return len(self._left_behind)

    def leave_behind(self, process: subprocess.Popen[bytes], name: str) -> None:
        """Stop waiting for a process that was killed and has not ended."""
        if process in self._left_behind:
            return
        self._left_behind.append(process)
        self._on_left_behind()
        if self._left_behind_lines.is_due():
            log.error(
                "%s (process %d) does not end after SIGKILL and is left behind, %d in all: a file system or a device"
                " does not answer it. See dmesg, and the mounts that Slurm uses%s",
                name,
                process.pid,
                self.left_behind,
                self._left_behind_lines.note,
            )

    def note_slow(self, name: str, seconds: float) -> None:
        """Log that a command has succeeded late. One that fails is logged by whoever needs its answer."""
        if self._slow_lines.is_due():
            text = "%s has taken %.0f s: see what keeps slurmctld or slurmdbd busy (sdiag)%s"
            log.warning(text, name, seconds, self._slow_lines.note)

    def cancel(self) -> None:
        """End the running command, and refuse all later ones."""
        if not self.is_cancelled:
            self.is_cancelled = True
            os.write(self._cancel_write, b"x")

    def run(self, argv: list[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Finished:
        """Run a command and keep its output. Raises SlurmError, but not for an exit code, which the caller judges."""
        kept: list[bytes] = []
        size = 0

        def keep(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > OUTPUT_LIMIT:
                raise CommandFailed(f"{argv[0]} printed more than {OUTPUT_LIMIT} bytes")
            kept.append(piece)

        finished = _drain(self.pieces(argv, stdin=stdin, environment=environment), keep)
        return replace(finished, output=b"".join(kept))

    def pieces(
        self, argv: list[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Generator[bytes, None, Finished]:
        """Run a command and yield its output as it arrives. Closing the generator ends it. Raises SlurmError.

        Other commands may be run between two pieces: the caller's time does not count towards the limit.
        """
        with self.begin(argv, stdin=stdin, environment=environment) as command:
            return (yield from command.pieces())

    def begin(self, argv: list[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Command:
        """Start a command whose output is read later. Use it in a `with` block. Raises SlurmError."""
        if self.is_cancelled:
            raise CommandCancelled(f"{argv[0]} was not started: the daemon stops")
        if self.left_behind >= MOST_LEFT_BEHIND:
            raise CommandFailed(
                f"{argv[0]} was not started: {MOST_LEFT_BEHIND} commands do not end after SIGKILL, because a file"
                " system or a device does not answer them (see dmesg, and the mounts that Slurm uses)"
            )
        try:
            process = self._start(argv, bool(stdin), environment)
        except SlurmError:
            self.ended(argv[0], "failed", 0.0)
            raise
        return Command(argv, process, stdin, self)

    def ended(self, program: str, result: str, seconds: float) -> None:
        """Pass on that a command has ended."""
        name = os.path.basename(program)
        self._on_ended(name if name in KNOWN else "other", result, seconds)

    def _start(self, argv: list[str], feeds: bool, environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        variables = {**_inherited(), **self._environment, **(environment or {}), **OWN_CLUSTER, "LC_ALL": "C"}
        program = shutil.which(argv[0], path=variables.get("PATH", os.defpath))
        if program is None:
            raise CommandMissing(
                f"the Slurm command {argv[0]} is not in PATH ({variables.get('PATH', '')}):"
                " install Slurm's client commands on this host or set PATH in the unit file"
            )
        try:
            return subprocess.Popen(
                [program, *argv[1:]],
                stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=variables,
                start_new_session=True,
                **_user_of(self._run_as),
            )
        except OSError as error:
            raise CommandFailed(f"{program} cannot be started: {error}") from error


class Command:
    """A command that was started. Leaving its `with` block ends it."""

    def __init__(self, argv: list[str], process: subprocess.Popen[bytes], stdin: bytes, owner: Commands) -> None:
        self.argv = argv
        self._owner = owner
        self._timing = owner.timing
        self.time_limit = owner.timing.time_limit
        """Seconds without output."""
        self.errors = bytearray()
        """Its standard error, as far as it has been read."""
        self._process = process
        self._stdin = stdin
        self._result = "broken_off"
        self._waited = 0.0
        """Seconds that this program waited for it."""
        self._is_closed = False

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the command unless it has ended. May be called more than once."""
        if not _end(self._process, self._timing.kill_limit):
            self._owner.leave_behind(self._process, self.argv[0])
        if not self._is_closed:
            self._is_closed = True
            self._owner.ended(self.argv[0], self._result, self._waited)

    def limit_rest(self) -> None:
        """Allow as little time for further output as for the end of the command."""
        self.time_limit = self._timing.exit_limit

    def pieces(self) -> Generator[bytes, None, Finished]:
        """Yield the output as it arrives. May be called once; the time limits begin then. Raises SlurmError."""
        try:
            errors = yield from self._exchange(self._process, self._stdin)
            exit_code = self._await_exit()
        except CommandFailed:
            self._result = "failed"
            raise
        except subprocess.TimeoutExpired as error:
            self._result = "failed"
            raise CommandFailed(f"{self.argv[0]} has closed its output and does not end") from error
        self._result = "exit_code" if exit_code else "ok"
        if exit_code == 0 and self._waited >= self._timing.slow:
            self._owner.note_slow(self.argv[0], self._waited)
        return Finished(exit_code, b"", errors)

    def _await_exit(self) -> int:
        """Wait for the exit code. Raises CommandCancelled and subprocess.TimeoutExpired."""
        began = time.monotonic()
        try:
            while True:
                try:
                    return self._process.wait(EXIT_TICK)
                except subprocess.TimeoutExpired:
                    if self._owner.is_cancelled:
                        raise CommandCancelled(f"{self.argv[0]} was ended: the daemon stops") from None
                    if time.monotonic() >= began + self._timing.exit_limit:
                        raise
        finally:
            self._waited += time.monotonic() - began

    def drain(self, on_piece: Callable[[bytes], None]) -> Finished:
        """Call `on_piece` for each piece of the output, so that a large one needs little memory. Raises SlurmError."""
        return _drain(self.pieces(), on_piece)

    def _exchange(self, process: subprocess.Popen[bytes], stdin: bytes) -> Generator[bytes, None, str]:
        assert process.stdout is not None  # noqa: S101 - both are pipes by construction
        assert process.stderr is not None  # noqa: S101
        errors, name, timing = self.errors, self.argv[0], self._timing
        began = time.monotonic()
        warn_at, deadline, end = began + timing.slow, began + self.time_limit, began + timing.longest
        with selectors.DefaultSelector() as selector:
            selector.register(self._owner.cancel_fd, selectors.EVENT_READ, "cancel")
            selector.register(process.stdout, selectors.EVENT_READ, "output")
            selector.register(process.stderr, selectors.EVENT_READ, "errors")
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE, "input")
            while len(selector.get_map()) > 1:
                before = time.monotonic()
                ready = selector.select(min(max(min(warn_at, deadline, end) - before, 0), timing.tick))
                self._owner.pulse()
                now = time.monotonic()
                self._waited += now - before
                if now >= end or (now >= deadline and not ready):
                    raise CommandFailed(f"{name}: {_asked_by(name)} gave no answer within {now - began:.0f} s")
                if now >= warn_at:
                    log.info("%s has been running for %.0f s", name, now - began)
                    warn_at = now + timing.time_limit
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
                        warn_at, deadline, end = warn_at + paused, now + paused + self.time_limit, end + paused
                    else:
                        errors += piece[: ERROR_LIMIT - len(errors)]
        return errors.decode("utf-8", errors="replace")


def _user_of(account: Account | None) -> dict[str, Any]:
    """Return the arguments of Popen that start a process as this user; {} to start it as the own one."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": account.groups}


def _asked_by(name: str) -> str:
    """Return the daemon of Slurm that a command asks."""
    return "slurmdbd" if name in ("sacct", "sacctmgr") else "slurmctld"


def _drain(pieces: Generator[bytes, None, Finished], on_piece: Callable[[bytes], None]) -> Finished:
    with contextlib.closing(pieces):
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                finished: Finished = end.value
                return finished
            on_piece(piece)


def _feed(process: subprocess.Popen[bytes], stdin: bytes, selector: selectors.BaseSelector) -> bytes:
    """Write as much as fits into the pipe and return the rest.

    Close the pipe when all is written or nothing reads it.
    """
    assert process.stdin is not None  # noqa: S101 - registered only when it is a pipe
    try:
        rest = stdin[os.write(process.stdin.fileno(), stdin[:PIECE]) :]
    except BrokenPipeError:
        rest = b""
    if not rest:
        selector.unregister(process.stdin)
        process.stdin.close()
    return rest


def _end(process: subprocess.Popen[bytes], kill_limit: float) -> bool:
    """Kill the whole group unless the command has ended, and reap it. Return whether it ends within `kill_limit`."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(kill_limit)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    return process.returncode is not None


def _inherited() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OPTION_PREFIXES) and name not in UNWANTED
    }

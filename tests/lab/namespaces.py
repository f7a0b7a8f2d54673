"""A place for processes and mounts that takes all of them with it when it ends.

Linux namespaces for mounts, processes and the host name. Process 1 inside waits for the end of its
input, which this process holds. So the place ends when it is closed, and also when this process is
killed; the kernel then ends every process in it, and its mounts go with the last of them. Nothing of it is
ever seen in the mount table of the machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

Answer = TypeVar("Answer")
Own = TypeVar("Own", bound="ClosedAtTheEnd")

NAMESPACES = ("--mount", "--uts", "--pid")

PROCESS_ONE = """
import signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then clears away orphans that have ended
socket.sethostname("lab")
print("ready", flush=True)
sys.stdin.read()
"""

PATIENCE = 3
"""How many times longer than on an idle machine a wait may take: several Slurms share two cores."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class LabError(Exception):
    """The lab could not be brought up or used; the text names the step and ends with its output."""


class ClosedAtTheEnd:
    """What has to be closed, also by the end of a `with` block."""

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all that it has started."""
        raise NotImplementedError


class Namespaces(ClosedAtTheEnd):
    """Starts at once; use it in a `with` block, or call `close`."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._holder = subprocess.Popen(
            ["unshare", *NAMESPACES, "--fork", "--kill-child", sys.executable, "-I", "-c", PROCESS_ONE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise LabError("namespaces cannot be made here: root with CAP_SYS_ADMIN is needed")
        self.process_one = child_of(self._holder.pid)

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside."""
        return ["nsenter", f"--target={self.process_one}", *NAMESPACES, "--", *argv]

    def seen_from_outside(self, path: Path) -> Path:
        """Where `path`, as it is inside with all its mounts, can be reached from this process."""
        return Path(f"/proc/{self.process_one}/root{path}")

    def run(
        self, argv: Sequence[str], *, seconds: float, log: IO[bytes] | int | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs `argv` inside for at most `seconds`; 124 is the exit code of a command that took longer.

        Its output is kept, or goes to `log`. `text` is its standard input.
        """
        limited = ["timeout", "--kill-after=5", str(seconds), *argv]
        output = subprocess.PIPE if log is None else log
        return subprocess.run(
            self.enter(limited),
            input=text,
            stdout=output,
            stderr=subprocess.PIPE if log is None else subprocess.STDOUT,
            env=ENVIRONMENT,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
            timeout=seconds + 15,
        )

    def popen(self, argv: Sequence[str], *, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Starts `argv` inside; its output goes to `log`. The process itself is `child_of(result.pid)`."""
        process = subprocess.Popen(
            self.enter(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """Ends every process inside and waits until they are gone."""
        for pipe in (self._holder.stdin, self._holder.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._holder.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        for process in self._started:
            process.wait(timeout=20)


def child_of(pid: int) -> int:
    """The process id, as this process sees it, of the only child of `pid`."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    children = wait_for("a child process", lambda: listing.read_text(encoding="ascii").split(), seconds=10)
    return int(children[0])


def wait_for(what: str, question: Callable[[], Answer], *, seconds: float, every: float = 0.05) -> Answer:
    """Asks until the answer is true and returns it; a LabError names `what` when it does not come in time.

    `seconds` are those of a machine with nothing else to do.
    """
    deadline = time.monotonic() + PATIENCE * seconds
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise LabError(f"waited {PATIENCE * seconds:g} s in vain for {what}")
        time.sleep(every)
    return answer

"""A small file system of its own that can be frozen as a snapshot or a hung disk freezes one: whoever writes waits.

A process waits beside it that thaws it after a while, or as soon as this process is gone: nothing stays frozen.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.lab.namespaces import LabError

SIZE = "64M"
AT_MOST = 60
"""Seconds for which it stays frozen."""
STEP_SECONDS = 30

WATCHER = """
import select, subprocess, sys
select.select([sys.stdin], [], [], float(sys.argv[2]))
subprocess.run(["fsfreeze", "--unfreeze", sys.argv[1]], stderr=subprocess.DEVNULL, timeout=30)
"""
"""Ends when its standard input does."""


class FrozenDisk:
    """An ext4 image in `folder`, mounted at `place` while the block lasts. Raises LabError where that cannot be."""

    def __init__(self, folder: Path, place: Path) -> None:
        self._image = folder / "image"
        self.place = place
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FrozenDisk:
        run("truncate", f"--size={SIZE}", str(self._image))
        run("mkfs.ext4", "-q", str(self._image))
        run("mount", "-o", "loop", str(self._image), str(self.place))
        return self

    def freeze(self) -> None:
        """From now on whoever writes there waits, until `thaw` or for at most AT_MOST seconds."""
        if not os.path.ismount(self.place) or os.stat(self.place).st_dev == os.stat("/").st_dev:
            raise LabError(f"{self.place} is no file system of its own: it is not frozen")
        command = [sys.executable, "-I", "-S", "-c", WATCHER, str(self.place), str(AT_MOST)]
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True)
        run("fsfreeze", "--freeze", str(self.place))

    @property
    def is_frozen(self) -> bool:
        """Whether nobody has thawed it yet."""
        return self._watcher is not None and self._watcher.poll() is None

    def thaw(self) -> None:
        """Writing goes on."""
        watcher, self._watcher = self._watcher, None
        if watcher:
            assert watcher.stdin is not None
            watcher.stdin.close()
            watcher.wait(STEP_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        run("umount", "--lazy", str(self.place))  # after a failure the daemon may still have files open


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} exited {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")

"""The pid file with its lock, the time of the last run, and the folder they need."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
from pathlib import Path

from cc_slurm_adapter.errors import AlreadyRunning, StateError
from cc_slurm_adapter.system.file_systems import belongs_to_another, file_system_type
from cc_slurm_adapter.system.own_files import remove_locked_file, show_to_all, try_writing

log = logging.getLogger(__name__)


class PidFile:
    """The file that is locked while the daemon runs. Only the lock counts: a stale or reused pid blocks no start.

    `lock()` does not change a file that already exists: it may be another program's, and this start may be refused
    later. `publish()` writes the pid into it when everything else has succeeded. `key` is the setting that names the
    file.
    """

    def __init__(self, path: str, key: str = "pidFilePath") -> None:
        self._path = path
        self._key = key
        self._fd = -1
        self._is_ours = False

    def lock(self) -> None:
        """Lock the file. Raises AlreadyRunning or StateError."""
        while self._fd < 0:
            existed = os.path.exists(self._path)
            fd = self._open()
            try:
                self._lock(fd)
                self._check_content(fd)
            except BaseException:
                os.close(fd)
                raise
            if not self._is_still_there(fd):
                os.close(fd)  # its holder removed it between our open and our lock
                continue
            self._fd = fd
            if not existed:
                self.publish()

    def _check_content(self, fd: int) -> None:
        """Raise StateError for a file with anything but a number in it: it is not ours, and is not changed."""
        if not _is_pid(os.pread(fd, _PID_READ, 0)):
            raise StateError(_foreign(self._key, self._path))

    def publish(self) -> None:
        """Write the pid of this process."""
        self._is_ours = True
        try:
            show_to_all(self._fd)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # as on a full disk: the lock is what counts
            log.warning("%s: the pid cannot be written into %s: %s", self._key, self._path, error.strerror)

    def release(self) -> None:
        """Remove the file and release the lock."""
        if self._fd >= 0:
            if self._is_ours:
                with contextlib.suppress(OSError):
                    remove_locked_file(self._path, self._fd)
            os.close(self._fd)
            self._fd = -1

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 20).decode("ascii", errors="replace").strip() or "unknown"
            raise AlreadyRunning(
                f"a daemon runs already with the pid {pid} (it has locked {self._path}):"
                " stop it first, or give this one another pidFilePath and lastRunPath",
                pid,
            ) from None
        except OSError as error:
            raise StateError(
                f"{self._key} {self._path} cannot be locked: {error.strerror}: it is on"
                f" {file_system_type(self._path) or 'a file system without locks'}, but must be on a local file system:"
                f" set {self._key} to a path on one"
            ) from error

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            mend = belongs_to_another(self._path) or (
                "create its folder and give it to the daemon's user (in a systemd unit:"
                " RuntimeDirectory=cc-slurm-adapter)"
            )
            raise StateError(f"{self._key} {self._path} cannot be written: {error.strerror}: {mend}") from error

    def _is_still_there(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), Path(self._path).stat())
        except OSError:
            return False


_PID_READ = 64


def _is_pid(content: bytes) -> bool:
    return re.fullmatch(rb"\s*[0-9]{0,20}\s*", content) is not None


def _foreign(key: str, path: str) -> str:
    return f"{key} {path} is not a pid file, because it contains something else: configure another path"


def check_pid_file(path: str, key: str = "pidFilePath") -> str:
    """Return why a file that is there is no pid file; '' if it is one, is not there, or cannot be read."""
    try:
        with open(path, "rb") as file:
            return "" if _is_pid(file.read(_PID_READ)) else _foreign(key, path)
    except OSError:
        return ""


class LastRun:
    """The file whose modification time is the time of the last complete run, as the existing adapter keeps it."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def read(self) -> int | None:
        """Return its time in Unix seconds; None if there was no run."""
        try:
            return int(self._path.stat().st_mtime)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"lastRunPath {self._path} cannot be read: {error.strerror}") from error

    def write(self, when: float) -> None:
        """Set the modification time to `when` (Unix seconds)."""
        try:
            self._path.touch()
            os.utime(self._path, (when, when))
        except OSError as error:
            raise StateError(f"lastRunPath {self._path} cannot be written: {error.strerror}") from error


def check_state_folder(last_run_path: str) -> str:
    """Return the folder of lastRunPath, after a test that it can be written. Raises StateError."""
    folder = Path(last_run_path).parent
    try:
        try_writing(str(folder))
    except OSError as error:
        mend = "create it and give it to the daemon's user (in a systemd unit: StateDirectory=cc-slurm-adapter)"
        if error.errno == errno.EROFS:
            mend = "mount it writable"
        raise StateError(
            f"the state folder {folder} (of lastRunPath) cannot be written: {error.strerror}: {mend}"
        ) from error
    return str(folder)

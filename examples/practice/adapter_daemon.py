"""The built file as a daemon, with its configuration, state and log in one folder."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

READY = " reports the cluster "
"""Stands in the log line with which the daemon is ready."""
CHECK_SECONDS = 0.02
LOG_LINES = 25
PASSED_ON = ("CC_SLURM_ADAPTER_PYTHON", "LANG", "TZ")
"""Variables of our own environment that the daemon gets too."""


class SiteError(Exception):
    """Something did not come to pass; the text says what, with the daemon's last words."""


class AdapterDaemon:
    """A daemon that is not yet started. `environ` is what it inherits, `config` its settings.

    `folder` is made. In it lie config.json, daemon.log, state/, run/, hooks/ for events, and home/ as the HOME that
    stays empty. `user` is the name of whom it runs as, '' for the caller.
    """

    def __init__(
        self, adapter: Path, folder: Path, *, environ: Mapping[str, str], config: Mapping[str, Any], user: str = ""
    ) -> None:
        self.adapter = adapter
        self.folder = folder
        self.state_folder = folder / "state"
        self.run_folder = folder / "run"
        self.config_path = folder / "config.json"
        self.log_path = folder / "daemon.log"
        self.socket_path = self.run_folder / "daemon.sock"
        self.events_folder = folder / "hooks" / "events"
        self.environ = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self.environ.update(environ, HOME=str(folder / "home"))
        self.config: dict[str, Any] = {
            "pidFilePath": str(self.run_folder / "daemon.pid"),
            "prepSockListenPath": str(self.socket_path),
            "prepSockConnectPath": str(self.socket_path),
            "lastRunPath": str(self.state_folder / "lastrun"),
            "prepEventsPath": str(self.events_folder),
        }
        self._account = pwd.getpwnam(user) if user else None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_before = 0
        for place in (folder, *self._own_folders()):
            place.mkdir()
        for place in self._own_folders():
            self._give_away(place)
        self.configure(**config)

    def _own_folders(self) -> tuple[Path, ...]:
        return self.folder / "home", self.state_folder, self.run_folder, self.events_folder.parent

    def configure(self, **settings: Any) -> None:
        """Change settings, for the next start."""
        self.config.update(settings)
        self.config_path.write_text(json.dumps(self.config, indent=1), encoding="utf-8")
        self.config_path.chmod(0o600)
        self._give_away(self.config_path)

    def _give_away(self, path: Path) -> None:
        if self._account:
            shutil.chown(path, self._account.pw_uid, self._account.pw_gid)

    @property
    def pid(self) -> int:
        """The process id of the daemon that was started last."""
        if self._process is None:
            raise SiteError("the daemon was not started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or was never started."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """All that the daemons of this folder have said."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def last_words(self) -> str:
        """The end of the log."""
        return "\n".join(self.log().splitlines()[-LOG_LINES:])

    def command(self, debug: int = 3) -> list[str]:
        """The command line that starts it."""
        return [str(self.adapter), "-daemon", "-config", str(self.config_path), "-debug", str(debug)]

    def launch(self, debug: int = 3) -> None:
        """Start it and do not wait."""
        account = self._account
        with self.log_path.open("ab") as log:
            self._log_before = log.tell()
            self._process = subprocess.Popen(
                self.command(debug),
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )

    def start(self, debug: int = 3, seconds: float = 60) -> None:
        """Start it and wait until it is ready. SiteError when it ends before, or takes longer."""
        self.launch(debug)
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if not self.running:
                raise SiteError(f"the daemon exited {self.exit_code}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise SiteError(f"the daemon was not ready after {seconds:g} s:\n{self.last_words()}")
            time.sleep(CHECK_SECONDS)

    def is_ready(self) -> bool:
        """Whether the daemon that was started last has said that it reports."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_before)
            return READY.encode() in log.read()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self, seconds: float = 10) -> tuple[int, float]:
        """SIGTERM; the exit code, and how many seconds it took. SiteError when it takes longer."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        return self.wait(seconds), time.monotonic() - began

    def wait(self, seconds: float = 10) -> int:
        """Wait for its end; its exit code. SiteError when it takes longer."""
        if self._process is None:
            raise SiteError("the daemon was not started")
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise SiteError(f"the daemon still runs after {seconds:g} s:\n{self.last_words()}") from None

    def end(self) -> None:
        """Stop it, or kill it when that takes long; does no harm when it does not run."""
        try:
            if self.running:
                with suppress(SiteError):
                    self.stop(3)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def waiting_messages(self) -> int:
        """How many messages its outbox holds that have not arrived where they are to go."""
        path = self.state_folder / "state.sqlite"
        # The daemon may be about to make the file.
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as state:
            question = "SELECT count(*) FROM delivery WHERE state IN ('pending', 'parked', 'following')"
            return int(state.execute(question).fetchone()[0])
        return 0

"""Every path that the program writes. The systemd unit must allow them, and docs/operating.md lists them."""

from __future__ import annotations

import os
from typing import NamedTuple

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.config.config import Config


class WrittenPath(NamedTuple):
    """One path. `setting` is the key that it comes from. In `names` a * replaces what may differ.

    If `beside`, the names replace the last part of the setting's value; else they are appended to the value.
    """

    setting: str
    names: tuple[str, ...] = ("",)
    beside: bool = False


WRITTEN_PATHS = (
    WrittenPath("pidFilePath"),
    WrittenPath("prepSockListenPath"),
    WrittenPath("controlSockPath"),
    WrittenPath("metricsListen"),
    WrittenPath("lastRunPath"),
    WrittenPath("lastRunPath", (".write-test.*",), beside=True),
    WrittenPath("statePath", ("", "-wal", "-shm", "-journal", ".lock", ".crashes", ".damaged-*", ".format-*", ".new*")),
    WrittenPath("statePath", ("first-moment*",), beside=True),
    WrittenPath("prepEventsPath", ("", "/*.open")),
)
"""Hooks write event files below prepEventsPath as well."""


def patterns(config: Config) -> list[str]:
    """Return the paths for this configuration, with * for what may differ."""
    found = []
    for written in WRITTEN_PATHS:
        value = _path_of(config, written.setting)
        start = os.path.join(os.path.dirname(value), "") if written.beside else value
        found += [start + name for name in written.names if value]
    return found


def keys_of_folders(config: Config) -> dict[str, list[str]]:
    """Return the folders in which the daemon must be allowed to write, each with the keys that name it.

    That of the events folder is not among them: hooks need it as well, so it is looked at with them.
    """
    found: dict[str, dict[str, None]] = {}
    for written in WRITTEN_PATHS:
        path = _path_of(config, written.setting)
        if path and written.setting != "prepEventsPath":
            found.setdefault(os.path.dirname(path) or ".", {})[written.setting] = None
    return {folder: list(keys) for folder, keys in found.items()}


def lasting_files(config: Config) -> list[tuple[str, str]]:
    """Return each file that may be there already, with the key that names it, but for sockets and events."""
    return [
        (written.setting, f"{value}{name}")
        for written in WRITTEN_PATHS
        if written.setting in ("pidFilePath", "lastRunPath", "statePath") and not written.beside
        for value in [_path_of(config, written.setting)]
        for name in written.names
        if "*" not in name
    ]


def state_folders(config: Config) -> list[str]:
    """Return the folders of the files that remain when the daemon ends."""
    return sorted({os.path.dirname(path) or "." for path in (config.last_run_path, config.state_path)})


def folders(config: Config) -> list[str]:
    """Return the folders in which the daemon must be allowed to write."""
    return sorted({os.path.dirname(path) or "." for path in patterns(config)})


def _path_of(config: Config, setting: str) -> str:
    return {
        "pidFilePath": config.pid_file_path,
        "prepSockListenPath": _path(config.prep_sock_listen_path),
        "controlSockPath": config.control_sock_path,
        "metricsListen": _path(config.metrics_listen),
        "lastRunPath": config.last_run_path,
        "statePath": config.state_path,
        "prepEventsPath": config.prep_events_path,
    }[setting]


def _path(address: UnixAddress | TcpAddress | None) -> str:
    return address.path if isinstance(address, UnixAddress) else ""

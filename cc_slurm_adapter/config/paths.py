"""Reads a configuration file by its name, and where the daemon's files are, for commands that need nothing else.

A command that asks the daemon must be quick, and must work whatever else is wrong in the file. So only these paths are
read, and nothing is imported that is slow to load.
"""

from __future__ import annotations

import errno
import json
from typing import NamedTuple

from cc_slurm_adapter.config.address import UnixAddress, parse_address
from cc_slurm_adapter.config.file import DEFAULT_LAST_RUN_PATH, ConfigFile, beside, read_config_file
from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.errors import BrokenJson, ConfigError, ForbiddenFile, MissingFile, UnreadableFile

DEFAULT_PID_FILE_PATH = "/run/cc-slurm-adapter/daemon.pid"
CONTROL_SOCKET, STATE_FILE = "control.sock", "state.sqlite"
"""The names of the control socket and the state file, if the configuration names none."""

_LASTING = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
"""Why a configuration file cannot be read until an administrator acts. A user who may not read it is told so by
`ForbiddenFile`. Other reasons may pass by themselves."""


class Paths(NamedTuple):
    """Where a daemon's files are."""

    control_sock: str
    pid_file: str
    last_run: str
    state: str


DEFAULT_PATHS = Paths(
    beside(DEFAULT_PID_FILE_PATH, CONTROL_SOCKET),
    DEFAULT_PID_FILE_PATH,
    DEFAULT_LAST_RUN_PATH,
    beside(DEFAULT_LAST_RUN_PATH, STATE_FILE),
)
"""Where they are if the configuration names none."""


def read_paths(config_path: str, *, explicit: bool) -> Paths:
    """Read the paths from the configuration; `explicit` says that the file was named by the caller.

    Raises ConfigError.
    """
    file = read_named_file(config_path, explicit=explicit)
    pid_file = _path(file, "pidFilePath") or DEFAULT_PID_FILE_PATH
    last_run = _path(file, "lastRunPath") or DEFAULT_LAST_RUN_PATH
    return Paths(
        _socket(file, "controlSockPath") or beside(pid_file, CONTROL_SOCKET),
        pid_file,
        last_run,
        _path(file, "statePath") or beside(last_run, STATE_FILE),
    )


def _path(file: ConfigFile, key: str) -> str:
    value = file.get(key)
    if value is None or isinstance(value, str):
        return value or ""
    raise ConfigError([f"{key}: got {json.dumps(value)[:80]}, expected a path"])


def _socket(file: ConfigFile, key: str) -> str:
    """Return the path of a unix socket, which may be written as unix:/path; '' if it is not set."""
    value = _path(file, key)
    address = parse_address(value) if value else UnixAddress("")
    if isinstance(address, UnixAddress):
        return address.path
    raise ConfigError([f"{key}: got {json.dumps(value)[:80]}, expected the path of a unix socket"])


def _kind(error: OSError | ValueError) -> type[ConfigError]:
    """Return what an error of reading the file is."""
    if isinstance(error, PermissionError):
        return ForbiddenFile
    return UnreadableFile if isinstance(error, OSError) and error.errno not in _LASTING else ConfigError


def read_named_file(path: str, *, explicit: bool) -> ConfigFile:
    """Read the settings of a file. `explicit` says that the caller has named it. Raises ConfigError."""
    try:
        return read_config_file(path)
    except FileNotFoundError:
        hint = "check the path after -config" if explicit else "create it, or name another file with -config"
        raise MissingFile([f"the configuration file {path} does not exist: {hint}"]) from None
    except (OSError, ValueError) as error:
        raise _kind(error)([f"cannot read the configuration file {path}: {reason(error)}"]) from None
    except BrokenJson as error:
        from cc_slurm_adapter.config.json_mistake import describe_mistake  # noqa: PLC0415 - few calls need it

        raise ConfigError([f"{path}: {describe_mistake(error.text, error.offset, error.message)}"]) from None
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None

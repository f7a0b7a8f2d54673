"""What the daemon writes: folders, files that are there already, and the file system of the state.

Called as the daemon's user (`system.owner.acting_as`): what that one may do is tried with access(2), which also heeds
access lists and a file system that is mounted read only. Nothing is made, not even for a moment.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.daemon.checks.unit import Unit
from cc_slurm_adapter.daemon.state_files import check_pid_file
from cc_slurm_adapter.daemon.written_paths import keys_of_folders, lasting_files
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.foreign_state import refuse_foreign
from cc_slurm_adapter.outbox.state_file import room
from cc_slurm_adapter.system.file_systems import NOT_LOCAL, belongs_to_another, file_system_type, user_name
from cc_slurm_adapter.system.quantities import size

MUST_BE_LOCAL = ("statePath", "pidFilePath")


def find_files(config: Config, unit: Unit) -> Iterator[Finding]:
    """Yield what keeps the daemon from its files."""
    for folder, keys in keys_of_folders(config).items():
        yield _of_folder(folder, keys, unit)
        if not unit.may_write(folder):
            text = f"{unit.name} does not let the daemon write in {folder} ({', '.join(keys)})"
            yield Finding(logging.ERROR, keys[0], text, f"add ReadWritePaths={folder} to its [Service]")
    for key, path in lasting_files(config):
        yield from _of_file(key, path)
    yield from _of_contents(config)
    yield from _of_file_systems(config)


def _of_folder(folder: str, keys: list[str], unit: Unit) -> Finding:
    subject, owner = keys[0], user_name(os.geteuid())
    named = f"{folder} ({', '.join(keys)})"
    mode = os.stat(folder).st_mode if os.path.exists(folder) else 0
    if not mode and folder in unit.own_folders:
        return Finding(logging.INFO, subject, f"{named} is not there yet: systemd makes it when {unit.name} starts")
    if not mode:
        step = f"create it and give it to {owner} (in a systemd unit: RuntimeDirectory= or StateDirectory=)"
        return Finding(logging.ERROR, subject, f"{named} does not exist, or {owner} may not see it", step)
    if not stat.S_ISDIR(mode):
        return Finding(logging.ERROR, subject, f"{named} is not a folder", "configure another path")
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return Finding(logging.INFO, subject, f"{owner} may write in {named}")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return Finding(logging.ERROR, subject, f"the file system of {named} is read only", "mount it writable")
    return Finding(logging.ERROR, subject, f"{owner} may not write in {named}", f"run 'chown {owner} {folder}'")


def _of_file(key: str, path: str) -> Iterator[Finding]:
    """Yield a finding if a file is there and cannot be used."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # it is not there yet, or its folder is what is wrong
    if not stat.S_ISREG(mode):
        yield Finding(logging.ERROR, key, f"{path} is there and is not a file", "configure another path")
    elif not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        owner = user_name(os.geteuid())
        step = belongs_to_another(path) or f"run 'chmod u+rw {path}'"
        yield Finding(logging.ERROR, key, f"{owner} may not read and write {path}", step)


def _of_contents(config: Config) -> Iterator[Finding]:
    """Yield files that belong to another program."""
    problem = check_pid_file(config.pid_file_path)
    if problem:
        yield Finding(logging.ERROR, "pidFilePath", problem)
    try:
        refuse_foreign(config.state_path)
    except (StateError, OSError) as error:
        yield Finding(logging.ERROR, "statePath", str(error))


def _of_file_systems(config: Config) -> Iterator[Finding]:
    for key, path in zip(MUST_BE_LOCAL, (config.state_path, config.pid_file_path)):
        kind = file_system_type(path)
        if kind in NOT_LOCAL:
            text = f"{path} is on {kind}, where locks do not work everywhere"
            yield Finding(logging.ERROR, key, text, f"set {key} to a path on a local file system")
    folder = os.path.dirname(config.state_path) or "."
    free, reserve = room(config.state_path)
    if free <= reserve:
        text = (
            f"the file system of {folder} is nearly full: {size(int(free))} are free, {size(int(reserve))} are left to"
        )
        yield Finding(
            logging.WARNING, "statePath", f"{text} others", "make room: reporting goes on from memory meanwhile"
        )
    elif os.path.isdir(folder):
        yield Finding(logging.INFO, "statePath", f"the file system of {folder} has {size(int(free))} free")

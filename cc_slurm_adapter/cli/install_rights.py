"""What the daemon's user may read and write here, for `-install`: it judges for a user that may not be there yet.

As root it acts as that user and tries with access(2). Other users cannot do that, and nobody can act as a user that is
still to be made: then modes are compared.
"""

from __future__ import annotations

import enum
import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH, DEFAULT_LAST_RUN_PATH
from cc_slurm_adapter.config.paths import DEFAULT_PID_FILE_PATH
from cc_slurm_adapter.daemon.hook_check import has_access_list
from cc_slurm_adapter.daemon.written_paths import keys_of_folders, lasting_files, patterns
from cc_slurm_adapter.system.event_files import is_marker_name, looks_like_event
from cc_slurm_adapter.system.file_systems import group_name, user_name
from cc_slurm_adapter.system.owner import Account, acting_as, find_account, group_id

DEFAULT_FOLDERS = tuple(map(os.path.dirname, (DEFAULT_PID_FILE_PATH, DEFAULT_LAST_RUN_PATH)))
"""The two folders that the unit makes."""
NOBODY = -1
"""The uid of a user that is still to be made, and the gid of such a group."""
SYSTEM_FOLDERS = ("/", "/var", "/usr", "/usr/local")
"""What is directly in them is for all programs, even if it is empty."""
BOOT_FOLDERS = ("/run/", "/var/run/")
"""What is below them is in memory, and is gone after a boot."""


class Presence(enum.Enum):
    """Whether a file or folder is there."""

    MISSING = "missing"
    THERE = "there"
    UNSEEN = "unseen"
    """A folder on the way to it does not let this user see it."""


class Barrier(NamedTuple):
    """A file that the daemon's user may not use, or a folder on the way that the user may not pass through."""

    place: str
    owner: str
    group: str
    mode: int


UNSEEN_FILES = "files that this user cannot list"


class OwnFolder(NamedTuple):
    """A folder that the configuration names for what the daemon writes, outside of the two that the unit makes."""

    path: str
    keys: tuple[str, ...]
    """The keys of the configuration that name it."""
    presence: Presence = Presence.MISSING
    barrier: Barrier | None = None
    """What keeps the daemon's user from writing there; None if nothing does, or it is not there."""
    stranger: str = ""
    """What is in it that no daemon of this program makes; '' if there is nothing."""
    files: tuple[str, ...] = ()
    """Files of the daemon that are there and that the daemon's user may not read and write."""

    @property
    def is_for_events(self) -> bool:
        """Whether SlurmUser's hooks write there as well."""
        return self.keys == ("prepEventsPath",)

    @property
    def is_shared(self) -> bool:
        """Whether it cannot be given to the daemon's user, since others use it as well."""
        if self.barrier is None:
            return False
        is_of_system = os.path.dirname(os.path.normpath(self.path)) in SYSTEM_FOLDERS
        return self.barrier.place != self.path or bool(self.stranger) or is_of_system

    @property
    def is_gone_after_a_boot(self) -> bool:
        """Whether it is in memory."""
        return self.path.startswith(BOOT_FOLDERS)


def presence(path: str) -> Presence:
    """Return whether a file or folder is there; a link counts, whatever it names."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Presence.MISSING
    except OSError:
        return Presence.UNSEEN
    return Presence.THERE


def daemon_account(user: str, group: str) -> Account:
    """Return the daemon's user with a group; for a user that there is not, one who is only in that group."""
    found = find_account(user, group)
    if found:
        return found
    gid = group_id(group)
    own = NOBODY if gid is None else gid
    return Account(user, NOBODY, own, (own,))


def find_barrier(path: str, needed: int, account: Account) -> Barrier | None:
    """Return what keeps a user from a path; None if nothing does, or this user cannot see it.

    `needed` are bits as os.R_OK of what the user must be able to do with it.
    """
    real = os.path.realpath(path)
    try:
        for place, bits in (*((each, os.X_OK) for each in _parents(real)), (real, needed)):
            if not _may(account, place, bits):
                return _barrier(path if place == real else place)
    except OSError:
        pass
    return None


def _parents(path: str) -> list[str]:
    """Return the folders on the way to a path without links, the topmost first; the root folder is open to all."""
    names = path.strip("/").split("/")[:-1]
    return ["/".join(("", *names[:count])) for count in range(1, len(names) + 1)]


def _may(account: Account, place: str, bits: int) -> bool:
    """Return whether a user may do this with a path. Raises OSError."""
    if account.uid == 0:
        return True
    if os.geteuid() == 0 and account.uid != NOBODY:
        with acting_as(account):
            return os.access(place, bits, effective_ids=True)
    status = os.stat(place)
    if has_access_list(place):
        return True  # what it says of whom is not read here; -check tries it
    mode = stat.S_IMODE(status.st_mode)
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid in account.groups else 0
    return (mode >> shift) & bits == bits


def _barrier(place: str) -> Barrier:
    status = os.stat(place)
    return Barrier(place, user_name(status.st_uid), group_name(status.st_gid), stat.S_IMODE(status.st_mode))


def find_own_folders(
    config: Config, account: Account, made: Sequence[str], usual: Sequence[str] = DEFAULT_FOLDERS
) -> list[OwnFolder]:
    """Return the folders of this configuration that neither a unit nor the file for tmpfiles.d makes.

    `made` are those that the unit on this host makes, `usual` those that it makes on any. A folder comes before those
    in it.
    """
    named = {path: tuple(keys) for path, keys in keys_of_folders(config).items()}
    named[config.prep_events_path] = ("prepEventsPath",)
    are_made = {*usual, DEFAULT_EVENTS_PATH, *made}
    return [
        _find_folder(path, keys, config, account)
        for path, keys in sorted(named.items())
        if os.path.isabs(path) and os.path.normpath(path) not in are_made
    ]


def has_own_events(config: Config) -> bool:
    """Return whether hooks leave their events in another folder than usual."""
    return config.prep_events_path != DEFAULT_EVENTS_PATH


def relative_paths(config: Config) -> list[str]:
    """Return the keys whose paths do not begin with a slash: the daemon looks for them from /."""
    return [key for path, keys in keys_of_folders(config).items() if not os.path.isabs(path) for key in keys]


def _find_folder(path: str, keys: tuple[str, ...], config: Config, account: Account) -> OwnFolder:
    there = presence(path)
    if there is not Presence.THERE:
        return OwnFolder(path, keys, there)
    barrier = find_barrier(path, os.R_OK | os.W_OK | os.X_OK, account)
    return OwnFolder(path, keys, there, barrier, _stranger(path, config), tuple(_files(path, config, account)))


def _stranger(folder: str, config: Config) -> str:
    """Return the name of an entry that does not belong to this program; '' if there is none.

    What cannot be listed may hold anything.
    """
    own = patterns(config)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return UNSEEN_FILES
    return next((each for each in names if not _is_own(os.path.join(folder, each), own)), "")


def _is_own(path: str, own: list[str]) -> bool:
    name = os.path.basename(path)
    is_event = looks_like_event(name) or is_marker_name(name)
    return is_event or any(fnmatch.fnmatchcase(path, each) for each in own)


def _files(folder: str, config: Config, account: Account) -> Iterator[str]:
    for _, path in lasting_files(config):
        is_here = os.path.dirname(path) == folder and _is_single_file(path)
        barrier = find_barrier(path, os.R_OK | os.W_OK, account) if is_here else None
        if barrier and barrier.place == path:
            yield path


def _is_single_file(path: str) -> bool:
    """Return whether a path is a file with no other name: a link may lead to a file that is not to be given away."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def boot_text(folders: Sequence[OwnFolder], user: str, group: str) -> str:
    """Return a file for tmpfiles.d with the folders that are gone after a boot; '' if there are none."""
    lines = [
        f"d {_escaped(each.path)} {'0770' if each.is_for_events else '0750'} {user} {group} -\n"
        for each in folders
        if each.is_gone_after_a_boot and not each.is_shared
    ]
    return "".join(lines)


def _escaped(path: str) -> str:
    """Return a path as tmpfiles.d(5) reads it."""
    plain = path.replace("%", "%%")
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"' if any(each in path for each in " \\\"'") else plain

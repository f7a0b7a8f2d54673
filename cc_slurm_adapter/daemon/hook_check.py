"""Checks whether slurmctld can call this program as its hook, by its configuration and by the files that it names."""

from __future__ import annotations

import glob
import logging
import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, Hooks

NAME = b"cc-slurm-adapter"
"""A file that is this program, or that calls it, has its name inside."""
HOOKS = "hooks"
"""What the finding is about."""
READ = 1024 * 1024
"""Bytes of a file in which the name is searched."""
UNSEEN = ("/home/", "/root/", "/run/user/")
"""Places where systemd may hide from the daemon what slurmctld has there (ProtectHome)."""
ENDS_SLURMCTLD = " (a newer slurmctld does not start with this, and ends when it is reconfigured)"
"""Seen on 24.11 and 26.05, `fatal: failed to initialize prep plugin`; 22.05 only logs it."""
ACCESS_LIST = "system.posix_acl_access"


class Gap(NamedTuple):
    """Something that keeps slurmctld's hooks from reporting every start and end."""

    text: str
    next_step: str = (
        "Set PrologSlurmctld and EpilogSlurmctld in slurm.conf to this program, or call it in the scripts that are"
        " there, then run scontrol reconfigure"
    )
    missing: str = ""
    """The file that does not exist; '' if that is not what is wrong."""
    forbidden: str = ""
    """The file that slurmctld may not execute; '' if that is not what is wrong."""


def check_hooks(cluster_config: ClusterConfig, machine: str) -> list[Finding]:
    """Return a warning if slurmctld's hooks do not report every start and end. `machine` is this host's name."""
    gaps = find_gaps(cluster_config.hooks, cluster_config.slurm_user, machine)
    if not gaps:
        return []
    text = (
        f"slurmctld does not report every job by its hooks: {'; '.join(gap.text for gap in gaps)}. Polls find the jobs"
        " nevertheless, but short ones are reported without cores and GPUs"
    )
    # A file that slurmctld would end for comes first: until then a reconfigure does harm.
    first = next((gap for gap in gaps if ENDS_SLURMCTLD in gap.text), gaps[0])
    return [Finding(logging.WARNING, HOOKS, text, first.next_step)]


def hook_gaps(hooks: Hooks, slurm_user: str, machine: str) -> list[str]:
    """Return what keeps slurmctld's hooks from reporting every start and end; empty if no such thing is known.

    Files are read only where slurmctld runs. Whether a Prolog or Epilog of the nodes calls this program cannot be
    seen from here, so with one of them slurmctld's own hook may be missing.
    """
    return [gap.text for gap in find_gaps(hooks, slurm_user, machine)]


def find_gaps(hooks: Hooks, slurm_user: str, machine: str) -> list[Gap]:
    """Return what keeps slurmctld's hooks from reporting every start and end, with what to do."""
    is_here = is_controller(hooks, machine)
    found = []
    for name, files, on_nodes in (
        ("PrologSlurmctld", hooks.prolog_slurmctld, hooks.prolog),
        ("EpilogSlurmctld", hooks.epilog_slurmctld, hooks.epilog),
    ):
        broken = _broken(name, files, slurm_user) if is_here else None
        if broken:
            found.append(broken)
        elif not files and not on_nodes:
            found.append(Gap(f"{name} is not set"))
        elif files and not on_nodes and is_here and not any(map(_may_call_this, _paths(files))):
            found.append(Gap(f"{', '.join(files)} ({name}) does not call cc-slurm-adapter"))
    return found


def is_controller(hooks: Hooks, machine: str) -> bool:
    """Return whether slurmctld may run on this host, so that the hooks' files are here."""
    return any(_short(host) == _short(machine) for host in hooks.controllers)


def hook_files(hooks: Hooks) -> list[str]:
    """Return the files that slurmctld calls, with what its patterns match here."""
    return list(dict.fromkeys(_paths((*hooks.prolog_slurmctld, *hooks.epilog_slurmctld))))


def _short(host: str) -> str:
    return host.partition(".")[0].lower()


def _paths(files: Sequence[str]) -> list[str]:
    """Return the paths, and for a pattern the paths that match it. slurmctld itself accepts only absolute paths."""
    return [path for each in files for path in (sorted(glob.glob(each)) if glob.has_magic(each) else [each])]


def _broken(name: str, files: Sequence[str], slurm_user: str) -> Gap | None:
    """Return why slurmctld cannot call one of the files, the first for which a reason is known; None if none is."""
    for path in _paths(files):
        try:
            may_execute = _may_execute(path, slurm_user)
        except FileNotFoundError:
            if os.path.isabs(path) and not path.startswith(UNSEEN):
                step = (
                    f"put this program at {path}, or correct slurm.conf, before slurmctld is restarted or reconfigured"
                )
                return Gap(f"{path} ({name}) does not exist{ENDS_SLURMCTLD}", step, missing=path)
        except OSError:
            pass  # the daemon's user may not read there: nothing is known
        else:
            if not may_execute:
                step = f"run 'chmod a+rx {path}' before slurmctld is restarted or reconfigured"
                return Gap(f"{path} ({name}) is not executable for {slurm_user}{ENDS_SLURMCTLD}", step, forbidden=path)
    return None


def _may_execute(path: str, user: str) -> bool:
    """Return whether the mode of the file lets the user execute it; True for an unknown user, and with an access list.

    Raises OSError.
    """
    found = Path(path).stat()
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return True
    if account.pw_uid == 0:
        return bool(found.st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))
    if has_access_list(path):
        return True
    if found.st_uid == account.pw_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid in os.getgrouplist(user, account.pw_gid):
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def has_access_list(path: str) -> bool:
    """Return whether a file has rights beside its mode."""
    try:
        return ACCESS_LIST in os.listxattr(path)
    except OSError:
        return False


def _may_call_this(path: str) -> bool:
    """Return whether a file has this program's name in its path or content. True, too, if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return NAME in path.encode() or NAME in file.read(READ)
    except OSError:
        return True

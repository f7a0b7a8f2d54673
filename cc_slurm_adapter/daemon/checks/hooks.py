"""The hooks: whether slurmctld can call this program, and whether what it reports gets to the daemon.

No event is sent to try that. An event of any job makes the daemon ask Slurm for it, and a file in the events folder is
a change. Instead each part of the way is looked at: the files that slurmctld calls, the rights of SlurmUser on the
folder and the socket, the marker that the daemon renews once a minute in a folder that it reads, and what the daemon
itself says about the last event (see `running`).
"""

from __future__ import annotations

import filecmp
import logging
import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.config.config import Config, read_prep_secret
from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.daemon.hook_check import ENDS_SLURMCTLD, HOOKS, check_hooks, hook_files, is_controller
from cc_slurm_adapter.daemon.written_paths import state_folders
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.hooks.access import AllowedSenders, find_allowed_senders, find_barrier, no_account
from cc_slurm_adapter.hooks.folder_check import Place, find_misplacement, find_problems
from cc_slurm_adapter.hooks.spool import MARK_SECONDS, OPEN_SECONDS
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.system.event_files import is_closed, marker_name
from cc_slurm_adapter.system.owner import Account, acting_as, find_account
from cc_slurm_adapter.system.quantities import duration

EVENTS = "events folder"
SOCKET = "hook socket"
RENEWED_WITHIN = 3 * MARK_SECONDS
"""Seconds after which a marker that was not renewed shows that no daemon reads the folder."""


class Here(NamedTuple):
    """Where this check runs."""

    machine: str
    """This host's name."""
    program: str
    """The path of the file that runs; '' if that is not known."""
    daemon_user: Account


def find_hooks(site: ClusterConfig, here: Here) -> Iterator[Finding]:
    """Yield whether slurmctld's hooks are set, may be executed, and are this file or call this program."""
    found = [_with_level(each) for each in check_hooks(site, here.machine)]
    yield from found
    hooks = site.hooks
    is_here = is_controller(hooks, here.machine)
    set_hooks = (*hooks.prolog_slurmctld, *hooks.epilog_slurmctld)
    if set_hooks and not is_here:
        text = f"{', '.join(dict.fromkeys(set_hooks))} cannot be seen: slurmctld runs on {', '.join(hooks.controllers)}"
        yield Finding(logging.INFO, HOOKS, text, f"see there that {site.slurm_user} may execute it")
    elif not found and set_hooks:
        text = f"PrologSlurmctld and EpilogSlurmctld can be called by {site.slurm_user}: they report every job"
        yield Finding(logging.INFO, HOOKS, text)
    if not set_hooks and (hooks.prolog or hooks.epilog):
        text = "whether Prolog and Epilog of the nodes call this program cannot be seen from this host"
        yield Finding(logging.INFO, HOOKS, text)
    if is_here:
        files = hook_files(hooks)
        others = [path for path in files if not any(path in each.text for each in found)]
        yield from _find_forbidden(others, site.slurm_user)
        yield from _find_other_files(files, here.program)


def _with_level(finding: Finding) -> Finding:
    """Return a finding that slurmctld would end for as a failure."""
    return replace(finding, level=logging.ERROR) if ENDS_SLURMCTLD in finding.text else finding


def _find_forbidden(files: Sequence[str], slurm_user: str) -> Iterator[Finding]:
    """Yield the hooks that SlurmUser cannot use although their own mode permits it, as by a folder on the way."""
    account = find_account(slurm_user)
    if account is None or os.geteuid() not in (0, account.uid):
        return
    needed = {path: os.X_OK | (os.R_OK if _is_script(path) else 0) for path in files}
    with acting_as(account):
        forbidden = [path for path, how in needed.items() if not os.access(path, how, effective_ids=True)]
    for path in forbidden:
        text = f"{slurm_user} cannot read and execute {path}, or not enter a folder on the way to it"
        yield Finding(logging.ERROR, HOOKS, text, f"run 'chmod a+rx {path}', and let all enter its folders")


def _is_script(path: str) -> bool:
    """Return whether a shell must read the file to run it, as this program's own file."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _find_other_files(files: Sequence[str], program: str) -> Iterator[Finding]:
    """Yield hooks that are another copy of this program, of another version. Scripts that call it are not read."""
    for path in files:
        try:
            if not (zipfile.is_zipfile(path) and program and zipfile.is_zipfile(program)):
                continue
            if filecmp.cmp(path, program, shallow=False):
                yield Finding(logging.INFO, HOOKS, f"{path} is this file")
            else:
                text = f"{path} and {program} are not the same version of this program"
                yield Finding(logging.WARNING, HOOKS, text, "install one version everywhere")
        except OSError:
            continue  # what keeps it from being read is said of the hook


def find_ways(config: Config, site: ClusterConfig, here: Here) -> Iterator[Finding]:
    """Yield what keeps the events of SlurmUser's hooks from the daemon: the events folder and the socket."""
    with acting_as(here.daemon_user):
        senders = find_allowed_senders(site.slurm_user, None, config.prep_allow)
        found = [*_find_folder(config, site, senders), *_find_socket(config, senders)]
    if senders.group is None:
        step = "create it with the uid that it has on slurmctld's host"
        yield Finding(logging.WARNING, "SlurmUser", no_account(site.slurm_user), step)
    yield from found
    yield from _find_secret(config, site)


def _find_folder(config: Config, site: ClusterConfig, senders: AllowedSenders) -> Iterator[Finding]:
    place = Place(config.prep_events_path, state_folders(config))
    path = place.path
    misplaced = find_misplacement(place)
    if misplaced:
        yield Finding(logging.ERROR, EVENTS, f"{path}: {misplaced.text}", misplaced.next_step)
        return
    if not os.path.isdir(path):
        step = "run systemd-tmpfiles --create, as docs/install.md says, or start the daemon, which makes it"
        yield Finding(logging.WARNING, EVENTS, f"{path} is not there: hooks cannot leave events", step)
        return
    try:
        problems = list(find_problems(place, senders))
    except OSError as error:
        yield Finding(logging.ERROR, EVENTS, f"{path} cannot be used: {reason(error)}", "correct its rights")
        return
    for problem in problems:
        level = logging.ERROR if problem.is_fatal or problem.kind == "unreachable" else logging.WARNING
        yield Finding(level, EVENTS, f"{path}: {problem.text}", problem.next_step)
    if not problems:
        yield Finding(
            logging.INFO, EVENTS, f"{site.slurm_user} may leave events in {path}, and the daemon may read them"
        )
    yield _of_marker(path, marker_name(site.cluster), time.time())


def _of_marker(folder: str, marker: str, now: float) -> Finding:
    """Return whether a daemon reads the folder, by the marker that it renews once a minute while it does."""
    try:
        renewed = os.stat(os.path.join(folder, marker)).st_mtime - OPEN_SECONDS
    except OSError:
        return Finding(logging.INFO, EVENTS, f"no daemon has read {folder} yet")
    age = now - renewed
    if is_closed(folder, marker):
        text = f"no daemon has read {folder} for so long that hooks no longer leave events there"
        return Finding(logging.WARNING, EVENTS, text, "start the daemon: it finds out what it missed")
    if age > RENEWED_WITHIN:
        text = f"no daemon has read {folder} for {duration(age)}"
        return Finding(logging.INFO, EVENTS, f"{text}; hooks leave events there for {duration(OPEN_SECONDS)} at least")
    return Finding(logging.INFO, EVENTS, f"a daemon reads {folder} (it said so {duration(age)} ago)")


def _find_socket(config: Config, senders: AllowedSenders) -> Iterator[Finding]:
    listening, connecting = config.prep_sock_listen_path, config.prep_sock_connect_path
    if isinstance(listening, UnixAddress):
        try:
            barrier = find_barrier(listening.path, 2, senders)
        except FileNotFoundError:
            yield Finding(logging.INFO, SOCKET, f"{listening} is not there: no daemon runs")
        except OSError as error:
            yield Finding(logging.WARNING, SOCKET, f"{listening} cannot be seen: {reason(error)}")
        else:
            if barrier:
                yield Finding(logging.WARNING, SOCKET, *barrier)
            else:
                yield Finding(logging.INFO, SOCKET, f"SlurmUser may use {listening}")
    elif not (config.prep_secret_file or config.prep_allow):
        text = f"{listening} is used on loopback at most, as anybody who reaches it could send events"
        yield Finding(
            logging.WARNING, SOCKET, text, "set prepSecretFile or prepAllow, if hooks of other hosts report here"
        )
    else:
        yield Finding(logging.INFO, SOCKET, f"hooks of other hosts may report to {listening}")
    if type(listening) is not type(connecting) and isinstance(connecting, TcpAddress):
        text = f"prepSockConnectPath is {connecting}, and this daemon listens on {listening}"
        yield Finding(logging.WARNING, SOCKET, text, "make both the same on the daemon's host")


def _find_secret(config: Config, site: ClusterConfig) -> Iterator[Finding]:
    """Yield whether SlurmUser can read the secret with which its hooks sign over TCP."""
    if not config.prep_secret_file or not isinstance(config.prep_sock_connect_path, TcpAddress):
        return
    account = find_account(site.slurm_user)
    if account is None or os.geteuid() not in (0, account.uid):
        text = f"whether {site.slurm_user} can read it cannot be seen: run this as root"
        yield Finding(logging.INFO, "prepSecretFile", text)
        return
    try:
        with acting_as(account):
            read_prep_secret(config)
    except ConfigError as error:
        text = f"hooks run as {site.slurm_user}, who cannot read the secret: {error}"
        yield Finding(logging.ERROR, "prepSecretFile", text, "give the file to SlurmUser's group, with mode 0640")
    else:
        yield Finding(logging.INFO, "prepSecretFile", f"{site.slurm_user} can read it")

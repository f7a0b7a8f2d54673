"""What `-install` prints about folders: those that everybody has, and those that only this configuration names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from cc_slurm_adapter.cli.install_host import FileState, Host, tmpfiles_for, unit_of_version
from cc_slurm_adapter.cli.install_rights import OwnFolder, Presence, boot_text, has_own_events, relative_paths
from cc_slurm_adapter.cli.install_text import DIFFERENT, PUBLIC, Item, compared, unless_runs, written
from cc_slurm_adapter.config.file import DEFAULT_LAST_RUN_PATH
from cc_slurm_adapter.daemon.written_paths import keys_of_folders

FOLDERS = "folders"


def folders(host: Host) -> list[Item]:
    """Return how all folders are, and how those are made that are missing."""
    return [*_usual(host), *_relative(host), *(_own(host, each) for each in host.folders), *_at_boot(host)]


def _usual(host: Host) -> list[Item]:
    """Return how the folder of the hooks' events is made before slurmctld starts."""
    if not host.unit.has_systemd:
        return _without_systemd(host)
    path, lines = host.places.tmpfiles, tmpfiles_for(host.places, host.user, host.group).splitlines()
    create = [f"systemd-tmpfiles --create {path}"]
    if host.tmpfiles_state is FileState.MISSING:
        return [Item(4, FOLDERS, f"{path} is missing", commands=[*written(path, lines, PUBLIC), *create])]
    if host.tmpfiles_state is FileState.OTHER:
        return [Item(4, FOLDERS, f"{path} {DIFFERENT}", commands=compared(path, lines))]
    if host.tmpfiles_state is FileState.UNSEEN:
        return [Item(4, FOLDERS, f"{path} cannot be read")]
    if host.events_presence is Presence.MISSING:
        return [Item(4, FOLDERS, f"{host.places.events} is missing", commands=create)]
    return [Item(4, FOLDERS, f"{path} is there; {_events(host)}")]


def _events(host: Host) -> str:
    is_there = host.events_presence is Presence.THERE
    return f"{host.places.events} {'is there' if is_there else 'cannot be seen: run this as root'}"


def _without_systemd(host: Host) -> list[Item]:
    if host.events_presence is not Presence.MISSING:
        return [Item(4, FOLDERS, f"{_events(host)}; this host was not booted with systemd")]
    owners = f"-o {shlex.quote(host.user)} -g {shlex.quote(host.group)}"
    parent, state = os.path.dirname(host.places.events), os.path.dirname(DEFAULT_LAST_RUN_PATH)
    if has_own_events(host.config):
        used = keys_of_folders(host.config)
        commands = [f"install -d -m 0750 {owners} {path}" for path in (parent, state) if path in used]
        note = "What is below /run belongs into the script that starts slurmctld, since it is in memory."
    else:
        commands = [
            f"install -d -m 0750 {owners} {parent}",
            f"install -d -m 0770 {owners} {host.places.events}",
            f"install -d -m 0750 {owners} {state}",
        ]
        note = "The first two belong into the script that starts slurmctld, since the folder is in memory."
    return [Item(4, FOLDERS, "this host was not booted with systemd", [note], commands)] if commands else []


def _relative(host: Host) -> Iterator[Item]:
    keys = relative_paths(host.config)
    if keys:
        whole = f"Write the whole path into {host.config_path}"
        yield Item(4, FOLDERS, f"{', '.join(keys)}: the unit looks for a relative path from /. {whole}")


def _own(host: Host, found: OwnFolder) -> Item:
    """Return how a folder is that the configuration names: it must be there and belong to the daemon's user."""
    named = f"{found.path} ({', '.join(found.keys)})"
    if found.presence is Presence.UNSEEN:
        return Item(4, FOLDERS, f"{named} cannot be seen: run this as root")
    notes = _events_notes(host) if found.is_for_events else []
    if found.presence is Presence.MISSING:
        return Item(4, FOLDERS, f"{named} is missing", notes, [_make(host, found)])
    if found.is_shared:
        return _shared(host, found, named)
    commands = _given(host, found)
    if found.barrier:
        text = f"{named} belongs to {found.barrier.owner}, and {host.user} may not write there"
    elif commands:
        text = f"{named} is there; {host.user} may not write {', '.join(found.files)}"
    else:
        text = f"{named} is there, and {host.user} may write there"
    if commands and handover(host):
        return Item(4, FOLDERS, text, [*notes, "It is given away at the end, when the daemon that uses it has ended."])
    return Item(4, FOLDERS, text, notes, commands)


def _events_notes(host: Host) -> list[str]:
    return [
        f"Hooks that are called without arguments know only {host.places.events}.",
        f"If yours do not have -config: remove prepEventsPath from {host.config_path}, then run this again.",
    ]


def _make(host: Host, found: OwnFolder) -> str:
    mode = "0770" if found.is_for_events else "0750"
    return f"install -d -m {mode} -o {shlex.quote(host.user)} -g {shlex.quote(host.group)} {shlex.quote(found.path)}"


def _given(host: Host, found: OwnFolder) -> list[str]:
    """Return commands that give a folder to the daemon's user, or only its files. Nothing else is in it."""
    owner, files = shlex.quote(f"{host.user}:{host.group}"), " ".join(map(shlex.quote, found.files))
    if found.barrier:
        mode, path = "ug+rwx" if found.is_for_events else "u+rwx,g+x", shlex.quote(found.path)
        return [f"chown -R {owner} {path}", f"chmod {mode} {path}"]
    return [f"chown -h {owner} {files}", f"chmod u+rw {files}"] if files else []


def handover(host: Host) -> list[str]:
    """Return the commands that give folders to the daemon's user once a daemon of another user has ended."""
    folders = [each for each in host.folders if not each.is_shared and each.presence is Presence.THERE]
    running = host.running
    if running is None or running.user == host.user:
        return []
    return [unless_runs(running.pid, command) for each in folders for command in _given(host, each)]


def _shared(host: Host, found: OwnFolder, named: str) -> Item:
    barrier = found.barrier
    if barrier and barrier.place != found.path:
        why = f"{host.user} may not pass through {barrier.place}, which belongs to {barrier.owner}"
    else:
        holds = f"it holds {found.stranger}" if found.stranger else "it is one of the system"
        why = f"{host.user} may not write there, and it is not only for this program: {holds}"
    keep = f"Copy {host.config.last_run_path} there with its time (cp -p), since the daemon goes on from that time."
    notes = [
        f"Set {' and '.join(found.keys)} in {host.config_path}",
        f"to a path in {' or '.join(unit_of_version(host.unit).own_folders)}, which the unit makes,",
        "or in a folder of its own.",
        *([keep] if "lastRunPath" in found.keys else []),
        "Then run this again.",
    ]
    return Item(4, FOLDERS, f"{named}: {why}", notes)


def _at_boot(host: Host) -> Iterator[Item]:
    """Yield how folders below /run are made again at each boot: the unit does not start without them."""
    path, text = host.places.boot, boot_text(host.folders, host.user, host.group)
    if not text:
        return
    if not host.unit.has_systemd:
        note = "What is below /run is in memory: these folders belong into the script that starts slurmctld, too."
        yield Item(4, FOLDERS, "some are gone after a boot", [note])
    elif host.boot_state is FileState.MISSING:
        create = f"systemd-tmpfiles --create {path}"
        state = f"{path} is missing, which makes those below /run again at each boot"
        yield Item(4, FOLDERS, state, commands=[*written(path, text.splitlines(), PUBLIC), create])
    elif host.boot_state is FileState.OTHER:
        state = f"{path} is there and is not what this configuration needs. This shows how it differs"
        yield Item(4, FOLDERS, state, commands=compared(path, text.splitlines()))

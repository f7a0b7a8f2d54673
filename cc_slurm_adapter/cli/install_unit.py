"""What `-install` prints for systemd: the unit, what this host needs beside it, and what starts the daemon."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from cc_slurm_adapter.cli.install_host import GROUP, FileState, Host, unit_of_version, unit_text
from cc_slurm_adapter.cli.install_text import (
    DIFFERENT,
    PUBLIC,
    Item,
    compared,
    folder,
    ignored,
    systemd_word,
    written,
)
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.daemon.checks.unit import DEFAULT_PATH, HOMES, Unit

UNIT_ITEM, RELOAD = "unit", "systemctl daemon-reload"


def unit(host: Host) -> list[Item]:
    """Return the unit, if it is not there or another one is."""
    if not host.unit.has_systemd:
        return []
    path = host.unit.get("FragmentPath") or host.places.unit
    lines = host.places.fit(unit_text(host.unit)).splitlines()
    if host.unit_state is FileState.MISSING:
        commands = [*written(path, lines, PUBLIC), RELOAD]
        return [Item(4, UNIT_ITEM, f"{path} is missing", commands=commands)]
    if host.unit_state is FileState.OTHER:
        return [Item(4, UNIT_ITEM, f"{path} {DIFFERENT}", commands=compared(path, lines))]
    is_same = host.unit_state is FileState.SAME
    return [Item(4, UNIT_ITEM, f"{path} is that of this version" if is_same else f"{path} cannot be read")]


def drop_in(host: Host) -> list[Item]:
    """Return what of the unit does not fit this host, as a file beside it, which no upgrade replaces."""
    needed = dict(_overrides(host)) if host.unit.has_systemd else {}
    if all(needed.values()):
        return []
    path, name = host.places.drop_in, "what differs here"
    if host.drop_in is not None:
        missing = [line for line in needed if line not in host.drop_in]
        state = f"{path} is there, and lacks lines in [Service]. Add them to it; the shell ignores them here"
        if missing:
            return [Item(4, name, state, commands=[*ignored(*missing), RELOAD])]
        return [Item(4, name, f"{path} has all lines, and systemd has not read it", commands=[RELOAD])]
    commands = [folder(os.path.dirname(path)), *written(path, ["[Service]", *needed], PUBLIC), RELOAD]
    return [Item(4, name, f"{path} is needed beside the unit", commands=commands)]


def _overrides(host: Host) -> Iterator[tuple[str, bool]]:
    """Yield lines for the unit, and whether it has them already in some way."""
    found = host.unit
    if host.group != GROUP:
        yield f"Group={systemd_word(host.group)}", found.get("Group") == host.group
    if host.slurm_folder and host.slurm_folder not in DEFAULT_PATH.split(":"):
        has_path = found.is_installed and host.slurm_folder in (found.search_path or host.slurm_folder).split(":")
        yield f"Environment={systemd_word(f'PATH={host.slurm_folder}:/usr/bin:/bin')}", has_path
    named = (host.config_path, host.token, host.slurm_conf, f"{host.slurm_folder}/")
    if any(path.startswith(HOMES) for path in named):
        yield "ProtectHome=read-only", found.get("ProtectHome") in ("read-only", "no")
    yield from _written_paths(host)
    if host.config_path != DEFAULT_CONFIG_PATH and not host.instance:
        is_read = found.is_installed and _reads(found, host.config_path)
        path = systemd_word(host.config_path, of_command=True)
        yield "ExecStart=", is_read
        yield f"ExecStart={host.places.program} -daemon -config {path} -debug 2", is_read


def _written_paths(host: Host) -> Iterator[tuple[str, bool]]:
    """Yield a line for each folder that the unit of this version does not let the daemon write in."""
    usual, found = unit_of_version(host.unit), host.unit
    is_this = host.unit_state is FileState.SAME or found.get("ProtectSystem") == "strict"
    for each in host.folders:
        if not each.is_shared and not usual.may_write(each.path):
            is_writable = found.is_installed and is_this and found.may_write(each.path)
            yield f"ReadWritePaths={systemd_word(each.path)}", is_writable


def _reads(found: Unit, path: str) -> bool:
    """Return whether the unit names a configuration. systemctl shows a path with blanks without any quotes."""
    return found.config_path == path or f" -config {path} " in found.get("ExecStart")


def start_command(host: Host) -> str:
    """Return what starts the daemon."""
    if host.unit.has_systemd:
        return f"systemctl enable --now {host.unit.short_name}"
    return as_daemon(host, "-daemon")


def as_daemon(host: Host, flags: str) -> str:
    """Return a command that runs the program with these flags as the daemon's user."""
    named = "" if host.config_path == DEFAULT_CONFIG_PATH else f" -config {shlex.quote(host.config_path)}"
    if host.user == "root":
        return f"cc-slurm-adapter {flags}{named}"
    account = f"-u {shlex.quote(host.user)} -g {shlex.quote(host.group)}"
    return f"runuser {account} -- {host.places.program} {flags}{named}"

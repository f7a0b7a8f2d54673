"""The text of `-install`: a shell script of the steps in docs/install.md, with what is done already as comments.

It is pure: the same host always gives the same lines. What sites add by hand to files of their own is in a block that
the shell ignores, so the whole text may be pasted.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from cc_slurm_adapter import __version__
from cc_slurm_adapter.cli.install_config import (
    gpu_kinds,
    gpu_notes,
    gpu_setting,
    new_config,
    numbering_notes,
    topology_notes,
    unfilled_kinds,
)
from cc_slurm_adapter.cli.install_folders import folders
from cc_slurm_adapter.cli.install_host import TOKEN, FileState, Host
from cc_slurm_adapter.cli.install_rights import Barrier, Presence
from cc_slurm_adapter.cli.install_slurm import hooks, of_cluster
from cc_slurm_adapter.cli.install_start import daemon, next_steps
from cc_slurm_adapter.cli.install_text import Item, comments, folder, ignored, unless_there, written
from cc_slurm_adapter.cli.install_unit import drop_in, unit
from cc_slurm_adapter.slurm.privileges import ENOUGH, granting_command

CONFIGURATION = "configuration"
UNSEEN = "cannot be seen: run this as root"
URL = "ccRestUrl: write the address of cc-backend into the file when you have pasted this; no daemon starts before."
ELSEWHERE = "If Slurm's commands are here, name their folder: PATH=/opt/slurm/bin:$PATH cc-slurm-adapter -install"
SLURM_CONF_OF_CLUSTER = (
    "slurmConf: it must be that of this cluster. If it is another file, set SLURM_CONF to it and run this again."
)
GPUS_UNKNOWN = "gpuPciAddrs: needed for nodes with GPUs, which are not known here: see docs/install.md, step 2"


def make_script(host: Host) -> list[str]:
    """Return the lines of the script. Lines that others have written must still be made printable."""
    of_unit = [*folders(host), *unit(host), *drop_in(host), *daemon(host)]
    items = [*_files(host), *_user(host), *of_unit, *hooks(host)]
    return [*comments(*_head(host)), *(line for item in items for line in item.lines()), "", *next_steps(host)]


def _head(host: Host) -> list[str]:
    hint = [] if host.is_root else ["Run this as root to see more: other users may not read everything.", ""]
    return [
        f"cc-slurm-adapter {__version__} on {host.machine}: what is missing here, by the steps of docs/install.md.",
        "Nothing was changed. Read this, then paste it as root, step by step.",
        "",
        *hint,
        *_found_in_slurm(host),
    ]


def _found_in_slurm(host: Host) -> list[str]:
    slurm = host.slurm
    if slurm.config is None:
        return [
            f"Slurm cannot be asked: {slurm.failure}",
            f"So its nodes and hooks are not known, and the group of SlurmUser is taken to be {host.group}.",
            *([] if host.slurm_folder else [ELSEWHERE]),
        ]
    site = slurm.config
    here = "" if slurm.is_controller else f", not on this host: {host.machine}"
    group = (
        f"the daemon's group is {host.group}"
        if host.has_slurm_user
        else f"this host does not know it: the group {host.group} is assumed"
    )
    return [
        f"cluster: {site.cluster} (Slurm {site.version}), slurmctld on {', '.join(site.hooks.controllers)}{here}",
        f"SlurmUser: {site.slurm_user}, {group}",
        f"slurmdbd: {'there is one' if site.has_accounting else 'there is none, so nothing can be caught up'}",
        f"nodes: {_nodes(host)}",
    ]


def _nodes(host: Host) -> str:
    nodes = host.slurm.nodes
    if host.slurm.nodes_failure:
        return f"they cannot be listed: {host.slurm.nodes_failure}"
    kinds = Counter(f"with {node.gpu_types}" if node.gpus else "without GPUs" for node in nodes)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{len(nodes)}: {listed}" if nodes else "sinfo lists none"


# --- steps 1 and 2


def _files(host: Host) -> list[Item]:
    return [_program(host), *_group(host), *_configuration(host)]


def _program(host: Host) -> Item:
    path = host.places.program
    states = {
        FileState.SAME: f"{path} is this file",
        FileState.UNSEEN: f"{path} is there; whether it is of this version cannot be seen",
        FileState.MISSING: f"{path} is missing",
        FileState.OTHER: f"{path} is not this file, or not executable for all",
    }
    state = host.program_state
    if state in (FileState.SAME, FileState.UNSEEN):
        return Item(1, "file", states[state])
    new = f"{path}.new"
    source = shlex.quote(host.program or "dist/cc-slurm-adapter")
    commands = [f"install -m 0755 {source} {new}", f"mv -f {new} {path}", "cc-slurm-adapter -version"]
    is_of_another = state is FileState.OTHER and host.running is not None and not host.running.locked
    notes = [f"To be able to go back, keep what is there: cp -p {path} {path}.before"] if is_of_another else []
    return Item(1, "file", states[state], notes, commands)


def _group(host: Host) -> list[Item]:
    """Return how the group is made that SlurmUser and the daemon share, if it is missing and certain."""
    if host.has_group:
        return []
    if not host.has_slurm_user:
        note = "Commands below need it. It is SlurmUser's: make the users of Slurm known on this host first."
        return [Item(2, "group", f"there is no group {host.group}, and SlurmUser is not known here", [note])]
    command = f"groupadd --system {shlex.quote(host.group)}"
    return [Item(2, "group", f"there is no group {host.group}, which the daemon needs", commands=[command])]


def _configuration(host: Host) -> list[Item]:
    if host.config_presence is Presence.UNSEEN:
        return [Item(2, CONFIGURATION, f"{host.config_path} {UNSEEN}")]
    if host.config_presence is Presence.MISSING:
        return [_new_configuration(host)]
    if host.config_failure:
        return [Item(2, CONFIGURATION, f"{host.config_path} is there and cannot be used: {host.config_failure}")]
    return _present_configuration(host)


def _new_configuration(host: Host) -> Item:
    path, nodes = host.config_path, host.slurm.nodes
    options = f"-m 0640 -g {shlex.quote(host.group)}"
    gpus = gpu_notes(gpu_kinds(nodes, host.config), {}) if nodes else [GPUS_UNKNOWN]
    named = [SLURM_CONF_OF_CLUSTER] if host.instance else []
    return Item(
        2,
        CONFIGURATION,
        f"{path} is missing",
        [*_other_configuration(host), URL, *named, *_cluster_note(host), *gpus, *numbering_notes(nodes)],
        [folder(os.path.dirname(path) or "."), *unless_there(path, *written(path, new_config(host), options))],
    )


def _other_configuration(host: Host) -> list[str]:
    found = host.unit.config_path
    if not host.unit.is_installed or found == host.config_path:
        return []
    return [f"The unit that is there reads {found}. To use that one: cc-slurm-adapter -install -config {found}"]


def _present_configuration(host: Host) -> list[Item]:
    """Return an item for what is in the file, and one if the daemon's user may not read it."""
    state = f"{host.config_path} exists already"
    unfilled, kinds = (find(host.slurm.nodes, host.config) for find in (unfilled_kinds, gpu_kinds))
    gpus, topology = gpu_notes([*unfilled, *kinds], host.described.accelerators), topology_notes(host.described)
    barrier = host.config_barrier
    closed = [_closed(host, host.config_path, barrier, _readable_config(host, barrier))] if barrier else []
    if not kinds:
        hint = "; addresses are missing in its gpuPciAddrs" if unfilled else ""
        notes = [*gpus, *topology]
        return closed if closed and not notes else [*closed, Item(2, CONFIGURATION, state + hint, notes)]
    first = "  If there is a gpuPciAddrs, the lines belong before what is in it: the first match counts."
    state = f"{state}, without some GPUs. Add these lines to it; the shell ignores them here"
    return [*closed, Item(2, CONFIGURATION, state, [*gpus, first, *topology], ignored(*gpu_setting(kinds)))]


class Mending(NamedTuple):
    """How the daemon's user gets to a file."""

    notes: Sequence[str] = ()
    commands: Sequence[str] = ()


def _closed(host: Host, path: str, barrier: Barrier, mending: Mending) -> Item:
    """Return the item of a configuration or a token that the daemon's user may not read."""
    place = "It" if barrier.place == path else barrier.place
    whose = f"{place} belongs to {barrier.owner}:{barrier.group} (mode {barrier.mode:04o})."
    step, name = (2, CONFIGURATION) if path == host.config_path else (3, "token")
    state = f"{path} exists already, but {host.user} may not read it"
    return Item(step, name, state, [whose, *mending.notes], mending.commands)


def _readable_config(host: Host, barrier: Barrier) -> Mending:
    path = shlex.quote(host.config_path)
    if barrier.place != host.config_path:
        return _passable(host, host.config_path, barrier)
    if barrier.owner == host.user:
        return Mending(commands=[f"chmod u+r {path}"])
    return Mending(commands=[f"chgrp {shlex.quote(host.group)} {path}", f"chmod g+r {path}"])


def _readable_token(host: Host, barrier: Barrier) -> Mending:
    if barrier.place != host.token:
        return _passable(host, host.token, barrier)
    note = f"If another program reads it, too, as another user than root, give {host.user} a copy of its own instead."
    path = shlex.quote(host.token)
    return Mending([note], [f"chown {shlex.quote(host.user)} {path}", f"chmod u+r {path}"])


def _passable(host: Host, path: str, barrier: Barrier) -> Mending:
    """Return how a folder on the way lets the daemon's user pass. Only this program's own folder is opened for that."""
    if os.path.dirname(path) != barrier.place or barrier.place != os.path.dirname(TOKEN):
        return Mending([f"Move it to /etc/cc-slurm-adapter, or let {host.user} pass through {barrier.place}."])
    place = shlex.quote(barrier.place)
    return Mending(commands=[f"chgrp {shlex.quote(host.group)} {place}", f"chmod g+x {place}"])


def _cluster_note(host: Host) -> list[str]:
    site = host.slurm.config
    return [f"clusterName: needed only if cc-backend has another name for {site.cluster}"] if site else []


# --- step 3


def _user(host: Host) -> list[Item]:
    return [_account(host), _token(host), _rights(host)]


def _account(host: Host) -> Item:
    if host.has_user:
        return Item(3, "user", f"{host.user} exists already")
    note = "If slurmdbd runs on another host, create the user there too, with the same uid."
    command = f"useradd --system --no-create-home --shell /usr/sbin/nologin {shlex.quote(host.user)}"
    return Item(3, "user", f"there is no user {host.user}", [note], [command])


def _token(host: Host) -> Item:
    if host.config_presence is Presence.UNSEEN or host.config_failure:
        return Item(3, "token", "the configuration names its file, and cannot be read: see step 2")
    if not host.token:
        return Item(3, "token", "the configuration needs no file for it, or names a credential of the unit")
    if host.token_presence is Presence.UNSEEN:
        return Item(3, "token", f"{host.token} {UNSEEN}")
    if host.token_presence is Presence.THERE:
        if host.token_barrier:
            return _closed(host, host.token, host.token_barrier, _readable_token(host, host.token_barrier))
        return Item(3, "token", f"{host.token} exists already")
    command = f"install -m 0600 -o {shlex.quote(host.user)} token.txt {shlex.quote(host.token)}"
    note = "First write a token of cc-backend with the role api into the file token.txt, in the folder where you paste."
    place, beside = os.path.dirname(host.token), os.path.dirname(host.config_path)
    made = [] if place == beside else [folder(place)]
    return Item(3, "token", f"{host.token} is missing", [note], [*made, *unless_there(host.token, command)])


def _rights(host: Host) -> Item:
    slurm, user, name = host.slurm, shlex.quote(host.user), "rights in Slurm"
    if slurm.config and not slurm.config.has_accounting:
        return Item(3, name, "without slurmdbd there are none to grant")
    if slurm.config and host.user in ("root", slurm.config.slurm_user):
        return Item(3, name, f"{host.user} may see everything")
    if slurm.level in ENOUGH:
        return Item(3, name, f"{host.user} has the AdminLevel {slurm.level} already")
    failure = slurm.level_failure or (slurm.failure and "Slurm cannot be asked")
    is_known = slurm.level is not None
    state = f"the AdminLevel of {host.user} is {slurm.level}" if is_known else f"accounting does not know {host.user}"
    notes = [f"If Slurm knows the user: {of_cluster(host, granting_command(user, is_known=True))}"] if failure else []
    state = f"they are not known: {failure}" if failure else state
    return Item(3, name, state, notes, [of_cluster(host, granting_command(user, is_known=is_known))])

"""What `-install` finds on this host, in Slurm and in cc-backend. It only looks: nothing is made or changed."""

from __future__ import annotations

import enum
import filecmp
import grp
import json
import logging
import os
import pwd
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from cc_slurm_adapter.cli.check import SLURM, SYSTEMD, own_program
from cc_slurm_adapter.cli.examples import CLUSTER, TEMPLATE, TMPFILES, UNIT, packaged, read_example
from cc_slurm_adapter.cli.install_cc_backend import Described, ask_cc_backend
from cc_slurm_adapter.cli.install_rights import (
    DEFAULT_FOLDERS,
    Barrier,
    OwnFolder,
    Presence,
    boot_text,
    daemon_account,
    find_barrier,
    find_own_folders,
    presence,
)
from cc_slurm_adapter.cli.install_running import NOTHING_BEFORE, Before, Running, find_before, find_daemon
from cc_slurm_adapter.config.config import CONFIGURATION, Config, examine_config, parse_config
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH
from cc_slurm_adapter.daemon.assembly import DAEMON, Assembly
from cc_slurm_adapter.daemon.checks.unit import BOOTED, Unit, parse_properties, read_own_unit
from cc_slurm_adapter.daemon.hook_check import Gap, find_gaps, is_controller
from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.lines import printable
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, read_cluster_config
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.system.owner import find_account, group_id

_Answer = TypeVar("_Answer")
USER, GROUP = "cc-slurm-adapter", "slurm"
"""The daemon's user, and SlurmUser's group, if this host does not say otherwise. The examples have these."""
EXAMPLE_CLUSTER = "alpha"
"""The cluster of the example for one of several clusters."""
TOKEN = "/etc/cc-slurm-adapter/token"  # noqa: S105 - a path


class Places(NamedTuple):
    """Where everything is installed, as docs/install.md says."""

    program: str = "/usr/local/sbin/cc-slurm-adapter"
    tmpfiles: str = "/etc/tmpfiles.d/cc-slurm-adapter.conf"
    unit: str = "/etc/systemd/system/cc-slurm-adapter.service"
    events: str = DEFAULT_EVENTS_PATH
    booted: str = BOOTED
    """A folder that only systemd makes."""

    def fit(self, example: str) -> str:
        """Return an example as it is right for these places."""
        return packaged(example) if self.program == OF_PACKAGE.program else example

    def of_unit(self, unit: Unit) -> Places:
        """Return where everything is installed if this is the unit: an instance has the template's file."""
        folder = os.path.dirname(self.unit)
        return self._replace(unit=os.path.join(folder, TEMPLATE)) if unit.instance else self

    @property
    def boot(self) -> str:
        """The file for tmpfiles.d with the folders that only this site has."""
        return os.path.join(os.path.dirname(_in_etc(self.tmpfiles)), "cc-slurm-adapter-site.conf")

    @property
    def drop_in(self) -> str:
        """The file beside the unit."""
        return f"{_in_etc(self.unit)}.d/site.conf"


def _in_etc(path: str) -> str:
    """Return where a site has what it puts beside a file of the package, or in place of it."""
    return f"/etc/{path[len(LIB) :]}" if path.startswith(LIB) else path


LIB = "/usr/lib/"
"""Where packages put what systemd reads."""
PLACES = Places()
OF_PACKAGE = Places(
    program="/usr/sbin/cc-slurm-adapter",
    tmpfiles="/usr/lib/tmpfiles.d/cc-slurm-adapter.conf",
    unit="/usr/lib/systemd/system/cc-slurm-adapter.service",
)
"""Where the .deb and the .rpm have installed everything. A file that a site needs in another form is in /etc."""


def places_of(program: str) -> Places:
    """Return where everything is installed: as the packages do it, if the program is theirs."""
    return OF_PACKAGE if os.path.realpath(program) == os.path.realpath(OF_PACKAGE.program) else PLACES


class FileState(enum.Enum):
    """How a file is, compared with the one that is to be installed."""

    MISSING = "missing"
    SAME = "same"
    OTHER = "other"
    UNSEEN = "unseen"
    """It is there, and it cannot be read or compared."""


@dataclass(frozen=True)
class SlurmSite:
    """What Slurm says. A text that names a failure is '' where there is none."""

    config: ClusterConfig | None = None
    failure: str = ""
    """Why `config` is None."""
    nodes: Sequence[NodeState] = ()
    nodes_failure: str = ""
    level: str | None = None
    """The AdminLevel of the daemon's user; None if accounting does not know the user."""
    level_failure: str = ""
    gaps: Sequence[Gap] = ()
    """What keeps slurmctld's hooks from this program."""
    is_controller: bool = True
    """Whether slurmctld may run on this host, as far as is known."""


@dataclass(frozen=True)
class Host:
    """Everything that the text of `-install` depends on."""

    machine: str
    program: str
    """The file that runs; '' if that is not known, as in a checkout."""
    is_root: bool
    places: Places
    program_state: FileState
    config_path: str
    config_presence: Presence
    config_failure: str
    """Why the configuration cannot be read, if it is there; else ''."""
    config: Config
    """With the defaults for what is not set or wrong."""
    token: str
    """The file of the token; '' where none is needed, or the configuration that names it cannot be read."""
    token_presence: Presence
    user: str
    has_user: bool
    group: str
    """SlurmUser's; the one of the examples if that is root's."""
    has_group: bool
    has_slurm_user: bool
    """Whether this host knows SlurmUser, so that the group is certain."""
    unit: Unit
    unit_state: FileState
    tmpfiles_state: FileState
    events_presence: Presence
    slurm: SlurmSite
    described: Described
    slurm_folder: str
    """Where Slurm's commands are; '' if they are not in PATH."""
    slurm_conf: str
    """What SLURM_CONF names in the environment of this command; '' if it is not set. For one of several clusters it is
    that of its configuration."""
    config_barrier: Barrier | None = None
    """What keeps the daemon's user from reading the configuration that is there."""
    token_barrier: Barrier | None = None
    """The same of the token's file."""
    folders: Sequence[OwnFolder] = ()
    boot_state: FileState = FileState.SAME
    """How the file for tmpfiles.d is that makes those of `folders` that are gone after a boot."""
    drop_in: Sequence[str] | None = None
    """The lines of the file beside the unit that -install writes; None if it is not there or cannot be read."""
    running: Running | None = None
    before: Before = NOTHING_BEFORE

    @property
    def instance(self) -> str:
        """The name of the cluster, if this is one of several with the template unit; else ''."""
        return self.unit.instance


def find_host(config_path: str, *, explicit: bool, places: Places) -> Host:
    """Look at this host and ask Slurm. `explicit` says that the caller has named the configuration.

    Raises nothing because something is missing.
    """
    config_path = os.path.abspath(config_path)
    unit, slurm_conf = _read_unit(places, config_path), os.environ.get("SLURM_CONF", "")
    config, problems = examine_config(config_path, explicit=explicit)
    failures = [each.text for each in problems if each.subject == CONFIGURATION and each.level >= logging.ERROR]
    is_there = presence(config_path)
    if unit.instance and is_there is Presence.MISSING:
        config = parse_config(instance_settings(unit.instance, slurm_conf))[0]
    running = find_daemon(config)
    user = _user_of(unit, running)
    slurm = _ask_slurm(config, config_path, user)
    slurm_user = slurm.config.slurm_user if slurm.config else GROUP
    group = shared_group(slurm_user)
    places = site_places(places, user, group or GROUP).of_unit(unit)
    is_read = is_there is Presence.THERE and not failures
    token = TOKEN if is_there is Presence.MISSING else token_path(config) if is_read else ""
    account = daemon_account(user, _group_of(unit, group or GROUP))
    own_folders = find_own_folders(config, account, _made_folders(unit), usual=() if unit.instance else DEFAULT_FOLDERS)
    own, scontrol = own_program(), shutil.which("scontrol")
    program = own if zipfile.is_zipfile(own) else ""
    cluster = config.cluster_name or (slurm.config.cluster if slurm.config else "")
    return Host(
        machine=os.uname().nodename,
        program=program,
        is_root=os.geteuid() == 0,
        places=places,
        program_state=_program_state(program, places.program),
        config_path=config_path,
        config_presence=is_there,
        config_failure=failures[0] if failures and is_there is Presence.THERE else "",
        config=config,
        token=token,
        token_presence=presence(token),
        user=user,
        has_user=find_account(user) is not None,
        group=group or GROUP,
        has_group=group_id(group or GROUP) is not None,
        has_slurm_user=bool(group),
        unit=unit,
        unit_state=file_state(unit.get("FragmentPath") or places.unit, places.fit(unit_text(unit))),
        tmpfiles_state=file_state(places.tmpfiles, tmpfiles_for(places, user, group or GROUP)),
        events_presence=presence(places.events),
        slurm=slurm,
        described=ask_cc_backend(config, cluster, slurm.nodes) if is_read and slurm.nodes else Described(),
        slurm_folder=os.path.dirname(os.path.abspath(scontrol)) if scontrol else "",
        slurm_conf=config.slurm_conf if unit.instance else slurm_conf,
        config_barrier=find_barrier(config_path, os.R_OK, account),
        token_barrier=find_barrier(token, os.R_OK, account) if token else None,
        folders=own_folders,
        boot_state=file_state(places.boot, boot_text(own_folders, user, group or GROUP)),
        drop_in=_lines_of(places.drop_in),
        running=running,
        before=find_before(config, time.time()),
    )


def site_places(places: Places, user: str, group: str) -> Places:
    """Return the places of a site: the file for tmpfiles.d that is another than that of the package is in /etc."""
    is_other = (user, group) != (USER, GROUP) or presence(PLACES.tmpfiles) is not Presence.MISSING
    return places._replace(tmpfiles=PLACES.tmpfiles) if places == OF_PACKAGE and is_other else places


def unit_text(unit: Unit) -> str:
    """Return the file of this version for the unit: that of the template if it is an instance."""
    return read_example(TEMPLATE if unit.instance else UNIT)


def unit_of_version(unit: Unit) -> Unit:
    """Return the unit as it is with the file of this version."""
    return Unit(unit.name, properties=parse_properties(unit_text(unit).replace("%i", unit.instance)))


def _made_folders(unit: Unit) -> Sequence[str]:
    """Return the folders that the unit makes, or will make when it is installed."""
    will_make = unit.has_systemd and not unit.is_installed
    return unit_of_version(unit).own_folders if will_make else unit.own_folders


def instance_settings(name: str, slurm_conf: str) -> dict[str, str]:
    """Return a configuration for one of several clusters. `slurm_conf` is its slurm.conf; '' for the usual place."""
    settings: dict[str, str] = json.loads(read_example(CLUSTER).replace(EXAMPLE_CLUSTER, name))
    return {**settings, "slurmConf": slurm_conf or settings["slurmConf"]}


def tmpfiles_for(places: Places, user: str, group: str) -> str:
    """Return the file for tmpfiles.d with the daemon's user and SlurmUser's group."""
    text = read_example(TMPFILES).replace(f" {USER} {GROUP} ", f" {printable(user)} {printable(group)} ")
    return places.fit(text) if places.tmpfiles == OF_PACKAGE.tmpfiles else text


def token_path(config: Config) -> str:
    """Return the file that holds the token; '' if it is a credential, in the configuration, or not needed."""
    name = config.cc_rest_jwt_file
    if not name and (config.cc_rest_jwt or not config.cc_rest_submit_jobs):
        return ""
    return name if os.path.isabs(name) else "" if name else TOKEN


def file_state(path: str, wanted: str) -> FileState:
    """Return how a file is compared with a text."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return FileState.SAME if file.read(len(wanted) + 1) == wanted else FileState.OTHER
    except (FileNotFoundError, NotADirectoryError):
        return FileState.MISSING
    except OSError:
        return FileState.UNSEEN


def _program_state(program: str, installed: str) -> FileState:
    """Return whether the installed file is the one that runs, and may be executed by all."""
    try:
        mode = os.stat(installed).st_mode
        if not program:
            return FileState.UNSEEN
        is_same = mode & 0o555 == 0o555 and filecmp.cmp(program, installed, shallow=False)
        return FileState.SAME if is_same else FileState.OTHER
    except (FileNotFoundError, NotADirectoryError):
        return FileState.MISSING
    except OSError:
        return FileState.UNSEEN


def shared_group(slurm_user: str) -> str:
    """Return the group by which SlurmUser's hooks and the daemon share folders: SlurmUser's primary group.

    '' if this host does not know SlurmUser. Root needs no group, and the daemon must never have root's.
    """
    try:
        group = pwd.getpwnam(slurm_user).pw_gid
        return GROUP if group == 0 else grp.getgrgid(group).gr_name
    except KeyError:
        return ""


def _user_of(unit: Unit, running: Running | None) -> str:
    """Return the daemon's user: that of the unit, unless the existing adapter has a unit of the same name."""
    is_of_another = running is not None and not running.locked and running.unit == unit.name
    return (unit.get("User") or "root") if unit.is_installed and not is_of_another else USER


def _group_of(unit: Unit, group: str) -> str:
    """Return the group that the daemon has when all is done: the unit is given SlurmUser's unless that is the usual."""
    return unit.get("Group") if unit.is_installed and group == GROUP else group


def _lines_of(path: str) -> list[str] | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return None


def _read_unit(places: Places, config_path: str) -> Unit:
    """Ask systemd for the unit of the configuration, whatever runs this program or the daemon now."""
    systemd = Commands(timing=SYSTEMD)
    try:
        return read_own_unit(systemd, 0, {}, config_path, places.booted)
    finally:
        systemd.close()


def _ask_slurm(config: Config, config_path: str, user: str) -> SlurmSite:
    """Ask slurmctld for its configuration and its nodes, and accounting for the daemon's user."""
    assembly = Assembly(config, DAEMON, lambda: None, config_path, timing=SLURM)
    try:
        try:
            site = read_cluster_config(assembly.commands)
        except SlurmError as error:
            return SlurmSite(failure=str(error))
        client = assembly.make_slurm(site.cluster, os.path.dirname(config.state_path), lambda *found: None)
        nodes, nodes_failure = _try(client.node_states)
        ask_level = (lambda: client.admin_level(user)) if site.has_accounting else (lambda: None)
        level, level_failure = _try(ask_level)
    finally:
        assembly.commands.close()
    machine = os.uname().nodename
    own_hooks = replace(site.hooks, prolog=(), epilog=())  # those of the nodes cannot be seen from here
    return SlurmSite(
        config=site,
        nodes=nodes or (),
        nodes_failure=nodes_failure,
        level=level,
        level_failure=level_failure,
        gaps=find_gaps(own_hooks, site.slurm_user, machine),
        is_controller=is_controller(site.hooks, machine),
    )


def _try(ask: Callable[[], _Answer]) -> tuple[_Answer | None, str]:
    """Return the answer, or None and why there is none."""
    try:
        return ask(), ""
    except SlurmError as error:
        return None, str(error)

"""The systemd unit: whether it is installed, starts at boot and runs, and what it lets the daemon do."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.commands import Commands

SERVICE = ".service"
DEFAULT_UNIT = "cc-slurm-adapter.service"
INSTANCE = "cc-slurm-adapter@{}.service"
"""The unit of one of several clusters, whose configuration is beside the usual one and has the name of the instance."""
SUBJECT = "unit"
BOOTED = "/run/systemd/system"
"""This folder is there if the host was booted with systemd (sd_booted(3))."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where systemd searches programs for a unit without PATH of its own, see systemd.exec(5)."""
FOLDERS = {"RuntimeDirectory": "/run", "StateDirectory": "/var/lib", "CacheDirectory": "/var/cache"}
"""The properties that name folders which systemd makes and lets the unit write, and where these are."""
PROPERTIES = (
    *(
        "LoadState",
        "ActiveState",
        "SubState",
        "UnitFileState",
        "NeedDaemonReload",
        "NRestarts",
        "FragmentPath",
        "DropInPaths",
    ),
    *("User", "Group", "SupplementaryGroups", "Environment", "EnvironmentFiles", "ExecStart"),
    *("ProtectSystem", "ProtectHome", "ReadWritePaths", "PrivateTmp", *FOLDERS),
)
HOMES = ("/home/", "/root/", "/run/user/")
"""What ProtectHome hides."""
ALWAYS_ON = ("enabled", "enabled-runtime", "static", "alias", "linked", "indirect", "generated")
_CREDENTIAL = re.compile(r"^\s*(?:Load|Set)Credential(?:Encrypted)?\s*=\s*([^:\s]+)", re.MULTILINE)
_INSTANCE_CONFIG = re.compile(r"(?!config\.)([A-Za-z0-9_.:-]+)\.json")
"""A name that systemd takes as it is. What begins with `config.` is another version of the usual configuration."""
_EXECUTED = re.compile(r"argv\[\]=(.*?) ; ")


@dataclass(frozen=True)
class Unit:
    """The unit as `systemctl show` prints it. `failure` says why nothing is known about it, or is ''."""

    name: str
    failure: str = ""
    has_systemd: bool = True
    properties: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Each property with its lines: ExecStart, for example, may have several."""
    credentials: frozenset[str] = frozenset()
    """The names of its credentials, as far as its files can be read."""

    def get(self, name: str) -> str:
        """Return the only line of a property; '' if it is not set."""
        return next(iter(self.properties.get(name, ())), "")

    @property
    def short_name(self) -> str:
        """Its name as an administrator types it."""
        return short_name(self.name)

    @property
    def instance(self) -> str:
        """Which instance of the template unit it is; '' for any other unit."""
        before, after = INSTANCE.split("{}")
        is_one = self.name.startswith(before) and self.name.endswith(after)
        return self.name[len(before) : -len(after)] if is_one else ""

    @property
    def is_installed(self) -> bool:
        """Whether systemd has read its file."""
        return self.get("LoadState") == "loaded"

    @property
    def command(self) -> list[str]:
        """The program that it starts, with its arguments; [] if that is not known."""
        found = _EXECUTED.search(self.get("ExecStart"))
        return found[1].split() if found else []

    @property
    def config_path(self) -> str:
        """The configuration that its daemon reads."""
        words = [part for word in self.command for part in word.split("=", 1)]
        return next(
            (path for flag, path in zip(words, words[1:]) if flag in ("-config", "--config")), DEFAULT_CONFIG_PATH
        )

    @property
    def search_path(self) -> str:
        """Where its programs are searched, as in PATH; '' if that is not known."""
        if not self.is_installed or self.get("EnvironmentFiles"):
            return ""
        return self.environment.get("PATH", DEFAULT_PATH)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that Environment= sets."""
        return dict(pair.split("=", 1) for pair in _words(self.get("Environment")) if "=" in pair)

    @property
    def own_folders(self) -> list[str]:
        """The folders that systemd makes for it before it starts."""
        return [f"{root}/{name.partition(':')[0]}" for key, root in FOLDERS.items() for name in self.get(key).split()]

    def may_write(self, folder: str) -> bool:
        """Return whether it lets the daemon write in a folder, if the rights of the folder do."""
        if self.get("ProtectSystem") != "strict":
            return True
        writable = [*self.own_folders, *(each.lstrip("-+") for each in _words(self.get("ReadWritePaths")))]
        if self.get("PrivateTmp") not in ("", "no"):
            writable += ["/tmp", "/var/tmp"]  # noqa: S108 - compared, not used
        return any(_is_below(folder, each) for each in writable)

    def hides(self, path: str) -> bool:
        """Return whether it hides what is in the homes of users, and the path is there."""
        return self.get("ProtectHome") in ("yes", "tmpfs") and os.path.realpath(path).startswith(HOMES)


def short_name(unit: str) -> str:
    """Return the name of a service as an administrator types it, as in `systemctl status cc-slurm-adapter`."""
    return unit[: -len(SERVICE)] if unit.endswith(SERVICE) else unit


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []


def _is_below(path: str, folder: str) -> bool:
    """Return whether a path is a folder or in it."""
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([inner, outer]) == outer


def running_unit(pid: int, environ: Mapping[str, str], proc: str = "/proc") -> str:
    """Return the unit of a daemon, or of this process if systemd has started it; '' if there is neither.

    `pid` is the daemon's process, 0 if none runs.
    """
    candidates = [str(pid)] if pid else []
    if "INVOCATION_ID" in environ:
        candidates.append("self")
    return next(filter(None, (unit_of(process, proc) for process in candidates)), "")


def is_inside(unit: Unit, environ: Mapping[str, str], proc: str = "/proc") -> bool:
    """Return whether systemd has started this process for the unit, as by ExecStartPre=."""
    return "INVOCATION_ID" in environ and unit_of("self", proc) == unit.name


def unit_of(process: str, proc: str = "/proc") -> str:
    """Return the service that a process belongs to; '' if it is in none."""
    try:
        with open(os.path.join(proc, process, "cgroup"), encoding="utf-8", errors="replace") as file:
            name = file.read().strip().rpartition("/")[2]
    except OSError:
        return ""
    return name if name.endswith(".service") and not name.startswith("user@") else ""


def read_own_unit(  # noqa: PLR0913 - whom it asks, what it looks for, and two places
    commands: Commands,
    pid: int,
    environ: Mapping[str, str],
    config_path: str,
    booted: str = BOOTED,
    proc: str = "/proc",
) -> Unit:
    """Ask systemd for the unit of a daemon, or of this process, or of the configuration if none of them runs."""
    name, instance = running_unit(pid, environ, proc), instance_for(config_path)
    unit = read_unit(commands, name or DEFAULT_UNIT, booted)
    if name or not instance:
        return unit
    if unit.failure:
        return replace(unit, name=instance)
    is_its_own = unit.is_installed and _is_same(unit.config_path, config_path)
    return unit if is_its_own else read_unit(commands, instance, booted)


def instance_for(config_path: str) -> str:
    """Return the instance of the template unit that has this configuration; '' if it is not for one."""
    folder, name = os.path.split(os.path.abspath(config_path))
    found = _INSTANCE_CONFIG.fullmatch(name)
    is_beside = folder == os.path.dirname(DEFAULT_CONFIG_PATH) and name != os.path.basename(DEFAULT_CONFIG_PATH)
    return INSTANCE.format(found[1]) if found and is_beside else ""


def usual_service(config_path: str) -> str:
    """Return the service that runs with this configuration if nothing was changed, as an administrator types it."""
    return short_name(instance_for(config_path) or DEFAULT_UNIT)


def read_unit(commands: Commands, name: str, booted: str = BOOTED) -> Unit:
    """Ask systemd for the unit."""
    if not os.path.isdir(booted):
        return Unit(name, "this host or container was not booted with systemd", has_systemd=False)
    try:
        finished = commands.run(["systemctl", "show", name, "--no-pager", f"--property={','.join(PROPERTIES)}"])
    except SlurmError as error:
        return Unit(name, f"systemctl cannot be asked: {error}")
    if finished.exit_code:
        return Unit(name, f"systemctl cannot be asked: {finished.last_error()}")
    properties = parse_properties(finished.output.decode("utf-8", errors="replace"))
    files = [*properties.get("FragmentPath", ()), *_words(next(iter(properties.get("DropInPaths", ())), ""))]
    return Unit(
        name, properties=properties, credentials=frozenset(each for path in files for each in _credentials(path))
    )


def _credentials(path: str) -> list[str]:
    """Return the names of the credentials in a file of a unit, which systemctl does not show; [] if it is not read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _CREDENTIAL.findall(file.read())
    except OSError:
        return []


def parse_properties(text: str) -> dict[str, list[str]]:
    """Parse lines like `User=slurm`. Properties without a value are left out."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if value:
            found.setdefault(key, []).append(value)
    return found


def find_unit(unit: Unit, config_path: str, program: str) -> Iterator[Finding]:
    """Yield what is wrong with the unit. `config_path` and `program` are those of this process."""
    if unit.failure:
        level = logging.WARNING if unit.has_systemd else logging.INFO
        yield Finding(level, SUBJECT, f"{unit.name} cannot be seen: {unit.failure}")
        return
    if not unit.is_installed:
        state = unit.get("LoadState") or "unknown to systemd"
        yield _warning(f"{unit.name} is not installed ({state})", "install it as docs/install.md says, step 1")
        return
    yield Finding(logging.INFO, SUBJECT, f"{unit.name} is installed ({unit.get('FragmentPath')})")
    yield from _find_stale(unit)
    yield _of_boot(unit)
    yield _of_activity(unit)
    yield from _find_command(unit, config_path, program)


def find_environment(unit: Unit, slurm_conf: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether Slurm's commands find another slurm.conf here than in the unit. `slurm_conf` is slurmConf."""
    here = environ.get("SLURM_CONF", "")
    if here and not slurm_conf and unit.search_path and unit.environment.get("SLURM_CONF") != here:
        text = f"SLURM_CONF is {here} here, and not in {unit.name}: the daemon may find another slurm.conf, or none"
        yield _warning(text, f"set slurmConf to {here} in the configuration")


def _find_stale(unit: Unit) -> Iterator[Finding]:
    if unit.get("NeedDaemonReload") == "yes":
        text = f"the file of {unit.name} has changed since systemd has read it"
        yield _warning(text, "run systemctl daemon-reload, then systemctl restart it")


def _of_boot(unit: Unit) -> Finding:
    state = unit.get("UnitFileState")
    if state in ALWAYS_ON:
        return Finding(logging.INFO, SUBJECT, f"{unit.name} starts at boot ({state})")
    return _warning(
        f"{unit.name} does not start at boot ({state or 'not enabled'})", f"run systemctl enable {unit.name}"
    )


def _of_activity(unit: Unit) -> Finding:
    active, sub = unit.get("ActiveState"), unit.get("SubState")
    if active in ("active", "reloading"):
        return Finding(logging.INFO, SUBJECT, f"{unit.name} runs ({sub})")
    if active == "activating" and sub != "auto-restart":
        return Finding(logging.INFO, SUBJECT, f"{unit.name} starts ({sub})")
    if active == "failed" or sub == "auto-restart":
        text = f"{unit.name} has failed ({active}, {sub}; {unit.get('NRestarts') or 0} restarts)"
        return Finding(logging.ERROR, SUBJECT, text, f"see why: journalctl -u {unit.name} -n 50")
    return _warning(f"{unit.name} does not run ({active or 'unknown'})", f"run systemctl start {unit.name}")


def _find_command(unit: Unit, config_path: str, program: str) -> Iterator[Finding]:
    """Find a unit that starts another file than this one, or with another configuration."""
    started = next(iter(unit.command), "")
    if started and program and not _is_same(started, program):
        text = f"{unit.name} starts {started}, and this is {program}"
        yield _warning(text, "check with the file that it starts")
    if started and not _is_same(unit.config_path, config_path):
        text = f"{unit.name} reads {unit.config_path}, and {config_path} is checked here"
        yield _warning(text, f"name that one: -check -config {unit.config_path}")


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _warning(text: str, next_step: str) -> Finding:
    return Finding(logging.WARNING, SUBJECT, text, next_step)

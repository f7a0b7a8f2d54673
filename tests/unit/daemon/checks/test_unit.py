"""The systemd unit, as systemctl show prints it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.checks.unit import (
    DEFAULT_PATH,
    DEFAULT_UNIT,
    Unit,
    find_environment,
    find_unit,
    parse_properties,
    read_own_unit,
    read_unit,
    running_unit,
    usual_service,
)
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.commands import Commands
from tests.fakes.programs import FakePrograms

PROGRAM, CONFIG = "/usr/local/sbin/cc-slurm-adapter", "/etc/cc-slurm-adapter/config.json"
# In the form of systemctl(1) and org.freedesktop.systemd1(5): a line for each property, those of the example unit.
INSTALLED = f"""\
User=cc-slurm-adapter
Group=slurm
SupplementaryGroups=
Environment=
ExecStart={{ path={PROGRAM} ; argv[]={PROGRAM} -daemon -config {CONFIG} -debug 2 ; ignore_errors=no }}
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
NeedDaemonReload=no
NRestarts=0
FragmentPath=/etc/systemd/system/cc-slurm-adapter.service
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ReadWritePaths=
RuntimeDirectory=cc-slurm-adapter
StateDirectory=cc-slurm-adapter
"""


def make(**changes: str) -> Unit:
    """The installed unit, with other values for some properties."""
    properties = parse_properties(INSTALLED)
    properties.update({key: [value] for key, value in changes.items()})
    return Unit(DEFAULT_UNIT, properties=properties)


def bad(unit: Unit, config: str = CONFIG, program: str = PROGRAM) -> list[tuple[int, str]]:
    found: list[Finding] = list(find_unit(unit, config, program))
    assert all(each.next_step for each in found if each.level > logging.INFO)
    return [(each.level, each.text) for each in found if each.level > logging.INFO]


def test_a_unit_that_runs_and_starts_at_boot_is_well() -> None:
    assert bad(make()) == []


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"LoadState": "not-found"}, logging.WARNING, "is not installed (not-found)"),
        ({"UnitFileState": "disabled"}, logging.WARNING, "does not start at boot (disabled)"),
        ({"ActiveState": "inactive", "SubState": "dead"}, logging.WARNING, "does not run (inactive)"),
        ({"ActiveState": "failed", "SubState": "failed"}, logging.ERROR, "has failed"),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, logging.ERROR, "has failed"),
        ({"NeedDaemonReload": "yes"}, logging.WARNING, "has changed since"),
    ],
)
def test_what_is_wrong_with_a_unit_is_told_with_what_to_do(changes: dict[str, str], level: int, said: str) -> None:
    ((found, text),) = bad(make(**changes))
    assert found == level
    assert said in text


def test_a_unit_that_just_starts_is_well_as_a_check_before_its_start_sees_it() -> None:
    assert bad(make(ActiveState="activating", SubState="start-pre")) == []


def test_another_file_and_another_configuration_than_those_that_run_are_told() -> None:
    assert [text for _, text in bad(make(), "/etc/other.json", "/opt/cc-slurm-adapter")] == [
        f"{DEFAULT_UNIT} starts {PROGRAM}, and this is /opt/cc-slurm-adapter",
        f"{DEFAULT_UNIT} reads {CONFIG}, and /etc/other.json is checked here",
    ]
    assert bad(make(), program="") == []


def test_a_configuration_may_be_named_with_an_equals_sign_or_not_at_all() -> None:
    for arguments, path in ((" --config=/etc/a.json", "/etc/a.json"), (" -config /b", "/b"), ("", CONFIG)):
        start = f"{{ path={PROGRAM} ; argv[]={PROGRAM} -daemon{arguments} ; ignore_errors=no }}"
        assert make(ExecStart=start).config_path == path


def test_what_is_allowed_is_read() -> None:
    unit = make(ReadWritePaths="-/srv/state +/srv/more")
    assert unit.own_folders == ["/run/cc-slurm-adapter", "/var/lib/cc-slurm-adapter"]
    for folder in ("/run/cc-slurm-adapter/events", "/var/lib/cc-slurm-adapter", "/srv/state/x", "/srv/more", "/tmp/x"):
        assert unit.may_write(folder), folder
    for folder in ("/srv/states", "/run", "/var/lib"):
        assert not unit.may_write(folder), folder
    assert make(ProtectSystem="full").may_write("/srv/states")
    assert unit.hides("/root/config.json")
    assert not unit.hides(CONFIG)
    assert not make(ProtectHome="read-only").hides("/root/config.json")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, DEFAULT_PATH),
        ({"Environment": 'A=1 PATH=/opt/slurm/bin:/usr/bin "B=x y"'}, "/opt/slurm/bin:/usr/bin"),
        ({"EnvironmentFiles": "/etc/default/x (ignore_errors=yes)"}, ""),
        ({"LoadState": "not-found"}, ""),
    ],
)
def test_where_its_programs_are_searched_is_read(changes: dict[str, str], expected: str) -> None:
    assert make(**changes).search_path == expected


@pytest.mark.parametrize(
    ("changes", "slurm_conf", "here", "warns"),
    [
        ({}, "", {"SLURM_CONF": "/opt/slurm.conf"}, True),
        ({"Environment": "SLURM_CONF=/etc/slurm.conf"}, "", {"SLURM_CONF": "/opt/slurm.conf"}, True),
        ({"Environment": "SLURM_CONF=/opt/slurm.conf"}, "", {"SLURM_CONF": "/opt/slurm.conf"}, False),
        ({}, "/opt/slurm.conf", {"SLURM_CONF": "/opt/slurm.conf"}, False),
        ({}, "", {}, False),
        ({"EnvironmentFiles": "/etc/default/x"}, "", {"SLURM_CONF": "/opt/slurm.conf"}, False),
    ],
)
def test_a_slurm_conf_that_only_this_shell_knows_is_a_warning(
    changes: dict[str, str], slurm_conf: str, here: dict[str, str], warns: bool
) -> None:
    assert bool(list(find_environment(make(**changes), slurm_conf, here))) is warns


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    made = Commands()
    yield made
    made.close()


def test_systemd_is_asked_for_the_unit(tmp_path: Path, commands: Commands) -> None:
    programs = FakePrograms(tmp_path / "bin")
    programs.make("systemctl", "[ \"$1 $2\" = 'show a.service' ] && echo LoadState=loaded && echo User=slurm")
    unit = read_unit(commands, "a.service", str(tmp_path))
    assert (unit.is_installed, unit.get("User"), unit.failure) == (True, "slurm", "")
    programs.make("systemctl", "echo 'Failed to connect to bus' >&2; exit 1")
    unit = read_unit(commands, "a.service", str(tmp_path))
    assert not unit.is_installed
    (found,) = find_unit(unit, CONFIG, PROGRAM)
    assert (found.level, "Failed to connect to bus" in found.text) == (logging.WARNING, True)


def test_credentials_are_read_from_the_files_of_the_unit(tmp_path: Path, commands: Commands) -> None:
    main, more, hidden = (tmp_path / name for name in ("a.service", "more.conf", "nowhere.conf"))
    main.write_text("[Service]\nLoadCredential=token:/etc/token\n#LoadCredential=no:/x\n")
    more.write_text("[Service]\n LoadCredentialEncrypted = seed:/etc/seed\nSetCredential=other:text\n")
    programs = FakePrograms(tmp_path / "bin")
    programs.make("systemctl", f"echo LoadState=loaded; echo FragmentPath={main}; echo DropInPaths={more} {hidden}")
    assert read_unit(commands, "a.service", str(tmp_path)).credentials == {"token", "seed", "other"}


def test_a_host_without_systemd_lacks_nothing(tmp_path: Path, commands: Commands) -> None:
    (found,) = find_unit(read_unit(commands, "a.service", str(tmp_path / "nowhere")), CONFIG, PROGRAM)
    assert found.level == logging.INFO
    assert "not booted with systemd" in found.text


def test_the_unit_is_that_of_the_daemon_or_of_this_process(tmp_path: Path) -> None:
    for process, line in (("7", "0::/system.slice/other.service"), ("self", "0::/system.slice/own.service")):
        (tmp_path / process).mkdir()
        (tmp_path / process / "cgroup").write_text(f"{line}\n")
    started = {"INVOCATION_ID": "x"}
    assert running_unit(7, {}, str(tmp_path)) == "other.service"
    assert running_unit(7, started, str(tmp_path)) == "other.service"
    assert running_unit(0, started, str(tmp_path)) == "own.service"
    assert running_unit(0, {}, str(tmp_path)) == ""
    assert running_unit(8, {}, str(tmp_path)) == ""
    (tmp_path / "self" / "cgroup").write_text("0::/user.slice/user-0.slice/session-1.scope\n")
    assert running_unit(0, started, str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("config", "holder", "name"),
    [
        (CONFIG, 0, DEFAULT_UNIT),
        ("/etc/cc-slurm-adapter/alpha.json", 0, "cc-slurm-adapter@alpha.service"),
        ("/etc/cc-slurm-adapter/alpha.json", 7, "other.service"),
        ("/etc/cc-slurm-adapter/own.json", 0, DEFAULT_UNIT),
        ("/etc/cc-slurm-adapter/al pha.json", 0, DEFAULT_UNIT),
        ("/srv/alpha.json", 0, DEFAULT_UNIT),
    ],
)
def test_a_configuration_beside_the_usual_one_is_that_of_an_instance(
    tmp_path: Path, commands: Commands, config: str, holder: int, name: str
) -> None:
    """Unless a daemon runs already, or the usual unit reads it, as it does own.json here."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text("0::/system.slice/other.service\n")
    program = "echo LoadState=loaded; echo 'ExecStart={ argv[]=/x -daemon -config /etc/cc-slurm-adapter/own.json ; }'"
    FakePrograms(tmp_path / "bin").make("systemctl", program)
    unit = read_own_unit(commands, holder, {}, config, str(tmp_path), str(tmp_path))
    assert (unit.name, unit.is_installed) == (name, True)


def test_the_service_of_a_configuration_is_named_as_it_is_typed() -> None:
    assert usual_service(CONFIG) == "cc-slurm-adapter"
    assert usual_service("/etc/cc-slurm-adapter/alpha.json") == "cc-slurm-adapter@alpha"
    assert usual_service("/srv/alpha.json") == "cc-slurm-adapter"


def test_a_unit_knows_its_instance() -> None:
    assert (Unit("cc-slurm-adapter@alpha.service").instance, Unit(DEFAULT_UNIT).instance) == ("alpha", "")
    assert Unit("other@alpha.service").instance == ""


def test_the_instance_is_named_where_systemd_cannot_be_asked(tmp_path: Path, commands: Commands) -> None:
    path = "/etc/cc-slurm-adapter/alpha.json"
    unit = read_own_unit(commands, 0, {}, path, str(tmp_path / "not-booted"), str(tmp_path))
    assert (unit.name, unit.has_systemd) == ("cc-slurm-adapter@alpha.service", False)

"""What -install finds: on a host without anything, with Slurm, with files of other versions; and it changes nothing."""

from __future__ import annotations

import grp
import json
import os
import pwd
import zipfile
from pathlib import Path

import pytest

import build
from cc_slurm_adapter.cli import install_host
from cc_slurm_adapter.cli.install import print_installation
from cc_slurm_adapter.cli.install_host import (
    FileState,
    Host,
    Places,
    file_state,
    find_host,
    shared_group,
    token_path,
)
from cc_slurm_adapter.cli.install_rights import Presence, presence
from cc_slurm_adapter.cli.install_running import Running
from cc_slurm_adapter.cli.main import run_command
from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.system.owner import acting_as, find_account
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES

CLUSTER = FIXTURES / "slurm-24.11.5" / "cluster"
URL = {"ccRestUrl": "http://127.0.0.1:1"}


class Machine:
    """A folder that stands for a host: its programs, and what is installed there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.programs = FakePrograms(folder / "bin")
        self.config = folder / "config.json"
        self.places = Places(*(str(folder / name) for name in ("adapter", "tmpfiles", "unit", "events", "booted")))
        self.program = folder / "downloaded"
        with zipfile.ZipFile(self.program, "w") as archive:
            archive.writestr("__main__.py", "")
        monkeypatch.setenv("PATH", f"{self.programs.folder}:/usr/bin:/bin")
        monkeypatch.delenv("SLURM_CONF", raising=False)
        monkeypatch.setattr(install_host, "own_program", lambda: str(self.program))

    def add_slurm(self) -> None:
        """Put Slurm's commands there, as recorded on a cluster whose slurmctld is elsewhere."""
        self.programs.make("scontrol", f"cat {CLUSTER / 'scontrol-show-config.txt'}")
        self.programs.make("sinfo", f"cat {CLUSTER / 'no-partition.sinfo-N-O.txt'}")
        self.programs.make("sacctmgr", 'echo "$4|Operator|"')

    def add_systemd(self, *properties: str) -> None:
        """Put a systemd there that says this of the unit."""
        Path(self.places.booted).mkdir()
        self.programs.make("systemctl", f"printf '%s\\n' {' '.join(properties)}")

    def find(self) -> Host:
        return find_host(str(self.config), explicit=True, places=self.places)

    def snapshot(self) -> list[tuple[str, int, int, int]]:
        paths = sorted([self.folder, *self.folder.rglob("*")])
        return [(str(path), *_facts(path.lstat())) for path in paths]


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_mtime_ns


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_daemon_never_has_the_group_of_root() -> None:
    assert shared_group("root") == "slurm"
    assert shared_group("nobody") == grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    assert shared_group("no-such-user") == ""


def test_on_a_bare_host_nothing_is_found_and_nothing_fails(machine: Machine) -> None:
    found = machine.find()
    assert {found.config_presence, found.token_presence, found.events_presence} == {Presence.MISSING}
    assert not found.unit.has_systemd
    assert {found.program_state, found.unit_state, found.tmpfiles_state} == {FileState.MISSING}
    assert found.slurm.config is None
    assert "scontrol" in found.slurm.failure
    assert (found.program, found.group, found.config_failure) == (str(machine.program), "slurm", "")


def test_slurm_is_asked_for_its_cluster_its_nodes_and_the_user(machine: Machine) -> None:
    machine.add_slurm()
    slurm = machine.find().slurm
    assert slurm.config is not None
    assert (slurm.config.cluster, slurm.config.version, slurm.level) == ("lab", "24.11.5", "Operator")
    assert {(node.hostname, node.gpus, node.gpu_types) for node in slurm.nodes} >= {("node01", 4, "4 gpu:h100")}
    assert (slurm.failure, slurm.nodes_failure, slurm.level_failure) == ("", "", "")
    assert machine.find().slurm_folder == str(machine.programs.folder)


def test_what_slurm_does_not_answer_hides_nothing_else(machine: Machine) -> None:
    machine.add_slurm()
    for name in ("sinfo", "sacctmgr"):
        machine.programs.make(name, "echo broken >&2; exit 1")
    slurm = machine.find().slurm
    assert slurm.config is not None
    assert "broken" in slurm.nodes_failure
    assert "broken" in slurm.level_failure
    assert (slurm.nodes, slurm.level) == ((), None)


def test_the_unit_says_who_the_daemon_is(machine: Machine) -> None:
    machine.add_systemd("LoadState=loaded", "User=somebody-else", "Group=hpc", f"FragmentPath={machine.folder}/u")
    (machine.folder / "u").write_text(build.ROOT.joinpath("examples/cc-slurm-adapter.service").read_text())
    found = machine.find()
    assert (found.user, found.has_user, found.unit_state) == ("somebody-else", False, FileState.SAME)


def test_a_root_daemon_is_root(machine: Machine) -> None:
    machine.add_systemd("LoadState=loaded")
    assert (machine.find().user, machine.find().has_user) == ("root", True)


@pytest.mark.parametrize(("locked", "user"), [("", "cc-slurm-adapter"), ("/run/x/daemon.pid", "root")])
def test_the_user_of_the_existing_adapter_is_not_that_of_the_daemon(
    locked: str, user: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as root, in a unit of the same name."""
    machine.add_systemd("LoadState=loaded", "ActiveState=active")
    running = Running(4711, "root", "cc-slurm-adapter -daemon", "cc-slurm-adapter.service", locked, "/run/x/daemon.pid")
    monkeypatch.setattr(install_host, "find_daemon", lambda config: running)
    assert machine.find().user == user


def test_the_installed_file_must_be_this_one_and_executable_for_all(machine: Machine) -> None:
    installed = Path(machine.places.program)
    installed.write_bytes(machine.program.read_bytes())
    states = []
    for mode, more in ((0o755, b""), (0o700, b""), (0o755, b"x")):
        installed.write_bytes(machine.program.read_bytes() + more)
        installed.chmod(mode)
        states.append(machine.find().program_state)
    assert states == [FileState.SAME, FileState.OTHER, FileState.OTHER]
    machine.program.write_text("a checkout")
    assert (machine.find().program, machine.find().program_state) == ("", FileState.UNSEEN)


def test_a_file_is_the_same_only_if_it_is_the_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert file_state(str(path), "abc") is FileState.MISSING
    assert file_state(str(path / "below"), "abc") is FileState.MISSING
    for text, state in (("abc", FileState.SAME), ("ab", FileState.OTHER), ("abcd", FileState.OTHER)):
        path.write_text(text)
        assert file_state(str(path), "abc") is state
    assert file_state(str(tmp_path), "abc") is FileState.UNSEEN


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({**URL, "ccRestJwtFile": "/a/token"}, "/a/token"),
        ({**URL, "ccRestJwtFile": "credential"}, ""),
        ({**URL, "ccRestJwt": "x.y.z"}, ""),
        ({"ccRestSubmitJobs": False, "natsServer": "n1"}, ""),
    ],
)
def test_the_token_s_file_is_the_one_of_the_configuration(settings: dict[str, object], path: str) -> None:
    assert token_path(parse_config(settings)[0]) == path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_what_a_user_may_not_see_is_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    tmp_path.chmod(0o700)
    assert presence(str(path)) is Presence.THERE
    nobody = find_account("nobody")
    assert nobody is not None
    with acting_as(nobody):
        assert presence(str(path)) is Presence.UNSEEN


def test_a_link_that_leads_nowhere_is_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert presence(str(tmp_path / "link")) is Presence.THERE
    assert presence(str(tmp_path / "nowhere")) is Presence.MISSING
    assert presence(str(tmp_path / "nowhere" / "below")) is Presence.MISSING


def test_a_broken_configuration_is_there_and_cannot_be_used(machine: Machine) -> None:
    machine.config.write_text("{")
    found = machine.find()
    assert found.config_presence is Presence.THERE
    assert "not valid JSON" in found.config_failure
    assert found.token == ""
    machine.config.write_text(json.dumps({**URL, "ccRestJwtFile": "/nowhere/token"}))
    found = machine.find()
    assert (found.config_failure, found.token, found.token_presence) == ("", "/nowhere/token", Presence.MISSING)


def test_looking_changes_nothing_and_no_secret_is_printed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.add_slurm()
    machine.config.write_text(json.dumps({**URL, "ccRestJwt": "very-secret-token"}))
    before = machine.snapshot()
    print_installation(str(machine.config), explicit=True, debug=2, places=machine.places)
    out, err = capsys.readouterr()
    assert "cluster: lab (Slurm 24.11.5)" in out
    assert '"^node[0-9]+$": ["", "", "", ""]' in out
    assert "very-secret-token" not in out + err
    assert machine.snapshot() == before


def test_the_flag_prints_it_and_all_is_well(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["-install", "-config", str(machine.config)]) == 0
    out = capsys.readouterr().out
    assert f"# 2. configuration: {machine.config} is missing\n" in out
    assert f"cc-slurm-adapter -check -config {machine.config}\n" in out


def test_a_relative_path_of_the_configuration_becomes_whole(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(machine.folder)
    machine.add_systemd("LoadState=not-found")
    print_installation("conf.json", explicit=True, debug=2, places=machine.places)
    out = capsys.readouterr().out
    assert f"\nExecStart={machine.places.program} -daemon -config {machine.folder}/conf.json -debug 2\n" in out
    assert " conf.json" not in out


def test_files_and_folders_are_judged_for_the_daemon_s_user(machine: Machine) -> None:
    """That user is still to be made, and pytest's folders are closed to others."""
    token, state = machine.folder / "token", machine.folder / "state"
    token.touch(0o600)
    state.mkdir()
    settings = {**URL, "ccRestJwtFile": str(token), "lastRunPath": f"{state}/lastrun"}
    machine.config.write_text(json.dumps(settings))
    found = machine.find()
    assert found.has_user is (find_account("cc-slurm-adapter") is not None)
    assert found.config_barrier is not None
    assert found.token_barrier is not None
    assert [(each.path, each.is_shared) for each in found.folders] == [(str(state), True)]
    assert (found.drop_in, found.running, found.before.last_run) == (None, None, None)


def test_the_file_beside_the_unit_is_read(machine: Machine) -> None:
    path = Path(machine.places.drop_in)
    path.parent.mkdir()
    path.write_text("[Service]\nNice=5\n")
    assert machine.find().drop_in == ["[Service]", "Nice=5"]


BETA = "/etc/cc-slurm-adapter/beta.json"


class SeveralClusters(Machine):
    """A host of several clusters, one of which is called beta."""

    def find_beta(self, read_by_usual: str = "/etc/cc-slurm-adapter/config.json", *beta: str) -> Host:
        """Find it where systemd says this of the usual unit and of the instance."""
        Path(self.places.booted).mkdir(exist_ok=True)
        usual = f"'LoadState=loaded' 'ExecStart={{ argv[]=/x -daemon -config {read_by_usual} ; }}'"
        instance = " ".join(beta or ("LoadState=not-found",))
        self.programs.make(
            "systemctl",
            f"case $2 in cc-slurm-adapter.service) printf '%s\\n' {usual} ;;"
            f" cc-slurm-adapter@beta.service) printf '%s\\n' {instance} ;; *) exit 1 ;; esac",
        )
        return find_host(BETA, explicit=True, places=self.places)


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SeveralClusters:
    return SeveralClusters(tmp_path, monkeypatch)


def test_another_cluster_has_an_instance_of_the_template(several: SeveralClusters) -> None:
    found = several.find_beta()
    assert (found.instance, found.unit.name) == ("beta", "cc-slurm-adapter@beta.service")
    assert found.places.unit == f"{several.folder}/cc-slurm-adapter@.service"
    assert found.places.drop_in == f"{several.folder}/cc-slurm-adapter@.service.d/site.conf"
    assert (found.unit_state, found.user) == (FileState.MISSING, "cc-slurm-adapter")


def test_its_own_files_are_judged_and_not_those_of_the_first_cluster(several: SeveralClusters) -> None:
    """The folders are those that the template makes, so none is named."""
    found = several.find_beta()
    assert found.config.pid_file_path == "/run/cc-slurm-adapter/beta/daemon.pid"
    assert found.config.last_run_path == "/var/lib/cc-slurm-adapter/beta/lastrun"
    assert (found.config.slurm_conf, found.slurm_conf) == ("/etc/slurm/beta/slurm.conf",) * 2
    assert found.folders == []


def test_slurm_is_asked_for_the_cluster_that_is_named(
    several: SeveralClusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/srv/beta/slurm.conf")
    several.programs.make("scontrol", 'echo "asked for $SLURM_CONF" >&2; exit 1')
    found = several.find_beta()
    assert "asked for /srv/beta/slurm.conf" in found.slurm.failure
    assert found.slurm_conf == "/srv/beta/slurm.conf"


def test_a_template_that_is_there_is_compared(several: SeveralClusters) -> None:
    template = several.folder / "template"
    template.write_text(build.ROOT.joinpath("examples/cc-slurm-adapter@.service").read_text())
    properties = ("LoadState=loaded", f"FragmentPath={template}", "User=hpc", "StateDirectory=cc-slurm-adapter/beta")
    found = several.find_beta("/etc/cc-slurm-adapter/config.json", *properties)
    assert (found.unit_state, found.user) == (FileState.SAME, "hpc")
    assert [each.path for each in found.folders] == ["/run/cc-slurm-adapter/beta"]


def test_a_configuration_that_the_usual_unit_reads_is_not_of_an_instance(several: SeveralClusters) -> None:
    found = several.find_beta(BETA)
    assert (found.instance, found.unit.name) == ("", "cc-slurm-adapter.service")
    assert found.places == several.places


def test_without_systemd_it_has_paths_of_its_own_as_well(several: SeveralClusters) -> None:
    found = find_host(BETA, explicit=True, places=several.places)
    assert (found.instance, found.unit.has_systemd) == ("beta", False)
    folders = ["/run/cc-slurm-adapter/beta", "/var/lib/cc-slurm-adapter/beta"]
    assert [each.path for each in found.folders] == folders

"""The script of -install: what it prints for hosts of all kinds, and what a shell makes of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

import build
from cc_slurm_adapter.cli.install_config import NO_URL
from cc_slurm_adapter.cli.install_host import FileState, Host, Places, SlurmSite
from cc_slurm_adapter.cli.install_rights import Barrier, OwnFolder, Presence
from cc_slurm_adapter.cli.install_running import Before, Running
from cc_slurm_adapter.cli.install_script import make_script
from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.daemon.checks.unit import DEFAULT_UNIT, Unit
from cc_slurm_adapter.daemon.hook_check import ENDS_SLURMCTLD, Gap
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.lines import print_line
from cc_slurm_adapter.sinks.gpu_addresses import addresses_of
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, Hooks
from examples.practice.programs import write_program
from tests.fakes.hosts import MINIMAL, PROGRAM, bare_host, cluster, config_of, installed_host, node, of_slurm

UNIT_TEXT = (build.ROOT / "examples/cc-slurm-adapter.service").read_text(encoding="utf-8")
TMPFILES_TEXT = (build.ROOT / "examples/cc-slurm-adapter.tmpfiles").read_text(encoding="utf-8")
CALLED = (
    *("cc-slurm-adapter", "diff", "install", "mv", "runuser", "sacctmgr", "scontrol", "sudo", "systemctl"),
    *("chgrp", "chmod", "chown", "groupadd", "systemd-tmpfiles", "useradd"),
)
AS_DAEMON = f"runuser -u cc-slurm-adapter -g slurm -- {PROGRAM}"
LOGGED = """\
printf '%s\\n' "$(basename "$0") $*" >> "$LOG"
eval last=\\${$#}
case "$*" in
    */dev/stdin*) cat > "$WRITTEN/$(basename "$last")" ;;
esac
"""
"""Each command writes down how it was called, and what it was to write."""


class Pasted:
    """What happened when a script was pasted into a shell: the commands with their arguments, and what they wrote."""

    def __init__(self, text: str, programs: Path, folder: Path) -> None:
        self.text = text
        log, written = folder / "log", folder / "written"
        written.mkdir()
        environment = {"PATH": f"{programs}:/usr/bin:/bin", "LOG": str(log), "WRITTEN": str(written)}
        subprocess.run(["/bin/sh", "-n"], input=text.encode(), check=True)
        done = subprocess.run(["/bin/sh"], input=text.encode(), env=environment, capture_output=True, check=False)
        assert done.stderr == b""
        self.commands = log.read_text().splitlines()
        self.files = {path.name: path.read_text() for path in written.iterdir()}

    def state(self, name: str) -> list[str]:
        """How the items of this name are."""
        return re.findall(rf"^# \d\. {name}: (.*)$", self.text, re.MULTILINE)


Paste = Callable[[Host], Pasted]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for all commands of the scripts."""
    folder = tmp_path_factory.mktemp("programs")
    program = write_program(folder / CALLED[0], f"#!/bin/sh\n{LOGGED}")
    for name in CALLED[1:]:
        (folder / name).symlink_to(program)
    return folder


@pytest.fixture
def paste(programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Paste:
    """Print the script for a host, and paste it into a shell."""
    numbers = count()

    def print_and_paste(host: Host) -> Pasted:
        for line in make_script(host):
            print_line(line)
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return Pasted(capsys.readouterr().out, programs, folder)

    return print_and_paste


def ignored_blocks(text: str) -> list[str]:
    return re.findall(r"^: <<'END'\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)


def test_on_a_bare_host_everything_is_done_in_the_order_of_the_steps(paste: Paste) -> None:
    pasted = paste(bare_host())
    assert [command.split()[0] for command in pasted.commands] == [
        *("install", "mv", "cc-slurm-adapter"),
        *("install", "install"),
        *("useradd", "install", "sacctmgr"),
        *("install", "systemd-tmpfiles", "install", "systemctl"),
        *("sudo", "scontrol"),
        *("cc-slurm-adapter", "runuser", "systemctl"),
    ]
    assert pasted.commands[-3:] == [
        "cc-slurm-adapter -check",
        f"{AS_DAEMON} -dry-run",
        "systemctl enable --now cc-slurm-adapter",
    ]
    assert pasted.files["cc-slurm-adapter.service"] == UNIT_TEXT
    assert pasted.files["cc-slurm-adapter.conf"] == TMPFILES_TEXT
    assert json.loads(pasted.files["config.json"].replace(NO_URL, MINIMAL["ccRestUrl"])) == MINIMAL
    assert ignored_blocks(pasted.text) == [f"PrologSlurmctld={PROGRAM}\nEpilogSlurmctld={PROGRAM}\n"]
    assert "# cluster: emmy (Slurm 24.11.5), slurmctld on ctl1\n" in pasted.text


def test_where_everything_is_done_only_looking_is_left(paste: Paste) -> None:
    pasted = paste(installed_host())
    assert pasted.commands == ["cc-slurm-adapter -check", f"{AS_DAEMON} -dry-run"]
    assert pasted.files == {}
    assert ignored_blocks(pasted.text) == []
    assert pasted.state("user") == ["cc-slurm-adapter exists already"]
    assert pasted.state("rights in Slurm") == ["cc-slurm-adapter has the AdminLevel Operator already"]
    assert "It runs already" in pasted.text


def test_an_installed_unit_that_does_not_run_is_enabled(paste: Paste) -> None:
    stopped = installed_host(unit=Unit(DEFAULT_UNIT, properties={"LoadState": ["loaded"], "Group": ["slurm"]}))
    assert paste(stopped).commands[-1] == "systemctl enable --now cc-slurm-adapter"


# --- the configuration


THREE_KINDS = (
    *(node(f"gpu{number:02}", 4, "4 gpu:h100") for number in range(1, 13)),
    *(node(f"gpu{number:02}", 3, "2 gpu:a40, 1 gpu:l4") for number in range(13, 15)),
    *(node(f"fat{number}", 8, "8 gpu:a100") for number in range(3)),
    *(node(f"cn{number:04}") for number in range(100)),
)


def test_gpus_of_three_kinds_have_a_place_each(paste: Paste) -> None:
    pasted = paste(of_slurm(bare_host(), nodes=THREE_KINDS))
    text = pasted.files["config.json"]
    with pytest.raises(ConfigError) as refused:
        parse_config(json.loads(text))
    (problem,) = refused.value.problems
    assert problem.startswith("ccRestUrl: ")
    config, findings = parse_config(json.loads(text.replace(NO_URL, "https://cc-backend.example.org")))
    assert len(config.gpu_pci_addrs) == 3
    for each in THREE_KINDS:
        matching = [addresses for regex, addresses in config.gpu_pci_addrs if regex.search(each.hostname)]
        assert matching == ([("",) * each.gpus] if each.gpus else [])
    assert [finding.subject for finding in findings] == ["gpuPciAddrs"] * 3
    assert all(
        re.search("has no address for the GPU ind(ex 0|ices 0-[0-9]+), th", finding.text) for finding in findings
    )
    assert "grep -H 'Device Minor' /proc/driver/nvidia/gpus/*/information" in pasted.text
    assert "gpu01 and 11 others with 4 gpu:h100\n" in pasted.text
    assert (
        "# nodes: 117: 100 without GPUs, 12 with 4 gpu:h100, 3 with 8 gpu:a100, 2 with 2 gpu:a40, 1 gpu:l4"
        in pasted.text
    )


def test_with_addresses_in_place_of_the_empty_texts_nothing_is_wrong(paste: Paste) -> None:
    text = paste(of_slurm(bare_host(), nodes=THREE_KINDS)).files["config.json"]
    filled = re.sub('""', '"00000000:0E:00.0"', text.replace(NO_URL, "https://cc-backend.example.org"))
    config, findings = parse_config(json.loads(filled))
    assert findings == []
    assert addresses_of("fat2", config.gpu_pci_addrs) == ("00000000:0E:00.0",) * 8


def test_a_configuration_that_lacks_some_gpus_is_completed_and_not_replaced(paste: Paste) -> None:
    config = config_of(gpuPciAddrs={"^gpu0": ["00000000:0E:00.0"] * 4, "^gpu1": ["00000000:0E:00.0"] * 3})
    host = of_slurm(installed_host(config=config), nodes=THREE_KINDS)
    pasted = paste(host)
    assert pasted.files == {}
    (block,) = ignored_blocks(pasted.text)
    added = json.loads(f"{{{block}}}")["gpuPciAddrs"]
    assert added == {"^gpu1[0-2]$": [""] * 4, "^fat[0-9]+$": [""] * 8}
    assert "the first match counts" in pasted.text


def test_empty_texts_that_are_left_are_named(paste: Paste) -> None:
    config = config_of(gpuPciAddrs={"^gpu": ["00000000:0E:00.0", ""]})
    nodes = (node("gpu1", 2, "2 gpu:a"), node("fat1", 1, "1 gpu:b"))
    host = installed_host(config=config)
    pasted = paste(of_slurm(host, nodes=nodes[:1]))
    assert pasted.state("configuration") == [
        f"{DEFAULT_CONFIG_PATH} exists already; addresses are missing in its gpuPciAddrs"
    ]
    assert ("#     gpu1 with 2 gpu:a\n" in pasted.text, ignored_blocks(pasted.text)) == (True, [])
    both = paste(of_slurm(host, nodes=nodes)).text
    assert "#     gpu1 with 2 gpu:a\n#     fat1 with 1 gpu:b\n" in both
    assert ignored_blocks(both) == ['"gpuPciAddrs": {\n  "^fat[0-9]+$": [""]\n}\n']


def test_a_configuration_that_cannot_be_read_is_left_alone(paste: Paste) -> None:
    host = of_slurm(installed_host(config_failure="Permission denied", is_root=False), nodes=THREE_KINDS)
    pasted = paste(host)
    assert pasted.state("configuration")[0].endswith("cannot be used: Permission denied")
    assert "# Run this as root to see more" in pasted.text
    assert pasted.files == {}
    assert not any(command.startswith("install") for command in pasted.commands)


def test_what_cannot_be_seen_is_not_written(paste: Paste) -> None:
    pasted = paste(bare_host(config_presence=Presence.UNSEEN, token="", is_root=False))
    assert "config.json" not in pasted.files
    assert pasted.state("configuration") == [f"{DEFAULT_CONFIG_PATH} cannot be seen: run this as root"]
    assert pasted.state("token") == ["the configuration names its file, and cannot be read: see step 2"]
    hidden = paste(installed_host(token_presence=Presence.UNSEEN, events_presence=Presence.UNSEEN))
    assert hidden.state("token")[0].endswith("/token cannot be seen: run this as root")
    assert hidden.state("folders")[0].endswith("/events cannot be seen: run this as root")
    assert not any(command.startswith(("install", "systemd-tmpfiles")) for command in hidden.commands)


def test_a_configuration_or_token_that_is_there_when_it_is_pasted_is_kept(paste: Paste, tmp_path: Path) -> None:
    config, token = tmp_path / "config of mine.json", tmp_path / "token of mine"
    host = bare_host(config_path=str(config), token=str(token))
    written = [f"install -m 0640 -g slurm /dev/stdin {config}", f"install -m 0600 -o {host.user} token.txt {token}"]
    assert {*written} <= {*paste(host).commands}
    config.touch()
    token.touch()
    assert not {*written} & {*paste(host).commands}


def test_the_configuration_of_the_unit_that_is_there_is_named(paste: Paste) -> None:
    command = "{ path=/opt/a ; argv[]=/opt/a -daemon -config /opt/config.json ; ignore_errors=no }"
    unit = Unit(DEFAULT_UNIT, properties={"LoadState": ["loaded"], "ExecStart": [command]})
    named = "# The unit that is there reads /opt/config.json. To use that one: cc-slurm-adapter -install -config"
    assert f"{named} /opt/config.json\n" in paste(bare_host(unit=unit)).text
    assert "The unit that is there" not in paste(bare_host()).text


def test_slurm_conf_of_the_environment_is_kept(paste: Paste) -> None:
    written = paste(bare_host(slurm_conf="/opt/slurm/slurm.conf")).files["config.json"]
    assert json.loads(written)["slurmConf"] == "/opt/slurm/slurm.conf"


def test_a_node_of_each_kind_is_named_for_its_topology(paste: Paste) -> None:
    nodes = (node("a1", cpus=8), node("a2", cpus=8), node("b1", cpus=128))
    text = paste(of_slurm(bare_host(), nodes=nodes)).text
    assert "#     cc-slurm-adapter -topology\n#     a1 and 1 other with 8 CPUs\n#     b1 with 128 CPUs\n" in text


def test_a_folder_that_is_there_keeps_its_mode(paste: Paste, tmp_path: Path) -> None:
    there = tmp_path / "of a person"
    missing = there / "x"
    there.mkdir(mode=0o700)
    assert [each for each in paste(bare_host(config_path=f"{there}/c.json")).commands if str(there) in each] == [
        f"install -m 0640 -g slurm /dev/stdin {there}/c.json",
        f"cc-slurm-adapter -check -config {there}/c.json",
        f"{AS_DAEMON} -dry-run -config {there}/c.json",
    ]
    assert f"install -d -m 0755 {missing}" in paste(bare_host(config_path=f"{missing}/c.json")).commands


# --- hooks


def with_hooks(hooks: Hooks, *gaps: Gap) -> Host:
    return of_slurm(installed_host(), config=cluster(hooks=replace(hooks, controllers=("ctl1",))), gaps=gaps)


def test_hooks_of_another_program_are_kept_and_call_this_one(paste: Paste) -> None:
    gaps = [
        f"/etc/slurm/{name}.sh ({key}) does not call cc-slurm-adapter"
        for name, key in (("prolog", "PrologSlurmctld"), ("epilog", "EpilogSlurmctld"))
    ]
    host = with_hooks(Hooks(("/etc/slurm/prolog.sh",), ("/etc/slurm/epilog.sh",)), *map(Gap, gaps))
    pasted = paste(host)
    assert ignored_blocks(pasted.text) == [f"{PROGRAM}\n"] * 2
    assert [state.partition(". Keep it")[0] for state in pasted.state("hooks")] == gaps
    assert not any(command.startswith("scontrol") for command in pasted.commands)


def test_one_hook_of_another_program_and_one_that_is_not_set(paste: Paste) -> None:
    gap = "/etc/slurm/prolog.sh (PrologSlurmctld) does not call cc-slurm-adapter"
    pasted = paste(with_hooks(Hooks(("/etc/slurm/prolog.sh",)), Gap(gap), Gap("EpilogSlurmctld is not set")))
    assert sorted(ignored_blocks(pasted.text)) == [f"{PROGRAM}\n", f"EpilogSlurmctld={PROGRAM}\n"]


def test_hooks_that_name_this_program_are_done_although_it_is_not_there_yet(paste: Paste) -> None:
    host = with_hooks(
        Hooks((PROGRAM,), (PROGRAM,)), Gap(f"{PROGRAM} (PrologSlurmctld) does not exist", missing=PROGRAM)
    )
    pasted = paste(host)
    assert ignored_blocks(pasted.text) == []
    assert pasted.state("hooks") == ["slurm.conf has them, as far as can be seen from here"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (cluster(hooks=Hooks(prolog=("/etc/p",), controllers=("ctl1",))), "The nodes call /etc/p. If that calls"),
        (cluster(version="22.05.8"), "only after a restart"),
        (cluster(hooks=Hooks(controllers=("ctl1", "ctl2"))), "on each of these hosts: ctl1, ctl2"),
    ],
)
def test_what_a_site_has_to_know_about_its_hooks(config: ClusterConfig, said: str, paste: Paste) -> None:
    assert said in paste(of_slurm(bare_host(), config=config)).text
    assert said not in paste(bare_host()).text


# --- other sites


def test_without_slurm_the_rest_is_printed(paste: Paste) -> None:
    host = bare_host(slurm=SlurmSite(failure="scontrol is not in PATH"), slurm_folder="", has_slurm_user=False)
    pasted = paste(host)
    assert "# Slurm cannot be asked: scontrol is not in PATH\n" in pasted.text
    assert pasted.state("rights in Slurm") == ["they are not known: Slurm cannot be asked"]
    assert "sacctmgr -i modify user cc-slurm-adapter set adminlevel=operator" in pasted.text
    assert ignored_blocks(pasted.text) == [f"PrologSlurmctld={PROGRAM}\nEpilogSlurmctld={PROGRAM}\n"]
    assert "Add only those that are not set." in pasted.text


def test_without_systemd_folders_are_made_and_the_daemon_is_started_by_hand(paste: Paste) -> None:
    pasted = paste(bare_host(unit=Unit(DEFAULT_UNIT, "no systemd", has_systemd=False)))
    assert "install -d -m 0770 -o cc-slurm-adapter -g slurm /run/cc-slurm-adapter/events" in pasted.commands
    assert pasted.commands[-3:] == [f"{AS_DAEMON} -check", f"{AS_DAEMON} -dry-run", f"{AS_DAEMON} -daemon"]
    assert not any(command.startswith("system") for command in pasted.commands)
    assert pasted.files.keys() == {"config.json"}


def test_without_slurmdbd_there_are_no_rights_to_grant(paste: Paste) -> None:
    pasted = paste(of_slurm(bare_host(), config=cluster(has_accounting=False)))
    assert not any("sacctmgr" in command for command in pasted.commands)


@pytest.mark.parametrize(
    ("level", "command"),
    [
        (None, "sacctmgr -i add user cc-slurm-adapter account=root adminlevel=operator"),
        ("None", "sacctmgr -i modify user cc-slurm-adapter set adminlevel=operator"),
        ("Operator", ""),
        ("Administrator", ""),
    ],
)
def test_rights_are_granted_as_accounting_knows_the_user(level: str | None, command: str, paste: Paste) -> None:
    pasted = paste(of_slurm(installed_host(), level=level))
    assert [each for each in pasted.commands if each.startswith("sacctmgr")] == ([command] if command else [])


def test_another_group_and_another_place_of_slurm_are_beside_the_unit(paste: Paste) -> None:
    pasted = paste(bare_host(group="hpc", slurm_folder="/opt/slurm/bin"))
    assert pasted.files["site.conf"] == "[Service]\nGroup=hpc\nEnvironment=PATH=/opt/slurm/bin:/usr/bin:/bin\n"
    assert pasted.files["cc-slurm-adapter.service"] == UNIT_TEXT
    active = [line for line in pasted.files["cc-slurm-adapter.conf"].splitlines() if line.startswith("d ")]
    assert [line.split()[3:5] for line in active] == [["cc-slurm-adapter", "hpc"]] * 2
    assert f"install -m 0640 -g hpc /dev/stdin {DEFAULT_CONFIG_PATH}" in pasted.commands


def test_a_group_that_is_missing_is_made_before_a_file_gets_it(paste: Paste) -> None:
    pasted = paste(of_slurm(bare_host(has_group=False), config=cluster(slurm_user="root")))
    programs = [command.split()[0] for command in pasted.commands]
    assert "groupadd --system slurm" in pasted.commands
    assert programs.index("groupadd") < pasted.commands.index(
        f"install -m 0640 -g slurm /dev/stdin {DEFAULT_CONFIG_PATH}"
    )
    assert "site.conf" not in pasted.files
    assert "groupadd" not in " ".join(paste(bare_host(has_group=False, has_slurm_user=False)).commands)


def test_a_unit_that_fits_needs_nothing_beside_it(paste: Paste) -> None:
    properties = {
        "LoadState": ["loaded"],
        "User": ["cc-slurm-adapter"],
        "Group": ["hpc"],
        "Environment": ["PATH=/opt/slurm/bin:/usr/bin"],
    }
    host = installed_host(group="hpc", slurm_folder="/opt/slurm/bin", unit=Unit(DEFAULT_UNIT, properties=properties))
    assert "site.conf" not in paste(host).files


def test_another_configuration_is_named_everywhere(paste: Paste) -> None:
    pasted = paste(bare_host(config_path="/home/a b/100%.json"))
    assert "install -m 0640 -g slurm /dev/stdin /home/a b/100%.json" in pasted.commands
    assert "cc-slurm-adapter -check -config /home/a b/100%.json" in pasted.commands
    lines = pasted.files["site.conf"].splitlines()
    assert lines[1:3] == ["ProtectHome=read-only", "ExecStart="]
    assert lines[3:] == [f'ExecStart={PROGRAM} -daemon -config "/home/a b/100%%.json" -debug 2']
    shown = f"{{ path={PROGRAM} ; argv[]={PROGRAM} -daemon -config /home/a b/100%.json -debug 2 ; ignore_errors=no }}"
    unit = Unit(DEFAULT_UNIT, properties={**STRICT, "ProtectHome": ["read-only"], "ExecStart": [shown]})
    assert "site.conf" not in paste(installed_host(config_path="/home/a b/100%.json", unit=unit)).files


def test_files_that_differ_are_compared_and_not_replaced(paste: Paste) -> None:
    host = installed_host(unit_state=FileState.OTHER, tmpfiles_state=FileState.OTHER)
    pasted = paste(host)
    assert [command.split()[0] for command in pasted.commands] == ["diff", "diff", "cc-slurm-adapter", "runuser"]
    assert pasted.files == {}


def test_another_version_of_the_program_is_replaced(paste: Paste) -> None:
    pasted = paste(installed_host(program="/root/new one", program_state=FileState.OTHER))
    assert pasted.commands[:2] == [f"install -m 0755 /root/new one {PROGRAM}.new", f"mv -f {PROGRAM}.new {PROGRAM}"]


def test_what_others_have_written_never_becomes_a_command(paste: Paste) -> None:
    evil = "x\nscontrol shutdown\nEND\nscontrol shutdown; $(scontrol shutdown) `scontrol shutdown`"
    site = cluster(cluster=evil, version=evil, slurm_user=evil, hooks=Hooks((evil,), controllers=(evil,)))
    slurm = SlurmSite(
        site,
        nodes=(node(evil, 1, evil), node("a", 2, evil)),
        gaps=[Gap(f"{evil} (PrologSlurmctld)")],
        level_failure=evil,
        is_controller=False,
    )
    for host in (
        bare_host(slurm=slurm, group=evil, machine=evil, slurm_conf=evil, user=evil, slurm_folder=f"/{evil}"),
        bare_host(slurm=SlurmSite(failure=evil), program=evil, config_path=f"/{evil}", token=evil),
        installed_host(config_failure=evil, slurm=replace(slurm, nodes_failure=evil)),
    ):
        commands = paste(host).commands
        assert [each for each in commands if each.startswith("scontrol ")] in (["scontrol reconfigure"], [])


# --- folders and files of the daemon


def missing(path: str, *keys: str) -> OwnFolder:
    return OwnFolder(path, keys)


def of_another(path: str, *keys: str, stranger: str = "", files: Sequence[str] = ()) -> OwnFolder:
    return OwnFolder(path, keys, Presence.THERE, Barrier(path, "root", "root", 0o755), stranger, tuple(files))


STRICT = {
    "LoadState": ["loaded"],
    "User": ["cc-slurm-adapter"],
    "Group": ["slurm"],
    "ProtectSystem": ["strict"],
    "RuntimeDirectory": ["cc-slurm-adapter"],
    "StateDirectory": ["cc-slurm-adapter"],
}


def test_folders_of_the_configuration_are_made_and_the_unit_lets_the_daemon_write_there(paste: Paste) -> None:
    folders = [missing("/srv/a b", "lastRunPath", "statePath"), missing("/srv/events", "prepEventsPath")]
    pasted = paste(bare_host(folders=folders))
    owned = "-o cc-slurm-adapter -g slurm"
    assert f"install -d -m 0750 {owned} /srv/a b" in pasted.commands
    assert f"install -d -m 0770 {owned} /srv/events" in pasted.commands
    assert pasted.files["site.conf"] == '[Service]\nReadWritePaths="/srv/a b"\nReadWritePaths=/srv/events\n'
    assert "/srv/a b (lastRunPath, statePath) is missing" in pasted.state("folders")
    there = [each._replace(presence=Presence.THERE) for each in folders]
    assert not any("/srv" in command for command in paste(bare_host(folders=there)).commands)


@pytest.mark.parametrize(("allowed", "is_done"), [("", False), ("/srv/state", True), ("/srv", True)])
def test_a_unit_that_lets_the_daemon_write_needs_no_more(allowed: str, paste: Paste, *, is_done: bool) -> None:
    unit = Unit(DEFAULT_UNIT, properties={**STRICT, "ReadWritePaths": [allowed] if allowed else []})
    pasted = paste(installed_host(unit=unit, folders=[missing("/srv/state", "lastRunPath")]))
    assert ("site.conf" not in pasted.files) == is_done


def test_a_folder_below_those_of_the_unit_needs_no_line(paste: Paste) -> None:
    pasted = paste(bare_host(folders=[missing("/var/lib/cc-slurm-adapter/x", "lastRunPath")]))
    assert "site.conf" not in pasted.files
    assert "install -d -m 0750 -o cc-slurm-adapter -g slurm /var/lib/cc-slurm-adapter/x" in pasted.commands


GIVEN = ["chown -R cc-slurm-adapter:slurm /srv/state", "chmod u+rwx,g+x /srv/state"]


def test_a_folder_of_another_user_is_given_to_the_daemon_s(paste: Paste) -> None:
    folder = of_another("/srv/state", "lastRunPath", files=["/srv/state/lastrun"])
    given = paste(bare_host(folders=[folder])).commands
    assert [each for each in given if each.startswith("ch")] == GIVEN
    assert given.index(GIVEN[0]) < given.index("cc-slurm-adapter -check")
    files = [each for each in paste(bare_host(folders=[folder._replace(barrier=None)])).commands if "/srv" in each]
    assert files == ["chown -h cc-slurm-adapter:slurm /srv/state/lastrun", "chmod u+rw /srv/state/lastrun"]


def test_a_folder_is_not_given_away_while_another_daemon_uses_it(paste: Paste) -> None:
    folder = of_another("/srv/state", "lastRunPath")
    assert not set(GIVEN) & set(paste(bare_host(folders=[folder], running=existing(os.getpid()))).commands)
    ended = paste(bare_host(folders=[folder], running=existing(GONE, "old.service")))
    stop, start = "systemctl disable --now old.service", "systemctl enable --now cc-slurm-adapter"
    assert ended.commands[-4:] == [stop, *GIVEN, start]
    assert "# It is given away at the end, when the daemon that uses it has ended.\n" in ended.text


def test_a_folder_that_others_use_is_left_to_them(paste: Paste) -> None:
    pasted = paste(bare_host(folders=[of_another("/run", "pidFilePath", stranger="lock")]))
    assert not any("/run" in command.split() for command in pasted.commands)
    assert "site.conf" not in pasted.files
    (state,) = [each for each in pasted.state("folders") if each.startswith("/run (pidFilePath): ")]
    assert "it holds lock" in state
    assert f"# Set pidFilePath in {DEFAULT_CONFIG_PATH}\n# to a path in /run/cc-slurm-adapter" in pasted.text
    assert "cp -p" not in pasted.text
    folder = of_another("/opt/a", "lastRunPath", "statePath", stranger="b")
    moved = paste(bare_host(folders=[folder], config=config_of(lastRunPath="/opt/a/lastrun")))
    assert "# Copy /opt/a/lastrun there with its time (cp -p), since the daemon goes on from that time.\n" in moved.text
    assert "it is one of the system" in paste(bare_host(folders=[of_another("/srv", "lastRunPath")])).text


def test_folders_in_memory_are_made_again_at_each_boot(paste: Paste) -> None:
    folders = [missing("/run/x", "pidFilePath")]
    pasted = paste(bare_host(folders=folders, boot_state=FileState.MISSING))
    assert pasted.files["cc-slurm-adapter-site.conf"] == "d /run/x 0750 cc-slurm-adapter slurm -\n"
    assert "systemd-tmpfiles --create /etc/tmpfiles.d/cc-slurm-adapter-site.conf" in pasted.commands
    other = paste(bare_host(folders=folders, boot_state=FileState.OTHER))
    assert "diff -u /etc/tmpfiles.d/cc-slurm-adapter-site.conf -" in other.commands
    same = paste(bare_host(folders=folders, boot_state=FileState.SAME))
    assert not any("site.conf" in command for command in same.commands if "service.d" not in command)


def test_the_usual_folder_of_events_is_not_made_beside_another(paste: Paste) -> None:
    """The daemon would warn of it."""
    config = config_of(prepEventsPath="/srv/events", lastRunPath="/srv/state/lastrun")
    unit = Unit(DEFAULT_UNIT, "no systemd", has_systemd=False)
    host = bare_host(config=config, unit=unit, folders=[missing("/srv/events", "prepEventsPath")])
    pasted = paste(host)
    owned = "-o cc-slurm-adapter -g slurm"
    assert [each for each in pasted.commands if each.startswith("install -d") and owned in each] == [
        f"install -d -m 0750 {owned} /run/cc-slurm-adapter",
        f"install -d -m 0770 {owned} /srv/events",
    ]
    assert f": remove prepEventsPath from {DEFAULT_CONFIG_PATH}" in pasted.text


def test_relative_paths_are_to_be_written_whole(paste: Paste) -> None:
    pasted = paste(installed_host(config=config_of(pidFilePath="run/pid")))
    assert any(each.startswith("pidFilePath, controlSockPath: ") for each in pasted.state("folders"))


def test_lines_beside_the_unit_are_added_to_those_that_are_there(paste: Paste) -> None:
    host = bare_host(group="hpc", slurm_folder="/opt/slurm/bin", drop_in=["[Service]", "Nice=5", "Group=hpc"])
    pasted = paste(host)
    assert "site.conf" not in pasted.files
    assert "Environment=PATH=/opt/slurm/bin:/usr/bin:/bin\n" in ignored_blocks(pasted.text)
    complete = paste(bare_host(group="hpc", drop_in=["[Service]", "Group=hpc"]))
    assert any("systemd has not read it" in each for each in complete.state("what differs here"))
    assert "systemctl daemon-reload" in complete.commands


def test_the_folder_of_the_token_is_made(paste: Paste) -> None:
    made = "install -d -m 0755 /nowhere/cc"
    elsewhere = bare_host(config_path="/nowhere/conf/config.json", token="/nowhere/cc/token")
    commands = paste(elsewhere).commands
    assert commands.index(made) < commands.index("install -m 0600 -o cc-slurm-adapter token.txt /nowhere/cc/token")
    beside = paste(bare_host(config_path="/nowhere/cc/config.json", token="/nowhere/cc/token"))
    assert beside.commands.count(made) == 1


CLOSED = {"config_barrier": Barrier(DEFAULT_CONFIG_PATH, "root", "root", 0o600)}
TOKEN_PATH = MINIMAL["ccRestJwtFile"]


def test_a_configuration_that_the_daemon_s_user_may_not_read_is_not_done(paste: Paste) -> None:
    pasted = paste(installed_host(**CLOSED))
    (state,) = pasted.state("configuration")
    assert state == f"{DEFAULT_CONFIG_PATH} exists already, but cc-slurm-adapter may not read it"
    assert "# It belongs to root:root (mode 0600).\n" in pasted.text
    assert pasted.commands[:2] == [f"chgrp slurm {DEFAULT_CONFIG_PATH}", f"chmod g+r {DEFAULT_CONFIG_PATH}"]
    lacking = paste(of_slurm(installed_host(**CLOSED), nodes=(node("gpu1", 2, "2 gpu:a"),)))
    assert lacking.commands[:2] == pasted.commands[:2]
    assert len(lacking.state("configuration")) == 2
    own = installed_host(config_barrier=Barrier(DEFAULT_CONFIG_PATH, "cc-slurm-adapter", "slurm", 0o040))
    assert paste(own).commands[0] == f"chmod u+r {DEFAULT_CONFIG_PATH}"


def test_a_token_that_the_daemon_s_user_may_not_read_is_not_done(paste: Paste) -> None:
    pasted = paste(installed_host(token_barrier=Barrier(TOKEN_PATH, "admin", "staff", 0o400)))
    assert "but cc-slurm-adapter may not read it" in pasted.state("token")[0]
    assert "# It belongs to admin:staff (mode 0400).\n" in pasted.text
    assert pasted.commands[:2] == [f"chown cc-slurm-adapter {TOKEN_PATH}", f"chmod u+r {TOKEN_PATH}"]


def test_only_the_folder_of_the_file_itself_is_opened(paste: Paste) -> None:
    folder = str(Path(TOKEN_PATH).parent)
    closed = Barrier(folder, "root", "root", 0o700)
    opened = paste(installed_host(token_barrier=closed))
    assert opened.commands[:2] == [f"chgrp slurm {folder}", f"chmod g+x {folder}"]
    assert f"# {folder} belongs to root:root (mode 0700).\n" in opened.text
    home = installed_host(token="/root/token", token_barrier=Barrier("/root", "root", "root", 0o700))
    pasted = paste(home)
    assert not any(each.startswith("ch") for each in pasted.commands)
    assert "or let cc-slurm-adapter pass through /root.\n" in pasted.text


# --- hooks that cannot be called


def test_a_hook_that_does_not_exist_is_not_to_be_kept(paste: Paste) -> None:
    gap = Gap(f"/x/y (PrologSlurmctld) does not exist{ENDS_SLURMCTLD}", missing="/x/y")
    pasted = paste(with_hooks(Hooks(("/x/y",), (PROGRAM,)), gap))
    assert pasted.state("hooks") == ["/x/y does not exist (PrologSlurmctld)"]
    assert "Keep it" not in pasted.text
    assert "# A newer slurmctld does not start with this" in pasted.text
    assert ignored_blocks(pasted.text) == [f"PrologSlurmctld={PROGRAM}\n"]


def test_one_file_that_is_missing_as_both_hooks_is_named_once(paste: Paste) -> None:
    gaps = [
        Gap(f"/x/y ({key}) does not exist{ENDS_SLURMCTLD}", missing="/x/y")
        for key in ("PrologSlurmctld", "EpilogSlurmctld")
    ]
    pasted = paste(with_hooks(Hooks(("/x/y",), ("/x/y",)), *gaps))
    assert pasted.state("hooks") == ["/x/y does not exist (PrologSlurmctld, EpilogSlurmctld)"]
    assert ignored_blocks(pasted.text) == [f"PrologSlurmctld={PROGRAM}\nEpilogSlurmctld={PROGRAM}\n"]


def test_a_hook_that_is_not_executable_is_made_so(paste: Paste) -> None:
    gap = Gap(f"/x/y (EpilogSlurmctld) is not executable for slurm{ENDS_SLURMCTLD}", forbidden="/x/y")
    pasted = paste(with_hooks(Hooks((PROGRAM,), ("/x/y", PROGRAM)), gap))
    assert pasted.state("hooks") == ["/x/y is not executable for slurm (EpilogSlurmctld)"]
    assert "chmod a+rx /x/y" in pasted.commands
    assert "Keep it" not in pasted.text


# --- daemons that run, and the start


def existing(pid: int, unit: str = "", locked: str = "", user: str = "root") -> Running:
    return Running(pid, user, "/usr/bin/cc-slurm-adapter -daemon", unit, locked, "/run/cc-slurm-adapter/daemon.pid")


GONE = 2**22 + 1
"""No process has this id: it is above the highest that Linux allows."""


def test_the_existing_adapter_is_stopped_before_the_start(paste: Paste) -> None:
    pasted = paste(bare_host(running=existing(GONE, "old.service")))
    assert pasted.state("daemon") == [f"one runs already: the process {GONE} of root, started by old.service"]
    assert "Never run both: docs/migrating.md" in pasted.text
    assert pasted.commands[-4:] == [
        "cc-slurm-adapter -check",
        f"{AS_DAEMON} -dry-run",
        "systemctl disable --now old.service",
        "systemctl enable --now cc-slurm-adapter",
    ]


def test_nothing_is_started_beside_a_daemon_that_no_service_runs(paste: Paste) -> None:
    pasted = paste(bare_host(running=existing(os.getpid())))
    assert f"# End the daemon that runs now, as with: kill {os.getpid()}\n" in pasted.text
    assert pasted.commands[-1] == f"{AS_DAEMON} -dry-run"
    assert paste(bare_host(running=existing(GONE))).commands[-1] == "systemctl enable --now cc-slurm-adapter"


def test_the_existing_adapter_in_a_unit_of_the_same_name(paste: Paste) -> None:
    unit = Unit(DEFAULT_UNIT, properties={"LoadState": ["loaded"], "ActiveState": ["active"]})
    running = existing(GONE, DEFAULT_UNIT)
    other = {"unit_state": FileState.OTHER, "program_state": FileState.OTHER}
    pasted = paste(installed_host(unit=unit, running=running, **other))
    assert f"# To be able to go back, keep what is there: cp -p {PROGRAM} {PROGRAM}.before\n" in pasted.text
    assert "Its unit has the same name: keep a copy, and replace it now" in pasted.text
    assert pasted.commands[-2:] == ["systemctl stop cc-slurm-adapter", "systemctl enable --now cc-slurm-adapter"]


def test_a_daemon_that_runs_as_root_is_called_as_root(paste: Paste) -> None:
    assert paste(installed_host(user="root")).commands == ["cc-slurm-adapter -check", "cc-slurm-adapter -dry-run"]


def test_a_daemon_of_this_program_by_hand_is_named(paste: Paste) -> None:
    locked = "/run/cc-slurm-adapter/daemon.pid"
    pasted = paste(installed_host(running=existing(GONE, locked=locked)))
    assert f"It is a daemon of this program, since it has locked {locked}." in pasted.text
    own = existing(os.getpid(), DEFAULT_UNIT, locked, "cc-slurm-adapter")
    assert paste(installed_host(running=own)).state("daemon") == []


@pytest.mark.parametrize(
    ("before", "settings", "said"),
    [
        (Before(), {}, "The first start also reports the jobs that ended in the last seven days."),
        (
            Before(),
            {"slurmQueryMaxSpan": 3 * 86400},
            "The first start also reports the jobs that ended in the last 3 d.",
        ),
        (Before(last_run=1.8e9), {}, "The first start also reports the jobs that ended after 2027-01-1"),
        (Before(Presence.UNSEEN), {}, "If it has never run here, the first start also reports the jobs that ended"),
        (Before(Presence.THERE, 1.8e9), {}, ""),
    ],
)
def test_what_the_first_start_reports_is_said_before_a_first_start(
    before: Before, settings: dict[str, int], said: str, paste: Paste
) -> None:
    text = paste(bare_host(before=before, config=config_of(**settings))).text
    assert (f"# {said}" in text) if said else ("first start" not in text)
    unaccounted = of_slurm(bare_host(before=before), config=cluster(has_accounting=False))
    assert "first start also" not in paste(unaccounted).text


def test_a_dry_run_without_its_token_is_left_out(paste: Paste) -> None:
    pasted = paste(installed_host(config=config_of(ccRestJwtFile="credential"), token=""))
    assert pasted.commands == ["cc-slurm-adapter -check"]
    assert "# -dry-run is left out: it cannot read what is a credential of the unit.\n" in pasted.text


# --- one of several clusters


TEMPLATE_TEXT = (build.ROOT / "examples/cc-slurm-adapter@.service").read_text(encoding="utf-8")
BETA, BETA_UNIT = "/etc/cc-slurm-adapter/beta.json", "cc-slurm-adapter@beta.service"


def beta_host(host: Callable[..., Host] = bare_host, **changes: object) -> Host:
    """A host of a second cluster, which is called beta."""
    unit = Unit(BETA_UNIT, properties={"LoadState": ["not-found"]})
    given = {"unit": unit, "slurm_conf": "/srv/beta/slurm.conf", "config_path": BETA, **changes}
    return host(places=Places().of_unit(unit), **given)


def test_one_of_several_clusters_gets_an_instance_of_the_template(paste: Paste) -> None:
    pasted = paste(beta_host())
    assert pasted.files["cc-slurm-adapter@.service"] == TEMPLATE_TEXT
    assert {*pasted.files} == {"beta.json", "cc-slurm-adapter.conf", "cc-slurm-adapter@.service"}
    assert "install -m 0644 /dev/stdin /etc/systemd/system/cc-slurm-adapter@.service" in pasted.commands
    assert pasted.commands[-3:] == [
        f"cc-slurm-adapter -check -config {BETA}",
        f"{AS_DAEMON} -dry-run -config {BETA}",
        "systemctl enable --now cc-slurm-adapter@beta",
    ]


def test_its_configuration_is_that_of_the_example_with_its_name(paste: Paste) -> None:
    assert json.loads(paste(beta_host()).files["beta.json"]) == {
        "ccRestUrl": NO_URL,
        "ccRestJwtFile": "/etc/cc-slurm-adapter/token",
        "slurmConf": "/srv/beta/slurm.conf",
        "pidFilePath": "/run/cc-slurm-adapter/beta/daemon.pid",
        "prepSockListenPath": "/run/cc-slurm-adapter/beta/daemon.sock",
        "lastRunPath": "/var/lib/cc-slurm-adapter/beta/lastrun",
    }


def test_its_commands_of_slurm_are_for_its_cluster(paste: Paste) -> None:
    text = paste(beta_host()).text
    assert "\nSLURM_CONF=/srv/beta/slurm.conf scontrol reconfigure\n" in text
    assert "\nSLURM_CONF=/srv/beta/slurm.conf sacctmgr -i add user cc-slurm-adapter " in text
    assert "SLURM_CONF=" not in paste(bare_host(slurm_conf="/srv/beta/slurm.conf")).text


def test_what_its_host_needs_is_beside_the_template(paste: Paste) -> None:
    pasted = paste(beta_host(group="hpc"))
    assert pasted.files["site.conf"] == "[Service]\nGroup=hpc\n"
    assert "install -m 0644 /dev/stdin /etc/systemd/system/cc-slurm-adapter@.service.d/site.conf" in pasted.commands


RUNNING_BETA = Unit(BETA_UNIT, properties={"LoadState": ["loaded"], "ActiveState": ["active"], "Group": ["slurm"]})


def test_where_its_daemon_runs_nothing_is_left_but_looking(paste: Paste) -> None:
    own = existing(os.getpid(), BETA_UNIT, "/run/cc-slurm-adapter/beta/daemon.pid", "cc-slurm-adapter")
    pasted = paste(beta_host(installed_host, unit=RUNNING_BETA, running=own))
    assert [command.split()[0] for command in pasted.commands] == ["cc-slurm-adapter", "runuser"]
    assert "After a change: systemctl restart cc-slurm-adapter@beta\n" in pasted.text
    assert pasted.state("daemon") == []


def test_its_daemon_of_another_user_is_stopped_by_its_name(paste: Paste) -> None:
    other = existing(GONE, BETA_UNIT, "/run/cc-slurm-adapter/beta/daemon.pid")
    pasted = paste(beta_host(installed_host, unit=RUNNING_BETA, running=other))
    stop, start = "systemctl stop cc-slurm-adapter@beta", "systemctl enable --now cc-slurm-adapter@beta"
    assert pasted.commands[-2:] == [stop, start]


@pytest.mark.parametrize("unit", [DEFAULT_UNIT, "cc-slurm-adapter@alpha.service"])
def test_the_daemon_of_another_cluster_is_never_stopped(unit: str, paste: Paste) -> None:
    """It is found if a configuration names its files by mistake."""
    pasted = paste(beta_host(running=existing(GONE, unit, "/run/cc-slurm-adapter/daemon.pid")))
    assert not any(re.match("systemctl (stop|disable|enable)", command) for command in pasted.commands)
    assert f"It is the daemon of another cluster, and {BETA} names files that are its own.\n" in pasted.text


def test_without_systemd_its_folders_are_made(paste: Paste) -> None:
    unit = Unit(BETA_UNIT, "no systemd", has_systemd=False)
    pasted = paste(beta_host(unit=unit, folders=[missing("/run/cc-slurm-adapter/beta", "pidFilePath")]))
    assert "install -d -m 0750 -o cc-slurm-adapter -g slurm /run/cc-slurm-adapter/beta" in pasted.commands
    assert pasted.commands[-1] == f"{AS_DAEMON} -daemon -config {BETA}"

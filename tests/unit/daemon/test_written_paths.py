"""The list of what the program writes, against the unit, docs/operating.md and the code."""

from __future__ import annotations

import configparser
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH
from cc_slurm_adapter.config.keys import SETTINGS
from cc_slurm_adapter.daemon.written_paths import (
    WRITTEN_PATHS,
    folders,
    keys_of_folders,
    lasting_files,
    patterns,
    state_folders,
)
from cc_slurm_adapter.system.event_files import marker_name
from cc_slurm_adapter.system.own_files import SHARED_FOLDER

ROOT = Path(__file__).parents[3]
NEEDED = {"ccRestUrl": "https://cc.example.org", "ccRestJwt": "token"}
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


def unit() -> configparser.SectionProxy:
    """[Service] of the example."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((ROOT / "examples" / "cc-slurm-adapter.service").read_text(encoding="utf-8"))
    return parser["Service"]


def test_the_unit_lets_the_daemon_write_all_of_its_default_paths() -> None:
    service = unit()
    allowed = [f"/run/{name}" for name in service["RuntimeDirectory"].split()]
    allowed += [f"/var/lib/{name}" for name in service["StateDirectory"].split()]
    allowed += [path.lstrip("-+") for path in service.get("ReadWritePaths", "").split()]
    config, _ = parse_config(NEEDED)
    for folder in folders(config):
        assert any(Path(folder) == Path(path) or Path(path) in Path(folder).parents for path in allowed), folder


def test_the_events_folder_is_made_at_boot_and_stays_while_the_daemon_is_stopped() -> None:
    service = unit()
    lines = (ROOT / "examples" / "cc-slurm-adapter.tmpfiles").read_text(encoding="utf-8").splitlines()
    made = [line.split() for line in lines if line.startswith("d ")]
    owner = (service["User"], service["Group"])
    assert {(path, mode, *names) for _, path, mode, *names, _ in made} == {
        ("/run/" + service["RuntimeDirectory"], service["RuntimeDirectoryMode"], *owner),
        (DEFAULT_EVENTS_PATH, f"{SHARED_FOLDER:04o}", *owner),
    }
    assert service["RuntimeDirectoryPreserve"] == "yes"
    (kept,) = (line.split()[1] for line in lines if line.startswith("x "))
    for cluster in ("mycluster", ""):
        assert fnmatchcase(f"{DEFAULT_EVENTS_PATH}/{marker_name(cluster)}", kept)
    assert not fnmatchcase(f"{DEFAULT_EVENTS_PATH}/1.prolog_slurmctld.lab.1", kept)
    assert "examples/cc-slurm-adapter.tmpfiles /etc/tmpfiles.d/cc-slurm-adapter.conf" in INSTALL


def test_what_is_removed_is_all_that_was_installed_and_all_that_is_written() -> None:
    """By the names of step 1 to 4, and by the default paths."""
    installation, uninstalling = INSTALL.split("\n## Uninstalling\n")
    commands = re.findall(r"^(?:install|mv) .*$", installation, re.MULTILINE)
    made = {command.split()[-1].removesuffix(".new") for command in commands}
    assert len(made) >= 5
    config, _ = parse_config(NEEDED)
    removed = {
        Path(path) for line in re.findall(r"^rm -r?f (.*)$", uninstalling, re.MULTILINE) for path in line.split()
    }
    for path in map(Path, sorted(made | set(patterns(config)))):
        assert removed & {path, *path.parents}, path
    assert uninstalling.index("scontrol reconfigure") < uninstalling.index("rm -f /usr/local/sbin/cc-slurm-adapter")
    for undone in ("systemctl disable --now", "userdel", "sacctmgr -i remove user"):
        assert f"\n{undone} cc-slurm-adapter\n" in uninstalling


def test_every_path_is_listed_and_no_other() -> None:
    table = OPERATING.split("\n## Files\n")[1].split("\n## ")[0]
    listed = {
        name for cell in re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)
    }
    expected = {written.setting for written in WRITTEN_PATHS}
    expected |= {
        name.removesuffix("*") for written in WRITTEN_PATHS for name in written.names if name.removesuffix("*")
    }
    assert {name.removesuffix("*") for name in listed} == expected


def test_every_setting_that_names_something_written_is_one() -> None:
    keys = {setting.key for setting in SETTINGS}
    assert {written.setting for written in WRITTEN_PATHS} <= keys


def test_all_paths_follow_the_configuration() -> None:
    config, _ = parse_config(
        {
            **NEEDED,
            "pidFilePath": "/p/pid",
            "prepSockListenPath": "unix:/s/sock",
            "controlSockPath": "/c/control",
            "metricsListen": "/m/metrics",
            "lastRunPath": "/l/last",
            "statePath": "/d/db",
            "prepEventsPath": "/e/events",
        }
    )
    assert set(folders(config)) == {"/p", "/s", "/c", "/m", "/l", "/d", "/e", "/e/events"}
    assert state_folders(config) == ["/d", "/l"]
    for path in ("/p/pid", "/s/sock", "/l/last", "/d/db-wal", "/d/first-moment.new", "/e/events", "/e/events/.x.open"):
        assert any(fnmatchcase(path, pattern) for pattern in patterns(config)), path


@pytest.mark.parametrize("address", ["tcp::12345", "tcp:127.0.0.1:1"])
def test_a_tcp_address_writes_no_file(address: str) -> None:
    config, _ = parse_config(
        {**NEEDED, "prepSockListenPath": address, "metricsListen": address, "prepAllow": ["127.0.0.1"]}
    )
    assert all(path.startswith("/") for path in patterns(config))
    assert not any("12345" in path for path in patterns(config))


def test_folders_and_lasting_files_are_those_that_are_written() -> None:
    config, _ = parse_config({**NEEDED, "controlSockPath": "/srv/control/sock"})
    by_folder = keys_of_folders(config)
    assert set(by_folder) == set(folders(config)) - {DEFAULT_EVENTS_PATH}
    assert by_folder["/srv/control"] == ["controlSockPath"]
    assert set(by_folder["/var/lib/cc-slurm-adapter"]) == {"lastRunPath", "statePath"}
    files = lasting_files(config)
    assert {path for _, path in files} <= set(patterns(config))
    assert ("pidFilePath", config.pid_file_path) in files
    assert ("statePath", f"{config.state_path}-wal") in files

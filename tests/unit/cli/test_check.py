"""-check as a whole: its lines, its exit codes, that it changes nothing, and that one error hides nothing else."""

from __future__ import annotations

import errno
import json
import logging
import os
import pwd
import re
import socket
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NoReturn

import pytest

from cc_slurm_adapter.cli import check
from cc_slurm_adapter.cli.check import (
    FAILURES,
    WARNINGS,
    WELL,
    Group,
    Report,
    Site,
    as_object,
    check_site,
    line_of,
    lines_of,
    summary,
)
from cc_slurm_adapter.cli.main import run_command
from cc_slurm_adapter.cli.progress import QUIET
from cc_slurm_adapter.cli.time_limit import LONGEST, TimeLimit
from cc_slurm_adapter.daemon.checks.cc_backend import find_cc_backend
from cc_slurm_adapter.daemon.checks.unit import Unit
from cc_slurm_adapter.errors import OutputError
from cc_slurm_adapter.model import Finding
from tests.fakes.open_folders import open_to_all
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES

CLUSTER = FIXTURES / "slurm-24.11.5" / "cluster"
NOBODY = pwd.getpwnam("nobody")
GOOD = Finding(logging.INFO, "unit", "it runs")
ODD = Finding(logging.WARNING, "statePath", "statePath: is relative", "write an absolute path")
BAD = Finding(logging.ERROR, "slurmctld", "does not answer", "check it")
LINE = re.compile(r"(OK  |WARN|FAIL) \S.*")


# --- lines


def test_a_line_has_its_word_what_it_is_about_once_and_what_to_do() -> None:
    assert [line_of(each) for each in (GOOD, ODD, BAD)] == [
        "OK   unit: it runs",
        "WARN statePath: is relative -> write an absolute path",
        "FAIL slurmctld: does not answer -> check it",
    ]


def test_a_line_is_one_printable_line_whatever_is_found() -> None:
    line = line_of(Finding(logging.ERROR, "a\nb", "x\x1b[31m\ny\u202e" + "z" * 5000, "\r\n"))
    assert line.isprintable()
    assert len(line) < 3000


LONG = Finding(
    logging.ERROR,
    "statePath",
    "nobody may not write in /var/lib/cc-slurm-adapter/a/folder/with/a/very/long/name/that/no/terminal/has/room/for"
    " (statePath)",
    "run 'chown nobody /var/lib/cc-slurm-adapter', or give another path in the configuration of the daemon",
)


def test_on_a_terminal_a_long_line_is_wrapped_and_what_to_do_begins_a_line() -> None:
    assert lines_of(GOOD, 80) == [line_of(GOOD)]
    assert lines_of(BAD, 30) == ["FAIL slurmctld: does not", "     answer", "     -> check it"]
    assert lines_of(LONG, 80) == [
        "FAIL statePath: nobody may not write in",
        "     /var/lib/cc-slurm-adapter/a/folder/with/a/very/long/name/that/no/terminal/has/room/for",
        "     (statePath)",
        "     -> run 'chown nobody /var/lib/cc-slurm-adapter', or give another path in",
        "     the configuration of the daemon",
    ]


@pytest.mark.parametrize(("terminal", "lines"), [(True, 5), (False, 1)])
def test_only_a_terminal_gets_wrapped_lines_and_json_never_is(
    terminal: bool, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file or a pipe is read with grep."""
    monkeypatch.setattr(check, "is_terminal", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "80")
    Report(as_json=False).run(Group("x", lambda: [LONG]))
    assert len(capsys.readouterr().out.splitlines()) == lines
    report = Report(as_json=True)
    report.run(Group("x", lambda: [LONG]))
    report.end()
    assert json.loads(capsys.readouterr().out)["findings"][0]["text"] == LONG.text


def test_the_summary_counts() -> None:
    assert summary({"OK": 3, "WARN": 1, "FAIL": 2}) == "3 ok, 1 warning, 2 failures"


def test_the_object_has_every_finding_and_is_well_only_without_any_bad_one() -> None:
    assert as_object([GOOD, ODD]) == {
        "version": 1,
        "ok": False,
        "findings": [
            {"level": "OK", "subject": "unit", "text": "it runs", "nextStep": ""},
            {
                "level": "WARN",
                "subject": "statePath",
                "text": "statePath: is relative",
                "nextStep": "write an absolute path",
            },
        ],
    }
    assert as_object([GOOD])["ok"] is True


# --- the report


@pytest.mark.parametrize(
    ("findings", "code"), [([], WELL), ([GOOD], WELL), ([GOOD, ODD], WARNINGS), ([BAD, ODD, GOOD], FAILURES)]
)
def test_the_exit_code_is_that_of_the_worst(findings: list[Finding], code: int) -> None:
    report = Report(as_json=False)
    report.run(Group("x", lambda: findings))
    assert report.end() == code


def test_each_line_is_printed_as_soon_as_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def find() -> Iterator[Finding]:
        yield GOOD
        seen.append(capsys.readouterr().out)
        yield BAD

    Report(as_json=False).run(Group("x", find))
    assert seen == ["OK   unit: it runs\n"]


def test_an_error_of_one_group_is_a_finding_and_the_next_one_runs(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Iterator[Finding]:
        yield GOOD
        raise KeyError("surprise")

    report = Report(as_json=False)
    report.run(Group("files", fail))
    report.run(Group("unit", lambda: [GOOD]))
    assert report.end() == FAILURES
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("FAIL files: an error of this program: KeyError: 'surprise'")
    assert lines[2:] == ["OK   unit: it runs", "2 ok, 0 warnings, 1 failure"]


def test_output_that_cannot_be_written_ends_it() -> None:
    def fail() -> NoReturn:
        raise OutputError("standard output cannot be written")

    with pytest.raises(OutputError):
        Report(as_json=False).run(Group("x", fail))


def test_what_takes_long_is_said_less_and_less_often(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    report = Report(as_json=True, clock=lambda: now[0])

    def find() -> Iterator[Finding]:
        for second in range(60):
            now[0] = float(second)
            report.still_waits()
        yield GOOD

    report.run(Group("Slurm", find))
    out, err = capsys.readouterr()
    assert out == ""
    waited = [int(line.split("for ")[1].split()[0]) for line in err.splitlines()]
    assert waited == [QUIET, 2 * QUIET, 4 * QUIET, 8 * QUIET]
    assert "-check: Slurm: waiting for" in err


@pytest.mark.parametrize(
    ("terminal", "environ", "colored"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_whose_user_wants_them(
    terminal: bool,
    environ: dict[str, str],
    colored: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check, "is_terminal", lambda: terminal)
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    Report(as_json=False).run(Group("x", lambda: [BAD]))
    assert ("\x1b[31m" in capsys.readouterr().out) is colored


def test_in_the_journal_each_line_has_its_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, is_journal in (("journal", True), ("file", False)):
        with (tmp_path / name).open("w") as stream:
            status = os.fstat(stream.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + (not is_journal)}")
            monkeypatch.setattr(sys, "stdout", stream)
            Report(as_json=False).run(Group("x", lambda: [GOOD, ODD, BAD]))
    lines = [line_of(each) for each in (GOOD, ODD, BAD)]
    assert (tmp_path / "file").read_text().splitlines() == lines
    prefixes = ("<6>", "<4>", "<3>")  # info, warning and err of syslog(3)
    assert (tmp_path / "journal").read_text().splitlines() == [a + b for a, b in zip(prefixes, lines)]


# --- a whole site


class Host:
    """A host with a configuration and Slurm's commands, which print what was recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = FakePrograms(folder / "bin")
        version = 'if [ "$1" = --version ]; then echo slurm 24.11.5; exit; fi\n'
        self.programs.make(
            "squeue", f'{version}[ "$1" = --json=list ] && cat {CLUSTER / "squeue-json-list.txt"}; exit 0'
        )
        self.programs.make("scontrol", f"{version}cat {CLUSTER / 'scontrol-show-config.txt'}")
        self.programs.make("sinfo", version)
        self.programs.make("sacct", version)
        self.programs.make("sacctmgr", f'{version}echo "$4|Operator|"')
        sdiag = "echo \"sdiag output at today ($(date +%s))\"; echo 'DBD Agent queue size: 0'"
        self.programs.make("sdiag", version + sdiag)
        self.config = folder / "config.json"
        self.write({})
        (folder / "run").mkdir()
        (folder / "state").mkdir()

    def write(self, settings: dict[str, object] | str) -> None:
        """Write the configuration."""
        given = {
            "ccRestUrl": "http://127.0.0.1:1",
            "ccRestJwt": "very-secret-token",
            "pidFilePath": f"{self.folder}/run/daemon.pid",
            "prepSockListenPath": f"{self.folder}/run/daemon.sock",
            "prepSockConnectPath": f"{self.folder}/run/daemon.sock",
            "prepEventsPath": f"{self.folder}/run/events",
            "lastRunPath": f"{self.folder}/state/lastrun",
        }
        self.config.write_text(settings if isinstance(settings, str) else json.dumps({**given, **settings}))
        self.config.chmod(0o600)

    def snapshot(self) -> list[tuple[str, int, int, int]]:
        """Everything that there is, with its mode, owner and time."""
        found = []
        for path in sorted([self.folder, *self.folder.rglob("*")]):
            status = path.lstat()
            found.append((str(path), status.st_mode, status.st_uid, status.st_mtime_ns))
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs.folder}:/usr/bin:/bin")
    monkeypatch.setattr(check, "BOOTED", str(tmp_path / "no-systemd"))
    monkeypatch.setattr(check, "find_cc_backend", lambda *_: iter(()))  # nothing answers here
    return made


def run(host: Host, *flags: str) -> int:
    return run_command(["-check", "-config", str(host.config), *flags])


def test_everything_is_looked_at_a_line_each_and_nothing_is_changed(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    before = host.snapshot()
    code = run(host)
    out, err = capsys.readouterr()
    *lines, last = out.splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert re.fullmatch(r"\d+ ok, \d+ warnings?, 0 failures", last)
    assert code == WARNINGS
    for subject in (
        *("user", "configuration", "pidFilePath", "statePath", "slurmctld", "slurmdbd", "privileges", "rl_enable"),
        *("JSON format", "jobs", "nodes", "MinJobAge", "PrologFlags", "hooks", "events folder", "hook socket", "unit"),
    ):
        assert re.search(rf"^\S+ +{subject}: ", out, re.MULTILINE), subject
    assert "OK   slurmctld: answers for the cluster lab" in out
    assert lines[-1] == "OK   daemon: none runs now"
    assert "very-secret-token" not in out + err
    assert host.snapshot() == before


def test_json_is_one_object_with_the_same_findings(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    run(host)
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert run(host, "-json") == WARNINGS
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["ok"]) == (1, False)
    assert [each["level"] for each in found["findings"]] == [line.split()[0] for line in lines]
    assert all(set(each) == {"level", "subject", "text", "nextStep"} for each in found["findings"])


@pytest.mark.parametrize("settings", ["{", {"slurmPolInterval": 30}, {"ccRestUrl": 7, "stateMaxBytes": "much"}])
def test_a_broken_configuration_is_a_failure_and_the_rest_is_looked_at(
    host: Host, settings: dict[str, object] | str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write(settings)
    assert run(host) == FAILURES
    out = capsys.readouterr().out
    assert "slurmctld: answers for the cluster lab" in out
    assert "unit: " in out
    for key in settings if isinstance(settings, dict) else ():
        assert f"FAIL {key}: " in out


def test_a_token_that_is_a_credential_of_the_unit_is_no_failure(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "find_cc_backend", find_cc_backend)
    unit = Unit("cc-slurm-adapter.service", "it is not asked here", credentials=frozenset({"cc-token", "nats-creds"}))
    monkeypatch.setattr(check, "read_own_unit", lambda *_: unit)
    host.write({"ccRestJwtFile": "cc-token", "natsServer": "127.0.0.1:9", "natsCredsFile": "nats-creds"})
    assert run(host) == WARNINGS
    out = capsys.readouterr().out
    assert "OK   ccRestUrl: cc-backend is not asked: ccRestJwtFile" in out
    assert "OK   natsServer: NATS is not asked: natsCredsFile" in out


def test_a_configuration_that_is_not_there_is_a_failure_and_no_error_of_the_call(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the only one: Slurm is asked all the same, and nothing that would follow from it is said."""
    host.config.unlink()
    assert run(host) == FAILURES
    out, err = capsys.readouterr()
    (failure,) = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert failure.startswith(f"FAIL configuration: the configuration file {host.config} does not exist: ")
    assert failure.endswith(" -> cc-slurm-adapter -install prints one to begin with")
    assert "OK   slurmctld: answers for the cluster lab" in out
    assert not any(key in out for key in ("pidFilePath", "statePath", "ccRestUrl", "with the default for"))
    assert err == ""


def test_a_configuration_that_may_not_be_read_is_the_only_failure_that_follows_from_it(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.config.unlink()
    host.config.mkdir()
    assert run(host) == FAILURES
    failures = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert [line.partition(str(host.config))[0] for line in failures] == [
        "FAIL configuration: cannot read the configuration file "
    ]


def test_a_host_without_slurm_is_told_so(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    for path in host.programs.folder.iterdir():
        path.unlink()
    assert run(host) == FAILURES
    assert (
        "FAIL Slurm's commands: squeue, scontrol, sinfo, sdiag, sacct, sacctmgr: not found" in capsys.readouterr().out
    )


def test_a_socket_where_nobody_answers_is_a_failure(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "get", lambda path, where: (200, b"something else"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(host.folder / "run" / "control.sock"))
        assert run(host) == FAILURES
    assert "FAIL daemon: does not answer" in capsys.readouterr().out


def test_the_log_that_is_named_is_that_of_the_unit(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is for one of several clusters on a host."""
    unit = Unit("cc-slurm-adapter@alpha.service", properties={"LoadState": ["loaded"]})
    monkeypatch.setattr(check, "read_own_unit", lambda *_: unit)
    monkeypatch.setattr(check, "get", lambda path, where: (200, b"something else"))
    run(host)
    assert "-> see why: journalctl -u cc-slurm-adapter@alpha -n 50" in capsys.readouterr().out


def test_a_cc_backend_that_hangs_does_not_hold_up_a_start_for_ever(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(*_: object) -> Iterator[Finding]:
        yield GOOD
        release.wait()

    seconds = count(step=LONGEST / 5)
    monkeypatch.setattr(check, "find_cc_backend", hang)
    monkeypatch.setattr(check, "TimeLimit", lambda pulse: TimeLimit(pulse, lambda: next(seconds)))
    host.write({"natsServer": "127.0.0.1:9"})
    try:
        run(host)
    finally:
        release.set()
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()[-4:-1]] == [
        "OK   unit: it runs",
        "WARN cc-backend: has not answered",
        "WARN NATS: not asked",
    ]


def test_an_error_while_one_part_is_read_leaves_the_others(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    for name in ("read_own_unit", "find_configuration"):
        with monkeypatch.context() as patch:
            patch.setattr(check, name, fail)
            assert run(host) == FAILURES
        out = capsys.readouterr().out
        assert "an error of this program: OSError" in out
        assert "unit: " in out
        assert "daemon: none runs now" in out


def test_ctrl_c_ends_it_with_the_own_rights(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "find_files", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(host)
    assert os.geteuid() == os.getuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root judges for another user")
def test_root_looks_with_the_eyes_of_the_daemon_s_user(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    open_to_all(host.folder)
    for path in (host.config, host.folder / "state"):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    asked = host.folder / "asked"
    asked.touch()
    asked.chmod(0o666)
    script = f'id -un >> {asked}; if [ "$1" = --version ]; then echo slurm 24.11.5; exit; fi'
    host.programs.make("sinfo", script)
    assert run(host) == FAILURES
    out = capsys.readouterr().out
    assert "OK   user: rights are those of nobody (the owner of" in out
    assert f"FAIL pidFilePath: nobody may not write in {host.folder}/run" in out
    assert set(asked.read_text().split()) == {"nobody"}
    host.config.chmod(0o600)
    os.chown(host.config, 0, 0)
    assert run(host) == FAILURES
    assert "FAIL configuration: cannot read the configuration file" in capsys.readouterr().out
    assert os.geteuid() == 0


def test_groups_that_need_slurm_are_left_out_without_it(tmp_path: Path) -> None:
    site = Site(str(tmp_path / "nowhere.json"), explicit=True, booted=str(tmp_path / "no-systemd"))
    try:
        assert [group.name for group in site.groups()] == ["user", "configuration", "unit", "daemon"]
    finally:
        site.close()


def test_it_needs_no_daemon_flag_and_goes_with_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["-check", "-status"]) == 64
    assert run_command(["-check", "-watch"]) == 64
    assert capsys.readouterr().out == ""
    assert callable(check_site)

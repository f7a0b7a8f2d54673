"""Flags and roles: what a call is, and how wrong calls end."""

from __future__ import annotations

import ast
import errno
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter import __version__
from cc_slurm_adapter.__main__ import main
from cc_slurm_adapter.cli import main as main_module
from cc_slurm_adapter.cli.main import CONFIG, EXIT_CODES, OTHER, USAGE, make_parser
from cc_slurm_adapter.config import config as config_module
from cc_slurm_adapter.config.file import ConfigFile
from cc_slurm_adapter.daemon import systemd
from cc_slurm_adapter.errors import UsageError
from cc_slurm_adapter.log import LEVELS


@pytest.mark.parametrize(
    ("argv", "daemon", "config", "debug"),
    [
        (["-daemon"], True, None, 2),
        (["--daemon", "--config", "/c", "--debug", "3"], True, "/c", 3),
        (["-daemon=true", "-config=/c", "-debug=0"], True, "/c", 0),
        (["-daemon=false", "-config", "/c"], False, "/c", 2),
        (["-debug", "5", "-daemon"], True, None, 5),
    ],
)
def test_flags_are_those_of_the_existing_adapter(argv: list[str], daemon: bool, config: str | None, debug: int) -> None:
    parsed = make_parser().parse_args(argv)
    assert (parsed.daemon, parsed.config, parsed.debug) == (daemon, config, debug)


@pytest.mark.parametrize("argv", [["-demon"], ["-debug", "much"], ["-daemon=perhaps"], ["-config"], ["file"]])
def test_wrong_flags_end_in_one_line(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="-help shows"):
        make_parser().parse_args(argv)


@pytest.mark.parametrize("level", ["9", "6", "-1", "1000000", "0x2", "", "\u0663"])
def test_a_level_that_there_is_not_is_told_with_those_that_there_are(
    level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-daemon", f"-debug={level}"]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert f"-debug: {level!r} is no level of how much to log: 0 nothing but crashes, 1 errors, 2" in line
    assert [make_parser().parse_args(["-debug", str(each)]).debug for each in range(6)] == list(range(len(LEVELS)))


def test_a_call_without_anything_to_do_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main([]) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "-daemon" in err


def test_help_names_every_flag_and_version_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-version"]) == 0
    assert __version__ in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["-help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "-config",
        "-daemon",
        "-debug",
        "-settings",
        "-topology",
        "-json",
        "-version",
        "-help",
        "SLURM_JOB_ID",
    ):
        assert flag in text


def test_json_alone_says_what_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-json"]) == USAGE
    assert "-topology" in capsys.readouterr().err
    assert main(["-topology", "-daemon"]) == USAGE
    assert "give one of them" in capsys.readouterr().err


def test_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-settings"]) == 0
    assert "slurmPollInterval (default 60)" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["-daemon"], ["-version"], ["-json"], ["-config"], ["-config", "x", "-daemon"]])
def test_what_is_no_hook_call_is_none_although_slurm_started_it(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "not a number")
    monkeypatch.setattr("cc_slurm_adapter.cli.main.DEFAULT_CONFIG_PATH", "/nowhere/config.json")
    code = main(argv)
    hook = argv == ["-config"]
    assert (code == 0) == (hook or argv == ["-version"])
    assert hook == (capsys.readouterr() == ("", ""))


def test_the_help_has_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["-help"])
    text = capsys.readouterr().out
    for code, meaning in EXIT_CODES.items():
        assert f"{code}  {meaning}\n" in text


def test_every_code_that_a_call_ends_with_is_in_the_table() -> None:
    """Numbers stand nowhere else: modules that return or exit with one use its name."""
    tree = ast.parse(Path(main_module.__file__).read_text(encoding="utf-8"))
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    numbers = {node.value for each in returned if each for node in ast.walk(each) if isinstance(node, ast.Constant)}
    assert {each for each in numbers if type(each) is int} <= {0}
    assert {OTHER, USAGE, CONFIG, 0} == EXIT_CODES.keys()
    assert not {OTHER, USAGE, CONFIG} & {2}, "a shell's own"


def run_daemon(tmp_path: Path, **settings: object) -> int:
    """The exit code of a daemon that cannot start with these settings."""
    config = {
        "ccRestUrl": "http://127.0.0.1:1",
        "ccRestJwt": "token",
        "pidFilePath": str(tmp_path / "daemon.pid"),
        "lastRunPath": str(tmp_path / "lastrun"),
        "prepSockListenPath": str(tmp_path / "daemon.sock"),
        "prepEventsPath": str(tmp_path / "events"),
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, **settings}))
    return main(["-daemon", "-config", str(path)])


@pytest.fixture
def signals() -> Iterator[None]:
    """Undoes what a daemon sets in its process."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    mask = os.umask(0o022)
    root = logging.getLogger()
    log_handlers, level, hook, unraisable = root.handlers[:], root.level, threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:], threading.excepthook, sys.unraisablehook = log_handlers, hook, unraisable
    root.setLevel(level)
    logging.captureWarnings(False)
    os.umask(mask)
    for number, handler in zip(numbers, handlers):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("setting", "rests"),
    [({"prepSecretFile": "/nowhere/secret"}, 1), ({"slurmPollInterval": "often"}, 0)],
    ids=["a file that may come", "a mistake that stays"],
)
def test_under_systemd_a_start_without_a_file_is_not_tried_again_each_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, object], rests: int
) -> None:
    """What it rests for is what `systemctl status` shows meanwhile."""
    slept: list[float] = []
    told: list[str] = []
    monkeypatch.setattr("cc_slurm_adapter.daemon.systemd.time.sleep", slept.append)
    monkeypatch.setattr(systemd, "notify", told.append)
    run_daemon(tmp_path, **setting)
    assert slept == []  # whoever starts it by hand need not wait
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    run_daemon(tmp_path, **setting)
    assert slept == [systemd.REST] * rests
    statuses = [each for each in told if each.startswith("STATUS=cannot start: ")]
    assert ["cannot read /nowhere/secret" in each for each in statuses] == [True] * rests
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"slurmPollInterval": "often"}, CONFIG, "slurmPollInterval"),
        ({"ccRestUrl": "ftp://x"}, CONFIG, "ccRestUrl"),
        ({"ccRestJwt": ""}, CONFIG, "ccRestJwt"),
        ({"ccRestJwtFile": "/nowhere/token"}, OTHER, "cannot read /nowhere/token"),
        ({"ccRestJwtFile": "/dev/null"}, OTHER, "is empty"),
        ({"prepSecretFile": "/nowhere/secret"}, OTHER, "cannot read /nowhere/secret"),
        ({"prepSecretFile": "/nowhere/secret", "ccPollInterval": "x"}, CONFIG, "ccPollInterval"),
        ({"ccRestCaFile": "/nowhere/ca.pem"}, OTHER, "cannot read /nowhere/ca.pem"),
        ({"natsServer": "localhost", "natsCredsFile": "/dev/null"}, OTHER, "natsCredsFile"),
        ({"pidFilePath": "/nowhere/daemon.pid"}, OTHER, "pidFilePath"),
        ({"lastRunPath": "/nowhere/lastrun"}, OTHER, "lastRunPath"),
    ],
)
def test_what_keeps_from_a_start_has_its_exit_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    code: int,
    words: str,
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_daemon(tmp_path, **settings) == code
    said = [line for line in capsys.readouterr().err.splitlines() if "cc-slurm-adapter: " in line]
    assert all(line.startswith("<3>cc-slurm-adapter: ") for line in said)
    assert any(words in line for line in said)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("error", "code"), [(errno.ENOENT, CONFIG), (errno.EACCES, CONFIG), (errno.EIO, OTHER), (errno.ESTALE, OTHER)]
)
def test_a_configuration_that_cannot_be_read_for_now_is_no_wrong_one(
    monkeypatch: pytest.MonkeyPatch, error: int, code: int
) -> None:
    def fail(path: str) -> ConfigFile:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(config_module, "read_config_file", fail)
    assert main(["-daemon", "-config", "/some/config.json"]) == code


def test_an_error_of_this_program_is_one_line_and_may_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cc_slurm_adapter.cli.version.print_version", lambda: "".index("x\n"))
    assert main(["-version"]) == OTHER
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cc-slurm-adapter: an error of this program: ValueError: ")


def test_what_is_printed_is_printable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("cc_slurm_adapter.cli.settings.settings_reference", lambda: [("key\x1b", "a\rb", "text\u202e")])
    assert main(["-settings"]) == 0
    assert capsys.readouterr().out == "key\\x1b (default a\\rb)\n    text\\u202e\n"

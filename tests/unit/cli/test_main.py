"""Flags and roles: what a call is, and how wrong calls end."""

from __future__ import annotations

import ast
import errno
import inspect
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter import __version__
from cc_slurm_adapter.__main__ import INTERRUPTED, main
from cc_slurm_adapter.cli import main as main_module
from cc_slurm_adapter.cli.first_run import FIRST_STEPS
from cc_slurm_adapter.cli.main import (
    COMMANDS,
    CONFIG,
    EXIT_CODES,
    FORMS_OF_QUEUE,
    OTHER,
    USAGE,
    Command,
    Form,
    make_parser,
)
from cc_slurm_adapter.cli.queue import ACTIONS, check_command
from cc_slurm_adapter.cli.status import FAULTS, NOT_RUNNING, WELL
from cc_slurm_adapter.cli.verdicts import NO_SUCH_JOB
from cc_slurm_adapter.config import paths
from cc_slurm_adapter.config.config import parse_config
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
    parsed = make_parser().parse(argv)
    assert (parsed.daemon, parsed.config, parsed.debug) == (daemon, config, debug)


@pytest.mark.parametrize("argv", [["-demon"], ["-debug", "much"], ["-daemon=perhaps"], ["-config"], ["file"]])
def test_wrong_flags_end_in_one_line(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="-help shows"):
        make_parser().parse(argv)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["-staus"], "-staus: unknown flag; did you mean -status? -help shows what there is"),
        (["--staus"], "--staus: unknown flag; did you mean -status? -help shows what there is"),
        (["-demon", "-debug", "3"], "-demon: unknown flag; did you mean -daemon? -help shows what there is"),
        (["-hlep"], "-hlep: unknown flag; did you mean -help? -help shows what there is"),
        (["-daemon", "-confg=/secret"], "-confg: unknown flag; did you mean -config? -help shows what there is"),
        (["-queue", "list", "-STATES", "x"], "-STATES: unknown flag; did you mean -state? -help shows what there is"),
        (["-xyzzy"], "-xyzzy: unknown flag; -help shows what there is"),
        (["status"], "status: here a flag is expected; did you mean -status? -help shows what there is"),
        (["-daemon", "-config", "/c", "/d"], "/d: here a flag is expected; -help shows what there is"),
        (["-queue", "lst"], "-queue lst: unknown word; did you mean list?"),
        (["-queue", "Rety", "4711"], "-queue Rety: unknown word; did you mean retry?"),
        (
            ["-queue", "watch"],
            "-queue watch: unknown word; give list, show JOB, retry JOB or drop JOB; all is every job",
        ),
        (
            ["-queue", "list", "-state", "praked"],
            "'praked' is no state of a message that waits: there are pending, parked, conflict, following; did you mean"
            " parked?",
        ),
        (
            ["-queue", "list", "-sink", "cc-bakend"],
            "'cc-bakend' is no destination: there are cc_rest (cc-backend), cc_nats (NATS); did you mean cc-backend?",
        ),
    ],
)
def test_a_word_that_there_is_not_is_answered_with_the_nearest_one(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == USAGE
    assert capsys.readouterr().err == f"cc-slurm-adapter: {line}\n"


def test_what_looks_like_a_flag_may_be_a_value_or_a_word_after_two_dashes() -> None:
    assert make_parser().parse(["-queue", "list", "-reason", "-1"]).reason == "-1"
    assert make_parser().parse(["-reason", "-x was refused"]).reason == "-x was refused"
    with pytest.raises(UsageError, match="-x: here a flag is expected"):
        make_parser().parse(["-daemon", "--", "-x"])


@pytest.mark.parametrize("level", ["9", "6", "-1", "1000000", "0x2", "", "\u0663"])
def test_a_level_that_there_is_not_is_told_with_those_that_there_are(
    level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-daemon", f"-debug={level}"]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert f"-debug: {level!r} is no level of how much to log: 0 nothing but crashes, 1 errors, 2" in line
    assert [make_parser().parse(["-debug", str(each)]).debug for each in range(6)] == list(range(len(LEVELS)))


def test_a_call_without_anything_to_do_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main([]) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "-daemon" in err


def test_on_a_terminal_a_call_without_arguments_says_what_this_is_and_three_things_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr("cc_slurm_adapter.lines.is_terminal", lambda: True)
    assert main([]) == USAGE
    out, err = capsys.readouterr()
    assert err == ""
    assert main_module.DESCRIPTION in " ".join(out.split())
    steps = [line for line in out.splitlines() if re.match("[1-9]\\. ", line)]
    assert len(steps) == 3
    assert len(out.splitlines()) <= 24
    assert all(len(line) < 80 for line in out.splitlines())
    for flag in ("-settings", "-check", "-daemon", "-help"):
        assert f"cc-slurm-adapter {flag}" in out
    assert main(["-debug", "3"]) == USAGE
    assert capsys.readouterr().err.startswith("cc-slurm-adapter: nothing to do: ")


def test_the_configuration_of_the_first_steps_can_be_used() -> None:
    (written,) = re.findall(r"\{[^{}]*\}", FIRST_STEPS)
    parse_config(json.loads(written))


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
        "-status",
        "-watch",
        "-topology",
        "-check",
        "-install",
        "-job",
        "-json",
        "-queue",
        "-state",
        "-reason",
        "-cluster",
        "-sink",
        "-limit",
        "-yes",
        "-version",
        "-help",
        "SLURM_JOB_ID",
    ):
        assert flag in text


def test_json_alone_says_what_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-json"]) == USAGE
    assert "-json goes with -status or -check or -job or -queue or -topology" in capsys.readouterr().err
    for argv in (["-topology", "-daemon"], ["-status", "-daemon"], ["-status", "-topology", "-json"]):
        assert main(argv) == USAGE
        assert "give one of them" in capsys.readouterr().err
    assert main(["-job", "12.batch"]) == USAGE
    assert "'12.batch' is no job" in capsys.readouterr().err
    assert main(["-watch"]) == USAGE
    assert "-watch goes with -status" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.flag)
@pytest.mark.parametrize(("flag", "reads"), [("config", "_path(arguments)"), ("debug", "arguments.debug")])
def test_the_table_lists_a_flag_that_all_accept_only_where_it_is_read(command: Command, flag: str, reads: str) -> None:
    assert (reads in inspect.getsource(command.run)) == (flag in command.with_flags)


def test_no_command_refuses_what_scripts_give_always(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-version", "-config", "/c", "-debug", "3"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("form", FORMS_OF_QUEUE, ids=lambda form: form.words)
def test_queue_takes_the_flags_of_its_form_and_refuses_others(form: Form) -> None:
    given = {"state": "parked", "reason": "a", "cluster": "b", "sink": "nats", "limit": 1, "yes": True}
    action, *job = form.words.split()
    for name, value in given.items():
        words = [action, *(["4711"] if job else [])]
        if name in form.with_flags:
            check_command(words, **{name: value}, as_json=True)
        else:
            with pytest.raises(UsageError):
                check_command(words, **{name: value}, as_json=True)


def test_the_forms_of_queue_are_its_words_and_its_flags() -> None:
    assert [form.words.split()[0] for form in FORMS_OF_QUEUE] == list(ACTIONS)
    (queue,) = [command for command in COMMANDS if command.forms]
    assert {flag for form in queue.forms for flag in form.with_flags} == set(queue.with_flags)


def test_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-settings"]) == 0
    assert "slurmPollInterval (default 60; a change needs a reload)" in capsys.readouterr().out


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
    text = " ".join(capsys.readouterr().out.split())
    for code, meaning in EXIT_CODES.items():
        assert f" {code} {meaning}" in text


@pytest.mark.parametrize("columns", [80, 132])
def test_the_help_fits_into_the_columns_of_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main(["-help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) in range(columns - 10, columns + 1)
    assert not any(line.endswith("cc-") for line in lines), "no name is broken"


def test_the_help_ends_with_examples_that_can_be_called(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["-help"])
    examples = capsys.readouterr().out.partition("\nexamples:\n")[2].splitlines()
    calls = [re.split("   +", line.strip())[0].split() for line in examples]
    assert [words[1] for words in calls] == ["-check", "-daemon", "-job", "-sync", "-queue"]
    for program, *words in calls:
        assert program == "cc-slurm-adapter"
        make_parser().parse(words)


def test_every_code_that_a_call_ends_with_is_in_the_table() -> None:
    """Numbers stand nowhere else: modules that return or exit with one use its name."""
    tree = ast.parse(Path(main_module.__file__).read_text(encoding="utf-8"))
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    numbers = {node.value for each in returned if each for node in ast.walk(each) if isinstance(node, ast.Constant)}
    assert {each for each in numbers if type(each) is int} <= {0}
    assert {OTHER, USAGE, CONFIG, WELL, FAULTS, NOT_RUNNING, NO_SUCH_JOB, INTERRUPTED} == EXIT_CODES.keys()
    assert not {OTHER, USAGE, CONFIG} & {2}, "a shell's own, so the daemon never ends with it"


def test_ctrl_c_ends_every_command_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "run_command", interrupted)
    assert main(["-job", "1"]) == INTERRUPTED == 128 + signal.SIGINT
    assert capsys.readouterr().err == "cc-slurm-adapter: ended by Ctrl-C\n"


@pytest.mark.parametrize("command", ["-version", "-settings", "-help"])
def test_a_closed_standard_output_is_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main([command]) == OTHER
    assert capsys.readouterr().err == "cc-slurm-adapter: standard output is closed: nothing can be printed\n"


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
    assert all(line.startswith(("<3>cc-slurm-adapter: ", "<4>cc-slurm-adapter: ")) for line in said)
    assert any(words in line for line in said if line.startswith("<3>")), "what keeps it from starting is an error"


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("error", "code"), [(errno.ENOENT, CONFIG), (errno.EACCES, CONFIG), (errno.EIO, OTHER), (errno.ESTALE, OTHER)]
)
def test_a_configuration_that_cannot_be_read_for_now_is_no_wrong_one(
    monkeypatch: pytest.MonkeyPatch, error: int, code: int
) -> None:
    def fail(path: str) -> ConfigFile:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(paths, "read_config_file", fail)
    assert main(["-daemon", "-config", "/some/config.json"]) == code


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    "flags",
    [
        ["-daemon"],
        ["-once"],
        ["-sync", "-since", "1d"],
        ["-dry-run"],
        ["-status"],
        ["-job", "1"],
        ["-queue", "list"],
        ["-resend", "1"],
        ["-metrics"],
    ],
)
def test_a_user_who_may_not_read_the_configuration_is_told_who_may(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command ends with the same code. The daemon's user is not root, so it is not told to be."""

    def fail(path: str) -> ConfigFile:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(paths, "read_config_file", fail)
    assert main([*flags, "-config", "/some/config.json"]) == CONFIG
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot read the configuration file /some/config.json: " in line
    assert line.endswith(": run this as root") == (flags != ["-daemon"])


def test_an_error_of_this_program_is_one_line_and_may_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cc_slurm_adapter.cli.version.print_version", lambda: "".index("x\n"))
    assert main(["-version"]) == OTHER
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cc-slurm-adapter: an error of this program: ValueError: ")


def test_what_is_printed_is_printable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        "cc_slurm_adapter.cli.settings.settings_reference", lambda: [("key\x1b", "a\rb", "b", "text\u202e")]
    )
    assert main(["-settings"]) == 0
    assert capsys.readouterr().out == "key\\x1b (default a\\rb; a change needs a b)\n    text\\u202e\n"

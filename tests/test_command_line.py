"""Flags and roles: what a call is, and how wrong calls end."""

from __future__ import annotations

import pytest

from cc_slurm_adapter import __version__
from cc_slurm_adapter.__main__ import main
from cc_slurm_adapter.command_line import make_parser
from cc_slurm_adapter.errors import UsageError


@pytest.mark.parametrize(
    ("argv", "daemon", "config", "debug"),
    [
        (["-daemon"], True, None, 2),
        (["--daemon", "--config", "/c", "--debug", "3"], True, "/c", 3),
        (["-daemon=true", "-config=/c", "-debug=0"], True, "/c", 0),
        (["-daemon=false", "-config", "/c"], False, "/c", 2),
        (["-debug", "7", "-daemon"], True, None, 7),
    ],
)
def test_flags_are_those_of_the_existing_adapter(argv: list[str], daemon: bool, config: str | None, debug: int) -> None:
    parsed = make_parser().parse_args(argv)
    assert (parsed.daemon, parsed.config, parsed.debug) == (daemon, config, debug)


@pytest.mark.parametrize("argv", [["-demon"], ["-debug", "much"], ["-daemon=perhaps"], ["-config"], ["file"]])
def test_wrong_flags_end_in_one_line(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="-help shows"):
        make_parser().parse_args(argv)


def test_a_call_without_anything_to_do_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main([]) == 1
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
    assert main(["-json"]) == 1
    assert "-topology" in capsys.readouterr().err


def test_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-settings"]) == 0
    assert "slurmPollInterval (default 60)" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["-daemon"], ["-version"], ["-json"], ["-config"], ["-config", "x", "-daemon"]])
def test_what_is_no_hook_call_is_none_although_slurm_started_it(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "not a number")
    monkeypatch.setattr("cc_slurm_adapter.command_line.DEFAULT_CONFIG_PATH", "/nowhere/config.json")
    code = main(argv)
    hook = argv == ["-config"]
    assert (code == 0) == (hook or argv == ["-version"])
    assert hook == (capsys.readouterr() == ("", ""))

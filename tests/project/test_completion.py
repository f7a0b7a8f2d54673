"""What bash and zsh offer is what goes with the command, and each shell is asked itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from cc_slurm_adapter.cli.main import COMMANDS
from cc_slurm_adapter.cli.queue import ACTIONS
from cc_slurm_adapter.log import LEVELS
from cc_slurm_adapter.outbox.selection import SINKS, STATES
from docs import completion
from docs.command_table import PROGRAM, VALUES, Call, calls
from tests.debian_package import NoPackage
from tests.project.other_programs import find_zsh
from tests.project.zsh_session import ZshSession

ASK_BASH = """\
source "$1"; shift
COMP_WORDS=(cc-slurm-adapter "$@")
COMP_CWORD=$#
_cc_slurm_adapter
printf '%s\\n' "${COMPREPLY[@]}"
"""
STATE_WORDS = ["pending", "parked", "conflict", "following"]
FIRST = [f"-{command.flag}" for command in COMMANDS] + ["-help", "-config", "-debug"]


class Offered(Protocol):
    def __call__(self, *words: str) -> list[str]:
        """What is offered for the last word, which may be ''."""
        ...


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    completion.write(folder)
    return folder


@pytest.fixture(scope="module")
def in_bash(files: Path) -> Offered:
    """No program can be started meanwhile: there is none in PATH."""
    program = shutil.which("bash")
    if program is None:
        pytest.skip("bash is not installed")

    def offered(*words: str) -> list[str]:
        command = [program, "--norc", "-uc", ASK_BASH, "bash", str(files / PROGRAM), *words]
        bare = {"PATH": ""}
        done = subprocess.run(command, cwd=files, env=bare, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return offered


@pytest.fixture(scope="module")
def zsh(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZshSession]:
    try:
        program = find_zsh()
    except NoPackage as problem:
        pytest.skip(str(problem))
    session = ZshSession(program, files, tmp_path_factory.mktemp("zsh"))
    yield session
    session.close()


@pytest.fixture(scope="module")
def in_zsh(zsh: ZshSession) -> Offered:
    return lambda *words: zsh.offered(" ".join([PROGRAM, *words]))


@pytest.fixture(params=["in_bash", "in_zsh"])
def offered(request: pytest.FixtureRequest) -> Offered:
    found: Offered = request.getfixturevalue(request.param)
    return found


def test_zsh_finds_the_completion_of_the_program(zsh: ZshSession) -> None:
    assert zsh.completed_by() == f"_{PROGRAM}"


def test_bash_finds_the_completion_of_the_program(files: Path, in_bash: Offered) -> None:
    command = ["bash", "--norc", "-c", f"source {files / PROGRAM}; complete -p {PROGRAM}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"complete -F _cc_slurm_adapter {PROGRAM}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-"], FIRST),
        (["-st"], ["-status"]),
        (["-status", "-"], ["-json", "-watch", "-config"]),
        (["-status", "-json", "-"], ["-watch", "-config"]),
        (["--status", "-j"], ["-json"]),
        (["-version", "-"], []),
        (["-queue", ""], ["list", "show", "retry", "drop"]),
        (["-queue", "re"], ["retry"]),
        (["-queue", "show", ""], []),
        (["-queue", "retry", ""], ["all"]),
        (["-queue", "drop", "4711", "-y"], ["-yes"]),
        (["-queue", "retry", "4711", "-y"], []),
        (["-queue", "list", "-state", ""], STATE_WORDS),
        (["-queue", "list", "-sink", ""], ["cc-backend", "nats"]),
        (["-queue", "list", "-limit", ""], []),
        (["-debug", ""], ["0", "1", "2", "3", "4", "5"]),
        (["-daemon", "t"], ["true"]),
        (["-job", ""], []),
        (["-job", "4711", "-"], ["-json", "-config", "-debug"]),
        (["-sync", "-job", "4711", "-"], ["-since", "-until", "-timeout", "-config", "-debug"]),
        (["-resend", "4711", "-"], ["-since", "-yes", "-config"]),
    ],
    ids=" ".join,
)
def test_what_is_offered(offered: Offered, words: list[str], expected: list[str]) -> None:
    assert offered(*words) == expected


def typed(call: Call) -> list[str]:
    """A command as it is typed, with a job where one is needed."""
    values = [word for word in (call.flag.value, *call.words.split()[1:]) if word and call.flag.nargs != "?"]
    first = call.words.split()[:1] or (["4711"] if values else [])
    return [f"-{call.flag.name}", *first, *(["4711"] if "JOB" in call.words else [])]


@pytest.mark.parametrize("call", calls(), ids=lambda call: call.begin)
def test_after_a_command_its_flags_are_offered(offered: Offered, call: Call) -> None:
    assert offered(*typed(call), "-") == [f"-{flag.name}" for flag in call.fitting]


@pytest.mark.parametrize("call", calls(), ids=lambda call: call.begin)
def test_after_a_flag_only_its_value_is_offered(in_bash: Offered, call: Call) -> None:
    for flag in call.fitting:
        if flag.value and flag.value != completion.A_FILE:
            assert in_bash(*typed(call), f"-{flag.name}", "") == list(VALUES[flag.value].words)


def test_files_are_offered_for_the_configuration(offered: Offered, files: Path) -> None:
    names = {path.name for path in files.iterdir()}
    found = offered("-check", "-config", f"{files}/")
    assert names <= {Path(name).name for name in found}


def test_several_states_are_offered_one_after_the_other(in_bash: Offered, in_zsh: Offered) -> None:
    assert in_bash("-queue", "list", "-state", "parked,") == ["parked,pending", "parked,conflict", "parked,following"]
    assert in_zsh("-queue", "list", "-state", "parked,") == ["pending", "conflict", "following"]


def test_bash_takes_a_value_after_an_equals_sign_and_two_dashes(in_bash: Offered) -> None:
    """bash gives the sign as a word of its own."""
    assert in_bash("-debug", "=") == in_bash("-debug", "=", "") == ["0", "1", "2", "3", "4", "5"]
    assert in_bash("-daemon", "=", "f") == ["false"]
    assert in_bash("-config", "=", "_") == [f"_{PROGRAM}"]
    assert in_bash("--sta") == ["--status"]
    assert in_bash("--queue", "list", "--st") == ["--state"]


def test_the_words_of_values_are_those_of_the_program() -> None:
    assert VALUES["WORD"].words == ACTIONS
    assert set(VALUES["SINK"].words) <= set(SINKS)
    assert VALUES["STATE"].words == STATES == tuple(STATE_WORDS)
    assert VALUES["LEVEL"].words == tuple(map(str, range(len(LEVELS))))

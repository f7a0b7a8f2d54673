"""The manual pages have what the program has, and no more, and roff has nothing to say against them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter import __version__
from cc_slurm_adapter.cli.main import COMMANDS, EXIT_CODES, make_parser
from cc_slurm_adapter.config.keys import SETTINGS
from docs import man_pages
from docs.command_table import ENVIRONMENT, VALUES, Call, calls, commands_with, flags, options
from docs.man_pages import EXAMPLES, command_page, configuration_page, escape, release_date
from tests.debian_package import NoPackage
from tests.project.other_programs import find

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cc_slurm_adapter"
PAGES = {"cc-slurm-adapter.8": command_page, "cc-slurm-adapter.5": configuration_page}
FLAG = r"(?<![\w./*-])-[a-z]+(?:-[a-z]+)*(?![\w-])"
OF_FILES = {"-wal", "-shm", "-journal"}
"""Ends of the names of files."""


@pytest.fixture(scope="session")
def mandoc() -> Path:
    try:
        return find("mandoc")
    except NoPackage as problem:
        pytest.skip(str(problem))


def shown(mandoc: Path, page: str) -> str:
    """A page as a reader sees it, in one line a paragraph and without overstriking."""
    wide = [str(mandoc), "-T", "utf8", "-O", "width=1000"]
    done = subprocess.run(wide, input=page, capture_output=True, text=True, timeout=60, check=True)
    return re.sub(r".\x08", "", done.stdout).replace("\xa0", " ")


def section(text: str, title: str) -> str:
    """A section of a page that is shown."""
    return re.split(r"^(?=\S)", text.partition(f"\n{title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def words(text: str) -> str:
    """A text with one blank between words: a sentence ends with two if a line of roff ends there."""
    return " ".join(text.split())


# --- what roff says


@pytest.mark.parametrize("name", PAGES)
def test_mandoc_finds_nothing_but_that_no_date_is_known_before_the_release(mandoc: Path, name: str) -> None:
    lint = [str(mandoc), "-T", "lint", "-W", "warning"]
    done = subprocess.run(lint, input=PAGES[name](), capture_output=True, text=True, timeout=60, check=False)
    found = [line.partition("WARNING: ")[2] for line in (done.stdout + done.stderr).splitlines()]
    is_released = bool(release_date((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    assert found == ([] if is_released else ['missing date, using "": TH'])


@pytest.mark.parametrize("name", PAGES)
def test_groff_warns_of_nothing_and_divides_no_word(name: str) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    command = [groff, "-man", "-ww", "-Kutf8", "-Tutf8", "-P-c", "-rLL=60n"]
    done = subprocess.run(command, input=PAGES[name](), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\u2010\n" not in done.stdout


def test_every_text_is_shown_as_it_is(mandoc: Path) -> None:
    texts = [".SH begins a section", "'br", r"\fBbold\fR \n(.x \e", "\"quoted\" 'so' `and` so", "-flag--x", "a^b~c | d"]
    page = ".TH A 1\n.SH TEXTS\n" + "".join(f"{escape(text)}\n.PP\n" for text in texts)
    lines = section(shown(mandoc, page), "TEXTS").splitlines()
    assert [line.strip() for line in lines if re.match(" {7}\\S", line)] == texts


def test_the_date_is_that_of_the_release() -> None:
    assert release_date(f"# Changes\n\n## {__version__} - 2026-12-24\n\n## 0.0.1 - 2026-01-01\n") == "2026-12-24"
    assert release_date(f"# Changes\n\n## {__version__} (unreleased)\n\n## 0.0.1 - 2026-01-01\n") == ""


# --- what they say


def test_the_synopsis_has_each_command_with_the_flags_that_go_with_it(mandoc: Path) -> None:
    lines = [line.strip() for line in section(shown(mandoc, command_page()), "SYNOPSIS").splitlines() if line.strip()]
    assert lines == list(map(str, calls()))
    for command in COMMANDS:
        listed = {flag.name for call in calls() if call.flag.name == command.flag for flag in call.fitting}
        assert listed == set(command.with_flags)


def test_every_flag_is_explained_and_goes_with_a_command() -> None:
    parsed = {name for action in make_parser().flags() for name in action.option_strings}
    assert {f"{dashes}{name}" for name in flags() for dashes in ("-", "--")} | {"-h"} == parsed
    assert all(flag.help for flag in flags().values())
    named = {command.flag for command in COMMANDS} | {"help"}
    assert {flag.name for flag in options()} | named == set(flags())
    assert all(map(commands_with, options()))


def test_every_kind_of_value_is_explained() -> None:
    of_words = {word for call in calls() for word in call.words.split() if not word.islower()}
    assert {flag.value for flag in flags().values()} - {""} | of_words == set(VALUES)


def test_the_commands_page_has_every_flag_with_its_help_and_no_other(mandoc: Path) -> None:
    text = shown(mandoc, command_page())
    explained = section(text, "COMMANDS") + section(text, "OPTIONS")
    for flag in flags().values():
        assert re.search(rf"^ +-{flag.name}\b", explained, re.MULTILINE), flag
        assert flag.help.replace("`", "")[1:] in words(explained)
    assert set(re.findall(FLAG, text)) - OF_FILES == {f"-{name}" for name in flags()}


def test_the_commands_page_has_exit_codes_signals_and_files(mandoc: Path) -> None:
    text = shown(mandoc, command_page())
    codes = re.findall(r"^ {7}(\d+) +\S", section(text, "EXIT STATUS"), re.MULTILINE)
    assert codes == [str(code) for code in EXIT_CODES]
    assert {"SIGTERM", "SIGINT", "SIGHUP"} <= set(re.findall(r"\bSIG[A-Z]+", section(text, "SIGNALS")))
    files = section(text, "FILES")
    assert "](" not in files
    for key in ("pidFilePath", "prepSockListenPath", "controlSockPath", "lastRunPath", "statePath", "prepEventsPath"):
        assert re.search(rf"^ {{7}}{key}\b", files, re.MULTILINE), key


def test_the_configuration_page_has_every_key_and_no_other(mandoc: Path) -> None:
    text = shown(mandoc, configuration_page())
    keys = section(text, "KEYS")
    assert re.findall(r"^ {7}(\w+)(?: |$)", keys, re.MULTILINE) == [setting.key for setting in SETTINGS]
    assert all(setting.help in words(keys) for setting in SETTINGS)
    old = {name for setting in SETTINGS for name in setting.old_names}
    assert old
    assert set(re.findall(r"(?<![\w/])[a-z]+[A-Z]\w*", text)) == {setting.key for setting in SETTINGS} | old
    assert "slurmPollInterval Whole number; default 60; a change needs a reload." in words(keys)
    assert 'Text or list or object; default "block"; a change needs a reload.' in words(keys)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_command_with_flags_that_go_with_it(example: str) -> None:
    given = example.split()
    make_parser().parse(given)
    (call,) = [call for call in calls() if is_of(given, call)]
    assert {word for word in given[1:] if word.startswith("-")} <= {f"-{flag.name}" for flag in call.fitting}


def is_of(given: list[str], call: Call) -> bool:
    """Whether this is a call of that line of the synopsis."""
    return given[0] == f"-{call.flag.name}" and (not call.words or given[1] == call.words.split()[0])


# --- the environment


def names_in_python(tree: ast.AST) -> Iterator[str]:
    """Names that a module looks up in an environment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("environ.get", "environment.get")):
            name = node.args[0]
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]).endswith("environ"):
            name = node.left
        else:
            continue
        if isinstance(name, ast.Constant):
            yield str(name.value).upper()


def test_the_environment_has_what_the_program_reads() -> None:
    python = {name for path in PACKAGE.rglob("*.py") for name in names_in_python(ast.parse(path.read_text("utf-8")))}
    head = (PACKAGE / "hooks" / "head.sh").read_text(encoding="utf-8")
    shell = set(re.findall(r"\$\{?([A-Z_]{2,})", head)) - {"PWD"}
    assert {"NO_COLOR", "SLURM_CONF"} <= python
    assert {"CC_SLURM_ADAPTER_PYTHON", "CC_SLURM_ADAPTER_EVENTS"} <= shell
    listed = {name for names in ENVIRONMENT for name in names.split(", ")}
    assert (python | shell) - listed == set()
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")) + head
    assert [name for name in listed if name not in source] == []


def test_they_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    man_pages.write(tmp_path / "new")
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir()} == {
        name: page() for name, page in PAGES.items()
    }

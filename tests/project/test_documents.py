"""The documents and example files agree with the code, with each other, and with what they name."""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import build
from cc_slurm_adapter import __version__
from cc_slurm_adapter.cli.main import EXIT_CODES, make_parser
from cc_slurm_adapter.config.config import masked, parse_config, settings_reference
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.config.keys import SETTINGS
from cc_slurm_adapter.errors import ConfigError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cc_slurm_adapter"
EXAMPLES = ROOT / "examples"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
INSTALLED_AS = "/usr/local/sbin/cc-slurm-adapter"

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DEFAULTS = {setting.key: setting.default for setting in SETTINGS}
NEEDED = {"ccRestUrl": "https://cc-backend.example.org", "ccRestJwtFile": "/etc/cc-slurm-adapter/token"}
# What each site must choose; all else in the full example has the value that counts without it.
CHOSEN_BY_THE_SITE = {*NEEDED, "clusterName", "slurmConf", "ccRestCaFile", "gpuPciAddrs"} | {
    "hostnameRewrite",
    "hwthreadNumbering",
    "ignoreHosts",
    "ignorePartitions",
    "ignoreUsers",
}


def read_json(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    return found


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a document that are marked as this language ('' for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for marked, block in found if marked == language]


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next of its kind."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without their heads."""
    tables = re.findall(r"^\|.*\n\|-.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    lines = [line.strip("|").split("|") for table in tables for line in table.splitlines()]
    return [[cell.strip() for cell in line] for line in lines]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def templates() -> Iterator[str]:
    """Every text in the program's source, with an ellipsis for each value that is put into it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[-.\d]*[sdrf]", "…", node.value)
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


# --- the configurations


def test_the_minimal_configuration_is_complete_and_the_one_in_the_readme() -> None:
    minimal = read_json("config.minimal.json")
    assert parse_config(minimal)[1] == []
    assert json.loads(blocks(README, "json")[0]) == minimal
    for key in minimal:
        with pytest.raises(ConfigError, match=key.removesuffix("File")):
            parse_config({name: value for name, value in minimal.items() if name != key})


def test_the_full_configuration_has_every_key_and_no_other() -> None:
    full = read_json("config.full.json")
    assert sorted(full) == sorted(DEFAULTS)
    assert parse_config(full)[1] == []


def test_the_full_configuration_has_the_defaults_but_for_what_a_site_chooses() -> None:
    full = masked(parse_config(read_json("config.full.json"))[0])
    default = masked(parse_config(NEEDED)[0])
    assert {key for key, value in full.items() if value != default[key]} <= CHOSEN_BY_THE_SITE
    assert all(full[key] for key in CHOSEN_BY_THE_SITE)


def test_the_example_addresses_are_pci_addresses() -> None:
    groups = read_json("config.full.json")["gpuPciAddrs"]
    assert isinstance(groups, dict)
    for addresses in groups.values():
        assert len(set(addresses)) == len(addresses)
        assert all(re.fullmatch(r"[0-9A-F]{8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]", address) for address in addresses)


@pytest.mark.parametrize("block", blocks(README, "json"), ids=lambda block: "-".join(json.loads(block)))
def test_json_in_the_readme_is_taken_without_a_warning(block: str) -> None:
    assert parse_config({**NEEDED, **json.loads(block)})[1] == []


def test_hooks_from_other_hosts_reach_the_port_that_is_served_with_the_same_secret() -> None:
    daemon, hook = (json.loads(block) for block in blocks(section(README, "Hooks from other hosts"), "json"))
    assert daemon["prepSockListenPath"].rpartition(":")[2] == hook["prepSockConnectPath"].rpartition(":")[2]
    assert daemon["prepSecretFile"] == hook["prepSecretFile"]


# --- the systemd unit and slurm.conf


@pytest.fixture
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)  # a list may be given in several lines
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((EXAMPLES / "cc-slurm-adapter.service").read_text(encoding="utf-8"))
    return parser


def test_the_unit_starts_the_daemon_as_its_user_with_group_slurm(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    options = make_parser().parse_args(arguments)
    assert (program, options.daemon, options.config) == (INSTALLED_AS, True, DEFAULT_CONFIG_PATH)
    assert (service["User"], service["Group"], service["Type"]) == ("cc-slurm-adapter", "slurm", "notify")
    assert service["ExecReload"].endswith("kill -HUP $MAINPID")
    assert float(service["TimeoutStopSec"]) > 2


def test_the_unit_is_there_again_after_every_end_but_one_that_a_person_must_mend(
    unit: configparser.ConfigParser,
) -> None:
    service = unit["Service"]
    assert (service["Restart"], service["RestartSec"], unit["Unit"]["StartLimitIntervalSec"]) == ("always", "1", "0")
    assert service["RestartPreventExitStatus"].split() == ["64", "78"]


def test_no_boot_waits_for_the_unit_and_it_waits_for_no_part_of_slurm(unit: configparser.ConfigParser) -> None:
    """Where slurmctld starts after multi-user.target, an order of the two is a circle: systemd starts only one."""
    assert "slurm" not in unit["Unit"]["After"]
    assert not {"Requires", "BindsTo", "Requisite", "Before"} & set(unit["Unit"])
    assert 0 < float(unit["Service"]["TimeoutStartSec"]) <= 300


def test_the_unit_sees_slurm_s_users_as_they_are(unit: configparser.ConfigParser) -> None:
    """With PrivateUsers the socket would see SlurmUser as nobody."""
    assert "PrivateUsers" not in unit["Service"]


def test_the_unit_makes_the_folders_of_the_default_paths(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    run_folder, state_folder = f"/run/{service['RuntimeDirectory']}", f"/var/lib/{service['StateDirectory']}"
    assert {str(Path(DEFAULTS[key]).parent) for key in ("pidFilePath", "prepSockListenPath")} == {run_folder}
    assert str(Path(DEFAULTS["lastRunPath"]).parent) == state_folder
    assert (service["RuntimeDirectoryMode"], service["StateDirectoryMode"]) == ("0750", "0750")


def test_the_hook_lines_call_the_installed_file() -> None:
    text = (EXAMPLES / "slurm.conf.hooks").read_text(encoding="utf-8")
    active = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert active == [f"PrologSlurmctld={INSTALLED_AS}", f"EpilogSlurmctld={INSTALLED_AS}"]
    assert "\n".join(active) + "\n" in blocks(README, "")


# --- the documents


def test_the_readme_lists_every_setting_with_its_default_and_help() -> None:
    listed = [tuple(row) for row in rows(section(README, "Configuration"))]
    assert listed == [(f"`{key}`", f"`{default}`", text) for key, default, text in settings_reference()]


def test_every_quoted_log_line_is_one_of_the_program() -> None:
    known = "\n".join(templates())
    quoted = [line for row in rows(section(README, "When something is wrong")) for line in code(row[0])]
    assert len(quoted) > 10
    assert [line for line in quoted if line not in known] == []


def test_every_log_line_shown_is_one_of_the_program() -> None:
    texts = {text for text in templates() if len(text.replace("…", "")) > 8}
    known = [re.compile(".*".join(map(re.escape, text.split("…")))) for text in texts]
    shown = re.findall(r"^(?:INFO|NOTICE|WARNING) (.*)$", README, re.MULTILINE)
    assert len(shown) >= 4
    assert [line for line in shown if not any(pattern.fullmatch(line) for pattern in known)] == []


def test_the_exit_codes_are_those_of_the_help() -> None:
    listed = [(int(code), meaning) for code, meaning in rows(section(README, "Files and signals")) if code.isdigit()]
    assert listed == list(EXIT_CODES.items())


def test_every_claim_names_a_test_that_is_there() -> None:
    """A star marks those that need a real Slurm."""
    in_lab = set(defined_tests(ROOT / "tests" / "lab"))
    elsewhere = set(defined_tests(ROOT / "tests")) - in_lab
    claims = rows(section(README, "What it does better"))
    named = [found for row in claims for found in re.findall(r"`(test_\w+)`( \*)?", row[1])]
    assert len(named) >= len(claims) > 10
    assert [name for name, star in named if name not in (in_lab if star else elsewhere)] == []


def defined_tests(folder: Path) -> Iterator[str]:
    for path in folder.rglob("test_*.py"):
        yield from re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_what_slurm_does_with_a_hook_that_fails_is_said_with_its_source() -> None:
    """It differs from hook to hook, and is easily told wrong."""
    files = [ROOT / name for name in DOCUMENTS] + [
        *PACKAGE.rglob("*.py"),
        *PACKAGE.rglob("*.sh"),
        *EXAMPLES.glob("*.*"),
    ]
    paragraphs = [part for path in files for part in path.read_text(encoding="utf-8").split("\n\n")]
    told = [part for part in paragraphs if re.search(r"hook|prolog|epilog", part, re.IGNORECASE)]
    told = [part for part in told if re.search(r"\b(drains?|is drained) .*node|node.*\b(drains?|is drained)\b", part)]
    assert told
    assert [part for part in told if "slurm.schedmd.com/prolog_epilog.html" not in part] == []


def test_every_room_is_in_the_layout() -> None:
    entries = {f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.iterdir()} - {"__pycache__/"}
    listed = [name for row in rows(section(CONTRIBUTING, "Layout")) for name in code(row[0])]
    assert sorted(listed) == sorted(entries)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_and_headings_that_a_document_names_are_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https:)([^)]+)\)", text)
    linked = [each.partition("#") for each in targets]
    assert [link for link in linked if link[1] and link[2] not in headings(link[0] or name)] == []
    named = {file for file, _, _ in linked if file}
    named |= {each for each in code(text) if re.fullmatch(r"(examples|tests|\.ci)/[\w./-]+", each)}
    assert [each for each in sorted(named) if not (ROOT / each).exists()] == []


def headings(name: str) -> set[str]:
    """The anchors in a document."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {slug(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def slug(title: str) -> str:
    """The anchor of a heading, as forges make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_of_build_py_are_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    calls = re.findall(r"build\.py (\w[^`\n#;,]*)", text)
    assert calls
    for call in calls:
        words = [word for word in call.split() if word != "..."]
        own = words[: words.index("--")] if "--" in words else words
        options, others = build.command_line().parse_known_args(own)
        assert options.command == "demo" or not others, call


def test_security_names_what_is_bundled_and_no_setting_that_is_not_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = [name for row in rows(section(text, "What is bundled")) for name in code(row[0])]
    locked = re.findall(r"^([\w-]+)==", build.lock_of(["run"]).read_text(encoding="ascii"), re.MULTILINE)
    assert sorted(named) == sorted(locked)
    keys = {each for each in code(text) if re.fullmatch(r"[a-z]+[A-Z]\w+", each)}
    assert keys
    assert keys <= set(DEFAULTS)


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert first[1] == __version__

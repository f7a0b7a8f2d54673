"""The documents and example files agree with the code, with each other, and with what they name."""

from __future__ import annotations

import ast
import configparser
import json
import posixpath
import re
import runpy
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import build
from cc_slurm_adapter import __version__
from cc_slurm_adapter.cli.install_script import make_script
from cc_slurm_adapter.cli.main import EXIT_CODES, make_parser
from cc_slurm_adapter.config.config import Config, parse_config, settings_reference
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.config.keys import SETTINGS
from cc_slurm_adapter.daemon.metrics import METRICS
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.outbox.outbox import Stage
from cc_slurm_adapter.outbox.schema import RowState
from cc_slurm_adapter.sinks.base import Verdict
from tests.fakes.hosts import bare_host
from tests.project.test_architecture import DOORS, ROOMS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cc_slurm_adapter"
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md")),
)
INSTALLED_AS = "/usr/local/sbin/cc-slurm-adapter"
PACKAGED_AS = "/usr/sbin/cc-slurm-adapter"

TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
README, CONTRIBUTING, INSTALL = (TEXTS[name] for name in ("README.md", "CONTRIBUTING.md", "docs/install.md"))
CONFIGURATION, OPERATING, COSTS, EVIDENCE, HOW_IT_WORKS = (
    TEXTS[f"docs/{name}.md"] for name in ("configuration", "operating", "costs", "evidence", "how-it-works")
)
LONGEST_README = 12 * 1024
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


def commands_of_steps() -> list[str]:
    """The shell commands of docs/install.md, one text for each of the steps that has some."""
    steps = re.findall(r"^## (\d\. .*)$", INSTALL, re.MULTILINE)
    return [block for title in steps for block in blocks(section(INSTALL, title), "sh")]


def commands_of_section(title: str) -> list[str]:
    """The shell commands of another section of docs/install.md."""
    return blocks(section(INSTALL, title), "sh")


def all_json() -> Iterator[tuple[str, str]]:
    """Each configuration that a document shows, with the document's name."""
    for name, text in TEXTS.items():
        yield from ((name, block) for block in blocks(text, "json"))


def templates() -> Iterator[str]:
    """Every text in the program's source, with an ellipsis for each value that is put into it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[-.\d]*[sdrf]", "…", node.value)
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


# --- the configurations


def test_the_minimal_configuration_is_complete_and_the_one_that_is_shown() -> None:
    minimal = read_json("config.minimal.json")
    assert parse_config(minimal)[1] == []
    for text in (README, INSTALL):
        assert json.loads(blocks(text, "json")[0]) == minimal
    for key in minimal:
        with pytest.raises(ConfigError, match=key.removesuffix("File")):
            parse_config({name: value for name, value in minimal.items() if name != key})


def test_the_full_configuration_has_every_key_and_no_other() -> None:
    full = read_json("config.full.json")
    assert sorted(full) == sorted(DEFAULTS)
    assert parse_config(full)[1] == []


def values(config: Config) -> dict[str, object]:
    return {setting.key: getattr(config, setting.field) for setting in SETTINGS}


def test_the_full_configuration_has_the_defaults_but_for_what_a_site_chooses() -> None:
    full = values(parse_config(read_json("config.full.json"))[0])
    default = values(parse_config(NEEDED)[0])
    assert {key for key, value in full.items() if str(value) != str(default[key])} <= CHOSEN_BY_THE_SITE
    assert all(full[key] for key in CHOSEN_BY_THE_SITE)


def test_the_example_addresses_are_pci_addresses() -> None:
    groups = read_json("config.full.json")["gpuPciAddrs"]
    assert isinstance(groups, dict)
    for addresses in groups.values():
        assert len(set(addresses)) == len(addresses)
        assert all(re.fullmatch(r"[0-9A-F]{8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]", address) for address in addresses)


@pytest.mark.parametrize(
    "block",
    [block for _, block in all_json()],
    ids=[f"{name}-{'-'.join(json.loads(each))}" for name, each in all_json()],
)
def test_json_in_a_document_is_taken_without_a_warning(block: str) -> None:
    assert parse_config({**NEEDED, **json.loads(block)})[1] == []


def test_hooks_from_other_hosts_reach_the_port_that_is_served_with_the_same_secret() -> None:
    daemon, hook = (json.loads(block) for block in blocks(section(INSTALL, "Hooks from other hosts"), "json"))
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
    options = make_parser().parse(arguments)
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
    of_the_package = "".join(f"{line}\n" for line in active).replace(INSTALLED_AS, PACKAGED_AS)
    for text in (README, INSTALL):
        assert of_the_package in blocks(text, "")


# --- the documents


def test_the_readme_is_short_and_leads_to_every_document() -> None:
    assert len(README.encode()) <= LONGEST_README
    linked = {target.partition("#")[0] for target in re.findall(r"\]\((?!https:)([^)]+)\)", README)}
    assert {*DOCUMENTS, "docs/architecture.svg"} - linked == {"README.md"}


def test_the_readme_installs_as_the_installation_does() -> None:
    short = section(README, "Installation")
    assert blocks(short, "sh") == commands_of_steps()
    assert blocks(short, "")[0] in blocks(INSTALL, "")


def printed_commands(lines: Sequence[str]) -> list[str]:
    """The commands of a script, without what they write, on what condition, and the lines that the shell ignores."""
    outside = re.sub(r"(<<'END'\n).*?^END\n", r"\1", "".join(f"{line}\n" for line in lines), flags=re.M | re.S)
    commands = [line.removesuffix(" <<'END'") for line in outside.splitlines() if line and line[0] not in "#:"]
    return [re.sub(r"^\[ -[de] \S+ \] \|\| ", "", command) for command in commands]


def test_what_is_missing_is_printed_with_the_commands_of_the_installation() -> None:
    (by_hand,), (_, *steps) = commands_of_section("Without a package"), commands_of_steps()
    build_it, *expected = "".join([by_hand, *steps]).splitlines()
    assert build_it.startswith("python3 build.py build ")
    expected = [re.sub(r"\S*examples/\S+", "/dev/stdin", command) for command in expected]
    printed = printed_commands(make_script(bare_host(program="")))
    assert sorted(command for command in printed if command in expected) == sorted(expected)
    others = [command for command in printed if command not in expected]
    as_daemon = "runuser -u cc-slurm-adapter -g slurm -- /usr/local/sbin/cc-slurm-adapter"
    assert others[-2:] == ["cc-slurm-adapter -check", f"{as_daemon} -dry-run > /dev/null"]
    text = INSTALL.replace("\n", " ").replace(PACKAGED_AS, INSTALLED_AS)
    assert [command for command in others[:-2] if f"`{command}`" not in text] == []


def test_the_readme_has_twelve_of_the_claims_and_some_of_the_costs() -> None:
    claims = rows(section(README, "What it does better"))
    assert len(claims) == 12
    assert [claim for claim in claims if claim not in rows(section(EVIDENCE, "What it does better"))] == []
    costs = rows(section(README, "What it costs"))
    assert costs
    assert [row for row in costs if row not in rows(section(COSTS, "Beside the existing adapter"))] == []


def test_every_setting_is_listed_with_its_default_and_help() -> None:
    listed = [tuple(row) for row in rows(CONFIGURATION.split("\n## ")[0])]
    assert listed == [(f"`{key}`", f"`{default}`", change, text) for key, default, change, text in settings_reference()]


# Words of others that are written like keys of the configuration.
NO_KEYS = {
    *("hetJobId", "hetJobOffset", "jobName", "jobScript", "metaData", "numAcc", "numHwthreads", "slurmInfo"),
    *("submitTime", "ipcSockPath", "slurmQueryMaxRetries", "subClusters"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_names_a_setting_that_is_not_there(name: str) -> None:
    named = {each for each in code(TEXTS[name]) if re.fullmatch(r"[a-z]+[A-Z]\w+", each)}
    assert named - set(DEFAULTS) - NO_KEYS == set()


def test_every_quoted_log_line_is_one_of_the_program() -> None:
    known = "\n".join(templates())
    quoted = [line for row in rows(TEXTS["docs/troubleshooting.md"]) for line in code(row[0])]
    assert len(quoted) > 100
    assert [line for line in quoted if line not in known] == []


def test_every_log_line_shown_is_one_of_the_program() -> None:
    texts = {text for text in templates() if len(text.replace("…", "")) > 8}
    known = [re.compile(".*".join(map(re.escape, text.split("…")))) for text in texts]
    shown = [
        line for text in TEXTS.values() for line in re.findall(r"^(?:INFO|NOTICE|WARNING) (.*)$", text, re.MULTILINE)
    ]
    assert len(shown) >= 6
    assert [line for line in shown if not any(pattern.fullmatch(line) for pattern in known)] == []


def test_every_counter_that_is_explained_is_counted() -> None:
    known = "\n".join(templates())
    listed = [name for row in rows(section(OPERATING, "What the counters mean")) for name in code(row[0])]
    kinds = "|".join(verdict.name.lower() for verdict in Verdict)
    of_answers = [name for name in listed if re.fullmatch(rf"(nats_)?(start|stop)_({kinds})", name)]
    of_ends = [name for name in listed if name.startswith("never_launched_")]
    assert of_answers
    assert [name for name in listed if name not in (*of_answers, *of_ends) and name not in known] == []
    assert "never_launched" in known


def test_the_exit_codes_are_those_of_the_help() -> None:
    listed = [(int(code), meaning) for code, meaning in rows(section(OPERATING, "Exit codes"))]
    assert listed == list(EXIT_CODES.items())


def test_every_claim_names_a_test_that_is_there() -> None:
    """A star marks those that need a real Slurm."""
    in_lab = set(defined_tests(ROOT / "tests" / "lab"))
    elsewhere = set(defined_tests(ROOT / "tests")) - in_lab
    claims = rows(section(EVIDENCE, "What it does better"))
    named = [found for row in claims for found in re.findall(r"`(test_\w+)`( \*)?", row[1])]
    assert len(named) >= len(claims) > 10
    assert [name for name, star in named if name not in (in_lab if star else elsewhere)] == []


@pytest.mark.parametrize(
    ("title", "states"),
    [
        ("States of a run", [stage.value for stage in Stage]),
        ("States of a row", [state.value for state in RowState]),
        ("What an answer does to its row", [verdict.name for verdict in Verdict]),
    ],
)
def test_every_state_has_its_row(title: str, states: list[str]) -> None:
    table = rows(section(HOW_IT_WORKS, title))
    assert sorted(code(row[0])[0] for row in table) == sorted(states)
    assert {each for row in table for each in code(row[2]) if each.islower()} <= {state.value for state in RowState} | {
        stage.value for stage in Stage
    } | {"last"}


def test_the_glossary_has_the_states_of_a_row_and_is_in_order() -> None:
    for part in TEXTS["docs/glossary.md"].split("\n## ")[1:]:
        words = [row[0].replace("`", "").lower() for row in rows(part)]
        assert words == sorted(words)
    words = [row[0] for row in rows(section(TEXTS["docs/glossary.md"], "This program's words"))]
    assert {state.value for state in RowState} - {"done"} <= set(words)


def test_every_thread_that_is_named_is_one_of_the_program() -> None:
    known = set(templates())
    named = {re.sub(r"-\d$", "", name) for row in rows(section(HOW_IT_WORKS, "Threads")) for name in code(row[0])}
    assert len(named) >= 5
    assert named <= known


def test_the_architecture_is_drawn_from_its_lists_and_names_rooms() -> None:
    source = runpy.run_path(str(DOCS / "architecture.py"))
    assert (DOCS / "architecture.svg").read_text(encoding="utf-8") == source["draw"]()
    rooms = {box.title for box in source["BOXES"].values() if box.kind == source["ROOM"]}
    assert [name for name in rooms if not (PACKAGE / name).is_dir()] == []
    threads = {box.thread.partition("thread: ")[2] for box in source["BOXES"].values()} - {""}
    assert threads
    assert threads <= set(templates())


def test_the_metrics_are_listed_as_they_are() -> None:
    source = runpy.run_path(str(DOCS / "metrics.py"))
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == source["write"]()


def test_the_commands_are_listed_as_they_are() -> None:
    source = runpy.run_path(str(DOCS / "commands.py"))
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == source["write"]()


def test_every_label_of_a_metric_is_explained() -> None:
    listed = {label for row in rows(section(TEXTS["docs/metrics.md"], "Labels")) for label in code(row[0])}
    assert listed == {label for metric in METRICS for label in metric.labels}


def defined_tests(folder: Path) -> Iterator[str]:
    for path in folder.rglob("test_*.py"):
        yield from re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_what_slurm_does_with_a_hook_that_fails_is_said_with_its_source() -> None:
    """It differs from hook to hook, and is easily told wrong."""
    files = [
        *(ROOT / name for name in DOCUMENTS),
        *PACKAGE.rglob("*.py"),
        *PACKAGE.rglob("*.sh"),
        *EXAMPLES.glob("*.*"),
    ]
    paragraphs = [part for path in files for part in path.read_text(encoding="utf-8").split("\n\n")]
    told = [part for part in paragraphs if re.search(r"hook|prolog|epilog", part, re.IGNORECASE)]
    told = [part for part in told if re.search(r"\b(drains?|is drained) .*node|node.*\b(drains?|is drained)\b", part)]
    assert told
    assert [part for part in told if "slurm.schedmd.com/prolog_epilog.html" not in part] == []


def test_who_may_import_whom_is_listed_as_it_is_held() -> None:
    def entry(room: str, other: str) -> str:
        door = DOORS.get((room, other))
        return f"{door.replace('.', '/')}.py" if door else f"{other}/"

    listed = {code(room)[0]: set(code(others)) for room, others in rows(section(CONTRIBUTING, "Who may import whom"))}
    assert listed == {f"{room}/": {entry(room, other) for other in others} for room, others in ROOMS.items()}


def test_every_room_is_in_the_layout() -> None:
    entries = {f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.iterdir()} - {"__pycache__/"}
    listed = [name for row in rows(section(CONTRIBUTING, "Layout")) for name in code(row[0])]
    assert sorted(listed) == sorted(entries)


WAYS = (
    "Walk: a hook event to its POST",
    "Walk: a run from squeue's JSON to cc-backend",
    "How to add a Slurm format",
    "How to add a sink",
    "How to add a metric",
    "How to add a command",
    "How to add a check",
)


def modules_with_names(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each file that a text names, with the names in parentheses behind it: `file.py` (`name`, `Class.method`)."""
    for file, names in re.findall(r"`([\w./-]+\.(?:py|sh))`(?:,? \(((?:`[\w.]+`(?:, )?)+)\))?", text):
        yield file, code(names)


@pytest.mark.parametrize("title", WAYS)
def test_a_walk_through_the_code_names_what_is_there(title: str) -> None:
    found = list(modules_with_names(re.sub(r"\s+", " ", section(CONTRIBUTING, title))))
    assert len(found) >= 5
    for file, names in found:
        path = next((folder / file for folder in (PACKAGE, ROOT) if (folder / file).exists()), None)
        assert path is not None, file
        assert [name for name in names if name not in defined(path)] == [], file


def defined(path: Path) -> set[str]:
    """The names of functions, classes, methods and values of a module; of a shell script its functions."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sh":
        return set(re.findall(r"^(\w+)\(\) \{", text, re.MULTILINE))
    return set(names_in(ast.parse(text), ""))


def names_in(tree: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield prefix + node.name
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))
        if isinstance(node, ast.ClassDef):
            yield from names_in(node, f"{node.name}.")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_and_headings_that_a_document_names_are_there(name: str) -> None:
    targets = re.findall(r"\]\((?!https:)([^)]+)\)", TEXTS[name])
    linked = [(beside(name, file) if file else name, heading) for file, _, heading in map(split_link, targets)]
    assert [link for link in linked if link[1] and link[1] not in headings(link[0])] == []
    named = {file for file, _ in linked}
    named |= {each for each in code(TEXTS[name]) if re.fullmatch(r"(examples|tests|docs|\.ci)/[\w./-]+", each)}
    assert [each for each in sorted(named) if not (ROOT / each).exists()] == []


def test_documents_that_the_program_and_the_examples_name_are_there() -> None:
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.sh"), *(path for path in EXAMPLES.rglob("*") if path.is_file())]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix != ".pyc"]
    named = {name for text in texts for name in re.findall(r"\bdocs/[\w-]+\.md", text)}
    assert named
    assert named <= set(DOCUMENTS)


def split_link(target: str) -> tuple[str, str, str]:
    return target.partition("#")


def beside(name: str, target: str) -> str:
    """What a link in a document leads to, from the top of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def headings(name: str) -> set[str]:
    """The anchors in a document."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {slug(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def slug(title: str) -> str:
    """The anchor of a heading, as forges make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_commands_of_build_py_are_there() -> None:
    calls = [call for text in TEXTS.values() for call in re.findall(r"build\.py (\w[^`\n#;,|)]*)", text)]
    assert len(calls) > 20
    for call in calls:
        words = [word for word in call.split() if word != "..."]
        own = words[: words.index("--")] if "--" in words else words
        options, others = build.command_line().parse_known_args(own)
        assert options.command == "demo" or not others, call


CALL = r"(?<!-[uo] )cc-slurm-adapter((?: -[a-z]+(?:-[a-z]+)*)+)"
"""A call of the program with flags, but not an option of another program that names the unit or the user."""


def test_flags_of_the_program_are_there() -> None:
    known = {flag for action in make_parser()._actions for flag in action.option_strings}  # argparse has no other way
    calls = [
        call
        for text in TEXTS.values()
        for call in re.findall(r"(?<!-[uo] )cc-slurm-adapter((?: -[a-z]+(?:-[a-z]+)*)+)", text)
    ]
    assert len(calls) >= 5
    assert {flag for call in calls for flag in call.split()} <= known


def test_security_names_what_is_bundled() -> None:
    text = TEXTS["SECURITY.md"]
    named = [name for row in rows(section(text, "What is bundled")) for name in code(row[0])]
    locked = re.findall(r"^([\w-]+)==", build.lock_of(["run"]).read_text(encoding="ascii"), re.MULTILINE)
    assert sorted(named) == sorted(locked)


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+)", TEXTS["CHANGELOG.md"], re.MULTILINE)
    assert first is not None
    assert first[1] == __version__

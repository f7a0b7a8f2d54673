r"""Makes the manual pages from the tables of commands, flags and settings: `python3 docs/man_pages.py FOLDER`.

They are in man(7), which groff and mandoc understand. Files and signals are those of docs/operating.md.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cc_slurm_adapter import __version__
from cc_slurm_adapter.cli.main import DESCRIPTION, EXIT_CODES
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.config.keys import REMOVED, SETTINGS, Setting
from docs.command_table import (
    ENVIRONMENT,
    PROGRAM,
    VALUES,
    Call,
    Flag,
    calls,
    commands,
    commands_with,
    flags,
    options,
)

ROOT = Path(__file__).parents[1]
COMMAND_SECTION, CONFIGURATION_SECTION = 8, 5
WHAT_IT_IS = (
    DESCRIPTION,
    "The daemon learns of jobs from Slurm's hooks and by asking Slurm once a minute, keeps every message on disk until"
    " it is delivered, and is usually started by systemd. The other commands look at the daemon, at this host or at one"
    " job, or do a part of its work, and end. A flag may have one dash or two, and its value follows as the next word"
    " or after =. One command is given at a time; the order of flags does not matter.",
    "Called by Slurm as PrologSlurmctld, EpilogSlurmctld, Prolog or Epilog, which means that SLURM_JOB_ID is set and"
    " there are no arguments other than -config and -debug, it tells the daemon about the job, prints nothing and"
    " always exits 0.",
)
WITH_ALL = (
    "-config and -debug are accepted with all commands; where they are not listed, they change nothing. A command"
    " refuses the other flags that do not go with it."
)
WRITTEN = (
    "The daemon writes only the following files. Those that are keys of the configuration are where these say; see"
    " cc-slurm-adapter(5)."
)
EXAMPLES = {
    "-install": "Print what is missing on this host, to read and paste.",
    "-check": "Look for everything that can be wrong, before the first start and after a change.",
    "-daemon -config /etc/cc-slurm-adapter/config.json -debug 3": "Run the daemon in this terminal, and log every job.",
    "-dry-run -since 2h": "Print what a daemon would send, and send nothing.",
    "-status -watch": "Show how the daemon is, until Ctrl-C.",
    "-job 4711": "Explain why a job is in cc-backend or not.",
    "-queue list -state parked": "List the messages that were refused.",
    "-queue retry all -state parked": "Try them again, after what was wrong is mended.",
    "-sync -since 30d": "Bring what has ended in the last 30 days.",
}
"""Calls of the program, and what for."""
SEE_ALSO = ("slurm.conf(5)", "squeue(1)", "sacct(1)", "systemctl(1)", "journalctl(1)")
TYPES = {str: "text", bool: "true or false", int: "whole number", list: "list", dict: "object"}
FORM = (
    f"The configuration is one JSON object in {DEFAULT_CONFIG_PATH}, or in the file after -config. Upper and lower case"
    " do not matter in keys. What is not set has its default. A key that there is not is ignored with a warning. A"
    " value that cannot be used is an error, and all errors are told together.",
    "A change is in force after a reload (systemctl reload cc-slurm-adapter, or SIGHUP to the daemon) or after a"
    " restart, as is said of each key. Neither loses anything. A configuration with a mistake is refused as a whole at"
    " a reload, and the one before stays in force.",
    "cc-slurm-adapter -settings lists the keys, and cc-slurm-adapter -check finds what is wrong with a configuration.",
)
MORE = "The documents of the project, beginning with README.md, explain more."
WIDTH = 78
"""Columns of a line in the file; what is shown has the width of the terminal."""
GLYPHS = {"\\": r"\(rs", "-": r"\-", "'": r"\(aq", '"': r"\(dq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
"""What roff would read or show as something else."""


def command_page() -> str:
    """Return cc-slurm-adapter(8): the commands and flags."""
    sections = {
        "NAME": [_name("reports Slurm jobs and the states of nodes to cc-backend")],
        "SYNOPSIS": list(map(_synopsis, calls())),
        "DESCRIPTION": _paragraphs(WHAT_IT_IS),
        "COMMANDS": [_entry(_shown(flag), _sentence(flag.help)) for flag in commands()],
        "OPTIONS": [
            *_paragraphs([WITH_ALL]),
            *(_entry(_shown(flag), _sentence(flag.help), *_goes_with(flag)) for flag in options()),
            *_paragraphs(["The values are:"]),
            *(_entry(_italic(kind), value.described()) for kind, value in VALUES.items()),
        ],
        "EXIT STATUS": [_entry(_bold(str(code)), _sentence(meaning)) for code, meaning in EXIT_CODES.items()],
        "SIGNALS": [_entry(_bold(names), text) for names, text in _table("Signals")],
        "FILES": [
            _entry(_bold(DEFAULT_CONFIG_PATH), "The configuration. It and the files that it names are only read."),
            *_paragraphs([WRITTEN]),
            *(_entry(_marked(path), text) for path, text in _table("Files")),
        ],
        "ENVIRONMENT": [_entry(_bold(names), text) for names, text in ENVIRONMENT.items()],
        "EXAMPLES": [_entry(_bold(f"{PROGRAM} {call}"), text) for call, text in EXAMPLES.items()],
        "SEE ALSO": [_see_also(f"{PROGRAM}({CONFIGURATION_SECTION})"), *_paragraphs([MORE])],
    }
    return _page(COMMAND_SECTION, sections)


def configuration_page() -> str:
    """Return cc-slurm-adapter(5): the keys of the configuration."""
    old = [(name, setting.key) for setting in SETTINGS for name in setting.old_names]
    sections = {
        "NAME": [_name(f"the configuration of {PROGRAM}({COMMAND_SECTION})")],
        "SYNOPSIS": [_bold(DEFAULT_CONFIG_PATH)],
        "DESCRIPTION": _paragraphs(FORM),
        "KEYS": [_entry(_bold(setting.key), _about(setting), setting.help) for setting in SETTINGS],
        "OLD NAMES": [
            *(_entry(_bold(name), f"Is read as {key}.") for name, key in old),
            *(_entry(_bold(name), _sentence(text)) for name, text in REMOVED.items()),
        ],
        "FILES": [_entry(_bold(DEFAULT_CONFIG_PATH), "The configuration, unless -config names another file.")],
        "EXAMPLES": [*_paragraphs(["What every site needs:"]), _as_it_is(ROOT / "examples" / "config.minimal.json")],
        "SEE ALSO": [_see_also(f"{PROGRAM}({COMMAND_SECTION})"), *_paragraphs([MORE])],
    }
    return _page(CONFIGURATION_SECTION, sections)


def release_date(changelog: str) -> str:
    """Return the date of this version in the text of CHANGELOG.md, as 2026-01-31; '' if it is not released."""
    heading = re.search(rf"^## {re.escape(__version__)} - (\d{{4}}-\d\d-\d\d)$", changelog, re.MULTILINE)
    return heading[1] if heading else ""


def escape(text: str) -> str:
    """Return a text in which roff finds neither a request nor an escape, and shows every character as it is."""
    escaped = "".join(GLYPHS.get(char, char) for char in text)
    return re.sub(r"(?<!\S)(?=[.])", r"\\&", escaped)


# --- parts of a page: each is whole lines of roff, without the last line break


def _page(number: int, sections: dict[str, list[str]]) -> str:
    date = release_date((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    head = f'.TH {escape(PROGRAM.upper())} {number} "{date}" "{escape(f"{PROGRAM} {__version__}")}"'
    # No word is divided, as names of keys and commands are searched for.
    lines = [r".\" Made by docs/man_pages.py; not edited by hand.", ".nr HY 0", head, ".ad l"]
    for title, (first, *others) in sections.items():
        lines += [f".SH {title}", first.removeprefix(".PP\n"), *others]
    return "\n".join(lines) + "\n"


def _name(what: str) -> str:
    return f"{escape(PROGRAM)} \\- {escape(what)}"


def _synopsis(call: Call) -> str:
    fitting = [rf"[{_shown(flag)}]" for flag in call.fitting]
    words = r"\ ".join([_bold(f"-{call.flag.name}"), *map(_word, call.words.split())])
    return "\n".join([f".SY {escape(PROGRAM)}", words if call.words else _shown(call.flag), *fitting, ".YS"])


def _word(word: str) -> str:
    return _bold(word) if word.islower() else _italic(word)


def _paragraphs(texts: Iterable[str]) -> list[str]:
    return [f".PP\n{_lines(text)}" for text in texts]


def _entry(tag: str, *texts: str) -> str:
    return "\n".join([".TP", tag, "\n.br\n".join(map(_lines, texts))])


def _lines(text: str) -> str:
    return textwrap.fill(_marked(text), WIDTH, break_long_words=False, break_on_hyphens=False)


def _as_it_is(path: Path) -> str:
    return "\n".join([".PP", ".EX", escape(path.read_text(encoding="utf-8").rstrip("\n")), ".EE"])


def _see_also(other: str) -> str:
    pages = [re.sub(r"(.*)(\(.*)", r"\1 \2", page).split() for page in (other, *SEE_ALSO)]
    return ",\n".join(f"{_bold(name)}{section}" for name, section in pages)


def _about(setting: Setting) -> str:
    types = " or ".join(TYPES[each] for each in setting.types)
    change = "reload" if setting.reload else "restart"
    return f"{types[0].upper()}{types[1:]}; default `{json.dumps(setting.default)}`; a change needs a {change}."


# --- within a line


def _bold(text: str) -> str:
    return rf"\fB{escape(text)}\fR"


def _italic(text: str) -> str:
    return rf"\fI{escape(text)}\fR"


def _shown(flag: Flag) -> str:
    name, _, value = flag.shown.partition(" ")
    kind = value.replace(flag.value, _italic(flag.value)) if flag.value else ""
    return rf"{_bold(name)}\ {kind}" if kind else _bold(name)


def _goes_with(flag: Flag) -> list[str]:
    """Return a sentence with the commands that a flag goes with, unless its help names them."""
    names = [f"-{command.name}" for command in commands_with(flag)]
    return [f"Goes with {', '.join(names)}."] if any(name not in flag.help for name in names) else []


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _marked(text: str) -> str:
    """Return a text of a document or of the program, with links as their texts; names of flags and keys are bold."""
    plain = re.sub(r"\[([^]]*)\]\((?:#[^)]*|([\w-]+\.md)[^)]*)\)", _linked, text)
    parts = re.split(r"(`[^`]*`)", plain)
    return "".join(_bold(part[1:-1]) if part[:1] == "`" else _with_names(part) for part in parts)


def _linked(link: re.Match[str]) -> str:
    return f"{link[1]} (docs/{link[2]})" if link[2] else link[1]


def _with_names(text: str) -> str:
    words = re.split(r"(?<![\w.-])(-[a-z]+(?:-[a-z]+)*|[a-z]+[A-Z]\w*)(?![\w-])", text)
    return "".join(_bold(word) if word in NAMES else escape(word) for word in words)


NAMES = {f"-{name}" for name in flags()} | {setting.key for setting in SETTINGS}


def _table(title: str) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table in a section of docs/operating.md."""
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    yield from re.findall(r"^\| (.+) \| (.+) \|$", section, re.MULTILINE)[1:]


def write(folder: Path) -> None:
    """Write both pages into a folder, which is made if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {COMMAND_SECTION: command_page, CONFIGURATION_SECTION: configuration_page}
    for number, page in pages.items():
        (folder / f"{PROGRAM}.{number}").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{sys.argv[0]}: name the folder for the pages")
    write(Path(sys.argv[1]))

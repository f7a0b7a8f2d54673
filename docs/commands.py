"""Writes docs/commands.md from the tables of commands: `python3 docs/commands.py`. The file is not edited by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.command_table import ENVIRONMENT, VALUES, Flag, calls, commands, commands_with, is_accepted_anywhere, options

BEGINNING = """\
# Commands

- [All commands](#all-commands) · [Flags](#flags) · [Values](#values) · [Environment](#environment) ·
  [Manual pages and completion](#manual-pages-and-completion)

This page and the code are one: `python3 docs/commands.py` writes it. A flag may have one dash or two, and its value
follows as the next word or after `=`. One command is given at a time; the order of flags does not matter. All commands
end with one of the [exit codes](operating.md#exit-codes), and print each problem as a line on standard error.

Without a command, and with `SLURM_JOB_ID` set, the program is a hook: see
[Trying the hook](operating.md#trying-the-hook).

## All commands

"""

FLAGS = """\

## Flags

With a command that a flag does not go with, it is an error, except for `-config` and `-debug`: where these are not
listed, they change nothing.

"""

VALUES_BEGIN = """\

## Values

"""

ENVIRONMENT_BEGINS = """\

## Environment

Variables that begin with `SQUEUE_`, `SINFO_`, `SACCT_` or `SCONTROL_` are not passed on to Slurm's commands, since they
change what these print.

"""

END = """\

## Manual pages and completion

[Packages](packages.md) have both. For an installation by hand they are made from the same tables, by any Python from
3.9 on, which needs nothing else:

```sh
python3 docs/man_pages.py .build/manual
install -D -m 0644 -t /usr/local/share/man/man8 .build/manual/cc-slurm-adapter.8
install -D -m 0644 -t /usr/local/share/man/man5 .build/manual/cc-slurm-adapter.5
python3 docs/completion.py .build/completion
install -D -m 0644 -t /usr/local/share/bash-completion/completions .build/completion/cc-slurm-adapter
install -D -m 0644 -t /usr/local/share/zsh/site-functions .build/completion/_cc-slurm-adapter
```

Shells that start from then on offer commands, and after a command the flags that go with it, the words of `-queue`,
states, destinations, levels and files. Job ids are not completed, as that would ask Slurm. bash needs the package
bash-completion for it.
"""

CHAPTERS = {
    "daemon": "install.md#4-start-the-daemon",
    "once": "operating.md#one-round",
    "sync": "operating.md#bring-what-is-missing",
    "dry-run": "operating.md#see-what-would-be-sent",
    "status": "operating.md#status",
    "check": "operating.md#check",
    "install": "operating.md#what-is-missing",
    "job": "troubleshooting.md#a-job-is-missing-ask--job",
    "queue": "operating.md#the-queue-look-try-again-drop",
    "resend": "operating.md#correct-what-cc-backend-has",
    "metrics": "metrics.md",
    "topology": "configuration.md#hardware-threads",
    "settings": "configuration.md",
}
"""Where there is more about a command."""


def write() -> str:
    """Return the whole document."""
    synopsis = ["", "```", *map(str, calls()), "```", ""]
    parts = [
        BEGINNING,
        _table(("Command", "What it does"), ((_named(flag), flag.help) for flag in commands())),
        "\n".join(synopsis),
        FLAGS,
        _table(("Flag", "Goes with", "What it is"), map(_option, options())),
        VALUES_BEGIN,
        _table(("Value", "What it is"), ((f"`{kind}`", value.described()) for kind, value in VALUES.items())),
        ENVIRONMENT_BEGINS,
        _table(("Variable", "What it is"), (_variable(*each) for each in ENVIRONMENT.items())),
        END,
    ]
    return "".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [_row(head), "|---" * len(head) + "|", *map(_row, rows)]
    return "".join(f"{line}\n" for line in lines)


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _named(flag: Flag) -> str:
    shown, chapter = f"`{flag.shown}`", CHAPTERS.get(flag.name)
    return f"[{shown}]({chapter})" if chapter else shown


def _option(flag: Flag) -> tuple[str, str, str]:
    goes_with = ", ".join(f"`-{command.name}`" for command in commands_with(flag))
    return f"`{flag.shown}`", goes_with + ("; accepted with all" if is_accepted_anywhere(flag) else ""), flag.help


def _variable(names: str, text: str) -> tuple[str, str]:
    return ", ".join(f"`{name}`" for name in names.split(", ")), text


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(write(), encoding="utf-8")

"""What docs/commands.md, the manual page and the completion say of commands, read from the tables of `cli/main.py`.

Only what is no flag is written here: the kinds of values, and the variables of the environment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from cc_slurm_adapter.cli.main import ANYWHERE, COMMANDS, Command, make_parser
from cc_slurm_adapter.cli.queue import ACTIONS
from cc_slurm_adapter.log import LEVELS
from cc_slurm_adapter.outbox.selection import ALL, STATES

PROGRAM = "cc-slurm-adapter"
HELP = "help"
"""The flag that is a command, but ends the program while flags are read."""


class Flag(NamedTuple):
    """A flag: its name without the dash, its value, and its line of -help."""

    name: str
    value: str
    """The kind of value, such as TIME; '' if it has none."""
    nargs: str
    """How many values it has, as argparse says it: '' for one, or none; `?` for one at most; `+` for one or more."""
    help: str

    @property
    def shown(self) -> str:
        """Return the flag with its value, as a line of the synopsis has it."""
        values = {"": self.value, "?": f"[{self.value}]", "+": f"{self.value}..."}[self.nargs]
        return f"-{self.name} {values}".rstrip()


class Call(NamedTuple):
    """One line of the synopsis: a command, the words after it, and the flags that fit."""

    flag: Flag
    words: str
    fitting: tuple[Flag, ...]

    @property
    def begin(self) -> str:
        """Return the command as it is typed, without its flags."""
        return f"-{self.flag.name} {self.words}" if self.words else self.flag.shown

    def __str__(self) -> str:
        return " ".join([PROGRAM, self.begin, *(f"[{flag.shown}]" for flag in self.fitting)])


def flags() -> dict[str, Flag]:
    """Return all flags by name, in the order of -help."""
    return {flag.name: flag for flag in map(_flag, make_parser().flags())}


def _flag(action: argparse.Action) -> Flag:
    nargs = "" if action.nargs in (None, 0) else str(action.nargs)
    return Flag(action.option_strings[0].lstrip("-"), str(action.metavar or ""), nargs, action.help or "")


def calls() -> list[Call]:
    """Return a line of the synopsis for each command and each of its forms."""
    known = flags()
    found = [call for command in COMMANDS for call in _calls(command, known)]
    return [*found, Call(known[HELP], "", ())]


def _calls(command: Command, known: dict[str, Flag]) -> Iterator[Call]:
    forms: Iterable[tuple[str, tuple[str, ...]]] = command.forms or (("", command.with_flags),)
    for words, names in forms:
        yield Call(known[command.flag], words, tuple(known[name] for name in names))


def commands() -> list[Flag]:
    """Return the flags that are commands."""
    known = flags()
    return [*(known[command.flag] for command in COMMANDS), known[HELP]]


def options() -> list[Flag]:
    """Return the flags that fit a command. A command that fits another one is among them."""
    named = {command.flag for command in COMMANDS} | {HELP}
    fitting = {name for command in COMMANDS for name in command.with_flags}
    return [flag for flag in flags().values() if flag.name in fitting or flag.name not in named]


def commands_with(option: Flag) -> list[Flag]:
    """Return the commands that a flag fits."""
    known = flags()
    return [known[command.flag] for command in COMMANDS if option.name in command.with_flags]


def is_accepted_anywhere(option: Flag) -> bool:
    """Return whether no command refuses the flag."""
    return option.name in ANYWHERE


class Value(NamedTuple):
    """A kind of value that flags have: what it is, and the words that it can be; () if there is no end of them."""

    text: str
    words: tuple[str, ...] = ()

    def described(self) -> str:
        """Return what it is, with the words in backquotes."""
        return f"{self.text}: {', '.join(f'`{word}`' for word in self.words)}." if self.words else f"{self.text}."


VALUES = {
    "true|false": Value(
        "Whether it is to run; `-daemon=false` is accepted as Go's flags are written", ("true", "false")
    ),
    "PATH": Value("A file"),
    "LEVEL": Value("A level of the log", tuple(map(str, range(len(LEVELS))))),
    "TIME": Value(
        "A span before now (`90min`, `2h`, `7d`), a date (`2026-01-31`, `2026-01-31T14:00`) in the time zone of this"
        " host, or Unix seconds"
    ),
    "SPAN": Value("A span of time, as `90s`, `10min`, `2h` or `7d`"),
    "ID": Value("A job: its id, `123_4` for a task of an array, or `123+1` for a component of a heterogeneous job"),
    "JOB": Value("The id of a job"),
    "JOB|all": Value("The id of a job, or every job", (ALL,)),
    "WORD": Value("What to do with messages, and, but for `list`, of which job", ACTIONS),
    "STATE": Value("The state of a message, or several with commas", STATES),
    "TEXT": Value("Any text"),
    "NAME": Value("The name of a cluster"),
    "SINK": Value("A destination", ("cc-backend", "nats")),
    "N": Value("A number"),
}
"""All kinds of values, by their names in the synopsis."""

ENVIRONMENT = {
    "CC_SLURM_ADAPTER_PYTHON": "The Python that runs this program. If it is not set or cannot be used, it looks for"
    " one.",
    "CC_SLURM_ADAPTER_EVENTS": "The events folder of hooks that are called without arguments, if it is another one than"
    " that of the default configuration: see prepEventsPath.",
    "PATH": "Where Slurm's commands are found, and Python if it is in none of the usual places.",
    "SLURM_CONF": "The slurm.conf of Slurm's commands, unless slurmConf names one.",
    "HTTPS_PROXY, HTTP_PROXY, NO_PROXY": "The proxy for cc-backend, and which hosts need none, in upper or lower case,"
    " unless ccRestProxy is set.",
    "NO_COLOR": "If it is set, -status and -check show no colours.",
    "TERM, COLUMNS": "What the terminal can do, and how wide it is.",
    "SLURM_JOB_ID, SLURM_CLUSTER_NAME, SLURM_SCRIPT_CONTEXT": "Set by slurmctld and slurmd for their hooks, with others"
    " that are passed on over the socket. If the first one is set and there are no arguments other than -config and"
    " -debug, the program runs as a hook.",
    "SLURMD_NODENAME": "The name of this node for -topology, as slurmd sets it inside of jobs.",
    "CREDENTIALS_DIRECTORY": "Set by systemd: the folder with the credentials of the unit, which keys that name a file"
    " with a secret may name without a path.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, INVOCATION_ID, JOURNAL_STREAM": "Set by systemd: how the daemon tells"
    " that it has started and is alive, whether this is inside of a unit, and whether each line begins with its"
    " priority.",
    "MALLOC_ARENA_MAX": "How many memory pools glibc makes; it is set to 2 unless it is set already.",
    "MALLOC_MMAP_THRESHOLD_": "From how many bytes on glibc gives freed memory back to the kernel; it is set to 131072"
    " unless it is set already.",
}
"""What the program reads from the environment. Names that belong together are in one row."""

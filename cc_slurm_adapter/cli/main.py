"""The flags of the command line, and the command that each calls.

The flags are those of the existing adapter. Each may have one dash or two.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple, NoReturn

from cc_slurm_adapter import lines
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.errors import AdapterError, ConfigError, ForbiddenFile, UnreadableFile, UsageError
from cc_slurm_adapter.lines import log_line, print_line
from cc_slurm_adapter.log import LEVELS, describe_error
from cc_slurm_adapter.system.nearest import hint

DESCRIPTION = "Reports the start and stop of every Slurm job, and the states of the nodes, to cc-backend."
DEBUG_HELP = "how much to log: 0 nothing but crashes, 1 errors, 2 all that matters (default), 3 every job, 4 and 5 more"
EXIT_CODES = {
    0: "stopped by a signal, or printed what was asked for; with -status, -check and -job: all is well; with -once and"
    " -sync: all is delivered; a hook call always",
    1: "any other failure; it may pass, as a secret that cannot be read or a name that does not resolve; with -status"
    " and -job: something needs a look; with -check: there are warnings; with -once and -sync: something is not read or"
    " delivered",
    2: "with -status: the daemon does not run, or does not answer; with -check: there is a failure; with -job: there is"
    " no such job",
    64: "wrong arguments",
    78: "a configuration that is wrong, is not there, or may not be read by this user, whatever the command (but -check"
    " counts it as a failure, and -install prints how to make one)",
    130: "ended by Ctrl-C",
}
"""All exit codes of this program. 64 and 78 are EX_USAGE and EX_CONFIG of sysexits.h, which only this program uses. A
shell that finds only half of this file ends with 2, so a start that is too early, during a copy, is tried again; the
daemon itself never ends with it."""
OK, OTHER, USAGE, CONFIG = 0, 1, 64, 78

CALLED_BY_SLURM = (
    "Called by Slurm as PrologSlurmctld, EpilogSlurmctld, Prolog or Epilog (SLURM_JOB_ID is set, and there are no"
    " arguments but -config and -debug), it tells the daemon about the job and always exits 0."
)
SIGNALS = (
    "signals to the daemon: SIGTERM stops it within 2 s; SIGHUP lets it read the configuration again and try everything"
    " again that was refused"
)
FILES = "files: the configuration, and what it names: pidFilePath, lastRunPath with the state beside it, the socket"
EXAMPLES = """\
examples:
  cc-slurm-adapter -check                what is wrong on this host
  cc-slurm-adapter -daemon -debug 3      the first start, in this terminal
  cc-slurm-adapter -job 4711             where one job is, and why
  cc-slurm-adapter -sync -since 7d       bring what has ended in the last week
  cc-slurm-adapter -queue list           what cc-backend does not have yet"""


def closing_help(width: int) -> str:
    """Return what -help says after the flags, in lines of at most `width` columns."""
    from cc_slurm_adapter.daemon.screen_text import wrapped

    texts = [*wrapped(CALLED_BY_SLURM, width), "", *wrapped(SIGNALS, width, 2), *wrapped(FILES, width, 2)]
    codes = []
    for code, meaning in EXIT_CODES.items():
        first, *others = wrapped(meaning, width - 6)
        codes += [f"{code:4}  {first}", *(f"      {each}" for each in others)]
    return "\n".join([*texts, "", "exit codes:", *codes, "", EXAMPLES])


class Formatter(argparse.HelpFormatter):
    """Breaks lines between words only: argparse would break cc-backend."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        from cc_slurm_adapter.daemon.screen_text import wrapped

        return wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(f"{indent}{line}" for line in self._split_lines(text, width))


class Parser(argparse.ArgumentParser):
    """Reads the flags. Wrong ones end in UsageError, which is one line."""

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the flags of a call. Raises UsageError; for a flag that there is not it names the nearest one."""
        for word in takewhile(lambda word: word != "--", argv):
            name = word.partition("=")[0]
            if _is_flag(name) and name not in self._option_string_actions:
                raise UsageError(self._unknown(name, "unknown flag"))
        arguments, rest = self.parse_known_args(argv)
        for word in rest:
            if word != "--":
                raise UsageError(self._unknown(word, "here a flag is expected"))
        return arguments

    def flags(self) -> list[argparse.Action]:
        """Return all flags in the order of -help. The metavar of a flag says which kind of value it has."""
        return list(self._actions)

    def _unknown(self, word: str, what: str) -> str:
        """Return what is wrong with a word, and the flag that is most like it."""
        flags = {name.lstrip("-") for name in self._option_string_actions} - {"h"}
        found = hint(word.lstrip("-"), flags, "", prefix="-")
        return f"{word}: {what}; {found}{' ' if found else ''}-help shows what there is"

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, so that wrong arguments end in one line."""
        raise UsageError(f"{message}; -help shows what there is")

    def format_help(self) -> str:
        """Return what -help prints. Its last part is made only now: few calls need it."""
        from cc_slurm_adapter.daemon.screen_text import screen_size

        width = screen_size()[0]
        return f"{super().format_help()}\n{closing_help(width)}\n"

    def _print_message(self, message: str, file: object = None) -> None:
        for line in message.splitlines():
            print_line(line)


def _is_flag(word: str) -> bool:
    """Return whether a word has the form of a flag. A negative number or a text with a blank may be a flag's value."""
    begins_a_flag = word.startswith("-") and word.strip("-") != ""
    return begins_a_flag and " " not in word and not word.lstrip("-").isdigit()


def make_parser() -> Parser:
    """Return a parser for all flags."""
    parser = Parser(
        prog="cc-slurm-adapter",
        description=DESCRIPTION,
        formatter_class=Formatter,
        add_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-config", "--config", metavar="PATH", help=f"the configuration file (default: {DEFAULT_CONFIG_PATH})")
    add("-daemon", "--daemon", nargs="?", const=True, default=False, type=_truth, metavar="true|false",
        help="run the daemon in the foreground, as systemd wants it")  # fmt: skip
    add("-debug", "--debug", metavar="LEVEL", type=_level, default=2, help=DEBUG_HELP)
    add("-once", "--once", action="store_true",
        help="do once what the daemon does, and end when all is delivered, or after -timeout")  # fmt: skip
    add("-sync", "--sync", action="store_true",
        help="bring on purpose what has ended since -since, or the job -job, however long ago")  # fmt: skip
    add("-until", "--until", metavar="TIME", help="with -sync: only what has ended until then")
    add("-timeout", "--timeout", metavar="SPAN",
        help="with -once: how long it may take (10min); with -sync: the same (no limit)")  # fmt: skip
    add("-dry-run", "--dry-run", action="store_true",
        help="print the requests that a daemon would send now, and send none; with -job ID: of one job")  # fmt: skip
    add("-since", "--since", metavar="TIME",
        help="with -dry-run (without -job) and -sync: what has ended since then, as 2h, 7d, 2026-01-31 or"
        " 2026-01-31T14:00; with -resend: only runs that began or ended since then")  # fmt: skip
    add("-status", "--status", action="store_true", help="show how the daemon is: what it does, and what is wrong")
    add("-watch", "--watch", action="store_true", help="with -status: show it again every 2 s, until Ctrl-C")
    add("-check", "--check", action="store_true",
        help="look for everything that can be wrong here, a line each; nothing is sent or changed")  # fmt: skip
    add("-install", "--install", action="store_true",
        help="print what is missing on this host, as commands and files to paste; nothing is changed")  # fmt: skip
    add("-job", "--job", metavar="ID",
        help="explain a job: why it is in cc-backend or not, and what to do; with -dry-run and -sync: only this"
        " job")  # fmt: skip
    add("-queue", "--queue", nargs="+", metavar="WORD",
        help="messages that are not delivered: `list`, `show JOB`, `retry JOB|all` or `drop JOB|all`")  # fmt: skip
    add("-state", "--state", metavar="STATE", help="with -queue: only pending, parked, conflict or following ones")
    add("-reason", "--reason", metavar="TEXT", help="with -queue: only those whose reason contains this")
    add("-cluster", "--cluster", metavar="NAME", help="with -queue: only those of this cluster")
    add("-sink", "--sink", metavar="SINK", help="with -queue: only those to cc-backend or to nats")
    add("-limit", "--limit", metavar="N", type=_count, help="with -queue list: how many are listed (50)")
    add("-resend", "--resend", nargs="?", const="", metavar="JOB",
        help="send a job, or with -since all runs since then, to cc-backend anew where it has something else than Slurm"
        " says now, as with a corrected gpuPciAddrs")  # fmt: skip
    add("-yes", "--yes", action="store_true", help="with -queue drop and -resend: do not ask")
    add("-metrics", "--metrics", action="store_true",
        help="print the metrics of the running daemon, in Prometheus' text format")  # fmt: skip
    add("-topology", "--topology", action="store_true",
        help="on a compute node: print its hwthreadNumbering for the configuration")  # fmt: skip
    add("-json", "--json", action="store_true",
        help="with -status, -check, -job, -queue and -topology: one JSON object in a line")  # fmt: skip
    add("-settings", "--settings", action="store_true", help="list the keys of the configuration with their defaults")
    add("-version", "--version", action="store_true", help="print the version and what this file consists of")
    add("-help", "--help", "-h", action="help", help="print the commands and flags")
    return parser


def _truth(text: str) -> bool:
    """Accept `-daemon=true` and the like, as Go's flags are written."""
    if text.lower() in ("true", "t", "1", "false", "f", "0"):
        return text.lower() in ("true", "t", "1")
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number")


def _level(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < len(LEVELS):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no level of {DEBUG_HELP}")


def run_command(argv: list[str]) -> int:
    """Run a call that is not a hook call, and return its exit code. Each problem is a line on standard error."""
    try:
        if not argv and lines.is_terminal():
            return _first_run()
        return _run(make_parser().parse(argv))
    except UnreadableFile as error:
        code = _fail(OTHER, *error.problems)
        _warn(error)
        _rest_without_file(error)
        return code
    except ConfigError as error:
        _warn(error)
        return _fail(CONFIG, *error.problems)
    except AdapterError as error:
        return _fail(USAGE if isinstance(error, UsageError) else OTHER, str(error))
    except ImportError:
        raise  # __main__ reports it: this Python lacks a part of its standard library
    except Exception as error:  # noqa: BLE001 - a traceback would be several lines without a priority
        return _fail(OTHER, f"an error of this program: {describe_error(error)}")


def _first_run() -> int:
    """Show what this program is to somebody who has just copied it. As nothing was done, the call counts as wrong."""
    from cc_slurm_adapter.cli.first_run import print_first_steps

    print_first_steps(DESCRIPTION)
    return USAGE


def _fail(code: int, *problems: str) -> int:
    for problem in problems:
        log_line(f"cc-slurm-adapter: {problem}", lines.ERROR)
    return code


def _warn(error: ConfigError) -> None:
    for warning in error.warnings:
        log_line(f"cc-slurm-adapter: {warning}", lines.WARNING)


def _rest_without_file(error: UnreadableFile) -> None:
    from cc_slurm_adapter.daemon.systemd import rest_before_the_next_start

    rest_before_the_next_start("; ".join(error.problems), time.sleep)


def _run(arguments: argparse.Namespace) -> int:
    """Run the command that the flags name, and return its exit code. Raises UsageError for flags that do not fit."""
    given = [command for command in COMMANDS if _is_given(arguments, command.flag)]
    named = [command for command in given if not any(command.flag in other.with_flags for other in given)]
    if not named:
        _check_fitting(arguments, ())
        raise UsageError(
            "nothing to do: -daemon starts the daemon; as a hook it is called by Slurm, with SLURM_JOB_ID set"
            " (-help shows more)"
        )
    if len(named) > 1:
        raise UsageError(f"{' and '.join(f'-{command.flag}' for command in named)}: give one of them")
    _check_fitting(arguments, (named[0].flag, *named[0].with_flags))
    try:
        return named[0].run(arguments)
    except ForbiddenFile as error:
        if named[0].run is _daemon:
            raise
        raise ForbiddenFile([f"{problem}: run this as root" for problem in error.problems]) from None


def _is_given(arguments: argparse.Namespace, flag: str) -> bool:
    value = getattr(arguments, flag.replace("-", "_"))
    return value is not None and value is not False  # 0 is given


def _check_fitting(arguments: argparse.Namespace, fitting: Sequence[str]) -> None:
    """Raise UsageError for a flag that belongs to another command than the one that is given."""
    for flag in sorted({flag for command in COMMANDS for flag in command.with_flags} - {*fitting, *ANYWHERE}):
        if _is_given(arguments, flag):
            owners = [f"-{command.flag}" for command in COMMANDS if flag in command.with_flags]
            raise UsageError(f"-{flag} goes with {' or '.join(owners)}")


# Each command imports its module itself, so that a call loads only what it needs: -version works wherever this starts.


def _daemon(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.run import run_daemon

    run_daemon(_path(arguments), explicit=_is_explicit(arguments), debug=arguments.debug)
    return OK


def _once(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.once import run_once

    path, explicit = _path(arguments), _is_explicit(arguments)
    return run_once(path, explicit=explicit, debug=arguments.debug, timeout=arguments.timeout)


def _sync(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.sync import sync

    flags = {name: getattr(arguments, name) for name in OF_SYNC}
    return sync(_path(arguments), explicit=_is_explicit(arguments), debug=arguments.debug, **flags)


def _status(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.control_client import get
    from cc_slurm_adapter.cli.status import Found, find_status, print_status, watch_status
    from cc_slurm_adapter.config.paths import DEFAULT_PATHS, read_paths

    path, reads = _path(arguments), ""
    try:
        paths = read_paths(path, explicit=_is_explicit(arguments))
    except ConfigError as error:
        if isinstance(error, (UnreadableFile, ForbiddenFile)) or not os.path.isfile(path):
            raise
        # A daemon that refuses such a file at a reload goes on with the one before.
        _fail(CONFIG, *error.problems)
        log_line("cc-slurm-adapter: the daemon is asked at the default paths", lines.WARNING)
        paths, reads = DEFAULT_PATHS, path

    def service() -> str:
        from cc_slurm_adapter.daemon.checks.unit import usual_service

        return usual_service(path)

    def find() -> Found:
        found = find_status(lambda: get("/status", paths.control_sock), paths, service)
        if reads:
            found.require_config(reads)
        return found

    show = watch_status if arguments.watch else print_status
    return show(find, as_json=arguments.json)


def _dry_run(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.dry_run import dry_run

    path, explicit = _path(arguments), _is_explicit(arguments)
    return dry_run(path, explicit=explicit, debug=arguments.debug, job=arguments.job, since=arguments.since)


def _check(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.check import check_site

    path, explicit = _path(arguments), _is_explicit(arguments)
    return check_site(path, explicit=explicit, debug=arguments.debug, as_json=arguments.json)


def _install(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.install import print_installation

    path, explicit = _path(arguments), _is_explicit(arguments)
    print_installation(path, explicit=explicit, debug=arguments.debug)
    return OK


def _job(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.job import explain_job

    path, explicit = _path(arguments), _is_explicit(arguments)
    return explain_job(arguments.job, path, explicit=explicit, debug=arguments.debug, as_json=arguments.json)


def _queue(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.queue import check_command, run_queue

    given = {name: getattr(arguments, name) for name in OF_QUEUE if _is_given(arguments, name)}
    command = check_command(arguments.queue, **given, as_json=arguments.json)
    return OK if run_queue(command, _path(arguments), explicit=_is_explicit(arguments)) else OTHER


def _resend(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.resend import run_resend

    path, explicit = _path(arguments), _is_explicit(arguments)
    return OK if run_resend(arguments.resend, arguments.since, path, explicit=explicit, yes=arguments.yes) else OTHER


def _metrics(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.metrics import print_metrics

    print_metrics(_path(arguments), explicit=_is_explicit(arguments))
    return OK


def _topology(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.topology import print_topology

    return OK if print_topology(as_json=arguments.json) else OTHER


def _settings(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.settings import print_settings

    print_settings()
    return OK


def _version(arguments: argparse.Namespace) -> int:
    from cc_slurm_adapter.cli.version import print_version

    print_version()
    return OK


def _path(arguments: argparse.Namespace) -> str:
    return DEFAULT_CONFIG_PATH if arguments.config is None else str(arguments.config)


def _is_explicit(arguments: argparse.Namespace) -> bool:
    """Return whether the caller has named the configuration file: then it must be there."""
    return arguments.config is not None


class Form(NamedTuple):
    """One of several ways to give a command: the words after its flag, and the flags that fit them."""

    words: str
    with_flags: tuple[str, ...]


class Command(NamedTuple):
    """A command: the flag that names it, what runs it, and the flags that it heeds."""

    flag: str
    run: Callable[[argparse.Namespace], int]
    with_flags: tuple[str, ...] = ()
    forms: tuple[Form, ...] = ()
    """Only if the flags depend on the words after the command's own."""


ANYWHERE = ("config", "debug")
"""The flags that no command refuses, since scripts give them always; those that heed them list them."""
SELECTING = ("state", "reason", "cluster", "sink")
OF_QUEUE = (*SELECTING, "limit", "yes")
"""The flags that say which messages -queue is about."""
FORMS_OF_QUEUE = (
    Form("list", (*SELECTING, "limit", "json", "config")),
    Form("show JOB", ("json", "config")),
    Form("retry JOB|all", (*SELECTING, "json", "config")),
    Form("drop JOB|all", (*SELECTING, "yes", "json", "config")),
)
OF_SYNC = ("since", "until", "job", "timeout")
COMMANDS = (
    Command("daemon", _daemon, ANYWHERE),
    Command("once", _once, ("timeout", *ANYWHERE)),
    Command("sync", _sync, (*OF_SYNC, *ANYWHERE)),
    Command("dry-run", _dry_run, ("job", "since", *ANYWHERE)),
    Command("status", _status, ("json", "watch", "config")),
    Command("check", _check, ("json", *ANYWHERE)),
    Command("install", _install, ANYWHERE),
    Command("job", _job, ("json", *ANYWHERE)),
    Command("queue", _queue, (*OF_QUEUE, "json", "config"), FORMS_OF_QUEUE),
    Command("resend", _resend, ("since", "yes", "config")),
    Command("metrics", _metrics, ("config",)),
    Command("topology", _topology, ("json",)),
    Command("settings", _settings),
    Command("version", _version),
)
"""To add a command, add its flag in `make_parser`, and a row and a function here; its code is a module of its own.
-help, docs/commands.md, the manual pages and the completion in shells are made from the two."""

"""The flags of the command line, and the command that each calls.

The flags are those of the existing adapter. Each may have one dash or two.
"""

from __future__ import annotations

import argparse
import time
from typing import NoReturn

from cc_slurm_adapter import lines
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.errors import AdapterError, ConfigError, UnreadableFile, UsageError
from cc_slurm_adapter.lines import log_line, print_line
from cc_slurm_adapter.log import LEVELS, describe_error

DESCRIPTION = "Reports the start and stop of every Slurm job, and the states of the nodes, to cc-backend."
DEBUG_HELP = "how much to log: 0 nothing but crashes, 1 errors, 2 all that matters (default), 3 every job, 4 and 5 more"
EXIT_CODES = {
    0: "stopped by a signal, or printed what was asked for; a hook call always",
    1: "any other failure; it may pass, as a secret that cannot be read or a name that does not resolve",
    64: "wrong arguments",
    78: "a wrong configuration: it must be changed before the next start",
}
"""All exit codes of this program. 64 and 78 are EX_USAGE and EX_CONFIG of sysexits.h, which only this program uses. A
shell that finds only half of this file ends with 2: so a start that is too early, during a copy, is tried again."""
OTHER, USAGE, CONFIG = 1, 64, 78

EPILOG = """\
Called by Slurm as PrologSlurmctld, EpilogSlurmctld, Prolog or Epilog (SLURM_JOB_ID is set, and there
are no arguments but -config and -debug), it tells the daemon about the job and always exits 0.

signals to the daemon: SIGTERM stops it within 2 s, SIGHUP tries everything again that was refused
files:    the configuration, and what it names: pidFilePath, lastRunPath with the state beside it, the socket
examples: cc-slurm-adapter -daemon -config /etc/cc-slurm-adapter/config.json -debug 3

exit codes:
""" + "".join(f"{code:4}  {meaning}\n" for code, meaning in EXIT_CODES.items())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise UsageError, so that wrong arguments end in one line."""
        raise UsageError(f"{message}; -help shows what there is")

    def _print_message(self, message: str, file: object = None) -> None:
        for line in message.splitlines():
            print_line(line)


def make_parser() -> argparse.ArgumentParser:
    """Return a parser for all flags."""
    parser = _Parser(
        prog="cc-slurm-adapter",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-config", "--config", metavar="PATH", help=f"the configuration file (default: {DEFAULT_CONFIG_PATH})")
    add("-daemon", "--daemon", nargs="?", const=True, default=False, type=_truth, metavar="true|false",
        help="run the daemon in the foreground, as systemd wants it")  # fmt: skip
    add("-debug", "--debug", metavar="N", type=_level, default=2, help=DEBUG_HELP)
    add("-settings", "--settings", action="store_true", help="list the keys of the configuration with their defaults")
    add("-topology", "--topology", action="store_true",
        help="on a compute node: print its hwthreadNumbering for the configuration")  # fmt: skip
    add("-json", "--json", action="store_true", help="with -topology: one JSON object in a line, for many nodes")
    add("-version", "--version", action="store_true", help="print the version and what this file consists of")
    add("-help", "--help", "-h", action="help", help="print this")
    return parser


def _truth(text: str) -> bool:
    """Accept `-daemon=true` and the like, as Go's flags are written."""
    if text.lower() in ("true", "t", "1", "false", "f", "0"):
        return text.lower() in ("true", "t", "1")
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _level(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < len(LEVELS):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no level of {DEBUG_HELP}")


def run_command(argv: list[str]) -> int:
    """Run a call that is not a hook call, and return its exit code. Each problem is a line on standard error."""
    try:
        return _run(make_parser().parse_args(argv))
    except UnreadableFile as error:
        code = _fail(OTHER, *error.problems)
        _rest_without_file(error)
        return code
    except ConfigError as error:
        return _fail(CONFIG, *error.problems)
    except AdapterError as error:
        return _fail(USAGE if isinstance(error, UsageError) else OTHER, str(error))
    except ImportError:
        raise  # __main__ reports it: this Python lacks a part of its standard library
    except Exception as error:  # noqa: BLE001 - a traceback would be several lines without a priority
        return _fail(OTHER, f"an error of this program: {describe_error(error)}")


def _fail(code: int, *problems: str) -> int:
    for problem in problems:
        log_line(f"cc-slurm-adapter: {problem}", lines.ERROR)
    return code


def _rest_without_file(error: UnreadableFile) -> None:
    from cc_slurm_adapter.daemon.systemd import rest_before_the_next_start

    rest_before_the_next_start("; ".join(error.problems), time.sleep)


def _run(arguments: argparse.Namespace) -> int:
    """Run the command that the flags name, and return its exit code.

    To add a command, add a flag in `make_parser` and a branch here; the command's code is a module of its own. A branch
    imports its module itself, so that a call loads only what it needs: -version works wherever this file starts.
    """
    if arguments.version:
        from cc_slurm_adapter.cli.version import print_version

        print_version()
    elif arguments.settings:
        from cc_slurm_adapter.cli.settings import print_settings

        print_settings()
    elif arguments.json and not arguments.topology:
        raise UsageError("-json says how -topology prints: give both")
    elif arguments.topology and arguments.daemon:
        raise UsageError("-topology prints and ends, -daemon stays: give one of them")
    elif arguments.topology:
        from cc_slurm_adapter.cli.topology import print_topology

        return 0 if print_topology(as_json=arguments.json) else OTHER
    elif arguments.daemon:
        from cc_slurm_adapter.cli.run import run_daemon

        explicit = arguments.config is not None
        run_daemon(arguments.config or DEFAULT_CONFIG_PATH, explicit=explicit, debug=arguments.debug)
    else:
        raise UsageError(
            "nothing to do: -daemon starts the daemon; as a hook it is called by Slurm, with SLURM_JOB_ID set"
            " (-help shows more)"
        )
    return 0

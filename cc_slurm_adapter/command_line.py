"""The command line: flags as the existing adapter has them, each with one dash or two."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import NoReturn

from cc_slurm_adapter import __version__
from cc_slurm_adapter.config_file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.errors import AdapterError, ConfigError, UsageError

DESCRIPTION = "Reports the start and stop of every Slurm job, and the states of the nodes, to cc-backend."
DEBUG_HELP = "how much to log: 0 nothing but crashes, 1 errors, 2 all that matters (default), 3 every job, 4 and 5 more"
EPILOG = """\
Called by Slurm as PrologSlurmctld, EpilogSlurmctld, Prolog or Epilog (SLURM_JOB_ID is set, and there
are no arguments but -config and -debug), it tells the daemon about the job and always exits 0.

signals to the daemon: SIGTERM stops it within 2 s, SIGHUP tries everything again that was refused
files:    the configuration, and what it names: pidFilePath, lastRunPath with the state beside it, the socket
examples: cc-slurm-adapter -daemon -config /etc/cc-slurm-adapter/config.json -debug 3
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Wrong arguments end in one line."""
        raise UsageError(f"{message}; -help shows what there is")


def make_parser() -> argparse.ArgumentParser:
    """All flags."""
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
    add("-debug", "--debug", metavar="N", type=int, default=2, help=DEBUG_HELP)
    add("-settings", "--settings", action="store_true", help="list the keys of the configuration with their defaults")
    add("-topology", "--topology", action="store_true",
        help="on a compute node: print its hwthreadNumbering for the configuration")  # fmt: skip
    add("-json", "--json", action="store_true", help="with -topology: one JSON object in a line, for many nodes")
    add("-version", "--version", action="store_true", help="print the version and what this file consists of")
    add("-help", "--help", "-h", action="help", help="print this")
    return parser


def _truth(text: str) -> bool:
    """`-daemon=true` and the like, as Go's flags are written."""
    if text.lower() in ("true", "t", "1", "false", "f", "0"):
        return text.lower() in ("true", "t", "1")
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def run_command(argv: list[str]) -> int:
    """Exit code of every call that is no hook: 0, or 1 after one line for each problem on standard error."""
    try:
        return _run(make_parser().parse_args(argv))
    except ConfigError as error:
        for problem in error.problems:
            print(f"cc-slurm-adapter: {problem}", file=sys.stderr)
    except AdapterError as error:
        print(f"cc-slurm-adapter: {error}", file=sys.stderr)
    return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.version:
        _print_version()
    elif arguments.settings:
        _print_settings()
    elif arguments.json and not arguments.topology:
        raise UsageError("-json says how -topology prints: give both")
    elif arguments.topology:
        return _print_topology(as_json=arguments.json)
    elif arguments.daemon:
        _run_daemon(arguments)
    else:
        raise UsageError(
            "nothing to do: -daemon starts the daemon; as a hook it is called by Slurm, with SLURM_JOB_ID set"
            " (-help shows more)"
        )
    return 0


def _run_daemon(arguments: argparse.Namespace) -> None:
    from cc_slurm_adapter import log
    from cc_slurm_adapter.config import load_config

    log.set_up(min(max(arguments.debug, 0), 5))
    config, warnings = load_config(arguments.config or DEFAULT_CONFIG_PATH, explicit=arguments.config is not None)
    for warning in warnings:
        log.warn(warning)
    from cc_slurm_adapter.daemon import Daemon

    Daemon(config).run()


def _print_version() -> None:
    from cc_slurm_adapter.bundle import bundled

    print(f"cc-slurm-adapter {__version__} (Python {platform.python_version()})")
    for name, version, licence in bundled():
        print(f"  {name} {version} ({licence})")


def _print_settings() -> None:
    from cc_slurm_adapter.config import settings_reference

    for key, default, text in settings_reference():
        print(f"{key} (default {default})\n    {text}")


def _print_topology(*, as_json: bool) -> int:
    """The setting goes to standard output, what is to be known about it to standard error; 1 without a setting."""
    from cc_slurm_adapter.topology_report import read_topology

    report = read_topology()
    if as_json:
        print(report.as_json())
    elif report.numbering is not None:
        print(report.as_setting())
    if not as_json:
        for note in report.notes:
            print(f"cc-slurm-adapter: {report.node_name}: {note}", file=sys.stderr)
    return 0 if report.numbering is not None else 1

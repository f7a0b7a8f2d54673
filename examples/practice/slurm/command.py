"""Runs one of the commands: in this process for tests, or as the process that `entry` started."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import StringIO, TextIOWrapper
from typing import NamedTuple, TextIO, cast

from examples.practice.slurm.call import Call, CommandError
from examples.practice.slurm.store import Store

COMMANDS = ("squeue", "sacct", "scontrol", "sinfo", "sacctmgr", "sdiag")
FOLDER_VARIABLE = "PRACTICE_SLURM"


class Answer(NamedTuple):
    """What a command that has ended left behind."""

    status: int
    out: str
    err: str


def run_command(
    folder: str,
    name: str,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    now: float | None = None,
    stdin: str = "",
) -> Answer:
    """Run a command without a process of its own, as of `now` in Unix seconds."""
    out, err = StringIO(), StringIO()
    with Store(folder) as store:
        status = _run(
            Call(
                name=name,
                arguments=arguments,
                environ=environ or {},
                store=store,
                now=time.time() if now is None else now,
                stdin=StringIO(stdin),
                out=out,
                err=err,
            )
        )
    return Answer(status, out.getvalue(), err.getvalue())


def run_process(name: str, arguments: Sequence[str]) -> int:
    """Run a command with the arguments, environment and streams of this process."""
    folder = os.environ.get(FOLDER_VARIABLE, "")
    try:
        store = Store(folder)
    except sqlite3.OperationalError:
        sys.stderr.write(f"{name}: {FOLDER_VARIABLE} names no practice cluster: '{folder}'\n")
        return 1
    with store, _text(sys.stdout) as out, _text(sys.stderr) as err, _text(sys.stdin) as stdin:
        return _run(Call(name, arguments, os.environ, store, time.time(), stdin, out, err))


def _text(stream: TextIO) -> TextIOWrapper:
    """The stream in UTF-8 whatever the locale; bytes that are no UTF-8 pass unchanged."""
    wrapper = cast(TextIOWrapper, stream)
    wrapper.reconfigure(encoding="utf-8", errors="surrogateescape", line_buffering=False)
    return wrapper


def _run(call: Call) -> int:
    module = import_module(f"examples.practice.slurm.{call.name}")
    try:
        return int(module.main(call))
    except CommandError as error:
        if str(error):
            call.complain(str(error))
        return error.status

"""The installed file is replaced as an upgrade does it, while slurmctld's user calls it as a hook again and again."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from .controller import CONFIG, ROOT
from .namespaces import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .controller import Controller

CALL = "env -i SLURM_JOB_ID=$job SLURM_SCRIPT_CONTEXT=prolog_slurmctld SLURM_CLUSTER_NAME=lab $program"
LOOP = f"""
job=$1 program=$3
while [ -e "$2" ]; do
    {CALL}; echo "bare $?"
    sleep 0.01
done &
while [ -e "$2" ]; do
    {CALL} -config {CONFIG}; echo "python $?"
    sleep 0.01
done &
wait
"""
"""Calls both kinds of hooks of the program $3 about job $1 while the file $2 is there, and prints their exit codes."""
GO_ON = "/var/tmp/call-hooks"
CALLS_BETWEEN = 6


class HookCalls(NamedTuple):
    """What came of them."""

    exit_codes: list[str]
    """Each `bare 0` or `python 0`."""
    words: str
    """What they printed to standard error, which they should not."""


def call_while_replaced(controller: Controller, job: int, replacements: int) -> HookCalls:
    """Puts another version in place so often; between two of them hooks are called some times."""
    with calling(controller, job) as process:
        lines: list[str] = []
        for number in range(replacements):
            replace_file(controller, other_version(number))
            assert process.stdout is not None
            lines += [process.stdout.readline() for _ in range(CALLS_BETWEEN)]
        controller.machine.path(GO_ON).unlink()
        rest, words = process.communicate(timeout=60)
    return HookCalls([line.strip() for line in [*lines, *rest.splitlines()]], words)


@contextlib.contextmanager
def calling(controller: Controller, job: int) -> Iterator[subprocess.Popen[str]]:
    """For the length of a block hooks are called, or until the file GO_ON is removed; it prints their exit codes."""
    controller.machine.path(GO_ON).touch()
    command = controller.machine.command(["sh", "-c", LOOP, "sh", str(job), GO_ON, controller.program], "slurm:slurm")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=ENVIRONMENT, encoding="utf-8") as process:
        try:
            yield process
        finally:
            controller.machine.path(GO_ON).unlink(missing_ok=True)


def replace_file(controller: Controller, content: bytes) -> None:
    """By rename, as the commands of docs/install.md do it."""
    installed = controller.machine.path(controller.program)
    new = installed.with_name(f"{installed.name}.new")
    new.write_bytes(content)
    new.chmod(0o755)
    new.rename(installed)


def other_version(number: int) -> bytes:
    """The built file with all that lies in its archive at other places."""
    first, rest = built_file().split(b"\n", 1)
    return first + b"\n" + b"#\n" * (number % 7) + rest


def built_file() -> bytes:
    return (ROOT / "dist" / "cc-slurm-adapter").read_bytes()


@contextlib.contextmanager
def file_without_archive(controller: Controller) -> Iterator[None]:
    """For the length of a block nothing can be loaded from the file; as a hook it succeeds and tells nothing."""
    replace_file(controller, b"#!/bin/sh\nexit 0\n")
    try:
        yield
    finally:
        replace_file(controller, built_file())

"""Small shell programs that stand in PATH where a test needs a Slurm command to print something."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from cc_slurm_adapter.slurm.commands import TIMING, Command, Commands, Timing
from examples.practice.programs import write_program


class FakePrograms:
    """A folder of programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def make(self, name: str, script: str) -> None:
        """A program that runs this shell script."""
        write_program(self.folder / name, f"#!/bin/sh\n{script}\n")

    def replay(self, name: str, errors: Path, recorded: str) -> None:
        """A program that answers as the recorded one did."""
        status = json.loads((errors / f"{recorded}.json").read_text(encoding="utf-8"))["exit_status"]
        files = [shlex.quote(str(errors / f"{recorded}.{kind}")) for kind in ("stdout", "stderr")]
        self.make(name, f"cat {files[0]}; cat {files[1]} >&2; exit {status}")


class CountedCommands(Commands):
    """Commands that count the processes they start."""

    def __init__(self, *, timing: Timing = TIMING) -> None:
        super().__init__(timing=timing)
        self.started = 0

    def begin(self, argv: list[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Command:
        command = super().begin(argv, stdin=stdin, environment=environment)
        self.started += 1
        return command


def conversation(job: str, script: str = "") -> str:
    """A scontrol that answers commands on standard input as a real one does (`fixtures/slurm-*/conversations`).

    `job` and `script` print the text and the script of the job whose name is "$3", or nothing.
    """
    return f"""\
while read -r line; do
    printf 'scontrol: %s\\n' "$line"
    set -- $line
    case "$1 $2 $4" in
        "show hostnames ") echo "$3" ;;
        "show job ") {job} ;;
        "write batch_script -") {script or ":"} ;;
        *) echo "invalid command: $line" >&2 ;;
    esac
done
printf 'scontrol: \\n'"""

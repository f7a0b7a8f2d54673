"""Small shell programs that stand in PATH where a test needs a Slurm command to say something."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

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

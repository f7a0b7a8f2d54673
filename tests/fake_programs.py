"""Small shell programs that stand in PATH where a test needs a Slurm command to say something."""

from __future__ import annotations

import json
import shlex
from pathlib import Path


class FakePrograms:
    """A folder of programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def make(self, name: str, script: str) -> None:
        """A program that runs this shell script."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def replay(self, name: str, errors: Path, recorded: str) -> None:
        """A program that answers as the recorded one did."""
        status = json.loads((errors / f"{recorded}.json").read_text(encoding="utf-8"))["exit_status"]
        files = [shlex.quote(str(errors / f"{recorded}.{kind}")) for kind in ("stdout", "stderr")]
        self.make(name, f"cat {files[0]}; cat {files[1]} >&2; exit {status}")

"""A program in place of the built file, whose daemon dies at a chosen step."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from examples.practice.programs import write_program
from tests.built import killed_daemon

WRAPPER = """\
#!/bin/sh
exec {python} -I -S -B -X utf8 {driver} {adapter} {step} {number} {since} -- "$@"
"""


def write_dying(folder: Path, adapter: Path, step: str, number: int, since: str) -> Path:
    """Makes it. The daemon dies at the NUMBERth passage of a step, counted once the step `since` was passed, if any."""
    words = {
        "python": sys.executable,
        "driver": killed_daemon.__file__,
        "adapter": str(adapter),
        "step": step,
        "number": str(number),
    }
    quoted = {name: shlex.quote(word) for name, word in words.items()}
    return write_program(folder / "killed", WRAPPER.format(**quoted, since=shlex.quote(since) if since else ""))

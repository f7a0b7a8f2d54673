"""Writes small programs that are about to be run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SHELL = "/bin/sh"
WRITE = 'cat > "$0.new" && chmod 755 "$0.new" && mv -f "$0.new" "$0"'


def write_program(path: str | os.PathLike[str], text: str) -> Path:
    """Make the file, or put a new one in its place in one step. Anybody may run it.

    Another process writes it: Linux refuses to run a file that somebody has open for writing ("text file busy"), and
    a program that another thread starts at this moment would have our open files for a while.
    """
    subprocess.run([SHELL, "-c", WRITE, str(path)], input=text.encode(), env={"PATH": os.defpath}, check=True)
    return Path(path)

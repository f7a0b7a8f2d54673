"""Where the scripts in a cluster's bin folder come in: entry.py COMMAND [ARGUMENT ...]."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def main() -> int:
    """Run the command that the first argument names."""
    # A reader that has seen enough, such as head, ends us without a traceback.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.path.insert(0, ROOT)
    command = import_module("examples.practice.slurm.command")
    return int(command.run_process(sys.argv[1], sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())

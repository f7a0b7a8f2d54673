"""Chooses by the arguments whether to run as a hook or to run a command. Only this module exits the process."""

from __future__ import annotations

import os
import sys

# Nothing else here: a hook call must start fast, so each role imports what it needs.

INTERRUPTED = 130
"""The exit code after Ctrl-C, as of a shell's commands: 128 and the number of SIGINT."""


def main(argv: list[str]) -> int:
    """Run a call and return its exit code. A hook call always returns 0."""
    if "SLURM_JOB_ID" in os.environ and _is_hook_call(argv):
        from cc_slurm_adapter.hooks.hook import run_hook

        return run_hook(argv, os.environ)
    try:
        from cc_slurm_adapter.cli.main import run_command

        return run_command(argv)
    except KeyboardInterrupt:
        from cc_slurm_adapter import lines

        lines.log_line("cc-slurm-adapter: ended by Ctrl-C", lines.NOTICE)
        return INTERRUPTED
    except ImportError as error:
        missing = error.name or ""
        if not missing or missing.startswith("cc_slurm_adapter"):
            raise
        from cc_slurm_adapter import lines

        lines.log_line(_without(missing.lstrip("_")), lines.ERROR)
        return 1


def _without(module: str) -> str:
    """Return the line about a Python that was built or packaged without a part of the standard library."""
    return (
        f"cc-slurm-adapter: {sys.executable} lacks the module {module}: install that part of it, or set"
        " CC_SLURM_ADAPTER_PYTHON to another Python 3.9 or newer"
    )


def _is_hook_call(argv: list[str]) -> bool:
    """Return whether there are no arguments, or only -config and -debug with their values."""
    rest = iter(argv)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name.lstrip("-") not in ("config", "debug") or not name.startswith("-"):
            return False
        if not equals:
            next(rest, None)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Chooses the role by the arguments; the only place that exits."""

from __future__ import annotations

import os
import sys

# Nothing else here: a hook call must start fast, so each role imports what it needs.


def main(argv: list[str]) -> int:
    """Exit code of a call. A hook call is 0 whatever happens."""
    if "SLURM_JOB_ID" in os.environ and _is_hook_call(argv):
        from cc_slurm_adapter.hook import run_hook

        return run_hook(argv, os.environ)
    from cc_slurm_adapter.command_line import run_command

    return run_command(argv)


def _is_hook_call(argv: list[str]) -> bool:
    """No arguments, or only -config and -debug with their values."""
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

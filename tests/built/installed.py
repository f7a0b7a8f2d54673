"""The built file as a program: how it is called, and stand-ins for the Python that it looks for."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import build
from examples.practice.programs import write_program

JOB = {"SLURM_JOB_ID": "123", "SLURM_SCRIPT_CONTEXT": "prolog_slurmctld", "SLURM_CLUSTER_NAME": "lab"}
"""What a hook learns about its job. Slurm gives it neither PATH nor HOME."""

NOBODY = 65534

STAND_IN = """\
#!/bin/sh
[ "$4" = -c ] && exit {probe_code}
if [ "$5" = -c ]; then self=$8; shift 9; else self=$6; shift 6; fi
set -- "$self" "$@"
for word in $$ "$@"; do echo "$word"; done > '{record}'
exit {code}
"""
"""Takes what the shell part hands to Python: options, the archive, arguments. `-c` right after the
three options is the question whether it is new enough."""


class StandIn:
    """A program in Python's place that notes its one call."""

    def __init__(self, path: Path, *, code: int = 0, too_old: bool = False) -> None:
        self.path = path
        self._record = path.with_name(f"{path.name}.call")
        code = 126 if too_old else code
        path.parent.mkdir(exist_ok=True)
        write_program(path, STAND_IN.format(probe_code=int(too_old), record=self._record, code=code))

    @property
    def call(self) -> list[str]:
        """Its process id, the archive's path and the arguments; empty when it was not called."""
        return self._record.read_text().splitlines() if self._record.exists() else []


def call(
    command: Sequence[object], environment: dict[str, str] | None = None, cwd: Path | None = None, user: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs a command in exactly that environment, for at most 20 s; as that user, when it is not 0."""
    words = [str(word) for word in command]
    if user:
        words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]
    return subprocess.run(
        words, env=environment or {}, cwd=cwd, capture_output=True, text=True, timeout=20, check=False
    )


def newest_source() -> float:
    """When the newest source of the built file was changed, in Unix seconds."""
    examples = [build.ROOT / "examples" / name for name in build.EXAMPLES_SHIPPED]
    sources = [build.ROOT / "build.py", *examples, *build.PACKAGE.rglob("*.py"), *build.PACKAGE.rglob("*.sh")]
    return max(source.stat().st_mtime for source in sources)

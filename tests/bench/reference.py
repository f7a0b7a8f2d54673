"""What this machine costs while something is measured: a fixed piece of Python work, and a Python that does nothing.

Budgets are ratios to these or to the same commands and requests without the daemon, measured in the same run: so they
hold on a machine that is slower or busy.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.bench.processes import spawn_time
from tests.bench.report import Other, median

PROGRAM = Path(__file__).with_name("reference_program.py")
ROUNDS = 15
NOTHING = ("-I", "-S", "-c", "pass")
LIMIT = 60.0


class Reference:
    """Measured when its `with` block begins and ends, and whenever `again` is called in it."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._pieces: list[float] = []
        self._starts: list[float] = []

    def __enter__(self) -> Reference:
        self.again()
        return self

    def __exit__(self, *_: object) -> None:
        self.again()

    def again(self) -> None:
        """Measure both once more."""
        command = [self._python, "-I", "-S", "-B", str(PROGRAM), str(ROUNDS)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT)
        self._pieces.append(float(done.stdout))
        self.start_python()

    def start_python(self) -> None:
        """Measure only how long a Python that does nothing takes: that costs little."""
        self._starts.append(spawn_time([self._python, *NOTHING], {}))

    def work(self, pieces: float = 1) -> Other:
        """Seconds of CPU for so many pieces of work."""
        return Other("a piece of work" if pieces == 1 else f"{pieces:g} pieces of work", pieces * median(self._pieces))

    def bare_python(self) -> Other:
        """Seconds from the start to the end of a Python that does nothing."""
        return Other("python -I -S -c pass", median(self._starts))

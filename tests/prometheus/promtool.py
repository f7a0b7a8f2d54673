"""What Prometheus' own tool finds wrong with metrics, alert rules and tests of rules."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

LIMIT = 60.0
"""Seconds for one call."""


class Promtool:
    """Each method returns the lines in which promtool says what is wrong: none if all is well."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def check_metrics(self, text: str) -> list[str]:
        """Reads an exposition in the text format, and finds what breaks the format or Prometheus' conventions.

        promtool does not notice two samples of the same name and labels, but Prometheus drops one: they are found here.
        """
        samples = Counter(line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#"))
        twice = [f"{sample} is there {count} times" for sample, count in samples.items() if count > 1]
        return self._run(["check", "metrics"], text=text) + twice

    def check_rules(self, *files: Path) -> list[str]:
        """Reads files of rules, and finds syntax errors and rules that are there twice."""
        return self._run(["check", "rules", "--lint-fatal", *map(str, files)])

    def test_rules(self, folder: Path) -> list[str]:
        """Runs the tests of rules in a folder: the files *_test.yml, at least one.

        A test names its files of rules relative to its own folder.
        """
        tests = sorted(map(str, folder.glob("*_test.yml")))
        return self._run(["test", "rules", *tests]) if tests else [f"no *_test.yml in {folder}"]

    def _run(self, arguments: list[str], text: str = "") -> list[str]:
        command = [str(self._program), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LIMIT, check=False)
        if done.returncode == 0:
            return []
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return lines or [f"promtool {' '.join(arguments[:2])} exited {done.returncode} without a word"]

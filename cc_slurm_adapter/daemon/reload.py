"""Reads the configuration again: a broken one is refused, and of another one that is put in force which can be.

The rest, which needs a restart, is named. The main thread puts a configuration in force, any thread may look what a
reload would do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from cc_slurm_adapter.config import json_mistake  # noqa: F401 - at a reload the file may be another one
from cc_slurm_adapter.config.changes import Changes, compare, merge
from cc_slurm_adapter.config.config import Config, load_config
from cc_slurm_adapter.daemon.destinations import check_access
from cc_slurm_adapter.daemon.status import StatusBoard
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.log import NOTICE, log_findings
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.system.quantities import counted

log = logging.getLogger(__name__)

SUBJECT = "configuration"
RESTART = "systemctl restart cc-slurm-adapter, which loses nothing"
MAX_PROBLEMS = 60
"""The most problems that are named: one for each key. A file that is none may have many more."""
AGAIN = "correct it, then systemctl reload cc-slurm-adapter"


Apply = Callable[[Config, tuple[str, ...]], None]


class Found(NamedTuple):
    """What a configuration file has that can be used."""

    config: Config
    findings: tuple[Finding, ...]
    """What an administrator should know about it."""


class ConfigReloader:
    """The configuration in force, and what replaces it."""

    def __init__(self, path: str, in_force: Found, board: StatusBoard, apply: Apply) -> None:
        """`apply` puts another configuration in force in all parts, and reads the secrets again.

        It is also given the keys that wait for a restart.
        """
        self._path = path
        self._in_force = in_force
        """Replaced as a whole, so any thread may read it."""
        self._board = board
        self._apply = apply
        board.keep_of_config(*in_force.findings)

    def preview(self) -> Changes:
        """Return what a reload would change now. Any thread may call this. Raises ConfigError with all problems."""
        return compare(self._in_force.config, self._read().config)

    def reload(self, by: str) -> None:
        """Read the file again for somebody, and put in force what can be. A broken one changes nothing."""
        try:
            self._use(by, self._read())
        except ConfigError as error:
            self._refuse(by, error.problems)

    def _read(self) -> Found:
        """Read what is in the file now. Raises ConfigError with its problems, MAX_PROBLEMS at most."""
        try:
            config, findings = load_config(self._path, explicit=True)
        except ConfigError as error:
            raise ConfigError(_at_most(error.problems)) from None
        try:
            check_access(config)
        except ConfigError as error:
            raise ConfigError([f"{self._path}: {problem}" for problem in error.problems]) from None
        return Found(config, tuple(findings))

    def _refuse(self, by: str, problems: list[str]) -> None:
        text = "the configuration is refused, the one before stays in force"
        refused = [Finding(logging.ERROR, SUBJECT, f"{text}: {problem}", AGAIN) for problem in problems]
        for each in refused:
            log.error("%s: %s", by, each)
        self._board.keep_of_config(*self._in_force.findings, *refused)

    def _use(self, by: str, found: Found) -> None:
        before, changes = self._in_force, compare(self._in_force.config, found.config)
        config = merge(before.config, found.config, changes)
        self._board.forget_findings(changes.in_force)
        self._apply(config, changes.need_restart)  # also without a change, for the secrets
        self._in_force = Found(config, found.findings)
        known = {each.text for each in before.findings}
        log_findings(*(each for each in found.findings if each.text not in known))
        log.log(NOTICE, "%s: read %s again, %s; secrets are read again", by, self._path, _in_words(changes))
        waiting = [_needs_restart(self._path, changes)] if changes.need_restart else []
        log_findings(*waiting)
        self._board.keep_of_config(*found.findings, *waiting)


def _at_most(problems: list[str]) -> list[str]:
    rest = len(problems) - MAX_PROBLEMS
    return problems if rest <= 0 else [*problems[:MAX_PROBLEMS], counted(rest, "more problem")]


def _in_words(changes: Changes) -> str:
    if changes.in_force:
        return f"in force now: {', '.join(changes.in_force)}"
    return "nothing that a reload changes is different" if changes.need_restart else "nothing in it has changed"


def _needs_restart(path: str, changes: Changes) -> Finding:
    verb = "has" if len(changes.need_restart) == 1 else "have"
    text = f"{', '.join(changes.need_restart)} {verb} changed in {path} and will be in force after a restart"
    return Finding(logging.WARNING, SUBJECT, text, RESTART)

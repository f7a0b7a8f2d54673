"""A site that is as it should be, and what -check says of it: its lines, and that it has changed nothing."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from examples.practice.cc_backend.clusters import Clusters
from tests.unit.daemon.checks.test_token import make_token

from .installation import CONFIG, RUN_FOLDER, STATE_FOLDER, USER, Installation
from .questions import Told, tell, wait_for_health
from .slurm_conf import CLUSTER, NODES, SHIPPED_FILE
from .slurm_jobs import Submission, submit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .slurm_lab import SlurmLab

CLUSTERS: Clusters = {CLUSTER: NODES}
"""cc-backend has just the nodes of Slurm."""
CLUSTERS_PATH = "/api/clusters/"
DAY = 86400
WELL, WARNINGS, FAILURES = 0, 1, 2
ASKING = ("root", USER)
"""Who runs -check."""
LINE = re.compile(r"(?P<word>OK|WARN|FAIL) +(?P<about>.*?)(?: -> (?P<next_step>.*))?")
SEEN = """
find {folders} -printf '%p %u:%g:%m %s %C@\\n'
scontrol show config | tail -n +2
sinfo -h -N -O NodeList,Reason,Gres
sacctmgr -n -P show transactions
"""
"""Files with the times of their last change, the configuration and the nodes in slurmctld, and all that was ever
changed in accounting. Not the states of nodes: after a reconfigure they are unknown for a moment."""


class Line(NamedTuple):
    """A line of -check."""

    word: str
    about: str
    next_step: str


class Site:
    """An installation whose configuration and cc-backend are right, and whose daemon has reported a job."""

    def __init__(self, installed: Installation) -> None:
        self.installed = installed
        self.lab: SlurmLab = installed.lab
        self.backend = installed.backend
        self.token = self.backend.token = token_until(time.time() + 100 * DAY)
        self.configure()
        with self.running():
            job = submit(self.lab, Submission(("-n1",), "sleep 1"))
            installed.wait_for_stops([job], seconds=60)

    def configure(self, **settings: Any) -> None:
        """Writes config.json with these values in place of the right ones."""
        self.installed.configure(**{"ccRestJwt": self.token, **settings})

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The daemon runs for the length of a block, and is stopped as systemd does it."""
        self.installed.start()
        wait_for_health(self.installed, "/-/ready", 200)
        try:
            yield
        finally:
            self.installed.stop()

    def check(self, user: str = "root") -> Told:
        """What -check says to a user."""
        told = tell(self.lab, "-check", user=user)
        assert told.errors == "", told
        return told

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """For the length of a block only -check may run. It must change nothing, and only ask cc-backend a question."""
        asked, before = len(self.backend.log), self._seen()
        yield
        changed = before ^ self._seen()
        assert not changed, changed
        requests = [(request.method, request.path) for request in self.backend.log[asked:]]
        others = [each for each in requests if each[0] != "GET" or not each[1].endswith(CLUSTERS_PATH)]
        assert not others, others

    def _seen(self) -> set[str]:
        folders: list[Path] = [CONFIG.parent, STATE_FOLDER, RUN_FOLDER, SHIPPED_FILE.parent]
        return set(self.lab.output("sh", "-ec", SEEN.format(folders=" ".join(map(str, folders)))).splitlines())


def token_until(end: float) -> str:
    """A token as cc-backend makes it. `end` is in Unix seconds."""
    return make_token({"sub": "slurm", "roles": ["api"], "exp": int(end)})


def bad_lines(told: Told) -> list[Line]:
    """The lines that are not OK. The last line must count them."""
    *lines, last = told.text.splitlines()
    found = [match for match in map(LINE.fullmatch, lines) if match]
    assert len(found) == len(lines), told.text
    bad = [Line(each["word"], each["about"], each["next_step"] or "") for each in found if each["word"] != "OK"]
    warnings, failures = (sum(line.word == word for line in bad) for word in ("WARN", "FAIL"))
    assert re.fullmatch(rf"{len(lines) - len(bad)} ok, {warnings} warnings?, {failures} failures?", last)
    assert told.code == (FAILURES if failures else WARNINGS if warnings else WELL)
    return bad

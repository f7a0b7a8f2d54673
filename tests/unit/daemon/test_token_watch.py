"""The daemon says that the token expires: at once, once a day, and until there is a new one."""

from __future__ import annotations

import logging
import time

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.assembly import DAEMON, Assembly
from cc_slurm_adapter.daemon.status import StatusBoard
from cc_slurm_adapter.daemon.token_watch import TokenWatch
from cc_slurm_adapter.errors import UnreadableFile
from tests.fakes.clock import Clock
from tests.unit.daemon.checks.test_token import make_token

NOW = 1_800_000_000.0
DAY = 86400.0


class Site:
    """A token, a clock, and what the daemon shows."""

    def __init__(self, days: float) -> None:
        self.clock = Clock()
        self.clock.now = NOW
        self.board = StatusBoard("config.json", "state.sqlite", 0, Counters())
        self.renew(days)
        self.watch = TokenWatch(self.read, "ccRestJwtFile", self.board.settle_findings, self.clock)

    def renew(self, days: float) -> None:
        self.token: str | None = make_token({"roles": ["api"], "exp": self.clock.now + days * DAY})

    def read(self) -> str:
        if self.token is None:
            raise UnreadableFile(["ccRestJwtFile: cannot read it"])
        return self.token

    def faults(self) -> list[str]:
        return [str(each) for each in self.board.collect().faults if each.subject == "token"]


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno == logging.WARNING for record in caplog.records)


def test_a_warning_a_day_and_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(20)
    for ten_minutes in range(3 * 144):
        site.clock.now = NOW + ten_minutes * 600
        site.watch.look()
    assert warnings(caplog) == 3
    assert "ccRestJwtFile: the token expires at" in caplog.text
    (fault,) = site.faults()
    assert "(in 17 d)" in fault
    assert fault.endswith(
        ": put a new token with the role api into ccRestJwtFile, and restart if it is a systemd credential"
    )


def test_a_new_token_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(3)
    site.watch.look()
    assert site.faults()
    site.renew(100)
    site.watch.look()
    assert site.faults() == []
    site.renew(2)
    site.watch.look()
    assert warnings(caplog) == 2


def test_nothing_is_said_in_time_enough_or_too_late(caplog: pytest.LogCaptureFixture) -> None:
    """Once it has expired, cc-backend refuses it, and that is the line."""
    for days in (31, -1):
        site = Site(days)
        site.watch.look()
        assert site.faults() == []
    assert warnings(caplog) == 0


def test_a_file_that_cannot_be_read_now_changes_nothing() -> None:
    site = Site(3)
    site.watch.look()
    site.token = None
    site.watch.look()
    assert site.faults()


def test_the_fault_lasts_since_the_first_warning() -> None:
    site = Site(3)
    site.watch.look()
    (first,) = site.board.collect().findings
    site.clock.now += DAY
    site.watch.look()
    (second,) = site.board.collect().findings
    assert first.since == second.since
    assert first.text != second.text


def test_other_findings_stay() -> None:
    site = Site(3)
    (other,) = parse_config({"ccRestUrl": "https://x", "ccRestJwt": "x", "nonsense": 1})[1]
    site.board.keep_findings(other)
    site.watch.look()
    site.renew(99)
    site.watch.look()
    assert [each.text for each in site.board.collect().findings] == [other.text]


def test_the_daemon_looks_at_its_start_if_it_has_a_token() -> None:
    soon = make_token({"roles": ["api"], "exp": time.time() + DAY})
    found = []
    for settings in ({"ccRestUrl": "https://x", "ccRestJwt": soon}, {"ccRestSubmitJobs": False, "natsServer": "x"}):
        assembly = Assembly(parse_config(settings)[0], DAEMON, lambda: None)
        assembly._watch_token()
        found.append([each.subject for each in assembly.board.collect().faults])
        assembly.commands.close()
    assert found == [["token"], []]

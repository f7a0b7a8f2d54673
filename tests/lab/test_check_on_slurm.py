"""`-check` on a real Slurm: a healthy site, and the mistakes of administrators, each named with its next step.

slurmctld's clock cannot be set apart from that of this machine. So this host's clock is: -check runs under one that is
a minute off, beside a slurmctld and a cc-backend whose clocks are right.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.built import moved_clock
from tests.nats.conftest import nats_program, start_nats

from .checked_site import ASKING, CLUSTERS, WELL, Site, bad_lines
from .conftest import log_of
from .installation import CONFIG, Installation
from .mistakes import CLOCK_OFF, CLOCKS, FAIL, MISTAKES, WARN, Expected
from .questions import Told
from .slurm_conf import SHIPPED_FILE
from .slurm_jobs import clear_queue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.nats.conftest import StartNats

    from .slurm_lab import SlurmLab

__all__ = ["nats_program", "start_nats"]
"""Fixtures from elsewhere."""

pytestmark = pytest.mark.slurm

COMMAND = re.compile(r"(?<=run )sacctmgr .*|(?<=')ch(?:own|grp|mod) [^']+(?=')")
"""In a next step, what is to be typed."""
USERS = {"authorization": {"users": [{"user": "adapter", "password": "right"}]}}
MOVED_CLOCK, OFFSET = "/tmp/moved_clock.py", "/tmp/offset"


@pytest.fixture(scope="module")
def site(release: str, lab: SlurmLab) -> Iterator[Site]:
    """A healthy site, whose daemon was stopped a moment ago."""
    with lab.in_use, Installation(lab, log_of(release), clusters=CLUSTERS) as installed:
        yield Site(installed)
        clear_queue(lab)


def check_lines(told: Told, expected: Sequence[Expected]) -> None:
    """The lines that are not OK are these, and no others."""
    found = bad_lines(told)
    assert [line.word for line in found] == [line.word for line in expected], told.text
    for line, wanted in zip(found, expected):
        assert line.about.startswith((f"{wanted.subject}: ", f"{wanted.subject} ")), told.text
        assert wanted.said in line.about, told.text
        assert line.next_step.startswith(wanted.next_step), told.text


@pytest.mark.parametrize("user", ASKING)
def test_nothing_is_wrong_at_a_healthy_site_and_nothing_changes(site: Site, user: str) -> None:
    with site.unchanged():
        told = site.check(user)
    assert (bad_lines(told), told.code) == ([], WELL)
    assert "OK   daemon: none runs now" in told.text


def test_nothing_is_wrong_while_the_daemon_runs(site: Site) -> None:
    with site.running():
        for user in ASKING:
            told = site.check(user)
            assert (bad_lines(told), told.code) == ([], WELL)
            assert "all is well" in told.text


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_next_step_until_it_is_mended(site: Site, mistake: str) -> None:
    """Root and the daemon's user are told the same. Commands that are printed mend it; else it is taken back."""
    with MISTAKES[mistake].make(site):
        with site.unchanged():
            asked = [site.check(user) for user in ASKING]
        for told in asked:
            check_lines(told, MISTAKES[mistake].lines)
            assert json.loads(site.lab.path(CONFIG).read_text())["ccRestJwt"] not in told.text
        steps = [line.next_step for line in bad_lines(told)]
        commands = [command for step in steps for command in COMMAND.findall(step)]
        assert bool(commands) == any(step.startswith("run ") for step in steps), steps
        for command in commands:
            site.lab.output(*command.split())
        if commands:
            check_lines(site.check(), [])
    check_lines(site.check(), [])


def test_a_wrong_password_for_nats_is_named_with_its_next_step(site: Site, start_nats: StartNats) -> None:
    login = {"natsServer": start_nats(USERS).url, "natsUser": "adapter"}
    try:
        site.configure(**login, natsPassword="mistyped")
        for user in ASKING:
            told = site.check(user)
            step = "correct natsUser and natsPassword, natsCredsFile or natsNKeySeedFile"
            check_lines(told, [Expected(FAIL, "natsServer", "it refuses the user", step)])
            assert "mistyped" not in told.text
        site.configure(**login, natsPassword="right")
        told = site.check()
        check_lines(told, [])
        assert "accepts the login" in told.text
    finally:
        site.configure()


@pytest.mark.parametrize(("seconds", "where"), [(CLOCK_OFF, "behind"), (-CLOCK_OFF, "ahead of")])
def test_a_clock_of_this_host_that_is_off_by_a_minute_is_named(site: Site, seconds: float, where: str) -> None:
    """slurmctld's and cc-backend's are right, and so differ from it."""
    lab = site.lab
    shutil.copy(moved_clock.__file__, lab.path(MOVED_CLOCK))
    lab.path(OFFSET).write_text(repr(seconds), encoding="ascii")
    under_it = ["python3", "-I", "-S", "-B", MOVED_CLOCK, OFFSET, str(SHIPPED_FILE)]
    done = lab.run(*under_it, "-config", str(CONFIG), "-check")
    both = [
        Expected(WARN, "slurmctld", f"s {where} that of this host", "let one time server set both clocks (chronyc"),
        Expected(FAIL, "clock", f"s {where} this host's", CLOCKS),
    ]
    check_lines(Told(done.returncode, done.stdout, done.stderr), both)
    check_lines(site.check(), [])

"""The .deb on a machine with systemd and Slurm: what is there, and what is not, after each step of its life."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from cc_slurm_adapter import __version__

from .controller import BY_HAND, PACKAGED, UNIT
from .packaged import ENABLED, EVENTS, OF_ADMINISTRATOR, OF_DAEMON, OF_PACKAGE, OLD

if TYPE_CHECKING:
    from .packaged import Life

pytestmark = pytest.mark.slurm


def test_in_an_image_where_nothing_runs_it_makes_its_user(packaged: Life) -> None:
    assert packaged.image.endswith(":/nonexistent:/usr/sbin/nologin")


def test_installed_for_the_first_time_it_is_not_started_and_says_what_is_next(packaged: Life) -> None:
    step = packaged.first
    assert (step.code, step.state, step.version) == (0, "inactive", OLD), step.said
    assert step.there == {*OF_PACKAGE, EVENTS}
    for text in ("cc-slurm-adapter -install", "cc-slurm-adapter -check", "systemctl enable --now cc-slurm-adapter"):
        assert text in step.said
    name, _, _, _, _, home, shell = step.user.split(":")
    assert (name, home, shell) == ("cc-slurm-adapter", "/nonexistent", "/usr/sbin/nologin")
    assert packaged.events == "cc-slurm-adapter:slurm 770"


def test_what_is_missing_then_is_what_only_the_administrator_knows(packaged: Life) -> None:
    lines = packaged.printed.splitlines()
    assert f"# 1. file: {PACKAGED} is this file" in lines
    assert re.search(r"^# 4\. unit: (/usr)?/lib/systemd/system/\S+ is that of this version$", packaged.printed, re.M)
    assert f"PrologSlurmctld={PACKAGED}" in lines
    assert "/usr/local/sbin" not in packaged.printed
    assert [line for line in lines if line.startswith(("useradd", "install -m 0755"))] == []


def test_with_a_configuration_it_runs_and_nothing_is_wrong_with_its_unit_and_hooks(packaged: Life) -> None:
    assert (packaged.started.state, packaged.started.there) == (
        "active",
        {*OF_PACKAGE, *OF_ADMINISTRATOR, *OF_DAEMON, *ENABLED},
    )
    wrong = [line for line in packaged.checked.splitlines() if "FAIL" in line or ("WARN" in line and "unit" in line)]
    assert wrong == [], packaged.checked


def test_an_upgrade_restarts_the_daemon_and_no_hook_fails_meanwhile(packaged: Life) -> None:
    step = packaged.upgraded
    assert (step.code, step.state, step.version) == (0, "active", __version__), step.said
    assert step.pid not in (0, packaged.started.pid)
    assert step.there == packaged.started.there
    assert set(packaged.hooks.exit_codes) == {"bare 0", "python 0"}
    assert packaged.hooks.words == ""


def test_the_version_before_can_be_installed_again(packaged: Life) -> None:
    assert (packaged.back.code, packaged.back.state, packaged.back.version) == (0, "active", OLD)


def test_every_job_was_reported_once_with_its_times(packaged: Life) -> None:
    found = {name: (row.start_time, row.stop_time) for name, row in packaged.rows.items()}
    assert found == packaged.ended
    assert set(found) == {"started", "during the upgrade", "back", "goes_on", "moved"}


def test_while_slurm_calls_it_nothing_is_removed(packaged: Life) -> None:
    step = packaged.refused
    assert step.code != 0
    assert f"SLURM STILL CALLS {PACKAGED}" in step.said
    assert "CC_SLURM_ADAPTER_REMOVE=yes" in step.said
    assert (step.state, step.there, step.version) == ("active", packaged.started.there, __version__)


def test_removed_it_leaves_what_is_not_the_package_s(packaged: Life) -> None:
    step = packaged.removed
    assert (step.code, step.state, step.version) == (0, "inactive", ""), step.said
    assert step.there == {*OF_ADMINISTRATOR, *OF_DAEMON}
    assert step.user
    assert packaged.slurmctld == "active"


def test_installed_again_it_goes_on_where_it_was(packaged: Life) -> None:
    assert packaged.again.code == 0
    assert packaged.again.state == "inactive"
    assert "systemctl enable --now cc-slurm-adapter" in packaged.again.said
    assert (packaged.goes_on.state, packaged.goes_on.version) == ("active", __version__)


def test_whoever_insists_removes_it_although_slurm_calls_it(packaged: Life) -> None:
    step = packaged.insisted
    assert (step.code, step.state, step.version) == (0, "inactive", ""), step.said
    assert f"SLURM STILL CALLS {PACKAGED}" in step.said


def test_purged_it_leaves_only_what_the_administrator_has_made(packaged: Life) -> None:
    step = packaged.purged
    assert (step.code, step.there) == (0, set(OF_ADMINISTRATOR)), step.said
    assert step.user
    assert "/etc/cc-slurm-adapter stays" in step.said
    assert (packaged.purged_empty.code, packaged.purged_empty.there) == (0, set())


def test_beside_an_installation_by_hand_it_changes_nothing_and_says_what_is_in_its_way(packaged: Life) -> None:
    step = packaged.beside
    assert (step.code, step.state) == (0, "active"), step.said
    for path in (BY_HAND, f"/etc/systemd/system/{UNIT}"):
        assert f"rm {path}" in step.said


def test_the_commands_of_the_document_replace_an_installation_by_hand(packaged: Life) -> None:
    step = packaged.moved
    assert (step.state, step.version) == ("active", __version__)
    assert step.pid not in (0, packaged.beside.pid)
    assert f"/usr/lib/systemd/system/{UNIT}".endswith(packaged.moved_unit.split()[0])
    assert PACKAGED in packaged.moved_unit
    assert BY_HAND not in packaged.moved_unit


def test_uninstalled_by_hand_nothing_is_left(packaged: Life) -> None:
    step = packaged.uninstalled
    assert (step.state, step.version, step.there, step.user) == ("inactive", "", set(), "")

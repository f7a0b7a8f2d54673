"""What the daemon's user lacks in Slurm, and how to give it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.slurm.privileges import find_missing_privileges

SITE = ClusterConfig("lab", "24.11.5", "slurm", "none", has_accounting=True, records_steps=True, question_rate=None)
USER = "cc-slurm-adapter"


class Accounting:
    """Has one AdminLevel, or fails."""

    def __init__(self, level: str | Exception | None) -> None:
        self._level = level

    def admin_level(self, user: str) -> str | None:
        if isinstance(self._level, Exception):
            raise self._level
        return self._level


def found(level: str | Exception | None, site: ClusterConfig = SITE, user: str = USER) -> list[str]:
    findings = list(find_missing_privileges(cast("SlurmClient", Accounting(level)), site, user))
    assert {finding.subject for finding in findings} <= {"privileges"}
    return [str(finding) for finding in findings]


@pytest.mark.parametrize("level", ["Operator", "Administrator"])
def test_with_a_level_that_is_high_enough_nothing_is_missing(level: str) -> None:
    assert found(level) == []


def test_a_user_with_too_low_a_level_is_a_finding_with_what_that_hides_and_how_to_change_it() -> None:
    assert found("None", replace(SITE, private_data="jobs")) == [
        "the user cc-slurm-adapter has the AdminLevel None in Slurm, which hides other users' job scripts and, by"
        " PrivateData=jobs, their jobs: run sacctmgr -i modify user cc-slurm-adapter set adminlevel=operator"
    ]


def test_a_user_whom_accounting_does_not_know_is_a_finding_with_how_to_add_it() -> None:
    assert found(None) == [
        "the user cc-slurm-adapter is not known to Slurm's accounting, which hides other users' job scripts:"
        " run sacctmgr -i add user cc-slurm-adapter account=root adminlevel=operator"
    ]


def test_a_level_that_cannot_be_read_is_not_taken_for_none() -> None:
    assert found(CommandFailed("slurmdbd is down")) == [
        "the rights of cc-slurm-adapter in Slurm are not known: slurmdbd is down"
    ]
    with pytest.raises(CommandCancelled):
        found(CommandCancelled("the daemon stops"))


def test_without_slurmdbd_nobody_is_asked() -> None:
    (line,) = found(RuntimeError("asked"), replace(SITE, has_accounting=False))
    assert line.startswith("this Slurm has no slurmdbd: ")


def test_a_limit_of_questions_is_found_whatever_else_is() -> None:
    limit, rights = found(None, replace(SITE, question_rate=2.0))
    assert limit.startswith("slurmctld accepts 2 queries a second from cc-slurm-adapter in the long run (rl_enable): ")
    assert ". SlurmUser has no such limit; " in limit
    assert "adminlevel=operator" in rights


@pytest.mark.parametrize("user", ["root", "slurm"])
def test_whom_slurm_trusts_lacks_nothing(user: str) -> None:
    assert found(RuntimeError("asked"), replace(SITE, question_rate=2.0), user) == []

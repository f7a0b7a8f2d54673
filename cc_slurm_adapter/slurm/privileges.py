"""What the daemon's user may see in Slurm and how often it may ask."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig

ENOUGH = ("Operator", "Administrator")
SUBJECT = "privileges"


class AdminLevels(Protocol):
    """What tells the rights of users in accounting: `SlurmClient` does."""

    def admin_level(self, user: str) -> str | None:
        """Return a user's AdminLevel; None if accounting has no such user. Raises SlurmError."""
        ...


def find_missing_privileges(slurm: AdminLevels, cluster_config: ClusterConfig, user: str) -> Iterator[Finding]:
    """Yield what the user lacks and how to give it, and what no user gets at a site without slurmdbd.

    Too few privileges hide jobs without an error. Raises CommandCancelled.
    """
    yield from find_limits(cluster_config, user)
    yield from find_hidden(slurm, cluster_config, user)


def find_limits(cluster_config: ClusterConfig, user: str) -> Iterator[Finding]:
    """Yield how slurmctld limits a user's questions, and what a site without slurmdbd lacks. Nothing is asked."""
    is_trusted = user in ("root", cluster_config.slurm_user)
    if cluster_config.question_rate is not None and not is_trusted:
        yield _rate_limit(user, cluster_config.question_rate)
    if not cluster_config.has_accounting:
        yield _no_accounting(user)


def find_hidden(slurm: AdminLevels, cluster_config: ClusterConfig, user: str) -> list[Finding]:
    """Return what Slurm hides from a user, and how to show it. Raises CommandCancelled."""
    is_trusted = user in ("root", cluster_config.slurm_user)
    if is_trusted or not cluster_config.has_accounting:
        return []
    return _admin_level(slurm, cluster_config.private_data, user)


def granting_command(user: str, *, is_known: bool) -> str:
    """Return the command that gives a user the rights. `is_known` says whether accounting knows the user."""
    if is_known:
        return f"sacctmgr -i modify user {user} set adminlevel=operator"
    return f"sacctmgr -i add user {user} account=root adminlevel=operator"


def _warning(text: str, next_step: str = "") -> Finding:
    return Finding(logging.WARNING, SUBJECT, text, next_step)


def _rate_limit(user: str, rate: float) -> Finding:
    return _warning(
        f"slurmctld accepts {rate:g} queries a second from {user} in the long run (rl_enable): many new jobs are"
        " not reported faster than that, since each job script takes a query",
        "SlurmUser has no such limit; with jobScriptMaxBytes 0 no scripts are read",
    )


def _no_accounting(user: str) -> Finding:
    return _warning(
        "this Slurm has no slurmdbd: jobs that end while the daemon is away for longer than MinJobAge cannot be"
        f" caught up, and the rights of {user} are not known. Everything else works"
    )


def _admin_level(slurm: AdminLevels, private_data: str, user: str) -> list[Finding]:
    """Ask Slurm's accounting for the user's AdminLevel. Return no finding if that is high enough."""
    try:
        level = slurm.admin_level(user)
    except CommandCancelled:
        raise
    except SlurmError as error:
        return [_warning(f"the rights of {user} in Slurm are not known: {error}")]
    return [] if level in ENOUGH else [_low_level(user, level, private_data)]


def _low_level(user: str, level: str | None, private_data: str) -> Finding:
    hidden = "other users' job scripts"
    next_step = f"run {granting_command(user, is_known=level is not None)}"
    if private_data not in ("", "none", "(null)"):
        hidden += f" and, by PrivateData={private_data}, their jobs"
    if level is None:
        return _warning(f"the user {user} is not known to Slurm's accounting, which hides {hidden}", next_step)
    return _warning(f"the user {user} has the AdminLevel {level} in Slurm, which hides {hidden}", next_step)

"""What the daemon's user may see in Slurm and how often it may ask."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig

ENOUGH = ("Operator", "Administrator")
SUBJECT = "privileges"


def find_missing_privileges(slurm: SlurmClient, cluster_config: ClusterConfig, user: str) -> Iterator[Finding]:
    """Yield what the user lacks and how to give it, and what no user gets at a site without slurmdbd.

    Too few privileges hide jobs without an error. Raises CommandCancelled.
    """
    is_trusted = user in ("root", cluster_config.slurm_user)
    if cluster_config.question_rate is not None and not is_trusted:
        yield _rate_limit(user, cluster_config.question_rate)
    if not cluster_config.has_accounting:
        yield _no_accounting(user)
    elif not is_trusted:
        yield from _admin_level(slurm, cluster_config.private_data, user)


def _warning(text: str, next_step: str = "") -> Finding:
    return Finding(logging.WARNING, SUBJECT, text, next_step)


def _rate_limit(user: str, rate: float) -> Finding:
    return _warning(
        f"slurmctld takes {rate:g} questions a second from {user} in the long run (rl_enable): many new jobs come no"
        " faster, since each job script is a question",
        "SlurmUser has no such limit; jobScriptMaxBytes 0 spares the scripts",
    )


def _no_accounting(user: str) -> Finding:
    return _warning(
        "this Slurm has no slurmdbd: jobs that end while the daemon is away for longer than MinJobAge cannot be"
        f" caught up, and the rights of {user} are not known. All else works"
    )


def _admin_level(slurm: SlurmClient, private_data: str, user: str) -> list[Finding]:
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
    if private_data not in ("", "none", "(null)"):
        hidden += f" and, by PrivateData={private_data}, their jobs"
    if level is None:
        return _warning(
            f"the user {user} is not known to Slurm's accounting, which hides {hidden}",
            f"run sacctmgr -i add user {user} account=root adminlevel=operator",
        )
    return _warning(
        f"the user {user} has the AdminLevel {level} in Slurm, which hides {hidden}",
        f"run sacctmgr -i modify user {user} set adminlevel=operator",
    )

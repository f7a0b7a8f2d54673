"""What the daemon's user may see in Slurm and how often it may ask, looked at when the daemon starts."""

from __future__ import annotations

import logging

from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig

log = logging.getLogger(__name__)

ENOUGH = ("Operator", "Administrator")


def warn_of_missing_rights(slurm: SlurmClient, setup: ClusterConfig, user: str) -> None:
    """Log what the user lacks and how to give it, and what cannot be had at a site without slurmdbd.

    Too few rights hide jobs without an error.
    """
    is_trusted = user in ("root", setup.slurm_user)
    if setup.question_rate is not None and not is_trusted:
        log.warning(
            "slurmctld takes %g questions a second from %s in the long run (rl_enable): many new jobs come no faster,"
            " since each job script is a question. SlurmUser has no such limit; jobScriptMaxBytes 0 spares the scripts",
            setup.question_rate,
            user,
        )
    if not setup.has_accounting:
        log.warning(
            "this Slurm has no slurmdbd: jobs that end while the daemon is away for longer than MinJobAge cannot be"
            " caught up, and the rights of %s are not known. All else works",
            user,
        )
        return
    if is_trusted:
        return
    try:
        level = slurm.admin_level(user)
    except CommandCancelled:
        raise
    except SlurmError as error:
        log.warning("the rights of %s in Slurm are not known: %s", user, error)
        return
    if level not in ENOUGH:
        log.warning("%s", _complaint(user, level, setup))


def _complaint(user: str, level: str | None, setup: ClusterConfig) -> str:
    hidden = "other users' job scripts"
    if setup.private_data not in ("", "none", "(null)"):
        hidden += f" and, by PrivateData={setup.private_data}, their jobs"
    if level is None:
        return (
            f"the user {user} is not known to Slurm's accounting, which hides {hidden}:"
            f" run sacctmgr -i add user {user} account=root adminlevel=operator"
        )
    return (
        f"the user {user} has the AdminLevel {level} in Slurm, which hides {hidden}:"
        f" run sacctmgr -i modify user {user} set adminlevel=operator"
    )

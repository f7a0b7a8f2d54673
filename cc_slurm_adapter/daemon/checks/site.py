"""What of slurm.conf does not fit to how jobs are found. It is already read, so nothing is asked for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig

PROLOG_FLAGS, MIN_JOB_AGE = "PrologFlags", "MinJobAge"
ALLOC = "alloc"
"""The flag that lets slurmd call Prolog when a job gets its nodes. Others imply it, and Slurm prints it with them."""


def find_prolog_flags(cluster_config: ClusterConfig) -> Finding:
    """Return whether a Prolog of the nodes is called for each start, if that is the only hook."""
    hooks, flags = cluster_config.hooks, cluster_config.prolog_flags
    if hooks.prolog_slurmctld or not hooks.prolog:
        which = "PrologSlurmctld is set" if hooks.prolog_slurmctld else "there is no Prolog"
        return Finding(logging.INFO, PROLOG_FLAGS, f"{which}: no flag is needed")
    if ALLOC in flags:
        return Finding(logging.INFO, PROLOG_FLAGS, "has Alloc: Prolog is called as soon as a job gets its nodes")
    text = (
        "PrologFlags has no Alloc, and Prolog is the only hook for starts: slurmd calls it only when a job first runs"
        " something on a node, so the start of an allocation may come late or never"
    )
    next_step = "set PrologFlags=Alloc in slurm.conf, or PrologSlurmctld to this program, then run scontrol reconfigure"
    return Finding(logging.WARNING, PROLOG_FLAGS, text, next_step)


def find_min_job_age(cluster_config: ClusterConfig, poll_interval: int, gaps: Sequence[str]) -> Finding:
    """Return whether slurmctld remembers ended jobs until the next poll. `gaps` is what keeps hooks from all jobs.

    `poll_interval` is in seconds.
    """
    age = cluster_config.min_job_age
    if age is None:
        return Finding(logging.INFO, MIN_JOB_AGE, "cannot be seen: scontrol show config does not print it")
    if age == 0:
        return Finding(logging.INFO, MIN_JOB_AGE, "is 0: slurmctld forgets no job that has ended")
    if age >= poll_interval:
        text = f"is {age} s: ended jobs are known until the next poll (slurmPollInterval is {poll_interval} s)"
        return Finding(logging.INFO, MIN_JOB_AGE, text)
    shorter = f"is {age} s, shorter than slurmPollInterval ({poll_interval} s)"
    if not gaps:
        return Finding(logging.INFO, MIN_JOB_AGE, f"{shorter}; no matter, since the hooks report every job")
    text = (
        f"{shorter}, and the hooks do not report every job: jobs that begin and end between two polls are reported"
        " without cores and GPUs"
    )
    return Finding(
        logging.WARNING, MIN_JOB_AGE, text, "correct the hooks, or raise MinJobAge or lower slurmPollInterval"
    )

"""The parts of the cluster's own configuration that matter to this program."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.output import read_text


@dataclass(frozen=True)
class Hooks:
    """The files that are called at the start and the end of jobs, as configured."""

    prolog_slurmctld: tuple[str, ...] = ()
    epilog_slurmctld: tuple[str, ...] = ()
    prolog: tuple[str, ...] = ()
    """Called by slurmd on every node."""
    epilog: tuple[str, ...] = ()
    controllers: tuple[str, ...] = ()
    """Names of the hosts that slurmctld may run on."""


@dataclass(frozen=True)
class ClusterConfig:
    """The cluster's configuration as `scontrol show config` prints it."""

    cluster: str
    version: str
    slurm_user: str
    private_data: str
    has_accounting: bool
    records_steps: bool
    """Whether accounting, where there is any, records what was launched in a run."""
    question_rate: float | None
    """Queries per second that slurmctld accepts from a user in the long run (rl_enable); None without such a limit.
    SlurmUser and root have none."""
    hooks: Hooks = Hooks()
    min_job_age: int | None = None
    """Seconds until slurmctld forgets a job that has ended; 0 if it never does, None if it does not say."""
    prolog_flags: tuple[str, ...] = ()
    """The words of PrologFlags in lower case, with those that others imply."""
    silent_controllers: tuple[str, ...] = ()
    """Hosts whose slurmctld does not answer, while that of another host does."""


def read_cluster_config(commands: Commands) -> ClusterConfig:
    """Read the configuration from slurmctld. Raises SlurmError."""
    return parse_cluster_config(read_text(commands, ["scontrol", "show", "config"]))


def parse_cluster_config(text: str) -> ClusterConfig:
    """Parse the output of `scontrol show config`. Raises UnexpectedOutput if it names no cluster."""
    values = dict(re.findall(r"^(\w+)\s+= (.*?)\s*$", text, re.M))
    user = re.match(r"(.*)\(\d+\)", values.get("SlurmUser", ""))
    if not values.get("ClusterName") or not user:
        raise UnexpectedOutput("scontrol show config", "ClusterName or SlurmUser is missing")
    return ClusterConfig(
        cluster=values["ClusterName"],
        version=values.get("SLURM_VERSION", "unknown"),
        slurm_user=user.group(1),
        private_data=values.get("PrivateData", "none"),
        has_accounting="slurmdbd" in values.get("AccountingStorageType", ""),
        records_steps=not {"nosteps", "nojobs"} & set(values.get("AccountingStorageEnforce", "").lower().split(",")),
        question_rate=_question_rate(values.get("SlurmctldParameters", "")),
        hooks=Hooks(
            _numbered(text, "PrologSlurmctld"),
            _numbered(text, "EpilogSlurmctld"),
            _numbered(text, "Prolog"),
            _numbered(text, "Epilog"),
            tuple(host.partition("(")[0] for host in _numbered(text, "SlurmctldHost")),
        ),
        min_job_age=_seconds(values.get("MinJobAge", "")),
        prolog_flags=_words(values.get("PrologFlags", "")),
        silent_controllers=tuple(re.findall(r"^Slurmctld\(\w+\) at (\S+) is DOWN", text, re.M)),
    )


def _seconds(value: str) -> int | None:
    """Return the number of `300 sec`."""
    number = value.partition(" ")[0]
    return int(number) if number.isascii() and number.isdigit() else None


def _words(value: str) -> tuple[str, ...]:
    return () if value in ("", "(null)") else tuple(value.lower().split(","))


def _numbered(text: str, key: str) -> tuple[str, ...]:
    """Return the values of a key that may have several: `Key = a`, `Key[0] = a`, or no line at all.

    Hooks are numbered since 24.05. Before that, a hook that is not set is `(null)`.
    """
    values = re.findall(rf"^{key}(?:\[\d+\])?\s+= (.*?)\s*$", text, re.M)
    return tuple(value for value in values if value not in ("", "(null)"))


def _question_rate(parameters: str) -> float | None:
    """Return the queries per second that SlurmctldParameters allow: two by default (slurm.conf(5))."""
    if "rl_enable" not in parameters.lower().split(","):
        return None
    numbers = {
        name: int(number) for name, number in re.findall(r"(?:^|,)(rl_\w+)=([1-9][0-9]{0,8})", parameters.lower())
    }
    return numbers.get("rl_refill_rate", 2) / numbers.get("rl_refill_period", 1)

"""What `-install` prints for slurm.conf: the hooks. Hooks of other programs are kept."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from cc_slurm_adapter.cli.examples import HOOKS, read_example
from cc_slurm_adapter.cli.install_host import Host
from cc_slurm_adapter.cli.install_text import Item, ignored
from cc_slurm_adapter.daemon.hook_check import ENDS_SLURMCTLD, Gap
from cc_slurm_adapter.slurm.cluster_config import Hooks
from cc_slurm_adapter.slurm.releases import series

NAME = "hooks"
LATE = "23"
"""A slurmctld older than this calls no hooks if it had none when it started: seen on 22.05, and not on 24.11."""

NEWER = "A newer slurmctld does not start with this, and ends when it is reconfigured. So mend it before that:"


def of_cluster(host: Host, command: str) -> str:
    """Return a command of Slurm for the cluster of this configuration, which is one of several if it is an instance."""
    is_one_of_several = host.instance and host.slurm_conf
    return f"SLURM_CONF={shlex.quote(host.slurm_conf)} {command}" if is_one_of_several else command


def hooks(host: Host) -> list[Item]:
    """Return an item for hooks that are not set, and one for those that do not call this program."""
    site = host.slurm.config
    items = [*_unset(host, site.hooks if site else Hooks()), *(_others(host, site.hooks) if site else ())]
    return items or [Item(5, NAME, "slurm.conf has them, as far as can be seen from here")]


def _unset(host: Host, found: Hooks) -> Iterator[Item]:
    values = {"PrologSlurmctld": found.prolog_slurmctld, "EpilogSlurmctld": found.epilog_slurmctld}
    unset = [key for key, files in values.items() if not files]
    example = host.places.fit(read_example(HOOKS))
    lines = [line for line in example.splitlines() if line.partition("=")[0] in unset]
    if not lines:
        return
    site, program = host.slurm.config, host.places.program
    state = f"slurm.conf has no {' and no '.join(unset)}" if site else "whether slurm.conf has them is not known"
    user = site.slurm_user if site else "slurm"
    commands = [
        f"sudo -u {shlex.quote(user)} env -i SLURM_JOB_ID=1 {program} && echo fine",
        *ignored(*lines),
        of_cluster(host, "scontrol reconfigure"),
    ]
    yield Item(5, NAME, state, list(_notes(host, found)), commands)


def _notes(host: Host, found: Hooks) -> Iterator[str]:
    yield "Try the file first: it must exist and be executable by SlurmUser before slurm.conf names it, and for as long"
    yield "as it does. Newer slurmctlds exit without it. Then add the lines to slurm.conf; the shell ignores them here."
    if host.slurm.config is None:
        yield "Add only those that are not set. Scripts that are there already are kept: call this program from them."
    if len(found.controllers) > 1 or not host.slurm.is_controller:
        yield f"The file must be on each of these hosts: {', '.join(found.controllers)}."
        yield "Hooks on hosts other than the daemon's report over TCP: see docs/install.md, Hooks from other hosts."
    if found.prolog or found.epilog:
        on_nodes = ", ".join((*found.prolog, *found.epilog))
        yield f"The nodes call {on_nodes}. If that calls this program already, these lines are not needed."
    if host.slurm.config and series(host.slurm.config.version) < LATE:
        yield "This slurmctld calls new hooks only after a restart, if it had none before."


def _others(host: Host, found: Hooks) -> Iterator[Item]:
    """Yield the hooks that are set to something that does not call this program, or that slurmctld cannot call."""
    program = host.places.program
    others = {"PrologSlurmctld": found.prolog_slurmctld, "EpilogSlurmctld": found.epilog_slurmctld}
    broken: dict[Gap, list[str]] = {}
    for key, files in others.items():
        gap = next((each for each in host.slurm.gaps if f"({key})" in each.text), None)
        if not files or gap is None or program in (gap.missing, gap.forbidden):
            continue
        if gap.missing or gap.forbidden:
            same = gap._replace(text=gap.text.replace(f" ({key})", "").replace(ENDS_SLURMCTLD, ""))
            broken.setdefault(same, []).append(key)
        elif program not in files:
            state = f"{gap.text}. Keep it, and add this line to it, which the shell ignores here"
            yield Item(5, NAME, state, commands=ignored(program))
    for gap, keys in broken.items():
        yield _missing(host, gap, keys) if gap.missing else _forbidden(gap, keys)


def _missing(host: Host, gap: Gap, keys: Sequence[str]) -> Item:
    program = host.places.program
    notes = [
        NEWER,
        f"put the script there, executable for all, with a line {program} in it;",
        "or name this program in its place in slurm.conf, as here, where the shell ignores it.",
        f"Then run {of_cluster(host, 'scontrol reconfigure')}.",
    ]
    return Item(5, NAME, f"{gap.text} ({', '.join(keys)})", notes, ignored(*(f"{key}={program}" for key in keys)))


def _forbidden(gap: Gap, keys: Sequence[str]) -> Item:
    notes = [NEWER, "make it executable, then run -install again, which looks whether it calls this program."]
    return Item(5, NAME, f"{gap.text} ({', '.join(keys)})", notes, [f"chmod a+rx {shlex.quote(gap.forbidden)}"])

"""The end of what `-install` prints: what looks whether all is well, and what starts the daemon, if no other runs."""

from __future__ import annotations

import os
import shlex

from cc_slurm_adapter.cli.install_folders import handover
from cc_slurm_adapter.cli.install_host import FileState, Host
from cc_slurm_adapter.cli.install_rights import Presence
from cc_slurm_adapter.cli.install_running import Running
from cc_slurm_adapter.cli.install_text import Item, comments, unless_runs
from cc_slurm_adapter.cli.install_unit import as_daemon, start_command
from cc_slurm_adapter.config.file import DEFAULT_CONFIG_PATH
from cc_slurm_adapter.daemon.checks.configuration import hidden_credentials
from cc_slurm_adapter.daemon.checks.unit import DEFAULT_UNIT, Unit
from cc_slurm_adapter.system.quantities import DAY, duration, full_moment

USUAL_SPAN = 7 * DAY
"""The default of slurmQueryMaxSpan in seconds."""
HOW_TO_CHANGE = "docs/operating.md, The first start, says how to change it."


def daemon(host: Host) -> list[Item]:
    """Return who reports jobs here already, if it is not the daemon that the unit of this host runs."""
    found = host.running
    if found is None or _is_of_unit(host, found):
        return []
    started = f"started by {found.unit}" if found.unit else "and no service has started it"
    state = f"one runs already: the process {found.pid} of {found.user}, {started}"
    notes = [f"Its command line: {found.command}" if found.command else "Its command line cannot be seen."]
    if _is_of_another_cluster(host, found):
        notes += [
            f"It is the daemon of another cluster, and {host.config_path} names files that are its own.",
            "Set pidFilePath, prepSockListenPath and lastRunPath there as examples/config.cluster.json does. Then run",
            "this again.",
        ]
        return [Item(4, "daemon", state, notes)]
    if found.locked:
        notes.append(f"It is a daemon of this program, since it has locked {found.locked}. No second one starts.")
    else:
        notes += [
            f"{found.pid_file} names it, but it has not locked that file, as a daemon of this program does.",
            "So it seems to be the existing adapter. Never run both: docs/migrating.md has the change.",
        ]
    if found.user != host.user:
        notes.append(f"The daemon that is started below runs as {host.user}.")
    return [Item(4, "daemon", state, [*notes, "How to end it is said below, just before the start."])]


def _is_of_unit(host: Host, found: Running) -> bool:
    """Return whether it is what should run: of this program, and started by the unit as the unit's user."""
    return bool(found.locked) and found.unit == host.unit.name and found.user == host.user


def _is_of_another_cluster(host: Host, found: Running) -> bool:
    """Return whether it is what the unit of another cluster on this host has started."""
    is_of_a_cluster = found.unit == DEFAULT_UNIT or bool(Unit(found.unit).instance)
    return bool(host.instance) and is_of_a_cluster and found.unit != host.unit.name


def next_steps(host: Host) -> list[str]:
    """Return how to look whether all is well, and how to start the daemon."""
    return [*_check(host), *_dry_run(host), *_start(host)]


def _check(host: Host) -> list[str]:
    """Return how to look whether all is well. Root judges for the daemon's user, whose group only a unit tells it."""
    if not host.unit.has_systemd:
        return [*comments("Then look whether all is well, as the daemon's user."), as_daemon(host, "-check")]
    named = "" if host.config_path == DEFAULT_CONFIG_PATH else f" -config {shlex.quote(host.config_path)}"
    note = "Then look whether all is well. As root it judges with the eyes of the daemon's user."
    return [*comments(note), f"cc-slurm-adapter -check{named}"]


def _dry_run(host: Host) -> list[str]:
    is_credential = bool(host.config.cc_rest_jwt_file) and not os.path.isabs(host.config.cc_rest_jwt_file)
    if is_credential or hidden_credentials(host.config, host.unit, {}):
        return comments("-dry-run is left out: it cannot read what is a credential of the unit.")
    return [
        *comments(
            "See what would be sent, as the daemon's user. Each request is a line of JSON, of which there may be",
            "thousands: write them to a file to read them. The summary is printed in any case.",
        ),
        f"{as_daemon(host, '-dry-run')} > /dev/null",
    ]


def _start(host: Host) -> list[str]:
    found = host.running
    if found is not None and _is_of_another_cluster(host, found):
        return comments(f"It is not started while {host.config_path} names files of another cluster's daemon.")
    if found is not None and not _is_of_unit(host, found):
        stop, start = _stop(host, found), unless_runs(found.pid, start_command(host))
        return [*stop, *handover(host), *_first_start(host), start]
    if found is not None or host.unit.get("ActiveState") == "active":
        return comments(f"It runs already. After a change: systemctl restart {host.unit.short_name}")
    return [*_first_start(host), start_command(host)]


def _stop(host: Host, found: Running) -> list[str]:
    """Return how the daemon ends that runs now. A process id may be another's when this is pasted: none is killed."""
    if not found.unit or not host.unit.has_systemd:
        return comments(
            f"End the daemon that runs now, as with: kill {found.pid}",
            "Nothing is started while that process is there.",
        )
    keep = "Stop the daemon that runs now. Keep its file and its unit, to go back."
    if found.unit != host.unit.name:
        return [*comments(keep), f"systemctl disable --now {shlex.quote(found.unit)}"]
    is_other = host.unit_state is FileState.OTHER
    more = (
        ["Its unit has the same name: keep a copy, and replace it now, as docs/install.md says, Without a package."]
        if is_other
        else []
    )
    return [*comments(keep, *more), f"systemctl stop {host.unit.short_name}"]


def _first_start(host: Host) -> list[str]:
    """Return what the first start reports of the past, if this is one."""
    before, site = host.before, host.slurm.config
    if before.state is Presence.THERE or (site and not site.has_accounting):
        return []
    span = host.config.slurm_query_max_span
    past = "in the last seven days" if span == USUAL_SPAN else f"in the last {duration(span)}"
    if before.last_run is not None:
        past = f"after {full_moment(before.last_run)}, the time of {host.config.last_run_path}"
    begin = "If it has never run here, the" if before.state is Presence.UNSEEN else "The"
    return comments(f"{begin} first start also reports the jobs that ended {past}.", HOW_TO_CHANGE)

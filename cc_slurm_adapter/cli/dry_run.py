"""`-dry-run`: prints the requests that a daemon would send that begins here and now, and sends none.

It asks Slurm as the daemon does. It reads no state file, writes no file and takes no hook event, so it may be used
beside a running daemon, and beside another program that reports the same jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cc_slurm_adapter import log
from cc_slurm_adapter.cli.job_sources import UnknownName, find_id, read_lines
from cc_slurm_adapter.cli.moments import parse_moment
from cc_slurm_adapter.cli.printed_requests import PrintedRequests
from cc_slurm_adapter.cli.progress import Waiting
from cc_slurm_adapter.cli.verdicts import NO_SUCH_JOB
from cc_slurm_adapter.config.config import Config, load_config
from cc_slurm_adapter.daemon.assembly import DAEMON, Assembly
from cc_slurm_adapter.daemon.destinations import sinks_of
from cc_slurm_adapter.daemon.state_files import LastRun
from cc_slurm_adapter.errors import UsageError
from cc_slurm_adapter.jobs.first_moment import FirstMoment
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.lines import ERROR, NOTICE, WARNING, log_line
from cc_slurm_adapter.outbox.memory import IN_MEMORY
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig, read_cluster_config
from cc_slurm_adapter.slurm.one_job import parse_name
from cc_slurm_adapter.slurm.parse.accounting import EARLIEST
from cc_slurm_adapter.slurm.privileges import AdminLevels, find_hidden
from cc_slurm_adapter.system.owner import own_account
from cc_slurm_adapter.system.quantities import counted

EVER = 50 * 365 * 86400
"""Seconds that accounting is read back: -since is the limit here."""


class Wanted(NamedTuple):
    """What is to be printed: one job by its name, or all that runs now or has ended since `since` (Unix seconds)."""

    job: str
    since: int


def dry_run(  # noqa: PLR0913 - the flags
    config_path: str,
    *,
    explicit: bool,
    debug: int,
    job: str | None,
    since: str | None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Print the requests to standard output, and a summary to standard error. Return the exit code.

    `clock` tells for how long Slurm has not answered. Raises AdapterError.
    """
    log.set_up(debug)
    now = time.time()
    given = None if since is None else parse_moment("since", since, now)
    if job is not None:
        if since is not None:
            raise UsageError("-dry-run -job prints the job whenever it ran: leave out -since")
        parse_name(job)  # a mistake is reported before anything is asked
    config, findings = load_config(config_path, explicit=explicit)
    log.log_findings(*findings)
    if job is not None:
        wanted = Wanted(job, EARLIEST)
    else:
        wanted = Wanted("", _default_since(config, now) if given is None else given)
    waiting = Waiting("-dry-run", clock)
    assembly = Assembly(config, DAEMON, waiting.still_waits, config_path)
    try:
        _print_all(config, assembly, wanted, waiting)
    except UnknownName as error:
        log_line(f"cc-slurm-adapter: {error}", ERROR)
        return NO_SUCH_JOB
    finally:
        assembly.commands.close()
    return 0


def _default_since(config: Config, now: float) -> int:
    """Return the time up to which jobs were reported, by lastRunPath as the existing adapter keeps it; else now."""
    last_run = LastRun(config.last_run_path).read()
    return min(int(now) if last_run is None else last_run, int(now))


def _print_all(config: Config, assembly: Assembly, wanted: Wanted, waiting: Waiting) -> None:
    waiting.begin("slurmctld")
    cluster_config = read_cluster_config(assembly.commands)
    cluster = config.cluster_name or cluster_config.cluster
    slurm = assembly.make_slurm(cluster, "")
    waiting.begin("sacctmgr")
    _warn_of_hidden_jobs(slurm, cluster_config)
    waiting.begin("slurmctld")
    destinations = PrintedRequests(config, assembly.counters)
    outbox = Outbox(IN_MEMORY, sinks_of(config), max_text_bytes=config.state_max_bytes)
    try:
        destinations.print_from(outbox)
        watch = assembly.make_watch(
            cluster, cluster_config, slurm, outbox, destinations, FirstMoment.at(wanted.since), max_span=EVER
        )
        watch.read_nodes()  # their layouts number the cores
        if wanted.job:
            job_id = _find_job(assembly, wanted.job)
            is_listed = bool(watch.look_up([job_id]))
            if cluster_config.has_accounting:
                waiting.begin("slurmdbd")
                _exhaust(watch.look_up_ended([job_id], wanted.since), waiting)
            if not is_listed and not outbox.knows_job(cluster, job_id):
                raise UnknownName(f"Slurm knows no job {wanted.job} that runs or has ended")
        else:
            _exhaust(watch.poll(), waiting)
            waiting.begin("slurmdbd")
            _exhaust(watch.catch_up(wanted.since), waiting)
            destinations.post_nodes(cluster, watch.node_states())
        _log_summary(destinations, watch)
    finally:
        outbox.close()


def _find_job(assembly: Assembly, text: str) -> int:
    """Return the id of a job by its name. Raises UnknownName and SlurmError."""
    name = parse_name(text)
    queue, failure = read_lines(assembly.commands, name, "")
    return find_id(assembly.commands, name, queue, failure)


def _warn_of_hidden_jobs(slurm: AdminLevels, cluster_config: ClusterConfig) -> None:
    """Say what Slurm hides from whoever calls this: the daemon's user may see more."""
    for finding in find_hidden(slurm, cluster_config, own_account().name):
        step = f"{finding.next_step}, or call this as root" if finding.next_step else "call this as root"
        log_line(f"cc-slurm-adapter: dry run: {finding.text}: what is hidden is not printed; {step}", WARNING)


def _exhaust(steps: Iterable[object], waiting: Waiting) -> None:
    for _ in steps:
        waiting.answered()


def _log_summary(destinations: PrintedRequests, watch: JobWatch) -> None:
    report = watch.report
    not_printed = [
        (report.ignored, "run is left out by the configuration", "runs are left out by the configuration"),
        (
            report.preparing,
            "run is not printed before its nodes are ready",
            "runs are not printed before their nodes are ready",
        ),
        (report.not_understood, "job is not understood", "jobs are not understood"),
        (report.awaiting_layout, "run waits for the layout of its nodes", "runs wait for the layout of their nodes"),
    ]
    log_line(f"cc-slurm-adapter: dry run: {destinations.summary()}; nothing was sent, and no file was changed", NOTICE)
    for number, one, more in not_printed:
        if number:
            log_line(f"cc-slurm-adapter: dry run: {counted(number, one, more)}", WARNING)

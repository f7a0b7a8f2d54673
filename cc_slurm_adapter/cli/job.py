"""`-job ID`: explains one job, with what this program, Slurm and cc-backend say of it now.

Slurm and cc-backend are asked by this command, with limits on time, and nothing is changed there. Each source that
fails is a line of what is told: the others are asked all the same.
"""

from __future__ import annotations

import json
import os
import time
from functools import partial

from cc_slurm_adapter import lines, log
from cc_slurm_adapter.cli import control_client
from cc_slurm_adapter.cli.explanation import as_object, explain, render
from cc_slurm_adapter.cli.job_facts import NOT_RUNNING, BackendFacts, ConfigFacts, JobFacts, SlurmFacts
from cc_slurm_adapter.cli.job_sources import (
    UnknownName,
    find_id,
    hidden_from,
    read_backend,
    read_cluster,
    read_lines,
    read_slurm,
    windows_of,
)
from cc_slurm_adapter.cli.queue import OnFile, OverSocket
from cc_slurm_adapter.cli.verdicts import NO_SUCH_JOB
from cc_slurm_adapter.config.config import Config, load_config
from cc_slurm_adapter.daemon.assembly import DAEMON, Assembly
from cc_slurm_adapter.daemon.destinations import connect_for_questions, sinks_of
from cc_slurm_adapter.daemon.job_state import JobState, parse_state
from cc_slurm_adapter.errors import AdapterError, NotRunning, StateError, UsageError
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.reconcile import YOUNG
from cc_slurm_adapter.lines import log_line, print_line
from cc_slurm_adapter.outbox import moment_file
from cc_slurm_adapter.outbox.job_rows import JobRows
from cc_slurm_adapter.sinks.base import CC_REST
from cc_slurm_adapter.slurm import commands
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.slurm.one_job import JobName, QueueLine, parse_name
from cc_slurm_adapter.system.file_locks import holder_of_lock
from cc_slurm_adapter.system.file_systems import user_name

SLURM = commands.Timing(time_limit=20.0, longest=40.0)
NO_ROWS = JobRows((), (), {})


def explain_job(text: str, config_path: str, *, explicit: bool, debug: int, as_json: bool) -> int:
    """Print what is known about a job, and what to do. Return the exit code. Raises AdapterError."""
    log.set_up(debug)
    name = parse_name(text)
    config, _ = load_config(config_path, explicit=explicit)
    assembly = Assembly(config, DAEMON, lambda: None, timing=SLURM)
    try:
        facts = Inquiry(config, config_path, assembly).gather(name)
    except UnknownName as error:
        log_line(f"cc-slurm-adapter: {error}", lines.ERROR)
        return NO_SUCH_JOB
    finally:
        assembly.commands.close()
    explanation = explain(facts)
    if as_json:
        print_line(json.dumps(as_object(explanation, facts)))
    else:
        for line in render(explanation, facts.name):
            print_line(line)
    return explanation.conclusion.code


class Inquiry:
    """Asks all sources about one job."""

    def __init__(self, config: Config, config_path: str, assembly: Assembly) -> None:
        self._config = config
        self._config_path = config_path
        self._assembly = assembly
        self._now = time.time()

    def gather(self, name: JobName) -> JobFacts:
        """Return everything that can be had. Raises UnknownName and SlurmError for the name of a task or component."""
        cluster_config, failure = read_cluster(self._assembly.commands)
        queue, failure = read_lines(self._assembly.commands, name, failure)
        job_id = find_id(self._assembly.commands, name, queue, failure)
        state, away, unreadable = ask_here(self._config, job_id)
        cluster = choose_cluster(self._config, cluster_config, state)
        slurm = self._ask_slurm(job_id, cluster, cluster_config, queue, failure, state)
        config = self._config_facts(cluster)
        return JobFacts(
            name=str(name),
            job_id=job_id,
            now=self._now,
            config=config,
            slurm=slurm,
            state=state.rows,
            daemon=state.daemon,
            backend=self._ask_backend(job_id, config, slurm, state.rows),
            daemon_failure=away,
            state_failure=unreadable,
        )

    def _ask_slurm(  # noqa: PLR0913 - what is known so far
        self,
        job_id: int,
        cluster: str,
        cluster_config: ClusterConfig | None,
        queue: list[QueueLine],
        failure: str,
        state: JobState,
    ) -> SlurmFacts:
        config = self._config
        slurm = self._assembly.make_slurm(cluster, os.path.dirname(config.state_path) or ".")
        ignore = IgnoreRules(config.ignore_hosts, config.ignore_partitions, config.ignore_users)
        found = read_slurm(slurm, job_id, ignore, int(self._now), failure, cluster_config)
        user = state.daemon.user if state.daemon else owner_of(config.state_path)
        return found._replace(
            asked_as=user_name(os.geteuid()),
            queue=tuple(queue),
            privileges=hidden_from(slurm, cluster_config, user),
        )

    def _config_facts(self, cluster: str) -> ConfigFacts:
        config = self._config
        return ConfigFacts(
            path=self._config_path,
            cluster=cluster,
            state_path=config.state_path,
            first_moment=read_first_moment(config.state_path),
            max_span=config.slurm_query_max_span,
            poll_interval=config.slurm_poll_interval,
            cc_poll_interval=config.cc_poll_interval,
            requeued_runs=config.requeued_runs,
            leading=next(iter(sinks_of(config)), CC_REST),
            commit_span=YOUNG,
        )

    def _ask_backend(self, job_id: int, config: ConfigFacts, slurm: SlurmFacts, rows: JobRows) -> BackendFacts:
        url = self._config.cc_rest_url
        try:
            connection = connect_for_questions(self._config)
        except AdapterError as error:
            return BackendFacts(url, failure=str(error))
        if connection is None:
            return BackendFacts()
        try:
            ask = partial(connection.stored_runs, config.cluster, job_id)
            return read_backend(ask, windows_of(config.cluster, slurm, rows), time.monotonic)._replace(url=url)
        finally:
            connection.close()


def ask_here(config: Config, job_id: int) -> tuple[JobState, str, str]:
    """Ask the daemon, or read the state file if none answers. Return what there is, and what failed with each."""
    away = ""
    try:
        return parse_state(OverSocket(control_client, config.control_sock_path).job(job_id)), "", ""
    except NotRunning:
        pid = holder_of_lock(config.pid_file_path)
        away = f"runs (pid {pid}), but does not answer on its control socket" if pid else NOT_RUNNING
    except (StateError, UsageError) as error:
        away = f"runs, but cannot be asked: {error}"
    try:
        return parse_state(OnFile(config.state_path, config.control_sock_path).job(job_id)), away, ""
    except StateError as error:
        return JobState(job_id, NO_ROWS, None), away, str(error)


def choose_cluster(config: Config, cluster_config: ClusterConfig | None, state: JobState) -> str:
    """Return the cluster's name in everything that is sent; '' if nothing tells it."""
    known = list(state.rows.checkpoints)
    return (
        config.cluster_name
        or (state.daemon.cluster if state.daemon else "")
        or (cluster_config.cluster if cluster_config else "")
        or (known[0] if len(known) == 1 else "")
    )


def read_first_moment(state_path: str) -> int:
    """Return the first moment in its file; 0 if it cannot be read."""
    try:
        return moment_file.parse(moment_file.read(moment_file.moment_path(state_path))) or 0
    except OSError:
        return 0


def owner_of(path: str) -> str:
    """Return the user to whom a file belongs; '' if that is not known."""
    try:
        return user_name(os.stat(path).st_uid)
    except OSError:
        return ""

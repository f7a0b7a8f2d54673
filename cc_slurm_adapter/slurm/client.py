"""Slurm as the daemon sees it.

Each method is a query with a typed result. After a SlurmError nothing may be concluded.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from cc_slurm_adapter.errors import CommandCancelled, SlurmError
from cc_slurm_adapter.log import log_findings
from cc_slurm_adapter.model import AccountedEnd, AccountedLaunch, Details, ListedJob, NodeState, Run, RunKey
from cc_slurm_adapter.slurm.accounting import Accounting
from cc_slurm_adapter.slurm.cluster_nodes import ClusterNodes
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.details import DetailReader, is_forgotten
from cc_slurm_adapter.slurm.interface import Sift
from cc_slurm_adapter.slurm.json_formats import CurrentFormat
from cc_slurm_adapter.slurm.known_jobs import KnownJobs
from cc_slurm_adapter.slurm.output import EPOCH_TIMES, read_raw_lines, read_text
from cc_slurm_adapter.slurm.parse.accounting import parse_backlog
from cc_slurm_adapter.slurm.parse.gres import GPU, Names
from cc_slurm_adapter.slurm.parse.jobs import parse_job
from cc_slurm_adapter.slurm.parse.json_values import Json
from cc_slurm_adapter.slurm.parse.listing import LISTING, parse_listing
from cc_slurm_adapter.slurm.parse.nodes import NodeLayout
from cc_slurm_adapter.slurm.postponed_jobs import PostponedJobs
from cc_slurm_adapter.slurm.texts import JobTexts

log = logging.getLogger(__name__)


class SlurmClient:
    """Implements `interface.Slurm`, and the queries that only the daemon's start and `-check` need.

    It combines three readers: details from slurmctld, texts through one scontrol, and accounting. `state_folder` holds
    a file without a name for a moment; if it is '', memory does. At most `max_script_bytes` of each job script are
    kept. `accelerators` are the names of the GRES whose devices are reported. `postponed` keeps the jobs for which
    Slurm's command fails. `report` is called with what is found about Slurm.
    """

    def __init__(  # noqa: PLR0913 - what is queried, and what is kept of it
        self,
        commands: Commands,
        cluster: str,
        state_folder: str,
        max_script_bytes: int,
        accelerators: Names = GPU,
        postponed: PostponedJobs | None = None,
        *,
        report: Callable[..., None] = log_findings,
    ) -> None:
        self._commands = commands
        self._cluster = cluster
        self._accelerators = accelerators
        self._format = CurrentFormat(commands, report)
        self._nodes = ClusterNodes(commands, accelerators)
        self._lacks_layouts = False
        """Whether the nodes of the last part that was read could not be queried."""
        self._known = KnownJobs(commands)
        self._details = DetailReader(commands, self._parse_job, self._learn, postponed)
        self._texts = JobTexts(commands, state_folder, max_script_bytes, self._details.slurmctld_responds)
        self._accounting = Accounting(commands, cluster, accelerators, self._format, self._nodes)

    @property
    def format_name(self) -> str:
        """The JSON format that was used last; '' before the first query. Any thread may read it."""
        return self._format.name

    def list_jobs(self, sift: Sift = list) -> Generator[ListedJob, None, None]:
        """List every job in slurmctld that is not pending: running jobs, and for MinJobAge also ended ones.

        Only lines that `sift` returns are read. Raises SlurmError, after the jobs of the last whole line.
        """
        with contextlib.closing(read_raw_lines(self._commands, LISTING, EPOCH_TIMES)) as parts:
            yield from parse_listing(line for lines in parts for line in sift(lines))

    def read_details(self, job_ids: Iterable[int]) -> Generator[Details, None, None]:
        """Yield the runs of these jobs with cores and GPUs as slurmctld knows them now, in chunks and without texts.

        Jobs that slurmctld no longer knows are left out. That alone proves nothing about them. Runs on nodes of unknown
        layout are marked while Slurm cannot be queried for these nodes.
        """
        for details in self._details.read(job_ids, self._format):
            yield _mark_unknown_layouts(details, self._nodes.layouts) if self._lacks_layouts else details

    def still_known(self, ended: Mapping[int, int]) -> set[int]:
        """Return which of these jobs slurmctld may still show. `ended` has the Unix time of each one's last end."""
        return self._known.among(ended)

    def _parse_job(self, job: Json) -> Run:
        return parse_job(job, self._cluster, self._nodes.layouts, self._accelerators)

    def _learn(self, hosts: set[str]) -> bool:
        """Read the layouts of nodes that no poll has listed yet. Return whether there were any."""
        try:
            has_learned = self._nodes.learn(hosts)
        except CommandCancelled:
            raise
        except SlurmError as error:
            log.debug("the layout of nodes cannot be read: %s", error)
            self._lacks_layouts = True
            return False
        self._lacks_layouts = False
        return has_learned

    def prefetch_job_info(self, keys: Collection[RunKey], listed: int) -> AbstractContextManager[None]:
        """Return a context inside which one query gives slurmInfo of these runs, if that costs slurmctld less.

        The runs are among the `listed` jobs that slurmctld has just listed. Their details are read inside the context.
        """
        return self._texts.prefetch(keys, listed)

    def with_texts(self, runs: list[Run]) -> Generator[Run, None, None]:
        """Yield the same runs with slurmInfo and job script, as far as Slurm still has them.

        A run gets no texts if Slurm's command fails for it while slurmctld responds. No run gets texts if scontrol
        accepts no commands on standard input. Raises SlurmError.
        """
        return self._texts.add_to(runs)

    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        """Yield the runs that accounting closed in a window of Unix seconds, see Accounting."""
        return self._accounting.ended_between(since, until)

    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedEnd]]:
        """Yield all runs of these jobs that accounting closed in a window of Unix seconds."""
        return self._accounting.ends_of(job_ids, since, until)

    def read_accounted(self, job_ids: Iterable[int], since: int, until: int) -> Generator[Details, None, None]:
        """Yield all runs of these jobs that accounting knows in a window of Unix seconds."""
        return self._accounting.read_runs(job_ids, since, until)

    def launches_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedLaunch]]:
        """Yield whether the runs of these jobs launched anything."""
        return self._accounting.launches_of(job_ids, since, until)

    def is_forgotten(self, job_id: int) -> bool:
        """Return whether slurmctld itself says that it knows no such job. Raises SlurmError if it does not say.

        A job is not forgotten if only the command for this job fails.
        """
        try:
            return is_forgotten(self._commands, job_id)
        except CommandCancelled:
            raise
        except SlurmError as error:
            if not self._details.slurmctld_responds():
                raise
            log.info("whether slurmctld knows job %d cannot be seen: %s", job_id, error)
            return False

    def keep_of_scripts(self, max_bytes: int) -> None:
        """Keep at most so many bytes of each job script from now on."""
        self._texts.max_script_bytes = max_bytes

    def retry_all(self) -> None:
        """Let all jobs for which Slurm's command failed be queried again now, however recent the failure is."""
        self._details.retry_all()

    def accounting_backlog(self) -> int:
        """Count the messages that slurmctld still has for slurmdbd. With 0, accounting has all that was sent."""
        return parse_backlog(read_text(self._commands, ["sdiag"]))

    def node_states(self) -> list[NodeState]:
        """Read CPUs, memory, GPUs and state of every node. The list may be empty where nodes are dynamic."""
        return self._nodes.read()

    def reads_all_jobs(self, count: int) -> bool:
        """Return whether a query for the details of `count` jobs makes slurmctld print all jobs that it knows."""
        return self._format.lists_all_jobs and count > 0

    def admin_level(self, user: str) -> str | None:
        """Return `None`, `Operator` or `Administrator`, as Slurm prints it; None if accounting has no such user."""
        text = read_text(self._commands, ["sacctmgr", "-nP", "show", "user", user, "format=user,adminlevel"])
        levels = [line.split("|")[1] for line in text.splitlines() if line.startswith(f"{user}|")]
        return levels[0] if levels else None


def _mark_unknown_layouts(details: Details, layouts: Mapping[str, NodeLayout]) -> Details:
    """Return the same details, with the runs marked whose cores cannot be numbered yet."""
    runs = [
        run if layouts.keys() >= {each.hostname for each in run.resources} else replace(run, awaits_layout=True)
        for run in details.runs
    ]
    return replace(details, runs=runs)

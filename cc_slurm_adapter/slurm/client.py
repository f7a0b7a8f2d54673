"""Asks Slurm: each method is one question with a typed answer, or a SlurmError and no conclusion."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import replace

from cc_slurm_adapter.errors import CommandCancelled, NoConversation, SlurmError
from cc_slurm_adapter.log import Reminder
from cc_slurm_adapter.model import AccountedEnd, AccountedLaunch, Details, ListedJob, Missing, NodeState, Run, RunKey
from cc_slurm_adapter.slurm.bulk_texts import BulkTexts, read_job_infos
from cc_slurm_adapter.slurm.cluster_nodes import ClusterNodes
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.details import CHUNK, DetailReader, is_forgotten, job_failed, read_jobs
from cc_slurm_adapter.slurm.json_formats import JsonFormat, find_format
from cc_slurm_adapter.slurm.output import batches, read_lines, read_text
from cc_slurm_adapter.slurm.parse.accounting import (
    EndedParser,
    ended_command,
    launches_command,
    parse_accounted_run,
    parse_backlog,
    parse_launches,
    parse_users,
    runs_command,
    users_command,
    with_sharing,
)
from cc_slurm_adapter.slurm.parse.gres import GPU, Names
from cc_slurm_adapter.slurm.parse.jobs import parse_job
from cc_slurm_adapter.slurm.parse.json_values import Json
from cc_slurm_adapter.slurm.parse.listing import LISTING, parse_listing
from cc_slurm_adapter.slurm.parse.partitions import COMMAND as PARTITIONS
from cc_slurm_adapter.slurm.parse.partitions import Partition, parse_partitions
from cc_slurm_adapter.slurm.parts import Part, ask_in_parts, in_parts
from cc_slurm_adapter.slurm.texts import Texts, Wanted, read_texts, runs_alone

log = logging.getLogger(__name__)

MANY, ONE_IN = 50, 20
"""slurmInfo of all jobs is asked for at once when it is wanted of so many, and of one job in so many."""
MAX_LISTED = 20_000
"""Not when more jobs run: scontrol takes 40 MB for 10,000, waiting ones included. (squeue does so at each poll.)"""
OF_ACCOUNTING = 2000
"""Questions to accounting that may fail in one go while slurmdbd answers: what it has is history, and no job's may keep
the others from being read."""
MAX_TEXT_FAILURES = 20
"""Questions for texts that may fail until all is given up for now."""
FORMAT_SECONDS = 600.0
"""How long a format is used before it is looked again what Slurm offers: it may be upgraded under this program."""
EPOCH_TIMES = {"SLURM_TIME_FORMAT": "%s"}


class SlurmClient:
    """The questions the daemon asks.

    `state_folder` takes a file without a name for a moment; at most `max_script_bytes` of each job script are kept.
    `accelerators` are the names of the GRES whose devices are reported.
    """

    def __init__(
        self,
        commands: Commands,
        cluster: str,
        state_folder: str,
        max_script_bytes: int,
        accelerators: Names = GPU,
    ) -> None:
        self._commands = commands
        self._cluster = cluster
        self._state_folder = state_folder
        self._max_script_bytes = max_script_bytes
        self._format: JsonFormat | None = None
        self._format_until = 0.0
        self._infos: BulkTexts | None = None
        self._without_texts: RunKey | None = None
        """The run for which texts failed last, while there were none for any other."""
        self._converses = True
        """Whether scontrol took commands over standard input when it was asked last."""
        self._no_texts = Reminder()
        self._accelerators = accelerators
        self._nodes = ClusterNodes(commands, accelerators)
        self._lacks_layouts = False
        """Whether the nodes of the part that was read last could not be asked for."""
        self._details = DetailReader(commands, self._parse_job, self._learn)
        self._partitions: dict[str, Partition] = {}
        self._partitions_until = 0.0

    def list_jobs(self) -> Iterable[ListedJob]:
        """Every job that slurmctld remembers and that does not wait: running ones, and ended ones for MinJobAge."""
        return parse_listing(self._text(LISTING, EPOCH_TIMES))

    def read_details(self, job_ids: Iterable[int]) -> Generator[Details, None, None]:
        """The runs of these jobs with cores and GPUs, as slurmctld knows them now, in chunks; without texts.

        Jobs that slurmctld no longer knows are left out: that alone says nothing about them. Runs on nodes of unknown
        layout say so while Slurm cannot be asked for these.
        """
        for details in self._details.read(job_ids, self._json_format(), self._is_format_current):
            yield self._with_waiting(details) if self._lacks_layouts else details

    def _learn(self, hosts: set[str]) -> bool:
        """Ask for nodes that no poll has seen yet; whether there were any."""
        try:
            has_learned = self._nodes.learn(hosts)
        except CommandCancelled:
            raise
        except SlurmError as error:
            log.debug("the layout of nodes cannot be had: %s", error)
            self._lacks_layouts = True
            return False
        self._lacks_layouts = False
        return has_learned

    def _with_waiting(self, details: Details) -> Details:
        """The same, where runs whose cores cannot be numbered now say so."""
        runs = [replace(run, awaits_layout=True) if self._is_on_unknown_nodes(run) else run for run in details.runs]
        return replace(details, runs=runs)

    def _is_on_unknown_nodes(self, run: Run) -> bool:
        return any(resource.hostname not in self._nodes.layouts for resource in run.resources)

    def _is_format_current(self) -> bool:
        """Asked after a failure: Slurm may have been upgraded."""
        before, self._format_until = self._format, 0.0
        return self._json_format() == before

    @contextlib.contextmanager
    def prefetch_job_info(self, keys: Collection[RunKey], listed: int) -> Iterator[None]:
        """Inside, slurmInfo of these runs is asked for at once where that costs slurmctld less.

        They are among so many jobs that slurmctld has listed just now, and their details are read inside.
        """
        if len(keys) >= MANY and listed <= min(len(keys) * ONE_IN, MAX_LISTED):
            self._infos = read_job_infos(self._commands, self._state_folder, keys)
        try:
            yield
        finally:
            if self._infos:
                self._infos.close()
            self._infos = None

    def with_texts(self, runs: list[Run]) -> Generator[Run, None, None]:
        """The same runs with slurmInfo and job script, as far as Slurm still has them; read one after the other.

        One for which Slurm's command fails, while slurmctld answers, goes without; so do all where scontrol takes no
        commands. Raises SlurmError.
        """
        left, failures, has_texts = deque([runs]), 0, False
        while left:
            some, done = left.popleft(), 0
            try:
                for run in self._with_texts_if_told(some):
                    yield run
                    done, has_texts = done + 1, True
            except CommandCancelled:
                raise
            except SlurmError as error:
                rest, failures = some[done:], failures + 1
                if failures > MAX_TEXT_FAILURES or not self._details.answers():
                    raise
                if len(some) > 1:
                    half = len(rest) // 2
                    left.extendleft(part for part in (rest[half:], rest[:half]) if part)
                elif has_texts or rest[0].key == self._without_texts:
                    log.error("%s is reported without slurmInfo and job script: %s", rest[0].key, error)
                    yield rest[0]
                else:
                    self._without_texts = rest[0].key  # once may be chance
                    raise

    def _with_texts_if_told(self, runs: list[Run]) -> Generator[Run, None, None]:
        """With texts; without, where scontrol has not taken commands the last time either."""
        done = 0
        try:
            for run in self._with_texts(runs):
                self._converses |= bool(run.job_script or (run.slurm_info and self._infos is None))
                yield run
                done += 1
        except NoConversation as error:
            if self._converses or not runs_alone(self._commands):
                self._converses = False  # once may be chance
                raise
            if self._no_texts.is_due():
                log.error("jobs are reported without slurmInfo and job script: %s", error)
            yield from runs[done:]

    def _with_texts(self, runs: list[Run]) -> Generator[Run, None, None]:
        jobs = {run.key.job_id: self._wanted(run) for run in runs}
        to_come = Counter(run.key.job_id for run in runs)  # two runs of a requeued job have the same texts
        kept: dict[int, Texts] = {}
        with contextlib.closing(read_texts(self._commands, jobs, self._max_script_bytes)) as texts:
            for run in runs:
                job_id = run.key.job_id
                if job_id not in kept:
                    kept[job_id] = next(texts)
                to_come[job_id] -= 1
                yield replace(run, **(kept[job_id] if to_come[job_id] else kept.pop(job_id))._asdict())

    def _wanted(self, run: Run) -> Wanted:
        info = self._infos.get(run.key) if self._infos else None
        return Wanted(_scontrol_name(run), _script_owner(run), info, run.array_job_id or 0)

    def ended_between(self, since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        """Runs that accounting closed in a window of Unix seconds, some at a time.

        sacct runs until the last of them is taken, or the generator is closed. When it fails, what it had said before
        is handed on first.
        """
        argv = ended_command(since, until)
        parser = EndedParser(self._cluster)
        with contextlib.closing(read_lines(self._commands, argv, EPOCH_TIMES)) as lines:
            for batch in batches(lines):
                yield parser.parse(batch)

    def ends_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedEnd]]:
        """All runs of these jobs that accounting closed in a window of Unix seconds, those of some jobs at a time."""

        def ask(part: Part, _: Part | None) -> list[AccountedEnd]:
            text = self._text(ended_command(since, until, part.jobs), EPOCH_TIMES)
            return EndedParser(self._cluster).parse(text.splitlines())

        return ask_in_parts(
            in_parts(job_ids, CHUNK), ask, _no_ends, self._accounting_answers, OF_ACCOUNTING, OF_ACCOUNTING
        )

    def read_accounted(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[Details]:
        """All runs of these jobs that accounting knows in a window of Unix seconds: no cores, no GPU indices."""
        option = self._json_format().option

        def ask(part: Part, _: Part | None) -> Details:
            with self._commands.begin(runs_command(part.jobs, since, until, option)) as question:
                details = read_jobs(question, self._parse_accounted, frozenset(part.jobs))
            return self._with_users(self._with_proven_sharing(details), since, until)

        def may_halve() -> bool:
            return self._is_format_current() and self._accounting_answers()

        return ask_in_parts(in_parts(job_ids, CHUNK), ask, job_failed, may_halve, OF_ACCOUNTING, OF_ACCOUNTING)

    def _accounting_answers(self) -> bool:
        """Whether slurmdbd answers the smallest question."""
        with contextlib.suppress(SlurmError):
            return self._commands.run(ended_command(0, 1, [1])).exit_code == 0
        return False

    def _with_proven_sharing(self, details: Details) -> Details:
        """The same with whose the nodes were, where layouts and partitions tell what accounting does not."""
        if not any(Missing.SHARING in run.missing for run in details.runs):
            return details
        try:
            if not self._nodes.layouts:
                self.node_states()
            partitions = self._partitions_now()
        except CommandCancelled:
            raise
        except SlurmError as error:
            log.info("the partitions are not known, so neither is who shared the nodes of old runs: %s", error)
            return details
        runs = [with_sharing(run, self._nodes.layouts, partitions) for run in details.runs]
        return replace(details, runs=runs)

    def _partitions_now(self) -> dict[str, Partition]:
        if time.monotonic() >= self._partitions_until:
            self._partitions = parse_partitions(self._text(PARTITIONS))
            self._partitions_until = time.monotonic() + FORMAT_SECONDS
        return self._partitions

    def launches_of(self, job_ids: Iterable[int], since: int, until: int) -> Iterator[list[AccountedLaunch]]:
        """Whether the runs of these jobs launched anything; all that accounting knows in a window of Unix seconds."""

        def ask(part: Part, _: Part | None) -> list[AccountedLaunch]:
            return parse_launches(self._text(launches_command(part.jobs, since, until), EPOCH_TIMES), self._cluster)

        return ask_in_parts(
            in_parts(job_ids, CHUNK), ask, _no_launches, self._accounting_answers, OF_ACCOUNTING, OF_ACCOUNTING
        )

    def _with_users(self, details: Details, since: int, until: int) -> Details:
        nameless = {run.key.job_id for run in details.runs if not run.user}
        if not nameless:
            return details
        users = parse_users(self._text(users_command(sorted(nameless), since, until)))
        runs = [run if run.user else replace(run, user=users.get(run.key.job_id, "")) for run in details.runs]
        broken = {run.key.job_id: "accounting names no user" for run in runs if not run.user}
        return replace(details, runs=[run for run in runs if run.user], broken={**details.broken, **broken})

    def is_forgotten(self, job_id: int) -> bool:
        """Whether slurmctld itself says that it knows no such job. Raises SlurmError when it says nothing at all.

        Of a job that its command fails for alone it says nothing: so it is not forgotten.
        """
        try:
            return is_forgotten(self._commands, job_id)
        except CommandCancelled:
            raise
        except SlurmError as error:
            if not self._details.answers():
                raise
            log.info("whether slurmctld knows job %d cannot be seen: %s", job_id, error)
            return False

    def retry_all(self) -> None:
        """Ask again for jobs that Slurm's command failed for, however short ago."""
        self._details.retry_all()

    def accounting_backlog(self) -> int:
        """How many messages slurmctld still has for slurmdbd. 0: accounting knows all that slurmctld has told it."""
        return parse_backlog(self._text(["sdiag"]))

    def node_states(self) -> list[NodeState]:
        """CPUs, memory, GPUs and state of every node. There may be none, where nodes come and go (dynamic nodes)."""
        return self._nodes.read()

    def reads_all_jobs(self, count: int) -> bool:
        """Whether a question for the details of so many jobs makes slurmctld print all jobs that it knows."""
        return self._format is not None and self._format.lists_all_jobs and count > 0

    def admin_level(self, user: str) -> str | None:
        """`None`, `Operator` or `Administrator` in Slurm's words; None when accounting does not know the user."""
        text = self._text(["sacctmgr", "-nP", "show", "user", user, "format=user,adminlevel"])
        levels = [line.split("|")[1] for line in text.splitlines() if line.startswith(f"{user}|")]
        return levels[0] if levels else None

    def _json_format(self) -> JsonFormat:
        if self._format is not None and time.monotonic() < self._format_until:
            return self._format
        found = find_format(self._commands)
        if found != self._format:
            log.info("asking Slurm with %s", found.option)
        self._format, self._format_until = found, time.monotonic() + FORMAT_SECONDS
        return found

    def _parse_job(self, job: Json) -> Run:
        return parse_job(job, self._cluster, self._nodes.layouts, self._accelerators)

    def _parse_accounted(self, job: Json) -> Run:
        return parse_accounted_run(job, self._cluster, self._accelerators)

    def _text(self, argv: list[str], environment: Mapping[str, str] | None = None) -> str:
        return read_text(self._commands, argv, environment)


def _hosts(details: Details) -> set[str]:
    return {resource.hostname for run in details.runs for resource in run.resources}


def _scontrol_name(run: Run) -> str:
    """What scontrol calls this very job, where its id can also stand for the whole array or heterogeneous job."""
    if run.array_job_id is not None and run.array_task_id is not None:
        return f"{run.array_job_id}_{run.array_task_id}"
    if run.het_job_id is not None and run.het_job_offset is not None:
        return f"{run.het_job_id}+{run.het_job_offset}"
    return str(run.key.job_id)


def _no_launches(job_id: int, reason: str) -> list[AccountedLaunch]:
    log.error("accounting cannot be asked for the steps of job %d, the others go on: %s", job_id, reason)
    return []


def _no_ends(job_id: int, reason: str) -> list[AccountedEnd]:
    log.error("accounting cannot be asked for job %d, the others go on: %s", job_id, reason)
    return []


def _script_owner(run: Run) -> str:
    """22.05 keeps only a stub of the script for the later components of a heterogeneous job: its leader has it."""
    if run.het_job_id is not None:
        return str(run.het_job_id)
    return str(run.key.job_id) if run.has_script else ""

"""A job as the text of `scontrol show job` prints it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from examples.practice.slurm.hostlist import compress_hosts, format_numbers
from examples.practice.slurm.model import MEMORY_PER_CPU, PENDING, HostShare, Record, Settings, shares
from examples.practice.slurm.release import Release, release_of
from examples.practice.slurm.times import format_duration, format_time
from examples.practice.slurm.view import (
    cpus_asked,
    cpus_held,
    elapsed,
    format_exit,
    format_tres,
    gpus_held,
    gres_request,
    gres_text,
    holds_nodes,
    moments,
    reason,
    shown_nodes,
    shown_restarts,
    shown_state,
    sluid,
    submit_line,
    tres_asked,
    tres_held,
    waiting_tasks,
    work_dir,
)


def job_text(record: Record, settings: Settings, now: float, environ: Mapping[str, str], *, details: bool) -> str:
    """The lines of one job, with the blank line that ends it."""
    held = shares(record)
    release = release_of(settings.release)
    lines = [
        *_identity(record, settings, now),
        *(["DerivedExitCode=0:0"] if details else []),
        *_times(record, now, environ),
        *_nodes(record, held, settings),
        *(_details(record, held, settings) if details else []),
        *_request(record, settings),
    ]
    return "\n   ".join(lines) + ("\n   \n\n" if release.is_before("25.11") else "\n\n")


def _identity(record: Record, settings: Settings, now: float) -> list[str]:
    failed = f" FailedNode={shares(record)[0].host}" if record.end_state == "NODE_FAIL" else ""
    has_sluid = not release_of(settings.release).is_before("25.11")
    return [
        f"JobId={record.job_id}{_array(record, settings)} JobName={record.name}",
        *([f"SLUID={sluid(record)}"] if has_sluid else []),
        f"UserId={record.user}({record.uid}) GroupId={record.group_name}({record.gid}) MCS_label=N/A",
        f"Priority=1 Nice=0 Account={record.account} QOS=normal",
        f"JobState={shown_state(record)} Reason={reason(record, now)}{failed} Dependency=(null)",
        f"Requeue=1 Restarts={shown_restarts(record)} BatchFlag={int(record.batch)} Reboot=0 "
        f"ExitCode={format_exit(record.exit_code, record.exit_signal)}",
    ]


def _array(record: Record, settings: Settings) -> str:
    if not record.array_job_id:
        return ""
    throttle = f" ArrayTaskThrottle={record.array_limit}" if record.array_limit else ""
    task = waiting_tasks(record, settings) or record.array_task_id
    return f" ArrayJobId={record.array_job_id} ArrayTaskId={task}{throttle}"


def _times(record: Record, now: float, environ: Mapping[str, str]) -> list[str]:
    limit = "UNLIMITED" if record.time_limit is None else format_duration(record.time_limit * 60)
    start, end = moments(record)
    endless = record.time_limit is None and record.end_time is None
    eligible = record.begin_time or record.submit_time
    waits = record.phase == PENDING and record.begin_time > now

    def show(seconds: int | None) -> str:
        return "Unknown" if seconds is None else format_time(seconds, environ)

    throttled = reason(record, now) == "JobArrayTaskLimit"
    return [
        f"RunTime={format_duration(elapsed(record, now))} TimeLimit={limit} TimeMin=N/A",
        f"SubmitTime={show(record.submit_time)} EligibleTime={show(None if throttled else eligible)}",
        f"AccrueTime={show(None if waits else eligible)}",
        f"StartTime={show(start)} EndTime={show(None if endless else end)} Deadline=N/A",
        "SuspendTime=None SecsPreSuspend=0 "
        f"LastSchedEval={show(record.start_time or record.submit_time)} Scheduler=Main",
    ]


def _nodes(record: Record, held: Sequence[HostShare], settings: Settings) -> list[str]:
    cpus = cpus_held(held, settings) if held else cpus_asked(record)
    return [
        f"Partition={record.partition} AllocNode:Sid=localhost:1",
        "ReqNodeList=(null) ExcNodeList=(null)",
        f"NodeList={shown_nodes(record)}",
        *([f"BatchHost={held[0].host}"] if held else []),
        f"NumNodes={_node_count(record, settings)} NumCPUs={cpus} NumTasks={record.tasks} "
        f"CPUs/Task={record.cpus_per_task} ReqB:S:C:T=0:0:*:*",
        *_tres(record, held, settings),
        "Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=*",
    ]


def _node_count(record: Record, settings: Settings) -> str:
    """26.05 prints least and most of a job that waits, and no job uses more nodes than it has tasks."""
    if record.phase != PENDING or release_of(settings.release).is_before("26.05"):
        return str(record.nodes)
    return f"{record.nodes}-{max(record.nodes, record.tasks)}"


def _tres(record: Record, held: Sequence[HostShare], settings: Settings) -> list[str]:
    asked, got = format_tres(tres_asked(record, settings)), format_tres(tres_held(held, settings))
    if release_of(settings.release).is_before("23.02"):
        return [f"TRES={got or asked}"]
    return [f"ReqTRES={asked}", f"AllocTRES={got or '(null)'}"]


def _details(record: Record, held: Sequence[HostShare], settings: Settings) -> list[str]:
    """What -d adds: neighbours with the same CPUs, memory and GPUs stand on one line."""
    if not held:
        return []
    gpus = gpus_held(held)
    lines = [f"JOB_GRES=gpu:{settings.gpu_type}:{gpus}" if gpus else "JOB_GRES=(null)"]
    contents = ((share.host, _contents(share, record, settings)) for share in held)
    for content, group in itertools.groupby(contents, key=lambda pair: pair[1]):
        lines.append(f"  Nodes={compress_hosts([host for host, _ in group])} {content}")
    return lines


def _contents(share: HostShare, record: Record, settings: Settings) -> str:
    threads = settings.threads_per_core
    cpus = [core * threads + thread for core in share.cores for thread in range(threads)]
    gres = gres_text(share, settings) if holds_nodes(record) else ""
    return f"CPU_IDs={format_numbers(cpus)} Mem={len(cpus) * MEMORY_PER_CPU} GRES={gres}"


def _request(record: Record, settings: Settings) -> Iterator[str]:
    release = release_of(settings.release)
    yield f"MinCPUsNode={record.cpus_per_task} MinMemoryCPU={MEMORY_PER_CPU}M MinTmpDiskNode=0"
    yield "Features=(null) DelayBoot=00:00:00"
    allocated = "" if release.is_before("25.05") else "LicensesAlloc=(null) "
    yield f"{_sharing(record, release)} Contiguous=0 Licenses=(null) {allocated}Network=(null)"
    yield "Command=(null)"
    if not release.is_before("25.11"):
        yield f"SubmitLine={submit_line(record)}"
    yield f"WorkDir={work_dir(record)}"
    if record.admin_comment:
        yield f"AdminComment={record.admin_comment} "
    if record.comment:
        yield f"Comment={record.comment} "
    if record.batch:
        errors = "/dev/null" if release.is_before("25.11") else ""
        yield from (f"StdErr={errors}", "StdIn=/dev/null", "StdOut=/dev/null")
    if release.is_before("24.05"):
        yield "Power="
    if record.cpus_per_task > 1:
        yield f"TresPerTask=cpu={record.cpus_per_task}"
    if record.gpus_per_node:
        yield f"TresPerNode={gres_request(record, settings)}"


def _sharing(record: Record, release: Release) -> str:
    if release.is_before("26.05"):
        return f"OverSubscribe={'NO' if record.exclusive else 'YES' if record.oversubscribe else 'OK'}"
    shared, exclusive = "YES" if record.oversubscribe else "NO", "NODE" if record.exclusive else "NO"
    return f"OverSubscribe={shared} Exclusive={exclusive}"

"""The stand-in for scontrol, with its commands as arguments or, line by line, on standard input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from examples.practice.slurm.call import (
    CONTROLLER_DOWN,
    FLAG,
    OPTIONAL,
    UNKNOWN_JOB,
    Call,
    CommandError,
    Option,
    json_format,
    list_json_formats,
    parse_options,
    print_json,
    print_version,
    require_controller,
)
from examples.practice.slurm.config_text import config_text, ping_text
from examples.practice.slurm.hostlist import InvalidHostlist, expand_hosts
from examples.practice.slurm.job_json import job_object
from examples.practice.slurm.job_template import number
from examples.practice.slurm.job_text import job_text
from examples.practice.slurm.model import Record
from examples.practice.slurm.node_text import node_text
from examples.practice.slurm.partition_text import partition_lines
from examples.practice.slurm.release import PLAIN
from examples.practice.slurm.sinfo import Line

OPTIONS = (
    Option("all", "a", FLAG),
    Option("details", "d", FLAG),
    Option("oneliner", "o", FLAG),
    Option("json", "", OPTIONAL),
    Option("version", "V"),
)
ALARM = """\
*****************************************
** RESTORE SLURMCTLD DAEMON TO SERVICE **
*****************************************
"""
PROMPT = "scontrol: "
WIDEST, SCROLLED = 78, 51
NO_SCRIPT = "job script retrieval failed"


def main(call: Call) -> int:
    """Run scontrol and return its exit status."""
    has_json = call.release().default != PLAIN
    options, words = parse_options(call, [option for option in OPTIONS if has_json or option.long != "json"])
    if "version" in options:
        return print_version(call)
    if options.get("json") == "list":
        return list_json_formats(call)
    if "json" in options:
        version = json_format(call, options["json"])
        _require_show_job(words)
        return _show_job_json(call, words, version)
    details, in_lines = "details" in options, "oneliner" in options
    shown = " ".join(words[:2]).lower()
    if in_lines and shown in ("show node", "show nodes"):
        return _show_nodes_in_lines(call, words, details=details)
    if in_lines != (shown == "show partition"):
        raise CommandError("scontrol: error: --oneliner is known here for `show partition` and all nodes, and only so")
    return run_words(call, words, details=details) if words else _converse(call, details=details)


def _converse(call: Call, *, details: bool) -> int:
    """Read commands until the end of standard input; each is echoed, as no terminal does it.

    The prompt follows an answer at once, also one that does not end its line.
    """
    status = 0
    for line in call.stdin:
        text = line.rstrip("\n")
        call.out.write(f"{PROMPT}{_echo(text)}\n")
        words = text.split()
        if words and words[0].lower() in ("exit", "quit"):
            return status
        try:
            status = (run_words(call, words, details=details) if words else 0) or status
        except CommandError as error:
            call.complain(str(error))
            status = error.status or status
    call.out.write(f"{PROMPT}\n")
    return status


def _echo(text: str) -> str:
    """readline shows only the end of a line that is wider than the screen less two columns."""
    return text if len(PROMPT + text) <= WIDEST else f"\r<{text[-SCROLLED:]}"


def run_words(call: Call, words: Sequence[str], *, details: bool) -> int:
    """One command, already cut into words."""
    keyword, *rest = words
    if keyword.lower() == "ping":
        return _ping(call)
    if keyword.lower() == "write":
        return _write_batch_script(call, rest)
    if keyword.lower() != "show":
        raise CommandError(f"invalid keyword: {keyword}")
    if not rest:
        raise CommandError("too few arguments for keyword:show")
    if len(rest) > 2:
        raise CommandError("too many arguments for keyword:show")
    show = SHOWN.get(rest[0].lower())
    if show is None:
        raise CommandError(f"invalid entity:{rest[0]} for keyword:show ")
    return show(call, rest[1:], details)


def _ping(call: Call) -> int:
    settings = call.settings()
    if call.store.is_down("slurmctld"):
        call.out.write(ping_text(settings).replace("is UP", "is DOWN") + "\n" + ALARM)
        return 1
    call.out.write(ping_text(settings) + "\n")
    return 0


def _show_config(call: Call, rest: Sequence[str], details: bool) -> int:
    require_controller(call, "slurm_load_ctl_conf error", call.release().config_colon)
    call.out.write(config_text(call))
    return 0


def _show_partition(call: Call, rest: Sequence[str], details: bool) -> int:
    require_controller(call, "slurm_load_partitions error")
    call.out.writelines(f"{line}\n" for line in partition_lines(call.settings()))
    return 0


def _show_hostnames(call: Call, rest: Sequence[str], details: bool) -> int:
    expression = rest[0] if rest else ""
    try:
        names = expand_hosts(expression)
    except InvalidHostlist as error:
        if error.bad_range:
            call.complain(f"scontrol: error: _parse_single_range: Invalid range: `{error.bad_range}'")
        raise CommandError(f"Invalid hostlist: {expression}", status=0) from None
    call.out.writelines(f"{name}\n" for name in names)
    return 0


def _show_job(call: Call, rest: Sequence[str], details: bool) -> int:
    records = find_jobs(call, rest)
    settings = call.settings()
    for record in records:
        call.out.write(job_text(record, settings, call.now, call.environ, details=details))
    if not records:
        call.out.write("No jobs in the system\n")
    return 0


def _show_node(call: Call, rest: Sequence[str], details: bool) -> int:
    """Those that are named, or all. A name that it does not know is told among them."""
    require_controller(call, "slurm_load_node error")
    settings, nodes = call.settings(), {node.name: node for node in call.store.nodes()}
    status = 0
    for name in expand_hosts(rest[0]) if rest else nodes:
        if name in nodes:
            call.out.write(node_text(Line(nodes[name], "", settings), details=details))
        else:
            call.out.write(f"Node {name} not found\n")
            status = 1
    return status


def _show_nodes_in_lines(call: Call, words: Sequence[str], *, details: bool) -> int:
    if [word.lower() for word in words] not in (["show", "node"], ["show", "nodes"]):
        raise CommandError("scontrol: error: -o is only known for all nodes here")
    require_controller(call, "slurm_load_node error")
    for node in call.store.nodes():
        lines = node_text(Line(node, "", call.settings()), details=details).rstrip("\n")
        call.out.write(lines.replace("\n   ", " ") + "\n")
    return 0


SHOWN: dict[str, Callable[[Call, Sequence[str], bool], int]] = {
    "config": _show_config,
    "hostnames": _show_hostnames,
    "job": _show_job,
    "jobs": _show_job,
    "partition": _show_partition,
    "node": _show_node,
    "nodes": _show_node,
}


def find_jobs(call: Call, words: Sequence[str]) -> list[Record]:
    """The job, the tasks of the array, or all that slurmctld knows when no word is given."""
    job, _, task = words[0].partition("_") if words else ("", "", "")
    if words and not (job.isdigit() and (not task or task.isdigit())):
        raise CommandError(f"scontrol_print_job error: {UNKNOWN_JOB}")
    require_controller(call, "slurm_load_jobs error")
    if not words:
        return call.store.in_memory()
    records = [
        record for record in call.store.in_memory_by_id(int(job)) if not task or record.array_task_id == int(task)
    ]
    if not records:
        raise CommandError(f"slurm_load_jobs error: {UNKNOWN_JOB}")
    return records


def _require_show_job(words: Sequence[str]) -> None:
    if [word.lower() for word in words[:2]] not in (["show", "job"], ["show", "jobs"]):
        raise CommandError("scontrol: error: JSON is only known for jobs here")


def _show_job_json(call: Call, words: Sequence[str], version: str) -> int:
    """An unknown job and an absent slurmctld both give an empty list and exit status 0."""
    settings = call.settings()
    try:
        records = find_jobs(call, words[2:])
    except CommandError:
        records = []
    updated = number(int(call.now) if records else 0)
    document = {
        "jobs": [job_object(record, settings, call.now, version) for record in records],
        "last_backfill": updated,
        "last_update": updated,
    }
    warnings = ["Zero jobs to dump"] if call.release().is_before("23.11") and not records else []
    print_json(call, document, version, words[:2], warnings)
    return 0


def _write_batch_script(call: Call, rest: Sequence[str]) -> int:
    """write batch_script ID [FILE]: its failures leave the exit status at 0."""
    if not 2 <= len(rest) <= 3 or rest[0].lower() != "batch_script":
        raise CommandError(f"invalid entity:{rest[0] if rest else ''} for keyword:write ")
    job = rest[1]
    text = _script(call, job)
    file = rest[2] if len(rest) == 3 else f"slurm-{job}.sh"
    if file == "-":
        call.out.write(text)
        return 0
    try:
        with open(file, "w", encoding="utf-8", errors="surrogateescape") as target:
            target.write(text)
    except OSError as error:
        raise CommandError(f"failed to open file `{file}`: {error.strerror}", status=0) from None
    call.out.write(f"batch script for job {job} written to {file}\n")
    return 0


def _script(call: Call, job: str) -> str:
    if call.store.is_down("slurmctld"):
        raise CommandError(f"{NO_SCRIPT}: {CONTROLLER_DOWN}", status=0)
    job_id = job.partition("_")[0]  # all tasks of an array have one script
    records = call.store.in_memory_by_id(int(job_id)) if job_id.isdigit() else []
    if not records:
        raise CommandError(f"{NO_SCRIPT}: {UNKNOWN_JOB}", status=0)
    text = call.store.script(records[0])
    if text is None:
        raise CommandError(f"{NO_SCRIPT}: Job script not specified", status=0)
    return text.partition("\0")[0]  # scontrol prints it as C does

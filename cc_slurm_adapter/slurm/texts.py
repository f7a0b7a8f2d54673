"""slurmInfo and job scripts of many jobs through one `scontrol` that reads commands from standard input.

Between two jobs it is told to print a random word: users write much of a job's text, but nobody
can guess that word, so no text can pass for another job's.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
import secrets
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import NamedTuple

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.commands import Commands

log = logging.getLogger(__name__)

_ANSWER = re.compile(r"x(\d+)\n(?:scontrol: )?(?:show job \S+\n)?(JobId=)")
CUT_NOTE = "\n[cut by cc-slurm-adapter: the script has {size} bytes, jobScriptMaxBytes is {limit}]\n"


class Wanted(NamedTuple):
    """A job as scontrol is asked for it."""

    name: str
    """What stands for it and nothing else: its id, `<array>_<task>` for a task of an array, because the last task
    has the id of the whole array, `<leader>+<offset>` for a component of a heterogeneous job, because the leader's
    id stands for all components."""
    script_of: str
    """The id of the job whose script it runs; '' when it has none."""
    info: str | None = None
    """Its slurmInfo, when that is known already."""


class Texts(NamedTuple):
    """The texts of one job; '' where Slurm has none."""

    slurm_info: str
    job_script: str


def read_texts(
    commands: Commands, jobs: Mapping[int, Wanted], folder: str, max_script_bytes: int
) -> Generator[Texts, None, None]:
    """The texts of these jobs, in their order; a script is read when it is its turn. Raises SlurmError.

    `folder` is the state folder: scripts pass through a private one in it. Scripts longer than `max_script_bytes`
    are cut and say so; 0 means no scripts.
    """
    marker = secrets.token_hex(16)
    private = Path(folder) / "scripts"
    shutil.rmtree(private, ignore_errors=True)  # left over when the daemon was killed in here
    scripts = private if max_script_bytes > 0 and _make(private) else None
    try:
        questions = _questions(jobs, marker, scripts)
        infos = split_infos(_ask(commands, questions, marker), marker) if questions else {}
        has_all = scripts is not None and _has_room(scripts)
        for job_id, job in jobs.items():
            script = _read_script(private / str(job_id), max_script_bytes) if has_all and job.script_of else ""
            yield Texts(infos.get(job_id, "") if job.info is None else job.info, script)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _ask(commands: Commands, questions: str, marker: str) -> str:
    """What scontrol says to them. Its exit code only tells whether one of the jobs is gone, its last answer more."""
    end = f"{marker}end"
    answer = commands.run(["scontrol"], stdin=f"{questions}show hostnames {end}\n".encode())
    text = answer.output.decode("utf-8", errors="replace")
    if f"{end}\n" not in text:
        raise UnexpectedOutput("scontrol", f"it has not come to its last answer: {answer.complaint()}")
    return text


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        log.warning("job scripts are left out: %s cannot be made: %s", folder, error)
        return False
    return True


def _has_room(folder: Path) -> bool:
    """scontrol says nothing when a disk is too full for a script: only a part of it is there then."""
    try:
        (folder / "room").write_bytes(b"x")
    except OSError as error:
        log.warning("job scripts are left out, they may be cut: %s: %s", folder, error.strerror)
        return False
    return True


def _questions(jobs: Mapping[int, Wanted], marker: str, scripts: Path | None) -> str:
    lines = []
    for job_id, job in jobs.items():
        if job.info is None:
            lines += [f"show hostnames {marker}x{job_id}", f"show job {job.name}", f"show hostnames {marker}"]
        if scripts and job.script_of:
            lines.append(f"write batch_script {job.script_of} {scripts}/{job_id}")
    return "".join(f"{line}\n" for line in lines)


def split_infos(output: str, marker: str) -> dict[int, str]:
    """The text of each job: what stands between `<marker>x<job id>` and the next marker.

    Before each answer scontrol prints its prompt and, where it was built with readline, the command again.
    """
    infos = {}
    for piece in output.split(marker):
        match = _ANSWER.match(piece)
        if match:
            text = piece[match.start(2) :]
            for end in ("show hostnames ", "scontrol: "):
                text = text[: -len(end)] if text.endswith(end) else text
            infos[int(match.group(1))] = text.rstrip()
    return infos


def _read_script(path: Path, limit: int) -> str:
    """At most `limit` bytes of the script, cut between two characters; '' when scontrol wrote none.

    Without the NUL that old versions of Slurm append; bytes that are no UTF-8 become U+FFFD.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            script = file.read(limit)
    except OSError:
        return ""
    if size <= limit:
        return script.rstrip(b"\0").decode("utf-8", errors="replace")
    # Not final: the decoder holds back a character that was cut in two.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(script)
    return text + CUT_NOTE.format(size=size, limit=limit)

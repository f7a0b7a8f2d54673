"""slurmInfo and job scripts of many jobs through one `scontrol` that reads commands from standard input.

Between two jobs it is told to print a random word: users write much of a job's text, but nobody
can guess that word, so no text can pass for another job's.
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cc_slurm_adapter.slurm.commands import Commands

log = logging.getLogger(__name__)

MAX_SCRIPT_BYTES = 1024 * 1024
_ANSWER = re.compile(r"x(\d+)\n(?:scontrol: )?(?:show job \S+\n)?(JobId=)")
CUT_NOTE = "\n[cut by cc-slurm-adapter: the script has {size} bytes, the limit is {limit}]\n"


class Texts(NamedTuple):
    """The texts of one job; '' where Slurm has none."""

    slurm_info: str
    job_script: str


def read_texts(commands: Commands, names: Mapping[int, str], folder: str) -> dict[int, Texts]:
    """Texts by job id. Raises SlurmError.

    `names` has what scontrol calls each job: for a task of an array <array>_<task>, because the last
    task has the id of the whole array, which stands for all tasks. `folder` is the state folder:
    scripts pass through a private one in it.
    """
    marker = secrets.token_hex(16)
    private = Path(folder) / "scripts"
    shutil.rmtree(private, ignore_errors=True)  # left over when the daemon was killed in here
    try:
        private.mkdir(mode=0o700)
    except OSError as error:
        log.warning("job scripts are left out: %s cannot be made: %s", private, error)
    try:
        answer = commands.run(["scontrol"], stdin=_questions(names, marker, private).encode())
        infos = split_infos(answer.output.decode("utf-8", errors="replace"), marker)
        return {job_id: Texts(infos.get(job_id, ""), _read_script(private / str(job_id))) for job_id in names}
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _questions(names: Mapping[int, str], marker: str, private: Path) -> str:
    lines = []
    for job_id, name in names.items():
        lines += [f"show hostnames {marker}x{job_id}", f"show job {name}"]
        lines += [f"show hostnames {marker}", f"write batch_script {job_id} {private}/{job_id}"]
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


def _read_script(path: Path) -> str:
    """The script without the NUL that old versions of Slurm append; '' when scontrol wrote none."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            script = file.read(MAX_SCRIPT_BYTES)
    except OSError:
        return ""
    text = script.rstrip(b"\0").decode("utf-8", errors="replace")
    return text + CUT_NOTE.format(size=size, limit=MAX_SCRIPT_BYTES) if size > MAX_SCRIPT_BYTES else text

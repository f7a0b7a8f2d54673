"""Job scripts of a real Slurm through commands that are wrappers: nothing but pipes connects them with this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.model import Run
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from examples.practice.programs import write_program
from tests.fakes.slurm_and_sinks import make_run
from tests.recorded.fixture_files import FIXTURES

from .installation import STATE_FOLDER, USER, Installation
from .slurm_conf import CLUSTER
from .slurm_jobs import Submission, submit, wait_until_ended
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.slurm

LIMIT = 2 * 1024 * 1024
LONG_LINE = b"# " + b"x" * 5000 + b"\n"
SCRIPTS = {
    **{path.name: path.read_bytes() for path in (FIXTURES / "scripts").iterdir() if path.name not in ("crlf", "nul")},
    "one megabyte": b"#!/bin/sh\nsleep 600\n".ljust(1024 * 1024 - 1, b"#") + b"\n",
    "long lines": b"#!/bin/sh\nsleep 600\n" + LONG_LINE * 20 + b"# no newline",
    "blank lines": b"#!/bin/sh\n\n\n\n",
    "too long": b"#!/bin/sh\n".ljust(3 * 1024 * 1024, b"#"),
}
"""crlf and nul are refused by sbatch (recorded in fixtures/README.md)."""


@pytest.fixture
def wrapped(lab: SlurmLab, tmp_path: Path) -> Iterator[tuple[Commands, Path]]:
    """Slurm's commands as wrappers in a folder of this machine, which has none of the cluster's files."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("scontrol", "squeue"):
        wrapper = shlex.join(lab.command_from_outside([name], USER))
        write_program(folder / f"real-{name}", f'#!/bin/sh\nexec {wrapper} "$@"\n')
        write_program(folder / name, f'#!/bin/sh\nexec real-{name} "$@"\n')
    path = f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    commands = Commands({"PATH": path})
    yield commands, folder
    commands.close()


def hold(lab: SlurmLab, script: bytes, *options: str) -> int:
    """The id of a job with this script that waits for ever."""
    file = lab.path("/tmp/script")
    file.write_bytes(script)
    file.chmod(0o644)
    argv = ["sbatch", "--parsable", "--hold", "--output=/dev/null", *options, "/tmp/script"]
    return int(lab.output(*argv, user="alice"))


def hold_all(lab: SlurmLab) -> dict[int, bytes]:
    return {hold(lab, script): script for script in SCRIPTS.values()}


def text_of(script: bytes) -> str:
    return script.decode("utf-8", errors="replace")


def read(commands: Commands, runs: list[Run], folder: Path, limit: int = LIMIT) -> list[Run]:
    return list(SlurmClient(commands, CLUSTER, str(folder), limit).with_texts(runs))


@pytest.mark.usefixtures("installation")
def test_scripts_of_any_bytes_come_through_a_wrapper(
    lab: SlurmLab, wrapped: tuple[Commands, Path], tmp_path: Path
) -> None:
    commands, _ = wrapped
    scripts = hold_all(lab)
    done = lab.run("salloc", "--no-shell", "--ntasks=1", user="alice")
    found = re.search(r"Granted job allocation (\d+)", done.stderr)
    assert found, done.stderr
    without_script, gone = int(found[1]), 4_000_000
    runs = [make_run(job_id) for job_id in [*scripts, without_script, gone]]
    told = {run.key.job_id: run for run in read(commands, runs, tmp_path)}
    for job_id, script in scripts.items():
        if len(script) <= LIMIT:
            assert told[job_id].job_script == text_of(script)
        else:
            kept, note = told[job_id].job_script[:LIMIT], told[job_id].job_script[LIMIT:]
            assert kept == text_of(script)[:LIMIT]
            assert f"the script has {len(script)} bytes, jobScriptMaxBytes is {LIMIT}" in note
        own = lab.output("scontrol", "show", "job", str(job_id), user=USER)
        assert told[job_id].slurm_info == own.rstrip()
    assert told[without_script].slurm_info.startswith(f"JobId={without_script} ")
    assert (told[without_script].job_script, told[gone].job_script, told[gone].slurm_info) == ("", "", "")
    assert {path.name for path in tmp_path.iterdir()} == {"bin"}


@pytest.mark.usefixtures("installation")
def test_a_task_of_an_array_has_the_script_of_the_array(
    lab: SlurmLab, wrapped: tuple[Commands, Path], tmp_path: Path
) -> None:
    commands, _ = wrapped
    array = hold(lab, SCRIPTS["prompt-at-end"], "--array=0-1")
    (run,) = read(commands, [make_run(array, array_job_id=array, array_task_id=1)], tmp_path)
    assert run.job_script == text_of(SCRIPTS["prompt-at-end"])
    assert re.match(rf"JobId=\d+ ArrayJobId={array} ArrayTaskId=1 ", run.slurm_info)


@pytest.mark.usefixtures("installation")
@pytest.mark.parametrize("count", [0, 1, 5000, 70_000, 1_100_000])
def test_a_connection_that_breaks_costs_nothing(
    lab: SlurmLab, wrapped: tuple[Commands, Path], tmp_path: Path, count: int
) -> None:
    """Once, after so many bytes, as when ssh loses its peer."""
    commands, folder = wrapped
    scripts = hold_all(lab)
    broken = folder / "broken"
    is_first = f"[ $# = 0 ] && mkdir {shlex.quote(str(broken))} 2>/dev/null"
    breaks = f"{{ real-scontrol | head -c {count}; exit 255; }}"
    write_program(folder / "scontrol", f'#!/bin/sh\n{is_first} && {breaks}\nexec real-scontrol "$@"\n')
    told = read(commands, [make_run(job_id) for job_id in scripts], tmp_path, 4 * LIMIT)
    assert broken.is_dir()
    assert [run.job_script for run in told] == [text_of(script) for script in scripts.values()]
    assert all(run.slurm_info.startswith(f"JobId={run.key.job_id} ") for run in told)


def test_a_folder_of_the_site_beside_the_last_run_survives_the_daemon(
    lab: SlurmLab, installation: Installation
) -> None:
    site = STATE_FOLDER / "scripts" / "important"
    lab.output("install", "-d", "-o", "cc-slurm-adapter", str(site))
    lab.path(site / "backup.sh").write_text("x", encoding="ascii")
    installation.start()
    job = Submission(script="sleep 1")
    job_id = submit(lab, job)
    wait_until_ended(lab, [job_id])
    installation.wait_for_stops([job_id], seconds=30)
    installation.stop()
    assert installation.only_row(job_id).start["metaData"]["jobScript"] == job.whole_script
    assert lab.path(site / "backup.sh").read_text(encoding="ascii") == "x"

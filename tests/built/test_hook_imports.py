"""What a hook call makes Python load: how long slurmctld waits for it depends on little else."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import zipfile
from pathlib import Path

import pytest

import build
from examples.practice.programs import write_program
from tests.built.installed import JOB, call

SUPPORTED = [found for found in map(build.find_interpreter, build.SUPPORTED) if found]
NOTING = """\
#!/bin/sh
exec {python} -X importtime "$@" 2> {notes}
"""
FLOOR = ["-I", "-S", "-B", "-X", "importtime", "-c", "import os, time, __future__, _json, _socket, _thread"]
"""What any program would load that reads JSON and connects."""
OURS = {
    *("", "errors", "config", "config.address", "config.file", "config.secrets"),
    *("hooks", "hooks.hook", "hooks.message", "system", "system.event_files"),
}
"""Each of these modules costs a hook a third of a millisecond or more."""


def loaded(notes: str) -> set[str]:
    """The modules that -X importtime names."""
    return {line.rpartition("|")[2].strip() for line in notes.splitlines() if "|" in line} - {"imported package"}


@pytest.mark.parametrize("way", ["unix", "tcp", "signed", "file"])
@pytest.mark.parametrize("python", SUPPORTED, ids=str)
def test_a_hook_loads_no_more_than_it_needs(python: build.Interpreter, way: str, copy: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    noting = write_program(tmp_path / "python", NOTING.format(python=python.path, notes=notes))
    (tmp_path / "events").mkdir()
    (tmp_path / "secret").write_text("0123456789abcdef")
    family = socket.AF_INET if way in ("tcp", "signed") else socket.AF_UNIX
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket"))
        if way != "file":
            listener.listen()
        where = f"tcp:localhost:{listener.getsockname()[1]}" if family == socket.AF_INET else str(tmp_path / "socket")
        keys = {"prepSockConnectPath": where, "prepEventsPath": str(tmp_path / "events"), "gpuPciAddrs": {"n": ["1"]}}
        if way == "signed":
            keys["prepSecretFile"] = str(tmp_path / "secret")
        (tmp_path / "config.json").write_text(json.dumps(keys, indent=4) + "\n")
        settings = {**JOB, "CC_SLURM_ADAPTER_PYTHON": str(noting)}
        done = call([copy, "-config", tmp_path / "config.json"], settings)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(list((tmp_path / "events").iterdir())) == (way == "file")

    found = loaded(notes.read_text())
    ours = {name for name in found if name.partition(".")[0] == "cc_slurm_adapter"}
    also = {"hooks.signature"} if way == "signed" else set()
    assert ours == {f"cc_slurm_adapter.{name}".rstrip(".") for name in OURS | also}
    floor = subprocess.run([python.path, *FLOOR], capture_output=True, text=True, timeout=20, check=True)
    assert found - ours <= loaded(floor.stderr) | ({"_hashlib"} if way == "signed" else set())


def test_a_hook_reads_all_that_it_may_load_at_once(adapter: Path) -> None:
    """The rest of the file stays unread: a table of contents of 300 files takes longer than loading ten of them."""
    with zipfile.ZipFile(adapter) as archive:
        front, after = archive.namelist()[: len(build.FRONT)], archive.infolist()[len(build.FRONT)]
    assert set(front) == build.FRONT
    (read,) = re.findall(r"os\.read\(os\.open\(this, os\.O_RDONLY\), (\d+)\)", adapter.read_text(errors="replace"))
    assert after.header_offset + 100 < int(read)

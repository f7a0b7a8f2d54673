"""build.py itself: what counts as a failure, and which calls it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import build
from examples.practice.programs import write_program

QUIET = [sys.executable, "-c", ""]
FAILING = [sys.executable, "-c", "import sys; sys.exit('went wrong')"]


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs and reports of these tests go into a folder of their own."""
    monkeypatch.setattr(build, "log_of", lambda step: tmp_path / f"{step}.txt")


def suite(folder: Path, source: str) -> list[str]:
    """pytest's arguments for a test file with that text, away from this project's settings."""
    file = folder / "test_it.py"
    file.write_text(source)
    return [f"--rootdir={folder}", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:hypothesispytest", str(file)]


def test_failed_step_fails_the_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = build.Report([])
    report.pytest("unit tests", sys.executable, suite(tmp_path, "def test_a(): pass\n"), 60)
    report.check("lint", FAILING, 60)
    assert report.close() == 1
    shown = capsys.readouterr().out
    assert "went wrong" in shown
    assert shown.splitlines()[-1] == "1 passed, 1 failed"


def test_what_failed_is_named_at_the_end(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.parametrize('n', range(30))\ndef test_a(n): assert n < 5\n"
    report = build.Report([])
    report.pytest("unit tests", sys.executable, suite(tmp_path, source), 60)
    report.check("lint", FAILING, 60)
    assert report.close() == 1
    summary = capsys.readouterr().out.rpartition("\nran: unit tests")[2].splitlines()
    named = [line for line in summary if line.startswith("FAILED unit tests: test_it::test_a[")]
    assert len(named) == build.MOST_FAILURES
    assert f"FAILED: {26 - build.MOST_FAILURES} more" in summary
    assert summary[-2].startswith("logs: ")
    assert summary[-1] == "5 passed, 26 failed"


def test_each_step_is_reported_when_it_ends(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folders = tmp_path / "quick", tmp_path / "slow"
    for folder in folders:
        folder.mkdir()
    quick, slow = (
        suite(folder, f"import time\ndef test_a(): time.sleep({seconds})\n") for folder, seconds in zip(folders, (0, 3))
    )
    report = build.Report([])
    steps = {"slow one": [sys.executable, *slow], "quick one": [sys.executable, *quick]}
    assert report.pytest_side_by_side(steps, 60) == 2
    assert [line.partition(":")[0] for line in report.ran] == ["quick one", "slow one"]


def test_counts_are_added_up_and_skipped_is_not_passed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = "import pytest\ndef test_a(): pass\ndef test_b(): pass\ndef test_c(): pytest.skip('no')\n"
    report = build.Report([])
    assert report.pytest("unit tests, first", sys.executable, suite(tmp_path, source), 60) == 2
    assert report.pytest("unit tests, second", sys.executable, suite(tmp_path, source), 60) == 2
    report.check("lint", QUIET, 60)
    assert report.close() == 0
    shown = capsys.readouterr().out
    assert "ran: unit tests, first: 2 passed, 0 failed, 1 skipped" in shown
    assert shown.splitlines()[-1] == "4 passed, 0 failed, 2 skipped"


@pytest.mark.parametrize(
    "source",
    ["def test_a(): assert False\n", "import no_such_module\n", "", "import os; os._exit(0)\n"],
    ids=["failure", "error", "no test", "no report"],
)
def test_a_run_without_success_fails(source: str, tmp_path: Path) -> None:
    report = build.Report([])
    report.counts["passed"] = 1
    report.pytest("unit tests", sys.executable, suite(tmp_path, source), 60)
    assert report.close() == 1


def test_arguments_may_leave_out_a_whole_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = build.Report(["-k", "other"])
    report.counts["passed"] = 1
    report.pytest("unit tests", sys.executable, suite(tmp_path, "def test_a(): pass\n"), 60)
    assert report.close() == 0
    assert "NOT RUN unit tests: the arguments select none" in capsys.readouterr().out


def test_a_part_that_cannot_run_is_named_and_fails_where_all_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    for strict in (False, True):
        report = build.Report([], strict=strict)
        report.counts["passed"] = 1
        report.could_not_run("nats", "no nats-server for the tests")
        assert report.close() == int(strict)
        assert "NOT RUN nats: no nats-server for the tests; where that" in capsys.readouterr().out


def test_a_part_that_was_excepted_by_name_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report = build.Report([], ["nats"], strict=True)
    report.counts["passed"] = 1
    report.could_not_run("nats", "no nats-server for the tests")
    assert report.close() == 0
    assert "NOT RUN nats: excepted by --without" in capsys.readouterr().out


def test_notes_of_a_step_are_told_although_it_passed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = build.Report(["-s"])
    report.pytest("unit tests", sys.executable, suite(tmp_path, "def test_a(): print('\\nNOTE it is newer')\n"), 60)
    assert report.close() == 0
    assert "\nNOTE it is newer\n" in capsys.readouterr().out


def test_every_lock_names_what_pyproject_names_and_a_hash_for_each_package() -> None:
    tools = build.environment(build.running(), ["build"])
    for groups in build.GROUPS:
        build.check_lock(groups, tools.pins(groups))
        lock = build.lock_of(groups).read_text()
        named = re.findall(r"^([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==\S+.*\\$", lock, re.M)
        assert {re.split("[=;]", pin)[0].strip() for pin in tools.pins(groups)} <= set(named)
        entries = [entry for entry in re.split(r"^(?=[a-z])", lock, flags=re.M) if not entry.startswith("#")]
        assert all("--hash=sha256:" in entry for entry in entries)
        assert len(entries) == len(named)


def test_a_lock_of_other_versions_is_refused() -> None:
    with pytest.raises(build.BuildError, match=r"locks/run\.txt is not of .* build\.py lock"):
        build.check_lock(["run"], ["nats-py==0.0.1"])


def test_what_has_not_the_hash_of_the_lock_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = build.environment(build.running(), ["build"])
    lock = build.lock_of(["run"]).read_text()
    monkeypatch.setattr(build, "LOCKS", tmp_path)
    build.lock_of(["run"]).write_text(re.sub("sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", lock))
    kept = next((tools.folder / "wheels").iterdir())
    command = [*build.locked_pip(tools, "download", ["run"]), "--no-index", "--find-links", str(kept)]
    assert build.run([*command, "--dest", str(tmp_path)], tmp_path / "log", 60) != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in (tmp_path / "log").read_text()
    assert not list(tmp_path.glob("*.whl"))


def test_no_test_at_all_is_a_failure() -> None:
    assert build.Report([]).close() == 1


def test_what_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    record = tmp_path / "pid"
    source = f"import subprocess; subprocess.run(['/bin/sh', '-c', 'echo $$ > {record}; exec sleep 600'])"
    log = tmp_path / "log"
    began = time.monotonic()
    assert build.run([sys.executable, "-c", source], log, 2) == build.TOO_LONG
    assert time.monotonic() - began < 20
    assert "took longer than 2 s" in log.read_text()
    assert has_ended(int(record.read_text()))


def test_what_a_step_leaves_behind_is_ended(tmp_path: Path) -> None:
    record = tmp_path / "pid"
    assert build.run(["/bin/sh", "-c", f"sleep 600 & echo $! > {record}"], tmp_path / "log", 20) == 0
    assert has_ended(int(record.read_text()))


def has_ended(pid: int) -> bool:
    """Whether it ends within 5 s. It may stay as a zombie until whoever inherited it has looked."""
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
    return False


def test_a_name_that_does_not_start_is_no_interpreter(tmp_path: Path) -> None:
    shim = write_program(tmp_path / "python3.9", "#!/bin/sh\necho 'no such version' >&2\nexit 127\n")
    assert build.interpreter(str(shim)) is None
    assert build.interpreter(str(tmp_path / "missing")) is None


def test_this_python_is_an_interpreter() -> None:
    assert build.interpreter(sys.executable) == build.running()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "required"),
        (["prove"], "invalid choice"),
        (["build", "--fast"], "--fast"),
        (["test", "--quick"], "--quick"),
        (["test", "--fast", "--slurm"], "--fast goes with none of"),
        (["build", "--", "-k", "x"], "only test"),
    ],
)
def test_wrong_calls_are_refused(arguments: list[str], problem: str) -> None:
    command = [sys.executable, "-B", str(build.ROOT / "build.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match=r"--python .*/missing: is no Python 3\.9 to 3\.14"):
        build.named_interpreter(str(tmp_path / "missing"))


def test_a_python_without_venv_names_the_package(tmp_path: Path) -> None:
    debian = write_program(tmp_path / "python3", "#!/bin/sh\necho 'No module named ensurepip' >&2\nexit 1\n")
    with pytest.raises(build.BuildError, match="apt-get install python3-venv"):
        build.make_environment(build.Interpreter(str(debian), "3.11.2"), tmp_path / "environment")

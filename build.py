"""The project's commands: `build.py build`, `package`, `release`, `check`, `test`, `demo`, `bench` and `lock`.

They need Python 3.9 or newer with venv and, the first time, a package index that pip can reach.
All that they make lies in .build/ (environments, caches, logs) and dist/ (the file that sites install); unit tests put
their folders into memory where there is room, as tests/conftest.py says.
"""

from __future__ import annotations

import argparse
import contextlib
import email.parser
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "cc_slurm_adapter"
WORK = ROOT / ".build"
LOCKS = ROOT / "locks"
ADAPTER = ROOT / "dist" / "cc-slurm-adapter"
SBOM = ADAPTER.with_name("cc-slurm-adapter.cdx.json")
"""What is bundled, in the format CycloneDX: for programs that look for known holes."""
SUMS = ADAPTER.with_name("SHA256SUMS")
"""For `sha256sum --check`."""
PACKAGES = ("*.deb", "*.rpm")
SOURCES = ["cc_slurm_adapter", "build.py", "docs", "examples", "packages", "tests"]
SUPPORTED = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
"""The Python versions that the adapter runs under."""
UNIT_TESTED = ("3.9", "3.13")
"""The unit tests run under these; under the running Python as well where one of them is not found."""
GROUPS = (("lock",), ("run",), ("build",), ("run", "build"), ("run", "test"), ("run", "test", "lint"))
"""What is installed together: each has a file in locks/ with a version and hashes for every package, all the way down.
`run` are the packages that the shipped file bundles."""
TOO_LONG = -1
"""In place of an exit code: the process was ended because it took too long."""
NO_TESTS = 5
"""pytest's exit code when its arguments select no test."""
SHARDS = 2
"""The parts into which the tests are dealt. Two cores are what every machine has, and neither is idle while the
slowest Python is at its last tests."""
OTHER_PROGRAMS = {"prometheus": "tests with a real Prometheus", "browser": "tests in a real browser"}
"""Marks of tests that only `test --all` runs, and the names of the steps. They are in tests/built, or in tests/MARK."""
UNIT_TESTS = [
    *("--in-memory", "-m", f"not built and not slurm and not {' and not '.join(OTHER_PROGRAMS)}"),
    *("--ignore=tests/built", "--ignore=tests/lab", "tests"),
]
RELEASES = {"22.05": "bookworm", "24.11": "trixie", "26.05": "sid"}
"""The Slurms of the tests on a real one, and the Debians that ship them."""
BOOTED = {"bookworm": "systemd 252", "trixie": "systemd 257"}
"""The Debians that machines are booted from for the tests."""
PARTS = (
    *("nats", "mandoc", "zsh", "rpm", *OTHER_PROGRAMS, "slurm", "soak", "busy"),
    *(f"python{minor}" for minor in SUPPORTED),
)
"""What `--without` takes: parts of the tests that not every machine has a place for."""
LONG_SOAK = 10.0
"""Minutes of the soak test in `test --all`."""
ENDURANCE = ("tests/built/test_attack.py", "tests/built/test_soak.py")
BUSY, BUSY_RUNS = 4, 10
"""Processes that do nothing but run, and how often the unit tests pass beside them."""
MOST_FAILURES = 20
"""So many are named at the end, so that it stays on one screen; the logs have them all."""
PURE = r"\.(py|pyi)$|/py\.typed$|\.dist-info/"
"""What may be in the archive."""
FRONT = frozenset(
    f"site-packages/cc_slurm_adapter/{name}.py"
    for name in (
        *("__init__", "errors", "lines", "config/__init__", "config/address", "config/file", "config/secrets"),
        *("hooks/__init__", "hooks/hook", "hooks/message", "hooks/signature"),
        *("system/__init__", "system/event_files"),
    )
)
"""All that a hook may load: it is at the beginning of the archive, which is all that a hook reads."""
EXAMPLES_SHIPPED = (
    *("cc-slurm-adapter.service", "cc-slurm-adapter@.service", "cc-slurm-adapter.tmpfiles"),
    *("config.cluster.json", "slurm.conf.hooks"),
)
"""What `-install` prints. They are beside the package in the archive, as they are in a checkout."""
NOT_SHIPPED = ("RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json", "top_level.txt")
"""pip's own notes in .dist-info: they say nothing to users and differ from one pip to the next."""

START = """\
import sys

if sys.version_info < (3, 9):
    sys.exit("cc-slurm-adapter needs Python 3.9 or newer: run the file itself, it looks for one")

import os

# An upgrade puts another file in this one's place while this runs. By its descriptor it stays the one that it is,
# and what is loaded later comes from it too.
this = os.path.abspath(sys.path[0])
opened = "/proc/self/fd/%d" % os.open(this, os.O_RDONLY)
sys.path[0] = os.path.join(opened if os.path.exists(opened) else this, "site-packages")

from cc_slurm_adapter.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
"""The archive's __main__.py. Pythons that are too old must be able to read it."""

READ_PYPROJECT = """\
import json, sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
print(json.dumps(tomllib.loads(sys.stdin.read())["project"]))
"""


class BuildError(Exception):
    """Something that a person has to mend; the text says what."""


class Interpreter(NamedTuple):
    """A Python that starts. `version` is the full one, as in 3.11.7."""

    path: str
    version: str

    def __str__(self) -> str:
        return f"Python {self.version}"

    @property
    def minor(self) -> str:
        """As in 3.11."""
        return self.version.rpartition(".")[0]


class Environment(NamedTuple):
    """A virtual environment in .build/ and the table [project] of pyproject.toml."""

    folder: Path
    project: dict[str, Any]

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def pins(self, groups: Sequence[str]) -> list[str]:
        """The requirements of those groups; `run` are those of the shipped file."""
        named = {"run": self.project["dependencies"], **self.project["optional-dependencies"]}
        return [pin for group in groups for pin in named[group]]


# --- processes


def run(command: list[str], log: Path, limit: float) -> int:
    """The exit code of a command that writes into `log`, or TOO_LONG after `limit` seconds."""
    with started(command, log) as process:
        return wait_for(process, log, limit)


@contextlib.contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that writes into `log`, in a process group of its own: what is left of that is ended afterwards."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=surroundings(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end_group(process)


def wait_for(process: subprocess.Popen[bytes], log: Path, limit: float) -> int:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        with log.open("ab") as output:
            output.write(f"\nended because it took longer than {limit:.0f} s\n".encode())
        return TOO_LONG


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Asks first, so that tests that are cut short can end what they started."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_or_fail(command: list[str], log: Path, limit: float, problem: str) -> None:
    if run(command, log, limit) != 0:
        raise BuildError(f"{problem}:\n{text_of(log)}")


def surroundings() -> dict[str, str]:
    """Our environment variables, with all that the tools keep for themselves moved into .build/."""
    return {
        **os.environ,
        "HYPOTHESIS_STORAGE_DIRECTORY": str(WORK / "hypothesis"),
        "PIP_CACHE_DIR": str(WORK / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        # Whatever the machine says: without these files pytest rewrites 200 modules in each run, which takes 5 s.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(WORK / "pycache"),
    }


def log_of(step: str) -> Path:
    return WORK / "logs" / (re.sub(r"[^a-z0-9.]+", "-", step.lower()) + ".txt")


def text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Only one process at a time changes what is kept in .build/."""
    WORK.mkdir(exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- interpreters and environments


def running() -> Interpreter:
    """The Python of this process; in a virtual environment the one that it was made from."""
    return Interpreter(os.path.realpath(sys.executable), ".".join(map(str, sys.version_info[:3])))


def interpreter(path: str) -> Interpreter | None:
    """The Python at `path`; None when it does not start, as with names that version managers leave behind."""
    question = "import os, platform, sys; print(os.path.realpath(sys.executable)); print(platform.python_version())"
    command = [path, "-I", "-c", question]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return Interpreter(*answer.stdout.splitlines())


def find_interpreter(minor: str) -> Interpreter | None:
    """A Python of that minor version, in PATH or in pyenv's folder."""
    in_path = shutil.which(f"python{minor}")
    of_pyenv = map(str, Path.home().glob(f".pyenv/versions/{minor}.*/bin/python"))
    for path in [in_path, *sorted(of_pyenv, reverse=True)]:
        found = interpreter(path) if path else None
        if found and found.minor == minor:
            return found
    return None


def environment(python: Interpreter, groups: Sequence[str]) -> Environment:
    """An environment with what the lock of those groups names, made anew when that has changed."""
    folder = WORK / "environments" / "-".join([python.version, *groups])
    stamp = folder / "lock.json"
    made_from = [python.path, lock_of(groups).read_text(encoding="ascii")]
    with locked():
        try:
            if json.loads(stamp.read_text()) == made_from:
                return Environment(folder, read_project(folder))
        except (OSError, ValueError, subprocess.SubprocessError):
            pass  # it was never finished, or its Python is gone
        print(f"  making an environment for: {', '.join(groups)} ({python})", flush=True)
        make_environment(python, folder)
        new = Environment(folder, read_project(folder))
        check_lock(groups, new.pins(groups))
        run_or_fail(locked_pip(new, "install", groups), log_of("install"), 900, "packages could not be installed")
        stamp.write_text(json.dumps(made_from))
        return new


def lock_of(groups: Sequence[str]) -> Path:
    return LOCKS / f"{'-'.join(groups)}.txt"


def check_lock(groups: Sequence[str], pins: list[str]) -> None:
    """Whether the lock was made from what pyproject.toml names now."""
    lock = lock_of(groups)
    if header_of(pins) not in lock.read_text(encoding="ascii"):
        raise BuildError(f"{lock.relative_to(ROOT)} is not of pyproject.toml's versions: python3 build.py lock")


def header_of(pins: list[str]) -> str:
    return f"# Made by `python3 build.py lock` for: {', '.join(pins)}\n"


def locked_pip(tools: Environment, command: str, groups: Sequence[str]) -> list[str]:
    """pip, for exactly what the lock names. Wheels only: what is built from source needs others that no lock names."""
    options = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--requirement", str(lock_of(groups))]
    return [tools.python, "-m", "pip", command, *options]


def renew_locks() -> int:
    """Looks up the newest versions that pyproject.toml allows and writes every file in locks/ anew; the exit code."""
    tools = locker()
    for groups in GROUPS:
        write_lock(tools, groups)
        print(f"wrote {lock_of(groups).relative_to(ROOT)}", flush=True)
    return 0


def locker() -> Environment:
    """What resolves. Where its own lock is not there or of another version, by its version alone this once."""
    with contextlib.suppress(BuildError, FileNotFoundError):
        return environment(running(), ["lock"])
    folder = WORK / "environments" / "unlocked"
    make_environment(running(), folder)
    tools = Environment(folder, read_project(folder))
    install = [tools.python, "-m", "pip", "install", "--quiet", *tools.pins(["lock"])]
    run_or_fail(install, log_of("install"), 300, "what makes the locks could not be installed")
    return tools


def write_lock(tools: Environment, groups: Sequence[str]) -> None:
    """One version of each package for all Pythons where there is one, with the hashes of all its files."""
    pins = tools.pins(groups)
    command = [str(tools.folder / "bin" / "uv"), "pip", "compile", "-", "--universal", "--python-version", SUPPORTED[0]]
    command += ["--fork-strategy", "fewest", "--generate-hashes", "--no-strip-extras"]
    command += ["--no-header", "--no-annotate", "--quiet"]
    variables = {**surroundings(), "UV_PYTHON_DOWNLOADS": "never", "UV_CACHE_DIR": str(WORK / "uv")}
    done = subprocess.run(
        command, input="\n".join(pins), capture_output=True, text=True, timeout=300, check=False, env=variables
    )
    if done.returncode != 0:
        raise BuildError(f"no lock for {', '.join(groups)}:\n{done.stderr}")
    LOCKS.mkdir(exist_ok=True)
    lock_of(groups).write_text(header_of(pins) + done.stdout, encoding="ascii")


def make_environment(python: Interpreter, folder: Path) -> None:
    for module in ("venv", "virtualenv"):
        shutil.rmtree(folder, ignore_errors=True)
        if run([python.path, "-m", module, str(folder)], log_of("environment"), 300) == 0:
            return
    raise BuildError(
        f"{python.path} cannot make virtual environments. On Debian and Ubuntu: apt-get install"
        f" python3-venv (or python{python.minor}-venv), elsewhere: {python.path} -m pip install virtualenv"
    )


def read_project(folder: Path) -> dict[str, Any]:
    """The table [project]; the pip in an environment reads TOML also where its Python cannot."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    command = [str(folder / "bin" / "python"), "-c", READ_PYPROJECT]
    answer = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
    project: dict[str, Any] = json.loads(answer.stdout)
    return project


# --- dist/cc-slurm-adapter


def build(*, with_packages: bool = False) -> None:
    """Makes the one file, the shell part and an archive that Python runs from as it is, and what belongs beside it.

    Packages of an earlier build, which have another file in them, are removed.
    """
    tools = environment(running(), ["build"])
    with tempfile.TemporaryDirectory(dir=WORK) as name:
        folder = Path(name)
        parts = lay_out(tools, folder)
        check_pure(parts)
        pack({**shipped(parts), **added(parts, tools.project)}, folder / ADAPTER.name)
        write_sbom(tools, folder)
        if with_packages:
            command = [sys.executable, "-m", "packages", str(folder)]
            run_or_fail(command, log_of("packages"), 120, "the packages could not be made")
        publish([folder / ADAPTER.name, folder / SBOM.name, *packages_in(folder)])


def packages_in(folder: Path) -> list[Path]:
    """The .deb and the .rpm that lie there."""
    return [path for pattern in PACKAGES for path in sorted(folder.glob(pattern))]


def publish(finished: Sequence[Path]) -> None:
    """Puts all that was made into dist/, each file whole, with the sums of it. That may be another file system."""
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in finished]
    written = finished[0].with_name(SUMS.name)
    written.write_text("".join(sums), encoding="ascii")
    ADAPTER.parent.mkdir(exist_ok=True)
    for path in packages_in(ADAPTER.parent):
        path.unlink()
    for path in [*finished, written]:
        new = ADAPTER.with_name(f"{path.name}.new")
        shutil.copy(path, new)
        new.replace(ADAPTER.with_name(path.name))


def lay_out(tools: Environment, folder: Path) -> dict[str, bytes]:
    """Lets shiv put our package and those it needs together: what lies in site-packages/, by name."""
    own = folder / "own"
    copy_sources(own / PACKAGE.name)
    laid_out = folder / "laid-out"
    command = [tools.python, "-m", "shiv.cli", "--output-file", str(laid_out), "--site-packages", str(own)]
    command += ["--no-index", "--find-links", str(wheels(tools)), "--no-compile"]
    command += ["--require-hashes", "--requirement", str(lock_of(["run"]))]
    run_or_fail(command, log_of("shiv"), 300, "shiv could not lay out the file")
    with zipfile.ZipFile(laid_out) as archive:
        names = [name for name in archive.namelist() if name.startswith("site-packages/")]
        return {name: archive.read(name) for name in names if not name.endswith("/")}


def copy_sources(target: Path) -> None:
    """Our package's Python files, and nothing else that lies there."""
    for source in PACKAGE.rglob("*.py"):
        if not source.stem.isidentifier():
            continue  # an editor's lock or a backup
        copied = target / source.relative_to(PACKAGE)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copied)


def wheels(tools: Environment) -> Path:
    """A folder with the wheels to bundle; kept, so that only the first build needs the network."""
    check_lock(["run"], tools.pins(["run"]))
    kept = tools.folder / "wheels" / hashlib.sha256(lock_of(["run"]).read_bytes()).hexdigest()
    with locked():
        if not kept.exists():
            new = tools.folder / "wheels" / "new"
            command = [*locked_pip(tools, "download", ["run"]), "--dest", str(new)]
            run_or_fail(command, log_of("wheels"), 600, "the packages to bundle could not be fetched")
            new.replace(kept)
    return kept


def check_pure(parts: dict[str, bytes]) -> None:
    """Only pure Python runs straight from an archive, on every version and every machine."""
    for name, content in sorted(parts.items()):
        if re.search(r"\.(so|pyd|dll|dylib)(\.|$)", name):
            raise BuildError(f"{name} is compiled: only pure Python can be bundled")
        if content.startswith(b"\x7fELF"):
            raise BuildError(f"{name} is compiled, whatever its name says: only pure Python can be bundled")
        if is_shipped(name.split("/")[1:]) and not re.search(PURE, name):
            raise BuildError(f"{name} is no Python source: only pure Python can be bundled")
        if name.endswith(".dist-info/WHEEL"):
            tags = email.parser.BytesParser().parsebytes(content).get_all("Tag", [])
            if "py3-none-any" not in tags or not set(tags) <= {"py2-none-any", "py3-none-any"}:
                raise BuildError(f"{name} has the tag {', '.join(tags)}: only py3-none-any can be bundled")


def shipped(parts: dict[str, bytes]) -> dict[str, bytes]:
    """What is needed at run time, and the licences."""
    return {name: content for name, content in parts.items() if is_shipped(name.split("/")[1:])}


def is_shipped(path: list[str]) -> bool:
    if path[0].endswith(".dist-info"):
        return path[-1] not in NOT_SHIPPED
    is_test = path[-1].startswith("test_") or {"test", "tests"} & set(path)
    return not is_test and path[0] != "bin" and "__pycache__" not in path


def added(parts: dict[str, bytes], project: dict[str, Any]) -> dict[str, bytes]:
    """Where Python begins, the list of what is bundled, our own licence, and the examples that are printed."""
    of_others = [part_of(parts[name]) for name in sorted(parts) if name.endswith(".dist-info/METADATA")]
    manifest = json.dumps([own_part(project), *of_others], indent=1)
    return {
        "__main__.py": START.encode(),
        f"site-packages/{PACKAGE.name}/bundled.json": manifest.encode(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
        **{f"site-packages/examples/{name}": (ROOT / "examples" / name).read_bytes() for name in EXAMPLES_SHIPPED},
    }


def own_part(project: dict[str, Any]) -> dict[str, str]:
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    if not found:
        raise BuildError('cc_slurm_adapter/__init__.py has no line __version__ = "..."')
    return {"name": project["name"], "version": found[1], "licence": project["license"]["text"]}


def part_of(metadata: bytes) -> dict[str, str]:
    fields = email.parser.BytesParser().parsebytes(metadata, headersonly=True)
    licence = fields["License-Expression"] or fields["License"] or "see its METADATA"
    return {"name": fields["Name"], "version": fields["Version"], "licence": licence.splitlines()[0]}


def write_sbom(tools: Environment, folder: Path) -> None:
    """The list of what is bundled, from the lock, with its hashes: the same sources always give the same bytes."""
    described = folder / "described.toml"  # pyproject.toml itself names no version
    own = own_part(tools.project)
    fields = {"name": own["name"], "version": own["version"], "description": tools.project["description"]}
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    licence = f"license = {{ text = {json.dumps(own['licence'])} }}"
    described.write_text("\n".join(["[project]", *lines, licence, ""]), encoding="utf-8")
    command = [str(tools.folder / "bin" / "cyclonedx-py"), "requirements", str(lock_of(["run"]))]
    command += ["--pyproject", str(described), "--output-reproducible", "--output-file", str(folder / SBOM.name)]
    run_or_fail(command, log_of("sbom"), 120, "the list of what is bundled could not be made")


def pack(files: dict[str, bytes], target: Path) -> None:
    """Order, times and modes are fixed, so that the same sources always give the same bytes.

    What a hook loads comes first: the shell part of the file says why.
    Nothing is compressed: compressors differ from machine to machine, and Python starts no slower.
    """
    with target.open("wb") as output:
        output.write((PACKAGE / "hooks" / "head.sh").read_bytes())
        with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
            for name, content in sorted(files.items(), key=lambda file: (file[0] not in FRONT, file[0])):
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, content)
    target.chmod(0o755)


# --- the tests


class Report:
    """Runs the steps of `build.py test` one after another and adds up what came of them.

    A part that cannot run here is named, and fails the whole if the call is `strict`, unless it is `excepted` by name.
    """

    def __init__(self, pytest_arguments: list[str], excepted: Sequence[str] = (), *, strict: bool = False) -> None:
        self.pytest_arguments = pytest_arguments
        self.excepted = frozenset(excepted)
        self.strict = strict
        self.began = time.monotonic()
        self.counts = Counter(passed=0, failed=0, skipped=0)
        self.ran: list[str] = []
        self.not_run: list[str] = []
        self.failures: list[str] = []
        """What failed, a line each."""
        self.notes: list[str] = []

    def wants(self, part: str) -> bool:
        """Whether this part was not excepted; otherwise it is noted as that."""
        if part in self.excepted:
            self.not_run.append(f"{part}: excepted by --without")
        return part not in self.excepted

    def could_not_run(self, part: str, reason: str) -> None:
        """A part that this machine has no place for."""
        if self.wants(part):
            self.not_run.append(f"{part}: {reason}; where that cannot be mended: --without {part}")
            self.counts["failed"] += self.strict

    def check(self, step: str, command: list[str], limit: float) -> bool:
        """A step that succeeds or fails as a whole; a failure counts like a failed test."""
        began = time.monotonic()
        is_good = self.run(step, command, limit) == 0
        if not is_good:
            self.counts["failed"] += 1
            self.failures.append(f"{step}: see {shown(log_of(step))}")
        self._has_run(step, "ok" if is_good else "FAILED", time.monotonic() - began, show_log=not is_good)
        return is_good

    def pytest(self, step: str, python: str, arguments: list[str], limit: float) -> int:
        """A run of pytest under that interpreter; how many of its tests passed."""
        return self.pytest_side_by_side({step: [python, *arguments]}, limit)

    def pytest_side_by_side(self, steps: dict[str, list[str]], limit: float) -> int:
        """Several runs at the same time, each an interpreter and pytest's arguments; how many tests passed."""
        print("".join(f"{step} ...\n" for step in steps), end="", flush=True)
        began = time.monotonic()
        passed = 0
        with contextlib.ExitStack() as processes:
            begun = {
                step: processes.enter_context(started(self._pytest_command(step, *words), log_of(step)))
                for step, words in steps.items()
            }
            for step, code in as_they_end(begun, limit):
                passed += self._settle_pytest(step, code, time.monotonic() - began)
        return passed

    def _pytest_command(self, step: str, python: str, *arguments: str) -> list[str]:
        report = report_of(step)
        report.unlink(missing_ok=True)
        return [python, "-m", "pytest", "-q", f"--junitxml={report}", *arguments, *self.pytest_arguments]

    def _settle_pytest(self, step: str, code: int, seconds: float) -> int:
        counts, failures = read_junit(report_of(step))
        if code == NO_TESTS and self.pytest_arguments:
            self.not_run.append(f"{step}: the arguments select none")
            return 0
        if not counts["failed"] and (code != 0 or not counts["passed"] + counts["skipped"]):
            counts["failed"] = 1
            failures = [f"pytest itself failed, took too long or left no report: see {shown(log_of(step))}"]
        self.counts.update(counts)
        self.failures += [f"{step}: {failure}" for failure in failures]
        self.notes += notes_in(log_of(step))
        self._has_run(step, in_words(counts), seconds, show_log=counts["failed"] > 0)
        return counts["passed"]

    def run(self, step: str, command: list[str], limit: float) -> int:
        """The exit code of a step whose outcome the caller reports."""
        print(f"{step} ...", flush=True)
        return run(command, log_of(step), limit)

    def _has_run(self, step: str, outcome: str, seconds: float, *, show_log: bool) -> None:
        self.ran.append(f"{step}: {outcome} ({seconds:.1f} s)")
        print(f"  {self.ran[-1]}", flush=True)
        if show_log:
            print(f"{text_of(log_of(step))}\n", flush=True)

    def close(self) -> int:
        """Says on one screen what ran, what did not, and what failed; the exit code of the whole command."""
        print()
        for line in self.ran:
            print(f"ran: {line}")
        for line in dict.fromkeys(self.not_run):
            print(f"NOT RUN {line}")
        for line in dict.fromkeys(self.notes):
            print(line)
        for line in self.failures[:MOST_FAILURES]:
            print(f"FAILED {line}")
        if len(self.failures) > MOST_FAILURES:
            print(f"FAILED: {len(self.failures) - MOST_FAILURES} more")
        print(f"logs: {shown(log_of('all').parent)}; it took {time.monotonic() - self.began:.0f} s")
        print(in_words(self.counts))
        return 0 if self.counts["passed"] and not self.counts["failed"] else 1


def as_they_end(begun: dict[str, subprocess.Popen[bytes]], limit: float) -> Iterator[tuple[str, int]]:
    """Each step and its exit code as soon as it ends, TOO_LONG for those that still run after `limit` seconds."""
    deadline = time.monotonic() + limit
    remaining = dict(begun)
    while remaining:
        is_over = time.monotonic() > deadline
        for step, process in list(remaining.items()):
            if is_over or process.poll() is not None:
                yield step, wait_for(remaining.pop(step), log_of(step), 0 if is_over else limit)
        time.sleep(0.1)


def shown(path: Path) -> str:
    """A path as seen from the project's folder."""
    return os.path.relpath(path, ROOT)


def report_of(step: str) -> Path:
    """What pytest says for programs to read."""
    return log_of(step).with_suffix(".xml")


def read_junit(junit: Path) -> tuple[Counter[str], list[str]]:
    """The counts of pytest's report and the names of the tests that failed; nothing when there is none."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    if junit.exists():
        tree = ET.parse(junit)  # noqa: S314 - our own pytest wrote it
        for suite in tree.iter("testsuite"):
            number = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
            failed = number["failures"] + number["errors"]
            counts.update(failed=failed, skipped=number["skipped"])
            counts.update(passed=number["tests"] - failed - number["skipped"])
        bad = [case for case in tree.iter("testcase") if {"failure", "error"} & {part.tag for part in case}]
        failures = [f"{case.get('classname')}::{case.get('name')}".lstrip(":") for case in bad]
    return counts, failures


def notes_in(log: Path) -> list[str]:
    """Lines of a step that whoever started the tests should see although all passed."""
    return [line for line in text_of(log).splitlines() if line.startswith("NOTE ")]


def in_words(counts: Counter[str]) -> str:
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    return f"{counts['passed']} passed, {counts['failed']} failed{skipped}"


def test(options: argparse.Namespace, pytest_arguments: list[str]) -> int:
    """Style, types, the build, unit tests, the built file, on request a real Slurm and what takes long: the exit code.

    Whoever asks for the real Slurm or for all has a machine for it: there a part that cannot run is a failure.
    """
    if options.fast:
        return test_fast(options, pytest_arguments)
    report = Report(pytest_arguments, options.without, strict=options.slurm or options.all)
    wanted = options.python or (SUPPORTED if options.all else UNIT_TESTED)
    pythons = unit_test_interpreters(wanted, report)
    tools = environment(running(), ["run", "test", "lint"])
    check_sources(tools, report)
    report.check("build", [sys.executable, "build.py", "build"], 1800)
    provide_programs(report)
    if len(pythons) < len(wanted):  # the running one is among those that are wanted, or stands in for one
        pythons.insert(0, (tools.python, running().version))
    report.pytest_side_by_side(unit_test_steps(pythons), 900 + 300 * len(pythons))
    test_built_file(tools, report)
    if options.slurm or options.all:
        test_on_slurm(tools, report)
    else:
        report.not_run.append("slurm: tests on a real Slurm (add --slurm)")
    if options.all:
        test_with_other_programs(tools, report)
    else:
        report.not_run += [f"{mark}: {step} (add --all)" for mark, step in OTHER_PROGRAMS.items()]
    if options.soak or options.all:
        test_endurance(tools, report, options.soak or LONG_SOAK)
    else:
        report.not_run.append("soak: the soak test for longer than a minute (add --soak MINUTES)")
    if options.all:
        test_beside_busy_processes(tools, report)
    else:
        report.not_run.append(f"busy: the unit tests {BUSY_RUNS} times beside {BUSY} busy processes (add --all)")
    return report.close()


def test_fast(options: argparse.Namespace, pytest_arguments: list[str]) -> int:
    """Style, types, and the unit tests under this Python in as many processes as there are shards: the exit code."""
    report = Report(pytest_arguments, options.without)
    tools = environment(running(), ["run", "test", "lint"])
    check_sources(tools, report)
    provide_programs(report)
    report.pytest_side_by_side(unit_test_steps([(tools.python, running().version)]), 900)
    report.not_run.append("other Pythons, the built file and all the rest (leave out --fast)")
    return report.close()


def unit_test_steps(pythons: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """The unit tests under each Python, given with its version, a step for each shard."""
    return {
        f"unit tests, Python {version}, part {part} of {SHARDS}": [python, f"--shard={part}/{SHARDS}", *UNIT_TESTS]
        for python, version in pythons
        for part in range(1, SHARDS + 1)
    }


def check() -> int:
    """Style and types alone: the exit code."""
    report = Report([])
    return 0 if check_sources(environment(running(), ["run", "test", "lint"]), report) else 1


def unit_test_interpreters(wanted: Sequence[str], report: Report) -> list[tuple[str, str]]:
    """Python and version of the environments for unit tests beside the running one; `wanted` are versions or paths."""
    found = []
    for each in wanted:
        if each not in SUPPORTED:
            found.append(named_interpreter(each))
        elif each != running().minor and report.wants(f"python{each}"):
            other = find_interpreter(each)
            if other:
                found.append(other)
            else:
                report.could_not_run(f"python{each}", f"no Python {each} for the unit tests")
    return [(environment(other, ["run", "test"]).python, other.version) for other in found]


def named_interpreter(path: str) -> Interpreter:
    found = interpreter(path)
    if not found or found.minor not in SUPPORTED:
        raise BuildError(f"--python {path}: is no Python {SUPPORTED[0]} to {SUPPORTED[-1]} that starts")
    return found


def check_sources(tools: Environment, report: Report) -> bool:
    """Whether style and types are in order; all three steps run in any case."""
    ruff = [tools.python, "-m", "ruff"]
    cache = f"--cache-dir={WORK / 'ruff'}"
    is_linted = report.check("lint", [*ruff, "check", cache, *SOURCES], 120)
    is_formatted = report.check("format", [*ruff, "format", "--check", cache, *SOURCES], 120)
    has_types = report.check("types", [tools.python, "-m", "mypy", f"--cache-dir={WORK / 'mypy'}"], 600)
    return is_linted and is_formatted and has_types


def provide_programs(report: Report) -> None:
    """What others have written and tests use."""
    provide(report, "nats", "nats-server", "tests.nats.server_program", "CC_SLURM_ADAPTER_NATS_SERVER")
    provide(report, "prometheus", "promtool", "tests.prometheus.programs", "CC_SLURM_ADAPTER_PROMTOOL")
    provide(report, "mandoc", "mandoc", "tests.project.other_programs", "CC_SLURM_ADAPTER_MANDOC")
    provide(report, "zsh", "zsh", "tests.project.other_programs", "CC_SLURM_ADAPTER_ZSH")
    provide(report, "rpm", "rpm", "tests.packages.rpm_program", "CC_SLURM_ADAPTER_RPM")


def provide(report: Report, part: str, program: str, module: str, variable: str) -> None:
    """A program for the tests, fetched if need be; without one they skip what needs it, and it is said here."""
    if not report.wants(part):
        os.environ[variable] = "none"
        return
    code = report.run(program, [sys.executable, "-m", module, program], 300)
    said = text_of(log_of(program)).rpartition("\n")[2]
    print(f"  {said}", flush=True)
    os.environ[variable] = said if code == 0 else "none"
    if code != 0:
        report.could_not_run(part, f"no {program} for the tests: {said}")


def test_built_file(tools: Environment, report: Report) -> None:
    arguments = ["-m", f"built and not {' and not '.join(OTHER_PROGRAMS)}", "--ignore=tests/lab", "tests"]
    steps = {
        f"tests of the built file, part {part} of {SHARDS}": [tools.python, f"--shard={part}/{SHARDS}", *arguments]
        for part in range(1, SHARDS + 1)
    }
    report.pytest_side_by_side(steps, 2400)
    for minor in SUPPORTED:
        if f"python{minor}" not in report.excepted and not find_interpreter(minor):
            report.could_not_run(f"python{minor}", f"no Python {minor} for the built file")


def test_on_slurm(tools: Environment, report: Report) -> None:
    if not report.wants("slurm"):
        return
    places = {release: f"tests on Slurm {release}" for release in RELEASES}
    places.update({debian: f"tests under {systemd}" for debian, systemd in BOOTED.items()})
    slurm = [tools.python, "-m", "slurm", "tests/lab"]
    steps = {step: [*slurm, f"--only={place}"] for place, step in places.items()}
    passed = report.pytest_side_by_side(steps, 2400)
    if not passed:
        report.could_not_run("slurm", "no test on a real Slurm passed")


def test_with_other_programs(tools: Environment, report: Report) -> None:
    """A real Prometheus scrapes, and a real browser opens pages; where such a program is missing, its tests fail."""
    wanted = [mark for mark in OTHER_PROGRAMS if report.wants(mark)]
    steps = {OTHER_PROGRAMS[mark]: [tools.python, "-m", mark, f"tests/{mark}", "tests/built"] for mark in wanted}
    report.pytest_side_by_side(steps, 1800)


def test_endurance(tools: Environment, report: Report, minutes: float) -> None:
    """The soak test for so long, and the attack for a minute; says what they have measured."""
    if not report.wants("soak"):
        return
    os.environ["CC_SLURM_ADAPTER_SOAK_MINUTES"] = str(minutes)
    os.environ["CC_SLURM_ADAPTER_ATTACK_SECONDS"] = "60"
    step = f"soak test, {minutes:g} minutes"
    # Beside the load it waits until all is reported; a slow machine takes longer for so many jobs.
    passed = report.pytest(step, tools.python, ["-m", "built", *ENDURANCE], minutes * 180 + 900)
    if passed:
        print(text_of(log_of(step)), flush=True)


def test_beside_busy_processes(tools: Environment, report: Report) -> None:
    """No test depends on how fast the machine is: all pass again and again while others take its time."""
    if not report.wants("busy"):
        return
    with contextlib.ExitStack() as until_the_end:
        for number in range(BUSY):
            spin = [sys.executable, "-I", "-S", "-c", "while True: pass"]
            until_the_end.enter_context(started(spin, log_of(f"busy {number}")))
        for number in range(1, BUSY_RUNS + 1):
            report.pytest(f"unit tests, busy machine, run {number}", tools.python, UNIT_TESTS, 1800)


# --- the commands


def make_dist(*, with_packages: bool) -> int:
    """Builds, and says what was made; the exit code."""
    build(with_packages=with_packages)
    others = ", ".join([SBOM.name, *(path.name for path in packages_in(ADAPTER.parent))])
    print(f"made {ADAPTER.relative_to(ROOT)} ({ADAPTER.stat().st_size // 1024} KB), {others} and {SUMS.name}")
    return 0


def demo(arguments: list[str]) -> int:
    """Builds the file and shows it at work; Ctrl-C ends it. The exit code."""
    build()
    limit = None if "--slurm" in arguments else 600
    return run_module("examples.practice.demo", ["--adapter", str(ADAPTER), *arguments], limit)


def bench(arguments: list[str]) -> int:
    """Builds the file and measures what it costs; Ctrl-C ends it. The exit code."""
    if not {"-h", "--help"} & set(arguments):
        build()
    return run_module("tests.bench", ["--adapter", str(ADAPTER), *arguments], 7200, ["run", "build"])


def release() -> int:
    """Checks what a release needs, and builds all of dist/ twice; the exit code."""
    return run_module("packages.release", [], 3600)


def run_module(module: str, arguments: list[str], limit: float | None, needs: Sequence[str] = ("build",)) -> int:
    """A program of ours that speaks to the terminal; it ends by itself, after `limit` seconds or with Ctrl-C."""
    tools = environment(running(), list(needs))
    command = [tools.python, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=surroundings()) as process:
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait(60)
        except KeyboardInterrupt:  # it got that as well and tidies up
            return process.wait(60)


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="make dist/cc-slurm-adapter")
    commands.add_parser("package", help="build, and make the .deb and the .rpm of it; all is in dist/")
    commands.add_parser("release", help="check version, changes, documents and checkout, and build all of dist/ twice")
    commands.add_parser("check", help="check style and types alone: seconds where little has changed")
    commands.add_parser("lock", help="renew locks/: the version and the hashes of every package that is installed")
    tests = commands.add_parser("test", help="check style and types, build, run all tests; pytest's arguments after --")
    tests.add_argument("--slurm", action="store_true", help="also on real Slurms in chroots; needs root")
    tests.add_argument(
        "--fast", action="store_true", help="only style, types and the unit tests under this Python: the daily loop"
    )
    tests.add_argument(
        "--soak",
        metavar="MINUTES",
        type=float,
        default=0.0,
        help="also jobs and faults of all kinds for so long; with 10 minutes or more at least 20,000 jobs",
    )
    tests.add_argument(
        "--python",
        metavar="PATH",
        nargs="+",
        action="extend",
        default=[],
        help=f"run the unit tests under these too, not under the Python {' and '.join(UNIT_TESTED)} found here",
    )
    tests.add_argument(
        "--all",
        action="store_true",
        help=f"all there is: --slurm, --soak {LONG_SOAK:g}, a real Prometheus and a real browser, the unit tests under"
        f" every Python, and {BUSY_RUNS} times beside busy processes; some hours",
    )
    tests.add_argument(
        "--without",
        metavar="NAME",
        nargs="+",
        action="extend",
        choices=PARTS,
        default=[],
        help="leave out a part that cannot run here, which is a failure with --slurm and --all: %(choices)s",
    )
    commands.add_parser(
        "demo", add_help=False, help="build, then show it at work; --slurm and other options are the demo's"
    )
    commands.add_parser(
        "bench", add_help=False, help="build, then measure what it costs; --slurm, --against and others are its own"
    )
    return parser


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = command_line()
    options, others = parser.parse_known_args(arguments[:split])
    if others and options.command not in ("demo", "bench"):
        parser.error(f"unknown: {' '.join(others)}")
    if arguments[split:] and options.command != "test":
        parser.error("only test takes arguments after --")
    if options.command == "test" and options.fast and (options.slurm or options.all or options.soak or options.python):
        parser.error("--fast goes with none of --slurm, --soak, --python and --all")
    commands: dict[str, Callable[[], int]] = {
        "build": lambda: make_dist(with_packages=False),
        "package": lambda: make_dist(with_packages=True),
        "release": release,
        "check": check,
        "lock": renew_locks,
        "test": lambda: test(options, arguments[split + 1 :]),
        "demo": lambda: demo(others),
        "bench": lambda: bench(others),
    }
    return commands[options.command]()


if __name__ == "__main__":
    if sys.version_info < (3, 9):  # noqa: UP036 - so that people get a clear line
        sys.exit("build.py needs Python 3.9 or newer")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing that was started is left
    try:
        sys.exit(main(sys.argv[1:]))
    except BuildError as problem:
        sys.exit(f"build.py: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)

"""What is in the built file, and that it starts anywhere, as any user, under every Python."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import build
from cc_slurm_adapter import __version__
from cc_slurm_adapter.cli.version import bundled
from tests.built.installed import JOB, call

SUPPORTED = [found for found in map(build.find_interpreter, build.SUPPORTED) if found]
TOO_OLD = [found for found in map(build.find_interpreter, ("3.6", "3.7", "3.8")) if found]
VERSION_LINE = f"cc-slurm-adapter {__version__}"


# --- what is in it


SHIPPED = {"cc-slurm-adapter", "cc-slurm-adapter.cdx.json"}
PACKAGES = {f"cc-slurm-adapter_{__version__}_all.deb", f"cc-slurm-adapter-{__version__}-1.noarch.rpm"}


def test_reproducible(adapter: Path, tmp_path: Path) -> None:
    """Another folder, umask, locale and time zone give the same bytes."""
    first = built_in(copy_sources(tmp_path / "first"), 0o077, {"LC_ALL": "C", "TZ": "UTC"})
    second = built_in(copy_sources(tmp_path / "a second one"), 0o002, {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"})
    assert first == second
    assert set(first) == {*SHIPPED, *PACKAGES, "SHA256SUMS"}
    assert first[adapter.name] == adapter.read_bytes()
    check_sums(tmp_path / "first" / "dist")
    built_in(tmp_path / "first", 0o077, {}, "build")  # another build may have another file in its packages
    assert {path.name for path in (tmp_path / "first" / "dist").iterdir()} == {*SHIPPED, "SHA256SUMS"}
    check_sums(tmp_path / "first" / "dist")


def copy_sources(folder: Path) -> Path:
    """A folder with a copy of the sources. The environments of this checkout are used."""
    folder.mkdir()
    (folder / ".build").symlink_to(build.WORK)
    for name in ("build.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"):
        shutil.copyfile(build.ROOT / name, folder / name)
    for name in (build.PACKAGE.name, build.LOCKS.name, "docs", "packages"):
        shutil.copytree(build.ROOT / name, folder / name, copy_function=shutil.copyfile)
    shutil.copytree(build.ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("practice"))
    return folder


def built_in(folder: Path, umask: int, settings: dict[str, str], what: str = "package") -> dict[str, bytes]:
    """All files in dist/, built there."""
    command = ["/bin/sh", "-c", f'umask {umask:o}; exec "$@"', "sh", sys.executable, "build.py", what]
    settings = {**os.environ, **settings}
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (folder / "dist").iterdir()}


def test_sums_are_those_of_all_that_lies_beside_them(adapter: Path) -> None:
    check_sums(adapter.parent)


def check_sums(folder: Path) -> None:
    """Of all that was made, the packages too if they were."""
    lines = (folder / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    made = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "SHA256SUMS"}
    assert set(sums) - PACKAGES == SHIPPED
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}


def test_sbom_names_what_is_bundled_with_the_hashes_of_the_lock(adapter: Path) -> None:
    sbom = json.loads(adapter.with_name("cc-slurm-adapter.cdx.json").read_text(encoding="utf-8"))
    with zipfile.ZipFile(adapter) as archive:
        own, *others = json.loads(archive.read("site-packages/cc_slurm_adapter/bundled.json"))
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["version"]) == ("CycloneDX", own["version"])
    found = {each["name"]: (each["version"], each["purl"]) for each in sbom["components"]}
    assert found == {each["name"]: (each["version"], f"pkg:pypi/{each['name']}@{each['version']}") for each in others}
    hashes = {each["content"] for part in sbom["components"] for each in part["externalReferences"][0]["hashes"]}
    assert hashes == set(re.findall(r"sha256:([0-9a-f]{64})", build.lock_of(["run"]).read_text(encoding="ascii")))


def test_wheel_that_was_changed_after_it_was_fetched_is_not_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = build.environment(build.running(), ["build"])
    changed = tmp_path / "wheels"
    shutil.copytree(build.wheels(tools), changed)
    (wheel,) = changed.glob("nats_py-*.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("nats/aio/more.py", "print('not nats-py')")
    monkeypatch.setattr(build, "wheels", lambda _tools: changed)
    with pytest.raises(build.BuildError, match=r"(?s)shiv could not lay out the file.*HASHES"):
        build.lay_out(tools, tmp_path / "parts")


def test_a_script_that_all_may_run(adapter: Path) -> None:
    assert stat.S_IMODE(adapter.stat().st_mode) == 0o755
    assert adapter.read_bytes().startswith(b"#!/bin/sh\n")
    assert adapter.stat().st_size < 3_000_000


def test_nothing_but_python_and_its_papers(adapter: Path) -> None:
    with zipfile.ZipFile(adapter) as archive:
        names = archive.namelist()
        sources = {name: archive.read(name) for name in names if name.endswith(".py")}
    examples = {f"site-packages/examples/{name}" for name in build.EXAMPLES_SHIPPED}
    papers = [name for name in names if name not in sources and name not in examples]
    assert [name for name in papers if not re.search(r"(METADATA|LICENSE.*|\.typed|bundled\.json|\.txt)$", name)] == []
    assert "site-packages/cc_slurm_adapter/errors.py" in sources
    assert "site-packages/nats/aio/client.py" in sources
    for name, source in sources.items():
        ast.parse(source, name, feature_version=(3, 9))


def test_every_bundled_package_comes_with_its_licence(adapter: Path) -> None:
    with zipfile.ZipFile(adapter) as archive:
        names = archive.namelist()
    packages = {name.split("/")[1] for name in names if ".dist-info/" in name}
    assert packages != set()
    assert packages == {name.split("/")[1] for name in names if re.search(r"\.dist-info/.*LICENSE", name)}
    assert "LICENSE" in names


def test_manifest_names_every_part(adapter: Path) -> None:
    with zipfile.ZipFile(adapter) as archive:
        manifest = json.loads(archive.read("site-packages/cc_slurm_adapter/bundled.json"))
        own, *others = manifest
        packages = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    assert own == {"name": "cc-slurm-adapter", "version": __version__, "licence": "MIT"}
    assert {"name": "nats-py", "version": pinned_version("nats-py"), "licence": "Apache-2.0"} in others
    assert len(others) == len(packages)


def pinned_version(name: str) -> str:
    found = re.search(rf'"{name}==([0-9.]+)"', (build.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found
    return found[1]


def test_a_checkout_bundles_nothing() -> None:
    assert bundled() == []


PURE_WHEEL = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("site-packages/x/fast.cpython-311-x86_64-linux-gnu.so", b"", "is compiled"),
        ("site-packages/x.libs/libz.so.1", b"", "is compiled"),
        ("site-packages/x/fast.pyd", b"", "is compiled"),
        ("site-packages/x/fast.py", b"\x7fELF\x02\x01", "is compiled"),
        ("site-packages/x/program", b"", "is no Python source"),
        ("site-packages/x/notes.md", b"", "is no Python source"),
        ("site-packages/x/old.pyc", b"", "is no Python source"),
        ("site-packages/x-1.dist-info/WHEEL", b"Tag: cp311-cp311-manylinux_2_17_x86_64\n", "cp311-cp311-manylinux"),
        ("site-packages/x-1.dist-info/WHEEL", b"Tag: py3-none-any\nTag: py3-none-linux_x86_64\n", "py3-none-linux"),
        ("site-packages/x-1.dist-info/WHEEL", b"Tag: py2-none-any\n", "py2-none-any"),
    ],
)
def test_what_is_not_pure_python_fails_the_build(name: str, content: bytes, problem: str) -> None:
    parts = {"site-packages/y/__init__.py": b"", "site-packages/y-1.dist-info/WHEEL": PURE_WHEEL, name: content}
    with pytest.raises(build.BuildError) as failure:
        build.check_pure(parts)
    assert name in str(failure.value)
    assert problem in str(failure.value)


def test_only_sources_of_the_own_package_are_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "cc_slurm_adapter"
    for name in (
        "a.py",
        "sub/b.py",
        "notes.txt",
        "a.py~",
        ".#a.py",
        ".a.py.swp",
        "#a.py#",
        "program",
        "__pycache__/a.pyc",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.setattr(build, "PACKAGE", package)
    build.copy_sources(tmp_path / "own")
    copied = [str(path.relative_to(tmp_path / "own")) for path in (tmp_path / "own").rglob("*") if path.is_file()]
    assert sorted(copied) == ["a.py", "sub/b.py"]


def test_pure_wheels_pass() -> None:
    universal = b"Tag: py2-none-any\nTag: py3-none-any\n"
    build.check_pure({"site-packages/y-1.dist-info/WHEEL": PURE_WHEEL, "site-packages/z-1.dist-info/WHEEL": universal})


def test_what_is_only_for_pip_or_for_tests_is_left_out() -> None:
    kept = ["x/__init__.py", "x/py.typed", "x-1.dist-info/METADATA", "x-1.dist-info/licenses/LICENSE"]
    dropped = ["bin/x", "x/tests/test_x.py", "x-1.dist-info/RECORD", "x-1.dist-info/INSTALLER", "x-1.dist-info/WHEEL"]
    parts = {f"site-packages/{name}": b"" for name in kept + dropped}
    assert sorted(build.shipped(parts)) == sorted(f"site-packages/{name}" for name in kept)


# --- that it starts


@pytest.mark.parametrize("python", SUPPORTED, ids=str)
def test_every_python_starts_it(python: build.Interpreter, copy: Path) -> None:
    done = call([copy, "-version"], {"CC_SLURM_ADAPTER_PYTHON": python.path})
    assert (done.returncode, done.stderr) == (0, "")
    assert VERSION_LINE in done.stdout
    assert re.search(rf"nats-py\D+{re.escape(pinned_version('nats-py'))}", done.stdout)


@pytest.mark.parametrize("python", SUPPORTED, ids=str)
def test_every_python_imports_all_that_is_bundled(python: build.Interpreter, copy: Path) -> None:
    """nats-py pulls in asyncio and ssl: all of it has to come from the archive and the standard library."""
    load = "import sys; sys.path.insert(0, sys.argv[1]); import nats.aio.client as client; print(client.__file__)"
    done = call([python.path, "-I", "-S", "-B", "-c", load, copy / "site-packages"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(copy / "site-packages/nats/aio/client.py")


@pytest.mark.parametrize("python", SUPPORTED, ids=str)
def test_hook_through_every_python_exits_zero_within_a_second(
    python: build.Interpreter, copy: Path, hook_config: Path
) -> None:
    settings = {**JOB, "CC_SLURM_ADAPTER_PYTHON": python.path}
    began = time.monotonic()
    done = call([copy, "-config", hook_config], settings)
    assert time.monotonic() - began < 1
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("python", TOO_OLD, ids=str)
def test_a_real_old_python_is_passed_over(python: build.Interpreter, copy: Path, hook_config: Path) -> None:
    for arguments in (["-version"], ["-config", str(hook_config)]):
        done = call([copy, *arguments], {**JOB, "CC_SLURM_ADAPTER_PYTHON": python.path})
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("python", TOO_OLD, ids=str)
def test_handed_to_an_old_python_it_says_what_it_needs(python: build.Interpreter, copy: Path) -> None:
    done = call([python.path, copy, "-version"])
    assert done.returncode == 1
    assert done.stderr == "cc-slurm-adapter needs Python 3.9 or newer: run the file itself, it looks for one\n"


def test_handed_to_python_it_runs(copy: Path) -> None:
    done = call([sys.executable, copy.name, "-version"], cwd=copy.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert VERSION_LINE in done.stdout


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"HOME": "/no/such/home"},
        {"HOME": "/proc"},
        {"LC_ALL": "C"},
        {"PYTHONPATH": "/x", "PYTHONHOME": "/x", "PYTHONSTARTUP": "/x", "PYTHONWARNINGS": "error"},
    ],
    ids=["no HOME", "missing HOME", "HOME not writable", "C locale", "odd Python settings"],
)
def test_starts_in_any_environment(settings: dict[str, str], copy: Path) -> None:
    done = call([copy, "-version"], settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert VERSION_LINE in done.stdout


def test_another_user_in_a_folder_that_cannot_be_written(copy: Path, other_user: int) -> None:
    copy.parent.chmod(0o555)
    done = call([copy, "-version"], {"HOME": str(copy.parent)}, cwd=copy.parent, user=other_user)
    assert (done.returncode, done.stderr) == (0, "")
    assert VERSION_LINE in done.stdout


@pytest.mark.parametrize("configured", [False, True], ids=["bare", "configured"])
def test_hooks_while_the_file_is_replaced(
    configured: bool, adapter: Path, copy: Path, events: Path, hook_config: Path
) -> None:
    """As docs/install.md has it: copied to another name, then moved over the one that Slurm calls."""
    replace = 'while [ ! -e "$2.stop" ]; do install -m 0755 "$1" "$2.new"; mv -f "$2.new" "$2"; done'
    hook = [str(copy), "-config", str(hook_config)] if configured else [str(copy)]
    with subprocess.Popen(["/bin/sh", "-c", replace, "sh", adapter, copy]) as replacing:
        calls = [call(hook, {**JOB, "CC_SLURM_ADAPTER_EVENTS": str(events)}) for _ in range(60)]
        copy.with_name(f"{copy.name}.stop").touch()
        assert replacing.wait(30) == 0
    assert {(done.returncode, done.stdout, done.stderr) for done in calls} == {(0, "", "")}
    assert len(list(events.iterdir())) == (0 if configured else 60)


def test_nothing_is_written(copy: Path, tmp_path: Path, hook_config: Path) -> None:
    """Neither in the home folder, nor in the temporary one, nor beside the file."""
    settings = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    call([copy, "-version"], settings, cwd=tmp_path)
    call([copy, "-config", hook_config], {**settings, **JOB}, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert list(copy.parent.iterdir()) == [copy]


def test_eight_first_starts_at_once(copy: Path) -> None:
    starts = [subprocess.Popen([copy, "-version"], env={}, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    answers = [start.communicate(timeout=30)[0] for start in starts]
    assert [start.returncode for start in starts] == [0] * 8
    assert len(set(answers)) == 1
    assert VERSION_LINE in answers[0]


def test_through_a_link_and_from_a_folder_with_spaces(copy: Path) -> None:
    folder = copy.parent / "a folder with spaces"
    folder.mkdir()
    link = folder / "a link"
    link.symlink_to(copy.rename(folder / "the file"))
    for command in ([link], ["./" + link.name], ["/bin/sh", link.name]):
        done = call([*command, "-version"], cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert VERSION_LINE in done.stdout


def test_damaged_file_fails_loudly_but_not_as_a_hook(alone: Path) -> None:
    content = alone.read_bytes()
    alone.write_bytes(content[: len(content) // 2])
    settings = {**JOB, "CC_SLURM_ADAPTER_PYTHON": sys.executable}
    done = call([alone, "-version"], settings)
    assert done.returncode != 0
    assert done.stderr != ""
    assert call([alone, "-debug", "0"], settings).returncode == 0


def test_help_needs_no_configuration(copy: Path) -> None:
    done = call([copy, "-help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "-daemon" in done.stdout


def test_the_status_of_a_daemon_that_does_not_run(copy: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"pidFilePath": f"{tmp_path}/daemon.pid", "lastRunPath": f"{tmp_path}/lastrun"}))
    done = call([copy, "-status", "-config", config])
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("the daemon does not run: ")
    assert os.listdir(tmp_path) == ["config.json"]


def test_topology_needs_the_file_and_python_alone(copy: Path, tmp_path: Path) -> None:
    """No configuration, no Slurm, no rights; inside of a job, as with srun."""
    environment = {"PATH": str(tmp_path), "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "node07"}
    done = subprocess.run(
        [copy, "--topology", "-json"], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["hostname"], done.stderr) == ("node07", "")
    assert (done.returncode, told["checked"]) == (1, False)


def test_what_is_missing_is_printed_by_the_file_alone(copy: Path, tmp_path: Path) -> None:
    """No configuration, no Slurm, no rights. The unit is the one that sites install."""
    config = tmp_path / "etc" / "config.json"
    done = subprocess.run(
        [copy, "-install", "-config", config], env={"PATH": str(tmp_path)}, capture_output=True, text=True,
        timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"install -m 0755 {copy} /usr/local/sbin/cc-slurm-adapter.new\n" in done.stdout
    assert f"# 2. configuration: {config} is missing\n" in done.stdout
    hooks = (build.ROOT / "examples/slurm.conf.hooks").read_text(encoding="utf-8").splitlines()
    active = [line for line in hooks if line and not line.startswith("#")]
    assert "\n".join(["", *active, ""]) in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_examples_that_are_printed_are_those_of_the_checkout(adapter: Path) -> None:
    with zipfile.ZipFile(adapter) as archive:
        for name in build.EXAMPLES_SHIPPED:
            assert archive.read(f"site-packages/examples/{name}") == (build.ROOT / "examples" / name).read_bytes()


def test_wrong_arguments_fail_with_one_line(copy: Path) -> None:
    done = call([copy, "-no-such-flag"])
    assert done.returncode != 0
    assert "no-such-flag" in done.stderr
    assert "traceback" not in done.stderr.lower()

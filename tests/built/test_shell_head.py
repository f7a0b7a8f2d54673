"""The shell part: bare hooks without Python, the search for a Python, exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

import build
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH, DEFAULT_SOCKET_PATH
from cc_slurm_adapter.system import own_files
from examples.practice.programs import write_program
from tests.built.installed import JOB, StandIn, call

SHELLS = [
    command for command in (["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(command[0])
]


def environment(python: StandIn, events: Path, **more: str) -> dict[str, str]:
    return {**JOB, "CC_SLURM_ADAPTER_EVENTS": str(events), "CC_SLURM_ADAPTER_PYTHON": str(python.path), **more}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the bare hook


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_bare_hook_leaves_one_empty_file(shell: list[str], alone: Path, python: StandIn, events: Path) -> None:
    done = call([shutil.which(shell[0]), *shell[1:], alone], environment(python, events))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (event,) = events.iterdir()
    assert re.fullmatch(r"123\.prolog_slurmctld\.lab\.[0-9]+", event.name)
    assert event.stat().st_size == 0
    assert python.call == []


def test_event_ends_with_the_process_id(alone: Path, python: StandIn, events: Path) -> None:
    with subprocess.Popen([alone], env=environment(python, events)) as hook:
        assert hook.wait(20) == 0
    assert names(events) == [f"123.prolog_slurmctld.lab.{hook.pid}"]


def test_bare_hook_starts_no_other_program(alone: Path, python: StandIn, events: Path) -> None:
    folder = alone.parent / "bin"
    folder.mkdir()
    for name in ("true", "touch", "printf", "[", "command", "logger", "python3"):
        StandIn(folder / name)
    call([alone], environment(python, events, PATH=str(folder)))
    assert len(names(events)) == 1
    assert [name for name in names(folder) if name.endswith(".call")] == []


def test_what_slurm_did_not_set_stays_empty(alone: Path, python: StandIn, events: Path) -> None:
    settings = environment(python, events)
    del settings["SLURM_SCRIPT_CONTEXT"], settings["SLURM_CLUSTER_NAME"]
    call([alone], settings)
    (event,) = names(events)
    assert re.fullmatch(r"123\.\.\.[0-9]+", event)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    "job_id",
    [
        "",
        " ",
        "12 3",
        "../../etc/x",
        "/x",
        "1;touch x",
        "$(touch x)",
        "`touch x`",
        "1\n2",
        "1\n",
        "*",
        "-1",
        "0x1",
        "\u0661",
        "9" * 21,
    ],
)
def test_odd_job_id_is_left_to_python(
    job_id: str, shell: list[str], alone: Path, python: StandIn, events: Path
) -> None:
    before = names(events.parent)
    settings = environment(python, events, SLURM_JOB_ID=job_id)
    done = call([shutil.which(shell[0]), *shell[1:], alone], settings, cwd=events)
    assert done.returncode == 0
    assert names(events) == []
    assert names(events.parent) == sorted([*before, "python.call"])


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    "cluster", ["../x", "a/b", "a.b", "a b", "a\nb", "a;touch x", "$(touch x)", "ä", "*", "c" * 250]
)
def test_event_of_an_oddly_named_cluster_is_left_to_python(
    cluster: str, shell: list[str], alone: Path, python: StandIn, events: Path
) -> None:
    settings = environment(python, events, SLURM_CLUSTER_NAME=cluster)
    done = call([shutil.which(shell[0]), *shell[1:], alone], settings, cwd=events)
    assert done.returncode == 0
    assert names(events) == []
    assert python.call != []


@pytest.mark.parametrize("context", ["../x", "a.b", "PROLOG", "a b", "a\nb", "$(touch x)", "prolog2", "é"])
def test_odd_context_is_left_out(context: str, alone: Path, python: StandIn, events: Path) -> None:
    call([alone], environment(python, events, SLURM_SCRIPT_CONTEXT=context), cwd=events)
    (event,) = names(events)
    assert re.fullmatch(r"123\.\.lab\.[0-9]+", event)


def test_twenty_digits_and_every_allowed_character_are_kept(alone: Path, python: StandIn, events: Path) -> None:
    settings = environment(python, events, SLURM_JOB_ID="9" * 20, SLURM_CLUSTER_NAME="aZ09_-x")
    call([alone], settings)
    (event,) = names(events)
    assert event.startswith("9" * 20 + ".prolog_slurmctld.aZ09_-x.")


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_no_events_folder_leaves_it_to_python(shell: list[str], alone: Path, python: StandIn, public: Path) -> None:
    done = call([shutil.which(shell[0]), *shell[1:], alone], environment(python, public / "missing"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert python.call[1:] == [str(alone)]


def test_events_folder_of_others_leaves_it_to_python(
    alone: Path, python: StandIn, events: Path, other_user: int
) -> None:
    events.chmod(0o555)
    alone.parent.chmod(0o777)
    done = call([alone], environment(python, events), user=other_user)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(events) == []
    assert python.call[1:] == [str(alone)]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_planted_link_is_not_followed(shell: list[str], alone: Path, python: StandIn, events: Path) -> None:
    precious = events.parent / "precious"
    precious.write_text("kept")
    plant = f'ln -s "{precious}" "{events}/123.prolog_slurmctld.lab.$$"; exec "$@"'
    command = ["/bin/sh", "-c", plant, "sh", shutil.which(shell[0]), *shell[1:], alone]
    done = call(command, environment(python, events, PATH="/usr/bin:/bin"))
    assert done.returncode == 0
    assert precious.read_text() == "kept"
    assert python.call != []


# --- while no daemon takes events


def mark(events: Path, seconds: float, cluster: str = "lab") -> None:
    """As the daemon does it every minute; the test plays with the times in place of waiting."""
    own_files.mark_open(str(events), f".{cluster}.open", seconds)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_after_a_quarter_of_an_hour_without_a_daemon_nothing_more_is_left(
    shell: list[str], alone: Path, python: StandIn, events: Path
) -> None:
    """The folder's own time is that of the last event: one event comes after the time in the mark, and no other."""
    command = [str(shutil.which(shell[0])), *shell[1:], str(alone)]
    mark(events, 900)
    for number in range(1, 4):
        assert call(command, environment(python, events, SLURM_JOB_ID=str(number))).returncode == 0
    assert len(names(events)) == 3 + 1
    os.utime(events / ".lab.open", (0, time.time() - 5))
    os.utime(events, (0, time.time() - 10))
    for number in range(4, 10):
        done = call(command, environment(python, events, SLURM_JOB_ID=str(number)))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [name.split(".")[0] for name in names(events)] == ["", "1", "2", "3", "4"]
    assert python.call == []

    mark(events, 900)
    call(command, environment(python, events, SLURM_JOB_ID="10"))
    assert "10" in [name.split(".")[0] for name in names(events)]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_each_cluster_has_a_mark_of_its_own(shell: list[str], alone: Path, python: StandIn, events: Path) -> None:
    """What one leaves moves the folder's time for all of them."""
    command = [str(shutil.which(shell[0])), *shell[1:], str(alone)]
    mark(events, -5, "lab")
    mark(events, 900, "other")
    mark(events, 900, "")
    os.utime(events, (0, time.time() - 10))
    call(command, environment(python, events, SLURM_JOB_ID="1", SLURM_CLUSTER_NAME="other"))
    call(command, environment(python, events, SLURM_JOB_ID="2", SLURM_CLUSTER_NAME="lab"))
    call(command, environment(python, events, SLURM_JOB_ID="3", SLURM_CLUSTER_NAME="other"))
    call(command, environment(python, events, SLURM_JOB_ID="4", SLURM_CLUSTER_NAME=""))
    call(command, environment(python, events, SLURM_JOB_ID="5", SLURM_CLUSTER_NAME="unmarked"))
    assert [name.split(".")[0] for name in names(events) if name[0] != "."] == ["1", "3", "4", "5"]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_daemon_that_cannot_use_the_folder_is_told_over_its_socket(
    shell: list[str], alone: Path, python: StandIn, events: Path
) -> None:
    path = events.parent / "s"
    alone.write_bytes(alone.read_bytes().replace(b"/run/cc-slurm-adapter/daemon.sock", os.fsencode(path)))
    own_files.mark_closed(str(events), ".lab.open")
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        done = call([shutil.which(shell[0]), *shell[1:], alone], environment(python, events))
    assert (done.returncode, done.stderr) == (0, "")
    assert names(events) == [".lab.open"]
    assert python.call[1:] == [str(alone)]


FROZEN = """\
set -e
mkfs.ext4 -q "$2/disk"
mount -o loop "$2/disk" /var
mount -t tmpfs none /run
mkdir -p /var/lib/cc-slurm-adapter/events /run/cc-slurm-adapter/events
fsfreeze --freeze /var
trap 'fsfreeze --unfreeze /var' EXIT
"$1" &
tries=0
while kill -0 $! 2> /dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -0 $! 2> /dev/null || ls /run/cc-slurm-adapter/events
"""
"""Prints the event that the hook has left, if it ended within 10 s: in a mount namespace of its own."""


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "mkfs.ext4", "fsfreeze"))),
    reason="only root can mount and freeze a disk",
)
def test_a_bare_hook_ends_although_the_disk_under_var_is_frozen(copy: Path, public: Path) -> None:
    with (public / "disk").open("wb") as disk:
        disk.truncate(20 << 20)
    settings = {**JOB, "PATH": os.environ["PATH"]}
    done = call(["unshare", "--mount", "sh", "-c", FROZEN, "sh", copy, public], settings)
    if "mount" in done.stderr:
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    assert re.fullmatch(r"123\.prolog_slurmctld\.lab\.[0-9]+\n", done.stdout), done.stderr


def test_a_bare_hook_touches_nothing_but_its_own_file_and_run() -> None:
    """A frozen or hung file system cannot stop it: all of its paths are in memory, and it starts nothing."""
    text = (build.PACKAGE / "hooks" / "head.sh").read_text()
    served = text[text.index("leave_event() {") : text.index("# The trouble of a hook")]
    code = "\n".join(line for line in served.splitlines() if not line.lstrip().startswith("#"))
    assert {path.split("/")[1] for path in re.findall(r"/[a-z][\w/.-]+", code)} == {"run", "dev"}
    assert re.search(r"`|\$\(", code) is None
    assert f":-{DEFAULT_EVENTS_PATH}}}" in code
    assert DEFAULT_SOCKET_PATH in code


# --- which calls are hooks


@pytest.mark.parametrize(
    "arguments",
    [
        ["-config", "/x y"],
        ["--config", "/x"],
        ["-config=/x"],
        ["--config=/x"],
        ["-debug", "5"],
        ["--debug=5"],
        ["-debug", "5", "-config", "/x"],
        ["-config", "-daemon"],
        ["-config"],
    ],
    ids=" ".join,
)
def test_configured_hook_goes_to_python_and_exits_zero(
    arguments: list[str], alone: Path, python: StandIn, events: Path
) -> None:
    failing = StandIn(python.path, code=3)
    done = call([alone, *arguments], environment(failing, events))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert failing.call[1:] == [str(alone), *arguments]
    assert names(events) == []


@pytest.mark.parametrize(
    "arguments",
    [["-daemon"], ["-help"], ["-config", "/x", "-daemon"], ["-status", "-debug", "2"], ["x"], [""], ["-configure"]],
    ids=" ".join,
)
def test_other_calls_within_a_job_are_no_hooks(
    arguments: list[str], alone: Path, python: StandIn, events: Path
) -> None:
    failing = StandIn(python.path, code=3)
    done = call([alone, *arguments], environment(failing, events))
    assert done.returncode == 3
    assert failing.call[1:] == [str(alone), *arguments]


def test_bare_call_without_a_job_is_no_hook(alone: Path, python: StandIn, events: Path) -> None:
    failing = StandIn(python.path, code=3)
    settings = environment(failing, events)
    del settings["SLURM_JOB_ID"]
    assert call([alone], settings).returncode == 3
    assert names(events) == []


def test_arguments_arrive_unchanged(alone: Path, python: StandIn) -> None:
    arguments = ["-config", "/with space/*", "$(touch x)", "", "-daemon", "'\""]
    call([alone, *arguments], {"CC_SLURM_ADAPTER_PYTHON": str(python.path)}, cwd=alone.parent)
    assert python.call[2:] == arguments


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_program_takes_the_place_of_the_shell(shell: list[str], alone: Path, python: StandIn) -> None:
    """A daemon has to be the very process that systemd started and signals."""
    command = [str(shutil.which(shell[0])), *shell[1:], str(alone), "-daemon"]
    with subprocess.Popen(command, env={"CC_SLURM_ADAPTER_PYTHON": str(python.path)}) as daemon:
        assert daemon.wait(20) == 0
    assert python.call == [str(daemon.pid), str(alone), "-daemon"]


# --- which Python


def in_path(folder: Path, **stand_ins: bool) -> dict[str, StandIn]:
    """Stand-ins in a folder for PATH by name; the value tells whether it is too old."""
    named = {name.replace("_", "."): too_old for name, too_old in stand_ins.items()}
    return {name: StandIn(folder / name, too_old=too_old) for name, too_old in named.items()}


@pytest.mark.parametrize("arguments", [["-daemon"], ["-debug", "1"]], ids=["program", "hook"])
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_first_python_that_is_new_enough_wins(
    shell: list[str], arguments: list[str], alone: Path, python: StandIn, public: Path
) -> None:
    old = StandIn(python.path, too_old=True)
    found = in_path(public / "bin", python3=True, python3_11=True, python3_10=False, python3_9=False)
    settings = {**JOB, "CC_SLURM_ADAPTER_PYTHON": str(old.path), "PATH": str(public / "bin")}
    done = call([shutil.which(shell[0]), *shell[1:], alone, *arguments], settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert found["python3.10"].call[1:] == [str(alone), *arguments]
    assert found["python3.9"].call == []


def test_the_newest_in_path_comes_after_plain_python3(alone: Path, public: Path) -> None:
    found = in_path(public / "bin", python3=True, python3_13=False, python3_14=False)
    call([alone, "-daemon"], {"PATH": str(public / "bin")})
    assert found["python3.14"].call != []
    assert found["python3.13"].call == []


def test_named_python_comes_first(alone: Path, python: StandIn, public: Path) -> None:
    found = in_path(public / "bin", python3=False)
    call([alone, "-daemon"], {"CC_SLURM_ADAPTER_PYTHON": str(python.path), "PATH": str(public / "bin")})
    assert python.call != []
    assert found["python3"].call == []


@pytest.mark.parametrize("arguments", [["-daemon"], ["-debug", "1"]], ids=["program", "hook"])
def test_a_python_that_does_not_start_is_passed_over(arguments: list[str], alone: Path, public: Path) -> None:
    broken = write_program(public / "broken", "#!/no/such/interpreter\n")
    found = in_path(public / "bin", python3=False)
    call([alone, *arguments], {**JOB, "CC_SLURM_ADAPTER_PYTHON": str(broken), "PATH": str(public / "bin")})
    assert found["python3"].call[1:] == [str(alone), *arguments]


@pytest.mark.parametrize(("journal", "priority"), [({}, ""), ({"JOURNAL_STREAM": "8:1"}, "<3>")], ids=["", "journal"])
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_no_python_is_one_clear_line(shell: list[str], journal: dict[str, str], priority: str, alone: Path) -> None:
    done = call([shutil.which(shell[0]), *shell[1:], alone, "-daemon"], {"PATH": "/nowhere", **journal})
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{priority}cc-slurm-adapter: no Python 3.9 or newer found")
    assert "CC_SLURM_ADAPTER_PYTHON" in line


LACKING = """\
#!/bin/sh
# A Python without some modules: in front of all else, it forgets that there are any.
[ "$4" = -c ] && code=$5 && shift 5 && set -- -c "{forget}
$code" "$@"
[ "$4" = -X ] && archive=$6 && shift 6 && set -- -c "{forget}
import runpy
sys.argv[0] = '$archive'
sys.path.insert(0, '$archive')
runpy.run_path('$archive', run_name='__main__')" "$@"
exec {python} -I -S -B "$@"
"""


def lacking(path: Path, *modules: str) -> Path:
    """This Python, without these modules."""
    forget = "import sys; sys.modules.update(dict.fromkeys(" + repr(list(modules)) + "))"
    return write_program(path, LACKING.format(forget=forget, python=build.running().path))


@pytest.mark.parametrize("module", ["sqlite3", "ssl"])
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_python_without_what_the_daemon_needs_is_passed_over(
    shell: list[str], module: str, alone: Path, public: Path
) -> None:
    incomplete = lacking(public / "incomplete", module)
    found = in_path(public / "bin", python3=False)
    settings = {"CC_SLURM_ADAPTER_PYTHON": str(incomplete), "PATH": f"{public / 'bin'}"}
    done = call([shutil.which(shell[0]), *shell[1:], alone, "-daemon"], settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert found["python3"].call[1:] == [str(alone), "-daemon"]


@pytest.mark.parametrize("module", ["sqlite3", "ssl"])
def test_where_no_python_has_it_one_line_names_it(module: str, alone: Path, public: Path) -> None:
    config = public / "config.json"
    config.write_text(json.dumps({"ccRestUrl": "http://127.0.0.1:9", "ccRestJwt": "t"}))
    incomplete = lacking(public / "incomplete", module)
    done = call([alone, "-daemon", "-config", config], {"CC_SLURM_ADAPTER_PYTHON": str(incomplete), "PATH": "/nowhere"})
    assert (done.returncode, done.stdout) == (1, "")
    line = done.stderr.splitlines()[-1]
    assert re.fullmatch(rf"cc-slurm-adapter: \S+ lacks the module {module}: .*CC_SLURM_ADAPTER_PYTHON.*", line)
    assert "Traceback" not in done.stderr


def test_what_needs_no_daemon_works_with_such_a_python(alone: Path, public: Path) -> None:
    incomplete = lacking(public / "incomplete", "sqlite3", "ssl")
    done = call([alone, "-settings"], {"CC_SLURM_ADAPTER_PYTHON": str(incomplete), "PATH": "/nowhere"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "prepEventsPath" in done.stdout


@pytest.mark.parametrize("path", [{}, {"PATH": ""}, {"PATH": "/nowhere"}], ids=["unset", "empty", "wrong"])
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_hook_without_python_exits_zero(shell: list[str], path: dict[str, str], alone: Path, public: Path) -> None:
    settings = {**JOB, **path, "CC_SLURM_ADAPTER_EVENTS": str(public / "missing")}
    if not path:
        settings["CC_SLURM_ADAPTER_PYTHON"] = ""
    began = time.monotonic()
    done = call([shutil.which(shell[0]), *shell[1:], alone, "-debug", "0"], settings, cwd=public)
    assert done.returncode == 0
    assert time.monotonic() - began < 1


def test_trouble_of_a_hook_goes_to_syslog(alone: Path, public: Path) -> None:
    (public / "bin").mkdir()
    write_program(
        public / "bin" / "logger",
        f'#!/bin/sh\nfor word do echo "$word"; done > {public}/new; exec /bin/mv {public}/new {public}/syslog\n',
    )
    call([alone, "-debug", "0"], {**JOB, "PATH": f"{public}/bin"})
    limit = time.monotonic() + 5
    while not (public / "syslog").exists():
        assert time.monotonic() < limit
    assert "no Python 3.9 or newer" in (public / "syslog").read_text()


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_logger_that_is_stuck_is_not_waited_for(shell: list[str], alone: Path, public: Path) -> None:
    (public / "bin").mkdir()
    write_program(public / "bin" / "logger", "#!/bin/sh\nexec /bin/sleep 4\n")
    began = time.monotonic()
    done = call([shutil.which(shell[0]), *shell[1:], alone, "-debug", "0"], {**JOB, "PATH": str(public / "bin")})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 1


# --- a hook that finds all kinds of Python


def event_of_hook(adapter: Path, public: Path, settings: dict[str, str], before: list[str], user: int = 0) -> list[str]:
    """What a hook with a configuration of its own leaves as event; it must be silent, quick and exit 0."""
    folder = public / "hooks"
    events = folder / "events"
    events.mkdir(parents=True)
    events.chmod(0o777)
    config = folder / "config.json"
    config.write_text(json.dumps({"prepSockConnectPath": f"{folder}/none.sock", "prepEventsPath": str(events)}))
    began = time.monotonic()
    done = call([*before, adapter, "-config", config], {**JOB, **settings}, user=user)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 1
    return [name.rpartition(".")[0] for name in names(events)]


EVENT = ["123.prolog_slurmctld.lab"]
OF_THE_SYSTEM = build.interpreter("/usr/bin/python3")
UNUSABLE = [found for found in map(build.find_interpreter, ("2.7", "3.6", "3.7", "3.8")) if found]


@pytest.mark.skipif(OF_THE_SYSTEM is None, reason="every user needs to be able to start a Python")
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_hook_when_no_process_can_be_started(shell: list[str], copy: Path, public: Path, other_user: int) -> None:
    before = [str(shutil.which("prlimit")), "--nproc=0:0", str(shutil.which(shell[0])), *shell[1:]]
    assert event_of_hook(copy, public, {}, before, other_user) == EVENT


@pytest.mark.parametrize("python", UNUSABLE, ids=str)
def test_hook_goes_on_after_a_python_that_is_too_old(python: build.Interpreter, alone: Path, public: Path) -> None:
    folder = public / "bin"
    folder.mkdir()
    (folder / "python3.12").symlink_to("/bin/false")
    (folder / "python3.10").symlink_to(build.running().path)
    settings = {"CC_SLURM_ADAPTER_PYTHON": python.path, "PATH": str(folder)}
    assert event_of_hook(alone, public, settings, []) == EVENT


@pytest.mark.parametrize("code", [1, 2, 3, 126, 127])
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_hook_goes_on_after_a_script_that_fails(shell: list[str], code: int, alone: Path, public: Path) -> None:
    failing = StandIn(public / "python", code=code)
    (public / "bin").mkdir()
    (public / "bin" / "python3.10").symlink_to(build.running().path)
    settings = {"CC_SLURM_ADAPTER_PYTHON": str(failing.path), "PATH": str(public / "bin")}
    assert event_of_hook(alone, public, settings, [str(shutil.which(shell[0])), *shell[1:]]) == EVENT
    assert failing.call != []


@pytest.mark.parametrize("part", ["of the first module", "of the last module", "of what no hook loads"])
def test_half_a_file_is_silent_as_a_hook(part: str, alone: Path, public: Path) -> None:
    """It reports the job as soon as all that a hook loads is there, as that comes first."""
    with zipfile.ZipFile(alone) as archive:
        *front, after = archive.infolist()[: len(build.FRONT) + 1]
    kept = {
        "of the first module": front[1].header_offset - 1,
        "of the last module": after.header_offset - 1,
        "of what no hook loads": after.header_offset + 40,
    }
    alone.write_bytes(alone.read_bytes()[: kept[part]])
    expected = EVENT if part == "of what no hook loads" else []
    assert event_of_hook(alone, public, {"CC_SLURM_ADAPTER_PYTHON": build.running().path}, []) == expected


def test_hook_imports_nothing_from_where_it_is_called(alone: Path, public: Path) -> None:
    folder = public / "here"
    folder.mkdir()
    for module in ("os", "json", "socket", "cc_slurm_adapter"):
        (folder / f"{module}.py").write_text(f"open({str(public / 'imported')!r}, 'w')\n")
    settings = {**JOB, "CC_SLURM_ADAPTER_PYTHON": build.running().path, "PYTHONPATH": str(folder)}
    assert call([alone, "-debug", "0"], settings, cwd=folder).returncode == 0
    assert not (public / "imported").exists()


# --- how it is called


@pytest.mark.parametrize("name", ["cc-slurm-adapter", "with space", "*", "-n", "$x;y", "'"])
def test_any_name_and_folder(name: str, alone: Path, python: StandIn, public: Path) -> None:
    folder = public / "a folder; $(touch x) *"
    folder.mkdir()
    moved = alone.rename(folder / name)
    call([moved, "-daemon"], {"CC_SLURM_ADAPTER_PYTHON": str(python.path)})
    assert python.call[1:] == [str(moved), "-daemon"]


def test_relative_path_is_made_absolute(alone: Path, python: StandIn) -> None:
    settings = {"CC_SLURM_ADAPTER_PYTHON": str(python.path)}
    call(["./" + alone.name, "-daemon"], settings, cwd=alone.parent)
    assert Path(python.call[1]).is_absolute()
    assert Path(python.call[1]).samefile(alone)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_handed_to_a_shell_by_its_bare_name(shell: list[str], alone: Path, python: StandIn) -> None:
    settings = {"CC_SLURM_ADAPTER_PYTHON": str(python.path)}
    call([shutil.which(shell[0]), *shell[1:], alone.name, "-daemon"], settings, cwd=alone.parent)
    assert Path(python.call[1]).is_absolute()
    assert Path(python.call[1]).samefile(alone)


def test_found_in_path(alone: Path, python: StandIn) -> None:
    settings = {"CC_SLURM_ADAPTER_PYTHON": str(python.path), "PATH": str(alone.parent)}
    call(["/bin/sh", "-c", "cc-slurm-adapter -daemon"], settings)
    assert python.call[1:] == [str(alone), "-daemon"]

"""Where effects may happen, which way the imports go, and how large a module may grow."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import build

PACKAGE = Path(__file__).parents[2] / "cc_slurm_adapter"
TESTS = PACKAGE.with_name("tests")
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Each effect has its named modules. `socket` also serves to wake a selector and to name address families; `_socket`,
# which loads faster, is what a hook has of it.
EFFECTS = {
    "subprocess": {"slurm.commands"},
    "sqlite3": {
        "outbox.admin",
        "outbox.dropped_runs",
        "outbox.foreign_state",
        "outbox.offline",
        "outbox.job_rows",
        "outbox.outbox",
        "outbox.deliveries",
        "outbox.text_limit",
        "outbox.rerouting",
        "outbox.resends",
        "outbox.parking",
        "outbox.database",
        "outbox.memory",
        "outbox.state_file",
        "outbox.migration",
        "outbox.queue_watch",
        "outbox.stored_messages",
        "outbox.withdrawals",
    },
    "http.client": set(),
    "ssl": {"sinks.http_errors", "sinks.http_route", "sinks.nats.client"},
    "socket": {
        "cli.control_client",
        "sinks.http_client",
        "sinks.http_errors",
        "sinks.http_response",
        "sinks.http_route",
        "sinks.nats.loop",
        "hooks.server",
        "hooks.listener",
        "hooks.intake",
        "daemon.systemd",
        "daemon.http_server",
        "hooks.acceptor",
        "daemon.status_thread",
    },
    "_socket": {"config.address", "hooks.hook"},
    "signal": {"daemon.daemon", "slurm.commands"},
    "threading": {
        "config.host_pattern",
        "counters",
        "daemon.running_list",
        "hooks.intake",
        "log",
        "outbox.answered",
        "outbox.database",
        "outbox.event_latency",
        "outbox.late_runs",
        "outbox.queue_watch",
        "outbox.sender",
        "outbox.sink_health",
        "sinks.nats.loop",
        "sinks.nats.sink",
        "sinks.timeouts",
        "system.grouped_lines",
        "system.outages",
        "system.threads",
    },
    "ctypes": {"hooks.inotify"},
    "multiprocessing": set(),
    "asyncio": {"sinks.nats.client", "sinks.nats.loop"},
    "urllib.request": set(),
}
# What removes a file or folder, replaces one, or changes whose it is and who may use it.
CHANGES = {
    *("unlink", "rmdir", "removedirs", "rmtree", "rename", "renames", "move"),
    *("chmod", "fchmod", "lchmod", "chown", "fchown", "lchown"),
}
ONLY_OF_OS = {"remove", "replace"}
"""Lists and texts have methods of these names too; a path's `replace` has one argument."""
OWNER_OF_CHANGES = "system.own_files"
OTHER_CHANGES = {
    "outbox.state_file": {"replace", "unlink"},  # a damaged state file is set aside, the one before that goes
    "outbox.migration": {"replace", "unlink"},  # the state file in a new format takes the place of the one before
}
MAX_LINES = 600


@functools.cache
def parsed(path: Path) -> ast.AST:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _read_imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; names of a package count as its modules."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, and every name."""
    return frozenset(_read_imports(path))


def short(module: str) -> str:
    return module.removeprefix("cc_slurm_adapter").removeprefix(".")


GRAPH = {
    short(name): {short(found) for found in imports(path) if found in MODULES and found != name} - {""}
    for name, path in MODULES.items()
}


@pytest.mark.parametrize(("effect", "allowed"), EFFECTS.items(), ids=list(EFFECTS))
def test_an_effect_happens_only_in_its_modules(effect: str, allowed: set[str]) -> None:
    found = {short(name) for name, path in MODULES.items() if effect in imports(path)}
    assert found <= allowed


def test_no_header_is_parsed_as_one_of_an_email() -> None:
    """That costs more than the rest of a request, and megabytes in the daemon."""
    assert not [name for name, path in MODULES.items() if any(each.split(".")[0] == "email" for each in imports(path))]


def changes_of_files(tree: ast.AST) -> set[str]:
    """The functions and methods that a file uses and that are among `CHANGES`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            found |= {alias.name for alias in node.names} & (CHANGES | ONLY_OF_OS)
        elif (isinstance(node, ast.Attribute) and node.attr in CHANGES) or (
            isinstance(node, ast.Attribute) and node.attr in ONLY_OF_OS and ast.unparse(node.value) == "os"
        ):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and _replaces_a_path(node):
            found.add("replace")
    return found


def _replaces_a_path(call: ast.Call) -> bool:
    is_replace = isinstance(call.func, ast.Attribute) and call.func.attr == "replace"
    return is_replace and len(call.args) == 1 and not call.keywords


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os; os.remove('x')", {"remove"}),
        ("import os; f = os.replace", {"replace"}),
        ("from os import unlink as u", {"unlink"}),
        ("Path('x').rename('y')", {"rename"}),
        ("Path('x').replace('y')", {"replace"}),
        ("shutil.rmtree('x')", {"rmtree"}),
        ("os.fchmod(3, 0)", {"fchmod"}),
        ("[1].remove(1); 'a'.replace('a', 'b'); moment.replace(tzinfo=None)", set()),
    ],
)
def test_a_change_of_a_file_is_seen(text: str, expected: set[str]) -> None:
    assert changes_of_files(ast.parse(text)) == expected


def test_only_one_module_removes_files_or_changes_their_modes() -> None:
    """It knows what this program has made."""
    found = {short(name): changes_of_files(parsed(path)) for name, path in MODULES.items()}
    others = {name: changes for name, changes in found.items() if changes and name != OWNER_OF_CHANGES}
    assert {name: changes - OTHER_CHANGES.get(name, set()) for name, changes in others.items()} == {
        name: set() for name in others
    }
    assert "unlink" in found[OWNER_OF_CHANGES]


COMMON = {"", "model", "errors", "lines", "log", "counters", "system"}
"""Whoever needs them imports these; they import nothing but each other."""
ROOMS = {
    "cli": {"daemon", "jobs", "outbox", "sinks", "config", "slurm"},
    "daemon": {"jobs", "outbox", "sinks", "hooks", "config", "slurm"},
    "jobs": {"outbox", "sinks", "slurm"},
    "outbox": {"sinks"},
    "hooks": {"config"},
    "sinks": set[str](),
    "slurm": set[str](),
    "config": set[str](),
}
"""Which rooms each of them may import, beside what is common to all."""
DOORS = {("jobs", "slurm"): "slurm.interface", ("jobs", "sinks"): "sinks.base", ("outbox", "sinks"): "sinks.base"}
"""Where only one module of a room may be imported from another."""


def room(module: str) -> str:
    """The first part of a module's name."""
    return module.partition(".")[0]


def test_the_package_is_what_one_screen_can_show() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    files = {"__init__.py", "__main__.py", *(f"{name}.py" for name in COMMON - {"", "system"})}
    assert entries == {*files, *ROOMS, "system"}


def test_imports_go_from_room_to_room_as_the_table_says() -> None:
    for name, found in GRAPH.items():
        if name == "__main__":
            assert {room(each) for each in found} <= {"cli", "hooks", "lines"}
            continue
        allowed = {room(name), *COMMON, *ROOMS.get(room(name), set())}
        assert {room(each) for each in found} <= allowed, name


def test_between_some_rooms_there_is_one_door() -> None:
    for name, found in GRAPH.items():
        for (inner, outer), door in DOORS.items():
            if room(name) == inner:
                assert {each for each in found if room(each) == outer} <= {door}, name


CHOSEN = {
    "slurm.client": {"daemon.assembly"},
    "sinks.rest": {"daemon.destinations"},
    "sinks.messages": {"daemon.hosts"},
    "sinks.nats.sink": {"daemon.destinations"},
    "sinks.nats.client": {"daemon.destinations"},
}
"""What the configuration chooses, and which module of another room builds it."""


@pytest.mark.parametrize(("chosen", "builders"), CHOSEN.items(), ids=list(CHOSEN))
def test_what_the_configuration_chooses_is_built_in_one_place(chosen: str, builders: set[str]) -> None:
    found = {name for name, imported in GRAPH.items() if chosen in imported}
    assert {name for name in found if room(name) != room(chosen)} == builders


MOST_METHODS, MOST_ATTRIBUTES = 20, 12
"""Of a class: one that has more is several things."""
LARGER_CLASSES = {
    "outbox.outbox.Outbox",  # what jobs/ may do with the state, a statement or a transaction each; four attributes
}


def attributes(class_: ast.ClassDef) -> set[str]:
    """What its methods set on `self`."""
    return {
        node.attr
        for node in ast.walk(class_)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def methods(class_: ast.ClassDef) -> list[str]:
    return [each.name for each in class_.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_no_class_is_several() -> None:
    larger = {
        f"{short(name)}.{class_.name}"
        for name, path in MODULES.items()
        for class_ in ast.walk(parsed(path))
        if isinstance(class_, ast.ClassDef)
        and (len(methods(class_)) > MOST_METHODS or len(attributes(class_)) > MOST_ATTRIBUTES)
    }
    assert larger == LARGER_CLASSES


def test_what_slurm_prints_is_read_without_a_process() -> None:
    for name, found in GRAPH.items():
        if name.startswith("slurm.parse."):
            others = {each for each in found if room(each) not in COMMON}
            assert all(each.startswith("slurm.parse") for each in others), name


def test_the_light_rooms_import_nothing_heavy_for_a_hook() -> None:
    """What a hook call loads: tests/unit/hooks/test_hook.py measures it, this names the way."""
    assert {room(each) for each in GRAPH["hooks.hook"]} <= {"hooks", "config", "errors", "lines", "system"}


def with_packages(name: str) -> set[str]:
    """A module and the packages that it is in."""
    parts = name.split(".")
    return {".".join(parts[:length]) for length in range(len(parts) + 1)}


def test_the_built_file_begins_with_what_a_hook_may_load() -> None:
    """And with nothing else: whatever is in front is read by each hook call."""
    loaded, added = set[str](), {"hooks.hook"}
    while added:
        loaded |= added
        added = {found for name in added for found in GRAPH[name]} - loaded
    loaded = {package for name in loaded for package in with_packages(name)}
    files = {MODULES[f"cc_slurm_adapter.{name}".rstrip(".")].relative_to(PACKAGE.parent) for name in loaded}
    assert {f"site-packages/{file}" for file in files} == build.FRONT


STARTS_THREADS = {"Thread", "Timer", "start_new_thread", "ThreadPoolExecutor", "run_in_executor", "to_thread"}
MAY_START_THREADS = {("system.threads", "Thread"), ("hooks.hook", "start_new_thread")}
"""The hook's one ends with the process, within a second."""


def test_threads_begin_only_where_they_survive_and_are_watched() -> None:
    found = {
        (short(name), word)
        for name, path in MODULES.items()
        for node in ast.walk(parsed(path))
        for word in [node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""]
        if word in STARTS_THREADS
    }
    assert found == MAY_START_THREADS


def test_only_the_main_thread_feeds_the_watchdog() -> None:
    """Whoever else did so would keep a daemon alive whose main thread is stuck."""
    feeders = {
        short(name) for name, path in MODULES.items() if "cc_slurm_adapter.daemon.systemd.Watchdog" in imports(path)
    }
    assert feeders == {"daemon.daemon"}


NEEDS_A_LIMIT = {"wait", "join", "get", "select", "wait_for", "result", "acquire"}
"""Methods that wait for ever without an argument. Those of texts and tables need one anyway."""
NEEDS_A_TIMEOUT = {
    ("asyncio", "wait"),
    *(("subprocess", name) for name in ("run", "call", "check_call", "check_output")),
    ("", "communicate"),
}
"""With the module where it matters: other arguments are no limit."""
NO_LIMITS = (None, True)
WAITS_FOR_EVER = {
    *(("os", name) for name in ("wait", "wait3", "wait4", "waitid", "waitpid")),
    *(("signal", name) for name in ("pause", "sigwait", "sigwaitinfo")),
}
DOES_NOT_WAIT = {("sinks.nats.client", "task.result()")}
"""A task of asyncio that is done has its result."""


def waits_without_limit(tree: ast.AST) -> Iterator[str]:
    """Calls of methods that may wait for ever, as they are written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not is_limited(node, node.func):
            yield ast.unparse(node)


def is_limited(call: ast.Call, method: ast.Attribute) -> bool:
    owner = method.value.id if isinstance(method.value, ast.Name) else ""
    limits = [word.value for word in call.keywords if word.arg in ("timeout", "blocking")]
    if not {(owner, method.attr), ("", method.attr)} & NEEDS_A_TIMEOUT:
        limits += call.args
    elif not limits:
        return False
    if method.attr in ("flock", "lockf"):
        return any(word in ast.unparse(call) for word in ("LOCK_NB", "LOCK_UN"))
    is_real = any(
        not isinstance(each, ast.Constant) or not any(each.value is no for no in NO_LIMITS) for each in limits
    )
    return (is_real or method.attr not in NEEDS_A_LIMIT) and (owner, method.attr) not in WAITS_FOR_EVER


def test_no_wait_is_without_a_limit() -> None:
    """`with` on a lock has none: what is done under one must not wait for anybody outside of this process, and where
    a disk may hold it, the watchdog of the main thread and the supervisor of the others end the daemon.
    """
    found = {(short(name), call) for name, path in MODULES.items() for call in waits_without_limit(parsed(path))}
    assert found <= DOES_NOT_WAIT


@pytest.mark.parametrize(
    "text",
    [
        "process.wait()",
        "process.wait(timeout=None)",
        "process.wait(None)",
        "thread.join()",
        "items.get()",
        "items.get(True)",
        "items.get(block=True)",
        "lock.acquire()",
        "lock.acquire(True)",
        "changed.wait()",
        "changed.wait_for()",
        "selector.select()",
        "selector.select(timeout=None)",
        "future.result()",
        "process.communicate(text)",
        "subprocess.run(words)",
        "asyncio.wait(tasks)",
        "os.waitpid(pid, 0)",
        "os.wait()",
        "fcntl.flock(fd, fcntl.LOCK_EX)",
    ],
)
def test_a_wait_without_a_limit_is_found(text: str) -> None:
    assert list(waits_without_limit(ast.parse(text))) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "process.wait(5)",
        "', '.join(names)",
        "lock.acquire(False)",
        "process.wait(1)",
        "table.get(key)",
        "items.get(timeout=wait)",
        "lock.acquire(timeout=1)",
        "lock.acquire(blocking=False)",
        "selector.select(0)",
        "asyncio.wait(tasks, timeout=1)",
        "subprocess.run(words, timeout=1)",
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    ],
)
def test_a_wait_with_a_limit_is_none_of_them(text: str) -> None:
    assert list(waits_without_limit(ast.parse(text))) == []


def test_there_is_no_cycle() -> None:
    left = {name: set(found) for name, found in GRAPH.items()}
    while left:
        leaves = {name for name, found in left.items() if not found & left.keys()}
        assert leaves, f"a cycle among {sorted(left)}"
        left = {name: found for name, found in left.items() if name not in leaves}


def test_only_the_main_module_exits() -> None:
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        if short(name) not in {"__main__", "hooks.hook"}:
            assert "sys.exit" not in text, name
            assert "os._exit" not in text, name


def test_every_line_is_printed_by_the_module_that_makes_it_printable() -> None:
    """Others hand their lines to it, or log them; nor do they write to a terminal, or to the journal, in other ways."""
    for name, path in MODULES.items():
        if short(name) == "lines":
            continue
        tree = parsed(path)
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not called & {"print", "input"}, name
        assert not dotted & {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}, name
        assert not dotted & {"logging.StreamHandler", "logging.basicConfig", "logging.lastResort"}, name
        assert not any(each.startswith("traceback.print") for each in dotted), name


def test_every_log_line_passes_the_handler_that_makes_it_printable() -> None:
    """Only `log` gives the root logger a handler, and what goes to syslog is made printable where it is sent."""
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert ("logging.Handler" in text or "addHandler" in text) == (short(name) == "log"), name
        assert text.count("syslog.syslog(") == text.count("syslog.syslog(syslog.LOG_WARNING, printable("), name


GOOD_NEWS = re.compile(
    r"(works|answers|be used|be written|be asked for|is written) (again|now)\b|^stopped;| reports the cluster |"
    r"^%s: %d of %d$"
)


def test_good_news_are_no_warnings() -> None:
    """An administrator looks at warnings; what is well again is said as NOTICE."""
    found = []
    for name, path in MODULES.items():
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            if ast.unparse(node.func.value) == "log" and texts and GOOD_NEWS.search(texts[0]):
                found.append(texts[0])
                assert node.func.attr == "log", (name, texts[0])
                assert ast.unparse(node.args[0]) == "NOTICE", (name, texts[0])
    assert len(found) >= 8


def test_no_module_grows_too_large() -> None:
    for name, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, name


def test_the_program_needs_only_the_standard_library() -> None:
    bundled = {"ecdsa", "nats"}
    known = {name.partition(".")[0] for path in MODULES.values() for name in imports(path)}
    library = Path(ast.__file__).parent
    standard = {path.name.partition(".")[0] for path in [*library.iterdir(), *library.glob("lib-dynload/*")]}
    assert known - standard - set(sys.builtin_module_names) - bundled <= {"cc_slurm_adapter"}


def test_no_folder_is_ever_removed() -> None:
    """Only files by their own names are; what lies in a folder may be somebody else's."""
    names = {"rmtree", "rmdir", "removedirs", "move"}
    for name, path in MODULES.items():
        called = {
            node.func.attr
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        assert not called & names, name


def patched_times(tree: ast.AST) -> Iterator[str]:
    """Constants that a test replaces by a number of seconds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            *where, value = node.args
            named = where[-1].value if where and isinstance(where[-1], ast.Constant) else ""
            is_seconds = isinstance(value, ast.Constant) and isinstance(value.value, float)
            if is_seconds and str(named).rpartition(".")[2].isupper():
                yield ast.unparse(node)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ('monkeypatch.setattr(module, "FIRST_WAIT", 0.01)', True),
        ('monkeypatch.setattr("package.module.FIRST_WAIT", 0.01)', True),
        ('monkeypatch.setattr(module, "OUTPUT_LIMIT", 1000)', False),
        ('monkeypatch.setattr(module, "clock", now)', False),
    ],
)
def test_a_patched_time_is_found(text: str, *, is_one: bool) -> None:
    assert bool(list(patched_times(ast.parse(text)))) == is_one


def test_times_are_passed_in_and_never_patched() -> None:
    """As a frozen `Timing`, so that a reader of a module sees what depends on them."""
    found = {(path.name, each) for path in TESTS.rglob("test_*.py") for each in patched_times(parsed(path))}
    assert found == set()

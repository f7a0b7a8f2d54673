"""Where effects may happen, which way the imports go, and how large a module may grow."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cc_slurm_adapter"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Each effect has its named modules. `socket` also serves to wake a selector and to name address families.
EFFECTS = {
    "subprocess": {"slurm.commands"},
    "sqlite3": {"outbox", "outbox_sinks", "state_database", "withdrawals"},
    "http.client": {"sinks.http_client"},
    "ssl": {"sinks.http_client", "sinks.nats_client"},
    "socket": {
        "sinks.http_client",
        "sinks.nats_loop",
        "hook",
        "prep",
        "prep_server",
        "prep_socket",
        "intake",
        "systemd",
    },
    "signal": {"daemon", "slurm.commands"},
    "threading": {
        "daemon",
        "destinations",
        "hook",
        "intake",
        "late_runs",
        "reconciler",
        "row_lines",
        "sender",
        "sinks.cc_nats",
        "sinks.nats_loop",
        "sinks.pace",
        "slurm.commands",
        "state_database",
        "status",
    },
    "ctypes": {"inotify"},
    "multiprocessing": set(),
    "asyncio": {"sinks.nats_client", "sinks.nats_loop"},
    "urllib.request": set(),
}
ENTRY = {"__main__", "command_line"}
MAX_LINES = 600


def _read_imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; names of a package count as its modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def test_slurm_and_the_sinks_never_import_each_other() -> None:
    for name, found in GRAPH.items():
        if name.startswith("slurm"):
            assert not {each for each in found if each.startswith("sinks")}, name
        if name.startswith("sinks"):
            assert not {each for each in found if each.startswith("slurm")}, name


def test_nothing_imports_the_daemon_or_the_command_line() -> None:
    for name, found in GRAPH.items():
        assert name in ENTRY or not found & {"daemon", *ENTRY}, name


def test_there_is_no_cycle() -> None:
    left = {name: set(found) for name, found in GRAPH.items()}
    while left:
        leaves = {name for name, found in left.items() if not found & left.keys()}
        assert leaves, f"a cycle among {sorted(left)}"
        left = {name: found for name, found in left.items() if name not in leaves}


def test_only_the_main_module_exits() -> None:
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        if short(name) not in {"__main__", "hook"}:
            assert "sys.exit" not in text, name
            assert "os._exit" not in text, name


def test_no_module_grows_too_large() -> None:
    for name, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, name


def test_the_program_needs_only_the_standard_library() -> None:
    bundled = {"ecdsa", "nats"}
    known = {name.partition(".")[0] for path in MODULES.values() for name in imports(path)}
    library = Path(ast.__file__).parent
    standard = {path.name.partition(".")[0] for path in [*library.iterdir(), *library.glob("lib-dynload/*")]}
    assert known - standard - set(sys.builtin_module_names) - bundled <= {"cc_slurm_adapter"}

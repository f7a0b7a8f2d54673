"""Everything in this folder runs dist/cc-slurm-adapter as a site would."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import build
from tests.browser.conftest import chromium
from tests.built.installed import NOBODY, StandIn, newest_source
from tests.nats.conftest import nats_program, nats_server, start_nats
from tests.prometheus.conftest import prometheus_program, promtool, start_prometheus

__all__ = [
    "chromium",
    "nats_program",
    "nats_server",
    "prometheus_program",
    "promtool",
    "start_nats",
    "start_prometheus",
]
"""Fixtures from elsewhere."""

HERE = Path(__file__).parent
FIXED_PLACES = [b"/usr/bin/python3", b"/usr/libexec/platform-python", b"/usr/bin/logger"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.built)


@pytest.fixture(scope="session")
def adapter() -> Path:
    """The built file."""
    if not build.ADAPTER.exists():
        pytest.fail("dist/cc-slurm-adapter is missing: run python3 build.py build", pytrace=False)
    if build.ADAPTER.stat().st_mtime < newest_source():
        pytest.fail("dist/cc-slurm-adapter is older than its sources: run python3 build.py build", pytrace=False)
    return build.ADAPTER


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user of the machine may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="cc-slurm-adapter-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def copy(adapter: Path, public: Path) -> Path:
    """The file as a site would copy it, where every user may run it."""
    return Path(shutil.copy(adapter, public / "cc-slurm-adapter"))


@pytest.fixture
def alone(copy: Path) -> Path:
    """A copy that finds neither this machine's Python nor its logger by their fixed paths."""
    content = copy.read_bytes()
    for place in FIXED_PLACES:
        assert content.count(place) == 1
        content = content.replace(place, b"/none" + place[5:])
    copy.write_bytes(content)
    return copy


@pytest.fixture
def python(public: Path) -> StandIn:
    """A stand-in for Python, to be named by CC_SLURM_ADAPTER_PYTHON."""
    return StandIn(public / "python")


@pytest.fixture
def events(public: Path) -> Path:
    """A folder for events."""
    folder = public / "events"
    folder.mkdir()
    return folder


@pytest.fixture
def hook_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose daemon does not run, so that nothing reaches one that belongs to this machine."""
    folder = tmp_path_factory.mktemp("hook")
    config = folder / "config.json"
    keys = {"prepSockConnectPath": str(folder / "daemon.sock"), "prepEventsPath": str(folder / "events")}
    config.write_text(json.dumps(keys))
    return config


@pytest.fixture
def other_user() -> int:
    """A user who owns nothing here; 0 when these tests do not run as root and so are of such a user already."""
    return NOBODY if os.geteuid() == 0 else 0

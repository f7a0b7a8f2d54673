"""A real nats-server for the tests in this folder; without one they are skipped, and say why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.nats.certificates import Certificates, has_openssl
from tests.nats.nats_server import NatsServer
from tests.nats.server_program import NATS_SERVER


class StartNats(Protocol):
    def __call__(self, config: Mapping[str, Any] | None = None, *, jetstream: bool = False) -> NatsServer: ...


@pytest.fixture(scope="session")
def nats_program() -> Path:
    problems: list[str] = []
    program = NATS_SERVER.find(problems)
    if program is None:
        pytest.skip(problems[0])
    return program


@pytest.fixture
def start_nats(nats_program: Path, tmp_path: Path) -> Iterator[StartNats]:
    """Starts servers, each with a folder of its own; they end with the test."""
    with contextlib.ExitStack() as servers:
        count = iter(range(100))

        def start(config: Mapping[str, Any] | None = None, *, jetstream: bool = False) -> NatsServer:
            folder = tmp_path / f"nats-{next(count)}"
            return servers.enter_context(NatsServer(nats_program, folder, config, jetstream=jetstream))

        yield start


@pytest.fixture
def nats_server(start_nats: StartNats) -> NatsServer:
    """A server that lets everybody in."""
    return start_nats()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if not has_openssl():
        pytest.skip("the command openssl, which makes certificates, is not installed")
    return Certificates(tmp_path_factory.mktemp("certificates"))

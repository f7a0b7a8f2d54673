"""What -check says of NATS before it asks a server; tests/nats has what it asks."""

from __future__ import annotations

import logging

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.checks.nats import find_nats


@pytest.mark.parametrize("key", ["natsCredsFile", "natsNKeySeedFile", "natsTlsCaFile"])
def test_with_files_that_only_the_daemon_can_read_no_server_is_asked_which_is_no_failure(key: str) -> None:
    config, _ = parse_config({"ccRestSubmitJobs": False, "natsServer": "127.0.0.1:9", key: "name"})
    (found,) = find_nats(config, {key: "name"})
    assert (found.level, found.subject) == (logging.INFO, "natsServer")
    assert found.text.startswith(f"NATS is not asked: {key} names a credential of the unit")

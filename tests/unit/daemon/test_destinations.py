"""What a reload does to the destinations that are in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.destinations import Destinations
from cc_slurm_adapter.daemon.hosts import Hosts
from cc_slurm_adapter.daemon.running_list import RunningListPoller
from cc_slurm_adapter.sinks.nats.sink import CcNats
from cc_slurm_adapter.sinks.rest import CcRest

SEED_A = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
SEED_B = "SUAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6IC5CQ"
"""Another key, of the bytes 1 to 32."""
NEEDED = {"ccRestUrl": "http://cc.example.org", "ccRestJwt": "token"}


class NotedPoller:
    """Notes for which hosts the clusters are asked for."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self.asked_for: list[Hosts] = []

    def ask_clusters(self) -> None:
        self.asked_for.append(self._destinations.hosts)


@pytest.mark.parametrize("changes", [{}, {"ignoreHosts": "^login"}])
def test_a_reload_asks_cc_backend_for_its_clusters_again(changes: dict[str, Any]) -> None:
    """Also without a change: cluster.json may have changed."""
    destinations = Destinations(parse_config(NEEDED)[0], Counters())
    poller = NotedPoller(destinations)
    destinations._poller = cast("RunningListPoller", poller)
    before = destinations.hosts
    destinations.use(parse_config({**NEEDED, **changes})[0])
    assert poller.asked_for == [destinations.hosts]
    assert (destinations.hosts is before) == (not changes)


class Secrets:
    """Files with the secrets of both destinations, and who reads them."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "token", folder / "seed"]
        for path, secret in zip(self.files, ("token-a", SEED_A)):
            self.write(path, secret)
        names = dict(zip(("ccRestJwtFile", "natsNKeySeedFile"), map(str, self.files)))
        nats = {"natsServer": "nats.example.org"}
        self.config = parse_config({"ccRestUrl": "http://cc.example.org", **nats, **names})[0]
        self.destinations = Destinations(self.config, Counters())
        assert self.sent() == ("token-a", SEED_A)

    def write(self, path: Path, secret: str) -> None:
        path.write_text(secret)
        path.chmod(0o600)

    def sent(self) -> tuple[str, str]:
        """What a connection would read now, also after a refusal."""
        rest, nats = self.destinations.sinks
        return cast("CcRest", rest)._read_token(), cast("CcNats", nats)._client._read_access().seed


@pytest.mark.parametrize(
    ("waiting", "sent"),
    [
        ((), ("token-b", SEED_B)),
        (("statePath",), ("token-b", SEED_B)),
        (("ccRestUrl",), ("token-a", SEED_B)),
        (("natsServer",), ("token-b", SEED_A)),
    ],
)
def test_new_secrets_are_not_sent_to_an_address_that_waits_for_a_restart(
    tmp_path: Path, waiting: tuple[str, ...], sent: tuple[str, str]
) -> None:
    """The path is the same, and the file is for the new address."""
    site = Secrets(tmp_path)
    site.destinations.use(site.config, waiting)
    for path, secret in zip(site.files, ("token-b", SEED_B)):
        site.write(path, secret)
    site.destinations.use(site.config, waiting)
    assert site.sent() == sent
    site.destinations.use(site.config)  # the key was changed back
    assert site.sent() == ("token-b", SEED_B)

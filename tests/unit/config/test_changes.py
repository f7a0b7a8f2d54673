"""Which changes of the configuration a reload puts in force, and which need a restart."""

from __future__ import annotations

from typing import Any

import pytest

from cc_slurm_adapter.config.changes import Changes, compare, merge
from cc_slurm_adapter.config.config import Config, parse_config
from cc_slurm_adapter.config.keys import SETTINGS

BASE = {
    "ccRestUrl": "https://cc.example.org",
    "ccRestJwt": "token",
    "natsServer": "nats.example.org",
    "natsUser": "adapter",
    "natsPassword": "old",
}
OTHER: dict[str, Any] = {
    "pidFilePath": "/run/other/daemon.pid",
    "prepSockListenPath": "tcp:127.0.0.1:7000",
    "prepSockConnectPath": "/run/other.sock",
    "controlSockPath": "/run/other/control.sock",
    "metricsListen": "127.0.0.1:9517",
    "prepSecretFile": "/etc/secret",
    "prepAllow": ["10.1.0.0/16"],
    "prepEventsPath": "/run/other/events",
    "lastRunPath": "/var/lib/other/lastrun",
    "statePath": "/var/lib/other/state.sqlite",
    "stateMaxBytes": 1000,
    "clusterName": "other",
    "slurmConf": "/etc/other/slurm.conf",
    "slurmPollInterval": 30,
    "slurmQueryDelay": 5,
    "slurmQueryMaxSpan": 7200,
    "slurmMaxRetries": 3,
    "parkedMaxAge": 1000,
    "ccPollInterval": 100,
    "ccRestSubmitJobs": False,
    "requeuedRuns": "last",
    "ccRestUrl": "https://other.example.org",
    "ccRestJwt": "another",
    "ccRestJwtFile": "/etc/token",
    "ccRestCaFile": "/etc/ca.pem",
    "ccRestProxy": "http://proxy.example.org:3128",
    "gpuPciAddrs": {"^gpu": ["00000000:0E:00.0"]},
    "acceleratorGres": ["gpu", "npu"],
    "hwthreadNumbering": "interleaved",
    "hostnameRewrite": [["^n", "m"]],
    "jobScriptMaxBytes": 0,
    "ignoreHosts": "^test",
    "ignorePartitions": ["debug"],
    "ignoreUsers": "^monitor$",
    "natsServer": "other.example.org",
    "natsPort": 4333,
    "natsSubject": "other",
    "natsNodeSubject": "nodes",
    "natsUser": "somebody",
    "natsPassword": "new",
    "natsCredsFile": "/etc/creds",
    "natsNKeySeedFile": "/etc/seed",
    "natsTlsCaFile": "/etc/nats-ca.pem",
    "natsTlsCertFile": "/etc/cert.pem",
    "natsTlsKeyFile": "/etc/key.pem",
    "natsJetStream": True,
    "natsStopDelay": 9,
}
"""A value for each key that is neither its default nor that of BASE."""
NEED_RESTART = {
    # what the daemon opens or locks at its start
    *("pidFilePath", "prepSockListenPath", "controlSockPath", "metricsListen", "prepSecretFile", "prepAllow"),
    *("prepEventsPath", "lastRunPath", "statePath", "stateMaxBytes"),
    # whose jobs they are, and how Slurm is asked
    *("clusterName", "slurmConf", "acceleratorGres"),
    # where they are sent, and in which way
    *("ccRestSubmitJobs", "requeuedRuns", "ccRestUrl", "ccRestCaFile", "ccRestProxy"),
    *("natsServer", "natsPort", "natsSubject", "natsNodeSubject", "natsJetStream", "natsStopDelay"),
}


def config(**settings: Any) -> Config:
    """Only the values matter here, not whether they fit each other."""
    one_way = {} if settings.keys() & {"natsUser"} else {"natsUser": "adapter"}
    given = {**BASE, **one_way, **settings}
    if settings.keys() & {"natsCredsFile", "natsNKeySeedFile"}:
        del given["natsUser"], given["natsPassword"]
    if "natsTlsCertFile" in settings or "natsTlsKeyFile" in settings:
        given = {"natsTlsCertFile": "/etc/0.pem", "natsTlsKeyFile": "/etc/0.key", **given}
    return parse_config(given)[0]


def before(key: str) -> Config:
    """A configuration that differs from `config` with that key only in it."""
    if key in ("natsTlsCertFile", "natsTlsKeyFile"):
        return config(natsTlsCertFile="/etc/0.pem", natsTlsKeyFile="/etc/0.key")
    if key in ("natsCredsFile", "natsNKeySeedFile"):
        return config(**{key: "/etc/before"})
    return config()


def test_each_key_has_another_value_here_and_is_in_one_class() -> None:
    keys = {setting.key for setting in SETTINGS}
    assert keys == OTHER.keys()
    assert {setting.key for setting in SETTINGS if not setting.reload} == NEED_RESTART


@pytest.mark.parametrize("key", OTHER)
def test_a_change_of_a_key_is_in_force_or_needs_a_restart(key: str) -> None:
    changes = compare(before(key), config(**{key: OTHER[key]}))
    found = changes.need_restart if key in NEED_RESTART else changes.in_force
    assert key in found
    assert set(changes.in_force) & set(changes.need_restart) == set()
    others = {*changes.in_force, *changes.need_restart} - {key}
    # The only keys whose values follow from other keys.
    assert others <= {"pidFilePath": {"controlSockPath"}, "lastRunPath": {"statePath"}, "natsPort": {"natsServer"}}.get(
        key, set()
    )


def test_two_readings_of_one_configuration_do_not_differ() -> None:
    settings = {key: value for key, value in OTHER.items() if key not in ("natsCredsFile", "natsNKeySeedFile")}
    settings["ccRestSubmitJobs"] = True
    assert compare(parse_config(settings)[0], parse_config(settings)[0]) == Changes((), ())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"ccRestUrl": "https://new.example.org", "ccRestJwt": "another", "slurmPollInterval": 30},
            Changes(("slurmPollInterval",), ("ccRestUrl", "ccRestJwt")),
        ),
        ({"natsServer": "new.example.org", "natsPassword": "new"}, Changes((), ("natsServer", "natsPassword"))),
        ({"natsServer": "new.example.org", "ccRestJwt": "another"}, Changes(("ccRestJwt",), ("natsServer",))),
        (
            {"acceleratorGres": ["npu"], "gpuPciAddrs": OTHER["gpuPciAddrs"], "ignoreUsers": "^x"},
            Changes(("ignoreUsers",), ("gpuPciAddrs", "acceleratorGres")),
        ),
        ({"gpuPciAddrs": OTHER["gpuPciAddrs"]}, Changes(("gpuPciAddrs",), ())),
        ({"ccRestUrl": "https://new.example.org", "ccPollInterval": 9}, Changes(("ccPollInterval",), ("ccRestUrl",))),
    ],
)
def test_what_belongs_to_a_key_that_needs_a_restart_waits_with_it(settings: dict[str, Any], expected: Changes) -> None:
    assert compare(config(), config(**settings)) == expected


def test_only_what_is_in_force_is_merged() -> None:
    old, new = config(), config(ccRestUrl="https://new.example.org", ccRestJwt="another", slurmPollInterval=30)
    changes = compare(old, new)
    merged = merge(old, new, changes)
    assert (merged.slurm_poll_interval, merged.cc_rest_url, merged.cc_rest_jwt) == (30, old.cc_rest_url, "token")
    assert compare(merged, new) == Changes((), changes.need_restart)
    assert compare(merged, old).in_force == ("slurmPollInterval",)

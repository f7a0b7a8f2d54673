"""The configuration: the existing adapter's file works unchanged, and every mistake is told at once."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.config.config import (
    Config,
    read_prep_secret,
    read_token,
    settings_reference,
)
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH, parse_config_text
from cc_slurm_adapter.config.host_pattern import PatternError, compile_host_pattern
from cc_slurm_adapter.config.keys import BY_NAME, SETTINGS, Setting
from cc_slurm_adapter.config.values import WrongValue
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.model import Numbering, NumberingByHost
from cc_slurm_adapter.sinks.hwthreads import numbering_of
from tests.unit.config.loaded import load_config, parse_config, value_of

NEEDED = {"ccRestUrl": "https://cc.example.org", "ccRestJwt": "aa.bb.cc"}

# All keys of the existing adapter with values that are no defaults, spelled as its README has them; of the three ways
# to log in at NATS the first.
EXISTING = {
    "pidFilePath": "/run/a/pid",
    "prepSockListenPath": "tcp:0.0.0.0:12345",
    "prepSockConnectPath": "tcp:[::1]:12345",
    "lastRunPath": "/var/lib/a/last_run",
    "slurmPollInterval": 30,
    "slurmQueryDelay": 2,
    "slurmQueryMaxSpan": 3600,
    "slurmQueryMaxRetries": 5,
    "ccPollInterval": 7200,
    "ccRestSubmitJobs": True,
    "ccRestUrl": "http://cc.example.org:8080",
    "ccRestJwt": "token",
    "gpuPciAddrs": {"^b[0-9]$": ["00000000:00:10.0", "00000000:00:3F.0"], "^a": []},
    "ignoreHosts": "^x\\w+$",
    "natsServer": "nats.example.org",
    "natsPort": 4333,
    "natsSubject": "subject",
    "natsUser": "user",
    "natsPassword": "123456789",
}


def write(folder: Path, settings: object, mode: int = 0o600) -> str:
    path = folder / "config.json"
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
    path.chmod(mode)
    return str(path)


def problems_of(settings: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(settings)
    return caught.value.problems


def only_warning(**settings: object) -> str:
    _, warnings = parse_config({**NEEDED, **settings})
    assert len(warnings) == 1, warnings
    return warnings[0]


def test_config_of_the_existing_adapter(tmp_path: Path) -> None:
    config, warnings = load_config(write(tmp_path, EXISTING), explicit=True)

    assert config.pid_file_path == "/run/a/pid"
    assert str(config.prep_sock_listen_path) == "tcp:0.0.0.0:12345"
    assert str(config.prep_sock_connect_path) == "tcp:[::1]:12345"
    assert config.last_run_path == "/var/lib/a/last_run"
    assert (config.slurm_poll_interval, config.slurm_query_delay, config.slurm_query_max_span) == (30, 2, 3600)
    assert (config.slurm_max_retries, config.cc_poll_interval) == (5, 7200)
    assert config.cc_rest_submit_jobs is True
    assert (config.cc_rest_url, read_token(config)) == ("http://cc.example.org:8080", "token")
    assert [pattern.pattern for pattern, _ in config.gpu_pci_addrs] == ["^b[0-9]$", "^a"]
    assert config.gpu_pci_addrs[0][1] == ("00000000:00:10.0", "00000000:00:3F.0")
    assert config.ignore_hosts is not None
    assert config.ignore_hosts.search("x1")
    assert (config.nats_servers, config.nats_subject) == (("nats://nats.example.org:4333",), "subject")
    assert (config.nats_user, config.nats_password) == ("user", "123456789")
    assert warnings == []


def test_defaults_are_those_of_the_existing_adapter() -> None:
    config, warnings = parse_config(NEEDED)

    assert warnings == []
    assert config.pid_file_path == "/run/cc-slurm-adapter/daemon.pid"
    assert str(config.prep_sock_listen_path) == "/run/cc-slurm-adapter/daemon.sock"
    assert str(config.prep_sock_connect_path) == "/run/cc-slurm-adapter/daemon.sock"
    assert config.last_run_path == "/var/lib/cc-slurm-adapter/lastrun"
    assert config.state_path == "/var/lib/cc-slurm-adapter/state.sqlite"
    assert config.prep_events_path == "/run/cc-slurm-adapter/events"
    assert (config.slurm_poll_interval, config.slurm_query_delay) == (60, 1)
    assert (config.slurm_query_max_span, config.slurm_max_retries, config.cc_poll_interval) == (604800, 10, 21600)
    assert config.cc_rest_submit_jobs is True
    assert (config.gpu_pci_addrs, config.ignore_hosts, config.prep_allow) == ((), None, ())
    assert (config.ignore_partitions, config.ignore_users, config.job_script_max_bytes) == (None, None, 1 << 20)
    assert numbering_of("any", config.hwthread_numbering) is Numbering.BLOCK
    assert (config.nats_servers, config.nats_port, config.nats_subject) == ((), 4222, "jobs")
    assert (config.nats_node_subject, config.nats_jet_stream, config.nats_stop_delay) == ("", False, 5)
    assert (config.cluster_name, config.slurm_conf, config.prep_secret_file) == ("", "", "")


def test_state_lies_beside_last_run_unless_told_otherwise() -> None:
    config, _ = parse_config({**NEEDED, "lastRunPath": "/data/cc/last"})
    assert config.state_path == "/data/cc/state.sqlite"

    config, _ = parse_config({**NEEDED, "statePath": "/s/db", "prepEventsPath": "/e/v"})
    assert (config.state_path, config.prep_events_path) == ("/s/db", "/e/v")


@pytest.mark.parametrize("former", ["/data/cc/events", "/data/cc/events/", "/var/lib/cc-slurm-adapter/events"])
def test_the_events_folder_of_before_is_replaced_with_a_warning(former: str) -> None:
    """It lies in the state folder, on a disk. With the default or an empty value there is nothing to tell."""
    settings = {**NEEDED, "lastRunPath": "/data/cc/last"}
    config, (warning,) = parse_config({**settings, "prepEventsPath": former})
    assert config.prep_events_path == DEFAULT_EVENTS_PATH
    assert warning.startswith(f"prepEventsPath: {DEFAULT_EVENTS_PATH} is used")
    assert f"What hooks leave in {former} is still read" in warning
    for value in ("", None, DEFAULT_EVENTS_PATH, DEFAULT_EVENTS_PATH + "/"):
        config, warnings = parse_config({**settings, "prepEventsPath": value})
        assert (config.prep_events_path, warnings) == (DEFAULT_EVENTS_PATH, [])


def test_table_and_dataclass_have_the_same_fields_and_secrets() -> None:
    fields = {field.name: field for field in dataclasses.fields(Config)}
    assert [setting.field for setting in SETTINGS] == list(fields)
    assert {setting.field for setting in SETTINGS if setting.secret} == {
        name for name, field in fields.items() if not field.repr
    }


def test_reference_names_every_key_with_its_default() -> None:
    reference = {key: (default, text) for key, default, _, text in settings_reference()}
    assert set(reference) == {setting.key for setting in SETTINGS}
    assert reference["slurmPollInterval"][0] == "60"
    assert reference["natsSubject"][0] == '"jobs"'
    assert all(text.endswith(".") for _, text in reference.values())


def test_keys_match_whatever_their_case() -> None:
    config, warnings = parse_config({"CCRESTURL": "http://h", "ccrestjwt": "t", "SlurmPollinterval": 5})
    assert (config.cc_rest_url, config.slurm_poll_interval, warnings) == ("http://h", 5, [])


def test_null_is_the_default() -> None:
    config, warnings = parse_config({**NEEDED, "slurmPollInterval": None, "gpuPciAddrs": None})
    assert (config.slurm_poll_interval, config.gpu_pci_addrs, warnings) == (60, (), [])


def test_both_names_of_the_retries() -> None:
    assert parse_config({**NEEDED, "slurmMaxRetries": 3})[0].slurm_max_retries == 3
    assert parse_config({**NEEDED, "slurmQueryMaxRetries": 4})[0].slurm_max_retries == 4
    config, warnings = parse_config({**NEEDED, "slurmMaxRetries": 3, "slurmQueryMaxRetries": 4})
    assert config.slurm_max_retries == 3
    assert warnings == ["slurmQueryMaxRetries: ignored because slurmMaxRetries is set"]


def test_unknown_key_names_the_nearest() -> None:
    assert "did you mean slurmPollInterval?" in only_warning(slurmPolInterval=5)
    assert "-settings lists all keys" in only_warning(xyzzy=5)


def test_removed_key_says_what_to_use() -> None:
    warning = only_warning(ipcSockPath="/run/x.sock")
    assert "prepSockListenPath" in warning
    assert "prepSockConnectPath" in warning


@pytest.mark.parametrize("key", ["slurmPollInterval", "slurmQueryDelay"])
@pytest.mark.parametrize("value", [0, -5])
def test_too_short_intervals_become_one_second(key: str, value: int) -> None:
    config, warnings = parse_config({**NEEDED, key: value})
    assert getattr(config, re.sub("([A-Z])", r"_\1", key).lower()) == 1
    assert warnings == [f"{key}: {value} is below 1, using 1"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("pidFilePath", "", "expected a path"),
        ("pidFilePath", 7, "expected text"),
        ("lastRunPath", "/a\0b", "zero bytes"),
        ("prepSockListenPath", "udp:1", "tcp:127.0.0.1:12345"),
        ("prepSockListenPath", "", "expected /path"),
        ("prepSockConnectPath", "/" + "x" * 107, "107"),
        ("slurmPollInterval", "60", "whole number from 1"),
        ("slurmPollInterval", 60.0, "whole number"),
        ("slurmPollInterval", True, "whole number"),
        ("slurmPollInterval", False, "whole number"),
        ("slurmPollInterval", 10**30, "whole number"),
        ("clusterName", "a b", "white space"),
        ("ccRestSubmitJobs", "true", "true or false"),
        ("ccRestSubmitJobs", 1, "true or false"),
        ("ccRestUrl", "cc.example.org", "http(s)://HOST"),
        ("ccRestUrl", "ftp://h", "http(s)://HOST"),
        ("ccRestUrl", "https://", "http(s)://HOST"),
        ("ccRestUrl", "https://h:99999", "http(s)://HOST"),
        ("ccRestUrl", "https://[::1", "http(s)://HOST"),
        ("ccRestUrl", "https://h/ x", "white space"),
        ("gpuPciAddrs", ["a"], "PCI address"),
        ("gpuPciAddrs", {"a": "b"}, "'a' is not a list"),
        ("gpuPciAddrs", {"a": [7]}, "'a' is not a list"),
        ("gpuPciAddrs", {"a(": ["x"]}, "a("),
        ("acceleratorGres", "gpu", "a list of names of GRES"),
        ("acceleratorGres", [], "a list of names of GRES"),
        ("acceleratorGres", {"gpu": 1}, "a list of names of GRES"),
        ("acceleratorGres", ["gpu", ""], '"" is not a name'),
        ("acceleratorGres", ["gpu", 7], "7 is not a name"),
        ("acceleratorGres", ["gpu:h100"], '"gpu:h100" is not a name'),
        ("acceleratorGres", ["gpu,npu"], '"gpu,npu" is not a name'),
        ("acceleratorGres", ["gpu "], '"gpu " is not a name'),
        ("acceleratorGres", ["gpu", "npu", "gpu"], "'gpu' occurs twice"),
        ("acceleratorGres", ["shard"], "shares of the devices called gpu"),
        ("ignoreHosts", "[", "regular expression"),
        ("ignorePartitions", "a(", "regular expression, but in 'a('"),
        ("ignorePartitions", {"a": "b"}, "a regular expression or a list of names"),
        ("ignoreUsers", 7, "a regular expression or a list of names"),
        ("ignoreUsers", ["alice", 7], "7 is not a name"),
        ("ignoreUsers", [""], '"" is not a name'),
        ("ignoreUsers", ["alice "], '"alice " is not a name'),
        ("ignoreUsers", ["a\0"], "zero bytes"),
        ("requeuedRuns", "newest", 'got "newest", expected "first" or "last"'),
        ("requeuedRuns", True, 'expected "first" or "last"'),
        ("requeuedRuns", "Last", 'expected "first" or "last"'),
        ("hwthreadNumbering", "blocks", "one of block, interleaved, cores, a list of CPU numbers, or {"),
        ("hwthreadNumbering", "", "one of block, interleaved, cores, a list of CPU numbers, or {"),
        ("hwthreadNumbering", True, "one of block, interleaved, cores, a list of CPU numbers, or {"),
        ("hwthreadNumbering", ["block"], 'it has "block" for CPU 0, expected whole numbers from 0 to 65535'),
        (
            "hwthreadNumbering",
            {"^a?": "Block", "b": "cores", "c": 1},
            "'^a?' has the value \"Block\"; 'c' has the value 1",
        ),
        ("hwthreadNumbering", {"^a": None}, "'^a' has the value null"),
        ("hwthreadNumbering", {"^a": ["cores"]}, "'^a' has \"cores\" for CPU 0, expected whole numbers"),
        ("hwthreadNumbering", {"^a": []}, "'^a' has an empty list"),
        ("hwthreadNumbering", {"^a": [0, []]}, "'^a' has [] for CPU 1, expected whole numbers"),
        ("hwthreadNumbering", {"^a": [0, [1, [2]]]}, "'^a' has [2] for CPU 1, expected whole numbers"),
        ("hwthreadNumbering", {"^a": [0, -1]}, "'^a' has -1 for CPU 1, expected whole numbers from 0"),
        ("hwthreadNumbering", {"^a": [0, True]}, "'^a' has true for CPU 1, expected whole numbers from 0"),
        ("hwthreadNumbering", {"^a": [0, 1.0]}, "'^a' has 1.0 for CPU 1, expected whole numbers from 0"),
        ("hwthreadNumbering", {"^a": [0, "1"]}, "'^a' has \"1\" for CPU 1, expected whole numbers from 0"),
        ("hwthreadNumbering", {"^a": [0, None]}, "'^a' has null for CPU 1, expected whole numbers from 0"),
        (
            "hwthreadNumbering",
            {"^a": [65535, 65536]},
            "'^a' has 65536 for CPU 1, expected whole numbers from 0 to 65535",
        ),
        ("hwthreadNumbering", {"^a": [0, 10**400]}, "for CPU 1, expected whole numbers from 0 to 65535"),
        ("hwthreadNumbering", {"^a": [0, 8, 1, 8]}, "'^a' has 8 for CPU 3, and for one before it"),
        ("hwthreadNumbering", {"^a": [[0, 8], [1, 0]]}, "'^a' has 0 for CPU 1, and for one before it"),
        ("hwthreadNumbering", [1, 1], "it has 1 for CPU 1, and for one before it"),
        ("hostnameRewrite", {"^a": "b"}, 'a list of pairs ["regex of hosts", "replacement"]'),
        ("hostnameRewrite", ["^a", "b"], '"^a" is none'),
        ("hostnameRewrite", [["^a"]], '["^a"] is none'),
        ("hostnameRewrite", [["^a", 7]], '["^a", 7] is none'),
        ("hostnameRewrite", [["", "b"]], 'the pattern of ["", "b"] is empty'),
        ("hostnameRewrite", [["a(", "b"]], "regular expression, but in 'a('"),
        ("hostnameRewrite", [["^(a)", r"\2"]], "groups that the pattern has"),
        ("hostnameRewrite", [["^(a)", r"\g<x>"]], "groups that the pattern has"),
        ("hostnameRewrite", [["^(a)", "\\"]], "groups that the pattern has"),
        ("hostnameRewrite", [["^(a)", "$1"]], r"groups written \1 or \g<name>"),
        ("hostnameRewrite", [["^a", "b c"]], "expected letters, digits, dots"),
        ("hostnameRewrite", [["^a", "b\u00e4"]], "expected letters, digits, dots"),
        ("hostnameRewrite", [["^a", r"b\n"]], "expected letters, digits, dots"),
        ("hostnameRewrite", [["^a", "b/"]], "expected letters, digits, dots"),
        ("hostnameRewrite", [["(.*)", r"\1.example.org"]], "also matches nothing: begin it with ^"),
        ("hwthreadNumbering", {"a(": "cores"}, "regular expression, but in 'a('"),
        ("jobScriptMaxBytes", -1, "whole number from 0"),
        ("jobScriptMaxBytes", "1 MiB", "whole number from 0"),
        ("prepAllow", "10.0.0.1", "a list"),
        ("prepAllow", ["10.0.0.1", "host"], "'host' is none"),
        ("prepAllow", [7], "7 is none"),
    ],
)
def test_wrong_values_name_key_value_and_what_is_expected(key: str, value: object, expected: str) -> None:
    problems = problems_of({**NEEDED, key: value})
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"{key}: got {json.dumps(value)[:70]}")
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("key", "value", "used"),
    [
        ("slurmQueryMaxSpan", 0, 3600),
        ("slurmQueryMaxSpan", -1, 3600),
        ("slurmQueryMaxSpan", 1, 3600),
        ("slurmQueryMaxSpan", 599, 3600),
        ("slurmQueryMaxSpan", 3599, 3600),
        ("slurmMaxRetries", -1, 0),
    ],
)
def test_numbers_that_are_too_low_do_not_stop_the_start(key: str, value: int, used: int) -> None:
    config, warnings = parse_config({**NEEDED, key: value})
    assert value_of(config, key) == used
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{key}: {value} is below ")
    assert warnings[0].endswith(f", using {used}")


@pytest.mark.parametrize(
    ("key", "value", "used"),
    [
        ("slurmQueryMaxSpan", 31536001, 31536000),
        ("slurmQueryMaxSpan", 10**12, 31536000),
        ("slurmQueryMaxSpan", 2**63 - 1, 31536000),
        ("slurmPollInterval", 2**31, 2**31 - 1),
        ("slurmQueryDelay", 2**31, 2**31 - 1),
        ("slurmMaxRetries", 2**31, 2**31 - 1),
        ("ccPollInterval", 2**31, 2**31 - 1),
    ],
)
def test_numbers_that_are_too_high_do_not_stop_the_start(key: str, value: int, used: int) -> None:
    """The existing adapter takes all that fits into 64 bits."""
    config, warnings = parse_config({**NEEDED, key: value})
    assert value_of(config, key) == used
    assert warnings == [f"{key}: {value} is above {used}, using {used}"]


@pytest.mark.parametrize("value", [3600, 86400, 31536000])
def test_spans_from_an_hour_to_a_year_are_taken_as_they_are(value: int) -> None:
    config, warnings = parse_config({**NEEDED, "slurmQueryMaxSpan": value})
    assert (config.slurm_query_max_span, warnings) == (value, [])


@pytest.mark.parametrize("value", [0, -3600])
def test_comparing_at_every_poll(value: int) -> None:
    config, warnings = parse_config({**NEEDED, "ccPollInterval": value, "slurmPollInterval": 90})
    assert config.cc_poll_interval == 90
    assert warnings == [f"ccPollInterval: {value} is below 1, using slurmPollInterval"]


def test_empty_address_for_hooks_is_the_default() -> None:
    assert only_warning(prepSockConnectPath="").startswith("prepSockConnectPath: is empty, using /run/")
    config, _ = parse_config({**NEEDED, "prepSockConnectPath": ""})
    assert str(config.prep_sock_connect_path) == "/run/cc-slurm-adapter/daemon.sock"


def test_what_is_no_pci_address_is_warned_about() -> None:
    _, warnings = parse_config({**NEEDED, "gpuPciAddrs": {"^a": ["00000000:0E:00.0", "foo", "0E:00"]}})
    assert len(warnings) == 1
    assert "'foo', '0E:00' of '^a'" in warnings[0]


def test_gpu_without_an_address_keeps_the_others_in_their_places() -> None:
    for nothing in ("", None):
        settings = {**NEEDED, "gpuPciAddrs": {"^a": ["0000:00:01.0", nothing, "0000:00:03.0"]}}
        config, warnings = parse_config(settings)
        assert config.gpu_pci_addrs[0][1] == ("0000:00:01.0", "", "0000:00:03.0")
        assert warnings == ["gpuPciAddrs: '^a' has no address for the GPU index 1, this GPU is left out"]


def test_all_gpus_without_an_address_are_named() -> None:
    addresses = ["", "0000:00:01.0", "", "", "", None, "0000:00:03.0", ""]
    _, warnings = parse_config({**NEEDED, "gpuPciAddrs": {"^a": addresses}})
    assert warnings == ["gpuPciAddrs: '^a' has no address for the GPU indices 0, 2-5, 7, these GPUs are left out"]


def patterns(by_host: NumberingByHost) -> list[str]:
    return [pattern.pattern for pattern, _ in by_host]


@pytest.mark.parametrize("numbering", list(Numbering))
def test_one_numbering_for_all_hosts(numbering: Numbering) -> None:
    config, warnings = parse_config({**NEEDED, "hwthreadNumbering": numbering.value})
    assert numbering_of("any", config.hwthread_numbering) is numbering
    assert (patterns(config.hwthread_numbering), warnings) == ([""], [])


def test_numberings_by_host() -> None:
    given = {"^a[0-9]": "interleaved", "2$": "cores", "^a": "block", "": "interleaved"}
    config, warnings = parse_config({**NEEDED, "hwthreadNumbering": given})
    found = {host: numbering_of(host, config.hwthread_numbering) for host in ("a1", "a2", "b2", "ax", "b")}
    expected = {"a1": "interleaved", "a2": "interleaved", "b2": "cores", "ax": "block", "b": "interleaved"}
    assert found == {host: Numbering(word) for host, word in expected.items()}
    assert (patterns(config.hwthread_numbering), warnings) == (list(given), [])

    for few in ({}, {"^a": "cores"}):
        config, warnings = parse_config({**NEEDED, "hwthreadNumbering": few})
        assert numbering_of("b1", config.hwthread_numbering) is Numbering.BLOCK
        assert (patterns(config.hwthread_numbering), warnings) == (list(few), [])


def test_lists_of_cpus_by_host() -> None:
    given = {"^a": [0, 2, 1, 3], "^b": [[0, 2], [1, 3]], "^c": "interleaved"}
    config, warnings = parse_config({**NEEDED, "hwthreadNumbering": given})
    assert numbering_of("a1", config.hwthread_numbering) == ((0,), (2,), (1,), (3,))
    assert numbering_of("b1", config.hwthread_numbering) == ((0, 2), (1, 3))
    assert numbering_of("c1", config.hwthread_numbering) is Numbering.INTERLEAVED
    assert (patterns(config.hwthread_numbering), warnings) == (list(given), [])

    config, warnings = parse_config({**NEEDED, "hwthreadNumbering": [1, 0]})
    assert numbering_of("any", config.hwthread_numbering) == ((1,), (0,))
    assert (patterns(config.hwthread_numbering), warnings) == ([""], [])


def test_names_of_hosts_are_rewritten_by_pairs() -> None:
    given = [
        ["^node([0-9]+)$", r"cn-\1.example.org"],
        [r"\.local$", ""],
        ["^(?P<rack>r[0-9])", r"\g<rack>x"],
        ["_", "-"],
    ]
    config, warnings = parse_config({**NEEDED, "hostnameRewrite": given})
    found = [[pattern.pattern, replacement] for pattern, replacement in config.hostname_rewrite]
    assert (found, warnings) == (given, [])


@pytest.mark.parametrize("key", ["ignorePartitions", "ignoreUsers"])
@pytest.mark.parametrize(
    ("value", "ignored", "kept"),
    [
        ("^test", ["test", "test1"], ["mytest", "alice"]),
        ("test|^adm$", ["mytest1", "adm"], ["admin"]),
        (["a.b", "c"], ["a.b", "c"], ["axb", "a.bc", "xc", "c\n", "a.b|c"]),
        (["^a|b$"], ["^a|b$"], ["a", "b"]),
        (["b\u00e4r"], ["b\u00e4r"], ["bar"]),
    ],
)
def test_partitions_and_users_by_expression_or_name(
    key: str, value: object, ignored: list[str], kept: list[str]
) -> None:
    config, warnings = parse_config({**NEEDED, key: value})
    pattern = {"ignorePartitions": config.ignore_partitions, "ignoreUsers": config.ignore_users}[key]
    assert pattern is not None
    assert [name for name in ignored + kept if pattern.search(name)] == ignored
    assert warnings == []


@pytest.mark.parametrize("nothing", ["", []])
def test_empty_values_ignore_nobody(nothing: object) -> None:
    config, warnings = parse_config({**NEEDED, "ignorePartitions": nothing, "ignoreUsers": nothing})
    assert (config.ignore_partitions, config.ignore_users, warnings) == (None, None, [])


@pytest.mark.parametrize("limit", [0, 1, 1 << 22])
def test_limit_of_job_scripts(limit: int) -> None:
    config, warnings = parse_config({**NEEDED, "jobScriptMaxBytes": limit})
    assert (config.job_script_max_bytes, warnings) == (limit, [])


def test_leftover_events_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tmp_path / "known"
    monkeypatch.setattr("cc_slurm_adapter.config.config.DEFAULT_EVENTS_PATH", str(known))
    path = write(tmp_path, {**NEEDED, "prepEventsPath": f"{tmp_path}/own/events"})
    assert load_config(path, explicit=True)[1] == []
    known.mkdir()
    (warning,) = load_config(path, explicit=True)[1]
    assert f"{tmp_path}/own/events is used, but {known} exists" in warning
    assert f"Remove {known}" in warning
    assert f"CC_SLURM_ADAPTER_EVENTS={tmp_path}/own/events" in warning
    assert load_config(write(tmp_path, {**NEEDED, "prepEventsPath": f"{known}/"}), explicit=True)[1] == []


SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJyb2xlcyI6WyJhcGkiXX0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ccRestUrl", "https://user:geheim@h"),
        ("ccRestUrl", "https://h/?token=geheim"),
        ("ccRestUrl", JWT),
        ("clusterName", "lab " + JWT),
        ("prepSockListenPath", "udp:user:geheim@h"),
        ("prepSockListenPath", "udp:" + JWT),
        ("prepAllow", ["user:geheim@h"]),
        ("prepAllow", JWT),
        ("natsServer", "nats://geheim@h x"),
        ("natsServer", "tls://user:geheim@h"),
        ("natsServer", f"{SEED}!"),
        ("slurmPollInterval", JWT),
        ("ccRestJwtFile", [JWT]),
    ],
)
def test_errors_never_show_what_may_be_secret(key: str, value: object) -> None:
    (problem,) = problems_of({**NEEDED, key: value})
    assert problem.startswith(f"{key}: got a text that may contain a secret, ")
    assert not any(secret in problem for secret in ("geheim", "eyJ", SEED))


def test_token_in_place_of_its_file_is_not_shown(tmp_path: Path) -> None:
    for token in (JWT, "4f6d9b3a" * 4, "Ab1" * 12):
        with pytest.raises(ConfigError) as caught:
            load_config(write(tmp_path, {**NEEDED, "ccRestJwtFile": token}), explicit=True)
        assert token not in str(caught.value)
        assert "ccRestJwtFile: cannot read a text that may contain a secret" in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    problems = problems_of({"natsServer": "h", "natsPort": 0, "slurmPollInterval": "x", "ignoreHosts": "("})
    assert [problem.partition(":")[0] for problem in problems] == [
        "slurmPollInterval",
        "ignoreHosts",
        "natsPort",
        "ccRestUrl",
        "ccRestJwt",
    ]


def test_secrets_are_never_shown() -> None:
    wrong = {"ccRestJwt": "geheim nis", "natsPassword": ["geheim"], "ccRestUrl": "http://u:geheim@h"}
    told = " ".join(problems_of({**wrong, "natsServer": "h"}))
    assert "geheim" not in told
    for key in wrong:
        assert key in told

    config, _ = parse_config({**EXISTING, "ccRestJwt": "geheim", "natsPassword": "geheim"})
    assert "geheim" not in repr(config)


def test_the_configuration_has_what_is_in_effect() -> None:
    config, _ = parse_config({**EXISTING, "prepAllow": ["10.0.0.7/8"]})
    addresses = {pattern.pattern: list(found) for pattern, found in config.gpu_pci_addrs}
    assert addresses == EXISTING["gpuPciAddrs"]
    assert config.ignore_hosts is not None
    assert config.ignore_hosts.pattern == EXISTING["ignoreHosts"]
    assert [str(network) for network in config.prep_allow] == ["10.0.0.0/8"]
    assert str(config.prep_sock_connect_path) == "tcp:[::1]:12345"
    assert (config.slurm_poll_interval, config.cc_rest_submit_jobs) == (30, True)
    assert config.cluster_name == ""
    assert (config.nats_servers, config.nats_jet_stream) == (("nats://nats.example.org:4333",), False)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://h/", "https://h"),
        ("https://h/api", "https://h"),
        ("https://h/api/", "https://h"),
        ("https://h/cc/", "https://h/cc"),
        ("https://h/cc/api//", "https://h/cc"),
    ],
)
def test_url_endings_are_tolerated(given: str, used: str) -> None:
    config, warnings = parse_config({**NEEDED, "ccRestUrl": given})
    assert config.cc_rest_url == used
    (warning,) = warnings
    assert "is ignored" in warning
    assert warning.endswith(f": write {used}")


def test_nothing_to_report_to_is_an_error() -> None:
    assert [problem.partition(":")[0] for problem in problems_of({})] == ["ccRestUrl", "ccRestJwt"]
    (problem,) = problems_of({**NEEDED, "ccRestSubmitJobs": False})
    assert problem == "natsServer: is missing and ccRestSubmitJobs is false: set it, or that to true"


def test_which_run_is_kept_is_chosen_by_a_word_and_needs_rest() -> None:
    assert parse_config(NEEDED)[0].requeued_runs == "first"
    config, warnings = parse_config({**NEEDED, "requeuedRuns": "last"})
    assert (config.requeued_runs, warnings) == ("last", [])
    _, warnings = parse_config({**NEEDED, "requeuedRuns": "last", "ccRestSubmitJobs": False, "natsServer": "h"})
    assert warnings == ["requeuedRuns: ignored because ccRestSubmitJobs is false"]


def test_relative_paths_are_taken_with_a_warning() -> None:
    config, warnings = parse_config({**NEEDED, "lastRunPath": "state/last", "prepSockListenPath": "unix:d.sock"})
    assert config.state_path == "state/state.sqlite"
    assert [warning.partition(":")[0] for warning in warnings] == ["prepSockListenPath", "lastRunPath"]


def test_byte_order_mark_and_repeated_keys(tmp_path: Path) -> None:
    text = '\ufeff{"ccRestUrl": "http://a", "ccRestJwt": "t", "ccRestUrl": "http://b", "CCRESTURL": "http://c"}'
    config, warnings = load_config(write(tmp_path, text), explicit=True)
    assert config.cc_rest_url == "http://c"
    assert sum("more than once" in warning for warning in warnings) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{\n  "natsPort" 1\n}', "line 2 column 14"),
        ('{"a": 1} x', "line 1 column 10"),
        ("", "the file is empty"),
        ("[]", "expected a JSON object"),
        ("5", "expected a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", ""),
    ],
)
def test_text_that_is_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, explicit=True)
    assert caught.value.problems[0].startswith(path)
    assert expected in caught.value.problems[0]


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 7\)"):
        load_config(str(path), explicit=True)


def test_file_that_is_missing_or_unreadable(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=re.escape(missing) + ".*after -config"):
        load_config(missing, explicit=True)
    with pytest.raises(ConfigError, match="create it, or name another file with -config"):
        load_config(missing, explicit=False)
    with pytest.raises(ConfigError, match=f"cannot read the configuration file {tmp_path}: Is a directory"):
        load_config(str(tmp_path), explicit=True)
    with pytest.raises(ConfigError, match="cannot read the configuration file"):
        load_config("a\0b", explicit=True)


def test_endless_file() -> None:
    with pytest.raises(ConfigError, match="longer than"):
        load_config("/dev/zero", explicit=True)


def test_token_file_wins_and_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("  first.token\n", encoding="ascii")
    token.chmod(0o640)
    config, warnings = load_config(write(tmp_path, {**NEEDED, "ccRestJwtFile": str(token)}), explicit=True)
    assert read_token(config) == "first.token"
    assert len(warnings) == 1
    assert "ccRestJwt: ignored" in warnings[0]
    token.write_text("second.token", encoding="ascii")
    assert read_token(config) == "second.token"


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", "t\u00e4g".encode(), b"x" * 70_000])
def test_unusable_token_files(tmp_path: Path, content: bytes) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    settings = {"ccRestUrl": "http://h", "ccRestJwtFile": str(token)}
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, settings), explicit=True)
    assert len(caught.value.problems) == 1
    assert f"ccRestJwtFile: {token}" in caught.value.problems[0]
    assert "words" not in caught.value.problems[0]


def test_unreadable_files_are_told_together(tmp_path: Path) -> None:
    files = {
        "ccRestJwtFile": "/nowhere/token",
        "prepSecretFile": "/nowhere/secret",
        "ccRestCaFile": "/nowhere/ca.pem",
        "natsCredsFile": "/nowhere/creds",
        "natsTlsCaFile": "/nowhere/nats-ca.pem",
        "natsTlsCertFile": "/nowhere/nats.pem",
        "natsTlsKeyFile": "/nowhere/nats.key",
    }
    settings = {**files, "ccRestUrl": "http://h", "natsServer": "h", "natsPort": 0, "xyzzy": 1}
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, settings), explicit=True)
    told = "\n".join(caught.value.problems)
    for key, path in files.items():
        assert f"{key}: cannot read {path}: No such file or directory" in told
    assert "natsPort" in told
    assert len(caught.value.problems) == 8
    (warning,) = caught.value.warnings
    assert "xyzzy" in warning, "no reason to refuse it, but told now and not only at the next start"


def test_systemd_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jwt").write_text("from.systemd", encoding="ascii")
    (tmp_path / "jwt").chmod(0o400)
    path = write(tmp_path, {"ccRestUrl": "http://h", "ccRestJwtFile": "jwt"})
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    config, warnings = load_config(path, explicit=True)
    assert (read_token(config), warnings) == ("from.systemd", [])


def test_prep_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef\n", encoding="ascii")
    config, _ = parse_config({**NEEDED, "prepSecretFile": str(secret)})
    assert read_prep_secret(config) == b"0123456789abcdef"
    secret.write_text("short", encoding="ascii")
    with pytest.raises(ConfigError, match="16 characters"):
        read_prep_secret(config)
    assert read_prep_secret(parse_config(NEEDED)[0]) is None


def test_secrets_that_everyone_can_read(tmp_path: Path) -> None:
    for mode, warned in ((0o644, True), (0o640, False)):
        _, warnings = load_config(write(tmp_path, NEEDED, mode), explicit=True)
        assert bool(warnings) is warned
        if warned:
            assert "ccRestJwt" in warnings[0]
            assert "chmod o-r" in warnings[0]


def test_secret_files_that_everyone_can_read(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t", encoding="ascii")
    token.chmod(0o644)
    settings = {"ccRestUrl": "http://h", "ccRestJwtFile": str(token)}
    _, warnings = load_config(write(tmp_path, settings, 0o644), explicit=True)
    assert len(warnings) == 1
    assert f"ccRestJwtFile: everyone on this host can read {token}" in warnings[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_config_without_permission(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Permission denied"):
        load_config(write(tmp_path, NEEDED, 0o000), explicit=True)


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        ("node", "xnode1", "nod"),
        (r"^n\d+\z", "n12", "n12x"),
        ("^[[:alpha:]]+$", "abc", "ab1"),
        ("^[^[:digit:]_]+$", "abc", "a1"),
        ("^[[:alnum:]-]+$", "a-1", "a_1"),
        ("^[[:upper:]x]$", "x", "y"),
        ("^[a[b]+$", "a[", "a]"),
        ("^[]a]+$", "]a", "b"),
        ("^[^]]$", "a", "]"),
        ("^[a&&b]+$", "a&", "a|"),
        ("^(?P<rack>r)1$", "r1", "r2"),
        ("(?i)^gpu", "GPU1", "xGPU"),
        (r"^\\z$", "\\z", "z"),
        (r"^\w$", "a", "\u00e4"),
        ("^[[:punct:]]+$", "!]-\\~", "a"),
        ("^[[:^digit:]]+$", "a-]\u00e4", "a1"),
        ("^[[:^alpha:]a]+$", "a1", "b1"),
        ("^[^[:^upper:]]$", "A", "a"),
        (r"^\x{61}[\x{62}-\x{0063}]$", "ac", "ad"),
        ("^(?<rack>r)1$", "r1", "r2"),
        (r"^\Qa.b[\E+$", "a.b[[", "axb["),
        (r"^a\Q.*", "a.*", "axx"),
        ("^ab{,3}$", "ab{,3}", "abb"),
        ("^ab{1,}$", "abb", "a"),
        ("(?i:GPU)[0-9]", "gpu1", "gpux"),
    ],
)
def test_patterns_mean_what_they_mean_in_go(pattern: str, found: str, not_found: str) -> None:
    compiled = compile_host_pattern(pattern)
    assert compiled.search(found)
    assert not compiled.search(not_found)


@pytest.mark.parametrize(
    "pattern", ["(", "[a", "a\\", r"\pL", r"\x{}", r"\x{110000}", "[[:foo:]]", "[[:^foo:]]", "a**", "[a--b]", "x(?i)y"]
)
def test_patterns_that_cannot_be_used(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_host_pattern(pattern)


@given(st.text(alphabet="ab[]^:-\\zdpQ(){}*+?|.&~,1<P>=!", max_size=12))
def test_any_pattern_compiles_or_is_refused(pattern: str) -> None:
    try:
        compile_host_pattern(pattern)
    except PatternError as error:
        assert str(error)


some_text = st.text(alphabet="ab1/:.[@ (\0\n\u00e4\ud800", max_size=8)
plain_values = st.none() | st.booleans() | st.integers() | st.floats() | some_text
json_values = plain_values | st.lists(plain_values, max_size=2) | st.dictionaries(some_text, st.lists(some_text))


@given(st.dictionaries(st.sampled_from([setting.key for setting in SETTINGS]), json_values, max_size=4))
def test_any_value_is_taken_or_told(settings: dict[str, object]) -> None:
    try:
        config, _ = parse_config({**NEEDED, **settings})
    except ConfigError as error:
        assert error.problems
        assert all("\n" not in problem for problem in error.problems)
    else:
        assert isinstance(hash(config), int)  # all of it is frozen


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_text_is_taken_or_told(data: bytes) -> None:
    try:
        parse_config_text(data)
    except ConfigError as error:
        assert error.problems


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("statePath", "lastRunPath"),
        ("statePath", "pidFilePath"),
        ("controlSockPath", "pidFilePath"),
        ("metricsListen", "controlSockPath"),
        ("lastRunPath", "ccRestJwtFile"),
        ("pidFilePath", "natsCredsFile"),
    ],
)
def test_what_is_written_is_nothing_else_that_is_named(key: str, other: str) -> None:
    settings: dict[str, object] = {
        **NEEDED,
        key: "/var/lib/x/one",
        other: "/var/lib/x/../x/one",
        "natsServer": "localhost",
    }
    if other == "ccRestJwtFile":
        del settings["ccRestJwt"]
    with pytest.raises(ConfigError) as failure:
        parse_config(settings)
    assert any("is the same file as" in line and key in line + other for line in failure.value.problems)


def test_the_control_socket_lies_beside_the_pid_file_unless_told_otherwise() -> None:
    config, _ = parse_config({**NEEDED, "pidFilePath": "/run/x/daemon.pid"})
    assert config.control_sock_path == "/run/x/control.sock"
    for given_as in ("/run/y/c.sock", "unix:/run/y/c.sock"):
        config, warnings = parse_config({**NEEDED, "controlSockPath": given_as})
        assert (config.control_sock_path, warnings) == ("/run/y/c.sock", [])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"controlSockPath": "tcp:127.0.0.1:1"}, "expected the path of a unix socket"),
        ({"controlSockPath": "/" + "x" * 107}, "108 bytes, a unix socket's path can have 107 at most"),
        ({"controlSockPath": "@abstract"}, "not a socket address"),
        ({"controlSockPath": 1}, "expected text"),
        ({"pidFilePath": "/" + "x" * 94 + "/d.pid"}, "beside pidFilePath, has 108 bytes"),
    ],
)
def test_control_sockets_that_cannot_be_made(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as failure:
        parse_config({**NEEDED, **settings})
    (problem,) = failure.value.problems
    assert problem.startswith("controlSockPath: ")
    assert expected in problem


def test_the_longest_default_of_the_control_socket() -> None:
    config, _ = parse_config({**NEEDED, "pidFilePath": "/" + "x" * 93 + "/d.pid"})
    assert len(config.control_sock_path) == 107


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9517", "127.9.9.9:1", "[::1]:9517", "localhost:9517", "/run/m.sock", ""]
)
def test_metrics_for_this_host_only(address: str) -> None:
    assert parse_config({**NEEDED, "metricsListen": address})[1] == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (":9517", "tcp::9517"),
        ("0.0.0.0:9517", "tcp:0.0.0.0:9517"),
        ("[::]:9517", "tcp:[::]:9517"),
        ("192.0.2.1:9517", "tcp:192.0.2.1:9517"),
        ("ctl1.example.org:9517", "tcp:ctl1.example.org:9517"),
    ],
)
def test_metrics_for_others_are_warned_about(address: str, shown: str) -> None:
    (warning,) = parse_config({**NEEDED, "metricsListen": address})[1]
    assert warning.startswith(
        f"metricsListen: anybody who reaches {shown} can read the metrics and the page. Listen on"
    )


@pytest.mark.parametrize(
    ("value", "expected"), [("9517", "localhost:9517"), (9517, "expected text"), ("/" + "x" * 107, "107 at most")]
)
def test_what_is_no_address_for_metrics(value: object, expected: str) -> None:
    with pytest.raises(ConfigError) as failure:
        parse_config({**NEEDED, "metricsListen": value})
    (problem,) = failure.value.problems
    assert problem.startswith("metricsListen: ")
    assert expected in problem


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_a_value_has_one_of_the_types_of_the_table(setting: Setting) -> None:
    """The manual page says which; all others are refused."""
    setting.parse(setting.default, lambda problem: None)
    for value in ("x", 5, True, ["x"], {"x": ["00000000:00:10.0"]}):
        if type(value) not in setting.types:
            with pytest.raises(WrongValue):
                setting.parse(value, lambda problem: None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hwthreadNumbering", [0, 1]),
        ("hwthreadNumbering", {"^a": "cores"}),
        ("ignorePartitions", ["a"]),
        ("ignoreUsers", ["b"]),
    ],
)
def test_some_keys_take_several_types(key: str, value: object) -> None:
    setting = BY_NAME[key.lower()]
    assert type(value) in setting.types
    setting.parse(value, lambda problem: None)

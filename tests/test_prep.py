"""Addresses, the message between hook and daemon, its signature, and the names of event files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter import prep
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.prep import BadMessage, HookMessage, SignatureCheck, TcpAddress, UnixAddress

SECRET = b"a shared secret of some length"
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/run/a.sock", "/run/a.sock"),
        ("unix:/run/a.sock", "/run/a.sock"),
        ("UNIX:/run/a.sock", "/run/a.sock"),
        ("unix:a.sock", "a.sock"),
        ("a.sock", "a.sock"),
        ("/run/a:b.sock", "/run/a:b.sock"),
        ("/" + "x" * 106, "/" + "x" * 106),
    ],
)
def test_unix_addresses(text: str, path: str) -> None:
    address = prep.parse_address(text)
    assert isinstance(address, UnixAddress)
    assert address.path == path


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("tcp:127.0.0.1:12345", "127.0.0.1", 12345, "tcp:127.0.0.1:12345"),
        ("TCP:0.0.0.0:1", "0.0.0.0", 1, "tcp:0.0.0.0:1"),
        ("tcp:[::1]:12345", "::1", 12345, "tcp:[::1]:12345"),
        ("tcp:[::]:65535", "::", 65535, "tcp:[::]:65535"),
        ("tcp::12345", "", 12345, "tcp::12345"),
        ("tcp4:127.0.0.1:12345", "127.0.0.1", 12345, "tcp:127.0.0.1:12345"),
        ("tcp4::12345", "0.0.0.0", 12345, "tcp:0.0.0.0:12345"),
        ("tcp6:[::1]:12345", "::1", 12345, "tcp:[::1]:12345"),
        ("tcp6::12345", "::", 12345, "tcp:[::]:12345"),
        ("tcp:ctl-1.example.org:12345", "ctl-1.example.org", 12345, "tcp:ctl-1.example.org:12345"),
    ],
)
def test_tcp_addresses(text: str, host: str, port: int, shown: str) -> None:
    address = prep.parse_address(text)
    assert isinstance(address, TcpAddress)
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "unix:@abstract",
        "/a\0b",
        "udp:127.0.0.1:1",
        "http://h:1",
        "tcp:",
        "tcp:1",
        "tcp:host",
        "tcp:host:",
        "tcp:host:0",
        "tcp:host:65536",
        "tcp:host:-1",
        "tcp:host:\u0661",
        "tcp:::1:12345",
        "tcp:[::1]",
        "tcp:[host]:1",
        "tcp:[]:1",
        "tcp:a b:1",
    ],
)
def test_addresses_that_are_none_name_the_forms(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prep.parse_address(text)
    assert repr(text) in str(caught.value) or "@" in text
    assert "tcp:host:12345" in str(caught.value)


def test_unix_path_that_is_too_long() -> None:
    with pytest.raises(ConfigError, match="108 bytes, a unix socket's path can have 107"):
        prep.parse_address("/" + "x" * 107)
    with pytest.raises(ConfigError, match="109 bytes"):
        prep.parse_address("unix:/" + "\u00e4" * 54)


@given(st.text(max_size=40) | st.text(alphabet="tcpunix:[]./0123456789", max_size=25))
def test_any_address_is_understood_or_told(text: str) -> None:
    try:
        address = prep.parse_address(text)
    except ConfigError as error:
        assert error.problems
    else:
        assert str(prep.parse_address(str(address))) == str(address)


def test_message_has_all_keys_and_comes_back() -> None:
    environ = {
        "SLURM_JOB_ID": "4711",
        "SLURM_SCRIPT_CONTEXT": "prolog_slurmctld",
        "SLURM_CLUSTER_NAME": "lab",
        "SLURM_JOB_COMMENT": "nobody needs it",
        "HOME": "/root",
    }
    encoded = prep.encode(environ)
    values = json.loads(encoded)
    assert set(values) == set(prep.VARIABLES)
    assert len(values) == 39
    assert values["SLURM_JOB_COMMENT"] == values["SLURM_WCKEY"] == ""
    message = prep.decode(encoded)
    assert (message.job_id, message.context, message.cluster) == (4711, "prolog_slurmctld", "lab")


def test_message_is_short_whatever_the_environment_holds() -> None:
    encoded = prep.encode({"SLURM_JOB_ID": "1", "SLURM_CLUSTER_NAME": "lab", "SLURM_SCRIPT_CONTEXT": "x" * 70_000})
    assert len(encoded) < prep.MAX_MESSAGE
    message = prep.decode(encoded)
    assert (message.job_id, message.cluster) == (1, "lab")


@pytest.mark.parametrize("name", ["1..lab.1", "0...1", "9" * 20 + ".prolog_slurmctld.aZ09_-x.77"])
def test_names_that_the_shell_part_can_leave_look_like_events(name: str) -> None:
    assert prep.looks_like_event(name)
    assert not prep.looks_like_event(name + ".swp")
    assert not prep.is_marker_name(name)


@pytest.mark.parametrize("cluster", ["lab", "", "a b", "../x"])
def test_marks_have_names_of_their_own(cluster: str) -> None:
    name = prep.marker_name(cluster)
    assert prep.is_marker_name(name)
    assert not prep.looks_like_event(name)
    assert "/" not in name


def test_only_the_job_id_is_needed() -> None:
    message = prep.decode(b'{"SLURM_JOB_ID": "5"}')
    assert (message.job_id, message.context, message.cluster) == (5, "", "")


def test_odd_context_and_cluster_count_as_not_given() -> None:
    values = {"SLURM_JOB_ID": "5", "SLURM_SCRIPT_CONTEXT": "../x", "SLURM_CLUSTER_NAME": "a\nb"}
    message = prep.decode(json.dumps(values).encode())
    assert (message.context, message.cluster) == ("", "")
    message = prep.decode(b'{"SLURM_JOB_ID": "5", "SLURM_SCRIPT_CONTEXT": 1, "SLURM_CLUSTER_NAME": []}')
    assert (message.context, message.cluster) == ("", "")


@pytest.mark.parametrize(
    "job_id", ["", "0", "-1", "+1", "1.5", "1 ", "\u00b2", "\u0661", "9" * 19, "9" * 5000, str(2**31), 5, None, True]
)
def test_job_ids_that_are_none(job_id: object) -> None:
    with pytest.raises(BadMessage, match="SLURM_JOB_ID"):
        prep.decode(json.dumps({"SLURM_JOB_ID": job_id}).encode())


def test_largest_job_id() -> None:
    assert prep.decode(json.dumps({"SLURM_JOB_ID": str(2**31 - 1)}).encode()).job_id == 2**31 - 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000, b'{"a":' * 20_000, b"9" * 60_000])
def test_bytes_that_are_no_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        prep.decode(data)


@given(
    st.binary(max_size=80)
    | st.dictionaries(
        st.sampled_from(prep.VARIABLES), st.text(max_size=5) | st.integers() | st.none() | st.lists(st.integers())
    ).map(lambda values: json.dumps(values).encode())
)
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    try:
        message = prep.decode(data)
    except BadMessage as error:
        assert str(error)
    else:
        assert 0 < message.job_id <= prep.MAX_JOB_ID


def test_event_names() -> None:
    assert prep.event_name(HookMessage(7, "prolog_slurmctld", "lab"), 99) == "7.prolog_slurmctld.lab.99"
    assert prep.event_name(HookMessage(7, "", ""), 99) == "7...99"
    assert prep.event_name(HookMessage(7, "", "no/such.cluster"), 99) == "7...99"

    event = prep.parse_event_name("7.epilog_slurmctld.my-Lab_1.99")
    assert event is not None
    assert (event.job_id, event.context, event.cluster) == (7, "epilog_slurmctld", "my-Lab_1")
    event = prep.parse_event_name("7...99")
    assert event is not None
    assert (event.job_id, event.context, event.cluster) == (7, "", "")


@pytest.mark.parametrize(
    "name",
    [
        *("", "7", "7.a.b", "7.a.b.", ".a.b.1", "0.a.b.1", "x.a.b.1", "7.A.b.1", "7.a.b c.1", "7.a.b.1.2"),
        *("7.a.b.1\n", f"{2**31}.a.b.1", "\u0667.a.b.1", "7.a.b.\u0667", ".nfs0001", "9" * 200),
    ],
)
def test_names_that_are_no_events(name: str) -> None:
    assert prep.parse_event_name(name) is None


@given(st.text(max_size=30) | st.text(alphabet="0123456789abz_.-", max_size=30))
def test_any_name_is_an_event_or_not(name: str) -> None:
    event = prep.parse_event_name(name)
    if event is not None:
        again = prep.parse_event_name(prep.event_name(event, 1))
        assert again is not None
        assert again.job_id == event.job_id


def test_signed_message_is_taken_once() -> None:
    check = SignatureCheck(SECRET)
    signed = prep.sign(b'{"a": 1}', SECRET, NOW)
    assert not signed.startswith(b"{")
    assert check.open(signed, NOW + 1) == b'{"a": 1}'
    with pytest.raises(BadMessage, match="twice"):
        check.open(signed, NOW + 2)
    assert check.open(prep.sign(b'{"a": 1}', SECRET, NOW), NOW) == b'{"a": 1}'


@pytest.mark.parametrize("offset", [-61, 61, 3600, -1e9])
def test_message_of_another_time(offset: float) -> None:
    with pytest.raises(BadMessage, match="clocks differ"):
        SignatureCheck(SECRET).open(prep.sign(b"{}", SECRET, NOW), NOW + offset)


@pytest.mark.parametrize("offset", [-59, 59])
def test_clocks_may_differ_a_little(offset: float) -> None:
    assert SignatureCheck(SECRET).open(prep.sign(b"{}", SECRET, NOW), NOW + offset) == b"{}"


def test_repeated_message_is_refused_as_long_as_it_is_valid() -> None:
    check = SignatureCheck(SECRET)
    early = prep.sign(b"{}", SECRET, NOW)
    assert check.open(early, NOW - 59) == b"{}"
    for later in (NOW, NOW + 30, NOW + 59):
        check.open(prep.sign(b"{}", SECRET, later), later)
        with pytest.raises(BadMessage, match="twice"):
            check.open(early, later)


def test_wrong_secret_and_changed_messages() -> None:
    check = SignatureCheck(SECRET)
    with pytest.raises(BadMessage, match="different secrets"):
        check.open(prep.sign(b"{}", b"another secret, as long", NOW), NOW)
    signed = prep.sign(b'{"SLURM_JOB_ID": "1"}', SECRET, NOW)
    for changed in (signed.replace(b'"1"', b'"2"'), signed.replace(b" 18", b" 19"), signed + b" "):
        with pytest.raises(BadMessage, match="different secrets"):
            check.open(changed, NOW)


@pytest.mark.parametrize("message", [b"", b"{}", b"HMAC-SHA256 ", b"HMAC-SHA256 1 2 3\n{}", b"\xff\n{}"])
def test_unsigned_messages(message: bytes) -> None:
    with pytest.raises(BadMessage, match="not signed"):
        SignatureCheck(SECRET).open(message, NOW)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_the_signature(data: bytes) -> None:
    check = SignatureCheck(SECRET)
    for message in (data, b"HMAC-SHA256 " + data):
        with pytest.raises(BadMessage):
            check.open(message, NOW)


def test_memory_of_signatures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prep, "REMEMBERED_NONCES", 10)
    check = SignatureCheck(SECRET)
    for _ in range(50):
        check.open(prep.sign(b"{}", SECRET, NOW), NOW)
    assert len(check._seen) == 10
    check.open(prep.sign(b"{}", SECRET, NOW + 500), NOW + 500)
    assert len(check._seen) == 1


def test_both_forms_are_told_apart() -> None:
    assert prep.split_signature(b'{"a": 1}') == (b"", b'{"a": 1}')
    line, body = prep.split_signature(prep.sign(b'{"a": 1}', SECRET, NOW))
    assert line.startswith(b"HMAC-SHA256 1800000000 ")
    assert body == b'{"a": 1}'

"""Socket addresses as the configuration has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress, parse_address, parse_listen_address
from cc_slurm_adapter.errors import ConfigError


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
    address = parse_address(text)
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
    address = parse_address(text)
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
        parse_address(text)
    assert repr(text) in str(caught.value) or "@" in text
    assert "tcp:host:12345" in str(caught.value)


def test_unix_path_that_is_too_long() -> None:
    with pytest.raises(ConfigError, match="108 bytes, a unix socket's path can have 107"):
        parse_address("/" + "x" * 107)
    with pytest.raises(ConfigError, match="109 bytes"):
        parse_address("unix:/" + "\u00e4" * 54)


@given(st.text(max_size=40) | st.text(alphabet="tcpunix:[]./0123456789", max_size=25))
def test_any_address_is_understood_or_told(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigError as error:
        assert error.problems
    else:
        assert str(parse_address(str(address))) == str(address)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:9517", "tcp:127.0.0.1:9517"),
        ("[::1]:9517", "tcp:[::1]:9517"),
        ("localhost:9517", "tcp:localhost:9517"),
        (":9517", "tcp::9517"),
        ("ctl1.example.org:9517", "tcp:ctl1.example.org:9517"),
        ("tcp:127.0.0.1:9517", "tcp:127.0.0.1:9517"),
        ("/run/m.sock", "/run/m.sock"),
        ("unix:/run/m.sock", "/run/m.sock"),
    ],
)
def test_addresses_of_metrics_need_no_scheme(text: str, shown: str) -> None:
    assert str(parse_listen_address(text)) == shown


@pytest.mark.parametrize(
    "text", ["9517", "localhost", "metrics.sock", "::1:9517", "127.0.0.1:0", "127.0.0.1:65536", ":"]
)
def test_what_is_no_address_of_metrics_names_the_forms(text: str) -> None:
    with pytest.raises(ConfigError, match=r"\[::1\]:9517, localhost:9517"):
        parse_listen_address(text)


@given(st.text(max_size=40) | st.text(alphabet="tcpunix:[]./0123456789", max_size=25))
def test_any_address_of_metrics_is_understood_or_told(text: str) -> None:
    try:
        address = parse_listen_address(text)
    except ConfigError as error:
        assert error.problems
    else:
        assert str(parse_listen_address(str(address))) == str(address)

"""One parser for each kind of value in the configuration: from JSON to what the program uses.

A parser takes the JSON value and a function for warnings. It raises `WrongValue` with a text that says what is
expected. The caller adds the key and the value.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Callable, Union
from urllib.parse import urlsplit

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress, parse_address, parse_listen_address
from cc_slurm_adapter.config.file import DEFAULT_SOCKET_PATH
from cc_slurm_adapter.config.host_pattern import PatternError, compile_host_pattern
from cc_slurm_adapter.config.hostnames import HostnameRewrites
from cc_slurm_adapter.config.proxy import NONE, parse_proxy
from cc_slurm_adapter.config.secrets import presentable
from cc_slurm_adapter.errors import ConfigError
from cc_slurm_adapter.model import CpuNumbers, Numbering, NumberingByHost
from cc_slurm_adapter.system.quantities import ranges

Warn = Callable[[str], None]
Parser = Callable[[object, Warn], object]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
GpuPciAddrs = tuple[tuple["re.Pattern[str]", tuple[str, ...]], ...]

LARGEST_NUMBER = 2**31 - 1


class WrongValue(ValueError):
    """A value that cannot be used. The text says what is expected instead.

    It does not contain the value itself, which may be a secret.
    """


def text(value: object, warn: Warn) -> str:
    """Accept any text, including ''."""
    if not isinstance(value, str):
        raise WrongValue("expected text in quotes")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise WrongValue("expected text without zero bytes or unpaired surrogates")
    return value


def word(value: object, warn: Warn) -> str:
    """Accept text without white space, including ''."""
    found = text(value, warn)
    if any(char.isspace() for char in found):
        raise WrongValue("expected text without white space")
    return found


def _required(found: str, expected: str) -> str:
    if not found:
        raise WrongValue(expected)
    return found


def token(value: object, warn: Warn) -> str:
    """Accept a token that an HTTP header can contain, or ''. White space around it is removed."""
    found = text(value, warn).strip()
    check_token(found)
    return found


def check_token(found: str) -> None:
    """Raise WrongValue if an HTTP header cannot contain the text."""
    if not all("!" <= char <= "~" for char in found):
        raise WrongValue("expected a token in ASCII without white space")


def optional_path(value: object, warn: Warn) -> str:
    """Accept a path, or '' for none."""
    found = text(value, warn)
    if any(char < " " or char == "\x7f" for char in found):
        raise WrongValue("expected a path without control characters, such as line feeds")
    if found and not found.startswith("/"):
        warn("it is relative to the working directory; write an absolute path")
    return found


def path(value: object, warn: Warn) -> str:
    """Accept a path that is not empty."""
    return _required(optional_path(value, warn), "expected a path")


def secret_file(value: object, warn: Warn) -> str:
    """Accept the path of a secret's file, the name of a systemd credential, or '' for none."""
    return text(value, warn) if "CREDENTIALS_DIRECTORY" in os.environ else optional_path(value, warn)


def address(value: object, warn: Warn) -> UnixAddress | TcpAddress:
    """Accept a socket address in one of the forms of `parse_address`."""
    try:
        found = parse_address(text(value, warn))
    except ConfigError as error:
        raise WrongValue(str(error)) from None
    if isinstance(found, UnixAddress):
        optional_path(found.path, warn)
    return found


def hook_address(value: object, warn: Warn) -> UnixAddress | TcpAddress:
    """Accept a socket address for a setting that the daemon does not use. '' means the default."""
    if value == "":
        warn(f"is empty, using {DEFAULT_SOCKET_PATH}")
        return UnixAddress(DEFAULT_SOCKET_PATH)
    return address(value, warn)


def unix_socket(value: object, warn: Warn) -> str:
    """Accept the path of a unix socket, or '' for none."""
    if value == "":
        return ""
    found = address(value, warn)
    if not isinstance(found, UnixAddress):
        raise WrongValue("expected the path of a unix socket")
    return found.path


def listen_address(value: object, warn: Warn) -> UnixAddress | TcpAddress | None:
    """Accept a socket address in one of the forms of `parse_listen_address`, or '' for none."""
    if value == "":
        return None
    try:
        found = parse_listen_address(text(value, warn))
    except ConfigError as error:
        raise WrongValue(str(error)) from None
    if isinstance(found, UnixAddress):
        optional_path(found.path, warn)
    return found


def is_loopback(address: TcpAddress) -> bool:
    """Return whether only this host itself can reach the address. A name other than localhost is not resolved."""
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host.lower() == "localhost"


def boolean(value: object, warn: Warn) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise WrongValue("expected true or false")
    return value


def whole_number(low: int, high: int = LARGEST_NUMBER) -> Parser:
    """Make a parser that accepts a whole number within the limits. 60.0, "60" and true are refused."""

    def parse(value: object, warn: Warn) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise WrongValue(f"expected a whole number from {low} to {high}")
        return value

    return parse


def one_of(*words: str) -> Parser:
    """Make a parser that accepts one of these words."""

    def parse(value: object, warn: Warn) -> str:
        if value not in words:
            raise WrongValue(f"expected {' or '.join(json.dumps(each) for each in words)}")
        return str(value)

    return parse


def at_least(low: int, high: int = LARGEST_NUMBER) -> Parser:
    """Make a parser of whole numbers. One beyond the limits becomes the nearest limit, as in the existing adapter."""

    def parse(value: object, warn: Warn) -> object:
        if _is_below(low, value):
            warn(f"{_few_digits(value)} is below {low}, using {low}")
            return low
        return _at_most(high, whole_number(low, sys.maxsize)(value, warn), warn)

    return parse


def _at_most(high: int, value: object, warn: Warn) -> object:
    if _is_below(high + 1, value):
        return value
    warn(f"{_few_digits(value)} is above {high}, using {high}")
    return high


def _few_digits(value: object) -> str:
    return str(value)[:20]


def seconds_or_every_poll(value: object, warn: Warn) -> object:
    """Accept a whole number of seconds, or 0 for every poll of Slurm. A number that is too low becomes 0."""
    if _is_below(1, value):
        warn(f"{_few_digits(value)} is below 1, using slurmPollInterval")
        return 0
    return at_least(1)(value, warn)


def _is_below(low: int, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value < low


def rest_url(value: object, warn: Warn) -> str:
    """Accept cc-backend's address without the path of its API, or ''. A path before that is kept."""
    found = text(value, warn)
    if not found:
        return ""
    _check_url(found)
    used = found.rstrip("/")
    if used.endswith("/api"):
        used = used[: -len("/api")].rstrip("/")
        warn(f"'/api' at the end is ignored, the program adds it itself: write {used}")
    elif used != found:
        warn(f"the slash at the end is ignored: write {used}")
    return used


def _check_url(url: str) -> None:
    expected = "expected http(s)://HOST[:PORT], for example https://cc-backend.example.org"
    if "@" in url:
        raise WrongValue(f"{expected}, without user name and password")
    if "?" in url or "#" in url or not all("!" <= char <= "~" for char in url):
        raise WrongValue(f"{expected}, in ASCII without white space, '?' and '#'")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise WrongValue(expected)


def proxy(value: object, warn: Warn) -> str:
    """Accept the address of a proxy, 'none', or ''."""
    found = word(value, warn)
    if found.lower() == NONE:
        return NONE
    if found:
        try:
            parse_proxy(found)
        except ValueError as error:
            raise WrongValue(f"{error}, or 'none' for no proxy") from None
    return found


_LABEL = r"\w(?:[\w-]{0,61}\w)?"
_NATS_SERVER = re.compile(
    rf"(?:(nats|tls)://)?({_LABEL}(?:\.{_LABEL})*\.?|\[[\w:.%-]+\])(?::(\d{{1,5}}))?/?", re.ASCII | re.IGNORECASE
)
_NATS_EXPECTED = (
    "expected HOST, nats://HOST[:PORT] or tls://HOST[:PORT], or several of them separated by commas, "
    "with IPv6 addresses in brackets"
)


def nats_servers(value: object, warn: Warn) -> tuple[str, ...]:
    """Accept the URLs of NATS servers, each with a port if one is given; () for ''."""
    found = text(value, warn)
    if "@" in found:
        raise WrongValue(f"{_NATS_EXPECTED}; user name and password are set by natsUser and natsPassword")
    return tuple(_nats_url(server.strip()) for server in found.split(",")) if found else ()


def _nats_url(server: str) -> str:
    match = _NATS_SERVER.fullmatch(server)
    scheme, host, port = match.groups() if match else ("", "", "")
    if not host or (port and not 1 <= int(port) <= 65535) or (host[0] == "[" and not _is_ipv6(host[1:-1])):
        raise WrongValue(f"{_NATS_EXPECTED}; {presentable(repr(server))} is none of these")
    return f"{(scheme or 'nats').lower()}://{host}" + (f":{int(port)}" if port else "")


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def with_port(url: str, port: int) -> str:
    """Return the URL with this port unless it has one."""
    return url if urlsplit(url).port else f"{url}:{port}"


def subject(value: object, warn: Warn) -> str:
    """Accept a NATS subject to publish under."""
    return _required(optional_subject(value, warn), "expected a subject, for example jobs")


def optional_subject(value: object, warn: Warn) -> str:
    """Accept a NATS subject to publish under, or '' for none."""
    found = text(value, warn)
    if found and ("" in found.split(".") or any(char.isspace() or char in "*>" for char in found)):
        raise WrongValue(
            "expected a subject, for example site.jobs: no white space, '*' and '>', no dot at an end or beside a dot"
        )
    return found


def regex(value: object, warn: Warn) -> re.Pattern[str] | None:
    """Accept a regular expression on names, or None for ''."""
    pattern = text(value, warn)
    return _compiled(pattern) if pattern else None


def names(value: object, warn: Warn) -> re.Pattern[str] | None:
    """Accept a regular expression on names or a list of exact names, or None for '' and []."""
    expected = "expected a regular expression or a list of names"
    if isinstance(value, str):
        return regex(value, warn)
    if not isinstance(value, list):
        raise WrongValue(expected)
    for item in value:
        if not isinstance(item, str) or not item or text(item, warn) != item.strip():
            raise WrongValue(f"{expected}; {json.dumps(item)[:40]} is not a name")
    return re.compile(rf"\A(?:{'|'.join(map(re.escape, value))})\Z") if value else None


LARGEST_CPU = 65535
"""Slurm counts CPUs in 16 bits."""
_WORDS = ", ".join(numbering.value for numbering in Numbering)


def hwthread_numbering(value: object, warn: Warn) -> NumberingByHost:
    """Accept pairs of a regular expression on host names and a numbering. One value alone is for all hosts.

    A numbering is a word or a list. A list has, for each of Slurm's CPUs, the operating system's number or a list of
    such numbers.
    """
    by_host = value if isinstance(value, dict) else {"": value}
    wrong = [
        f"{repr(pattern) if pattern else 'it'} {problem}"
        for pattern, numbering in by_host.items()
        if (problem := _wrong_numbering(numbering))
    ]
    if wrong:
        expected = f'expected one of {_WORDS}, a list of CPU numbers, or {{"regex of hosts": one of these, ...}}'
        raise WrongValue("; ".join([expected, *wrong]))
    return tuple((_compiled(text(pattern, warn)), _numbering(each)) for pattern, each in by_host.items())


def _wrong_numbering(value: object) -> str:
    """Return what is wrong with the numbering of hosts; '' for nothing."""
    if not isinstance(value, list):
        return "" if value in [each.value for each in Numbering] else f"has the value {presentable(json.dumps(value))}"
    if not value:
        return "has an empty list"
    seen: set[int] = set()
    for at, cpu in enumerate(value):
        for number in cpu if isinstance(cpu, list) and cpu else [cpu]:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LARGEST_CPU:
                shown = presentable(json.dumps(number)[:40])
                return f"has {shown} for CPU {at}, expected whole numbers from 0 to {LARGEST_CPU}"
            if number in seen:
                return f"has {number} for CPU {at}, and for one before it: each number may occur once"
            seen.add(number)
    return ""


def _numbering(value: object) -> Numbering | CpuNumbers:
    """Return the numbering for a value that nothing is wrong with."""
    if isinstance(value, list):
        return tuple(tuple(cpu) if isinstance(cpu, list) else (cpu,) for cpu in value)
    return Numbering(value)


_GROUP = re.compile(r"\\(?:[1-9][0-9]?|g<\w+>)", re.ASCII)
_IN_NAMES = re.compile(r"[A-Za-z0-9._-]*\Z")
_SAMPLE = "node01"


def hostname_rewrite(value: object, warn: Warn) -> HostnameRewrites:
    """Accept pairs of a regular expression on host names and a replacement as in Python's re.sub, in their order."""
    expected = 'expected a list of pairs ["regex of hosts", "replacement"]'
    if not isinstance(value, list):
        raise WrongValue(expected)
    pairs = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            raise WrongValue(f"{expected}; {presentable(json.dumps(pair)[:80])} is none")
        pattern, replacement = (text(each, warn) for each in pair)
        _required(pattern, f"{expected}; the pattern of {json.dumps(pair)[:80]} is empty")
        compiled = _compiled(pattern)
        _check_replacement(compiled, pattern, replacement)
        pairs.append((compiled, replacement))
    return tuple(pairs)


def _check_replacement(compiled: re.Pattern[str], pattern: str, replacement: str) -> None:
    where = f"in the replacement {replacement!r} of {pattern!r}"
    try:
        compiled.sub(replacement, _SAMPLE)
    except (re.error, IndexError) as error:
        raise WrongValue(f"expected groups that the pattern has, written \\1 or \\g<name>; {where}: {error}") from None
    if not _IN_NAMES.match(_GROUP.sub("", replacement)):
        raise WrongValue(f"expected letters, digits, dots, '-', '_' and groups written \\1 or \\g<name> {where}")
    found = [match.span() for match in compiled.finditer(_SAMPLE)]
    if len(found) > 1 and any(first == last for first, last in found):
        # r".*" matches a name, and then the empty text after it: the replacement would be made twice.
        raise WrongValue(f"expected a pattern that matches once; {pattern!r} also matches nothing: begin it with ^")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return compile_host_pattern(pattern)
    except PatternError as error:
        raise WrongValue(f"expected a regular expression, but in {pattern!r}: {error}") from None


_PCI_ADDRESS = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]\Z")


def gpu_pci_addrs(value: object, warn: Warn) -> GpuPciAddrs:
    """Accept pairs of a regular expression on host names and PCI addresses in Slurm's order.

    An address may be '' for a GPU without one.
    """
    expected = 'expected {"regex of hosts": ["PCI address", ...], ...}'
    if not isinstance(value, dict):
        raise WrongValue(expected)
    pairs = []
    for pattern, addresses in value.items():
        listed = [] if addresses is None else addresses
        if not isinstance(listed, list) or not all(item is None or isinstance(item, str) for item in listed):
            raise WrongValue(f"{expected}; the value of {pattern!r} is not a list of addresses")
        found = tuple(text(item or "", warn) for item in listed)
        if "" in found:
            warn(f"{pattern!r} has no address for {_gpus_without_address(found)} left out")
        odd = [address for address in found if address and not _PCI_ADDRESS.match(address)]
        if odd:
            warn(f"{', '.join(map(repr, odd))} of {pattern!r} is not of the form 00000000:0E:00.0 of a PCI address")
        pairs.append((_compiled(pattern), found))
    return tuple(pairs)


def _gpus_without_address(addresses: Sequence[str]) -> str:
    """Return which GPUs have none, with the beginning of what happens to them: `the GPU index 1, this GPU is`."""
    lacking = [index for index, address in enumerate(addresses) if not address]
    if len(lacking) == 1:
        return f"the GPU index {lacking[0]}, this GPU is"
    return f"the GPU indices {ranges(lacking)}, these GPUs are"


_GRES_NAME = re.compile(r"[A-Za-z0-9_.+-]+\Z")
_SHARES = ("shard", "mps")


def gres_names(value: object, warn: Warn) -> tuple[str, ...]:
    """Accept names of GRES in the file's order: at least one, and none twice."""
    expected = 'expected a list of names of GRES without their types, for example ["gpu", "npu"]'
    if not isinstance(value, list) or not value:
        raise WrongValue(expected)
    names = [text(item, warn) if isinstance(item, str) else "" for item in value]
    for item, name in zip(value, names):
        if not _GRES_NAME.match(name):
            raise WrongValue(f"{expected}; {presentable(json.dumps(item))} is not a name")
        if name in _SHARES:
            raise WrongValue(f"{expected}; {name!r} are shares of the devices called gpu and counted as such")
        if names.count(name) > 1:
            raise WrongValue(f"{expected}; {name!r} occurs twice")
    return tuple(names)


def networks(value: object, warn: Warn) -> tuple[Network, ...]:
    """Accept IP addresses and networks."""
    expected = 'expected a list of IP addresses and networks, for example ["10.1.0.5", "10.2.0.0/16"]'
    if not isinstance(value, list):
        raise WrongValue(expected)
    found = []
    for item in value:
        try:
            found.append(ipaddress.ip_network(text(item, warn), strict=False))
        except ValueError:
            raise WrongValue(f"{expected}; {presentable(repr(item))} is none") from None
    return tuple(found)

"""Decodes the messages for NATS: points of InfluxDB's line protocol, with string fields only.

The decoder here follows InfluxDB's reference and is stricter: one point, ended by one newline; no control characters
outside of strings, as cc-backend's decoder wants it; in strings only the two escapes that all decoders read alike.
Every message is also decoded by the package line-protocol-parser, and both must say the same. That package needs
Python 3.10 and refuses NUL; for these the decoder here is alone.
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any, NamedTuple

from examples.practice.cc_backend.api import Request
from examples.practice.cc_backend.state import CcBackend

_MEASUREMENT = r"(?:\\[, ]|\\(?![, ])|[^\\, \x00-\x1f\x7f])+"
_WORD = r"(?:\\[,= ]|\\(?![,= ])|[^\\,= \x00-\x1f\x7f])+"
"""A tag's name or value, or a field's name. A backslash before anything but these three is just that."""
_STRING = r'[^"\\]*(?:\\["\\][^"\\]*)*'
_TAG = re.compile(rf",({_WORD})=({_WORD})")
_FIELD = re.compile(rf'[ ,]({_WORD})="({_STRING})"')
_POINT = re.compile(
    rf'({_MEASUREMENT})((?:,{_WORD}={_WORD})*)( {_WORD}="{_STRING}"(?:,{_WORD}="{_STRING}")*) (-?[0-9]+)\n'
)


class Point(NamedTuple):
    """What a message says; `time_ns` are nanoseconds of Unix time."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, str]
    time_ns: int


class NoPoint(Exception):
    """It is not exactly one point, or the two decoders do not agree."""


def decode(message: bytes) -> Point:
    """The one point in a message. Raises NoPoint."""
    text = message.decode("utf-8")
    point = decode_strictly(text)
    other = decode_by_package(text)
    if other is not None and other != point:
        raise NoPoint(f"{message!r} is {point} here and {other} there")
    return point


def take_in(backend: CcBackend, message: bytes) -> int:
    """The status with which cc-backend's strict decoder and tables answer what a message says."""
    point = decode(message)
    path = "/api/nodestate/" if point.measurement == "nodestate" else f"/api/jobs/{point.tags['function']}/"
    return backend.answer(Request("POST", path, token=backend.token, body=point.fields["event"].encode())).status


def decode_strictly(text: str) -> Point:
    found = _POINT.fullmatch(text)
    if found is None or text.startswith("#"):
        raise NoPoint(f"{text[:200]!r} is not exactly one point")
    measurement, tags, fields, time_ns = found.groups()
    return Point(
        re.sub(r"\\([, ])", r"\1", measurement),
        by_name([(unescape(name), unescape(value)) for name, value in _TAG.findall(tags)]),
        by_name([(unescape(name), re.sub(r"\\(.)", r"\1", value)) for name, value in _FIELD.findall(fields)]),
        int(time_ns),
    )


def unescape(word: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", word)


def by_name(pairs: list[tuple[str, str]]) -> dict[str, str]:
    named = dict(pairs)
    if len(named) != len(pairs):
        raise NoPoint(f"a name occurs twice: {[name for name, _ in pairs]}")
    return named


def decode_by_package(text: str) -> Point | None:
    """What line-protocol-parser says; None where it cannot tell."""
    if sys.version_info < (3, 10) or "\0" in text:
        return None
    package: Any = importlib.import_module("line_protocol_parser")
    try:
        said = package.parse_line(text)
    except package.LineFormatError as error:
        raise NoPoint(f"{text[:200]!r}: {error}") from error
    return Point(said["measurement"], said["tags"], said["fields"], said["time"])

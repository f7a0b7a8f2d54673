"""JSON as cc-backend reads and writes it.

cc-backend is written in Go and decodes requests strictly: a key that a type does not know is an
error, so is a value of another type, and both have their own wording. The types below are the
requests that it takes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol


class DecodeError(ValueError):
    """A request body cannot be decoded; the text is Go's."""


class Fraction(NamedTuple):
    """A number that has a fraction or an exponent, as it was written: Go's errors repeat it."""

    text: str


class Place(NamedTuple):
    """Where in a request a value stands: the type around it, and the keys from the top."""

    struct: str = ""
    path: str = ""


TOP = Place()


class GoType(Protocol):
    """A type of cc-backend that can be filled from JSON."""

    @property
    def name(self) -> str:
        """The type's name in Go's error texts."""

    def decode(self, value: Any, place: Place) -> Any:
        """The checked value. Raises DecodeError."""

    def zero(self) -> Any:
        """What a null becomes."""


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, Fraction)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _refuse(value: Any, go_type: GoType, place: Place, what: str = "") -> NoReturn:
    where = f"struct field {place.struct}.{place.path}" if place.struct else "value"
    raise DecodeError(f"json: cannot unmarshal {what or _kind(value)} into Go {where} of type {go_type.name}")


@dataclass(frozen=True)
class Text:
    name: str = "string"

    def decode(self, value: Any, place: Place) -> Any:
        return value if isinstance(value, str) else _refuse(value, self, place)

    def zero(self) -> Any:
        return ""


@dataclass(frozen=True)
class Integer:
    name: str
    bits: int = 64

    def decode(self, value: Any, place: Place) -> Any:
        if isinstance(value, Fraction):
            _refuse(value, self, place, f"number {value.text}")
        if not isinstance(value, int) or isinstance(value, bool):
            _refuse(value, self, place)
        if not -(1 << self.bits - 1) <= value < 1 << self.bits - 1:
            _refuse(value, self, place, f"number {value}")
        return value

    def zero(self) -> Any:
        return 0


@dataclass(frozen=True)
class Float:
    name: str = "float64"

    def decode(self, value: Any, place: Place) -> Any:
        if isinstance(value, Fraction):
            return float(value.text)
        if not isinstance(value, int) or isinstance(value, bool):
            _refuse(value, self, place)
        return float(value)

    def zero(self) -> Any:
        return 0.0


@dataclass(frozen=True)
class ListOf:
    element: GoType
    pointers: bool = False

    @property
    def name(self) -> str:
        return ("[]*" if self.pointers else "[]") + self.element.name

    def decode(self, value: Any, place: Place) -> Any:
        if not isinstance(value, list):
            _refuse(value, self, place)
        element = self.element
        return [element.zero() if item is None else element.decode(item, place) for item in value]

    def zero(self) -> Any:
        return []


@dataclass(frozen=True)
class MapOf:
    element: GoType

    @property
    def name(self) -> str:
        return f"map[string]{self.element.name}"

    def decode(self, value: Any, place: Place) -> Any:
        if not isinstance(value, dict):
            _refuse(value, self, place)
        element = self.element
        return {key: element.zero() if item is None else element.decode(item, place) for key, item in value.items()}

    def zero(self) -> Any:
        return {}


@dataclass(frozen=True)
class Struct:
    """Keys that are not among `fields` are an error. Upper and lower case do not matter."""

    package: str
    short_name: str
    fields: dict[str, GoType]

    @property
    def name(self) -> str:
        return f"{self.package}.{self.short_name}"

    def decode(self, value: Any, place: Place) -> Any:
        if not isinstance(value, dict):
            _refuse(value, self, place)
        decoded = {}
        for key, item in value.items():
            field = key if key in self.fields else self._fold(key)
            if item is not None:
                inner = Place(self.short_name, f"{place.path}.{field}" if place.path else field)
                decoded[field] = self.fields[field].decode(item, inner)
        return decoded

    def zero(self) -> Any:
        return {}

    def _fold(self, key: str) -> str:
        folded = key.casefold()
        for field in self.fields:
            if field.casefold() == folded:
                return field
        raise DecodeError(f"json: unknown field {quoted(key)}")


STRING = Text()
INT = Integer("int")
INT32 = Integer("int32", bits=32)
INT64 = Integer("int64")
FLOAT = Float()
JOB_STATE = Text("schema.JobState")

TAG = Struct("schema", "Tag", {"type": STRING, "name": STRING, "scope": STRING, "id": INT64})
RESOURCE = Struct(
    "schema",
    "Resource",
    {
        "hostname": STRING,
        "configuration": STRING,
        "hwthreads": ListOf(INT),
        "accelerators": ListOf(STRING),
    },
)
JOB_LINK = Struct("schema", "JobLink", {"id": INT64, "jobId": INT64})
JOB_LINKS = Struct("schema", "JobLinkResultList", {"items": ListOf(JOB_LINK, pointers=True), "count": INT})
UNIT = Struct("schema", "Unit", {"base": STRING, "prefix": STRING})
STATISTICS = Struct("schema", "JobStatistics", {"unit": UNIT, "avg": FLOAT, "min": FLOAT, "max": FLOAT})
START_REQUEST = Struct(
    "schema",
    "Job",
    {
        "cluster": STRING,
        "subCluster": STRING,
        "partition": STRING,
        "project": STRING,
        "user": STRING,
        "shared": STRING,
        "jobState": JOB_STATE,
        "tags": ListOf(TAG, pointers=True),
        "resources": ListOf(RESOURCE, pointers=True),
        "energyFootprint": MapOf(FLOAT),
        "footprint": MapOf(FLOAT),
        "metaData": MapOf(STRING),
        "concurrentJobs": JOB_LINKS,
        "energy": FLOAT,
        "arrayJobId": INT64,
        "walltime": INT64,
        "requestedMemory": INT64,
        "jobId": INT64,
        "duration": INT32,
        "smt": INT32,
        "monitoringStatus": INT32,
        "numAcc": INT32,
        "numHwthreads": INT32,
        "numNodes": INT32,
        "statistics": MapOf(STATISTICS),
        "id": INT64,
        "submitTime": INT64,
        "startTime": INT64,
    },
)
STOP_REQUEST = Struct(
    "api",
    "StopJobAPIRequest",
    {
        "jobId": INT64,
        "cluster": STRING,
        "startTime": INT64,
        "jobState": JOB_STATE,
        "stopTime": INT64,
    },
)
DELETE_REQUEST = Struct("api", "DeleteJobAPIRequest", {"jobId": INT64, "cluster": STRING, "startTime": INT64})
NODE = Struct(
    "schema",
    "NodePayload",
    {
        "hostname": STRING,
        "states": ListOf(STRING),
        "cpusAllocated": INT,
        "memoryAllocated": INT64,
        "gpusAllocated": INT,
        "jobsRunning": INT,
    },
)
NODE_STATE_REQUEST = Struct("api", "UpdateNodeStatesRequest", {"nodes": ListOf(NODE), "cluster": STRING})


def _no_constant(word: str) -> NoReturn:
    """NaN and Infinity, which Python would read."""
    raise json.JSONDecodeError("not JSON", word, 0)


_READER = json.JSONDecoder(parse_float=Fraction, parse_constant=_no_constant)


def parse(body: bytes) -> Any:
    """The first JSON value of a request body; what follows it is not looked at, as in Go.

    Raises DecodeError.
    """
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise DecodeError("EOF")
    try:
        value, _end = _READER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise DecodeError(_syntax_error(error)) from None
    return value


def _syntax_error(error: json.JSONDecodeError) -> str:
    """Go has a wording for each place in the syntax; this is the commonest one for all of them."""
    if error.pos >= len(error.doc) or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    return f"invalid character '{error.doc[error.pos]}' looking for beginning of value"


def decode(value: Any, request: Struct) -> dict[str, Any]:
    """A parsed body as the given request, keys spelled as cc-backend does. Raises DecodeError."""
    fields: dict[str, Any] = {} if value is None else request.decode(value, TOP)
    return fields


def quoted(text: str) -> str:
    """A string in double quotes, as in Go's error texts."""
    return json.dumps(text, ensure_ascii=False)


def encode(value: Any) -> bytes:
    """One line of JSON, with the characters escaped that Go escapes for the sake of HTML."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text.encode("utf-8", "replace") + b"\n"

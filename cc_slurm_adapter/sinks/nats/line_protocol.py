"""Messages for NATS in InfluxDB's line protocol: one point per message, ended by a newline.

cc-backend reads only the measurement, the tag `function` and the field `event` (a string with JSON). The existing
adapter adds tags that other listeners use. Escaping follows InfluxDB's line protocol reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

_BLANK = dict.fromkeys((*range(33), 127), r"\ ")
"""White space and control characters, which are not allowed in names."""
_MEASUREMENT = str.maketrans({",": r"\,", **{chr(number): blank for number, blank in _BLANK.items()}})
_TAG = {**_MEASUREMENT, ord("="): r"\="}


def encode_point(measurement: str, tags: Mapping[str, str], event: bytes, time_ns: int) -> bytes:
    """Encode one point with the string field `event`. Tags without a value are left out: the protocol has none.

    `event` is UTF-8, and `time_ns` is Unix time in nanoseconds.
    """
    text = event.replace(b"\\", rb"\\").replace(b'"', rb"\"")  # as a script may be large, this is not `translate`
    return b'%b event="%b" %d\n' % (_series(measurement, tuple(tags.items())), text, time_ns)


@lru_cache(maxsize=64)
def _series(measurement: str, tags: tuple[tuple[str, str], ...]) -> bytes:
    """Encode the measurement and the tags, which are the same in most points."""
    names = [f",{_tag(name)}={_tag(value)}" for name, value in tags if _tag(value)]
    return f"{measurement.translate(_MEASUREMENT)}{''.join(names)}".encode()


def _tag(text: str) -> str:
    """Escape a tag. A backslash at its end would escape what follows. No host, type or function ends with one."""
    return text.rstrip("\\").translate(_TAG)

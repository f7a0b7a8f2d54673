"""Messages for NATS in InfluxDB's line protocol: one point per message, ended by a newline.

cc-backend reads only the measurement, the tag `function` and the field `event` (a string with JSON). The existing
adapter adds tags that other listeners use. Escaping follows InfluxDB's line protocol reference.
"""

from __future__ import annotations

from collections.abc import Mapping

_BLANK = dict.fromkeys((*range(33), 127), r"\ ")
"""White space and control characters, which are not allowed in names."""
_MEASUREMENT = str.maketrans({",": r"\,", **{chr(number): blank for number, blank in _BLANK.items()}})
_TAG = {**_MEASUREMENT, ord("="): r"\="}
_STRING = str.maketrans({"\\": r"\\", '"': r"\""})


def encode_point(measurement: str, tags: Mapping[str, str], event: bytes, time_ns: int) -> bytes:
    """Encode one point with the string field `event`. Tags without a value are left out: the protocol has none.

    `event` is UTF-8, and `time_ns` is Unix time in nanoseconds.
    """
    names = [f",{_tag(name)}={_tag(value)}" for name, value in tags.items() if _tag(value)]
    text = event.decode("utf-8").translate(_STRING)
    return f'{measurement.translate(_MEASUREMENT)}{"".join(names)} event="{text}" {time_ns}\n'.encode()


def _tag(text: str) -> str:
    """Escape a tag. A backslash at its end would escape what follows. No host, type or function ends with one."""
    return text.rstrip("\\").translate(_TAG)

"""Regular expressions on host names and the like: written in Go's dialect, compiled by Python.

The existing adapter's configuration was written for Go (RE2). Most of that means the same here. What is only spelled
differently is respelled, and what Python cannot do is refused. So no pattern changes its meaning silently.
"""

from __future__ import annotations

import re
import sys
import threading
import warnings
from typing import Callable

_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_ONLY_IN_GO = {
    r"\p": "Unicode classes",
    r"\P": "Unicode classes",
    r"\C": "single bytes",
    r"\x{": "malformed code points",
}
_QUOTED_IN_SETS = frozenset("[&|~")

_CODE_POINT = r"(?P<code_point>\\x\{[0-9A-Fa-f]+\})|(?P<escape>\\x\{|\\.)"
_OUTSIDE = re.compile(
    r"\\Q(?P<quoted>.*?)(?:\\E|\Z)|" + _CODE_POINT + r"|(?P<open>\[\^?\]?)"
    r"|\(\?(?P<name><[A-Za-z_])|(?P<no_repeat>\{,[0-9]*\})|(?P<other>.)",
    re.DOTALL,
)
_INSIDE = re.compile(_CODE_POINT + r"|(?P<posix>\[:\^?[a-z]+:\])|(?P<close>\])|(?P<other>.)", re.DOTALL)


_filters = threading.Lock()
"""The filters of `warnings` are those of the whole process. A reload compiles patterns in two threads, beside others
whose warnings must not become errors."""


class PatternError(ValueError):
    """A pattern that cannot be used. The text says why."""


def compile_host_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern that is searched in names, without anchors. Raises PatternError."""
    respelled = _respell(pattern)
    try:
        with _filters, warnings.catch_warnings():
            warnings.filterwarnings("error", "Possible |Flags not at the start|bad escape")
            return re.compile(respelled, re.ASCII)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise PatternError(str(error)) from None


def _respell(pattern: str) -> str:
    parts = []
    token, position = _OUTSIDE, 0
    while match := token.match(pattern, position):
        kind = match.lastgroup or ""
        text = match[kind]
        parts.append(_respell_token(kind, text, in_set=token is _INSIDE))
        if kind == "open":
            token = _INSIDE
        elif kind == "close":
            token = _OUTSIDE
        position = match.end()
    # What is left is a single backslash at the end, which the compiler refuses.
    return "".join(parts) + pattern[position:]


def _respell_token(kind: str, text: str, *, in_set: bool) -> str:
    respell = _RESPELLED.get(kind)
    if respell:
        return respell(text)
    # Python reserves these in sets and warns. In Go they have no special meaning.
    return "\\" + text if in_set and text in _QUOTED_IN_SETS else text


def _respell_escape(text: str) -> str:
    known = _ONLY_IN_GO.get(text)
    if known:
        raise PatternError(f"{text} ({known}) is not supported here")
    # The end of the text: Python knows it by the capital letter only.
    return r"\Z" if text == r"\z" else text


def _code_point(text: str) -> str:
    number = int(text[3:-1], 16)
    if number > sys.maxunicode:
        raise PatternError(f"{text} is beyond Unicode")
    return f"\\U{number:08x}"


def _posix_class(text: str) -> str:
    members = _POSIX_CLASSES.get(text[2:-2].lstrip("^"))
    if members is None:
        raise PatternError(f"{text} is not a character class, expected one of {', '.join(_POSIX_CLASSES)}")
    if not text.startswith("[:^"):
        return members
    others = [f"\\x{code:02x}" for code in range(128) if not re.match(f"[{members}]", chr(code))]
    return "".join(others) + r"\x80-\U0010FFFF"


_RESPELLED: dict[str, Callable[[str], str]] = {
    "quoted": re.escape,
    "code_point": _code_point,
    "escape": _respell_escape,
    "name": lambda text: f"(?P{text}",
    "no_repeat": lambda text: "\\" + text,
    "posix": _posix_class,
}

"""What is wrong with JSON text that cannot be parsed, in the words of whoever has written it.

It is loaded only when there is such a mistake. The line is shown without its values, as they may be secret.
"""

from __future__ import annotations

import re

from cc_slurm_adapter.config.keys import BY_NAME

LONGEST = 60
"""The most characters of a line that are shown."""
HIDDEN = "..."
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"?|\'[^\'\n]*\'?|//.*|#.*|/\*.*|\w+|.')
_PLAIN = frozenset(("true", "false", "null", "True", "False", "None"))
_COMMENT = ("//", "#", "/*")


def describe_mistake(text: str, offset: int, message: str) -> str:
    """Return the line and column of a mistake, its usual cause with what to do, and the line without its values.

    `offset` and `message` are those of json.JSONDecodeError.
    """
    if not text.strip():
        return "the file is empty, expected a JSON object: { ... } with one entry for each setting"
    at, cause = _find_cause(text, offset, message)
    number = text.count("\n", 0, at) + 1
    begin = text.rfind("\n", 0, at) + 1
    shown = _without_values(text[begin:].partition("\n")[0])
    return f"not valid JSON: line {number} column {at - begin + 1}: {cause}{f': {shown}' if shown else ''}"


def _find_cause(text: str, at: int, message: str) -> tuple[int, str]:
    """Return where the mistake is, as an offset, and what it is."""
    return _seen_in_text(text, at) or _of_strings(text, at, message) or _of_marks(text, at, message)


def _seen_in_text(text: str, at: int) -> tuple[int, str] | None:
    """Return the mistakes that what stands there tells, whatever Python calls them."""
    before, found = text[:at].rstrip(), text[at : at + 1]
    if found == "," and text[at + 1 :].lstrip()[:1] in ("}", "]"):  # Python 3.13 names the comma, others the bracket
        return at, _TRAILING
    if found in ("}", "]") and before.endswith(","):
        return len(before) - 1, _TRAILING
    if text[at : at + 2].startswith(_COMMENT):
        return at, "JSON has no comments, remove it"
    if re.match(r"(True|False|None)\b", text[at:]):
        return at, "true, false and null are written in small letters"
    return (at, _QUOTES[found]) if found in _QUOTES else None


def _of_strings(text: str, at: int, message: str) -> tuple[int, str] | None:
    if message.startswith("Unterminated string"):
        return at, "a closing quote is missing"
    if message.startswith("Invalid control character"):
        begin = text.rfind("\n", 0, at) + 1
        return begin + _last_open_quote(text[begin:at]), "a closing quote is missing"
    if message.startswith("Invalid \\"):
        return at, r"a backslash must be doubled within a text, as in \\d"
    return None


def _of_marks(text: str, at: int, message: str) -> tuple[int, str]:
    end = len(text[:at].rstrip())
    if not text[at : at + 1]:
        return end, "the text ends too early, a closing bracket is missing: } or ]"
    if message.startswith("Expecting ','"):
        return (end if "\n" in text[end:at] else at), "a comma is missing before the next entry"
    return at, next((cause for beginning, cause in _OTHERS.items() if message.startswith(beginning)), _UNKNOWN)


_TRAILING = "a comma after the last entry, remove it"
_UNKNOWN = "this cannot be read, see whether a comma, a quote or a bracket is missing or too many"
_CURVED = "\u201c\u201d\u201e\u2018\u2019"
_QUOTES = {
    "'": "texts and keys need double quotes, not single ones",
    **dict.fromkeys(_CURVED, 'a word processor has changed the quotes, write straight ones (")'),
}
_MARKS = frozenset("{}[]:, \t" + _CURVED)
"""What is shown of a line, beside its keys."""
_OTHERS = {
    "Expecting ':'": "a colon is missing after the key",
    "Expecting property name": "a key in double quotes is expected",
    "Expecting value": "a value is expected: a text in double quotes, a number, true, false, a list or an object",
    "Extra data": "something follows the last closing bracket, remove it",
}
"""By the first words of what Python says."""


def _last_open_quote(line: str) -> int:
    """Return where the text begins that a line does not close."""
    begin = 0
    for found in _TOKEN.finditer(line):
        if found.group().startswith('"'):
            begin = found.start()
    return begin


def _without_values(line: str) -> str:
    """Return a line with its keys and marks, and dots for everything that may be a value."""
    shown = "".join(_shown(each.group()) for each in _TOKEN.finditer(line.strip()))
    shown = re.sub(r"\.{4,}", HIDDEN, shown)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} {HIDDEN}"


def _shown(token: str) -> str:
    quote = token[0] if token[0] in "\"'" else ""
    word = token.strip(quote) if quote else token
    if word.lower() in BY_NAME or word in _PLAIN or token in _MARKS:
        return token
    if quote:
        return f"{quote}{HIDDEN}{quote if token.endswith(quote) and len(token) > 1 else ''}"
    return next((f"{mark} {HIDDEN}" for mark in _COMMENT if token.startswith(mark)), HIDDEN)

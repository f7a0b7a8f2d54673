"""Slurm's host lists: `node[01-03,7],login,rack[0-1]node[08-11]`."""

from __future__ import annotations

import re

from cc_slurm_adapter.errors import UnexpectedOutput

_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?\Z")
MAX_HOSTS = 100_000
"""More than any cluster has: a longer list is damaged output, not a job."""


def expand(text: str) -> list[str]:
    """Return all host names of a host list, in its order. Raises UnexpectedOutput for anything else.

    Ranges keep their zero padding. With several brackets the last one counts fastest.
    """
    hosts: list[str] = []
    for entry in split_outside(text, "[", "]"):
        if entry:
            hosts.extend(_expand_entry(entry, text))
            _check_count(len(hosts), text)
    return hosts


def split_outside(text: str, opening: str, closing: str) -> list[str]:
    """Split at the commas outside brackets: `a[1,2],b` gives `a[1,2]` and `b`."""
    if opening not in text and closing not in text:
        return text.split(",")
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char == opening:
            depth += 1
        elif char == closing:
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _expand_entry(entry: str, text: str) -> list[str]:
    if "[" not in entry and "]" not in entry:
        return [entry]
    if "".join(match.group(0) for match in _PART.finditer(entry)) != entry:
        raise UnexpectedOutput("host list", f"unbalanced brackets in {text[:100]!r}")
    names = [""]
    for bracket, plain in _PART.findall(entry):
        choices = [plain] if plain else _expand_ranges(bracket, text)
        _check_count(len(names) * len(choices), text)
        names = [name + choice for name in names for choice in choices]
    return names


def _expand_ranges(ranges: str, text: str) -> list[str]:
    numbers: list[str] = []
    for item in ranges.split(","):
        match = _RANGE.match(item)
        if not match:
            raise UnexpectedOutput("host list", f"{item[:40]!r} is not a range in {text[:100]!r}")
        first, last = match.group(1), match.group(2) or match.group(1)
        _check_count(len(numbers) + int(last) - int(first) + 1, text)
        numbers.extend(str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return numbers


def _check_count(count: int, text: str) -> None:
    if count > MAX_HOSTS:
        raise UnexpectedOutput("host list", f"more than {MAX_HOSTS} hosts in {text[:100]!r}")

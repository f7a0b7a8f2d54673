"""Slurm's notation for lists: node[01-03,7] for hosts, 0-3,7 for numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

PIECE = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
SINGLE_RANGE = re.compile(r"(\d+)(?:-(\d+))?\Z")
NAME = re.compile(r"(.*?)(\d*)\Z", re.DOTALL)


class InvalidHostlist(ValueError):
    """Not a host list. `bad_range` is the part in brackets that Slurm complains about, or ''."""

    def __init__(self, expression: str, bad_range: str = "") -> None:
        super().__init__(expression)
        self.bad_range = bad_range


def expand_hosts(expression: str) -> list[str]:
    """All names of a host list, in the order in which Slurm prints them; duplicates are kept."""
    return [name for part in _split_parts(expression) for name in _expand_part(part)]


def _split_parts(expression: str) -> list[str]:
    """Cut at the commas that are not in brackets."""
    parts = [""]
    depth = 0
    for character in expression:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise InvalidHostlist(expression)
    return [part for part in parts if part]


def _expand_part(part: str) -> list[str]:
    pieces = [_expand_range(match[1]) if match[2] is None else [match[2]] for match in PIECE.finditer(part)]
    # Slurm's order: the last range varies fastest, of those before it the first one does.
    last = max((place for place, piece in enumerate(pieces) if len(piece) > 1), default=0)
    order = [last, *(place for place in range(len(pieces)) if place != last)]
    names = []
    for choice in itertools.product(*(pieces[place] for place in reversed(order))):
        words = dict(zip(reversed(order), choice))
        names.append("".join(words[place] for place in range(len(pieces))))
    return names


def _expand_range(text: str) -> list[str]:
    numbers = []
    for item in text.split(","):
        match = SINGLE_RANGE.match(item)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise InvalidHostlist(text, bad_range=item)
        width = len(match[1])
        numbers += [f"{number:0{width}}" for number in range(int(match[1]), int(match[2] or match[1]) + 1)]
    return numbers


def compress_hosts(names: Sequence[str]) -> str:
    """The shortest host list of these names that keeps their order."""
    parts = []
    for prefix, group in itertools.groupby(names, key=_prefix):
        digits = [name[len(prefix) :] for name in group]
        if len(digits) == 1 or not digits[0]:
            parts += [prefix + number for number in digits]
        else:
            parts.append(f"{prefix}[{','.join(_digit_ranges(digits))}]")
    return ",".join(parts)


def _prefix(name: str) -> str:
    match = NAME.match(name)
    return match[1] if match and match[2] else name


def _digit_ranges(digits: list[str]) -> list[str]:
    """['01', '02', '04'] becomes ['01-02', '04']."""
    runs: list[list[str]] = []
    for number in digits:
        if runs and number == f"{int(runs[-1][-1]) + 1:0{len(runs[-1][-1])}}":
            runs[-1].append(number)
        else:
            runs.append([number])
    return [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def format_numbers(numbers: Iterable[int]) -> str:
    """(0, 1, 2, 5) becomes '0-2,5'."""
    return ",".join(_digit_ranges([str(number) for number in sorted(numbers)]))


def parse_numbers(text: str) -> tuple[int, ...]:
    """'0-2,5' becomes (0, 1, 2, 5)."""
    numbers: list[int] = []
    for item in text.split(",") if text else ():
        first, _, last = item.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)

"""Writes regular expressions on the names of nodes for the configuration."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection

MOST_SHAPES = 8
"""Most names that differ by more than their numbers, to be listed by their shapes."""
DIGITS = "0123456789"
_NUMBER = re.compile("[0-9]+")


def pattern_for(names: Collection[str], others: Collection[str]) -> str:
    """Return a regular expression that matches each of the names as a whole, and none of the others.

    Any number stands for those in the names (`^gpu[0-9]+$`), unless that matches one of the others, too.
    """
    shapes = sorted({_NUMBER.sub("[0-9]+", re.escape(name)) for name in names})
    if len(shapes) <= MOST_SHAPES:
        found = _anchored(shapes)
        if not any(map(re.compile(found).search, others)):
            return found
    return _anchored(_listed(names))


def _anchored(alternatives: list[str]) -> str:
    listed = "|".join(alternatives)
    return f"^{listed}$" if len(alternatives) == 1 else f"^({listed})$"


def _listed(names: Collection[str]) -> list[str]:
    """Return an expression for each group of names that differ by their last digit only: `gpu0[1-4]`."""
    digits: dict[str, list[str]] = defaultdict(list)
    found = []
    for name in sorted(set(names)):
        if name[-1:] and name[-1] in DIGITS:
            digits[name[:-1]].append(name[-1])
        else:
            found.append(re.escape(name))
    return sorted(found + [re.escape(stem) + _one_of("".join(last)) for stem, last in digits.items()])


def _one_of(digits: str) -> str:
    """Return an expression for one of these digits, which are in ascending order."""
    if len(digits) == 1:
        return digits
    return f"[{digits[0]}-{digits[-1]}]" if len(digits) > 2 and digits in DIGITS else f"[{digits}]"

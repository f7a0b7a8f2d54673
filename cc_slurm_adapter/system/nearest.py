"""Which known name somebody meant who wrote a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known name that is most like a word, whatever its case; '' if none is much like it."""
    from difflib import get_close_matches  # noqa: PLC0415 - only needed after a mistake

    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else ""


def hint(word: str, known: Iterable[str], otherwise: str, *, prefix: str = "") -> str:
    """Return a question for the nearest name, written after `prefix`; `otherwise` if none is much like the word."""
    found = nearest(word, known)
    return f"did you mean {prefix}{found}?" if found else otherwise

"""Reading Slurm's JSON whatever its version: each value is lifted to one plain form, or named when it breaks.

Numbers are ints up to 22.05 and {set, infinite, number} later; texts that were single strings
became lists. See the README of the recorded output under tests/fixtures.
"""

from __future__ import annotations

from typing import Any

from cc_slurm_adapter.errors import UnexpectedOutput

Json = dict[str, Any]


def get_object(value: Json, key: str, path: str) -> Json:
    """The object under `key`."""
    found = value.get(key)
    if not isinstance(found, dict):
        raise UnexpectedOutput(f"{path}.{key}", f"expected an object, found {type(found).__name__}")
    return found


def get_list(value: Json, key: str, path: str) -> list[Any]:
    """The list under `key`; null and a missing key are an empty one."""
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise UnexpectedOutput(f"{path}.{key}", f"expected a list, found {type(found).__name__}")
    return found


def get_text(value: Json, key: str, path: str) -> str:
    """The text under `key`; null and a missing key are ''."""
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise UnexpectedOutput(f"{path}.{key}", f"expected a text, found {type(found).__name__}")
    return found


def get_texts(value: Json, key: str, path: str) -> list[str]:
    """A list of texts; a single text (up to 22.05) is a list of one."""
    found = value.get(key)
    if isinstance(found, str):
        return [found]
    texts = get_list(value, key, path)
    if not all(isinstance(text, str) for text in texts):
        raise UnexpectedOutput(f"{path}.{key}", "expected a list of texts")
    return texts


def get_number(value: Json, key: str, path: str) -> int | None:
    """The whole number under `key`; None where Slurm says that there is none, or that it has no limit."""
    found = value.get(key)
    if isinstance(found, dict):
        found = found.get("number") if found.get("set") and not found.get("infinite") else None
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not float(found).is_integer():
        raise UnexpectedOutput(f"{path}.{key}", f"expected a whole number, found {str(found)[:40]!r}")
    return int(found)


def need_number(value: Json, key: str, path: str) -> int:
    """The whole number under `key`, which must be there."""
    number = get_number(value, key, path)
    if number is None:
        raise UnexpectedOutput(f"{path}.{key}", "the number is missing")
    return number

"""Values of Slurm's JSON in any version. Each is converted to one plain form, or named in an error.

Numbers are ints up to 22.05 and {set, infinite, number} later. Texts that were single strings became lists. See the
README of the recorded output under tests/recorded/slurm. Every format has all keys of a job that are read, even if only
with null or an empty value. So a missing key is an error.

Paths begin with `jobs[]`; `in_job` inserts the job's id.
"""

from __future__ import annotations

import re
from typing import Any

from cc_slurm_adapter.errors import UnexpectedOutput

Json = dict[str, Any]

MAX_NUMBER = 0xFFFF_FFFD
"""The largest number. Ids, counts and minutes have 32 bits, and Slurm gives the last two values a special meaning.
Times fit until 2106."""
MAX_JOB_ID = 2**31 - 1
"""The largest job id that is accepted, more than MaxJobId can be. squeue reads greater ids as negative, and then
refuses all jobs of the query."""
_NO_VALUES = frozenset({0xFFFF_FFFE, 0xFFFF_FFFF, (1 << 64) - 2, (1 << 64) - 1, -2, -1})
"""Slurm's NO_VAL and INFINITE with 32 and 64 bits; some formats print them as numbers."""
_SURROGATES = re.compile("[\ud800-\udfff]")
MAX_DIGITS = 18


def in_job(error: UnexpectedOutput, job_id: int) -> UnexpectedOutput:
    """Insert the job into the path of an error: `jobs[].nodes` becomes `jobs[7].nodes`, and so does `nodes`."""
    problem = str(error)[len(error.path) + 2 :]
    inner = error.path[len("jobs[].") :] if error.path.startswith("jobs[].") else error.path
    return UnexpectedOutput(f"jobs[{job_id}].{inner}", problem)


def get_object(value: Json, key: str, path: str) -> Json:
    """Return the object under `key`."""
    found = _get(value, key, path)
    if not isinstance(found, dict):
        raise _unexpected(f"{path}.{key}", "an object", found)
    return found


def get_list(value: Json, key: str, path: str) -> list[Any]:
    """Return the list under `key`."""
    found = _get(value, key, path)
    if not isinstance(found, list):
        raise _unexpected(f"{path}.{key}", "a list", found)
    return found


def get_objects(value: Json, key: str, path: str) -> list[Json]:
    """Return the list of objects under `key`."""
    found = get_list(value, key, path)
    for each in found:
        if not isinstance(each, dict):
            raise _unexpected(f"{path}.{key}[]", "an object", each)
    return found


def get_text(value: Json, key: str, path: str) -> str:
    """Return the text under `key`; null is ''. Lone surrogates, which are not valid in UTF-8, become U+FFFD."""
    found = _get(value, key, path)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _unexpected(f"{path}.{key}", "a text", found)
    return _valid(found)


def need_text(value: Json, key: str, path: str) -> str:
    """Return the text under `key`, which must not be empty."""
    text = get_text(value, key, path)
    if not text:
        raise UnexpectedOutput(f"{path}.{key}", "the text is empty")
    return text


def get_texts(value: Json, key: str, path: str) -> list[str]:
    """Return a list of texts. A single text (up to 23.02) becomes a list of one, null (22.05) an empty one."""
    found = _get(value, key, path)
    if found is None:
        return []
    texts = [found] if isinstance(found, str) else get_list(value, key, path)
    for each in texts:
        if not isinstance(each, str):
            raise _unexpected(f"{path}.{key}[]", "a text", each)
    return [_valid(text) for text in texts]


def get_number(value: Json, key: str, path: str) -> int | None:
    """Return the whole number under `key`; None if Slurm has none, or no limit."""
    found = _get(value, key, path)
    if isinstance(found, dict):
        found = _plain_number(found, key, path)
    if found is None:
        return None
    if type(found) is not int:  # neither true nor false
        raise _unexpected(f"{path}.{key}", "a whole number", found)
    if 0 <= found <= MAX_NUMBER:
        return found
    if found in _NO_VALUES:
        return None
    raise UnexpectedOutput(f"{path}.{key}", f"expected a number from 0 to {MAX_NUMBER}, found another")


def need_number(value: Json, key: str, path: str) -> int:
    """Return the whole number under `key`, which must be there."""
    number = get_number(value, key, path)
    if number is None:
        raise UnexpectedOutput(f"{path}.{key}", "the number is missing")
    return number


def read_digits(text: str) -> int | None:
    """Parse a text of ASCII digits; None for any other text, and for more than 18 digits."""
    return int(text) if text.isdigit() and text.isascii() and len(text) <= MAX_DIGITS else None


def read_job_id(text: str) -> int | None:
    """Parse the job id in a column of text; None for anything else."""
    job_id = read_digits(text)
    return job_id if job_id and job_id <= MAX_JOB_ID else None


def _get(value: Json, key: str, path: str) -> Any:
    if key not in value:
        raise UnexpectedOutput(f"{path}.{key}", "it is missing")
    return value[key]


def _plain_number(value: Json, key: str, path: str) -> Any:
    """Return the number of {set, infinite, number}; None if it is not set or infinite."""
    is_set, is_infinite = value.get("set"), value.get("infinite")
    if not isinstance(is_set, bool) or not isinstance(is_infinite, bool):
        _need_all(value, ("set", "infinite"), f"{path}.{key}")
        raise UnexpectedOutput(f"{path}.{key}", "expected `set` and `infinite` to be true or false")
    if is_infinite or not is_set:
        return None
    number = value.get("number")
    if number is None:
        _need_all(value, ("number",), f"{path}.{key}")
        raise UnexpectedOutput(f"{path}.{key}.number", "it is set and has no value")
    return number


def _need_all(value: Json, keys: tuple[str, ...], path: str) -> None:
    for key in keys:
        _get(value, key, path)


def _valid(text: str) -> str:
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _unexpected(path: str, expected: str, found: object) -> UnexpectedOutput:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return UnexpectedOutput(path, f"expected {expected}, found {kinds.get(type(found), 'a number')}")

"""Reading Slurm's JSON whatever its version: each value is lifted to one plain form, or named when it breaks.

Numbers are ints up to 22.05 and {set, infinite, number} later; texts that were single strings
became lists. See the README of the recorded output under tests/recorded/slurm. What is read of a job is
there in every format, if only as null or an empty value, so a key that is missing is an error.

Paths begin with `jobs[]`; `in_job` puts the job's id in.
"""

from __future__ import annotations

import re
from typing import Any

from cc_slurm_adapter.errors import UnexpectedOutput

Json = dict[str, Any]

MAX_NUMBER = 0xFFFF_FFFD
"""Ids, counts and minutes have 32 bits, of which Slurm gives the last two values a meaning; times fit until 2106."""
MAX_JOB_ID = 2**31 - 1
"""More than MaxJobId can be. squeue takes greater ones for negative, and then refuses all jobs it is asked for."""
_NO_VALUES = frozenset({0xFFFF_FFFE, 0xFFFF_FFFF, (1 << 64) - 2, (1 << 64) - 1, -2, -1})
"""Slurm's NO_VAL and INFINITE with 32 and 64 bits; where they have no form of their own they come as they are."""
_SURROGATES = re.compile("[\ud800-\udfff]")
MAX_DIGITS = 18


def in_job(error: UnexpectedOutput, job_id: int) -> UnexpectedOutput:
    """The same error with the job in its path: `jobs[].nodes` becomes `jobs[7].nodes`, and so does `nodes`."""
    problem = str(error)[len(error.path) + 2 :]
    inner = error.path[len("jobs[].") :] if error.path.startswith("jobs[].") else error.path
    return UnexpectedOutput(f"jobs[{job_id}].{inner}", problem)


def get_object(value: Json, key: str, path: str) -> Json:
    """The object under `key`."""
    found = _get(value, key, path)
    if not isinstance(found, dict):
        raise _unexpected(f"{path}.{key}", "an object", found)
    return found


def get_list(value: Json, key: str, path: str) -> list[Any]:
    """The list under `key`."""
    found = _get(value, key, path)
    if not isinstance(found, list):
        raise _unexpected(f"{path}.{key}", "a list", found)
    return found


def get_objects(value: Json, key: str, path: str) -> list[Json]:
    """The list of objects under `key`."""
    found = get_list(value, key, path)
    for each in found:
        if not isinstance(each, dict):
            raise _unexpected(f"{path}.{key}[]", "an object", each)
    return found


def get_text(value: Json, key: str, path: str) -> str:
    """The text under `key`; null is ''. Halves of characters, which UTF-8 cannot hold, become U+FFFD."""
    found = _get(value, key, path)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _unexpected(f"{path}.{key}", "a text", found)
    return _SURROGATES.sub("\ufffd", found)


def need_text(value: Json, key: str, path: str) -> str:
    """The text under `key`, which must say something."""
    text = get_text(value, key, path)
    if not text:
        raise UnexpectedOutput(f"{path}.{key}", "the text is empty")
    return text


def get_texts(value: Json, key: str, path: str) -> list[str]:
    """A list of texts; a single text (up to 23.02) is a list of one, null (22.05) an empty one."""
    found = _get(value, key, path)
    if found is None:
        return []
    texts = [found] if isinstance(found, str) else get_list(value, key, path)
    for each in texts:
        if not isinstance(each, str):
            raise _unexpected(f"{path}.{key}[]", "a text", each)
    return [_SURROGATES.sub("\ufffd", text) for text in texts]


def get_number(value: Json, key: str, path: str) -> int | None:
    """The whole number under `key`; None where Slurm says that there is none, or that it has no limit."""
    found = _get(value, key, path)
    if isinstance(found, dict):
        found = _plain_number(found, f"{path}.{key}")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int):
        raise _unexpected(f"{path}.{key}", "a whole number", found)
    number = int(found)
    if 0 <= number <= MAX_NUMBER:
        return number
    if number in _NO_VALUES:
        return None
    raise UnexpectedOutput(f"{path}.{key}", f"expected a number from 0 to {MAX_NUMBER}, found another")


def need_number(value: Json, key: str, path: str) -> int:
    """The whole number under `key`, which must be there."""
    number = get_number(value, key, path)
    if number is None:
        raise UnexpectedOutput(f"{path}.{key}", "the number is missing")
    return number


def read_digits(text: str) -> int | None:
    """The number that a text of ASCII digits stands for; None for any other text, and for more than 18 digits."""
    return int(text) if text.isdigit() and text.isascii() and len(text) <= MAX_DIGITS else None


def read_job_id(text: str) -> int | None:
    """The id in a column of text; None for what is none."""
    job_id = read_digits(text)
    return job_id if job_id and job_id <= MAX_JOB_ID else None


def _get(value: Json, key: str, path: str) -> Any:
    if key not in value:
        raise UnexpectedOutput(f"{path}.{key}", "it is missing")
    return value[key]


def _plain_number(value: Json, path: str) -> Any:
    """The number in {set, infinite, number}, None where it is not set or infinite."""
    is_set, is_infinite = _get(value, "set", path), _get(value, "infinite", path)
    if not isinstance(is_set, bool) or not isinstance(is_infinite, bool):
        raise UnexpectedOutput(path, "expected `set` and `infinite` to be true or false")
    if is_infinite or not is_set:
        return None
    number = _get(value, "number", path)
    if number is None:
        raise UnexpectedOutput(f"{path}.number", "it is set and has no value")
    return number


def _unexpected(path: str, expected: str, found: object) -> UnexpectedOutput:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return UnexpectedOutput(path, f"expected {expected}, found {kinds.get(type(found), 'a number')}")

"""JSON with a value in it that nobody expects there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from cc_slurm_adapter.slurm.parse.json_values import Json

Path = tuple[Any, ...]


def paths(value: object, above: Path = ()) -> Iterator[Path]:
    """The places of all values inside a value."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*above, key)
        yield from paths(value[key], (*above, key))  # type: ignore[index]


def changed(job: Json, path: Path, value: object) -> Json:
    """The job with another value in one place."""
    job = copy.deepcopy(job)
    at: Any = job
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return job


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-3, max_value=9)
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["RUNNING", "COMPLETED", "node01", "node[01-02]", "node[1-999999]", "gpu:1(IDX:0)", "9" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.fixed_dictionaries({"set": inner, "infinite": inner, "number": inner})
    ),
    max_leaves=6,
)

"""What cc-backend must have at the end of the soak test, predicted from what ran on the practice cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from examples.practice.cc_backend import JobRow
from examples.practice.comparison import differences, told_of, true_of
from examples.practice.site import GPU_PCI_ADDRESSES
from examples.practice.slurm.model import Settings, TrueRun
from tests.built.soak_faults import HIDING, Span

Key = tuple[int, int]
DAY = 86400


def key_of(run: TrueRun) -> Key:
    """Job id and start time."""
    return run.job_id, run.start


def stored_runs(truth: Iterable[TrueRun]) -> list[TrueRun]:
    """Those that cc-backend must have: no second run of a job within a day after the first, and no secret one."""
    first: dict[int, int] = {}
    stored = []
    for run in truth:
        if not run.is_secret and run.start - first.get(run.job_id, -DAY) >= DAY:
            first[run.job_id] = run.start
            stored.append(run)
    return stored


def expected_runs(rows: Iterable[JobRow], truth: Sequence[TrueRun], *, commits_at_once: bool) -> dict[Key, TrueRun]:
    """What the rows are held against.

    cc-backend looks for earlier runs among those that its commit worker has moved only: until then it takes
    a second run, which may be there and must then be right.
    """
    expected = {key_of(run): run for run in stored_runs(truth)}
    if not commits_at_once:
        told = {row.key[1:] for row in rows}
        expected.update({key_of(run): run for run in truth if not run.is_secret and key_of(run) in told})
    return expected


def all_differences(
    rows: Sequence[JobRow], expected: Mapping[Key, TrueRun], settings: Settings, looks: Sequence[Span]
) -> list[str]:
    """One line for each thing that cc-backend has and should not have, or the other way round."""
    late = {row.key[1:] for row in rows if told_of(row)["incomplete"]} & expected.keys()
    whole_rows = [row for row in rows if row.key[1:] not in late]
    whole_runs = [run for key, run in expected.items() if key not in late]
    found = differences(whole_rows, whole_runs, settings, GPU_PCI_ADDRESSES)
    for key in sorted(late):
        found += _differences_of_late([row for row in rows if row.key[1:] == key], expected[key], settings, looks)
    return found


def incomplete(rows: Iterable[JobRow]) -> int:
    """How many rows say that they are incomplete."""
    return sum(bool(told_of(row)["incomplete"]) for row in rows)


def _differences_of_late(rows: Sequence[JobRow], run: TrueRun, settings: Settings, looks: Iterable[Span]) -> list[str]:
    """A run that says so may lack cores and GPUs, if the daemon did not see it in time; all else must be right.

    What only accounting knew of has its name as slurmdbd stores it: without double quotes.
    """
    name = f"job {run.job_id} of {run.user}, {run.start} to {run.end}"
    if len(rows) != 1:
        return [f"{name}: has {len(rows)} rows"]
    told, true = told_of(rows[0]), true_of(run, settings, GPU_PCI_ADDRESSES)
    found = [f"{name}: is incomplete and was to be seen"] if was_looked_at(run, looks) else []
    wrong = [key for key in true if told[key] != true[key] and not _is_only_left_out(key, told[key], true[key])]
    return found + [f"{name}: {key} was reported as {told[key]!r} and is {true[key]!r}" for key in wrong]


def _is_only_left_out(key: str, told: object, true: object) -> bool:
    """Whether each node has what it should have, or nothing."""
    if key == "incomplete":
        return True
    if key == "name":
        return told == str(true).replace('"', "`")
    if key not in ("hwthreads", "GPUs") or not isinstance(told, dict) or not isinstance(true, dict):
        return False
    return told.keys() == true.keys() and all(told[host] in ([], true[host]) for host in true)


def clear_looks(looks: Iterable[Span], faults: Iterable[Span]) -> list[Span]:
    """Those whole passes of the daemon in which no fault hid anything from it."""
    hiding = [fault for fault in faults if fault.name in HIDING]
    return [look for look in looks if all(fault.end < look.begin or look.end < fault.begin for fault in hiding)]


def was_looked_at(run: TrueRun, looks: Iterable[Span]) -> bool:
    """Whether a whole pass of the daemon began and ended while the run held its nodes.

    That is so for any run of some seconds, unless the machine is too slow for the load.
    """
    end = run.end or float("inf")
    return any(run.start + 1 <= look.begin and look.end <= end for look in looks)  # its times are cut to whole seconds

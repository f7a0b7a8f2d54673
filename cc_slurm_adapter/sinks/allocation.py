"""What a start, or a stored row, says about the nodes of a run, to compare one with the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

NAMED, SHOWN = 3, 8
"""The most hosts that a text names, and the most hardware threads or accelerators of a host that it shows."""


class Share(NamedTuple):
    """What a run has of one node."""

    hwthreads: tuple[int, ...] = ()
    accelerators: tuple[str, ...] = ()
    """Their PCI addresses."""


class Allocation(NamedTuple):
    """What a run has of all its nodes. Two are equal if they say the same, in whatever order."""

    shares: Mapping[str, Share]
    """By host."""
    num_accelerators: int = 0
    """As it is sent: of some there may be no address."""

    def lacks_of(self, before: Allocation) -> str:
        """Return what this one says nothing about although `before` does, for people; '' if there is nothing.

        Where the hosts have other names than before, all hosts together are compared.
        """
        if self.shares.keys() != before.shares.keys():
            return _lacks(_together(self), _together(before), "all its nodes")
        pairs = ((host, self.shares[host], before.shares[host]) for host in self.shares)
        return next(filter(None, (_lacks(now, old, host) for host, now, old in pairs)), "")

    def changes_from(self, before: Allocation) -> str:
        """Return in what it differs from `before`, for people: at most NAMED hosts, and how many more there are."""
        gone = [host for host in before.shares if host not in self.shares]
        new = [host for host in self.shares if host not in before.shares]
        both = [host for host in self.shares if host in before.shares and self.shares[host] != before.shares[host]]
        texts = [f"hosts {_few(gone)} -> {_few(new)}"] if gone or new else []
        texts += [f"{host}: {_changes(before.shares[host], self.shares[host])}" for host in both[:NAMED]]
        texts += [f"{len(both) - NAMED} more hosts"] if len(both) > NAMED else []
        if self.num_accelerators != before.num_accelerators:
            texts.append(f"numAcc {before.num_accelerators} -> {self.num_accelerators}")
        return "; ".join(texts)


def parse_allocation(job: Mapping[str, Any]) -> Allocation:
    """Return what a start or a row says, as the JSON object that it is. Raises ValueError, KeyError and the like."""
    shares = {
        str(resource["hostname"]): Share(
            tuple(sorted({int(each) for each in resource.get("hwthreads") or ()})),
            tuple(sorted({str(each) for each in resource.get("accelerators") or ()})),
        )
        for resource in job["resources"] or ()
    }
    return Allocation(shares, int(job.get("numAcc") or 0))


def _together(allocation: Allocation) -> Share:
    shares = allocation.shares.values()
    return Share(
        tuple(thread for share in shares for thread in share.hwthreads),
        tuple(address for share in shares for address in share.accelerators),
    )


def _lacks(now: Share, before: Share, where: str) -> str:
    lost = [name for name in Share._fields if getattr(before, name) and not getattr(now, name)]
    return f"{' and '.join(lost)} of {where}" if lost else ""


def _changes(before: Share, now: Share) -> str:
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in Share._fields]
    return ", ".join(f"{name} {_few(old, SHOWN)} -> {_few(new, SHOWN)}" for name, old, new in pairs if old != new)


def _few(values: Iterable[object], most: int = NAMED) -> str:
    texts = [str(value) for value in values]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return (" ".join(texts[:most]) or "none") + more

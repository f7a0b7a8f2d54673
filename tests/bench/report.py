"""The figures of a run: each with what it is compared with and what it may be, as a table and as JSON."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEAD = ("", "what", "ours", "compared with", "ratio", "budget", "")
FORMAT = 2
"""Of the JSON: another number is not compared with it."""
TIMES = frozenset({"s", "%", "/s"})
"""Units in which the speed of the machine shows: their budgets are ratios."""


@dataclass(frozen=True)
class Budget:
    """What a figure may be at most, or must be at least; of its ratio to the other figure when `of_ratio`."""

    limit: float
    of_ratio: bool = False
    at_least: bool = False

    def is_met(self, figure: float) -> bool:
        """Whether a figure or a ratio keeps it."""
        return figure >= self.limit if self.at_least else figure <= self.limit


@dataclass(frozen=True)
class Other:
    """What a figure is compared with, in the same unit."""

    name: str
    figure: float


@dataclass(frozen=True)
class Row:
    """One figure. `unit` is one of those that `in_words` knows."""

    measurement: str
    what: str
    figure: float
    unit: str
    other: Other | None = None
    budget: Budget | None = None
    noise: float | None = None
    """By which share the figure, or its ratio, differs from one measurement to the next; None when that is unknown."""

    def __post_init__(self) -> None:
        if self.budget and self.unit in TIMES and not self.budget.of_ratio:
            raise ValueError(f"{self.what}: a budget in {self.unit} is a ratio to what is measured in the same run")

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is a better one."""
        return self.unit == "/s" or (self.budget is not None and self.budget.at_least)

    @property
    def ratio(self) -> float | None:
        """Ours by the other one; None when there is nothing to divide by."""
        return self.figure / self.other.figure if self.other and self.other.figure else None

    @property
    def is_met(self) -> bool:
        """Whether the budget is kept; so it is when there is none. A ratio that cannot be had keeps no budget."""
        if self.budget is None:
            return True
        compared = self.ratio if self.budget.of_ratio else self.figure
        return compared is not None and self.budget.is_met(compared)


@dataclass
class Report:
    """The rows of a run in their order, and what else was found out."""

    rows: list[Row] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Measurements that could not be made, and why."""

    def add(
        self,
        measurement: str,
        what: str,
        figure: float,
        unit: str,
        *,
        other: Other | None = None,
        budget: Budget | None = None,
        noise: float | None = None,
    ) -> None:
        """A Row; printed at once, because the whole takes long. ValueError for a budget that is a mere time."""
        self.rows.append(Row(measurement, what, figure, unit, other, budget, noise))
        print(f"  {' '.join(filter(None, _cells(self.rows[-1])))}", flush=True)

    @property
    def missed(self) -> list[Row]:
        """The rows whose budget is not kept."""
        return [row for row in self.rows if not row.is_met]

    @property
    def is_good(self) -> bool:
        """Whether all was measured and every budget is kept."""
        return not self.missed and not self.failures

    def fail(self, measurement: str, problem: str) -> None:
        """A measurement could not be made."""
        self.failures.append(f"{measurement}: {problem}")
        print(f"  FAILED: {problem}", flush=True)

    def table(self) -> str:
        """All rows in columns."""
        lines = [HEAD, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)

    def write(self, path: Path) -> None:
        """All rows as JSON."""
        rows = [{**asdict(row), "ratio": row.ratio, "met": row.is_met} for row in self.rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        summary = {"format": FORMAT, **self.notes, "missed": len(self.missed), "failures": self.failures}
        path.write_text(json.dumps({**summary, "rows": rows}, indent=1) + "\n")


def _cells(row: Row) -> Sequence[str]:
    budget = row.budget
    return (
        row.measurement,
        row.what,
        in_words(row.figure, row.unit),
        f"{in_words(row.other.figure, row.unit)} ({row.other.name})" if row.other else "",
        f"{row.ratio:.2f}" if row.ratio is not None else "",
        _budget_in_words(budget, row.unit) if budget else "",
        ("ok" if row.is_met else "MISSED") if budget else "",
    )


def _budget_in_words(budget: Budget, unit: str) -> str:
    sign = ">=" if budget.at_least else "<="
    return f"{sign} {budget.limit:g} x" if budget.of_ratio else f"{sign} {in_words(budget.limit, unit)}"


def in_words(figure: float, unit: str) -> str:
    """A figure for people. Seconds, `s`, are printed in the unit that fits them."""
    if unit != "s":
        return f"{figure:.4g} {unit}"
    if abs(figure) < 0.0001:
        return f"{figure * 1e6:.2f} us"
    return f"{figure * 1000:.2f} ms" if abs(figure) < 0.1 else f"{figure:.2f} s"


def percentile(figures: Iterable[float], share: float) -> float:
    """The smallest figure that so large a share (0 to 1) of them does not exceed; there is at least one."""
    ordered = sorted(figures)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def noise_of(figures: Sequence[float]) -> float:
    """By which share the median of so many figures may differ from another such median: its standard error.

    It is estimated from the median of the deviations, so that a few figures far off do not count.
    """
    middle = median(figures)
    deviation = 1.48 * median(abs(figure - middle) for figure in figures)
    return 1.25 * deviation / math.sqrt(len(figures)) / middle if middle else 0.0


def median(figures: Iterable[float]) -> float:
    """The middle one."""
    return statistics.median(figures)

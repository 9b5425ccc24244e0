"""What a benchmark found: figures, each with the limit or the peer that it is to be compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, and what stands beside it; of both, less is better.

    Args:
        beside: what was measured in the same run (a peer), or what must not be passed (a limit).
    """

    what: str
    value: float
    beside: float
    unit: str
    kind: Literal["limit", "peer"]

    @property
    def ratio(self) -> float:
        """Below 1 is within the limit, or faster than the peer."""
        return self.value / self.beside


def median(values: Iterable[float]) -> float:
    """The value in the middle."""
    return quantile(list(values), 0.5)


def p95(values: Iterable[float]) -> float:
    """The value that 95 of 100 do not pass."""
    return quantile(list(values), 0.95)


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that this part of all does not pass."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def table(found: Iterable[tuple[str, Figure]]) -> str:
    """The figures of several benchmarks, a line each."""
    head = ("benchmark", "figure", "measured", "beside", "", "ratio")
    rows = [
        (name, one.what, f"{one.value:.4g} {one.unit}", f"{one.beside:.4g} {one.unit}", one.kind, f"{one.ratio:.2f}")
        for name, one in found
    ]
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)

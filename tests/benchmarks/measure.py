"""Two pieces of work measured in alternation, and how the ratio of their medians is judged."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

__all__ = ["Result", "alternate", "rate", "timed", "timing"]


@dataclass(frozen=True)
class Result:
    """What a row of the table shows. `floor` is None where the bound is absolute."""

    ours: float
    floor: float | None
    unit: str
    """"s", "s each" (the bound is for the seconds, not the ratio), "messages/s" (more is better) or "MB"."""

    @property
    def compared(self) -> float:
        """What the bound is for: the ratio, or the value itself."""
        return self.ours if self.floor is None or self.unit == "s each" else self.ours / self.floor

    def within(self, bound: float) -> bool:
        """Whether the bound is kept; it is the least for rates, and the most for all else."""
        return self.compared >= bound if self.unit == "messages/s" else self.compared <= bound


def timed(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
    begun = perf_counter()
    work()
    return perf_counter() - begun


def timing(ours: Sequence[float], floor: Sequence[float]) -> Result:
    """Durations as a row: the medians."""
    return Result(median(ours), median(floor), "s")


def rate(ours: Sequence[float], floor: Sequence[float], messages: int) -> Result:
    """Durations of so many messages as a row of throughput."""
    return Result(messages / median(ours), messages / median(floor), "messages/s")


def alternate(ours: Callable[[], object], floor: Callable[[], object], times: int, *, warm_up: int = 3) -> Result:
    """A B A B ... on a quiet heap, so that what disturbs the machine disturbs both."""
    for _ in range(warm_up):
        ours()
        floor()
    gc.collect()
    gc.freeze()
    try:
        pairs = [(timed(ours), timed(floor)) for _ in range(times)]
    finally:
        gc.unfreeze()
    return timing(*zip(*pairs, strict=True))

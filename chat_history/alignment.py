"""Where a list of messages that comes back meets what is stored."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

__all__ = ["Alignment", "align", "common_prefix"]


class Alignment(NamedTuple):
    """`given[carried:carried + kept]` is `stored[start:start + kept]`; what follows in `given` is new.

    `carried` counts the leading system prompts of `given` that stand at the beginning of `stored` and were carried
    along by a window that begins at `start`.
    """

    start: int
    kept: int
    carried: int = 0

    @property
    def end(self) -> int:
        """The first of `stored` that `given` does not continue."""
        return self.start + self.kept

    @property
    def known(self) -> int:
        """How many of `given` are stored already."""
        return self.carried + self.kept


def align(given: Sequence[Hashable], stored: Sequence[Hashable], *, system: int = 0) -> Alignment:
    """Find what `given` continues: the place in `stored` that agrees with most of it from its first item on.

    Of places that agree with equally much, one that `given` continues to the very end of `stored` wins (nothing is
    displaced), then the first. The leading `system` items of `given` may be a window's copy of those of `stored`.
    Time grows with the sum of the two lengths, whatever repeats in them.
    """
    whole = _longest(given, stored)
    carried = common_prefix(given[:system], stored[:system])
    if not carried or whole.end == len(stored):
        return whole
    rest = _longest(given[carried:], stored[carried:])
    found = Alignment(carried + rest.start, rest.kept, carried)
    if not rest.kept or found.known < whole.kept or (found.known == whole.kept and found.end < len(stored)):
        return whole
    return found


def common_prefix(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """How many leading items are equal."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(index for index in range(shorter) if one[index] != other[index])


def _longest(given: Sequence[Hashable], stored: Sequence[Hashable]) -> Alignment:
    if not given or not stored:
        return Alignment(0, 0)
    if stored == given[: len(stored)]:
        return Alignment(0, len(stored))
    best, best_start = 0, 0
    for start, kept in enumerate(_matches(given, stored)):
        if kept > best or (kept == best and kept and start + kept == len(stored)):
            best, best_start = kept, start
    return Alignment(best_start, best)


def _matches(given: Sequence[Hashable], stored: Sequence[Hashable]) -> list[int]:
    """For each place in `stored`, how much of the beginning of `given` stands there (the Z-function)."""
    border = _z(given, given, 1)
    border[0] = len(given)
    return _z(given, stored, 0, border)


def _z(given: Sequence[Hashable], text: Sequence[Hashable], first: int, border: list[int] | None = None) -> list[int]:
    matches = [0] * len(text)
    known = matches if border is None else border
    left = right = 0
    for place in range(first, len(text)):
        length = min(right - place, known[place - left]) if place < right else 0
        while length < len(given) and place + length < len(text) and given[length] == text[place + length]:
            length += 1
        matches[place] = length
        if place + length > right:
            left, right = place, place + length
    return matches

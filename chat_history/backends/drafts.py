"""The messages of one write, each made ready as a backend comes to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from .base import Draft

__all__ = ["Drafts", "plain"]


class Drafts(Sequence[Draft]):
    """Drafts of one write. What they are made of is looked at once, in order, and no further than it was asked for.

    So a long import is made ready while the store takes in what came before. An exception of the making is raised
    where it is come to: whoever cannot undo what it did until then calls `made` first.

    What is kept are plain tuples, which the garbage collector soon lets go: very many objects of a class would have it
    run, and take longer than all that is done with them.
    """

    def __init__(self, drafts: Iterable[tuple[Any, ...]], message_ids: Sequence[str]) -> None:
        self.message_ids = message_ids
        self._rows: list[tuple[Any, ...]] = []
        self._left = iter(drafts)

    def made(self, count: int | None = None) -> None:
        """Make the first so many, or all of them."""
        missing = (len(self) if count is None else min(count, len(self))) - len(self._rows)
        for _ in range(missing):
            self._rows.append(tuple(next(self._left)))

    @property
    def are_made(self) -> bool:
        """Whether none is left to be made."""
        return len(self._rows) == len(self)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The drafts as plain tuples, each made when it is come to."""
        rows = self._rows
        for place in range(len(self)):
            if place == len(rows):
                rows.append(tuple(next(self._left)))
            yield rows[place]

    @overload
    def __getitem__(self, index: int) -> Draft: ...
    @overload
    def __getitem__(self, index: slice) -> list[Draft]: ...
    def __getitem__(self, index: int | slice) -> Draft | list[Draft]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        place = range(len(self))[index]
        self.made(place + 1)
        return Draft._make(self._rows[place])

    def __len__(self) -> int:
        return len(self.message_ids)

    def __iter__(self) -> Iterator[Draft]:
        return map(Draft._make, self.rows())


def plain(drafts: Sequence[Draft]) -> Iterable[tuple[Any, ...]]:
    """Drafts as plain tuples of the same, which takes less for many."""
    return drafts.rows() if isinstance(drafts, Drafts) else drafts

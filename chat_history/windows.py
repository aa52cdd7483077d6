"""Which messages a model gets: whole turns from the newest back, and the system prompt that leads the chat.

A turn is a user's message and all that follows it up to the next one. What precedes the first user's message is the
first turn. Tool calls and their results never part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .backends.base import PayloadRow

__all__ = ["newest_turns"]

ReadNewest = Callable[[int | None, int], Sequence[PayloadRow]]
"""The newest rows before a position (None: of all), at most so many, in order of position."""
Weigh = Callable[[str, str], int]
"""The tokens of a message: of its format and its payload."""

PAGE = 64
"""Messages that are read at a time where their number has no limit."""


def newest_turns(read: ReadNewest, weigh: Weigh, *, last: int | None, most: int | None) -> Sequence[PayloadRow]:
    """The newest whole turns of at most `last` messages that weigh at most `most`; the newest turn always."""
    kept: list[PayloadRow] = []
    weight = 0
    for turn in _turns(read, last or PAGE):
        if most is not None:
            weight += sum(weigh(row[2], row[3]) for row in turn)
        if kept and ((last is not None and len(kept) + len(turn) > last) or (most is not None and weight > most)):
            break
        kept = turn + kept
        if last is not None and len(kept) >= last:
            break
    return kept


def _turns(read: ReadNewest, page: int) -> Iterator[list[PayloadRow]]:
    """The turns from the newest back, read in pages."""
    begun: list[PayloadRow] = []
    rows = read(None, page)
    while rows:
        end = len(rows)
        for place in reversed(range(len(rows))):
            if rows[place][1] == "user":
                yield [*rows[place:end], *begun]
                begun, end = [], place
        begun = [*rows[:end], *begun]
        rows = read(rows[0][0], page) if len(rows) == page else ()
    if begun:
        yield begun

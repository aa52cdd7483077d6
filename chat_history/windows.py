"""Which messages a model gets: whole turns from the newest back, and the system prompt that leads the chat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .backends.base import PayloadRow

__all__ = ["newest_turns"]

ReadNewest = Callable[[int | None, int], Sequence[PayloadRow]]
"""The newest rows before a position (None: of all), at most so many, in order of position."""


def newest_turns(read: ReadNewest, last: int) -> Sequence[PayloadRow]:
    """The newest whole turns of at most `last` messages together; the newest turn always, however long it is.

    A turn is a user's message and all that follows it up to the next one. What precedes the first user's message is
    the first turn.
    """
    rows = read(None, last)
    if len(rows) < last:
        return rows
    start = _first_turn(rows)
    while start is None:
        earlier = read(rows[0][0], len(rows))
        if not earlier:
            return rows
        rows = [*earlier, *rows]
        start = _last_turn(earlier)
    return rows[start:]


def _first_turn(rows: Sequence[PayloadRow]) -> int | None:
    return next((index for index, row in enumerate(rows) if row[1] == "user"), None)


def _last_turn(rows: Sequence[PayloadRow]) -> int | None:
    return next((index for index in reversed(range(len(rows))) if rows[index][1] == "user"), None)

"""Which messages a model gets: whole turns from the newest back, and the system prompt that leads the chat.

A turn is a user's message and all that follows it up to the next one. What precedes the first user's message is the
first turn. Tool calls and their results never part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

from .backends.base import Backend, ChatKey, PayloadRow, Record
from .formats import MessageFormat
from .loading import load, naming_damage
from .messages import MessageStatus
from .tokens import CountTokens, tokens_of, usual_count

__all__ = ["HEAD", "ChangedError", "newest_turns", "window"]

ReadNewest = Callable[[int | None, int], Sequence[PayloadRow]]
"""The newest rows before a position (None: of all), at most so many, in order of position."""
Weigh = Callable[[PayloadRow], int]
"""The tokens of a message."""

PAGE = 64
"""Messages that are read at a time where their number has no limit."""
HEAD = 4
"""How many messages at the beginning of a chat are searched for the system prompts that lead it."""


class ChangedError(Exception):
    """Others changed what had been read of a chat before all of it was read."""


def window(
    backend: Backend,
    key: ChatKey,
    form: MessageFormat,
    *,
    last: int | None,
    most: int | None,
    count: CountTokens | None,
) -> tuple[Sequence[PayloadRow], list[Any]]:
    """The active messages that fit, and as objects of a format the system prompts that go before them.

    last, most: messages and tokens that the newest turns may have; the prompts count as tokens but not as messages.
    `ChangedError`: try again.
    """

    def read(before: int | None, limit: int) -> Sequence[PayloadRow]:
        return backend.read_payloads(key, before=before, limit=limit, newest=True)

    def tokens(form: str, payload: str) -> int:
        return tokens_of(form, payload, count or usual_count())

    @cache
    def weigh(row: PayloadRow) -> int:
        with naming_damage(key.chat_id, [(row[0], row[3])]):
            return tokens(row[2], row[3])

    if last is None and most is None:
        found = rows = backend.read_payloads(key)
    else:
        found = rows = newest_turns(read, weigh, last=last, most=most)
    lead = _leading_system(backend, key, form, found)
    if lead and most is not None:
        taken = sum(tokens(form.name, form.dump(each).payload) for each in lead)

        def again(before: int | None, limit: int) -> Sequence[PayloadRow]:
            end = len(found) if before is None else bisect_left(found, before, key=itemgetter(0))
            return found[max(end - limit, 0) : end]

        rows = newest_turns(again, weigh, last=last, most=most - taken)
    # What leads the chat was read after what it leads: it may be of another branch by now.
    if rows and rows[0][0] and not backend.read_payloads(key, after=rows[0][0] - 1, before=rows[0][0] + 1):
        raise ChangedError
    return rows, lead


def _leading_system(backend: Backend, key: ChatKey, form: MessageFormat, rows: Sequence[PayloadRow]) -> list[Any]:
    """The system prompts that the branch begins with, where these messages of it lack them."""
    if not rows or rows[0][0] == 0:
        return []
    head = _head(backend, key, rows[0][0])
    with naming_damage(key.chat_id, ((record.position, record.payload) for record in head)):
        messages, _ = load(form, head)
    lead = []
    for message in messages:
        system = form.system(message)
        if system is None:
            break
        lead.append(system)
        found = form.parts(form.dump(message).payload)
        if found.system < len(found.parts):
            break
    return lead


def _head(backend: Backend, key: ChatKey, before: int) -> list[Record]:
    """The first messages of the branch before the one at that position, at least to where its prompts end."""
    found: list[Record] = []
    after, limit = -1, HEAD
    while len(found) < HEAD and all(record.role in ("system", "developer") for record in found):
        records = backend.read(key, after=after, before=before, limit=limit, status=None)
        found += [record for record in records if record.status != MessageStatus.SUPERSEDED]
        if len(records) < limit or (not found and _is_root(backend, key, before)):
            break
        after, limit = records[-1].position, 2 * limit  # others begin with what was displaced
    return found[:HEAD]


def _is_root(backend: Backend, key: ChatKey, position: int) -> bool:
    return any(record.parent is None for record in backend.read(key, after=position - 1, before=position + 1))


def newest_turns(read: ReadNewest, weigh: Weigh, *, last: int | None, most: int | None) -> Sequence[PayloadRow]:
    """The newest whole turns of at most `last` messages that weigh at most `most`; the newest turn always."""
    kept: list[list[PayloadRow]] = []
    count = weight = 0
    for turn in _turns(read, last or PAGE):
        count += len(turn)
        if most is not None:
            weight += sum(weigh(row) for row in turn)
        if kept and ((last is not None and count > last) or (most is not None and weight > most)):
            break
        kept.append(turn)
        if last is not None and count >= last:
            break
    return list(chain.from_iterable(reversed(kept)))


def _turns(read: ReadNewest, page: int) -> Iterator[list[PayloadRow]]:
    """The turns from the newest back, read in pages, each longer than the one before."""
    begun: list[PayloadRow] = []
    rows = read(None, page)
    follows = ""
    while rows:
        end = len(rows)
        for place in reversed(range(len(rows))):
            role = rows[place][1]
            if role in ("assistant", "tool"):
                follows = role
            elif role == "user" and follows != "tool":  # else it came between a call and its result
                yield [*rows[place:end], *begun]
                begun, end = [], place
        begun = [*rows[:end], *begun]
        if len(rows) < page:
            break
        first, page = rows[0][0], max(page, min(2 * page, PAGE))
        # With the first one again: what stands before it may be of another branch by now.
        rows = read(first + 1, page + 1)
        if not rows or rows[-1][0] != first:
            raise ChangedError
        rows = rows[:-1]
    if begun:
        yield begun

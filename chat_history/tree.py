"""A chat as a tree: every message follows another, and the active branch is the way from the root to the head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from .backends.base import Backend, Change, ChatKey, Outline, OutlineRow
from .messages import Branch, MessageStatus

__all__ = ["alone", "branches", "path", "switch"]

Rows = dict[str, OutlineRow]


def path(rows: Sequence[OutlineRow], message_id: str | None) -> list[OutlineRow]:
    """The messages from the root to this one, in order; empty for None. `KeyError` if one of them is missing."""
    by_id = _by_id(rows)
    way = []
    while message_id is not None:
        row = by_id[message_id]
        way.append(row)
        message_id = row[2]
    return way[::-1]


def branches(backend: Backend, key: ChatKey, outline: Outline) -> list[Branch]:
    """Every way through the chat, in order of their last messages; the active one may be a part of another."""
    rows = outline.rows
    followed = {row[2] for row in rows}
    heads = [row[1] for row in rows if row[1] not in followed or row[1] == outline.head]
    active = {row[1] for row in path(rows, outline.head)}
    times = {record.message_id: record.created_at for record in backend.find(key, heads)}
    # How long the way to each message is, and where it leaves the active branch. What a message follows stands before
    # it, so nothing is gone through twice, however many branches there are.
    ways: dict[str | None, tuple[int, str | None]] = {}
    for _, message_id, parent, *_ in rows:
        count, departs = ways.get(parent, (0, None))
        ways[message_id] = count + 1, message_id if message_id in active else departs
    return [Branch(head, *ways[head], head == outline.head, times[head]) for head in heads if head in times]


def switch(outline: Outline, message_id: str | None) -> Change:
    """The change that makes the active branch end with this message. `KeyError` if there is no such message."""
    way = {row[1] for row in path(outline.rows, message_id)}
    statuses = []
    active = 0
    for position, each, _, status, _ in outline.rows:
        if each in way:
            if status == MessageStatus.SUPERSEDED:
                statuses.append((position, MessageStatus.ACTIVE))
                active += 1
        elif status != MessageStatus.SUPERSEDED:
            statuses.append((position, MessageStatus.SUPERSEDED))
            active -= status == MessageStatus.ACTIVE
    return Change(datetime.now(UTC), outline.version, statuses=statuses, head=message_id, active=active)


def alone(rows: Sequence[OutlineRow], message_id: str) -> list[OutlineRow]:
    """The messages from this one upwards that no other branch shares; empty if there is no such message."""
    by_id = _by_id(rows)
    followers: dict[str | None, int] = {}
    for row in rows:
        followers[row[2]] = followers.get(row[2], 0) + 1
    found: list[OutlineRow] = []
    for row in _upwards(by_id, message_id):
        if row[3] != MessageStatus.SUPERSEDED or followers.get(row[1], 0) > (1 if found else 0):
            break
        found.append(row)
    return found


def _by_id(rows: Sequence[OutlineRow]) -> Rows:
    return {row[1]: row for row in rows}


def _upwards(by_id: Rows, message_id: str | None) -> Iterator[OutlineRow]:
    while message_id is not None and message_id in by_id:
        row = by_id[message_id]
        yield row
        message_id = row[2]

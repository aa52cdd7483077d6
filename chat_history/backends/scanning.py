"""Search without an index: look at every text. What a backend does that knows no better way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, TypeVar

from .base import ChatKey, ChatRecord, Found, OwnerKey, Record
from .walking import walk, walk_chats
from .words import Sought

if TYPE_CHECKING:
    from .base import Backend

__all__ = ["MOST", "SEARCHED", "matching", "message_found", "newest", "proposals", "scan", "title_found"]

Place = TypeVar("Place")

SEARCHED = ("active", "archived")
"""Of which status messages are found: a displaced one is not where its chat is read."""
MOST = 64
"""Grams that an index is asked for. Any of them only propose."""
SOME = 20
"""Messages that are looked at first for each that is wanted, and how many times more then."""


def scan(backend: Backend, owner: OwnerKey, wanted: Sought, chat: ChatKey | None, limit: int) -> list[Found]:
    """What `Backend.search` says, found by reading all chats of the owner, or the one."""

    def found() -> Iterator[tuple[ChatKey, Found]]:
        for key, record in walk_chats(backend, owner) if chat is None else _one(backend, chat):
            if wanted.is_in(record.title):
                yield key, title_found(record)
            for message in walk(backend, key):
                if message.status in SEARCHED and wanted.is_in(message.text):
                    yield key, message_found(record, message)

    return newest(found(), limit)


def title_found(chat: ChatRecord) -> Found:
    """A chat that was found by its title."""
    return Found(chat.chat_id, chat.title, None, None, -1, chat.title, chat.updated_at)


def message_found(chat: ChatRecord, message: Record) -> Found:
    """A message that was found."""
    return Found(
        chat.chat_id,
        chat.title,
        message.message_id,
        message.role,
        message.position,
        message.text,
        message.created_at,
    )


def matching(proposed: Iterable[Found], wanted: Sought, limit: int) -> list[Found]:
    """The first of what an index proposes, in its order, that has what is sought."""
    found: list[Found] = []
    for each in proposed:
        if wanted.is_in(each.text):
            found.append(each)
            if len(found) == limit:
                break
    return found


def proposals(
    limit: int, places: Callable[[int], Sequence[Place]], found: Callable[[Sequence[Place]], Iterable[Found]]
) -> Iterator[Found]:
    """What stands at the first places that an index has, few as long as those suffice.

    places: so many of them, in order. found: what stands there.
    """
    seen, some = 0, min(limit, 1000) * SOME
    while True:
        first = places(some)
        yield from found(first[seen:])
        if len(first) < some:
            return
        seen, some = some, some * SOME


def newest(found: Iterable[tuple[ChatKey, Found]], limit: int) -> list[Found]:
    """The first by the order of `Backend.search`."""
    best = nlargest(
        limit, found, key=lambda each: (each[1].position < 0, each[1].created_at, each[0].key, each[1].position)
    )
    return [each for _, each in best]


def _one(backend: Backend, chat: ChatKey) -> Iterator[tuple[ChatKey, ChatRecord]]:
    record = backend.get_chat(chat)
    if record is not None:
        yield chat, record

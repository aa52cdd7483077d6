"""All messages of a chat, and all chats of an owner, however many: a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from .base import Backend, ChatKey, ChatRecord, OwnerKey, Record, chat_key

__all__ = ["walk", "walk_chats"]

PAGE = 128
"""Messages or chats that are held at a time."""


def walk(backend: Backend, chat: ChatKey, *, status: str | None = None) -> Iterator[Record]:
    """The messages of a status (None: of any), in order of position. Those that others append meanwhile are seen."""
    after: int | None = None
    while records := backend.read(chat, after=after, limit=PAGE, status=status):
        yield from records
        after = records[-1].position


def walk_chats(
    backend: Backend, owner: OwnerKey, *, before: datetime | None = None
) -> Iterator[tuple[ChatKey, ChatRecord]]:
    """The owner's chats, newest activity first. before: those without a write since then.

    One that becomes active meanwhile is not seen again.
    """
    place = None if before is None else (before, UUID(int=0))
    while page := backend.list_chats(owner, limit=PAGE, after=place):
        for record in page:
            key = chat_key(owner, record.chat_id)
            place = record.updated_at, key.key
            yield key, record

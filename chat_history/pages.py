"""Pages of messages and of chats: what stands on one, and the cursors on from it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from .backends.base import Backend, ChatKey, ChatRecord, OwnerKey, chat_key
from .backends.contents import bare
from .cursors import chat_cursor, chat_place, message_cursor, message_place
from .errors import InvalidArgumentError
from .messages import Chat, Page, StoredMessage
from .records import chat_of, stored_message

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["page_of_chats", "page_of_messages"]

LAST_KEY = 2**128 - 1
"""The number of the last UUID."""


def page_of_messages(
    backend: Backend, key: ChatKey, limit: int, before: str | None, after: str | None, status: str | None
) -> Page[StoredMessage]:
    """The latest messages of a chat, or those just before or after a cursor, in order of position."""
    low, high = message_place(after, "after"), message_place(before, "before")
    newest = after is None
    records = backend.read(key, before=high, after=low, limit=limit + 1, newest=newest, status=status)
    more = len(records) > limit
    records = (records[1:] if newest else records[:-1]) if more else records
    # Of an empty page: where it would begin and end.
    first = records[0].position if records else high if high is not None else 0 if low is None else low + 1
    end = records[-1].position if records else low if low is not None else first - 1
    earlier = more if newest else bool(bare(backend).read_payloads(key, before=first, limit=1, status=status))
    later = more and not newest
    if not later and high is not None:
        later = bool(bare(backend).read_payloads(key, after=end, limit=1, status=status))
    return Page(
        tuple(stored_message(key.chat_id, record) for record in records),
        before=message_cursor(first) if earlier else None,
        after=message_cursor(end) if later else None,
    )


def page_of_chats(backend: Backend, owner: OwnerKey, limit: int, before: str | None, after: str | None) -> Page[Chat]:
    """The first chats of an owner, or those just before or after a cursor, newest activity first."""
    later, earlier = chat_place(after, "after"), chat_place(before, "before")
    if later and earlier:
        raise InvalidArgumentError("list_chats takes before or after, not both")
    records = backend.list_chats(owner, limit=limit + 1, before=earlier, after=later)
    more = len(records) > limit
    records = (records[1:] if earlier else records[:-1]) if more else records
    chats = tuple(chat_of(owner, record) for record in records)
    if not records:
        return _empty_page(backend, owner, later, earlier)
    first, last = _place(owner, records[0]), _place(owner, records[-1])
    has_before = more if earlier else bool(later and backend.list_chats(owner, limit=1, before=first))
    has_after = bool(backend.list_chats(owner, limit=1, after=last)) if earlier else more
    return Page(chats, chat_cursor(*first) if has_before else None, after=chat_cursor(*last) if has_after else None)


def _empty_page(
    backend: Backend, owner: OwnerKey, later: tuple[datetime, UUID] | None, earlier: tuple[datetime, UUID] | None
) -> Page[Chat]:
    """The page where nothing follows a cursor, with the way back, which includes the cursor's own place."""
    from uuid import UUID

    if later:
        beyond = later[0], UUID(int=max(later[1].int - 1, 0))
        has_before = backend.list_chats(owner, limit=1, before=beyond)
        return Page((), before=chat_cursor(*beyond) if has_before else None)
    if earlier:
        beyond = earlier[0], UUID(int=min(earlier[1].int + 1, LAST_KEY))
        has_after = backend.list_chats(owner, limit=1, after=beyond)
        return Page((), after=chat_cursor(*beyond) if has_after else None)
    return Page(())


def _place(owner: OwnerKey, record: ChatRecord) -> tuple[datetime, UUID]:
    return record.updated_at, chat_key(owner, record.chat_id).key

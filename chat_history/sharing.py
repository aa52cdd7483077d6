"""What an owner shares, as others see it: a store that has the shared chats only, and takes no changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from .backends.base import (
    Backend,
    Change,
    ChatKey,
    ChatRecord,
    Cleared,
    Outline,
    OwnerKey,
    PayloadRow,
    Record,
    Removal,
    Written,
    chat_key,
)
from .errors import ReadOnlyError

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["SharedChats", "refuse"]

ALL = 2**31 - 1
"""More chats than any owner has."""


class SharedChats(Backend):
    """Another backend's shared chats. Whether a chat is shared is looked up with every call."""

    name = "shared"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def location(self) -> str:
        return self._backend.location

    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        record = self._backend.get_chat(chat)
        return record if record is not None and record.shared else None

    def outline(self, chat: ChatKey) -> Outline | None:
        return self._backend.outline(chat) if self.get_chat(chat) else None

    def read(self, chat: ChatKey, **wanted: Any) -> list[Record]:
        return self._backend.read(chat, **wanted) if self.get_chat(chat) else []

    def read_payloads(self, chat: ChatKey, **wanted: Any) -> Sequence[PayloadRow]:
        return self._backend.read_payloads(chat, **wanted) if self.get_chat(chat) else []

    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        return self._backend.find(chat, message_ids) if self.get_chat(chat) else []

    def list_chats(
        self,
        owner: OwnerKey,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[ChatRecord]:
        found: list[ChatRecord] = []
        while True:
            page = self._backend.list_chats(owner, limit=limit, before=before, after=after)
            shared = [record for record in page if record.shared]
            found = shared + found if before else found + shared
            if len(page) < limit or len(found) >= limit:
                return found[-limit:] if before else found[:limit]
            edge = page[0] if before else page[-1]
            place = edge.updated_at, chat_key(owner, edge.chat_id).key
            before, after = (place, None) if before else (None, place)

    def chat_ids(self, owner: OwnerKey) -> list[str]:
        # All at once, because looking each of an owner's chats up takes a round trip to the server.
        shared = self.list_chats(owner, limit=ALL)
        shared.sort(key=lambda each: (each.created_at, chat_key(owner, each.chat_id).key))
        return [each.chat_id for each in shared]

    def owners(self) -> list[OwnerKey]:
        return [owner for owner in self._backend.owners() if self.chat_ids(owner)]

    def write(self, chat: ChatKey, change: Change) -> Written:
        refuse()

    def delete_chat(self, chat: ChatKey, expected_version: int | None = None) -> bool:
        refuse()

    def remove_each(self, removals: Sequence[Removal]) -> list[bool]:
        refuse()

    def clear(self, owner: OwnerKey) -> Cleared:
        refuse()

    def close(self) -> None:
        """Nothing: what was shared is another's to close."""


def refuse() -> NoReturn:
    """Say that nothing here can be changed."""
    raise ReadOnlyError("what others share can only be read; add its messages to a chat of your own to go on with it")

"""Between what a backend keeps and what a user sees."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import eq
from typing import overload

from .backends.base import ChatRecord, Draft, OwnerKey, Record, Written
from .backends.texts import spoken_text
from .formats import Dumped, MessageFormat
from .messages import Chat, MessageStatus, StoredMessage
from .saving import digest

__all__ = ["Stored", "chat_of", "draft_again", "draft_of", "stored_draft", "stored_message"]


def chat_of(owner: OwnerKey, record: ChatRecord) -> Chat:
    """A chat as its owner sees it."""
    return Chat(
        chat_id=record.chat_id,
        user_id=owner.user_id,
        tenant_id=owner.tenant_id,
        title=record.title,
        metadata=json.loads(record.metadata) if record.metadata else {},
        shared=record.shared,
        version=record.version,
        message_count=record.message_count,
        head=record.head,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def draft_of(
    form: MessageFormat, dumped: Dumped, digest: bytes, message_id: str, now: datetime, metadata: str | None = None
) -> Draft:
    """A message ready for a backend."""
    return Draft(
        message_id,
        dumped.role,
        form.name,
        form.version(),
        dumped.payload,
        dumped.text,
        digest,
        now,
        metadata,
        dumped.said,
    )


def draft_again(record: Record) -> Draft:
    """A stored message ready to be stored in another chat, with its id, its time and its status."""
    said = record.text == spoken_text(None, record.payload)
    return Draft(
        record.message_id,
        record.role,
        record.format,
        record.format_version,
        record.payload,
        record.text,
        digest(record.payload),
        record.created_at,
        record.metadata,
        said,
        record.status,
    )


def stored_message(chat_id: str, record: Record) -> StoredMessage:
    """A record as a user sees it."""
    return StoredMessage(
        chat_id=chat_id,
        message_id=record.message_id,
        position=record.position,
        parent=record.parent,
        status=MessageStatus(record.status),
        role=record.role,
        format=record.format,
        format_version=record.format_version,
        payload=record.payload,
        text=record.text,
        created_at=record.created_at,
        metadata=json.loads(record.metadata) if record.metadata else {},
    )


def stored_draft(chat_id: str, draft: Draft, position: int, parent: str | None) -> StoredMessage:
    """A draft as it was stored at that position."""
    message_id, role, form, version, payload, text, _, created_at, metadata, _, status = draft
    return StoredMessage(
        chat_id,
        message_id,
        position,
        parent,
        MessageStatus(status),
        role,
        form,
        version,
        payload,
        text,
        created_at,
        json.loads(metadata) if metadata else {},
    )


class Stored(Sequence[StoredMessage]):
    """The drafts of a write as they were stored, each made as it is looked at. Equal to a list of the same."""

    def __init__(self, chat_id: str, drafts: Sequence[Draft], written: Written) -> None:
        self._chat_id = chat_id
        self._drafts = drafts
        self._written = written

    @overload
    def __getitem__(self, index: int) -> StoredMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[StoredMessage]: ...
    def __getitem__(self, index: int | slice) -> StoredMessage | list[StoredMessage]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        place = range(len(self))[index]
        parent = self._drafts[place - 1].message_id if place else self._written.parent
        return stored_draft(self._chat_id, self._drafts[place], self._written.position + place, parent)

    def __len__(self) -> int:
        return len(self._drafts)

    def __iter__(self) -> Iterator[StoredMessage]:
        parent = self._written.parent
        for position, draft in enumerate(self._drafts, self._written.position):
            yield stored_draft(self._chat_id, draft, position, parent)
            parent = draft.message_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[list[StoredMessage]], tuple[list[StoredMessage]]]:
        """Pickled and copied as a plain list."""
        return list, (list(self),)

    def __repr__(self) -> str:
        return repr(list(self))

"""Between what a backend keeps and what a user sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from .backends.base import ChatRecord, Draft, OwnerKey, Record, Written
from .formats import Dumped, MessageFormat
from .messages import Chat, MessageStatus, StoredMessage

__all__ = ["chat_of", "draft_of", "stored_drafts", "stored_message"]


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
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def draft_of(
    form: MessageFormat, dumped: Dumped, digest: bytes, message_id: str, now: datetime, metadata: str | None = None
) -> Draft:
    """A message ready for a backend."""
    return Draft(message_id, dumped.role, form.name, form.version(), dumped.payload, dumped.text, digest, now, metadata)


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


def stored_drafts(chat_id: str, drafts: Sequence[Draft], written: Written) -> list[StoredMessage]:
    """Drafts as they were stored by a write."""
    position, parent, active = written.position, written.parent, MessageStatus.ACTIVE
    stored = []
    for draft in drafts:
        metadata = json.loads(draft.metadata) if draft.metadata else {}
        # In the order of the class, because naming each field takes as long again, for very many messages.
        stored.append(
            StoredMessage(chat_id, draft.message_id, position, parent, active, *draft[1:6], draft.created_at, metadata)
        )
        position, parent = position + 1, draft.message_id
    return stored

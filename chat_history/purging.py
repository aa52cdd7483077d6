"""Removing what has been left alone for long, of all chats of an owner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import compress

from .backends.base import Change, ChatKey, Cleared, Outline, OutlineRow, OwnerKey, Removal
from .backends.walking import walk_chats
from .errors import DamagedStoreError
from .limits import leading
from .messages import MessageStatus
from .writing import Arrange, Choose, Writer, deletion

__all__ = ["purge_chats", "purge_messages"]


def purge_chats(writer: Writer, owner: OwnerKey, before: datetime) -> Cleared:
    """Remove the owner's chats without a write since then; one that is written to meanwhile stays."""
    removals: list[Removal] = []
    sizes: list[int] = []
    for key, record in walk_chats(writer.backend, owner, before=before):
        if outline := writer.backend.outline(key):
            removals.append(Removal(key, record.version, None))
            sizes.append(len(outline.rows))
            writer.branches.drop(key.key)
    gone = list(compress(sizes, writer.backend.remove_each(removals)))
    return Cleared(len(gone), sum(gone))


def purge_messages(writer: Writer, keys: Iterable[ChatKey], before: datetime, status: str) -> int:
    """Remove the messages of a status that were stored before then: how many. No chat is more active by it.

    Of those that are archived the system prompt stays that leads the chat: windows go on beginning with it.
    """
    removals: list[Removal] = []
    older: list[tuple[Choose, Arrange, int]] = []
    for key in keys:
        if found := _older(writer, key, before, status):
            choose, change = found
            outline = writer.backend.outline(key)
            if outline and (rows := choose(outline.rows)):
                removals.append(Removal(key, outline.version, change(outline, rows)))
                older.append((choose, change, len(rows)))
                writer.branches.drop(key.key)
    count = 0
    for each, (choose, change, size), is_done in zip(
        removals, older, writer.backend.remove_each(removals), strict=True
    ):
        count += size if is_done else len(writer.rearrange(each.chat, choose, change, writer.bare))
    return count


def _older(writer: Writer, key: ChatKey, before: datetime, status: str) -> tuple[Choose, Arrange] | None:
    """How the messages of a status are chosen that were stored before then, and removed; None if there are none."""
    old = {record.message_id for record in writer.bare.read(key, status=status) if record.created_at < before}
    chat = writer.backend.get_chat(key) if old else None
    if chat is None:
        return None
    is_archived = status == MessageStatus.ARCHIVED
    change = writer.without_turns(key) if is_archived else deletion

    def choose(rows: Sequence[OutlineRow]) -> Sequence[OutlineRow]:
        some = [row for row in rows if row[3] == status]
        return [row for row in some[_lead(writer, key, some) if is_archived else 0 :] if row[1] in old]

    def removal(outline: Outline, rows: Sequence[OutlineRow]) -> Change:
        # Else it would keep the chat from its own end, and show it first among those that people talk in.
        return replace(change(outline, rows), now=chat.updated_at)

    return choose, removal


def _lead(writer: Writer, key: ChatKey, rows: Sequence[OutlineRow]) -> int:
    """`leading`; none where that cannot be read, because what is damaged may go too."""
    try:
        return leading(writer.bare, key, rows)
    except DamagedStoreError:
        return 0

"""What a write does to a SQLite file: the work of one transaction, which has the write lock from its beginning."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from chat_history.errors import VersionConflictError

from .base import UNSET, Change, ChatKey, Cleared, Draft, Removal, Written, first_version
from .contents import uses
from .drafts import plain
from .sqlite_search import FORGET_CHAT, FORGET_CHATS, changed, forgotten
from .words import BLOCK, TITLE

__all__ = ["append", "apply", "clear", "delete_chat", "remove_each", "time_text"]

# Reading first and writing what follows from it is faster than RETURNING, which goes through a temporary table.
STATE = "SELECT version, next_position, head, updated_at FROM chats WHERE chat_key = ?"
CREATE_CHAT = """
INSERT INTO chats (chat_key, owner_key, version, next_position, message_count, head, created_at, updated_at, shared,
    tenant_id, user_id, chat_id, title, metadata)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, '', NULL)
"""
UPDATE_CHAT = """
UPDATE chats SET version = ?, next_position = ?, message_count = message_count + ?, head = ?, updated_at = ?
WHERE chat_key = ?
"""
SET_TITLE = "UPDATE chats SET title = ? WHERE chat_key = ?"
SET_METADATA = "UPDATE chats SET metadata = ? WHERE chat_key = ?"
SET_SHARED = "UPDATE chats SET shared = ? WHERE chat_key = ?"

ADD_MESSAGE = """
INSERT INTO messages (chat_key, position, message_id, parent, status, role, format, format_version, digest, created_at,
    metadata, text, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
SET_STATUS = "UPDATE messages SET status = ? WHERE chat_key = ? AND position = ?"
SET_PARENT = "UPDATE messages SET parent = ? WHERE chat_key = ? AND position = ?"
REPLACE = """
UPDATE messages SET role = ?, format = ?, format_version = ?, digest = ?, metadata = ?, text = ?, payload = ?
WHERE chat_key = ? AND position = ?
"""
DELETE_MESSAGE = "DELETE FROM messages WHERE chat_key = ? AND position = ?"

KEEP_CONTENT = "INSERT OR IGNORE INTO contents (owner_key, hash, data) VALUES (?, ?, ?)"
USE_CONTENT = "INSERT INTO content_uses (owner_key, hash, chat_key, position) VALUES (?, ?, ?, ?)"
CONTENTS_USED = "SELECT hash, position FROM content_uses WHERE chat_key = ?"
LEAVE_CONTENT = "DELETE FROM content_uses WHERE owner_key = ? AND hash = ? AND chat_key = ? AND position = ?"
DELETE_CONTENT = """
DELETE FROM contents WHERE owner_key = ?1 AND hash = ?2
    AND NOT EXISTS (SELECT 1 FROM content_uses WHERE owner_key = ?1 AND hash = ?2)
"""

DELETE_MESSAGES = "DELETE FROM messages WHERE chat_key = ?"
DELETE_CHAT = "DELETE FROM chats WHERE chat_key = ?"
CLEAR_USES = "DELETE FROM content_uses WHERE owner_key = ?"
CLEAR_CONTENTS = "DELETE FROM contents WHERE owner_key = ?"
CLEAR_MESSAGES = "DELETE FROM messages WHERE chat_key IN (SELECT chat_key FROM chats WHERE owner_key = ?)"
CLEAR_CHATS = "DELETE FROM chats WHERE owner_key = ?"


def append(connection: sqlite3.Connection, chat: ChatKey, draft: Draft) -> Written:
    """What `apply` does for one draft of a chat that exists, in as few steps as possible."""
    execute = connection.execute
    key = chat.key.bytes
    row = execute(STATE, (key,)).fetchone()
    if row is None:
        return apply(connection, chat, Change(draft.created_at, None, (draft,), active=1))
    version, position, parent, updated = row
    message_id, role, form, form_version, payload, text, digest, created_at, metadata, said, status = draft
    now = time_text(created_at)
    execute(UPDATE_CHAT, (version + 1, position + 1, 1, message_id, now if now > updated else updated, key))
    kept = None if said else text
    execute(
        ADD_MESSAGE,
        (key, position, message_id, parent, status, role, form, form_version, digest, now, metadata, kept, payload),
    )
    return Written(version + 1, position, parent)


def apply(connection: sqlite3.Connection, chat: ChatKey, change: Change) -> Written:
    execute = connection.execute
    key = chat.key.bytes
    now = time_text(change.now)
    drafts = change.drafts
    expected = change.expected_version
    row = execute(STATE, (key,)).fetchone()
    if row is None:
        if expected:
            raise VersionConflictError(expected, 0)
        version, position, head, updated = first_version(change.now), 0, None, now
    else:
        version, position, head, updated = row
        if expected is not None and expected != version:
            raise VersionConflictError(expected, version)
        version += 1
    parent = None
    if drafts:
        parent = head if change.follows is UNSET else change.follows
        head = drafts[-1].message_id
    elif change.head is not UNSET:
        head = change.head
    end = position + len(drafts)
    if row is None:
        owner = chat.owner.bytes
        execute(
            CREATE_CHAT,
            (key, owner, version, end, change.active, head, now, now, chat.tenant_id, chat.user_id, chat.chat_id),
        )
    else:
        execute(UPDATE_CHAT, (version, end, change.active, head, now if now > updated else updated, key))
    if drafts:
        connection.executemany(ADD_MESSAGE, _rows(key, position, parent, drafts))
    if not change.appends_only:
        _change_messages(connection, key, change)
    if change.contents or change.replacements or change.deletions:
        _change_contents(connection, chat, change, position)
    if change.title is not UNSET:
        execute(SET_TITLE, (change.title, key))
        if row is not None or change.title:
            changed(connection, key, [TITLE])
    if change.metadata is not UNSET:
        execute(SET_METADATA, (change.metadata, key))
    if change.shared is not UNSET:
        execute(SET_SHARED, (change.shared, key))
    return Written(version, position if drafts else 0, parent)


def _change_messages(connection: sqlite3.Connection, key: bytes, change: Change) -> None:
    connection.executemany(SET_STATUS, ((status, key, position) for position, status in change.statuses))
    connection.executemany(SET_PARENT, ((parent, key, position) for position, parent in change.parents))
    connection.executemany(
        REPLACE,
        (
            (
                new.role,
                new.format,
                new.format_version,
                new.digest,
                new.metadata,
                None if new.said else new.text,
                new.payload,
                key,
                position,
            )
            for position, new in change.replacements
        ),
    )
    connection.executemany(DELETE_MESSAGE, ((key, position) for position in change.deletions))
    positions = [*change.deletions, *(position for position, _ in change.replacements)]
    changed(connection, key, {position // BLOCK for position in positions})


def _change_contents(connection: sqlite3.Connection, chat: ChatKey, change: Change, position: int) -> None:
    owner, key = chat.owner.bytes, chat.key.bytes
    left = _leave(connection, chat, {*change.deletions, *(place for place, _ in change.replacements)})
    if change.contents:
        connection.executemany(KEEP_CONTENT, ((owner, *content) for content in change.contents.items()))
        connection.executemany(USE_CONTENT, ((owner, known, key, place) for known, place in uses(change, position)))
    connection.executemany(DELETE_CONTENT, left)


def _leave(
    connection: sqlite3.Connection, chat: ChatKey, positions: Collection[int] | None = None
) -> set[tuple[bytes, str]]:
    """Let messages of a chat (None: all) refer to no content: the parameters of `DELETE_CONTENT` for what they did."""
    owner, key = chat.owner.bytes, chat.key.bytes
    used = connection.execute(CONTENTS_USED, (key,)) if positions or positions is None else ()
    left = [(owner, known, key, place) for known, place in used if positions is None or place in positions]
    connection.executemany(LEAVE_CONTENT, left)
    return {each[:2] for each in left}


def delete_chat(connection: sqlite3.Connection, chat: ChatKey, expected: int | None) -> bool:
    key = chat.key.bytes
    if expected is not None:
        version = (connection.execute(STATE, (key,)).fetchone() or (0,))[0]
        if version != expected:
            raise VersionConflictError(expected, version)
    connection.execute(DELETE_MESSAGES, (key,))
    connection.executemany(DELETE_CONTENT, _leave(connection, chat))
    forgotten(connection, connection.execute(FORGET_CHAT, (key,)).rowcount)
    return connection.execute(DELETE_CHAT, (key,)).rowcount > 0


def remove_each(connection: sqlite3.Connection, removals: Sequence[Removal]) -> list[bool]:
    return [_is_removed(connection, each) for each in removals]


def _is_removed(connection: sqlite3.Connection, removal: Removal) -> bool:
    try:
        if removal.change is None:
            return delete_chat(connection, removal.chat, removal.version)
        apply(connection, removal.chat, removal.change)
    except VersionConflictError:  # which comes before anything is done
        return False
    return True


def clear(connection: sqlite3.Connection, key: bytes) -> Cleared:
    messages = connection.execute(CLEAR_MESSAGES, (key,)).rowcount
    connection.execute(CLEAR_USES, (key,))
    connection.execute(CLEAR_CONTENTS, (key,))
    forgotten(connection, connection.execute(FORGET_CHATS, (key,)).rowcount)
    return Cleared(connection.execute(CLEAR_CHATS, (key,)).rowcount, messages)


def time_text(moment: datetime) -> str:
    """Of fixed width, so that the order of the text is that of the times."""
    return moment.isoformat(timespec="microseconds")


def _rows(key: bytes, position: int, parent: str | None, drafts: Sequence[Draft]) -> Iterator[tuple[Any, ...]]:
    """The parameters of `ADD_MESSAGE` for each."""
    time = at = None
    for draft in plain(drafts):
        message_id, role, form, form_version, payload, text, digest, created_at, metadata, said, status = draft
        if created_at is not time:
            time, at = created_at, time_text(created_at)
        kept = None if said else text
        yield key, position, message_id, parent, status, role, form, form_version, digest, at, metadata, kept, payload
        position += 1
        parent = message_id

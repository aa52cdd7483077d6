"""A SQLite file in WAL mode: one writer connection and a few readers, shared by all threads.

A write is one transaction that begins by taking the write lock, so nothing it has read can have changed. Full
durability is that of `synchronous = FULL`: a write returns when the disk has the log that it was committed to.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from chat_history.errors import ConfigError, VersionConflictError
from chat_history.migrations.runner import migrate

from .base import (
    UNSET,
    Backend,
    Change,
    ChatKey,
    ChatRecord,
    Cleared,
    Draft,
    Found,
    Outline,
    OwnerKey,
    PayloadRow,
    Record,
    Written,
    first_version,
    owner_key,
)
from .contents import uses
from .drafts import Drafts
from .sqlite_file import SQLiteFile
from .sqlite_search import FORGET_CHAT, FORGET_CHATS, Index, changed, forgotten
from .texts import spoken_text
from .words import BLOCK, TITLE, Sought

__all__ = ["SQLiteBackend"]

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
VALUES (?, ?, ?, ?, 'active', ?, ?, ?, ?, ?, ?, ?, ?)
"""
SET_STATUS = "UPDATE messages SET status = ? WHERE chat_key = ? AND position = ?"
SET_PARENT = "UPDATE messages SET parent = ? WHERE chat_key = ? AND position = ?"
REPLACE = """
UPDATE messages SET role = ?, format = ?, format_version = ?, digest = ?, metadata = ?, text = ?, payload = ?
WHERE chat_key = ? AND position = ?
"""
DELETE_MESSAGE = "DELETE FROM messages WHERE chat_key = ? AND position = ?"

RECORD = """
SELECT position, message_id, parent, status, role, format, format_version, payload, text, created_at, metadata
FROM messages
"""
PAYLOAD = "SELECT position, role, format, payload FROM messages "
WITHIN = "WHERE chat_key = ?1 AND position > ?2 AND position < ?3 AND (?4 IS NULL OR status = ?4) "
OLDEST = "ORDER BY position LIMIT ?5"
NEWEST = "ORDER BY position DESC LIMIT ?5"
READ = {False: RECORD + WITHIN + OLDEST, True: RECORD + WITHIN + NEWEST}
READ_PAYLOADS = {False: PAYLOAD + WITHIN + OLDEST, True: PAYLOAD + WITHIN + NEWEST}
FIND = RECORD + "WHERE chat_key = ? AND message_id = ?"
# One statement, so that version and rows are of one moment. The chat's own row comes first.
OUTLINE = """
SELECT -1, version, head, NULL, NULL FROM chats WHERE chat_key = ?1
UNION ALL SELECT position, message_id, parent, status, digest FROM messages WHERE chat_key = ?1 ORDER BY 1
"""

CHAT = "SELECT chat_id, title, metadata, shared, version, message_count, head, created_at, updated_at FROM chats "
GET_CHAT = CHAT + "WHERE chat_key = ?"
LIST_CHATS = CHAT + "WHERE owner_key = ? ORDER BY updated_at DESC, chat_key DESC LIMIT ?"
LIST_AFTER = (
    CHAT + "WHERE owner_key = ? AND (updated_at, chat_key) < (?, ?) ORDER BY updated_at DESC, chat_key DESC LIMIT ?"
)
LIST_BEFORE = CHAT + "WHERE owner_key = ? AND (updated_at, chat_key) > (?, ?) ORDER BY updated_at, chat_key LIMIT ?"
OWNERS = "SELECT DISTINCT tenant_id, user_id FROM chats ORDER BY tenant_id, user_id"
CHAT_IDS = "SELECT chat_id FROM chats WHERE owner_key = ? ORDER BY created_at, chat_key"

DELETE_MESSAGES = "DELETE FROM messages WHERE chat_key = ?"
DELETE_CHAT = "DELETE FROM chats WHERE chat_key = ?"
KEEP_CONTENT = "INSERT OR IGNORE INTO contents (owner_key, hash, data) VALUES (?, ?, ?)"
USE_CONTENT = "INSERT INTO content_uses (owner_key, hash, chat_key, position) VALUES (?, ?, ?, ?)"
CONTENTS_USED = "SELECT hash, position FROM content_uses WHERE chat_key = ?"
LEAVE_CONTENT = "DELETE FROM content_uses WHERE owner_key = ? AND hash = ? AND chat_key = ? AND position = ?"
DELETE_CONTENT = """
DELETE FROM contents WHERE owner_key = ?1 AND hash = ?2
    AND NOT EXISTS (SELECT 1 FROM content_uses WHERE owner_key = ?1 AND hash = ?2)
"""
GET_CONTENT = "SELECT hash, data FROM contents WHERE owner_key = ? AND hash = ?"
CLEAR_USES = "DELETE FROM content_uses WHERE owner_key = ?"
CLEAR_CONTENTS = "DELETE FROM contents WHERE owner_key = ?"

CLEAR_MESSAGES = "DELETE FROM messages WHERE chat_key IN (SELECT chat_key FROM chats WHERE owner_key = ?)"
CLEAR_CHATS = "DELETE FROM chats WHERE owner_key = ?"

LARGEST = 2**63 - 1


class SQLiteBackend(Backend):
    """Chats in one SQLite file, or in memory with the path ":memory:".

    durability "relaxed" lets the operating system choose when a commit reaches the disk: a power loss may take the
    last moments, never the file's integrity. timeout: seconds to wait for other writers before `StoreBusyError`.
    migrations: a package of the integrator's own steps (`chat_history.migrations.runner` says how they look).
    """

    name = "sqlite"
    keeps_contents = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "relaxed"] = "full",
        timeout: float = 30.0,
        migrations: str | None = None,
    ) -> None:
        self._options = {"durability": durability, "timeout": timeout, "migrations": migrations}
        self._file = SQLiteFile(path, is_full=durability == "full", timeout=timeout)
        self._index = Index(self._file)
        self._file.open(
            lambda connection: migrate(connection, dialect="sqlite", place=self._file.path, package=migrations)
        )

    @property
    def location(self) -> str:
        return self._file.path

    @property
    def settings(self) -> dict[str, Any]:
        if self.location == ":memory:":
            raise ConfigError("a history in memory is gone with its process; keep it in a file to open it again")
        return {"backend": self.name, "db_path": self.location, **self._options}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    def close(self) -> None:
        self._file.close()

    # ---- writing

    def write(self, chat: ChatKey, change: Change) -> Written:
        if isinstance(change.drafts, Drafts):
            change.drafts.made()  # before others have to wait for it
        return self._file.write(_apply, chat, change, scrub=bool(change.deletions or change.replacements))

    def append(self, chat: ChatKey, draft: Draft) -> Written:
        return self._file.write(_append, chat, draft)

    def delete_chat(self, chat: ChatKey, expected_version: int | None = None) -> bool:
        return self._file.write(_delete_chat, chat, expected_version, scrub=True)

    def clear(self, owner: OwnerKey) -> Cleared:
        return self._file.write(_clear, owner.key.bytes, scrub=True)

    # ---- reading

    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        rows = self._file.read(GET_CHAT, (chat.key.bytes,))
        return _chat_record(rows[0]) if rows else None

    def outline(self, chat: ChatKey) -> Outline | None:
        rows = self._file.read(OUTLINE, (chat.key.bytes,))
        if not rows:
            return None
        _, version, head, _, _ = rows.pop(0)
        return Outline(version, head, rows)

    def read(
        self,
        chat: ChatKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        status: str | None = "active",
    ) -> list[Record]:
        rows = self._file.read(READ[newest], _within(chat, before, after, limit, status))
        return [_record(row) for row in (reversed(rows) if newest else rows)]

    def read_payloads(
        self,
        chat: ChatKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        status: str | None = "active",
    ) -> Sequence[PayloadRow]:
        rows = self._file.read(READ_PAYLOADS[newest], _within(chat, before, after, limit, status))
        if newest:
            rows.reverse()
        return rows

    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        key = chat.key.bytes
        found = [row for message_id in set(message_ids) for row in self._file.read(FIND, (key, message_id))]
        return [_record(row) for row in sorted(found, key=lambda row: row[0])]

    def contents(self, chat: ChatKey, hashes: Sequence[str]) -> dict[str, str]:
        owner = chat.owner.bytes
        return dict(row for known in hashes for row in self._file.read(GET_CONTENT, (owner, known)))

    def list_chats(
        self,
        owner: OwnerKey,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[ChatRecord]:
        key, limit = owner.key.bytes, min(limit, LARGEST)
        if before is not None:
            rows = self._file.read(LIST_BEFORE, (key, _time(before[0]), before[1].bytes, limit))
            rows.reverse()
        elif after is not None:
            rows = self._file.read(LIST_AFTER, (key, _time(after[0]), after[1].bytes, limit))
        else:
            rows = self._file.read(LIST_CHATS, (key, limit))
        return [_chat_record(row) for row in rows]

    def search(self, owner: OwnerKey, wanted: Sought, *, chat: ChatKey | None = None, limit: int) -> list[Found]:
        grams = wanted.grams(owner.key)
        if self._file.read_only or not self._index.can_find(grams):
            return super().search(owner, wanted, chat=chat, limit=limit)
        self._index.catch_up()
        return self._index.search(owner, wanted, grams, chat, limit)

    def chat_ids(self, owner: OwnerKey) -> list[str]:
        return [chat_id for (chat_id,) in self._file.read(CHAT_IDS, (owner.key.bytes,))]

    def owners(self) -> list[OwnerKey]:
        return [owner_key(*row) for row in self._file.read(OWNERS, ())]


# ---- the work of one transaction


def _append(connection: sqlite3.Connection, chat: ChatKey, draft: Draft) -> Written:
    """What `_apply` does for one draft of a chat that exists, in as few steps as possible."""
    execute = connection.execute
    key = chat.key.bytes
    row = execute(STATE, (key,)).fetchone()
    if row is None:
        return _apply(connection, chat, Change(draft.created_at, None, (draft,), active=1))
    version, position, parent, updated = row
    message_id, role, form, form_version, payload, text, digest, created_at, metadata, said = draft
    now = _time(created_at)
    execute(UPDATE_CHAT, (version + 1, position + 1, 1, message_id, now if now > updated else updated, key))
    kept = None if said else text
    execute(
        ADD_MESSAGE,
        (key, position, message_id, parent, role, form, form_version, digest, now, metadata, kept, payload),
    )
    return Written(version + 1, position, parent)


def _apply(connection: sqlite3.Connection, chat: ChatKey, change: Change) -> Written:
    execute = connection.execute
    key = chat.key.bytes
    now = _time(change.now)
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


def _delete_chat(connection: sqlite3.Connection, chat: ChatKey, expected: int | None) -> bool:
    key = chat.key.bytes
    if expected is not None:
        version = (connection.execute(STATE, (key,)).fetchone() or (0,))[0]
        if version != expected:
            raise VersionConflictError(expected, version)
    connection.execute(DELETE_MESSAGES, (key,))
    connection.executemany(DELETE_CONTENT, _leave(connection, chat))
    forgotten(connection, connection.execute(FORGET_CHAT, (key,)).rowcount)
    return connection.execute(DELETE_CHAT, (key,)).rowcount > 0


def _clear(connection: sqlite3.Connection, key: bytes) -> Cleared:
    messages = connection.execute(CLEAR_MESSAGES, (key,)).rowcount
    connection.execute(CLEAR_USES, (key,))
    connection.execute(CLEAR_CONTENTS, (key,))
    forgotten(connection, connection.execute(FORGET_CHATS, (key,)).rowcount)
    return Cleared(connection.execute(CLEAR_CHATS, (key,)).rowcount, messages)


# ---- rows


def _time(moment: datetime) -> str:
    """Of fixed width, so that the order of the text is that of the times."""
    return moment.isoformat(timespec="microseconds")


def _rows(key: bytes, position: int, parent: str | None, drafts: Sequence[Draft]) -> Iterator[tuple[Any, ...]]:
    """The parameters of `ADD_MESSAGE` for each."""
    time = at = None
    for message_id, role, form, form_version, payload, text, digest, created_at, metadata, said in drafts:
        if created_at is not time:
            time, at = created_at, _time(created_at)
        kept = None if said else text
        yield key, position, message_id, parent, role, form, form_version, digest, at, metadata, kept, payload
        position += 1
        parent = message_id


def _record(row: tuple[Any, ...]) -> Record:
    return Record._make((*row[:8], spoken_text(row[8], row[7]), datetime.fromisoformat(row[9]), row[10]))


def _chat_record(row: tuple[Any, ...]) -> ChatRecord:
    chat_id, title, metadata, shared, version, count, head, created_at, updated_at = row
    times = datetime.fromisoformat(created_at), datetime.fromisoformat(updated_at)
    return ChatRecord(chat_id, title, metadata, bool(shared), version, count, head, *times)


def _within(
    chat: ChatKey, before: int | None, after: int | None, limit: int | None, status: str | None
) -> tuple[Any, ...]:
    return (
        chat.key.bytes,
        -1 if after is None else min(after, LARGEST),
        LARGEST if before is None else min(before, LARGEST),
        status,
        -1 if limit is None else min(limit, LARGEST),
    )

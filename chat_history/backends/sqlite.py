"""A SQLite file in WAL mode: one writer connection and a few readers, shared by all threads.

A write is one transaction (`sqlite_changes`) that begins by taking the write lock, so nothing it has read can have
changed. Full durability is that of `synchronous = FULL`: a write returns when the disk has the log that it was
committed to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from chat_history.errors import ConfigError, DamagedStoreError, StorageError
from chat_history.migrations.runner import migrate

from .base import (
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
    Removal,
    Written,
    owner_key,
)
from .drafts import Drafts
from .sqlite_changes import append, apply, clear, delete_chat, remove_each, time_text
from .sqlite_file import SQLiteFile
from .sqlite_search import Index
from .texts import spoken_text
from .words import Sought

__all__ = ["SQLiteBackend"]

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

GET_CONTENT = "SELECT hash, data FROM contents WHERE owner_key = ? AND hash = ?"
LARGEST = 2**63 - 1
TOGETHER = 50
"""Chats that something is removed of in one transaction, which others wait for."""


class SQLiteBackend(Backend):
    """Chats in one SQLite file, or in memory with the path ":memory:".

    durability "relaxed" lets the operating system choose when a commit reaches the disk: a power loss may take the
    last moments, never the file's integrity. timeout: seconds to wait for other writers before `StoreBusyError`.
    migrations: a package of the integrator's own steps (`chat_history.migrations.runner` says how they look).
    read_only: nothing is created or changed; the file must be there, and up to date.
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
        read_only: bool = False,
    ) -> None:
        self._options = {"durability": durability, "timeout": timeout, "migrations": migrations}
        self._file = SQLiteFile(path, is_full=durability == "full", timeout=timeout, read_only=read_only)
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
        return self._file.write(apply, chat, change, scrub=bool(change.deletions or change.replacements))

    def append(self, chat: ChatKey, draft: Draft) -> Written:
        return self._file.write(append, chat, draft)

    def delete_chat(self, chat: ChatKey, expected_version: int | None = None) -> bool:
        return self._file.write(delete_chat, chat, expected_version, scrub=True)

    def remove_each(self, removals: Sequence[Removal]) -> list[bool]:
        # Bringing what goes to the disk, and emptying the log, takes much longer than all else.
        done: list[bool] = []
        for start in range(0, len(removals), TOGETHER):
            done += self._file.write(remove_each, removals[start : start + TOGETHER], scrub=True)
        return done

    def clear(self, owner: OwnerKey) -> Cleared:
        return self._file.write(clear, owner.key.bytes, scrub=True)

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
            rows = self._file.read(LIST_BEFORE, (key, time_text(before[0]), before[1].bytes, limit))
            rows.reverse()
        elif after is not None:
            rows = self._file.read(LIST_AFTER, (key, time_text(after[0]), after[1].bytes, limit))
        else:
            rows = self._file.read(LIST_CHATS, (key, limit))
        return [_chat_record(row) for row in rows]

    def search(self, owner: OwnerKey, wanted: Sought, *, chat: ChatKey | None = None, limit: int) -> list[Found]:
        grams = wanted.grams(owner.key)
        if self._file.read_only or not self._index.can_find(grams):
            return super().search(owner, wanted, chat=chat, limit=limit)
        try:
            self._index.catch_up()
        except DamagedStoreError:
            raise
        except StorageError:  # others write for long, or the disk is full: what is there can be read all the same
            return super().search(owner, wanted, chat=chat, limit=limit)
        return self._index.search(owner, wanted, grams, chat, limit)

    def chat_ids(self, owner: OwnerKey) -> list[str]:
        return [chat_id for (chat_id,) in self._file.read(CHAT_IDS, (owner.key.bytes,))]

    def owners(self) -> list[OwnerKey]:
        return [owner_key(*row) for row in self._file.read(OWNERS, ())]


# ---- rows


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

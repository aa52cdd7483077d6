"""The index of a SQLite file that searches use, and bring up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from .base import ChatKey, Found, OwnerKey
from .sqlite_file import SQLiteFile
from .texts import spoken_text
from .words import Sought, grams_of

__all__ = ["FORGET_CHAT", "FORGET_CHATS", "FORGET_MESSAGE", "Index", "changed", "forgotten"]

HAS_INDEX = "SELECT 1 FROM sqlite_master WHERE name = 'grams'"
STATE = "SELECT up_to, stale FROM search_state"
SET_STATE = "UPDATE search_state SET up_to = ?, stale = ?"
# Ids of messages that are gone are given out again, and must be looked at again.
FORGOTTEN = """
UPDATE search_state SET stale = stale + ?, up_to = min(up_to, (SELECT COALESCE(max(id), 0) FROM messages))
"""
FORGET_CHAT = "DELETE FROM searched WHERE chat_key = ?"
FORGET_CHATS = "DELETE FROM searched WHERE chat_key IN (SELECT chat_key FROM chats WHERE owner_key = ?)"
FORGET_MESSAGE = "DELETE FROM searched WHERE chat_key = ? AND position = ?"
# The newest id is one that was not looked at yet.
RENEW = "UPDATE messages SET id = (SELECT max(id) FROM messages) + 1 WHERE chat_key = ? AND position = ?"
RENEW_TITLE = "INSERT OR IGNORE INTO unsearched_titles (chat_key) VALUES (?)"

NEW_TITLES = """
SELECT t.chat_key, c.owner_key, -1, c.title, NULL
FROM unsearched_titles t JOIN chats c ON c.chat_key = t.chat_key ORDER BY t.chat_key LIMIT ?
"""
TITLE_DONE = "DELETE FROM unsearched_titles WHERE chat_key = ?"
NO_TITLES = "DELETE FROM unsearched_titles"
NEW_MESSAGES = """
SELECT m.chat_key, c.owner_key, m.position, m.text, m.payload, m.id
FROM messages m JOIN chats c ON c.chat_key = m.chat_key WHERE m.id > ? ORDER BY m.id LIMIT ?
"""
ADD = "INSERT OR REPLACE INTO searched (chat_key, position) VALUES (?, ?)"
ADD_GRAMS = "INSERT INTO grams (rowid, gram) VALUES (?, ?)"
PENDING = """
SELECT EXISTS (SELECT 1 FROM unsearched_titles)
    OR COALESCE((SELECT max(id) FROM messages), 0) > (SELECT up_to FROM search_state)
"""
EMPTY = ["INSERT INTO grams (grams) VALUES ('delete-all')", "DELETE FROM searched", NO_TITLES]
ALL_TITLES = "INSERT INTO unsearched_titles (chat_key) SELECT chat_key FROM chats WHERE title <> ''"

MESSAGES_WITH = """
SELECT m.chat_key, m.position
FROM grams g CROSS JOIN searched s ON s.id = g.rowid
    CROSS JOIN messages m ON m.chat_key = s.chat_key AND m.position = s.position
    CROSS JOIN chats c ON c.chat_key = m.chat_key
WHERE grams MATCH ?1 AND c.owner_key = ?2 AND (?3 IS NULL OR c.chat_key = ?3) AND m.status IN ('active', 'archived')
ORDER BY m.created_at DESC, m.chat_key DESC, m.position DESC
"""
TITLES_WITH = """
SELECT c.chat_id, c.title, NULL, NULL, -1, c.title, NULL, c.updated_at
FROM grams g CROSS JOIN searched s ON s.id = g.rowid CROSS JOIN chats c ON c.chat_key = s.chat_key
WHERE grams MATCH ?1 AND s.position = -1 AND c.owner_key = ?2 AND (?3 IS NULL OR c.chat_key = ?3)
ORDER BY c.updated_at DESC, c.chat_key DESC
"""
MESSAGE = """
SELECT c.chat_id, c.title, m.message_id, m.role, m.position, m.text, m.payload, m.created_at
FROM messages m JOIN chats c ON c.chat_key = m.chat_key WHERE m.chat_key = ? AND m.position = ?
"""

BATCH = 200
"""Messages that are indexed in one transaction, which others wait for."""
MOST = 64
"""Grams that are asked for. Any of them only propose."""
STALE = 10_000
"""Entries of what is gone, before it may be worth to begin anew."""


class Index:
    """The index of one file."""

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file
        self._exists: bool | None = None

    def can_find(self, grams: list[int]) -> bool:
        """Whether there is an index, and it knows of what is sought."""
        if self._exists is None:
            self._exists = bool(self._file.read(HAS_INDEX, ()))
        return self._exists and bool(grams)

    def catch_up(self) -> None:
        """Take in what was written since the last search."""
        while self._file.read(PENDING, ())[0][0]:
            self._file.write(_take_in)

    def search(
        self, owner: OwnerKey, wanted: Sought, grams: list[int], chat: ChatKey | None, limit: int
    ) -> list[Found]:
        """What `Backend.search` says, of what was taken in."""
        parameters = (_tokens(grams[:MOST]), owner.key.bytes, None if chat is None else chat.key.bytes)
        found: list[Found] = []
        for each in self._proposed(parameters):
            if wanted.is_in(each.text):
                found.append(each)
                if len(found) == limit:
                    break
        return found

    def _proposed(self, parameters: tuple[object, ...]) -> Iterator[Found]:
        yield from map(_found, self._file.read(TITLES_WITH, parameters))
        for place in self._file.read(MESSAGES_WITH, parameters):
            yield from map(_found, self._file.read(MESSAGE, place))


def forgotten(connection: sqlite3.Connection, count: int) -> None:
    """So many entries are stale, because what they stood for is gone."""
    connection.execute(FORGOTTEN, (count,))


def changed(connection: sqlite3.Connection, key: bytes, positions: Iterable[int]) -> None:
    """These messages, or the title (-1), say something else now."""
    for position in positions:
        stale = connection.execute(FORGET_MESSAGE, (key, position)).rowcount
        if position < 0:
            connection.execute(RENEW_TITLE, (key,))
        else:
            connection.execute(RENEW, (key, position))
        forgotten(connection, stale)


def _take_in(connection: sqlite3.Connection) -> None:
    """Index the next titles and messages."""
    execute = connection.execute
    up_to, stale = execute(STATE).fetchone()
    if stale > STALE and 2 * stale > execute("SELECT COALESCE(max(id), 0) FROM searched").fetchone()[0]:
        for statement in [*EMPTY, ALL_TITLES]:
            execute(statement)
        up_to = stale = 0
    titles = execute(NEW_TITLES, (BATCH,)).fetchall()
    if not titles:
        execute(NO_TITLES)  # of chats that are gone
    for key, owner, position, title, _ in titles:
        _add(connection, key, owner, position, title)
        execute(TITLE_DONE, (key,))
    for key, owner, position, text, payload, number in execute(NEW_MESSAGES, (up_to, BATCH)).fetchall():
        _add(connection, key, owner, position, spoken_text(text, payload))
        up_to = number
    execute(SET_STATE, (up_to, stale))


def _add(connection: sqlite3.Connection, key: bytes, owner: bytes, position: int, text: str) -> None:
    number = connection.execute(ADD, (key, position)).lastrowid
    if grams := grams_of(text, UUID(bytes=owner)):
        connection.execute(ADD_GRAMS, (number, _tokens(grams)))


def _tokens(grams: Iterable[int]) -> str:
    """As words, all of which a text must have."""
    return " ".join([f"{gram & 0xFFFFFFFF:08x}" for gram in grams])


def _found(row: tuple[Any, ...]) -> Found:
    chat_id, title, message_id, role, position, text, payload, time = row
    return Found(chat_id, title, message_id, role, position, spoken_text(text, payload), datetime.fromisoformat(time))

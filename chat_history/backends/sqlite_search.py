"""The index of a SQLite file that searches use, and bring up to date."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from .base import ChatKey, Found, OwnerKey
from .scanning import MOST, matching, proposals
from .sqlite_file import SQLiteFile
from .texts import spoken_text
from .words import BLOCK, TITLE, Sought, grams_of

__all__ = ["FORGET_CHAT", "FORGET_CHATS", "Index", "changed", "forgotten"]

HAS_INDEX = "SELECT 1 FROM sqlite_master WHERE name = 'grams'"
STATE = "SELECT up_to, stale FROM search_state"
SET_STATE = "UPDATE search_state SET up_to = ?, stale = stale + ?"
# Ids of messages that are gone are given out again, and must be looked at again.
FORGOTTEN = """
UPDATE search_state SET stale = stale + ?, up_to = min(up_to, (SELECT COALESCE(max(id), 0) FROM messages))
"""
FORGET_CHAT = "DELETE FROM searched WHERE chat_key = ?"
FORGET_CHATS = "DELETE FROM searched WHERE chat_key IN (SELECT chat_key FROM chats WHERE owner_key = ?)"
FORGET_BLOCK = "DELETE FROM searched WHERE chat_key = ? AND block = ?"
CHANGED = "INSERT OR IGNORE INTO unsearched (chat_key, block) VALUES (?, ?)"

PENDING = """
SELECT EXISTS (SELECT 1 FROM unsearched)
    OR COALESCE((SELECT max(id) FROM messages), 0) > (SELECT up_to FROM search_state)
"""
NEXT_CHANGED = "SELECT chat_key, block FROM unsearched LIMIT ?"
DONE = "DELETE FROM unsearched WHERE chat_key = ? AND block = ?"
NEXT_MESSAGES = "SELECT id, chat_key, position FROM messages WHERE id > ? ORDER BY id LIMIT ?"
OWNER = "SELECT owner_key, title FROM chats WHERE chat_key = ?"
TEXTS = "SELECT text, payload FROM messages WHERE chat_key = ? AND position >= ? AND position < ?"
ADD = "INSERT INTO searched (chat_key, block) VALUES (?, ?)"
ADD_GRAMS = "INSERT INTO grams (rowid, gram) VALUES (?, ?)"
LARGEST = "SELECT COALESCE(max(id), 0) FROM searched"
BEGIN_ANEW = [
    "INSERT INTO grams (grams) VALUES ('delete-all')",
    "DELETE FROM searched",
    "DELETE FROM unsearched",
    "UPDATE search_state SET up_to = 0, stale = 0",
    "INSERT INTO unsearched (chat_key, block) SELECT chat_key, -1 FROM chats WHERE title <> ''",
]

MESSAGES_WITH = """
SELECT m.chat_key, m.position
FROM grams CROSS JOIN searched s ON s.id = grams.rowid
    CROSS JOIN chats c ON c.chat_key = s.chat_key
    CROSS JOIN messages m ON m.chat_key = s.chat_key
        AND m.position >= s.block * ?5 AND m.position < (s.block + 1) * ?5
WHERE grams MATCH ?1 AND s.block >= 0 AND c.owner_key = ?2 AND (?3 IS NULL OR c.chat_key = ?3)
    AND m.status IN ('active', 'archived')
ORDER BY m.created_at DESC, m.chat_key DESC, m.position DESC LIMIT ?4
"""
TITLES_WITH = """
SELECT c.chat_id, c.title, NULL, NULL, -1, c.title, NULL, c.updated_at
FROM grams CROSS JOIN searched s ON s.id = grams.rowid CROSS JOIN chats c ON c.chat_key = s.chat_key
WHERE grams MATCH ?1 AND s.block = -1 AND c.owner_key = ?2 AND (?3 IS NULL OR c.chat_key = ?3)
ORDER BY c.updated_at DESC, c.chat_key DESC
"""
MESSAGE = """
SELECT c.chat_id, c.title, m.message_id, m.role, m.position, m.text, m.payload, m.created_at
FROM messages m JOIN chats c ON c.chat_key = m.chat_key WHERE m.chat_key = ? AND m.position = ?
"""

BATCH = 500
"""Messages that are taken in in one transaction, which others wait for."""
STALE = 1000
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
        return matching(self._proposed(parameters, limit), wanted, limit)

    def _proposed(self, parameters: tuple[object, ...], limit: int) -> Iterator[Found]:
        def places(some: int) -> list[Any]:
            return self._file.read(MESSAGES_WITH, (*parameters, some, BLOCK))

        def found(places: Sequence[Any]) -> Iterator[Found]:
            for place in places:
                yield from map(_found, self._file.read(MESSAGE, place))

        yield from map(_found, self._file.read(TITLES_WITH, parameters))
        yield from proposals(limit, places, found)


def changed(connection: sqlite3.Connection, key: bytes, blocks: Iterable[int]) -> None:
    """Messages of these blocks say something else now, or are gone."""
    for block in blocks:
        forgotten(connection, connection.execute(FORGET_BLOCK, (key, block)).rowcount)
        connection.execute(CHANGED, (key, block))


def forgotten(connection: sqlite3.Connection, count: int) -> None:
    """So many blocks are not those any more that `grams` has under their number."""
    connection.execute(FORGOTTEN, (count,))


def _take_in(connection: sqlite3.Connection) -> None:
    """Index the next blocks."""
    execute = connection.execute
    up_to, stale = execute(STATE).fetchone()
    if stale > STALE and 2 * stale > execute(LARGEST).fetchone()[0]:
        for statement in BEGIN_ANEW:
            execute(statement)
        up_to = 0
    blocks = dict.fromkeys(execute(NEXT_CHANGED, (BATCH // BLOCK,)).fetchall())
    for number, key, position in execute(NEXT_MESSAGES, (up_to, BATCH)).fetchall():
        blocks[key, position // BLOCK] = None
        up_to = number
    stale = sum(_index(connection, key, block) for key, block in blocks)
    execute(SET_STATE, (up_to, stale))


def _index(connection: sqlite3.Connection, key: bytes, block: int) -> int:
    """Index a block as it is now; how many entries of it are stale then."""
    execute = connection.execute
    execute(DONE, (key, block))
    stale = execute(FORGET_BLOCK, (key, block)).rowcount
    chat = execute(OWNER, (key,)).fetchone()
    if chat is None:
        return stale
    owner, title = chat
    if block == TITLE:
        texts = [title]
    else:
        rows = execute(TEXTS, (key, block * BLOCK, (block + 1) * BLOCK)).fetchall()
        texts = [spoken_text(*row) for row in rows]
    if grams := grams_of(texts, UUID(bytes=owner)):
        execute(ADD_GRAMS, (execute(ADD, (key, block)).lastrowid, _tokens(grams)))
    return stale


def _tokens(grams: Iterable[int]) -> str:
    """As words, all of which a block must have."""
    digits = array("i", grams).tobytes().hex()
    return " ".join([digits[at : at + 8] for at in range(0, len(digits), 8)])


def _found(row: tuple[Any, ...]) -> Found:
    chat_id, title, message_id, role, position, text, payload, time = row
    return Found(chat_id, title, message_id, role, position, spoken_text(text, payload), datetime.fromisoformat(time))

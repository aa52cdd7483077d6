"""The index of a Postgres database that searches use, and bring up to date."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

from chat_history.errors import StorageError, StoreBusyError

from .base import ChatKey, Found, OwnerKey
from .postgres_wire import Connection, ask
from .scanning import MOST, matching, proposals
from .texts import spoken_text
from .words import BLOCK, TITLE, Sought, grams_of

__all__ = ["Index"]

PENDING = """
SELECT chat_key, created_at::text, searched, next_position, CASE WHEN title_unsearched THEN title END
FROM {schema}chats WHERE owner_key = %s AND (searched < next_position OR title_unsearched)
ORDER BY chat_key LIMIT 50
"""
NEXT = """
SELECT position, text, payload FROM {schema}messages WHERE chat_key = %s AND position >= %s ORDER BY position LIMIT %s
"""
# Nothing is taken in where the chat was deleted meanwhile, or something in it that was indexed has changed. Nobody
# needs to wait for the disk: what is lost is taken in again.
TAKE_IN = """
WITH chat AS (
    UPDATE {schema}chats SET searched = $2, title_unsearched = title_unsearched AND title IS DISTINCT FROM $3
    WHERE chat_key = $1 AND searched = $4 AND created_at = $5
    RETURNING chat_key
)
INSERT INTO {schema}message_grams (chat_key, block, grams)
SELECT chat.chat_key, d.n, d.g
FROM chat, set_config('synchronous_commit', 'off', true), json_to_recordset($6::json) AS d(n bigint, g integer[])
ON CONFLICT (chat_key, block) DO UPDATE SET grams = excluded.grams
"""

# First what the index says, which the planner cannot know to be little.
PROPOSED = """
WITH proposed AS MATERIALIZED (
    SELECT chat_key, block FROM {schema}message_grams WHERE grams @> %(grams)s::integer[] {of_chat}
)
"""
OF_CHAT = "AND chat_key = %(chat)s"
TITLES = (
    PROPOSED
    + """
SELECT c.chat_id, c.title, NULL, NULL, -1, c.title, c.updated_at, NULL
FROM proposed p JOIN {schema}chats c ON c.chat_key = p.chat_key
WHERE p.block = -1 AND c.owner_key = %(owner)s ORDER BY c.updated_at DESC, c.chat_key DESC
"""
)
MESSAGES = (
    PROPOSED
    + """
SELECT m.chat_key, m.position
FROM proposed p JOIN {schema}chats c ON c.chat_key = p.chat_key JOIN {schema}messages m ON m.chat_key = p.chat_key
    AND m.position >= p.block * %(size)s AND m.position < (p.block + 1) * %(size)s
WHERE p.block >= 0 AND c.owner_key = %(owner)s AND m.status IN ('active', 'archived')
ORDER BY m.created_at DESC, m.chat_key DESC, m.position DESC LIMIT %(some)s
"""
)
TEXTS = """
SELECT c.chat_id, c.title, m.message_id, m.role, m.position, m.text, m.created_at, m.payload
FROM unnest(%s::uuid[], %s::bigint[]) WITH ORDINALITY AS p(chat_key, position, place)
    JOIN {schema}messages m ON m.chat_key = p.chat_key AND m.position = p.position
    JOIN {schema}chats c ON c.chat_key = m.chat_key
ORDER BY p.place
"""

AT_A_TIME = 50
"""Texts that are fetched together."""
BATCH = 32 * BLOCK
"""Messages that are taken in at a time."""
MAY_NOT_WRITE = {"25006", "42501", "53100"}
"""SQLSTATE: a standby server, a role that may only read, a full disk."""

Fetch = Callable[[str, Any], list[Any]]


class Index:
    """The index of one database. fetch: the rows of a statement. run: work on a connection."""

    def __init__(
        self, fetch: Fetch, run: Callable[[Callable[[Connection], Any]], Any], sql: Callable[[str], str]
    ) -> None:
        self._fetch = fetch
        self._run = run
        self._sql = sql

    def catch_up(self, owner: OwnerKey) -> bool:
        """Take in what was written since the last search; False where nothing may be written, or others are at it."""
        try:
            while pending := self._fetch(PENDING, [owner.key]):
                for row in pending:
                    self._take_in(owner, *row)
        except StoreBusyError:
            return False
        except StorageError as error:
            if getattr(error.__cause__, "sqlstate", None) in MAY_NOT_WRITE:
                return False
            raise
        return True

    def _take_in(
        self, owner: OwnerKey, key: UUID, created_at: str, searched: int, next_position: int, title: str | None
    ) -> None:
        """Index the title and the next messages of a chat."""
        rows = self._fetch(NEXT, [key, max(searched, 0) // BLOCK * BLOCK, BATCH])
        to = max(next_position, rows[-1][0] + 1 if rows else 0)
        if len(rows) == BATCH:
            to = rows[-1][0] // BLOCK * BLOCK  # the last block may go on
        blocks: dict[int, list[str]] = {}
        for position, text, payload in rows:
            if position < to:
                blocks.setdefault(position // BLOCK, []).append(spoken_text(text, payload))
        if title is not None:
            blocks[TITLE] = [title]
        grams = [{"n": block, "g": [*grams_of(texts, owner.key)]} for block, texts in blocks.items()]
        parameters = [key.hex, str(to), title, str(searched), created_at, json.dumps(grams)]
        self._run(lambda connection: ask(connection, self._sql(TAKE_IN), parameters))

    def search(
        self, owner: OwnerKey, wanted: Sought, grams: list[int], chat: ChatKey | None, limit: int
    ) -> list[Found]:
        """What `Backend.search` says, of what was taken in."""
        parameters = {
            "grams": grams[:MOST],
            "owner": owner.key,
            "chat": None if chat is None else chat.key,
            "size": BLOCK,
        }
        return matching(self._proposed("" if chat is None else OF_CHAT, parameters, limit), wanted, limit)

    def _proposed(self, of_chat: str, parameters: dict[str, Any], limit: int) -> Iterator[Found]:
        def places(some: int) -> list[Any]:
            return self._fetch(MESSAGES.replace("{of_chat}", of_chat), parameters | {"some": some})

        def found(places: Sequence[Any]) -> Iterator[Found]:
            for start in range(0, len(places), AT_A_TIME):
                keys, positions = zip(*places[start : start + AT_A_TIME], strict=True)
                yield from map(_found, self._fetch(TEXTS, [list(keys), list(positions)]))

        yield from map(_found, self._fetch(TITLES.replace("{of_chat}", of_chat), parameters))
        yield from proposals(limit, places, found)


def _found(row: Sequence[Any]) -> Found:
    chat_id, title, message_id, role, position, text, time, payload = row
    return Found(chat_id, title, message_id, role, position, spoken_text(text, payload), time.astimezone(UTC))

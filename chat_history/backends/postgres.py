"""A Postgres database, through a pool of connections in autocommit mode.

A change is one statement and one round trip, also where it touches many messages: the chat's row is created or
updated, which locks it and gives the positions, and everything else joins that row, so that nothing happens where the
version was another. Only what is long is copied, in a transaction. No statement leaves anything behind in its session,
so that a pooler may give each one another session.

The lock on the chat's row is held until the commit is on the disk, so writers to one chat would queue for the disk one
by one. Threads of one process therefore join: while one's append is under way, those that come meanwhile go together
as the next. And where others are seen to write to the same chat, an append commits without waiting for the disk, which
frees the row at once, and is acknowledged when a second commit, which does wait, has brought the log to the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, Literal
from uuid import UUID
from weakref import WeakSet

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool

from chat_history.errors import ConfigError, StoreUnavailableError, VersionConflictError
from chat_history.migrations.runner import migrate

from .base import (
    UNSET,
    Backend,
    Change,
    ChatKey,
    ChatRecord,
    Draft,
    Outline,
    OwnerKey,
    PayloadRow,
    Record,
    Written,
    first_version,
)
from .joining import Joining
from .postgres_connections import Connection, Connections, cursor_of
from .texts import kept_text, spoken_text

__all__ = ["PostgresBackend"]

# ---- a change: WITH chat AS (...), and what else there is of it, and the end

SET = """
    version = c.version + %(writes)s,
    next_position = c.next_position + %(count)s,
    message_count = c.message_count + %(active)s,
    head_before = c.head,
    head = CASE WHEN %(set_head)s THEN %(head)s ELSE c.head END,
    updated_at = GREATEST(c.updated_at, %(now)s),
    title = COALESCE(%(title)s, c.title),
    shared = COALESCE(%(shared)s::boolean, c.shared),
    metadata = CASE WHEN %(set_metadata)s THEN %(metadata)s ELSE c.metadata END
"""
RETURNING = "RETURNING c.version, c.next_position - %(count)s AS position, c.head_before AS head"
WITH_CHAT_OF_ANY_VERSION = """
WITH chat AS (
    INSERT INTO {schema}chats AS c (chat_key, owner_key, version, next_position, message_count, head, created_at,
        updated_at, shared, tenant_id, user_id, chat_id, title, metadata)
    VALUES (%(key)s, %(owner)s, %(first)s, %(count)s, %(active)s, %(head)s, %(now)s,
        %(now)s, COALESCE(%(shared)s::boolean, false), %(tenant)s, %(user)s, %(chat)s, COALESCE(%(title)s, ''),
        %(metadata)s)
    ON CONFLICT (chat_key) DO UPDATE SET {set} WHERE %(expected)s::bigint IS NULL
    {returning}
)"""
# The same with less to send, for what is done most.
WITH_CHAT_APPENDED = """
WITH chat AS (
    INSERT INTO {schema}chats AS c (chat_key, owner_key, version, next_position, message_count, head, created_at,
        updated_at, shared, tenant_id, user_id, chat_id, title)
    VALUES (%(key)s, %(owner)s, %(first)s, %(count)s, %(active)s, %(head)s, %(now)s,
        %(now)s, false, %(tenant)s, %(user)s, %(chat)s, '')
    ON CONFLICT (chat_key) DO UPDATE SET
        version = c.version + %(writes)s,
        next_position = c.next_position + excluded.next_position,
        message_count = c.message_count + excluded.message_count,
        head_before = c.head,
        head = excluded.head,
        updated_at = GREATEST(c.updated_at, excluded.updated_at)
    {returning}
)"""
WITH_CHAT_OF_VERSION = """
WITH chat AS (
    UPDATE {schema}chats AS c SET {set} WHERE c.chat_key = %(key)s AND c.version = %(expected)s
    {returning}
)"""
COLUMNS = (
    "chat_key, position, message_id, parent, status, role, format, format_version, digest, created_at, metadata, "
    "text, payload"
)
ADD_ONE = """, added AS (
    INSERT INTO {schema}messages ({columns})
    SELECT %(key)s, chat.position, %(head)s, {parent}, 'active', %(role)s, %(format)s, %(format_version)s, %(digest)s,
        %(created_at)s, %(draft_metadata)s, %(text)s, %(payload)s
    FROM chat
)"""
# Several come as one JSON text, which costs less than an array for each column.
ADD_SEVERAL = """, added AS (
    INSERT INTO {schema}messages ({columns})
    SELECT %(key)s, chat.position + d.n, d.i, CASE WHEN d.n = 0 THEN {parent} ELSE d.b END, 'active', d.r, d.f, d.v,
        decode(d.d, 'hex'), d.a, d.m, d.t, d.p
    FROM chat, json_to_recordset(%(drafts)s::json) AS d(n bigint, i text, b text, r text, f text, v text, d text,
        a timestamptz, m text, t text, p text)
)"""
ALTER = """, altered AS (
    UPDATE {schema}messages AS m SET
        status = COALESCE(a.s, m.status),
        parent = CASE WHEN a.b THEN a.c ELSE m.parent END,
        role = COALESCE(a.r, m.role),
        format = COALESCE(a.f, m.format),
        format_version = COALESCE(a.v, m.format_version),
        digest = COALESCE(decode(a.d, 'hex'), m.digest),
        metadata = CASE WHEN a.p IS NULL THEN m.metadata ELSE a.m END,
        text = CASE WHEN a.p IS NULL THEN m.text ELSE a.t END,
        payload = COALESCE(a.p, m.payload)
    FROM chat, json_to_recordset(%(alterations)s::json) AS a(n bigint, s text, b boolean, c text, r text, f text,
        v text, d text, m text, t text, p text)
    WHERE m.chat_key = %(key)s AND m.position = a.n
)"""
DELETE = """, deleted AS (
    DELETE FROM {schema}messages AS m USING chat WHERE m.chat_key = %(key)s AND m.position = ANY(%(deletions)s)
)"""
END = {
    True: "\nSELECT version, position, head FROM chat",
    False: "\nSELECT version, position, head, set_config('synchronous_commit', 'off', true) FROM chat",
}
COPY = "COPY {schema}messages ({columns}) FROM STDIN"

RELAX = "SELECT set_config('synchronous_commit', 'off', true)"
# A commit that wrote something before it waits for the disk, and for all that came earlier.
FLUSH = "SELECT pg_logical_emit_message(true, 'chat_history', '')"
# With Citus another server may have the row, and that one's log is not flushed from here.
MAY_FLUSH = "SELECT NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus'), ({flush})"

GET_VERSION = "SELECT version, updated_at FROM {schema}chats WHERE chat_key = %s"
FIND_WRITTEN = """
SELECT m.position, m.parent, m.created_at, c.version, c.next_position, c.head
FROM {schema}messages m JOIN {schema}chats c USING (chat_key)
WHERE m.chat_key = %s AND m.message_id = ANY(%s) ORDER BY m.position
"""

# ---- reading

RECORD = """
SELECT position, message_id, parent, status, role, format, format_version, payload, text, created_at, metadata
FROM {schema}messages
"""
PAYLOAD = "SELECT position, role, format, payload FROM {schema}messages "
WITHIN = """
WHERE chat_key = %(key)s AND position > %(after)s AND position < %(before)s
    AND (%(status)s::text IS NULL OR status = %(status)s)
"""
# Positions are dense, so the rows are near the edge, and only where others stand between is the second half read. The
# planner would be as glad to read and sort the whole chat where it thinks that chats are short, as it does before it
# has statistics. For the same reason whole chats are put in order here and not there.
NEAREST = {
    False: """
({select} {within} AND position <= %(after)s + %(near)s ORDER BY position LIMIT %(limit)s)
UNION ALL
({select} {within} AND position > %(after)s + %(near)s ORDER BY position LIMIT %(limit)s)
LIMIT %(limit)s
""",
    True: """
({select} {within} AND position >= {edge} ORDER BY position DESC LIMIT %(limit)s)
UNION ALL
({select} {within} AND position < {edge} ORDER BY position DESC LIMIT %(limit)s)
LIMIT %(limit)s
""",
}
EDGE = "LEAST(%(before)s, (SELECT next_position FROM {schema}chats WHERE chat_key = %(key)s)) - %(near)s"
FIND = RECORD + "WHERE chat_key = %s AND message_id = ANY(%s) ORDER BY position"
# One statement, so that version and rows are of one moment. The chat's own row is the one at -1.
OUTLINE = """
SELECT -1::bigint, version::text, head, NULL, NULL::bytea FROM {schema}chats WHERE chat_key = %(key)s
UNION ALL SELECT position, message_id, parent, status, digest FROM {schema}messages WHERE chat_key = %(key)s
"""

CHAT = """
SELECT chat_id, title, metadata, shared, version, message_count, head, created_at, updated_at FROM {schema}chats
"""
GET_CHAT = CHAT + "WHERE chat_key = %s"
LIST_CHATS = CHAT + "WHERE owner_key = %s ORDER BY updated_at DESC, chat_key DESC LIMIT %s"
LIST_AFTER = (
    CHAT + "WHERE owner_key = %s AND (updated_at, chat_key) < (%s, %s) ORDER BY updated_at DESC, chat_key DESC LIMIT %s"
)
LIST_BEFORE = CHAT + "WHERE owner_key = %s AND (updated_at, chat_key) > (%s, %s) ORDER BY updated_at, chat_key LIMIT %s"
CHAT_IDS = "SELECT chat_id FROM {schema}chats WHERE owner_key = %s ORDER BY created_at, chat_key"

# The chat's row first, which keeps others from adding to it, and in a statement of its own, so that the next one sees
# what they added before.
DELETE_CHAT = "DELETE FROM {schema}chats WHERE chat_key = %s RETURNING chat_key"
DELETE_CHATS = "DELETE FROM {schema}chats WHERE owner_key = %s RETURNING chat_key"
DELETE_MESSAGES = "DELETE FROM {schema}messages WHERE chat_key = ANY(%s)"

LARGEST = 2**63 - 1
MOST = 2**61
"""Larger than any position or number of messages, and still a bigint when doubled."""
SEVERAL = 100
SEVERAL_CHARACTERS = 1_000_000
"""More drafts, or longer ones, are copied instead of sent as one JSON text."""
SUSPICION = 50
"""For how many appends a chat is thought to be written to by other processes after one was seen to."""
REMEMBERED = 4096
"""Chats whose end is remembered, to see whether other processes write to them."""


class PostgresBackend(Backend):
    """Chats in a Postgres database.

    conninfo: a URL or a libpq string; what it leaves out is libpq's to find (PGHOST, PGPASSFILE, a service file).
    pool: a `psycopg_pool.ConnectionPool` to use instead, which stays open when this is closed. schema: created if it is
    missing; the first of the search path otherwise. timeout: seconds to wait for a connection or a lock. durability
    "relaxed": a crash of the server may take the last moments. prepare: False behind a pooler that does not know
    prepared statements. migrations: a package of the integrator's own steps (see `chat_history.migrations.runner`).
    """

    name = "postgres"

    def __init__(
        self,
        conninfo: str = "",
        *,
        pool: ConnectionPool[Any] | None = None,
        schema: str | None = None,
        min_connections: int = 1,
        max_connections: int = 10,
        timeout: float = 30.0,
        durability: Literal["full", "relaxed"] = "full",
        prepare: bool = True,
        migrations: str | None = None,
    ) -> None:
        quoted = None if schema is None else _quoted(schema)
        self._prefix = "" if quoted is None else f"{quoted}."
        self._is_full = durability == "full"
        self._may_flush: bool | None = None
        self._joining: Joining[Change, Written] = Joining()
        self._ends: dict[UUID, tuple[int, int]] = {}
        """Of chats written to: the next position, and for how many appends others are still thought to write too."""
        self._connections = Connections(
            conninfo, pool=pool, least=min_connections, most=max_connections, timeout=timeout, prepare=prepare
        )

        def prepare_tables(connection: Connection) -> None:
            place = self._connections.location if schema is None else f"{self._connections.location}, schema {schema}"
            migrate(connection, dialect="postgres", place=place, package=migrations, schema=quoted)

        self._connections.open(prepare_tables)
        _stores.add(self)

    @property
    def location(self) -> str:
        return self._connections.location

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    def close(self) -> None:
        self._connections.close()

    # ---- writing

    def write(self, chat: ChatKey, change: Change) -> Written:
        if not _merely_appends(change):
            return self._apply(chat, [change])[0]
        return self._joining.do(
            chat.key,
            change,
            lambda changes: self._apply(chat, changes),
            lambda change: self._apply(chat, [change], unsure=True)[0],
        )

    def _apply(self, chat: ChatKey, changes: Sequence[Change], *, unsure: bool = False) -> list[Written]:
        """Apply changes as one. Several of them merely append, and the outcome is as if they came one by one.

        unsure: it may have been done already.
        """
        change = changes[0]
        drafts = change.drafts if len(changes) == 1 else [draft for each in changes for draft in each.drafts]
        is_long = _is_long(drafts)
        end, suspicion = self._ends.get(chat.key, (None, 0))
        frees_row = self._is_full and not is_long and suspicion > 0 and self._can_flush()
        parameters = _parameters(chat, changes, drafts, is_long)
        statement = _change_statement(
            self._prefix,
            _chat_part(change),
            change.follows is UNSET,
            0 if is_long else min(len(drafts), 2),
            "alterations" in parameters,
            "deletions" in parameters,
            self._is_full and not frees_row,
        )

        def work(connection: Connection) -> list[Written]:
            if is_long:
                with connection.transaction():
                    row = cursor_of(connection).execute(statement, parameters).fetchone()
                    if row is not None:
                        _, position, head = row[:3]
                        self._copy(
                            connection, chat, position, head if change.follows is UNSET else change.follows, drafts
                        )
            else:
                row = cursor_of(connection).execute(statement, parameters).fetchone()
            if row is None:
                actual = cursor_of(connection).execute(self._sql(GET_VERSION), [chat.key]).fetchone()
                raise VersionConflictError(change.expected_version or 0, actual[0] if actual else 0)
            if frees_row:
                cursor_of(connection).execute(FLUSH)
            return _written(changes, row)

        def settle(connection: Connection) -> list[Written] | None:
            written = self._settle(connection, chat, changes, drafts)
            if written and self._can_flush():
                cursor_of(connection).execute(FLUSH)
            return written

        written = self._connections.run(work, settle, was_lost=unsure)
        if drafts:
            position = written[0].position
            if len(self._ends) > REMEMBERED:
                self._ends.clear()
            suspicion = max(suspicion - 1, 0) if end in (None, position) else SUSPICION
            self._ends[chat.key] = position + len(drafts), suspicion
        return written

    def _copy(
        self, connection: Connection, chat: ChatKey, position: int, parent: str | None, drafts: Sequence[Draft]
    ) -> None:
        with psycopg.Cursor(connection).copy(self._sql(COPY)) as rows:
            for place, draft in enumerate(drafts, position):
                message_id, role, form, version, payload, text, digest, at, metadata = draft
                start = chat.key, place, message_id, parent, "active", role, form, version
                rows.write_row((*start, digest, at, metadata, kept_text(text, role, payload), payload))
                parent = message_id

    def _settle(
        self, connection: Connection, chat: ChatKey, changes: Sequence[Change], drafts: Sequence[Draft]
    ) -> list[Written] | None:
        """What a write did whose connection was lost before the answer came; None if it did not happen."""
        expected, now = changes[0].expected_version, changes[0].now
        if drafts:
            key = [chat.key, [draft.message_id for draft in drafts]]
            rows = cursor_of(connection).execute(self._sql(FIND_WRITTEN), key).fetchall()
            if len(rows) < len(drafts):
                return None
            position, parent, created_at, version, end, head = rows[0]
            if created_at != drafts[0].created_at or rows[-1][0] != position + len(drafts) - 1:
                return None  # the ids were another's
            if expected:
                version = expected + 1
            elif end != position + len(drafts) or head != drafts[-1].message_id:
                # Others wrote since. Which version was ours is not known, only that it is not the chat's any more.
                version -= 1
            return _written(changes, (version, position, parent))
        if expected is None:
            return None
        row = cursor_of(connection).execute(self._sql(GET_VERSION), [chat.key]).fetchone()
        version, updated_at = row or (0, None)
        if version == expected:
            return None
        if version == (expected + 1 if expected else first_version(now)) and updated_at == now:
            return [Written(version, 0, None)]
        raise StoreUnavailableError(
            f"{self.location}: the connection was lost during a write, and the chat has changed since, so the write "
            "may or may not have happened; read the chat again and decide"
        )

    def _can_flush(self) -> bool:
        if self._may_flush is None:

            def work(connection: Connection) -> bool:
                try:
                    return bool(cursor_of(connection).execute(self._sql(MAY_FLUSH)).fetchall()[0][0])
                except (psycopg.ProgrammingError, psycopg.NotSupportedError):
                    return False

            self._may_flush = self._connections.run(work)
        return self._may_flush

    def delete_chat(self, chat: ChatKey) -> bool:
        return self._delete(DELETE_CHAT, chat.key) > 0

    def clear(self, owner: OwnerKey) -> int:
        return self._delete(DELETE_CHATS, owner.key)

    def _delete(self, statement: str, key: UUID) -> int:
        def work(connection: Connection) -> int:
            with connection.transaction():
                if not self._is_full:
                    cursor_of(connection).execute(RELAX)
                deleted = [chat for (chat,) in cursor_of(connection).execute(self._sql(statement), [key]).fetchall()]
                if deleted:
                    cursor_of(connection).execute(self._sql(DELETE_MESSAGES), [deleted])
            return len(deleted)

        return self._connections.run(work)

    # ---- reading

    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        rows = self._read(GET_CHAT, [chat.key])
        return _chat_record(rows[0]) if rows else None

    def outline(self, chat: ChatKey) -> Outline | None:
        rows = self._read(OUTLINE, {"key": chat.key})
        if not rows:
            return None
        rows.sort(key=_position)
        _, version, head, _, _ = rows.pop(0)
        return Outline(int(version), head, rows)

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
        return [_record(row) for row in self._read_within(RECORD, chat, before, after, limit, newest, status)]

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
        return self._read_within(PAYLOAD, chat, before, after, limit, newest, status)

    def _read_within(
        self,
        select: str,
        chat: ChatKey,
        before: int | None,
        after: int | None,
        limit: int | None,
        newest: bool,
        status: str | None,
    ) -> list[Any]:
        parameters = {
            "key": chat.key,
            "after": -1 if after is None else min(after, MOST),
            "before": MOST if before is None else min(before, MOST),
            "status": status,
        }
        if limit is None:
            statement = select + WITHIN
        else:
            statement = _nearest(select, newest)
            parameters |= {"limit": min(limit, MOST), "near": 2 * min(limit, MOST) + 64}
        rows = self._read(statement, parameters)
        rows.sort(key=_position)
        return rows

    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        return [_record(row) for row in self._read(FIND, [chat.key, list(message_ids)])]

    def list_chats(
        self,
        owner: OwnerKey,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[ChatRecord]:
        limit = min(limit, LARGEST)
        if before is not None:
            rows = self._read(LIST_BEFORE, [owner.key, *before, limit])
            rows.reverse()
        elif after is not None:
            rows = self._read(LIST_AFTER, [owner.key, *after, limit])
        else:
            rows = self._read(LIST_CHATS, [owner.key, limit])
        return [_chat_record(row) for row in rows]

    def chat_ids(self, owner: OwnerKey) -> list[str]:
        return [chat_id for (chat_id,) in self._read(CHAT_IDS, [owner.key])]

    def _read(self, statement: str, parameters: Sequence[Any] | dict[str, Any]) -> list[Any]:
        text = self._sql(statement)

        def work(connection: Connection) -> list[Any]:
            # Not the kept one, which would hold on to what it read; and not the pool's own, which may make other rows.
            return psycopg.Cursor(connection, row_factory=tuple_row).execute(text, parameters, binary=True).fetchall()

        return self._connections.run(work)

    def _sql(self, statement: str) -> str:
        return _in_schema(statement, self._prefix)


# ---- a change as a statement


@lru_cache(maxsize=256)
def _change_statement(
    prefix: str, chat: str, after_head: bool, drafts: int, alters: bool, deletes: bool, waits: bool
) -> str:
    added = ("", ADD_ONE, ADD_SEVERAL)[drafts].replace("{parent}", "chat.head" if after_head else "%(follows)s")
    return _in_schema(chat + added + ALTER * alters + DELETE * deletes + END[waits], prefix)


@lru_cache(maxsize=256)
def _in_schema(statement: str, prefix: str) -> str:
    return statement.format(schema=prefix, set=SET, returning=RETURNING, columns=COLUMNS, flush=FLUSH)


def _chat_part(change: Change) -> str:
    if change.expected_version:
        return WITH_CHAT_OF_VERSION
    return WITH_CHAT_APPENDED if _merely_appends(change) else WITH_CHAT_OF_ANY_VERSION


def _merely_appends(change: Change) -> bool:
    return (
        change.expected_version is None
        and 0 < len(change.drafts) <= SEVERAL
        and change.follows is UNSET
        and change.title is UNSET
        and change.metadata is UNSET
        and change.shared is UNSET
    )


def _is_long(drafts: Sequence[Draft]) -> bool:
    count = len(drafts)
    return count > SEVERAL or (count > 1 and sum(len(draft.payload) for draft in drafts) > SEVERAL_CHARACTERS)


def _parameters(chat: ChatKey, changes: Sequence[Change], drafts: Sequence[Draft], is_long: bool) -> dict[str, Any]:
    change = changes[0]
    now = change.now if len(changes) == 1 else max(each.now for each in changes)
    head = drafts[-1].message_id if drafts else None if change.head is UNSET else change.head
    parameters = {
        "key": chat.key,
        "owner": chat.owner,
        "tenant": chat.tenant_id,
        "user": chat.user_id,
        "chat": chat.chat_id,
        "now": now,
        "first": first_version(now) + len(changes) - 1,
        "expected": None if change.expected_version is None else min(change.expected_version, LARGEST),
        "writes": len(changes),
        "count": len(drafts),
        "active": sum(each.active for each in changes),
        "head": head,
        "set_head": bool(drafts) or change.head is not UNSET,
        "follows": None if change.follows is UNSET else change.follows,
        "title": None if change.title is UNSET else change.title,
        "shared": None if change.shared is UNSET else change.shared,
        "set_metadata": change.metadata is not UNSET,
        "metadata": None if change.metadata is UNSET else change.metadata,
    }
    if len(drafts) == 1:
        draft = drafts[0]
        parameters |= {
            "role": draft.role,
            "format": draft.format,
            "format_version": draft.format_version,
            "digest": draft.digest,
            "created_at": draft.created_at,
            "draft_metadata": draft.metadata,
            "text": kept_text(draft.text, draft.role, draft.payload),
            "payload": draft.payload,
        }
    elif drafts and not is_long:
        parameters["drafts"] = _drafts_as_json(drafts)
    if change.statuses or change.parents or change.replacements:
        parameters["alterations"] = _alterations_as_json(change)
    if change.deletions:
        parameters["deletions"] = list(change.deletions)
    return parameters


def _drafts_as_json(drafts: Sequence[Draft]) -> str:
    rows = []
    before = None
    for place, (message_id, role, form, version, payload, text, digest, at, metadata) in enumerate(drafts):
        row = {"n": place, "i": message_id, "b": before, "r": role, "f": form, "v": version, "d": digest.hex()}
        rows.append(row | {"a": at.isoformat(), "m": metadata, "t": kept_text(text, role, payload), "p": payload})
        before = message_id
    return json.dumps(rows, ensure_ascii=False)


def _alterations_as_json(change: Change) -> str:
    """All that becomes of one message in one row, because a statement can update each row only once."""
    rows: dict[int, dict[str, Any]] = {}
    for position, status in change.statuses:
        rows.setdefault(position, {"n": position})["s"] = status
    for position, parent in change.parents:
        rows.setdefault(position, {"n": position}).update(b=True, c=parent)
    for position, new in change.replacements:
        row = {"r": new.role, "f": new.format, "v": new.format_version, "d": new.digest.hex(), "m": new.metadata}
        rows.setdefault(position, {"n": position}).update(
            row, t=kept_text(new.text, new.role, new.payload), p=new.payload
        )
    return json.dumps(list(rows.values()), ensure_ascii=False)


def _written(changes: Sequence[Change], row: tuple[Any, ...]) -> list[Written]:
    """What each of the changes did, where row is (version, position, head) as all of them found and left it."""
    version, position, head = row[:3]
    version -= len(changes) - 1
    written = []
    for change in changes:
        if not change.drafts:
            return [Written(version, 0, None)]
        written.append(Written(version, position, head if change.follows is UNSET else change.follows))
        version += 1
        position += len(change.drafts)
        head = change.drafts[-1].message_id
    return written


# ---- rows

_position = itemgetter(0)


@cache
def _nearest(select: str, newest: bool) -> str:
    return NEAREST[newest].replace("{select}", select).replace("{within}", WITHIN).replace("{edge}", EDGE)


def _record(row: tuple[Any, ...]) -> Record:
    return Record._make((*row[:8], spoken_text(row[8], row[7]), row[9].astimezone(UTC), row[10]))


def _chat_record(row: tuple[Any, ...]) -> ChatRecord:
    return ChatRecord._make((*row[:7], row[7].astimezone(UTC), row[8].astimezone(UTC)))


def _quoted(schema: str) -> str:
    if not schema or set(schema) & set("\0%{}") or len(schema.encode()) > 63:
        raise ConfigError(f"schema: {schema!r} cannot be the name of a Postgres schema; use 1 to 63 plain characters")
    return '"' + schema.replace('"', '""') + '"'


_stores: WeakSet[PostgresBackend] = WeakSet()


def _after_fork_in_child() -> None:
    for store in _stores:
        store._joining = Joining()
        store._connections.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

"""A Postgres database, through a pool of connections in autocommit mode.

A change is one statement and one round trip, also where it touches many messages: the chat's row is created or
updated, which locks it and gives the positions, and everything else joins that row, so that nothing happens where the
version was another. Only what is long is copied in a transaction. No statement leaves anything behind in its session, so that a
pooler may give each one another session.

The lock on the chat's row is held until the commit is on the disk, so writers to one chat would queue for the disk one
by one. Threads of one process therefore join: while one's append is under way, those that come meanwhile go together
as the next. Where other processes are seen to write to the same chat, an append commits without waiting for the disk,
which frees the row at once, and is acknowledged when a second commit, which waits, has brought the log to the disk.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TypeVar
from urllib.parse import quote
from uuid import UUID
from weakref import WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from chat_history.errors import (
    ConfigError,
    DamagedStoreError,
    HistoryClosedError,
    StorageError,
    StoreBusyError,
    StoreUnavailableError,
    VersionConflictError,
)
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

__all__ = ["PostgresBackend"]

T = TypeVar("T")
Connection = psycopg.Connection[Any]

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
WITH_CHAT_OF_ANY_VERSION = f"""
WITH chat AS (
    INSERT INTO {{schema}}chats AS c (chat_key, owner_key, version, next_position, message_count, head, created_at,
        updated_at, shared, tenant_id, user_id, chat_id, title, metadata)
    VALUES (%(key)s, %(owner)s, %(first)s, %(count)s, %(active)s, %(head)s, %(now)s,
        %(now)s, COALESCE(%(shared)s::boolean, false), %(tenant)s, %(user)s, %(chat)s, COALESCE(%(title)s, ''),
        %(metadata)s)
    ON CONFLICT (chat_key) DO UPDATE SET {SET} WHERE %(expected)s::bigint IS NULL
    {RETURNING}
)"""
WITH_CHAT_OF_VERSION = f"""
WITH chat AS (
    UPDATE {{schema}}chats AS c SET {SET} WHERE c.chat_key = %(key)s AND c.version = %(expected)s
    {RETURNING}
)"""
COLUMNS = (
    "chat_key, position, message_id, parent, status, role, format, format_version, digest, created_at, metadata, "
    "text, payload"
)
PARENT = "CASE WHEN %(after_head)s THEN chat.head ELSE %(follows)s END"
ADD_ONE = f""", added AS (
    INSERT INTO {{schema}}messages ({COLUMNS})
    SELECT %(key)s, chat.position, %(head)s, {PARENT}, 'active', %(role)s, %(format)s, %(format_version)s, %(digest)s,
        %(created_at)s, %(draft_metadata)s, %(text)s, %(payload)s
    FROM chat
)"""
# Several come as one JSON text, which costs less than an array for each column.
ADD_SEVERAL = f""", added AS (
    INSERT INTO {{schema}}messages ({COLUMNS})
    SELECT %(key)s, chat.position + d.n, d.i, CASE WHEN d.n = 0 THEN {PARENT} ELSE d.b END, 'active', d.r, d.f, d.v,
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
        text = COALESCE(a.t, m.text),
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
COPY = f"COPY {{schema}}messages ({COLUMNS}) FROM STDIN"

RELAX = "SELECT set_config('synchronous_commit', 'off', true)"
# A commit that wrote something before it waits for the disk, and for all that came earlier.
FLUSH = "SELECT pg_logical_emit_message(true, 'chat_history', '')"
# With Citus another server may have the row, and that one's log is not flushed from here.
MAY_FLUSH = f"SELECT NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus'), ({FLUSH})"  # noqa: S608

GET_VERSION = "SELECT version, updated_at FROM {schema}chats WHERE chat_key = %s"
FIND_WRITTEN = """
SELECT m.position, m.parent, c.version, c.next_position, c.head
FROM {schema}messages m JOIN {schema}chats c USING (chat_key) WHERE m.chat_key = %s AND m.message_id = %s
"""

# ---- reading

RECORD = """
SELECT position, message_id, parent, status, role, format, format_version, payload, text, created_at, metadata
FROM {schema}messages
"""
PAYLOAD = "SELECT position, role, format, payload FROM {schema}messages "
WITHIN = "WHERE chat_key = %s AND position > %s AND position < %s AND (%s::text IS NULL OR status = %s) "
OLDEST = "ORDER BY position LIMIT %s"
NEWEST = "ORDER BY position DESC LIMIT %s"
READ = {False: RECORD + WITHIN + OLDEST, True: RECORD + WITHIN + NEWEST}
READ_PAYLOADS = {False: PAYLOAD + WITHIN + OLDEST, True: PAYLOAD + WITHIN + NEWEST}
FIND = RECORD + "WHERE chat_key = %s AND message_id = ANY(%s) ORDER BY position"
# One statement, so that version and rows are of one moment. The chat's own row comes first.
OUTLINE = """
SELECT -1 AS position, version::text, head, NULL, NULL::bytea FROM {schema}chats WHERE chat_key = %(key)s
UNION ALL SELECT position, message_id, parent, status, digest FROM {schema}messages WHERE chat_key = %(key)s
ORDER BY position
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
DELETE_CHATS = {
    "chat": "DELETE FROM {schema}chats WHERE chat_key = %s RETURNING chat_key",
    "owner": "DELETE FROM {schema}chats WHERE owner_key = %s RETURNING chat_key",
}
DELETE_MESSAGES = "DELETE FROM {schema}messages WHERE chat_key = ANY(%s)"

LARGEST = 2**63 - 1
ATTEMPTS = 5
"""How often a statement is sent, where its connection was lost or others stood in its way."""
SEVERAL = 100
SEVERAL_CHARACTERS = 1_000_000
"""More drafts, or longer ones, are copied instead of sent as one JSON text."""
REMEMBERED = 4096
"""Chats whose end is remembered, to see whether other processes write to them."""

_AGAIN = {"40001", "40P01"}
"""SQLSTATE: two transactions stood in each other's way, and this one was undone."""
_BUSY = {"55P03", "57014", "40001", "40P01", "53300"}
_DAMAGED = {"XX001", "XX002"}
_DUPLICATE = "23505"
_READ_ONLY = "25006"


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
        if pool is not None and not isinstance(pool, ConnectionPool):
            raise ConfigError(f"pool must be a psycopg_pool.ConnectionPool, not {type(pool).__name__}")
        self._schema_name = schema
        self._schema = _quoted(schema)
        self._in = f"{self._schema}." if self._schema else ""
        self._is_full = durability == "full"
        self._timeout = timeout
        self._sizes = min_connections, max(min_connections, max_connections)
        self._given_pool = pool
        self._pool = pool
        self._untaken: list[Connection] = []
        self._settings = {} if pool else _settings(conninfo, timeout, prepare)
        self._closed = False
        self._forget()
        self._may_flush: bool | None = None
        self._location = _location(self._settings, schema)
        try:
            self._open(migrations)
        except BaseException as error:
            self.close()
            if isinstance(error, psycopg.Error):
                raise self._explained(error) from error
            raise
        _stores.add(self)

    def _open(self, migrations: str | None) -> None:
        # Connected here rather than by the pool, which would try again and again where the reason is plain.
        connection = self._take() if self._given_pool else psycopg.connect(**self._settings)
        try:
            self._location = _location(connection.info.get_parameters(), self._schema_name)
            encoding = connection.info.parameter_status("server_encoding")
            if encoding not in (None, "UTF8"):
                raise StorageError(
                    f"{self._location} has the encoding {encoding}, which cannot hold every text; create a database "
                    "with ENCODING 'UTF8' for chat_history"
                )
            migrate(
                connection, dialect="postgres", place=self._location, package=migrations, schema=self._schema or None
            )
        except BaseException:
            if not self._given_pool:
                connection.close()
            raise
        finally:
            if self._given_pool:
                self._give_back(connection)
        if not self._given_pool:
            self._pool = self._new_pool(connection)

    def _new_pool(self, *opened: Connection) -> ConnectionPool[Any]:
        ready = self._untaken = list(opened)

        class Opened(psycopg.Connection[Any]):
            """Takes the connection that the store was opened with, so that opening it costs only one."""

            @classmethod
            def connect(cls, conninfo: str = "", **settings: Any) -> Connection:  # type: ignore[override]
                with suppress(IndexError):
                    return ready.pop()
                return psycopg.connect(conninfo, **settings)

        least, most = self._sizes
        return ConnectionPool(
            connection_class=Opened,
            kwargs=self._settings,
            min_size=least,
            max_size=most,
            open=True,
            name="chat_history",
        )

    @property
    def location(self) -> str:
        return self._location

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._location!r})"

    # ---- writing

    def write(self, chat: ChatKey, change: Change) -> Written:
        if (
            change.drafts
            and change.expected_version is None
            and change.follows is UNSET
            and len(change.drafts) <= SEVERAL
            and change.title is change.metadata is change.shared is UNSET
        ):
            return self._join(chat, change)
        return self._apply(chat, [change])[0]

    def _join(self, chat: ChatKey, change: Change) -> Written:
        """Append, together with those who come while another append to the chat is under way."""
        turn = _Turn(change)
        with self._lock:
            queue = self._queues.get(chat.key)
            if queue is None:
                self._queues[chat.key] = []
            else:
                queue.append(turn)
        if queue is not None:
            turn.wait()
        else:
            turn.together = [turn]
        if turn.together:
            try:
                self._append_together(chat, turn.together)
            finally:
                self._call_next(chat)
        if turn.error is not None:
            raise turn.error
        if turn.written is None:
            return self._apply(chat, [change], unsure=True)[0]
        return turn.written

    def _append_together(self, chat: ChatKey, turns: list[_Turn]) -> None:
        try:
            written = self._apply(chat, [turn.change for turn in turns])
            for turn, each in zip(turns, written, strict=True):
                turn.written = each
        except Exception as error:
            # Where it may be the fault of one, each tries alone.
            if len(turns) == 1 or isinstance(error, StoreUnavailableError | StoreBusyError):
                for turn in turns:
                    turn.error = error
        finally:
            for turn in turns[1:]:
                turn.wake()

    def _call_next(self, chat: ChatKey) -> None:
        with self._lock:
            waiting = self._queues[chat.key]
            if not waiting:
                del self._queues[chat.key]
                return
            self._queues[chat.key] = []
        waiting[0].together = waiting
        waiting[0].wake()

    def _apply(self, chat: ChatKey, changes: Sequence[Change], *, unsure: bool = False) -> list[Written]:
        """Apply changes as one. Several of them are appends at no version, and the outcome is as if one by one.

        unsure: it may have been done already.
        """
        drafts = changes[0].drafts if len(changes) == 1 else [draft for each in changes for draft in each.drafts]
        parameters = _parameters(chat, changes, drafts)
        is_long = len(drafts) > SEVERAL or (
            len(drafts) > 1 and sum(len(draft.payload) for draft in drafts) > SEVERAL_CHARACTERS
        )
        end, is_shared = self._ends.get(chat.key, (None, False))
        frees_row = is_shared and self._is_full and not is_long and self._can_flush()
        change = changes[0]
        alters = bool(change.statuses or change.parents or change.replacements)
        if len(drafts) > 1 and not is_long:
            parameters["drafts"] = _drafts_as_json(drafts)
        if alters:
            parameters["alterations"] = _alterations_as_json(change)
        if change.deletions:
            parameters["deletions"] = list(change.deletions)
        statement = _statement(
            self._in,
            bool(change.expected_version),
            0 if is_long else min(len(drafts), 2),
            alters,
            bool(change.deletions),
            self._is_full and not frees_row,
        )

        def work(connection: Connection) -> list[Written]:
            if is_long:
                with connection.transaction():
                    row = self._execute(connection, statement, parameters).fetchone()
                    if row is not None:
                        self._copy(connection, chat, row[1], parameters, row[2], drafts)
            else:
                row = self._execute(connection, statement, parameters).fetchone()
                if frees_row:
                    self._execute(connection, FLUSH)
            if row is None:
                actual = self._execute(connection, GET_VERSION.format(schema=self._in), [chat.key]).fetchone()
                raise VersionConflictError(change.expected_version or 0, actual[0] if actual else 0)
            return _written(changes, row)

        def settle(connection: Connection) -> list[Written] | None:
            written = self._settle(connection, chat, changes, drafts)
            if written and frees_row:
                self._execute(connection, FLUSH)
            return written

        written = self._run(work, settle, was_lost=unsure)
        if drafts:
            position = written[0].position
            if len(self._ends) > REMEMBERED:
                self._ends.clear()
            self._ends[chat.key] = position + len(drafts), end not in (None, position)
        return written

    def _copy(
        self,
        connection: Connection,
        chat: ChatKey,
        position: int,
        parameters: dict[str, Any],
        head: str | None,
        drafts: Sequence[Draft],
    ) -> None:
        parent = head if parameters["after_head"] else parameters["follows"]
        with psycopg.Cursor(connection).copy(COPY.format(schema=self._in)) as rows:
            for place, draft in enumerate(drafts, position):
                message_id, role, form, version, payload, text, digest, at, metadata = draft
                rows.write_row(
                    (
                        *(chat.key, place, message_id, parent, "active", role, form, version),
                        *(digest, at, metadata, text, payload),
                    )
                )
                parent = message_id

    def _settle(
        self, connection: Connection, chat: ChatKey, changes: Sequence[Change], drafts: Sequence[Draft]
    ) -> list[Written] | None:
        """What a write did whose connection was lost before the answer came; None if it did not happen."""
        expected = changes[0].expected_version
        if drafts:
            key = [chat.key, drafts[0].message_id]
            row = self._execute(connection, FIND_WRITTEN.format(schema=self._in), key).fetchone()
            if row is None:
                return None
            position, parent, version, end, head = row
            if expected:
                version = expected + 1
            elif end != position + len(drafts) or head != drafts[-1].message_id:
                # Others wrote since. Which version was ours is not known, only that it is not the chat's any more.
                version -= 1
            return _written(changes, (version, position, parent))
        if expected is None:
            return None
        row = self._execute(connection, GET_VERSION.format(schema=self._in), [chat.key]).fetchone()
        version, updated_at = row or (0, None)
        if version == expected:
            return None
        if version == (expected + 1 if expected else first_version(changes[0].now)) and updated_at == changes[0].now:
            return [Written(version, 0, None)]
        raise StoreUnavailableError(
            f"{self._location}: the connection was lost during a write, and the chat has changed since, so the write "
            "may or may not have happened; read the chat again and decide"
        )

    def _can_flush(self) -> bool:
        if self._may_flush is None:

            def work(connection: Connection) -> bool:
                try:
                    return bool(self._execute(connection, MAY_FLUSH).fetchall()[0][0])
                except (psycopg.ProgrammingError, psycopg.NotSupportedError):
                    return False

            self._may_flush = self._run(work)
        return self._may_flush

    def delete_chat(self, chat: ChatKey) -> bool:
        return self._delete(DELETE_CHATS["chat"], chat.key) > 0

    def clear(self, owner: OwnerKey) -> int:
        return self._delete(DELETE_CHATS["owner"], owner.key)

    def _delete(self, statement: str, key: UUID) -> int:
        def work(connection: Connection) -> int:
            with connection.transaction():
                if not self._is_full:
                    self._execute(connection, RELAX)
                deleted = self._execute(connection, statement.format(schema=self._in), [key]).fetchall()
                if deleted:
                    keys = [chat_key for (chat_key,) in deleted]
                    self._execute(connection, DELETE_MESSAGES.format(schema=self._in), [keys])
            return len(deleted)

        return self._run(work)

    # ---- reading

    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        rows = self._read(GET_CHAT, [chat.key])
        return _chat_record(rows[0]) if rows else None

    def outline(self, chat: ChatKey) -> Outline | None:
        rows = self._read(OUTLINE, {"key": chat.key})
        if not rows:
            return None
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
        rows = self._read(READ[newest], _within(chat, before, after, limit, status))
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
        rows = self._read(READ_PAYLOADS[newest], _within(chat, before, after, limit, status))
        if newest:
            rows.reverse()
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
        statement = _in_schema(statement, self._in)
        return self._run(lambda connection: self._execute(connection, statement, parameters, binary=True).fetchall())

    # ---- connections

    def _execute(
        self,
        connection: Connection,
        statement: str,
        parameters: Sequence[Any] | dict[str, Any] | None = None,
        *,
        binary: bool = False,
    ) -> psycopg.Cursor[Any]:
        # A pool that was given to us may make other rows.
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        return cursor.execute(statement, parameters, binary=binary)

    def _run(
        self,
        work: Callable[[Connection], T],
        settle: Callable[[Connection], T | None] | None = None,
        *,
        was_lost: bool = False,
    ) -> T:
        """Do work on a connection, again on another where that was lost. settle says what the lost one has done."""
        for left in reversed(range(ATTEMPTS)):
            connection = self._take()
            try:
                if was_lost and settle is not None:
                    done = settle(connection)
                    if done is not None:
                        return done
                return work(connection)
            except psycopg.Error as error:
                is_lost = connection.closed
                was_lost = was_lost or is_lost
                again = is_lost or error.sqlstate in _AGAIN or (was_lost and error.sqlstate == _DUPLICATE)
                if not (left and again):
                    raise self._explained(error, is_lost=is_lost) from error
            finally:
                self._give_back(connection)
            if is_lost and self._pool is not None:
                # The others were probably lost with it.
                self._pool.check()
        raise AssertionError

    def _take(self) -> Connection:
        if self._closed:
            raise HistoryClosedError(f"{self._location} was closed; open it again")
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool = self._pool or self._new_pool()
        try:
            connection = pool.getconn(self._timeout)
        except PoolTimeout as error:
            raise self._no_connection(error) from error
        except PoolClosed as error:
            raise HistoryClosedError(f"{self._location}: the pool of connections was closed") from error
        if not connection.autocommit:
            connection.autocommit = True
            self._borrowed.add(connection)
        taken: Connection = connection
        return taken

    def _give_back(self, connection: Connection) -> None:
        if connection in self._borrowed:
            self._borrowed.discard(connection)
            if not connection.closed:
                connection.autocommit = False
        if self._pool is not None:
            self._pool.putconn(connection)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        _stores.discard(self)
        if self._pool is not None and self._given_pool is None:
            self._pool.close()
            for connection in self._untaken:  # closed before the pool's own thread took it
                connection.close()

    def _forget(self) -> None:
        """Begin as in a new process, with no call under way."""
        self._lock = threading.Lock()
        self._queues: dict[UUID, list[_Turn]] = {}
        self._ends: dict[UUID, tuple[int, bool]] = {}
        self._borrowed: set[Connection] = set()
        """Connections of a given pool that are not in autocommit mode otherwise."""

    # ---- errors

    def _no_connection(self, error: PoolTimeout) -> StorageError:
        try:
            if self._given_pool is None:
                psycopg.connect(**self._settings).close()
        except psycopg.Error as reason:
            return self._explained(reason)
        return StoreBusyError(
            f"{self._location}: all connections of the pool were in use for more than {self._timeout:g} seconds, and "
            "nothing was done; try again, or allow more (max_connections)"
        )

    def _explained(self, error: psycopg.Error, *, is_lost: bool = True) -> StorageError:
        reason = str(error).strip() or type(error).__name__
        code = error.sqlstate
        if code in _BUSY:
            return StoreBusyError(
                f"{self._location}: others kept it locked, and nothing was written; try again ({reason})"
            )
        if code in _DAMAGED:
            return DamagedStoreError(f"{self._location}: the database is damaged: {reason}")
        if code == _READ_ONLY:
            return StorageError(f"{self._location} can only be read (a standby server?): {reason}")
        if is_lost and isinstance(error, psycopg.OperationalError):
            return StoreUnavailableError(f"{self._location} cannot be reached: {reason}")
        return StorageError(f"{self._location}: Postgres refused: {reason}")


class _Turn:
    """An append that waits for another to the same chat."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.together: list[_Turn] = []
        """Where it is this one's turn: those that go with it, itself the first."""
        self.written: Written | None = None
        self.error: Exception | None = None
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self.wait = self._asleep.acquire
        self.wake = self._asleep.release


# ---- a change as a statement


@lru_cache(maxsize=256)
def _statement(prefix: str, in_order: bool, drafts: int, alters: bool, deletes: bool, waits: bool) -> str:
    parts = [
        WITH_CHAT_OF_VERSION if in_order else WITH_CHAT_OF_ANY_VERSION,
        ("", ADD_ONE, ADD_SEVERAL)[drafts],
        ALTER if alters else "",
        DELETE if deletes else "",
        END[waits],
    ]
    return "".join(parts).format(schema=prefix)


@lru_cache(maxsize=256)
def _in_schema(statement: str, prefix: str) -> str:
    return statement.format(schema=prefix)


def _parameters(chat: ChatKey, changes: Sequence[Change], drafts: Sequence[Draft]) -> dict[str, Any]:
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
        "after_head": change.follows is UNSET,
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
            "text": draft.text,
            "payload": draft.payload,
        }
    return parameters


def _drafts_as_json(drafts: Sequence[Draft]) -> str:
    rows = []
    before = None
    for place, (message_id, role, form, version, payload, text, digest, at, metadata) in enumerate(drafts):
        row = {"n": place, "i": message_id, "b": before, "r": role, "f": form, "v": version, "d": digest.hex()}
        rows.append(row | {"a": at.isoformat(), "m": metadata, "t": text, "p": payload})
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
        rows.setdefault(position, {"n": position}).update(row, t=new.text, p=new.payload)
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


def _record(row: tuple[Any, ...]) -> Record:
    return Record._make((*row[:9], row[9].astimezone(UTC), row[10]))


def _chat_record(row: tuple[Any, ...]) -> ChatRecord:
    return ChatRecord._make((*row[:7], row[7].astimezone(UTC), row[8].astimezone(UTC)))


def _within(chat: ChatKey, before: int | None, after: int | None, limit: int | None, status: str | None) -> list[Any]:
    low = -1 if after is None else min(after, LARGEST)
    high = LARGEST if before is None else min(before, LARGEST)
    return [chat.key, low, high, status, status, None if limit is None else min(limit, LARGEST)]


# ---- settings


def _settings(conninfo: str, timeout: float, prepare: bool) -> dict[str, Any]:
    """What every connection is opened with."""
    try:
        settings: dict[str, Any] = dict(conninfo_to_dict(conninfo))
    except psycopg.ProgrammingError:
        # Not chained: the driver's message quotes the string, and its password with it.
        raise ConfigError(
            "the Postgres URL or connection string cannot be read; special characters in a user or password must be "
            "percent-encoded in a URL, and quoted in a connection string"
        ) from None
    milliseconds = max(1, int(timeout * 1000))
    settings.setdefault("connect_timeout", max(2, min(10, int(timeout))))
    settings.setdefault("tcp_user_timeout", milliseconds)
    settings.setdefault("fallback_application_name", "chat_history")
    if prepare:
        # Poolers refuse options, because one session serves many.
        options = settings.get("options") or os.environ.get("PGOPTIONS", "")
        settings["options"] = f"{options} -c lock_timeout={milliseconds}".strip()
    settings |= {"client_encoding": "utf8", "autocommit": True, "prepare_threshold": 0 if prepare else None}
    return settings


def _quoted(schema: str | None) -> str:
    if schema is None:
        return ""
    if not schema or "\0" in schema or len(schema.encode()) > 63:
        raise ConfigError(f"schema: {schema!r} cannot be the name of a Postgres schema; use 1 to 63 plain characters")
    return '"' + schema.replace('"', '""').replace("{", "{{").replace("}", "}}") + '"'


def _location(parts: dict[str, Any], schema: str | None) -> str:
    """A URL without the password."""
    user, host, port, database = (str(parts.get(name) or "") for name in ("user", "host", "port", "dbname"))
    is_folder = host.startswith(("/", "@"))
    options = {"host": host if is_folder else "", "schema": schema or ""}
    query = "&".join(f"{name}={quote(value, safe='/@')}" for name, value in options.items() if value)
    where = "" if is_folder else (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return f"postgresql://{quote(user)}{'@' * bool(user)}{where}/{quote(database)}{'?' * bool(query)}{query}"


# ---- fork: a child must not use its parent's connections, and the threads of its parent's pool are not in it.

_stores: WeakSet[PostgresBackend] = WeakSet()
_abandoned: list[Any] = []


def _after_fork_in_child() -> None:
    for store in _stores:
        store._forget()
        if store._given_pool is None:
            _abandoned.append(store._pool)
            store._pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

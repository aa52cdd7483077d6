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

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID
from weakref import WeakSet

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool

from chat_history.errors import ConfigError, StorageError, StoreUnavailableError, VersionConflictError
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
    Written,
    first_version,
    owner_key,
)
from .drafts import Drafts
from .joining import Joining
from .postgres_changes import (
    APPEND,
    COLUMNS,
    END,
    SEVERAL,
    appended,
    change_statement,
    copied,
    is_long,
    merely_appends,
    parameters_of,
    place_in,
    what_was_written,
    written_at,
)
from .postgres_connections import ATTEMPTS, Connections
from .postgres_contents import GET_CONTENTS, HAS_CONTENTS, change_contents, forget_chats
from .postgres_reading import (
    CHAT_IDS,
    FIND,
    GET_CHAT,
    LIST_AFTER,
    LIST_BEFORE,
    LIST_CHATS,
    OUTLINE,
    OWNERS,
    PAYLOAD,
    RECORD,
    by_position,
    chat_record_of,
    record_of,
    within,
)
from .postgres_search import Index
from .postgres_wire import Connection, ask
from .words import Sought

__all__ = ["PostgresBackend", "quoted"]

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

# The chat's row first, which keeps others from adding to it, and in a statement of its own, so that the next one sees
# what they added before.
DELETE_CHAT = "DELETE FROM {schema}chats WHERE chat_key = $1 RETURNING chat_key"
DELETE_CHAT_OF_VERSION = "DELETE FROM {schema}chats WHERE chat_key = $1 AND version = $2 RETURNING chat_key"
DELETE_CHATS = "DELETE FROM {schema}chats WHERE owner_key = $1 RETURNING chat_key"
# An array would be looked for in every partition, so one chat has statements of its own.
DELETE_MESSAGES = {
    False: "DELETE FROM {schema}messages WHERE chat_key = $1",
    True: "DELETE FROM {schema}messages WHERE chat_key = ANY($1)",
}
DELETE_GRAMS = {
    False: "DELETE FROM {schema}message_grams WHERE chat_key = $1",
    True: "DELETE FROM {schema}message_grams WHERE chat_key = ANY($1)",
}

LARGEST = 2**63 - 1
SUSPICION = 50
"""For how many appends a chat is thought to be written to by other processes after one was seen to."""
REMEMBERED = 4096
"""Chats that something is remembered of."""


class _KnownChat:
    """A chat that was written to: its parameters, and whether other processes seem to write to it too."""

    __slots__ = ("_end", "parameters", "suspicion", "values")

    def __init__(self, chat: ChatKey) -> None:
        self.parameters = parameters_of(chat)
        self.values = list(self.parameters.values())
        self.suspicion = 0
        """For how many appends others are still thought to write to it."""
        self._end: int | None = None

    def saw(self, position: int, count: int) -> None:
        """So many messages were stored at this position."""
        if self._end in (None, position):
            self.suspicion = max(self.suspicion - 1, 0)
        else:
            self.suspicion = SUSPICION
        self._end = position + count


class PostgresBackend(Backend):
    """Chats in a Postgres database.

    conninfo: a URL or a libpq string; what it leaves out is libpq's to find (PGHOST, PGPASSFILE, a service file).
    pool: a `psycopg_pool.ConnectionPool` to use instead, which stays open when this is closed. schema: created if it is
    missing; where the search path has our tables otherwise, or its first. timeout: seconds to wait for a connection or
    a lock. durability "relaxed": a crash of the server may take the last moments. prepare: whether statements are
    prepared; None: unless a pooler is seen to stand between. migrations: a package of the integrator's own steps (see
    `chat_history.migrations.runner`).
    """

    name = "postgres"
    keeps_contents = True

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
        prepare: bool | None = None,
        migrations: str | None = None,
    ) -> None:
        self._options = {
            "schema": schema,
            "min_connections": min_connections,
            "max_connections": max_connections,
            "timeout": timeout,
            "durability": durability,
            "prepare": prepare,
            "migrations": migrations,
        }
        name = None if schema is None else quoted(schema)
        self._prefix = "" if name is None else f"{name}."
        self._append_statements = [APPEND.format(schema=self._prefix) + END[waits] for waits in (False, True)]
        self._is_full = durability == "full"
        self._may_flush: bool | None = None
        self._joining: Joining[Change, Written] = Joining()
        self._known: dict[int, _KnownChat] = {}
        self._connections = Connections(
            conninfo, pool=pool, least=min_connections, most=max_connections, timeout=timeout, prepare=prepare
        )

        self._index = Index(self._read, self._connections.run, self._sql)

        def prepare_tables(connection: Connection) -> None:
            place = self._connections.location if schema is None else f"{self._connections.location}, schema {schema}"
            migrate(connection, dialect="postgres", place=place, package=migrations, schema=name)

        self._connections.open(prepare_tables)
        _stores.add(self)

    @property
    def location(self) -> str:
        return self._connections.location

    @property
    def settings(self) -> dict[str, Any]:
        return {"backend": self.name, "url": self._connections.url, **self._options}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    def close(self) -> None:
        self._connections.close()

    # ---- writing

    def write(self, chat: ChatKey, change: Change) -> Written:
        if isinstance(change.drafts, Drafts) and len(change.drafts) <= SEVERAL:
            change.drafts.made()  # and so its contents are known; of more, when they were copied
        if not merely_appends(change):
            return self._apply(chat, [change])[0]
        return self._join(chat, change, lambda: self._apply(chat, [change])[0])

    def append(self, chat: ChatKey, draft: Draft) -> Written:
        change = Change(draft.created_at, None, (draft,), active=1)
        return self._join(chat, change, lambda: self._append(chat, change))

    def _join(self, chat: ChatKey, change: Change, alone: Callable[[], Written]) -> Written:
        """Make a change that merely appends, together with those of other threads that come meanwhile."""
        return self._joining.do(
            chat.key.int,
            change,
            lambda changes: [alone()] if len(changes) == 1 else self._apply(chat, changes),
            lambda change: self._apply(chat, [change], unsure=True)[0],
        )

    def _append(self, chat: ChatKey, change: Change) -> Written:
        """What `_apply` does for one draft that comes by itself, in as few steps as possible."""
        draft = change.drafts[0]
        known = self._known.get(chat.key.int) or self._know(chat)
        frees_row = self._is_full and known.suspicion > 0 and self._can_flush()
        statement = self._append_statements[self._is_full and not frees_row]
        parameters = appended(known.values, draft)

        def work(connection: Connection) -> Written:
            written = place_in(ask(connection, statement, parameters))
            if frees_row:
                self._flush(connection)
            return written

        def settle(connection: Connection) -> Written | None:
            return next(iter(self._settled(connection, chat, [change]) or ()), None)

        written = self._connections.run(work, settle)
        known.saw(written.position, 1)
        return written

    def _apply(self, chat: ChatKey, changes: Sequence[Change], *, unsure: bool = False) -> list[Written]:
        """Apply changes as one. Several of them merely append, and the outcome is as if they came one by one.

        unsure: it may have been done already.
        """
        change = changes[0]
        drafts = change.drafts if len(changes) == 1 else [draft for each in changes for draft in each.drafts]
        copies = is_long(drafts)
        known = self._known.get(chat.key.int) or self._know(chat)
        changes_contents = bool(copies or change.contents)
        frees_row = self._is_full and not changes_contents and known.suspicion > 0 and self._can_flush()
        statement, parameters = change_statement(
            self._prefix, known.parameters, changes, drafts, copies=copies, waits=self._is_full and not frees_row
        )

        def work(connection: Connection) -> list[Written]:
            if changes_contents or ((change.replacements or change.deletions) and self._has_contents(connection, chat)):
                with connection.transaction():
                    written = what_was_written(changes, ask(connection, statement, parameters))
                    if written and copies:
                        with psycopg.Cursor(connection).copy(self._sql(COPY)) as rows:
                            for block in copied(chat, written[0].position, written[0].parent, drafts):
                                rows.write(block)
                    if written:
                        change_contents(connection, self._sql, chat, change, written[0].position)
            else:
                written = what_was_written(changes, ask(connection, statement, parameters))
            if not written:
                raise VersionConflictError(change.expected_version or 0, self._version(connection, chat)[0])
            if frees_row:
                self._flush(connection)
            return written

        def settle(connection: Connection) -> list[Written] | None:
            return self._settled(connection, chat, changes)

        written = self._connections.run(work, settle, was_lost=unsure)
        if drafts:
            known.saw(written[0].position, len(drafts))
        return written

    def _has_contents(self, connection: Connection, chat: ChatKey) -> bool:
        """Whether messages of a chat refer to contents; true of the version that a change names, or it is not made."""
        return ask(connection, self._sql(HAS_CONTENTS), [chat.key.hex]).get_value(0, 0) == b"t"

    def _know(self, chat: ChatKey) -> _KnownChat:
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        known = self._known[chat.key.int] = _KnownChat(chat)
        return known

    def _settled(self, connection: Connection, chat: ChatKey, changes: Sequence[Change]) -> list[Written] | None:
        """As `_settle`, and what was done is on the disk."""
        written = self._settle(connection, chat, changes)
        if written and self._can_flush():
            self._flush(connection)
        return written

    def _settle(self, connection: Connection, chat: ChatKey, changes: Sequence[Change]) -> list[Written] | None:
        """What a write did whose connection was lost before the answer came; None if it did not happen."""
        expected, now = changes[0].expected_version, changes[0].now
        drafts = [draft for change in changes for draft in change.drafts]
        if drafts:
            key = [chat.key, [draft.message_id for draft in drafts]]
            rows = self._fetch(connection, FIND_WRITTEN, key)
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
            return written_at(changes, version, position, parent)
        if expected is None:
            return None
        version, updated_at = self._version(connection, chat)
        if version == expected:
            return None
        if version == (expected + 1 if expected else first_version(now)) and updated_at == now:
            return [Written(version, 0, None)]
        raise StoreUnavailableError(
            f"{self.location}: the connection was lost during a write, and the chat has changed since, so the write "
            "may or may not have happened; read the chat again and decide"
        )

    def _version(self, connection: Connection, chat: ChatKey) -> tuple[int, datetime | None]:
        """The chat's version and when it became that; 0 if there is no such chat."""
        rows = self._fetch(connection, GET_VERSION, [chat.key])
        return rows[0] if rows else (0, None)

    def _flush(self, connection: Connection) -> None:
        """Bring to the disk what was committed, which stays where this fails, so that it must not be written again."""
        for left in reversed(range(ATTEMPTS)):
            try:
                ask(connection, FLUSH)
                return
            except psycopg.Error as error:
                if connection.closed:
                    raise
                if not left:
                    raise StorageError(
                        f"{self.location}: what was written is stored, but it is not known whether it is on the disk "
                        f"already; do not write it again ({str(error).strip()})"
                    ) from error

    def _can_flush(self) -> bool:
        if self._may_flush is None:

            def work(connection: Connection) -> bool:
                try:
                    return bool(self._fetch(connection, MAY_FLUSH)[0][0])
                except (psycopg.ProgrammingError, psycopg.NotSupportedError):
                    return False

            self._may_flush = self._connections.run(work)
        return self._may_flush

    def delete_chat(self, chat: ChatKey, expected_version: int | None = None) -> bool:
        if expected_version is None:
            return self._delete(chat.owner, DELETE_CHAT, chat.key.hex).chats > 0
        if self._delete(chat.owner, DELETE_CHAT_OF_VERSION, chat.key.hex, str(min(expected_version, LARGEST))).chats:
            return True
        rows = self._read(GET_VERSION, [chat.key])
        actual = rows[0][0] if rows else 0
        if actual != expected_version:
            raise VersionConflictError(expected_version, actual)
        return False

    def clear(self, owner: OwnerKey) -> Cleared:
        return self._delete(owner.key, DELETE_CHATS, owner.key.hex)

    def _delete(self, owner: UUID, statement: str, *parameters: str) -> Cleared:
        def work(connection: Connection) -> Cleared:
            messages = 0
            with connection.transaction():
                if not self._is_full:
                    ask(connection, RELAX)
                rows = ask(connection, self._sql(statement), parameters)
                deleted = [(rows.get_value(row, 0) or b"").decode() for row in range(rows.ntuples)]
                if deleted:
                    several = len(deleted) > 1
                    keys = [f"{{{','.join(deleted)}}}"] if several else deleted
                    messages = ask(connection, self._sql(DELETE_MESSAGES[several]), keys).command_tuples or 0
                    ask(connection, self._sql(DELETE_GRAMS[several]), keys)
                    forget_chats(connection, self._sql, owner, deleted)
            return Cleared(len(deleted), messages)

        return self._connections.run(work)

    # ---- reading

    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        rows = self._read(GET_CHAT, [chat.key])
        return chat_record_of(rows[0]) if rows else None

    def outline(self, chat: ChatKey) -> Outline | None:
        rows = self._in_order(OUTLINE, {"key": chat.key})
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
        return [record_of(row) for row in self._in_order(*within(RECORD, chat, before, after, limit, newest, status))]

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
        return self._in_order(*within(PAYLOAD, chat, before, after, limit, newest, status))

    def _in_order(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        rows = self._read(statement, parameters)
        rows.sort(key=by_position)
        return rows

    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        return [record_of(row) for row in self._read(FIND, [chat.key, list(message_ids)])]

    def contents(self, chat: ChatKey, hashes: Sequence[str]) -> dict[str, str]:
        return dict(self._read(GET_CONTENTS, [chat.owner, list(hashes)]))

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
        return [chat_record_of(row) for row in rows]

    def search(self, owner: OwnerKey, wanted: Sought, *, chat: ChatKey | None = None, limit: int) -> list[Found]:
        grams = wanted.grams(owner.key)
        if not grams or not self._index.catch_up(owner):
            return super().search(owner, wanted, chat=chat, limit=limit)
        return self._index.search(owner, wanted, grams, chat, limit)

    def chat_ids(self, owner: OwnerKey) -> list[str]:
        return [chat_id for (chat_id,) in self._read(CHAT_IDS, [owner.key])]

    def owners(self) -> list[OwnerKey]:
        return [owner_key(*row) for row in self._read(OWNERS, [])]

    def _read(self, statement: str, parameters: Sequence[Any] | dict[str, Any]) -> list[Any]:
        return self._connections.run(lambda connection: self._fetch(connection, statement, parameters))

    def _fetch(
        self, connection: Connection, statement: str, parameters: Sequence[Any] | dict[str, Any] = ()
    ) -> list[Any]:
        # Not the pool's own cursor, which may make other rows.
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        cursor.execute(self._sql(statement), parameters, binary=True)
        return cursor.fetchall()

    def _sql(self, statement: str) -> str:
        return _in_schema(statement, self._prefix)


# ---- rows


@lru_cache(maxsize=256)
def _in_schema(statement: str, prefix: str) -> str:
    return statement.format(schema=prefix, columns=COLUMNS, flush=FLUSH)


def quoted(schema: str) -> str:
    """The name of a schema as it stands in a statement."""
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

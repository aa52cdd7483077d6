"""What is big in messages, in Postgres: kept with the change that brings it, gone with the last that referred to it.

Both happen in the transaction of the change, after it, so the chat's row is locked first and contents second, and these
in order of their hashes: nobody waits for somebody who waits for them. The row of a content is locked by whoever begins
to refer to it and by whoever looks whether nobody does any more. That look is a statement of its own, and so sees what
all who had the lock before have done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from uuid import UUID

from psycopg.pq.abc import PGresult

from .base import Change, ChatKey
from .contents import uses
from .postgres_wire import Connection, ask

__all__ = ["GET_CONTENTS", "HAS_CONTENTS", "change_contents", "forget_chats"]

GET_CONTENTS = "SELECT hash, data FROM {schema}contents WHERE owner_key = %s AND hash = ANY(%s)"
HAS_CONTENTS = "SELECT EXISTS (SELECT FROM {schema}content_uses WHERE chat_key = $1)"

# At first without the data: most are there already, and need not be sent once more.
LOCK_OR_MAKE = """
INSERT INTO {schema}contents AS c (owner_key, hash, data)
SELECT $1::uuid, hash, '' FROM unnest($2::text[]) AS hash ORDER BY hash COLLATE "C"
ON CONFLICT (owner_key, hash) DO UPDATE SET hash = excluded.hash
RETURNING CASE WHEN c.data = '' THEN c.hash END
"""
FILL = "UPDATE {schema}contents SET data = $3 WHERE owner_key = $1 AND hash = $2"
USE = """
INSERT INTO {schema}content_uses (owner_key, hash, chat_key, position)
SELECT $1::uuid, hash, $2::uuid, position FROM unnest($3::text[], $4::bigint[]) AS u(hash, position)
"""

LEAVE = "DELETE FROM {schema}content_uses WHERE chat_key = $1 AND position = ANY($2::bigint[]) RETURNING hash"
LEAVE_ALL = "DELETE FROM {schema}content_uses WHERE chat_key = ANY($1::uuid[]) RETURNING hash"
LOCK = """
SELECT hash FROM {schema}contents WHERE owner_key = $1 AND hash = ANY($2::text[]) ORDER BY hash FOR UPDATE
"""
DELETE_UNUSED = """
DELETE FROM {schema}contents AS c WHERE c.owner_key = $1 AND c.hash = ANY($2::text[]) AND NOT EXISTS (
    SELECT FROM {schema}content_uses AS u WHERE u.owner_key = c.owner_key AND u.hash = c.hash
)
"""

InSchema = Callable[[str], str]
"""A statement with the schema in it."""


def change_contents(connection: Connection, sql: InSchema, chat: ChatKey, change: Change, position: int) -> None:
    """Do what a change that was just made means for contents, in its transaction.

    position: what its first draft was given.
    """
    left: set[str] = set()
    changed = [*change.deletions, *(place for place, _ in change.replacements)]
    if changed:
        left = _column(ask(connection, sql(LEAVE), [chat.key.hex, _array(map(str, changed))]))
    if change.contents:
        _keep(connection, sql, chat, change.contents, left)
        hashes, positions = zip(*uses(change, position), strict=True)
        ask(connection, sql(USE), [chat.owner.hex, chat.key.hex, _array(hashes), _array(map(str, positions))])
    _delete_unused(connection, sql, chat.owner, left)


def forget_chats(connection: Connection, sql: InSchema, owner: UUID, chat_keys: Iterable[str]) -> None:
    """Let an owner's chats that were just deleted refer to nothing, in the transaction of that."""
    left = _column(ask(connection, sql(LEAVE_ALL), [_array(chat_keys)]))
    _delete_unused(connection, sql, owner, left)


def _keep(connection: Connection, sql: InSchema, chat: ChatKey, contents: Mapping[str, str], left: set[str]) -> None:
    """Keep contents, having locked what is left too: later it would be out of order."""
    owner = chat.owner.hex
    new = _column(ask(connection, sql(LOCK_OR_MAKE), [owner, _array(left.union(contents))]))
    for known in sorted(new.intersection(contents)):
        ask(connection, sql(FILL), [owner, known, contents[known]])


def _delete_unused(connection: Connection, sql: InSchema, owner: UUID, hashes: Collection[str]) -> None:
    if hashes:
        parameters = [owner.hex, _array(hashes)]
        ask(connection, sql(LOCK), parameters)
        ask(connection, sql(DELETE_UNUSED), parameters)


def _array(values: Iterable[str]) -> str:
    """As Postgres reads it; of values that need no quotes."""
    return f"{{{','.join(values)}}}"


def _column(answer: PGresult) -> set[str]:
    return {value.decode() for row in range(answer.ntuples) if (value := answer.get_value(row, 0)) is not None}

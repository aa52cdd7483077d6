"""The OpenAI Agents SDK's `SQLiteSession`, and its `SQLAlchemySession`, which has the same tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from chat_history.backends.base import UNSET

from .databases import Database, Table
from .foreign import ForeignChat, ForeignMessage, Source, moment

__all__ = ["IMPORTER", "OpenAIAgents"]

MESSAGES = ("id", "session_id", "message_data", "created_at")
BRANCHES = ("session_id", "message_id", "branch_id", "sequence_number")
MAIN = "main"


class OpenAIAgents:
    """Session ids become chat ids. Branches of an `AdvancedSQLiteSession` become branches, "main" the active one."""

    name = "openai_agents"
    expects = "a database with the tables of a SQLiteSession"

    def recognises(self, source: Source) -> bool:
        """By the columns."""
        return isinstance(source, Database) and bool(source.having(*MESSAGES))

    def chats(self, source: Source, table: str | None) -> Iterator[ForeignChat]:
        """All sessions that have items."""
        database = cast(Database, source)
        found = database.one(table, "items of sessions", *MESSAGES)
        branched = next((each for each in database.having(*BRANCHES) if each.schema == found.schema), None)
        sql = f"SELECT session_id, MIN(created_at) FROM {found.sql} GROUP BY session_id ORDER BY MIN(id)"  # noqa: S608
        for session_id, created_at in database.rows(sql):
            rows = _branches(database, found, branched, session_id) if branched else _rows(database, found, session_id)
            yield ForeignChat(str(session_id), rows, created_at=moment(created_at))


IMPORTER = OpenAIAgents()


def _rows(database: Database, table: Table, session_id: str) -> Iterator[ForeignMessage]:
    sql = f"SELECT message_data, created_at FROM {table.sql} WHERE session_id = ? ORDER BY id"  # noqa: S608
    for content, created_at in database.rows(sql, session_id):
        yield _message(content, created_at)


def _message(content: object, created_at: object, *, first: bool = False) -> ForeignMessage:
    return ForeignMessage(content, "openai_responses", moment(created_at), parent=None if first else UNSET)


def _branches(database: Database, table: Table, branches: Table, session_id: str) -> Iterator[ForeignMessage]:
    """Every branch from its beginning. What they share has the same fingerprints, and arrives once."""
    names = f"SELECT DISTINCT branch_id FROM {branches.sql} WHERE session_id = ? ORDER BY 1"  # noqa: S608
    sql = (
        f"SELECT m.message_data, m.created_at FROM {table.sql} AS m JOIN {branches.sql} AS b ON m.id = b.message_id "  # noqa: S608
        "WHERE m.session_id = ? AND b.branch_id = ? ORDER BY b.sequence_number"
    )
    found = [name for (name,) in database.rows(names, session_id)]
    for name in sorted(found, key=MAIN.__eq__):
        for index, (content, created_at) in enumerate(database.rows(sql, session_id, name)):
            yield _message(content, created_at, first=not index)

"""LangChain's tables: those of `SQLChatMessageHistory` and of the two `PostgresChatMessageHistory`.

The first is of langchain-community, and so is the older one for Postgres; the newer is of langchain-postgres.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from .databases import Database, Table
from .foreign import ForeignChat, ForeignMessage, Source, moment

__all__ = ["IMPORTER", "LangChain"]

COLUMNS = ("id", "session_id", "message")


class LangChain:
    """Session ids become chat ids."""

    name = "langchain"
    expects = "a database with a table of SQLChatMessageHistory or PostgresChatMessageHistory"

    def recognises(self, source: Source) -> bool:
        """By the columns."""
        return isinstance(source, Database) and bool(source.having(*COLUMNS))

    def chats(self, source: Source, table: str | None) -> Iterator[ForeignChat]:
        """All sessions."""
        database = cast(Database, source)
        found = database.one(table, "messages of LangChain", *COLUMNS)
        time = "created_at" if "created_at" in found.columns else "NULL"
        sql = (
            f"SELECT CAST(session_id AS TEXT), session_id, MIN({time}) FROM {found.sql} "  # noqa: S608
            "GROUP BY session_id ORDER BY MIN(id)"
        )
        for chat_id, session_id, created_at in database.rows(sql):
            rows = _rows(database, found, time, session_id)
            yield ForeignChat(chat_id or "", rows, created_at=moment(created_at))


IMPORTER = LangChain()


def _rows(database: Database, table: Table, time: str, session_id: object) -> Iterator[ForeignMessage]:
    sql = f"SELECT CAST(message AS TEXT), {time} FROM {table.sql} WHERE session_id = ? ORDER BY id"  # noqa: S608
    for content, created_at in database.rows(sql, session_id):
        yield ForeignMessage(content, "langchain", moment(created_at))

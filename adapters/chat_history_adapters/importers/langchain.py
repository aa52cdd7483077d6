"""LangChain's tables: those of `SQLChatMessageHistory` and of the two `PostgresChatMessageHistory`.

The first is of langchain-community, and so is the older one for Postgres; the newer is of langchain-postgres.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from .databases import Database
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
        sessions = f"SELECT session_id, MIN(id) AS first, MIN({time}) AS began FROM {found.sql} GROUP BY session_id"  # noqa: S608
        sql = (
            f"SELECT CAST(s.session_id AS TEXT), began, CAST(m.message AS TEXT), {time} FROM {found.sql} AS m "  # noqa: S608
            f"LEFT JOIN ({sessions}) AS s ON s.session_id = m.session_id ORDER BY s.first, s.session_id, m.id"
        )
        for chat_id, began, rows in database.chats(sql):
            messages = (ForeignMessage(content, "langchain", moment(said)) for content, said in rows)
            yield ForeignChat(chat_id or "", messages, created_at=moment(began))


IMPORTER = LangChain()

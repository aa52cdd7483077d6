"""rakam's three stores: a JSON file, SQLite, and Postgres.

A chat is `{chat_id: [message, ...]}`, or its rows of `messages` (SQLite) and `chat_messages` (Postgres). A message is a
dict with a role, or one of Pydantic AI where `save_messages` stored it.
"""

from __future__ import annotations

from collections.abc import Iterator

from .databases import Database
from .documents import Document, JSONReader
from .foreign import ForeignChat, ForeignMessage, Source, moment

__all__ = ["IMPORTER", "Rakam"]

MESSAGES = ("id", "chat_id", "message_order", "message_data")
CHATS = ("chats", "chat_sessions")


class Rakam:
    """Chat ids stay as they are."""

    name = "rakam"
    expects = "a JSON file {chat_id: [message, ...]}, or a database with rakam's tables"

    def recognises(self, source: Source) -> bool:
        """By the columns; an object whose first value is a list, and no line with messages of its own."""
        if isinstance(source, Database):
            return bool(source.having(*MESSAGES))
        shape = source.shape
        has_messages = "messages" in (shape.line or {}) or shape.key == "messages"
        return shape.opens == "{" and (shape.key is None or shape.then == "[") and not has_messages

    def chats(self, source: Source, table: str | None) -> Iterator[ForeignChat]:
        """All chats; one without messages, too."""
        return _of_database(source, table) if isinstance(source, Database) else _of_document(source)


IMPORTER = Rakam()


def _of_document(document: Document) -> Iterator[ForeignChat]:
    for reader in document.readers():
        for chat_id in reader.members():
            yield ForeignChat(chat_id, _messages(reader))
        reader.end()


def _messages(reader: JSONReader) -> Iterator[ForeignMessage]:
    for _ in reader.elements():
        yield ForeignMessage(reader.value())


def _of_database(database: Database, table: str | None) -> Iterator[ForeignChat]:
    messages = database.one(table, "rakam's messages", *MESSAGES)
    found = [each for each in database.having("chat_id") if each.schema == messages.schema and each.name in CHATS]
    chats = found[0] if found else messages
    began = "created_at" if found and "created_at" in chats.columns else "NULL"
    said = "m.created_at" if "created_at" in messages.columns else "NULL"
    sql = (
        f"SELECT c.chat_id, began, m.chat_id, CAST(m.message_data AS TEXT), {said} FROM "  # noqa: S608
        f"(SELECT chat_id, MIN({began}) AS began FROM {chats.sql} GROUP BY chat_id) AS c "
        f"LEFT JOIN {messages.sql} AS m ON m.chat_id = c.chat_id ORDER BY c.chat_id, m.message_order, m.id"
    )
    for chat_id, time, rows in database.chats(sql):
        read = (ForeignMessage(content, created_at=moment(at)) for chat, content, at in rows if chat is not None)
        yield ForeignChat(str(chat_id), read, created_at=moment(time))

"""LlamaIndex's `SimpleChatStore`, as its `persist` wrote it, and the table of its `SQLAlchemyChatStore`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from .databases import Database, Table
from .documents import Document, JSONReader
from .foreign import ForeignChat, ForeignMessage, Source, moment

__all__ = ["IMPORTER", "LlamaIndex"]

COLUMNS = ("id", "key", "timestamp", "role", "data")
FORMAT = "llama_index"


class LlamaIndex:
    """Keys become chat ids. What was archived there is archived here, and comes first."""

    name = "llama_index"
    expects = "the file of a SimpleChatStore, or a database with the table of a SQLAlchemyChatStore"

    def recognises(self, source: Source) -> bool:
        """By the columns; an object with `store`, or such an object in a string."""
        if isinstance(source, Database):
            return bool(source.having(*COLUMNS))
        key, then = source.shape.key, source.shape.then
        return source.shape.opens == '"' or (key == "store" and then == "{") or (key == "class_name" and then == '"')

    def chats(self, source: Source, table: str | None) -> Iterator[ForeignChat]:
        """All keys."""
        return _of_database(source, table) if isinstance(source, Database) else _of_document(source)


IMPORTER = LlamaIndex()


def _of_document(document: Document) -> Iterator[ForeignChat]:
    for reader in document.readers():
        if reader.peek() == '"':
            # As releases until 2024 wrote it.
            reader = JSONReader(io.StringIO(reader.value()), document.name)
        for name in reader.members():
            if name != "store":
                reader.value()
                continue
            for key in reader.members():
                yield ForeignChat(key, _messages(reader))
        reader.end()


def _messages(reader: JSONReader) -> Iterator[ForeignMessage]:
    for _ in reader.elements():
        yield ForeignMessage(_with_blocks(reader.value()), FORMAT)


def _with_blocks(message: Any) -> Any:
    """Messages had a text where they have blocks now; LlamaIndex reads it so, too."""
    if isinstance(message, Mapping) and "blocks" not in message and isinstance(message.get("content"), str):
        rest = {key: value for key, value in message.items() if key != "content"}
        return {**rest, "blocks": [{"block_type": "text", "text": message["content"]}]}
    return message


def _of_database(database: Database, table: str | None) -> Iterator[ForeignChat]:
    found = database.one(table, "a SQLAlchemyChatStore", *COLUMNS)
    sql = f'SELECT "key", MIN("timestamp") FROM {found.sql} GROUP BY "key" ORDER BY 2, 1'  # noqa: S608
    for key, first in database.rows(sql):
        yield ForeignChat(str(key), _rows(database, found, key), created_at=moment(first))


def _rows(database: Database, table: Table, key: str) -> Iterator[ForeignMessage]:
    status = "status" if "status" in table.columns else "'active'"
    sql = (
        f'SELECT CAST(data AS TEXT), "timestamp", {status} FROM {table.sql} '  # noqa: S608
        f'WHERE "key" = ? ORDER BY CASE {status} WHEN \'archived\' THEN 0 ELSE 1 END, "timestamp", id'
    )
    for content, time, state in database.rows(sql, key):
        yield ForeignMessage(content, FORMAT, moment(time), archived=state == "archived")

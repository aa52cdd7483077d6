"""JSON Lines of OpenAI's messages: a chat a line, `{"messages": [...]}`, or a message a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from chat_history.errors import InvalidArgumentError

from .documents import Document
from .foreign import ForeignChat, ForeignMessage, Source, moment

__all__ = ["IMPORTER", "OpenAIJSONL"]

IDS = ("chat_id", "conversation_id", "id", "custom_id")
"""Under which of its keys a chat's line may have an id."""


class OpenAIJSONL:
    """A chat has the id of its line, or the name of the file and the number of the line: "train-17".

    Where each line is a message the file is one chat, whose id is its name. What else a line of a chat says becomes the
    chat's metadata.
    """

    name = "openai_jsonl"
    expects = 'lines {"messages": [...]}, or a message with a role on each line'

    def recognises(self, source: Source) -> bool:
        """By the first line."""
        return isinstance(source, Document) and (_is_chat(source.shape.line) or _is_message(source.shape.line))

    def chats(self, source: Source, table: str | None) -> Iterator[ForeignChat]:
        """A chat of each line, or one of them all."""
        document = cast(Document, source)
        if _is_message(document.shape.line):
            yield ForeignChat(document.stem, (ForeignMessage(line) for _, line in document.lines()))
            return
        for number, text in document.lines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise _bad(document, number, error) from error
            if not _is_chat(line):
                raise _bad(document, number, 'it has no "messages", as the first line has')
            yield _chat(line, f"{document.stem}-{number}")


IMPORTER = OpenAIJSONL()


def _chat(line: dict[str, Any], name: str) -> ForeignChat:
    key = next((key for key in IDS if isinstance(line.get(key), str) and line[key]), "")
    title = line["title"] if isinstance(line.get("title"), str) else ""
    known = {"messages", key} | ({"title"} if title else set())
    return ForeignChat(
        line[key] if key else name,
        map(ForeignMessage, line["messages"]),
        title,
        moment(line.get("created_at")),
        {key: value for key, value in line.items() if key not in known and value is not None},
    )


def _is_chat(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("messages"), list)


def _is_message(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("role"), str)


def _bad(document: Document, number: int, why: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"line {number} of {document.name} cannot be read: {why}; what came before it has arrived"
    )

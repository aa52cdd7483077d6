"""Foreign JSON as it is stored: without the framework that wrote it, and just as its messages would be added."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from chat_history.errors import InvalidMessageError, UnknownFormatError
from chat_history.formats import Dumped, MessageFormat, get_format, readable, recognise
from chat_history.messages import Message
from chat_history_adapters.formats.json_dicts import payload_of

from .foreign import ForeignMessage, moment

__all__ = ["Read", "read"]

DICTS = ("openai", "openai_responses")
"""Formats whose messages are dicts themselves."""

SHAPES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    "openai": ("a 'role'", lambda value: isinstance(value.get("role"), str)),
    "openai_responses": (
        "a 'type' or a 'role'",
        lambda value: isinstance(value.get("type"), str) or isinstance(value.get("role"), str),
    ),
    "pydantic_ai": (
        "a 'kind' and 'parts'",
        lambda value: value.get("kind") in ("request", "response") and isinstance(value.get("parts"), list),
    ),
    "llama_index": (
        "a 'role' and 'blocks'",
        lambda value: isinstance(value.get("role"), str) and isinstance(value.get("blocks"), list),
    ),
    "langchain": (
        "a 'type' and 'data'",
        lambda value: isinstance(value.get("type"), str) and isinstance(value.get("data"), dict),
    ),
}
"""What a message of each format has at least."""

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Read(NamedTuple):
    """A message that can be stored."""

    format: MessageFormat
    dumped: Dumped
    value: dict[str, Any]
    said_at: datetime | None
    """The time that is in the message itself."""


def read(message: ForeignMessage) -> Read:
    """The message, ready to be stored. `ValueError`, saying why, for one that cannot be."""
    value = message.content
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is no object, but {'null' if value is None else f'a {type(value).__name__}'}")
    form = _format(message.format, value)
    shape = SHAPES.get(form.name)
    if shape and not shape[1](value):
        raise ValueError(f"a message of the format {form.name!r} has {shape[0]}; this one has {', '.join(value)[:200]}")
    if form.name in DICTS:
        return Read(form, form.dump(value), value, moment(value.get("timestamp") or value.get("created_at")))
    payload = _payload(value)
    neutral = form.to_neutral(payload)
    times = [time for each in neutral if (time := moment(each.get("created_at")))]
    return Read(form, Dumped(payload, *_role_and_text(neutral)), value, times[0] if times else None)


def _format(name: str | None, value: dict[str, Any]) -> MessageFormat:
    if name is None and SHAPES["pydantic_ai"][1](value):
        name = "pydantic_ai"
    if name is not None:
        return get_format(name)
    try:
        return recognise(value)
    except (UnknownFormatError, InvalidMessageError) as error:
        raise ValueError(str(error)) from error


def _payload(value: dict[str, Any]) -> str:
    """As the frameworks write it, which is without spaces. Refuses what `payload_of` refuses."""
    payload_of(value)
    payload = _compact(value)
    try:
        payload.encode()
    except UnicodeEncodeError:
        payload = json.dumps(value, separators=(",", ":"))
    return payload


def _role_and_text(messages: list[Message]) -> tuple[str, str]:
    """What formats say of their own objects, worked out from the neutral messages that they stand for."""
    roles = [str(message["role"]) for message in messages]
    role = next((role for role in ("tool", "user") if role in roles), roles[0] if roles else "system")
    spoken = [message for message in messages if role == "system" or message["role"] != "system"]
    texts = [text for message in spoken for text in _texts(message.get("content"))]
    return readable(role), readable("\n".join(filter(None, texts)))


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    texts = [part.get("text") or part.get("refusal") or part.get("transcript") for part in parts]
    return [text for text in texts if isinstance(text, str)]

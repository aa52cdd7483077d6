"""Checks of what callers pass in, made once: every backend refuses the same things before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgumentError
from .messages import MessageStatus

if TYPE_CHECKING:
    from .history import ChatHistory

__all__ = [
    "checked_count",
    "checked_history",
    "checked_id",
    "checked_message_id",
    "checked_metadata",
    "checked_moment",
    "checked_sequence",
    "checked_status",
    "checked_text",
    "checked_version",
]

LONGEST_MESSAGE_ID = 255
"""Message ids are keys of an index, and Postgres takes no long ones."""


def checked_text(value: object, name: str) -> str:
    """A string that every backend can hold: no NUL, no lone surrogate."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise InvalidArgumentError(f"{name} holds a NUL character at index {value.index(chr(0))}; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{name} holds half of a surrogate pair at index {error.start}; remove it") from None
    return str.__str__(value)  # of an enum too, whose own says something else


def checked_id(value: object, name: str, *, may_be_empty: bool = False) -> str:
    """An id of a chat, user or tenant: any text of any length."""
    text = checked_text(value, name)
    if not text and not may_be_empty:
        raise InvalidArgumentError(f"{name} is empty; give it a name of its own")
    return text


def checked_message_id(value: object) -> str:
    """An id of a message: any text of 1 to 255 characters."""
    text = checked_id(value, "message_id")
    if len(text) > LONGEST_MESSAGE_ID:
        raise InvalidArgumentError(f"message_id has {len(text)} characters; at most {LONGEST_MESSAGE_ID} can be kept")
    return text


def checked_count(value: object, name: str, *, least: int = 1) -> int:
    """A number of messages or chats."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be an int, not {type(value).__name__}")
    if value < least:
        raise InvalidArgumentError(f"{name} must be at least {least}, not {value}")
    return value


def checked_history(value: object) -> ChatHistory:
    """The history that somebody's store is to keep its messages in."""
    from .history import ChatHistory

    if not isinstance(value, ChatHistory):
        raise InvalidArgumentError(
            f"history must be a ChatHistory, as open_history() gives it, not {type(value).__name__}"
        )
    return value


def checked_moment(value: object, name: str) -> datetime:
    """An aware time in the past, or how long ago it was."""
    if isinstance(value, timedelta):
        ago = value
        try:
            value = datetime.now(UTC) - ago
        except OverflowError:
            value = (datetime.min if ago > timedelta() else datetime.max).replace(tzinfo=UTC)
    if not isinstance(value, datetime):
        raise InvalidArgumentError(f"{name} must be a datetime or a timedelta, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidArgumentError(f"{name} has no time zone; say which: {value.isoformat()} may be many moments")
    if value > datetime.now(UTC):
        raise InvalidArgumentError(f"{name} lies in the future ({value.isoformat()}); clear_all removes everything")
    try:
        return value.astimezone(UTC)
    except OverflowError:  # the first hours of the calendar, east of UTC
        return datetime.min.replace(tzinfo=UTC)


def checked_version(value: object) -> None:
    """None, or a version that `get_chat` gave (0: there is no such chat)."""
    if value is not None:
        checked_count(value, "expected_version", least=0)


def checked_metadata(value: Mapping[str, Any] | None) -> str | None:
    """A JSON object as text, None for one without content."""
    if value is None or (isinstance(value, Mapping) and not value):
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"metadata must be a dict, not {type(value).__name__}")
    plain = dict(value)
    try:
        text = json.dumps(plain, allow_nan=False)
        kept = json.loads(text) == plain
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"metadata cannot be kept as JSON: {error}") from error
    if not kept:
        raise InvalidArgumentError("metadata would not come back as it is: use str keys, and lists instead of tuples")
    return text


def checked_sequence(value: object, name: str) -> list[Any]:
    """What a list, tuple or other sequence holds now, rather than one message or what could be read only once.

    A list of its own, because an application may add to its list while another thread is storing it.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return list(value)
    raise InvalidArgumentError(f"{name} must be a list, not {type(value).__name__}; put a single one into a list")


def checked_status(value: object) -> str | None:
    """A status by name, or None for any."""
    if value is None:
        return None
    name = checked_text(value, "status")
    try:
        return MessageStatus(name).value
    except ValueError:
        names = ", ".join(repr(status.value) for status in MessageStatus)
        raise InvalidArgumentError(f"status must be one of {names}, or None for any, not {name!r}") from None

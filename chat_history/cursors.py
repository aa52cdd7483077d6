"""Cursors: opaque marks of a place in a list, which stay good while others write."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["chat_cursor", "chat_place", "message_cursor", "message_place"]

_POSITION = re.compile(r"-1|\d{1,18}", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def message_cursor(position: int) -> str:
    """The cursor of a message's place in its chat."""
    return _encoded(f"m:{position}")


def message_place(cursor: object, name: str) -> int | None:
    """The position that a cursor stands for; None for None."""
    if cursor is None:
        return None
    kind, _, rest = _decoded(cursor, name).partition(":")
    if kind != "m" or not _POSITION.fullmatch(rest):
        raise _foreign(name)
    return int(rest)


def chat_cursor(updated_at: datetime, key: UUID) -> str:
    """The cursor of a chat's place among its owner's chats."""
    return _encoded(f"c:{(updated_at - EPOCH) // timedelta(microseconds=1)}:{key.hex}")


def chat_place(cursor: object, name: str) -> tuple[datetime, UUID] | None:
    """The time and key that a cursor stands for; None for None."""
    if cursor is None:
        return None
    from uuid import UUID

    try:
        kind, micros, key = _decoded(cursor, name).split(":")
        place = EPOCH + timedelta(microseconds=int(micros)), UUID(hex=key)
    except (ValueError, OverflowError):
        raise _foreign(name) from None
    if kind != "c":
        raise _foreign(name)
    return place


def _encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(cursor: object, name: str) -> str:
    if not isinstance(cursor, str):
        raise InvalidArgumentError(f"{name} must be a cursor (a str from a page), not {type(cursor).__name__}")
    try:
        return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        raise _foreign(name) from None


def _foreign(name: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{name} is not a cursor of this list; use page.before or page.after as they were given"
    )

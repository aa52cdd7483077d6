"""What every importer gives: the chats of a foreign store, one by one, in the words of their source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple, Protocol

from chat_history.backends.base import UNSET, UnsetType

from .databases import Database
from .documents import Document

__all__ = ["ForeignChat", "ForeignMessage", "Importer", "Source", "moment"]

Source = Database | Document


class ForeignMessage(NamedTuple):
    """A message as its source has it."""

    content: object
    """JSON as text (a str), or parsed. It need not be readable: that is found out, and named, where it arrives."""
    format: str | None = None
    """The format of that JSON; None: what recognises it."""
    created_at: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    message_id: str | None = None
    """The source's own. Unless given it is a fingerprint of the message and of all that it follows."""
    parent: str | UnsetType | None = UNSET
    """The id of the message that it follows, None at the root; unless given, the one that comes before it."""
    archived: bool = False


class ForeignChat(NamedTuple):
    """A chat as its source has it. The messages come once, in order, each after the one that it follows."""

    chat_id: str
    messages: Iterable[ForeignMessage]
    title: str = ""
    created_at: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    head: str | None = None
    """The id of the last message of the active branch; unless given, the message that comes last."""


class Importer(Protocol):
    """Reads one kind of foreign store, without the framework that wrote it."""

    name: str
    """What `kind=` and `--from` call it."""
    expects: str
    """What the source must be, for errors."""

    def recognises(self, source: Source) -> bool:
        """Whether this looks like one, by its tables or by how it begins."""

    def chats(self, source: Source, table: str | None) -> Iterator[ForeignChat]:
        """All chats. table: which one, where a database has several of the kind.

        `InvalidArgumentError`, naming the place, where it is another kind of source after all.
        """


def moment(value: object) -> datetime | None:
    """A time as stores write it: ISO 8601 (without a zone: UTC), or seconds (or ms, µs, ns) since 1970; else None."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < inf:
            # The seconds of the year 5138 are the milliseconds of 1973.
            while value >= 1e11:
                value /= 1000
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None

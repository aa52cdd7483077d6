"""What a history gives back: chats, stored messages, and pages of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar, overload

__all__ = [
    "Branch",
    "Chat",
    "Deleted",
    "Message",
    "MessageStatus",
    "Page",
    "Status",
    "StoredMessage",
    "new_id",
    "new_ids",
]

T_co = TypeVar("T_co", covariant=True)

Message: TypeAlias = dict[str, Any]
"""The neutral message: an OpenAI-style dict with what other frameworks need besides (docs/message-format.md)."""


class MessageStatus(StrEnum):
    """Where a stored message stands: in the window, out of it but still of the chat, or on a displaced branch."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    SUPERSEDED = "superseded"


Status: TypeAlias = MessageStatus | Literal["active", "archived", "superseded"]
"""A status as a caller says it. Spelt out, because to a type checker any str would be one, also a misspelt one."""


class StoredMessage(NamedTuple):
    """One message as it is stored.

    `position` is dense per chat in order of storing and never changes; `parent` is the id of the message it followed,
    None at the root. `payload` is the framework's own JSON, byte for byte as it was written; `format` says whose.
    `text` is what a person would read. `created_at` is aware, UTC, and for people: order is `position`'s.
    """

    chat_id: str
    message_id: str
    position: int
    parent: str | None
    status: MessageStatus
    role: str
    format: str
    format_version: str
    payload: str
    text: str
    created_at: datetime
    metadata: dict[str, Any]

    def json(self) -> Any:
        """The payload, parsed."""
        return json.loads(self.payload)


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat of one owner.

    `version` changes with every write to the chat or its messages; hand it back as `expected_version`.
    `message_count` counts the active messages; `head` is the id of the last message of the active branch, None where
    it has none. Times are aware, UTC.
    """

    chat_id: str
    user_id: str
    tenant_id: str
    title: str
    metadata: dict[str, Any]
    shared: bool
    version: int
    message_count: int
    head: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Branch:
    """One way through a chat, from its first message to `head`, the id of its last.

    `message_count` counts the messages of that way. `departs` is the id of the last of them that the active branch
    shares, None if they share none. `updated_at` is when the head was stored.
    """

    head: str
    message_count: int
    departs: str | None
    active: bool
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Deleted:
    """A receipt: what a deletion removed, and when it was done. Messages of every status and branch are counted."""

    chats: int
    messages: int
    deleted_at: datetime
    user_id: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Page(Sequence[T_co], Generic[T_co]):
    """A sequence with the cursors on from it: `before` its first item, `after` its last; None where nothing follows."""

    items: tuple[T_co, ...]
    before: str | None = None
    after: str | None = None

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T_co, ...]: ...
    def __getitem__(self, index: int | slice) -> T_co | tuple[T_co, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.items)


def new_id() -> str:
    """A new message id: a UUID of version 7 (RFC 9562). Ids sort by the time they were made, to the millisecond."""
    try:
        return _start() + _spare.pop()
    except IndexError:
        end, *spare = _ends(64)
        _spare.extend(spare)
        return _start() + end


def new_ids(count: int) -> list[str]:
    """So many new message ids, ascending, because an index takes them faster in order."""
    start = _start()
    return sorted([start + end for end in _ends(count)])


def _start() -> str:
    """What the ids of this millisecond begin with."""
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7"


def _ends(count: int) -> list[str]:
    """The random parts of so many ids."""
    noise = os.urandom(10 * count).hex()
    return [
        f"{noise[at + 1 : at + 4]}-{'89ab'[int(noise[at], 16) & 3]}{noise[at + 4 : at + 7]}-{noise[at + 7 : at + 19]}"
        for at in range(0, 20 * count, 20)
    ]


_spare: list[str] = []
"""Made beforehand, because asking the system for each costs more than the rest of an id."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_spare.clear)

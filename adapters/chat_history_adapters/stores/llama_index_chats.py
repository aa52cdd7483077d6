"""A chat as LlamaIndex's stores see it: a list of `ChatMessage` objects, whoever wrote them.

A stored message of another format may stand for several of these or for none, so positions and numbers of messages are
those of the list. A change that depends on what is there is worked out anew where others wrote meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from chat_history import (
    ChatHistory,
    ChatNotFoundError,
    MessageStatus,
    StoreBusyError,
    StoredMessage,
    VersionConflictError,
)
from chat_history.loading import load_each, naming_damage, report, sources
from chat_history_adapters.formats.llama_index import FORMAT

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import ChatMessage

__all__ = [
    "add",
    "archive_oldest",
    "count",
    "delete",
    "delete_all",
    "delete_at",
    "delete_oldest",
    "insert",
    "read",
    "replace",
]

ALL = 10**9
"""More messages than a chat has."""
ATTEMPTS = 200
"""How often a change is worked out anew. Each time somebody else got on, so this is a lot."""


class _Window(NamedTuple):
    """Messages, and for each of them the index of the stored one that it comes from, ascending."""

    messages: list[ChatMessage]
    origins: Sequence[int]
    stored: Sequence[StoredMessage]


# ---- reading


def read(
    history: ChatHistory, key: str, status: str | None = "active", start: int = 0, stop: int | None = None
) -> list[ChatMessage]:
    """The messages of this status, oldest first; None: the active and the archived ones."""
    stored = _stored(history, key, status)
    if _are_native(stored):
        return _converted(key, stored[start:stop]).messages
    return _converted(key, stored).messages[start:stop]


def count(history: ChatHistory, key: str, status: str | None) -> int:
    """How many messages `read` gives."""
    stored = _stored(history, key, status)
    return len(stored) if _are_native(stored) else len(_converted(key, stored).messages)


def _window(history: ChatHistory, key: str) -> _Window:
    return _converted(key, _stored(history, key, "active"))


def _stored(history: ChatHistory, key: str, status: str | None) -> Sequence[StoredMessage]:
    found = history.get_messages(key, limit=ALL, status=None if status is None else MessageStatus(status)).items
    if status is not None:
        return found
    return [message for message in found if message.status != MessageStatus.SUPERSEDED]


def _are_native(stored: Sequence[StoredMessage]) -> bool:
    return all(message.format == FORMAT.name for message in stored)


def _converted(key: str, stored: Sequence[StoredMessage]) -> _Window:
    with naming_damage(key, [(message.position, message.payload) for message in stored]):
        each, losses = load_each(FORMAT, sources(stored))
    report(losses, target=FORMAT.name, strict=False)
    origins = [index for index, messages in enumerate(each) for _ in messages]
    return _Window([message for messages in each for message in messages], origins, stored)


# ---- adding and replacing


def add(history: ChatHistory, key: str, messages: Sequence[ChatMessage], status: str = "active") -> None:
    """Append messages, all of them or none. Archived ones come before the active ones, in a second write."""
    if status == MessageStatus.ACTIVE or not messages:
        history.add_messages(key, messages)
        return
    for version in _versions(history, key):
        try:
            window = _window(history, key).messages
            history.set_messages(key, [*messages, *window], expected_version=version)
        except VersionConflictError:
            continue
        history.archive_oldest_messages(key, len(messages))
        return


def insert(history: ChatHistory, key: str, message: ChatMessage, idx: int) -> None:
    """Put a message at a position, as `list.insert` does. What follows it is stored again."""
    for version in _versions(history, key):
        messages = _window(history, key).messages
        messages.insert(idx, message)
        try:
            history.set_messages(key, messages, expected_version=version)
        except VersionConflictError:
            continue
        return


def replace(history: ChatHistory, key: str, messages: Sequence[ChatMessage], status: str) -> None:
    """Make these the messages of the chat, in one write; a second one archives them if that is their status."""
    history.set_messages(key, messages, keep_archived=False)
    if status == MessageStatus.ARCHIVED:
        history.archive_oldest_messages(key, len(messages))


# ---- removing and archiving


def delete_at(history: ChatHistory, key: str, idx: int) -> ChatMessage | None:
    """Remove the message at a position and return it, None if there is none."""
    for version in _versions(history, key):
        messages, origins, stored = _window(history, key)
        if not -len(messages) <= idx < len(messages):
            return None
        message, origin = messages[idx], stored[origins[idx]]
        if origins.count(origins[idx]) == 1:
            gone = history.delete_messages(key, [origin.message_id])
            if gone and gone[0].status != MessageStatus.SUPERSEDED:
                return message
            continue  # others deleted it, or stored it again elsewhere
        del messages[idx]
        try:
            history.set_messages(key, messages, expected_version=version)
        except VersionConflictError:
            continue
        # What it stood beside is stored again, so that its text can leave the disk.
        displaced = {each.message_id for each in history.get_messages(key, limit=ALL, status="superseded")}
        if origin.message_id in displaced:
            history.delete_message(key, origin.message_id)
        return message
    raise AssertionError


def delete_all(history: ChatHistory, key: str) -> list[ChatMessage] | None:
    """Remove a chat with all that it holds and return its messages, None if there is no such chat."""
    messages = read(history, key)
    return messages if history.delete_chat_history(key) else None


def delete(history: ChatHistory, key: str, status: str | None) -> None:
    """Remove the messages of this status; None: the chat."""
    if status is None:
        history.delete_chat_history(key)
    elif status == MessageStatus.ACTIVE:
        history.delete_oldest_messages(key, ALL)
    else:
        history.delete_messages(key, [each.message_id for each in _stored(history, key, status)])


def delete_oldest(history: ChatHistory, key: str, n: int) -> list[ChatMessage]:
    """Remove the n oldest active messages and return them. One that others stand for too stays until all may go."""
    return _converted(key, history.delete_oldest_messages(key, _reach(history, key, n))).messages


def archive_oldest(history: ChatHistory, key: str, n: int) -> list[ChatMessage]:
    """Archive the n oldest active messages and return them. As `delete_oldest`."""
    return _converted(key, history.archive_oldest_messages(key, _reach(history, key, n))).messages


def _reach(history: ChatHistory, key: str, n: int) -> int:
    """How many stored messages the n oldest come from, and no others."""
    stored = _stored(history, key, "active")
    if n < 1 or _are_native(stored):
        return n
    origins = _converted(key, stored).origins
    return origins[n] if n < len(origins) else len(stored)


def _versions(history: ChatHistory, key: str) -> Iterator[int]:
    """The chat's version (0: there is no such chat), again each time that others wrote first."""
    for _ in range(ATTEMPTS):
        try:
            yield history.get_chat(key).version
        except ChatNotFoundError:
            yield 0
    raise StoreBusyError(f"others kept writing to chat {key[:80]!r}; nothing was written, so try again")

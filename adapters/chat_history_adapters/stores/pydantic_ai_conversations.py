"""Chats as Pydantic AI's conversation stores see them: records and entries.

What a record holds and a chat has no slot for is in the chat's metadata, under the key "pydantic_ai_conversation",
with the head that the chat had then. Where the head is another one, others wrote to the chat: the record has another
revision, and the deferred tool requests, which belong to the end of a history, are no longer waited on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic_ai.conversation_store import ConversationConflict, ConversationEntry, ConversationRecord

from chat_history import (
    Chat,
    ChatExistsError,
    ChatHistory,
    ChatNotFoundError,
    DamagedStoreError,
    InvalidArgumentError,
    MessageNotFoundError,
    MessageStatus,
    StoredMessage,
    VersionConflictError,
)
from chat_history.errors import brief
from chat_history.loading import load_each, naming_damage, report, sources
from chat_history_adapters.formats.pydantic_ai import FORMAT

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["delete_record", "read_entry", "read_history", "read_record", "read_records", "write_record"]

KEY = "pydantic_ai_conversation"
ALL = 10**9
"""More messages than a chat has."""
PAGE = 100
"""Chats that are listed at a time."""


class _EntryId(str):
    """An entry's id that knows where the entry is, because a history is asked for by the id of its last entry alone.

    `message_id` is the last stored message of the entry: another framework's may stand for several entries, or several
    for one.
    """

    chat_id: str
    message_id: str

    @classmethod
    def of(cls, chat_id: str, message_id: str, end: str = "") -> _EntryId:
        """The id of the entry that ends with this message; `end` tells it from others that end with it too."""
        entry_id = cls(message_id + end)
        entry_id.chat_id, entry_id.message_id = chat_id, message_id
        return entry_id


# ---- records


def read_record(history: ChatHistory, conversation_id: str) -> ConversationRecord | None:
    """The record of a chat as it is now, None if there is no such chat."""
    chat = _chat(history, conversation_id)
    if chat is None:
        return None
    record = _record(chat)
    if record.branches or not _is_current(chat):
        record.branches = _branches(history, chat, record.branches)
    return record


def read_records(history: ChatHistory, scope: str | None, limit: int | None) -> list[ConversationRecord]:
    """The records of the owner's chats, newest activity first, with their branches as of the last save."""
    found: list[ConversationRecord] = []
    after = None
    while limit is None or len(found) < limit:
        page = history.list_chats(PAGE, after=after)
        found += [_record(chat) for chat in page if scope is None or _kept(chat).get("scope") == scope]
        after = page.after
        if after is None:
            break
    return found[:limit]


def write_record(
    history: ChatHistory, record: ConversationRecord, entries: Sequence[ConversationEntry], expected: str | None
) -> None:
    """Append entries and keep the record, in one write. `ConversationConflict` if the revision is another one."""
    follows = _follows(record, entries)
    kept = _dumped(record)
    while True:
        chat = _chat(history, record.conversation_id)
        if (None if chat is None else _revision(chat)) != expected:
            raise ConversationConflict(record.conversation_id)
        try:
            if chat is None and follows is not None:
                _fork(history, follows, record.conversation_id, kept)
            elif chat is None and not entries:
                history.create_chat(record.conversation_id, metadata={KEY: kept})
            else:
                history.switch_branch(
                    record.conversation_id,
                    None if follows is None else _message_id(follows),
                    messages=[entry.message for entry in entries],
                    message_ids=[entry.id for entry in entries],
                    chat_metadata={**(chat.metadata if chat else {}), KEY: kept},
                    format=FORMAT.name,
                    expected_version=chat.version if chat else 0,
                )
        except (VersionConflictError, ChatExistsError):
            continue  # others wrote; it may have been what is no matter of a conversation, such as the title
        except (ChatNotFoundError, MessageNotFoundError):
            raise ConversationConflict(record.conversation_id) from None
        return


def delete_record(history: ChatHistory, conversation_id: str, expected: str) -> None:
    """Remove a chat. `ConversationConflict` if the revision is another one."""
    while True:
        chat = _chat(history, conversation_id)
        if chat is None or _revision(chat) != expected:
            raise ConversationConflict(conversation_id)
        try:
            if history.delete_chat_history(conversation_id, expected_version=chat.version):
                return
        except VersionConflictError:
            continue


def _chat(history: ChatHistory, chat_id: str) -> Chat | None:
    try:
        return history.get_chat(chat_id)
    except ChatNotFoundError:
        return None


def _kept(chat: Chat) -> dict[str, Any]:
    kept = chat.metadata.get(KEY)
    return kept if isinstance(kept, dict) else {}


def _is_current(chat: Chat) -> bool:
    """Whether the chat ends where it did when the record was kept."""
    kept = _kept(chat)
    return "revision" in kept and kept.get("head_id") == chat.head


def _revision(chat: Chat) -> str:
    revision = str(_kept(chat).get("revision", chat.created_at.isoformat()))
    return revision if _is_current(chat) else f"{revision} {chat.head}"


def _record(chat: Chat) -> ConversationRecord:
    given = {
        **_kept(chat),
        "conversation_id": chat.chat_id,
        "head_id": chat.head,
        "revision": _revision(chat),
        "updated_at": chat.updated_at,
    }
    if not _is_current(chat):
        given["deferred_tool_requests"] = None
    try:
        record: ConversationRecord = _adapter().validate_python(given)
    except ValueError as error:
        raise DamagedStoreError(
            f"the installed release of Pydantic AI cannot read what the metadata of chat {chat.chat_id[:80]!r} has "
            f"under {KEY!r}, which a newer one may have written: {brief(error)}"
        ) from error
    record.head_id = None if chat.head is None else _EntryId.of(chat.chat_id, chat.head)
    record.branches = [_EntryId.of(chat.chat_id, tip) for tip in record.branches]
    return record


def _branches(history: ChatHistory, chat: Chat, known: list[str]) -> list[str]:
    """The ends of those branches that are still there, and then of those that others left."""
    ends = [branch.head for branch in history.list_branches(chat.chat_id) if branch.head != chat.head]
    there = [tip for tip in known if tip in ends or _has(history, chat.chat_id, tip)]
    return there + [_EntryId.of(chat.chat_id, end) for end in ends if end not in known]


def _has(history: ChatHistory, chat_id: str, message_id: str) -> bool:
    try:
        history.get_message(chat_id, message_id)
    except MessageNotFoundError:
        return False
    return True


def _follows(record: ConversationRecord, entries: Sequence[ConversationEntry]) -> str | None:
    """What the first of these entries follows, which lead to the record's head; the head where there are none."""
    follows = at = entries[0].parent_id if entries else record.head_id
    for entry in entries:
        if entry.parent_id != at:
            raise InvalidArgumentError(
                f"entry {entry.id!r} does not follow {at!r}; give entries of one history, in order"
            )
        at = entry.id
    if at != record.head_id:
        raise InvalidArgumentError(f"the record's head is {record.head_id!r}, but its new entries end with {at!r}")
    return follows


def _dumped(record: ConversationRecord) -> dict[str, Any]:
    """What is kept of a record beside the chat."""
    try:
        dumped = _adapter().dump_json(record, exclude={"conversation_id", "updated_at"})
    except ValueError as error:
        raise InvalidArgumentError(f"this conversation's record cannot be kept as JSON: {error}") from error
    kept: dict[str, Any] = json.loads(dumped)
    return kept | {"head_id": None if record.head_id is None else _message_id(record.head_id)}


def _fork(history: ChatHistory, head_id: str, new_chat_id: str, kept: dict[str, Any]) -> None:
    chat_id = _chat_id(history, head_id)
    metadata = history.get_chat(chat_id).metadata
    history.fork_chat(chat_id, at=_message_id(head_id), new_chat_id=new_chat_id, metadata={**metadata, KEY: kept})


@cache
def _adapter() -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # Pydantic takes a configuration for a union with a dataclass, though not for a dataclass.
    return TypeAdapter(ConversationRecord | None, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))


# ---- entries


def read_entry(history: ChatHistory, entry_id: str) -> ConversationEntry:
    """One entry. `MessageNotFoundError` if there is none of this id."""
    chat_id, message_id = _chat_id(history, entry_id), _message_id(entry_id)
    stored = history.get_message(chat_id, message_id)
    if stored.format == FORMAT.name:
        return _entries(chat_id, [stored])[0]
    # What another framework's message comes to depends on its neighbours: those of the active branch, or of its own.
    for head in (history.get_chat(chat_id).head, message_id):
        for entry in read_history(history, head and _EntryId.of(chat_id, head), None):
            if entry.id == entry_id:
                return entry
    raise MessageNotFoundError(f"message {entry_id!r} of chat {chat_id[:80]!r} stands for nothing in Pydantic AI")


def read_history(history: ChatHistory, head_id: str | None, limit: int | None) -> list[ConversationEntry]:
    """The entries up to this one, oldest first, or the last so many. `MessageNotFoundError` if it is not there."""
    if head_id is None or limit == 0:
        return []
    chat_id, message_id = _chat_id(history, head_id), _message_id(head_id)
    stored: Sequence[StoredMessage] = history.get_messages(chat_id, ALL if limit is None else limit).items
    if limit is not None and not all(message.format == FORMAT.name for message in stored):
        stored = history.get_messages(chat_id, ALL).items
    if not stored or stored[-1].message_id != message_id:
        stored = _way(history, chat_id, message_id)
    entries = _entries(chat_id, stored)
    return entries if limit is None else entries[-limit:]


def _message_id(entry_id: str) -> str:
    return entry_id.message_id if isinstance(entry_id, _EntryId) else entry_id


def _chat_id(history: ChatHistory, entry_id: str) -> str:
    """The chat that an entry is in. Only for an id that comes from elsewhere is it looked for, in all of them."""
    if isinstance(entry_id, _EntryId):
        return entry_id.chat_id
    for chat_id in history.get_all_chat_ids():
        if _has(history, chat_id, entry_id):
            return chat_id
    raise MessageNotFoundError(f"no chat of this owner has a message {entry_id!r}")


def _way(history: ChatHistory, chat_id: str, message_id: str) -> list[StoredMessage]:
    """The messages from the root to this one, of whichever branch, without those that are archived."""
    by_id = {message.message_id: message for message in history.get_messages(chat_id, ALL, status=None)}
    if message_id not in by_id:
        raise MessageNotFoundError(f"chat {chat_id[:80]!r} has no message {message_id!r}")
    way = []
    at: str | None = message_id
    while at is not None:
        way.append(by_id[at])
        at = by_id[at].parent
    return [message for message in reversed(way) if message.status != MessageStatus.ARCHIVED]


def _entries(chat_id: str, stored: Sequence[StoredMessage]) -> list[ConversationEntry]:
    with naming_damage(chat_id, [(message.position, message.payload) for message in stored]):
        each, losses = load_each(FORMAT, sources(stored))
    report(losses, target=FORMAT.name, strict=False)
    entries = []
    first = stored[0].parent if stored else None
    parent = None if first is None else _EntryId.of(chat_id, first)
    for index, messages in enumerate(each):
        end = index
        if stored[index].format != FORMAT.name:
            # What became part of this entry, as pieces of one answer do, is behind it.
            while end + 1 < len(each) and not each[end + 1]:
                end += 1
        for more, message in zip(range(len(messages) - 1, -1, -1), messages, strict=True):
            parent_id, parent = parent, _EntryId.of(chat_id, stored[end].message_id, f"#{more}" if more else "")
            entries.append(ConversationEntry(id=parent, parent_id=parent_id, message=message))
    return entries

"""What the tests of all parts say: plain messages, and a look at a whole chat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from chat_history.history import ChatHistory
from chat_history.messages import Message, Status, StoredMessage
from chat_history.saving import digest

__all__ = ["Reopen", "check_chat", "contents", "ids", "say", "says", "texts", "version"]

Reopen: TypeAlias = Callable[[], ChatHistory]
"""Opens the same store once more."""


def say(role: str, content: str) -> Message:
    """A plain message."""
    return {"role": role, "content": content}


def check_chat(history: ChatHistory, chat_id: str) -> list[StoredMessage]:
    """All messages of a chat, of every branch, after seeing that all that is said of the chat agrees with them."""
    stored = list(history.iter_messages(chat_id, status=None))
    positions = [message.position for message in stored]
    assert positions == sorted(set(positions)), "positions ascend"
    places = {message.message_id: message.position for message in stored}
    assert len(places) == len(stored), "message ids are unique"
    for message in stored:
        assert message.parent is None or places[message.parent] < message.position, "a message follows an earlier one"
    branch = [message for message in stored if message.status != "superseded"]
    assert [message.parent for message in branch] == [None, *(message.message_id for message in branch)][: len(branch)]
    active = [message for message in branch if message.status == "active"]
    assert branch[len(branch) - len(active) :] == active, "the archived ones are the oldest"
    assert history.get_message_count(chat_id) == len(active)
    assert [message.payload for message in active] == [
        payload for *_, payload in history._backend().read_payloads(history._key(chat_id))
    ]
    outline = history._backend().outline(history._key(chat_id))
    assert (outline is not None) == history.chat_exists(chat_id)
    if outline is not None:
        assert outline.head == (branch[-1].message_id if branch else None), "the head is the end of the active branch"
        assert outline.version == history.get_chat(chat_id).version
        assert [(row[0], row[1], row[2], row[3], bytes(row[4])) for row in outline.rows] == [
            (message.position, message.message_id, message.parent, message.status, digest(message.payload))
            for message in stored
        ]
    return stored


def contents(history: ChatHistory, chat_id: str = "c") -> list[Any]:
    return [message["content"] for message in history.get_chat_history(chat_id)]


def ids(history: ChatHistory, chat_id: str = "c", status: Status | None = "active") -> list[str]:
    return [message.message_id for message in history.iter_messages(chat_id, status=status)]


def texts(messages: Sequence[StoredMessage]) -> list[str]:
    return [message.text for message in messages]


def says(*words: str) -> list[Message]:
    return [say("user" if ord(word[0]) % 2 else "assistant", word) for word in words]


def version(history: ChatHistory, chat_id: str = "c") -> int:
    return history.get_chat(chat_id).version

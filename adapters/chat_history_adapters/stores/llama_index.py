"""Stores for LlamaIndex over a `ChatHistory`: `BaseChatStore` for memory buffers, `AsyncDBChatStore` for `Memory`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self, cast
from uuid import uuid4
from weakref import finalize

from chat_history import (
    AsyncChatHistory,
    ChatHistory,
    ConfigError,
    MissingDependencyError,
    reopen_history,
)
from chat_history.aio import run
from chat_history.arguments import checked_count, checked_history

from . import llama_index_chats as chats

try:
    import fsspec  # type: ignore[import-untyped]
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.bridge.pydantic import (
        BaseModel,
        PrivateAttr,
        SerializationInfo,
        SerializerFunctionWrapHandler,
        model_serializer,
    )
    from llama_index.core.storage.chat_store.base import BaseChatStore
    from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus
    from llama_index.core.storage.chat_store.loading import RECOGNIZED_CHAT_STORES
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        "a store of LlamaIndex needs LlamaIndex 0.14.24 or newer: pip install 'agent-chat-history[llama-index]'"
    ) from error

__all__ = ["LlamaIndexChatStore", "LlamaIndexDBChatStore"]


class _OverHistory(BaseModel):
    """A handle on a history, which is dumped as the place where the history is, never with what it holds.

    Copies are the same handle. What is loaded or unpickled opens the history again, and closes it at the end.
    """

    _history: ChatHistory = PrivateAttr()
    _async: AsyncChatHistory = PrivateAttr()

    def __init__(self, history: ChatHistory | Mapping[str, Any]) -> None:
        super().__init__()
        if isinstance(history, Mapping):
            history = reopen_history(history)
            finalize(self, history.shutdown)
        self._history = checked_history(history)
        self._async = history.to_async()

    @property
    def history(self) -> ChatHistory:
        """The history that the messages are in."""
        return self._history

    def dump_store(self) -> dict[str, Any]:
        """Where the store is: plain JSON, without a password. `ConfigError` if the history is in memory only."""
        return {"history": self._history.settings, "class_name": type(self).class_name()}

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """What pydantic dumps: see `dump_store`."""
        return self.dump_store()

    @classmethod
    def class_name(cls) -> str:
        """The name of the class, which is dumped with it."""
        return cls.__name__

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """See `dump_store`."""
        return self.dump_store()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **kwargs: Any) -> Self:
        """The store that `dump_store` described, opened again; a password comes from the environment."""
        return cls(_place(cls, data, "this dict holds", "give what dump_store() gave"))

    def __repr_args__(self) -> list[tuple[None, ChatHistory]]:
        return [(None, self._history)]

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.dump_store(),)


class LlamaIndexChatStore(_OverHistory, BaseChatStore):
    """A chat store for `ChatMemoryBuffer` and its like: `ChatMemoryBuffer.from_defaults(chat_store=..., ...)`.

    A key is the id of a chat. What another framework wrote comes out as `ChatMessage` objects. Each call does all it
    says, or raises and did nothing; writers of several tasks and processes lose nothing of one another's. A history
    that was given stays open.
    """

    def __init__(self, history: ChatHistory | Mapping[str, Any], *, class_name: str = "") -> None:
        super().__init__(history)

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Make these the messages of the chat. What they displace is kept as a superseded branch."""
        self._history.set_messages(key, messages)

    def get_messages(self, key: str) -> list[ChatMessage]:
        """The messages, oldest first; [] for an unknown key. They are the caller's: changing one changes no store."""
        return chats.read(self._history, key)

    def add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        """Append a message, or put it at a position as `list.insert` does."""
        if idx is None:
            self._history.add_message(key, message)
        else:
            chats.insert(self._history, key, message, idx)

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Remove the chat, and return the messages it had; None for an unknown key."""
        return chats.delete_all(self._history, key)

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at this position of the list and return it; None if there is none."""
        return chats.delete_at(self._history, key, idx)

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Remove the newest message and return it; None if there is none."""
        return chats.delete_at(self._history, key, -1)

    def get_keys(self) -> list[str]:
        """The keys of all chats, oldest chat first."""
        return self._history.get_all_chat_ids()

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """See `set_messages`."""
        await self._async.set_messages(key, messages)

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """See `get_messages`."""
        return await run(self._async, chats.read, key)

    async def async_add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        """See `add_message`."""
        if idx is None:
            await self._async.add_message(key, message)
        else:
            await run(self._async, chats.insert, key, message, idx)

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """See `delete_messages`."""
        return await run(self._async, chats.delete_all, key)

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """See `delete_message`."""
        return await run(self._async, chats.delete_at, key, idx)

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """See `delete_last_message`."""
        return await run(self._async, chats.delete_at, key, -1)

    async def aget_keys(self) -> list[str]:
        """See `get_keys`."""
        return await self._async.get_all_chat_ids()

    def persist(self, persist_path: str = "chat_store.json", fs: fsspec.AbstractFileSystem | None = None) -> None:
        """Write to a file where the store is; the messages are stored already, and stay where they are.

        The file is replaced as a whole, or not at all. One that holds something else is never replaced.
        """
        content = json.dumps(self.dump_store(), indent=2).encode()
        fs = fs or fsspec.filesystem("file")
        if fs.exists(persist_path) and (there := fs.cat_file(persist_path)):
            _place(type(self), _parsed(there), f"the file {persist_path!r} holds", "persist to another path")
        if folder := os.path.dirname(persist_path):
            fs.makedirs(folder, exist_ok=True)
        draft = f"{persist_path}.{uuid4().hex}"
        try:
            with fs.open(draft, "wb") as file:
                file.write(content)
                with suppress(AttributeError, OSError):  # there is no disk below every file system
                    file.flush()
                    os.fsync(file.fileno())
            fs.mv(draft, persist_path)
        except BaseException:
            with suppress(OSError):
                fs.rm_file(draft)
            raise

    @classmethod
    def from_persist_path(
        cls, persist_path: str = "chat_store.json", fs: fsspec.AbstractFileSystem | None = None
    ) -> LlamaIndexChatStore:
        """The store that `persist` described there, opened again; a password comes from the environment."""
        fs = fs or fsspec.filesystem("file")
        if not fs.exists(persist_path):
            raise ConfigError(
                f"there is no file {persist_path!r}: LlamaIndexChatStore(history).persist(path) writes one"
            )
        found = _parsed(fs.cat_file(persist_path))
        return cls(_place(cls, found, f"the file {persist_path!r} holds", "SimpleChatStore reads files of its own"))


class LlamaIndexDBChatStore(_OverHistory, AsyncDBChatStore):
    """A chat store for `Memory`: `Memory.from_defaults(session_id=..., chat_store=...)`.

    A key is the id of a chat. As `LlamaIndexChatStore`, and with statuses: what `Memory` archives is out of its window
    and still of the chat. Positions and numbers are those of the list that `get_messages` gives.
    """

    def __init__(self, history: ChatHistory | Mapping[str, Any], *, class_name: str = "") -> None:
        super().__init__(history)

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """The messages of this status (None: any), oldest first, without the first `offset`, `limit` at most."""
        start = 0 if offset is None else checked_count(offset, "offset", least=0)
        stop = None if limit is None else start + checked_count(limit, "limit", least=0)
        return await run(self._async, chats.read, key, _any(status), start, stop)

    async def count_messages(self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE) -> int:
        """How many messages have this status (None: any)."""
        return await run(self._async, chats.count, key, _any(status))

    async def add_message(self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE) -> None:
        """Append a message. See `add_messages`."""
        await run(self._async, chats.add, key, [message], MessageStatus(status).value)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Append messages, all of them or none; an empty list changes nothing.

        ARCHIVED ones are the newest of the archived, before all that are active; for that the active ones are stored
        again, and for a moment these are active too.
        """
        await run(self._async, chats.add, key, messages, MessageStatus(status).value)

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Make these the messages of the chat, in one write. What they displace is kept as a superseded branch."""
        await run(self._async, chats.replace, key, messages, MessageStatus(status).value)

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at this position of the active ones and return it; None if there is none."""
        return await run(self._async, chats.delete_at, key, idx)

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Remove all messages of this status; None: the whole chat."""
        await run(self._async, chats.delete, key, _any(status))

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Remove the n oldest active messages and return them, oldest first."""
        return await run(self._async, chats.delete_oldest, key, n)

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Archive the n oldest active messages and return them, oldest first."""
        return await run(self._async, chats.archive_oldest, key, n)

    async def get_keys(self) -> list[str]:
        """The keys of all chats, oldest chat first."""
        return await self._async.get_all_chat_ids()


def _any(status: MessageStatus | None) -> str | None:
    return None if status is None else MessageStatus(status).value


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _place(store: type[_OverHistory], data: object, what: str, advice: str) -> Mapping[str, Any]:
    """The settings of the history in a dump of such a store."""
    name = store.class_name()
    if isinstance(data, Mapping) and data.get("class_name", name) == name and isinstance(data.get("history"), Mapping):
        return dict(data["history"])
    raise ConfigError(f"{what} something else than the place of a {name}; {advice}")


# `load_chat_store`, and with it `ChatMemoryBuffer.from_dict`, knows the stores that are listed here.
cast(dict[str, Any], RECOGNIZED_CHAT_STORES)[LlamaIndexChatStore.class_name()] = LlamaIndexChatStore

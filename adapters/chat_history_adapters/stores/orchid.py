"""`OrchidHistoryStorage`: a history as the chat storage of Orchid."""

from __future__ import annotations

import asyncio
import binascii
import json
import os
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from chat_history import (
    AsyncChatHistory,
    Chat,
    ChatHistory,
    ChatNotFoundError,
    HistoryClosedError,
    InvalidArgumentError,
    MissingDependencyError,
    StoredMessage,
    VersionConflictError,
    open_history,
)
from chat_history.aio import run
from chat_history.formats import readable
from chat_history.loading import DICTS

try:
    from orchid_ai.persistence.base import OrchidChatStorage
    from orchid_ai.persistence.models import OrchidChatMessage, OrchidChatSession
except ImportError as error:
    raise MissingDependencyError(
        f"Orchid cannot be imported: {error}; pip install 'agent-chat-history[orchid]'"
    ) from error

__all__ = ["OrchidHistoryStorage"]

T = TypeVar("T")

ROLES = ("user", "assistant", "system")
"""What Orchid knows; tool calls and results of other frameworks stay out of its sight."""
UNTITLED = "New chat"
SUMMARY = "orchid_summary"
"""Where in a chat's metadata its running summary is."""


class OrchidHistoryStorage(OrchidChatStorage):
    """What `storage.class` in Orchid's configuration names. A session is a chat of its tenant and user.

    A session's id says whose it is, so that one that is named without its user is found, and means nothing to anybody
    else: whether somebody may see it, Orchid decides by the session's `tenant_id` and `user_id`, as ever. Messages are
    plain dicts with a role and content, so that every other framework can go on with them; order is that of storing,
    never of a clock. Times are naive UTC, as Orchid's own.

    dsn: a URL that `open_history` takes, or the path of a SQLite file. extra_migrations_package: the integrator's own
    migrations, which may be `async def`, applied after ours and recorded as `ext:NNN`
    (`chat_history.migrations.runner`).
    """

    def __init__(self, *, dsn: str, extra_migrations_package: str | None = None) -> None:
        if not isinstance(dsn, str) or not dsn:
            raise InvalidArgumentError("dsn is empty; give a URL such as sqlite:///chats.db or postgresql://...")
        self._config: Any = (
            dsn if "://" in dsn or dsn == "memory:" else {"backend": "sqlite", "db_path": os.path.expanduser(dsn)}
        )
        self._migrations = extra_migrations_package
        self._history: AsyncChatHistory | None = None

    # ---- lifecycle

    async def init_db(self) -> None:
        """Open the store, and create or migrate its tables. A second call is harmless."""
        if self._history is None:
            history = await asyncio.to_thread(open_history, self._config, migrations=self._migrations)
            self._history = history.to_async()

    async def close(self) -> None:
        """Close the store. A second call is harmless; `init_db` opens it again."""
        history, self._history = self._history, None
        if history is not None:
            await history.shutdown()

    # ---- sessions

    async def create_chat(self, tenant_id: str, user_id: str, title: str = "") -> OrchidChatSession:
        """A new session."""
        # Orchid takes the beginning of the first question, whatever is in it.
        chat = await self._of(tenant_id, user_id).create_chat(title=_title(title) or UNTITLED)
        return _session(chat)

    async def list_chats(self, tenant_id: str, user_id: str) -> list[OrchidChatSession]:
        """All sessions of a user, newest activity first. Chats that others began in the same store are among them."""
        # In one look: between two pages a session would move to the front, where it is written to, and be on neither.
        return [_session(chat) for chat in await self._of(tenant_id, user_id).list_chats(sys.maxsize)]

    async def get_chat(self, chat_id: str) -> OrchidChatSession | None:
        """A session by its id, None if there is none."""
        try:
            return _session(await self._call(chat_id, lambda history, name: history.get_chat(name)))
        except ChatNotFoundError:
            return None

    async def delete_chat(self, chat_id: str) -> None:
        """Remove a session with its messages and its summary. Nothing happens if there is none."""
        await self._if_it_exists(chat_id, lambda history, name: history.delete_chat_history(name))

    async def update_title(self, chat_id: str, title: str) -> None:
        """Give a session another title. Nothing happens if there is none."""
        await self._if_it_exists(chat_id, lambda history, name: history.update_chat(name, title=_title(title)))

    async def mark_shared(self, chat_id: str) -> None:
        """Let others of the tenant read a session. Nothing happens if there is none."""
        await self._if_it_exists(chat_id, lambda history, name: history.update_chat(name, shared=True))

    # ---- messages

    async def add_message(
        self,
        chat_id: str,
        role: str,
        content: str,
        agents_used: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> OrchidChatMessage:
        """Append a message. `ChatNotFoundError` if there is no such session: no message is ever without one."""
        beside: dict[str, Any] = {}
        if agents_used:
            beside["agents_used"] = list(agents_used)
        if metadata:
            beside["metadata"] = dict(metadata)

        def add(history: ChatHistory, name: str) -> StoredMessage:
            while True:
                version = history.get_chat(name).version
                try:
                    return history.add_message(
                        name, {"role": role, "content": content}, metadata=beside, expected_version=version
                    )
                except VersionConflictError:
                    continue  # somebody else wrote, or deleted the chat, which the next look finds out

        return _message(chat_id, await self._call(chat_id, add))

    async def get_messages(self, chat_id: str, limit: int = 50, offset: int = 0) -> list[OrchidChatMessage]:
        """So many messages after the first `offset`, oldest first; [] if there is no such session."""

        def read(history: ChatHistory, name: str) -> list[OrchidChatMessage]:
            messages = (message for message in history.iter_messages(name) if _is_said(message))
            return [
                _message(chat_id, each) for each in islice(messages, max(offset, 0), max(offset, 0) + max(limit, 0))
            ]

        try:
            return await self._call(chat_id, read)
        except ChatNotFoundError:
            return []

    # ---- the running summary

    async def get_conversation_summary(self, chat_id: str) -> str | None:
        """The summary that was saved last, None if there is none."""
        try:
            chat = await self._call(chat_id, lambda history, name: history.get_chat(name))
        except ChatNotFoundError:
            return None
        saved = chat.metadata.get(SUMMARY)
        return saved["summary"] if saved else None

    async def save_conversation_summary(self, chat_id: str, summary: str, turn_number: int) -> None:
        """Keep a summary with the session, instead of the one before. Nothing happens if there is no session."""

        def save(history: ChatHistory, name: str) -> None:
            while True:
                chat = history.get_chat(name)
                metadata = {**chat.metadata, SUMMARY: {"summary": summary, "turn_number": turn_number}}
                try:
                    history.update_chat(name, metadata=metadata, expected_version=chat.version)
                    return
                except VersionConflictError:
                    continue

        await self._if_it_exists(chat_id, save)

    # ---- whose

    def _opened(self) -> AsyncChatHistory:
        if self._history is None:
            raise HistoryClosedError("this storage is not open; await init_db() first")
        return self._history

    def _of(self, tenant_id: str, user_id: str) -> AsyncChatHistory:
        return self._opened().for_user(user_id, tenant_id=tenant_id)

    async def _call(self, chat_id: str, call: Callable[[ChatHistory, str], T]) -> T:
        """Call with the history of the session's owner, and the chat's id there."""
        opened = self._opened()
        tenant_id, user_id, name = _named(chat_id)
        return await run(opened.for_user(user_id, tenant_id=tenant_id), call, name)

    async def _if_it_exists(self, chat_id: str, call: Callable[[ChatHistory, str], object]) -> None:
        with suppress(ChatNotFoundError):
            await self._call(chat_id, call)


def _session_id(chat: Chat) -> str:
    names = json.dumps([chat.tenant_id, chat.user_id, chat.chat_id], ensure_ascii=False, separators=(",", ":"))
    return urlsafe_b64encode(names.encode()).decode().rstrip("=")


def _named(session_id: str) -> tuple[str, str, str]:
    """The tenant, the user and the chat that an id stands for. `ChatNotFoundError` for one that is not ours."""
    try:
        names = json.loads(urlsafe_b64decode(f"{session_id}{'=' * (-len(session_id) % 4)}"))
        tenant_id, user_id, chat_id = names
        if all(isinstance(name, str) for name in names) and chat_id:
            return tenant_id, user_id, chat_id
    except (TypeError, ValueError, binascii.Error):
        pass
    raise ChatNotFoundError(f"there is no session {str(session_id)[:80]!r}; create_chat makes one, and gives it its id")


def _title(title: str) -> str:
    return readable(title) if isinstance(title, str) else title


def _session(chat: Chat) -> OrchidChatSession:
    return OrchidChatSession(
        id=_session_id(chat),
        tenant_id=chat.tenant_id,
        user_id=chat.user_id,
        title=chat.title or UNTITLED,
        created_at=_naive(chat.created_at),
        updated_at=_naive(chat.updated_at),
        is_shared=chat.shared,
    )


def _message(session_id: str, message: StoredMessage) -> OrchidChatMessage:
    return OrchidChatMessage(
        id=message.message_id,
        chat_id=session_id,
        role=message.role,
        content=_content(message),
        agents_used=message.metadata.get("agents_used", []),
        created_at=_naive(message.created_at),
        metadata=message.metadata.get("metadata", {}),
    )


def _content(message: StoredMessage) -> str:
    """What was said, as it was given: the text of a stored message is without what not every store can search."""
    content = message.json().get("content") if message.format == DICTS else None
    return content if isinstance(content, str) else message.text


def _is_said(message: StoredMessage) -> bool:
    """Whether Orchid has a place for it: words of somebody, be they none."""
    return message.role in ROLES and bool(message.text or message.json().get("content") == "")


def _naive(moment: datetime) -> datetime:
    """As Orchid keeps times: without a zone, and always UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None)

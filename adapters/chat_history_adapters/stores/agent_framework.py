"""`AgentFrameworkHistory`: a history as a history provider of Microsoft Agent Framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from chat_history import (
    AsyncChatHistory,
    Chat,
    ChatHistory,
    ConfigError,
    InvalidArgumentError,
    MissingDependencyError,
    Page,
    reopen_history,
)
from chat_history.arguments import checked_count, checked_history
from chat_history.settings import refuse_unknown

try:
    from agent_framework import HistoryProvider, Message
except ImportError as error:
    raise MissingDependencyError(
        f"Microsoft Agent Framework cannot be imported: {error}; pip install 'agent-chat-history[agent-framework]'"
    ) from error

__all__ = ["AgentFrameworkHistory"]

FORMAT = "agent_framework"
FLAGS = ("load_messages", "store_inputs", "store_context_messages", "store_outputs")
SETTINGS = {*FLAGS, "source_id", "store_context_from", "max_messages"}


class AgentFrameworkHistory(HistoryProvider):
    """What `Agent(context_providers=[...])` takes: each session is a chat of this history's owner, by its id.

    A run loads the session's messages before the model is asked, and appends its own when it is done: all of them or
    none, in order, next to one another whoever else writes. Messages come back equal (`to_dict()`), in any process.
    What another framework wrote into the chat comes converted; what that loses is named by a `ConversionWarning`.
    No message is kept in the session, so any session of the same id goes on, also one that was serialised and restored;
    only that one where a run waits for an approval, because the framework keeps in it which.

    history: stays open. max_messages: load the newest whole turns of at most so many stored messages (the newest turn
    always), after the system prompt that leads the chat; all stay stored. The others are `HistoryProvider`'s.
    """

    def __init__(
        self,
        history: ChatHistory,
        source_id: str = "chat_history",
        *,
        max_messages: int | None = None,
        load_messages: bool = True,
        store_inputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
        store_outputs: bool = True,
    ) -> None:
        checked_history(history)
        super().__init__(
            source_id,
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_context_messages=store_context_messages,
            store_context_from=store_context_from,
            store_outputs=store_outputs,
        )
        self.max_messages = None if max_messages is None else checked_count(max_messages, "max_messages")
        self._history: AsyncChatHistory = history.to_async()
        self._is_own = False

    # ---- what the framework calls

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Message]:
        """The session's messages, oldest first, at most the window that `max_messages` says; [] for a new session."""
        return await self._history.get_message_history(_chat(session_id), FORMAT, self.max_messages)

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append these messages, all of them or none. What is given is new: what was said twice is stored twice."""
        await self._history.add_messages(_chat(session_id), messages)

    # ---- saved sessions

    async def list_sessions(self, limit: int = 50, before: str | None = None, after: str | None = None) -> Page[Chat]:
        """A page of the saved sessions, newest activity first; see `ChatHistory.list_chats`.

        `agent.create_session(session_id=chat.chat_id)` reopens one.
        """
        return await self._history.list_chats(limit, before, after)

    async def clear(self, session_id: str | None) -> bool:
        """Remove the session's chat with all of its messages. False if there is none. The session may go on, empty."""
        return await self._history.delete_chat_history(_chat(session_id))

    # ---- the provider itself

    def serialize(self) -> dict[str, Any]:
        """What `deserialize` makes this provider of again: plain JSON, without messages and without a password.

        `ConfigError` where nothing could open the history again, because it is in memory or over a pool.
        """
        sources = self.store_context_from
        return {
            "source_id": self.source_id,
            "max_messages": self.max_messages,
            **{flag: getattr(self, flag) for flag in FLAGS},
            "store_context_from": None if sources is None else sorted(sources),
            "history": self._history.settings,
        }

    @classmethod
    def deserialize(cls, data: Mapping[str, Any]) -> Self:
        """The provider that `serialize` told of, over its history opened again: call `aclose` when it is done.

        The password of a database comes from the environment; see `reopen_history`.
        """
        settings = dict(data) if isinstance(data, Mapping) else {}
        place = settings.pop("history", None)
        if not isinstance(place, Mapping):
            raise ConfigError("these settings do not say where the history is; give what serialize() returned")
        refuse_unknown("setting of an AgentFrameworkHistory", settings, SETTINGS)
        history = reopen_history(place)
        try:
            if settings.get("store_context_from") is not None:
                settings["store_context_from"] = set(settings["store_context_from"])
            provider = cls(history, **settings)
        except BaseException:
            history.shutdown()
            raise
        provider._is_own = True
        return provider

    async def aclose(self) -> None:
        """Close the history if `deserialize` opened it; one that was given stays open. A second call is harmless."""
        if self._is_own:
            await self._history.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


def _chat(session_id: str | None) -> str:
    if session_id is None:
        raise InvalidArgumentError("there is no session to keep messages of; run with agent.create_session()")
    return session_id

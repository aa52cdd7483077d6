"""`OpenAIAgentsSession`: a chat as a session of the OpenAI Agents SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chat_history import ChatHistory
from chat_history.aio import run
from chat_history.arguments import checked_history
from chat_history.errors import ChatNotFoundError, MissingDependencyError, VersionConflictError
from chat_history.loading import naming_damage
from chat_history.messages import StoredMessage

try:
    from agents.memory import SessionABC, SessionSettings
except ImportError as error:
    raise MissingDependencyError(
        f"the OpenAI Agents SDK (its module is named agents) cannot be imported: {error}; "
        "pip install 'agent-chat-history[openai-agents]'"
    ) from error

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

__all__ = ["OpenAIAgentsSession"]

FORMAT = "openai_responses"


class OpenAIAgentsSession(SessionABC):
    """A `Session` that `Runner.run(agent, input, session=...)` takes. Its items are the messages of one chat.

    Items come back as equal dicts, in the order in which they were added, in any process. What another framework wrote
    into the chat comes as items too; what that loses is named by a `ConversionWarning`. Any number of sessions may be
    open on one chat: items that are added together stay together, and none is lost. The history stays open.

    session_id: the id of the chat, of this history's owner. session_settings: as the SDK's own sessions take them.
    """

    def __init__(
        self,
        history: ChatHistory,
        session_id: str,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings: SessionSettings | None = SessionSettings().resolve(session_settings)
        self._history = checked_history(history).to_async()

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The latest `limit` items, in chronological order; none for 0.

        None is what `session_settings.limit` says, and all of them where that is None too.
        """
        if limit is None:
            limit = SessionSettings().resolve(self.session_settings).limit
        return await run(self._history, self._items, limit)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items, all of them or none. `InvalidMessageError` for one that JSON would not give back as it is."""
        await run(self._history, lambda history: history.add_messages(self.session_id, items, format=FORMAT))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item and return it, None if there is none.

        An item of several that another framework stored as one message is taken off, and the others stay.
        """
        return await run(self._history, self._pop)

    async def clear_session(self) -> None:
        """Remove the chat: its items, of every branch, and its title and metadata. The session may go on, empty."""
        await run(self._history, lambda history: history.delete_chat_history(self.session_id))

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        # The SDK's compaction asks for this; else it clears the session and adds to it, and a crash between the two
        # would lose the chat.
        await run(self._history, lambda history: history.set_messages(self.session_id, items, format=FORMAT))
        return True

    def _items(self, history: ChatHistory, limit: int | None) -> list[Any]:
        if limit == 0:
            return []
        if limit is not None:
            newest = history.get_messages(self.session_id, limit)
            if all(message.format == FORMAT for message in newest):
                return [_item(message) for message in newest]
        items = history.get_message_history(self.session_id, format=FORMAT)
        return items if limit is None else items[-limit:]

    def _pop(self, history: ChatHistory) -> Any:
        while newest := history.get_messages(self.session_id, limit=1):
            if newest[0].format != FORMAT:
                try:
                    return self._pop_converted(history)
                except (VersionConflictError, ChatNotFoundError):
                    continue
            item = _item(newest[0])
            if history.delete_message(self.session_id, newest[0].message_id):
                return item
        return None

    def _pop_converted(self, history: ChatHistory) -> Any:
        version = history.get_chat(self.session_id).version
        items = history.get_message_history(self.session_id, format=FORMAT)
        history.set_messages(self.session_id, items[:-1], format=FORMAT, expected_version=version)
        return items[-1] if items else None


def _item(message: StoredMessage) -> Any:
    with naming_damage(message.chat_id, [(message.position, message.payload)]):
        return message.json()

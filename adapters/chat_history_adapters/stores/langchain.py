"""`LangChainChatHistory`: a chat as a chat message history of LangChain."""

from __future__ import annotations

from collections.abc import Sequence

from chat_history import ChatHistory, MissingDependencyError
from chat_history.arguments import checked_count, checked_history, checked_id

try:
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.messages import BaseMessage
except ImportError as error:
    raise MissingDependencyError(
        f"LangChain cannot be imported: {error}; pip install 'agent-chat-history[langchain]'"
    ) from error

__all__ = ["LangChainChatHistory"]

FORMAT = "langchain"


class LangChainChatHistory(BaseChatMessageHistory):
    """What `RunnableWithMessageHistory` asks for by session: one chat of this history's owner.

    Messages come back equal, in the order in which they were added, in any process. What another framework wrote into
    the chat comes converted; what that loses is named by a `ConversionWarning`. Messages that are added together stay
    together, and none is lost, however many such objects are open on one chat. The history stays open.

    session_id: the id of the chat. last: give out only the newest whole turns of at most so many stored messages (the
    newest turn always), after the system prompt that leads the chat. max_tokens: the same by tokens, as
    `ChatHistory.get_message_history` counts them. All messages stay stored.
    """

    def __init__(
        self, history: ChatHistory, session_id: str, *, last: int | None = None, max_tokens: int | None = None
    ) -> None:
        self.session_id = checked_id(session_id, "session_id")
        self.last = None if last is None else checked_count(last, "last")
        self.max_tokens = None if max_tokens is None else checked_count(max_tokens, "max_tokens")
        self._history = checked_history(history)
        self._async = history.to_async()

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override] # a plain attribute there, and a property in each
        """The chat's messages, oldest first; [] for a new chat. A new list each time."""
        return self._history.get_message_history(self.session_id, FORMAT, last=self.last, max_tokens=self.max_tokens)

    async def aget_messages(self) -> list[BaseMessage]:
        """As `messages`, awaited."""
        return await self._async.get_message_history(self.session_id, FORMAT, self.last, self.max_tokens)

    def add_message(self, message: BaseMessage) -> None:
        """Append a message."""
        self._history.add_message(self.session_id, message)

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages, all of them or none. What was said twice is stored twice."""
        self._history.add_messages(self.session_id, messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """As `add_messages`, awaited; what was cancelled has happened or not, and does not happen later."""
        await self._async.add_messages(self.session_id, messages)

    def clear(self) -> None:
        """Remove the chat: its messages, of every branch, and its title and metadata. It may go on, empty."""
        self._history.delete_chat_history(self.session_id)

    async def aclear(self) -> None:
        """As `clear`, awaited."""
        await self._async.delete_chat_history(self.session_id)

"""`PydanticAIConversationStore`: chats as conversations of Pydantic AI 2."""

from __future__ import annotations

from collections.abc import Sequence

from chat_history import AsyncChatHistory, ChatHistory, MissingDependencyError
from chat_history.aio import run
from chat_history.arguments import checked_history

try:
    from pydantic_ai.conversation_store import ConversationEntry, ConversationRecord, ConversationStore
except ImportError as error:
    raise MissingDependencyError(
        f"a conversation store needs Pydantic AI 2.68 or newer ({error}): pip install 'pydantic-ai-slim>=2.68'"
    ) from error

from . import pydantic_ai_conversations as conversations

__all__ = ["PydanticAIConversationStore"]


class PydanticAIConversationStore(ConversationStore):
    """A `ConversationStore` over a history: `load` a conversation, run an agent with it, `save` the result.

    A conversation is a chat of the history's owner, by its id; an entry is a stored message, by its id. What another
    framework wrote into the chat is loaded too, converted, and what that loses is named by a `ConversionWarning`; who
    loaded the conversation before that gets a `ConversationConflict` from `save`. Each call does all it says, or raises
    and did nothing: a save that conflicts leaves no entry behind. Archived messages stay out of a history, the system
    prompt in them too.

    A fork has the entries of what it was forked from, with their ids, and keeps them whatever happens there. `delete`
    removes the conversation's entries with it, of every branch, from the disk. The history stays open.
    """

    def __init__(self, history: ChatHistory) -> None:
        self._history: AsyncChatHistory = checked_history(history).to_async()

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """The record for a conversation, None if there is no such chat. Branches that others left are listed too."""
        return await run(self._history, conversations.read_record, conversation_id)

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """The records of all chats, or those of this scope, newest activity first, at most `limit`.

        With their branches as of the last save.
        """
        return await run(self._history, conversations.read_records, scope, limit)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and the entries that its history adds, in one write, where the revision is the expected one.

        `InvalidMessageError`, `InvalidArgumentError` for what cannot be kept as JSON; nothing was written.
        """
        await run(self._history, conversations.write_record, record, new_entries, expected_revision)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Remove the chat with all of its messages, of every branch, where its revision is the expected one."""
        await run(self._history, conversations.delete_record, conversation_id, expected_revision)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """The entry of this id. `MessageNotFoundError`, a `LookupError`, if no chat of this owner has it."""
        return await run(self._history, conversations.read_entry, entry_id)

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """The entries up to this one, oldest first, or the last `limit` of them: one query, however many they are.

        Further queries find the chat of an id that came from elsewhere than this store, another branch than the
        active one, and the messages before a window in which another framework's are.
        """
        return await run(self._history, conversations.read_history, head_id, limit)

"""A conversation store of Pydantic AI 2 in a SQLite file: an approval that outlives the process, a fork, a conflict.

Offline: the model is a script.
"""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent, Conversation, DeferredToolRequests
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from chat_history import open_history
from chat_history_adapters.stores.pydantic_ai import PydanticAIConversationStore

FILE = "sqlite:///booking.db"


def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Books what it is asked for, and tells what came of it."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse(parts=[TextPart(str(last.content))])
    return ModelResponse(parts=[ToolCallPart("book", {"city": str(getattr(last, "content", ""))}, tool_call_id="c1")])


def clerk() -> Agent[None, str | DeferredToolRequests]:
    """An agent whose tool needs an approval."""
    agent = Agent(FunctionModel(model), output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def book(city: str) -> str:
        return f"A journey to {city} is booked."

    return agent


async def first_day() -> None:
    """A booking that has to be approved."""
    with open_history(FILE) as history:
        store = PydanticAIConversationStore(history)
        result = await clerk().run("Rome", conversation=Conversation(conversation_id="trip"))
        assert isinstance(result.output, DeferredToolRequests)
        await store.save(result)


async def next_day() -> None:
    """Another process would do this: the booking is approved, and the conversation goes on."""
    with open_history(FILE) as history:
        store = PydanticAIConversationStore(history)
        conversation = await store.load("trip")
        assert conversation is not None
        assert conversation.deferred_tool_requests is not None
        answers = conversation.deferred_tool_requests.build_results(approvals={"c1": True})
        result = await clerk().run(conversation=conversation, deferred_tool_results=answers)
        await store.save(result)
        print(result.output)

        # Of two that loaded the same conversation one saves.
        mine, theirs = await store.load("trip"), await store.load("trip")
        assert mine is not None
        assert theirs is not None
        await store.save(await clerk().run("Oslo", conversation=mine))
        try:
            await store.save(await clerk().run("Bern", conversation=theirs))
        except ConversationConflict as conflict:
            print(f"not saved: {conflict}")

        # For people, and for other frameworks.
        assert history.get_message_count("trip") == 6
        for line in history.get_readable_chat_history("trip"):
            print(f"{line['from']}: {line['message']}")


asyncio.run(first_day())
asyncio.run(next_day())

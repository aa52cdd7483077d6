"""Sessions of Microsoft Agent Framework in a SQLite file: tools, a restart, a menu of sessions, and a window.

Offline: `Clerk` stands for a model, and says with a tool what is in stock.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from agent_framework import Agent, BaseChatClient, ChatResponse, Content, FunctionInvocationLayer, Message

from chat_history import ChatHistory, open_history
from chat_history_adapters.stores.agent_framework import AgentFrameworkHistory


class Clerk(FunctionInvocationLayer[Any], BaseChatClient[Any]):
    """Looks up what the last word of a question names, and tells the result."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Message] = []

    async def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Any, **kwargs: Any
    ) -> ChatResponse[Any]:
        self.given = list(messages)
        last = messages[-1]
        if last.role == "tool":
            answer: Any = f"We have {last.contents[0].result} of them."
        else:
            thing = last.text.rstrip("?").split()[-1]
            answer = Content.from_function_call(
                f"call-{len(messages)}", "stock", arguments=json.dumps({"thing": thing})
            )
        return ChatResponse(messages=[Message("assistant", [answer])])


def stock(thing: str) -> int:
    """How many of a thing are in stock."""
    return len(thing)


def clerk(history: ChatHistory, max_messages: int | None = None) -> tuple[Agent[Any], AgentFrameworkHistory, Clerk]:
    """An agent that keeps its sessions in this history."""
    provider = AgentFrameworkHistory(history, max_messages=max_messages)
    client = Clerk()
    return Agent(client=client, tools=[stock], context_providers=[provider]), provider, client


async def first_day() -> None:
    """Two customers ask at the same time."""
    with open_history("sqlite:///shop.db") as history:
        agent, _, _ = clerk(history)
        ann, bob = (agent.create_session(session_id=name) for name in ("ann", "bob"))
        await asyncio.gather(agent.run("Have you any pears?", session=ann), agent.run("And nuts?", session=bob))
        answer = await agent.run("What of cherries?", session=ann)
        assert answer.text == "We have 8 of them."


async def next_day() -> None:
    """Another process would do this: the file is opened again, and the newest session goes on."""
    with open_history("sqlite:///shop.db") as history:
        agent, provider, client = clerk(history, max_messages=4)
        sessions = await provider.list_sessions()
        for chat in sessions:
            print(f"{chat.chat_id}: {chat.message_count} messages")
        assert [chat.chat_id for chat in sessions] == ["ann", "bob"]

        session = agent.create_session(session_id=sessions[0].chat_id)
        answer = await agent.run("Still any figs?", session=session)
        print(answer.text)

        # The model was given the newest whole turn that fits, and this one's question, call and result.
        roles = ["user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
        assert [message.role for message in client.given] == roles
        assert client.given[0].text == "What of cherries?"
        # All is stored, for people too.
        assert history.get_message_count("ann") == 12
        print(history.get_readable_chat_history("ann")[-1]["message"])

        assert await provider.clear("bob")
        assert [chat.chat_id for chat in await provider.list_sessions()] == ["ann"]


asyncio.run(first_day())
asyncio.run(next_day())

"""A chain of LangChain that remembers, in a SQLite file: a tool, a restart, and a list of what was said.

Offline: `Scripted` stands for a model, and says what it was told to.
"""

from __future__ import annotations

import warnings
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from chat_history import open_history
from chat_history_adapters.stores.langchain import LangChainChatHistory

warnings.filterwarnings("ignore", category=DeprecationWarning)  # of LangChain, which prefers LangGraph's memory
from langchain_core.runnables.history import RunnableWithMessageHistory  # noqa: E402

FILE = "sqlite:///travel.db"


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is warm in {city}."


class Scripted(BaseChatModel):
    """Asks for the weather once, then says what it heard."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        last = messages[-1]
        answer = AIMessage(f"{last.content} ({len(messages)} messages so far)")
        if last.content == "How is Rome?":
            answer = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "call_1"}])
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @property
    def _llm_type(self) -> str:
        return "scripted"


def ask(messages: list[BaseMessage]) -> str:
    """One run in a process of its own, as it were: the file is opened anew."""
    with open_history(FILE) as history:
        chain = RunnableWithMessageHistory(Scripted(), lambda session: LangChainChatHistory(history, session))
        answer = chain.invoke(messages, config={"configurable": {"session_id": "trip"}})
        if answer.tool_calls:
            call = answer.tool_calls[0]
            return ask([ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])])
        return str(answer.content)


print(ask([HumanMessage("How is Rome?")]))
print(ask([HumanMessage("Thanks!")]))

with open_history(FILE) as history:
    roles = [message.role for message in history.get_messages("trip")]
    assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    for line in history.get_readable_chat_history("trip"):
        print(f"{line['from']}: {line['message']}")

"""The conversation of `chat-history demo`: a Pydantic AI agent with a tool, and a script in place of a model.

The script knows nothing but the messages that it is handed, as a model would: what the second process says about the
first one's conversation can only come from the store.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from .history import ChatHistory

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models.function import AgentInfo

__all__ = ["begin", "go_on"]

WEATHER = {"Paris": "18 °C and sunny", "Oslo": "4 °C and raining"}
FIRST = "Hello, I am Ada. What is the weather in Paris?"
SECOND = "And in Oslo? Do you still know my name?"


def begin(history: ChatHistory, chat_id: str) -> None:
    """The first process: ask, and save the run."""
    result = _agent().run_sync(FIRST)
    history.save_messages(chat_id, result.all_messages())


def go_on(history: ChatHistory, chat_id: str) -> int:
    """The second process: load what the first one saved, ask on, and save. Returns how many messages were loaded."""
    loaded = history.get_message_history(chat_id)
    result = _agent().run_sync(SECOND, message_history=loaded)
    history.save_messages(chat_id, result.all_messages())
    return len(loaded)


def _agent() -> Agent[None, str]:
    # Pydantic AI 2 introduces itself to a terminal, in the middle of ours.
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
    from pydantic_ai import Agent
    from pydantic_ai.models.function import FunctionModel

    def weather(city: str) -> str:
        """The weather in a city."""
        return WEATHER[city]

    return Agent(FunctionModel(_answer), system_prompt="You tell the weather.", tools=[weather])


def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

    parts: list[Any] = [part for message in messages for part in message.parts]
    prompts = [str(part.content) for part in parts if part.part_kind == "user-prompt"]
    results = [str(part.content) for part in parts if part.part_kind == "tool-return"]
    cities = [city for prompt in prompts for city in WEATHER if city in prompt]
    if len(results) < len(cities):
        return ModelResponse(parts=[ToolCallPart("weather", {"city": cities[-1]})])
    known = re.search(r"I am (\w+)", prompts[0])
    name = known[1] if known else "stranger"
    text = f"It is {results[-1]} in {cities[-1]}, {name}."
    if len(prompts) > 1:
        text = f"Of course, you are {name}. It is {results[-1]} in {cities[-1]}; in {cities[0]} it was {results[0]}."
    return ModelResponse(parts=[TextPart(text)])

"""What the benchmarks store: messages of 300 to 2,000 characters, and real runs of an agent that uses a tool."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

PROSE = """
the agent looked up every order of that customer and found two which nobody had answered yet

so it wrote a "draft" to the warehouse, asked when parcels leave on Fridays (before noon, as always), and waited; the
prices: 12.50, 7, 1,200 - see https://example.org/orders?id=42 for details.
"""
SYSTEM = "You answer questions about orders. Look things up before you answer."


class Texts:
    """Texts like those of chats, about 1 KB each, the same in every run."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.source = " ".join(self.random.choices(PROSE.split(" "), k=100_000))

    def __call__(self) -> str:
        length = int(self.random.triangular(300, 2000, 700))
        start = self.random.randrange(len(self.source) - length)
        text = self.source[start : start + length]
        return text if self.random.random() > 0.1 else text + " — voilà, très bien!"


def dicts(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Messages as people add them."""
    text = Texts(seed)
    return [{"role": ("user", "assistant")[number % 2], "content": text()} for number in range(count)]


def dumped(messages: list[dict[str, str]]) -> Iterator[str]:
    """The same messages as a floor stores them."""
    return map(json.dumps, messages)


def _agent(text: Texts) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1]
        if isinstance(last, ModelRequest) and last.parts[-1].part_kind == "tool-return":
            return ModelResponse(parts=[TextPart(text())])
        return ModelResponse(parts=[ToolCallPart("look_up", {"question": text(), "limit": 10})])

    agent = Agent(FunctionModel(model), instructions=SYSTEM)

    @agent.tool_plain
    def look_up(question: str, limit: int) -> str:
        return text()

    return agent


def turns(count: int) -> Iterator[tuple[list[Any], list[Any]]]:
    """Runs of an agent on the messages of all runs before: `all_messages()` and `new_messages()`, four a turn."""
    text = Texts(seed=1)
    agent = _agent(text)
    messages: list[Any] = []
    for _ in range(count):
        result = agent.run_sync(text(), message_history=messages)
        messages = result.all_messages()
        yield messages, result.new_messages()


def agent_messages(count: int) -> list[Any]:
    """Messages of many runs, one after the other."""
    text = Texts(seed=2)
    agent = _agent(text)
    messages: list[Any] = []
    while len(messages) < count:
        messages += agent.run_sync(text()).all_messages()
    return messages[:count]

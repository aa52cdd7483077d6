"""A session of the OpenAI Agents SDK in a SQLite file: a tool, a handoff, and an approval that outlives the process.

Offline: `Scripted` stands for a model, and says what it was told to.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, RunState, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from chat_history import open_history
from chat_history_adapters.stores.openai_agents import OpenAIAgentsSession

FILE = "sqlite:///travel.db"


class Scripted(Model):
    """Gives these answers, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.given: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.given = list(input)
        return ModelResponse(output=[self.answers.pop(0)], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def says(text: str) -> ResponseOutputMessage:
    """An answer in words."""
    part = ResponseOutputText(annotations=[], text=text, type="output_text")
    return ResponseOutputMessage(id="msg_1", content=[part], role="assistant", status="completed", type="message")


def calls(name: str, call_id: str, **arguments: Any) -> ResponseFunctionToolCall:
    """An answer that calls a tool."""
    return ResponseFunctionToolCall(call_id=call_id, name=name, arguments=json.dumps(arguments), type="function_call")


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 20 degrees"


@function_tool(needs_approval=True)
def book(city: str) -> str:
    """Book a journey."""
    return f"booked for {city}"


def travel_agents(model: Model) -> Agent[None]:
    """One who knows the weather, and hands over to one who books."""
    clerk = Agent(name="clerk", model=model, tools=[book])
    return Agent(name="guide", model=model, tools=[weather], handoffs=[clerk])


async def first_day() -> str:
    """A question, and a booking that has to be approved. The state of that run is kept by the application."""
    with open_history(FILE) as history:
        session = OpenAIAgentsSession(history, "ann")
        guide = travel_agents(Scripted(calls("weather", "c1", city="Rome"), says("Warm.")))
        print((await Runner.run(guide, "How is Rome?", session=session)).final_output)

        guide = travel_agents(Scripted(calls("transfer_to_clerk", "c2"), calls("book", "c3", city="Rome")))
        result = await Runner.run(guide, "Book it.", session=session)
        assert [each.name for each in result.interruptions] == ["book"]
        return result.to_state().to_string()


async def next_day(waiting: str) -> None:
    """Another process would do this: the file is opened again, the booking approved, and the conversation goes on."""
    with open_history(FILE) as history:
        session = OpenAIAgentsSession(history, "ann")
        guide = travel_agents(Scripted(says("It is booked.")))
        state: RunState[Any] = await RunState.from_string(guide, waiting)
        state.approve(state.get_interruptions()[0])
        print((await Runner.run(guide, state, session=session)).final_output)

        model = Scripted(says("With pleasure."))
        before = await session.get_items()
        print((await Runner.run(travel_agents(model), "Thanks!", session=session)).final_output)
        assert model.given == [*before, {"role": "user", "content": "Thanks!"}]

        assert [item.get("type", item.get("role")) for item in before] == [
            *("user", "function_call", "function_call_output", "message"),
            *("user", "function_call", "function_call_output", "function_call", "function_call_output", "message"),
        ]
        # For people, and for other frameworks.
        for line in history.get_readable_chat_history("ann"):
            print(f"{line['from']}: {line['message']}")


set_tracing_disabled(True)
asyncio.run(next_day(asyncio.run(first_day())))

"""One conversation, handed around: Pydantic AI, then the OpenAI Agents SDK, then LlamaIndex, then Pydantic AI again.

Each of them calls a tool, and the first question shows an image. Offline: every model is a script. Each step opens the
history anew, as another program on another day would, and saves all that its framework knows; only the new part is
written, and nothing that was said is lost on the way.
"""

import asyncio
import json
import warnings
from collections.abc import Sequence
from typing import Any

from chat_history import ConversionWarning, open_history

URL = "sqlite:///trip.db"
CHAT = "a trip"
PNG = b"\x89PNG\r\n\x1a\n"


def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is warm in {city}."


# ---- Pydantic AI


async def ask_pydantic_ai(question: Any, city: str, history: Sequence[Any]) -> list[Any]:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if messages[-1].parts[-1].part_kind == "tool-return":
            return ModelResponse(parts=[TextPart(f"Go to {city}.")])
        return ModelResponse(parts=[ToolCallPart("weather", {"city": city}, tool_call_id=f"call_{city}")])

    agent = Agent(FunctionModel(model), tools=[weather])
    return (await agent.run(question, message_history=history)).all_messages()


# ---- OpenAI Agents


async def ask_openai_agents(question: str, city: str, history: Sequence[Any]) -> list[Any]:
    import agents
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    agents.set_tracing_disabled(True)

    class Script(agents.Model):
        async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
            output: Any = ResponseFunctionToolCall(
                type="function_call", call_id=f"call_{city}", name="weather", arguments=json.dumps({"city": city})
            )
            if input[-1].get("type") == "function_call_output":
                text = ResponseOutputText(type="output_text", text=f"Go to {city}.", annotations=[])
                output = ResponseOutputMessage(
                    type="message", id=f"msg_{city}", role="assistant", status="completed", content=[text]
                )
            return agents.ModelResponse(output=[output], usage=agents.Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    agent = agents.Agent(name="traveller", model=Script(), tools=[agents.function_tool(weather)])
    asked = [*history, {"role": "user", "content": question}]
    return (await agents.Runner.run(agent, asked)).to_input_list()


# ---- LlamaIndex


async def ask_llama_index(question: str, city: str, history: Sequence[Any]) -> list[Any]:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.base.llms import types
    from llama_index.core.llms import MockLLM
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.memory import ChatMemoryBuffer

    class Script(MockLLM, FunctionCallingLLM):
        @property
        def metadata(self) -> Any:
            return types.LLMMetadata(is_function_calling_model=True)

        def _prepare_chat_with_tools(self, tools: Any, *args: Any, **kwargs: Any) -> Any:
            return {}

        async def astream_chat_with_tools(self, tools: Any, chat_history: Any = None, **kwargs: Any) -> Any:
            block: Any = types.TextBlock(text=f"Go to {city}.")
            if chat_history[-1].role != "tool":
                block = types.ToolCallBlock(
                    tool_call_id=f"call_{city}", tool_name="weather", tool_kwargs={"city": city}
                )

            async def stream() -> Any:
                yield types.ChatResponse(message=types.ChatMessage(role="assistant", blocks=[block]))

            return stream()

        def get_tool_calls_from_response(self, response: Any, **kwargs: Any) -> Any:
            calls = [block for block in response.message.blocks if isinstance(block, types.ToolCallBlock)]
            return [
                ToolSelection(tool_id=call.tool_call_id, tool_name=call.tool_name, tool_kwargs=call.tool_kwargs)
                for call in calls
            ]

    memory = ChatMemoryBuffer.from_defaults([*history], token_limit=100_000, tokenizer_fn=str.split)
    await FunctionAgent(tools=[weather], llm=Script()).run(question, memory=memory)
    return memory.get_all()


# ---- the conversation


async def step(form: str, ask: Any, question: Any, city: str) -> None:
    """One turn: all that was said so far goes in, all that was said comes out."""
    with open_history(URL) as history, warnings.catch_warnings():
        # Ids and times have no place in every format. The messages stay as they were written; docs/conversions.md.
        warnings.simplefilter("ignore", ConversionWarning)
        warnings.simplefilter("ignore", DeprecationWarning)  # LlamaIndex's own
        before = list(history.iter_messages(CHAT))
        after = await ask(question, city, history.get_message_history(CHAT, format=form))
        new = history.save_messages(CHAT, after, format=form)
        assert list(history.iter_messages(CHAT)) == [*before, *new]
        print(f"{form}: {len(before)} messages were there, {len(new)} are new")


async def main() -> None:
    from pydantic_ai import BinaryContent

    image = BinaryContent(PNG, media_type="image/png")
    await step("pydantic_ai", ask_pydantic_ai, ["Where is this?", image], "Rome")
    await step("openai_responses", ask_openai_agents, "And after that?", "Oslo")
    await step("llama_index", ask_llama_index, "And then?", "Lima")
    await step("pydantic_ai", ask_pydantic_ai, "And the last one?", "Bonn")

    cities = ["Rome", "Oslo", "Lima", "Bonn"]
    with open_history(URL) as history:
        said = history.get_chat_history(CHAT)
        formats = [message.format for message in history.iter_messages(CHAT)]
    calls = [call["function"] for message in said for call in message.get("tool_calls", ())]
    assert [call["name"] for call in calls] == ["weather"] * 4
    assert [json.loads(call["arguments"]) for call in calls] == [{"city": city} for city in cities]
    assert [message["content"] for message in said if message["role"] == "tool"] == [weather(city) for city in cities]
    assert said[0]["content"][1]["type"] == "image"
    assert [message["content"] for message in said if message["role"] == "assistant" and message["content"]] == [
        f"Go to {city}." for city in cities
    ]
    assert list(dict.fromkeys(formats)) == ["pydantic_ai", "openai_responses", "llama_index"]

    for message in said:
        for call in message.get("tool_calls", ()):
            print(f"{message['role']}: {call['function']['name']}({call['function']['arguments']})")
        if isinstance(message["content"], str):
            print(f"{message['role']}: {message['content']}")


if __name__ == "__main__":
    asyncio.run(main())

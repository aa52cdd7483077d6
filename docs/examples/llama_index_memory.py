"""An agent of LlamaIndex whose memory outlives the process. Offline: the model is a script.

Each turn opens the history anew, as another process would. The agent calls a tool, and knows the turns before.
"""

import asyncio
import warnings
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms import types
from llama_index.core.llms import MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import Memory

from chat_history import open_history
from chat_history_adapters.stores.llama_index import LlamaIndexDBChatStore

URL = "sqlite:///chats.db"


def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is warm in {city}."


class Script(MockLLM, FunctionCallingLLM):
    """Asks for the weather in the city that was asked for, and says how many questions it has heard."""

    @property
    def metadata(self) -> Any:
        return types.LLMMetadata(is_function_calling_model=True)

    def _prepare_chat_with_tools(self, tools: Any, *args: Any, **kwargs: Any) -> Any:
        return {}

    async def astream_chat_with_tools(self, tools: Any, chat_history: Any = None, **kwargs: Any) -> Any:
        questions = [message.content for message in chat_history if message.role == "user"]
        last = chat_history[-1]
        block: Any = types.TextBlock(text=f"{last.content} That was question {len(questions)}.")
        if last.role == "user":
            city = last.content.removesuffix("?")
            block = types.ToolCallBlock(tool_call_id=f"call_{city}", tool_name="weather", tool_kwargs={"city": city})

        async def stream() -> Any:
            yield types.ChatResponse(message=types.ChatMessage(role="assistant", blocks=[block]))

        return stream()

    def get_tool_calls_from_response(self, response: Any, **kwargs: Any) -> Any:
        return [
            ToolSelection(tool_id=block.tool_call_id, tool_name=block.tool_name, tool_kwargs=block.tool_kwargs)
            for block in response.message.blocks
            if isinstance(block, types.ToolCallBlock)
        ]


async def turn(question: str) -> str:
    """Open the history, ask, and close it."""
    with open_history(URL) as history:
        memory = Memory.from_defaults(
            session_id="trip", chat_store=LlamaIndexDBChatStore(history), tokenizer_fn=str.split
        )
        answer = await FunctionAgent(tools=[weather], llm=Script()).run(question, memory=memory)
        return str(answer)


async def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # LlamaIndex's own
    for number, city in enumerate(["Rome", "Oslo", "Lima"], 1):
        answer = await turn(f"{city}?")
        print(answer)
        assert answer == f"It is warm in {city}. That was question {number}."
    with open_history(URL) as history:
        said = history.get_readable_chat_history("trip")  # also for those who know no LlamaIndex
    assert [line["message"] for line in said if line["from"] == "user"] == ["Rome?", "Oslo?", "Lima?"]


asyncio.run(main())

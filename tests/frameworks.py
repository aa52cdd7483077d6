"""Every framework itself, offline: it goes on from messages that it is given, with a turn that calls a tool."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from openai_api import ANSWER, CALL, OpenAIAPI

__all__ = ["FRAMEWORKS", "MAPPINGS", "PROMPT", "RESULT", "Run"]

PROMPT = "And Rome?"
RESULT = "25"


def weather(city: str) -> str:
    """The weather in a city."""
    return RESULT


class Run(NamedTuple):
    """A further turn: a prompt, a call, its result and the answer."""

    after: list[Any]
    """All messages after it, as the framework keeps them."""
    seen: list[Any]
    """What the model was given first."""
    seen_as: str
    """The format of these."""


def pydantic_ai(messages: list[Any], model: Any = None) -> Run:
    """An agent."""
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    given: list[list[Any]] = []

    def scripted(history: list[Any], info: Any) -> ModelResponse:
        given.append(list(history))
        call_id, name, arguments = CALL
        return ModelResponse([TextPart(ANSWER) if len(given) > 1 else ToolCallPart(name, arguments, call_id)])

    agent = Agent(model or FunctionModel(scripted), tools=[weather])
    result = asyncio.run(agent.run(PROMPT, message_history=messages))
    assert result.output == ANSWER
    return Run(result.all_messages(), given[0] if given else [], "pydantic_ai")


def openai(messages: list[Any]) -> Run:
    """The SDK, and the loop that everybody writes around it."""
    api = OpenAIAPI()
    after = [*messages, {"role": "user", "content": PROMPT}]

    async def run() -> None:
        while True:
            completion = await api.client.chat.completions.create(model="gpt-4o", messages=after)
            message = completion.choices[0].message
            after.append(message.to_dict())
            if not message.tool_calls:
                return
            for call in message.tool_calls:
                assert call.type == "function"
                result = weather(**json.loads(call.function.arguments))
                after.append({"role": "tool", "tool_call_id": call.id, "content": result})

    asyncio.run(run())
    return Run(after, api.requests[0][1], "openai")


def openai_responses(messages: list[Any], model: Any = None) -> Run:
    """The runner of the Agents SDK."""
    import agents
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    agents.set_tracing_disabled(True)
    given: list[list[Any]] = []

    class Scripted(agents.Model):
        async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
            given.append(list(input))
            call_id, name, arguments = CALL
            output: Any = ResponseFunctionToolCall(
                call_id=call_id, name=name, arguments=arguments, type="function_call"
            )
            if len(given) > 1:
                text = ResponseOutputText(annotations=[], text=ANSWER, type="output_text")
                output = ResponseOutputMessage(
                    id="msg_z", content=[text], role="assistant", status="completed", type="message"
                )
            return agents.ModelResponse(output=[output], usage=agents.Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    agent = agents.Agent(name="a", model=model or Scripted(), tools=[agents.function_tool(weather)])
    result = asyncio.run(agents.Runner.run(agent, [*messages, {"role": "user", "content": PROMPT}]))
    assert result.final_output == ANSWER
    return Run(result.to_input_list(), given[0] if given else [], "openai_responses")


def llama_index(messages: list[Any]) -> Run:
    """A FunctionAgent with a memory that begins with the messages."""
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.base.llms import types
    from llama_index.core.llms import MockLLM
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.memory import ChatMemoryBuffer

    given: list[list[Any]] = []

    class Scripted(MockLLM, FunctionCallingLLM):  # type: ignore[misc]
        @property
        def metadata(self) -> Any:
            return types.LLMMetadata(is_function_calling_model=True)

        def _prepare_chat_with_tools(self, tools: Any, *args: Any, chat_history: Any = None, **kwargs: Any) -> Any:
            return {"messages": [*(chat_history or [])]}

        async def astream_chat_with_tools(self, tools: Any, chat_history: Any = None, **kwargs: Any) -> Any:
            given.append(list(chat_history))
            call_id, name, arguments = CALL
            call = types.ToolCallBlock(tool_call_id=call_id, tool_name=name, tool_kwargs=json.loads(arguments))
            block = types.TextBlock(text=ANSWER) if len(given) > 1 else call
            answer = types.ChatMessage(role="assistant", blocks=[block])

            async def stream() -> Any:
                yield types.ChatResponse(message=answer, delta=answer.content or "")

            return stream()

        def get_tool_calls_from_response(self, response: Any, **kwargs: Any) -> Any:
            return [
                ToolSelection(tool_id=each.tool_call_id, tool_name=each.tool_name, tool_kwargs=each.tool_kwargs)
                for each in response.message.blocks
                if isinstance(each, types.ToolCallBlock)
            ]

    memory = ChatMemoryBuffer.from_defaults(token_limit=100_000, tokenizer_fn=str.split)
    memory.set([*messages])

    async def run() -> Any:
        agent = FunctionAgent(tools=[weather], llm=Scripted(), streaming=True)
        return await agent.run(PROMPT, memory=memory)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of LlamaIndex's own
        assert asyncio.run(run()).response.content == ANSWER
    return Run(memory.get_all(), given[0], "llama_index")


def agent_framework(messages: list[Any]) -> Run:
    """An agent with a chat client that runs its tools."""
    from agent_framework import Agent, BaseChatClient, ChatResponse, Content, FunctionInvocationLayer, Message

    given: list[list[Any]] = []

    class Scripted(FunctionInvocationLayer[Any], BaseChatClient[Any]):
        def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **rest: Any) -> Any:
            async def answer() -> ChatResponse[Any]:
                given.append(list(messages))
                call_id, name, arguments = CALL
                call = Content.from_function_call(call_id, name, arguments=arguments)
                return ChatResponse(messages=[Message("assistant", [ANSWER if len(given) > 1 else call])])

            return answer()

    asked = [*messages, Message("user", [PROMPT])]
    result = asyncio.run(Agent(client=Scripted(), tools=[weather]).run(asked))
    assert result.text == ANSWER
    return Run([*asked, *result.messages], given[0], "agent_framework")


def langchain(messages: list[Any]) -> Run:
    """A chat model and a tool, called in turn."""
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.outputs import ChatResult
    from langchain_core.tools import tool

    given: list[list[Any]] = []

    class Scripted(GenericFakeChatModel):
        def _generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> ChatResult:
            given.append(list(messages))
            return super()._generate(messages, *args, **kwargs)

    call_id, name, arguments = CALL
    call: Any = {"name": name, "args": json.loads(arguments), "id": call_id, "type": "tool_call"}
    model = Scripted(messages=iter([AIMessage("", tool_calls=[call]), AIMessage(ANSWER)]))
    after = [*messages, HumanMessage(PROMPT)]
    while not isinstance(after[-1], AIMessage) or after[-1].tool_calls:
        after.append(model.invoke(after))
        after += [tool(weather).invoke(each) for each in after[-1].tool_calls]
    assert after[-1].content == ANSWER
    return Run(after, given[0], "langchain")


FRAMEWORKS: dict[str, Callable[[list[Any]], Run]] = {
    "agent_framework": agent_framework,
    "langchain": langchain,
    "llama_index": llama_index,
    "openai": openai,
    "openai_responses": openai_responses,
    "pydantic_ai": pydantic_ai,
}
"""By format: the framework goes on from messages of it."""


# ---- how frameworks ask a provider


def pydantic_ai_to_chat(messages: list[Any]) -> Run:
    from pydantic_ai.models.openai import OpenAIChatModel

    return _asked_by_pydantic_ai(messages, OpenAIChatModel)


def pydantic_ai_to_responses(messages: list[Any]) -> Run:
    from pydantic_ai.models.openai import OpenAIResponsesModel

    return _asked_by_pydantic_ai(messages, OpenAIResponsesModel)


def _asked_by_pydantic_ai(messages: list[Any], make: Any) -> Run:
    from pydantic_ai import models
    from pydantic_ai.providers.openai import OpenAIProvider

    api = OpenAIAPI()
    with models.override_allow_model_requests(True):
        after = pydantic_ai(messages, make("gpt-4o", provider=OpenAIProvider(openai_client=api.client))).after
    return Run(after, api.requests[0][1], api.requests[0][0])


def agents_sdk_to_chat(messages: list[Any]) -> Run:
    from agents import OpenAIChatCompletionsModel

    return _asked_by_agents_sdk(messages, OpenAIChatCompletionsModel)


def agents_sdk_to_responses(messages: list[Any]) -> Run:
    from agents import OpenAIResponsesModel

    return _asked_by_agents_sdk(messages, OpenAIResponsesModel)


def _asked_by_agents_sdk(messages: list[Any], make: Any) -> Run:
    api = OpenAIAPI()
    after = openai_responses(messages, make("gpt-4o", api.client)).after
    return Run(after, api.requests[0][1], api.requests[0][0])


def langchain_to_chat(messages: list[Any]) -> Run:
    from langchain_core.messages import convert_to_openai_messages

    asked: Any = convert_to_openai_messages(messages)
    for message in asked:  # ChatOpenAI leaves out the thoughts that are passed on here
        if isinstance(message["content"], list):
            message["content"] = [part for part in message["content"] if part["type"] != "reasoning"]
    return openai(asked)


MAPPINGS: list[tuple[str, Callable[[list[Any]], Run]]] = [
    ("langchain", langchain_to_chat),
    ("openai_responses", agents_sdk_to_chat),
    ("openai_responses", agents_sdk_to_responses),
    ("pydantic_ai", pydantic_ai_to_chat),
    ("pydantic_ai", pydantic_ai_to_responses),
]
"""Formats, and how a framework of theirs makes requests to OpenAI's API of messages."""

"""OpenAI's API, offline: it refuses what the SDK's types and the API's own rules forbid, and answers from a script."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import httpx2
from openai import AsyncOpenAI
from pydantic import TypeAdapter

__all__ = ["ANSWER", "CALL", "OpenAIAPI", "check_chat", "check_items", "known_keys"]

CALL = ("call_r", "weather", '{"city": "Rome"}')
"""What every scripted model asks for first: the id, the tool and its arguments."""
ANSWER = "Rome 25."
"""What it says when it has got the result."""


class OpenAIAPI:
    """Both APIs for one test. `requests` are what they were sent: the format and the messages."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, list[dict[str, Any]]]] = []
        transport = httpx2.MockTransport(self._answer)
        self.client = AsyncOpenAI(api_key="none", max_retries=0, http_client=httpx2.AsyncClient(transport=transport))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        if request.url.path.endswith("/chat/completions"):
            self.requests.append(("openai", body["messages"]))
            return httpx2.Response(200, json=_completion(done=body["messages"][-1]["role"] == "tool"))
        self.requests.append(("openai_responses", body["input"]))
        return httpx2.Response(200, json=_response(done=body["input"][-1].get("type") == "function_call_output"))


def _completion(*, done: bool) -> dict[str, Any]:
    call_id, name, arguments = CALL
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": ANSWER} if done else {"role": "assistant", "content": None}
    choice = {
        "index": 0,
        "message": message if done else message | {"tool_calls": [call]},
        "finish_reason": "stop" if done else "tool_calls",
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": "chatcmpl_1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [choice],
        "usage": usage,
    }


def _response(*, done: bool) -> dict[str, Any]:
    call_id, name, arguments = CALL
    content = [{"type": "output_text", "text": ANSWER, "annotations": []}]
    said = {"type": "message", "id": "msg_z", "role": "assistant", "status": "completed", "content": content}
    called = {"type": "function_call", "id": "fc_z", "call_id": call_id, "name": name, "arguments": arguments}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-4o",
        "output": [said if done else called],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


@cache
def _types() -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    from openai.types.chat import ChatCompletionMessageParam
    from openai.types.responses import ResponseInputItemParam

    return TypeAdapter(ChatCompletionMessageParam), TypeAdapter(ResponseInputItemParam)


def check_chat(messages: list[dict[str, Any]]) -> None:
    """That Chat Completions would take these messages: the SDK's types, and a result for each call, after it."""
    waiting: list[str] = []
    for message in messages:
        _types()[0].validate_python(message)
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, f"{waiting} have no results before the next message"
        assert message.get("content") or message.get("tool_calls") or message.get("refusal")
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        assert len(set(waiting)) == len(waiting)
    assert not waiting


def check_items(items: list[dict[str, Any]]) -> None:
    """That Responses would take these items: the SDK's types, and a result for each call, after it."""
    waiting: list[str] = []
    for item in items:
        kind = item.get("type", "message")
        # The SDK's type wants an id; the API takes reasoning without one as text.
        typed = {"id": "rs_0", **item} if kind == "reasoning" else item
        _types()[1].validate_python(typed)
        if kind.endswith("_call"):
            waiting.append(item["call_id"])
        elif kind.endswith("_output"):
            waiting.remove(item["call_id"])
        elif item.get("role") in ("user", "system", "developer"):
            assert not waiting, f"{waiting} have no results before the next message"
    assert not waiting


def known_keys(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of Chat Completions without what its types do not know."""
    validated = [_types()[0].validate_python(message) for message in messages]
    return json.loads(json.dumps(validated, default=list))  # type: ignore[no-any-return]

"""One conversation in the objects of every framework: parallel calls, a failed one, thoughts and an image."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

__all__ = ["CONVERSATIONS", "DATA_URL", "PNG", "THOUGHT"]

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
THOUGHT = "Two cities, so two calls."


def _png() -> bytes:
    """A picture of one black dot, which frameworks can look into."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


PNG = _png()
DATA_URL = f"data:image/png;base64,{b64encode(PNG).decode()}"


def pydantic_ai() -> list[Any]:
    from pydantic_ai import messages as m

    return [
        m.ModelRequest(
            [m.SystemPromptPart("Be terse.", timestamp=TIME), m.UserPromptPart("Paris and Köln?", timestamp=TIME)],
            timestamp=TIME,
        ),
        m.ModelResponse(
            [
                m.ThinkingPart(THOUGHT, signature="sealed", provider_name="anthropic"),
                m.TextPart("Let me see."),
                m.ToolCallPart("weather", '{"city": "Paris"}', "call_p"),
                m.ToolCallPart("weather", {"city": "Köln"}, "call_k"),
            ],
            timestamp=TIME,
            model_name="m",
            provider_name="openai",
        ),
        m.ModelRequest(
            [
                m.ToolReturnPart("weather", {"temp": 20.5}, "call_p", timestamp=TIME),
                m.ToolReturnPart("weather", "No such city.", "call_k", timestamp=TIME, outcome="failed"),
            ],
            timestamp=TIME,
        ),
        m.ModelResponse([m.TextPart("Paris 20.5.")], timestamp=TIME, model_name="m", provider_name="anthropic"),
        m.ModelRequest(
            [m.UserPromptPart(["And this?", m.BinaryContent(PNG, media_type="image/png")], timestamp=TIME)],
            timestamp=TIME,
        ),
        m.ModelResponse([m.TextPart("A dot.")], timestamp=TIME, model_name="m", provider_name="anthropic"),
    ]


def openai() -> list[Any]:
    calls = [("call_p", '{"city": "Paris"}'), ("call_k", '{"city":"Köln"}')]
    return [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Paris and Köln?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": THOUGHT,
            "tool_calls": [
                {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}
                for call_id, arguments in calls
            ],
        },
        {"role": "tool", "tool_call_id": "call_p", "content": '{"temp":20.5}'},
        {"role": "tool", "tool_call_id": "call_k", "content": "No such city."},
        {"role": "assistant", "content": "Paris 20.5."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "And this?"}, {"type": "image_url", "image_url": {"url": DATA_URL}}],
        },
        {"role": "assistant", "content": "A dot."},
    ]


def openai_responses() -> list[Any]:
    def said(number: int, text: str) -> dict[str, Any]:
        content = [{"annotations": [], "text": text, "type": "output_text"}]
        return {
            "id": f"msg_{number}",
            "content": content,
            "role": "assistant",
            "status": "completed",
            "type": "message",
        }

    def called(call_id: str, arguments: str) -> dict[str, Any]:
        return {"arguments": arguments, "call_id": call_id, "name": "weather", "type": "function_call"}

    return [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Paris and Köln?"},
        {
            "id": "rs_1",
            "summary": [{"text": THOUGHT, "type": "summary_text"}],
            "type": "reasoning",
            "encrypted_content": "sealed",
        },
        said(1, "Let me see."),
        called("call_p", '{"city": "Paris"}'),
        called("call_k", '{"city":"Köln"}'),
        {"call_id": "call_p", "output": '{"temp":20.5}', "type": "function_call_output"},
        {"call_id": "call_k", "output": "No such city.", "type": "function_call_output"},
        said(2, "Paris 20.5."),
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And this?"},
                {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
            ],
        },
        said(3, "A dot."),
    ]


def llama_index() -> list[Any]:
    from llama_index.core.base.llms import types as t

    def call(call_id: str, city: str) -> Any:
        return t.ToolCallBlock(tool_call_id=call_id, tool_name="weather", tool_kwargs={"city": city})

    return [
        t.ChatMessage("Be terse.", role="system"),
        t.ChatMessage("Paris and Köln?", role="user"),
        t.ChatMessage(
            role="assistant",
            blocks=[
                t.ThinkingBlock(content=THOUGHT, additional_information={"signature": "sealed"}),
                t.TextBlock(text="Let me see."),
                call("call_p", "Paris"),
                call("call_k", "Köln"),
            ],
        ),
        t.ChatMessage('{"temp":20.5}', role="tool", additional_kwargs={"tool_call_id": "call_p"}),
        t.ChatMessage("No such city.", role="tool", additional_kwargs={"tool_call_id": "call_k"}),
        t.ChatMessage("Paris 20.5.", role="assistant"),
        t.ChatMessage(
            role="user",
            blocks=[t.TextBlock(text="And this?"), t.ImageBlock(image=PNG, image_mimetype="image/png")],
        ),
        t.ChatMessage("A dot.", role="assistant"),
    ]


def agent_framework() -> list[Any]:
    from agent_framework import Content, Message

    return [
        Message("system", ["Be terse."]),
        Message("user", ["Paris and Köln?"]),
        Message(
            "assistant",
            [
                Content.from_text_reasoning(id="rs_1", text=THOUGHT, protected_data="sealed"),
                Content.from_text("Let me see."),
                Content.from_function_call("call_p", "weather", arguments='{"city": "Paris"}'),
                Content.from_function_call("call_k", "weather", arguments={"city": "Köln"}),
            ],
        ),
        Message(
            "tool",
            [
                Content.from_function_result("call_p", result='{"temp":20.5}'),
                Content.from_function_result("call_k", result="No such city.", exception="ValueError"),
            ],
        ),
        Message("assistant", ["Paris 20.5."]),
        Message("user", ["And this?", Content.from_data(PNG, "image/png")]),
        Message("assistant", ["A dot."]),
    ]


def langchain() -> list[Any]:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    def call(call_id: str, city: str) -> Any:
        return {"name": "weather", "args": {"city": city}, "id": call_id, "type": "tool_call"}

    thought = {"type": "reasoning", "reasoning": THOUGHT, "extras": {"signature": "sealed"}}
    return [
        SystemMessage("Be terse."),
        HumanMessage("Paris and Köln?"),
        AIMessage(
            [thought, {"type": "text", "text": "Let me see."}],
            tool_calls=[call("call_p", "Paris"), call("call_k", "Köln")],
        ),
        ToolMessage('{"temp":20.5}', tool_call_id="call_p", name="weather"),
        ToolMessage("No such city.", tool_call_id="call_k", name="weather", status="error"),
        AIMessage("Paris 20.5."),
        HumanMessage(
            [
                {"type": "text", "text": "And this?"},
                {"type": "image", "base64": b64encode(PNG).decode(), "mime_type": "image/png"},
            ]
        ),
        AIMessage("A dot."),
    ]


CONVERSATIONS: dict[str, Callable[[], list[Any]]] = {
    "agent_framework": agent_framework,
    "langchain": langchain,
    "llama_index": llama_index,
    "openai": openai,
    "openai_responses": openai_responses,
    "pydantic_ai": pydantic_ai,
}
"""By format: as that framework itself would have it."""

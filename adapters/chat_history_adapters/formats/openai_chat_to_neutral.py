"""Chat Completions dicts as neutral messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from chat_history.messages import Message

from .neutral import Block, answer, content_parts, located, media_type_of, or_unknown, parsed_arguments, string

__all__ = ["to_neutral"]


NAMED = {
    "assistant": frozenset(
        {"role", "content", "name", "refusal", "audio", "tool_calls", "function_call", "annotations"}
        | {"reasoning_content", "reasoning"}
    ),
    "tool": frozenset({"role", "content", "name", "tool_call_id"}),
}
OTHERS_NAMED = frozenset({"role", "content", "name"})


def to_neutral(message: dict[str, Any]) -> Message:
    """A message of the same role. What is not built as the API has it is kept raw."""
    role = "tool" if message["role"] == "function" else message["role"]
    content = message.get("content")
    neutral: Message
    if role == "assistant":
        neutral = answer(_pieces(message))
    elif role == "tool":
        call_id = message.get("tool_call_id")
        neutral = {"role": role, "tool_call_id": call_id if isinstance(call_id, str) else None}
        neutral["content"] = _content(content)
    else:
        neutral = {"role": role, "content": _content(content)}
    if isinstance(message.get("name"), str):
        neutral["name"] = message["name"]
    named = NAMED.get(role, OTHERS_NAMED)
    own = {key: value for key, value in message.items() if key not in named and value is not None}
    if own:
        neutral["extra"] = {"openai": own}
    return neutral


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    if content is None:
        return []
    return [_or_unknown(_part, part) for part in (content if isinstance(content, list) else [content])]


def _or_unknown(make: Callable[[Any], dict[str, Any]], raw: Any) -> dict[str, Any]:
    return or_unknown(make, raw, "openai")


def _pieces(message: dict[str, Any]) -> list[Block]:
    pieces: list[Block] = []
    for key in ("reasoning_content", "reasoning"):
        thought = message.get(key)
        if isinstance(thought, str) and thought:
            pieces.append(("thinking", {"text": thought, "format": "openai"}))
            break
    content = content_parts(_content(message.get("content")))
    if message.get("tool_calls") and content == [{"type": "text", "text": ""}]:
        content = []
    _cite(content, message.get("annotations"))
    pieces += [("content", part) for part in content]
    if message.get("refusal"):
        pieces.append(("content", _or_unknown(_refusal, message["refusal"])))
    if message.get("audio"):
        pieces.append(("content", _or_unknown(_audio, message["audio"])))
    calls = message.get("tool_calls") or []
    calls = [*calls] if isinstance(calls, list) else [calls]
    if message.get("function_call"):
        calls.append({"function": message["function_call"]})
    for call in calls:
        made = _or_unknown(_call, call)
        pieces.append(("content" if made["type"] == "unknown" else "tool_calls", made))
    return pieces


def _cite(content: list[dict[str, Any]], annotations: Any) -> None:
    """Put citations, which the API has beside the content, to the text that they are of."""
    if not isinstance(annotations, list) or not annotations:
        return
    for part in content:
        if part["type"] == "text":
            part["citations"] = [_or_unknown(_citation, each) for each in annotations]
            return


def _citation(annotation: dict[str, Any]) -> dict[str, Any]:
    cited = annotation["url_citation"]
    citation = {"url": string(cited["url"]), "start": cited.get("start_index"), "end": cited.get("end_index")}
    if cited.get("title"):
        citation["title"] = string(cited["title"])
    return {**citation, "unit": "characters", "anchor": "marker"}


def _refusal(refusal: Any) -> dict[str, Any]:
    return {"type": "refusal", "refusal": string(refusal)}


def _audio(audio: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "audio", "provider": "openai"}
    part |= {key: string(audio[key]) for key in ("id", "data", "transcript") if audio.get(key) is not None}
    if audio.get("expires_at") is not None:
        part["expires_at"] = audio["expires_at"]
    return part


def _call(call: dict[str, Any]) -> dict[str, Any]:
    call_id = call.get("id")
    neutral: dict[str, Any] = {"id": call_id if isinstance(call_id, str) else None}
    if call.get("type") == "custom":
        custom = call["custom"]
        tool = {"name": string(custom["name"]), "input": string(custom.get("input") or "")}
        return {**neutral, "type": "custom", "custom": tool}
    function = call["function"]
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # some servers send the object itself
        arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    neutral |= {"type": "function", "function": {"name": string(function["name"]), "arguments": arguments}}
    parsed = parsed_arguments(arguments)
    if parsed is not None:
        neutral["parsed"] = parsed
    return neutral


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part["type"]
    if kind in ("text", "refusal"):
        return {"type": kind, kind: string(part[kind])}
    if kind == "image_url":
        image = part["image_url"]
        image = {"url": image} if isinstance(image, str) else image
        neutral = located("image", string(image["url"]))
        if image.get("detail"):
            neutral["detail"] = string(image["detail"])
        return neutral
    if kind == "input_audio":
        audio = part["input_audio"]
        media_type = media_type_of("audio", audio.get("format"))
        return {"type": "audio", "data": string(audio["data"]), "media_type": media_type}
    if kind == "file":
        file = part["file"]
        neutral = located("file", string(file["file_data"])) if file.get("file_data") else {"type": "file"}
        if file.get("file_id"):
            neutral |= {"file_id": string(file["file_id"]), "provider": "openai"}
        if file.get("filename"):
            neutral["name"] = string(file["filename"])
        return neutral
    raise TypeError(f"{kind!r} is not a content part of Chat Completions")

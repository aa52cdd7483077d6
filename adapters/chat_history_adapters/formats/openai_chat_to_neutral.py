"""Chat Completions dicts as neutral messages."""

from __future__ import annotations

import json
from typing import Any

from chat_history.messages import Message

from .neutral import Block, answer, content_parts, media_type_of, parsed_arguments, split_data_url

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
    try:
        return _neutral(message)
    except (KeyError, TypeError, AttributeError, ValueError):
        return {"role": message["role"], "content": [_unknown(message)]}


def _neutral(message: dict[str, Any]) -> Message:
    role = "tool" if message["role"] == "function" else message["role"]
    content = message.get("content")
    neutral: Message
    if role == "assistant":
        neutral = answer(_pieces(message))
    elif role == "tool":
        neutral = {"role": role, "tool_call_id": message.get("tool_call_id"), "content": _content(content)}
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
    if isinstance(content, list):
        return [_part(part) for part in content]
    return [_unknown(content)]


def _pieces(message: dict[str, Any]) -> list[Block]:
    pieces: list[Block] = []
    for key in ("reasoning_content", "reasoning"):
        thought = message.get(key)
        if isinstance(thought, str) and thought:
            pieces.append(("thinking", {"text": thought, "format": "openai"}))
            break
    content = _content(message.get("content"))
    for part in content_parts(content):
        if part.get("type") == "text" and not part.get("text") and message.get("tool_calls"):
            continue
        pieces.append(("content", part))
    annotations = message.get("annotations")
    if annotations:
        _cite(pieces, annotations)
    if message.get("refusal"):
        pieces.append(("content", {"type": "refusal", "refusal": message["refusal"]}))
    if message.get("audio"):
        pieces.append(("content", _audio(message["audio"])))
    for call in message.get("tool_calls") or ():
        pieces.append(("tool_calls", _call(call)))
    if message.get("function_call"):
        pieces.append(("tool_calls", _call({"id": None, "type": "function", "function": message["function_call"]})))
    return pieces


def _cite(pieces: list[Block], annotations: list[Any]) -> None:
    for key, part in pieces:
        if key == "content" and part.get("type") == "text":
            part["citations"] = [_citation(each) for each in annotations]
            return


def _citation(annotation: dict[str, Any]) -> dict[str, Any]:
    cited = annotation.get("url_citation")
    if annotation.get("type") != "url_citation" or not isinstance(cited, dict):
        return {"raw": annotation}
    citation = {key: cited[key] for key in ("url", "title") if cited.get(key)}
    span = {"start": cited.get("start_index"), "end": cited.get("end_index")}
    return {**citation, **span, "unit": "characters", "anchor": "marker"}


def _audio(audio: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "audio", "provider": "openai"}
    part |= {key: audio[key] for key in ("id", "data", "transcript", "expires_at") if audio.get(key) is not None}
    return part


def _call(call: dict[str, Any]) -> dict[str, Any]:
    if call.get("type") == "custom":
        custom = call["custom"]
        return {
            "id": call.get("id"),
            "type": "custom",
            "custom": {"name": custom["name"], "input": custom.get("input") or ""},
        }
    function = call["function"]
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # some servers send the object itself
        arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    neutral: dict[str, Any] = {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }
    parsed = parsed_arguments(arguments)
    if parsed is not None:
        neutral["parsed"] = parsed
    return neutral


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        return _unknown(part)
    kind = part.get("type")
    if kind in ("text", "refusal") and isinstance(part.get(kind), str):
        return {"type": kind, kind: part[kind]}
    if kind == "image_url":
        image = part["image_url"]
        image = {"url": image} if isinstance(image, str) else image
        neutral = _located("image", image["url"])
        if image.get("detail"):
            neutral["detail"] = image["detail"]
        return neutral
    if kind == "input_audio":
        audio = part["input_audio"]
        return {"type": "audio", "data": audio["data"], "media_type": media_type_of("audio", audio.get("format"))}
    if kind == "file":
        file = part["file"]
        neutral = _located("file", file["file_data"]) if file.get("file_data") else {"type": "file"}
        if file.get("file_id"):
            neutral |= {"file_id": file["file_id"], "provider": "openai"}
        if file.get("filename"):
            neutral["name"] = file["filename"]
        return neutral
    return _unknown(part)


def _located(kind: str, url: str) -> dict[str, Any]:
    split = split_data_url(url)
    if split is None:
        return {"type": kind, "url": url}
    media_type, data = split
    return {"type": kind, "data": data, "media_type": media_type}


def _unknown(raw: Any) -> dict[str, Any]:
    return {"type": "unknown", "format": "openai", "raw": raw}

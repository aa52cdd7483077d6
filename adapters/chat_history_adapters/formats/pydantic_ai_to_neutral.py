"""Pydantic AI's JSON as neutral messages, without importing Pydantic AI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chat_history.messages import Message

from .neutral import Block, answer, compact, media, parsed_arguments

__all__ = ["OUTCOMES", "to_neutral"]

FILE_TYPES = {"image-url": "image", "audio-url": "audio", "video-url": "video", "document-url": "file"}
OUTCOMES = {"failed": "error", "denied": "denied", "interrupted": "interrupted", "retried": "retried"}
"""A tool return's outcome, and the neutral one; a success is not mentioned."""


def to_neutral(message: dict[str, Any]) -> list[Message]:
    """A request as the messages of system, tools and user that it holds; a response as one of the assistant."""
    try:
        if message["kind"] == "request":
            return _request(message)
        return [_response(message)]
    except (KeyError, TypeError, AttributeError, ValueError):
        role = "assistant" if message.get("kind") == "response" else "system"
        return [{"role": role, "content": [_unknown(message)]}]


def _request(request: dict[str, Any]) -> list[Message]:
    messages = [_request_part(part) for part in request["parts"]]
    if not messages:
        if not request.get("instructions"):
            return []
        messages = [{"role": "user", "content": []}]
    ids = _ids(request)
    for message in messages:
        if request.get("timestamp"):
            message["sent_at"] = request["timestamp"]
            message.setdefault("created_at", request["timestamp"])
        if ids:
            message["ids"] = dict(ids)
    for key in ("instructions", "metadata"):
        if request.get(key):
            messages[0][key] = request[key]
    return messages


def _ids(message: dict[str, Any]) -> dict[str, str]:
    names = (("run", "run_id"), ("conversation", "conversation_id"), ("response", "provider_response_id"))
    return {name: message[key] for name, key in names if message.get(key)}


def _request_part(part: dict[str, Any]) -> Message:
    kind = part["part_kind"]
    message: Message
    if kind == "user-prompt":
        message = {"role": "user", "content": _content(part["content"])}
    elif kind == "system-prompt":
        message = {"role": "system", "content": part["content"]}
        _keep(message, part, ("content", "timestamp", "part_kind"), {"scope": "conversation"})
    elif kind == "tool-return" or (kind == "retry-prompt" and part.get("tool_name") is not None):
        message = _result(part)
    elif kind in ("retry-prompt", "retry-feedback"):
        message = {"role": "user", "kind": "retry", **_value(part["content"])}
        _keep(message, part, ("content", "timestamp", "part_kind", "tool_name", "tool_call_id"), {})
    elif kind == "speech":
        message = {"role": "user", "content": [_speech(part)]}
    else:
        return {"role": "system", "content": [_unknown(part)]}
    if part.get("timestamp"):
        message["created_at"] = part["timestamp"]
    return message


def _keep(holder: dict[str, Any], fields: dict[str, Any], but: Sequence[str], defaults: dict[str, Any]) -> None:
    """Keep the fields that have no neutral name under the name of this format."""
    own = {
        key: value
        for key, value in fields.items()
        if key not in but and value is not None and value != defaults.get(key)
    }
    if own:
        holder["extra"] = {"pydantic_ai": own}


def _result(part: dict[str, Any]) -> Message:
    message: Message = {
        "role": "tool",
        "tool_call_id": part.get("tool_call_id"),
        "name": part["tool_name"],
        **_value(part["content"]),
    }
    outcome = "retried" if part["part_kind"] == "retry-prompt" else OUTCOMES.get(part.get("outcome", ""))
    if outcome:
        message["outcome"] = outcome
    consumed = ("tool_name", "content", "tool_call_id", "timestamp", "outcome", "part_kind", "content_file_digests")
    _keep(message, part, consumed, {})
    return message


def _value(value: Any) -> Message:
    """A tool's result: as text, and as the value where that is not the text."""
    if isinstance(value, str):
        return {"content": value}
    items = value if isinstance(value, list) else [value]
    if any(_is_file(item) for item in items):
        return {"content": [_item(item) if _is_file(item) else _json(item) for item in items]}
    return {"content": "" if value is None else compact(value), "value": value}


def _is_file(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and (item.get("kind") in FILE_TYPES or item.get("kind") in ("binary", "uploaded-file"))
        and "media_type" in item
    )


def _json(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"type": "text", "text": value}
    return {"type": "text", "text": compact(value), "value": value}


def _content(content: str | list[Any]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_item(item) for item in content]


def _item(item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    kind = item["kind"]
    part: dict[str, Any]
    consumed = ("kind", "url", "data", "media_type", "file_id", "provider_name", "identifier")
    if kind in FILE_TYPES:
        part = {"type": FILE_TYPES[kind], "url": item["url"]}
    elif kind == "binary":
        part = {"type": media(item["media_type"]), "data": item["data"].replace("-", "+").replace("_", "/")}
    elif kind == "uploaded-file":
        part = {"type": "file", "file_id": item["file_id"], "provider": item["provider_name"]}
    elif kind in ("text-content", "structured-content"):
        part = {"type": "text", "text": item["content"]}
        part |= {key: item[key] for key in ("metadata", "value") if item.get(key) is not None}
        _keep(part, item, ("kind", "content", "metadata", "value"), {})
        return part
    elif kind == "cache-point":
        return {"type": "cache_point", "ttl": item.get("ttl", "5m")}
    else:
        return _unknown(item)
    part |= {key: item[key] for key in ("media_type", "identifier") if item.get(key)}
    vendor = item.get("vendor_metadata") or {}
    if isinstance(vendor.get("detail"), str):
        part["detail"] = vendor["detail"]
    _keep(part, item, consumed, {"force_download": False, "vendor_metadata": {"detail": part.get("detail")}})
    return part


def _unknown(raw: Any) -> dict[str, Any]:
    return {"type": "unknown", "format": "pydantic_ai", "raw": raw}


def _speech(part: dict[str, Any]) -> dict[str, Any]:
    spoken: dict[str, Any] = {"type": "audio"}
    if part.get("transcript") is not None:
        spoken["transcript"] = part["transcript"]
    if part.get("audio"):
        audio = _item(part["audio"])
        spoken |= {key: audio[key] for key in ("data", "media_type", "identifier") if key in audio}
    _keep(spoken, part, ("transcript", "audio", "speaker", "part_kind", "timestamp"), {})
    return spoken


def _response(response: dict[str, Any]) -> Message:
    own: dict[str, Any] = {}
    pieces = []
    for index, part in enumerate(response["parts"]):
        piece, left = _response_part(part)
        pieces.append(piece)
        if left:
            own.setdefault("parts", {})[str(index)] = left
    message = answer(pieces)
    if response.get("timestamp"):
        message["created_at"] = response["timestamp"]
    names = (("model_name", "model"), ("provider_name", "provider"), ("finish_reason", "finish_reason"))
    for key, name in (*names, ("metadata", "metadata")):
        if response.get(key):
            message[name] = response[key]
    usage = {key: value for key, value in (response.get("usage") or {}).items() if value}
    if usage:
        message["usage"] = usage
    ids = _ids(response)
    if ids:
        message["ids"] = ids
    for key, value in response.items():
        if value is not None and key not in RESPONSE_NAMED and (key, value) != ("state", "complete"):
            own[key] = value
    if own:
        message["extra"] = {"pydantic_ai": own}
    return message


RESPONSE_NAMED = frozenset(
    {
        "kind",
        "parts",
        "timestamp",
        "model_name",
        "provider_name",
        "finish_reason",
        "metadata",
        "usage",
        "run_id",
        "conversation_id",
        "provider_response_id",
    }
)


def _left(part: dict[str, Any], *named: str) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None and key not in named and key != "part_kind"}


def _response_part(part: dict[str, Any]) -> tuple[Block, dict[str, Any]]:
    kind = part["part_kind"]
    if kind == "text":
        text: dict[str, Any] = {"type": "text", "text": part["content"]}
        if part.get("citations"):
            text["citations"] = [_citation(source, each) for each in part["citations"] for source in each["sources"]]
        return ("content", text), _left(part, "content", "citations")
    if kind == "tool-call":
        return ("tool_calls", _call(part)), _left(part, "tool_name", "args", "tool_call_id")
    if kind == "thinking":
        thought = {"text": part["content"], "format": "pydantic_ai"}
        names = (("signature", "signature"), ("id", "id"), ("provider_name", "provider"))
        thought |= {name: part[key] for key, name in names if part.get(key)}
        return ("thinking", thought), _left(part, "content", "signature", "id", "provider_name")
    if kind in ("builtin-tool-call", "builtin-tool-return"):
        call = kind == "builtin-tool-call"
        tool = {
            "type": "server_tool_call" if call else "server_tool_result",
            "name": part["tool_name"],
            "id": part.get("tool_call_id"),
            "input" if call else "output": part.get("args" if call else "content"),
            "provider": part.get("provider_name"),
            "format": "pydantic_ai",
            "raw": part,
        }
        return ("content", tool), {}
    if kind == "file":
        return ("content", _item(part["content"])), _left(part, "content")
    if kind == "speech":
        return ("content", _speech(part)), {}
    return ("content", _unknown(part)), {}


def _citation(source: dict[str, Any], citation: dict[str, Any]) -> dict[str, Any]:
    cited = {key: source[key] for key in ("url", "title", "document_id", "excerpts") if source.get(key)}
    if anchor := citation.get("anchor"):
        cited |= {"start": anchor["start"], "end": anchor["end"], "unit": "characters", "anchor": anchor["kind"]}
    return cited


def _call(part: dict[str, Any]) -> dict[str, Any]:
    args = part.get("args")
    arguments = args if isinstance(args, str) else "" if args is None else compact(args)
    call: dict[str, Any] = {
        "id": part.get("tool_call_id"),
        "type": "function",
        "function": {"name": part["tool_name"], "arguments": arguments},
    }
    parsed = args if isinstance(args, dict) else parsed_arguments(arguments) if arguments else None
    if parsed is not None:
        call["parsed"] = parsed
    return call

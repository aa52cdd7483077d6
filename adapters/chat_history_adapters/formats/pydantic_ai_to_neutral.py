"""Pydantic AI's JSON as neutral messages, without importing Pydantic AI."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from chat_history.messages import Message

from .neutral import ODD, Block, answer, compact, media, or_unknown, parsed_arguments, string, strings, unknown

__all__ = ["FORMAT", "OUTCOMES", "to_neutral"]

FORMAT = "pydantic_ai"
FILE_TYPES = {"image-url": "image", "audio-url": "audio", "video-url": "video", "document-url": "file"}
OUTCOMES = {"failed": "error", "denied": "denied", "interrupted": "interrupted", "retried": "retried"}
"""A tool return's outcome, and the neutral one; a success is not mentioned."""

OF_THE_RUN = frozenset(
    {"instruction-baseline", "instruction-delta", "tool-availability-delta", "capability-load-delta"}
    | {"model-settings-delta"}
)
"""Parts in which a run records with what it began: left out as its instructions are."""


def to_neutral(message: dict[str, Any]) -> list[Message]:
    """A request as the messages of system, tools and user that it holds; a response as one of the assistant.

    What is not built as the known releases have it is kept raw.
    """
    try:
        return _request(message) if message["kind"] == "request" else [_response(message)]
    except ODD:
        role = "assistant" if message.get("kind") == "response" else "system"
        return [{"role": role, "content": [unknown(message, FORMAT)]}]


def _request(request: dict[str, Any]) -> list[Message]:
    messages = []
    for part in request["parts"]:
        if isinstance(part, dict) and part.get("part_kind") in OF_THE_RUN:
            continue
        try:
            messages.append(_request_part(part))
        except ODD:
            messages.append({"role": "system", "content": [unknown(part, FORMAT)]})
    if not messages:
        if not request.get("instructions"):
            return []
        messages = [{"role": "user", "content": []}]
    ids = strings(request, {"run_id": "run", "conversation_id": "conversation"})
    sent_at = request.get("timestamp")
    for message in messages:
        if sent_at and isinstance(sent_at, str):
            message["sent_at"] = sent_at
            message.setdefault("created_at", sent_at)
        if ids:
            message["ids"] = dict(ids)
    for key in ("instructions", "metadata"):
        if request.get(key):
            messages[0][key] = request[key]
    return messages


def _request_part(part: dict[str, Any]) -> Message:
    kind = part["part_kind"]
    message: Message
    if kind == "user-prompt":
        message = {"role": "user", "content": _content(part["content"])}
    elif kind == "system-prompt":
        message = {"role": "system", "content": string(part["content"])}
        _keep(message, part, ("content", "timestamp", "part_kind"), {"scope": "conversation"})
    elif kind == "tool-return" or (kind == "retry-prompt" and part.get("tool_name") is not None):
        message = _result(part)
    elif kind in ("retry-prompt", "retry-feedback"):
        message = {"role": "user", "kind": "retry", **_value(part["content"])}
        _keep(message, part, ("content", "timestamp", "part_kind", "tool_name", "tool_call_id"), {})
    elif kind == "speech":
        message = {"role": "user", "content": [_speech(part)]}
    elif kind == "compaction":  # the application's summary, which Pydantic AI tells every model as a user's words
        message = {"role": "user", "content": string(part["content"])}
        _keep(message, part, ("content", "part_kind"), {})
    else:
        raise ValueError(f"{kind!r} is not a part of a request")
    timestamp = part.get("timestamp")
    if timestamp and isinstance(timestamp, str):
        message["created_at"] = timestamp
    return message


def _keep(holder: dict[str, Any], fields: dict[str, Any], but: Collection[str], defaults: dict[str, Any]) -> None:
    """Keep the fields that have no neutral name under the name of this format."""
    own = {}
    for key, value in fields.items():
        if key not in but and value is not None and value != defaults.get(key):
            own[key] = value
    if own:
        holder["extra"] = {FORMAT: own}


def _result(part: dict[str, Any]) -> Message:
    message: Message = {
        "role": "tool",
        "tool_call_id": _call_id(part),
        "name": string(part["tool_name"]),
        **_value(part["content"]),
    }
    outcome = "retried" if part["part_kind"] == "retry-prompt" else OUTCOMES.get(part.get("outcome", ""))
    if outcome:
        message["outcome"] = outcome
    consumed = ("tool_name", "content", "tool_call_id", "timestamp", "outcome", "part_kind", "content_file_digests")
    _keep(message, part, consumed, {})
    return message


def _call_id(part: dict[str, Any]) -> str | None:
    return string(part["tool_call_id"]) if part.get("tool_call_id") else None


def _value(value: Any) -> Message:
    """A tool's result: as text, and as the value where that is not the text."""
    if isinstance(value, str):
        return {"content": value}
    items = value if isinstance(value, list) else [value]
    if any(map(_is_file, items)):
        return {"content": [or_unknown(_item, item, FORMAT) if _is_file(item) else _json(item) for item in items]}
    return {"content": "" if value is None else compact(value), "value": value}


def _is_file(item: Any) -> bool:
    if not isinstance(item, dict) or "media_type" not in item:
        return False
    kind = item.get("kind")
    return isinstance(kind, str) and (kind in FILE_TYPES or kind in ("binary", "uploaded-file"))


def _json(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"type": "text", "text": value}
    return {"type": "text", "text": compact(value), "value": value}


def _content(content: Any) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [or_unknown(_item, item, FORMAT) for item in content]


def _item(item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    kind = item["kind"]
    part: dict[str, Any]
    if kind in FILE_TYPES:
        part = {"type": FILE_TYPES[kind], "url": string(item["url"])}
    elif kind == "binary":
        part = {"type": media(item["media_type"]), "data": item["data"].replace("-", "+").replace("_", "/")}
    elif kind == "uploaded-file":
        part = {"type": "file", "file_id": string(item["file_id"]), "provider": string(item["provider_name"])}
    elif kind in ("text-content", "structured-content"):
        part = {"type": "text", "text": string(item["content"])}
        part |= {key: item[key] for key in ("metadata", "value") if item.get(key) is not None}
        _keep(part, item, ("kind", "content", "metadata", "value"), {})
        return part
    elif kind == "cache-point":
        return {"type": "cache_point", "ttl": string(item.get("ttl", "5m"))}
    else:
        raise ValueError(f"{kind!r} is not an item of content")
    part |= strings(item, {"media_type": "media_type", "identifier": "identifier"})
    if item.get("vendor_metadata"):
        part |= strings(item["vendor_metadata"], {"detail": "detail"})
    consumed = ("kind", "url", "data", "media_type", "file_id", "provider_name", "identifier")
    _keep(part, item, consumed, {"force_download": False, "vendor_metadata": {"detail": part.get("detail")}})
    return part


def _speech(part: dict[str, Any]) -> dict[str, Any]:
    spoken: dict[str, Any] = {"type": "audio", **strings(part, {"transcript": "transcript"})}
    if part.get("audio"):
        spoken |= strings(
            _item(part["audio"]), {"data": "data", "media_type": "media_type", "identifier": "identifier"}
        )
    _keep(spoken, part, ("transcript", "audio", "speaker", "part_kind", "timestamp"), {})
    return spoken


RESPONSE_NAMES = {
    "timestamp": "created_at",
    "model_name": "model",
    "provider_name": "provider",
    "finish_reason": "finish_reason",
}
RESPONSE_IDS = {"run_id": "run", "conversation_id": "conversation", "provider_response_id": "response"}
RESPONSE_NAMED = frozenset({"kind", "parts", "metadata", "usage", *RESPONSE_NAMES, *RESPONSE_IDS})


def _response(response: dict[str, Any]) -> Message:
    own: dict[str, Any] = {}
    pieces: list[Block] = []
    for index, part in enumerate(response["parts"]):
        try:
            key, piece, named = _response_part(part)
        except ODD:
            key, piece, named = "content", unknown(part, FORMAT), None
        pieces.append((key, piece))
        if named is not None and (left := _left(part, named)):
            own.setdefault("parts", {})[str(index)] = left
    message = answer(pieces)
    message |= strings(response, RESPONSE_NAMES)
    if response.get("metadata"):
        message["metadata"] = response["metadata"]
    usage = {key: value for key, value in (response.get("usage") or {}).items() if value}
    if usage:
        message["usage"] = usage
    ids = strings(response, RESPONSE_IDS)
    if ids:
        message["ids"] = ids
    own |= _left(response, RESPONSE_NAMED)
    if own.get("state") == "complete":
        del own["state"]
    if own:
        message["extra"] = {FORMAT: own}
    return message


def _left(part: dict[str, Any], named: Collection[str]) -> dict[str, Any]:
    left = {}
    for key, value in part.items():
        if key not in named and value is not None:
            left[key] = value
    return left


TEXT_NAMED = frozenset({"part_kind", "content", "citations"})
CALL_NAMED = frozenset({"part_kind", "tool_name", "args", "tool_call_id"})
THOUGHT_NAMED = frozenset({"part_kind", "content", "signature", "id", "provider_name"})
FILE_NAMED = frozenset({"part_kind", "content"})


def _response_part(part: dict[str, Any]) -> tuple[str, dict[str, Any], Collection[str] | None]:
    """The part as a block of the answer, and which of its fields that says; None if all that is left is in it too."""
    kind = part["part_kind"]
    if kind == "text":
        text: dict[str, Any] = {"type": "text", "text": string(part["content"])}
        if part.get("citations"):
            text["citations"] = [_citation(source, each) for each in part["citations"] for source in each["sources"]]
        return "content", text, TEXT_NAMED
    if kind == "tool-call":
        return "tool_calls", _call(part), CALL_NAMED
    if kind == "thinking":
        thought = {"text": string(part["content"]), "format": FORMAT}
        thought |= strings(part, {"signature": "signature", "id": "id", "provider_name": "provider"})
        return "thinking", thought, THOUGHT_NAMED
    if kind in ("builtin-tool-call", "builtin-tool-return"):
        return "content", _server_tool(part, call=kind == "builtin-tool-call"), None
    if kind == "file":
        return "content", _item(part["content"]), FILE_NAMED
    if kind == "speech":
        return "content", _speech(part), None
    raise ValueError(f"{kind!r} is not a part of a response")


def _server_tool(part: dict[str, Any], *, call: bool) -> dict[str, Any]:
    tool = {"type": "server_tool_call", "name": string(part["tool_name"]), "input": part.get("args")}
    if not call:
        tool = {"type": "server_tool_result", "name": string(part["tool_name"]), "output": part["content"]}
    tool |= strings(part, {"tool_call_id": "id", "provider_name": "provider"})
    return {**tool, "format": FORMAT, "raw": part}


def _citation(source: dict[str, Any], citation: dict[str, Any]) -> dict[str, Any]:
    cited: dict[str, Any] = {**strings(source, {"url": "url", "title": "title", "document_id": "document_id"})}
    if source.get("excerpts"):
        cited["excerpts"] = list(map(string, source["excerpts"]))
    if anchor := citation.get("anchor"):
        cited |= {"start": anchor["start"], "end": anchor["end"], "unit": "characters", "anchor": anchor["kind"]}
    return cited


def _call(part: dict[str, Any]) -> dict[str, Any]:
    args = part.get("args")
    arguments = args if isinstance(args, str) else "" if args is None else compact(args)
    call: dict[str, Any] = {
        "id": _call_id(part),
        "type": "function",
        "function": {"name": string(part["tool_name"]), "arguments": arguments},
    }
    parsed = args if isinstance(args, dict) else parsed_arguments(arguments) if arguments else None
    if parsed is not None:
        call["parsed"] = parsed
    return call

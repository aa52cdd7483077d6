"""Agent Framework's JSON as neutral messages, without importing Agent Framework."""

from __future__ import annotations

from typing import Any

from chat_history.messages import Message

from .neutral import (
    ODD,
    Block,
    answer,
    compact,
    media,
    or_unknown,
    parsed_arguments,
    split_data_url,
    string,
    strings,
    unknown,
)

__all__ = ["FORMAT", "THOUGHTS", "to_neutral"]

FORMAT = "agent_framework"
THOUGHTS = "chat_history_thoughts"
"""Under this property a message keeps the thoughts of another framework's model. Among its contents the framework's
client for Responses refuses those that a call follows, also in the next message, because it could not send them back as
they were, and its client for Chat Completions sends them as words that were said."""
UNNAMED = "UnnamedAgent"
"""What the framework says where an agent has no name."""
USAGE = {
    "input_token_count": "input_tokens",
    "output_token_count": "output_tokens",
    "total_token_count": "total_tokens",
    "cache_creation_input_token_count": "cache_write_tokens",
    "cache_read_input_token_count": "cache_read_tokens",
    "reasoning_output_token_count": "reasoning_tokens",
}


def to_neutral(message: dict[str, Any]) -> list[Message]:
    """A message of the same role, and one for each result of a tool.

    What is not built as the known releases have it is kept raw.
    """
    try:
        return _messages(message)
    except ODD:
        role = "assistant" if message.get("role") == "assistant" else "system"
        return [{"role": role, "content": [unknown(message, FORMAT)]}]


def _messages(message: dict[str, Any]) -> list[Message]:
    role = string(message["role"])
    messages: list[Message] = []
    pieces: list[Block] = []
    own: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    hosted: dict[str, str] = {}
    if kept := (message.get("additional_properties") or {}).get(THOUGHTS):
        pieces += [("thinking", {"text": string(text)}) for text in kept]
    for index, content in enumerate(message["contents"]):
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "usage":
            usage |= _usage(content)
        elif kind == "function_result" and content.get("call_id") not in hosted:
            if pieces:
                messages.append(_said(role, pieces))
                pieces = []
            messages.append(_result_or_unknown(content))
        else:
            if kind == "function_call" and (content.get("hosted") or content.get("informational_only")):
                hosted[content.get("call_id") or ""] = str(content.get("name"))
            pieces.append(_piece(content, hosted))
        if (named := LEFT.get(kind)) and (left := _left(content, named)):
            own.setdefault("parts", {})[str(index)] = left
    if pieces or not messages:
        messages.append(_said(role, pieces))
    if usage:
        messages[0]["usage"] = usage
    name = message.get("author_name")
    ids = strings(message, {"message_id": "message"})
    for each in messages:
        if isinstance(name, str) and name not in ("", UNNAMED) and each["role"] != "tool":
            each["name"] = name
        if ids:
            each["ids"] = dict(ids)
    own |= _left(message, NAMED)
    if name and "name" not in messages[0]:
        own["author_name"] = name
    if own:
        messages[0]["extra"] = {FORMAT: own}
    return messages


NAMED = frozenset({"type", "role", "contents", "author_name", "message_id"})
_MEDIA = frozenset({"type", "uri", "media_type", "name"})
LEFT: dict[Any, frozenset[str]] = {
    "text": frozenset({"type", "text", "annotations"}),
    "text_reasoning": frozenset({"type", "text", "protected_data", "id"}),
    "function_call": frozenset({"type", "call_id", "name", "arguments"}),
    "function_result": frozenset({"type", "call_id", "result", "items", "exception"}),
    "data": _MEDIA,
    "uri": _MEDIA,
    "hosted_file": frozenset({"type", "file_id", "media_type", "name"}),
}
"""Of each kind of content the fields that have neutral names; the others are kept under the format's."""


def _left(content: dict[str, Any], named: frozenset[str]) -> dict[str, Any]:
    left = {}
    for key, value in content.items():
        if key not in named and value:
            left[key] = value
    return left


def _said(role: str, pieces: list[Block]) -> Message:
    """What stands between results of tools."""
    if role == "assistant" or any(key != "content" for key, _ in pieces):
        return answer(pieces)
    content: Any = [item for _, item in pieces]
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        content = content[0]["text"]
    return {"role": role, "content": content}


def _piece(content: Any, hosted: dict[str, str]) -> Block:
    try:
        kind = content["type"]
        if kind == "function_call" and content.get("call_id") not in hosted:
            return "tool_calls", _call(content)
        if kind == "text_reasoning":
            return "thinking", _thought(content)
        if kind in ("function_call", "function_result") or kind.endswith(("_tool_call", "_tool_result")):
            return "content", _server_tool(kind, content, hosted)
        return "content", _part(content)
    except ODD:
        return "content", unknown(content, FORMAT)


def _part(content: dict[str, Any]) -> dict[str, Any]:
    kind = content["type"]
    part: dict[str, Any]
    if kind == "text":
        text = string(content["text"])
        if _is_refusal(content.get("additional_properties")):
            return {"type": "refusal", "refusal": text}
        part = {"type": "text", "text": text}
        if content.get("annotations"):
            cited = [or_unknown(_citation, each, FORMAT) for each in content["annotations"]]
            part["citations"] = cited
        return part
    if kind in ("data", "uri"):
        uri, media_type = string(content["uri"]), content.get("media_type")
        if uri.startswith("data:"):
            split = split_data_url(uri)
            if split is None:
                raise ValueError("only base64 is read out of data URLs")
            media_type = media_type or split[0]
            part = {"type": media(media_type), "data": split[1], "media_type": media_type}
        else:
            part = {"type": media(media_type), "url": uri, **strings(content, {"media_type": "media_type"})}
        detail = strings(content.get("additional_properties") or {}, {"detail": "detail"})
        return part | strings(content, {"name": "name"}) | detail
    if kind == "hosted_file":
        part = {"type": media(content.get("media_type")), "file_id": string(content["file_id"])}
        own = content.get("additional_properties") or {}
        part |= strings(content, {"media_type": "media_type", "name": "name"})
        return part | strings(own, {"provider": "provider", "detail": "detail"})
    raise ValueError(f"{kind!r} has no neutral name")


def _is_refusal(properties: Any) -> bool:
    if not properties:
        return False
    core = properties.get("core")
    return "refusal" in (
        core.get("model_output_kind") if isinstance(core, dict) else None,
        properties.get("model_output_kind"),
    )


def _citation(annotation: dict[str, Any]) -> dict[str, Any]:
    if annotation["type"] != "citation":
        raise ValueError(f"{annotation['type']!r} is not a citation")
    cited: dict[str, Any] = {**strings(annotation, {"url": "url", "title": "title", "file_id": "document_id"})}
    if annotation.get("snippet"):
        cited["excerpts"] = [string(annotation["snippet"])]
    regions = annotation.get("annotated_regions")
    if regions:
        region = regions[0]
        cited |= {"start": region["start_index"], "end": region["end_index"], "unit": "characters", "anchor": "content"}
    return cited


def _thought(content: dict[str, Any]) -> dict[str, Any]:
    thought = {"text": string(content.get("text") or ""), "format": FORMAT}
    return thought | strings(content, {"protected_data": "ciphertext", "id": "id"})


def _call(content: dict[str, Any]) -> dict[str, Any]:
    args = content.get("arguments")
    arguments = args if isinstance(args, str) else "" if args is None else compact(args)
    call: dict[str, Any] = {
        "id": _call_id(content),
        "type": "function",
        "function": {"name": string(content["name"]), "arguments": arguments},
    }
    parsed = args if isinstance(args, dict) else parsed_arguments(arguments) if arguments else None
    if parsed is not None:
        call["parsed"] = parsed
    return call


def _call_id(content: dict[str, Any]) -> str | None:
    return string(content["call_id"]) if content.get("call_id") else None


def _result_or_unknown(content: dict[str, Any]) -> Message:
    try:
        message: Message = {"role": "tool", "tool_call_id": _call_id(content), **_value(content)}
    except ODD:
        return {"role": "system", "content": [unknown(content, FORMAT)]}
    if content.get("exception") is not None:
        message["outcome"] = "error"
    return message


def _value(content: dict[str, Any]) -> Message:
    """What a tool gave: its items where they say more than the text."""
    items, value = content.get("items") or [], content.get("result")
    if len(items) > 1 or any(item["type"] != "text" for item in items):
        return {"content": [or_unknown(_part, item, FORMAT) for item in items]}
    if value is None:
        return {"content": string(items[0]["text"]) if items else ""}
    if isinstance(value, str):
        return {"content": value}
    return {"content": compact(value), "value": value}


def _server_tool(kind: str, content: dict[str, Any], hosted: dict[str, str]) -> dict[str, Any]:
    call_id = content.get("call_id") or content.get("image_id") or content.get("id")
    name = content.get("tool_name") or content.get("name") or hosted.get(call_id or "") or ""
    tool: dict[str, Any]
    if kind.endswith("call"):
        name = name or kind.removesuffix("_call")
        given = (content.get(key) for key in ("arguments", "inputs", "commands", "actions"))
        tool = {"type": "server_tool_call", "name": string(name), "input": next(filter(None, given), None)}
    else:
        name = name or kind.removesuffix("_result")
        gave = (content.get(key) for key in ("result", "outputs", "output", "items", "screenshot"))
        tool = {"type": "server_tool_result", "name": string(name), "output": next(filter(None, gave), None)}
    if isinstance(call_id, str):
        tool["id"] = call_id
    return {**tool, "format": FORMAT, "raw": content}


def _usage(content: dict[str, Any]) -> dict[str, Any]:
    counted = content.get("usage_details")
    if not isinstance(counted, dict):
        return {}
    return {USAGE.get(key) or key: value for key, value in counted.items() if value}

"""LangChain's JSON as neutral messages, without importing LangChain."""

from __future__ import annotations

from typing import Any

from chat_history.messages import Message

from .neutral import (
    ODD,
    Block,
    answer,
    compact,
    media,
    media_type_of,
    or_unknown,
    parsed_arguments,
    split_data_url,
    string,
    strings,
    unknown,
)

__all__ = ["DEVELOPER", "FORMAT", "ROLES", "to_neutral"]

FORMAT = "langchain"
DEVELOPER = "__openai_role__"
"""Under this key LangChain keeps which of the two roles a system message had."""
ROLES = {
    "human": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
    "function": "tool",
    "FunctionMessageChunk": "tool",
}
"""What each class of message is. Chat messages say their role themselves."""


def to_neutral(message: dict[str, Any]) -> Message:
    """One message. What is not built as the known releases have it is kept raw."""
    try:
        return _message(message["type"], message["data"])
    except ODD:
        kind = message.get("type")
        role = "assistant" if isinstance(kind, str) and ROLES.get(kind) == "assistant" else "system"
        return {"role": role, "content": [unknown(message, FORMAT)]}


def _message(kind: str, data: dict[str, Any]) -> Message:
    role = string(data["role"]) if kind.startswith(("chat", "ChatMessage")) else ROLES[kind]
    kwargs = data.get("additional_kwargs") or {}
    if role == "system" and kwargs.get(DEVELOPER) == "developer":
        role = "developer"
    message: Message
    if role == "assistant":
        message = answer(_pieces(data, kwargs))
        _describe(message, data)
    else:
        message = {"role": role, "content": _content(data["content"])}
        if role == "tool":
            message["tool_call_id"] = string(data["tool_call_id"]) if data.get("tool_call_id") else None
            if data.get("status") == "error":
                message["outcome"] = "error"
    message |= strings(data, {"name": "name"})
    if ids := strings(data, {"id": "message"}):
        message["ids"] = ids
    own = {key: value for key, value in data.items() if key not in NAMED and value}
    kept = {key: value for key, value in kwargs.items() if key not in NAMED_KWARGS}
    if kept:
        own["additional_kwargs"] = kept
    if own:
        message["extra"] = {FORMAT: own}
    return message


NAMED = frozenset(
    {"type", "role", "content", "name", "id", "additional_kwargs", "tool_call_id", "status"}
    | {"tool_calls", "invalid_tool_calls", "usage_metadata", "tool_call_chunks", "chunk_position"}
)
NAMED_KWARGS = frozenset({DEVELOPER, "tool_calls", "function_call", "refusal", "reasoning_content"})


def _describe(message: Message, data: dict[str, Any]) -> None:
    """Whose answer it is, why it ended and what it took."""
    said = data.get("response_metadata")
    if isinstance(said, dict):
        message |= strings(said, SAID)
    counted = data.get("usage_metadata")
    if isinstance(counted, dict):
        usage = {key: value for key, value in counted.items() if value and key != "input_token_details"}
        details = counted.get("input_token_details")
        if isinstance(details, dict):
            usage |= {INPUT_DETAILS.get(key, f"input_{key}_tokens"): count for key, count in details.items() if count}
        if usage:
            message["usage"] = usage


SAID = {
    "model": "model",
    "model_name": "model",
    "stop_reason": "finish_reason",
    "finish_reason": "finish_reason",
    "model_provider": "provider",
}
"""Of two fields of one meaning the later is believed."""
INPUT_DETAILS = {"cache_read": "cache_read_tokens", "cache_creation": "cache_write_tokens"}


def _content(content: Any) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [or_unknown(_part, block, FORMAT) for block in content]


def _pieces(data: dict[str, Any], kwargs: dict[str, Any]) -> list[Block]:
    calls = _calls(data, kwargs)
    pieces: list[Block] = []
    content = data["content"]
    if isinstance(content, str):
        if content or not calls:
            pieces.append(("content", {"type": "text", "text": content}))
        content = ()
    names: dict[str, str] = {}
    for block in content:
        pieces.append(_piece(block, calls, names))
    thought = kwargs.get("reasoning_content")
    if isinstance(thought, str) and thought and not any(key == "thinking" for key, _ in pieces):
        pieces.insert(0, ("thinking", {"text": thought, "format": FORMAT}))
    if isinstance(kwargs.get("refusal"), str) and kwargs["refusal"]:
        if pieces == [("content", {"type": "text", "text": ""})]:
            pieces.clear()
        pieces.append(("content", {"type": "refusal", "refusal": kwargs["refusal"]}))
    provider = strings(data.get("response_metadata") or {}, {"model_provider": "provider"})
    if provider:
        for key, item in pieces:
            if key == "thinking" or item.get("file_id"):
                item |= provider
    return pieces + [("content" if call.get("type") == "unknown" else "tool_calls", call) for call in calls]


def _calls(data: dict[str, Any], kwargs: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of tools, in the order and with the arguments that the model wrote, where LangChain has kept those."""
    written = kwargs.get("tool_calls")
    raw: dict[str, str] = {}
    for each in written if isinstance(written, list) else ():
        try:
            raw[string(each["id"])] = string(each["function"]["arguments"])
        except ODD:
            continue
    calls = [
        or_unknown(lambda call: _call(call["name"], call["id"], call["args"], raw), each, FORMAT)
        for key in ("tool_calls", "invalid_tool_calls")
        for each in data.get(key) or ()
    ]
    if raw:
        places = {call_id: place for place, call_id in enumerate(raw)}
        calls.sort(key=lambda call: places.get(call.get("id") or "", len(places)))
    if not calls and kwargs.get("function_call"):
        make = or_unknown(
            lambda call: _call(call["name"], None, call["arguments"], {}), kwargs["function_call"], FORMAT
        )
        calls.append(make)
    return calls


def _call(name: Any, call_id: Any, args: Any, raw: dict[str, str]) -> dict[str, Any]:
    call_id = string(call_id) if call_id else None
    arguments = args if isinstance(args, str) else "" if args is None else compact(args)
    arguments = raw.get(call_id or "", arguments)
    call: dict[str, Any] = {
        "id": call_id,
        "type": "function",
        "function": {"name": string(name), "arguments": arguments},
    }
    parsed = args if isinstance(args, dict) else parsed_arguments(arguments) if arguments else None
    if parsed is not None and arguments:
        call["parsed"] = parsed
    return call


CALLS = {"tool_call": "args", "tool_use": "input", "function_call": "arguments", "invalid_tool_call": "args"}
"""Blocks of the content that say where a call stands, and where they have its arguments."""


def _piece(block: Any, calls: list[dict[str, Any]], names: dict[str, str]) -> Block:
    try:
        if isinstance(block, str):
            return "content", {"type": "text", "text": block}
        kind = block["type"]
        if kind in CALLS:
            call_id = block.get("call_id") or block.get("id")
            for place, call in enumerate(calls):
                if call_id and call.get("id") == call_id:
                    return "tool_calls", calls.pop(place)
            return "tool_calls", _call(block["name"], call_id, block[CALLS[kind]], {})
        if kind in ("reasoning", "thinking", "redacted_thinking"):
            return "thinking", _thought(block)
        if kind in ("server_tool_call", "server_tool_result"):
            return "content", _server_tool(block, names)
        return "content", _part(block)
    except ODD:
        return "content", unknown(block, FORMAT)


def _thought(block: dict[str, Any]) -> dict[str, Any]:
    thought = {"text": string(block.get("reasoning") or block.get("thinking") or ""), "format": FORMAT}
    if isinstance(block.get("summary"), list):
        thought |= {"summary": "\n".join(string(each["text"]) for each in block["summary"])}
    for holder in (block.get("extras") or {}, block):
        thought |= strings(holder, {"signature": "signature", "encrypted_content": "ciphertext"})
    return thought | strings(block, {"id": "id"}) | strings(block, {"data": "ciphertext"})


def _server_tool(block: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    if block["type"] == "server_tool_call":
        call_id = block.get("id")
        tool = {"type": block["type"], "name": string(block["name"]), "input": block.get("args")}
        if isinstance(call_id, str):
            names[call_id] = tool["name"]
    else:
        call_id = block.get("tool_call_id")
        name = names.get(call_id, "server_tool") if isinstance(call_id, str) else "server_tool"
        tool = {"type": block["type"], "name": name, "output": block.get("output")}
    if isinstance(call_id, str):
        tool["id"] = call_id
    return {**tool, "format": FORMAT, "raw": block}


def _part(block: Any) -> dict[str, Any]:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind = block["type"]
    if kind == "text":
        part: dict[str, Any] = {"type": "text", "text": string(block["text"])}
        if block.get("annotations"):
            part["citations"] = [or_unknown(_citation, each, FORMAT) for each in block["annotations"]]
        return part
    if kind == "refusal":
        return {"type": "refusal", "refusal": string(block["refusal"])}
    if kind == "json":
        return {"type": "text", "text": compact(block["json"]), "value": block["json"]}
    if kind == "text-plain" and block.get("text"):
        return {"type": "text", "text": string(block["text"])}
    if kind == "image_url":
        image = block["image_url"]
        image = {"url": image} if isinstance(image, str) else image
        return _located("image", string(image["url"]), None) | strings(image, {"detail": "detail"})
    if kind == "input_audio":
        audio = block["input_audio"]
        media_type = media_type_of("audio", audio.get("format"))
        return {"type": "audio", "data": string(audio["data"]), "media_type": media_type}
    if kind == "file" and "file" in block:
        file = block["file"]
        part = _located("file", string(file["file_data"]), None) if file.get("file_data") else {"type": "file"}
        if "data" not in part and "url" not in part:
            part["file_id"] = string(file["file_id"])
        return part | strings(file, {"filename": "name"})
    if kind in MEDIA:
        return _media(MEDIA[kind], block)
    raise ValueError(f"{kind!r} is not a block that has a neutral name")


MEDIA = {
    "image": "image",
    "audio": "audio",
    "video": "video",
    "file": "file",
    "text-plain": "file",
    "document": "file",
    "media": "",
}


def _media(kind: str, block: dict[str, Any]) -> dict[str, Any]:
    """An image, a sound or a file of LangChain's standard blocks, new or old, and of Anthropic's and Google's."""
    source = block["source"] if isinstance(block.get("source"), dict) else block
    media_type = source.get("mime_type") or source.get("media_type")
    media_type = string(media_type) if media_type else None
    kind = kind or media(media_type)
    data = source.get("base64") or source.get("data")
    url = source.get("url") or source.get("file_uri")
    file_id = source.get("file_id") or (source.get("id") if source.get("source_type") == "id" else None)
    if data:
        part: dict[str, Any] = {"type": kind, "data": string(data), "media_type": media_type}
    elif url:
        part = _located(kind, string(url), media_type)
    else:
        part = {
            "type": kind,
            "file_id": string(file_id),
            **strings(block.get("extras") or {}, {"provider": "provider"}),
        }
        if media_type:
            part["media_type"] = media_type
    for holder in (block.get("metadata"), block.get("extras"), block):
        if holder:
            part |= strings(holder, DESCRIBED)
    return part


DESCRIBED = {"title": "name", "name": "name", "filename": "name", "detail": "detail"}
"""Of several names the last is taken."""


def _located(kind: str, url: str, media_type: str | None) -> dict[str, Any]:
    split = split_data_url(url)
    if split is not None:
        return {"type": kind, "data": split[1], "media_type": media_type or split[0]}
    part = {"type": kind, "url": url}
    if media_type:
        part["media_type"] = media_type
    return part


def _citation(annotation: dict[str, Any]) -> dict[str, Any]:
    if annotation["type"] not in ("citation", "url_citation"):
        raise ValueError(f"{annotation['type']!r} is not a citation")
    cited: dict[str, Any] = {**strings(annotation, {"url": "url", "title": "title"})}
    cited |= strings(annotation.get("extras") or {}, {"document_id": "document_id"})
    if annotation.get("cited_text"):
        cited["excerpts"] = [string(annotation["cited_text"])]
    if annotation.get("end_index") is not None:
        cited |= {"start": annotation["start_index"], "end": annotation["end_index"], "unit": "characters"}
        cited["anchor"] = "content"
    return cited

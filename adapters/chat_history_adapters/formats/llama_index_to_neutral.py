"""LlamaIndex's JSON as neutral messages, without importing LlamaIndex."""

from __future__ import annotations

import json
from typing import Any

from chat_history.messages import Message

from .neutral import (
    ODD,
    Block,
    answer,
    compact,
    media_type_of,
    or_unknown,
    parsed_arguments,
    string,
    strings,
    unknown,
)

__all__ = ["FORMAT", "ROLES", "to_neutral"]

FORMAT = "llama_index"
ROLES = {"function": "tool", "chatbot": "assistant", "model": "assistant"}
"""Roles that other names stand for here."""
USAGE = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"} | {
    key: key for key in ("input_tokens", "output_tokens")
}


def to_neutral(message: dict[str, Any]) -> Message:
    """A message of the same role. What is not built as the known releases have it is kept raw."""
    try:
        return _message(message)
    except ODD:
        role = "assistant" if message.get("role") in ("assistant", "chatbot", "model") else "system"
        return {"role": role, "content": [unknown(message, FORMAT)]}


def _message(message: dict[str, Any]) -> Message:
    role = ROLES.get(message["role"], message["role"])
    own = {key: value for key, value in (message.get("additional_kwargs") or {}).items() if value is not None}
    blocks = message["blocks"]
    neutral: Message
    if role == "assistant":
        neutral = answer(_pieces(blocks, own))
        usage = own.get("usage")
        if isinstance(usage, dict):
            counts = {USAGE[key]: count for key, count in usage.items() if key in USAGE and type(count) is int}
            if counts:
                neutral["usage"] = counts
    else:
        content = _content(blocks)
        only_text = len(content) == 1 and content[0].keys() == {"type", "text"}
        neutral = {"role": string(role), "content": content[0]["text"] if only_text else content}
        if role == "tool":
            call_id = own.pop("tool_call_id", None)
            neutral["tool_call_id"] = call_id if isinstance(call_id, str) else None
            if isinstance(own.get("name"), str):
                neutral["name"] = own.pop("name")
    if own:
        neutral["extra"] = {FORMAT: own}
    return neutral


def _content(blocks: list[Any]) -> list[dict[str, Any]]:
    content = []
    for block in blocks:
        if isinstance(block, dict) and block.get("block_type") == "citable":
            content += _citable(block)
        else:
            content.append(or_unknown(_part, block, FORMAT))
    return content


def _citable(block: dict[str, Any]) -> list[dict[str, Any]]:
    """What may be cited, and what it is called, for which there is no neutral name."""
    try:
        inner = [or_unknown(_part, each, FORMAT) for each in block["content"]]
    except ODD:
        return [unknown(block, FORMAT)]
    return [unknown({key: value for key, value in block.items() if key != "content"}, FORMAT), *inner]


def _pieces(blocks: list[Any], own: dict[str, Any]) -> list[Block]:
    pieces: list[Block] = []
    has_calls = False
    for block in blocks:
        kind = block.get("block_type") if isinstance(block, dict) else None
        if kind == "thinking":
            made = or_unknown(_thought, block, FORMAT)
            pieces.append(("content" if made.get("type") == "unknown" else "thinking", made))
        elif kind == "tool_call":
            made = or_unknown(_call, block, FORMAT)
            has_calls = True
            pieces.append(("content" if made["type"] == "unknown" else "tool_calls", made))
        elif kind == "citation":
            cited = or_unknown(_citation, block, FORMAT)
            text = next(
                (piece for key, piece in reversed(pieces) if key == "content" and piece["type"] == "text"), None
            )
            if cited.get("type") == "unknown" or text is None:
                pieces.append(("content", unknown(block, FORMAT)))
            else:
                text.setdefault("citations", []).append(cited)
        elif kind == "citable":
            pieces += [("content", part) for part in _citable(block)]
        else:
            pieces.append(("content", or_unknown(_part, block, FORMAT)))
    if not has_calls and isinstance(own.get("tool_calls"), list):
        calls = own.pop("tool_calls")  # where releases before there were blocks for calls had them
        for call in calls:
            made = or_unknown(_old_call, call, FORMAT)
            pieces.append(("content" if made["type"] == "unknown" else "tool_calls", made))
    if any(key == "tool_calls" for key, _ in pieces):
        pieces = [piece for piece in pieces if piece != ("content", {"type": "text", "text": ""})]
    return pieces


def _part(block: dict[str, Any]) -> dict[str, Any]:
    kind = block["block_type"]
    part: dict[str, Any]
    if kind == "text":
        return {"type": "text", "text": string(block["text"])}
    if kind == "image":
        part = _located("image", block, "image") | strings(block, {"image_mimetype": "media_type", "detail": "detail"})
    elif kind == "audio":
        part = _located("audio", block, "audio")
        media_type = media_type_of("audio", block.get("format"))
        if media_type:
            part["media_type"] = media_type
    elif kind == "video":
        part = _located("video", block, "video") | strings(block, {"video_mimetype": "media_type", "detail": "detail"})
        if block.get("fps") is not None:
            part["extra"] = {FORMAT: {"fps": block["fps"]}}
    elif kind == "document":
        part = _located("file", block, "data") | strings(block, {"document_mimetype": "media_type"})
        if block.get("title") != "input_document":
            part |= strings(block, {"title": "name"})
    elif kind == "cache":
        return {"type": "cache_point", "ttl": string(block["cache_control"].get("ttl") or "5m")}
    else:
        raise ValueError(f"{kind!r} is not a block of content")
    return part


def _located(kind: str, block: dict[str, Any], data: str) -> dict[str, Any]:
    """What is here or at a URL; what lies in a file of this machine only LlamaIndex can find."""
    if block.get(data):
        return {"type": kind, "data": string(block[data])}
    if block.get("url"):
        return {"type": kind, "url": string(block["url"])}
    raise ValueError(f"the {kind} is not in the message")


def _thought(block: dict[str, Any]) -> dict[str, Any]:
    information = block.get("additional_information") or {}
    thought: dict[str, Any] = {"text": string(block.get("content") or ""), "format": FORMAT}
    return thought | strings(
        information, {"signature": "signature", "encrypted_content": "ciphertext", "id": "id", "provider": "provider"}
    )


def _call(block: dict[str, Any]) -> dict[str, Any]:
    given = block.get("tool_kwargs")
    arguments = given if isinstance(given, str) else compact({} if given is None else given)
    call: dict[str, Any] = {
        "id": string(block["tool_call_id"]) if block.get("tool_call_id") else None,
        "type": "function",
        "function": {"name": string(block["tool_name"]), "arguments": arguments},
    }
    parsed = given if isinstance(given, dict) else parsed_arguments(arguments)
    if parsed is not None:
        call["parsed"] = parsed
    return call


def _old_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or ""
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return _call({"tool_call_id": call.get("id"), "tool_name": function["name"], "tool_kwargs": arguments})


def _citation(block: dict[str, Any]) -> dict[str, Any]:
    source, cited = string(block["source"]), block["cited_content"]
    citation: dict[str, Any] = {
        "url" if "://" in source else "document_id": source,
        **strings(block, {"title": "title"}),
    }
    if string(cited["text"]):
        citation["excerpts"] = [cited["text"]]
    return citation

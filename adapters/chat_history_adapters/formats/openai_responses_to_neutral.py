"""Items of Responses as neutral messages, one each. Those of an answer are pieces, which a conversion puts together."""

from __future__ import annotations

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
    split_data_url,
    string,
    strings,
    unknown,
)

__all__ = ["FORMAT", "RESULTS", "is_item", "to_neutral"]

FORMAT = "openai_responses"

RESULTS = frozenset(
    {"function_call_output", "custom_tool_call_output", "computer_call_output", "local_shell_call_output"}
    | {"shell_call_output", "apply_patch_call_output", "mcp_approval_response"}
)
"""What the application answers to an item of the model."""
CALLS = {"computer_call": "computer", "local_shell_call": "local_shell", "shell_call": "shell"} | {
    "apply_patch_call": "apply_patch"
}
"""Calls of tools that the API knows and the application runs, and the names of these tools."""
AT_PROVIDER = {
    "web_search_call": ("web_search", "action", None),
    "file_search_call": ("file_search", "queries", "results"),
    "code_interpreter_call": ("code_interpreter", "code", "outputs"),
    "image_generation_call": ("image_generation", "action", None),
    "tool_search_call": ("tool_search", "arguments", None),
    "tool_search_output": ("tool_search", None, "tools"),
    "mcp_call": (None, "arguments", "output"),
    "mcp_list_tools": ("mcp_list_tools", None, "tools"),
    "program": ("program", "code", None),
    "program_output": ("program", None, "result"),
}
"""What the provider runs itself: the tool's name, and which keys have its input and its output."""
ITEM_PARTS = frozenset({"input_text", "input_image", "input_file", "output_text"})
"""Parts of content that Chat Completions does not have."""
NO_ITEMS = ITEM_PARTS | {
    *("text", "image", "image_url", "audio", "input_audio", "video", "file", "document", "refusal"),
    *("thinking", "tool_use", "tool_result", "function"),
}
"""Types of parts of messages: alone they are no items, but mistakes."""


def is_item(message: dict[str, Any]) -> bool:
    """Whether a dict is an item rather than a message of Chat Completions or of another framework.

    A dict with a type and without a role is one; with a role if its type is "message" and it has content (others have
    "contents"), or if there is no type and a part of the content is of a type that only Responses has.
    """
    kind = message.get("type")
    if kind is None:
        content = message.get("content")
        return (
            type(content) is list
            and isinstance(message.get("role"), str)
            and any(type(part) is dict and _kind(part) in ITEM_PARTS for part in content)
        )
    if not isinstance(kind, str):
        return False
    if "role" in message:
        is_message = kind == "message" and isinstance(message["role"], str) and "content" in message
        return is_message or kind == "additional_tools"
    return kind != "message" and kind not in NO_ITEMS


def _kind(part: dict[str, Any]) -> str | None:
    kind = part.get("type")
    return kind if isinstance(kind, str) else None


def to_neutral(item: dict[str, Any]) -> Message:
    """One message. What is not built as the API has it is kept raw."""
    kind = item.get("type", "message")
    if not isinstance(kind, str):
        return _unknown(item)
    try:
        if kind == "message":
            return _with_own(_message(item), item, "role", "content")
        if kind in RESULTS:
            return _with_own(_result(kind, item), item, "call_id", "output")
        pieces, named = _pieces(kind, item)
    except ODD:
        return _unknown(item)
    return _with_own({**answer(pieces), "piece": True}, item, *named)


def _unknown(item: dict[str, Any]) -> Message:
    kind = str(item.get("type"))
    content = [unknown(item, FORMAT)]
    if item.get("role", "assistant") != "assistant" or kind.endswith(("_output", "_response")):
        return {"role": "system", "content": content}
    return {"role": "assistant", "content": content, "piece": True}


def _with_own(message: Message, item: dict[str, Any], *named: str) -> Message:
    """Keep the item's id, and what has no neutral name under the name of this format."""
    if isinstance(item.get("id"), str):
        message["ids"] = {"message": item["id"]}
    own = {key: value for key, value in item.items() if value is not None and key not in ("type", "id", *named)}
    if own.get("status") == "completed":
        del own["status"]
    if own:
        message["extra"] = {FORMAT: own}
    return message


def _message(item: dict[str, Any]) -> Message:
    role, content = string(item["role"]), item["content"]
    if role != "assistant":
        return {"role": role, "content": content if isinstance(content, str) else list(map(_part_or_unknown, content))}
    if isinstance(content, str):
        return {"role": role, "content": content, "piece": True}
    pieces: list[Block] = [("content", _part_or_unknown(part)) for part in content]
    return {**answer(pieces), "piece": True}


def _part_or_unknown(part: Any) -> dict[str, Any]:
    return or_unknown(_part, part, FORMAT)


def _part(part: dict[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    neutral: dict[str, Any]
    if kind in ("output_text", "input_text", "text"):
        neutral = {"type": "text", "text": string(part["text"])}
        if part.get("annotations"):
            neutral["citations"] = [or_unknown(_citation, each, FORMAT) for each in part["annotations"]]
        return neutral
    if kind == "refusal":
        return {"type": kind, "refusal": string(part["refusal"])}
    if kind in ("input_image", "computer_screenshot"):
        neutral = _located("image", part.get("image_url"), part)
        return neutral | strings(part, {"detail": "detail"})
    if kind == "input_file":
        neutral = _located("file", part.get("file_data") or part.get("file_url"), part)
        return neutral | strings(part, {"filename": "name", "detail": "detail"})
    if kind == "input_audio":
        audio = part["input_audio"]
        media_type = media_type_of("audio", audio.get("format"))
        return {"type": "audio", "data": string(audio["data"]), "media_type": media_type}
    raise ValueError(f"{kind!r} is not a part of an item's content")


def _located(kind: str, url: Any, part: dict[str, Any]) -> dict[str, Any]:
    """What is at a URL, or in it, or with the provider."""
    located: dict[str, Any] = {"type": kind}
    if part.get("file_id"):
        located |= {"file_id": string(part["file_id"]), "provider": "openai"}
    if not url:
        if "file_id" not in located:
            raise ValueError(f"the {kind} is nowhere")
        return located
    split = split_data_url(string(url))
    if split is not None:
        located |= {"data": split[1], "media_type": split[0]}
    elif "://" in url:
        located["url"] = url
    else:  # the API takes base64 without a head, too
        located |= {"data": url, "media_type": "application/octet-stream"}
    return located


def _citation(annotation: dict[str, Any]) -> dict[str, Any]:
    kind = annotation["type"]
    cited: dict[str, Any]
    if kind == "url_citation":
        cited = {"url": string(annotation["url"]), **strings(annotation, {"title": "title"})}
    elif kind in ("file_citation", "container_file_citation", "file_path"):
        cited = {"document_id": string(annotation["file_id"]), **strings(annotation, {"filename": "title"})}
    else:
        raise ValueError(f"{kind!r} is no annotation")
    if "start_index" in annotation:
        cited |= {"start": annotation["start_index"], "end": annotation.get("end_index"), "unit": "characters"}
        cited["anchor"] = "marker"
    return cited


def _result(kind: str, item: dict[str, Any]) -> Message:
    # A local shell's output has the id of its call as its own.
    if kind == "mcp_approval_response":
        return _unknown(item)
    call_id = item.get("call_id") or (item.get("id") if kind == "local_shell_call_output" else None)
    message: Message = {"role": "tool", "tool_call_id": string(call_id) if call_id else None}
    if isinstance(item.get("name"), str):
        message["name"] = item["name"]
    output = item.get("output")
    if isinstance(output, str):
        message["content"] = output
    elif output is None:
        message["content"] = ""
    elif kind == "computer_call_output":
        message["content"] = [_part_or_unknown(output)]
    elif kind in ("function_call_output", "custom_tool_call_output") and isinstance(output, list):
        message["content"] = list(map(_part_or_unknown, output))
    else:
        message |= {"content": compact(output), "value": output}
    if item.get("status") == "failed":
        message["outcome"] = "error"
    return message


def _pieces(kind: str, item: dict[str, Any]) -> tuple[list[Block], tuple[str, ...]]:
    """The pieces of an answer in an item, and which of its keys are in them."""
    if kind == "function_call":
        arguments = string(item["arguments"])
        return [_call(item, string(item["name"]), arguments)], ("call_id", "name", "arguments")
    if kind == "custom_tool_call":
        tool = {"name": string(item["name"]), "input": string(item["input"])}
        call = {"id": _call_id(item), "type": "custom", "custom": tool}
        return [("tool_calls", call)], ("call_id", "name", "input")
    if kind == "reasoning":
        return [("thinking", _thought(item))], ("summary", "content", "encrypted_content")
    if kind in CALLS:
        key = next((key for key in ("action", "actions", "operation") if item.get(key)), "action")
        arguments = compact(item[key] if isinstance(item[key], dict) else {key: item[key]})
        return [_call(item, CALLS[kind], arguments)], ("call_id", key)
    if kind in AT_PROVIDER:
        return _at_provider(kind, item), tuple(item)
    return [("content", unknown(item, FORMAT))], tuple(item)


def _call_id(item: dict[str, Any]) -> str | None:
    return string(item["call_id"]) if item.get("call_id") else None


def _call(item: dict[str, Any], name: str, arguments: str) -> Block:
    call: dict[str, Any] = {
        "id": _call_id(item),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    parsed = parsed_arguments(arguments)
    if parsed is not None:
        call["parsed"] = parsed
    return "tool_calls", call


def _thought(item: dict[str, Any]) -> dict[str, Any]:
    thought: dict[str, Any] = {"text": _joined(item.get("content")), "provider": "openai", "format": FORMAT}
    summary = _joined(item.get("summary"))
    if summary:
        thought["summary"] = summary
    return thought | strings(item, {"encrypted_content": "ciphertext", "id": "id"})


def _joined(parts: list[dict[str, Any]] | None) -> str:
    return "\n\n".join(string(part["text"]) for part in parts or ())


def _at_provider(kind: str, item: dict[str, Any]) -> list[Block]:
    name, given, found = AT_PROVIDER[kind]
    common = {
        "name": name or string(item["name"]),
        **strings(item, {"id": "id"}),
        "provider": "openai",
        "format": FORMAT,
    }
    pieces: list[Block] = []
    if not kind.endswith("_output") and kind != "mcp_list_tools":
        tool = {"type": "server_tool_call", **common, "input": item.get(given) if given else None, "raw": item}
        pieces.append(("content", tool))
    if found and item.get(found) is not None:
        result = {"type": "server_tool_result", **common, "output": item[found], "raw": item}
        pieces.append(("content", result))
    if kind == "image_generation_call" and isinstance(item.get("result"), str):
        media_type = media_type_of("image", item.get("output_format") or "png")
        image = {"type": "image", "data": item["result"], "media_type": media_type}
        pieces.append(("content", image))
    return pieces or [("content", unknown(item, FORMAT))]

"""Neutral messages as LangChain's own objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chat_history.formats import Converted
from chat_history.messages import Message

from .langchain_to_neutral import DEVELOPER, FORMAT
from .neutral import Losses, blocks, compact, content_parts

__all__ = ["Writer"]


class Writer:
    """Builds messages, one each, with LangChain's standard content blocks."""

    def __init__(self, framework: Any) -> None:
        self.framework = framework
        self.losses = Losses()

    def write(self, messages: Sequence[Message]) -> Converted:
        written = []
        for message in messages:
            self.losses.of(message)
            if message.get("orphan"):
                self.losses.add("tool result", "it answers no tool call")
                continue
            made = self._answer(message) if message["role"] == "assistant" else self._other(message)
            if made is not None:
                written.append(made)
        return Converted(written, self.losses.found)

    def _other(self, message: Message) -> Any | None:
        role, content = message["role"], message["content"]
        if not isinstance(content, str):
            content = self._blocks(content_parts(content))
            if not content and role != "tool":
                return None
        name = message.get("name") or None
        if role == "tool":
            return self._result(message, content, name)
        if role in ("system", "developer"):
            marked = {DEVELOPER: role} if role == "developer" else {}
            return self.framework.SystemMessage(content, name=name, additional_kwargs=marked)
        if role != "user":
            self.losses.add("role", f"{role!r} has become a user's words")
        return self.framework.HumanMessage(content, name=name)

    def _result(self, message: Message, content: Any, name: str | None) -> Any:
        outcome = message.get("outcome", "ok")
        if outcome not in ("ok", "error"):
            self.losses.add("outcome", f"{outcome!r} has become an error")
        return self.framework.ToolMessage(
            content,
            name=name,
            tool_call_id=message.get("tool_call_id") or "",
            status="success" if outcome == "ok" else "error",
        )

    def _answer(self, message: Message) -> Any | None:
        content: list[dict[str, Any]] = []
        calls = []
        several = bool(message.get("tool_calls")) or isinstance(message["content"], list)
        for index, (key, item) in enumerate(blocks(message)):
            if key == "tool_calls":
                calls.append(item)
            elif key == "thinking":
                content += self._thinking(item)
            elif not (several and item.get("text") == ""):
                content += self._block(index, item)
        if not content and not calls:
            return None
        only = content[0] if len(content) == 1 else {}
        made = {
            "content": only["text"] if only.keys() == {"type", "text"} else content or "",
            "name": message.get("name") or None,
            # Not the provider: LangChain would read the content as that provider's own blocks, and miss calls.
            "response_metadata": {
                own: message[key]
                for key, own in (("model", "model_name"), ("finish_reason", "finish_reason"))
                if message.get(key)
            },
            **self._calls(calls),
        }
        if usage := _usage(message.get("usage") or {}):
            made["usage_metadata"] = usage
        return self.framework.AIMessage(**made)

    def _thinking(self, thought: dict[str, Any]) -> list[dict[str, Any]]:
        if thought.get("format") != FORMAT:
            text = self.losses.thought(thought)
            return [{"type": "reasoning", "reasoning": text}] if text else []
        block = {"type": "reasoning", "reasoning": thought.get("text") or thought.get("summary") or ""}
        if thought.get("id"):
            block["id"] = thought["id"]
        names = {"signature": "signature", "ciphertext": "encrypted_content"}
        if extras := {own: thought[key] for key, own in names.items() if thought.get(key)}:
            block["extras"] = extras
        return [block]

    def _calls(self, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """Calls whose arguments are a JSON object, those whose are not, and how they all were written, in order."""
        valid: list[dict[str, Any]] = []
        invalid: list[dict[str, Any]] = []
        written = []
        as_dumped = True
        for call in calls:
            name = call[call["type"]]["name"]
            if call["type"] == "custom":
                self.losses.add("tool call", "a custom tool's input has become an argument 'input'")
                args: dict[str, Any] | None = {"input": call["custom"]["input"]}
                arguments = compact(args)
            else:
                arguments = call["function"]["arguments"]
                args = call.get("parsed") if arguments else {}
            if args is None:
                error = "the arguments are not a JSON object"
                invalid.append({"name": name, "args": arguments, "id": call["id"], "error": error})
                as_dumped = False
            else:
                valid.append({"name": name, "args": args, "id": call["id"]})
                as_dumped = as_dumped and arguments == compact(args)
            function = {"name": name, "arguments": arguments}
            written.append({"id": call["id"], "type": "function", "function": function})
        made: dict[str, Any] = {"tool_calls": valid, "invalid_tool_calls": invalid}
        if not as_dumped:
            made["additional_kwargs"] = {"tool_calls": written}
        return made

    def _blocks(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [made for index, part in enumerate(parts) for made in self._block(index, part)]

    def _block(self, index: int, part: dict[str, Any]) -> list[dict[str, Any]]:
        part = self.losses.spoken(index, part)
        kind = part["type"]
        if kind == "text":
            text: dict[str, Any] = {"type": "text", "text": part["text"]}
            if part.get("citations") and (cited := self._annotations(index, part["citations"])):
                text["annotations"] = cited
            return [text]
        if kind == "refusal":
            self.losses.add(f"content[{index}]", "a refusal has become text")
            return [{"type": "text", "text": part["refusal"]}]
        if kind in ("image", "audio", "video", "file") and (part.get("data") or part.get("url") or part.get("file_id")):
            return [_media(kind, part)]
        self.losses.no_place(index, part)
        return []

    def _annotations(self, index: int, citations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        made = []
        for cited in citations:
            if cited.get("type") == "unknown":
                self.losses.add(f"content[{index}].citations", f"only {cited['format']} knows what one is")
                continue
            names = {"url": "url", "title": "title", "start": "start_index", "end": "end_index"}
            annotation = {"type": "citation"} | {own: cited[key] for key, own in names.items() if key in cited}
            if cited.get("excerpts"):
                annotation["cited_text"] = "\n".join(cited["excerpts"])
            if "document_id" in cited:
                annotation["extras"] = {"document_id": cited["document_id"]}
            made.append(annotation)
        return made


def _media(kind: str, part: dict[str, Any]) -> dict[str, Any]:
    block: dict[str, Any] = {"type": kind}
    for key, own in (("data", "base64"), ("url", "url"), ("file_id", "file_id")):
        if part.get(key):
            block[own] = part[key]
            break
    if part.get("media_type"):
        block["mime_type"] = part["media_type"]
    elif "base64" in block:
        block["mime_type"] = UNKNOWN_TYPES[kind]
    extras = {"filename": part.get("name") or part.get("identifier"), "detail": part.get("detail")}
    if "file_id" in block:
        extras["provider"] = part.get("provider")
    extras = {key: value for key, value in extras.items() if value}
    if extras:
        block["extras"] = extras
    return block


UNKNOWN_TYPES = {
    "image": "image/jpeg",
    "audio": "audio/wav",
    "video": "video/mp4",
    "file": "application/octet-stream",
}
"""LangChain wants a type for all that is not at a URL."""


def _usage(usage: dict[str, Any]) -> dict[str, Any] | None:
    counted = {key: value for key, value in usage.items() if type(value) is int}
    if "input_tokens" not in counted and "output_tokens" not in counted:
        return None
    given, made = counted.get("input_tokens", 0), counted.get("output_tokens", 0)
    metadata = {"input_tokens": given, "output_tokens": made, "total_tokens": counted.get("total_tokens", given + made)}
    names = {"cache_read_tokens": "cache_read", "cache_write_tokens": "cache_creation"}
    details = {own: counted[key] for key, own in names.items() if counted.get(key)}
    return {**metadata, "input_token_details": details} if details else metadata

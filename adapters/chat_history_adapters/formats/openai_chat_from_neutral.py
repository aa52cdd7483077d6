"""Neutral messages as dicts that the Chat Completions API accepts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from chat_history.formats import Converted
from chat_history.messages import Message

from .neutral import Losses, blocks, content_parts, data_url

__all__ = ["Writer"]


class Writer:
    """Builds dicts, one a message."""

    def __init__(self) -> None:
        self.losses = Losses()

    def write(self, messages: Sequence[Message]) -> Converted:
        written = []
        for message in messages:
            self.losses.of(message)
            if message.get("orphan"):
                self.losses.add("tool result", "it answers no tool call")
                continue
            made = self._assistant(message) if message["role"] == "assistant" else self._other(message)
            if made is not None:
                written.append(made)
        return Converted(written, self.losses.found)

    def _other(self, message: Message) -> dict[str, Any] | None:
        role, content = message["role"], message["content"]
        if role not in ("system", "developer", "user", "tool"):
            self.losses.add("role", f"{role!r} has become a user's words")
            role = "user"
        if not isinstance(content, str):
            parts = self._parts(content_parts(content), texts_only=role != "user")
            if not parts and role != "tool":
                return None
            content = parts or ""
        if role == "tool":
            outcome = message.get("outcome", "ok")
            if outcome != "ok":
                self.losses.add("outcome", f"that it is {outcome!r} is not said beside the text")
            return {"role": role, "tool_call_id": message.get("tool_call_id") or "", "content": content}
        made = {"role": role, "content": content}
        made |= self._name(message)
        return made

    def _name(self, message: Message) -> dict[str, str]:
        name = message.get("name")
        if not name:
            return {}
        if NAME.fullmatch(name):
            return {"name": name}
        self.losses.add("name", f"Chat Completions refuses {name!r}")
        return {}

    def _parts(self, parts: list[dict[str, Any]], *, texts_only: bool) -> list[dict[str, Any]]:
        made = []
        for index, part in enumerate(parts):
            part = self.losses.spoken(index, part)
            one = None if texts_only and part["type"] != "text" else self._part(part)
            if one is None:
                self.losses.no_place(index, part)
            else:
                made.append(one)
        return made

    def _part(self, part: dict[str, Any]) -> dict[str, Any] | None:
        kind = part["type"]
        if kind == "text":
            return {"type": "text", "text": part["text"]}
        if kind == "refusal":
            return {"type": "text", "text": part["refusal"]}
        if kind == "image" and (part.get("url") or part.get("data")):
            image = {"url": part.get("url") or data_url(part)}
            if part.get("detail") in ("auto", "low", "high"):
                image["detail"] = part["detail"]
            return {"type": "image_url", "image_url": image}
        if kind == "audio" and part.get("data") and part.get("media_type") in AUDIO:
            return {"type": "input_audio", "input_audio": {"data": part["data"], "format": AUDIO[part["media_type"]]}}
        if kind == "file" and part.get("file_id") and part.get("provider") == "openai":
            return {"type": "file", "file": {"file_id": part["file_id"]}}
        if kind == "file" and part.get("data"):
            name = part.get("name") or part.get("identifier") or "file"
            return {"type": "file", "file": {"filename": name, "file_data": data_url(part)}}
        return None

    def _assistant(self, message: Message) -> dict[str, Any] | None:
        content: list[dict[str, Any]] = []
        calls = []
        for index, (key, item) in enumerate(blocks(message)):
            if key == "tool_calls":
                calls.append(_api_call(item))
                continue
            if key == "thinking":
                self.losses.add("thinking", "Chat Completions takes no thoughts back")
                continue
            item = self.losses.spoken(index, item)
            if item["type"] == "refusal":
                content.append({"type": "refusal", "refusal": item["refusal"]})
            elif item["type"] == "text":
                content.append({"type": "text", "text": item["text"]})
                if item.get("citations"):
                    self.losses.add(f"content[{index}].citations", "Chat Completions takes no citations back")
            else:
                self.losses.no_place(index, item)
        if not content and not calls:
            return None
        made: dict[str, Any] = {"role": "assistant", "content": content or None}
        if len(content) == 1:
            only = content[0]
            made = {"role": "assistant", "content": only.get("text")}
            if only["type"] == "refusal":
                made["refusal"] = only["refusal"]
        made |= self._name(message)
        if calls:
            made["tool_calls"] = calls
        return made


NAME = re.compile(r"[^\s<|\\/>]{1,64}")
"""What the API takes for a name."""
AUDIO = {"audio/wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/x-wav": "wav"}


def _api_call(call: dict[str, Any]) -> dict[str, Any]:
    if call["type"] == "custom":
        return {"id": call["id"], "type": "custom", "custom": dict(call["custom"])}
    function = call["function"]
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": function["name"], "arguments": function["arguments"] or "{}"},
    }

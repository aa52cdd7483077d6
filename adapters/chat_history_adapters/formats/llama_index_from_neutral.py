"""Neutral messages as LlamaIndex's own objects."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Any

from chat_history.formats import Converted
from chat_history.messages import Message

from .neutral import Losses, blocks, content_parts

__all__ = ["Writer"]


class Writer:
    """Builds `ChatMessage` objects, one a message."""

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
            made = self._assistant(message) if message["role"] == "assistant" else self._other(message)
            if made is not None:
                written.append(made)
        return Converted(written, self.losses.found)

    def _other(self, message: Message) -> Any | None:
        role, content = message["role"], message["content"]
        if role not in ("system", "developer", "user", "tool"):
            self.losses.add("role", f"{role!r} has become a user's words")
            role = "user"
        own: dict[str, Any] = {}
        if role == "tool":
            own["tool_call_id"] = message.get("tool_call_id") or ""
            outcome = message.get("outcome", "ok")
            if outcome != "ok":
                self.losses.add("outcome", f"that it is {outcome!r} is not said beside the text")
        elif message.get("name"):
            self.losses.add("name", "a message has no name")
        made = []
        for index, part in enumerate(content_parts(content)):
            made += self._block(index, part)
        if not made and role != "tool":
            return None
        return self._message(role, made, own)

    def _assistant(self, message: Message) -> Any | None:
        made = []
        if message.get("name"):
            self.losses.add("name", "a message has no name")
        for index, (key, item) in enumerate(blocks(message)):
            if key == "thinking":
                made += self._thinking(item)
            elif key == "tool_calls":
                made.append(self._call(item))
            else:
                made += self._block(index, item)
        return self._message("assistant", made, {}) if made else None

    def _message(self, role: str, made: list[Any], own: dict[str, Any]) -> Any:
        return self.framework.ChatMessage(role=self.framework.MessageRole(role), blocks=made, additional_kwargs=own)

    def _thinking(self, thought: dict[str, Any]) -> list[Any]:
        text = self.losses.thought(thought)
        return [self.framework.ThinkingBlock(content=text)] if text else []

    def _call(self, call: dict[str, Any]) -> Any:
        if call["type"] == "custom":
            self.losses.add("tool call", "a custom tool's input has become an argument 'input'")
            arguments: Any = {"input": call["custom"]["input"]}
        else:
            arguments = call["function"]["arguments"] or "{}"
        name = call[call["type"]]["name"]
        return self.framework.ToolCallBlock(tool_call_id=call["id"], tool_name=name, tool_kwargs=arguments)

    def _block(self, index: int, part: dict[str, Any]) -> list[Any]:
        part = self.losses.spoken(index, part)
        make, kind = self.framework, part["type"]
        if kind == "text":
            if part.get("citations"):
                self.losses.add(f"content[{index}].citations", "LlamaIndex has them for some models only")
            return [make.TextBlock(text=part["text"])]
        if kind == "refusal":
            self.losses.add(f"content[{index}]", "a refusal has become text")
            return [make.TextBlock(text=part["refusal"])]
        if kind == "cache_point":
            return [make.CachePoint(cache_control=make.CacheControl(type="ephemeral", ttl=part["ttl"]))]
        if kind in ("image", "audio", "video", "file"):
            block = self._media(kind, part)
            if block is not None:
                return [block]
        self.losses.no_place(index, part)
        return []

    def _media(self, kind: str, part: dict[str, Any]) -> Any | None:
        """A block that holds these bytes or this URL, None if it cannot."""
        make, type_of = self.framework, part.get("media_type")
        place = {"url": part["url"]} if part.get("url") else {}
        if not place:
            data = _base64(part.get("data"))
            if not data:
                return None
            place = {DATA[kind]: data}
        try:
            if kind == "image":
                return make.ImageBlock(**place, image_mimetype=type_of, detail=part.get("detail"))
            if kind == "video":
                return make.VideoBlock(**place, video_mimetype=type_of, detail=part.get("detail"))
            if kind == "audio":
                return make.AudioBlock(
                    **place, format=AUDIO.get(type_of or "", (type_of or "").partition("/")[2]) or None
                )
            name = part.get("name") or part.get("identifier")
            return make.DocumentBlock(**place, document_mimetype=type_of, title=name)
        except ValueError:  # a URL that is none, as LlamaIndex sees it
            return None


DATA = {"image": "image", "audio": "audio", "video": "video", "file": "data"}
AUDIO = {"audio/mpeg": "mp3", "audio/x-wav": "wav"}


def _base64(data: Any) -> bytes | None:
    """Base64 as LlamaIndex itself keeps bytes: what it is given raw it may take for base64 of something else."""
    try:
        return b64encode(b64decode(data, validate=True))
    except (Base64Error, ValueError, TypeError):
        return None

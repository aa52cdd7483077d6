"""Neutral messages as Agent Framework's own objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chat_history.formats import Converted
from chat_history.messages import Message

from .agent_framework_to_neutral import FORMAT, THOUGHTS
from .neutral import Losses, blocks, compact, content_parts, data_url

__all__ = ["Writer"]

REFUSAL = {"core": {"model_output_kind": "refusal"}}
"""How the framework marks text that is a refusal."""
FAILED = "FunctionInvocationError"
"""What the framework itself stores in place of an exception."""


class Writer:
    """Builds messages. Results of tools that stand next to each other are put together, as a run would."""

    def __init__(self, framework: Any) -> None:
        self.message = framework.Message
        self.content = framework.Content
        self.losses = Losses()
        self.written: list[Any] = []

    def write(self, messages: Sequence[Message]) -> Converted:
        for message in messages:
            self.losses.of(message)
            role = message["role"]
            if message.get("orphan"):
                self.losses.add("tool result", "it answers no tool call")
            elif role == "tool":
                self._result(message)
            elif role == "assistant":
                self._answer(message)
            else:
                self._add(self._role(role), self._parts(content_parts(message["content"])), message)
        return Converted(self.written, self.losses.found)

    def _add(self, role: str, contents: list[Any], message: Message, own: dict[str, Any] | None = None) -> None:
        if contents:
            name = message.get("name") or None
            self.written.append(self.message(role, contents, author_name=name, additional_properties=own))

    def _role(self, role: str) -> str:
        if role == "developer":
            self.losses.add("role", "'developer' has become 'system'")
            return "system"
        if role not in ("system", "user"):
            self.losses.add("role", f"{role!r} has become a user's words")
            return "user"
        return role

    def _result(self, message: Message) -> None:
        outcome = message.get("outcome", "ok")
        if outcome not in ("ok", "error"):
            self.losses.add("outcome", f"{outcome!r} has become an error")
        content = message["content"]
        result = self.content.from_function_result(
            message.get("tool_call_id") or "",
            result=self._parts(content) if isinstance(content, list) else content or "",
            exception=None if outcome == "ok" else FAILED,
        )
        if self.written and self.written[-1].role == "tool":
            self.written[-1].contents.append(result)
        else:
            self.written.append(self.message("tool", [result]))

    def _answer(self, message: Message) -> None:
        contents: list[Any] = []
        thoughts: list[Any] = []
        several = bool(message.get("tool_calls")) or isinstance(message["content"], list)
        for index, (key, item) in enumerate(blocks(message)):
            if key == "tool_calls":
                contents.append(self._call(item))
            elif key == "thinking":
                (contents if item.get("format") == FORMAT else thoughts).extend(self._thinking(item))
            elif not (several and item.get("text") == ""):
                contents += self._part(index, item)
        if not contents:
            contents, thoughts = thoughts, []
        self._add("assistant", contents, message, {THOUGHTS: [each.text for each in thoughts]} if thoughts else None)

    def _thinking(self, thought: dict[str, Any]) -> list[Any]:
        if thought.get("format") == FORMAT:
            text, sealed = thought.get("text") or "", thought.get("ciphertext")
            return [self.content("text_reasoning", text=text, protected_data=sealed, id=thought.get("id"))]
        text = self.losses.thought(thought)
        return [self.content("text_reasoning", text=text)] if text else []

    def _call(self, call: dict[str, Any]) -> Any:
        if call["type"] == "custom":
            self.losses.add("tool call", "a custom tool's input has become an argument 'input'")
            arguments = compact({"input": call["custom"]["input"]})
        else:
            arguments = call["function"]["arguments"] or "{}"
        return self.content.from_function_call(call["id"], call[call["type"]]["name"], arguments=arguments)

    def _parts(self, parts: list[dict[str, Any]]) -> list[Any]:
        return [made for index, part in enumerate(parts) for made in self._part(index, part)]

    def _part(self, index: int, part: dict[str, Any]) -> list[Any]:
        part = self.losses.spoken(index, part)
        kind = part["type"]
        make = self.content
        if kind == "text":
            text = make("text", text=part["text"])
            if part.get("citations"):
                text.annotations = self._annotations(index, part["citations"])
            return [text]
        if kind == "refusal":
            return [make("text", text=part["refusal"], additional_properties=REFUSAL)]
        if kind in ("image", "audio", "video", "file"):
            if part.get("file_id") and not part.get("data") and not part.get("url"):
                return [self._hosted(kind, part)]
            if part.get("data") or part.get("url"):
                return [self._media(part)]
        self.losses.no_place(index, part)
        return []

    def _hosted(self, kind: str, part: dict[str, Any]) -> Any:
        media_type = part.get("media_type") or (UNKNOWN_TYPES[kind] if kind != "file" else None)
        own = {key: part[key] for key in ("provider", "detail") if key in part}
        return self.content(
            "hosted_file",
            file_id=part["file_id"],
            media_type=media_type,
            name=part.get("name"),
            additional_properties=own or None,
        )

    def _media(self, part: dict[str, Any]) -> Any:
        media_type = part.get("media_type") or UNKNOWN_TYPES[part["type"]]
        here = bool(part.get("data"))
        return self.content(
            "data" if here else "uri",
            uri=data_url({**part, "media_type": media_type}) if here else part["url"],
            media_type=media_type,
            name=part.get("name") or part.get("identifier"),
            additional_properties={"detail": part["detail"]} if "detail" in part else None,
        )

    def _annotations(self, index: int, citations: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        made = []
        for cited in citations:
            if cited.get("type") == "unknown":
                self.losses.add(f"content[{index}].citations", f"only {cited['format']} knows what one is")
                continue
            names = {"url": "url", "title": "title", "document_id": "file_id"}
            annotation: dict[str, Any] = {"type": "citation"}
            annotation |= {own: cited[key] for key, own in names.items() if cited.get(key)}
            if cited.get("excerpts"):
                annotation["snippet"] = "\n".join(cited["excerpts"])
            if isinstance(cited.get("start"), int) and isinstance(cited.get("end"), int):
                region = {"type": "text_span", "start_index": cited["start"], "end_index": cited["end"]}
                annotation["annotated_regions"] = [region]
            made.append(annotation)
        return made or None


UNKNOWN_TYPES = {"image": "image/*", "audio": "audio/*", "video": "video/*", "file": "application/octet-stream"}
"""The framework tells an image from a file by its media type alone."""

"""Neutral messages as items that the Responses API accepts."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from chat_history.formats import Converted
from chat_history.messages import Message

from .neutral import Losses, blocks, content_parts, data_url

__all__ = ["Writer"]

DETAILS = ("auto", "low", "high", "original")


class Writer:
    """Builds items: one a message, and for an answer one for each thought and call, and for the text between them."""

    def __init__(self) -> None:
        self.losses = Losses()
        self.written: list[dict[str, Any]] = []

    def write(self, messages: Sequence[Message]) -> Converted:
        for message in messages:
            self.losses.of(message)
            if message.get("orphan"):
                self.losses.add("tool result", "it answers no tool call")
            elif message["role"] == "assistant":
                self._assistant(message)
            elif message["role"] == "tool":
                self._result(message)
            else:
                self._input(message)
        return Converted(self.written, self.losses.found)

    def _input(self, message: Message) -> None:
        role, content = message["role"], message["content"]
        if role not in ("system", "developer", "user"):
            self.losses.add("role", f"{role!r} has become a user's words")
            role = "user"
        if message.get("name"):
            self.losses.add("name", "an item has no name")
        if not isinstance(content, str):
            content = self._parts(content_parts(content), texts_only=role != "user")
            if not content:
                return
        self.written.append({"role": role, "content": content})

    def _result(self, message: Message) -> None:
        content = message["content"]
        output: Any = content if isinstance(content, str) else ""
        if not isinstance(content, str):
            output = self._parts(content_parts(content), texts_only=False) or ""
        outcome = message.get("outcome", "ok")
        if outcome != "ok":
            self.losses.add("outcome", f"that it is {outcome!r} is not said beside the text")
        kind = "custom_tool_call_output" if message.get("answers") == "custom" else "function_call_output"
        self.written.append({"type": kind, "call_id": message.get("tool_call_id") or "", "output": output})

    def _parts(self, parts: list[dict[str, Any]], *, texts_only: bool) -> list[dict[str, Any]]:
        made = []
        for index, part in enumerate(parts):
            part = self.losses.spoken(index, part)
            one = None if texts_only and part["type"] != "text" else self._part(part)
            if one is None:
                self.losses.no_place(index, part)
            else:
                made.append(one)
                if part["type"] == "refusal":
                    self.losses.add(f"content[{index}]", "a refusal has become text")
        return made

    def _part(self, part: dict[str, Any]) -> dict[str, Any] | None:
        kind = part["type"]
        if kind in ("text", "refusal"):
            return {"type": "input_text", "text": part[kind]}
        if kind not in ("image", "file"):
            return None
        if part.get("file_id") and part.get("provider") == "openai":
            place = {"file_id": part["file_id"]}
        elif part.get("url"):
            place = {"image_url" if kind == "image" else "file_url": part["url"]}
        elif part.get("data") and kind == "image":
            place = {"image_url": data_url(part)}
        elif part.get("data"):
            name = part.get("name") or part.get("identifier") or "file"
            place = {"filename": name, "file_data": data_url(part)}
        else:
            return None
        made = {"type": f"input_{kind}", **place}
        if kind == "image":
            made["detail"] = part["detail"] if part.get("detail") in DETAILS else "auto"
        return made

    def _assistant(self, message: Message) -> None:
        if message.get("name"):
            self.losses.add("name", "an item has no name")
        content = message["content"]
        if isinstance(content, str) and not message.get("thinking") and not message.get("tool_calls"):
            self.written.append({"role": "assistant", "content": content})
            return
        said: list[dict[str, Any]] = []
        number = 0
        for index, (key, item) in enumerate(blocks(message)):
            if key == "content":
                said += self._said(index, item)
                continue
            number += self._say(message, number, said)
            made = self._thought(item) if key == "thinking" else _call(item)
            if made is not None:
                self.written.append(made)
        self._say(message, number, said)

    def _say(self, message: Message, number: int, said: list[dict[str, Any]]) -> int:
        """Put what was said up to here into an item of its own."""
        if not said:
            return 0
        key = f"{message.get('message_id', '')} {number}"
        item_id = "msg_" + blake2b(key.encode(errors="surrogatepass"), digest_size=12).hexdigest()
        self.written.append(
            {"id": item_id, "content": said.copy(), "role": "assistant", "status": "completed", "type": "message"}
        )
        said.clear()
        return 1

    def _said(self, index: int, part: dict[str, Any]) -> list[dict[str, Any]]:
        part = self.losses.spoken(index, part)
        kind = part["type"]
        if kind == "refusal":
            return [{"refusal": part["refusal"], "type": "refusal"}]
        if kind == "text":
            annotations = []
            for cited in part.get("citations", ()):
                annotation = _annotation(cited)
                if annotation is None:
                    self.losses.add(f"content[{index}].citations", "Responses needs a URL, and where it is cited")
                else:
                    annotations.append(annotation)
                    if cited.get("excerpts"):
                        self.losses.add(f"content[{index}].citations", "Responses has no place for excerpts")
            return [{"annotations": annotations, "text": part["text"], "type": "output_text"}]
        self.losses.no_place(index, part)
        return []

    def _thought(self, thought: dict[str, Any]) -> dict[str, Any] | None:
        """Reasoning without an id, which the API takes as text; with one it would look for its own."""
        self.losses.sealed(thought)
        texts = [thought[key] for key in ("summary", "text") if thought.get(key)]
        if not texts:
            return None
        return {"summary": [{"text": text, "type": "summary_text"} for text in texts], "type": "reasoning"}


def _annotation(cited: dict[str, Any]) -> dict[str, Any] | None:
    start, end = cited.get("start"), cited.get("end")
    if not cited.get("url") or not isinstance(start, int) or not isinstance(end, int):
        return None
    title = cited.get("title") or ""
    return {"end_index": end, "start_index": start, "title": title, "type": "url_citation", "url": cited["url"]}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    if call["type"] == "custom":
        custom = call["custom"]
        return {"call_id": call["id"], "input": custom["input"], "name": custom["name"], "type": "custom_tool_call"}
    function = call["function"]
    return {
        "arguments": function["arguments"] or "{}",
        "call_id": call["id"],
        "name": function["name"],
        "type": "function_call",
    }

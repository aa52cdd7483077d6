"""Items of an OpenAI ChatKit thread, as its server sends them. Its store writes them; anybody reads them.

What people said comes out as messages, also where they filled in what they were asked, and so do the calls of tools
that the client answers, and images that were made. Widgets, tasks, workflows and hidden context stay behind without a
word: they are ChatKit's, which tells the model of them in its own way.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from chat_history.errors import InvalidMessageError
from chat_history.formats import Converted, Dumped, Loss, Parts, readable
from chat_history.messages import Message

from .extras import framework, installed_version
from .json_dicts import canonical
from .neutral import content_parts, located, parsed

__all__ = ["FORMAT", "ChatKit"]

PACKAGE = "chatkit.types"
EXTRA = "chatkit"
ROLES = {
    "user_message": "user",
    "structured_input": "user",
    "assistant_message": "assistant",
    "client_tool_call": "assistant",
    "generated_image": "assistant",
}
SHOWN = "chatkit"
"""The role of an item that nobody said."""


class ChatKit:
    """The format of ChatKit's thread items."""

    name = "chatkit"

    def version(self) -> str:
        """The installed version of openai-chatkit."""
        return installed_version("openai-chatkit")

    def recognises(self, message: object) -> bool:
        """A thread item of any type."""
        return any(
            each.__name__ == "ThreadItemBase" and each.__module__ == "chatkit.types" for each in type(message).__mro__
        )

    def dump(self, message: Any) -> Dumped:
        """An item as ChatKit writes it, times as they are."""
        try:
            payload = message.model_dump_json()
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidMessageError(
                f"ChatKit cannot write this {type(message).__name__} as JSON: {error}; "
                "put text, numbers, lists and dicts in place of what is named there"
            ) from error
        item = json.loads(payload)
        return Dumped(payload, _role(item), readable(_text(item)))

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The items of these payloads, one by one. `ValueError` for one that this release does not know."""
        validate = _adapter().validate_json
        return [validate(payload) for payload in payloads]

    def parts(self, payload: str) -> Parts:
        """The whole item as one part: items are never merged."""
        item = json.loads(payload)
        return Parts(item["type"], [canonical(item)], "")

    def rest(self, message: Any, start: int) -> Any:
        """The item itself: it has one part."""
        return message

    def system(self, message: Any) -> Any | None:
        """None: a thread has no system prompt."""
        return None

    def to_neutral(self, payload: str) -> list[Message]:
        """What was said, or a call with its result; nothing for what is only shown."""
        item = parsed(payload)
        said: Message = {
            "role": _role(item),
            "content": _text(item),
            "created_at": item["created_at"],
        }
        if not datetime.fromisoformat(item["created_at"]).tzinfo:
            del said["created_at"]  # local time of who knows where; the store knows when it was stored
        if item["type"] == "client_tool_call":
            return _call(item, said)
        if item["type"] == "generated_image" and item.get("image"):
            said["content"] = [located("image", item["image"]["url"])]
        return [said] if said["role"] != SHOWN else []

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """Items of what user and assistant said, in a thread without a name: the rest is reported."""
        items: list[Any] = []
        losses: list[Loss] = []
        types = _types()
        for message in messages:
            texts = [part["text"] for part in content_parts(message["content"]) if part["type"] == "text"]
            lost = [part["type"] for part in content_parts(message["content"]) if part["type"] != "text"]
            lost += [key for key in ("thinking", "tool_calls") if message.get(key)]
            if message["role"] not in ("user", "assistant"):
                lost, texts = [message["role"]], []
            losses += [Loss(message["message_id"], each, "a thread of ChatKit has no place for it") for each in lost]
            if texts:
                items.append(_item(types, message, "\n".join(texts)))
        return Converted(items, losses)


FORMAT = ChatKit()


def _types() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ChatKit's, of classes of its own that it imports
        return framework(PACKAGE, EXTRA)


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_types().ThreadItem)


def _item(types: Any, message: Message, text: str) -> Any:
    place = {
        "id": message["message_id"],
        "thread_id": "",
        "created_at": datetime.fromisoformat(message["created_at"]),
    }
    if message["role"] == "user":
        content = [types.UserMessageTextContent(text=text)]
        return types.UserMessageItem(**place, content=content, inference_options=types.InferenceOptions())
    return types.AssistantMessageItem(**place, content=[types.AssistantMessageContent(text=text)])


def _role(item: dict[str, Any]) -> str:
    is_open = (item["type"] == "structured_input" and item["status"] == "pending") or (
        item["type"] == "generated_image" and not item.get("image")
    )
    return SHOWN if is_open else ROLES.get(item["type"], SHOWN)


def _text(item: dict[str, Any]) -> str:
    """What a person would read of it."""
    if item["type"] in ("user_message", "assistant_message"):
        texts = [part.get("text") for part in item["content"]]
        if item.get("quoted_text"):
            texts.insert(0, "".join(f"> {line}\n" for line in item["quoted_text"].splitlines()))
        texts += [attachment["name"] for attachment in item.get("attachments") or ()]
        return "\n".join(text for text in texts if text)
    if item["type"] == "structured_input" and item["status"] != "pending":
        return "\n".join(f"{each['question']}: {_answer(each.get('answer'))}" for each in item["inputs"])
    if item["type"] == "widget":
        return item.get("copy_text") or ""
    return ""


def _answer(answer: dict[str, Any] | None) -> str:
    return ", ".join(answer["values"]) if answer and not answer.get("skipped") else "skipped"


def _call(item: dict[str, Any], said: Message) -> list[Message]:
    arguments = json.dumps(item["arguments"], ensure_ascii=False)
    call = {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": arguments}}
    messages: list[Message] = [{**said, "content": None, "tool_calls": [{**call, "parsed": item["arguments"]}]}]
    if item.get("status") == "completed":
        output = item.get("output")
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        result = {"role": "tool", "tool_call_id": item["call_id"], "name": item["name"], "content": text}
        messages.append(said | result)
    return messages

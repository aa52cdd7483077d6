"""What every format needs to read and write neutral messages (docs/message-format.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

from chat_history.formats import Loss
from chat_history.messages import Message

__all__ = [
    "ODD",
    "Block",
    "Losses",
    "answer",
    "blocks",
    "compact",
    "content_parts",
    "data_url",
    "media",
    "media_type_of",
    "or_unknown",
    "parsed",
    "parsed_arguments",
    "plain_text",
    "split_data_url",
    "string",
    "strings",
    "unknown",
]

Block: TypeAlias = tuple[str, Any]
"""A piece of an assistant's message and where it stands in it: "thinking", "content" or "tool_calls"."""

USUAL_ORDER = {"thinking": 0, "content": 1, "tool_calls": 2}


SEALS = ("signature", "ciphertext", "id")
"""What makes a thought one of a provider and an API."""


class Losses:
    """Collects what a conversion could not carry, by message."""

    def __init__(self) -> None:
        self.found: list[Loss] = []
        self.message_id = ""

    def of(self, message: Message) -> None:
        """What is added from now on is of this message."""
        self.message_id = message.get("message_id", "")

    def add(self, part: str, reason: str) -> None:
        """One thing that has no place in the target."""
        self.found.append(Loss(self.message_id, part, reason))

    def spoken(self, index: int, part: dict[str, Any]) -> dict[str, Any]:
        """The part, or the words of it if they were spoken: of sound with a transcript only that is carried."""
        if part["type"] != "audio" or not part.get("transcript"):
            return part
        if part.keys() & {"id", "data", "url"}:
            self.add(f"content[{index}].audio", "of spoken words only the transcript is kept")
        return {"type": "text", "text": part["transcript"]}

    def sealed(self, thought: dict[str, Any]) -> None:
        """What seals a thought is not carried."""
        for key in SEALS:
            if thought.get(key):
                self.add(f"thinking.{key}", "it is of use to the provider and API only that it came from")

    def thought(self, thought: dict[str, Any]) -> str:
        """The words of a thought, for a target that has place for one text and no use for seals of others."""
        self.sealed(thought)
        text, summary = thought.get("text"), thought.get("summary")
        if text and summary:
            self.add("thinking.summary", "there is place for one text, and the whole thought is kept")
        return text or summary or ""

    def no_place(self, index: int, part: dict[str, Any]) -> None:
        """A part of the content that the target has no slot for."""
        kind = part["type"]
        if kind in ("server_tool_call", "server_tool_result"):
            reason = f"what {part['name']!r} did at the provider is not played back"
        elif kind == "unknown":
            reason = f"only {part['format']} knows what it is"
        else:
            reason = f"there is no place for {kind}"
        self.add(f"content[{index}]", reason)


def answer(pieces: Iterable[Block]) -> Message:
    """An assistant's message of these pieces, in order."""
    message: Message = {"role": "assistant", "content": None}
    order = []
    content: list[Any] = []
    for key, item in pieces:
        order.append(key)
        if key == "content":
            content.append(item)
        else:
            message.setdefault(key, []).append(item)
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        message["content"] = content[0]["text"]
    elif content:
        message["content"] = content
    if len(order) > 1 and order != sorted(order, key=USUAL_ORDER.__getitem__):
        message["order"] = order
    return message


def blocks(message: Message) -> Iterator[Block]:
    """The pieces of an assistant's message, in the order in which they were said."""
    pieces: dict[str, list[Any]] = {
        "thinking": message.get("thinking", []),
        "content": content_parts(message["content"]),
        "tool_calls": message.get("tool_calls", []),
    }
    if "order" not in message:
        for key, items in pieces.items():
            for item in items:
                yield key, item
        return
    waiting = {key: iter(items) for key, items in pieces.items()}
    for key in message["order"]:
        yield key, next(waiting[key])


def content_parts(content: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Content as a list of parts."""
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def plain_text(content: str | list[dict[str, Any]] | None) -> str:
    """The text in it, a line a part."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or () if part.get("text"))


def unknown(raw: Any, format: str) -> dict[str, Any]:
    """A part that only its format can read."""
    return {"type": "unknown", "format": format, "raw": raw}


def or_unknown(make: Callable[[Any], dict[str, Any]], raw: Any, format: str) -> dict[str, Any]:
    """What `make` makes of it, or, if it is not built as its format has it, an unknown part."""
    try:
        return make(raw)
    except ODD:
        return unknown(raw, format)


ODD = (KeyError, TypeError, AttributeError, ValueError, RecursionError)
"""What reading JSON that is built otherwise than expected raises."""


def string(value: Any) -> str:
    """The value, which must be a string."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a str")
    return value


def strings(fields: dict[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Those of the fields that hold text, by their neutral names: `strings(part, {"provider_id": "id"})`."""
    found = {}
    for field, name in names.items():  # a comprehension would be a call more, and this is called very often
        value = fields.get(field)
        if value and isinstance(value, str):
            found[name] = value
    return found


compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def parsed(payload: str) -> Any:
    """A payload as `json.loads` reads it, mostly in half the time."""
    try:
        return _from_json()(payload)
    except (ValueError, TypeError):  # of lone surrogates, and of what lies very deep
        return json.loads(payload)


@cache
def _from_json() -> Callable[[str], Any]:
    from pydantic_core import from_json

    return from_json


def parsed_arguments(arguments: str) -> dict[str, Any] | None:
    """The arguments of a tool call, if they are a JSON object."""
    try:
        value = parsed(arguments)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def media_type_of(kind: str, format: str | None) -> str | None:
    """The media type of what says only "wav" or "png"."""
    if not isinstance(format, str) or not format:
        return None
    return f"{kind}/{ {'mp3': 'mpeg', 'jpg': 'jpeg'}.get(format, format) }"


def media(media_type: str | None) -> str:
    """The type of the part that holds such media."""
    kind = (media_type or "").partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "file"


def split_data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a data URL, None for any other URL."""
    if not url.startswith("data:"):
        return None
    head, comma, data = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        return None
    return head.removesuffix(";base64").partition(";")[0] or "text/plain", data


def located(kind: str, url: str) -> dict[str, Any]:
    """The part of what stands at a URL, which may be a data URL."""
    split = split_data_url(url)
    if split is None:
        return {"type": kind, "url": url}
    media_type, data = split
    return {"type": kind, "data": data, "media_type": media_type}


def data_url(part: dict[str, Any]) -> str:
    """The data URL of a part that holds its bytes."""
    return f"data:{part.get('media_type') or 'application/octet-stream'};base64,{part['data']}"

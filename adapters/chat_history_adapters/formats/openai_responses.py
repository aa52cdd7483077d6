"""Items of OpenAI's Responses API, which are also the session items of the OpenAI Agents SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chat_history.errors import InvalidMessageError
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .json_dicts import canonical, payload_of
from .neutral import parsed
from .openai_responses_from_neutral import Writer
from .openai_responses_to_neutral import RESULTS, is_item, to_neutral

__all__ = ["FORMAT", "OpenAIResponses"]


class OpenAIResponses:
    """Items as dicts. What is added comes back equal, whatever its type is, or is refused.

    An item without a type, such as `{"role": "user", "content": "Hello!"}`, is also a message of Chat Completions, and
    is recognised as that one unless its content has parts that only Responses has. Of a role and a text it is the same
    dict when it is read in this format.
    """

    name = "openai_responses"

    def version(self) -> str:
        """Nothing but the dict itself writes this format."""
        return ""

    def recognises(self, message: object) -> bool:
        """A dict with the type of an item, or an object of the SDK's Responses."""
        if isinstance(message, dict):
            return is_item(message)
        return any(each.__module__.startswith("openai.types.responses") for each in type(message).__mro__)

    def dump(self, message: Any) -> Dumped:
        """The item as JSON with its keys in their order. Refuses what JSON would give back as something else."""
        if not isinstance(message, dict):
            message = _of_sdk(message)
        spoken = _text(message)
        text = readable(spoken)
        said = text is spoken and text is message.get("content")
        return Dumped(payload_of(message), readable(_role(message)), text, said)

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The dicts of these payloads."""
        return list(map(json.loads, payloads))

    def parts(self, payload: str) -> Parts:
        """The whole item as one part, without what may be left out: keys of null, the type of a message.

        What the assistant said is as the SDK has it after a run was serialised: as a part, and completed.
        """
        item = {key: value for key, value in json.loads(payload).items() if value is not None}
        if item.get("type") == "message" and "role" in item:
            del item["type"]
        if item.get("role") == "assistant":
            item.setdefault("status", "completed")
            if isinstance(content := item.get("content"), str):
                item["content"] = [{"type": "output_text", "text": content}]
        return Parts("item", [canonical(item)], "", 1 if _is_system(item) else 0)

    def rest(self, message: Any, start: int) -> Any:
        """The item itself: it has one part."""
        return message

    def system(self, message: Any) -> Any | None:
        """The item itself if it is a system prompt."""
        return message if _is_system(message) else None

    def to_neutral(self, payload: str) -> list[Message]:
        """One message. Items of an answer are marked as pieces of it."""
        return [to_neutral(parsed(payload))]

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """Items that the Responses API accepts: one for each thought, text and call of an answer."""
        return Writer().write(messages)


FORMAT = OpenAIResponses()


def _of_sdk(message: Any) -> dict[str, Any]:
    dumped = None
    if hasattr(message, "model_dump"):
        # What the SDK has parsed itself it does not send either.
        parsed = getattr(message, "__api_exclude__", None)
        dumped = message.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=parsed)
    if isinstance(dumped, dict) and is_item(dumped):
        return dumped
    raise InvalidMessageError(
        f"an openai {type(message).__name__} is not an item; take the items out of it (response.output)"
    )


def _is_system(item: dict[str, Any]) -> bool:
    return item.get("role") in ("system", "developer") and item.get("type", "message") == "message"


def _role(item: dict[str, Any]) -> str:
    role, kind = item.get("role"), item.get("type")
    if isinstance(role, str) and role:
        return role
    return "tool" if isinstance(kind, str) and kind in RESULTS else "assistant"


def _text(item: dict[str, Any]) -> str:
    content = item.get("content", item.get("output"))
    if isinstance(content, str):
        return content
    texts = []
    for part in content if isinstance(content, list) and item.get("type") != "reasoning" else ():
        if isinstance(part, dict):
            texts.append(part.get("text") or part.get("refusal"))
    return "\n".join(text for text in texts if isinstance(text, str) and text)

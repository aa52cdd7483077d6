"""Chat Completions dicts, also plain role/content dicts that people write by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chat_history.errors import InvalidMessageError
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .json_dicts import canonical, payload_of
from .neutral import parsed
from .openai_chat_from_neutral import Writer
from .openai_chat_to_neutral import to_neutral
from .openai_responses_to_neutral import is_item

__all__ = ["FORMAT", "OpenAIChat"]


class OpenAIChat:
    """Dicts with a role. What is added comes back equal, whatever its keys are, or is refused."""

    name = "openai"

    def version(self) -> str:
        """Nothing but the dict itself writes this format."""
        return ""

    def recognises(self, message: object) -> bool:
        """A dict whose "role" is a str, but no item of Responses; or an object of the SDK's Chat Completions."""
        if isinstance(message, dict):
            if type(message.get("content")) is str and "type" not in message:
                return isinstance(message.get("role"), str)
            return isinstance(message.get("role"), str) and not is_item(message)
        return any(each.__module__.startswith("openai.types.chat") for each in type(message).__mro__)

    def dump(self, message: Any) -> Dumped:
        """The dict as JSON with its keys in their order. Refuses what JSON would give back as something else."""
        if not isinstance(message, dict):
            message = _of_sdk(message)
        payload = payload_of(message)
        content = message.get("content")
        if type(content) is not str:
            return Dumped(payload, readable(message["role"]), readable(_text(message)))
        text = readable(content)
        return Dumped(payload, readable(message["role"]), text, text is content)

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The dicts of these payloads."""
        return list(map(json.loads, payloads))

    def parts(self, payload: str) -> Parts:
        """The whole dict as one part, without keys of null, which may be left out: dicts are never merged."""
        message = {key: value for key, value in json.loads(payload).items() if value is not None}
        system = message.get("role") in ("system", "developer")
        return Parts("dict", [canonical(message)], "", 1 if system else 0)

    def rest(self, message: Any, start: int) -> Any:
        """The message itself: it has one part."""
        return message

    def system(self, message: Any) -> Any | None:
        """The message itself if it is a system prompt."""
        return message if message.get("role") in ("system", "developer") else None

    def to_neutral(self, payload: str) -> list[Message]:
        """One message of the same role."""
        return [to_neutral(parsed(payload))]

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """Dicts that the Chat Completions API accepts, one for each message that says anything."""
        return Writer().write(messages)


FORMAT = OpenAIChat()


def _of_sdk(message: Any) -> dict[str, Any]:
    dumped = message.to_dict() if hasattr(message, "to_dict") else None
    if isinstance(dumped, dict) and isinstance(dumped.get("role"), str):
        return dumped
    raise InvalidMessageError(
        f"an openai {type(message).__name__} is not a message; take the message out of it (choices[0].message)"
    )


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    texts = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            texts.append(part.get("text") or part.get("refusal"))
        else:
            texts.append(part)
    if isinstance(content, str):
        texts = [content]
    if not any(texts):
        audio = message.get("audio")
        texts = [message.get("refusal"), audio.get("transcript") if isinstance(audio, dict) else None]
    return "\n".join(text for text in texts if isinstance(text, str) and text)

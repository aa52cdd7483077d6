"""Chat Completions dicts, also plain role/content dicts that people write by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from chat_history.errors import InvalidMessageError
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .openai_chat_from_neutral import Writer
from .openai_chat_to_neutral import to_neutral

__all__ = ["FORMAT", "OpenAIChat"]

MAX_DEPTH = 100
"""Lists and dicts in one another: what every reader of JSON can still take, from however deep a call."""
MAX_INTEGER = 10**4300
"""Python itself reads no longer ones from text."""

_encode = json.JSONEncoder(ensure_ascii=False).encode
_canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def _quoted(text: str) -> str:
    # As `_encode` does it (but for DEL, which is escaped here), at half the cost for most texts.
    return encode_basestring_ascii(text) if text.isascii() else encode_basestring(text)


_key = lru_cache(maxsize=256)(_quoted)


class OpenAIChat:
    """Dicts with a role. What is added comes back equal, whatever its keys are, or is refused."""

    name = "openai"

    def version(self) -> str:
        """Nothing but the dict itself writes this format."""
        return ""

    def recognises(self, message: object) -> bool:
        """A dict whose "role" is a str, or an object of the SDK's Chat Completions responses."""
        if isinstance(message, dict):
            return isinstance(message.get("role"), str)
        return any(each.__module__.startswith("openai.types.chat") for each in type(message).__mro__)

    def dump(self, message: Any) -> Dumped:
        """The dict as JSON with its keys in their order. Refuses what JSON would give back as something else."""
        if not isinstance(message, dict):
            message = _of_sdk(message)
        for key, value in message.items():
            if type(value) is not str or type(key) is not str:
                _check(message, "message", 1)
                payload = _encode(message)
                break
        else:
            payload = f"{{{', '.join([f'{_key(key)}: {_quoted(value)}' for key, value in message.items()])}}}"
        if not payload.isascii():
            try:
                payload.encode()
            except UnicodeEncodeError:
                payload = _escaped(message)
        content = message.get("content")
        text = content if type(content) is str else _text(message)
        return Dumped(payload, readable(message["role"]), readable(text))

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The dicts of these payloads."""
        return list(map(json.loads, payloads))

    def parts(self, payload: str) -> Parts:
        """The whole dict as one part: dicts are never merged."""
        message = json.loads(payload)
        system = message.get("role") in ("system", "developer")
        return Parts("dict", [_canonical(message)], "", 1 if system else 0)

    def rest(self, message: Any, start: int) -> Any:
        """The message itself: it has one part."""
        return message

    def system(self, message: Any) -> Any | None:
        """The message itself if it is a system prompt."""
        return message if message.get("role") in ("system", "developer") else None

    def to_neutral(self, payload: str) -> list[Message]:
        """One message of the same role."""
        return [to_neutral(json.loads(payload))]

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


def _check(value: Any, path: str, depth: int) -> None:
    """Refuse what would not come back equal, naming where it is."""
    if depth > MAX_DEPTH:
        raise InvalidMessageError(f"{path[:80]}... lies more than {MAX_DEPTH} levels deep; flatten the message")
    if isinstance(value, str) or value is None or value is True or value is False:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidMessageError(
                    f"{path} has the key {key!r}, and JSON has only strings for keys: make it a string"
                )
            _check(item, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, int):
        if not -MAX_INTEGER < value < MAX_INTEGER:
            raise InvalidMessageError(f"{path} is an integer of more than 4300 digits: store it as a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidMessageError(f"{path} is {value!r}, which JSON does not have: use None or a string")
    else:
        raise InvalidMessageError(
            f"{path} is a {type(value).__name__}, which JSON does not give back as it was: "
            "use a str, int, float, bool, None, list or dict"
        )


def _escaped(message: dict[str, Any]) -> str:
    """The payload of a message with lone surrogates, which UTF-8 does not have."""
    payload = json.dumps(message)
    if json.loads(payload) != message:
        raise InvalidMessageError(
            "the message has surrogates that form a pair; make characters of them: "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16')"
        )
    return payload


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

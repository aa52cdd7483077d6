"""Messages of Microsoft Agent Framework: `Message`, as its own `to_dict` writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from typing import Any

from chat_history.errors import InvalidMessageError
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .agent_framework_to_neutral import to_neutral
from .extras import framework, installed_version
from .json_dicts import canonical
from .neutral import parsed, string

__all__ = ["FORMAT", "AgentFramework"]

PACKAGE = "agent_framework"
EXTRA = "agent-framework"
SYSTEM = ("system", "developer")
ANSWERS = ("function_result", "function_approval_response")
"""Contents that answer a call: a message with one of them begins no turn."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class AgentFramework:
    """The format of Agent Framework's own dicts."""

    name = "agent_framework"

    def version(self) -> str:
        """The installed version of agent-framework-core."""
        return installed_version("agent-framework-core")

    def recognises(self, message: object) -> bool:
        """A `Message`, or an object of a class derived from it."""
        return any(
            each.__name__ == "Message" and each.__module__.startswith("agent_framework.")
            for each in type(message).__mro__
        )

    def dump(self, message: Any) -> Dumped:
        """A message as `to_dict` gives it, which leaves out raw representations and the words of exceptions."""
        try:
            fields = {**message.to_dict(), "type": "message"}  # the name of a derived class would not be read back
            payload = _encode(fields)
            role, text = _role_and_text(fields)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise InvalidMessageError(
                f"Agent Framework cannot write this {type(message).__name__} as JSON: {error}; "
                "put text, numbers, lists and dicts in place of what is named there"
            ) from error
        try:
            payload.encode()
        except UnicodeEncodeError:  # lone surrogates, which UTF-8 does not have
            payload = json.dumps(fields, separators=(",", ":"))
        return Dumped(payload, readable(role), readable(text))

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The messages of these payloads, one by one. `ValueError` for a field that this release does not know."""
        message = framework(PACKAGE, EXTRA).Message
        return [_load(message, json.loads(payload)) for payload in payloads]

    def parts(self, payload: str) -> Parts:
        """The contents one by one, without the ids that a run gives to calls of tools and to messages."""
        message = json.loads(payload)
        contents = [_canonical_content(content) for content in message.get("contents") or ()]
        role = message.get("role", "")
        properties = {
            key: value for key, value in (message.get("additional_properties") or {}).items() if not _is_own(key)
        }
        envelope = canonical([message.get("author_name"), properties])
        return Parts(role, contents or ["{}"], envelope, len(contents or "-") if role in SYSTEM else 0)

    def rest(self, message: Any, start: int) -> Any:
        """The same message without its first `start` contents."""
        if not start:
            return message
        rest = copy(message)
        rest.contents = message.contents[start:]
        return rest

    def system(self, message: Any) -> Any | None:
        """The message itself if it is a system prompt."""
        return message if message.role in SYSTEM else None

    def to_neutral(self, payload: str) -> list[Message]:
        """One message of the same role, or one for each result of a tool that it holds."""
        return to_neutral(parsed(payload))

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """A `Message` for each, but one for all results that follow one answer, as a run makes them."""
        from .agent_framework_from_neutral import Writer

        return Writer(framework(PACKAGE, EXTRA)).write(messages)


FORMAT = AgentFramework()


def _load(make: Any, fields: dict[str, Any]) -> Any:
    try:
        message = make.from_dict(fields)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(message.role, str):
        raise ValueError("its role is not a str")
    if len(message.contents) != len(fields.get("contents") or ()):
        raise ValueError("Agent Framework skips one of its contents")
    return message


def _is_own(key: str) -> bool:
    """Whether a message's property is a note of the framework: of compaction, or of where it came from."""
    return key.startswith("_") or key == "context_source"


def _canonical_content(content: Any) -> str:
    if not isinstance(content, dict):
        return canonical(content)
    given_by_runs = ("id",) if content.get("type") in ("function_call", "function_result") else ()
    return canonical(
        {
            key: value
            for key, value in content.items()
            if value is not None and value is not False and value != {} and key not in given_by_runs
        }
    )


def _role_and_text(message: dict[str, Any]) -> tuple[str, str]:
    role, texts = string(message["role"]), []
    for content in message["contents"]:
        kind = content["type"]
        if kind == "text":
            texts.append(content["text"])
        elif kind == "function_result":
            texts.append(content.get("result"))
        if kind in ANSWERS and role != "assistant":
            role = "tool"
    texts = [each if isinstance(each, str) else _encode(each) for each in texts if each]
    return role, "\n".join(texts)

"""Messages of LangChain: every class of `langchain_core.messages`, as `message_to_dict` has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chat_history.errors import InvalidMessageError, brief
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .extras import framework, installed_version
from .json_dicts import canonical
from .langchain_to_neutral import DEVELOPER, ROLES, to_neutral
from .neutral import parsed

__all__ = ["FORMAT", "LangChain"]

PACKAGE = "langchain_core.messages"
EXTRA = "langchain"


class LangChain:
    """The format of LangChain's own dicts, `{"type": ..., "data": ...}`."""

    name = "langchain"

    def version(self) -> str:
        """The installed version of langchain-core."""
        return installed_version("langchain-core")

    def recognises(self, message: object) -> bool:
        """An object of a class derived from `BaseMessage`."""
        return any(
            each.__name__ == "BaseMessage" and each.__module__.startswith("langchain_core.messages")
            for each in type(message).__mro__
        )

    def dump(self, message: Any) -> Dumped:
        """A message as LangChain itself dumps it. What is stored can be loaded again, or is refused."""
        try:
            kind = json.dumps(message.type)
            payload = f'{{"type":{kind},"data":{message.model_dump_json(warnings="error")}}}'
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            payload = _dump_anyway(message, error)
        return Dumped(payload, readable(_role(message)), readable(_text(message)))

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The messages of these payloads, validated one by one."""
        return [_load(json.loads(payload)) for payload in payloads]

    def parts(self, payload: str) -> Parts:
        """The whole message as one part, without the id, which graphs give to messages that have none."""
        message = json.loads(payload)
        fields = {key: value for key, value in message["data"].items() if key != "id" and value not in (None, {}, [])}
        return Parts("message", [canonical(fields)], "", 1 if message["type"].startswith("system") else 0)

    def rest(self, message: Any, start: int) -> Any:
        """The message itself: it has one part."""
        return message

    def system(self, message: Any) -> Any | None:
        """The message itself if it is a system prompt."""
        return message if ROLES.get(message.type) == "system" else None

    def to_neutral(self, payload: str) -> list[Message]:
        """One message, of the role that goes with its class."""
        return [to_neutral(parsed(payload))]

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """One message for each that says anything."""
        from .langchain_from_neutral import Writer

        return Writer(framework(PACKAGE, EXTRA)).write(messages)


FORMAT = LangChain()


def _load(fields: dict[str, Any]) -> Any:
    try:
        return framework(PACKAGE, EXTRA).messages_from_dict([fields])[0]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"LangChain cannot read it: {error}") from error


def _dump_anyway(message: Any, error: Exception) -> str:
    """A message that is not quite of the types it declares, or has lone surrogates, is taken if it can be read back."""
    name = type(message).__name__
    try:
        fields = {"type": message.type, "data": message.model_dump(warnings=False)}
        payload = json.dumps(fields, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidMessageError(
            f"LangChain cannot write this {name} as JSON: {brief(error)}; "
            "put text, numbers, lists and dicts in place of what is named there"
        ) from error
    try:
        _load(json.loads(payload))
    except ValueError:
        raise InvalidMessageError(f"LangChain could not read this {name} back: {brief(error)}") from error
    return payload


def _role(message: Any) -> str:
    role = ROLES.get(message.type)
    if role == "system" and message.additional_kwargs.get(DEVELOPER) == "developer":
        return "developer"
    return role or str(getattr(message, "role", None) or message.type)


def _text(message: Any) -> str:
    content = message.content
    if isinstance(content, str):
        return content or str(message.additional_kwargs.get("refusal") or "")
    texts = [block if isinstance(block, str) else block.get("text") or block.get("refusal") for block in content]
    return "\n".join(text for text in texts if isinstance(text, str) and text)

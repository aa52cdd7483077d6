"""Messages of LlamaIndex: `ChatMessage`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chat_history.errors import InvalidMessageError, brief
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .extras import framework, installed_version
from .json_dicts import canonical
from .llama_index_to_neutral import ROLES, to_neutral
from .neutral import parsed

__all__ = ["FORMAT", "LlamaIndex"]


class LlamaIndex:
    """The format of LlamaIndex's own JSON."""

    name = "llama_index"

    def version(self) -> str:
        """The installed version of llama-index-core."""
        return installed_version("llama-index-core")

    def recognises(self, message: object) -> bool:
        """A `ChatMessage`, or an object of a class derived from it."""
        return any(
            each.__module__.startswith("llama_index.") and each.__name__ == "ChatMessage"
            for each in type(message).__mro__
        )

    def dump(self, message: Any) -> Dumped:
        """A message as LlamaIndex itself dumps it. What is stored can be loaded again, or is refused."""
        name = type(message).__name__
        try:
            payload = message.model_dump_json(warnings="error")
            if not _is_plain(message):
                payload = _settled(payload)
        except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise InvalidMessageError(
                f"LlamaIndex cannot write this {name} as JSON and read it back: {brief(error)}; "
                "put text, numbers, lists and dicts in place of what is named there"
            ) from error
        role = message.role.value
        return Dumped(payload, ROLES.get(role, role), readable(message.content or ""))

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The messages of these payloads, validated one by one."""
        validate = _types().ChatMessage.model_validate_json
        return [validate(payload) for payload in payloads]

    def parts(self, payload: str) -> Parts:
        """The whole message as one part: LlamaIndex never merges messages. Without what a release may add as null."""
        message = json.loads(payload)
        message["blocks"] = [
            {key: value for key, value in block.items() if value is not None} for block in message.get("blocks", ())
        ]
        return Parts("message", [canonical(message)], "", 1 if message.get("role") in ("system", "developer") else 0)

    def rest(self, message: Any, start: int) -> Any:
        """The message itself: it has one part."""
        return message

    def system(self, message: Any) -> Any | None:
        """The message itself if it is a system prompt."""
        return message if message.role.value in ("system", "developer") else None

    def to_neutral(self, payload: str) -> list[Message]:
        """One message."""
        return [to_neutral(parsed(payload))]

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """One `ChatMessage` for each message that says anything."""
        from .llama_index_from_neutral import Writer

        return Writer(_types()).write(messages)


FORMAT = LlamaIndex()


def _types() -> Any:
    return framework("llama_index.core.base.llms.types", "llama-index")


def _is_plain(message: Any) -> bool:
    """Whether there is nothing in a message but text: JSON gives that back as it is."""
    return not message.additional_kwargs and all(type(block).__name__ == "TextBlock" for block in message.blocks)


def _settled(payload: str) -> str:
    """The payload as it stays from now on: the first reading may still guess media types and encode bytes."""
    validate = _types().ChatMessage.model_validate_json
    settled: str = validate(payload).model_dump_json(warnings="error")
    if validate(settled).model_dump_json(warnings="error") != settled:
        raise ValueError("it does not come back as it was")
    return settled

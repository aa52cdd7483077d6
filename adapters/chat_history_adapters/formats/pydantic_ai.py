"""Messages of Pydantic AI, 1.107 and 2.x: `ModelRequest` and `ModelResponse`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from chat_history.errors import InvalidMessageError, brief
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .json_dicts import canonical
from .neutral import parsed
from .pydantic_ai_to_neutral import to_neutral

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["FORMAT", "PydanticAI"]

SYNTHESIZED = {"pydantic_ai_synthesized_tool_return": True}
"""The metadata of a tool return that Pydantic AI 2 itself puts in for a call without one, anew in each run."""
OWN_METADATA = "__pydantic_ai__"
"""What a request's metadata has under this key is the framework's."""
REQUEST_FILLED_IN = frozenset({"parts", "kind", "instructions", "run_id", "timestamp", "conversation_id", "state"})
RESPONSE_FILLED_IN = frozenset({"parts", "kind", "run_id", "conversation_id", "workspace_ref"})
"""What a run fills in, or takes anew, in messages that it was given."""


class PydanticAI:
    """The format of Pydantic AI's own JSON."""

    name = "pydantic_ai"

    def version(self) -> str:
        """The installed version of pydantic-ai-slim."""
        return _version()

    def recognises(self, message: object) -> bool:
        """A `ModelRequest` or `ModelResponse`, or an object of a class derived from one."""
        return any(
            each.__module__.startswith("pydantic_ai.") and each.__name__ in ("ModelRequest", "ModelResponse")
            for each in type(message).__mro__
        )

    def dump(self, message: Any) -> Dumped:
        """A message as Pydantic AI itself dumps it. What is stored can be loaded again, or is refused."""
        try:
            payload = _adapter().serializer.to_json(message, warnings="error").decode()
        except (ValueError, RecursionError, TypeError, AttributeError) as error:
            payload = _dump_anyway(message, error)
        try:
            role, text = _role_and_text(message)
        except (AttributeError, TypeError) as error:
            raise InvalidMessageError(
                f"this {type(message).__name__} is not made as Pydantic AI says: {error}"
            ) from error
        return Dumped(payload, role, readable(text))

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The messages of these payloads, validated one by one."""
        validate = _adapter().validator.validate_json
        return [validate(payload) for payload in payloads]

    def parts(self, payload: str) -> Parts:
        """A request or a response, part by part, without what a run changes in messages that it is given.

        Those are: the text of a dynamic system prompt, the ids, times and instructions of a request that is continued
        without a prompt, the place of what stands between tool returns, and the tool returns that Pydantic AI 2 puts
        in for calls without one. An empty request, as a run leaves behind that failed, has no parts: the next run puts
        such returns into it, or makes it one with the request that follows.
        """
        message = json.loads(payload)
        kind = message.get("kind", "")
        listed = message.get("parts", [])
        visible = _in_order([part for part in listed if not _is_synthesized(part)], _of_json)
        filled_in = REQUEST_FILLED_IN if kind == "request" else RESPONSE_FILLED_IN
        rest = {key: value for key, value in message.items() if value is not None and key not in filled_in}
        if kind == "request":
            metadata = {key: value for key, value in rest.pop("metadata", {}).items() if key != OWN_METADATA}
            if metadata:
                rest["metadata"] = metadata
        else:
            rest["usage"] = {key: value for key, value in rest.get("usage", {}).items() if value}
        system = 0
        while system < len(visible) and visible[system].get("part_kind") == "system-prompt":
            system += 1
        strings = [_canonical_part(part) for part in visible]
        return Parts(kind, strings if listed or kind == "request" else ["{}"], canonical(rest), system)

    def rest(self, message: Any, start: int) -> Any:
        """The same message without its first `start` parts, counted as `parts` counts them."""
        if not start:
            return message
        from dataclasses import replace

        visible = [part for part in message.parts if not _is_synthesized(_kind_and_metadata(part))]
        return replace(message, parts=_in_order(visible, _of_object)[start:])

    def system(self, message: Any) -> Any | None:
        """A request with the leading system prompts only, None if it has none."""
        if message.kind != "request":
            return None
        leading = []
        for part in message.parts:
            if part.part_kind != "system-prompt":
                break
            leading.append(part)
        if not leading:
            return None
        from pydantic_ai.messages import ModelRequest

        return ModelRequest(parts=leading)

    def to_neutral(self, payload: str) -> list[Message]:
        """A request as the messages of system, tools and user that it holds; a response as one of the assistant."""
        return to_neutral(parsed(payload))

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """Requests and responses in turn: the shape that an agent's run gives a history anyway."""
        from .pydantic_ai_from_neutral import Writer

        return Writer().write(messages)


FORMAT = PydanticAI()


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("pydantic-ai-slim")


@cache
def _adapter() -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic_ai.messages import ModelMessage

    return TypeAdapter(ModelMessage, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))


def _dump_anyway(message: Any, error: Exception) -> str:
    """A message that is not quite of the types it declares is taken if it can be read back."""
    name = type(message).__name__
    try:
        payload = _adapter().serializer.to_json(message, warnings=False).decode()
    except (ValueError, RecursionError, TypeError, AttributeError):
        raise InvalidMessageError(
            f"Pydantic AI cannot write this {name} as JSON: {brief(error)}; "
            "put text, numbers, lists and dicts in place of what is named there"
        ) from error
    try:
        _adapter().validator.validate_json(payload)
    except ValueError:
        raise InvalidMessageError(f"Pydantic AI could not read this {name} back: {brief(error)}") from error
    return payload


# ---- role and text


def _role_and_text(message: Any) -> tuple[str, str]:
    if message.kind == "response":
        return "assistant", _joined([_spoken(part) for part in message.parts if part.part_kind in ("text", "speech")])
    texts: list[str] = []
    system: list[str] = []
    answers_tools = is_asked = answers_model = False
    for part in message.parts:
        kind = part.part_kind
        if kind == "user-prompt":
            is_asked = True
            texts.append(_prompt_text(part.content))
        elif kind == "speech":
            is_asked = True
            texts.append(_spoken(part))
        elif kind == "compaction":
            is_asked = True
            texts.append(part.content or "")
        elif kind in ("tool-return", "retry-prompt", "retry-feedback"):
            answers_tools = answers_tools or getattr(part, "tool_name", None) is not None
            answers_model = True
            texts.append(_value_text(part.content))
        elif kind == "system-prompt":
            system.append(part.content)
    # What an application says of an answer that it could not use goes on with the turn, as a tool's result does.
    role = "user" if is_asked and not answers_tools else "tool" if answers_model else "system"
    return role, _joined(system if role == "system" else texts)


def _joined(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else "\n".join(filter(None, texts))


def _spoken(part: Any) -> str:
    return (part.content if part.part_kind == "text" else part.transcript) or ""


def _prompt_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = [item if isinstance(item, str) else getattr(item, "content", "") for item in content]
    return "\n".join(text for text in texts if text)


def _value_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_described)
    except (TypeError, ValueError, RecursionError):
        from pydantic_core import to_json

        return to_json(value, bytes_mode="base64", serialize_unknown=True).decode()


def _described(value: Any) -> Any:
    """A value within a tool's result that JSON has no form for: a file by its type, anything else as Pydantic says."""
    media_type = getattr(value, "media_type", None)
    if media_type is not None:
        return f"[{media_type}]"
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, bytes_mode="base64", serialize_unknown=True)


# ---- what tells a message from others


def _canonical_part(part: dict[str, Any]) -> str:
    if part.get("part_kind") == "system-prompt" and part.get("dynamic_ref"):
        return canonical({"dynamic_ref": part["dynamic_ref"]})
    return canonical(
        {
            key: value
            for key, value in part.items()
            if value is not None and key != "content_file_digests" and DEFAULTS.get(key) != value
        }
    )


DEFAULTS = {"outcome": "success", "scope": "conversation"}
"""Values that one release writes, and another, older, leaves out."""


def _is_synthesized(part: dict[str, Any]) -> bool:
    return part.get("metadata") == SYNTHESIZED and part.get("part_kind") == "tool-return"


def _kind_and_metadata(part: Any) -> dict[str, Any]:
    return {"part_kind": part.part_kind, "metadata": getattr(part, "metadata", None)}


def _of_json(part: dict[str, Any]) -> tuple[str, str | None]:
    return part.get("part_kind", ""), part.get("tool_name")


def _of_object(part: Any) -> tuple[str, str | None]:
    return part.part_kind, getattr(part, "tool_name", None)


def _in_order(parts: list[Any], name: Callable[[Any], tuple[str, str | None]]) -> list[Any]:
    """Parts in the order in which a run puts them: what stands between two tool returns comes after the last."""
    kinds = [
        "result" if kind == "tool-return" or (kind == "retry-prompt" and tool is not None) else kind
        for kind, tool in map(name, parts)
    ]
    if "result" not in kinds:
        return parts
    first, last = kinds.index("result"), len(kinds) - kinds[::-1].index("result")
    stay = [kind in ("result", "tool-availability-delta") for kind in kinds]
    if all(stay[first:last]):
        return parts
    between = range(first, last)
    kept = [parts[index] for index in between if stay[index]]
    moved = [parts[index] for index in between if not stay[index]]
    return [*parts[:first], *kept, *moved, *parts[last:]]

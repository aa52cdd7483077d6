"""Messages of Pydantic AI, 1.107 and 2.x: `ModelRequest` and `ModelResponse`."""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from chat_history.errors import InvalidMessageError
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .neutral import Block, Losses, answer, blocks, compact, content_parts, media, parsed_arguments, plain_text

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

canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


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
            raise InvalidMessageError(f"Pydantic AI cannot read back this {type(message).__name__}: {error}") from error
        return Dumped(payload, role, readable(text))

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The messages of these payloads, validated one by one."""
        validate = _adapter().validator.validate_json
        return [validate(payload) for payload in payloads]

    def parts(self, payload: str) -> Parts:
        """A request or a response, part by part, without what a run changes in messages that it is given.

        Those are: the text of a dynamic system prompt, the ids, times and instructions of a request that is continued
        without a prompt, the place of what stands between tool returns, and the tool returns that Pydantic AI 2 puts
        in for calls without one.
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
        return Parts(kind, strings if listed else ["{}"], canonical(rest), system)

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
        message = json.loads(payload)
        try:
            if message["kind"] == "request":
                return _neutral_request(message)
            return [_neutral_response(message)]
        except (KeyError, TypeError, AttributeError, ValueError):
            role = "assistant" if message.get("kind") == "response" else "system"
            return [{"role": role, "content": [_unknown(message)]}]

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """Requests and responses in turn: the shape that an agent's run gives a history anyway."""
        return _Writer().write(messages)


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
            f"Pydantic AI cannot write this {name} as JSON: {error}; "
            "put text, numbers, lists and dicts in place of what is named there"
        ) from error
    try:
        _adapter().validator.validate_json(payload)
    except ValueError:
        raise InvalidMessageError(f"Pydantic AI could not read this {name} back: {error}") from error
    return payload


# ---- role and text


def _role_and_text(message: Any) -> tuple[str, str]:
    if message.kind == "response":
        texts = [_spoken(part) for part in message.parts if part.part_kind in ("text", "speech")]
        return "assistant", texts[0] if len(texts) == 1 else "\n".join(filter(None, texts))
    role, texts, system = "system", [], []
    for part in message.parts:
        kind = part.part_kind
        if kind == "user-prompt":
            texts.append(_prompt_text(part.content))
        elif kind == "tool-return" or (kind == "retry-prompt" and part.tool_name is not None):
            role = "tool"
            texts.append(_value_text(part.content))
            continue
        elif kind == "system-prompt":
            system.append(part.content)
            continue
        elif kind in ("retry-prompt", "retry-feedback"):
            texts.append(_value_text(part.content))
        elif kind == "speech":
            texts.append(_spoken(part))
        else:
            continue
        if role == "system":
            role = "user"
    if role == "system":
        texts = system
    return role, texts[0] if len(texts) == 1 else "\n".join(filter(None, texts))


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
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_described)


def _described(value: Any) -> Any:
    """A value within a tool's result that JSON has no form for: a file by its type, anything else as Pydantic says."""
    media_type = getattr(value, "media_type", None)
    if media_type is not None:
        return f"[{media_type}]"
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, serialize_unknown=True)


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


# ---- to neutral messages

FILE_TYPES = {"image-url": "image", "audio-url": "audio", "video-url": "video", "document-url": "file"}
OUTCOMES = {"failed": "error", "denied": "denied", "interrupted": "interrupted", "retried": "retried"}
"""A tool return's outcome, and the neutral one; a success is not mentioned."""


def _neutral_request(request: dict[str, Any]) -> list[Message]:
    messages = [_neutral_request_part(part) for part in request["parts"]]
    if not messages:
        if not request.get("instructions"):
            return []
        messages = [{"role": "user", "content": []}]
    ids = _ids(request)
    for message in messages:
        if request.get("timestamp"):
            message["sent_at"] = request["timestamp"]
            message.setdefault("created_at", request["timestamp"])
        if ids:
            message["ids"] = dict(ids)
    for key in ("instructions", "metadata"):
        if request.get(key):
            messages[0][key] = request[key]
    return messages


def _ids(message: dict[str, Any]) -> dict[str, str]:
    names = (("run", "run_id"), ("conversation", "conversation_id"), ("response", "provider_response_id"))
    return {name: message[key] for name, key in names if message.get(key)}


def _neutral_request_part(part: dict[str, Any]) -> Message:
    kind = part["part_kind"]
    message: Message
    if kind == "user-prompt":
        message = {"role": "user", "content": _neutral_content(part["content"])}
    elif kind == "system-prompt":
        message = {"role": "system", "content": part["content"]}
        _keep(message, part, ("content", "timestamp", "part_kind"), {"scope": "conversation"})
    elif kind == "tool-return" or (kind == "retry-prompt" and part.get("tool_name") is not None):
        message = _neutral_result(part)
    elif kind in ("retry-prompt", "retry-feedback"):
        message = {"role": "user", "kind": "retry", **_neutral_value(part["content"])}
        _keep(message, part, ("content", "timestamp", "part_kind", "tool_name", "tool_call_id"), {})
    elif kind == "speech":
        message = {"role": "user", "content": [_neutral_speech(part)]}
    else:
        return {"role": "system", "content": [_unknown(part)]}
    if part.get("timestamp"):
        message["created_at"] = part["timestamp"]
    return message


def _keep(holder: dict[str, Any], fields: dict[str, Any], but: Sequence[str], defaults: dict[str, Any]) -> None:
    """Keep the fields that have no neutral name under the name of this format."""
    own = {
        key: value
        for key, value in fields.items()
        if key not in but and value is not None and value != defaults.get(key)
    }
    if own:
        holder["extra"] = {"pydantic_ai": own}


def _neutral_result(part: dict[str, Any]) -> Message:
    message: Message = {
        "role": "tool",
        "tool_call_id": part.get("tool_call_id"),
        "name": part["tool_name"],
        **_neutral_value(part["content"]),
    }
    outcome = "retried" if part["part_kind"] == "retry-prompt" else OUTCOMES.get(part.get("outcome", ""))
    if outcome:
        message["outcome"] = outcome
    consumed = ("tool_name", "content", "tool_call_id", "timestamp", "outcome", "part_kind", "content_file_digests")
    _keep(message, part, consumed, {})
    return message


def _neutral_value(value: Any) -> Message:
    """A tool's result: as text, and as the value where that is not the text."""
    if isinstance(value, str):
        return {"content": value}
    items = value if isinstance(value, list) else [value]
    if any(_is_file(item) for item in items):
        return {"content": [_neutral_item(item) if _is_file(item) else _neutral_json(item) for item in items]}
    return {"content": "" if value is None else compact(value), "value": value}


def _is_file(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and (item.get("kind") in FILE_TYPES or item.get("kind") in ("binary", "uploaded-file"))
        and "media_type" in item
    )


def _neutral_json(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"type": "text", "text": value}
    return {"type": "text", "text": compact(value), "value": value}


def _neutral_content(content: str | list[Any]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_neutral_item(item) for item in content]


def _neutral_item(item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    kind = item["kind"]
    part: dict[str, Any]
    consumed = ("kind", "url", "data", "media_type", "file_id", "provider_name", "identifier")
    if kind in FILE_TYPES:
        part = {"type": FILE_TYPES[kind], "url": item["url"]}
    elif kind == "binary":
        part = {"type": media(item["media_type"]), "data": item["data"].replace("-", "+").replace("_", "/")}
    elif kind == "uploaded-file":
        part = {"type": "file", "file_id": item["file_id"], "provider": item["provider_name"]}
    elif kind in ("text-content", "structured-content"):
        part = {"type": "text", "text": item["content"]}
        part |= {key: item[key] for key in ("metadata", "value") if item.get(key) is not None}
        _keep(part, item, ("kind", "content", "metadata", "value"), {})
        return part
    elif kind == "cache-point":
        return {"type": "cache_point", "ttl": item.get("ttl", "5m")}
    else:
        return _unknown(item)
    part |= {key: item[key] for key in ("media_type", "identifier") if item.get(key)}
    vendor = item.get("vendor_metadata") or {}
    if isinstance(vendor.get("detail"), str):
        part["detail"] = vendor["detail"]
    _keep(part, item, consumed, {"force_download": False, "vendor_metadata": {"detail": part.get("detail")}})
    return part


def _unknown(raw: Any) -> dict[str, Any]:
    return {"type": "unknown", "format": "pydantic_ai", "raw": raw}


def _neutral_speech(part: dict[str, Any]) -> dict[str, Any]:
    spoken: dict[str, Any] = {"type": "audio"}
    if part.get("transcript") is not None:
        spoken["transcript"] = part["transcript"]
    if part.get("audio"):
        audio = _neutral_item(part["audio"])
        spoken |= {key: audio[key] for key in ("data", "media_type", "identifier") if key in audio}
    _keep(spoken, part, ("transcript", "audio", "speaker", "part_kind", "timestamp"), {})
    return spoken


def _neutral_response(response: dict[str, Any]) -> Message:
    own: dict[str, Any] = {}
    pieces = []
    for index, part in enumerate(response["parts"]):
        piece, left = _neutral_response_part(part)
        pieces.append(piece)
        if left:
            own.setdefault("parts", {})[str(index)] = left
    message = answer(pieces)
    if response.get("timestamp"):
        message["created_at"] = response["timestamp"]
    names = (("model_name", "model"), ("provider_name", "provider"), ("finish_reason", "finish_reason"))
    for key, name in (*names, ("metadata", "metadata")):
        if response.get(key):
            message[name] = response[key]
    usage = {key: value for key, value in (response.get("usage") or {}).items() if value}
    if usage:
        message["usage"] = usage
    ids = _ids(response)
    if ids:
        message["ids"] = ids
    for key, value in response.items():
        if value is not None and key not in RESPONSE_NAMED and (key, value) != ("state", "complete"):
            own[key] = value
    if own:
        message["extra"] = {"pydantic_ai": own}
    return message


RESPONSE_NAMED = frozenset(
    {
        "kind",
        "parts",
        "timestamp",
        "model_name",
        "provider_name",
        "finish_reason",
        "metadata",
        "usage",
        "run_id",
        "conversation_id",
        "provider_response_id",
    }
)


def _left(part: dict[str, Any], *named: str) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None and key not in named and key != "part_kind"}


def _neutral_response_part(part: dict[str, Any]) -> tuple[Block, dict[str, Any]]:
    kind = part["part_kind"]
    if kind == "text":
        text: dict[str, Any] = {"type": "text", "text": part["content"]}
        if part.get("citations"):
            text["citations"] = [
                _neutral_citation(source, each) for each in part["citations"] for source in each["sources"]
            ]
        return ("content", text), _left(part, "content", "citations")
    if kind == "tool-call":
        return ("tool_calls", _neutral_call(part)), _left(part, "tool_name", "args", "tool_call_id")
    if kind == "thinking":
        thought = {"text": part["content"], "format": "pydantic_ai"}
        names = (("signature", "signature"), ("id", "id"), ("provider_name", "provider"))
        thought |= {name: part[key] for key, name in names if part.get(key)}
        return ("thinking", thought), _left(part, "content", "signature", "id", "provider_name")
    if kind in ("builtin-tool-call", "builtin-tool-return"):
        call = kind == "builtin-tool-call"
        tool = {
            "type": "server_tool_call" if call else "server_tool_result",
            "name": part["tool_name"],
            "id": part.get("tool_call_id"),
            "input" if call else "output": part.get("args" if call else "content"),
            "provider": part.get("provider_name"),
            "format": "pydantic_ai",
            "raw": part,
        }
        return ("content", tool), {}
    if kind == "file":
        return ("content", _neutral_item(part["content"])), _left(part, "content")
    if kind == "speech":
        return ("content", _neutral_speech(part)), {}
    return ("content", _unknown(part)), {}


def _neutral_citation(source: dict[str, Any], citation: dict[str, Any]) -> dict[str, Any]:
    cited = {key: source[key] for key in ("url", "title", "document_id", "excerpts") if source.get(key)}
    if anchor := citation.get("anchor"):
        cited |= {"start": anchor["start"], "end": anchor["end"], "unit": "characters", "anchor": anchor["kind"]}
    return cited


def _neutral_call(part: dict[str, Any]) -> dict[str, Any]:
    args = part.get("args")
    arguments = args if isinstance(args, str) else "" if args is None else compact(args)
    call: dict[str, Any] = {
        "id": part.get("tool_call_id"),
        "type": "function",
        "function": {"name": part["tool_name"], "arguments": arguments},
    }
    parsed = args if isinstance(args, dict) else parsed_arguments(arguments) if arguments else None
    if parsed is not None:
        call["parsed"] = parsed
    return call


# ---- from neutral messages


class _Writer:
    """Builds requests and responses. What stands next to each other is put together, as an agent's run would."""

    def __init__(self) -> None:
        from pydantic_ai import messages

        self.framework: Any = messages
        self.is_first_line = not hasattr(messages, "RetryFeedbackPart")
        self.losses = Losses()
        self.written: list[Any] = []

    def write(self, messages: Sequence[Message]) -> Converted:
        for message in messages:
            self.losses.of(message)
            if message.get("orphan"):
                self.losses.add("tool result", "it answers no tool call")
            elif message["role"] == "assistant":
                self._response(message)
            else:
                self._request(message)
        return Converted(self.written, self.losses.found)

    def _request(self, message: Message) -> None:
        time = _time(message)
        parts = self._request_parts(message, time)
        if not parts:
            return
        last = self.written[-1] if self.written else None
        if last is not None and last.kind == "request":
            last.parts.extend(parts)
            last.timestamp = time
        else:
            self.written.append(self.framework.ModelRequest(parts=parts, timestamp=time))

    def _request_parts(self, message: Message, time: datetime) -> list[Any]:
        role, content = message["role"], message["content"]
        if role == "tool":
            return [self._result(message, time)]
        if role in ("system", "developer"):
            return self._system(message, time)
        if role != "user":
            self.losses.add("role", f"{role!r} has become a user's words")
        if message.get("name"):
            self.losses.add("name", "a user's message has no name")
        if message.get("kind") == "retry":
            return [self._retry(message, time)]
        if isinstance(content, str):
            return [self.framework.UserPromptPart(content=content, timestamp=time)]
        items = self._items(content_parts(content))
        return [self.framework.UserPromptPart(content=items, timestamp=time)] if items else []

    def _system(self, message: Message, time: datetime) -> list[Any]:
        if message["role"] == "developer":
            self.losses.add("role", "'developer' has become 'system'")
        if message.get("name"):
            self.losses.add("name", "a system prompt has no name")
        content = message["content"]
        texts = []
        for index, part in enumerate(content_parts(content)):
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                self._no_place(index, part)
        return [self.framework.SystemPromptPart(content=text, timestamp=time) for text in texts]

    def _retry(self, message: Message, time: datetime) -> Any:
        text = plain_text(message["content"])
        if self.is_first_line:
            return self.framework.RetryPromptPart(content=text, timestamp=time)
        retry = self.framework.RetryInfo(cause="model_retry")
        return self.framework.RetryFeedbackPart(content=text, retry=retry, timestamp=time)

    def _result(self, message: Message, time: datetime) -> Any:
        if "value" in message:
            value = message["value"]
        elif isinstance(message["content"], list):
            value = self._items(message["content"])
            if all(isinstance(item, str) for item in value):
                value = plain_text(message["content"])
        else:
            value = message["content"] or ""
        name = message.get("name") or "unknown"
        outcome = message.get("outcome", "ok")
        call_id = message.get("tool_call_id") or ""
        if outcome == "retried" and self.is_first_line:
            text = value if isinstance(value, str) else plain_text(message["content"])
            return self.framework.RetryPromptPart(content=text, tool_name=name, tool_call_id=call_id, timestamp=time)
        part = self.framework.ToolReturnPart(tool_name=name, content=value, tool_call_id=call_id, timestamp=time)
        if outcome != "ok":
            known = {neutral: own for own, neutral in OUTCOMES.items()}
            part.outcome = known.get(outcome, "failed")
            if outcome == "interrupted" and self.is_first_line:
                part.outcome = "failed"
        return part

    def _response(self, message: Message) -> None:
        parts = []
        for index, (key, item) in enumerate(blocks(message)):
            if key == "tool_calls":
                parts.append(self._call(item))
            elif key == "thinking":
                parts += self._thinking(item)
            elif key == "content" and not (item.get("text") == "" and (message.get("tool_calls") or parts)):
                parts += self._answer_part(index, item)
        if message.get("name"):
            self.losses.add("name", "an answer has no name")
        if not parts:
            return
        response = self.framework.ModelResponse(
            parts=parts,
            timestamp=_time(message),
            model_name=message.get("model"),
            provider_name=message.get("provider"),
            provider_response_id=message.get("ids", {}).get("response"),
        )
        last = self.written[-1] if self.written else None
        if last is not None and last.kind == "response" and _is_synthetic(last) and _is_synthetic(response):
            last.parts.extend(parts)
            return
        if message.get("finish_reason") in FINISH_REASONS:
            response.finish_reason = message["finish_reason"]
        if message.get("usage"):
            response.usage = _usage(message["usage"])
        self.written.append(response)

    def _answer_part(self, index: int, part: dict[str, Any]) -> list[Any]:
        kind = part["type"]
        if kind == "text":
            text = self.framework.TextPart(content=part["text"])
            if part.get("citations"):
                if hasattr(self.framework, "Citation"):
                    text.citations = [self._citation(each) for each in part["citations"]]
                else:
                    self.losses.add(f"content[{index}].citations", "this release of Pydantic AI has no citations")
            return [text]
        if kind == "refusal":
            self.losses.add(f"content[{index}]", "a refusal has become text")
            return [self.framework.TextPart(content=part["refusal"])]
        if kind == "audio" and part.get("transcript"):
            if "id" in part or "data" in part:
                self.losses.add(f"content[{index}].audio", "of spoken words only the transcript is kept")
            return [self.framework.TextPart(content=part["transcript"])]
        binary = self._binary(part) if part.get("data") else None
        if binary is not None:
            return [self.framework.FilePart(content=binary)]
        self._no_place(index, part)
        return []

    def _citation(self, cited: dict[str, Any]) -> Any:
        make = self.framework
        if cited.get("url"):
            source = make.WebCitationSource(url=cited["url"], title=cited.get("title"))
        else:
            source = make.DocumentCitationSource(document_id=cited.get("document_id"), title=cited.get("title"))
        source.excerpts = list(cited.get("excerpts", ()))
        start, end = cited.get("start"), cited.get("end")
        anchor = None
        if isinstance(start, int) and isinstance(end, int) and 0 <= start < end:
            kind = make.ContentCitationAnchor if cited.get("anchor") == "content" else make.MarkerCitationAnchor
            anchor = kind(start=start, end=end)
        return make.Citation(sources=[source], anchor=anchor)

    def _thinking(self, thought: dict[str, Any]) -> list[Any]:
        text = thought.get("text") or thought.get("summary") or ""
        bound = {key: thought[key] for key in ("signature", "ciphertext", "id") if thought.get(key)}
        if thought.get("format") == "pydantic_ai":
            own = self.framework.ThinkingPart(content=text, signature=bound.get("signature"), id=bound.get("id"))
            own.provider_name = thought.get("provider")
            return [own]
        for key in bound:
            self.losses.add(f"thinking.{key}", "it is of use to the provider and API only that it came from")
        return [self.framework.ThinkingPart(content=text)] if text else []

    def _call(self, call: dict[str, Any]) -> Any:
        if call["type"] == "custom":
            self.losses.add("tool call", "a custom tool's input has become an argument 'input'")
            args: Any = {"input": call["custom"]["input"]}
        else:
            args = call["function"]["arguments"]
        name = call[call["type"]]["name"]
        return self.framework.ToolCallPart(tool_name=name, args=args, tool_call_id=call["id"])

    def _items(self, parts: list[dict[str, Any]]) -> list[Any]:
        items: list[Any] = []
        for index, part in enumerate(parts):
            item = self._item(part)
            if item is None:
                self._no_place(index, part)
            else:
                items.append(item)
                if part["type"] == "refusal":
                    self.losses.add(f"content[{index}]", "a refusal has become text")
        return items

    def _item(self, part: dict[str, Any]) -> Any | None:
        kind = part["type"]
        if kind == "text":
            if "metadata" in part:
                return self.framework.TextContent(content=part["text"], metadata=part["metadata"])
            return part["text"]
        if kind == "refusal":
            return part["refusal"]
        if kind == "cache_point":
            return self.framework.CachePoint(ttl=part["ttl"])
        if part.get("data"):
            return self._binary(part)
        if part.get("url"):
            make = {
                "image": self.framework.ImageUrl,
                "audio": self.framework.AudioUrl,
                "video": self.framework.VideoUrl,
                "file": self.framework.DocumentUrl,
            }.get(kind)
            return make and make(
                url=part["url"],
                media_type=part.get("media_type"),
                identifier=part.get("identifier"),
                vendor_metadata={"detail": part["detail"]} if "detail" in part else None,
            )
        if part.get("file_id") and part.get("provider") in FILE_PROVIDERS:
            return self.framework.UploadedFile(
                file_id=part["file_id"],
                provider_name=part["provider"],
                media_type=part.get("media_type"),
                identifier=part.get("identifier"),
            )
        if kind == "audio" and part.get("transcript"):
            return part["transcript"]
        return None

    def _binary(self, part: dict[str, Any]) -> Any | None:
        try:
            data = b64decode(part["data"], validate=True)
        except (Base64Error, ValueError):
            return None
        binary = self.framework.BinaryContent(
            data=data,
            media_type=part.get("media_type") or "application/octet-stream",
            identifier=part.get("identifier"),
            vendor_metadata={"detail": part["detail"]} if "detail" in part else None,
        )
        return self.framework.BinaryContent.narrow_type(binary)

    def _no_place(self, index: int, part: dict[str, Any]) -> None:
        kind = part["type"]
        if kind in ("server_tool_call", "server_tool_result"):
            reason = f"what {part['name']!r} did at the provider is not played back"
        elif kind == "unknown":
            reason = f"only {part['format']} knows what it is"
        else:
            reason = f"there is no place for {kind} here"
        self.losses.add(f"content[{index}]", reason)


EPOCH = datetime.fromtimestamp(0, UTC)
FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_call", "error"})
FILE_PROVIDERS = frozenset(
    {"anthropic", "openai", "google", "google-cloud", "google-gla", "google-vertex", "bedrock", "xai"}
)


def _is_synthetic(response: Any) -> bool:
    """Whether a run takes it for no model's own, and merges it with its neighbour."""
    return response.model_name is None and response.provider_name is None and response.provider_response_id is None


def _time(message: Message) -> datetime:
    """The message's time; any, but always the same, for one that comes straight from `to_neutral`."""
    return datetime.fromisoformat(message["created_at"]) if "created_at" in message else EPOCH


def _usage(usage: dict[str, Any]) -> Any:
    from dataclasses import fields

    from pydantic_ai.usage import RequestUsage

    own = RequestUsage()
    for each in fields(own):
        value = usage.get(each.name)
        if value and type(value) is type(getattr(own, each.name)):
            setattr(own, each.name, value)
    return own

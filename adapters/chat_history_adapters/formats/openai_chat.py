"""Chat Completions dicts, also plain role/content dicts that people write by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from chat_history.errors import InvalidMessageError
from chat_history.formats import Converted, Dumped, Parts, readable
from chat_history.messages import Message

from .neutral import (
    Block,
    Losses,
    answer,
    blocks,
    content_parts,
    data_url,
    media_type_of,
    parsed_arguments,
    split_data_url,
)

__all__ = ["FORMAT", "OpenAIChat"]

MAX_DEPTH = 100
"""Lists and dicts in one another: what every reader of JSON can still take, from however deep a call."""
MAX_INTEGER = 10**4300
"""Python itself reads no longer ones from text."""

_encode = json.JSONEncoder(ensure_ascii=False).encode
_canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


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
                break
        payload = _encode(message)
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
        message = json.loads(payload)
        try:
            return [_neutral(message)]
        except (KeyError, TypeError, AttributeError, ValueError):
            return [{"role": message["role"], "content": [_unknown(message)]}]

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """Dicts that the Chat Completions API accepts, one for each message that says anything."""
        return _Writer().write(messages)


FORMAT = OpenAIChat()


# ---- dicts in and out


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


# ---- to neutral messages


def _unknown(raw: Any) -> dict[str, Any]:
    return {"type": "unknown", "format": "openai", "raw": raw}


NAMED = {
    "assistant": frozenset(
        {"role", "content", "name", "refusal", "audio", "tool_calls", "function_call", "annotations"}
        | {"reasoning_content", "reasoning"}
    ),
    "tool": frozenset({"role", "content", "name", "tool_call_id"}),
}
OTHERS_NAMED = frozenset({"role", "content", "name"})


def _neutral(message: dict[str, Any]) -> Message:
    role = "tool" if message["role"] == "function" else message["role"]
    content = message.get("content")
    neutral: Message
    if role == "assistant":
        neutral = answer(_pieces(message))
    elif role == "tool":
        neutral = {"role": role, "tool_call_id": message.get("tool_call_id"), "content": _content(content)}
    else:
        neutral = {"role": role, "content": _content(content)}
    if isinstance(message.get("name"), str):
        neutral["name"] = message["name"]
    named = NAMED.get(role, OTHERS_NAMED)
    own = {key: value for key, value in message.items() if key not in named and value is not None}
    if own:
        neutral["extra"] = {"openai": own}
    return neutral


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    if content is None:
        return []
    if isinstance(content, list):
        return [_part(part) for part in content]
    return [_unknown(content)]


def _pieces(message: dict[str, Any]) -> list[Block]:
    pieces: list[Block] = []
    for key in ("reasoning_content", "reasoning"):
        thought = message.get(key)
        if isinstance(thought, str) and thought:
            pieces.append(("thinking", {"text": thought, "format": "openai"}))
            break
    content = _content(message.get("content"))
    for part in content_parts(content):
        if part.get("type") == "text" and not part.get("text") and message.get("tool_calls"):
            continue
        pieces.append(("content", part))
    annotations = message.get("annotations")
    if annotations:
        _cite(pieces, annotations)
    if message.get("refusal"):
        pieces.append(("content", {"type": "refusal", "refusal": message["refusal"]}))
    if message.get("audio"):
        pieces.append(("content", _audio(message["audio"])))
    for call in message.get("tool_calls") or ():
        pieces.append(("tool_calls", _call(call)))
    if message.get("function_call"):
        pieces.append(("tool_calls", _call({"id": None, "type": "function", "function": message["function_call"]})))
    return pieces


def _cite(pieces: list[Block], annotations: list[Any]) -> None:
    for key, part in pieces:
        if key == "content" and part.get("type") == "text":
            part["citations"] = [_citation(each) for each in annotations]
            return


def _citation(annotation: dict[str, Any]) -> dict[str, Any]:
    cited = annotation.get("url_citation")
    if annotation.get("type") != "url_citation" or not isinstance(cited, dict):
        return {"raw": annotation}
    citation = {key: cited[key] for key in ("url", "title") if cited.get(key)}
    span = {"start": cited.get("start_index"), "end": cited.get("end_index")}
    return {**citation, **span, "unit": "characters", "anchor": "marker"}


def _audio(audio: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "audio", "provider": "openai"}
    part |= {key: audio[key] for key in ("id", "data", "transcript", "expires_at") if audio.get(key) is not None}
    return part


def _call(call: dict[str, Any]) -> dict[str, Any]:
    if call.get("type") == "custom":
        custom = call["custom"]
        return {
            "id": call.get("id"),
            "type": "custom",
            "custom": {"name": custom["name"], "input": custom.get("input") or ""},
        }
    function = call["function"]
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # some servers send the object itself
        arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    neutral: dict[str, Any] = {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }
    parsed = parsed_arguments(arguments)
    if parsed is not None:
        neutral["parsed"] = parsed
    return neutral


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        return _unknown(part)
    kind = part.get("type")
    if kind in ("text", "refusal") and isinstance(part.get(kind), str):
        return {"type": kind, kind: part[kind]}
    if kind == "image_url":
        image = part["image_url"]
        image = {"url": image} if isinstance(image, str) else image
        neutral = _located("image", image["url"])
        if image.get("detail"):
            neutral["detail"] = image["detail"]
        return neutral
    if kind == "input_audio":
        audio = part["input_audio"]
        return {"type": "audio", "data": audio["data"], "media_type": media_type_of("audio", audio.get("format"))}
    if kind == "file":
        file = part["file"]
        neutral = _located("file", file["file_data"]) if file.get("file_data") else {"type": "file"}
        if file.get("file_id"):
            neutral |= {"file_id": file["file_id"], "provider": "openai"}
        if file.get("filename"):
            neutral["name"] = file["filename"]
        return neutral
    return _unknown(part)


def _located(kind: str, url: str) -> dict[str, Any]:
    split = split_data_url(url)
    if split is None:
        return {"type": kind, "url": url}
    media_type, data = split
    return {"type": kind, "data": data, "media_type": media_type}


# ---- from neutral messages


class _Writer:
    """Builds dicts, one a message."""

    def __init__(self) -> None:
        self.losses = Losses()

    def write(self, messages: Sequence[Message]) -> Converted:
        written = []
        for message in messages:
            self.losses.of(message)
            if message.get("orphan"):
                self.losses.add("tool result", "it answers no tool call")
                continue
            made = self._assistant(message) if message["role"] == "assistant" else self._other(message)
            if made is not None:
                written.append(made)
        return Converted(written, self.losses.found)

    def _other(self, message: Message) -> dict[str, Any] | None:
        role, content = message["role"], message["content"]
        if role not in ("system", "developer", "user", "tool"):
            self.losses.add("role", f"{role!r} has become a user's words")
            role = "user"
        if not isinstance(content, str):
            parts = self._parts(content_parts(content), texts_only=role != "user")
            if not parts and role != "tool":
                return None
            content = parts or ""
        if role == "tool":
            outcome = message.get("outcome", "ok")
            if outcome != "ok":
                self.losses.add("outcome", f"that it is {outcome!r} is not said beside the text")
            return {"role": role, "tool_call_id": message.get("tool_call_id") or "", "content": content}
        made = {"role": role, "content": content}
        if message.get("name"):
            made["name"] = message["name"]
        return made

    def _parts(self, parts: list[dict[str, Any]], *, texts_only: bool) -> list[dict[str, Any]]:
        made = []
        for index, part in enumerate(parts):
            one = None if texts_only and part["type"] != "text" else self._part(part)
            if one is None:
                self._no_place(index, part)
            else:
                made.append(one)
        return made

    def _part(self, part: dict[str, Any]) -> dict[str, Any] | None:
        kind = part["type"]
        if kind == "text":
            return {"type": "text", "text": part["text"]}
        if kind == "refusal":
            return {"type": "text", "text": part["refusal"]}
        if kind == "image" and (part.get("url") or part.get("data")):
            image = {"url": part.get("url") or data_url(part)}
            if part.get("detail") in ("auto", "low", "high"):
                image["detail"] = part["detail"]
            return {"type": "image_url", "image_url": image}
        if kind == "audio" and part.get("data") and part.get("media_type") in AUDIO:
            return {"type": "input_audio", "input_audio": {"data": part["data"], "format": AUDIO[part["media_type"]]}}
        if kind == "audio" and part.get("transcript"):
            return {"type": "text", "text": part["transcript"]}
        if kind == "file" and part.get("file_id") and part.get("provider") == "openai":
            return {"type": "file", "file": {"file_id": part["file_id"]}}
        if kind == "file" and part.get("data"):
            name = part.get("name") or part.get("identifier") or "file"
            return {"type": "file", "file": {"filename": name, "file_data": data_url(part)}}
        return None

    def _assistant(self, message: Message) -> dict[str, Any] | None:
        content: list[dict[str, Any]] = []
        calls = []
        for index, (key, item) in enumerate(blocks(message)):
            if key == "tool_calls":
                calls.append(_api_call(item))
            elif key == "thinking":
                self.losses.add("thinking", "Chat Completions takes no thoughts back")
            elif item["type"] == "refusal":
                content.append({"type": "refusal", "refusal": item["refusal"]})
            elif item["type"] == "text":
                content.append({"type": "text", "text": item["text"]})
                if item.get("citations"):
                    self.losses.add(f"content[{index}].citations", "Chat Completions takes no citations back")
            elif item["type"] == "audio" and item.get("transcript"):
                content.append({"type": "text", "text": item["transcript"]})
                self.losses.add(f"content[{index}].audio", "of spoken words only the transcript is kept")
            else:
                self._no_place(index, item)
        if not content and not calls:
            return None
        made: dict[str, Any] = {"role": "assistant", "content": content or None}
        if len(content) == 1:
            only = content[0]
            made = {"role": "assistant", "content": only.get("text")}
            if only["type"] == "refusal":
                made["refusal"] = only["refusal"]
        if message.get("name"):
            made["name"] = message["name"]
        if calls:
            made["tool_calls"] = calls
        return made

    def _no_place(self, index: int, part: dict[str, Any]) -> None:
        kind = part["type"]
        if kind in ("server_tool_call", "server_tool_result"):
            reason = f"what {part['name']!r} did at the provider is not played back"
        elif kind == "unknown":
            reason = f"only {part['format']} knows what it is"
        else:
            reason = f"Chat Completions has no place for {kind} here"
        self.losses.add(f"content[{index}]", reason)


AUDIO = {"audio/wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/x-wav": "wav"}


def _api_call(call: dict[str, Any]) -> dict[str, Any]:
    if call["type"] == "custom":
        return {"id": call["id"], "type": "custom", "custom": dict(call["custom"])}
    function = call["function"]
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": function["name"], "arguments": function["arguments"] or "{}"},
    }

"""Neutral messages as Pydantic AI's own objects, of whichever line is installed."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from chat_history.formats import Converted
from chat_history.messages import Message

from .neutral import Losses, blocks, content_parts, plain_text
from .pydantic_ai_to_neutral import FORMAT, OUTCOMES

__all__ = ["Writer"]

DOCUMENT = ("document_id", "title", "excerpts")
"""What a citation of a document may say. It has to say one of them."""


class Writer:
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
                self.losses.no_place(index, part)
        return [self.framework.SystemPromptPart(content=text, timestamp=time) for text in texts]

    def _retry(self, message: Message, time: datetime) -> Any:
        text = plain_text(message["content"])
        if self.is_first_line:
            # An id of its own, where Pydantic AI would take another one each time.
            call_id = f"pyd_ai_{message.get('message_id', '')}"
            return self.framework.RetryPromptPart(content=text, tool_call_id=call_id, timestamp=time)
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
        part = self.losses.spoken(index, part)
        kind = part["type"]
        if kind == "text":
            text = self.framework.TextPart(content=part["text"])
            if part.get("citations"):
                self._cite(text, part["citations"], index)
            return [text]
        if kind == "refusal":
            self.losses.add(f"content[{index}]", "a refusal has become text")
            return [self.framework.TextPart(content=part["refusal"])]
        binary = self._binary(part) if part.get("data") else None
        if binary is not None:
            return [self.framework.FilePart(content=binary)]
        self.losses.no_place(index, part)
        return []

    def _cite(self, text: Any, citations: list[dict[str, Any]], index: int) -> None:
        if self.is_first_line:
            self.losses.add(f"content[{index}].citations", "this release of Pydantic AI has no citations")
            return
        said = [each for each in citations if "url" in each or any(each.get(name) for name in DOCUMENT)]
        text.citations = [self._citation(each) for each in said] or None
        if len(said) < len(citations):
            self.losses.add(f"content[{index}].citations", "one that says neither what is cited nor where it is")

    def _citation(self, cited: dict[str, Any]) -> Any:
        make = self.framework
        excerpts = list(cited.get("excerpts", ()))
        source = (
            make.WebCitationSource(url=cited["url"], title=cited.get("title"), excerpts=excerpts)
            if "url" in cited
            else make.DocumentCitationSource(
                document_id=cited.get("document_id"), title=cited.get("title"), excerpts=excerpts
            )
        )
        start, end = cited.get("start"), cited.get("end")
        anchor = None
        if isinstance(start, int) and isinstance(end, int) and 0 <= start < end:
            kind = make.ContentCitationAnchor if cited.get("anchor") == "content" else make.MarkerCitationAnchor
            anchor = kind(start=start, end=end)
        return make.Citation(sources=[source], anchor=anchor)

    def _thinking(self, thought: dict[str, Any]) -> list[Any]:
        make = self.framework.ThinkingPart
        if thought.get("format") == FORMAT:
            own = make(content=thought.get("text") or "", signature=thought.get("signature"), id=thought.get("id"))
            own.provider_name = thought.get("provider")
            return [own]
        text = self.losses.thought(thought)
        return [make(content=text)] if text else []

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
            part = self.losses.spoken(index, part)
            item = self._item(part)
            if item is None:
                self.losses.no_place(index, part)
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
            return make and self._at_url(make, part)
        if part.get("file_id") and part.get("provider") in FILE_PROVIDERS:
            return self.framework.UploadedFile(
                file_id=part["file_id"],
                provider_name=part["provider"],
                media_type=part.get("media_type"),
                identifier=part.get("identifier") or part.get("name"),
            )
        return None

    def _at_url(self, make: Any, part: dict[str, Any]) -> Any:
        file = make(
            url=part["url"],
            media_type=part.get("media_type"),
            identifier=part.get("identifier") or part.get("name"),
            vendor_metadata=_vendor_metadata(part),
        )
        try:
            _ = file.media_type
        except ValueError:  # 1.107 cannot write a URL whose media type it can only guess
            file._media_type = UNKNOWN_TYPES[part["type"]]
        return file

    def _binary(self, part: dict[str, Any]) -> Any | None:
        try:
            data = b64decode(part["data"], validate=True)
        except (Base64Error, ValueError):
            return None
        binary = self.framework.BinaryContent(
            data=data,
            media_type=part.get("media_type") or "application/octet-stream",
            identifier=part.get("identifier") or part.get("name"),
            vendor_metadata=_vendor_metadata(part),
        )
        return self.framework.BinaryContent.narrow_type(binary)


EPOCH = datetime.fromtimestamp(0, UTC)
UNKNOWN_TYPES = {
    "image": "image/jpeg",
    "audio": "audio/mpeg",
    "video": "video/mp4",
    "file": "application/octet-stream",
}
FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_call", "error"})
FILE_PROVIDERS = frozenset(
    {"anthropic", "openai", "google", "google-cloud", "google-gla", "google-vertex", "bedrock", "xai"}
)


def _vendor_metadata(part: dict[str, Any]) -> dict[str, Any] | None:
    # OpenAI's default says nothing, and Google's models refuse the whole chat where an image has a detail.
    return {"detail": part["detail"]} if part.get("detail", "auto") != "auto" else None


def _is_synthetic(response: Any) -> bool:
    """Whether a run takes it for no model's own, and merges it with its neighbour."""
    return response.model_name is None and response.provider_name is None and response.provider_response_id is None


def _time(message: Message) -> datetime:
    """The message's time; any, but always the same, where it has none that can be read."""
    try:
        return datetime.fromisoformat(message["created_at"])
    except (KeyError, TypeError, ValueError):
        return EPOCH


def _usage(usage: dict[str, Any]) -> Any:
    from dataclasses import fields

    from pydantic_ai.usage import RequestUsage

    own = RequestUsage()
    for each in fields(own):
        value = usage.get(each.name)
        if isinstance(value, dict):
            value = {key: count for key, count in value.items() if type(count) is int}
        if value and type(value) is type(getattr(own, each.name)):
            setattr(own, each.name, value)
    return own

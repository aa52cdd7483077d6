"""What a chat holds, as single facts, so that two formats can be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from chat_history.formats import Loss, Source
from chat_history.messages import Message
from chat_history.replaying import replayable
from chat_history_adapters.formats.neutral import blocks, content_parts, plain_text

__all__ = ["KINDS", "NEVER_LOST", "Fact", "facts", "missing", "named"]


class Fact(NamedTuple):
    """One thing that a chat holds."""

    kind: str
    value: str
    message: str
    """The message_id of the stored message that holds it."""


KINDS = {
    "words": "content",
    "the role developer": "role",
    "names of speakers": "name",
    "images by URL": "content",
    "images as bytes": "content",
    "how closely to look at an image": "",
    "audio by URL": "content",
    "audio as bytes": "content",
    "video by URL": "content",
    "documents by URL": "content",
    "documents as bytes": "content",
    "names of documents": "",
    "files that a provider keeps": "content",
    "hints to cache": "content",
    "complaints about an answer": "",
    "instructions of a run": "",
    "thoughts": "thinking",
    "summaries of thoughts": "thinking",
    "seals of thoughts": "thinking",
    "calls of tools": "tool call",
    "arguments to the letter": "",
    "that a tool is a custom one": "tool call",
    "results of tools": "tool result",
    "values of results": "",
    "that a result is no success": "outcome",
    "which failure it is": "outcome",
    "media in results": "content",
    "refusals": "content",
    "sound of answers that a provider keeps": "content",
    "citations": "content",
    "tools of the provider": "content",
    "what nobody else knows": "content",
    "thoughts and calls among words": "",
    "model": "",
    "why an answer ended": "",
    "tokens used": "",
}
"""The kinds of facts, and how the part begins that the loss of one names. With "" it is not reported: it stays in the
store, and neither a model nor a person misses it."""
NEVER_LOST = ("words", "calls of tools", "results of tools")
OF_MESSAGE = ("the role developer", "names of speakers")
"""What goes with a message whose whole content has no place."""

MEDIA = {"image": "images", "audio": "audio", "video": "video", "file": "documents"}


def facts(sources: Sequence[Source]) -> list[Fact]:
    """All facts of a chat, in order."""
    found = []
    for _, message in replayable(sources, ""):
        if not message.get("orphan"):
            found += [Fact(kind, value, message["message_id"]) for kind, value in _of(message)]
    return found


def _of(message: Message) -> Iterator[tuple[str, str]]:
    role = message["role"]
    if role == "developer":
        yield "the role developer", plain_text(message["content"])
    if message.get("name") and role != "tool":
        yield "names of speakers", message["name"]
    if message.get("kind") == "retry":
        yield "complaints about an answer", plain_text(message["content"])
    if message.get("instructions"):
        yield "instructions of a run", message["instructions"]
    if role == "tool":
        yield from _of_result(message)
    elif role == "assistant":
        yield from _of_answer(message)
    else:
        for part in content_parts(message["content"]):
            yield from _of_part(part)


def _of_result(message: Message) -> Iterator[tuple[str, str]]:
    yield "results of tools", f"{message['name']}: {plain_text(message['content'])}"
    if "value" in message:
        yield "values of results", json.dumps(message["value"], sort_keys=True)
    if "outcome" in message:
        yield "that a result is no success", message["tool_call_id"]
        if message["outcome"] != "error":
            yield "which failure it is", message["outcome"]
    for part in content_parts(message["content"]):
        for _, value in [each for each in _of_part(part) if each[0].endswith(("by URL", "as bytes"))]:
            yield "media in results", value


def _of_answer(message: Message) -> Iterator[tuple[str, str]]:
    for key, item in blocks(message):
        if key == "content":
            yield from _of_part(item)
        elif key == "thinking":
            if item.get("text") or item.get("summary"):
                yield "thoughts", item.get("text") or item["summary"]
            if item.get("text") and item.get("summary"):
                yield "summaries of thoughts", item["summary"]
            yield from (("seals of thoughts", item[key]) for key in ("signature", "ciphertext", "id") if item.get(key))
        else:
            yield from _of_call(item)
    if order := _unusual_order(message):
        yield "thoughts and calls among words", order
    if message.get("model"):
        yield "model", message["model"]
    if message.get("finish_reason"):
        yield "why an answer ended", message["finish_reason"]
    for key in ("input_tokens", "output_tokens"):
        if message.get("usage", {}).get(key):
            yield "tokens used", f"{key} {message['usage'][key]}"


def _unusual_order(message: Message) -> str:
    """Which kinds of pieces follow each other, unless it is thoughts, words and calls."""
    kinds = [key for key, item in blocks(message) if key != "content" or item.get("text")]
    turns = [key for key, before in zip(kinds, ["", *kinds], strict=False) if key != before]
    return "" if turns == sorted(turns, key=["thinking", "content", "tool_calls"].index) else " ".join(turns)


def _of_call(call: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if call["type"] == "custom":
        yield "that a tool is a custom one", call["custom"]["name"]
        name, arguments = call["custom"]["name"], json.dumps({"input": call["custom"]["input"]})
    else:
        name, arguments = call["function"]["name"], call["function"]["arguments"] or "{}"
        yield "arguments to the letter", f"{name} {arguments}"
    if isinstance(call.get("parsed"), dict) or call["type"] == "custom":
        arguments = json.dumps(json.loads(arguments), sort_keys=True)
    yield "calls of tools", f"{name} {arguments}"


def _of_part(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kind = part["type"]
    if kind == "text":
        if part["text"]:
            yield "words", part["text"]
        for cited in part.get("citations", ()):
            yield "citations", cited.get("url") or cited.get("document_id") or "unknown"
    elif kind == "refusal":
        yield "refusals", part["refusal"]
    elif kind == "cache_point":
        yield "hints to cache", part["ttl"]
    elif kind in ("server_tool_call", "server_tool_result"):
        yield "tools of the provider", f"{kind} {part['name']}"
    elif kind == "unknown":
        yield "what nobody else knows", json.dumps(part["raw"], sort_keys=True)
    else:
        yield from _of_media(kind, part)


def _of_media(kind: str, part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if part.get("transcript"):
        yield "words", part["transcript"]
    if part.get("id"):
        yield "sound of answers that a provider keeps", part["id"]
    if part.get("data"):
        yield f"{MEDIA[kind]} as bytes", part["data"]
    elif part.get("url"):
        yield f"{MEDIA[kind]} by URL", part["url"]
    elif part.get("file_id"):
        yield "files that a provider keeps", part["file_id"]
    if part.get("detail") not in (None, "auto"):
        yield "how closely to look at an image", part["detail"]
    if kind == "file" and (name := part.get("name") or part.get("identifier")):
        yield "names of documents", name


def missing(before: Sequence[Fact], after: Sequence[Fact]) -> list[Fact]:
    """What was there before and is no more."""
    there = Counter((fact.kind, fact.value) for fact in after)
    gone = []
    for fact in before:
        key = (fact.kind, fact.value)
        if there[key]:
            there[key] -= 1
        else:
            gone.append(fact)
    return gone


def named(gone: Sequence[Fact], before: Sequence[Fact], losses: Sequence[Loss]) -> list[Fact]:
    """Those of the facts that are gone which a loss names, by the message that held them or one that held the same."""
    found = []
    for fact in gone:
        parts = (KINDS[fact.kind], *(("content",) if fact.kind in OF_MESSAGE else ()))
        places = {each.message for each in before if each[:2] == fact[:2]}
        if parts[0] and any(loss.message in places and loss.part.startswith(parts) for loss in losses):
            found.append(fact)
    return found

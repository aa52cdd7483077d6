"""What a chat tells a model or a person, whatever its format: words, calls of tools and their results, in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from chat_history.formats import Source, get_format
from chat_history.replaying import replayable
from chat_history_adapters.formats.neutral import content_parts, plain_text

__all__ = ["in_order", "stored", "told"]

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def stored(name: str, messages: Sequence[Any]) -> list[Source]:
    """Messages of a format as they would be stored."""
    form = get_format(name)
    return [
        Source(f"{index:08}", name, form.dump(message).payload, TIME + timedelta(seconds=index))
        for index, message in enumerate(messages)
    ]


def told(sources: Sequence[Source]) -> tuple[list[Any], list[Any], list[Any]]:
    """The words, the calls of tools and their results, each in order."""
    words, calls, results = [], [], []
    for _, message in replayable(sources, ""):
        if message["role"] == "tool":
            if not message.get("orphan"):
                results.append((message["name"], plain_text(message["content"])))
            continue
        words += [part["text"] for part in content_parts(message["content"]) if part.get("text")]
        for each in message.get("tool_calls", ()):
            if each["type"] == "custom":
                calls.append((each["custom"]["name"], {"input": each["custom"]["input"]}))
            else:
                arguments = each["function"]["arguments"] or "{}"
                calls.append((each["function"]["name"], each.get("parsed", arguments if arguments != "{}" else {})))
    return words, calls, results


def in_order(wanted: Sequence[Any], found: Sequence[Any]) -> bool:
    """Whether all that is wanted is found, in its order."""
    rest = iter(found)
    return all(each in rest for each in wanted)

"""How many tokens a message takes, as far as that can be known without asking a model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

from .formats import get_format

__all__ = ["MEDIA", "PER_MESSAGE", "CountTokens", "estimate", "tokens_of", "usual_count"]

CountTokens: TypeAlias = Callable[[str], int]
"""The tokens of a text."""

PER_MESSAGE = 4
"""What a model needs to know where a message begins and whose it is."""
MEDIA = 1000
"""What an image, a recording or a file is taken to need: providers count these in ways of their own."""

_ENCODED = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{1000,}+=*")
"""An image or a file in the middle of JSON."""


def estimate(text: str) -> int:
    """A quarter of a token for each ASCII character and a whole one for each other, rounded up."""
    others = 0 if text.isascii() else sum(character > "\x7f" for character in text)
    return others + (len(text) - others + 3) // 4


@cache
def usual_count() -> CountTokens:
    """tiktoken's `o200k_base` where it is installed and has its file, else the estimate."""
    try:
        from tiktoken import get_encoding  # type: ignore[import-not-found,unused-ignore]

        encoding = get_encoding("o200k_base")
    except Exception:  # without a network, it raises whatever its HTTP client does
        return estimate
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def tokens_of(form: str, payload: str, count: CountTokens) -> int:
    """The tokens of a stored message, when it is played back to a model: its texts, calls and results, and media."""
    return sum(_of_neutral(message, count) for message in get_format(form).to_neutral(payload))


def _of_neutral(message: Mapping[str, Any], count: CountTokens) -> int:
    total = PER_MESSAGE
    content = message.get("content")
    for part in [{"text": content}] if isinstance(content, str) else content or ():
        total += _of_part(part, count)
    for thought in message.get("thinking", ()):
        total += count(thought.get("text") or thought.get("summary") or "")
    for call in message.get("tool_calls", ()):
        total += count(json.dumps(call.get(call.get("type")), ensure_ascii=False))
    return total


def _of_part(part: Any, count: CountTokens) -> int:
    if not isinstance(part, Mapping):
        return count(str(part))
    if part.get("type") in ("image", "audio", "video", "file"):
        return MEDIA
    words = [part[key] for key in ("text", "refusal") if isinstance(part.get(key), str)]
    if words:
        return sum(map(count, words))
    # What a provider's tool did stands there twice, as it was sent too.
    done = {key: part[key] for key in ("name", "input", "output") if part.get(key) is not None}
    text, media = _ENCODED.subn("", json.dumps(done or part, ensure_ascii=False, default=str))
    return count(text) + media * MEDIA

"""Dicts that are stored as they are: what is added comes back equal, or is refused."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from chat_history.errors import InvalidMessageError

__all__ = ["canonical", "payload_of"]

MAX_DEPTH = 100
"""Lists and dicts in one another: what every reader of JSON can still take, from however deep a call."""
MAX_INTEGER = 10**4300
"""Python itself reads no longer ones from text."""

_encode = json.JSONEncoder(ensure_ascii=False).encode
canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


_key = lru_cache(maxsize=256)(encode_basestring)


def payload_of(message: dict[str, Any]) -> str:
    """The dict as JSON with its keys in their order. Refuses what JSON would give back as something else."""
    # As `_encode` does it, at half the cost for most messages.
    items = []
    for key, value in message.items():
        if type(value) is not str or type(key) is not str:
            _check(message, "message", 1)
            payload = _encode(message)
            break
        is_plain = value.isascii() and "\x7f" not in value  # which only one of the two escapes
        quoted = encode_basestring_ascii(value) if is_plain else encode_basestring(value)
        items.append(f"{_key(key)}: {quoted}")
    else:
        payload = f"{{{', '.join(items)}}}"
    if not payload.isascii():
        try:
            payload.encode()
        except UnicodeEncodeError:
            payload = _escaped(message)
    return payload


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

"""A message's text, kept beside the payload only where the payload does not say it already.

A message that is a plain dict is its text and little else. Kept once, a store of such messages is half as large, and
an append writes half as much.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring as quoted

__all__ = ["kept_text", "spoken_text"]


def kept_text(text: str, role: str, payload: str) -> str | None:
    """What to keep of a text: None where the payload is a plain message with just this text as its content."""
    said = quoted(text)[1:-1] if '"' in text or "\\" in text or "\n" in text else text
    return None if payload == f'{{"role": "{role}", "content": "{said}"}}' else text


def spoken_text(kept: str | None, payload: str) -> str:
    """The text of a message, from what was kept of it."""
    if kept is not None:
        return kept
    message = json.loads(payload)
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""

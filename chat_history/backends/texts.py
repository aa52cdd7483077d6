"""A message's text, kept beside the payload only where the payload does not say it already.

A message that is a plain dict is its text and little else. Kept once, a store of such messages is half as large, and
an append writes half as much.
"""

from __future__ import annotations

import json

__all__ = ["spoken_text"]


def spoken_text(kept: str | None, payload: str) -> str:
    """The text of a message, from what was kept of it: None where it is the payload's "content"."""
    if kept is not None:
        return kept
    try:
        message = json.loads(payload)
    except ValueError:
        return ""  # damaged: whoever reads the payload itself names it, and it can be replaced or deleted
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""

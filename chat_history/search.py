"""Search: what a person typed as terms, and what was found as snippets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from .backends.base import Found
from .backends.words import Sought, folded

__all__ = ["SearchHit", "hit_of", "sought"]

BEFORE = 60
AFTER = 140
"""Characters of a snippet before the hit, and from it on."""
_PIECE = 256
_TERM = re.compile(r'"([^"]+)"|([^\s"]+)')
_JOINING = re.compile("[\u1160-\u11ff\uff9e\uff9f\uffa0-\uffdc]")
"""Letters that Unicode joins with the one before, beside the marks."""


class SearchHit(NamedTuple):
    """Where a search found its words: in a message, or (message_id None) in the title of a chat.

    `snippet` is the text around the first of them on one line, "…" where it goes on; `marks` are the places of the
    words in it, as (start, end), in order, none within another.
    """

    chat_id: str
    title: str
    message_id: str | None
    role: str | None
    snippet: str
    marks: tuple[tuple[int, int], ...]
    created_at: datetime

    def marked(self, before: str = "**", after: str = "**") -> str:
        """The snippet with the words set off. In HTML, escape the pieces yourself: the text is what people wrote."""
        pieces, at = [], 0
        for start, end in self.marks:
            pieces += [self.snippet[at:start], before, self.snippet[start:end], after]
            at = end
        return "".join([*pieces, self.snippet[at:]])


def sought(query: str) -> Sought | None:
    """What is looked for: the words, and what stands in quotes as a whole; None where there is nothing to look for."""
    terms = [(quoted or word).strip() for quoted, word in _TERM.findall(folded(query))]
    found = tuple(dict.fromkeys(term for term in terms if term))
    return Sought(found) if found else None


def hit_of(found: Found, wanted: Sought) -> SearchHit:
    """What was found as its owner sees it."""
    snippet, marks = _snippet(found.text, wanted.terms)
    return SearchHit(found.chat_id, found.title, found.message_id, found.role, snippet, marks, found.created_at)


def _snippet(text: str, terms: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    plain = folded(text)
    first = min((place for term in terms if (place := plain.find(term)) >= 0), default=0)
    hit = _place(text, first)
    start, end = max(0, hit - BEFORE), min(len(text), hit + AFTER)
    shown = "".join(" " if letter.isspace() else letter for letter in text[start:end])
    lead = "…" if start else ""
    marks = tuple((begin + len(lead), stop + len(lead)) for begin, stop in _marks(shown, terms))
    return f"{lead}{shown}{'…' if end < len(text) else ''}", marks


def _marks(shown: str, terms: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the terms stand in a short text."""
    plain, places = "", []
    for start, end in _clusters(shown, 0):
        piece = folded(shown[start:end])
        plain += piece
        places += [(start, end)] * len(piece)
    at = 0
    anyone = "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True))
    for found in re.finditer(anyone, plain):
        start, end = places[found.start()][0], places[found.end() - 1][1]
        if start >= at and end > start:
            yield start, end
            at = end


def _place(text: str, place: int) -> int:
    """Where in a text that stands which stands at this place of the folded one."""
    if text.isascii():
        return place
    at = 0
    while at < len(text):
        end = min(at + _PIECE, len(text))
        while end < len(text) and _joins(text[end]):
            end += 1
        size = len(folded(text[at:end]))
        if place < size:
            break
        place -= size
        at = end
    for start, end in _clusters(text, at):
        size = len(folded(text[start:end]))
        if place < size:
            return start
        place -= size
    return len(text)


def _clusters(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Where each letter stands with what is joined to it, from there on."""
    for end in range(start + 1, len(text) + 1):
        if end == len(text) or not _joins(text[end]):
            yield start, end
            start = end


def _joins(letter: str) -> bool:
    return unicodedata.category(letter).startswith("M") or bool(_JOINING.match(letter))

"""What is big in messages is kept once per owner, beside them: taken out on the way to a backend, put back on the way
from it.

Images, audio and files are base64 in the JSON of every framework. A run of such characters of at least `THRESHOLD` is a
content. What a backend stores as the payload is then `MARK`, where the contents belong, a newline, and the rest::

    ~[[[96,"9f86d0..."]],[]]\\n{"role": "user", "content": [{..., "url": "data:image/png;base64,"}]}

The first list is of the payload: each place in the rest, in characters, with the SHA-256 of what goes there. The second
is of the message's text, whose rest is stored as the text: it is what is searched. No JSON begins with `MARK`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from string import ascii_letters, digits
from typing import Any, Final, TypeVar, cast

from chat_history.errors import DamagedStoreError

from .base import Backend, Change, ChatKey, Draft, PayloadRow, Record, Removal, Written
from .drafts import Drafts, plain

__all__ = ["MARK", "THRESHOLD", "bare", "hash_of", "references", "rest_of", "uses", "whole"]

THRESHOLD: Final = 16_384
"""Characters from which on a run is kept beside the message. A shorter payload is not even looked at."""
MARK: Final = "~"
"""What a payload begins with from which contents were taken. JSON begins with nothing that sorts as high."""

_RUN = re.compile("[A-Za-z0-9+/_-]*+")
_CHARACTERS = (ascii_letters + digits + "+/_-").encode()

_PAYLOAD = Record._fields.index("payload")
_TEXT = Record._fields.index("text")

Places = list[tuple[int, str]]
"""Where in the rest of a text a content belongs, and its hash, in order."""
_Row = TypeVar("_Row", bound=tuple[Any, ...])


def hash_of(content: str) -> str:
    """What a content is known by."""
    return sha256(content.encode()).hexdigest()


def references(payload: str) -> list[str]:
    """The hashes of the contents that belong to a stored message, each once."""
    if not payload.startswith(MARK):
        return []
    return list(dict.fromkeys(known for places in _places(payload)[0] for _, known in places))


def rest_of(payload: str) -> str:
    """A stored payload without the contents that belong to it."""
    return payload.partition("\n")[2] if payload.startswith(MARK) else payload


def uses(change: Change, position: int) -> Iterator[tuple[str, int]]:
    """Which contents the messages of a change refer to, as (hash, the message's position).

    position: of the first draft.
    """
    for place, draft in enumerate(change.drafts, position):
        for known in references(draft.payload):
            yield known, place
    for place, draft in change.replacements:
        for known in references(draft.payload):
            yield known, place


def whole(backend: Backend) -> Backend:
    """The backend as others see it: with whole messages, whatever it keeps beside them."""
    return cast(Backend, _Whole(backend)) if backend.keeps_contents else backend


def bare(backend: Backend) -> Backend:
    """The backend without that: what it reads has no contents, for whoever needs only the rest of a row."""
    return backend.inner if isinstance(backend, _Whole) else backend


class _Whole:
    """Another backend's messages, whole. What has to do with no content is that backend's own."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        # Bound once, as looking them up through `__getattr__` takes a while.
        self.append = inner.append  # of messages below the threshold only
        self.get_chat = inner.get_chat
        self.outline = inner.outline

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """That of the other, so that `isinstance` says what the store is."""
        return type(self.inner)

    def __repr__(self) -> str:
        return repr(self.inner)

    def write(self, chat: ChatKey, change: Change) -> Written:
        return self.inner.write(chat, _outside(change))

    def remove_each(self, removals: Sequence[Removal]) -> list[bool]:
        return self.inner.remove_each(
            [each._replace(change=each.change and _outside(each.change)) for each in removals]
        )

    def read(self, chat: ChatKey, **wanted: Any) -> list[Record]:
        return self._whole(chat, lambda: self.inner.read(chat, **wanted), _PAYLOAD, _whole_record)

    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        return self._whole(chat, lambda: self.inner.find(chat, message_ids), _PAYLOAD, _whole_record)

    def read_payloads(self, chat: ChatKey, **wanted: Any) -> Sequence[PayloadRow]:
        payload = PayloadRow._fields.index("payload")
        return self._whole(chat, lambda: self.inner.read_payloads(chat, **wanted), payload, _whole_row)

    def _whole(
        self,
        chat: ChatKey,
        read: Callable[[], Sequence[_Row]],
        payload: int,
        put_back: Callable[[_Row, Mapping[str, str]], _Row],
    ) -> list[_Row]:
        missing = None
        while True:
            rows = cast(list[_Row], read())
            cut = [place for place, row in enumerate(rows) if row[payload] >= MARK]
            if not cut:
                return rows
            try:
                wanted: dict[str, int] = {}
                for place in cut:
                    for known in references(rows[place][payload]):
                        wanted.setdefault(known, place)
                contents = self.inner.contents(chat, list(wanted))
                lost = next(((rows[place][0], known) for known, place in wanted.items() if known not in contents), None)
                if lost is None:
                    rows = list(rows)
                    for place in cut:
                        rows[place] = put_back(rows[place], contents)
                    return rows
            except ValueError as error:
                raise _damaged(chat, rows[cut[0]][0], f"where its contents belong cannot be read ({error})") from error
            # Read before somebody deleted the message, and looked for after that; unless it is so again.
            if lost == missing:
                raise _damaged(chat, lost[0], f"its content {lost[1]} is missing")
            missing = lost


def _damaged(chat: ChatKey, position: int, why: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"message {position} of chat {chat.chat_id[:80]!r} is damaged: {why}; nothing was changed; replace_message or "
        "delete_message mends it, or restore the store"
    )


# ---- taking out


def _outside(change: Change) -> Change:
    """A change without what is big in it, and that beside it."""
    drafts = change.drafts
    contents: dict[str, str] = {}
    if isinstance(drafts, Drafts) and not drafts.are_made:
        # The others come as the backend comes to them, and so do their contents.
        ids = drafts.message_ids
        return replace(change, drafts=Drafts((_cut(row, contents) for row in drafts.rows()), ids), contents=contents)
    if _are_short(plain(drafts)) and not change.replacements:
        return change
    return replace(
        change,
        drafts=[Draft._make(_cut(draft, contents)) for draft in drafts],
        replacements=[(position, Draft._make(_cut(draft, contents))) for position, draft in change.replacements],
        contents=contents,
    )


def _are_short(drafts: Iterable[tuple[Any, ...]]) -> bool:
    payload = Draft._fields.index("payload")
    return all(len(draft[payload]) <= THRESHOLD for draft in drafts)


def _cut(draft: tuple[Any, ...], contents: dict[str, str]) -> tuple[Any, ...]:
    """A draft without its contents, which go to those given."""
    message_id, role, form, version, payload, text, digest, created_at, metadata, _, status = draft
    if len(payload) <= THRESHOLD:
        return draft
    places, rest = _taken(payload, contents)
    if not places:
        return draft
    others, text = _taken(text, contents)
    payload = f"{MARK}{json.dumps([places, others], separators=(',', ':'))}\n{rest}"
    return message_id, role, form, version, payload, text, digest, created_at, metadata, False, status


def _taken(text: str, contents: dict[str, str]) -> tuple[Places, str]:
    """What is left of a text without the contents in it, and where they belong."""
    places: Places = []
    rest: list[str] = []
    length = end = 0
    for begin, stop in _runs(text):
        content = text[begin:stop]
        known = hash_of(content)
        contents[known] = content
        rest.append(text[end:begin])
        length += begin - end
        places.append((length, known))
        end = stop
    rest.append(text[end:])
    return places, "".join(rest)


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """Where the runs begin and end.

    One that is long enough holds a place that the threshold divides, so only those are looked at, and what is around.
    """
    at = end = 0
    while at < len(text):
        stop = at + _length(text, at)
        begin = at - _length(text[max(end, at - THRESHOLD) : at][::-1], 0)
        if text[begin - 1 : begin] == "\\":
            # The end of an escape, with which the image after it would be another one than elsewhere.
            begin += 5 if text[begin : begin + 1] == "u" else 1
        if stop - begin >= THRESHOLD:
            yield begin, stop
        end = stop
        at += THRESHOLD * max(1, -(-(stop - at) // THRESHOLD))


def _length(text: str, at: int) -> int:
    """Of the run that goes on from there."""
    end = at
    # Ten times as fast as the pattern, where all of it are such characters.
    while (block := text[end : end + THRESHOLD]) and not block.encode("ascii", "replace").translate(None, _CHARACTERS):
        end += len(block)
    found = _RUN.match(text, end)
    return (found.end() if found else end) - at


# ---- putting back


def _places(payload: str) -> tuple[list[Places], str]:
    header, newline, rest = payload.partition("\n")
    places = json.loads(header.removeprefix(MARK))
    if not newline or not payload.startswith(MARK):
        raise ValueError("it is no JSON, and says of no content")
    return places, rest


def _put_back(rest: str, places: Places, contents: Mapping[str, str]) -> str:
    parts: list[str] = []
    end = 0
    for place, known in places:
        parts += rest[end:place], contents[known]
        end = place
    parts.append(rest[end:])
    return "".join(parts)


def _whole_record(record: Record, contents: Mapping[str, str]) -> Record:
    (places, others), rest = _places(record.payload)
    return record._replace(payload=_put_back(rest, places, contents), text=_put_back(record.text, others, contents))


def _whole_row(row: PayloadRow, contents: Mapping[str, str]) -> PayloadRow:
    (places, _), rest = _places(row[3])
    return cast(PayloadRow, (*row[:3], _put_back(rest, places, contents)))

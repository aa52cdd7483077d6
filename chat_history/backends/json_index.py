"""Where in a JSON file each message is, and what its chats are: all that is kept of it in memory."""

from __future__ import annotations

import json
import os
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from chat_history.errors import DamagedStoreError

from .base import ChatRecord, Draft, chat_key, first_version, owner_key
from .json_disk import File
from .json_lines import (
    CLOSING,
    CONTENT,
    METADATA,
    OPENING,
    PAYLOAD,
    head_of,
    kind_of,
    split,
    split_content,
)

__all__ = ["MESSAGE", "BadLineError", "Chat", "Frozen", "Index"]

_CHUNK = 1 << 16
"""Small enough for the processor's cache."""
_ACTIVE = 0
_STALE = 0x80
"""Set in the status of a message whose own line still says another."""

MESSAGE = re.compile(
    rb'(\{"chat": "[^"]*+"(?:, "tenant": "[^"]*+")?(?:, "user": "[^"]*+")?)'
    rb', "position": (\d+), "id": "([^"]*+)"(?:, "parent": "([^"]*+)")?(?:, "status": "([^"]*+)")?'
    rb', "created_at": "(.{26}Z)", "digest": "([^"]*+)", ("role": "[^"]*+", "format": "[^"]*+")'
)
"""The beginning of a message's line, if it has no backslash. Another line is read by `json`, more slowly."""


class BadLineError(Exception):
    """A line that is no record; `offset` is where it begins."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class Chat:
    """What is known of a chat without reading a message."""

    __slots__ = (
        "chat_id",
        "count",
        "created_at",
        "dense",
        "hashed",
        "head",
        "ids",
        "least",
        "metadata",
        "promised",
        "recorded",
        "rows",
        "shared",
        "tenant_id",
        "title",
        "updated_at",
        "user_id",
        "version",
    )

    def __init__(self, tenant_id: str, user_id: str, chat_id: str) -> None:
        self.tenant_id = tenant_id
        self.user_id = user_id
        self.chat_id = chat_id
        self.title = ""
        self.metadata: str | None = None
        self.shared = False
        self.version = 0
        self.count = 0
        self.head: bytes | None = None
        self.least = 0
        """What the position of its next line in the file is at least."""
        self.promised = 0
        """What the position of its next message is at least: positions are not given out again."""
        self.created_at = b""
        self.updated_at = b""
        self.rows = array("I")
        self.dense = True
        """Whether every message is active."""
        self.recorded = 0
        """The length of the chat's last own line, 0 while all follows from its messages."""
        self.ids: dict[bytes, int] | None = None
        self.hashed: UUID | None = None

    def record(self) -> ChatRecord:
        """The chat as the backend gives it out."""
        return ChatRecord(
            self.chat_id,
            self.title,
            self.metadata,
            self.shared,
            self.version,
            self.count,
            self.head_id(),
            datetime.fromisoformat(self.created_at.decode()),
            datetime.fromisoformat(self.updated_at.decode()),
        )

    def next_position(self) -> int:
        """The position of its next message."""
        return max(self.least, self.promised)

    def head_id(self) -> str | None:
        """The id of the last message of the active branch."""
        return None if self.head is None else self.head.decode()

    def key(self) -> UUID:
        """The key of the chat, for order; computed when it is needed."""
        if self.hashed is None:
            self.hashed = chat_key(owner_key(self.tenant_id, self.user_id), self.chat_id).key
        return self.hashed

    def activity(self) -> tuple[bytes, UUID]:
        """Its place in the order of last activity."""
        return self.updated_at, self.key()


class Frozen(NamedTuple):
    """Messages of a chat at one moment."""

    rows: Sequence[int]
    statuses: Sequence[str]
    parents: Mapping[int, str | None]
    """Where it is another than the message's own line says."""


class Index:
    """Where each message of one file is, and what its chats are. It only grows; a replaced file gets a new one."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.loaded = False
        """Whether it was read to the file's end once."""
        self.end = len(OPENING)
        """Where what is indexed ends: the last line's closing brace."""
        self.offset = array("q")
        self.length = array("I")
        self.payload = array("I")
        """Where in the line the payload begins."""
        self.position = array("I")
        self.status = array("B")
        self.kind = array("I")
        self.statuses = ["active"]
        self.kinds: list[tuple[str, str]] = []
        self.parents: dict[int, str | None] = {}
        """Parents that are others than the message's own line says."""
        self.chats: dict[bytes, Chat] = {}
        self.owners: dict[tuple[str, str], list[Chat]] = {}
        self.contents: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        """What is big in the messages of each owner, by hash: where its line begins, and how long that is."""
        self.dead = 0
        """Bytes of lines that a later one replaced."""
        self.awaited = 0
        """How many lines of the last change are still to come."""
        self.is_torn = False
        """Whether it is being changed, or whoever did so was interrupted."""
        self._before = self._after = self.end
        """Where the last chat's line, and the line before it, end."""
        self._codes: dict[bytes, int] = {}
        self._ordered: tuple[tuple[str, str], int, list[Chat]] | None = None

    # Reading what is new in the file.

    @property
    def last(self) -> int:
        """Where the last line that was taken ends."""
        return max(self._after, self.offset[-1] + self.length[-1] if self.offset else 0)

    @property
    def whole(self) -> int:
        """Where the last change ends of which no line is missing."""
        return self._before if self.awaited else self.last

    @property
    def separator(self) -> bytes:
        """What stands before the next line."""
        return b"\n" if self.end == len(OPENING) else b",\n"

    def read(self, size: int) -> bool:
        """Index what the file holds up to its closing; False, and nothing is changed, if it has none."""
        stop = size - len(CLOSING)
        fd = self.file.fd
        if stop < self.end or os.pread(fd, len(CLOSING), stop) != CLOSING:
            return False
        if not self.loaded and os.pread(fd, len(OPENING), 0) != OPENING:
            return False
        self.read_lines(stop)
        self.loaded = True
        return True

    def read_lines(self, stop: int, *, whole: bool = True) -> None:
        """Index the lines up to there. `BadLineError` at one that is none, and the index is of no further use.

        whole: a line ends at `stop`; else the last one is taken only with what separates it from the next.
        """
        if stop == self.end:
            return
        separator = self.separator
        at = self.end + len(separator)
        if os.pread(self.file.fd, len(separator), self.end) != separator:
            raise BadLineError(self.end)
        rest = b""
        while (begin := at + len(rest)) < stop:
            data = os.pread(self.file.fd, min(max(_CHUNK, len(rest)), stop - begin), begin)
            if not data:
                raise BadLineError(at)
            chunk = rest + data
            if whole and begin + len(data) == stop:
                chunk += b",\n"
            used = self.add(chunk, at)
            rest = chunk[used:]
            at += used

    def add(self, chunk: bytes, base: int) -> int:
        """Index the whole lines of a chunk of the file, each with what separates it from the next; their length."""
        offsets, lengths, payloads = self.offset, self.length, self.payload
        positions, statuses, kinds = self.position, self.status, self.kind
        chats, codes = self.chats, self._codes
        find, starts, match = chunk.find, chunk.startswith, MESSAGE.match
        at = 0
        try:
            while (newline := find(b"\n", at)) >= 0:
                if not starts(b"},", newline - 2):
                    raise BadLineError(base + at)
                found = match(chunk, at)
                if found is not None and (end := found.end()) < newline and find(b"\\", at, end) < 0:
                    head, position, message_id, _, status, created_at, _, kind = found.groups()
                    payload = find(PAYLOAD, end, newline) + len(PAYLOAD)
                    if payload < end:
                        raise BadLineError(base + at)
                else:
                    odd = self._odd(chunk[at : newline - 1], base + at)
                    if odd is None:
                        at = newline + 1
                        continue
                    head, position, message_id, status, created_at, kind, payload = odd
                    payload += at
                place = int(position)
                chat = chats.get(head)
                if chat is None:
                    chat = self._begin(head)
                    chat.created_at = chat.updated_at = created_at
                    chat.version = first_version(datetime.fromisoformat(created_at.decode())) - 1
                if place < chat.least:
                    raise BadLineError(base + at)
                chat.least = place + 1
                chat.rows.append(len(offsets))
                offsets.append(base + at)
                lengths.append(newline - 1 - at)
                payloads.append(payload - at)
                positions.append(place)
                code = codes.get(kind)
                kinds.append(self._kind(kind) if code is None else code)
                if status is None:
                    statuses.append(_ACTIVE)
                else:
                    statuses.append(self.code(status.decode()))
                    chat.dense = False
                if chat.ids is not None:
                    chat.ids[message_id] = len(offsets) - 1
                at = newline + 1
                if self.awaited:
                    self.awaited -= 1
                    continue
                chat.version += 1
                chat.count += 1
                chat.head = message_id
                if created_at > chat.updated_at:
                    chat.updated_at = created_at
        except (ValueError, OverflowError, LookupError) as error:
            raise BadLineError(base + at) from error
        if at:
            self.end = base + at - len(",\n")
        return at

    def enter(self, head: str, draft: Draft, position: int, created_at: str, size: int, payload: int) -> None:
        """Index one message that is about to be appended, whose line of that size is not looked at any more."""
        key = head.encode()
        chat = self.chats.get(key)
        time = created_at.encode()
        if chat is None:
            chat = self._begin(key)
            chat.created_at = chat.updated_at = time
            chat.version = first_version(draft.created_at) - 1
        message_id = draft.message_id.encode()
        row = len(self.offset)
        begin = self.end + len(self.separator)
        chat.least = position + 1
        chat.rows.append(row)
        self.offset.append(begin)
        self.length.append(size)
        self.payload.append(payload)
        self.position.append(position)
        kind = kind_of(draft.role, draft.format).encode()
        code = self._codes.get(kind)
        self.kind.append(self._kind(kind) if code is None else code)
        self.status.append(_ACTIVE)
        if chat.ids is not None:
            chat.ids[message_id] = row
        chat.version += 1
        chat.count += 1
        chat.head = message_id
        if time > chat.updated_at:
            chat.updated_at = time
        self.end = begin + size

    def _odd(self, line: bytes, offset: int) -> tuple[bytes, int, bytes, bytes | None, bytes, bytes, int] | None:
        """What `add` needs of a message's line that the pattern does not match; None for another line."""
        try:
            if line.startswith(CONTENT):
                owner, known, _ = split_content(line)
                self.contents.setdefault(owner, {})[known] = offset, len(line)
                return None
            header, begin = split(line)
            if begin is None:
                self._apply(header, line, offset)
                return None
            status = header.get("status")
            bytes.fromhex(header["digest"])
            return (
                head_of(header.get("tenant", ""), header.get("user", ""), header["chat"]).encode(),
                header["position"],
                header["id"].encode(),
                None if status is None else status.encode(),
                header["created_at"].encode(),
                kind_of(header["role"], header["format"]).encode(),
                begin,
            )
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise BadLineError(offset) from error

    def _apply(self, record: Mapping[str, Any], line: bytes, offset: int) -> None:
        head = head_of(record.get("tenant", ""), record.get("user", ""), record["chat"]).encode()
        chat = self.chats.get(head) or self._begin(head)
        chat.version = record["version"]
        chat.count = record["message_count"]
        chat.promised = record["next_position"]
        chat.head = record["head"].encode() if "head" in record else None
        chat.created_at = record["created_at"].encode()
        chat.updated_at = record["updated_at"].encode()
        chat.title = record.get("title", "")
        chat.shared = record.get("shared", False)
        begin = line.find(METADATA) + len(METADATA)
        chat.metadata = line[begin:-1].decode() if "metadata" in record else None
        for status, places in record.get("statuses", {}).items():
            code = self.code(status) | _STALE
            for row in self.rows(chat, places):
                self.status[row] = code
            chat.dense = False
        for position, parent in record.get("parents", ()):
            for row in self.rows(chat, [position]):
                self.parents[row] = parent
        self.dead += chat.recorded
        chat.recorded = len(line)
        self._before, self._after = self.last, offset + len(line)
        self.awaited = record.get("messages", 0)

    def _begin(self, head: bytes) -> Chat:
        names = json.loads(head + b"}")
        chat = Chat(names.get("tenant", ""), names.get("user", ""), names["chat"])
        self.chats[head] = chat
        self.owners.setdefault((chat.tenant_id, chat.user_id), []).append(chat)
        return chat

    def _kind(self, kind: bytes) -> int:
        names = json.loads(b"{" + kind + b"}")
        self.kinds.append((names["role"], names["format"]))
        return self._codes.setdefault(kind, len(self.kinds) - 1)

    def code(self, status: str) -> int:
        """The number that stands for a status."""
        if status not in self.statuses:
            self.statuses.append(status)
        return self.statuses.index(status)

    # Finding chats and messages.

    def by_activity(self, owner: tuple[str, str]) -> Sequence[Chat]:
        """An owner's chats, the last active one at the end; put in order once for all pages, until there is a write."""
        if self._ordered is None or self._ordered[:2] != (owner, self.end):
            self._ordered = owner, self.end, sorted(self.owners.get(owner, ()), key=Chat.activity)
        return self._ordered[2]

    def rows(self, chat: Chat | None, positions: Iterable[int]) -> Iterator[int]:
        """The rows of the messages at these positions, where there are some."""
        if chat is None:
            return
        for position in positions:
            place = bisect_left(chat.rows, position, key=self.position.__getitem__)
            if place < len(chat.rows) and self.position[row := chat.rows[place]] == position:
                yield row

    def select(
        self, chat: Chat, before: int | None, after: int | None, limit: int | None, newest: bool, status: str | None
    ) -> Sequence[int]:
        """The rows that `Backend.read` asks for, in order of position."""
        first, last = 0, len(chat.rows)
        if after is not None:
            first = bisect_right(chat.rows, after, key=self.position.__getitem__)
        if before is not None:
            last = bisect_left(chat.rows, before, key=self.position.__getitem__)
        if status is None or (chat.dense and status == "active"):
            if limit is not None and newest:
                first = max(first, last - limit)
            elif limit is not None:
                last = min(last, first + limit)
            return chat.rows[first:last]
        wanted = self.code(status)
        rows: list[int] = []
        most = last - first if limit is None else limit
        for place in range(last - 1, first - 1, -1) if newest else range(first, last):
            if len(rows) >= most:
                break
            row = chat.rows[place]
            if self.status[row] & ~_STALE == wanted:
                rows.append(row)
        return rows[::-1] if newest else rows

    def frozen(self, rows: Sequence[int]) -> Frozen:
        """These messages as they are now; what changes later does not show in it."""
        names, status = self.statuses, self.status
        return Frozen(rows, [names[status[row] & ~_STALE] for row in rows], self.parents.copy())

    def stale(self) -> set[int]:
        """The rows whose lines say another status or parent than they have now."""
        return {row for row, status in enumerate(self.status) if status & _STALE} | self.parents.keys()

    def line(self, offset: int) -> int:
        """The number of the line that a byte of the file is in, the first being 1."""
        blocks = range(0, offset, _CHUNK)
        return 1 + sum(os.pread(self.file.fd, min(_CHUNK, offset - at), at).count(b"\n") for at in blocks)

    def damaged(self, offset: int, why: str) -> DamagedStoreError:
        """The error that names a place of the file."""
        return DamagedStoreError(
            f"{self.file.path} is damaged in line {self.line(offset)} (byte {offset}): {why}; nothing was changed; "
            "correct or remove that line, or restore the file"
        )

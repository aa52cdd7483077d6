"""A JSON file that stays one valid document, and grows at its end (docs/json-file.md says how, and why it is safe)."""

from __future__ import annotations

import errno
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import wraps
from heapq import nlargest
from itertools import chain
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar, cast
from uuid import UUID

from chat_history.errors import ConfigError, StorageError, VersionConflictError

from . import json_reading as reading
from .base import (
    UNSET,
    Backend,
    Change,
    ChatKey,
    ChatRecord,
    Cleared,
    Draft,
    Found,
    Outline,
    OwnerKey,
    PayloadRow,
    Record,
    Removal,
    Written,
    chat_key,
    first_version,
    owner_key,
)
from .contents import uses
from .drafts import Drafts
from .json_index import Chat, Index
from .json_lines import Message, chat_line, content_line, draft_lines, head_of, stamp
from .json_rewriting import is_wasteful, rewritten
from .json_shared import SharedFile
from .scanning import SEARCHED, message_found, newest, title_found
from .texts import spoken_text
from .words import Sought

__all__ = ["JSONBackend"]

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _plainly(method: _Method) -> _Method:
    """Let no error of the operating system out that does not say what it means for the user."""

    @wraps(method)
    def plain(self: JSONBackend, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except StorageError:
            raise
        except OSError as error:
            if error.errno in _FULL:
                why = "there is no more space; nothing was written, make room and try again"
            else:
                why = error.strerror or str(error)
            raise StorageError(f"{self._path}: {why}") from error

    return cast(_Method, plain)


class JSONBackend(Backend):
    """Chats in one JSON file, a record a line. Writers of all processes take turns; readers wait for nobody.

    durability: "full" syncs each write to the disk before it returns; "relaxed" leaves that to the operating system, so
    that a power loss may take the last moments (a killed process loses nothing either way).
    timeout: how many seconds a write waits while others write, before it raises `StoreBusyError`.
    """

    name = "json"
    keeps_contents = True

    @_plainly
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "relaxed"] = "full",
        timeout: float = 30.0,
    ) -> None:
        if durability not in ("full", "relaxed"):
            raise ConfigError(f'durability is "full" or "relaxed", not {durability!r}')
        if not timeout >= 0:
            raise ConfigError(f"timeout is a number of seconds, 0 or more, not {timeout!r}")
        given = os.fspath(path)
        if not given or "\0" in given:
            raise ConfigError(f"{given!r} is not the path of a file")
        # A link stays a link: what is replaced is the file that it leads to.
        self._path = os.path.realpath(given)
        self._options = {"durability": durability, "timeout": timeout}
        self._file = SharedFile(self._path, durable=durability == "full", timeout=min(timeout, threading.TIMEOUT_MAX))

    @property
    def location(self) -> str:
        return self._path

    @property
    def settings(self) -> dict[str, Any]:
        return {"backend": self.name, "storage_path": self._path, **self._options}

    @_plainly
    def close(self) -> None:
        self._file.close()

    # Writing.

    @_plainly
    def write(self, chat: ChatKey, change: Change) -> Written:
        if isinstance(change.drafts, Drafts):
            change.drafts.made()  # before others have to wait for it, and while there is nothing to undo
        return self._file.write(lambda index: self._change(index, chat, change))

    def _change(self, index: Index, chat: ChatKey, change: Change) -> Written:
        head = head_of(chat.tenant_id, chat.user_id, chat.chat_id)
        known = index.chats.get(head.encode())
        drafts = change.drafts
        actual = 0 if known is None else known.version
        if change.expected_version is not None and change.expected_version != actual:
            raise VersionConflictError(change.expected_version, actual)
        version = first_version(change.now) if known is None else actual + 1
        position = 0 if known is None else known.next_position()
        last = None if known is None else known.head_id()
        parent = last if change.follows is UNSET else change.follows
        contents = _new_contents(index, chat, change)
        lines: Iterable[str] = draft_lines(head, drafts, position, parent)
        if _is_plain(change) and not is_wasteful(index):
            if contents:
                self._file.append(index, chain(contents, lines))
            else:
                self._file.append_one(index, head, drafts[0], position, parent)
            return Written(version, position, parent)
        lines = chain(contents, (_opening(chat, known, change, version),), lines)
        if change.deletions or change.replacements or is_wasteful(index):
            self._rewrite(index, [(chat, change, lines)])
        else:
            self._file.append(index, lines)
        return Written(version, position, parent) if drafts else Written(version, 0, None)

    @_plainly
    def append(self, chat: ChatKey, draft: Draft) -> Written:
        return self._file.write(lambda index: self._append(index, chat, draft))

    def _append(self, index: Index, chat: ChatKey, draft: Draft) -> Written:
        """What `_change` does for one draft, whose line says all there is to say."""
        if is_wasteful(index):
            return self._change(index, chat, Change(draft.created_at, None, (draft,), active=1))
        head = head_of(chat.tenant_id, chat.user_id, chat.chat_id)
        known = index.chats.get(head.encode())
        if known is None:
            self._file.append_one(index, head, draft, 0, None)
            return Written(first_version(draft.created_at), 0, None)
        position, parent = known.next_position(), known.head_id()
        self._file.append_one(index, head, draft, position, parent)
        return Written(known.version, position, parent)

    @_plainly
    def delete_chat(self, chat: ChatKey, expected_version: int | None = None) -> bool:
        def delete(index: Index) -> bool:
            known = index.chats.get(_head(chat))
            actual = 0 if known is None else known.version
            if expected_version not in (None, actual):
                raise VersionConflictError(expected_version or 0, actual)
            if known is not None:
                self._rewrite(index, [(chat, None, ())])
            return known is not None

        return self._file.write(delete)

    @_plainly
    def remove_each(self, removals: Sequence[Removal]) -> list[bool]:
        return self._file.write(lambda index: self._remove_each(index, removals))

    def _remove_each(self, index: Index, removals: Sequence[Removal]) -> list[bool]:
        done: list[bool] = []
        going: list[tuple[ChatKey, Change | None, Iterable[str]]] = []
        for chat, version, change in removals:
            known = index.chats.get(_head(chat))
            done.append(known is not None and known.version == version)
            if not done[-1]:
                continue
            lines: list[str] = []
            if change is not None:
                lines = [*_new_contents(index, chat, change), _opening(chat, known, change, version + 1)]
            going.append((chat, change, lines))
        if going:
            self._rewrite(index, going)
        return done

    @_plainly
    def clear(self, owner: OwnerKey) -> Cleared:
        def clear(index: Index) -> Cleared:
            chats = index.owners.get((owner.tenant_id, owner.user_id), [])
            cleared = Cleared(len(chats), sum(len(chat.rows) for chat in chats))
            if chats:
                self._rewrite(index, [(chat_key(owner, chat.chat_id), None, ()) for chat in chats])
            return cleared

        return self._file.write(clear)

    def _rewrite(self, index: Index, changes: Iterable[tuple[ChatKey, Change | None, Iterable[str]]]) -> None:
        """Write the file anew, once for all these chats: without what goes of each (None: all), with its new lines."""
        heads: set[bytes] = set()
        gone: set[int] = set()
        edits: dict[int, Draft] = {}
        used: dict[tuple[str, str], set[str]] = {}
        lines: list[Iterable[str]] = []
        for chat, change, its in changes:
            known = index.chats.get(_head(chat))
            heads.add(_head(chat))
            lines.append(its)
            if change is None:
                gone.update(known.rows if known else ())
                continue
            gone.update(index.rows(known, change.deletions))
            edits |= {row: draft for place, draft in change.replacements for row in index.rows(known, [place])}
            used.setdefault((chat.tenant_id, chat.user_id), set()).update(each for each, _ in uses(change, 0))
        self._file.replace(index, rewritten(index, heads, gone, edits, chain.from_iterable(lines), used))

    # Reading.

    @_plainly
    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        index = self._file.caught_up()
        with self._file.indexing:
            known = index.chats.get(_head(chat))
            return None if known is None else known.record()

    @_plainly
    def outline(self, chat: ChatKey) -> Outline | None:
        index = self._file.caught_up()
        with self._file.indexing:
            known = index.chats.get(_head(chat))
            if known is None:
                return None
            version, head = known.version, known.head_id()
            messages = index.frozen(known.rows[:])
        return Outline(version, head, reading.outline(index, messages))

    @_plainly
    def read(
        self,
        chat: ChatKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        status: str | None = "active",
    ) -> list[Record]:
        index = self._file.caught_up()
        with self._file.indexing:
            known = index.chats.get(_head(chat))
            if known is None:
                return []
            messages = index.frozen(index.select(known, before, after, limit, newest, status))
        return [_record(message) for message in reading.messages(index, messages)]

    @_plainly
    def read_payloads(
        self,
        chat: ChatKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        status: str | None = "active",
    ) -> Sequence[PayloadRow]:
        index = self._file.caught_up()
        with self._file.indexing:
            known = index.chats.get(_head(chat))
            if known is None:
                return []
            rows = index.select(known, before, after, limit, newest, status)
        return reading.payloads(index, rows)

    @_plainly
    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        index = self._file.caught_up()
        with self._file.indexing:
            known = index.chats.get(_head(chat))
            if known is None:
                return []
            ids = reading.ids(index, known)
            messages = index.frozen(sorted({ids[key] for each in message_ids if (key := each.encode()) in ids}))
        return [_record(message) for message in reading.messages(index, messages)]

    @_plainly
    def contents(self, chat: ChatKey, hashes: Sequence[str]) -> dict[str, str]:
        owner = chat.tenant_id, chat.user_id
        index = self._file.caught_up()
        known = index.contents.get(owner, {})
        return {each: reading.content(index, owner, each) for each in hashes if each in known}

    @_plainly
    def list_chats(
        self,
        owner: OwnerKey,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[ChatRecord]:
        index = self._file.caught_up()
        with self._file.indexing:
            if before is None and after is None:
                return [chat.record() for chat in _newest(index.owners.get(owner[:2], []), limit)]
            chats = index.by_activity(owner[:2])
            first = 0 if before is None else bisect_right(chats, _place(before), key=Chat.activity)
            end = len(chats) if after is None else bisect_left(chats, _place(after), key=Chat.activity)
            some = chats[max(first, end - limit) : end] if before is None else chats[first:end][:limit]
            return [chat.record() for chat in reversed(some)]

    @_plainly
    def search(self, owner: OwnerKey, wanted: Sought, *, chat: ChatKey | None = None, limit: int) -> list[Found]:
        index = self._file.caught_up()
        with self._file.indexing:
            if chat is None:
                chats = list(index.owners.get((owner.tenant_id, owner.user_id), ()))
            else:
                chats = [known] if (known := index.chats.get(_head(chat))) else []
            rows = sorted(chain.from_iterable(each.rows for each in chats))
        proposed = set(reading.proposed(index, rows, wanted.may_be_in))
        searched = []
        with self._file.indexing:
            for each in chats:
                is_titled, its = wanted.is_in(each.title), [row for row in each.rows if row in proposed]
                if is_titled or its:
                    searched.append((chat_key(owner, each.chat_id), each.record(), is_titled, index.frozen(its)))

        def found() -> Iterator[tuple[ChatKey, Found]]:
            for key, record, is_titled, messages in searched:
                if is_titled:
                    yield key, title_found(record)
                for message in map(_record, reading.messages(index, messages)):
                    if message.status in SEARCHED and wanted.is_in(message.text):
                        yield key, message_found(record, message)

        return newest(found(), limit)

    @_plainly
    def chat_ids(self, owner: OwnerKey) -> list[str]:
        index = self._file.caught_up()
        with self._file.indexing:
            chats = index.owners.get((owner.tenant_id, owner.user_id), [])
            return [chat.chat_id for chat in sorted(chats, key=lambda chat: (chat.created_at, chat.key()))]

    @_plainly
    def owners(self) -> list[OwnerKey]:
        index = self._file.caught_up()
        with self._file.indexing:
            return [owner_key(*names) for names in sorted(names for names, chats in index.owners.items() if chats)]


def _head(chat: ChatKey) -> bytes:
    return head_of(chat.tenant_id, chat.user_id, chat.chat_id).encode()


def _is_plain(change: Change) -> bool:
    """Whether all that a change says follows from the line of its one message."""
    return (
        len(change.drafts) == 1
        and change.active == 1
        and change.drafts[0].created_at == change.now
        and change.title is UNSET
        and change.metadata is UNSET
        and change.shared is UNSET
        and change.appends_only
    )


def _new_contents(index: Index, chat: ChatKey, change: Change) -> list[str]:
    """The lines of what a change brings that the owner does not have yet."""
    if not change.contents:
        return []
    known = index.contents.get((chat.tenant_id, chat.user_id), {})
    return [
        content_line(chat.tenant_id, chat.user_id, each, data)
        for each, data in change.contents.items()
        if each not in known
    ]


def _opening(chat: ChatKey, known: Chat | None, change: Change, version: int) -> str:
    """The chat's own line, for a change that brings it to a version."""
    position = 0 if known is None else known.next_position()
    return chat_line(
        head_of(chat.tenant_id, chat.user_id, chat.chat_id),
        _changed(chat.chat_id, known, change, version),
        position + len(change.drafts),
        statuses=change.statuses,
        parents=change.parents,
        messages=len(change.drafts),
    )


def _changed(chat_id: str, known: Chat | None, change: Change, version: int) -> ChatRecord:
    """The chat as it is after a change."""
    now = change.now
    old = ChatRecord(chat_id, "", None, False, 0, 0, None, now, now) if known is None else known.record()
    head = old.head if change.head is UNSET else change.head
    return old._replace(
        title=old.title if change.title is UNSET else change.title,
        metadata=old.metadata if change.metadata is UNSET else change.metadata,
        shared=old.shared if change.shared is UNSET else change.shared,
        version=version,
        message_count=old.message_count + change.active,
        head=change.drafts[-1].message_id if change.drafts else head,
        updated_at=max(old.updated_at, now),
    )


def _record(message: Message) -> Record:
    position, message_id, parent, status, role, form, version, payload, _, created_at, metadata, _, _ = message
    created = datetime.fromisoformat(created_at)
    text = spoken_text(message.text, message.payload)
    return Record(position, message_id, parent, status, role, form, version, payload, text, created, metadata)


def _place(cursor: tuple[datetime, UUID]) -> tuple[bytes, UUID]:
    return stamp(cursor[0]).encode(), cursor[1]


def _newest(chats: Sequence[Chat], limit: int) -> list[Chat]:
    """The first chats by (updated_at, key) descending."""
    if len(chats) > limit > 0:
        # Keys are hashes: computed only for the chats whose times leave the order open.
        times = map(attrgetter("updated_at"), reversed(chats))  # the youngest first, which others seldom beat
        edge = nlargest(limit, times)[-1]
        chats = [chat for chat in chats if chat.updated_at >= edge]
    return sorted(chats, key=Chat.activity, reverse=True)[:limit]

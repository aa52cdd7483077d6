"""A JSON file that stays one valid document, and grows at its end (docs/json-file.md says how, and why it is safe)."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import wraps
from heapq import nlargest, nsmallest
from itertools import chain
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar, cast
from uuid import UUID
from weakref import WeakSet

from chat_history.errors import ConfigError, HistoryClosedError, StorageError, StoreBusyError, VersionConflictError

from .base import (
    UNSET,
    Backend,
    Change,
    ChatKey,
    ChatRecord,
    Draft,
    Outline,
    OwnerKey,
    PayloadRow,
    Record,
    Written,
    first_version,
)
from .json_damage import document, mended
from .json_disk import File, opened, replaced, sync, write_at
from .json_index import BadLineError, Chat, Index
from .json_lines import CLOSING, Message, chat_line, draft_lines, head_of, message_line, stamp

__all__ = ["JSONBackend"]

_BLOCK: Final = 1 << 20
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
            raise StorageError(f"{self.location}: {why}") from error

    return cast(_Method, plain)


class JSONBackend(Backend):
    """Chats in one JSON file, a record a line. Writers of all processes take turns; readers wait for nobody.

    durability: "full" syncs each write to the disk before it returns; "relaxed" leaves that to the operating system, so
    that a power loss may take the last moments (a killed process loses nothing either way).
    timeout: how many seconds a write waits while others write, before it raises `StoreBusyError`.
    """

    name = "json"

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
        self._durable = durability == "full"
        self._timeout = min(timeout, threading.TIMEOUT_MAX)
        self._lost = False
        self._new_locks()
        self._index: Index | None = Index(opened(self._path))
        self._caught_up()
        _backends.add(self)

    def _new_locks(self) -> None:
        # Always taken in this order. The first is held together with the lock of the file.
        self._writing = threading.Lock()
        self._indexing = threading.Lock()
        self._syncing = threading.Lock()
        self._locked: File | None = None
        self._written = 0
        self._synced = 0

    @property
    def location(self) -> str:
        return self._path

    @_plainly
    def close(self) -> None:
        with self._writing, self._indexing:
            self._index = None

    # Writing.

    @_plainly
    def write(self, chat: ChatKey, change: Change) -> Written:
        head = head_of(chat.tenant_id, chat.user_id, chat.chat_id)
        drafts = change.drafts
        ticket = 0
        index = self._begin()
        try:
            known = index.chats.get(head.encode())
            actual = 0 if known is None else known.version
            if change.expected_version is not None and change.expected_version != actual:
                raise VersionConflictError(change.expected_version, actual)
            version = first_version(change.now) if known is None else actual + 1
            position = 0 if known is None else known.next
            last = None if known is None else known.head_id()
            parent = last if change.follows is UNSET else change.follows
            lines: Iterable[str] = draft_lines(head, drafts, position, parent)
            if not _is_plain(change):
                opening = chat_line(
                    head,
                    _changed(chat.chat_id, known, change, version),
                    position + len(drafts),
                    statuses=change.statuses,
                    parents=change.parents,
                    messages=len(drafts),
                )
                lines = chain((opening,), lines)
            if change.deletions or change.replacements or index.dead > max(_BLOCK, index.end // 2):
                gone: set[int] = set()
                edits: dict[int, Draft] = {}
                if known is not None:
                    gone.update(index.rows(known, change.deletions))
                    edits.update(
                        (row, draft) for place, draft in change.replacements for row in index.rows(known, [place])
                    )
                self._rewrite(index, {head.encode()}, gone, edits, lines)
            else:
                ticket = self._append(index, lines)
        finally:
            self._end()
        self._sync(ticket)
        return Written(version, position, parent) if drafts else Written(version, 0, None)

    @_plainly
    def delete_chat(self, chat: ChatKey) -> bool:
        index = self._begin()
        try:
            known = index.chats.get(_head(chat))
            if known is not None:
                self._delete(index, [known])
        finally:
            self._end()
        return known is not None

    @_plainly
    def clear(self, owner: OwnerKey) -> int:
        index = self._begin()
        try:
            chats = index.owners.get((owner.tenant_id, owner.user_id), [])
            if chats:
                self._delete(index, chats)
        finally:
            self._end()
        return len(chats)

    def _append(self, index: Index, lines: Iterable[str]) -> int:
        """Put lines in the place of the closing, and the closing after them; the ticket for `_sync`."""
        file, start, separator = index.file, index.end, index.separator
        at = start
        data = b""
        try:
            for data in _blocks(separator, lines):
                write_at(file.fd, data, at)
                at += len(data)
        except BaseException:
            if os.pread(file.fd, len(CLOSING), file.size() - len(CLOSING)) != CLOSING:
                os.ftruncate(file.fd, start + len(CLOSING))
                write_at(file.fd, CLOSING, start)
            raise
        if at - start == len(data):
            # One block: it is indexed as it is, unless a reader did so from the file already.
            with self._indexing:
                if index.end == start:
                    index.add(data[len(separator) : -len(CLOSING)] + b",\n", start + len(separator))
        self._written += 1
        return self._written

    def _delete(self, index: Index, chats: Iterable[Chat]) -> None:
        heads = {head_of(chat.tenant_id, chat.user_id, chat.chat_id).encode() for chat in chats}
        self._rewrite(index, heads, {row for head in heads for row in index.chats[head].rows}, {}, ())

    def _rewrite(
        self, index: Index, changed: Collection[bytes], gone: set[int], edits: Mapping[int, Draft], lines: Iterable[str]
    ) -> None:
        """Replace the file by one without some rows. Of the chats with these heads it says what `lines` say."""
        others = (
            chat_line(head.decode(), chat.record(), chat.next)
            for head, chat in index.chats.items()
            if chat.recorded and head not in changed
        )
        blocks = chain(_kept(index, gone, edits), (line.encode() for line in chain(others, lines)))
        self._locked = file = replaced(index.file, document(blocks))
        with self._indexing:
            self._index = Index(file)

    def _sync(self, ticket: int) -> None:
        """Wait until the write of this ticket is on the disk. One sync serves all writes that came before it."""
        if not self._durable or ticket <= self._synced:
            return
        with self._syncing:
            self._check_kept()
            if ticket <= self._synced:
                return
            # In this order: a file that took another's place was synced with all that had been written to that one.
            covered = self._written
            file = self._current().file
            try:
                sync(file.fd)
            except OSError:
                # The system tells of it once: a second attempt would only pretend.
                self._lost = True
                self._check_kept()
            self._synced = covered

    def _check_kept(self) -> None:
        if self._lost:
            raise StorageError(
                f"{self._path}: the disk failed to keep what was written last; "
                "check the disk, then open the history again to see what is stored"
            )

    # Reading.

    @_plainly
    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        index = self._caught_up()
        with self._indexing:
            known = index.chats.get(_head(chat))
            return None if known is None else known.record()

    @_plainly
    def outline(self, chat: ChatKey) -> Outline | None:
        index = self._caught_up()
        with self._indexing:
            known = index.chats.get(_head(chat))
            if known is None:
                return None
            version, head = known.version, known.head_id()
            messages = index.frozen(known.rows[:])
        return Outline(version, head, index.outline(messages))

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
        index = self._caught_up()
        with self._indexing:
            known = index.chats.get(_head(chat))
            if known is None:
                return []
            messages = index.frozen(index.select(known, before, after, limit, newest, status))
        return [_record(message) for message in index.messages(messages)]

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
        index = self._caught_up()
        with self._indexing:
            known = index.chats.get(_head(chat))
            if known is None:
                return []
            rows = index.select(known, before, after, limit, newest, status)
        return index.payloads(rows)

    @_plainly
    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        index = self._caught_up()
        with self._indexing:
            known = index.chats.get(_head(chat))
            if known is None:
                return []
            ids = index.ids(known)
            messages = index.frozen(sorted({ids[key] for each in message_ids if (key := each.encode()) in ids}))
        return [_record(message) for message in index.messages(messages)]

    @_plainly
    def list_chats(
        self,
        owner: OwnerKey,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[ChatRecord]:
        index = self._caught_up()
        with self._indexing:
            chats = index.owners.get((owner.tenant_id, owner.user_id), [])
            if after is not None:
                time, key = stamp(after[0]), after[1]
                chats = [c for c in chats if c.updated_at < time or (c.updated_at == time and c.key() < key)]
            if before is not None:
                time, key = stamp(before[0]), before[1]
                chats = [c for c in chats if c.updated_at > time or (c.updated_at == time and c.key() > key)]
            return [chat.record() for chat in _nearest(chats, limit, oldest=before is not None)]

    @_plainly
    def chat_ids(self, owner: OwnerKey) -> list[str]:
        index = self._caught_up()
        with self._indexing:
            chats = index.owners.get((owner.tenant_id, owner.user_id), [])
            return [chat.chat_id for chat in sorted(chats, key=lambda chat: (chat.created_at, chat.key()))]

    # Seeing what others wrote.

    def _current(self) -> Index:
        index = self._index
        if index is None:
            raise HistoryClosedError("this history was shut down; open it again to use it")
        return index

    def _caught_up(self) -> Index:
        """The index of all that was written, by whomever."""
        with self._indexing:
            index = self._seen(self._status())
        if index is None:
            # Somebody is writing just now, or was interrupted: who gets the lock knows which.
            index = self._current()
            try:
                status = self._acquire(0 if index.loaded else self._timeout)
            except StoreBusyError:
                if index.loaded:
                    return index
                raise
            try:
                index = self._seen_or_mended(status)
            finally:
                self._end()
        return index

    def _seen_or_mended(self, status: os.stat_result) -> Index:
        with self._indexing:
            index = self._seen(status)
            if index is None:
                index = self._index = mended(self._current().file)
                self._locked = index.file
        return index

    def _seen(self, status: os.stat_result | None) -> Index | None:
        """The index, once it has what is new in the file; None if the file does not end as it should."""
        index = self._current()
        if status is None or (status.st_dev, status.st_ino) != index.file.identity:
            index = self._index = Index(opened(self._path))
            status = os.fstat(index.file.fd)
        size = status.st_size
        if index.loaded:
            if size == index.end + len(CLOSING):
                return index
            try:
                if size > index.end and index.read(size):
                    return index
                if size > index.end + len(CLOSING):
                    return None
            except BadLineError:
                pass
            # Somebody changed more than the end: read all of it again.
            index = self._index = Index(index.file)
        try:
            return index if index.read(size) else None
        except BadLineError:
            self._index = Index(index.file)
            return None

    def _status(self) -> os.stat_result | None:
        try:
            return os.stat(self._path)
        except FileNotFoundError:
            return None

    # Taking turns.

    def _begin(self) -> Index:
        """Become the one writer of this file in all processes, up to `_end`."""
        status = self._acquire(self._timeout)
        try:
            index = self._seen_or_mended(status)
            index.file.check_writable(status.st_mode)
            self._check_kept()
        except BaseException:
            self._end()
            raise
        return index

    def _end(self) -> None:
        file, self._locked = self._locked, None
        try:
            if file is not None:
                fcntl.flock(file.fd, fcntl.LOCK_UN)
        finally:
            self._writing.release()

    def _acquire(self, timeout: float) -> os.stat_result:
        """Lock the file that has the name now, and say what the system says of it."""
        if not self._writing.acquire(timeout=timeout):
            raise self._busy(timeout)
        try:
            pause = deadline = 0.0
            while True:
                file = self._current().file
                try:
                    fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    now = time.monotonic()
                    deadline = deadline or now + timeout
                    if now >= deadline:
                        raise self._busy(timeout) from None
                    time.sleep(pause)
                    pause = min(pause + 0.00002, 0.001)
                    continue
                self._locked = file
                status = self._status()
                if status is not None and (status.st_dev, status.st_ino) == file.identity:
                    return status
                fcntl.flock(file.fd, fcntl.LOCK_UN)
                with self._indexing:
                    self._index = Index(opened(self._path))
        except BaseException:
            self._end()
            raise

    def _busy(self, timeout: float) -> StoreBusyError:
        return StoreBusyError(
            f"{self._path}: others were writing for {timeout:g} seconds; nothing was written, try again"
        )

    def _forked(self) -> None:
        """In the child: a lock on a file belongs to all who inherited its descriptor, so it needs one of its own."""
        torn = self._indexing.locked()
        self._new_locks()
        if self._index is not None:
            with suppress(OSError, ConfigError):
                file = opened(self._path)
                if torn or file.identity != self._index.file.identity:
                    self._index = Index(file)
                else:
                    self._index.file = file


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
    text = message.spoken()
    return Record(position, message_id, parent, status, role, form, version, payload, text, created, metadata)


def _nearest(chats: Sequence[Chat], limit: int, *, oldest: bool) -> list[Chat]:
    """The first chats by (updated_at, key) descending; with `oldest` the last ones."""
    by_time = attrgetter("updated_at")
    if len(chats) > limit > 0:
        # Keys are hashes: computed only for the chats whose times leave the order open.
        if oldest:
            edge = nsmallest(limit, map(by_time, chats))[-1]
            chats = [chat for chat in chats if chat.updated_at <= edge]
        else:
            edge = nlargest(limit, map(by_time, chats))[-1]
            chats = [chat for chat in chats if chat.updated_at >= edge]
    ordered = sorted(chats, key=lambda chat: (chat.updated_at, chat.key()), reverse=True)
    return ordered[max(0, len(ordered) - limit) :] if oldest else ordered[:limit]


def _kept(index: Index, gone: set[int], edits: Mapping[int, Draft]) -> Iterator[bytes]:
    """The lines that stay, in runs as long as possible; those that say something else by now are written anew."""
    anew = (index.stale() | edits.keys()) - gone
    heads = {row: head.decode() for head, chat in index.chats.items() for row in chat.rows if row in anew}
    fd = index.file.fd
    start = stop = 0
    for row, (begin, length) in enumerate(zip(index.offset, index.length, strict=True)):
        stays = row not in gone and row not in anew
        if stays and stop and begin == stop + len(",\n") and begin + length - start <= _BLOCK:
            stop = begin + length
            continue
        if stop:
            yield os.pread(fd, stop - start, start)
        start, stop = (begin, begin + length) if stays else (0, 0)
        if row in anew:
            message = next(index.messages(index.frozen([row])))
            if row in edits:
                message = message.replaced(edits[row])
            yield message_line(heads[row], message).encode()
    if stop:
        yield os.pread(fd, stop - start, start)


def _blocks(separator: bytes, lines: Iterable[str]) -> Iterator[bytes]:
    """Lines as they are appended, in blocks of bounded size; the last one ends with the closing."""
    block: list[str] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size > _BLOCK:
            yield separator + ",\n".join(block).encode()
            separator = b",\n"
            block = []
            size = 0
    yield (separator + ",\n".join(block).encode() if block else b"") + CLOSING


_backends: WeakSet[JSONBackend] = WeakSet()


def _after_fork() -> None:
    for backend in list(_backends):
        backend._forked()


os.register_at_fork(after_in_child=_after_fork)

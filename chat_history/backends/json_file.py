"""A JSON file that stays one valid document, and grows at its end (docs/json-file.md says how, and why it is safe)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import wraps
from heapq import nlargest, nsmallest
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar, cast
from uuid import UUID
from weakref import WeakSet

from chat_history.errors import (
    ChatHistoryWarning,
    ConfigError,
    DamagedStoreError,
    HistoryClosedError,
    NewerStoreError,
    StorageError,
    StoreBusyError,
    VersionConflictError,
)

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
from .json_records import (
    CLOSING,
    OPENING,
    BadLineError,
    Chat,
    File,
    Index,
    Message,
    chat_line,
    document_lines,
    head_of,
    is_record,
    line_at,
    message_line,
    stamp,
)

__all__ = ["JSONBackend"]

_BLOCK: Final = 1 << 20
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORMAT = re.compile(rb'\s*\{\s*"chat_history"\s*:\s*(\d+)')

_Method = TypeVar("_Method", bound=Callable[..., Any])

_open: WeakSet[JSONBackend] = WeakSet()


def _plainly(method: _Method) -> _Method:
    """Let no error of the operating system out that does not say what it means for the user."""

    @wraps(method)
    def plain(self: JSONBackend, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except StorageError:
            raise
        except OSError as error:
            raise self._refused(error) from error

    return cast(_Method, plain)


class JSONBackend(Backend):
    """Chats in one JSON file, a record a line. Writers of all processes take turns; readers wait for nobody.

    durability: "full" syncs each write to the disk before it returns; "relaxed" leaves that to the operating system, so
    a power loss may take the last moments (a killed process loses nothing either way).
    timeout: how many seconds a write waits while another process writes, before it raises `StoreBusyError`.
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
            raise ConfigError(f"{given!r} is no path of a file")
        # A link stays a link: what is replaced is the file that it leads to.
        self._path = os.path.realpath(given)
        self._durable = durability == "full"
        self._timeout = min(timeout, threading.TIMEOUT_MAX)
        self._index: Index | None = None
        self._new_locks()
        self._index = Index(self._opened())
        _open.add(self)
        self._caught_up()

    def _new_locks(self) -> None:
        # Always taken in this order.
        self._writing = threading.Lock()
        self._indexing = threading.Lock()
        self._syncing = threading.Lock()
        self._locked: File | None = None
        self._written = 0
        self._synced = 0
        self._lost = False

    @property
    def location(self) -> str:
        return self._path

    # Writing.

    @_plainly
    def write(self, chat: ChatKey, change: Change) -> Written:
        head = head_of(chat.tenant_id, chat.user_id, chat.chat_id)
        with self._turn() as index:
            known = index.chats.get(head.encode())
            actual = 0 if known is None else known.version
            if change.expected_version is not None and change.expected_version != actual:
                raise VersionConflictError(change.expected_version, actual)
            version = first_version(change.now) if known is None else actual + 1
            position = 0 if known is None else known.next
            before = None if known is None else known.head_id()
            parent = before if change.follows is UNSET else change.follows
            lines = _change_lines(head, chat.chat_id, known, change, version, position, parent)
            if change.deletions or change.replacements or index.dead > max(_BLOCK, index.end // 2):
                gone = set() if known is None else {index.row(known, place) for place in change.deletions}
                edits = (
                    {} if known is None else {index.row(known, place): draft for place, draft in change.replacements}
                )
                self._rewrite(index, gone, edits, {head.encode()}, lines)
                ticket = 0
            else:
                ticket = self._append(index, lines)
        self._sync(ticket)
        return Written(version, position, parent) if change.drafts else Written(version, 0, None)

    @_plainly
    def delete_chat(self, chat: ChatKey) -> bool:
        head = head_of(chat.tenant_id, chat.user_id, chat.chat_id).encode()
        with self._turn() as index:
            known = index.chats.get(head)
            if known is None:
                return False
            self._rewrite(index, set(known.rows), {}, {head}, ())
        return True

    @_plainly
    def clear(self, owner: OwnerKey) -> int:
        with self._turn() as index:
            chats = index.owners.get((owner.tenant_id, owner.user_id), [])
            heads = {head_of(chat.tenant_id, chat.user_id, chat.chat_id).encode() for chat in chats}
            if chats:
                self._rewrite(index, {row for chat in chats for row in chat.rows}, {}, heads, ())
        return len(heads)

    def _append(self, index: Index, lines: Iterable[str]) -> int:
        """Put lines in the place of the closing, and the closing after them; what `_sync` is to wait for."""
        fd, start, separator = index.file.fd, index.end, index.separator
        at = start
        data = b""
        try:
            for data in _blocks(separator, lines):
                _write_at(fd, data, at)
                at += len(data)
        except BaseException:
            os.ftruncate(fd, start + len(CLOSING))
            _write_at(fd, CLOSING, start)
            raise
        if at - start == len(data):
            # Small enough to be indexed from memory; a reader may have done it from the file already.
            with self._indexing:
                if index.end == start:
                    index.add(data[len(separator) : -len(CLOSING)] + b",\n", start + len(separator))
        self._written += 1
        return self._written

    def _rewrite(
        self, index: Index, gone: set[int], edits: Mapping[int, Draft], changed: set[bytes], lines: Iterable[str]
    ) -> None:
        """Replace the file by one without some rows, with what `lines` say of the chats whose heads are `changed`."""

        def blocks() -> Iterator[bytes]:
            yield from _kept(index, gone, edits)
            for head, chat in index.chats.items():
                if chat.recorded and head not in changed:
                    yield chat_line(head.decode(), chat.record(), chat.next).encode()
            for line in lines:
                yield line.encode()

        new = self._replaced(blocks())
        with self._indexing:
            self._index = Index(new)

    def _replaced(self, blocks: Iterable[bytes]) -> File:
        """Put a new file in the place of the old: all of it, durably, or nothing."""
        old = self._current().file
        temporary = self._path + ".tmp"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        new = File(os.open(temporary, flags, 0o600), writable=True)
        try:
            # Locked before it can be seen, so that nobody writes to it before its name is durable.
            fcntl.flock(new.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(old.fd)
            with suppress(PermissionError):
                os.fchown(new.fd, status.st_uid, status.st_gid)
            os.fchmod(new.fd, stat.S_IMODE(status.st_mode))
            separator = OPENING + b"\n"
            with open(new.fd, "wb", buffering=_BLOCK, closefd=False) as out:
                for block in blocks:
                    out.write(separator)
                    out.write(block)
                    separator = b",\n"
                out.write(CLOSING if separator == b",\n" else OPENING + CLOSING)
            os.fsync(new.fd)
            os.rename(temporary, self._path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self._locked = new
        fcntl.flock(old.fd, fcntl.LOCK_UN)
        _sync_folder(os.path.dirname(self._path))
        return new

    def _sync(self, ticket: int) -> None:
        """Wait until the write of this ticket is on the disk. One sync serves all writes that came before it."""
        if not self._durable or ticket <= self._synced:
            return
        with self._syncing:
            if self._lost:
                raise self._unsynced()
            if ticket <= self._synced:
                return
            # In this order: a file that replaced another was synced with all that was written before.
            covered = self._written
            file = self._current().file
            try:
                _to_disk(file.fd)
            except OSError as error:
                # The system forgets such a failure once it has told: a second attempt would only pretend.
                self._lost = True
                raise self._unsynced() from error
            self._synced = covered

    def _unsynced(self) -> StorageError:
        return StorageError(
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
                chats = [c for c in chats if c.updated_at < time or (c.updated_at == time and c.hashed() < key)]
            if before is not None:
                time, key = stamp(before[0]), before[1]
                chats = [c for c in chats if c.updated_at > time or (c.updated_at == time and c.hashed() > key)]
            return [chat.record() for chat in _nearest(chats, limit, oldest=before is not None)]

    @_plainly
    def chat_ids(self, owner: OwnerKey) -> list[str]:
        index = self._caught_up()
        with self._indexing:
            chats = index.owners.get((owner.tenant_id, owner.user_id), [])
            return [chat.chat_id for chat in sorted(chats, key=lambda chat: (chat.created_at, chat.hashed().int))]

    @_plainly
    def close(self) -> None:
        with self._writing, self._indexing:
            self._index = None

    # Taking turns.

    def _turn(self) -> _Turn:
        return _Turn(self)

    def _acquire(self, *, wait: bool) -> bool:
        """Become the one writer of this file in all processes; False where that would mean to wait."""
        deadline = time.monotonic() + self._timeout
        if not (self._writing.acquire(timeout=self._timeout) if wait else self._writing.acquire(blocking=False)):
            if wait:
                raise self._busy()
            return False
        try:
            pause = 0.0
            while True:
                file = self._current().file
                try:
                    fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not wait:
                        self._writing.release()
                        return False
                    if time.monotonic() > deadline:
                        raise self._busy() from None
                    time.sleep(pause)
                    pause = min(pause + 0.00002, 0.001)
                    continue
                if self._identity() == file.identity:
                    self._locked = file
                    return True
                fcntl.flock(file.fd, fcntl.LOCK_UN)
                with self._indexing:
                    self._index = Index(self._opened())
        except BaseException:
            self._writing.release()
            raise

    def _release(self) -> None:
        file, self._locked = self._locked, None
        if file is not None:
            fcntl.flock(file.fd, fcntl.LOCK_UN)
        self._writing.release()

    def _busy(self) -> StoreBusyError:
        return StoreBusyError(
            f"{self._path}: others were writing for {self._timeout:g} seconds; nothing was written, try again"
        )

    # Seeing what others wrote.

    def _current(self) -> Index:
        index = self._index
        if index is None:
            raise HistoryClosedError("this history was shut down; open it again to use it")
        return index

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _caught_up(self) -> Index:
        """The index of all that was written, by whomever."""
        with self._indexing:
            index = self._seen()
        if index is None:
            # Somebody is writing just now, or was interrupted: only the writer may know which.
            if not self._acquire(wait=not self._current().loaded):
                return self._current()
            try:
                index = self._seen_or_mended()
            finally:
                self._release()
        return index

    def _seen_or_mended(self) -> Index:
        with self._indexing:
            return self._seen() or self._mended()

    def _seen(self) -> Index | None:
        """The index, once what is new in the file was added to it; None if the file does not end as it should."""
        index = self._current()
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != index.file.identity:
            index = self._index = Index(self._opened())
            status = os.fstat(index.file.fd)
        size = status.st_size
        if size == index.end + len(CLOSING) and index.loaded:
            return index
        again = index.loaded
        while True:
            try:
                if size >= index.end + len(CLOSING) and index.read(size):
                    return index
                if index.loaded and size > index.end:
                    return None
            except BadLineError:
                pass
            # Somebody changed more than the file's end: read all of it.
            index = self._index = Index(index.file)
            if not again:
                return None
            again = False

    def _opened(self) -> File:
        """The file, created if it is missing."""
        flags = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | flags, 0o600)
            writable = True
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise ConfigError(f"{self._path} cannot be a file: {error.strerror}; name another path") from error
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            try:
                fd = os.open(self._path, os.O_RDONLY | flags)
            except FileNotFoundError:
                raise error from None
            writable = False
        file = File(fd, writable=writable)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f"{self._path} is not a regular file; name another path")
        return file

    def _forked(self) -> None:
        index, torn = self._index, self._indexing.locked()
        self._new_locks()
        if index is not None:
            file = self._opened()
            if torn or file.identity != index.file.identity:
                self._index = Index(file)
            else:
                index.file = file

    # Mending what was interrupted. Only under the lock.

    def _mended(self) -> Index:
        """The index of a file that does not end as it should, once that is put right."""
        file = self._current().file
        size = os.fstat(file.fd).st_size
        beginning = os.pread(file.fd, len(OPENING) + len(CLOSING), 0)
        if (OPENING + CLOSING).startswith(beginning) and size == len(beginning):
            self._writable(file)
            _write_at(file.fd, OPENING + CLOSING, 0)
            _to_disk(file.fd)
            _sync_folder(os.path.dirname(self._path))
        elif not beginning.startswith(OPENING + b"\n"):
            self._adopt(file)
        else:
            self._cut(file, size)
        index = self._index = Index(self._current().file)
        try:
            if index.read(os.fstat(index.file.fd).st_size):
                return index
            offset = index.end
        except BadLineError as bad:
            offset = bad.offset
        self._index = Index(index.file)
        raise self._damaged(index.file, offset)

    def _cut(self, file: File, size: int) -> None:
        """Take off what follows the last whole change."""
        index = Index(file)
        try:
            index.read_lines(size, whole=False)
            bad = min(size, index.end + len(index.separator))
        except BadLineError as error:
            bad = error.offset
        tail = os.pread(file.fd, size - bad, bad)
        closed = tail.rstrip().endswith(b"]}")
        if closed and self._is_document(file):
            self._adopt(file)
            return
        first, _, rest = tail.partition(b"\n")
        line = first.rstrip(b",")
        whole = is_record(line)
        if whole:
            try:
                index.add(line + b",\n", bad)
            except BadLineError:
                whole = False
        keep = index.whole
        more = any(is_record(line.rstrip(b",")) for line in rest.split(b"\n"))
        if more or (not whole and tail.endswith(CLOSING) and tail != CLOSING[1:]):
            raise self._damaged(file, bad)
        self._writable(file)
        lost = os.pread(file.fd, size - keep, keep)
        beside = self._put_aside(lost) if lost.strip(b" \r\n,]}") else None
        os.ftruncate(file.fd, keep)
        _write_at(file.fd, CLOSING, keep)
        _to_disk(file.fd)
        if beside is not None:
            warnings.warn(
                f"{self._path} ended in the middle of a record, or in something that is none: "
                f"its last {len(lost)} bytes were moved to {beside}; all whole records are kept",
                ChatHistoryWarning,
                stacklevel=2,
            )

    def _put_aside(self, lost: bytes) -> str:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        number = 1
        while True:
            path = f"{self._path}.damaged-{number}"
            try:
                file = File(os.open(path, flags, 0o600), writable=True)
                break
            except FileExistsError:
                number += 1
        _write_at(file.fd, lost, 0)
        _to_disk(file.fd)
        _sync_folder(os.path.dirname(path))
        return path

    def _is_document(self, file: File) -> bool:
        try:
            self._document(file)
        except ValueError:
            return False
        return True

    def _document(self, file: File) -> Any:
        with open(os.dup(file.fd), "rb") as whole:
            whole.seek(0)
            return json.load(whole)

    def _adopt(self, file: File) -> None:
        """Write a document that somebody laid out in another way as we lay it out. What is not ours is refused."""
        version = _FORMAT.match(os.pread(file.fd, 4096, 0))
        if version is not None and int(version[1]) > 1:
            raise NewerStoreError(
                f"{self._path} has format {int(version[1])} of a newer release; this one reads format 1: upgrade it"
            )
        try:
            document = self._document(file)
        except ValueError as error:
            if version is None:
                raise ConfigError(f"{self._path} is not a chat history file; name another path") from error
            place = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DamagedStoreError(f"{self._path} cannot be read; {place}") from error
        if not isinstance(document, dict) or not isinstance(document.get("records"), list) or version is None:
            if isinstance(document, dict) and all(isinstance(messages, list) for messages in document.values()):
                raise ConfigError(
                    f"{self._path} was written by rakam; "
                    "name another path, and bring its chats over with `chat-history import`"
                )
            raise ConfigError(f"{self._path} is not a chat history file; name another path")
        try:
            lines = [line.encode() for line in document_lines(document)]
        except ValueError as error:
            raise DamagedStoreError(f"{self._path} cannot be read; {error}") from error
        self._writable(file)
        self._index = Index(self._replaced(lines))

    def _writable(self, file: File) -> None:
        if not file.writable or not os.fstat(file.fd).st_mode & 0o222:
            raise StorageError(f"{self._path} is read-only, so nothing was written; make it writable to change it")

    def _damaged(self, file: File, offset: int) -> DamagedStoreError:
        return DamagedStoreError(
            f"{self._path} is damaged: line {line_at(file.fd, offset)} (byte {offset}) is no record; "
            "nothing was changed; correct or remove that line, or restore the file"
        )

    def _refused(self, error: OSError) -> StorageError:
        if error.errno in _FULL:
            return StorageError(f"{self._path}: there is no more space; nothing was written, make room and try again")
        return StorageError(f"{self._path}: {error.strerror or error}")


class _Turn:
    """The time in which this thread is the one writer of the file."""

    __slots__ = ("_backend",)

    def __init__(self, backend: JSONBackend) -> None:
        self._backend = backend

    def __enter__(self) -> Index:
        backend = self._backend
        backend._acquire(wait=True)
        try:
            index = backend._seen_or_mended()
            backend._writable(index.file)
            if backend._lost:
                raise backend._unsynced()
            return index
        except BaseException:
            backend._release()
            raise

    def __exit__(self, *_: object) -> None:
        self._backend._release()


def _head(chat: ChatKey) -> bytes:
    return head_of(chat.tenant_id, chat.user_id, chat.chat_id).encode()


def _change_lines(
    head: str, chat_id: str, known: Chat | None, change: Change, version: int, position: int, parent: str | None
) -> Iterable[str]:
    """The lines that a change comes to: one of a chat and those of its messages, or that of a message alone."""
    drafts = change.drafts
    if len(drafts) == 1 and _is_plain(change):
        return (message_line(head, Message.drafted(drafts[0], position, parent)),)
    old = None if known is None else known.record()
    last = None if old is None else old.head
    if drafts:
        last = drafts[-1].message_id
    elif change.head is not UNSET:
        last = change.head
    new = ChatRecord(
        chat_id,
        change.title if change.title is not UNSET else old.title if old else "",
        change.metadata if change.metadata is not UNSET else old.metadata if old else None,
        change.shared if change.shared is not UNSET else old.shared if old else False,
        version,
        change.active + (old.message_count if old else 0),
        last,
        old.created_at if old else change.now,
        max(old.updated_at, change.now) if old else change.now,
    )
    opening = chat_line(
        head,
        new,
        position + len(drafts),
        statuses=change.statuses,
        parents=change.parents,
        messages=len(drafts),
    )
    return _with_messages(opening, head, drafts, position, parent)


def _is_plain(change: Change) -> bool:
    """Whether all that a change of one draft says follows from the message's line."""
    return (
        change.drafts[0].created_at == change.now
        and change.active == 1
        and change.title is UNSET
        and change.metadata is UNSET
        and change.shared is UNSET
        and change.appends_only
    )


def _with_messages(
    opening: str, head: str, drafts: Iterable[Draft], position: int, parent: str | None
) -> Iterator[str]:
    yield opening
    for draft in drafts:
        yield message_line(head, Message.drafted(draft, position, parent))
        position += 1
        parent = draft.message_id


def _record(message: Message) -> Record:
    position, message_id, parent, status, created_at, _, role, form, version, _, metadata, payload, _ = message
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
    ordered = sorted(chats, key=lambda chat: (chat.updated_at, chat.hashed().int), reverse=True)
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


def _write_at(fd: int, data: bytes, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def _to_disk(fd: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        # macOS: what fsync does there leaves the data in the disk's own cache.
        fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC"))  # noqa: B009


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _after_fork() -> None:
    """Give the child its own locks and descriptors: a lock on a file is shared by all who inherited its descriptor."""
    for backend in list(_open):
        backend._forked()


os.register_at_fork(after_in_child=_after_fork)

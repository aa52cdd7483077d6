"""A SQLite file in WAL mode: one writer connection and a few readers, shared by all threads.

A write is one transaction that begins by taking the write lock, so nothing it has read can have changed. Full
durability is `synchronous = FULL`: a commit returns when the operating system has it on the disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID
from weakref import WeakSet

from chat_history.errors import (
    ChatHistoryWarning,
    DamagedStoreError,
    HistoryClosedError,
    StorageError,
    StoreBusyError,
    VersionConflictError,
)
from chat_history.migrations.runner import migrate

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

__all__ = ["SQLiteBackend"]

T = TypeVar("T")

# Reading first and writing what follows from it is faster than RETURNING, which goes through a temporary table.
STATE = "SELECT version, next_position, head, updated_at FROM chats WHERE chat_key = ?"
CREATE_CHAT = """
INSERT INTO chats (chat_key, owner_key, version, next_position, message_count, head, created_at, updated_at, shared,
    tenant_id, user_id, chat_id, title, metadata)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, '', NULL)
"""
UPDATE_CHAT = """
UPDATE chats SET version = ?, next_position = ?, message_count = message_count + ?, head = ?, updated_at = ?
WHERE chat_key = ?
"""
SET_TITLE = "UPDATE chats SET title = ? WHERE chat_key = ?"
SET_METADATA = "UPDATE chats SET metadata = ? WHERE chat_key = ?"
SET_SHARED = "UPDATE chats SET shared = ? WHERE chat_key = ?"

ADD_MESSAGE = """
INSERT INTO messages (chat_key, position, message_id, parent, status, role, format, format_version, digest, created_at,
    metadata, text, payload)
VALUES (?, ?, ?, ?, 'active', ?, ?, ?, ?, ?, ?, ?, ?)
"""
SET_STATUS = "UPDATE messages SET status = ? WHERE chat_key = ? AND position = ?"
SET_PARENT = "UPDATE messages SET parent = ? WHERE chat_key = ? AND position = ?"
REPLACE = """
UPDATE messages SET role = ?, format = ?, format_version = ?, digest = ?, metadata = ?, text = ?, payload = ?
WHERE chat_key = ? AND position = ?
"""
DELETE_MESSAGE = "DELETE FROM messages WHERE chat_key = ? AND position = ?"

RECORD = """
SELECT position, message_id, parent, status, role, format, format_version, payload, text, created_at, metadata
FROM messages
"""
PAYLOAD = "SELECT position, role, format, payload FROM messages "
WITHIN = "WHERE chat_key = ?1 AND position > ?2 AND position < ?3 AND (?4 IS NULL OR status = ?4) "
OLDEST = "ORDER BY position LIMIT ?5"
NEWEST = "ORDER BY position DESC LIMIT ?5"
READ = {False: RECORD + WITHIN + OLDEST, True: RECORD + WITHIN + NEWEST}
READ_PAYLOADS = {False: PAYLOAD + WITHIN + OLDEST, True: PAYLOAD + WITHIN + NEWEST}
FIND = RECORD + "WHERE chat_key = ? AND message_id = ?"
# One statement, so that version and rows are of one moment. The chat's own row comes first.
OUTLINE = """
SELECT -1, version, head, NULL, NULL FROM chats WHERE chat_key = ?1
UNION ALL SELECT position, message_id, parent, status, digest FROM messages WHERE chat_key = ?1 ORDER BY 1
"""

CHAT = "SELECT chat_id, title, metadata, shared, version, message_count, head, created_at, updated_at FROM chats "
GET_CHAT = CHAT + "WHERE chat_key = ?"
LIST_CHATS = CHAT + "WHERE owner_key = ? ORDER BY updated_at DESC, chat_key DESC LIMIT ?"
LIST_AFTER = (
    CHAT + "WHERE owner_key = ? AND (updated_at, chat_key) < (?, ?) ORDER BY updated_at DESC, chat_key DESC LIMIT ?"
)
LIST_BEFORE = CHAT + "WHERE owner_key = ? AND (updated_at, chat_key) > (?, ?) ORDER BY updated_at, chat_key LIMIT ?"
CHAT_IDS = "SELECT chat_id FROM chats WHERE owner_key = ? ORDER BY created_at, chat_key"

DELETE_MESSAGES = "DELETE FROM messages WHERE chat_key = ?"
DELETE_CHAT = "DELETE FROM chats WHERE chat_key = ?"
CLEAR_MESSAGES = "DELETE FROM messages WHERE chat_key IN (SELECT chat_key FROM chats WHERE owner_key = ?)"
CLEAR_CHATS = "DELETE FROM chats WHERE owner_key = ?"

READERS = 4
"""Connections that read, at most. More threads than that take turns."""
LARGEST = 2**63 - 1

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_REFUSED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN}

MOUNTS = "/proc/self/mountinfo"
SHARED_FILE_SYSTEMS = frozenset(
    [
        *["9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "prl_fs"],
        *["smb3", "smbfs", "vboxsf", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.rclone"],
        *["fuse.s3fs", "fuse.sshfs"],
    ]
)
"""Where other machines may have the same file open, which share no memory with this one, as WAL needs."""


class SQLiteBackend(Backend):
    """Chats in one SQLite file, or in memory with the path ":memory:".

    durability "relaxed" lets the operating system choose when a commit reaches the disk: a power loss may take the
    last moments, never the file's integrity. timeout: seconds to wait for other writers before `StoreBusyError`.
    migrations: a package of the integrator's own steps (`chat_history.migrations.runner` says how they look).
    """

    name = "sqlite"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "relaxed"] = "full",
        timeout: float = 30.0,
        migrations: str | None = None,
    ) -> None:
        self._in_memory = os.fspath(path) == ":memory:"
        # Absolute, because the working directory may change, and because SQLite reads a leading "file:" as a URI.
        self._path = ":memory:" if self._in_memory else os.path.abspath(path)
        self._durability = durability
        self._timeout = timeout
        self._read_only = False
        self._closed = False
        self._writer: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []
        self._make_locks()
        if not self._in_memory:
            self._read_only = not _prepare(self._path)
        try:
            self._open(migrations)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from error
            raise
        _stores.add(self)

    def _open(self, migrations: str | None) -> None:
        self._writer = self._connect()
        migrate(self._writer, dialect="sqlite", place=self._path, package=migrations)
        # Only now: the journal's mode is written into the file, which might have been another application's.
        if not self._in_memory and not self._read_only:
            self._choose_journal(self._writer)

    @property
    def location(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    # ---- writing

    def write(self, chat: ChatKey, change: Change) -> Written:
        return self._write(_apply, chat, change, scrub=bool(change.deletions or change.replacements))

    def delete_chat(self, chat: ChatKey) -> bool:
        return self._write(_delete_chat, chat.key.bytes, scrub=True)

    def clear(self, owner: OwnerKey) -> int:
        return self._write(_clear, owner.key.bytes, scrub=True)

    def _write(self, work: Callable[..., T], *arguments: Any, scrub: bool = False) -> T:
        """Do work in a transaction of its own. scrub: afterwards no copy of what it deleted is left in the log."""
        if not self._lock.acquire(timeout=self._timeout):
            raise self._busy()
        try:
            connection = self._writer or self._reopen()
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = work(connection, *arguments)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if scrub and not self._in_memory:
                self._empty_log(connection)
            return result
        except sqlite3.Error as error:
            raise self._explained(error) from error
        finally:
            self._lock.release()

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        # Deleted cells are overwritten in the file (secure_delete), but the log still has the pages as they were.
        # Outside of WAL mode there is no log, and this does nothing.
        if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise StorageError(
                f"{self._path}: the messages are deleted, but another program has been reading the file for more than "
                f"{self._timeout:g} seconds, so their text may still be in {self._path}-wal until the next deletion"
            )

    # ---- reading

    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        rows = self._read(GET_CHAT, (chat.key.bytes,))
        return _chat_record(rows[0]) if rows else None

    def outline(self, chat: ChatKey) -> Outline | None:
        rows = self._read(OUTLINE, (chat.key.bytes,))
        if not rows:
            return None
        _, version, head, _, _ = rows.pop(0)
        return Outline(version, head, rows)

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
        rows = self._read(READ[newest], _within(chat, before, after, limit, status))
        return [_record(row) for row in (reversed(rows) if newest else rows)]

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
        rows = self._read(READ_PAYLOADS[newest], _within(chat, before, after, limit, status))
        if newest:
            rows.reverse()
        return rows

    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        key = chat.key.bytes
        found = [row for message_id in set(message_ids) for row in self._read(FIND, (key, message_id))]
        return [_record(row) for row in sorted(found, key=lambda row: row[0])]

    def list_chats(
        self,
        owner: OwnerKey,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[ChatRecord]:
        key, limit = owner.key.bytes, min(limit, LARGEST)
        if before is not None:
            rows = self._read(LIST_BEFORE, (key, _time(before[0]), before[1].bytes, limit))
            rows.reverse()
        elif after is not None:
            rows = self._read(LIST_AFTER, (key, _time(after[0]), after[1].bytes, limit))
        else:
            rows = self._read(LIST_CHATS, (key, limit))
        return [_chat_record(row) for row in rows]

    def chat_ids(self, owner: OwnerKey) -> list[str]:
        return [chat_id for (chat_id,) in self._read(CHAT_IDS, (owner.key.bytes,))]

    def _read(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """All rows of one statement, which sees the file as it is at one moment."""
        if self._in_memory:
            return self._read_in_memory(statement, parameters)
        with self._slots:
            try:
                connection = self._idle.pop() if self._idle else self._connect()
                try:
                    return connection.execute(statement, parameters).fetchall()
                finally:
                    # A file that may only be read is opened anew each time, because SQLite then does not look
                    # whether others have written meanwhile.
                    if self._read_only or self._closed:
                        connection.close()
                    else:
                        self._idle.append(connection)
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def _read_in_memory(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        with self._lock:
            try:
                return (self._writer or self._connect()).execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._explained(error) from error

    # ---- connections

    def close(self) -> None:
        self._closed = True
        _stores.discard(self)
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        while self._idle:
            self._idle.pop().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(READERS)

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise HistoryClosedError(f"{self._path} was closed; open it again")
        connection = sqlite3.connect(
            _read_only_uri(self._path) if self._read_only else self._path,
            uri=self._read_only,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        if not self._read_only:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'full' else 'NORMAL'}")
            if self._durability == "full":
                # On macOS fsync leaves the data in the drive's cache; elsewhere this changes nothing.
                connection.execute("PRAGMA fullfsync = ON")
        return connection

    def _reopen(self) -> sqlite3.Connection:
        if self._read_only:
            raise StorageError(f"{self._path} can only be read: this user may not write the file, or to its folder")
        self._writer = self._connect()
        return self._writer

    def _choose_journal(self, connection: sqlite3.Connection) -> None:
        kind = _file_system(self._path)
        if kind in SHARED_FILE_SYSTEMS:
            warnings.warn(
                f"{self._path} is on a network file system ({kind}), where SQLite's write-ahead log is not safe: using "
                "a rollback journal, which is slower, and only as safe as the locks there; a local folder or Postgres "
                "is the better place",
                ChatHistoryWarning,
                stacklevel=5,
            )
        mode = "TRUNCATE" if kind in SHARED_FILE_SYSTEMS else "WAL"
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute(f"PRAGMA journal_mode = {mode}")
                return
            except sqlite3.OperationalError as error:
                # Changing the mode takes the whole file, and SQLite does not wait for that as it does for a write.
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    # ---- errors

    def _busy(self) -> StoreBusyError:
        return StoreBusyError(
            f"{self._path}: others kept it locked for more than {self._timeout:g} seconds, and nothing was written; "
            "try again, or give a longer timeout"
        )

    def _explained(self, error: sqlite3.Error) -> StorageError:
        # Errors of Python's own checks, such as a closed connection, have no code.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return self._busy()
        if code in _DAMAGED:
            return DamagedStoreError(
                f"{self._path} is damaged, or not an SQLite database ({error}), and nothing was changed; "
                "restore it from a copy, or use another path"
            )
        if code == sqlite3.SQLITE_FULL:
            return StorageError(f"{self._path}: the disk is full, and nothing was written; make room and try again")
        if code in _REFUSED:
            return StorageError(
                f"{self._path} cannot be opened or written ({error}); check that the file and its folder exist, and "
                "that this user may write to both"
            )
        return StorageError(f"{self._path}: SQLite refused: {error}")


# ---- the work of one transaction


def _apply(connection: sqlite3.Connection, chat: ChatKey, change: Change) -> Written:
    execute = connection.execute
    key = chat.key.bytes
    now = _time(change.now)
    drafts = change.drafts
    expected = change.expected_version
    row = execute(STATE, (key,)).fetchone()
    if row is None:
        if expected:
            raise VersionConflictError(expected, 0)
        version, position, head, updated = first_version(change.now), 0, None, now
    else:
        version, position, head, updated = row
        if expected is not None and expected != version:
            raise VersionConflictError(expected, version)
        version += 1
    parent = None
    if drafts:
        parent = head if change.follows is UNSET else change.follows
        head = drafts[-1].message_id
    elif change.head is not UNSET:
        head = change.head
    end = position + len(drafts)
    if row is None:
        owner = chat.owner.bytes
        execute(
            CREATE_CHAT,
            (key, owner, version, end, change.active, head, now, now, chat.tenant_id, chat.user_id, chat.chat_id),
        )
    else:
        execute(UPDATE_CHAT, (version, end, change.active, head, now if now > updated else updated, key))
    if len(drafts) == 1:
        execute(ADD_MESSAGE, _row(key, position, parent, drafts[0]))
    elif drafts:
        parents = [parent, *[draft.message_id for draft in drafts]]
        connection.executemany(ADD_MESSAGE, map(_row, [key] * len(drafts), range(position, end), parents, drafts))
    if not change.appends_only:
        _change_messages(connection, key, change)
    if change.title is not UNSET:
        execute(SET_TITLE, (change.title, key))
    if change.metadata is not UNSET:
        execute(SET_METADATA, (change.metadata, key))
    if change.shared is not UNSET:
        execute(SET_SHARED, (change.shared, key))
    return Written(version, position if drafts else 0, parent)


def _change_messages(connection: sqlite3.Connection, key: bytes, change: Change) -> None:
    connection.executemany(SET_STATUS, ((status, key, position) for position, status in change.statuses))
    connection.executemany(SET_PARENT, ((parent, key, position) for position, parent in change.parents))
    connection.executemany(
        REPLACE,
        (
            (new.role, new.format, new.format_version, new.digest, new.metadata, new.text, new.payload, key, position)
            for position, new in change.replacements
        ),
    )
    connection.executemany(DELETE_MESSAGE, ((key, position) for position in change.deletions))


def _delete_chat(connection: sqlite3.Connection, key: bytes) -> bool:
    connection.execute(DELETE_MESSAGES, (key,))
    return connection.execute(DELETE_CHAT, (key,)).rowcount > 0


def _clear(connection: sqlite3.Connection, key: bytes) -> int:
    connection.execute(CLEAR_MESSAGES, (key,))
    return connection.execute(CLEAR_CHATS, (key,)).rowcount


# ---- rows


def _time(moment: datetime) -> str:
    """Of fixed width, so that the order of the text is that of the times."""
    return moment.isoformat(timespec="microseconds")


def _row(key: bytes, position: int, parent: str | None, draft: Draft) -> tuple[Any, ...]:
    message_id, role, form, form_version, payload, text, digest, created_at, metadata = draft
    at = created_at.isoformat(timespec="microseconds")
    return key, position, message_id, parent, role, form, form_version, digest, at, metadata, text, payload


def _record(row: tuple[Any, ...]) -> Record:
    return Record._make((*row[:9], datetime.fromisoformat(row[9]), row[10]))


def _chat_record(row: tuple[Any, ...]) -> ChatRecord:
    chat_id, title, metadata, shared, version, count, head, created_at, updated_at = row
    times = datetime.fromisoformat(created_at), datetime.fromisoformat(updated_at)
    return ChatRecord(chat_id, title, metadata, bool(shared), version, count, head, *times)


def _within(
    chat: ChatKey, before: int | None, after: int | None, limit: int | None, status: str | None
) -> tuple[Any, ...]:
    return (
        chat.key.bytes,
        -1 if after is None else min(after, LARGEST),
        LARGEST if before is None else min(before, LARGEST),
        status,
        -1 if limit is None else min(limit, LARGEST),
    )


# ---- the file


def _prepare(path: str) -> bool:
    """Make the file if there is none, readable by its owner only; whether it can be written.

    A file that exists is not opened here: closing it would drop the locks that this process holds on it.
    """
    try:
        if os.path.isdir(path):
            raise StorageError(f"{path} is a folder; name a file in it")
        if not os.path.exists(path):
            real = os.path.realpath(path)
            os.makedirs(os.path.dirname(real), exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(real, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if not os.access(path, os.R_OK):
            raise StorageError(f"{path} may not be read by this user; change its permissions")
    except (OSError, ValueError) as error:
        if isinstance(error, StorageError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{path} cannot be created: {reason}; use another path") from error
    return os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)


def _read_only_uri(path: str) -> str:
    """Reading a log needs files beside it. Where there is no log, and none can be made, the file is all there is."""
    try:
        has_log = os.path.getsize(f"{path}-wal") > 0
    except OSError:
        has_log = False
    is_all = not has_log and not os.access(os.path.dirname(path), os.W_OK)
    return f"{Path(path).as_uri()}?mode=ro{'&immutable=1' if is_all else ''}"


def _file_system(path: str) -> str | None:
    """The kind of file system that holds the file, None where that cannot be told."""
    try:
        device = os.stat(path).st_dev
        with open(MOUNTS, encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                mount, _, source = line.partition(" - ")
                if mount.split(" ", 3)[2] == f"{os.major(device)}:{os.minor(device)}":
                    return source.split(" ", 1)[0]
    except OSError:
        pass
    return None


# ---- fork
#
# A child must neither use nor close its parent's connections, and SQLite shares what it knows of a file's locks among
# all connections of a process, so that even a new connection of the child would rely on locks that only the parent
# holds, and lose what it writes when the parent closes. So nothing is open while a process forks.

_stores: WeakSet[SQLiteBackend] = WeakSet()
_forking = threading.Lock()
_paused: list[SQLiteBackend] = []


def _before_fork() -> None:
    _forking.acquire()
    _paused.extend(_stores)
    for store in _paused:
        store._lock.acquire()
        if not store._in_memory:
            for _ in range(READERS):
                store._slots.acquire()
            store._disconnect()


def _after_fork_in_parent() -> None:
    for store in _paused:
        if not store._in_memory:
            store._slots.release(READERS)
        store._lock.release()
    _paused.clear()
    _forking.release()


def _after_fork_in_child() -> None:
    # Those who waited for the locks are not here to be woken.
    global _forking
    for store in _paused:
        store._make_locks()
    _paused.clear()
    _forking = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

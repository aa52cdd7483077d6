"""The connections to a SQLite file: one that writes and a few that read, shared by all threads."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar
from weakref import WeakSet

from chat_history.errors import (
    ChatHistoryWarning,
    DamagedStoreError,
    HistoryClosedError,
    StorageError,
    StoreBusyError,
)

from .disk import Descriptor, sync
from .turns import Places

__all__ = ["SHARED_FILE_SYSTEMS", "SQLiteFile", "file_system", "real_path"]

T = TypeVar("T")

READERS = 4
"""Connections that read, at most. More threads than that take turns."""

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


class SQLiteFile:
    """A database in a file, or in memory with the path ":memory:", where one connection does everything.

    read_only: nothing is created or changed, also not beside the file while nobody else has it open.
    """

    def __init__(self, path: str | os.PathLike[str], *, is_full: bool, timeout: float, read_only: bool = False) -> None:
        self._in_memory = os.fspath(path) == ":memory:"
        # Absolute, because the working directory may change, and because SQLite reads a leading "file:" as a URI.
        self.path = ":memory:" if self._in_memory else real_path(path)
        self._is_full = is_full
        self._timeout = timeout
        self._has_log = False
        self._log: Descriptor | None = None
        """The write-ahead log, to sync it by."""
        self._leaves_no_trace = self.read_only = read_only and not self._in_memory
        """Whether this process may not, or shall not, write to it."""
        self._closed = False
        self._identity: tuple[int, int] | None = None
        """Which file has the path, once it is open to be written."""
        self._writer: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []
        self._make_locks()

    def open(self, prepare: Callable[[sqlite3.Connection], object]) -> None:
        """Make the file if there is none, and prepare what is in it."""
        if not self._in_memory and not self.read_only:
            self.read_only = not _is_writable(self.path)
        try:
            self._writer = self._connect()
            prepare(self._writer)
            if self.read_only:
                self._disconnect()
            elif not self._in_memory:
                # Only now: the journal's mode is written into the file, which might have been another application's.
                self._choose_journal(self._writer)
                self._writer.execute("PRAGMA busy_timeout = 0")
                self._identity = _identity(self.path)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from error
            raise
        _files.add(self)

    def write(self, work: Callable[..., T], *arguments: Any, scrub: bool = False) -> T:
        """Do work in a transaction. scrub: afterwards no copy of what it deleted is left in the log.

        The lock that one writer of all has is free again while this one waits for the disk.
        """
        try:
            with self._turn:
                connection = self._writer or self._reopen()
                if connection.in_transaction:  # of one who was interrupted while undoing it
                    connection.execute("ROLLBACK")
                try:
                    self._begin(connection)
                    result = work(connection, *arguments)
                    self._check_unmoved()
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                if scrub and not self._in_memory:
                    self._empty_log(connection)
                log = self._opened_log() if self._syncs_log else None
        except Empty:
            raise self._busy() from None
        except sqlite3.Error as error:
            raise self._explained(error) from error
        if log is not None:
            self._sync(log)
        elif scrub:
            # Else whoever deletes again and again takes the next turn too, before one who waits for it has woken up.
            time.sleep(0)
        return result

    @property
    def _syncs_log(self) -> bool:
        """Whether commits leave it to us to bring the log to the disk."""
        return self._is_full and self._has_log

    def _opened_log(self) -> Descriptor:
        """The log. It stays the same file for as long as the writer's connection is open."""
        if self._log is None:
            try:
                self._log = Descriptor(f"{self.path}-wal")
            except OSError as error:
                raise self._not_kept(error) from error
        return self._log

    def _sync(self, log: Descriptor) -> None:
        try:
            sync(log.fd)
        except OSError as error:
            raise self._not_kept(error) from error

    def _not_kept(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path}: the disk failed to keep what was written last ({error.strerror}); "
            "check the disk, then open the history again to see what is stored"
        )

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Take the lock that one writer of all processes has, looking for it more often than SQLite itself would."""
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY:
                raise
        else:
            return
        deadline = time.monotonic() + self._timeout
        pause = 0.0001
        while True:
            time.sleep(pause)
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > deadline:
                    raise
            pause = min(pause * 1.5, 0.002)

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        # Deleted cells are overwritten in the file (secure_delete), but the log still has the pages as they were.
        # Outside of WAL mode there is no log, and this does nothing.
        deadline = time.monotonic() + self._timeout
        connection.execute(f"PRAGMA busy_timeout = {int(self._timeout * 1000)}")
        try:
            # SQLite waits for those who read, but not for another connection that is emptying the log too.
            while is_busy := connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.001)
        except sqlite3.Error as error:
            # Not as other errors, of which nothing was written: this was committed.
            raise self._left_in_log("the disk is full" if _is_full_disk(error) else f"SQLite says: {error}") from error
        finally:
            connection.execute("PRAGMA busy_timeout = 0")
        if is_busy:
            raise self._left_in_log(
                f"another program has been reading the file for more than {self._timeout:g} seconds"
            )

    def _left_in_log(self, why: str) -> StorageError:
        return StorageError(
            f"{self.path}: the messages are deleted, but {why}, so their text may still be in {self.path}-wal until "
            "the next deletion"
        )

    def read(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """All rows of one statement, which sees the file as it is at one moment."""
        if self._in_memory:
            return self._read_in_memory(statement, parameters)
        with self._reads:
            self._check_unmoved()
            try:
                try:
                    connection = self._idle.pop()
                except IndexError:  # rather than looking first: another thread may take the last one
                    connection = self._connect()
                try:
                    return connection.execute(statement, parameters).fetchall()
                finally:
                    # A file that may only be read is opened anew each time, because SQLite then does not look
                    # whether others have written meanwhile.
                    if self.read_only or self._closed:
                        connection.close()
                    else:
                        self._idle.append(connection)
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def _read_in_memory(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        with self._next_turn:
            try:
                return (self._writer or self._connect()).execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def close(self) -> None:
        self._closed = True
        _files.discard(self)
        with self._next_turn:
            self._disconnect()

    def _disconnect(self) -> None:
        while self._idle:
            self._idle.pop().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._log = None

    def _make_locks(self) -> None:
        self._writing, self._reading = Places(), Places(READERS)
        self._turn, self._next_turn = self._writing.turn(self._timeout), self._writing.turn()
        self._reads = self._reading.turn()

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise HistoryClosedError(f"{self.path} was closed; open it again")
        connection = sqlite3.connect(
            _read_only_uri(self.path, leaves_no_trace=self._leaves_no_trace) if self.read_only else self.path,
            uri=self.read_only,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        if self.read_only:
            return
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._is_full and not self._has_log else 'NORMAL'}")
        if self._is_full:
            # On macOS fsync leaves the data in the drive's cache; elsewhere this changes nothing.
            connection.execute("PRAGMA fullfsync = ON")

    def _check_unmoved(self) -> None:
        """SQLite goes on with a file that was moved, replaced or deleted, where nobody would find what it writes."""
        if self._identity is not None and _identity(self.path) != self._identity:
            raise StorageError(
                f"{self.path} is not the file any more that was opened: it was moved, replaced or deleted, and nothing "
                "was written; put it back, or open the history again to go on with what is there now"
            )

    def _reopen(self) -> sqlite3.Connection:
        if self.read_only:
            raise StorageError(f"{self.path} can only be read: this user may not write the file, or to its folder")
        self._check_unmoved()  # before a connection makes an empty file of that name
        self._writer = self._connect()
        if not self._in_memory:
            self._writer.execute("PRAGMA busy_timeout = 0")
        return self._writer

    def _choose_journal(self, connection: sqlite3.Connection) -> None:
        kind = file_system(self.path)
        if kind in SHARED_FILE_SYSTEMS:
            warnings.warn(
                f"{self.path} is on a network file system ({kind}), where SQLite's write-ahead log is not safe: using "
                "a rollback journal, which is slower, and only as safe as the locks there; a local folder or Postgres "
                "is the better place",
                ChatHistoryWarning,
                stacklevel=5,
            )
        mode = "TRUNCATE" if kind in SHARED_FILE_SYSTEMS else "WAL"
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                self._has_log = connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0] == "wal"
                break
            except sqlite3.OperationalError as error:
                # Changing the mode takes the whole file, and SQLite does not wait for that as it does for a write.
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        if self._syncs_log:
            connection.execute("PRAGMA synchronous = NORMAL")

    # ---- errors

    def _busy(self) -> StoreBusyError:
        return StoreBusyError(
            f"{self.path}: others kept it locked for more than {self._timeout:g} seconds, and nothing was written; "
            "try again, or give a longer timeout"
        )

    def _explained(self, error: sqlite3.Error) -> StorageError:
        # Errors of Python's own checks, such as a closed connection, have no code.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return self._busy()
        if code in _DAMAGED:
            return DamagedStoreError(
                f"{self.path} is damaged, or not an SQLite database ({error}), and nothing was changed; "
                "restore it from a copy, or use another path"
            )
        if _is_full_disk(error):
            return StorageError(f"{self.path}: the disk is full, and nothing was written; make room and try again")
        if code in _REFUSED:
            return StorageError(
                f"{self.path} cannot be opened or written ({error}); check that the file and its folder exist, and "
                "that this user may write to both"
            )
        return StorageError(f"{self.path}: SQLite refused: {error}")


def _is_full_disk(error: sqlite3.Error) -> bool:
    # The second is of the file that all who read the log share, which cannot be made longer.
    return getattr(error, "sqlite_errorcode", 0) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


# ---- where the file is


def real_path(path: str | os.PathLike[str]) -> str:
    """Where the file itself is: SQLite keeps the log beside it, and a link may lead elsewhere tomorrow."""
    try:
        return os.path.realpath(path)
    except ValueError as error:
        raise StorageError(f"{os.fspath(path)!r} cannot be the path of a file: {error}; use another path") from error


def _is_writable(path: str) -> bool:
    """Make the file if there is none, readable by its owner only; whether it can be written.

    A file that exists is not opened here: closing it would drop the locks that this process holds on it.
    """
    try:
        if os.path.isdir(path):
            raise StorageError(f"{path} is a folder; name a file in it")
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if not os.access(path, os.R_OK):
            raise StorageError(f"{path} may not be read by this user; change its permissions")
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be created: {error.strerror}; use another path") from error
    return os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)


def _read_only_uri(path: str, *, leaves_no_trace: bool) -> str:
    """Reading a log needs files beside it. Where there is no log, and none can be made, the file is all there is."""
    if leaves_no_trace and os.access(os.path.dirname(path), os.W_OK):
        # Beside a file that somebody has open there is a log, and beside one that was not closed something to undo.
        is_all = not os.path.exists(f"{path}-wal") and not _size(f"{path}-journal")
    else:
        is_all = not _size(f"{path}-wal") and not os.access(os.path.dirname(path), os.W_OK)
    return f"{Path(path).as_uri()}?mode=ro{'&immutable=1' if is_all else ''}"


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def file_system(path: str) -> str | None:
    """The kind of file system that holds the file, None where that cannot be told."""
    try:
        device = os.stat(path).st_dev
        with open(MOUNTS, "rb", buffering=0) as mounts:
            listed = mounts.read()
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    found = re.search(rb"^\S+ \S+ %b .*? - (\S+)" % number, listed, re.MULTILINE)
    return found[1].decode() if found else None


# ---- fork
#
# A child must neither use nor close its parent's connections, and SQLite shares what it knows of a file's locks among
# all connections of a process, so that even a new connection of the child would rely on locks that only the parent
# holds, and lose what it writes when the parent closes. So nothing is open while a process forks.

_files: WeakSet[SQLiteFile] = WeakSet()
_forking = threading.Lock()
_paused: list[SQLiteFile] = []


def _before_fork() -> None:
    _forking.acquire()
    _paused.extend(_files)
    for file in _paused:
        file._writing.take_all()
        if not file._in_memory:
            file._reading.take_all()
            file._disconnect()


def _after_fork_in_parent() -> None:
    for file in _paused:
        if not file._in_memory:
            file._reading.leave_all()
        file._writing.leave_all()
    _paused.clear()
    _forking.release()


def _after_fork_in_child() -> None:
    # Those who waited for the locks are not here to be woken.
    global _forking
    for file in _paused:
        file._make_locks()
    _paused.clear()
    _forking = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

"""A JSON file as threads and processes share it: whose turn it is to write, what the others wrote, what is durable."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar, cast
from weakref import WeakSet

from chat_history.errors import ConfigError, HistoryClosedError, StorageError, StoreBusyError

from .base import Draft
from .disk import sync
from .json_damage import document, mended
from .json_disk import File, opened, replaced, write_at
from .json_index import BadLineError, Index
from .json_lines import CLOSING, draft_header, payload_in_line, stamp
from .turns import Places

__all__ = ["SharedFile"]

_BLOCK: Final = 1 << 20
_TOGETHER: Final = 64

_Result = TypeVar("_Result")


class _Request:
    """A change that a thread waits for. Whoever has the turn makes it, for the others too."""

    __slots__ = ("change", "done", "error", "is_taken", "result", "wake")

    def __init__(self, change: Callable[[Index], Any]) -> None:
        self.change = change
        self.is_taken = False
        """Whether somebody makes it, or has made it. Changes only for whoever has the turn."""
        self.done = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.wake: SimpleQueue[None] = SimpleQueue()


class SharedFile:
    """A file, and the index of all that was written to it by whomever."""

    def __init__(self, path: str, *, durable: bool, timeout: float) -> None:
        self.path = path
        self._durable = durable
        self._timeout = timeout
        self._lost = False
        self._new_locks()
        self._index: Index | None = Index(opened(path))
        self.caught_up()
        _files.add(self)

    def _new_locks(self) -> None:
        self._waiting: deque[_Request] = deque()
        self._gathered: list[bytes] = []
        self._rest: Callable[[], None] | None = None
        """What is left to do of the last change of a batch, and takes long: readers do not wait for it."""
        self._gathered_from = 0
        # Always taken in this order. The first is held together with the lock of the file.
        self._writing = Places()
        self._turn, self._turn_now = self._writing.turn(self._timeout), self._writing.turn(0)
        self.indexing = threading.Lock()
        self._locked: File | None = None
        # Two syncs at a time: while one is under way the next batch gathers. Each has a descriptor of its own, because
        # the system tells of a failure once for each.
        self._syncs = [(places.turn(self._timeout), places.turn()) for places in (Places(), Places())]
        self._batches = 0

    def close(self) -> None:
        """Let go of the file. Every later call raises `HistoryClosedError`."""
        with self._writing.turn(), self.indexing:
            self._index = None
        self._wake_next()

    # Reading.

    def caught_up(self) -> Index:
        """The index of all that was written. To be used under `indexing`; what it points at stays readable."""
        with self.indexing:
            index = self._seen(self._status())
        if index is None:
            # Somebody is writing just now, or was interrupted: who gets the lock knows which.
            index = self._current()
            try:
                with self._turn_now if index.loaded else self._turn:
                    try:
                        status = self._locked_status(0 if index.loaded else self._timeout)
                        with self.indexing:
                            index = self._seen_or_mended(status)
                    finally:
                        self._unlock()
            except (Empty, StoreBusyError):
                if not index.loaded:
                    raise self._busy() from None
            finally:
                self._wake_next()
        return index

    def _current(self) -> Index:
        index = self._index
        if index is None:
            raise HistoryClosedError("this history was shut down; open it again to use it")
        return index

    def _status(self) -> os.stat_result | None:
        try:
            return os.stat(self.path)
        except FileNotFoundError:
            return None

    def _seen(self, status: os.stat_result | None) -> Index | None:
        """The index, once it has what is new in the file; None if the file does not end as it should."""
        index = self._current()
        if status is None or (status.st_dev, status.st_ino) != index.file.identity:
            index = self._index = Index(opened(self.path))
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

    def _seen_or_mended(self, status: os.stat_result) -> Index:
        index = self._seen(status)
        if index is None:
            index = self._index = mended(self._current().file)
            self._locked = index.file
        return index

    # Writing.

    def write(self, change: Callable[[Index], _Result]) -> _Result:
        """What a change returns that may `append` or `replace` once, as its last step, when that is durable.

        One change is made at a time in all processes, on an index that has all that was written before.
        """
        request = _Request(change)
        self._waiting.append(request)
        try:
            self._wait_for(request)
        except BaseException:
            # Interrupted: it is not made any more, and those behind it do not wait for it.
            with suppress(ValueError):
                self._waiting.remove(request)
            self._wake_next()
            raise
        if request.error is not None:
            raise request.error
        return cast(_Result, request.result)

    def _wait_for(self, request: _Request) -> None:
        """Until it is made, by whoever has the turn when it is its own."""
        until = 0.0
        while not request.done:
            with suppress(Empty):
                if not self._led(request):
                    # Between its waking and here another made its change too, and is about to sync it.
                    request.wake.get()
                continue
            until = until or time.monotonic() + self._timeout
            try:
                request.wake.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                try:
                    self._waiting.remove(request)
                except ValueError:
                    request.wake.get()
                else:
                    raise self._busy() from None

    def append(self, index: Index, lines: Iterable[str]) -> None:
        """Put lines in the place of the closing, and the closing after them. Only for a change."""
        blocks = _blocks(index.separator, lines)
        first, second = next(blocks), next(blocks, None)
        if second is None:
            # Written with those of the others who wait. Until then no reader gets to the index.
            start = index.end + len(index.separator)
            index.is_torn = True
            index.add(first[len(index.separator) :] + b",\n", start)
            self._gathered.append(first)
            index.is_torn = False
            return
        self._write_gathered(index)
        self._rest = partial(_write, index.file, index.end, _closed(chain((first, second), blocks)))

    def append_one(self, index: Index, head: str, draft: Draft, position: int, parent: str | None) -> None:
        """Append the line of one message, as `append` does, in as few steps as possible: that is done most of all."""
        created_at = stamp(draft.created_at)
        header = draft_header(head, draft, position, parent, created_at).encode()
        payload = draft.payload.encode() if draft.payload[0] == "{" else payload_in_line(draft.payload).encode()
        separator = index.separator
        index.is_torn = True
        index.enter(head, draft, position, created_at, len(header) + len(payload) + 1, len(header))
        self._gathered += separator, header, payload, b"}"
        index.is_torn = False

    def replace(self, index: Index, lines: Iterable[bytes]) -> None:
        """Put a new file of these lines in the place of this one. Only for a change."""
        self._write_gathered(index)
        self._rest = partial(self._replace, index.file, lines)

    def _replace(self, old: File, lines: Iterable[bytes]) -> None:
        self._locked = file = replaced(old, document(lines))
        self._index = Index(file)

    def _led(self, own: _Request) -> bool:
        """Make the changes of all who wait, then let the next thread write while they are synced.

        False, and nothing is done, where another has made its own. `Empty`: it is another's turn.
        """
        batch: list[_Request] = []
        try:
            with self._turn_now:
                is_first = not own.is_taken
                if is_first:
                    file, slot = self._changed(batch)
            self._wake_next()
            if is_first and self._durable and any(request.error is None for request in batch):
                with self._syncs[slot][1]:
                    self._sync(file.descriptors[slot])
        except BaseException as error:
            failed = error if isinstance(error, Exception) else self._interrupted()
            for request in batch:
                request.error = request.error or failed
            raise
        finally:
            for request in batch:
                request.done = True
                if request is not own:
                    request.wake.put(None)
        return is_first

    def _changed(self, batch: list[_Request]) -> tuple[File, int]:
        """Make the changes: the file that they are in, which stays open for it, and the descriptor to sync it by."""
        self._batches += 1
        slot = self._batches % 2
        self._rest = None
        try:
            if self._durable:
                with self._syncs[slot][0]:
                    pass
            status = self._locked_status(self._timeout)
            with self.indexing:
                index = self._current()
                if not index.loaded or status.st_size != index.end + len(CLOSING):
                    index = self._seen_or_mended(status)
                file = index.file
                file.check_writable(status.st_mode)
                if self._lost:
                    self._check_kept()
                self._make(index, batch)
            rest, self._rest = self._rest, None
            if rest is not None:
                try:
                    rest()
                except Exception as error:
                    batch[-1].error = error
        except Empty:
            raise self._busy() from None
        finally:
            self._unlock()
        return file, slot

    def _make(self, index: Index, batch: list[_Request]) -> None:
        """Make the changes of all who wait, as far as that is possible at once."""
        self._gathered_from = index.end
        waiting = iter(self._waiting.popleft, None)
        try:
            while self._waiting and len(batch) < _TOGETHER:
                try:
                    batch.extend(islice(waiting, 1))  # one step, so that no interrupt leaves one in neither
                except IndexError:
                    break  # it has left just now
                request = batch[-1]
                request.is_taken = True
                try:
                    request.result = request.change(index)
                except Exception as error:
                    if self._index is not index or index.is_torn:
                        raise
                    request.error = error
                if not self._gathered:
                    return
            self._write_gathered(index)
        except BaseException:
            if self._gathered or index.is_torn:
                # It has what is not in the file.
                self._gathered.clear()
                self._index = Index(index.file)
            raise

    def _write_gathered(self, index: Index) -> None:
        if self._gathered:
            self._gathered.append(CLOSING)
            try:
                _write(index.file, self._gathered_from, [b"".join(self._gathered)])
            except BaseException:
                self._index = Index(index.file)
                raise
            finally:
                self._gathered.clear()

    def _sync(self, fd: int) -> None:
        try:
            sync(fd)
        except OSError:
            # A second attempt would only pretend: the system tells of it once.
            self._lost = True
            self._check_kept()

    def _check_kept(self) -> None:
        if self._lost:
            raise StorageError(
                f"{self.path}: the disk failed to keep what was written last; "
                "check the disk, then open the history again to see what is stored"
            )

    def _interrupted(self) -> StorageError:
        return StorageError(f"{self.path}: the thread that wrote was interrupted; look whether this was stored")

    # Taking turns.

    def _unlock(self) -> None:
        file, self._locked = self._locked, None
        if file is not None:
            fcntl.flock(file.fd, fcntl.LOCK_UN)

    def _wake_next(self) -> None:
        if self._waiting:
            with suppress(IndexError):
                self._waiting[0].wake.put(None)

    def _locked_status(self, timeout: float) -> os.stat_result:
        """Lock the file that has the name now, and say what the system says of it."""
        began = 0.0
        while True:
            # Before it is locked: unlocking does no harm, and between the two an interrupt may come.
            self._locked = file = self._current().file
            try:
                fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                began = began or now
                if now - began >= timeout:
                    raise self._busy() from None
                # Most writers are done within microseconds; one that imports or deletes is not.
                time.sleep(1e-6 if now - began < 0.005 else 0.001)
                continue
            status = self._status()
            if status is not None and (status.st_dev, status.st_ino) == file.identity:
                return status
            fcntl.flock(file.fd, fcntl.LOCK_UN)
            with self.indexing:
                self._index = Index(opened(self.path))

    def _busy(self) -> StoreBusyError:
        return StoreBusyError(
            f"{self.path}: others were writing for {self._timeout:g} seconds; nothing was written, try again"
        )

    def forked(self) -> None:
        """In the child: a lock on a file belongs to all who inherited its descriptor, so it needs one of its own."""
        torn = self.indexing.locked()
        self._new_locks()
        if self._index is not None:
            with suppress(OSError, ConfigError):
                file = opened(self.path)
                if torn or file.identity != self._index.file.identity:
                    self._index = Index(file)
                else:
                    self._index.file = file


def _blocks(separator: bytes, lines: Iterable[str]) -> Iterator[bytes]:
    """Lines as they are appended, in blocks of bounded size; at least one."""
    block: list[str] = []
    size = 0
    for line in lines:
        if size > _BLOCK:
            yield separator + ",\n".join(block).encode()
            separator = b",\n"
            block = []
            size = 0
        block.append(line)
        size += len(line)
    yield separator + ",\n".join(block).encode()


def _closed(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks, the last one with the closing."""
    last = next(blocks)
    for block in blocks:
        yield last
        last = block
    yield last + CLOSING


def _write(file: File, start: int, blocks: Iterable[bytes]) -> None:
    """Write blocks over the closing, of which the last one ends with it; if that fails, the file is as it was."""
    at = start
    try:
        for block in blocks:
            write_at(file.fd, block, at)
            at += len(block)
    except BaseException:
        if os.pread(file.fd, len(CLOSING), file.size() - len(CLOSING)) != CLOSING:
            os.ftruncate(file.fd, start + len(CLOSING))
            write_at(file.fd, CLOSING, start)
        raise


_files: WeakSet[SharedFile] = WeakSet()


def _after_fork() -> None:
    for file in list(_files):
        file.forked()


os.register_at_fork(after_in_child=_after_fork)

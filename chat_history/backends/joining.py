"""Let threads that want the same kind of thing at the same moment get it together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

__all__ = ["Joining"]

T = TypeVar("T")
R = TypeVar("R")

PAUSE = 0.0002
"""Seconds that a crowd waits before it goes, because those who just came back are about to come again."""
CROWDS = 1000
"""Keys that are remembered as crowded while nobody works on them."""


class Joining(Generic[T, R]):
    """While one thread works on a key, those that come meanwhile wait, and then go together as the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[Hashable, _Queue[T, R]] = {}

    def begin(self, key: Hashable) -> bool:
        """Whether a key is yours alone until you `end` it: not where others work on it, or came in a crowd just now."""
        me = threading.get_ident()
        with self._lock:
            queue = self._queues.get(key)
            if queue is not None:
                # Nobody begins twice, unless an interrupt came before what it began could note that it did.
                return queue.is_busy and queue.worker == me
            queue = self._queues[key] = _Queue()
            queue.worker = me
            queue.is_busy = True
        return True

    def end(self, key: Hashable) -> None:
        """Let the next work on the key."""
        with self._lock:
            self._pass_on(key, self._queues[key])

    def do(self, key: Hashable, item: T, work: Callable[[Sequence[T]], Sequence[R]], alone: Callable[[T], R]) -> R:
        """The item's own part of what `work(items)` returns, a result for each item.

        Where the work of several fails, each does its own by `alone`, as it may be the fault of one. It may have been
        done already, where the thread that led them was interrupted.
        """
        if self.begin(key):
            try:
                return work([item])[0]
            finally:
                self.end(key)
        turn = _Turn[T, R](item)
        try:
            with self._lock:
                queue = self._queues.setdefault(key, _Queue())
                turn.leads = not queue.is_busy
                queue.waiting.append(turn)
                queue.is_busy = True
            if not turn.leads:
                turn.wait()
            if turn.leads:
                self._lead(key, queue, work)
        except BaseException:
            self._leave(key, turn)
            raise
        if turn.error is not None:
            raise turn.error
        return turn.results[0] if turn.results else alone(item)

    def _lead(self, key: Hashable, queue: _Queue[T, R], work: Callable[[Sequence[T]], Sequence[R]]) -> None:
        queue.worker = threading.get_ident()
        time.sleep(PAUSE)
        with self._lock:
            turns, queue.waiting = queue.waiting, []
        queue.is_crowded = len(turns) > 1
        try:
            for turn, result in zip(turns, work([turn.item for turn in turns]), strict=True):
                turn.results.append(result)
        except Exception as error:
            if len(turns) == 1:
                turns[0].error = error
        finally:
            with self._lock:
                self._pass_on(key, queue)
            for turn in turns:
                turn.wake()

    def _leave(self, key: Hashable, turn: _Turn[T, R]) -> None:
        with self._lock:
            queue = self._queues.get(key)
            if queue is not None and turn in queue.waiting:  # interrupted before it began
                queue.waiting.remove(turn)
                if turn.leads:
                    self._pass_on(key, queue)

    def _pass_on(self, key: Hashable, queue: _Queue[T, R]) -> None:
        # In this order: who is interrupted between the steps finds that nobody works, or that it is he himself.
        queue.is_busy = bool(queue.waiting)
        queue.worker = None
        if queue.is_busy:
            queue.waiting[0].leads = True
            queue.waiting[0].wake()
        elif not queue.is_crowded or len(self._queues) > CROWDS:
            del self._queues[key]


class _Queue(Generic[T, R]):
    """Those who want something of one key. The first of them leads when nobody else works on it."""

    def __init__(self) -> None:
        self.waiting: list[_Turn[T, R]] = []
        self.is_busy = False
        self.worker: int | None = None
        """The thread that works, None between two."""
        self.is_crowded = False


class _Turn(Generic[T, R]):
    """One who waits."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.leads = False
        self.results: list[R] = []
        self.error: Exception | None = None
        asleep = threading.Lock()
        asleep.acquire()
        self.wait = asleep.acquire
        self.wake = asleep.release

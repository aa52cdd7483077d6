"""Let threads that want the same kind of thing at the same moment get it together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from .turns import Places

__all__ = ["Joining"]

T = TypeVar("T")
R = TypeVar("R")

PAUSE = 0.0002
"""Seconds that a crowd waits before it goes, because those who just came back are about to come again."""
KEYS = 1000
"""Keys that are remembered."""


class Joining(Generic[T, R]):
    """While one thread works on a key, those that come meanwhile wait, and then go together as the next."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, _Queue[T, R]] = {}

    def do(self, key: Hashable, item: T, work: Callable[[Sequence[T]], Sequence[R]], alone: Callable[[T], R]) -> R:
        """The item's own part of what `work(items)` returns, a result for each item.

        Where the work of several fails, each does its own by `alone`, as it may be the fault of one. It may have been
        done already, where the thread that led them was interrupted.
        """
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= KEYS:
                self._queues.clear()  # who is in one of them goes on there, and only misses those who come now
            queue = self._queues.setdefault(key, _Queue())
        if queue.leader == threading.get_ident():  # out of a signal's handler: it cannot wait for itself
            return work([item])[0]
        turn = _Turn[T, R](item)
        led: list[_Turn[T, R]] = []
        try:
            queue.wait_for(turn, led, work)
        except BaseException:
            # Interrupted, at any step: nobody waits for this one any more.
            with suppress(ValueError):
                queue.waiting.remove(turn)
            _end(led)
            queue.wake_next()
            raise
        if turn.error is not None:
            raise turn.error
        return turn.results[0] if turn.results else alone(item)


class _Queue(Generic[T, R]):
    """Those who want something of one key. Whoever finds that nobody works on it leads all who wait."""

    def __init__(self) -> None:
        self.waiting: deque[_Turn[T, R]] = deque()
        self.is_crowded = False
        self.leader: int | None = None
        """The thread that works."""
        self._work_now = Places().turn(0)

    def wait_for(self, turn: _Turn[T, R], led: list[_Turn[T, R]], work: Callable[[Sequence[T]], Sequence[R]]) -> None:
        """Until the turn is over, led by another or by itself. led: those whom it leads, from when it does so."""
        self.waiting.append(turn)
        pauses = self.is_crowded
        while not turn.is_over:
            with suppress(Empty), self._work_now:
                if turn in self.waiting:  # else another led it, and was interrupted before he could say so
                    if pauses:
                        time.sleep(PAUSE)
                    self._lead(led, work)
            if not turn.is_over:
                turn.wake.get()
                pauses = True
        self.wake_next()
        _end(led)

    def _lead(self, led: list[_Turn[T, R]], work: Callable[[Sequence[T]], Sequence[R]]) -> None:
        with suppress(IndexError):
            led.extend(iter(self.waiting.popleft, None))  # one step, so that no interrupt leaves one in neither
        self.is_crowded = len(led) > 1
        self.leader = threading.get_ident()
        try:
            for turn, result in zip(led, work([turn.item for turn in led]), strict=True):
                turn.results.append(result)
        except Exception as error:
            if len(led) == 1:
                led[0].error = error
        finally:
            self.leader = None
        for turn in led:
            turn.is_over = True

    def wake_next(self) -> None:
        """Let the next one look whether somebody works."""
        with suppress(IndexError):
            self.waiting[0].wake.put(None)


class _Turn(Generic[T, R]):
    """One who wants something."""

    __slots__ = ("error", "is_over", "item", "results", "wake")

    def __init__(self, item: T) -> None:
        self.item = item
        self.is_over = False
        self.results: list[R] = []
        self.error: Exception | None = None
        self.wake: SimpleQueue[None] = SimpleQueue()


def _end(turns: Iterable[_Turn[T, R]]) -> None:
    """Let those go who were led."""
    for turn in turns:
        turn.is_over = True
        turn.wake.put(None)

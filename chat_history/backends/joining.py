"""Let threads that want the same kind of thing at the same moment get it together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Joining"]

T = TypeVar("T")
R = TypeVar("R")


class Joining(Generic[T, R]):
    """While one thread works on a key, those that come meanwhile wait, and then go together as the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, list[_Turn[T, R]]] = {}

    def do(
        self,
        key: Hashable,
        item: T,
        work: Callable[[list[T], Callable[[], None] | None], list[R]],
        alone: Callable[[T], R],
    ) -> R:
        """The item's own part of what `work(items, go_on)` returns, a result for each item.

        go_on is None where nobody had to wait; else calling it lets the next begin before this work has ended.
        Where the work of several fails, each does its own by `alone`, as it may be the fault of one.
        """
        turn: _Turn[T, R] | None = None
        with self._lock:
            queue = self._waiting.get(key)
            if queue is None:
                self._waiting[key] = []
            else:
                turn = _Turn(item)
                queue.append(turn)
        if turn is None:
            try:
                return work([item], None)[0]
            finally:
                self._call_next(key)
        turn.wait()
        if turn.together:
            self._lead(key, turn.together, work)
        return turn.results[0] if turn.results else alone(item)

    def _lead(
        self, key: Hashable, turns: list[_Turn[T, R]], work: Callable[[list[T], Callable[[], None] | None], list[R]]
    ) -> None:
        has_gone_on = False

        def go_on() -> None:
            nonlocal has_gone_on
            if not has_gone_on:
                has_gone_on = True
                self._call_next(key)

        try:
            for turn, result in zip(turns, work([turn.item for turn in turns], go_on), strict=True):
                turn.results.append(result)
        except Exception:
            if len(turns) == 1:
                raise
        finally:
            go_on()
            for turn in turns[1:]:
                turn.wake()

    def _call_next(self, key: Hashable) -> None:
        with self._lock:
            waiting = self._waiting[key]
            if not waiting:
                del self._waiting[key]
                return
            self._waiting[key] = []
        waiting[0].together = waiting
        waiting[0].wake()


class _Turn(Generic[T, R]):
    """One who waits."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.together: list[_Turn[T, R]] = []
        """Where it is this one's turn: those that go with it, itself the first."""
        self.results: list[R] = []
        asleep = threading.Lock()
        asleep.acquire()
        self.wait = asleep.acquire
        self.wake = asleep.release

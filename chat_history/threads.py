"""The threads on which the calls of `AsyncChatHistory` run."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from .errors import HistoryClosedError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["THREADS", "Threads"]

R = TypeVar("R")

THREADS = 10
"""How many calls run at a time; as many as a Postgres pool has connections by default."""


class Threads:
    """The pool that all who await one store share, made at the first call."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._lock = Lock()
        _every.add(self)

    def submit(self, work: Callable[[], R]) -> Future[R]:
        with self._lock:
            if self._closed:
                raise HistoryClosedError("this history was shut down; open another one")
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="chat_history")
            return self._pool.submit(work)

    def forked(self) -> None:
        """In the child, where the threads are not."""
        self._pool = None
        self._lock = Lock()

    def shutdown(self) -> None:
        with self._lock:
            pool, self._closed = self._pool, True
        if pool is not None:
            pool.shutdown()


_every: WeakSet[Threads] = WeakSet()


def _after_fork_in_child() -> None:
    for threads in _every:
        threads.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

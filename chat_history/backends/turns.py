"""Taking turns, also where a signal's handler raises (Ctrl-C, a time limit): whoever has left has let go."""

from __future__ import annotations

from functools import partial
from queue import SimpleQueue
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any

__all__ = ["Places", "Turn"]


class Places:
    """So many places that threads take and leave."""

    def __init__(self, number: int = 1) -> None:
        self._free: SimpleQueue[Any] = SimpleQueue()
        self._number = number
        self.leave_all()

    def turn(self, timeout: float | None = None) -> Turn:
        """What takes a place in a `with` statement, after waiting for it at most so many seconds (None: for ever)."""
        return Turn(self._free, timeout)

    def take_all(self) -> None:
        """Take every place, one after the other."""
        for _ in range(self._number):
            self._free.get()

    def leave_all(self) -> None:
        """Leave every place, having taken them all."""
        for _ in range(self._number):
            self._free.put(None)


class Turn:
    """A place that is taken for the length of a `with` statement. `queue.Empty` if none got free in time.

    Python runs handlers of signals between the steps of its own code. Entering and leaving are one step of the
    interpreter each, straight into a queue written in C: there is no moment at which a place is taken and the `with`
    statement does not know it yet, as there is after `lock.acquire(timeout=...)`, or in an `__enter__` of Python.
    """

    __slots__ = ("__enter__", "__exit__")

    if TYPE_CHECKING:

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    def __init__(self, free: SimpleQueue[Any], timeout: float | None) -> None:
        waits = timeout is None or timeout > 0
        most = min(timeout, TIMEOUT_MAX) if timeout else None
        # What is put does not matter, only how many there are.
        for name, step in (("__enter__", partial(free.get, waits, most)), ("__exit__", free.put)):
            setattr(self, name, step)

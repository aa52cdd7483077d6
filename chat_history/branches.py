"""The active branches that were read or written a moment ago, so that a save need not read them again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from .saving import Branch

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["Branches"]

MOST = 100_000
"""Messages of all remembered branches together: about 15 MB."""


class Branches:
    """Branches by chat, the least recently used forgotten first. What is remembered may be stale: writes check."""

    def __init__(self) -> None:
        self._branches: OrderedDict[UUID, Branch] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: UUID) -> Branch | None:
        """The branch as it was last seen, None if it was not."""
        with self._lock:
            branch = self._branches.get(key)
            if branch is not None:
                self._branches.move_to_end(key)
            return branch

    def put(self, key: UUID, branch: Branch) -> None:
        """Remember a branch as it is now."""
        with self._lock:
            self._forget(key)
            self._branches[key] = branch
            self._size += len(branch.digests) + 1
            while self._size > MOST and len(self._branches) > 1:
                self._forget(next(iter(self._branches)))

    def drop(self, key: UUID) -> None:
        """Forget a branch that something else was written to."""
        if key in self._branches:
            with self._lock:
                self._forget(key)

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._branches.clear()
            self._size = 0

    def _forget(self, key: UUID) -> None:
        branch = self._branches.pop(key, None)
        if branch is not None:
            self._size -= len(branch.digests) + 1

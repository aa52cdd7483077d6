"""Messages that were loaded or stored a moment ago, recognised by the very object instead of being serialised again.

`all_messages()` of a run holds the objects that the run was given, so most of a list that is saved was seen before.
Serialising a message costs about 20 µs; seeing that it is still what it was costs about one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum
from itertools import chain
from operator import is_
from threading import Lock
from typing import Any, NamedTuple
from weakref import ref

__all__ = ["Snapshots"]

LEAVES = frozenset({str, int, float, bool, bytes, complex, type(None), datetime, date, time, timedelta, timezone})
IMMUTABLE = {("decimal", "Decimal"), ("uuid", "UUID")}
NUMBERS = frozenset({int, float, bool})
MANY = 256
"""A message of more containers than this is serialised each time: cheaper to say, and a guard against cycles."""


class _Ref(ref):  # type: ignore[type-arg]
    __slots__ = ("key",)
    key: int


class _Snapshot(NamedTuple):
    message: _Ref
    live: list[Any]
    """Every mutable container that the message is made of: instance dictionaries, dicts, lists."""
    copies: list[Any]
    """Shallow copies of them, taken then. Equal to `live` as long as nothing in the message was changed in place."""
    numbers: list[tuple[Any, Any]]
    """Values now and then, where numbers are among them: 1 == True == 1.0 must not hide a change."""
    digest: bytes


class _Run:
    """Messages that follow one another in the lists of a conversation: looked at together they cost a quarter less."""

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.digests: list[bytes] = []
        self.live: list[Any] = []
        self.copies: list[Any] = []
        self.numbers: list[Any] = []
        self.numbers_then: list[Any] = []

    def grow(self, keys: Sequence[int], snapshots: Sequence[_Snapshot]) -> None:
        """Let these messages follow. The keys come last, as another thread may be looking."""
        for snapshot in snapshots:
            self.digests.append(snapshot.digest)
            self.live += snapshot.live
            self.copies += snapshot.copies
            for now, then in snapshot.numbers:
                self.numbers.append(now)
                self.numbers_then += then
        self.keys += keys

    def beginning(self, keys: Sequence[int]) -> list[bytes]:
        """The digests of all these messages, if a list begins with them, as they were; else none."""
        size = len(self.keys)
        same = (
            keys[:size] == self.keys
            and self.live == self.copies
            and all(map(is_, chain.from_iterable(self.numbers), self.numbers_then))
        )
        return self.digests[:size] if same else []


class Snapshots:
    """Digests by the very object, for as long as the object lives. Safe for threads."""

    def __init__(self) -> None:
        self._snapshots: dict[int, _Snapshot] = {}
        self._runs: dict[int, _Run] = {}
        """By their first message. A message is in one at most."""
        self._firsts: dict[int, int] = {}
        """The first message of the run that each is in."""
        self._growing = Lock()

    def __len__(self) -> int:
        return len(self._snapshots)

    def take(self, message: object, digest: bytes) -> None:
        """Remember what this message looks like now. What cannot be watched is not remembered."""
        live = _containers(message)
        if live is None:
            return
        key = id(message)
        message_ref = _Ref(message, self._forget)
        message_ref.key = key
        copies = [container.copy() for container in live]
        numbers = [each for each in zip(map(_values, live), map(_values, copies), strict=True) if _numbered(each[1])]
        self._snapshots[key] = _Snapshot(message_ref, live, copies, numbers, digest)

    def digests(self, messages: Sequence[object]) -> list[bytes | None]:
        """The digests that were remembered; None for an object that is unknown or was changed since."""
        keys = list(map(id, messages))
        run = self._runs.get(keys[0]) if keys else None
        begun = [] if run is None else run.beginning(keys)
        known = self._snapshots.get
        seen: list[_Snapshot] = []
        rest: list[bytes | None] = []
        for place in range(len(begun), len(keys)):
            snapshot = known(keys[place])
            if snapshot is None:
                rest.append(None)
                continue
            of, live, copies, numbers, digest = snapshot
            unchanged = of() is messages[place] and live == copies and _identical(numbers)
            rest.append(digest if unchanged else None)
            if unchanged and len(seen) == len(rest) - 1:
                seen.append(snapshot)
        if seen:
            self._run(keys[: len(begun) + len(seen)], seen)
        return [*begun, *rest]

    def _run(self, keys: Sequence[int], new: Sequence[_Snapshot]) -> None:
        """Remember that these messages follow one another, the last of which are new in the run."""
        first, begun = keys[0], len(keys) - len(new)
        with self._growing:
            run = self._runs.get(first) if begun else _Run()
            if run is None or len(run.keys) != begun:
                return  # another thread was here
            for key in keys[begun:]:
                other = self._firsts.get(key, first)
                if other != first:
                    self._runs.pop(other, None)
                self._firsts[key] = first
            run.grow(keys[begun:], new)
            self._runs[first] = run

    def _forget(self, message: Any) -> None:
        self._snapshots.pop(message.key, None)
        self._runs.pop(self._firsts.pop(message.key, 0), None)


def _identical(pairs: list[tuple[Any, Any]]) -> bool:
    # The values are not looked at, only where they are: that is the faster the less of them is in the cache.
    for now, then in pairs:  # noqa: SIM110 a generator costs more than what it would do
        if not all(map(is_, now, then)):
            return False
    return True


def _values(container: Any) -> Any:
    return container.values() if type(container) is dict else container


def _numbered(values: Any) -> bool:
    return not NUMBERS.isdisjoint(map(type, values))


def _containers(message: object) -> list[Any] | None:
    start = _state(type(message))(message)
    if start is None:
        return None
    live: list[Any] = []
    waiting: list[Any] = [start]
    while waiting:
        container = waiting.pop()
        live.append(container)
        if len(live) > MANY:
            return None
        for value in container.values() if type(container) is dict else container:
            kind = type(value)
            if kind in LEAVES:
                continue
            if kind is dict or kind is list:
                waiting.append(value)
            elif kind is tuple:
                waiting.append(list(value))
            else:
                state = _state(kind)(value)
                if state is None:
                    return None
                waiting.append(state)
    return live


_states: dict[type, Callable[[Any], dict[str, Any] | None]] = {}


def _state(kind: type) -> Callable[[Any], dict[str, Any] | None]:
    found = _states.get(kind)
    if found is None:
        found = _states[kind] = _how_to_watch(kind)
    return found


def _how_to_watch(kind: type) -> Callable[[Any], dict[str, Any] | None]:
    if issubclass(kind, Enum) or (kind.__module__, kind.__name__) in IMMUTABLE:
        return lambda value: {}
    has_dict = getattr(kind, "__dictoffset__", 0) != 0
    plain = not issubclass(kind, (dict, list, set, str, bytes, bytearray, tuple))
    if has_dict and plain and is_dataclass(kind):
        return vars
    if has_dict and plain and hasattr(kind, "__pydantic_fields__"):
        return lambda value: None if value.__pydantic_extra__ else vars(value)
    return lambda value: None

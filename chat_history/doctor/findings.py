"""What a check says."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from chat_history.errors import ChatHistoryError, StoreUnavailableError

__all__ = ["Finding", "Level", "error", "fine", "refused", "warning"]


class Level(StrEnum):
    """How bad it is. With a warning the store can be used; with an error it cannot, or not all of it."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One thing that a check found: how bad it is, which check it was, what it found, and how to mend that.

    check: one of file, place, space, opening, damage, server, pooling, tables, chats, clock.
    """

    level: Level
    check: str
    what: str
    mend: str = ""


def fine(check: str, what: str) -> Finding:
    """All is in order."""
    return Finding(Level.OK, check, what)


def warning(check: str, what: str, mend: str) -> Finding:
    """Something to know and to mend."""
    return Finding(Level.WARNING, check, what, mend)


def error(check: str, what: str, mend: str) -> Finding:
    """Something that keeps the store, or a part of it, from being used."""
    return Finding(Level.ERROR, check, what, mend)


def refused(reason: ChatHistoryError) -> Finding:
    """What an error of ours says: what is wrong, and behind the first semicolon what to do."""
    what, _, mend = str(reason).partition("; ")
    mend = mend.removeprefix("nothing was changed; ")
    if isinstance(reason, StoreUnavailableError):
        mend = mend or "see that the server runs, and that host, port, user and password are right"
    checks = {"DamagedStoreError": "damage", "NewerStoreError": "tables", "StoreUnavailableError": "server"}
    return error(checks.get(type(reason).__name__, "opening"), what, mend)

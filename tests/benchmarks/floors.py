"""The least that storing a message as durably can cost: one plain table, one plain file.

A floor knows what a store has to find out (which position is next, that nobody else writes to it) and keeps nothing
but the messages' JSON. It is what the ratios of the benchmarks are to.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate, count
from pathlib import Path
from typing import Any, Protocol

__all__ = ["ChatsFloor", "FileFloor", "Floor", "PostgresFloor", "SQLiteFloor"]

CHAT = "chat"


class Floor(Protocol):
    """One open descriptor or connection. `first` is the position that it writes at next."""

    def create(self) -> None:
        """Make the table, in a place where there is none."""

    def append(self, payload: str) -> None:
        """Store one message: one statement or write, durable when it returns."""

    def add(self, payloads: Iterable[str]) -> None:
        """Store the messages of one turn in one transaction."""

    def fill(self, payloads: Iterable[str]) -> None:
        """Store very many messages the fastest way there is, durable when it returns."""

    def last(self, number: int) -> list[Any]:
        """The newest messages, in order, as JSON."""

    def close(self) -> None: ...


class FileFloor:
    """A file with a message a line, written with `os.write` and `os.fdatasync` on a kept descriptor."""

    def __init__(self, path: Path, *, first: int = 0) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def create(self) -> None:
        """Opening has made the file."""

    def append(self, payload: str) -> None:
        os.write(self.descriptor, f"{payload}\n".encode())
        os.fdatasync(self.descriptor)

    def add(self, payloads: Iterable[str]) -> None:
        os.write(self.descriptor, "".join([f"{payload}\n" for payload in payloads]).encode())
        os.fdatasync(self.descriptor)

    def fill(self, payloads: Iterable[str]) -> None:
        rest = memoryview("".join([f"{payload}\n" for payload in payloads]).encode())
        while rest:  # Linux writes at most 2 GB at once
            rest = rest[os.write(self.descriptor, rest) :]
        os.fsync(self.descriptor)

    def last(self, number: int) -> list[bytes]:
        start = self._starts[-number]
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size - start, start).splitlines()

    @cached_property
    def _starts(self) -> list[int]:
        """Where each line begins, found out when it is first asked for, which is not measured."""
        with open(self.descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return list(accumulate(map(len, file), initial=0))[:-1]

    def close(self) -> None:
        os.close(self.descriptor)


CREATE = "CREATE TABLE {} (chat TEXT NOT NULL, position BIGINT NOT NULL, payload TEXT, PRIMARY KEY (chat, position))"


class SQLiteFloor:
    """`sqlite3` in WAL mode with the same `synchronous`; statements are prepared once by the module's cache."""

    INSERT = "INSERT INTO floor (chat, position, payload) VALUES (?, ?, ?)"
    LAST = "SELECT payload FROM floor WHERE chat = ? ORDER BY position DESC LIMIT ?"

    def __init__(self, path: Path, *, synchronous: str, first: int = 0) -> None:
        self.positions = count(first)
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
        self.connection.execute(f"PRAGMA synchronous = {synchronous}")
        self.execute = self.connection.execute

    def create(self) -> None:
        self.execute("PRAGMA journal_mode = WAL")
        self.execute(CREATE.format("floor"))

    def append(self, payload: str) -> None:
        self.execute(self.INSERT, (CHAT, next(self.positions), payload))

    def add(self, payloads: Iterable[str]) -> None:
        self.execute("BEGIN IMMEDIATE")
        self.connection.executemany(self.INSERT, [(CHAT, next(self.positions), payload) for payload in payloads])
        self.execute("COMMIT")

    def fill(self, payloads: Iterable[str]) -> None:
        self.execute("BEGIN IMMEDIATE")
        self.connection.executemany(self.INSERT, ((CHAT, next(self.positions), payload) for payload in payloads))
        self.execute("COMMIT")

    def last(self, number: int) -> list[str]:
        rows = self.execute(self.LAST, (CHAT, number)).fetchall()
        return [payload for (payload,) in reversed(rows)]

    def close(self) -> None:
        self.connection.close()


class PostgresFloor:
    """One psycopg connection in autocommit mode, one kept cursor, prepared statements; COPY to fill."""

    INSERT = "INSERT INTO floor (chat, position, payload) VALUES (%s, %s, %s)"
    LAST = "SELECT payload FROM floor WHERE chat = %s ORDER BY position DESC LIMIT %s"
    COPY = "COPY floor (chat, position, payload) FROM STDIN"

    def __init__(self, conninfo: str, *, first: int = 0) -> None:
        import psycopg

        self.positions = count(first)
        self.connection = psycopg.connect(conninfo, autocommit=True)
        self.cursor = self.connection.cursor()

    def create(self) -> None:
        self.cursor.execute(CREATE.format("floor"))

    def append(self, payload: str) -> None:
        self.cursor.execute(self.INSERT, (CHAT, next(self.positions), payload), prepare=True)

    def add(self, payloads: Iterable[str]) -> None:
        with self.connection.transaction():
            self.cursor.executemany(self.INSERT, [(CHAT, next(self.positions), payload) for payload in payloads])

    def fill(self, payloads: Iterable[str]) -> None:
        with self.connection.transaction(), self.cursor.copy(self.COPY) as copy:
            for payload in payloads:
                copy.write_row((CHAT, next(self.positions), payload))

    def last(self, number: int) -> list[str]:
        rows = self.cursor.execute(self.LAST, (CHAT, number), prepare=True).fetchall()
        return [payload for (payload,) in reversed(rows)]

    def close(self) -> None:
        self.connection.close()


class ChatsFloor:
    """A plain table of one owner's chats with an index by activity, beside the messages of a floor."""

    CREATE = "CREATE TABLE chats_floor (owner TEXT, chat TEXT, title TEXT, messages BIGINT, created TEXT, updated TEXT)"
    INDEX = "CREATE INDEX chats_floor_by_activity ON chats_floor (owner, updated)"
    NEWEST = "SELECT * FROM chats_floor WHERE owner = 'ann' ORDER BY updated DESC LIMIT 50"
    IDS = "SELECT chat FROM chats_floor WHERE owner = 'ann' ORDER BY created"
    NAMES = ("owner", "chat", "title", "messages", "created", "updated")

    def __init__(self, floor: SQLiteFloor | PostgresFloor, chats: Iterable[tuple[str, str, str]]) -> None:
        self.cursor: Any = floor.connection.cursor()
        self.options = {} if isinstance(floor, SQLiteFloor) else {"prepare": True}
        mark = "?" if isinstance(floor, SQLiteFloor) else "%s"
        self.cursor.execute(self.CREATE)
        self.cursor.execute("BEGIN")
        statement = f"INSERT INTO chats_floor VALUES ('ann', {mark}, '', 1, {mark}, {mark})"
        self.cursor.executemany(statement, list(chats))
        self.cursor.execute("COMMIT")
        self.cursor.execute(self.INDEX)

    def newest(self) -> list[dict[str, Any]]:
        """The newest 50, as dicts."""
        rows = self.cursor.execute(self.NEWEST, (), **self.options).fetchall()
        return [dict(zip(self.NAMES, row, strict=True)) for row in rows]

    def ids(self) -> list[str]:
        """All ids."""
        return [chat for (chat,) in self.cursor.execute(self.IDS, (), **self.options).fetchall()]

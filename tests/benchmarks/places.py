"""The stores that are measured: ours and the floor of each, side by side in the same place."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from floors import FileFloor, Floor, PostgresFloor, SQLiteFloor

from chat_history import ChatHistory, open_history


@dataclass(frozen=True)
class Store:
    """One backend at one durability. A place is a folder, or for Postgres a database; both sides live in it."""

    name: str
    backend: str
    durability: str = "full"
    where: str = ""
    """The folder that places are made in, or the URL of the Postgres server."""

    def place(self) -> str:
        """A new, empty place."""
        if self.backend != "postgres":
            return tempfile.mkdtemp(dir=self.where)
        import psycopg

        database = f"benchmark_{uuid4().hex}"
        with psycopg.connect(self.where, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database}")
        return urlsplit(self.where)._replace(path=f"/{database}").geturl()

    def ours(self, place: str) -> ChatHistory:
        options: dict[str, Any] = {"backend": self.backend, "durability": self.durability}
        if self.backend == "postgres":
            return open_history(options | {"url": place})
        key = {"json": "storage_path", "sqlite": "db_path"}[self.backend]
        return open_history(options | {key: str(Path(place, "ours"))})

    def floor(self, place: str, *, first: int = 0) -> Floor:
        if self.backend == "postgres":
            return PostgresFloor(place, first=first)
        if self.backend == "json":
            return FileFloor(Path(place, "floor"), first=first)
        return SQLiteFloor(
            Path(place, "floor"), synchronous={"full": "FULL"}.get(self.durability, "NORMAL"), first=first
        )


@contextmanager
def stores(names: list[str]) -> Iterator[list[Store]]:
    """The named stores, in a folder that is removed afterwards, and with a Postgres server if one of them needs it."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, _server("postgres" in names) as server:
        every = [
            Store("json", "json", where=folder),
            Store("sqlite", "sqlite", where=folder),
            Store("sqlite relaxed", "sqlite", "relaxed", where=folder),
            Store("postgres", "postgres", where=server),
        ]
        yield [store for store in every if store.name in names]


@contextmanager
def _server(needed: bool) -> Iterator[str]:
    """The server that the tests use: one that the environment names, else one that is started."""
    sys.path.append(str(Path(__file__).parents[1]))
    from conftest import SERVER, remove_postgres, start_postgres

    if not needed or SERVER in os.environ:
        yield os.environ.get(SERVER, "")
        return
    server = start_postgres()
    try:
        yield server.get_uri()
    finally:
        remove_postgres(server)

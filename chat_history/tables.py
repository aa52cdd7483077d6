"""A database's tables, looked at and migrated without opening a history, which would bring them up to date first."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from .backends.postgres import PostgresBackend, quoted
from .backends.postgres_connections import Connections
from .backends.sqlite import SQLiteBackend
from .backends.sqlite_file import SQLiteFile, real_path
from .config import Choice
from .migrations.runner import Plan, Step, migrate, plan

__all__ = ["Tables"]

T = TypeVar("T")


class Tables:
    """The tables of the database, or of one schema in it, that a configuration chooses.

    `location`: where they are, for people; of Postgres it is known when they were visited.
    """

    def __init__(self, choice: Choice) -> None:
        self._options = choice.options
        self.dialect = "sqlite" if issubclass(choice.backend, SQLiteBackend) else "postgres"
        self.location = real_path(self._options["path"]) if self.dialect == "sqlite" else ""

    @staticmethod
    def of(choice: Choice) -> Tables | None:
        """The tables of this choice; None where there are none: in a JSON file, in memory, in another's backend."""
        has_tables = issubclass(choice.backend, SQLiteBackend | PostgresBackend)
        return Tables(choice) if has_tables and choice.options.get("path") != ":memory:" else None

    @property
    def prepares(self) -> bool | None:
        """Whether the store is opened to prepare statements, None: where no pooler stands between. Of Postgres only."""
        prepares: bool | None = self._options.get("prepare")
        return prepares

    def plan(self, to: str | None = None) -> Plan:
        """What `migrate` would do. Nothing is changed or created."""
        return self.visit(partial(plan, to=to), read_only=True)

    def migrate(self, to: str | None = None) -> list[Step]:
        """Bring the tables to a version, the newest unless given: the steps that ran or were taken back, in order."""
        return self.visit(partial(migrate, to=to))

    def visit(self, work: Callable[..., T], *, read_only: bool = False) -> T:
        """What a function returns that takes a connection and the keywords of `chat_history.migrations.runner.plan`."""
        options = self._options
        schema = options.get("schema")
        results: list[T] = []
        store = self._file(read_only) if self.dialect == "sqlite" else self._connections()

        def visit(connection: Any) -> None:
            if isinstance(store, Connections):
                self.location = store.location
            place = self.location if schema is None else f"{self.location}, schema {schema}"
            where = {"schema": None if schema is None else quoted(schema), "package": options.get("migrations")}
            results.append(work(connection, dialect=self.dialect, place=place, **where))

        try:
            store.open(visit)
        finally:
            store.close()
        return results[0]

    def _file(self, read_only: bool) -> SQLiteFile:
        path = self.location if os.path.exists(self.location) or not read_only else ":memory:"
        timeout = self._options.get("timeout", 30.0)
        return SQLiteFile(path, is_full=True, timeout=timeout, read_only=read_only)

    def _connections(self) -> Connections:
        conninfo, timeout = self._options.get("conninfo", ""), self._options.get("timeout", 30.0)
        return Connections(conninfo, pool=None, least=1, most=1, timeout=timeout, prepare=self.prepares)

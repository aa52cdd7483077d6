"""A foreign database, SQLite or Postgres, as one unchanging picture of it that is only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from chat_history.errors import (
    ConfigError,
    DamagedStoreError,
    InvalidArgumentError,
    StorageError,
    StoreBusyError,
    StoreUnavailableError,
)
from chat_history.settings import is_torn

if TYPE_CHECKING:
    import psycopg

__all__ = ["Database", "Table", "open_postgres", "open_sqlite"]

PAGE = 256
"""Rows that Postgres sends at a time."""


class Table(NamedTuple):
    """A table, and what it is called in a statement."""

    schema: str
    name: str
    columns: frozenset[str]

    @property
    def sql(self) -> str:
        """The name, quoted, with its schema."""
        return ".".join('"' + part.replace('"', '""') + '"' for part in (self.schema, self.name) if part)


class _Connection(Protocol):
    def tables(self) -> Iterator[tuple[str, str, str]]:
        """(schema, table, column) of everything that can be read."""

    def rows(self, sql: str, values: tuple[object, ...]) -> Iterator[tuple[Any, ...]]:
        """What a SELECT gives, a part at a time."""


class Database:
    """Tables and rows. `name` is for people, and holds no password."""

    def __init__(self, name: str, connection: _Connection) -> None:
        self.name = name
        self._connection = connection
        columns: dict[tuple[str, str], set[str]] = {}
        for schema, table, column in connection.tables():
            columns.setdefault((schema, table), set()).add(column)
        self.tables = [Table(*key, frozenset(found)) for key, found in columns.items()]

    def rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """The rows of a SELECT with `?` for its values, read as they are asked for. Several may be read at a time."""
        return self._connection.rows(sql, values)

    def having(self, *columns: str) -> list[Table]:
        """The tables that have all of these columns."""
        return [table for table in self.tables if table.columns.issuperset(columns)]

    def one(self, named: str | None, what: str, *columns: str) -> Table:
        """The table with these columns, or of several the named one ("name" or "schema.name")."""
        found = self.having(*columns)
        if named is not None:
            found = [table for table in found if named in (table.name, f"{table.schema}.{table.name}")]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(repr(f"{table.schema}.{table.name}".lstrip(".")) for table in found)
            raise InvalidArgumentError(f"{self.name} has several tables of {what}: say which one, table= ({names})")
        of_name = f" {named!r}" if named is not None else ""
        raise InvalidArgumentError(
            f"{self.name} has no table{of_name} of {what}, which has the columns {', '.join(columns)}"
        )

    def chats(self, sql: str) -> Iterator[tuple[Any, Any, Iterator[tuple[Any, ...]]]]:
        """(id, time, rows) of each chat, of a SELECT that gives a chat's rows one after the other, those two first.

        All chats by one SELECT, since not every such table has an index by chats: asked for one by one, each of them
        would be looked for in the whole table.
        """
        for (chat_id, began), rows in groupby(self.rows(sql), key=itemgetter(0, 1)):
            yield chat_id, began, (row[2:] for row in rows)


# ---- SQLite


class _SQLite:
    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def tables(self) -> Iterator[tuple[str, str, str]]:
        sql = "SELECT '', m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'"
        yield from self.rows(sql, ())

    def rows(self, sql: str, values: tuple[object, ...]) -> Iterator[tuple[Any, ...]]:
        with _sqlite_errors(self._path):
            for row in self._connection.execute(sql, values):  # noqa: UP028 it would close the cursor, after the end
                yield row


@contextmanager
def open_sqlite(path: Path) -> Iterator[Database]:
    """The file as it is now, whoever writes to it meanwhile. Nothing is written to it, nor beside it."""
    with path.open("rb") as file:
        is_wal = file.read(20)[18:] == b"\2\2"
    # Whoever reads a file with a log makes the files of that log, and leaves them. One that nobody has open has none.
    is_closed = is_wal and not Path(f"{path}-wal").exists()
    seen = path.stat()
    mode = "immutable=1" if is_closed else "mode=ro"
    with _sqlite_errors(str(path)):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
    with closing(connection):
        with _sqlite_errors(str(path)):
            connection.execute("BEGIN")
        yield Database(str(path), _SQLite(str(path), connection))
    now = path.stat()
    if is_closed and (now.st_size, now.st_mtime_ns) != (seen.st_size, seen.st_mtime_ns):
        raise StoreBusyError(f"{path} was written to while it was read: import it again")


@contextmanager
def _sqlite_errors(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise StoreBusyError(f"{path}: another process holds it; nothing was changed there; try again") from error
        raise StorageError(f"{path} cannot be read: {error}") from error
    except sqlite3.Error as error:
        raise DamagedStoreError(f"{path} is damaged: {error}") from error


# ---- Postgres


class _Postgres:
    def __init__(self, name: str, connection: psycopg.Connection[Any]) -> None:
        self._name = name
        self._connection = connection
        self._cursors = 0

    def tables(self) -> Iterator[tuple[str, str, str]]:
        sql = (
            "SELECT table_schema, table_name, column_name FROM information_schema.columns "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 3"
        )
        yield from self.rows(sql, ())

    def rows(self, sql: str, values: tuple[object, ...]) -> Iterator[tuple[Any, ...]]:
        from datetime import datetime

        self._cursors += 1
        zone = self._connection.info.timezone
        statement = sql.replace("%", "%%").replace("?", "%s").encode()
        # A named cursor is the server's, which keeps what was not asked for yet.
        with _postgres_errors(self._name), self._connection.cursor(f"import_{self._cursors}") as cursor:
            cursor.itersize = PAGE
            cursor.execute(statement, values)
            for row in cursor:
                # A time without a zone is one of the server's.
                yield tuple(
                    value.replace(tzinfo=zone) if isinstance(value, datetime) and value.tzinfo is None else value
                    for value in row
                )


@contextmanager
def open_postgres(url: str) -> Iterator[Database]:
    """The database as it is now, whoever writes to it meanwhile. Nothing is written to it."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    settings: dict[str, Any] | None = None
    # Not chained: the driver's message quotes the URL, and its password with it.
    with suppress(psycopg.Error, UnicodeError):
        settings = dict(conninfo_to_dict(url))
    if settings is None or is_torn(url, settings):
        raise ConfigError(
            "the Postgres URL of the source cannot be read; percent-encode special characters in user and password, "
            "and leave out options that are not libpq's (a schema is named with the table: --table schema.name)"
        )
    name = f"the Postgres database {settings.get('dbname', '')!r}".replace(" ''", "")
    settings = {"connect_timeout": 10} | settings | {"client_encoding": "utf8"}
    with _postgres_errors(name):
        connection = psycopg.connect(**settings)
    with closing(connection):
        with _postgres_errors(name):
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield Database(name, _Postgres(name, connection))


@contextmanager
def _postgres_errors(name: str) -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.OperationalError as error:
        raise StoreUnavailableError(f"{name} cannot be reached: {error}") from error
    except psycopg.Error as error:
        raise StorageError(f"{name}: Postgres refused: {error}") from error

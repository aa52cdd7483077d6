"""A statement and its answer straight through libpq, for what is done most: a cursor costs three times as much.

Parameters and results are text, as Postgres reads and writes it, so nothing has to be looked up or converted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, cast

import psycopg
from psycopg import generators
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

__all__ = ["Connection", "OurConnection", "ask"]

Connection = psycopg.Connection[Any]

_DONE = (ExecStatus.TUPLES_OK.value, ExecStatus.COMMAND_OK.value)


class OurConnection(psycopg.Connection[Any]):
    """One that was opened here: in autocommit mode, and with the encoding UTF-8."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.names: dict[str, bytes] = {}
        """What statements were prepared as; b"" after the first time, as many connections ask something only once."""
        self._numbers = count()

    def prepare(self, statement: str) -> bytes:
        """The name that it was prepared as, b"" if it is not worth it."""
        if self.prepare_threshold is None:
            return b""
        if statement not in self.names:
            self.names[statement] = b""
            return b""
        name = b"chat_history_%d" % next(self._numbers)
        self.pgconn.send_prepare(name, statement.encode())
        self.answer()
        self.names[statement] = name
        return name

    def answer(self) -> PGresult:
        """What the server says to what was sent."""
        result: PGresult = self.wait(generators.execute(self.pgconn))[-1]
        if result.status not in _DONE:
            raise error_from_result(result)
        return result


def ask(connection: Connection, statement: str, parameters: Sequence[str | None] = ()) -> PGresult:
    """Execute a statement with parameters $1, $2, ..., each as text; the rows have text too."""
    if not isinstance(connection, OurConnection):
        return cast(PGresult, psycopg.RawCursor(connection).execute(statement.encode(), parameters).pgresult)
    values = [None if each is None else each.encode() for each in parameters]
    for value in values:
        if value is not None and b"\0" in value:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    name = connection.names.get(statement) or connection.prepare(statement)
    if name:
        connection.pgconn.send_query_prepared(name, values)
    else:
        connection.pgconn.send_query_params(statement.encode(), values)
    try:
        return connection.answer()
    except InvalidSqlStatementName:
        connection.names.clear()  # so that whoever asks again prepares it again
        raise

"""The connections of a Postgres store: opened, lent, replaced when they are lost, and what their errors mean."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from chat_history.errors import (
    ConfigError,
    DamagedStoreError,
    HistoryClosedError,
    StorageError,
    StoreBusyError,
    StoreUnavailableError,
)

from .postgres_opening import PLACE, REFUSED_OPTION, connect, location_of, place_of, query_of, settings_of
from .postgres_wire import Connection, OurConnection

__all__ = ["ATTEMPTS", "Connections"]

T = TypeVar("T")

ATTEMPTS = 5
"""How often work is begun, where its connection was lost or others stood in its way."""

_AGAIN = {"40001", "40P01"}
"""SQLSTATE: two transactions stood in each other's way, and this one was undone."""
_UNPREPARED = "26000"
"""Where a statement is not prepared any more, and so was not begun: psycopg lets its session forget all of them, ours
too, when it has undone a transaction."""
_BUSY = _AGAIN | {"53300", "55P03", "57014"}
_DAMAGED = {"XX001", "XX002"}
_DUPLICATE = "23505"
_READ_ONLY = "25006"
_UTF8 = {"UTF8", "UTF-8", "UNICODE"}
_OUTDATED = "RevalidateCachedQuery"
"""Where Postgres finds that a table is not as it was when a statement was prepared, and so has not begun it. The
SQLSTATE is that of much else."""


class Connections:
    """A pool of connections in autocommit mode: our own, or one that was given and stays open."""

    def __init__(
        self,
        conninfo: str,
        *,
        pool: ConnectionPool[Any] | None,
        least: int,
        most: int,
        timeout: float,
        prepare: bool | None,
    ) -> None:
        if pool is not None and not isinstance(pool, ConnectionPool):
            raise ConfigError(f"pool must be a psycopg_pool.ConnectionPool, not {type(pool).__name__}")
        self._is_given = pool is not None
        self._pool = pool
        self._sizes = max(least, 1), max(least, most, 1)
        self._timeout = timeout
        self._prepares = prepare
        self._settings = {} if pool else settings_of(conninfo, timeout)
        self._conninfo = conninfo
        self._closed = False
        self._borrowed: set[Connection] = set()
        """Those of a given pool that are not in autocommit mode otherwise."""
        self._first: Connection | None = None
        """The connection that the store was opened with. A pool is begun, which takes a while, when that is in use."""
        self._free: list[Connection] = []
        self._lent: WeakKeyDictionary[Connection, ConnectionPool[Any]] = WeakKeyDictionary()
        """From which pool, as long as somebody holds it: one who is interrupted may let go without giving it back."""
        self._given_back = 0
        """How often one was given back to a pool."""
        self._abandoned: list[object] = []
        """The parent's, kept because collecting them would close them."""
        self._lock = threading.Lock()
        self._place: dict[str, str] = {}
        self.location = location_of(self._settings)

    @property
    def url(self) -> str:
        """What such connections are made from again: the location and what else was given, without secrets."""
        if self._is_given:
            raise ConfigError("nothing but the program that made this pool can open it again; give a URL instead")
        secret = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar}
        given = conninfo_to_dict(self._conninfo)
        options = {name: value for name, value in given.items() if name not in secret.union(PLACE)}
        # All the hosts that were given, of which a connection leads to one.
        place = location_of(self._place | {name: given[name] for name in PLACE if given.get(name)})
        return place + ("&" if "?" in place else "?") * bool(options) + query_of(options)

    def open(self, prepare: Callable[[Connection], object]) -> None:
        """Connect, once, and prepare the database."""
        connection: Connection
        if self._is_given:
            connection = self._take()
            try:
                self._prepare(connection, prepare)
            finally:
                self._give_back(connection)
        else:
            # Not left to the pool, which would try again and again where the reason is plain.
            try:
                connection, self._settings = connect(self._settings, self._timeout, self._prepares)
            except psycopg.Error as error:
                raise self._explained(error) from error
            try:
                self._prepare(connection, prepare)
            except BaseException:
                connection.close()
                raise
            self._keep(connection)

    def _prepare(self, connection: Connection, prepare: Callable[[Connection], object]) -> None:
        self._place = place_of(connection)
        self.location = location_of(self._place)
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in (None, "UTF8"):
            raise StorageError(
                f"{self.location} has the encoding {encoding}, which cannot hold every text; create a database "
                "with ENCODING 'UTF8' for chat_history"
            )
        rows, threshold = connection.row_factory, connection.prepare_threshold
        connection.row_factory, connection.prepare_threshold = tuple_row, None  # nothing is asked twice
        try:
            prepare(connection)
        except psycopg.Error as error:
            raise self._explained(error, is_lost=connection.closed) from error
        finally:
            connection.row_factory, connection.prepare_threshold = rows, threshold

    @property
    def _most(self) -> int:
        """How many connections our own pool has at most, beside the first."""
        return max(self._sizes[1] - 1, 1)

    def _new_pool(self) -> ConnectionPool[Any]:
        return ConnectionPool(
            connection_class=OurConnection,
            kwargs=self._settings,
            min_size=self._sizes[0] - 1,
            max_size=self._most,
            num_workers=1,  # starting more threads costs more than connecting
            # It pauses longer after each attempt that failed; no call shall wait for that when the server is back.
            reconnect_timeout=max(self._timeout / 2, 1),
            open=True,
            name="chat_history",
        )

    def run(
        self,
        work: Callable[[Connection], T],
        settle: Callable[[Connection], T | None] | None = None,
        *,
        was_lost: bool = False,
    ) -> T:
        """Do work on a connection, and again on another where that was lost.

        settle: what a lost connection had done before it was lost, None for nothing; without it work may be done twice.
        was_lost: somebody began this work before, and nobody knows what came of it.
        """
        for left in reversed(range(ATTEMPTS)):
            connection = self._take()
            try:
                if was_lost and settle is not None:
                    done = settle(connection)
                    if done is not None:
                        return done
                return work(connection)
            except psycopg.Error as error:
                is_lost = connection.closed
                was_lost = was_lost or is_lost
                is_outdated = error.diag.source_function == _OUTDATED
                if is_outdated:
                    connection.close()  # and with it all that it has prepared
                # A duplicate after a loss: the statement that was thought lost has got through after all.
                got_through = was_lost and error.sqlstate == _DUPLICATE
                may_again = is_outdated or got_through or error.sqlstate in {*_AGAIN, _UNPREPARED}
                if not (left and (is_lost or may_again)):
                    raise self._explained(error, is_lost=is_lost) from error
            finally:
                self._give_back(connection)
            if is_lost and self._pool is not None:
                # The others were probably lost with it.
                self._pool.check()
        raise AssertionError

    def _take(self) -> Connection:
        if self._closed:
            raise HistoryClosedError(f"{self.location} was closed; open it again")
        with suppress(IndexError):
            return self._free.pop()
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool = self._pool or self._new_pool()
        given_back = self._given_back
        try:
            connection: Connection = pool.getconn(self._timeout)
        except PoolTimeout as error:
            raise self._none_came(pool, given_back) from error
        except PoolClosed as error:
            if pool is not self._pool:
                return self._take()
            raise HistoryClosedError(f"{self.location}: the pool of connections was closed") from error
        self._lent[connection] = pool
        # A text would be stored, and not be readable here when it comes back.
        encoding = connection.info.parameter_status("client_encoding")
        if encoding is not None and encoding.upper() not in _UTF8:  # poolers say it as they were told it
            self._give_back(connection)
            raise ConfigError(
                f"a connection of the pool has the client_encoding {encoding}, which cannot hold every text; make the "
                "pool with kwargs={'client_encoding': 'utf8'}"
            )
        if not connection.autocommit:
            connection.autocommit = True
            self._borrowed.add(connection)
        return connection

    def _give_back(self, connection: Connection) -> None:
        if connection in self._borrowed:
            self._borrowed.discard(connection)
            if _is_idle(connection):  # else the pool closes it
                connection.autocommit = False
        if connection is self._first:
            self._keep(connection)
        elif pool := self._lent.pop(connection, None):
            self._given_back += 1
            pool.putconn(connection)
        else:
            connection.close()

    def _keep(self, connection: Connection) -> None:
        # One who was interrupted between a statement and its answer leaves it to whoever is next, and so for ever.
        if not _is_idle(connection) or self._closed or self._sizes[1] == 1:
            self._first = None
            connection.close()
        else:
            self._first = connection
            self._free.append(connection)

    def _leave(self, pool: ConnectionPool[Any]) -> None:
        """Begin anew beside a pool that waits for connections which nobody has."""
        with self._lock:
            if self._pool is pool:
                self._pool = self._first = None
        pool.close()

    def close(self) -> None:
        """Close what was opened here. A second call is harmless."""
        self._closed = True
        if self._pool is not None and not self._is_given:
            self._pool.close()
        while self._free:
            self._free.pop().close()

    def forked(self) -> None:
        """Begin anew in a child process, which must not use its parent's connections, and has no threads of a pool."""
        self._lock = threading.Lock()
        self._borrowed.clear()
        self._lent = WeakKeyDictionary()
        if not self._is_given:
            self._abandoned += [self._pool, self._first]
            self._pool = self._first = None
            self._free.clear()

    # ---- errors

    def _none_came(self, pool: ConnectionPool[Any], given_back: int) -> StorageError:
        try:
            if not self._is_given:
                psycopg.connect(**self._settings).close()
        except psycopg.Error as error:
            return self._explained(error)
        if not self._is_given and len(self._lent) < self._most and self._given_back == given_back:
            self._leave(pool)
        return StoreBusyError(
            f"{self.location}: all connections of the pool were in use for more than {self._timeout:g} seconds, and "
            "nothing was done; try again, or allow more (max_connections)"
        )

    def _explained(self, error: psycopg.Error, *, is_lost: bool = True) -> StorageError:
        reason = str(error).strip() or type(error).__name__
        code = error.sqlstate
        if code in _BUSY:
            return StoreBusyError(
                f"{self.location}: others were in the way for too long, and nothing was written; try again ({reason})"
            )
        if code in _DAMAGED:
            return DamagedStoreError(f"{self.location}: the database is damaged: {reason}")
        if code == _READ_ONLY:
            return StorageError(f"{self.location} can only be read (a standby server?): {reason}")
        if REFUSED_OPTION in reason:
            reason += " (a pooler? leave out what it does not know, such as options)"
        if is_lost and isinstance(error, psycopg.OperationalError):
            return StoreUnavailableError(f"{self.location} cannot be reached: {reason}")
        return StorageError(f"{self.location}: Postgres refused: {reason}")


def _is_idle(connection: Connection) -> bool:
    return not connection.closed and connection.pgconn.transaction_status == pq.TransactionStatus.IDLE

"""A Postgres database: whether it can be reached, through what, and whether it keeps what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg

from chat_history.config import Choice
from chat_history.errors import StoreUnavailableError
from chat_history.tables import Tables

from .chats import AHEAD, examine_opened
from .findings import Finding, error, fine, warning
from .plans import examine_plan

__all__ = ["examine_postgres"]

ROUNDS = 5
"""How often two connections ask which session serves them."""
BACKEND = "SELECT pg_backend_pid()"
CLOCK = "SELECT clock_timestamp()"
SETTING = "SELECT current_setting(%s, true)"
STANDBY = "SELECT pg_is_in_recovery()"
RIGHTS = """
SELECT name, string_agg(priv, ', ' ORDER BY place)
FROM unnest(%s::text[]) AS name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p(priv, place)
WHERE NOT has_table_privilege(to_regclass(name)::oid, priv)
GROUP BY name ORDER BY name
"""
TABLES = ("chats", "content_uses", "contents", "message_grams", "messages")


def examine_postgres(choice: Choice, tables: Tables) -> Iterator[Finding]:
    """Every check of a Postgres database."""
    try:
        relaxed = choice.options.get("durability") == "relaxed"
        yield from tables.visit(partial(_server, tables=tables, is_full=not relaxed))
    except StoreUnavailableError as reason:
        if "startup parameter" not in str(reason):
            raise
        yield error("pooling", str(reason), "a pooler stands before the server: leave prepare out")
        return
    planned = tables.plan()
    yield from examine_plan(planned, tables.location)
    if planned.applied and not planned.up:
        yield from examine_opened(choice)


def _server(connection: Any, *, tables: Tables, is_full: bool, **where: Any) -> list[Finding]:
    found = [
        fine("server", f"{tables.location} is Postgres {connection.info.parameter_status('server_version')}"),
        _pooling(connection, tables),
        _clock(connection),
    ]
    return found + _rights(connection, where["schema"]) + _keeping(connection, is_full=is_full)


def _asked(connection: Any, statement: str, *parameters: Any) -> Any:
    """The one value that answers, None from a server that does not know the question."""
    try:
        return connection.execute(statement, parameters).fetchone()[0]
    except psycopg.Error:
        return None


def _rights(connection: Any, schema: str | None) -> list[Finding]:
    """What this role may not do with a table that is there: those of a later release are not of an earlier grant."""
    prefix = "" if schema is None else f"{schema}."
    missing = connection.execute(RIGHTS, [[f"{prefix}{table}" for table in TABLES]]).fetchall()
    if not missing:
        return []
    named = "; ".join(f"{table}: {rights}" for table, rights in missing)
    return [
        warning(
            "tables",
            f"the role {connection.info.user} lacks rights ({named}), and what needs them is refused",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON these tables to it, unless it shall only read",
        )
    ]


def _pooling(connection: Any, tables: Tables) -> Finding:
    """What stands between: a pooler makes up the process id that it tells when a connection begins.

    In transaction mode it lets one session serve two connections that are open at once, which no server does.
    """
    prepares = tables.prepares
    mode = "the store is opened " + ("as that needs" if prepares is None else f"with prepare={str(prepares).lower()}")
    ours: set[int] = set()
    theirs: set[int] = set()

    def compare(other: Any, **where: Any) -> None:
        for _ in range(ROUNDS):
            ours.add(_asked(connection, BACKEND))
            theirs.add(_asked(other, BACKEND))

    tables.visit(compare)
    if ours & theirs - {None}:
        if prepares:
            return warning(
                "pooling",
                f"a pooler in transaction mode stands before the server, and {mode}",
                "leave prepare out, unless the pooler knows prepared statements (PgBouncer 1.21 or later, with "
                "max_prepared_statements above 0)",
            )
        return fine("pooling", f"a pooler in transaction mode stands before the server, and {mode}")
    if ours - {None, connection.info.backend_pid}:
        return fine("pooling", f"a pooler seems to stand before the server, in session mode; {mode}")
    return fine("pooling", f"no pooler stands before the server; {mode}")


def _clock(connection: Any) -> Finding:
    before = datetime.now(UTC)
    theirs = _asked(connection, CLOCK)
    after = datetime.now(UTC)
    if theirs is None:
        return fine("clock", "the server does not tell its time")
    apart = max(before - theirs, theirs - after)
    if apart > AHEAD:
        return warning(
            "clock",
            f"the clock of this machine and that of the server are {apart} apart",
            "set both by NTP; the order of messages does not depend on them, but what is shown as their times does",
        )
    return fine("clock", "the clock of this machine agrees with that of the server")


def _keeping(connection: Any, *, is_full: bool) -> list[Finding]:
    """Whether the server takes writes, and keeps them in a power loss."""
    found = []
    if _asked(connection, STANDBY):
        found.append(warning("server", "the server is a standby, which can only be read", "name the primary server"))
    for name in ("fsync", "full_page_writes"):
        if _asked(connection, SETTING, name) == "off":
            found.append(
                error("server", f"the server has {name} = off, and may lose everything in a crash", f"set {name} = on")
            )
    # Left as it is: on may be less than what a standby is waited for by.
    if is_full and _asked(connection, SETTING, "synchronous_commit") == "off":
        found.append(
            warning(
                "server",
                "the server has synchronous_commit = off for this user, and may lose the last moments in a crash, "
                "which durability full promises to keep",
                "set synchronous_commit = on, or say durability relaxed",
            )
        )
    return found

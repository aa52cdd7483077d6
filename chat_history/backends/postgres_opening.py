"""What connections to Postgres are opened with, and the first of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from chat_history.errors import ConfigError

from .postgres_wire import OurConnection

__all__ = ["PLACE", "REFUSED_OPTION", "connect", "location_of", "place_of", "query_of", "settings_of"]

PLACE = ("user", "host", "port", "dbname")
LONGEST = 2**31 - 1
"""Milliseconds, of a timeout that Postgres or libpq takes."""
REFUSED_OPTION = "startup parameter"
"""What poolers say of options, which would be those of a session that serves many."""


def connect(settings: dict[str, Any], timeout: float, prepare: bool | None) -> tuple[OurConnection, dict[str, Any]]:
    """The first connection, and the settings for others like it.

    Where a pooler is seen to stand between, less is asked of it. prepare: whether statements are prepared, None: unless
    there is such a pooler.
    """
    plain = {**settings, "prepare_threshold": 0 if prepare else None}
    full = {**settings, "prepare_threshold": 0, "options": _options(settings, timeout)}
    if prepare is not False:
        try:
            connection = OurConnection.connect(**full)
        except psycopg.OperationalError as error:
            if REFUSED_OPTION not in str(error):
                raise
        else:
            if prepare is None and _is_pooled(connection):
                full["prepare_threshold"] = connection.prepare_threshold = None
            return connection, full
    return OurConnection.connect(**plain), plain


def settings_of(conninfo: str, timeout: float) -> dict[str, Any]:
    """What every connection is opened with, also where a pooler stands between."""
    try:
        settings: dict[str, Any] = dict(conninfo_to_dict(conninfo))
    except psycopg.ProgrammingError:
        # Not chained: the driver's message quotes the string, and its password with it.
        raise ConfigError(
            "the Postgres URL or connection string cannot be read; special characters in a user or password must be "
            "percent-encoded in a URL, and quoted in a connection string"
        ) from None
    settings.setdefault("connect_timeout", max(2, min(10, int(timeout))))
    settings.setdefault("tcp_user_timeout", _milliseconds(timeout))
    settings.setdefault("fallback_application_name", "chat_history")
    return settings | {"client_encoding": "utf8", "autocommit": True}


def _options(settings: Mapping[str, Any], timeout: float) -> str:
    options = settings.get("options") or os.environ.get("PGOPTIONS", "")
    return f"{options} -c lock_timeout={_milliseconds(timeout)}".strip()


def _milliseconds(timeout: float) -> int:
    return int(min(max(1, timeout * 1000), LONGEST))


def _is_pooled(connection: OurConnection) -> bool:
    """Whether what we are connected to is not the server's process that answers, but shares such among many."""
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def place_of(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Where a connection leads, as far as that is not libpq's own default."""
    # As `connection.info.get_parameters()` has it, which takes several times as long for all that nobody asks for here.
    return {
        name: option.val.decode()
        for option in connection.pgconn.info
        if (name := option.keyword.decode()) in PLACE and option.val not in (None, option.compiled)
    }


def location_of(parts: Mapping[str, Any]) -> str:
    """A URL without the password."""
    user, host, port, database = (str(parts.get(name) or "") for name in PLACE)
    where, query = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else ""), ""
    if host.startswith(("/", "@")) or "," in host:
        where, query = "", "?" + query_of({"host": host, "port": port} if port else {"host": host})
    return f"postgresql://{quote(user, safe='')}{'@' * bool(user)}{where}/{quote(database)}{query}"


def query_of(options: Mapping[str, Any]) -> str:
    return "&".join(f"{name}={quote(str(value), safe='/@,')}" for name, value in options.items())

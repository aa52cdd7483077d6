"""Bring a database's tables up to date, one recorded step at a time.

A step is a module `v{NNN}_{name}.py` with `VERSION`, `up(conn, *, dialect)` and `down(conn, *, dialect)`, where conn is
the driver's own connection and dialect "sqlite" or "postgres". The two may be `async def`: then they await the
connection's calls, and nothing else. Ours run first, then those of the integrator's package, recorded as `ext:NNN`. A
step and its record share one transaction, under a lock, so any number of processes may open the same empty database at
once. A step must leave the transaction to the runner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from inspect import iscoroutinefunction
from pkgutil import iter_modules
from typing import Any, NamedTuple

from chat_history.errors import ConfigError, NewerStoreError, StorageError

__all__ = ["Plan", "Step", "migrate", "plan", "steps", "undo"]

RECORDED = "SELECT version, name FROM {schema}schema_migrations"
RECORD = {
    "sqlite": "INSERT INTO schema_migrations (version, name, applied_at) VALUES (?, ?, ?)",
    "postgres": "INSERT INTO schema_migrations (version, name, applied_at) VALUES (%s, %s, %s)",
}
FORGET = {
    "sqlite": "DELETE FROM schema_migrations WHERE version = ?",
    "postgres": "DELETE FROM schema_migrations WHERE version = %s",
}
CREATE = (
    "CREATE TABLE IF NOT EXISTS schema_migrations (version TEXT PRIMARY KEY, name TEXT NOT NULL, applied_at {time})"
)
TIME = {"sqlite": "TEXT NOT NULL", "postgres": "TIMESTAMPTZ NOT NULL"}
BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgres": "BEGIN"}
LOCK = "LOCK TABLE schema_migrations IN SHARE ROW EXCLUSIVE MODE"
CREATE_SCHEMA = "CREATE SCHEMA IF NOT EXISTS {schema}"
USE_SCHEMA = "SET LOCAL search_path TO {schema}"
# Where statements that name no schema find our tables, or else would make them. Names are looked up in the catalogue,
# because to_regclass('schema.table') is an error for whoever may not use the schema, and the planner asks it of all.
HOME = """
SELECT quote_ident(COALESCE((
    SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = 'schema_migrations'
    WHERE c.oid = to_regclass('chats')
), current_schema()))
"""
USE_HOME = f"SELECT set_config('search_path', concat_ws(', ', ({HOME}), current_setting('search_path')), true)"

# Whose tables are these? A file is one application's; in a shared database only our own names matter.
FOREIGN = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'",
    "postgres": """
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.oid = to_regnamespace(COALESCE(%s, quote_ident(current_schema()))) AND c.relname IN ('chats', 'messages')
""",
}

MISSING = {"42P01", "3F000"}
"""SQLSTATE: no such table, no such schema."""
RACED = {"23505", "42P06", "42P07", "42710", "40001", "40P01", "XX000"}
"""SQLSTATE: somebody else created the same thing at the same moment, which `IF NOT EXISTS` does not see."""
ATTEMPTS = 20


class Step(NamedTuple):
    """One migration: the version it is recorded as, its name, and where its module is."""

    version: str
    name: str
    module: str


class Plan(NamedTuple):
    """What a database has, and what would bring it to a version: steps to run, and steps to take back, in order."""

    applied: tuple[Step, ...]
    up: tuple[Step, ...]
    down: tuple[Step, ...]


@cache
def steps(package: str | None = None) -> tuple[Step, ...]:
    """All steps in the order in which they run: ours, then those of the integrator's package."""
    ours = _steps_in(__package__ or "", "")
    return ours if package is None else ours + _steps_in(package, "ext:")


def migrate(
    conn: Any,
    *,
    dialect: str,
    place: str,
    package: str | None = None,
    schema: str | None = None,
    to: str | None = None,
) -> list[Step]:
    """Run the steps that this database still needs, and return them; one quick query if there are none.

    conn must be in autocommit mode. place says where this is, for errors. schema: a quoted Postgres schema, created if
    it is missing; where the search path has our tables otherwise, or its first. to: the last step that there shall be,
    "0" for none; later ones are taken back, the newest first. `NewerStoreError` if a newer release was here before,
    `StorageError` if another application was, `ConfigError` for an unknown step.
    """
    done: list[Step] = []
    wanted = _up_to(to, package)
    if _is_current(conn, schema, place, package, wanted):
        return done
    home = _home(conn, dialect, schema)
    for _ in range(len(steps(package)) + ATTEMPTS):
        recorded = _recorded(conn, home, place, package)
        if _extra(recorded, wanted, package, place):
            version = undo(conn, dialect=dialect, place=place, package=package, schema=schema)
            done += [step for step in steps(package) if step.version == version]
        elif _missing(recorded, wanted):
            done += _run_one(conn, dialect, place, package, schema, wanted)
        else:
            return done
    raise StorageError(f"{place}: others keep changing the tables; try again when they are done")


def plan(
    conn: Any,
    *,
    dialect: str,
    place: str,
    package: str | None = None,
    schema: str | None = None,
    to: str | None = None,
) -> Plan:
    """What `migrate` would do, found out without changing anything; the same errors."""
    home = _home(conn, dialect, schema)
    recorded = _recorded(conn, home, place, package)
    wanted = _up_to(to, package)
    if not recorded:
        _refuse_others(conn, dialect, place, home)
    known = {step.version: step for step in steps(package)}
    applied = tuple(known.get(version) or Step(version, recorded[version], "") for version in sorted(recorded))
    return Plan(applied, tuple(_missing(recorded, wanted)), tuple(_extra(recorded, wanted, package, place)))


def undo(conn: Any, *, dialect: str, place: str, package: str | None = None, schema: str | None = None) -> str | None:
    """Take back the newest step, and what it made with it: its version, None if there is none left."""
    with _transaction(conn, dialect, schema):
        recorded = _recorded(conn, None, place, package)
        for step in reversed(steps(package)):
            if step.version in recorded:
                _call(step, "down", conn, dialect)
                conn.execute(FORGET[dialect], (step.version,))
                return step.version
    return None


def _run_one(
    conn: Any, dialect: str, place: str, package: str | None, schema: str | None, wanted: tuple[Step, ...]
) -> list[Step]:
    """Run the first step that is missing, if nobody else did meanwhile."""
    try:
        # Asked first, because who may not create schemas can still use one that is there.
        if schema is not None and conn.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone()[0] is None:
            conn.execute(CREATE_SCHEMA.format(schema=schema))
        with _transaction(conn, dialect, schema):
            recorded = _recorded(conn, None, place, package)
            missing = _missing(recorded, wanted)
            if not missing:
                return []
            if not recorded:
                _refuse_others(conn, dialect, place, schema)
            step = missing[0]
            _call(step, "up", conn, dialect)
            if not _in_transaction(conn):
                raise ConfigError(f"migrations: {step.module} must leave the transaction to the runner")
            conn.execute(RECORD[dialect], (step.version, step.name, datetime.now(UTC).isoformat()))
            return [step]
    except Exception as error:
        if getattr(error, "sqlstate", None) not in RACED:
            raise
    return []


@contextmanager
def _transaction(conn: Any, dialect: str, schema: str | None) -> Iterator[None]:
    """A transaction in which nobody else migrates: SQLite has one writer, in Postgres the records are locked."""
    conn.execute(BEGIN[dialect])
    try:
        if schema is not None:
            conn.execute(USE_SCHEMA.format(schema=schema))
        elif dialect == "postgres":
            conn.execute(USE_HOME)
        conn.execute(CREATE.format(time=TIME[dialect]))
        if dialect == "postgres":
            conn.execute(LOCK)
        yield
        conn.execute("COMMIT")
    except BaseException:
        if _in_transaction(conn):
            conn.execute("ROLLBACK")
        raise


def _in_transaction(conn: Any) -> bool:
    if hasattr(conn, "in_transaction"):
        return bool(conn.in_transaction)
    return conn.info.transaction_status.name in ("INTRANS", "INERROR")


def _is_current(conn: Any, schema: str | None, place: str, package: str | None, wanted: tuple[Step, ...]) -> bool:
    try:
        recorded = _recorded(conn, schema, place, package)
    except StorageError:
        return False  # it may be another program's table, before which ours have their place in the search path
    return bool(recorded) and not _missing(recorded, wanted) and not _extra(recorded, wanted, package, place)


def _home(conn: Any, dialect: str, schema: str | None) -> str | None:
    """The schema that our tables are in, or will be."""
    if schema is not None or dialect != "postgres":
        return schema
    home: str | None = conn.execute(HOME).fetchone()[0]
    return home


def _recorded(conn: Any, schema: str | None, place: str, package: str | None) -> dict[str, str]:
    """The recorded steps by version; empty if there is no table of them yet. `NewerStoreError` for an unknown one."""
    try:
        recorded = dict(conn.execute(RECORDED.format(schema=f"{schema}." if schema else "")).fetchall())
    except Exception as error:
        if getattr(error, "sqlstate", None) in MISSING or "no such table" in str(error):
            return {}
        if getattr(error, "sqlstate", None) == "42703" or "no such column" in str(error):
            raise StorageError(_not_ours(place, ["schema_migrations"])) from error
        raise
    known = steps(package)
    versions = {step.version for step in known}
    for version in sorted(recorded):
        is_ours = not version.startswith("ext:")
        if version not in versions and (is_ours or package is not None):
            newest = [step.version for step in known if step.version.startswith("ext:") != is_ours]
            raise NewerStoreError(
                f"{place} was written by a newer release: its tables are at version {version}, and this release knows "
                f"them up to {newest[-1] if newest else 'none'}; upgrade {'agent-chat-history' if is_ours else package}"
            )
    return recorded


def _up_to(version: str | None, package: str | None) -> tuple[Step, ...]:
    """The steps up to this one."""
    known = steps(package)
    if version is None:
        return known
    versions = ["0", *(step.version for step in known)]
    if version not in versions:
        raise ConfigError(f"there is no version {version!r}; known are {', '.join(versions)}, where 0 is no tables")
    return known[: versions.index(version)]


def _missing(recorded: dict[str, str], wanted: tuple[Step, ...]) -> list[Step]:
    """The wanted steps that have not run."""
    return [step for step in wanted if step.version not in recorded]


def _extra(recorded: dict[str, str], wanted: tuple[Step, ...], package: str | None, place: str) -> list[Step]:
    """The steps after the wanted ones that have run, the newest first."""
    extra = [step for step in reversed(steps(package)[len(wanted) :]) if step.version in recorded]
    theirs = [version for version in sorted(recorded) if version.startswith("ext:")]
    if extra and theirs and package is None:
        raise ConfigError(
            f"{place} has steps of a package of your own ({', '.join(theirs)}), which go before ours are taken back; "
            "name it with the key migrations"
        )
    return extra


def _refuse_others(conn: Any, dialect: str, place: str, schema: str | None) -> None:
    found = conn.execute(FOREIGN[dialect], (schema,) if dialect == "postgres" else ()).fetchall()
    names = sorted({row[0] for row in found} - {"schema_migrations"})
    if names:
        raise StorageError(_not_ours(place, names))


def _not_ours(place: str, names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return (
        f"{place} already holds tables of another application ({shown}), and nothing was changed; "
        "use another file, database or schema for chat_history; `chat-history import` brings over what others keep"
    )


def _steps_in(package: str, prefix: str) -> tuple[Step, ...]:
    try:
        folders = import_module(package).__path__
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: what is no absolute name
        raise ConfigError(
            f"migrations: {package!r} is not a package that can be imported ({error}); "
            "name one with modules like v001_tables.py"
        ) from error
    found = [
        Step(prefix + match[1], match[2], f"{package}.{module.name}")
        for module in iter_modules(folders)
        if (match := re.fullmatch(r"v(\d{3,})_(\w+)", module.name))
    ]
    return tuple(sorted(found))


def _module(step: Step) -> Any:
    module = import_module(step.module)
    number = int(step.version.removeprefix("ext:"))
    if int(getattr(module, "VERSION", -1)) != number:
        raise ConfigError(f"migrations: {step.module} must say VERSION = {number}, as its name does")
    return module


def _call(step: Step, name: str, conn: Any, dialect: str) -> None:
    function = getattr(_module(step), name, None)
    if function is None:
        raise ConfigError(f"migrations: {step.module} has no {name}(conn, *, dialect)")
    if not iscoroutinefunction(function):
        function(conn, dialect=dialect)
        return
    running = function(_Awaited(conn), dialect=dialect)
    try:
        running.send(None)
    except StopIteration:
        return
    running.close()
    raise ConfigError(f"migrations: {step.module} awaits something else than calls of its connection; leave that out")


class _Awaited:
    """A connection, or a cursor, whose calls are awaited. They are done at once, so no event loop is needed."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._driver, name)
        if not callable(member):
            return member

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = member(*args, **kwargs)
            return _Awaited(result) if hasattr(result, "fetchall") else result

        return call

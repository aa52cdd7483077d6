"""Tables are made once, step by step, whoever opens first, and a newer release's are left alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from stores import SPAWN, Store, on

from chat_history import ChatHistory
from chat_history.errors import ConfigError, NewerStoreError, StorageError
from chat_history.migrations.runner import Step, migrate, plan, steps, undo

HELLO = {"role": "user", "content": "Hello!"}
TABLES = {"sqlite": ":memory:", "postgres": ""}
OURS = [step.version for step in steps()]

STEP = """
VERSION = {version}

def up(conn, *, dialect):
    conn.execute("CREATE TABLE {table} (id INTEGER)")

def down(conn, *, dialect):
    conn.execute("DROP TABLE {table}")
"""


class Database:
    """A connection of the driver's, to a database or a schema of its own."""

    def __init__(self, dialect: str, connection: Any, schema: str | None = None) -> None:
        self.dialect = dialect
        self.connection = connection
        self.schema = schema

    def migrate(self, package: str | None = None) -> None:
        migrate(self.connection, dialect=self.dialect, place="here", package=package, schema=self.schema)

    def undo(self, package: str | None = None) -> str | None:
        return undo(self.connection, dialect=self.dialect, place="here", package=package, schema=self.schema)

    def rows(self, statement: str) -> list[Any]:
        return sorted(self.connection.execute(statement).fetchall())

    def tables(self) -> set[str]:
        if self.dialect == "sqlite":
            return {name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {name for (name,) in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")}

    def versions(self) -> list[str]:
        return [version for (version,) in self.rows("SELECT version FROM schema_migrations")]


@contextmanager
def sqlite_database() -> Iterator[Database]:
    import sqlite3

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield Database("sqlite", connection)


@contextmanager
def postgres_database(url: str) -> Iterator[Database]:
    import psycopg

    schema = f'"s{uuid4().hex}"'
    with psycopg.connect(url, autocommit=True, options=f"-c search_path={schema}") as connection:
        yield Database("postgres", connection, schema)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    made = postgres_database(request.getfixturevalue("postgres_url")) if request.param == "postgres" else None
    with made or sqlite_database() as database:
        yield database


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Makes a package of an integrator's steps: package(v001_orders="...") gives its name."""
    name = f"steps_{uuid4().hex}"
    (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def make(**modules: str) -> str:
        (tmp_path / name / "__init__.py").touch()
        for module, text in modules.items():
            (tmp_path / name / f"{module}.py").write_text(text)
        steps.cache_clear()
        return name

    yield make
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]
    steps.cache_clear()


def test_steps_are_recorded_with_what_they_made(database: Database) -> None:
    database.migrate()
    assert database.tables() >= {"chats", "messages", "schema_migrations"}
    recorded = database.rows("SELECT version, name FROM schema_migrations ORDER BY version")
    assert recorded == [(step.version, step.name) for step in steps()]
    database.migrate()
    assert database.versions() == OURS


def test_what_was_made_can_be_taken_back(database: Database) -> None:
    database.migrate()
    made = database.tables()
    assert [database.undo() for _ in OURS] == OURS[::-1]
    assert database.tables() == {"schema_migrations"}
    assert database.undo() is None
    database.migrate()
    assert database.tables() == made


@pytest.fixture
def shadowed(postgres_url: str) -> Iterator[tuple[Database, str]]:
    """A database, and the schema that its search path begins with, which is not there yet."""
    import psycopg

    first, second = f"s{uuid4().hex}", f"s{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True, options=f"-c search_path={first},{second}") as connection:
        connection.execute(f"CREATE SCHEMA {second}")
        yield Database("postgres", connection), first


def test_tables_stay_where_they_are_when_the_search_path_gets_another_first(
    shadowed: tuple[Database, str], package: Callable[..., str]
) -> None:
    database, first = shadowed
    where: dict[str, Any] = {"dialect": "postgres", "place": "here"}
    migrate(database.connection, **where, to="002")
    database.connection.execute(f"CREATE SCHEMA {first}")
    assert plan(database.connection, **where).up == steps()[2:]
    name = package(v001_orders=STEP.format(version=1, table="orders"))
    database.migrate(name)
    assert database.versions() == [*OURS, "ext:001"]
    assert database.undo(name) == "ext:001"
    assert migrate(database.connection, **where, to="0") == list(reversed(steps()))
    assert database.tables() == set()


def test_who_is_no_superuser_makes_the_tables_and_takes_them_back(
    shadowed: tuple[Database, str], package: Callable[..., str]
) -> None:
    database, first = shadowed
    role = f"owner_{uuid4().hex}"
    database.connection.execute(f"CREATE ROLE {role}")
    try:
        database.connection.execute(f"CREATE SCHEMA {first} AUTHORIZATION {role}")
        database.connection.execute(f"SET ROLE {role}")
        name = package(v001_orders=STEP.format(version=1, table="orders"))
        database.migrate(name)
        assert database.versions() == [*OURS, "ext:001"]
        assert not plan(database.connection, dialect="postgres", place="here", package=name).up
        migrate(database.connection, dialect="postgres", place="here", package=name, to="0")
        assert database.tables() == {"schema_migrations"}
    finally:
        database.connection.execute("RESET ROLE")
        database.connection.execute(f"DROP OWNED BY {role}")
        database.connection.execute(f"DROP ROLE {role}")


def test_records_of_another_program_further_back_are_left_alone(shadowed: tuple[Database, str]) -> None:
    database, first = shadowed
    database.connection.execute("CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean)")
    database.connection.execute(f"CREATE SCHEMA {first}")
    assert plan(database.connection, dialect="postgres", place="here").up == steps()
    database.migrate()
    assert database.tables() >= {"chats", "messages", "schema_migrations"}
    assert database.versions() == OURS


def test_a_plan_tells_what_would_run_and_changes_nothing(database: Database, package: Callable[..., str]) -> None:
    where: dict[str, Any] = {"dialect": database.dialect, "place": "here", "schema": database.schema}
    found = plan(database.connection, **where)
    assert (found.applied, found.up, found.down) == ((), steps(), ())
    assert database.tables() == set()
    name = package(v001_orders=STEP.format(version=1, table="orders"))
    database.migrate(name)
    found = plan(database.connection, **where, package=name, to="001")
    assert (found.applied, found.up) == (steps(name), ())
    assert [step.version for step in found.down] == [step.version for step in reversed(steps(name)[1:])]
    assert "orders" in database.tables()


def test_a_database_goes_to_a_version_forward_and_back(database: Database, package: Callable[..., str]) -> None:
    name = package(
        v001_orders=STEP.format(version=1, table="orders"), v002_invoices=STEP.format(version=2, table="invoices")
    )
    where: dict[str, Any] = {"dialect": database.dialect, "place": "here", "schema": database.schema, "package": name}
    went = migrate(database.connection, **where, to="ext:001")
    assert went == list(steps(name)[:-1])
    assert "invoices" not in database.tables()
    assert [step.version for step in migrate(database.connection, **where)] == ["ext:002"]
    back = migrate(database.connection, **where, to="0")
    assert back == list(reversed(steps(name)))
    assert database.tables() == {"schema_migrations"}


def test_a_step_that_has_no_way_back_says_so_and_nothing_is_undone(
    database: Database, package: Callable[..., str]
) -> None:
    text = STEP.format(version=1, table="orders")
    name = package(v001_orders=text[: text.index("def down")])
    database.migrate(name)
    with pytest.raises(ConfigError, match=r"v001_orders has no down\("):
        database.undo(name)
    assert database.versions()[-1] == "ext:001"
    assert "orders" in database.tables()


def test_a_newer_releases_step_is_not_left_without_ours_below_it(database: Database) -> None:
    database.migrate()
    database.connection.execute("INSERT INTO schema_migrations VALUES ('900', 'more', '2027-01-01')")
    with pytest.raises(NewerStoreError):
        database.undo()
    assert "chats" in database.tables()


def test_an_up_to_date_database_costs_one_query(database: Database) -> None:
    database.migrate()
    asked = []

    class Counting:
        def execute(self, *arguments: Any) -> Any:
            asked.append(arguments[0])
            return database.connection.execute(*arguments)

    migrate(Counting(), dialect=database.dialect, place="here", schema=database.schema)
    assert len(asked) == 1
    assert asked[0].startswith("SELECT")


def test_an_integrators_steps_come_after_ours(database: Database, package: Callable[..., str]) -> None:
    database.migrate()
    name = package(
        v002_more=STEP.format(version=2, table="more"),
        v001_orders=STEP.format(version="'001'", table="orders"),
        notes="raise RuntimeError('not a step')",
    )
    database.migrate(name)
    assert database.versions() == [*OURS, "ext:001", "ext:002"]
    assert database.tables() >= {"chats", "messages", "schema_migrations", "orders", "more"}
    database.migrate()
    assert [database.undo(name) for _ in range(len(OURS) + 3)] == ["ext:002", "ext:001", *OURS[::-1], None]
    assert database.tables() == {"schema_migrations"}


def test_a_step_that_fails_leaves_nothing_of_itself(database: Database, package: Callable[..., str]) -> None:
    failing = STEP.format(version=2, table="more").replace("\n\ndef down", "\n    raise RuntimeError('no')\n\ndef down")
    name = package(v001_orders=STEP.format(version=1, table="orders"), v002_more=failing)
    with pytest.raises(RuntimeError, match="no"):
        database.migrate(name)
    assert database.versions() == [*OURS, "ext:001"]
    assert "orders" in database.tables()
    assert "more" not in database.tables()


ASYNC_STEP = """
VERSION = "001"

async def up(conn, *, dialect):
    await conn.execute("CREATE TABLE orders (id INTEGER)")
    await conn.execute("INSERT INTO orders VALUES (7)")
    cursor = await conn.execute("SELECT id FROM orders")
    rows = await cursor.fetchall()
    assert rows[0][0] == 7 and cursor.description[0][0] == "id"

async def down(conn, *, dialect):
    await conn.execute("DROP TABLE orders")
"""


def test_a_step_may_be_async_and_await_its_connection(database: Database, package: Callable[..., str]) -> None:
    name = package(v001_orders=ASYNC_STEP)
    database.migrate(name)
    assert database.versions() == [*OURS, "ext:001"]
    assert database.rows("SELECT id FROM orders") == [(7,)]
    assert database.undo(name) == "ext:001"
    assert "orders" not in database.tables()


def test_a_step_that_awaits_something_else_is_refused(database: Database, package: Callable[..., str]) -> None:
    waiting = ASYNC_STEP.replace("    cursor =", "    import asyncio\n    await asyncio.sleep(0)\n    cursor =")
    with pytest.raises(ConfigError, match="v001_orders awaits something else"):
        database.migrate(package(v001_orders=waiting))
    assert database.versions() == OURS
    assert "orders" not in database.tables()


@pytest.mark.parametrize("ending", ["conn.commit()", "conn.execute('COMMIT')"])
def test_a_step_may_not_end_the_transaction(database: Database, package: Callable[..., str], ending: str) -> None:
    text = STEP.format(version=1, table="orders").replace("\n\ndef down", f"\n    {ending}\n\ndef down")
    with pytest.raises(ConfigError, match="leave the transaction"):
        database.migrate(package(v001_orders=text))


def test_a_package_that_is_not_there_is_an_error_before_anything_is_made(database: Database) -> None:
    with pytest.raises(ConfigError, match="no_such_package"):
        database.migrate("no_such_package")
    assert database.tables() == set()


def test_a_step_must_say_the_version_of_its_name(database: Database, package: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="VERSION = 1"):
        database.migrate(package(v001_orders=STEP.format(version=7, table="orders")))


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_newer_releases_database_is_refused_with_both_versions(
    database: Database, package: Callable[..., str], is_ours: bool
) -> None:
    name = package(v001_orders=STEP.format(version=1, table="orders"))
    database.migrate(name)
    newer = "999" if is_ours else "ext:002"
    database.connection.execute(f"INSERT INTO schema_migrations VALUES ('{newer}', 'more', '2027-01-01')")
    database.connection.execute("DELETE FROM schema_migrations WHERE version = 'ext:001'")  # one that is to be run
    database.connection.execute("DROP TABLE orders")
    before = database.tables(), database.versions()
    with pytest.raises(NewerStoreError) as caught:
        database.migrate(name)
    assert (database.tables(), database.versions()) == before
    assert f"version {newer}" in str(caught.value)
    assert (OURS[-1] if is_ours else "ext:001") in str(caught.value)
    assert ("agent-chat-history" if is_ours else name) in str(caught.value)


@pytest.mark.parametrize("table", ["chats (chat_id TEXT)", "messages (id INTEGER)", "schema_migrations (version TEXT)"])
def test_another_applications_tables_are_left_alone(database: Database, table: str) -> None:
    if database.schema:
        database.connection.execute(f"CREATE SCHEMA {database.schema}")
    database.connection.execute(f"CREATE TABLE {table}")
    before = database.tables()
    with pytest.raises(StorageError, match="another application"):
        database.migrate()
    assert database.tables() == before


def test_in_a_shared_database_other_tables_are_no_hindrance(postgres_url: str) -> None:
    with postgres_database(postgres_url) as database:
        database.connection.execute(f"CREATE SCHEMA {database.schema}")
        database.connection.execute("CREATE TABLE invoices (id INTEGER)")
        database.migrate()
        assert database.tables() >= {"chats", "messages", "schema_migrations", "invoices"}


def test_steps_are_ordered_by_number() -> None:
    found = steps()
    assert list(found) == sorted(found)
    assert found[0] == Step("001", "initial", "chat_history.migrations.v001_initial")


# ---- many at once

meeting: Any


def arrive(barrier: Any) -> None:
    global meeting
    import chat_history.backends.postgres
    import chat_history.backends.sqlite  # noqa: F401

    meeting = barrier


def open_and_write(store: Store) -> int:
    meeting.wait(60)
    with ChatHistory(store.backend()) as history:
        history.add_message("c", HELLO)
        return history.get_message_count("c")


@on("sqlite", "postgres")
def test_processes_that_open_an_empty_store_at_once_all_succeed(store: Store, tmp_path: Path) -> None:
    barrier = SPAWN.Barrier(8)
    with ProcessPoolExecutor(8, SPAWN, initializer=arrive, initargs=(barrier,)) as pool:
        for number in range(3):
            fresh = store._replace(
                **{"place": str(tmp_path / f"{number}.db")} if store.kind == "sqlite" else {"schema": f"s{uuid4().hex}"}
            )
            counts = [each.result(120) for each in [pool.submit(open_and_write, fresh) for _ in range(8)]]
            assert max(counts) == 8

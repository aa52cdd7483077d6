"""`chat-history migrate`: tables go to a version, and nothing is destroyed that was not meant."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from command import in_schema, invoke, printed, run, told

from chat_history import open_history
from chat_history.config import choose
from chat_history.migrations.runner import Plan, steps
from chat_history.tables import Tables

pytestmark = pytest.mark.usefixtures("empty_place")

HELLO = {"role": "user", "content": "Hello!"}
OURS = [step.version for step in steps()]
STEP = """
VERSION = {version}

def up(conn, *, dialect):
    conn.execute("CREATE TABLE {table} (id INTEGER)")

def down(conn, *, dialect):
    conn.execute("DROP TABLE {table}")
"""


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a database that has no tables yet."""
    if request.param == "postgres":
        return in_schema(str(request.getfixturevalue("postgres_url")))
    return "sqlite:///chats.db"


@pytest.fixture
def package(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An integrator's package of two steps."""
    name = f"steps_{uuid4().hex}"
    (empty_place / name).mkdir()
    (empty_place / name / "__init__.py").touch()
    for version, table in ((1, "orders"), (2, "invoices")):
        (empty_place / name / f"v00{version}_{table}.py").write_text(STEP.format(version=version, table=table))
    monkeypatch.syspath_prepend(empty_place)
    yield name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]
    steps.cache_clear()


def plan(url: str) -> Plan:
    tables = Tables.of(choose(url))
    assert tables is not None
    return tables.plan()


def versions(url: str) -> list[str]:
    return [step.version for step in plan(url).applied]


def with_option(url: str, name: str, value: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{name}={value}"


def test_a_dry_run_says_what_would_run_and_makes_nothing(database: str) -> None:
    shown = told("migrate", "--dry-run", "--url", database)
    assert shown.splitlines()[0] == "would run 001 initial"
    assert shown.rstrip().endswith("has no tables")
    (found,) = printed("migrate", "--dry-run", "--url", database)
    assert [step["version"] for step in found["steps"]] == OURS
    assert {step["direction"] for step in found["steps"]} == {"up"}
    assert found["applied"] == []
    assert found["dry_run"] is True
    assert versions(database) == []
    assert list(Path().iterdir()) == []


def test_what_is_missing_runs_once(database: str) -> None:
    assert told("migrate", "--url", database).splitlines()[0] == "ran 001 initial"
    (found,) = printed("migrate", "--url", database)
    assert found["steps"] == []
    assert [step["version"] for step in found["applied"]] == OURS
    with open_history(database) as history:
        history.add_message("c", HELLO)
        assert found["location"] == history.location


def test_nothing_is_taken_back_without_a_yes(database: str) -> None:
    with open_history(database) as history:
        history.add_message("c", HELLO)
    refused = invoke("migrate", "--to", "0", "--url", database)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "every chat" in refused.stderr
    assert "--yes" in refused.stderr
    assert "would take back 001 initial" in told("migrate", "--to", "0", "--dry-run", "--url", database)
    with open_history(database) as history:
        assert history.get_chat_history("c") == [HELLO]


def test_with_a_yes_everything_is_taken_back_and_can_be_made_again(database: str) -> None:
    with open_history(database) as history:
        history.add_message("c", HELLO)
    (found,) = printed("migrate", "--to", "0", "--yes", "--url", database)
    assert [(step["version"], step["direction"]) for step in found["steps"]] == [(each, "down") for each in OURS[::-1]]
    assert found["applied"] == []
    assert "nothing" not in told("migrate", "--url", database)
    with open_history(database) as history:
        assert history.get_all_chat_ids() == []
        history.add_message("c", HELLO)


def test_an_integrators_steps_go_forward_and_back_and_chats_stay(database: str, package: str) -> None:
    with open_history(database) as history:
        history.add_message("c", HELLO)
    url = with_option(database, "migrations", package)
    assert told("migrate", "--to", "ext:001", "--url", url).splitlines()[0] == "ran ext:001 orders"
    assert told("migrate", "--url", url).splitlines()[0] == "ran ext:002 invoices"
    assert versions(url) == [*OURS, "ext:001", "ext:002"]
    back = told("migrate", "--to", OURS[-1], "--yes", "--url", url).splitlines()
    assert back[:2] == ["took back ext:002 invoices", "took back ext:001 orders"]
    assert versions(url) == OURS
    with open_history(url) as history:
        assert history.get_chat_history("c") == [HELLO]
    assert versions(url) == [*OURS, "ext:001", "ext:002"]


def test_the_package_may_be_configured_in_a_file(package: str) -> None:
    Path("chat_history.toml").write_text(f'backend = "sqlite"\ndb_path = "chats.db"\nmigrations = "{package}"\n')
    done = run("migrate")
    assert done.returncode == 0, done.stderr
    assert "ran ext:002 invoices" in done.stdout


def test_ours_are_not_taken_back_under_a_package_that_is_not_named(database: str, package: str) -> None:
    told("migrate", "--url", with_option(database, "migrations", package))
    refused = invoke("migrate", "--to", "0", "--yes", "--url", database)
    assert refused.exit_code == 1
    assert "ext:001, ext:002" in refused.stderr
    assert versions(database) == [*OURS, "ext:001", "ext:002"]


def test_an_unknown_version_is_refused_with_those_that_are_known(database: str) -> None:
    refused = invoke("migrate", "--to", "999", "--url", database)
    assert refused.exit_code == 1
    assert "0, 001" in refused.stderr


@pytest.mark.parametrize("arguments", [[], ["--to", "0", "--yes"], ["--dry-run"]])
def test_a_newer_releases_database_is_refused_with_both_versions(database: str, arguments: list[str]) -> None:
    told("migrate", "--url", database)
    record_newer(database)
    refused = invoke("migrate", *arguments, "--url", database)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "version 900" in refused.stderr
    assert f"up to {OURS[-1]}" in refused.stderr
    opened = invoke("list", "--url", database)
    assert opened.exit_code == 1
    assert "version 900" in opened.stderr


@pytest.mark.parametrize(("url", "name"), [("chats.json", "a JSON file"), ("memory:", "a history in memory")])
def test_what_has_no_tables_needs_no_migration(url: str, name: str) -> None:
    assert told("migrate", "--url", url) == f"{name} has no tables: there is nothing to migrate\n"
    assert printed("migrate", "--url", url)[0]["steps"] == []
    refused = invoke("migrate", "--to", "0", "--yes", "--url", url)
    assert (refused.exit_code, name in refused.stderr) == (1, True)
    assert list(Path().iterdir()) == []


def test_another_applications_database_is_left_alone() -> None:
    import sqlite3

    with closing(sqlite3.connect("theirs.db")) as connection:
        connection.execute("CREATE TABLE chats (id INTEGER)")
    before = Path("theirs.db").read_bytes()
    for arguments in ([], ["--dry-run"]):
        refused = invoke("migrate", *arguments, "--url", "theirs.db")
        assert (refused.exit_code, "another application" in refused.stderr) == (1, True)
    assert Path("theirs.db").read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["theirs.db"]


def test_a_server_that_is_not_there_is_one_plain_line() -> None:
    refused = invoke("migrate", "--url", "postgresql://user:hunter2@127.0.0.1:1/d?timeout=2")
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "hunter2" not in refused.output


def record_newer(url: str) -> None:
    """Pretend that a later release has been here."""
    tables = Tables.of(choose(url))
    assert tables is not None

    def record(connection: Any, *, schema: str | None, **where: Any) -> None:
        table = f"{schema}.schema_migrations" if schema else "schema_migrations"
        connection.execute(f"INSERT INTO {table} VALUES ('900', 'later', '2030-01-01 00:00:00+00:00')")

    tables.visit(record)

"""Postgres as large installations have it: behind a pooler, with replicas, and with tables that are cut up by chat."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import servers
from conftest import remove_postgres, start_postgres
from psycopg import sql
from psycopg_pool import ConnectionPool
from stores import FORGET, PARTITION, Store

import chat_history
from chat_history import ChatHistory
from chat_history.backends import postgres
from chat_history.backends.postgres import PostgresBackend
from chat_history.errors import StorageError, VersionConflictError
from chat_history.testing import check_chat, say

TABLES = ("chats", "messages", "message_grams")
PER_OWNER = ("contents", "content_uses")
"""Tables whose keys hold `owner_key` and not `chat_key`."""
VOLATILE = {"pg_logical_emit_message", "set_config"}
"""The volatile functions that docs/backends.md explains. Neither gives a value that is stored."""


@pytest.fixture
def schema() -> str:
    return f"s{uuid4().hex}"


@pytest.fixture
def other(postgres_url: str, schema: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the store's."""
    with psycopg.connect(postgres_url, autocommit=True, options=f"-c search_path={schema}") as connection:
        yield connection


# ---- poolers


def prepared(history: ChatHistory) -> int:
    """How many statements a session has prepared after some work."""
    for number in range(5):
        history.add_message("c", say("user", str(number)))
        history.get_chat_history("c")
    connection = history._backend()._connections._take()  # type: ignore[attr-defined]
    (count,) = connection.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False).fetchone()
    history._backend()._connections._give_back(connection)  # type: ignore[attr-defined]
    return count


def test_a_server_without_a_pooler_prepares_statements(postgres_url: str, schema: str) -> None:
    with ChatHistory(PostgresBackend(postgres_url, schema=schema)) as history:
        assert prepared(history) > 0


def test_a_pooler_that_refuses_options_is_noticed(pooled_url: str, schema: str) -> None:
    with ChatHistory(PostgresBackend(pooled_url, schema=schema)) as history:
        assert prepared(history) == 0
        assert history.get_message_count("c") == 5


def test_a_pooler_that_ignores_options_is_noticed(postgres_url: str, schema: str) -> None:
    with (
        servers.pgbouncer(postgres_url, "ignore_startup_parameters = options") as url,
        ChatHistory(PostgresBackend(url, schema=schema)) as history,
    ):
        assert prepared(history) == 0
        assert history.get_message_count("c") == 5


def test_a_pool_that_prepares_nothing_is_used_behind_a_pooler(pooled_url: str, schema: str) -> None:
    with (
        ConnectionPool(pooled_url, kwargs={"prepare_threshold": None}, min_size=2, open=True) as pool,
        ChatHistory(PostgresBackend(pool=pool, schema=schema)) as history,
    ):
        assert prepared(history) == 0
        assert history.get_message_count("c") == 5


@pytest.mark.parametrize("is_given", [False, True])
def test_threads_have_connections_of_their_own_behind_a_pooler(pooled_url: str, schema: str, is_given: bool) -> None:
    options = {"client_encoding": "utf-8", "prepare_threshold": None}
    with ExitStack() as closing:
        pool = closing.enter_context(ConnectionPool(pooled_url, kwargs=options, open=True)) if is_given else None
        history = closing.enter_context(ChatHistory(PostgresBackend(pooled_url, pool=pool, schema=schema)))
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda number: history.add_message(str(number % 4), say("user", "Hello!")), range(40)))
        assert [history.get_message_count(str(chat)) for chat in range(4)] == [10] * 4


def test_who_says_so_prepares_statements_behind_a_pooler(postgres_url: str, schema: str) -> None:
    """As is right where each session is one's own, or the pooler keeps prepared statements."""
    with (
        servers.pgbouncer(postgres_url, "pool_mode = session") as url,
        ChatHistory(PostgresBackend(url, schema=schema, prepare=True)) as history,
    ):
        assert prepared(history) > 0
        assert history.get_message_count("c") == 5


# ---- replicas


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[str, str]]:
    """The URLs of a server and of a replica that follows it."""
    primary = start_postgres()
    try:
        with servers.replica(primary) as url:
            yield primary.get_uri(), url
    finally:
        remove_postgres(primary)


def test_a_replica_can_be_read_and_not_written_to(pair: tuple[str, str]) -> None:
    with ChatHistory(PostgresBackend(pair[0])) as history:
        history.save_messages("c", [say("user", "a"), say("assistant", "b")])
        history.save_messages("c", [say("user", "a"), say("assistant", "another")])
        caught_up(pair)
        with ChatHistory(PostgresBackend(pair[1])) as replica:
            assert contents(replica) == contents(history)
            assert list(replica.list_chats()) == list(history.list_chats())
            with pytest.raises(StorageError, match="can only be read"):
                replica.add_message("c", say("user", "refused"))
            assert contents(replica) == contents(history)


def test_what_was_read_late_from_a_replica_overwrites_nothing(pair: tuple[str, str]) -> None:
    with ChatHistory(PostgresBackend(pair[0])) as history:
        history.add_message("late", say("user", "a"))
        caught_up(pair)
        with ChatHistory(PostgresBackend(pair[1])) as replica, psycopg.connect(pair[1], autocommit=True) as standby:
            standby.execute("SELECT pg_wal_replay_pause()")
            history.add_message("late", say("user", "b"))
            version, seen = replica.get_chat("late").version, replica.get_chat_history("late")
            assert seen == [say("user", "a")]
            with pytest.raises(VersionConflictError):
                history.save_messages("late", [*seen, say("user", "c")], expected_version=version)
            standby.execute("SELECT pg_wal_replay_resume()")
        caught_up(pair)


def caught_up(pair: tuple[str, str]) -> None:
    """Wait until the replica has all that the server has."""
    with psycopg.connect(pair[0]) as server, psycopg.connect(pair[1], autocommit=True) as standby:
        (end,) = server.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        while not standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [end]).fetchone()[0]:
            pass


# ---- partitions


def contents(history: ChatHistory) -> list[Any]:
    return [
        (history.get_chat(chat), history.list_branches(chat), check_chat(history, chat))
        for chat in history.get_all_chat_ids()
    ]


def indexes(connection: psycopg.Connection[Any]) -> list[Any]:
    """The name and definition of every index and constraint of the two tables."""
    return connection.execute(
        """
SELECT c.relname, regexp_replace(pg_get_indexdef(c.oid), ' ON (ONLY )?\\S+', ''), pg_get_constraintdef(k.oid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = c.oid
WHERE i.indrelid IN ('chats'::regclass, 'messages'::regclass, 'message_grams'::regclass) ORDER BY 1
"""
    ).fetchall()


def test_a_store_in_use_is_partitioned_with_all_that_it_holds(
    postgres_url: str, schema: str, other: psycopg.Connection[Any]
) -> None:
    with ChatHistory(PostgresBackend(postgres_url, schema=schema)) as history:
        for number in range(40):
            history.add_messages(f"c{number}", [say("user", str(part)) for part in range(number % 7 + 1)])
            history.save_messages(f"c{number}", [say("user", "0"), say("assistant", "another branch")])
            history.update_chat(f"c{number}", title=f"{number}", metadata={"n": number})
        before, had = contents(history), indexes(other)
        found = history.search("branch", limit=99)
        assert len(found) == 40
        other.execute(PARTITION)
        assert history.search("branch", limit=99) == found
        assert contents(history) == before
        assert indexes(other) == had
        for table in TABLES:
            rows = other.execute(f"SELECT tableoid::regclass::text, count(*) FROM {table} GROUP BY 1").fetchall()
            assert len(rows) > 4, "chats are spread over the partitions"
        other.execute(FORGET)
        history.add_message("c0", say("user", "after"))
        assert history.get_chat_history("c0")[-1]["content"] == "after"
        assert contents(history)[1:] == before[1:]
    with ChatHistory(PostgresBackend(postgres_url, schema=schema)) as history:
        assert contents(history)[1:] == before[1:]


def test_every_table_with_chats_in_it_is_partitioned(partitioned: Store) -> None:
    with psycopg.connect(partitioned.place) as connection:
        rows = connection.execute(
            "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = %s::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition AND relname !~ '_whole$'",
            [partitioned.schema],
        ).fetchall()
    assert dict(rows) == {"schema_migrations": "r"} | dict.fromkeys(TABLES, "p") | dict.fromkeys(PER_OWNER, "r")


# What one can do with one chat, by the name of the method.
ON_ONE_CHAT: dict[str, Callable[[ChatHistory, str], object]] = {
    "create_chat": lambda history, chat: history.create_chat(chat, title="T"),
    "add_message": lambda history, chat: history.add_message(chat, say("user", "a")),
    "add_messages": lambda history, chat: (
        history.add_messages(chat, [say("user", "b"), say("assistant", "c")]),
        history.add_messages(chat, [say("user", "d")] * 200),
        history.add_messages(chat, [say("user", "e")] * 2, message_ids=["1", "2"]),
        history.add_message(chat, say("user", "f"), expected_version=history.get_chat(chat).version),
    ),
    "save_messages": lambda history, chat: history.save_messages(
        chat, [*history.get_chat_history(chat), say("user", "g")]
    ),
    "set_messages": lambda history, chat: history.set_messages(
        chat, [say("user", letter) for letter in "abcdefghijkl"]
    ),
    "replace_message": lambda history, chat: history.replace_message(chat, newest(history, chat), say("user", "m")),
    "list_branches": lambda history, chat: history.list_branches(chat),
    "switch_branch": lambda history, chat: history.switch_branch(chat, aside(history, chat)),
    "delete_branch": lambda history, chat: (
        history.set_messages(chat, [say("user", "n")] * 9),
        history.delete_branch(chat, aside(history, chat)),
    ),
    "delete_superseded": lambda history, chat: history.delete_superseded(chat),
    "fork_chat": lambda history, chat: history.delete_chat_history(history.fork_chat(chat).chat_id),
    "archive_oldest_messages": lambda history, chat: history.archive_oldest_messages(chat, 1),
    "delete_message": lambda history, chat: history.delete_message(chat, newest(history, chat)),
    "delete_messages": lambda history, chat: history.delete_messages(chat, [newest(history, chat)]),
    "delete_last_message": lambda history, chat: history.delete_last_message(chat),
    "delete_oldest_messages": lambda history, chat: history.delete_oldest_messages(chat, 1),
    "get_chat_history": lambda history, chat: (history.get_chat_history(chat), history.get_chat_history(chat, last=2)),
    "get_message_history": lambda history, chat: history.get_message_history(chat, format="openai", last=2),
    "get_readable_chat_history": lambda history, chat: history.get_readable_chat_history(chat),
    "get_messages": lambda history, chat: history.get_messages(
        chat, limit=1, before=history.get_messages(chat, limit=2).before, status=None
    ),
    "iter_messages": lambda history, chat: list(history.iter_messages(chat)),
    "get_message": lambda history, chat: history.get_message(chat, newest(history, chat)),
    "get_message_count": lambda history, chat: history.get_message_count(chat, status="archived"),
    "update_chat": lambda history, chat: history.update_chat(chat, title="U", metadata={"a": 1}, shared=True),
    "get_chat": lambda history, chat: history.get_chat(chat),
    "chat_exists": lambda history, chat: history.chat_exists(chat),
    "delete_chat_history": lambda history, chat: history.delete_chat_history(
        chat, expected_version=history.get_chat(chat).version
    ),
}


def newest(history: ChatHistory, chat: str) -> str:
    return history.get_messages(chat, limit=1)[-1].message_id


def aside(history: ChatHistory, chat: str) -> str:
    """The end of a branch that is not the active one."""
    return next(branch.head for branch in history.list_branches(chat) if not branch.active)


def test_every_operation_on_one_chat_is_looked_at() -> None:
    methods = {name: getattr(ChatHistory, name) for name in dir(ChatHistory) if not name.startswith("_")}
    callables = {name: method for name, method in methods.items() if callable(method)}
    about_a_chat = {name for name, method in callables.items() if "chat_id" in signature(method).parameters}
    # A search brings the index of all of its owner's chats up to date first.
    assert about_a_chat - {"search"} == ON_ONE_CHAT.keys()


@pytest.fixture
def session(partitioned: Store) -> Iterator[psycopg.Connection[Any]]:
    """A session of the partitioned store in which everything that can be done with one chat was done and prepared."""
    history = ChatHistory(PostgresBackend(partitioned.place, schema=partitioned.schema, max_connections=2))
    connections = history._backend()._connections  # type: ignore[attr-defined]
    with history:
        for number in range(3):
            for operation in ON_ONE_CHAT.values():
                operation(history, f"c{number}")
            history.add_message(f"c{number}", say("user", "a"))
            history.delete_chat_history(f"c{number}")
        for number in range(100):
            history.add_messages(f"more {number}", [say("user", "a")] * 5)
        partitioned.execute("ANALYZE chats; ANALYZE messages")
        connection = connections._take()
        # What is asked after a connection was lost.
        for statement, parameters in ((postgres.FIND_WRITTEN, [uuid4(), ["a"]]), (postgres.GET_VERSION, [uuid4()])):
            history._backend()._fetch(connection, statement, parameters)  # type: ignore[attr-defined]
        yield connection
        connections._give_back(connection)


PREPARED = "SELECT name, statement, parameter_types::text[] FROM pg_prepared_statements"
LIKELY = {"boolean": "true", "text": "active", "text[]": "{active}"}
LIKELY |= {"json": "[]", "bytea": "", "timestamp with time zone": "2030-01-01 00:00Z", "bigint[]": "{5}"}
"""A value of each type that a plan can be made for. Only the key, which is a UUID, decides where to look."""


def tables_of(plan: Any) -> Iterator[str]:
    """Every table that a plan reads or changes."""
    if isinstance(plan, dict):
        if "Relation Name" in plan:
            yield plan["Relation Name"]
        plan = list(plan.values())
    if isinstance(plan, list):
        for part in plan:
            yield from tables_of(part)


@pytest.mark.parametrize("kind", ["generic", "custom"])
def test_every_statement_about_one_chat_touches_one_partition(session: psycopg.Connection[Any], kind: str) -> None:
    """Whether it is planned for the key that is given, or once for all keys."""
    session.execute(f"SET plan_cache_mode = force_{kind}_plan", prepare=False)
    seen: Counter[str] = Counter()
    for name, statement, types in session.execute(PREPARED, prepare=False).fetchall():
        if not re.search(r"\b(chats|messages|message_grams)\b", statement):
            continue
        key = str(uuid4())
        values = LIKELY | {"uuid": key, "uuid[]": f"{{{key}}}"}
        # Numbers ascend, as the ends of a range do.
        given = [values.get(each, str(10 * place)) for place, each in enumerate(types)]
        arguments = sql.SQL(", ").join(map(sql.Literal, given))
        explain = sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE {}({})").format(sql.Identifier(name), arguments)
        ((plan,),) = session.execute(explain, prepare=False).fetchall()
        tables = set(tables_of(plan))
        assert tables, statement
        for table in TABLES:
            partitions = {each for each in tables if re.fullmatch(rf"{table}_\d+", each)}
            # A row that is added is seen to go to the table, which hands it to one partition.
            assert len(partitions) <= 1, (statement, partitions)
            assert partitions or table not in tables or "INSERT" in statement, (statement, tables)
            seen[table] += bool(partitions)
    assert min(seen[table] for table in TABLES) > 3, seen


# ---- the rules that keep this so


@pytest.fixture
def opened(postgres_url: str, schema: str) -> None:
    """After all migrations."""
    PostgresBackend(postgres_url, schema=schema).close()


KEYS = """
SELECT relation::regclass::text, name, array(
    SELECT attname::text FROM pg_attribute WHERE attrelid = relation AND attnum = ANY(columns)
) FROM (
    SELECT conrelid, conname, conkey, connamespace FROM pg_constraint WHERE contype IN ('f', 'x')
    UNION ALL
    SELECT indrelid, relname, indkey::int2[], relnamespace FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE indisunique
) AS keys (relation, name, columns, namespace) WHERE namespace = current_schema()::regnamespace
"""


@pytest.mark.usefixtures("opened")
def test_every_unique_and_foreign_key_holds_the_key_of_the_chat(other: psycopg.Connection[Any]) -> None:
    keys = other.execute(KEYS).fetchall()
    assert {table for table, _, _ in keys} >= {"schema_migrations", *TABLES}
    for table, name, columns in keys:
        key = "owner_key" if table in PER_OWNER else "chat_key"
        assert key in columns or table == "schema_migrations", (table, name, columns)


@pytest.mark.parametrize(
    "what",
    [
        "sequences: SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = current_schema()::regnamespace",
        "triggers: SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid "
        "WHERE relnamespace = current_schema()::regnamespace",
        "rules: SELECT rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class "
        "WHERE relnamespace = current_schema()::regnamespace",
        "identity columns: SELECT attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid "
        "WHERE attidentity <> '' AND relnamespace = current_schema()::regnamespace",
        # A generated column is not one that is filled by default, and cannot be volatile.
        "functions as defaults: SELECT attname FROM pg_attrdef d JOIN pg_class c ON c.oid = adrelid "
        "JOIN pg_attribute a ON attrelid = adrelid AND attnum = adnum WHERE attgenerated = '' "
        "AND pg_get_expr(adbin, adrelid) LIKE '%(%' AND relnamespace = current_schema()::regnamespace",
        "volatile functions: SELECT proname FROM pg_proc "
        "WHERE provolatile = 'v' AND pronamespace = current_schema()::regnamespace",
    ],
    ids=lambda what: what.partition(":")[0],
)
@pytest.mark.usefixtures("opened")
def test_there_are_no(what: str, other: psycopg.Connection[Any]) -> None:
    assert other.execute(what.partition(": ")[2]).fetchall() == []


def texts_in(path: Path) -> Iterator[str]:
    """The literals of a program, but for its docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_statements_call_no_function_that_is_not_the_same_everywhere(other: psycopg.Connection[Any]) -> None:
    """Two servers that run one statement must do the same; so no clock, no chance, and no lock of one server."""
    package = Path(chat_history.__file__).parent
    programs = [*package.glob("backends/postgres*.py"), *package.glob("migrations/*.py")]
    assert len(programs) > 5
    called = {
        name
        for program in programs
        for text in texts_in(program)
        for name in re.findall(r"\b(\w+)\s*\(|\b((?:current|local)_?(?:time|date)\w*)", text.lower())
    }
    assert ("set_config", "") in called
    functions = [name for name, _ in called if name]
    volatile = other.execute(
        "SELECT DISTINCT proname::text FROM pg_proc WHERE proname = ANY(%s) AND provolatile = 'v'", [functions]
    ).fetchall()
    assert {name for (name,) in volatile} <= VOLATILE
    assert not {"now", "statement_timestamp", "transaction_timestamp"}.intersection(functions)
    assert not [clock for _, clock in called if clock]

"""The table of stores: what is true of one backend is tested on all of these."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psycopg
import pytest

from chat_history import ChatHistory
from chat_history.backends.base import Backend

pytest.register_assert_rewrite("chat_history.testing")

ALL = ("json", "sqlite", "relaxed", "memory", "postgres")
DURABLE = ("json", "sqlite", "postgres")
"""Those that other processes can open, and that lose nothing."""
SCALED = ("postgres behind pgbouncer", "postgres partitioned")
"""Postgres as large installations have it."""

SPAWN = multiprocessing.get_context("forkserver")
"""Makes processes that share nothing with this one, and soon: one of their kind has done the imports."""
SPAWN.set_forkserver_preload(
    [
        "pytest",
        "chat_history.testing",
        "chat_history.backends.json_file",
        "chat_history.backends.sqlite",
        "chat_history.backends.postgres",
        "chat_history_adapters.formats.openai_chat",
    ]
)

SCALE = (Path(__file__).parent.parent / "docs" / "scale.md").read_text()
PARTITION, FORGET = re.findall(r"^```sql\n(.*?)^```$", SCALE, re.MULTILINE | re.DOTALL)[:2]


class Store(NamedTuple):
    """A place to keep chats in. Any process that is handed it can open it."""

    kind: str
    place: str
    schema: str = ""

    @property
    def in_memory(self) -> bool:
        return self.kind == "memory"

    def backend(self) -> Backend:
        """The store, opened again."""
        if self.kind == "json":
            from chat_history.backends.json_file import JSONBackend

            return JSONBackend(self.place)
        if self.kind.startswith("postgres"):
            from chat_history.backends.postgres import PostgresBackend

            return PostgresBackend(self.place, schema=self.schema)
        from chat_history.backends.sqlite import SQLiteBackend

        return SQLiteBackend(self.place, durability="relaxed" if self.kind == "relaxed" else "full")

    def open(self) -> ChatHistory:
        return ChatHistory(self.backend())

    def execute(self, commands: str) -> None:
        """Run SQL in this store, which is one of Postgres."""
        with psycopg.connect(self.place, autocommit=True, options=f"-c search_path={self.schema}") as connection:
            connection.execute(commands)


@pytest.fixture(scope="session")
def partitioned_store(postgres_url: str) -> Store:
    """A store with the tables that docs/scale.md makes, which takes a while."""
    made = Store("postgres partitioned", postgres_url, f"s{uuid4().hex}")
    made.backend().close()
    made.execute(PARTITION)
    return made


@pytest.fixture
def partitioned(partitioned_store: Store) -> Store:
    """The same, without a chat."""
    tables = "chats", "messages", "message_grams", "contents", "content_uses"
    partitioned_store.execute("; ".join(f"DELETE FROM {table}" for table in tables))
    return partitioned_store


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new store of the kind that `on` named."""
    kind: str = request.param
    if kind.startswith("postgres"):
        url = request.getfixturevalue("pooled_url" if kind == "postgres behind pgbouncer" else "postgres_url")
        if kind == "postgres partitioned":
            return request.getfixturevalue("partitioned")
        return Store(kind, url, f"s{uuid4().hex}")
    return Store(kind, ":memory:" if kind == "memory" else str(tmp_path / "chats"))


def on(*kinds: str) -> pytest.MarkDecorator:
    """Runs a test, or those of a class, on each of these kinds of store."""
    return pytest.mark.parametrize("store", kinds, indirect=True)

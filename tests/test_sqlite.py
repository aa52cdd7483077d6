"""What is SQLite's own: files, forks, full disks, and text that is gone when it is deleted."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chat_history import ChatHistory
from chat_history.backends import sqlite, sqlite_file
from chat_history.backends.base import Change, owner_key
from chat_history.backends.sqlite import SQLiteBackend
from chat_history.backends.sqlite_file import SQLiteFile
from chat_history.errors import (
    ChatHistoryWarning,
    DamagedStoreError,
    HistoryClosedError,
    StorageError,
    StoreBusyError,
)

HELLO = {"role": "user", "content": "Hello!"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


def opened(path: Path | str, **options: object) -> ChatHistory:
    return ChatHistory(SQLiteBackend(path, **options))


def on_disk(path: Path) -> bytes:
    """All bytes of the database: the file, and the log beside it."""
    return b"".join(part.read_bytes() for part in path.parent.iterdir() if part.name.startswith(path.name))


# ---- the file


def test_a_new_file_and_its_folder_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "chats.db"
    with opened(path) as history:
        history.add_message("c", HELLO)
        assert {stat.S_IMODE(part.stat().st_mode) for part in path.parent.iterdir()} == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_path_that_looks_like_a_uri_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opened("file:odd?mode=memory&x=%20#1.db") as history:
        history.add_message("c", HELLO)
    assert Path("file:odd?mode=memory&x=%20#1.db").exists()


def test_the_file_stays_where_it_is_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with opened("chats.db") as history:
        monkeypatch.chdir("/")
        history.add_message("c", HELLO)
        assert history.get_chat_history("c") == [HELLO]


def test_a_store_behind_a_link_keeps_what_is_written_where_the_link_leads(path: Path, tmp_path: Path) -> None:
    with opened(path) as history:
        history.add_message("c", HELLO)
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with opened(link) as history:
        history.add_message("c", HELLO)
        assert history.get_chat_history("c") == [HELLO, HELLO]
        assert history.location == str(path)
        assert history.settings["db_path"] == str(path)
    assert [part.name for part in link.parent.iterdir()] == ["link.db"]
    assert link.is_symlink()


def test_a_link_to_a_file_that_is_not_there_yet_makes_it_where_the_link_leads(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with opened(link) as history:
        history.add_message("c", HELLO)
    with opened(path) as history:
        assert history.get_chat_history("c") == [HELLO]


def test_a_link_that_is_turned_elsewhere_parts_no_reader_from_its_writer(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        with opened(tmp_path / folder / "chats.db") as history:
            history.add_message(folder, HELLO)
    link = tmp_path / "current"
    link.symlink_to("old")
    with opened(link / "chats.db") as history:
        history.add_message("old", HELLO)
        link.unlink()
        link.symlink_to("new")
        history.add_message("old", HELLO)
        assert history.get_all_chat_ids() == ["old"]
        assert history.get_chat_history("old") == [HELLO] * 3


@pytest.mark.parametrize("name", ["a\0b.db", "half \ud83d.db"])
def test_a_path_that_no_file_can_have_is_an_error_in_plain_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="use another path"):
        SQLiteBackend(tmp_path / name)


@pytest.mark.parametrize("what", ["moved", "deleted", "replaced"])
def test_nothing_is_acknowledged_into_a_file_that_has_not_its_name_any_more(path: Path, what: str) -> None:
    other = path.with_name("other.db")
    with opened(path) as history:
        history.add_message("c", HELLO)
        assert history.get_chat_history("c") == [HELLO]
        if what == "replaced":
            opened(other).shutdown()
            other.replace(path)
        elif what == "moved":
            path.rename(other)
        else:
            path.unlink()
        with pytest.raises(StorageError, match="moved, replaced or deleted"):
            history.add_message("c", HELLO)
        with pytest.raises(StorageError, match="moved, replaced or deleted"):
            history.get_chat_history("c")
        assert path.exists() == (what == "replaced")
        if what == "moved":
            other.rename(path)
            history.add_message("c", HELLO)
            assert history.get_chat_history("c") == [HELLO, HELLO]


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a folder"):
        SQLiteBackend(tmp_path)


def test_a_path_below_a_file_is_an_error_in_plain_words(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(StorageError, match="use another path"):
        SQLiteBackend(path / "chats.db")


def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.write_text("This is a letter, and nobody wants to lose it. " * 100)
    before = path.read_bytes()
    with pytest.raises(DamagedStoreError, match="not an SQLite database"):
        SQLiteBackend(path)
    assert path.read_bytes() == before


def test_a_damaged_page_is_an_error_that_names_the_file(path: Path) -> None:
    with opened(path) as history:
        history.add_messages("c", [HELLO] * 500)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(DamagedStoreError, match=re.escape(str(path))), opened(path) as history:
        history.get_chat_history("c")


@pytest.mark.parametrize(
    "tables",
    [
        ["CREATE TABLE chats (chat_id TEXT PRIMARY KEY)", "CREATE TABLE messages (id INTEGER, chat_id TEXT)"],
        ["CREATE TABLE invoices (id INTEGER)"],
        ["CREATE TABLE schema_migrations (version TEXT)"],
        ["CREATE VIEW chats AS SELECT 1"],
    ],
)
def test_a_database_of_another_application_is_left_as_it_is(path: Path, tables: list[str]) -> None:
    with closing(sqlite3.connect(path)) as other:
        for table in tables:
            other.execute(table)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another application"):
        SQLiteBackend(path)
    assert path.read_bytes() == before
    assert [part.name for part in path.parent.iterdir()] == [path.name]


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with opened(path) as history:
        history.add_message("c", HELLO)
        assert history.get_chat_history("c") == [HELLO]


def test_a_write_returns_when_the_log_is_on_the_disk_unless_it_is_told_not_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit leaves the log to be synced outside of the lock: what others see by then, this checks from there."""
    seen: list[tuple[bool, int]] = []

    def sync(fd: int) -> None:
        with closing(sqlite3.connect(path)) as other:
            committed = other.execute("SELECT count(*) FROM messages").fetchone()[0]
        seen.append((os.path.samestat(os.fstat(fd), os.stat(f"{path}-wal")), committed))

    monkeypatch.setattr(sqlite_file, "sync", sync)
    with opened(path) as history:
        for number in (1, 2):
            history.add_message("c", HELLO)
            assert seen[-1] == (True, number)
        history.save_messages("c", [HELLO, HELLO, HELLO])
        assert seen[-1] == (True, 3)
        count = len(seen)
    with opened(path, durability="relaxed") as history:
        history.add_message("c", HELLO)
    assert len(seen) == count


def test_a_disk_that_fails_to_keep_a_write_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with opened(path) as history:
        history.add_message("c", HELLO)
        monkeypatch.setattr(sqlite_file, "sync", sync)
        with pytest.raises(StorageError, match="failed to keep"):
            history.add_message("c", HELLO)


def test_on_a_network_file_system_there_is_no_log_and_a_warning(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = path.parent.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 {os.major(device)}:{os.minor(device)} / / rw - nfs4 server:/home rw\n")
    monkeypatch.setattr(sqlite_file, "MOUNTS", str(mounts))
    with pytest.warns(ChatHistoryWarning, match="network file system .nfs4."):
        backend = SQLiteBackend(path)
    with ChatHistory(backend) as history:
        history.add_messages("c", [HELLO, HELLO])
        history.delete_last_message("c")
        assert history.get_chat_history("c") == [HELLO]
        with closing(backend._file._connect()) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert not Path(f"{path}-wal").exists()


# ---- what cannot be written


READ_ONLY = """
import os, sys
from chat_history import ChatHistory
from chat_history.backends.sqlite import SQLiteBackend
from chat_history.backends.sqlite_file import SQLiteFile
from chat_history.errors import StorageError
with ChatHistory(SQLiteBackend(":memory:")) as history:  # imports what another user may not be able to
    history.add_message("c", {"role": "user", "content": "Hello!"})
    history.get_chat_history("c")
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
with ChatHistory(SQLiteBackend(sys.argv[1])) as history:
    print(history.get_chat_history("c")[0]["content"])
    try:
        history.add_message("c", {"role": "user", "content": "No"})
    except StorageError as error:
        print("can only be read" in str(error))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user reaches, as pytest's own is not."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o555), (0o444, 0o777), (0o666, 0o555)])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_file_that_may_only_be_read_can_be_read(
    open_folder: Path, file_mode: int, folder_mode: int, is_open: bool
) -> None:
    path = open_folder / "chats.db"
    history = opened(path)
    history.add_message("c", HELLO)
    if not is_open:
        history.shutdown()
    for part in open_folder.iterdir():
        part.chmod(file_mode)
    open_folder.chmod(folder_mode)
    result = subprocess.run([sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True)
    assert result.stdout.split() == ["Hello!", "True"], result.stderr
    history.shutdown()


def test_a_store_behind_a_link_that_may_only_be_read_is_read_with_its_log(open_folder: Path) -> None:
    (open_folder / "links").mkdir(mode=0o755)
    link = open_folder / "links" / "chats.db"
    link.symlink_to(open_folder / "chats.db")
    with opened(open_folder / "chats.db") as history:
        history.add_message("c", HELLO)
        for part in open_folder.glob("chats.db*"):
            part.chmod(0o644)
        result = subprocess.run([sys.executable, "-c", READ_ONLY, str(link)], capture_output=True, text=True)
        assert result.stdout.split() == ["Hello!", "True"], result.stderr


def test_a_full_disk_is_said_plainly_and_loses_nothing(path: Path) -> None:
    backend = SQLiteBackend(path)
    with ChatHistory(backend) as history:
        history.add_message("c", HELLO)
        assert backend._file._writer is not None
        pages = backend._file._writer.execute("PRAGMA page_count").fetchone()[0]
        backend._file._writer.execute(f"PRAGMA max_page_count = {pages + 10}")
        with pytest.raises(StorageError, match="the disk is full"):
            history.add_messages("c", [{"role": "user", "content": "x" * 10_000}] * 100)
        assert history.get_chat_history("c") == [HELLO]
        backend._file._writer.execute("PRAGMA max_page_count = 1000000")
        history.add_message("c", HELLO)
        assert history.get_chat_history("c") == [HELLO, HELLO]


def test_a_writer_that_waits_too_long_says_so_and_has_written_nothing(path: Path) -> None:
    with opened(path, timeout=0.05) as history, closing(sqlite3.connect(path, isolation_level=None)) as other:
        history.add_message("c", HELLO)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="try again"):
            history.add_message("c", HELLO)
        assert history.get_chat_history("c") == [HELLO]
        other.execute("ROLLBACK")
        history.add_message("c", HELLO)
        assert history.get_message_count("c") == 2


def test_what_is_there_is_found_while_others_write_for_long_and_on_a_full_disk(path: Path) -> None:
    backend = SQLiteBackend(path, timeout=0.05)
    with ChatHistory(backend) as history, closing(sqlite3.connect(path, isolation_level=None)) as other:
        history.add_message("c", HELLO)
        other.execute("BEGIN IMMEDIATE")
        assert [hit.snippet for hit in history.search("hello")] == ["Hello!"]
        other.execute("ROLLBACK")
        history.add_message("c", {"role": "user", "content": " ".join(map(str, range(20_000)))})
        assert backend._file._writer is not None
        backend._file._writer.execute("PRAGMA max_page_count = 1")
        assert next(hit.marked() for hit in history.search("19999")).endswith("**19999**")


# ---- deleted text


@pytest.mark.parametrize("how", ["delete", "replace", "purge", "delete chat", "clear"])
def test_deleted_text_is_gone_from_the_disk_when_the_call_returns(path: Path, how: str) -> None:
    with opened(path) as history:
        for number in range(200):
            history.add_message("c", {"role": "user", "content": f"Keep {number} " + "y" * 37 * (number % 90)})
            history.add_message("d", {"role": "user", "content": f"Secret {number} " + "x" * 41 * (number % 90)})
        assert b"Secret" in on_disk(path)
        messages = list(history.iter_messages("d"))
        if how == "delete":
            history.delete_oldest_messages("d", len(messages))
        elif how == "replace":
            for message in messages:
                history.replace_message("d", message.message_id, HELLO)
        elif how == "purge":
            history.archive_oldest_messages("d", len(messages))
            history.purge(timedelta(0), status="archived")
        elif how == "delete chat":
            history.delete_chat_history("d")
        else:
            history.clear_all()
        assert b"Secret" not in on_disk(path)
        if how != "clear":
            assert history.get_message_count("c") == 200


@pytest.mark.parametrize("status", [None, "archived"])
def test_a_purge_of_many_chats_empties_the_log_a_few_times(
    path: Path, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[object] = []
    empty = SQLiteFile._empty_log
    monkeypatch.setattr(SQLiteFile, "_empty_log", lambda *given: emptied.append(given) or empty(*given))
    with opened(path) as history:
        for number in range(60):
            history.add_messages(f"c{number}", [{"role": "user", "content": "a secret"}, HELLO])
            history.archive_oldest_messages(f"c{number}", 1)
        gone = history.purge(datetime.now(UTC), status=status)
        assert (gone.chats, gone.messages) == ((60, 120) if status is None else (0, 60))
        assert len(emptied) == 2
        assert b"a secret" not in on_disk(path)


def test_one_that_deletes_without_a_pause_lets_others_write(path: Path) -> None:
    with opened(path, durability="relaxed") as history, ThreadPoolExecutor(1) as threads:
        for number in range(300):
            history.add_message(f"c{number}", HELLO)
        chats = history.get_all_chat_ids()

        def delete() -> None:
            while chats:
                history.delete_chat_history(chats.pop())

        deleting = threads.submit(delete)
        for _ in range(5):
            history.add_message("c", HELLO)
        assert chats
        chats.clear()
        deleting.result()


def test_text_that_a_reader_keeps_in_the_log_is_said_to_be_there(path: Path) -> None:
    with opened(path, timeout=0.05) as history, closing(sqlite3.connect(path, isolation_level=None)) as other:
        history.add_message("c", HELLO)
        other.execute("BEGIN")
        other.execute("SELECT * FROM messages").fetchone()
        with pytest.raises(StorageError, match="may still be in"):
            history.delete_last_message("c")
        assert history.get_chat_history("c") == []
        other.execute("ROLLBACK")
        history.add_message("d", HELLO)
        history.delete_last_message("d")
        assert b"Hello!" not in on_disk(path)


@pytest.mark.skipif(os.name != "posix", reason="there is no limit for files")
def test_a_deletion_whose_text_a_full_disk_keeps_in_the_log_is_not_said_to_be_undone(path: Path) -> None:
    from resource import RLIMIT_FSIZE, getrlimit, setrlimit

    before = getrlimit(RLIMIT_FSIZE)
    with opened(path) as history:
        history.add_messages("long", [{"role": "user", "content": "x" * 10_000}] * 100)
        history.add_message("c", HELLO)
        history.delete_last_message("c")  # the file is as long as all of this now
        history.add_messages("c", [HELLO, {"role": "user", "content": "y" * 100_000}])
        setrlimit(RLIMIT_FSIZE, (path.stat().st_size, before[1]))
        try:
            with pytest.raises(StorageError, match=r"the messages are deleted, but .* may still be in"):
                history.delete_oldest_messages("c", 1)
        finally:
            setrlimit(RLIMIT_FSIZE, before)
        assert history.get_message_count("c") == 1
        history.delete_last_message("c")
        assert b"Hello!" not in on_disk(path)


def test_two_that_delete_at_once_wait_for_each_other(path: Path) -> None:
    # SQLite itself refuses to empty the log while another connection does, and at once, whatever the timeout.
    def delete(history: ChatHistory) -> None:
        while history.delete_last_message("c"):
            pass

    with opened(path) as one, opened(path) as other, ThreadPoolExecutor(8) as pool:
        one.add_messages("c", [HELLO] * 60)
        list(pool.map(delete, [one, other] * 4))
        assert one.get_message_count("c") == 0
        assert b"Hello!" not in on_disk(path)


# ---- threads and forks


def test_threads_share_what_is_in_memory() -> None:
    with opened(":memory:") as history, ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(history.add_message, "c", HELLO) for _ in range(200)]:
            each.result()
        assert list(pool.map(history.get_message_count, ["c"] * 8)) == [200] * 8


def test_stores_in_memory_know_nothing_of_one_another() -> None:
    with opened(":memory:") as one, opened(":memory:") as other:
        one.add_message("c", HELLO)
        assert not other.chat_exists("c")


def test_many_readers_share_a_few_connections(path: Path) -> None:
    backend = SQLiteBackend(path)
    with ChatHistory(backend) as history, ThreadPoolExecutor(32) as pool:
        history.add_messages("c", [HELLO] * 50)
        assert list(pool.map(lambda _: len(history.get_chat_history("c")), range(500))) == [50] * 500
        assert 1 <= len(backend._file._idle) <= sqlite_file.READERS


def in_child(work: object) -> None:
    """Run work in a forked process, and fail if it fails."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_what_a_forked_child_writes_survives_its_parents_close(path: Path) -> None:
    history = opened(path)
    history.add_message("c", HELLO)
    parent_closed, child_wrote = os.pipe(), os.pipe()

    def child() -> None:
        history.add_message("c", HELLO)
        os.write(child_wrote[1], b".")
        os.read(parent_closed[0], 1)
        history.add_message("c", HELLO)
        history.shutdown()

    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    os.read(child_wrote[0], 1)
    history.add_message("c", HELLO)
    history.shutdown()
    os.write(parent_closed[1], b".")
    os.waitpid(pid, 0)
    for end in (*parent_closed, *child_wrote):
        os.close(end)
    with opened(path) as again:
        assert again.get_message_count("c") == 4


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_forks_among_busy_threads_lose_nothing(path: Path) -> None:
    stop = threading.Event()
    with opened(path) as history, ThreadPoolExecutor(4) as pool:

        def write(chat: str) -> int:
            count = 0
            while not stop.is_set():
                history.add_message(chat, HELLO)
                assert len(history.get_chat_history(chat, last=1)) == 1
                count += 1
            return count

        writers = {chat: pool.submit(write, chat) for chat in "abcd"}
        try:
            for _ in range(20):
                in_child(lambda: history.add_message("child", HELLO))
        finally:
            stop.set()
        written = {chat: writer.result() for chat, writer in writers.items()}
        assert {chat: history.get_message_count(chat) for chat in writers} == written
        assert history.get_message_count("child") == 20


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_after_a_fork_a_writer_waits_no_longer_than_before(path: Path) -> None:
    with opened(path) as history:
        history.add_message("c", HELLO)
        in_child(lambda: None)
        history.add_message("c", HELLO)
        writer = history._backend().inner._file._writer  # type: ignore[attr-defined]
        assert writer.execute("PRAGMA busy_timeout").fetchone() == (0,)  # the waiting is ours


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_has_a_copy_of_what_is_in_memory() -> None:
    with opened(":memory:") as history:
        history.add_message("c", HELLO)

        def child() -> None:
            history.add_message("c", HELLO)
            assert history.get_message_count("c") == 2

        in_child(child)
        assert history.get_message_count("c") == 1


def test_a_closed_store_stays_closed(path: Path) -> None:
    backend = SQLiteBackend(path)
    backend.close()
    backend.close()
    with pytest.raises(HistoryClosedError):
        backend.chat_ids(owner_key("", ""))


# ---- what reads cost


def planned(backend: SQLiteBackend, statement: str, parameters: list[object]) -> str:
    with closing(backend._file._connect()) as connection:
        return " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))


def test_listing_chats_reads_them_from_the_index(path: Path) -> None:
    backend = SQLiteBackend(path)
    for statement in (sqlite.LIST_CHATS, sqlite.LIST_AFTER, sqlite.LIST_BEFORE):
        parameters = [b"", "", b"", 1] if "(?, ?)" in statement else [b"", 1]
        plan = planned(backend, statement, parameters)
        assert "USING INDEX chats_by_activity" in plan
        assert "TEMP B-TREE" not in plan
    backend.close()


@pytest.mark.parametrize("statement", [*sqlite.READ.values(), *sqlite.READ_PAYLOADS.values(), sqlite.OUTLINE])
def test_reading_a_chat_touches_no_other_and_sorts_nothing(path: Path, statement: str) -> None:
    backend = SQLiteBackend(path)
    parameters = [b"", 0, 1, None, 1][: 5 if "?5" in statement else 1]
    plan = planned(backend, statement, parameters)
    assert "SEARCH messages USING INDEX sqlite_autoindex_messages_1 (chat_key=?" in plan
    assert "TEMP B-TREE" not in plan
    backend.close()


def test_a_failed_change_leaves_nothing_behind(path: Path) -> None:
    from datetime import UTC, datetime

    from chat_history.backends.base import Draft, chat_key

    backend = SQLiteBackend(path)
    key = chat_key(owner_key("", ""), "c")
    draft = Draft("m", "user", "openai", "", "{}", "", b"", datetime.now(UTC))
    with pytest.raises(StorageError):
        backend.write(key, Change(datetime.now(UTC), drafts=[draft, draft], active=2))
    assert backend.get_chat(key) is None
    backend.close()

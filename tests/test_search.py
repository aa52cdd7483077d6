"""What is compared, and what an index proposes: nothing that a search should find is left out."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import Store, on

from chat_history import ChatHistory, SQLChatHistory, open_history
from chat_history.backends.base import Found
from chat_history.backends.words import MUCH, Sought, folded, grams_of
from chat_history.search import hit_of, sought
from chat_history.testing import say

TEXT = st.text(
    st.sampled_from(
        "aAbBcß ´\u0301öÖoI\u0130iÅ\u212b\n\t\"\\'%_東京ガハﾊﾞ서울한\u1112\u1161\u11abสวัส\U0001f600\U00020000ﬁ１Ⅷ"
    ),
    max_size=30,
)
OWNER = UUID(int=7)


@given(TEXT, st.integers(0, 30), st.integers(0, 30))
def test_an_index_proposes_every_text_that_has_the_words(text: str, start: int, stop: int) -> None:
    wanted = sought(f'"{text[start:stop]}"')
    if wanted is not None and wanted.is_in(text):
        assert set(wanted.grams(OWNER)) <= grams_of([text, "other"], OWNER)


@given(TEXT, TEXT)
def test_what_is_marked_is_what_was_found(text: str, query: str) -> None:
    wanted = sought(query)
    if wanted is None or not wanted.is_in(text):
        return
    from datetime import UTC, datetime

    hit = hit_of(Found("c", "", "m", "user", 0, text, datetime.now(UTC)), wanted)
    assert hit.marks
    at = 0
    for start, end in hit.marks:
        assert at <= start < end <= len(hit.snippet)
        at = end
    assert hit.marked("", "") == hit.snippet


@given(TEXT, TEXT, st.lists(TEXT, max_size=2))
def test_lines_of_json_are_looked_into_where_one_could_have_the_words(text: str, query: str, others: list[str]) -> None:
    import json

    wanted = sought(query)
    if wanted is not None and wanted.is_in(text):
        for escaped in (False, True):
            line, *more = (json.dumps({"text": each}, ensure_ascii=escaped).encode() for each in (text, *others))
            assert wanted.may_be_in(line)
            assert wanted.may_be_in(b",\n".join([*more, line]))


def test_lines_of_json_are_passed_over_also_with_letters_of_other_scripts() -> None:
    assert not Sought(("ab", "日本")).may_be_in("a–b “日本” 🎉".encode())
    assert Sought(("ab", "日本")).may_be_in(b"ab" + "日 本".encode())


def test_many_lines_of_json_are_looked_into_where_one_has_an_accent() -> None:
    assert Sought(("cafe",)).may_be_in("café".encode() + b" " * MUCH)
    assert not Sought(("cafe",)).may_be_in("caf–".encode() + b" " * MUCH)


@given(TEXT)
def test_folding_again_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)


def test_each_owner_has_grams_of_its_own() -> None:
    mine, other = (grams_of(["the same words"], uuid4()) for _ in range(2))
    assert len(mine) == len(other) > 5
    assert not mine & other


def test_words_too_short_for_an_index_are_known_to_be() -> None:
    assert Sought(("ok", "a")).grams(OWNER) == []
    assert Sought(("東", "ok")).grams(OWNER)


@on("sqlite", "postgres")
def test_searches_and_writes_at_once_disturb_nobody(store: Store) -> None:
    with store.open() as history:

        def work(number: int) -> None:
            with store.open() as mine:
                for turn in range(15):
                    mine.add_message(f"c{number}", say("user", f"turn {turn} of thread{number}"))
                    mine.update_chat(f"c{number}", title=f"turn {turn}")
                    assert len(mine.search(f"thread{number}", limit=100)) == turn + 1
                    if turn % 5 == 4:
                        mine.delete_oldest_messages(f"c{number}", 1)
                        mine.add_message(f"c{number}", say("user", f"another of thread{number}"))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert len(history.search("thread", limit=100)) == 60
        assert len(history.search("turn 14")) == 8


def test_without_an_index_all_texts_are_read(tmp_path: Path) -> None:
    with SQLChatHistory(db_path=tmp_path / "chats.db") as history:
        history.add_message("c", say("user", "a needle"))
    with closing(sqlite3.connect(tmp_path / "chats.db")) as connection, connection:
        connection.execute("DROP TABLE grams")  # as a SQLite that is built without FTS5
    connection.close()
    with SQLChatHistory(db_path=tmp_path / "chats.db") as history:
        assert len(history.search("needle")) == 1
        history.delete_chat_history("c")
        assert history.search("needle") == []


def test_an_index_of_much_that_is_gone_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat_history.backends.sqlite_search.STALE", 5)
    with SQLChatHistory(db_path=tmp_path / "chats.db") as history:
        history.create_chat("d", title="needle in a title")
        for number in range(40):
            history.add_message("c", say("user", f"needle {number}"))
            assert len(history.search("needle", limit=100)) == number + 2
        with closing(sqlite3.connect(tmp_path / "chats.db")) as connection, connection:
            assert connection.execute("SELECT max(id) FROM searched").fetchone()[0] < 15
            assert connection.execute("SELECT count(*) FROM searched").fetchone()[0] == 4
        connection.close()


@pytest.mark.parametrize("name", ["chats.db", "chats.json"])
def test_no_byte_of_a_long_chat_that_was_searched_is_left_after_its_deletion(tmp_path: Path, name: str) -> None:
    with open_history(tmp_path / name) as history:
        history.add_message("other", say("user", "stays"))
        history.add_messages("c", [say("user", f"Geheimnis {number} xyzzy") for number in range(10_000)])
        history.update_chat("c", title="Geheimnisvoll")
        expected = sum("77" in str(number) for number in range(10_000))
        assert len(history.search("geheimnis 77", limit=10_000)) == expected

        def left() -> bool:
            files = [path.read_bytes().lower() for path in tmp_path.iterdir()]
            return any(text in data for data in files for text in (b"geheim", b"heimni", b"nisvoll", b"xyzzy"))

        assert left()
        history.delete_chat_history("c")
        assert not left()
        assert len(history.search("stays")) == 1
        assert not left()
    assert not left()


@pytest.mark.parametrize("vacuumed", [False, True])
def test_numbers_that_are_given_out_again_are_looked_at_again(tmp_path: Path, vacuumed: bool) -> None:
    with SQLChatHistory(db_path=tmp_path / "chats.db") as history:
        for _ in range(3):
            history.add_messages("c", [say("user", "needle"), say("user", "needle")])
            assert len(history.search("needle")) == 2
            history.delete_last_message("c")
            history.delete_chat_history("c")
            if vacuumed:
                with closing(sqlite3.connect(tmp_path / "chats.db")) as connection, connection:
                    connection.execute("VACUUM")
                connection.close()
            assert history.search("needle") == []


def test_a_file_that_may_only_be_read_is_searched(history_read_only: ChatHistory) -> None:
    assert len(history_read_only.search("needle")) == 1


@pytest.fixture
def history_read_only(tmp_path: Path) -> ChatHistory:
    path = tmp_path / "chats.db"
    with SQLChatHistory(db_path=path) as history:
        history.add_message("c", say("user", "a needle"))
    from chat_history.backends import sqlite_file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_file, "_is_writable", lambda path: False)
        return SQLChatHistory(db_path=path)

"""Images, audio and files beside the messages: on the disk, damaged, in another store."""

from __future__ import annotations

import io
import json
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Barrier
from typing import Any

import psycopg
import pytest
from stores import ALL, Store, on

from chat_history import ChatHistory, ChatHistoryWarning, DamagedStoreError
from chat_history.backends import postgres_contents
from chat_history.backends.base import ChatKey
from chat_history.backends.contents import THRESHOLD, bare, hash_of
from chat_history.backends.json_file import JSONBackend
from chat_history.backends.sqlite import SQLiteBackend
from chat_history.testing import check_chat, say
from chat_history.testing.contents import image, showing
from chat_history.transfer import copy, export, import_from

ONE, OTHER = image(1), image(2)
MIDDLE = ONE[10_000:10_100].encode()


def on_disk(store: Store) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(Path(store.place).parent.iterdir()) if file.is_file())


@on("json", "sqlite")
def test_an_image_is_on_the_disk_once_and_gone_with_the_last_message_that_shows_it(store: Store) -> None:
    with store.open() as history:
        for number in range(20):
            history.add_message(str(number), showing(ONE))
        # Once in the file, and once in SQLite's log.
        assert on_disk(store).count(MIDDLE) <= (1 if store.kind == "json" else 2)
        for number in range(19):
            history.delete_chat_history(str(number))
        assert on_disk(store).count(MIDDLE) == 1
        history.replace_message("19", history.get_messages("19")[0].message_id, showing(OTHER))
        assert MIDDLE not in on_disk(store)
        assert check_chat(history, "19")[0].payload == json.dumps(showing(OTHER), ensure_ascii=False)


@on("postgres")
def test_chats_that_exchange_their_images_lock_each_other_out_of_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, deadlocks, together = postgres_contents.ask, [], Barrier(2)

    def asking(*what: Any) -> Any:
        try:
            return ask(*what)
        except psycopg.errors.DeadlockDetected as error:
            deadlocks.append(error)
            raise

    def exchange(history: ChatHistory, chat: str, before: str, after: str) -> None:
        message = history.add_message(chat, showing(before))
        for _ in range(30):
            for each in (after, before):
                together.wait()
                history.replace_message(chat, message.message_id, showing(each))

    monkeypatch.setattr(postgres_contents, "ask", asking)
    with store.open() as history, ThreadPoolExecutor() as pool:
        tasks = [pool.submit(exchange, history, "c", ONE, OTHER), pool.submit(exchange, history, "d", OTHER, ONE)]
        for task in tasks:
            task.result()
        assert [history.get_chat_history(chat) for chat in "cd"] == [[showing(ONE)], [showing(OTHER)]]
    assert deadlocks == [], "each of which takes a second to be seen"


@on(*ALL)
def test_nothing_but_reading_a_message_loads_its_image(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.open() as history:
        stored = history.add_messages("c", [showing(ONE)] * 6)
        history.archive_oldest_messages("c", 1)

        def load(self: Any, chat: ChatKey, hashes: Sequence[str]) -> dict[str, str]:
            raise AssertionError("an image was loaded")

        monkeypatch.setattr(type(bare(history._backend())), "contents", load)
        assert history.list_chats()[0] == history.get_chat("c")
        assert history.list_branches("c")[0].message_count == 6
        assert (history.get_message_count("c"), history.chat_exists("c")) == (5, True)
        history.update_chat("c", title="x")
        history.switch_branch("c", stored[4].message_id)
        assert history.delete_superseded("c") == 1
        assert history.purge(timedelta(0), status="archived").messages == 1
        assert history.delete_message("c", stored[1].message_id)
        history.replace_message("c", stored[4].message_id, say("user", "x"))
        history.add_message("c", showing(ONE))
        with pytest.raises(AssertionError, match="loaded"):
            history.get_chat_history("c")
        assert history.delete_chat_history("c")


def test_a_missing_image_is_named_and_its_message_can_be_mended(tmp_path: Path) -> None:
    path = tmp_path / "chats"
    with ChatHistory(SQLiteBackend(path)) as history:
        first, second, _ = history.add_messages("a chat", [showing(ONE), showing(ONE), say("user", "x")])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("DELETE FROM contents")
        for read in (
            lambda: history.get_chat_history("a chat"),
            lambda: history.get_message("a chat", first.message_id),
            lambda: history.get_messages("a chat"),
            lambda: list(history.iter_messages("a chat")),
        ):
            with pytest.raises(DamagedStoreError, match=rf"message 0 of chat 'a chat'.*{hash_of(ONE)} is missing"):
                read()
        assert history.get_chat_history("a chat", last=1) == [say("user", "x")]
        history.replace_message("a chat", first.message_id, say("user", "y"))
        assert history.delete_message("a chat", second.message_id)
        assert history.get_chat_history("a chat") == [say("user", "y"), say("user", "x")]


def test_a_payload_that_says_nothing_readable_of_its_images_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chats"
    with ChatHistory(SQLiteBackend(path)) as history:
        history.add_message("c", showing(ONE))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            for payload in ("~", "~[[[0", "~[]\n{}", "\u00e9"):
                other.execute("UPDATE messages SET payload = ?", (payload,))
                with pytest.raises(DamagedStoreError, match="message 0 of chat 'c'"):
                    history.get_chat_history("c")


class Plain(SQLiteBackend):
    """One that knows nothing of contents, as all did once."""

    keeps_contents = False


def test_a_backend_that_keeps_no_contents_gets_whole_messages_which_any_later_one_reads(tmp_path: Path) -> None:
    path = tmp_path / "chats"
    with ChatHistory(Plain(path)) as history:
        old = history.add_messages("c", [showing(ONE), say("user", "x")])
        assert history._backend().read(history._key("c"))[0].payload == old[0].payload
    with ChatHistory(SQLiteBackend(path)) as history:
        assert check_chat(history, "c") == list(old)
        assert history.save_messages("c", [showing(ONE), say("user", "x"), showing(ONE)])[0].payload == old[0].payload
        history.delete_oldest_messages("c", 1)
        assert history.get_chat_history("c") == [say("user", "x"), showing(ONE)]


@on("json", "memory")
def test_images_arrive_in_another_store(store: Store, tmp_path: Path) -> None:
    with store.open() as history, ChatHistory(SQLiteBackend(tmp_path / "other")) as other:
        for user in ("", "ann"):
            history.for_user(user).add_messages("c", [showing(ONE, OTHER), say("tool", ONE)])
        file = io.StringIO()
        export(history, file)
        assert file.getvalue().count(ONE) == 6  # in payloads, and as the text of the tool's
        copy(history, other)
        with ChatHistory(JSONBackend(tmp_path / "third.json")) as third:
            import_from(io.StringIO(file.getvalue()), third)
            for opened in (other, third):
                for user in ("", "ann"):
                    assert check_chat(opened.for_user(user), "c") == check_chat(history.for_user(user), "c")
        text = (tmp_path / "third.json").read_text()
        assert text.count(ONE.rstrip("=")) == 2


# ---- in a JSON file


def test_a_json_file_with_images_cut_anywhere_opens_with_all_whole_changes(tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    path = folder / "chats.json"
    messages = [
        [say("user", "a")],
        [showing(ONE)],
        [showing(OTHER), showing(ONE)],
        [showing(image(3)), say("user", "b")],
    ]
    ends = []
    with ChatHistory(JSONBackend(path)) as history:
        ends.append((path.stat().st_size - 4, 0))
        for batch in messages:
            history.add_messages("c", batch)
            ends.append((path.stat().st_size - 4, ends[-1][1] + len(batch)))
    given = [message for batch in messages for message in batch]
    whole = path.read_bytes()
    lines = [place for place, byte in enumerate(whole) if byte == 10]
    near = {place + more for place in lines for more in range(-3, 4)}
    cuts = near | set(Random(1).sample(range(len(whole)), 60))
    for cut in sorted(cut for cut in cuts if ends[1][0] <= cut < len(whole)):
        for file in folder.iterdir():
            file.unlink()
        path.write_bytes(whole[:cut])
        count = max(count for end, count in ends if end <= cut)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ChatHistoryWarning)
            backend = JSONBackend(path)
        with ChatHistory(backend) as history:
            json.loads(path.read_text())
            assert history.get_chat_history("c") == given[:count], cut
            # No image is left of a message that is not there.
            assert len(path.read_bytes()) <= max(end for end, _ in ends if end <= cut) + 4
            history.add_messages("c", [showing(ONE), showing(image(3))])
        with ChatHistory(JSONBackend(path)) as history:
            assert history.get_chat_history("c") == [*given[:count], showing(ONE), showing(image(3))]


@pytest.mark.parametrize(
    "again", [lambda text: json.dumps(json.loads(text), indent=2), lambda text: json.dumps(json.loads(text))]
)
def test_a_json_file_with_images_that_was_laid_out_anew_keeps_all(tmp_path: Path, again: Callable[[str], str]) -> None:
    path = tmp_path / "chats.json"
    with ChatHistory(JSONBackend(path)) as history:
        stored = history.for_user('a"n\\n\u00e9', tenant_id="t").add_messages("c", [showing(ONE), say("tool", OTHER)])
    path.write_text(again(path.read_text()))
    with ChatHistory(JSONBackend(path)) as history:
        ann = history.for_user('a"n\\n\u00e9', tenant_id="t")
        assert check_chat(ann, "c") == list(stored)
        ann.delete_last_message("c")
        assert ann.get_chat_history("c") == [showing(ONE)]
    assert OTHER[:1000] not in path.read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b'{"content"', b'{"contant"'),
        lambda line: line.replace(b'"data"', b'"date"'),
        lambda line: line[:5000],
        lambda line: line[5000:],
    ],
)
def test_a_bad_line_of_an_image_in_the_middle_is_named_and_nothing_is_changed(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "chats.json"
    with ChatHistory(JSONBackend(path)) as history:
        history.add_messages("c", [say("user", "a"), showing(ONE)])
        history.add_message("c", say("user", "b"))
    lines = path.read_bytes().split(b"\n")
    bad = next(number for number, line in enumerate(lines) if line.startswith(b'{"content"'))
    lines[bad] = damage(lines[bad])
    path.write_bytes(b"\n".join(lines))
    before = path.read_bytes()
    offset = len(b"\n".join(lines[:bad])) + 1
    with pytest.raises(DamagedStoreError, match=rf"line {bad + 1} \(byte {offset}\)"):
        JSONBackend(path)
    assert path.read_bytes() == before


def test_a_wrong_byte_in_an_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "chats.json"
    with ChatHistory(JSONBackend(path)) as history:
        history.add_messages("c", [say("user", "a"), showing(ONE), say("user", "b")])
        path.write_bytes(path.read_bytes().replace(MIDDLE, b"!" + MIDDLE[1:]))
        with pytest.raises(DamagedStoreError, match=r"line 2 .* not what its hash says"):
            history.get_chat_history("c")
        assert history.get_chat_history("c", last=1) == [say("user", "b")]


def test_what_a_json_file_holds_of_images_is_written_anew_only_where_it_must(tmp_path: Path) -> None:
    path = tmp_path / "chats.json"
    with ChatHistory(JSONBackend(path)) as history:
        history.add_message("c", showing(ONE))
        before = path.read_bytes()
        for _ in range(3):
            history.add_messages("c", [showing(ONE), say("user", "x" * THRESHOLD)])
        assert path.read_bytes().startswith(before.removesuffix(b"\n]}\n"))
        assert len(path.read_bytes()) < len(before) + THRESHOLD + 5000

"""What is the JSON file's own: its layout, damage, interruption, taking turns, memory, a full disk."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import pytest

from chat_history import open_history
from chat_history.backends import json_index, json_reading, json_rewriting, json_shared
from chat_history.backends.base import Change, ChatKey, Draft, chat_key, owner_key
from chat_history.backends.json_file import JSONBackend
from chat_history.backends.texts import spoken_text
from chat_history.errors import (
    ChatHistoryWarning,
    ConfigError,
    DamagedStoreError,
    HistoryClosedError,
    NewerStoreError,
    StorageError,
    StoreBusyError,
)
from chat_history.testing import say

ANN = owner_key("", "")
CHAT = chat_key(ANN, "chat123")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def draft(message_id: str, content: str = "Hello!", **fields: Any) -> Draft:
    payload = json.dumps({"role": "user", "content": content}, ensure_ascii=False)
    given = {"payload": payload, "text": content, "created_at": NOW, "said": not fields, **fields}
    digest = blake2b(given["payload"].encode(), digest_size=16).digest()
    return Draft(message_id, "user", "openai", "", digest=digest, **given)


def append(backend: JSONBackend, *drafts: Draft, chat: ChatKey = CHAT, **fields: Any) -> None:
    backend.write(chat, Change(NOW, drafts=drafts, active=len(drafts), **fields))


def ids(backend: JSONBackend, chat: ChatKey = CHAT) -> list[str]:
    outline = backend.outline(chat)
    return [row[1] for row in outline.rows] if outline else []


def texts(backend: JSONBackend, chat: ChatKey = CHAT) -> list[str]:
    return [record.text for record in backend.read(chat, status=None)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chats.json"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., JSONBackend]]:
    """Opens the file, as often as it is called; all are closed at the end."""
    backends: list[JSONBackend] = []

    def opened(**options: Any) -> JSONBackend:
        backends.append(JSONBackend(options.pop("path", path), **options))
        return backends[-1]

    yield opened
    for backend in backends:
        backend.close()


Opened = Callable[..., JSONBackend]


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder where a sync costs nothing, if the system has one."""
    with TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


class TestLayout:
    def test_a_plain_message_is_one_short_line(self, path: Path, opened: Opened) -> None:
        append(opened(), draft("m-0"))
        assert path.read_text() == (
            '{"chat_history": 1, "records": [\n'
            '{"chat": "chat123", "position": 0, "id": "m-0", "created_at": "2026-01-02T03:04:05.678901Z", '
            f'"digest": "{draft("m-0").digest.hex()}", "role": "user", "format": "openai", '
            '"payload": {"role": "user", "content": "Hello!"}}\n'
            "]}\n"
        )

    def test_the_file_is_a_valid_document_after_every_write(self, path: Path, opened: Opened) -> None:
        backend = opened()
        assert json.loads(path.read_text())["records"] == []
        append(backend, draft("m-0"))
        assert len(json.loads(path.read_text())["records"]) == 1
        append(backend, draft("m-1"), draft("m-2"))
        assert len(json.loads(path.read_text())["records"]) == 4
        backend.write(CHAT, Change(NOW, title="T", metadata='{"a": 1}', statuses=[(0, "archived")], active=-1))
        assert json.loads(path.read_text())["records"][-1]["statuses"] == {"archived": [0]}
        backend.write(CHAT, Change(NOW, deletions=[1], active=-1))
        assert '"id": "m-1"' not in path.read_text()
        assert json.loads(path.read_text())["chat_history"] == 1
        backend.delete_chat(CHAT)
        assert path.read_text() == '{"chat_history": 1, "records": [\n]}\n'

    @pytest.mark.parametrize(
        "payload",
        [
            '{"role":"user","content":"Hello!"}',
            '{"role": "user", "content": "Hello!", "x": 1.50}',
            '  [1, {"payload": "]}"}]',
            '{"a": {}, "payload": {"payload": {}}}',
            '"\\u00e4\\ud83d\\ude00 \u00e4\U0001f600\u2028"',
            '{"role": "user", "content": "a\\", \\"payload\\": {}}"}',
        ],
    )
    def test_a_payload_comes_back_byte_for_byte(self, opened: Opened, payload: str) -> None:
        metadata = '{"x":1,  "y": 2, "payload": {"payload": 2}, "text": "ä"}'
        append(opened(), draft("m-0", payload=payload, text='"x", "payload": "', metadata=metadata))
        for backend in (opened(), opened()):
            assert [row[3] for row in backend.read_payloads(CHAT)] == [payload]
            record = backend.read(CHAT)[0]
            assert (record.payload, record.text, record.metadata) == (payload, '"x", "payload": "', metadata)
            backend.write(chat_key(ANN, "other"), Change(NOW))
            backend.delete_chat(chat_key(ANN, "other"))

    @pytest.mark.parametrize("text", ["", "Hello!", 'a "b"', "a\\nb", "a\nb", 'x", "y": "z', "ä\u2028"])
    def test_a_text_comes_back_whether_or_not_the_payload_says_it(self, opened: Opened, text: str) -> None:
        drafts = [
            draft("m-0", text),
            draft("m-1", "other", text=text),
            draft("m-2", payload=f'{{"role": "user", "content": "{text}"}}' if text.isalnum() else "{}", text=text),
            draft("m-3", payload='{"role": "user", "content": "x", "y": "z"}', text='x", "y": "z'),
        ]
        append(opened(), *drafts)
        assert texts(opened()) == [each.text for each in drafts]

    @pytest.mark.parametrize(
        "name", ['we"ird', "back\\slash", "new\nline", '", "position": 0, "id": "', "ä😀", "\u2028"]
    )
    def test_names_may_hold_anything(self, opened: Opened, name: str) -> None:
        chat = chat_key(owner_key(name, name + "2"), name)
        append(opened(), draft(name), chat=chat)
        append(opened(), draft("m-1"), draft("m-2"), chat=chat)
        backend = opened()
        assert ids(backend, chat) == [name, "m-1", "m-2"]
        assert [record.parent for record in backend.read(chat)] == [None, name, "m-1"]
        assert [record.message_id for record in backend.find(chat, [name])] == [name]
        assert backend.chat_ids(owner_key(name, name + "2")) == [name]
        assert not ids(backend, chat_key(ANN, name))

    def test_files_and_folders_are_for_their_owner_only(self, tmp_path: Path, opened: Opened) -> None:
        path = tmp_path / "a" / "b" / "chats.json"
        backend = opened(path=path)
        append(backend, draft("m-0"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_a_new_file_keeps_the_mode_of_the_old(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0"), draft("m-1"))
        path.chmod(0o640)
        before = path.stat().st_ino
        backend.write(CHAT, Change(NOW, deletions=[0], active=-1))
        assert path.stat().st_ino != before
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [each.name for each in path.parent.iterdir()] == [path.name]

    def test_a_link_stays_a_link(self, path: Path, tmp_path: Path, opened: Opened) -> None:
        link = tmp_path / "link.json"
        link.symlink_to(path)
        backend = opened(path=link)
        append(backend, draft("m-0"), draft("m-1"))
        backend.write(CHAT, Change(NOW, deletions=[0], active=-1))
        assert link.is_symlink()
        assert ids(opened(path=path)) == ["m-1"]

    def test_deleted_text_is_gone_from_the_disk(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0", "SECRET-0"), draft("m-1", "SECRET-1"), draft("m-2", "SECRET-2"))
        append(backend, draft("m-0", "SECRET-3"), chat=chat_key(ANN, "other"))
        backend.write(CHAT, Change(NOW, deletions=[0], replacements=[(1, draft("x", "PUBLIC"))], active=-1))
        assert "SECRET-0" not in path.read_text()
        assert "SECRET-1" not in path.read_text()
        assert texts(backend) == ["PUBLIC", "SECRET-2"]
        backend.delete_chat(chat_key(ANN, "other"))
        assert "SECRET-3" not in path.read_text()
        assert backend.clear(ANN).chats == 1
        assert "SECRET" not in path.read_text()

    def test_lines_that_a_later_one_replaced_are_cleared_away(
        self, path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(json_rewriting, "_WASTE", 4096)
        backend = opened()
        append(backend, draft("m-0"), draft("m-1"))
        for number in range(200):
            backend.write(CHAT, Change(NOW, title=f"Title {number}", statuses=[(0, "archived")]))
        assert path.stat().st_size < 20_000
        for each in (backend, opened()):
            record = each.get_chat(CHAT)
            assert record is not None
            assert record.title == "Title 199"
            assert [row[3] for row in each.outline(CHAT).rows] == ["archived", "active"]  # type: ignore[union-attr]

    def test_one_line_longer_than_any_block(self, opened: Opened) -> None:
        long = "ä" * 3_000_000
        append(opened(), draft("m-0"), draft("m-1", long), draft("m-2"))
        backend = opened()
        assert texts(backend) == ["Hello!", long, "Hello!"]
        backend.write(CHAT, Change(NOW, deletions=[0], active=-1))
        assert texts(opened()) == [long, "Hello!"]


class TestWhatOthersDo:
    def test_writes_of_others_are_seen_at_once(self, opened: Opened) -> None:
        one, two = opened(), opened()
        for number in range(20):
            append(one if number % 3 else two, draft(f"m-{number}"))
            assert ids(one) == ids(two) == [f"m-{k}" for k in range(number + 1)]

    def test_a_file_replaced_by_another_is_seen(self, opened: Opened) -> None:
        one, two = opened(), opened()
        append(one, draft("m-0"), draft("m-1"))
        assert ids(two) == ["m-0", "m-1"]
        two.write(CHAT, Change(NOW, deletions=[0], active=-1))
        append(one, draft("m-2"))
        assert ids(one) == ids(two) == ["m-1", "m-2"]
        assert [record.position for record in one.read(CHAT)] == [1, 2]

    def test_a_file_replaced_by_one_of_the_same_size_is_seen(self, opened: Opened) -> None:
        one, two = opened(), opened()
        append(one, draft("m-0", "Tom"))
        two.write(CHAT, Change(NOW, replacements=[(0, draft("m-0", "Ann"))]))
        two.write(CHAT, Change(NOW, replacements=[(0, draft("m-0", "Bob"))]))
        assert texts(one) == ["Bob"]
        two.write(CHAT, Change(NOW, replacements=[(0, draft("m-0", "Eve"))]))
        assert texts(one) == ["Eve"]

    def test_a_file_that_somebody_removed_begins_anew(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0"))
        path.unlink()
        assert ids(backend) == []
        append(backend, draft("m-1"))
        assert ids(opened()) == ["m-1"]

    def test_a_message_that_somebody_corrected_in_place_is_read(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0", "teh cat"))
        append(backend, draft("m-1", "a dog"))
        changed = path.read_text().replace("teh cat", "the old cat")
        with path.open("r+") as file:
            file.write(changed)
        assert texts(backend) == ["the old cat", "a dog"]
        append(backend, draft("m-2"))
        assert ids(opened()) == ["m-0", "m-1", "m-2"]

    def test_readers_do_not_wait_while_another_writes(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0"))
        whole = path.read_bytes()
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(-4, os.SEEK_END)
            file.write(b',\n{"chat": "chat123", "pos')
            file.flush()
            assert ids(backend) == ["m-0"]
            assert texts(backend) == ["Hello!"]
            file.truncate(len(whole) - 4)
            file.seek(len(whole) - 4)
            file.write(b"\n]}\n")
        assert path.read_bytes() == whole
        append(backend, draft("m-1"))
        assert ids(backend) == ["m-0", "m-1"]

    def test_who_waits_too_long_is_told_and_wrote_nothing(self, path: Path, opened: Opened) -> None:
        backend = opened(timeout=0.05)
        append(backend, draft("m-0"))
        before = path.read_bytes()
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(StoreBusyError, match=r"0\.05 seconds"):
                append(backend, draft("m-1"))
            assert ids(backend) == ["m-0"]
        assert path.read_bytes() == before
        append(backend, draft("m-1"))

    def test_a_reader_finishes_with_the_file_it_began_with(self, opened: Opened) -> None:
        one, two = opened(), opened()
        append(one, *(draft(f"m-{n}", f"text {n}") for n in range(50)))
        index = one._file.caught_up()
        rows = index.frozen(index.chats[b'{"chat": "chat123"'].rows[:])
        two.write(CHAT, Change(NOW, deletions=list(range(40)), active=-40))
        assert ids(one) == [f"m-{n}" for n in range(40, 50)]
        texts = [spoken_text(message.text, message.payload) for message in json_reading.messages(index, rows)]
        assert texts == [f"text {n}" for n in range(50)]


class TestDamage:
    @pytest.mark.parametrize("batch", [1, 2])
    def test_a_file_cut_anywhere_opens_with_all_whole_changes(self, in_memory: Path, batch: int) -> None:
        path = in_memory / "chats.json"
        backend = JSONBackend(path)
        ends = [(path.stat().st_size - 4, 0)]
        for number in range(4):
            content = f'{number} ]}} ", "payload": {{}} \n'
            append(backend, *(draft(f"m-{number * batch + k}", content) for k in range(batch)))
            ends.append((path.stat().st_size - 4, (number + 1) * batch))
        backend.close()
        whole = path.read_bytes()
        for cut in range(ends[2][0], len(whole)):
            for file in in_memory.iterdir():
                file.unlink()
            path.write_bytes(whole[:cut])
            expected = [f"m-{n}" for n in range(max(count for end, count in ends if end <= cut))]
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                backend = JSONBackend(path)
            assert ids(backend) == expected, cut
            json.loads(path.read_text())
            aside = [file for file in in_memory.iterdir() if file != path]
            torn = whole[max(end for end, _ in ends if end <= cut) : cut].strip(b"\n,]}")
            assert len(aside) == len(told) == bool(torn), cut
            for file in aside:
                assert whole[:cut].endswith(file.read_bytes())
                assert torn in file.read_bytes()
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
                assert str(path) in str(told[0].message)
                assert str(file) in str(told[0].message)
                assert told[0].category is ChatHistoryWarning
            append(backend, draft("new"))
            backend.close()
            backend = JSONBackend(path)
            assert ids(backend) == [*expected, "new"]
            backend.close()

    def test_garbage_after_the_end_is_put_aside(self, path: Path, opened: Opened) -> None:
        append(opened(), draft("m-0"))
        whole = path.read_bytes()
        for number, garbage in enumerate([b"garbage", b"\0" * 100, b"{}]}\n", b"\n\n{\n"]):
            path.write_bytes(whole + garbage)
            with pytest.warns(ChatHistoryWarning, match=r"moved to"):
                assert ids(opened()) == ["m-0"]
            assert path.read_bytes() == whole
            assert (path.parent / f"chats.json.damaged-{number + 1}").read_bytes().endswith(garbage)

    def test_a_writer_that_was_interrupted_is_seen_by_one_that_is_open(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0"))
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b',\n{"chat": "chat123", "pos')
        with pytest.warns(ChatHistoryWarning, match=r"moved to"):
            append(backend, draft("m-1"))
        assert ids(backend) == ids(opened()) == ["m-0", "m-1"]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda line: b"xxxx",
            lambda line: line[: len(line) // 2],
            lambda line: line[len(line) // 2 :],
            lambda line: line.replace(b'"position"', b'"nothing"'),
            lambda line: b"[],",
            lambda line: b"1,",
        ],
    )
    def test_a_bad_line_in_the_middle_is_named_and_nothing_is_changed(
        self, path: Path, opened: Opened, damage: Callable[[bytes], bytes]
    ) -> None:
        backend = opened()
        for number in range(5):
            append(backend, draft(f"m-{number}"))
        backend.close()
        lines = path.read_bytes().split(b"\n")
        offset = len(b"\n".join(lines[:3])) + 1
        lines[3] = damage(lines[3])
        path.write_bytes(b"\n".join(lines))
        before = path.read_bytes()
        with pytest.raises(DamagedStoreError, match=rf"line 4 \(byte {offset}\)"):
            opened()
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]

    def test_a_bad_line_in_the_middle_of_a_file_that_was_cut_is_no_torn_tail(self, path: Path, opened: Opened) -> None:
        backend = opened()
        for number in range(5):
            append(backend, draft(f"m-{number}"))
        lines = path.read_bytes().split(b"\n")
        lines[2] = b"xxxx"
        path.write_bytes(b"\n".join(lines)[:-30])
        before = path.read_bytes()
        with pytest.raises(DamagedStoreError, match=r"line 3 "):
            opened()
        assert path.read_bytes() == before

    def test_a_bad_last_line_of_a_file_that_was_closed_is_no_torn_tail(self, path: Path, opened: Opened) -> None:
        append(opened(), draft("m-0"))
        path.write_bytes(path.read_bytes().replace(b'"position"', b'"pos'))
        with pytest.raises(DamagedStoreError, match=r"line 2 "):
            opened()

    def test_a_line_twice_is_damage(self, path: Path, opened: Opened) -> None:
        backend = opened()
        for number in range(3):
            append(backend, draft(f"m-{number}"))
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([*lines[:2], *lines[1:]]))
        with pytest.raises(DamagedStoreError, match=r"line 3 "):
            opened()

    def test_what_is_not_utf8_is_named_when_it_is_read(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0"))
        append(backend, draft("m-1", "MARK"))
        path.write_bytes(path.read_bytes().replace(b"MARK", b"M\xff\xfeK"))
        for read in (backend.read_payloads, backend.read):
            with pytest.raises(DamagedStoreError, match=r"line 3 "):
                read(CHAT)

    @pytest.mark.parametrize(
        "empty", [b"", b"{", b'{"chat_history": 1, "records": [', b'{"chat_history": 1, "records": [\n]']
    )
    def test_a_file_without_anything_yet_is_a_new_one(self, path: Path, opened: Opened, empty: bytes) -> None:
        path.write_bytes(empty)
        append(opened(), draft("m-0"))
        assert ids(opened()) == ["m-0"]
        assert list(path.parent.iterdir()) == [path]


class TestOtherLayouts:
    LAYOUTS = (
        lambda document: json.dumps(document),
        lambda document: json.dumps(document, indent=2),
        lambda document: json.dumps(document, indent=2, sort_keys=True),
        lambda document: json.dumps(document, separators=(",", ":")),
        lambda document: json.dumps(document, indent="\t", ensure_ascii=False).replace("\n", "\r\n"),
        lambda document: "\ufeff" + json.dumps(document),
    )

    def seen(self, backend: JSONBackend) -> object:
        records = backend.read(CHAT, status=None)
        payloads = [json.loads(record.payload) for record in records]
        return backend.get_chat(CHAT), backend.outline(CHAT), payloads, [each._replace(payload="") for each in records]

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_file_that_was_laid_out_anew_keeps_all(
        self, path: Path, opened: Opened, layout: Callable[[object], str]
    ) -> None:
        backend = opened()
        append(backend, draft("m-0", 'a "b" \u00e4'), draft("m-1", metadata='{"k": [1, {"payload": 2}]}'))
        append(backend, draft("m-2", "c", text="other"))
        metadata = '{"x": "y"}'
        backend.write(CHAT, Change(NOW, title="T", metadata=metadata, shared=True, statuses=[(1, "superseded")]))
        backend.write(CHAT, Change(NOW, parents=[(2, "m-0")], active=-1))
        expected = self.seen(backend)
        path.write_text(layout(json.loads(path.read_text())), newline="")
        for each in (backend, opened()):
            assert self.seen(each) == expected
        append(backend, draft("m-3"))
        assert ids(opened()) == ["m-0", "m-1", "m-2", "m-3"]
        assert path.read_text().startswith('{"chat_history": 1, "records": [\n{"chat": "chat123", ')

    def test_one_record_that_was_laid_out_anew_keeps_all(self, path: Path, opened: Opened) -> None:
        backend = opened()
        for number in range(3):
            append(backend, draft(f"m-{number}"))
        lines = path.read_text().split("\n")
        lines[2] = json.dumps({"note": {"a": 1, "payload": 2}, **json.loads(lines[2][:-1])}, indent=1) + ","
        path.write_text("\n".join(lines))
        assert ids(opened()) == ["m-0", "m-1", "m-2"]
        assert json.loads(path.read_text())["records"][1]["note"] == {"a": 1, "payload": 2}
        backend.write(CHAT, Change(NOW, statuses=[(1, "archived")], active=-1))
        backend.write(CHAT, Change(NOW, deletions=[0]))
        assert json.loads(path.read_text())["records"][0]["note"] == {"a": 1, "payload": 2}
        assert texts(opened()) == ["Hello!"] * 2

    def test_a_missing_newline_at_the_end_does_no_harm(self, path: Path, opened: Opened) -> None:
        append(opened(), draft("m-0"))
        path.write_text(path.read_text().rstrip("\n"))
        append(opened(), draft("m-1"))
        assert ids(opened()) == ["m-0", "m-1"]
        assert list(path.parent.iterdir()) == [path]

    def test_a_line_removed_by_hand_is_no_damage(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, *(draft(f"m-{n}") for n in range(3)))
        backend.write(CHAT, Change(NOW, statuses=[(1, "superseded")], active=-1))
        path.write_text("\n".join(line for line in path.read_text().split("\n") if '"id": "m-1"' not in line))
        assert ids(opened()) == ["m-0", "m-2"]

    @pytest.mark.parametrize(
        ("content", "error", "says"),
        [
            ('{"chat1": [{"role": "user", "content": "Hi"}]}', ConfigError, "chat-history import"),
            ('{"a": 1}', ConfigError, "another kind"),
            ("[]", ConfigError, "another kind"),
            ("SQLite format 3\0", ConfigError, "not JSON"),
            ("hello", ConfigError, "not JSON"),
            ('{"chat_history": 2, "records": [\n]}\n', NewerStoreError, "format 2.*format 1"),
            ('{"chat_history": 12, "lines": 7', NewerStoreError, "format 12.*format 1"),
            ('{"chat_history": 1, "records": [{"chat": "a", "position": 0}]}', DamagedStoreError, "record 1"),
            ('{"chat_history": 1,\n "records": [}', DamagedStoreError, "line 2"),
        ],
    )
    def test_what_is_not_ours_is_refused_and_left_as_it_is(
        self, path: Path, opened: Opened, content: str, error: type[Exception], says: str
    ) -> None:
        path.write_text(content)
        with pytest.raises(error, match=says):
            opened()
        assert path.read_text() == content
        assert list(path.parent.iterdir()) == [path]


def _is_open(fd: str) -> bool:
    """The descriptor that lists the others is closed by now."""
    return os.path.islink(f"/proc/self/fd/{fd}")


class TestRefusal:
    def test_paths_that_cannot_be_a_file_are_refused_in_plain_words(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path, tmp_path / "file" / "chats.json", "", "a\0b", "/dev/null", "/proc/nothing/chats.json"):
            with pytest.raises((ConfigError, StorageError)) as caught:
                JSONBackend(path)
            assert "Errno" not in str(caught.value)

    @pytest.mark.parametrize("options", [{"durability": "none"}, {"timeout": -1}, {"timeout": float("nan")}])
    def test_options_that_cannot_be_are_refused(self, path: Path, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            JSONBackend(path, **options)
        assert not path.exists()

    def test_a_read_only_file_is_read_and_not_written(self, path: Path, opened: Opened) -> None:
        append(opened(), draft("m-0"), draft("m-1"))
        path.chmod(0o400)
        before = path.read_bytes()
        backend = opened()
        assert ids(backend) == ["m-0", "m-1"]
        for write in (
            lambda: append(backend, draft("m-2")),
            lambda: backend.write(CHAT, Change(NOW, deletions=[0], active=-1)),
            lambda: backend.delete_chat(CHAT),
            lambda: backend.clear(ANN),
        ):
            with pytest.raises(StorageError, match="read-only"):
                write()
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]
        path.chmod(0o600)
        append(opened(), draft("m-2"))

    def test_a_read_only_file_that_needs_mending_says_so(self, path: Path, opened: Opened) -> None:
        append(opened(), draft("m-0"))
        path.write_bytes(path.read_bytes()[:-20])
        path.chmod(0o400)
        with pytest.raises(StorageError, match="read-only"):
            opened()

    def test_nothing_works_after_close(self, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0"))
        backend.close()
        backend.close()
        for call in (
            lambda: append(backend, draft("m-1")),
            lambda: backend.get_chat(CHAT),
            lambda: backend.outline(CHAT),
            lambda: backend.read(CHAT),
            lambda: backend.read_payloads(CHAT),
            lambda: backend.find(CHAT, ["m-0"]),
            lambda: backend.list_chats(ANN, limit=1),
            lambda: backend.chat_ids(ANN),
            lambda: backend.delete_chat(CHAT),
            lambda: backend.clear(ANN),
        ):
            with pytest.raises(HistoryClosedError):
                call()

    def test_no_descriptor_is_left_open(self, path: Path) -> None:
        for number in range(3):
            backend = JSONBackend(path)
            append(backend, draft(f"m-{number}"), draft(f"n-{number}"))
            backend.write(CHAT, Change(NOW, deletions=[2 * number], active=-1))
            backend.close()
        for content in (b"[]", b'{"chat_history": 1, "records": [\nx\n]}\n'):
            path.write_bytes(content)
            with pytest.raises((ConfigError, DamagedStoreError)):
                JSONBackend(path)
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        assert not [link for link in links if link.startswith(str(path.parent))]


def in_another_process(body: str, *args: object) -> subprocess.Popen[str]:
    """Runs some lines with `backend` open on the file that is the first argument, in a process of its own."""
    lines = [
        "import os, resource, sys, threading",
        "from test_json_file import *",
        "backend = JSONBackend(sys.argv[1])",
        *body.splitlines(),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", "\n".join(lines), *map(str, args)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Awakened(json_shared._Request):
    """A request whose thread, of this name, pauses when it is woken for the first time."""

    name = ""
    interruption: type[BaseException] | None = None
    woken: threading.Event
    may_go_on: threading.Event

    @classmethod
    def install(
        cls, monkeypatch: pytest.MonkeyPatch, name: str, interruption: type[BaseException] | None = None
    ) -> tuple[threading.Event, threading.Event]:
        cls.name, cls.interruption = name, interruption
        cls.woken, cls.may_go_on = threading.Event(), threading.Event()
        monkeypatch.setattr(json_shared, "_Request", cls)
        return cls.woken, cls.may_go_on

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__(change)
        self.wake = Pausing(self)  # type: ignore[assignment]


class Pausing:
    def __init__(self, request: Awakened) -> None:
        self.request = request
        self.queue: SimpleQueue[None] = SimpleQueue()
        self.put = self.queue.put
        self.is_waited_for = False

    def get(self, timeout: float | None = None) -> None:
        self.is_waited_for = True
        self.queue.get(timeout=timeout)
        request = self.request
        if threading.current_thread().name == request.name and not request.woken.is_set():
            request.woken.set()
            assert request.may_go_on.wait(60)
            if request.interruption is not None:
                raise request.interruption


class Writing(threading.Thread):
    """A thread that adds a message of its name."""

    def __init__(self, backend: JSONBackend, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.backend = backend
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            append(self.backend, draft(self.name))
        except BaseException as error:
            self.error = error

    def join(self, timeout: float | None = None) -> Any:
        super().join(timeout)
        return self.error


@contextmanager
def held(backend: JSONBackend) -> Iterator[None]:
    """The turn to write is somebody else's."""
    with backend._file._turn:
        yield
    backend._file._wake_next()


def asleep(backend: JSONBackend) -> int:
    """How many wait for their turn, and have found that it was not theirs."""
    return sum(request.wake.is_waited_for for request in list(backend._file._waiting))  # type: ignore[attr-defined]


def wait_until(is_so: Callable[[], bool]) -> None:
    until = monotonic() + 60
    while not is_so():
        assert monotonic() < until
        sleep(0.001)


class TestManyWriters:
    def test_processes_and_threads_lose_nothing(self, path: Path, opened: Opened) -> None:
        body = """
me, others = sys.argv[2], [chat_key(ANN, f"chat {n}") for n in range(3)]
def write(thread):
    for n in range(40):
        append(backend, draft(f"{me}-{thread}-{n}"))
        append(backend, draft(f"a-{me}-{thread}-{n}"), draft(f"b-{me}-{thread}-{n}"), chat=others[n % 3])
        if n % 10 == 0:
            append(backend, draft("x"), chat=chat_key(ANN, f"gone {me} {thread}"))
            assert backend.delete_chat(chat_key(ANN, f"gone {me} {thread}"))
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
        writers = [in_another_process(body, path, n) for n in range(4)]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"  # type: ignore[union-attr]
        backend = opened()
        for writer in writers:
            writer.stdin.write("\n")  # type: ignore[union-attr]
            writer.stdin.flush()  # type: ignore[union-attr]
        seen = 0
        while any(writer.poll() is None for writer in writers):
            now = len(backend.read_payloads(CHAT))
            assert now >= seen
            seen = now
        assert [writer.wait() for writer in writers] == [0] * 4
        for writer in writers:
            writer.communicate()
        assert [row[0] for row in backend.read_payloads(CHAT)] == list(range(4 * 2 * 40))
        stored = ids(backend)
        for me in range(4):
            for thread in range(2):
                mine = [each for each in stored if each.startswith(f"{me}-{thread}-")]
                assert mine == [f"{me}-{thread}-{n}" for n in range(40)]
        batches = [ids(backend, chat_key(ANN, f"chat {n}")) for n in range(3)]
        assert sum(map(len, batches)) == 4 * 2 * 40 * 2
        for batch in batches:
            assert [first[1:] for first in batch[::2]] == [second[1:] for second in batch[1::2]]
        json.loads(path.read_text())
        assert sorted(backend.chat_ids(ANN)) == ["chat 0", "chat 1", "chat 2", "chat123"]

    def test_eight_threads_lose_nothing(self, path: Path, opened: Opened) -> None:
        backend = opened()
        failures: list[BaseException] = []

        def write(me: int) -> None:
            try:
                for n in range(50):
                    append(backend, draft(f"{me}-{n}"))
                    assert f"{me}-{n}" in ids(backend)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert [row[0] for row in backend.read_payloads(CHAT)] == list(range(400))
        for me in range(8):
            assert [each for each in ids(opened()) if each.startswith(f"{me}-")] == [f"{me}-{n}" for n in range(50)]

    def test_one_whose_change_another_makes_waits_for_it_and_is_not_told_that_nothing_was_written(
        self, path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend = opened(timeout=0.2)
        append(backend, draft("first"))
        woken, may_go_on = Awakened.install(monkeypatch, "late")
        syncing, synced = threading.Event(), threading.Event()

        def slow_sync(fd: int) -> None:
            syncing.set()
            assert synced.wait(60)
            os.fdatasync(fd)

        monkeypatch.setattr(json_shared, "sync", slow_sync)
        with held(backend):
            late = Writing(backend, "late")
            wait_until(lambda: asleep(backend) == 1)
        assert woken.wait(60)  # the turn is its own, but it has not taken it yet
        quick = Writing(backend, "quick")
        assert syncing.wait(60)  # quick took it, and made the change of both
        with path.open("rb+") as other:
            fcntl.flock(other, fcntl.LOCK_EX)  # and now another process writes, for longer than anybody waits
            may_go_on.set()
            late.join(0.5)
            synced.set()
            late.join(60)
        assert (late.error, quick.join(60)) == (None, None)
        assert sorted(ids(backend)) == ["first", "late", "quick"]

    def test_one_who_is_interrupted_while_waiting_keeps_nobody_and_writes_nothing(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend = opened()
        _, may_go_on = Awakened.install(monkeypatch, "interrupted", KeyboardInterrupt)
        may_go_on.set()
        with held(backend):
            interrupted = Writing(backend, "interrupted")
            wait_until(lambda: asleep(backend) == 1)
            behind = Writing(backend, "behind")
            wait_until(lambda: asleep(backend) == 2)
        assert isinstance(interrupted.join(60), KeyboardInterrupt)
        assert behind.join(10) is None
        append(backend, draft("later"))
        assert ids(backend) == ["behind", "later"]

    def test_parent_and_forked_children_lose_nothing(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("before"))
        reading, writing = os.pipe()
        children = []
        for me in range(3):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    os.read(reading, 1)
                    for n in range(50):
                        append(backend, draft(f"{me}-{n}"))
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        os.write(writing, b"123")
        for n in range(50):
            append(backend, draft(f"parent-{n}"))
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 3
        os.close(reading)
        os.close(writing)
        assert [row[0] for row in backend.read_payloads(CHAT)] == list(range(201))

    def test_a_fork_while_another_thread_writes_does_not_hang_the_child(self, opened: Opened) -> None:
        backend = opened()
        with backend._file._turn, backend._file.indexing:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    append(backend, draft("child"))
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
        assert ids(backend) == ["child"]


class TestInterruption:
    @pytest.mark.parametrize("steps", range(12))
    def test_a_killed_writer_loses_nothing_that_it_was_told_is_kept(
        self, path: Path, opened: Opened, steps: int
    ) -> None:
        body = """
for n in range(10_000):
    append(backend, *(draft(f"{n}-{k}", "x" * 30_000) for k in range(1 + n % 3)))
    if n % 5 == 4:
        backend.write(CHAT, Change(NOW, deletions=[backend.read_payloads(CHAT, limit=1)[0][0]], active=-1))
    print(n, flush=True)
"""
        writer = in_another_process(body, path)
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < steps:
            pass
        threading.Event().wait((steps * 7919 % 13) / 2000)
        writer.kill()
        rest, _ = writer.communicate()
        kept = int(rest.split()[-1]) if rest.split() else steps

        expected: list[str] = []
        possible = []
        for n in range(kept + 2):
            expected = expected + [f"{n}-{k}" for k in range(1 + n % 3)]
            if n == kept + 1:
                possible.append(expected)
            if n % 5 == 4:
                expected = expected[1:]
            if n >= kept:
                possible.append(expected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ChatHistoryWarning)
            backend = opened()
        json.loads(path.read_text())
        assert ids(backend) in possible
        append(backend, draft("after"))
        assert ids(opened())[-1] == "after"

    def test_a_full_disk_leaves_the_file_as_it_was(self, path: Path, opened: Opened) -> None:
        body = """

append(backend, draft("m-0"))
before = Path(sys.argv[1]).read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3000, resource.RLIM_INFINITY))
refused = 0
for drafts in ([draft("m-1", "x" * 9000)], [draft(f"m-{n}", "x" * 200_000) for n in range(9)]):
    for deletions in ([], [0]):
        try:
            backend.write(CHAT, Change(NOW, drafts=drafts, active=len(drafts), deletions=deletions))
        except StorageError as error:
            assert "no more space" in str(error), error
            refused += 1
        assert Path(sys.argv[1]).read_bytes() == before
        assert ids(backend) == ["m-0"]
assert refused == 4
assert os.listdir(os.path.dirname(sys.argv[1])) == ["chats.json"]
append(backend, draft("m-1"))
assert ids(backend) == ["m-0", "m-1"]
"""
        writer = in_another_process(body, path)
        writer.communicate()
        assert writer.returncode == 0
        assert ids(opened()) == ["m-0", "m-1"]

    def test_a_failed_sync_is_told_and_not_covered_up(
        self, path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend = opened()
        append(backend, draft("m-0"))

        def failing(fd: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing)
            with pytest.raises(StorageError, match="failed to keep"):
                append(backend, draft("m-1"))
        with pytest.raises(StorageError, match="failed to keep"):
            append(backend, draft("m-2"))
        assert "m-0" in ids(backend)
        append(opened(), draft("m-3"))
        assert "m-2" not in ids(opened())

    def test_what_cannot_be_encoded_is_not_half_written(self, path: Path, opened: Opened) -> None:
        backend = opened()
        append(backend, draft("m-0"))
        before = path.read_bytes()
        lines = [draft(f"n-{n}", "x" * 100_000) for n in range(30)]
        with pytest.raises(UnicodeEncodeError):
            append(backend, *lines, lines[0]._replace(message_id="bad", text="\ud800", said=False))
        assert path.read_bytes() == before
        assert ids(backend) == ["m-0"]


class TestMemory:
    def test_the_index_is_small_and_holds_no_message(self, path: Path) -> None:
        with_long = Change(NOW, drafts=[draft(f"m-{n}", "x" * 1000) for n in range(20_000)], active=20_000)
        backend = JSONBackend(path, durability="relaxed")
        backend.write(CHAT, with_long)
        backend.close()
        assert path.stat().st_size > 20_000_000
        body = """
print(len(backend.read_payloads(CHAT, limit=50, newest=True)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
        empty = path.with_name("empty.json")
        used = []
        for file in (empty, path):
            out, _ = in_another_process(body, file).communicate()
            used.append(int(out.split()[1]))
        assert used[1] - used[0] < 12_000


@pytest.mark.parametrize("status", [None, "archived"])
def test_a_purge_of_many_chats_writes_the_file_anew_once(
    tmp_path: Path, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten: list[object] = []
    replaced = json_shared.replaced
    monkeypatch.setattr(json_shared, "replaced", lambda *given: rewritten.append(given) or replaced(*given))
    with open_history(tmp_path / "chats.json") as history:
        for number in range(30):
            history.add_messages(f"c{number}", [say("user", "first"), say("user", "second")])
            history.archive_oldest_messages(f"c{number}", 1)
        gone = history.purge(datetime.now(UTC), status=status)
        assert (gone.chats, gone.messages) == ((30, 60) if status is None else (0, 30))
        assert len(rewritten) == 1
        assert history.get_message_count("c7", None) == (0 if status is None else 1)


def test_chats_are_put_in_order_once_for_all_pages_and_again_when_one_was_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    slot = json_index.Chat.__dict__["updated_at"]
    counted = property(lambda chat: looks.append(chat) or slot.__get__(chat), slot.__set__)
    monkeypatch.setattr(json_index.Chat, "updated_at", counted)
    with open_history(tmp_path / "chats.json") as history, open_history(tmp_path / "chats.json") as other:
        for number in range(200):
            history.add_message(f"c{number}", say("user", "Hello!"))
        looks.clear()
        page = history.list_chats(limit=5)
        seen = [chat.chat_id for chat in page]
        while page.after:
            page = history.list_chats(limit=5, after=page.after)
            seen += [chat.chat_id for chat in page]
        assert seen == [f"c{number}" for number in reversed(range(200))]
        assert len(looks) < 10 * 200
        other.add_message("c0", say("user", "Back again."))
        first = history.list_chats(limit=3)
        assert [chat.chat_id for chat in first] == ["c0", "c199", "c198"]
        second = history.list_chats(limit=3, after=first.after)
        assert [chat.chat_id for chat in second] == ["c197", "c196", "c195"]
        assert list(history.list_chats(limit=3, before=second.before)) == list(first)

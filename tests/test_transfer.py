"""Chats move between stores, and to a file and back: all of them, as they were, also after interruptions."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from stores import DURABLE, SPAWN, Store, on

from chat_history import ChatExistsError, ChatHistory, InvalidArgumentError, StoredMessage, transfer
from chat_history.testing import check_chat, say

OWNERS = [("", ""), ("", "ann"), ("acme", "ann"), ("\u00e9", "\U0001f600'\"/")]
Seen = dict[tuple[str, str, str], tuple[Any, list[StoredMessage]]]


def fill(history: ChatHistory) -> None:
    """Everything that a store can hold."""
    for tenant, user in OWNERS:
        view = history.for_user(user, tenant_id=tenant)
        view.create_chat("empty", title="E", metadata={"a": [1.5, None, {"\u00fc": True}]})
        view.add_messages("c", [say("user", f"{tenant}/{user} {number}") for number in range(600)])
        view.update_chat("c", title="T\u2028", shared=user == "ann")
        view.archive_oldest_messages("c", 20)
    branched = history.for_user("bob")
    branched.add_message(
        "b", {"role": "user", "content": "a\0b\ud800", "z": 10**400, "a": 1e2}, metadata={"payload": 1}
    )
    branched.add_messages("b", Agent(TestModel()).run_sync("Hi").all_messages())
    branched.add_messages("b", [say("user", "a"), say("assistant", "b")], message_ids=["x", "y"])
    branched.switch_branch("b", "x")
    branched.add_message("b", say("assistant", "c"))
    branched.switch_branch("b", None)
    branched.add_message("b", say("user", "anew"))
    branched.switch_branch("b", "x")
    branched.archive_oldest_messages("b", 1)


def seen(history: ChatHistory) -> Seen:
    """All of a store, but for what is the store's own: versions, and positions where messages were deleted."""
    found: Seen = {}
    for owner in history._backend().owners():
        view = history.for_user(owner.user_id, tenant_id=owner.tenant_id)
        for chat_id in view.get_all_chat_ids():
            chat = view.get_chat(chat_id)
            fields = (chat.title, chat.metadata, chat.shared, chat.message_count, chat.created_at, chat.updated_at)
            found[owner.tenant_id, owner.user_id, chat_id] = fields, check_chat(view, chat_id)
    return found


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Another store than `store`."""
    kind: str = request.param
    if kind == "postgres":
        return Store(kind, request.getfixturevalue("postgres_url"), f"t{time.time_ns()}")
    return Store(kind, str(tmp_path / "target"))


into = pytest.mark.parametrize("target", DURABLE, indirect=True)


@into
@on(*DURABLE)
def test_a_copy_is_equal_message_by_message(store: Store, target: Store) -> None:
    with store.open() as one, target.open() as other:
        fill(one)
        told: list[transfer.Moved] = []
        moved = transfer.copy(one, other, progress=told.append)
        assert seen(other) == seen(one)
        assert moved == told[-1] == (9, 4 * 600 + sum(len(each[1]) for key, each in seen(one).items() if key[2] == "b"))
        assert told == sorted(told)
        before = seen(other)
        assert transfer.copy(one, other) == moved, "a second copy finds all there"
        assert seen(other) == before


@on(*DURABLE)
def test_an_export_comes_back_equal(store: Store) -> None:
    with store.open() as history, ChatHistory(Store("memory", ":memory:").backend()) as other:
        fill(history)
        file = io.StringIO()
        moved = transfer.export(history, file)
        assert len(file.getvalue().splitlines()) >= 1 + moved.chats + moved.messages
        file.seek(0)
        assert transfer.import_from(file, other) == moved
        assert seen(other) == seen(history)
        again = io.StringIO()
        transfer.export(other, again)
        assert again.getvalue() == file.getvalue()


@on(*DURABLE)
def test_half_of_a_surrogate_pair_comes_back_from_a_file_in_utf8(store: Store, tmp_path: Path) -> None:
    with store.open() as history, ChatHistory(Store("memory", ":memory:").backend()) as other:
        history.add_message("c", say("user", "a"), metadata={"\udfff": ["\\\ud83d"]})
        history.update_chat("c", metadata={"preview": "nice \ud83d"})
        with (tmp_path / "all.jsonl").open("w+", encoding="utf-8") as file:
            transfer.export(history, file)
            file.seek(0)
            transfer.import_from(file, other)
        assert seen(other) == seen(history)


@on("sqlite")
def test_an_export_says_all_of_a_message_on_its_line(store: Store) -> None:
    with store.open() as history:
        (one,) = history.add_messages("c", [say("user", "hi")], metadata={"m": 1})
        file = io.StringIO()
        transfer.export(history, file)
    header, chat, message, end = map(json.loads, file.getvalue().splitlines())
    assert header == {"chat_history_export": 1}
    assert end == {"chats": 1, "messages": 1}
    assert (chat["chat"], chat["head"]) == ("c", one.message_id)
    assert {name: message[name] for name in ("message_id", "payload", "status", "metadata", "text")} == {
        "message_id": one.message_id,
        "payload": one.payload,
        "status": "active",
        "metadata": {"m": 1},
        "text": "hi",
    }


@on("memory")
@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda lines: lines[1:], None),
        (lambda lines: [], None),
        (lambda lines: [*lines[:3], "{", *lines[3:]], 4),
        (lambda lines: [*lines[:2], "[]"], 3),
        (lambda lines: [*lines[:1], *lines[2:]], 2),
        (lambda lines: [*lines[:3], lines[3].replace('"payload"', '"pay"')], 4),
        (lambda lines: [*lines[:3], lines[3].replace('"chat": "c"', '"chat": "d"')], 4),
        (lambda lines: [*lines[:3], lines[3].replace('"status": "active"', '"status": "lost"')], 4),
        (lambda lines: [*lines[:2], "[" * 100_000 + "]" * 100_000], 3),
        (lambda lines: lines * 2, 6),
        (lambda lines: [*lines[:3], lines[4]], 4),
        (lambda lines: [*lines[:4], lines[4].replace("2", "3")], 5),
    ],
)
def test_a_file_that_is_no_export_is_refused_and_names_the_line(store: Store, spoil: Any, line: int | None) -> None:
    with store.open() as history, ChatHistory(Store("memory", ":memory:").backend()) as other:
        history.add_messages("c", [say("user", "a"), say("user", "b")])
        file = io.StringIO()
        transfer.export(history, file)
        spoilt = io.StringIO("".join(f"{each}\n" for each in spoil(file.getvalue().splitlines())))
        with pytest.raises(InvalidArgumentError, match="no export" if line is None else f"line {line} "):
            transfer.import_from(spoilt, other)


@on("memory", "json", "sqlite")
def test_an_export_that_was_cut_off_is_refused_and_the_whole_one_goes_on_from_there(store: Store) -> None:
    with ChatHistory(Store("memory", ":memory:").backend()) as one, store.open() as other:
        fill(one)
        file = io.StringIO()
        transfer.export(one, file)
        lines = [f"{line}\n" for line in file.getvalue().strip().split("\n")]
        for cut in [1, 2, 3, *range(4, len(lines), 97), len(lines) - 1]:
            with pytest.raises(InvalidArgumentError, match="cut off"):
                transfer.import_from(io.StringIO("".join(lines[:cut])), other)
        for wrong, why in ((lines[:1] + lines[2:], "what stands before it"), ([*lines, lines[-1]], "after the end")):
            with pytest.raises(InvalidArgumentError, match=why):
                transfer.import_from(io.StringIO("".join(wrong)), other)
        file.seek(0)
        transfer.import_from(file, other)
        assert seen(other) == seen(one)


@on("memory")
def test_an_export_that_went_through_an_editor_is_read(store: Store, tmp_path: Path) -> None:
    with store.open() as history, ChatHistory(Store("memory", ":memory:").backend()) as other:
        history.add_messages("c", [say("user", "a"), say("user", "b")])
        with (tmp_path / "all.jsonl").open("w", encoding="utf-8-sig", newline="\r\n") as file:
            transfer.export(history, file)
        with (tmp_path / "all.jsonl").open(encoding="utf-8") as file:
            transfer.import_from(file, other)
        assert seen(other) == seen(history)


@on("memory")
def test_an_export_that_is_no_text_is_refused(store: Store) -> None:
    lines = io.BytesIO(b'{"chat_history_export": 1}\n{"tenant": "\xff"}\n')
    with store.open() as history, pytest.raises(InvalidArgumentError, match="not text in UTF-8"):
        transfer.import_from(io.TextIOWrapper(lines, encoding="utf-8"), history)


@on("json", "sqlite")
@pytest.mark.parametrize(
    ("line", "change", "why"),
    [
        (2, {"chat": ""}, "chat is empty"),
        (2, {"chat": 5}, "chat must be a str"),
        (2, {"title": 5}, "title must be a str"),
        (2, {"shared": 1}, "shared is neither"),
        (2, {"created_at": "2026-01-01T00:00:00"}, "no time zone"),
        (2, {"metadata": [1]}, "metadata must be a dict"),
        (2, {"head": "nobody"}, "'nobody' that it does not have"),
        (3, {"message_id": "a\0b"}, "NUL"),
        (3, {"message_id": "x" * 256}, "256 characters"),
        (3, {"parent": "nobody"}, "does not stand before it"),
        (3, {"role": None}, "role must be a str"),
        (3, {"text": "\ud800"}, "surrogate"),
        (3, {"text": None}, "text must be a str"),
        (3, {"created_at": "2026-01-01"}, "no time zone"),
        (3, {"payload": '{"role": "user",\n "content": "a"}'}, "several lines"),
        (3, {"payload": "{"}, "Expecting property name"),
        (3, {"metadata": {"n": float("nan")}}, "metadata cannot be kept"),
        (2, {"created_at": "0001-01-01T00:00:00+14:00"}, "out of range"),
        (3, {"payload": '{"role": "user", "content": ' + "[" * 100_000 + "]" * 100_000 + "}"}, "nested too deeply"),
        (3, {"payload": "[]"}, "payload is no object"),
        (3, {"payload": '{"role": "user", "content": NaN}'}, "no JSON"),
        (3, {"status": "gone"}, "'gone'"),
        (4, {"message_id": "0"}, "'0' already"),
        (4, {"user": "bob"}, "another chat"),
        (4, {"parent": None}, "active, and does not follow '0'"),
        (3, {"status": "superseded"}, "active, and does not follow None"),
        (4, {"status": "archived"}, "a message before it is active"),
        (2, {"head": "0"}, "last active message is '1'"),
        (2, {"head": None}, "last active message is '1'"),
    ],
)
def test_what_no_store_could_have_exported_is_refused(store: Store, line: int, change: Any, why: str) -> None:
    with ChatHistory(Store("memory", ":memory:").backend()) as one, store.open() as other:
        one.add_messages("c", [say("user", "a"), say("assistant", "b")], message_ids=["0", "1"])
        file = io.StringIO()
        transfer.export(one, file)
        lines = [json.loads(each) for each in file.getvalue().splitlines()]
        lines[line - 1].update(change)
        if line == 2 and "chat" in change:
            lines[2].update(change)
        with pytest.raises(InvalidArgumentError, match=rf"line \d of the export cannot be read: .*{why}"):
            transfer.import_from(io.StringIO("".join(f"{json.dumps(each)}\n" for each in lines)), other)
        assert all(other.get_message_count(chat, status=None) == 0 for chat in other.get_all_chat_ids())


@on(*DURABLE)
def test_times_of_any_zone_are_the_same_moments(store: Store) -> None:
    with ChatHistory(Store("memory", ":memory:").backend()) as one, store.open() as other:
        sent = one.add_message("c", say("user", "a"))
        file = io.StringIO()
        transfer.export(one, file)
        elsewhere = sent.created_at.astimezone(timezone(timedelta(hours=2))).isoformat()
        transfer.import_from(io.StringIO(file.getvalue().replace(sent.created_at.isoformat(), elsewhere)), other)
        assert other.get_messages("c")[0] == sent
        assert other.get_chat("c").updated_at == one.get_chat("c").updated_at


@on(*DURABLE)
@pytest.mark.parametrize("begun", ["1970-01-01T00:00:00+00:00", "1969-07-20T20:17:00+00:00"])
def test_a_chat_that_began_before_computers_count_arrives(store: Store, begun: str) -> None:
    chat = {"tenant": "", "user": "", "chat": "c"}
    head = chat | {"title": "", "shared": False, "head": None, "created_at": begun, "updated_at": begun}
    lines = [transfer.HEADER, head | {"metadata": None}, {"chats": 1, "messages": 0}]
    with store.open() as history:
        assert transfer.import_from(io.StringIO("\n".join(map(json.dumps, lines))), history) == (1, 0)
        version = history.get_chat("c").version
        assert version > 0
        history.add_message("c", say("user", "hi"), expected_version=version)
        assert history.get_chat("c").created_at.isoformat() == begun


@into
@on("sqlite")
def test_a_chat_with_other_messages_is_left_as_it_is(store: Store, target: Store) -> None:
    with store.open() as one, target.open() as other:
        one.add_messages("c", [say("user", "a"), say("user", "b")], message_ids=["0", "1"])
        for mine in (["x"], ["a"], ["a", "b", "c"]):
            other.delete_chat_history("c")
            other.add_messages("c", [say("user", each) for each in mine], message_ids=["0", "1", "2"][: len(mine)])
            before = seen(other)
            with pytest.raises(ChatExistsError, match="'c' with other messages"):
                transfer.copy(one, other)
            assert seen(other) == before


@on(*DURABLE)
def test_a_view_of_one_user_moves_nobody_elses_chats(store: Store) -> None:
    with store.open() as history, ChatHistory(Store("memory", ":memory:").backend()) as other:
        fill(history)
        ann = history.for_user("ann", tenant_id="acme")
        hers = {key: chat for key, chat in seen(history).items() if key[:2] == ("acme", "ann")}
        mine, everybodys = io.StringIO(), io.StringIO()
        assert transfer.export(ann, mine) == transfer.copy(ann, other) == (2, 600)
        assert seen(other) == hers
        shown = io.StringIO()
        transfer.export(history.for_user("bob", tenant_id="acme").shared_by("ann"), shown)
        lines = list(map(json.loads, shown.getvalue().strip().split("\n")))[1:-1]
        assert {(line["tenant"], line["user"], line["chat"]) for line in lines} == {("acme", "ann", "c")}
        transfer.export(history, everybodys)
        for view, file in ((other.for_user("bob"), mine), (other.for_user("ann", tenant_id="acme"), everybodys)):
            file.seek(0)
            with pytest.raises(InvalidArgumentError, match="is another user's"):
                transfer.import_from(file, view)
        with pytest.raises(InvalidArgumentError, match="is another user's"):
            transfer.copy(history, other.for_user("bob"))
        assert seen(other) == hers


@into
@on("json", "sqlite")
def test_an_interrupted_copy_is_gone_on_with(store: Store, target: Store) -> None:
    with store.open() as one:
        fill(one)
        for stop in (1, 4, 9):
            steps = iter(range(stop))
            with target.open() as other, pytest.raises(StopIteration):
                transfer.copy(one, other, progress=lambda moved, steps=steps: next(steps))
        with target.open() as other:
            transfer.copy(one, other)
            assert seen(other) == seen(one)


@into
@on("sqlite")
def test_what_was_archived_or_renamed_before_a_copy_goes_on_arrives_so(store: Store, target: Store) -> None:
    with store.open() as one, target.open() as other:
        one.add_messages("c", [say("user", str(number)) for number in range(1000)])
        one.archive_oldest_messages("c", 100)
        steps = iter(range(2))
        with pytest.raises(StopIteration):
            transfer.copy(one, other, progress=lambda moved: next(steps))
        assert other.get_message_count("c", status="archived") == 100
        one.archive_oldest_messages("c", 50)
        one.update_chat("c", title="Another", metadata={"a": 1}, shared=True)
        transfer.copy(one, other)
        assert seen(other) == seen(one)


def _copy(store: Store, target: Store) -> None:
    with store.open() as one, target.open() as other:
        transfer.copy(one, other)


@into
@on("json", "sqlite")
def test_a_copy_that_was_killed_twice_and_resumed_is_equal(store: Store, target: Store) -> None:
    with store.open() as one, target.open() as other:
        one.add_messages("c", [say("user", str(number)) for number in range(4000)])
        one.add_messages("d", [say("user", str(number)) for number in range(4000)])
        for least in (1, 3000):
            process = SPAWN.Process(target=_copy, args=(store, target))
            process.start()
            while sum(map(other.get_message_count, ("c", "d"))) < least and process.is_alive():
                time.sleep(0.001)
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        transfer.copy(one, other)
        assert seen(other) == seen(one)


@on(*DURABLE)
def test_a_chat_that_others_delete_from_meanwhile_is_read_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    walk, doomed = transfer.walk, ["c", "c", "d"]

    def meddle(*given: Any) -> Any:
        if doomed:
            chat_id = doomed.pop(0)
            history.delete_last_message(chat_id) if chat_id == "c" else history.delete_chat_history(chat_id)
        return walk(*given)

    with store.open() as history, ChatHistory(Store("memory", ":memory:").backend()) as other:
        history.add_messages("c", [say("user", str(number)) for number in range(5)])
        history.add_messages("d", [say("user", str(number)) for number in range(5)])
        monkeypatch.setattr(transfer, "walk", meddle)
        assert transfer.copy(history, other) == (1, 3)
        assert seen(other) == seen(history)


@into
@on("sqlite")
def test_who_is_written_to_meanwhile_is_named(store: Store, target: Store) -> None:
    with store.open() as one, target.open() as other:
        one.add_messages("c", [say("user", str(number)) for number in range(1000)])

        def meddle(moved: transfer.Moved) -> None:
            other.add_message("c", say("user", "mine"))

        with pytest.raises(RuntimeError, match="changed since"):
            transfer.copy(one, other, progress=meddle)

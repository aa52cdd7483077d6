"""What the contract of `Backend` says beyond what `ChatHistory` shows of it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chat_history.backends.base import (
    Backend,
    Change,
    ChatKey,
    Draft,
    Record,
    Removal,
    chat_key,
    first_version,
    owner_key,
)
from chat_history.errors import VersionConflictError
from chat_history.saving import digest

from .checks import Reopen

__all__ = ["Primitives"]

NOW = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
OWNER = owner_key("tenant", "user")
KEY: ChatKey = chat_key(OWNER, "chat")
OTHER: ChatKey = chat_key(OWNER, "other")


def draft(message_id: str, payload: str = '{"role": "user"}') -> Draft:
    return Draft(message_id, "user", "openai", "", payload, "", digest(payload), NOW)


class Primitives:
    """What the contract of `Backend` says beyond what `ChatHistory` shows of it."""

    def test_a_payload_is_given_back_byte_for_byte(self, backend: Backend, reopen: Reopen) -> None:
        payload = '{ "role":"user" ,  "b": 1.0, "a":1e2, "a": "\\u0041\\/\u00e9\U0001f600", "n": -0, "z":[ ]}'
        backend.write(KEY, Change(NOW, drafts=[draft("0", payload), draft("1", "[]"), draft("2", "null")], active=3))
        for opened in (backend, reopen()._backend()):
            assert [record.payload for record in opened.read(KEY)] == [payload, "[]", "null"]
            assert [row[3] for row in opened.read_payloads(KEY)] == [payload, "[]", "null"]

    def test_a_record_keeps_every_field(self, backend: Backend, reopen: Reopen) -> None:
        when = datetime(2001, 2, 3, 4, 5, 6, 789_123, tzinfo=UTC)
        given = Draft("id", "r\u00f6le", "my_format", "1.2.3", '{"a": 1}', "t\u00e9xt\n", b"d" * 16, when, '{"m": 1}')
        backend.write(KEY, Change(NOW, drafts=[given], active=1))
        expected = Record(
            0, "id", None, "active", "r\u00f6le", "my_format", "1.2.3", '{"a": 1}', "t\u00e9xt\n", when, '{"m": 1}'
        )
        for opened in (backend, reopen()._backend()):
            assert opened.read(KEY) == opened.find(KEY, ["id"]) == [expected]
            assert [tuple(row) for row in opened.read_payloads(KEY)] == [(0, "r\u00f6le", "my_format", '{"a": 1}')]
            outline = opened.outline(KEY)
            assert outline is not None
            assert [(*row[:4], bytes(row[4])) for row in outline.rows] == [(0, "id", None, "active", b"d" * 16)]

    def test_a_message_arrives_with_the_status_that_it_had(self, backend: Backend, reopen: Reopen) -> None:
        for many, statuses in enumerate((["archived"], ["archived", "superseded", "active"], ["superseded"] * 300)):
            key = chat_key(OWNER, str(many))
            given = [draft(str(number))._replace(status=status) for number, status in enumerate(statuses)]
            backend.write(key, Change(NOW, 0, given, active=statuses.count("active")))
            for opened in (backend, reopen()._backend()):
                assert [record.status for record in opened.read(key, status=None)] == statuses
                outline, record = opened.outline(key), opened.get_chat(key)
                assert outline is not None
                assert record is not None
                assert [row[3] for row in outline.rows] == statuses
                assert (record.message_count, record.head) == (statuses.count("active"), given[-1].message_id)
                assert len(opened.read(key)) == record.message_count

    def test_reads_are_a_range_of_positions(self, backend: Backend) -> None:
        backend.write(KEY, Change(NOW, drafts=[draft(str(number)) for number in range(6)], active=6))
        at = backend.outline(KEY)
        assert at is not None
        backend.write(KEY, Change(NOW, at.version, statuses=[(1, "archived"), (4, "superseded")], deletions=[3]))
        statuses = {0: "active", 1: "archived", 2: "active", 4: "superseded", 5: "active"}
        edges = (None, 0, 2, 3, 5, 9)
        for after, before, status in itertools.product(edges, edges, ("active", "archived", "superseded", None)):
            found = [
                position
                for position, its in statuses.items()
                if (after is None or position > after)
                and (before is None or position < before)
                and status in (None, its)
            ]
            for limit, newest in itertools.product((None, 1, 2, 9), (False, True)):
                few = found if limit is None else found[-limit:] if newest else found[:limit]
                where: dict[str, Any] = {"after": after, "before": before, "status": status}
                where |= {"limit": limit, "newest": newest}
                assert [record.position for record in backend.read(KEY, **where)] == few, where
                assert [row[0] for row in backend.read_payloads(KEY, **where)] == few, where

    def test_find_gives_the_records_of_ids_by_position(self, backend: Backend) -> None:
        backend.write(KEY, Change(NOW, drafts=[draft(str(number)) for number in range(5)], active=5))
        assert [record.message_id for record in backend.find(KEY, ["4", "x", "0", "2", "0"])] == ["0", "2", "4"]
        many = [f"none {number}" for number in range(40_000)]
        assert [record.message_id for record in backend.find(KEY, [*many, "3"])] == ["3"]
        assert backend.find(KEY, []) == backend.find(OTHER, ["0"]) == []

    def test_a_change_does_all_it_says_at_once(self, backend: Backend) -> None:
        first = backend.write(KEY, Change(NOW, 0, [draft(each) for each in "abcd"], active=4, title="T"))
        assert (first.version, first.position, first.parent) == (first_version(NOW), 0, None)
        change = Change(
            NOW,
            first.version,
            [draft("e"), draft("f")],
            follows="a",
            active=-1,
            statuses=[(1, "superseded"), (3, "superseded")],
            parents=[(3, "b")],
            replacements=[(0, draft("ignored", '{"role": "user", "new": 1}')._replace(text="new", metadata='{"m":1}'))],
            deletions=[2],
            title="U",
            metadata='{"a": 1}',
            shared=True,
        )
        assert not change.appends_only
        written = backend.write(KEY, change)
        assert (written.version, written.position, written.parent) == (first.version + 1, 4, "a")
        assert [
            (each.position, each.message_id, each.parent, each.status) for each in backend.read(KEY, status=None)
        ] == [
            (0, "a", None, "active"),
            (1, "b", "a", "superseded"),
            (3, "d", "b", "superseded"),
            (4, "e", "a", "active"),
            (5, "f", "e", "active"),
        ]
        (replaced,) = backend.find(KEY, ["a"])
        assert (replaced.payload, replaced.text, replaced.metadata) == ('{"role": "user", "new": 1}', "new", '{"m":1}')
        chat = backend.get_chat(KEY)
        assert chat is not None
        assert (chat.title, chat.metadata, chat.shared, chat.head) == ("U", '{"a": 1}', True, "f")
        assert (chat.message_count, chat.version) == (3, written.version)

    def test_a_replacement_keeps_id_parent_status_and_time_and_nothing_else(self, backend: Backend) -> None:
        given = [draft(each)._replace(status=status) for each, status in (("a", "archived"), ("b", "superseded"))]
        at = backend.write(KEY, Change(NOW, 0, [*given, draft("c")], active=1)).version
        new = Draft("x", "tool", "my_format", "2", '{"a": 1}', "new", b"n" * 16, LATER, '{"m": 1}')
        backend.write(KEY, Change(LATER, at, replacements=[(position, new) for position in range(3)]))
        assert backend.read(KEY, status=None) == [
            Record(position, each, parent, status, "tool", "my_format", "2", '{"a": 1}', "new", NOW, '{"m": 1}')
            for position, each, parent, status in (
                (0, "a", None, "archived"),
                (1, "b", "a", "superseded"),
                (2, "c", "b", "active"),
            )
        ]
        outline = backend.outline(KEY)
        assert outline is not None
        assert [bytes(row[4]) for row in outline.rows] == [b"n" * 16] * 3

    def test_owners_are_those_who_have_a_chat_by_tenant_and_user(self, backend: Backend) -> None:
        owners = [owner_key(*names) for names in (("", "b"), ("", "a"), ("t", ""), ("", ""), ("s", "z"))]
        for owner in owners:
            backend.write(chat_key(owner, "c"), Change(NOW, 0))
        assert backend.owners() == sorted(owners)
        assert backend.delete_chat(chat_key(owners[0], "c"))
        assert backend.clear(owners[4]).chats == 1
        assert backend.owners() == sorted(owners[1:4])

    def test_a_change_at_another_version_does_nothing_of_what_it_says(self, backend: Backend) -> None:
        at = backend.write(KEY, Change(NOW, drafts=[draft("a"), draft("b")], active=2)).version
        before = backend.get_chat(KEY), backend.read(KEY, status=None)
        for expected in (0, at - 1, at + 1):
            with pytest.raises(VersionConflictError) as caught:
                backend.write(
                    KEY,
                    Change(
                        LATER,
                        expected,
                        [draft("c")],
                        follows=None,
                        statuses=[(0, "superseded")],
                        replacements=[(0, draft("a", "{}"))],
                        deletions=[1],
                        title="x",
                    ),
                )
            assert (caught.value.expected, caught.value.actual) == (expected, at)
            assert (backend.get_chat(KEY), backend.read(KEY, status=None)) == before

    def test_what_goes_of_many_chats_goes_where_nobody_wrote_meanwhile(self, backend: Backend, reopen: Reopen) -> None:
        keys = [chat_key(OWNER, str(number)) for number in range(4)]
        for key in keys:
            backend.write(key, Change(NOW, drafts=[draft("a"), draft("b"), draft("c")], active=3))
        versions = [each.version for key in keys if (each := backend.get_chat(key))]

        def partly(version: int) -> Change:
            kept = draft("b", '"anew"')
            return Change(NOW, version, deletions=[0], replacements=[(1, kept)], parents=[(1, None)], active=-1)

        removals = [Removal(key, version, partly(version)) for key, version in zip(keys, versions, strict=True)]
        removals[1] = removals[1]._replace(change=None)
        stale = versions[2] - 1
        removals[2] = Removal(keys[2], stale, partly(stale))
        removals[3] = Removal(keys[3], versions[3] - 1, None)
        removals += [Removal(OTHER, 5, None), Removal(chat_key(OWNER, "no chat"), 5, partly(5))]
        assert backend.remove_each(removals) == [True, True, False, False, False, False]
        assert backend.remove_each([]) == []
        for opened in (backend, reopen()._backend()):
            assert sorted(opened.chat_ids(OWNER)) == ["0", "2", "3"]
            assert [(each.message_id, each.parent, each.payload) for each in opened.read(keys[0])] == [
                ("b", None, '"anew"'),
                ("c", "b", '{"role": "user"}'),
            ]
            found = opened.get_chat(keys[0])
            assert found is not None
            assert (found.version, found.message_count, found.head) == (versions[0] + 1, 2, "c")
            assert [[each.message_id for each in opened.read(key)] for key in keys[1:]] == [[], [*"abc"], [*"abc"]]

    def test_a_head_and_a_parent_may_be_the_root(self, backend: Backend) -> None:
        at = backend.write(KEY, Change(NOW, drafts=[draft("a")], active=1)).version
        at = backend.write(KEY, Change(NOW, at, statuses=[(0, "superseded")], active=-1, head=None)).version
        chat = backend.get_chat(KEY)
        assert chat is not None
        assert chat.head is None
        written = backend.write(KEY, Change(NOW, drafts=[draft("b")], active=1))
        assert (written.position, written.parent) == (1, None)
        written = backend.write(KEY, Change(NOW, written.version, [draft("c")], follows=None, active=1))
        assert (written.position, written.parent) == (2, None)
        assert backend.write(KEY, Change(NOW, title="x")) == (written.version + 1, 0, None)

    def test_the_time_of_the_last_activity_never_goes_back(self, backend: Backend) -> None:
        backend.write(KEY, Change(LATER, drafts=[draft("a")], active=1))
        backend.write(KEY, Change(NOW, drafts=[draft("b")], active=1))
        chat = backend.get_chat(KEY)
        assert chat is not None
        assert (chat.created_at, chat.updated_at) == (LATER, LATER)
        assert chat.version == first_version(LATER) + 1
        backend.append(KEY, draft("c"))
        backend.write(KEY, Change(NOW, first_version(LATER) + 2, title="T"))
        chat = backend.get_chat(KEY)
        assert chat is not None
        assert (chat.created_at, chat.updated_at, chat.title) == (LATER, LATER, "T")

    def test_chats_of_the_same_moment_are_listed_by_key(self, backend: Backend) -> None:
        keys = [chat_key(OWNER, f"chat {number}") for number in range(12)]
        times = [NOW + timedelta(microseconds=number // 4) for number in range(12)]
        for key, time in zip(keys, times, strict=True):
            backend.write(key, Change(time, 0))
        places = sorted(((time, key.key, key.chat_id) for key, time in zip(keys, times, strict=True)), reverse=True)
        order = [chat_id for _, _, chat_id in places]
        assert [chat.chat_id for chat in backend.list_chats(OWNER, limit=99)] == order
        assert backend.chat_ids(OWNER) == order[::-1]
        for index, (time, its_key, _) in enumerate(places):
            for limit in (1, 3):
                after = backend.list_chats(OWNER, limit=limit, after=(time, its_key))
                assert [each.chat_id for each in after] == order[index + 1 :][:limit]
                before = backend.list_chats(OWNER, limit=limit, before=(time, its_key))
                assert [each.chat_id for each in before] == order[:index][-limit:]

    def test_an_unknown_chat_is_nothing_to_any_primitive(self, backend: Backend) -> None:
        assert backend.get_chat(KEY) is None
        assert backend.outline(KEY) is None
        assert [*backend.read(KEY), *backend.read_payloads(KEY), *backend.find(KEY, ["a"])] == []
        assert not backend.delete_chat(KEY)
        assert [*backend.list_chats(OWNER, limit=5), *backend.chat_ids(OWNER)] == []
        assert backend.clear(OWNER) == (0, 0)

    def test_closing_twice_is_harmless(self, backend: Backend) -> None:
        assert backend.location
        assert backend.name
        backend.close()
        backend.close()

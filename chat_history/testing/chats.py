"""Chats are made, listed, changed and deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chat_history.errors import ChatExistsError, ChatNotFoundError, InvalidArgumentError, VersionConflictError
from chat_history.history import ChatHistory
from chat_history.messages import MessageStatus, Page

from .checks import Reopen, check_chat, contents, say, says, version

__all__ = ["Chats"]

ODD_ID = 'it\'s "a" chat/../with\\slashes\n%s {} ; -- \u00e9 \U0001f600 ' + "\u4e2d\U0001f680" * 5000
"""Over 10,000 characters of everything that a store could take for something else."""


class Chats:
    """Chats are made, listed, changed and deleted."""

    def test_a_created_chat_is_there_without_messages(self, history: ChatHistory) -> None:
        before = datetime.now(UTC)
        chat = history.create_chat("c", title="Ti\U0001f600tle", metadata={"a": [1, "\0"]})
        assert chat == history.get_chat("c")
        assert (chat.chat_id, chat.user_id, chat.tenant_id) == ("c", "", "")
        assert (chat.title, chat.metadata) == ("Ti\U0001f600tle", {"a": [1, "\0"]})
        assert (chat.shared, chat.message_count) == (False, 0)
        assert before <= chat.created_at == chat.updated_at <= datetime.now(UTC)
        assert chat.created_at.utcoffset() == timedelta(0)
        assert history.chat_exists("c")
        assert history.get_chat_history("c") == []

    def test_chats_without_an_id_get_one(self, history: ChatHistory) -> None:
        assert len({history.create_chat().chat_id for _ in range(5)}) == len(history.get_all_chat_ids()) == 5

    def test_a_chat_is_created_once(self, two: ChatHistory) -> None:
        with pytest.raises(ChatExistsError, match="'c'"):
            two.create_chat("c", title="again")
        assert two.get_chat("c").title == ""

    def test_a_chat_that_is_not_there_is_an_error(self, history: ChatHistory) -> None:
        with pytest.raises(ChatNotFoundError, match="'c'"):
            history.get_chat("c")
        with pytest.raises(ChatNotFoundError, match="'c'"):
            history.update_chat("c", title="x")
        with pytest.raises(VersionConflictError):
            history.update_chat("c", title="x", expected_version=3)
        assert not history.chat_exists("c")

    def test_update_chat_changes_what_is_given_and_nothing_else(self, two: ChatHistory) -> None:
        expected = two.get_chat("c")
        changes: list[dict[str, Any]] = [{"title": "T"}, {"metadata": {"a": 1}}, {"shared": True}, {"title": ""}]
        for change in [*changes, {"shared": False}, {"title": "U", "metadata": {}}]:
            chat = two.update_chat("c", **change)
            expected = replace(expected, **change, version=chat.version, updated_at=chat.updated_at)
            assert chat == two.get_chat("c") == expected
        assert two.update_chat("c", metadata=None).metadata == {}
        assert contents(two) == ["a", "b"]

    def test_update_chat_at_another_version_is_refused(self, two: ChatHistory) -> None:
        was = version(two)
        two.update_chat("c", title="first", expected_version=was)
        with pytest.raises(VersionConflictError):
            two.update_chat("c", title="second", expected_version=was)
        assert two.get_chat("c").title == "first"

    def test_writes_keep_a_chats_title_and_metadata(self, history: ChatHistory) -> None:
        created = history.create_chat("c", title="T", metadata={"a": 1})
        history.update_chat("c", shared=True)
        history.add_messages("c", says("a", "b"))
        history.save_messages("c", says("a", "x"))
        history.delete_last_message("c")
        chat = history.get_chat("c")
        assert (chat.title, chat.metadata, chat.shared, chat.message_count) == ("T", {"a": 1}, True, 1)
        assert chat.created_at == created.created_at < chat.updated_at

    def test_chats_are_listed_by_their_newest_activity(self, history: ChatHistory) -> None:
        for chat in "abc":
            history.create_chat(chat)
        history.add_message("a", say("user", "x"))
        history.update_chat("b", title="x")
        chats = history.list_chats()
        assert [chat.chat_id for chat in chats] == ["b", "a", "c"]
        assert (chats.before, chats.after) == (None, None)
        assert [history.get_chat(chat.chat_id) for chat in chats] == list(chats)
        history.delete_chat_history("b")
        assert [chat.chat_id for chat in history.list_chats()] == ["a", "c"]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
    def test_pages_of_chats_give_every_chat_once_in_both_directions(self, history: ChatHistory, limit: int) -> None:
        for chat in "gfedcba":
            history.create_chat(chat)
        page = history.list_chats(limit)
        seen = [page]
        while page.after:
            page = history.list_chats(limit, after=page.after)
            seen.append(page)
            history.create_chat()  # comes to the front, behind us
        assert [chat.chat_id for page in seen for chat in page] == list("abcdefg")
        back = [chat.chat_id for chat in page]
        while page.before:
            page = history.list_chats(limit, before=page.before)
            assert page.after
            back[:0] = [chat.chat_id for chat in page]
        assert back[-7:] == list("abcdefg")
        assert len(back) == len(history.get_all_chat_ids())

    def test_an_empty_page_of_chats_knows_the_way_back(self, history: ChatHistory) -> None:
        for chat in "cba":
            history.create_chat(chat)
        page = history.list_chats(2)
        history.delete_chat_history("c")
        empty = history.list_chats(after=page.after)
        assert (len(empty), empty.after) == (0, None)
        assert [chat.chat_id for chat in history.list_chats(before=empty.before)] == ["a", "b"]
        second = history.list_chats(1, after=history.list_chats(1).after)
        history.delete_chat_history("a")
        empty = history.list_chats(before=second.before)
        assert (len(empty), empty.before) == (0, None)
        assert [chat.chat_id for chat in history.list_chats(after=empty.after)] == ["b"]
        history.clear_all()
        assert history.list_chats(after=empty.after) == Page(())

    def test_chat_ids_come_oldest_chat_first(self, history: ChatHistory) -> None:
        for chat in ("b", "a", ODD_ID):
            history.add_message(chat, say("user", "x"))
        history.add_message("b", say("user", "y"))
        assert history.get_all_chat_ids() == ["b", "a", ODD_ID]

    def test_a_deleted_chat_is_gone_with_all_of_its_messages(self, two: ChatHistory) -> None:
        two.save_messages("c", says("a", "x"))
        two.add_message("other", say("user", "y"))
        assert two.delete_chat_history("c")
        assert not two.delete_chat_history("c")
        assert two.get_all_chat_ids() == ["other"]
        assert check_chat(two, "c") == []
        assert two.add_message("c", say("user", "z")).position == 0
        assert contents(two, "other") == ["y"]

    def test_clear_all_leaves_no_chat_and_says_how_many_there_were(self, two: ChatHistory) -> None:
        two.create_chat("d")
        assert two.clear_all() == 2
        assert two.clear_all() == 0
        assert two.get_all_chat_ids() == []
        assert two.get_chat_history("c") == []
        assert len(two.save_messages("c", says("a", "b"))) == 2

    @pytest.mark.parametrize("chat", [ODD_ID, "C", "c ", "\u00e9", "e\u0301", "../c", "%", "_", "'", '"', "\\", "\n"])
    def test_a_chat_id_may_be_any_text(self, history: ChatHistory, reopen: Reopen, chat: str) -> None:
        history.add_message("c", say("user", "other"))
        history.create_chat(chat, title=chat)
        history.add_message(chat, say("user", "mine"))
        assert reopen().get_chat(chat).title == chat
        assert contents(history, chat) == ["mine"]
        assert history.get_all_chat_ids() == ["c", chat]
        assert [each.chat_id for each in history.list_chats()] == [chat, "c"]
        assert history.delete_chat_history(chat)
        assert contents(history) == ["other"]

    def test_long_chat_ids_that_differ_at_their_ends_are_two(self, history: ChatHistory) -> None:
        for end in "ab":
            history.add_message("x" * 3000 + end, say("user", end))
        assert [contents(history, "x" * 3000 + end) for end in "ab"] == [["a"], ["b"]]

    def test_chats_that_nobody_touched_for_long_are_purged(self, history: ChatHistory, reopen: Reopen) -> None:
        for chat in ("a", "b", "c"):
            history.add_messages(chat, says("x", "y"))
        history.save_messages("a", says("x", "z"))
        bob = history.for_user("bob")
        bob.add_message("a", say("user", "mine"))
        now = datetime.now(UTC)
        history.add_message("b", say("user", "new"))
        assert history.purge(timedelta(days=1)).chats == 0
        receipt = history.purge(now)
        assert (receipt.chats, receipt.messages) == (2, 5)
        assert reopen().get_all_chat_ids() == ["b"]
        assert contents(bob, "a") == ["mine"]
        assert history.purge(timedelta(days=10**6)).chats == 0

    def test_old_messages_out_of_the_window_are_purged(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c", "d"))
        history.save_messages("c", says("a", "b", "x", "y"))
        history.archive_oldest_messages("c", 1)
        now = datetime.now(UTC)
        history.save_messages("c", says("b", "z"))
        history.save_messages("c", says("b", "w"))
        for status, gone in ((MessageStatus.SUPERSEDED, 4), (MessageStatus.ARCHIVED, 1)):
            assert history.purge(timedelta(hours=1), status=status).messages == 0
            receipt = history.purge(now, status=status)
            assert (receipt.chats, receipt.messages) == (0, gone)
        assert contents(history) == ["b", "w"]
        assert [message.text for message in history.get_messages("c", status="superseded")] == ["z"]
        check_chat(history, "c")

    def test_a_purge_of_messages_is_no_activity_of_their_chat(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c"))
        history.save_messages("c", says("a", "x"))
        history.archive_oldest_messages("c", 1)
        before = history.get_chat("c")
        now = datetime.now(UTC)
        history.add_message("d", say("user", "later"))
        for status, gone in ((MessageStatus.SUPERSEDED, 2), (MessageStatus.ARCHIVED, 1)):
            assert history.purge(now, status=status).messages == gone
        assert history.get_chat("c") == replace(before, version=before.version + 2)
        assert [chat.chat_id for chat in history.list_chats()] == ["d", "c"]
        assert history.purge(now).chats == 1, "nobody has touched it since then"

    def test_a_purge_that_says_no_moment_or_takes_from_the_window_is_refused(self, two: ChatHistory) -> None:
        for wrong in (datetime(2026, 1, 1), "2026-01-01", 30, None):
            with pytest.raises(InvalidArgumentError):
                two.purge(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            two.purge(timedelta(0), status="active")
        assert contents(two) == ["a", "b"]

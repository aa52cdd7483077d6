"""A chat goes on in more than one way, and each of them can be gone back to."""

from __future__ import annotations

from typing import Any

import pytest

from chat_history.errors import (
    ChatExistsError,
    ChatNotFoundError,
    InvalidArgumentError,
    InvalidMessageError,
    MessageNotFoundError,
    VersionConflictError,
)
from chat_history.formats import get_format
from chat_history.history import ChatHistory

from .checks import Reopen, check_chat, contents, ids, say, says, version

__all__ = ["Branching"]


class Branching:
    """A chat goes on in more than one way, and each of them can be gone back to."""

    def test_an_answer_is_given_anew_and_both_stay(self, two: ChatHistory, reopen: Reopen) -> None:
        two.switch_branch("c", "0")
        assert contents(two) == ["a"]
        other = two.add_message("c", say("assistant", "b, again"))
        assert other.parent == "0"
        for history in (two, reopen()):
            first, second = history.list_branches("c")
            assert (first.head, first.message_count, first.departs, first.active) == ("1", 2, "0", False)
            assert (second.head, second.departs, second.active) == (other.message_id, other.message_id, True)
            assert second.updated_at == other.created_at
        assert reopen().switch_branch("c", "1").message_count == 2
        assert contents(two) == ["a", "b"]
        check_chat(two, "c")

    def test_a_question_is_edited_from_the_very_beginning(self, two: ChatHistory) -> None:
        assert two.switch_branch("c", None).message_count == 0
        assert two.get_chat_history("c") == []
        edited = two.add_message("c", say("user", "A"))
        assert edited.parent is None
        assert [branch.departs for branch in two.list_branches("c")] == [None, edited.message_id]
        check_chat(two, "c")

    def test_a_save_goes_on_from_the_branch_that_was_switched_to(self, two: ChatHistory) -> None:
        two.switch_branch("c", "0")
        two.save_messages("c", says("a", "x", "y"))
        assert contents(two) == ["a", "x", "y"]
        two.switch_branch("c", "1")
        two.save_messages("c", says("a", "b", "z"))
        assert contents(two) == ["a", "b", "z"]
        check_chat(two, "c")

    def test_a_switch_appends_and_sets_metadata_in_the_same_write(self, two: ChatHistory, reopen: Reopen) -> None:
        was = version(two)
        chat = two.switch_branch("c", "0", messages=says("x", "y"), message_ids=["2", "3"], chat_metadata={"n": 1})
        assert (chat.version, chat.head, chat.message_count, chat.metadata) == (was + 1, "3", 3, {"n": 1})
        assert [(each.message_id, each.parent) for each in check_chat(reopen(), "c")[2:]] == [("2", "0"), ("3", "2")]
        assert contents(two) == ["a", "x", "y"]
        two.switch_branch("c", "3", messages=says("z"))
        two.save_messages("c", says("a", "x", "y", "z", "w"))
        assert contents(two) == ["a", "x", "y", "z", "w"]
        assert two.switch_branch("c", None, chat_metadata=None).metadata == {}
        assert (two.get_chat("c").head, contents(two)) == (None, [])
        assert len(check_chat(two, "c")) == 6

    def test_a_switch_that_is_refused_does_nothing(self, two: ChatHistory) -> None:
        before, stored = two.get_chat("c"), check_chat(two, "c")
        refused: list[tuple[type[Exception], dict[str, Any]]] = [
            (VersionConflictError, {"expected_version": before.version - 1}),
            (MessageNotFoundError, {"message_id": "no such"}),
            (InvalidArgumentError, {"message_ids": ["1"]}),
            (InvalidArgumentError, {"message_ids": ["2", "3"]}),
            (InvalidArgumentError, {"messages": says("x", "y"), "message_ids": ["2", "2"]}),
            (InvalidArgumentError, {"chat_metadata": {"n": {1}}}),
            (InvalidMessageError, {"messages": [say("user", "x") | {"b": b""}]}),
        ]
        for error, wrong in refused:
            with pytest.raises(error):
                two.switch_branch("c", **{"message_id": "0", "messages": says("x"), "chat_metadata": {"n": 1}, **wrong})
        assert (two.get_chat("c"), check_chat(two, "c")) == (before, stored)

    def test_a_chat_begins_with_messages_and_metadata_in_one_write(self, history: ChatHistory) -> None:
        with pytest.raises(ChatNotFoundError):
            history.switch_branch("c", "0", messages=says("x"))
        chat = history.switch_branch("c", None, messages=says("x"), chat_metadata={"n": 1}, expected_version=0)
        assert (chat.metadata, contents(history)) == ({"n": 1}, ["x"])
        check_chat(history, "c")

    def test_switching_to_where_the_chat_is_changes_nothing(self, two: ChatHistory) -> None:
        before = two.get_chat("c")
        assert two.switch_branch("c", "1") == before

    def test_a_switch_at_another_version_is_refused(self, two: ChatHistory) -> None:
        was = version(two)
        with pytest.raises(VersionConflictError):
            two.switch_branch("c", "0", expected_version=was - 1)
        assert two.switch_branch("c", "0", expected_version=was).version == was + 1

    def test_what_is_archived_stays_archived_on_every_branch_that_shares_it(self, two: ChatHistory) -> None:
        two.archive_oldest_messages("c", 1)
        two.switch_branch("c", "0")
        assert two.get_chat_history("c") == []
        two.switch_branch("c", "1")
        assert contents(two) == ["b"]
        assert ids(two, status="archived") == ["0"]
        check_chat(two, "c")

    def test_branches_of_nothing(self, history: ChatHistory) -> None:
        assert history.list_branches("c") == []
        for call in (history.switch_branch, lambda chat, at: history.fork_chat(chat, at=at)):
            with pytest.raises(ChatNotFoundError):
                call("c", None)
        history.create_chat("c")
        assert history.list_branches("c") == []
        assert history.switch_branch("c", None).message_count == 0
        for call in (history.switch_branch, lambda chat, at: history.fork_chat(chat, at=at)):
            with pytest.raises(MessageNotFoundError):
                call("c", "0")

    def test_a_fork_begins_alike_and_goes_its_own_way(self, two: ChatHistory, reopen: Reopen) -> None:
        two.update_chat("c", title="T", metadata={"m": 1})
        of_a_framework = get_format("pydantic_ai").load(['{"parts": [], "kind": "request", "metadata": {"n": 1}}'])
        two.add_messages("c", of_a_framework, metadata={"n": [1]})
        two.archive_oldest_messages("c", 1)
        before = check_chat(two, "c")
        fork = two.fork_chat("c")
        assert (fork.title, fork.metadata, fork.message_count) == ("T", {"m": 1}, 2)
        copies = check_chat(reopen(), fork.chat_id)
        assert [each._replace(chat_id="c") for each in copies] == before
        two.add_message(fork.chat_id, say("user", "x"))
        assert check_chat(two, "c") == before

    def test_a_fork_begins_at_a_message_of_any_branch(self, two: ChatHistory) -> None:
        two.save_messages("c", says("a", "x", "y"))
        assert two.fork_chat("c", at="1", new_chat_id="d").chat_id == "d"
        assert contents(two, "d") == ["a", "b"]
        two.fork_chat("c", at="0", new_chat_id="e")
        assert contents(two, "e") == ["a"]
        two.add_message("e", say("user", "z"))
        assert contents(two, "c") == ["a", "x", "y"]
        check_chat(two, "d")
        two.update_chat("d", metadata={"n": 1})
        assert two.fork_chat("d", metadata={"n": 2}).metadata == {"n": 2}
        assert two.fork_chat("d", metadata=None).metadata == {}

    def test_a_fork_takes_no_chat_away(self, two: ChatHistory) -> None:
        two.add_message("d", say("user", "mine"))
        for new in ("c", "d"):
            with pytest.raises(ChatExistsError):
                two.fork_chat("c", new_chat_id=new)
        assert contents(two, "d") == ["mine"]

    def test_a_branch_is_deleted_up_to_where_others_share_it(self, two: ChatHistory) -> None:
        two.save_messages("c", says("a", "b", "c"))
        two.save_messages("c", says("a", "b", "d"))
        two.save_messages("c", says("a", "e"))
        heads = [branch.head for branch in two.list_branches("c")]
        assert len(heads) == 3
        assert two.delete_branch("c", heads[2]) == 0, "the active one stays"
        assert two.delete_branch("c", "1") == 0, "others follow it"
        assert two.delete_branch("c", "nobody's") == two.delete_branch("nobody's", "1") == 0
        assert two.delete_branch("c", heads[0]) == 1
        assert two.delete_branch("c", heads[1]) == 2
        assert contents(two) == ["a", "e"]
        assert [branch.head for branch in two.list_branches("c")] == heads[2:]
        check_chat(two, "c")

    def test_superseded_messages_are_counted_and_purged(self, two: ChatHistory) -> None:
        two.save_messages("c", says("a", "c", "d"))
        two.save_messages("c", says("a", "e"))
        two.archive_oldest_messages("c", 1)
        counts = [two.get_message_count("c", status) for status in ("active", "archived", "superseded", None)]
        assert counts == [1, 1, 3, 5]
        assert two.delete_superseded("c") == 3
        assert two.delete_superseded("c") == two.delete_superseded("nobody's") == 0
        assert two.get_message_count("c", None) == 2
        assert two.get_message_count("nobody's", None) == 0
        assert len(two.list_branches("c")) == 1
        check_chat(two, "c")

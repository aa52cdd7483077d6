"""A save finds what is stored and writes the rest: the basics. Each format has cases of its own."""

from __future__ import annotations

import warnings

import pytest

from chat_history.errors import ChatHistoryWarning
from chat_history.history import ChatHistory
from chat_history.messages import Message

from .checks import Reopen, check_chat, contents, ids, say, says, texts, version

__all__ = ["Saving"]


class Saving:
    """A save finds what is stored and writes the rest: the basics. Each format has cases of its own."""

    def test_a_save_writes_only_what_is_new(self, two: ChatHistory) -> None:
        before = list(two.get_messages("c"))
        new = two.save_messages("c", says("a", "b", "c", "d"))
        assert texts(new) == ["c", "d"]
        assert check_chat(two, "c") == [*before, *new]

    def test_a_list_saved_twice_changes_nothing(self, history: ChatHistory, reopen: Reopen) -> None:
        messages = says("a", "b", "a", "b")
        assert len(history.save_messages("c", messages)) == 4
        was = version(history)
        assert history.save_messages("c", messages) == []
        assert reopen().save_messages("c", messages) == []
        assert version(history) == was

    def test_equal_messages_repeated_on_purpose_survive(self, history: ChatHistory) -> None:
        messages: list[Message] = []
        for _ in range(4):
            messages += [say("user", "yes"), say("user", "yes")]
            assert len(history.save_messages("c", messages)) == 2
        assert history.get_chat_history("c") == messages

    def test_a_list_that_begins_inside_the_chat_continues_from_there(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c", "d"))
        assert texts(history.save_messages("c", says("c", "d", "e"))) == ["e"]
        assert contents(history) == ["a", "b", "c", "d", "e"]

    def test_a_list_that_goes_on_from_an_empty_window_follows_what_is_archived(self, history: ChatHistory) -> None:
        asked = history.add_messages("c", says("a", "b", "c", "d"))
        history.archive_oldest_messages("c", 2)
        history.switch_branch("c", asked[1].message_id)
        assert history.get_message_history("c", "openai") == []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (new,) = history.save_messages("c", says("c, edited"))
        assert new.parent == asked[1].message_id
        assert history.get_message_count("c", "archived") == 2
        history.switch_branch("c", asked[1].message_id)
        assert history.save_messages("c", says("c", "d")) == []
        assert contents(history) == ["c", "d"]
        check_chat(history, "c")

    def test_the_prompt_alone_displaces_nothing_where_all_is_archived(self, history: ChatHistory) -> None:
        prompt = say("system", "s")
        asked = history.add_messages("c", [prompt, *says("a", "b")])
        history.archive_oldest_messages("c", 2)
        history.switch_branch("c", asked[1].message_id)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert history.save_messages("c", [prompt]) == []
        assert history.get_message_count("c", "archived") == 2

    def test_a_list_that_departs_displaces_what_stays_readable(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c"))
        before = list(history.get_messages("c"))
        (new,) = history.save_messages("c", says("a", "x"))
        assert new.parent == before[0].message_id
        assert contents(history) == ["a", "x"]
        assert texts(history.get_messages("c", status="superseded")) == ["b", "c"]
        assert history.get_message("c", before[2].message_id).parent == before[1].message_id
        check_chat(history, "c")

    def test_a_displaced_branch_that_comes_back_is_not_stored_again(self, history: ChatHistory) -> None:
        for messages in (says("a", "b", "c"), says("a", "x"), says("a", "b", "c"), says("a", "x", "y")):
            history.save_messages("c", messages)
            assert history.get_chat_history("c") == messages
        assert sorted(texts(check_chat(history, "c"))) == ["a", "b", "c", "x", "y"]

    def test_a_shorter_list_takes_the_rest_out_of_the_branch(self, two: ChatHistory) -> None:
        assert two.save_messages("c", says("a")) == []
        assert contents(two) == ["a"]
        assert two.add_message("c", say("user", "x")).parent == "0"
        check_chat(two, "c")

    def test_a_list_that_shares_nothing_is_a_new_branch_and_a_warning(self, two: ChatHistory) -> None:
        with pytest.warns(ChatHistoryWarning, match="2 messages stored before were set aside"):
            (new,) = two.save_messages("c", says("x"))
        assert new.parent is None
        assert contents(two) == ["x"]
        assert texts(two.get_messages("c", status="superseded")) == ["a", "b"]

    def test_a_list_that_begins_inside_a_displaced_branch_goes_on_there(self, two: ChatHistory) -> None:
        two.add_messages("c", says("c", "d"))
        two.archive_oldest_messages("c", 1)
        two.set_messages("c", says("x", "y"), keep_archived=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ChatHistoryWarning)
            assert texts(two.save_messages("c", says("c", "d", "e"))) == ["e"]
        assert contents(two) == ["a", "b", "c", "d", "e"]
        assert texts(two.get_messages("c", status="superseded")) == ["x", "y"]
        check_chat(two, "c")
        with pytest.warns(ChatHistoryWarning, match="5 messages stored before were set aside"):
            assert texts(two.save_messages("c", says("y", "new"))) == ["y", "new"]

    def test_a_list_with_another_prompt_is_none_of_the_displaced_branch(self, history: ChatHistory) -> None:
        history.save_messages("c", [say("system", "s"), *says("a", "b", "c")])
        history.set_messages("c", [say("system", "t"), *says("x")])
        again = [say("system", "t"), *says("a", "b", "z")]
        with pytest.warns(ChatHistoryWarning, match="stored before were set aside"):
            history.save_messages("c", again)
        assert history.get_chat_history("c") == again

    def test_the_prompt_alone_is_kept_where_another_branch_was_displaced(self, history: ChatHistory) -> None:
        prompt = say("system", "s")
        history.save_messages("c", [prompt, *says("a", "b")])
        for messages in ([prompt, *says("x", "y")], [prompt]):
            with pytest.warns(ChatHistoryWarning, match="stored before were set aside"):
                history.save_messages("c", messages)
        assert history.get_chat_history("c") == [prompt]
        check_chat(history, "c")

    def test_a_list_that_continues_from_the_very_end_sets_nothing_aside(self, history: ChatHistory) -> None:
        history.add_messages("c", [*says("a", "b"), say("system", "s")])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert texts(history.save_messages("c", [say("system", "s"), *says("a")])) == ["a"]
        assert contents(history) == ["a", "b", "s", "a"]
        assert not caught

    def test_an_empty_save_changes_nothing_and_makes_no_chat(self, two: ChatHistory) -> None:
        assert two.save_messages("c", []) == []
        assert two.save_messages("other", []) == []
        assert contents(two) == ["a", "b"]
        assert not two.chat_exists("other")

    def test_a_save_sees_what_another_opening_wrote_meanwhile(self, history: ChatHistory, reopen: Reopen) -> None:
        other = reopen()
        history.save_messages("c", says("a", "b"))
        other.save_messages("c", says("a", "b", "c"))
        assert texts(history.save_messages("c", says("a", "b", "c", "d"))) == ["d"]
        assert texts(other.save_messages("c", says("a", "b", "c", "d", "e"))) == ["e"]
        other.delete_last_message("c")
        assert texts(history.save_messages("c", says("a", "b", "c", "d", "f"))) == ["f"]
        other.delete_chat_history("c")
        assert len(history.save_messages("c", says("a", "b"))) == 2
        assert contents(other) == ["a", "b"]

    def test_set_messages_makes_the_active_messages_exactly_these(self, two: ChatHistory) -> None:
        for messages in (says("b"), says("a", "b", "c"), says("a", "c"), says("x"), says("x", "y")):
            two.set_messages("c", messages)
            assert two.get_chat_history("c") == messages
            check_chat(two, "c")

    def test_set_messages_keeps_the_beginning_that_is_there(self, two: ChatHistory) -> None:
        assert texts(two.set_messages("c", says("a", "x"))) == ["x"]
        assert ids(two)[0] == "0"

    def test_set_messages_with_an_empty_list_leaves_the_chat_existing(self, two: ChatHistory) -> None:
        two.set_messages("c", [])
        two.set_messages("new", [])
        assert two.get_chat_history("c") == two.get_chat_history("new") == []
        assert two.chat_exists("c")
        assert two.chat_exists("new")
        assert two.add_message("c", say("user", "x")).parent is None

    def test_set_messages_does_not_touch_what_is_archived(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c"))
        history.archive_oldest_messages("c", 2)
        history.set_messages("c", says("x", "y"))
        assert contents(history) == ["x", "y"]
        assert texts(history.get_messages("c", status="archived")) == ["a", "b"]
        check_chat(history, "c")

    def test_set_messages_displaces_what_is_archived_if_told_to(self, history: ChatHistory) -> None:
        for messages in (says("a", "b", "c"), says("x", "y"), says("a", "b"), []):
            history.set_messages("c", messages, keep_archived=False)
            assert history.get_chat_history("c") == messages
            history.archive_oldest_messages("c", 1)
            check_chat(history, "c")
        history.add_message("c", say("user", "z"))
        assert texts(history.get_messages("c", status="archived")) == []
        assert texts(history.get_messages("c", status="superseded"))[:5] == ["a", "b", "c", "x", "y"]
        check_chat(history, "c")

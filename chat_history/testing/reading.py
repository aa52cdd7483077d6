"""Histories, windows, pages and walks."""

from __future__ import annotations

import pytest

from chat_history.errors import InvalidArgumentError, MessageNotFoundError
from chat_history.history import ChatHistory
from chat_history.messages import Page, Status

from .checks import say, says, texts

__all__ = ["Reading"]


class Reading:
    """Histories, windows, pages and walks."""

    def test_a_window_of_tokens_holds_whole_turns_after_the_system_prompt(self, history: ChatHistory) -> None:
        turns = [[say("user", "q" * 10), say("assistant", "a" * 6)] for _ in range(100)]
        system = say("system", "s" * 16)
        history.add_messages("c", [system, *(message for turn in turns for message in turn)])
        # A message counts 4 more than its text, so a turn is 24, and the system prompt 20.
        for most, kept in ((1, 1), (44, 1), (67, 1), (68, 2), (24 * 70 + 20, 70), (24 * 100 + 19, 99), (10**9, 100)):
            window = history.get_message_history("c", format="openai", max_tokens=most, count_tokens=len)
            assert window == [system, *(message for turn in turns[-kept:] for message in turn)]
        both = history.get_message_history("c", format="openai", last=4, max_tokens=24 * 50, count_tokens=len)
        assert len(both) == 1 + 4
        assert history.get_message_history("nobody's", format="openai", max_tokens=1) == []
        with pytest.raises(InvalidArgumentError):
            history.get_message_history("c", format="openai", max_tokens=0)

    def test_an_unknown_chat_reads_as_empty(self, history: ChatHistory) -> None:
        assert history.get_chat_history("c") == history.get_chat_history("c", last=3) == []
        assert history.get_message_history("c", format="openai") == history.get_readable_chat_history("c") == []
        assert history.get_messages("c") == Page(())
        assert list(history.iter_messages("c")) == []
        assert history.get_message_count("c") == 0
        assert not history.chat_exists("c")

    def test_last_is_exactly_the_newest_messages(self, history: ChatHistory) -> None:
        messages = says("a", "b", "c", "d")
        history.add_messages("c", messages)
        for last in range(6):
            assert history.get_chat_history("c", last=last) == messages[max(0, 4 - last) :]

    def test_a_window_for_a_model_holds_whole_turns(self, history: ChatHistory) -> None:
        messages = [say("system", "s"), *says("a", "b", "c", "d")]
        history.add_messages("c", messages)
        for last, kept in ((5, messages), (3, [messages[0], *messages[3:]]), (1, [messages[0], *messages[3:]])):
            assert history.get_message_history("c", format="openai", last=last) == kept

    def test_the_readable_history_is_what_user_and_assistant_said(self, history: ChatHistory) -> None:
        tool = {"role": "tool", "tool_call_id": "x", "content": "4"}
        history.add_messages("c", [say("system", "s"), say("user", "hi"), say("assistant", "hello"), tool])
        assert history.get_readable_chat_history("c") == [
            {"from": "user", "message": "hi"},
            {"from": "assistant", "message": "hello"},
        ]

    def test_a_page_is_the_latest_messages_in_chronological_order(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c", "d"))
        page = history.get_messages("c", limit=3)
        assert texts(page) == ["b", "c", "d"]
        assert page.before is not None
        assert page.after is None

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
    def test_pages_backwards_give_every_message_once(self, history: ChatHistory, limit: int) -> None:
        history.add_messages("c", says(*"abcdefg"))
        seen: list[str] = []
        page = history.get_messages("c", limit=limit)
        for _ in range(9):  # and not for ever, where a page leads to itself
            seen[:0] = texts(page)
            history.add_message("c", say("user", "new"))  # a cursor stays good while others write
            if page.before is None:
                break
            page = history.get_messages("c", limit=limit, before=page.before)
            assert page.after is not None
        assert seen == list("abcdefg")

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
    def test_pages_forwards_give_every_message_once(self, history: ChatHistory, limit: int) -> None:
        history.add_messages("c", says(*"abcdefg"))
        page = history.get_messages("c", limit=1)
        while page.before:
            page = history.get_messages("c", limit=1, before=page.before)
        seen = texts(page)
        waiting = ["h", "i"]
        while page.after is not None:
            page = history.get_messages("c", limit=limit, after=page.after)
            assert page.before is not None
            seen += texts(page)
            if waiting:
                history.add_message("c", say("user", waiting.pop(0)))  # what is added meanwhile comes, too
        assert seen == list("abcdefghi")[: len(seen)]
        assert len(seen) >= 7

    def test_cursors_stay_good_when_their_messages_are_deleted(self, history: ChatHistory) -> None:
        history.add_messages("c", says(*"abcdef"))
        page = history.get_messages("c", limit=3)
        history.delete_message("c", page[0].message_id)
        history.delete_message("c", history.get_messages("c", limit=6)[2].message_id)
        assert texts(history.get_messages("c", before=page.before)) == ["a", "b"]
        assert texts(history.get_messages("c", after=page.before)) == ["e", "f"]

    def test_an_empty_page_knows_what_lies_before_it(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b"))
        beyond = history.get_messages("c", before=history.get_messages("c", limit=1).before).after
        history.delete_last_message("c")
        empty = history.get_messages("c", after=beyond)
        assert (list(empty), empty.after) == ([], None)
        assert texts(history.get_messages("c", before=empty.before)) == ["a"]
        assert empty.before is not None

    def test_a_page_may_lie_between_two_cursors(self, history: ChatHistory) -> None:
        history.add_messages("c", says(*"abcdef"))
        end = history.get_messages("c", limit=2).before
        start = history.get_messages("c", limit=4).before
        assert texts(history.get_messages("c", after=start, before=end)) == ["d"]
        page = history.get_messages("c", after=start, before=history.get_messages("c", limit=1).before, limit=1)
        assert texts(page) == ["d"]
        assert page.after is not None

    def test_pages_are_of_one_status_or_of_all(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c", "d"))
        history.archive_oldest_messages("c", 1)
        history.save_messages("c", says("b", "c", "x"))
        status: Status | None
        for status, words in (("active", "bcx"), ("archived", "a"), ("superseded", "d"), (None, "abcdx")):
            assert texts(history.get_messages("c", status=status)) == list(words)
            assert texts(list(history.iter_messages("c", status=status))) == list(words)
            page = history.get_messages("c", limit=1, status=status)
            found = texts(page)
            while page.before:
                page = history.get_messages("c", limit=1, before=page.before, status=status)
                found[:0] = texts(page)
            assert found == list(words)

    def test_iter_messages_walks_a_chat_of_any_length(self, history: ChatHistory) -> None:
        history.add_messages("c", [say("user", str(number)) for number in range(200)])
        walk = history.iter_messages("c")
        first = [next(walk).text for _ in range(150)]
        history.add_message("c", say("user", "200"))
        assert first + texts(list(walk)) == [str(number) for number in range(201)]

    def test_a_message_that_is_not_there_is_an_error(self, two: ChatHistory) -> None:
        for chat in ("c", "unknown"):
            with pytest.raises(MessageNotFoundError, match="nope"):
                two.get_message(chat, "nope")
            with pytest.raises(MessageNotFoundError, match="nope"):
                two.replace_message(chat, "nope", say("user", "x"))
        assert not two.chat_exists("unknown")

"""What was written is there for whoever opens the store, until it is shut down."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import pytest

from chat_history.backends.base import Backend
from chat_history.errors import HistoryClosedError
from chat_history.history import ChatHistory

from .calls import CALLS
from .checks import Reopen, check_chat, contents, ids, say, says

__all__ = ["Opening"]


class Opening:
    """What was written is there for whoever opens the store, until it is shut down."""

    def test_what_was_written_is_there_after_opening_again(
        self, history: ChatHistory, reopen: Reopen, open_backend: Callable[[], Backend], in_memory: bool
    ) -> None:
        history.create_chat("c", title="T", metadata={"a": 1})
        history.add_messages("c", [*says("a", "b", "c"), {"role": "user", "content": "\0\ud800"}], metadata={"n": 1})
        history.archive_oldest_messages("c", 1)
        history.save_messages("c", says("b", "x"))
        history.replace_message("c", ids(history)[0], say("user", "B"))
        history.delete_last_message("c")
        messages, chat = check_chat(history, "c"), history.get_chat("c")
        other = reopen()
        assert check_chat(other, "c") == messages
        assert other.get_chat("c") == chat
        history.shutdown()
        with ChatHistory(open_backend()) as later:
            assert check_chat(later, "c") == ([] if in_memory else messages)
            assert list(later.list_chats()) == ([] if in_memory else [chat])

    def test_opening_and_closing_leaves_nothing_open(self, open_backend: Callable[[], Backend]) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(5):
                open_backend().close()
            gc.collect()
        assert not caught

    def test_two_openings_see_each_others_writes_at_once(self, history: ChatHistory, reopen: Reopen) -> None:
        other = reopen()
        for number in range(5):
            assert history.add_message("c", say("user", "a")).position == 2 * number
            assert other.add_message("c", say("user", "b")).position == 2 * number + 1
            assert history.get_chat_history("c") == other.get_chat_history("c")
        other.delete_oldest_messages("c", 3)
        assert ids(history) == ids(other)
        other.clear_all()
        assert history.get_all_chat_ids() == []

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
    def test_every_call_after_shutdown_is_an_error(
        self, two: ChatHistory, call: Callable[[ChatHistory], object]
    ) -> None:
        view = two.for_user("")
        two.shutdown()
        two.shutdown()
        for closed in (two, view):
            with pytest.raises(HistoryClosedError):
                call(closed)

    def test_a_view_that_is_shut_down_leaves_the_store_open(self, two: ChatHistory) -> None:
        with two.for_user("ann") as view:
            view.add_message("c", say("user", "a"))
        with pytest.raises(HistoryClosedError):
            view.get_chat_history("c")
        assert contents(two) == ["a", "b"]

    def test_a_with_block_shuts_the_history_down(self, history: ChatHistory) -> None:
        with history as same:
            assert same is history
        assert "closed" in repr(history)
        with pytest.raises(HistoryClosedError):
            history.add_message("c", say("user", "a"))

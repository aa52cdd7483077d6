"""Bad input is refused by all alike, before anything is written."""

from __future__ import annotations

import itertools
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest

from chat_history.errors import InvalidArgumentError, InvalidMessageError, UnknownFormatError
from chat_history.history import ChatHistory

from .checks import check_chat, contents, say, says

__all__ = ["Refusing"]

CYCLE: dict[str, Any] = {"role": "user"}
CYCLE["content"] = CYCLE

REFUSED: dict[str, tuple[Any, type[Exception]]] = {
    "an object": ({"role": "user", "content": object()}, InvalidMessageError),
    "bytes": ({"role": "user", "content": b"bytes"}, InvalidMessageError),
    "a set": ({"role": "user", "content": {"a"}}, InvalidMessageError),
    "NaN": ({"role": "user", "content": "", "score": float("nan")}, InvalidMessageError),
    "infinity": ({"role": "user", "content": "", "score": float("inf")}, InvalidMessageError),
    "a key that is no str": ({"role": "user", "content": "", 1: 2}, InvalidMessageError),
    "an inner key that is no str": ({"role": "user", "content": [{"a": {1: 2}}]}, InvalidMessageError),
    "more digits than Python reads": ({"role": "user", "content": "", "n": 10**5000}, InvalidMessageError),
    "itself": (CYCLE, InvalidMessageError),
    "no role": ({"content": "hi"}, InvalidMessageError),
    "a role that is no str": ({"role": 1, "content": "hi"}, InvalidMessageError),
    "an empty dict": ({}, InvalidMessageError),
    "text": ("hi", UnknownFormatError),
    "None": (None, UnknownFormatError),
    "a number": (1, UnknownFormatError),
    "a list": ([{"role": "user", "content": "hi"}], UnknownFormatError),
}


class Refusing:
    """Bad input is refused by all alike, before anything is written."""

    @pytest.mark.parametrize(("message", "error"), REFUSED.values(), ids=REFUSED.keys())
    def test_a_message_that_cannot_be_stored_is_refused(
        self, two: ChatHistory, message: Any, error: type[Exception]
    ) -> None:
        before, chat = check_chat(two, "c"), two.get_chat("c")
        for call in (
            lambda: two.add_message("c", message),
            lambda: two.add_messages("c", [*says("x"), message]),
            lambda: two.save_messages("c", [*says("a", "b"), message]),
            lambda: two.set_messages("c", [message]),
            lambda: two.replace_message("c", "0", message),
            lambda: two.add_message("new", message),
        ):
            with pytest.raises(error):
                call()
        assert check_chat(two, "c") == before
        assert two.get_chat("c") == chat
        assert not two.chat_exists("new")

    @pytest.mark.parametrize("bad", range(10))
    def test_one_bad_message_of_ten_and_none_is_stored(self, history: ChatHistory, bad: int) -> None:
        messages: list[Any] = says(*"abcdefghij")
        messages[bad] = {"role": "user", "content": object()}
        with pytest.raises(InvalidMessageError):
            history.add_messages("c", messages)
        with pytest.raises(InvalidMessageError):
            history.save_messages("c", messages)
        assert not history.chat_exists("c")

    @pytest.mark.parametrize("chat", ["", "a\0b", "\ud800", 1, None, b"c", ("c",), ["c"]])
    def test_a_chat_id_that_cannot_be_kept_is_refused(self, history: ChatHistory, chat: Any) -> None:
        calls: list[Callable[[], object]] = [
            lambda: history.add_message(chat, say("user", "x")),
            lambda: history.save_messages(chat, says("x")),
            lambda: history.get_chat_history(chat),
            lambda: history.delete_chat_history(chat),
            lambda: history.chat_exists(chat),
        ]
        for call in calls + ([lambda: history.create_chat(chat)] if chat is not None else []):
            with pytest.raises(InvalidArgumentError, match="chat_id"):
                call()
        assert history.get_all_chat_ids() == []

    @pytest.mark.parametrize("user", ["a\0b", "\ud800", 1, b"c"])
    def test_an_owner_that_cannot_be_kept_is_refused(self, history: ChatHistory, user: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="user_id"):
            history.for_user(user)
        with pytest.raises(InvalidArgumentError, match="tenant_id"):
            history.for_user("ann", tenant_id=user)

    @pytest.mark.parametrize("message_id", ["", "x" * 256, "a\0b", "\ud800", 1])
    def test_a_message_id_that_cannot_be_kept_is_refused(self, two: ChatHistory, message_id: Any) -> None:
        for call in (
            lambda: two.add_message("c", say("user", "x"), message_id=message_id),
            lambda: two.add_messages("c", says("x", "y"), message_ids=["2", message_id]),
            lambda: two.get_message("c", message_id),
            lambda: two.delete_message("c", message_id),
            lambda: two.replace_message("c", message_id, say("user", "x")),
        ):
            with pytest.raises(InvalidArgumentError, match="message_id"):
                call()
        assert contents(two) == ["a", "b"]

    @pytest.mark.parametrize("count", [1, 3])
    def test_message_ids_are_one_for_each_message(self, history: ChatHistory, count: int) -> None:
        with pytest.raises(InvalidArgumentError, match="2 messages"):
            history.add_messages("c", says("a", "b"), message_ids=["0", "1", "2"][:count])
        assert not history.chat_exists("c")

    @pytest.mark.parametrize(
        "metadata", [{"a": object()}, {"a": float("nan")}, {1: 2}, {"a": (1,)}, ["a"], "a", {"a": {1: 2}}]
    )
    def test_metadata_that_cannot_be_kept_is_refused(self, two: ChatHistory, metadata: Any) -> None:
        for call in (
            lambda: two.add_message("c", say("user", "x"), metadata=metadata),
            lambda: two.replace_message("c", "0", say("user", "x"), metadata=metadata),
            lambda: two.create_chat("new", metadata=metadata),
            lambda: two.update_chat("c", metadata=metadata),
        ):
            with pytest.raises(InvalidArgumentError, match="metadata"):
                call()
        assert contents(two) == ["a", "b"]
        assert not two.chat_exists("new")

    @pytest.mark.parametrize("title", ["a\0b", "\ud800", None, 1])
    def test_a_title_that_cannot_be_kept_is_refused(self, two: ChatHistory, title: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="title"):
            two.update_chat("c", title=title)
        with pytest.raises(InvalidArgumentError, match="title"):
            two.create_chat("new", title=title)
        assert not two.chat_exists("new")

    def test_numbers_that_make_no_sense_are_refused(self, two: ChatHistory) -> None:
        calls: list[Callable[[Any], object]] = [
            lambda bad: two.get_chat_history("c", last=bad),
            lambda bad: two.get_message_history("c", format="openai", last=bad),
            lambda bad: two.get_messages("c", limit=bad),
            lambda bad: two.list_chats(bad),
            lambda bad: two.delete_oldest_messages("c", bad),
            lambda bad: two.archive_oldest_messages("c", bad),
            lambda bad: two.add_message("c", say("user", "x"), expected_version=bad),
        ]
        for call, bad in itertools.product(calls, (-1, 1.0, "1", True)):
            with pytest.raises(InvalidArgumentError):
                call(bad)
        assert contents(two) == ["a", "b"]

    def test_a_cursor_of_something_else_is_refused(self, two: ChatHistory) -> None:
        two.create_chat("d")
        chats, messages = two.list_chats(1).after, two.get_messages("c", limit=1).before
        forged = [
            urlsafe_b64encode(f"m:{place}".encode()).decode()
            for place in ("--5", "-2", "9" * 5000, "1.5", "\u0661", "")
        ]
        for cursor in (chats, "", "x", "\ud800", "\u00e9", 1, *forged):
            with pytest.raises(InvalidArgumentError, match="cursor"):
                two.get_messages("c", before=cursor)  # type: ignore[arg-type]
        for cursor in (messages, "", "x", "\ud800", "\u00e9", 1):
            with pytest.raises(InvalidArgumentError, match="cursor"):
                two.list_chats(after=cursor)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="before or after"):
            two.list_chats(after=chats, before=chats)
        with pytest.raises(InvalidArgumentError, match="status"):
            two.get_messages("c", status="gone")  # type: ignore[arg-type]

    @pytest.mark.parametrize("messages", [say("user", "x"), "x", None, 1, iter(says("x")), {"a"}])
    def test_messages_are_a_list(self, two: ChatHistory, messages: Any) -> None:
        for call in (two.add_messages, two.save_messages, two.set_messages):
            with pytest.raises(InvalidArgumentError, match="must be a list"):
                call("c", messages)
        assert contents(two) == ["a", "b"]

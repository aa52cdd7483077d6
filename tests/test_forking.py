"""Forks of chats that others write to, and forks that fail."""

from __future__ import annotations

from typing import Any

import pytest
from stores import ALL, Store, on

from chat_history import ChatHistory, MessageNotFoundError, StoreBusyError
from chat_history.testing import check_chat, say


class Meddled:
    """A backend at one of whose calls something else happens first."""

    def __init__(self, history: ChatHistory, name: str, call: int, meddle: Any) -> None:
        self.backend = history._store.writer.backend  # type: ignore[union-attr]
        self.name, self.call, self.meddle = name, call, meddle

    def __enter__(self) -> None:
        inner = getattr(self.backend, self.name)
        calls = 0

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.call:
                self.meddle()
            return inner(*args, **kwargs)

        setattr(self.backend, self.name, call)

    def __exit__(self, *_: object) -> None:
        delattr(self.backend, self.name)


def failing() -> None:
    raise StoreBusyError("others were writing; nothing was written")


@on(*ALL)
def test_a_message_that_is_replaced_meanwhile_is_one_or_the_other(store: Store) -> None:
    with store.open() as history, history.for_user("") as other:
        history.add_messages("c", [say("user", "a"), say("assistant", "b")], message_ids=["0", "1"])
        with Meddled(history, "read", 1, lambda: other.replace_message("c", "0", say("user", "x"))):
            fork = history.fork_chat("c").chat_id
        assert history.get_chat_history(fork) == [say("user", "x"), say("assistant", "b")]
        assert history.save_messages(fork, history.get_chat_history(fork)) == []
        check_chat(history, fork)


@on(*ALL)
def test_a_message_that_is_deleted_meanwhile_is_not_found(store: Store) -> None:
    with store.open() as history, history.for_user("") as other:
        history.add_messages("c", [say("user", "a"), say("assistant", "b")], message_ids=["0", "1"])
        with (
            Meddled(history, "read", 1, lambda: other.delete_message("c", "1")),
            pytest.raises(MessageNotFoundError, match="'1'"),
        ):
            history.fork_chat("c", at="1", new_chat_id="d")
        assert not history.chat_exists("d")


@on(*ALL)
def test_a_chat_whose_oldest_message_is_deleted_meanwhile_is_forked_without_it(store: Store) -> None:
    with store.open() as history, history.for_user("") as other:
        history.add_messages("c", [say("user", "a"), say("assistant", "b")], message_ids=["0", "1"])
        with Meddled(history, "read", 1, lambda: other.delete_oldest_messages("c", 1)):
            history.fork_chat("c", new_chat_id="d")
        assert history.get_chat_history("d") == [say("assistant", "b")]
        check_chat(history, "d")


@on(*ALL)
def test_a_fork_is_there_as_a_whole_or_not_at_all(store: Store) -> None:
    def written() -> None:
        raise AssertionError("a second write")

    with store.open() as history:
        history.add_messages("c", [say("user", "a"), say("assistant", "b"), say("user", "c")])
        history.archive_oldest_messages("c", 2)
        with Meddled(history, "write", 1, failing), pytest.raises(StoreBusyError):
            history.fork_chat("c", new_chat_id="d")
        assert not history.chat_exists("d")
        with Meddled(history, "write", 2, written):
            assert history.fork_chat("c", new_chat_id="d").message_count == 1
        check_chat(history, "d")
        assert [message.status for message in history.iter_messages("d", status=None)] == ["archived"] * 2 + ["active"]


def test_an_error_of_a_backend_is_not_taken_for_a_missing_message() -> None:
    def broken() -> None:
        raise KeyError("a bug")

    with Store("memory", ":memory:").open() as history:
        history.add_message("c", say("user", "a"))
        for name, call in (("outline", history.fork_chat), ("outline", lambda chat: history.switch_branch(chat, None))):
            with Meddled(history, name, 1, broken), pytest.raises(KeyError, match="a bug"):
                call("c")

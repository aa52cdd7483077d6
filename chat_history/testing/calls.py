"""Every public call, for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeAlias

from chat_history.history import ChatHistory

from .checks import say, says

__all__ = ["CALLS", "CHANGES", "WRITES", "Write"]

Write: TypeAlias = Callable[[ChatHistory, int | None], object]

WRITES: dict[str, Write] = {
    "add_message": lambda history, expected: history.add_message("c", say("user", "x"), expected_version=expected),
    "add_message with an id": lambda history, expected: history.add_message(
        "c", say("user", "x"), message_id="x", expected_version=expected
    ),
    "add_messages": lambda history, expected: history.add_messages("c", says("x", "y"), expected_version=expected),
    "save_messages": lambda history, expected: history.save_messages(
        "c", says("a", "b", "x"), expected_version=expected
    ),
    "save_messages elsewhere": lambda history, expected: history.save_messages(
        "c", says("a", "x"), expected_version=expected
    ),
    "set_messages": lambda history, expected: history.set_messages("c", says("x"), expected_version=expected),
    "switch_branch with messages": lambda history, expected: history.switch_branch(
        "c", None, messages=says("x"), chat_metadata={"m": 1}, expected_version=expected
    ),
}
"""Everything that takes an expected version and makes a chat."""

CHANGES: dict[str, Write] = {
    **WRITES,
    "update_chat": lambda history, expected: history.update_chat("c", title="x", expected_version=expected),
    "replace_message": lambda history, _: history.replace_message("c", "1", say("user", "x")),
    "switch_branch": lambda history, expected: history.switch_branch("c", "0", expected_version=expected),
    "delete_message": lambda history, _: history.delete_message("c", "1"),
    "delete_messages": lambda history, _: history.delete_messages("c", ["0", "1"]),
    "delete_last_message": lambda history, _: history.delete_last_message("c"),
    "delete_oldest_messages": lambda history, _: history.delete_oldest_messages("c", 1),
    "archive_oldest_messages": lambda history, _: history.archive_oldest_messages("c", 1),
}
"""Everything that changes the chat "c" where it holds the messages "0" and "1"."""


def _freely(change: Write, history: ChatHistory) -> object:
    return change(history, None)


CALLS: dict[str, Callable[[ChatHistory], object]] = {
    **{name: partial(_freely, change) for name, change in CHANGES.items()},
    "get_chat_history": lambda history: history.get_chat_history("c"),
    "get_chat_history(last=0)": lambda history: history.get_chat_history("c", last=0),
    "get_message_history": lambda history: history.get_message_history("c", format="openai"),
    "get_readable_chat_history": lambda history: history.get_readable_chat_history("c"),
    "get_messages": lambda history: history.get_messages("c"),
    "search": lambda history: history.search("a"),
    "iter_messages": lambda history: list(history.iter_messages("c")),
    "get_message": lambda history: history.get_message("c", "1"),
    "get_message_count": lambda history: history.get_message_count("c"),
    "list_branches": lambda history: history.list_branches("c"),
    "fork_chat": lambda history: history.fork_chat("c", new_chat_id="fork"),
    "delete_branch": lambda history: history.delete_branch("c", "1"),
    "delete_superseded": lambda history: history.delete_superseded("c"),
    "create_chat": lambda history: history.create_chat("new"),
    "get_chat": lambda history: history.get_chat("c"),
    "list_chats": lambda history: history.list_chats(),
    "get_all_chat_ids": lambda history: history.get_all_chat_ids(),
    "chat_exists": lambda history: history.chat_exists("c"),
    "delete_chat_history": lambda history: history.delete_chat_history("c"),
    "clear_all": lambda history: history.clear_all(),
    "purge": lambda history: history.purge(timedelta(0)),
    "delete_user": lambda history: history.delete_user(),
    "shared_by": lambda history: history.shared_by("ann"),
    "for_user": lambda history: history.for_user("ann"),
}
"""Every public call, for the chat "c" where it holds the messages "0" and "1"."""

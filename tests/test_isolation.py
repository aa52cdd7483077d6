"""Five owners at random, interleaved: each sees exactly what it would see alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import ALL, Store, on

from chat_history import ChatHistory, ChatHistoryError, ChatHistoryWarning, open_history
from chat_history.testing import say

OWNERS = [("", ""), ("", "ann"), ("acme", "ann"), ("acme", "bob"), ("ann", "")]
"""Names of which one could be taken for another."""
EXAMPLES = {"memory": 100, "relaxed": 50, "sqlite": 50, "json": 50, "postgres": 40}

chats = st.sampled_from(["c", "c", "d"])
ids = st.sampled_from(["1", "2", "3", "4"])
words = st.sampled_from(["aaa", "bbb", "aaa bbb"])
counts = st.integers(1, 2)

Call = Callable[[ChatHistory], Any]


def call(name: str, *arguments: Any, **named: Any) -> Call:
    def do(history: ChatHistory) -> Any:
        return getattr(history, name)(*arguments, **named)

    return do


CALLS: st.SearchStrategy[Call] = st.one_of(
    st.builds(lambda c, w, i: call("add_message", c, say("user", w), message_id=i), chats, words, ids),
    st.builds(lambda c, w, i: call("add_message", c, say("assistant", w), message_id=i), chats, words, ids),
    st.builds(lambda c, w: call("save_messages", c, [say("user", w)]), chats, words),
    st.builds(lambda c, w, i: call("replace_message", c, i, say("user", w)), chats, words, ids),
    st.builds(lambda c, i: call("delete_message", c, i), chats, ids),
    st.builds(lambda c, i: call("delete_branch", c, i), chats, ids),
    st.builds(lambda c, i: call("switch_branch", c, i), chats, ids),
    st.builds(lambda c, i, w: call("fork_chat", c, at=i, new_chat_id=w), chats, ids, words),
    st.builds(lambda c, w: call("create_chat", c, title=w), chats, words),
    st.builds(lambda c, w, s: call("update_chat", c, title=w, shared=s), chats, words, st.booleans()),
    st.builds(lambda c, n: call("archive_oldest_messages", c, n), chats, counts),
    st.builds(lambda c, n: call("delete_oldest_messages", c, n), chats, counts),
    st.builds(lambda c: call("delete_superseded", c), chats),
    st.builds(lambda c: call("delete_chat_history", c), chats),
    st.builds(lambda w, c: call("search", w, c), words, st.sampled_from([None, "c", "d"])),
    st.builds(lambda: call("purge", timedelta(0), status="archived")),
    st.just(call("clear_all")),
    st.just(call("delete_user")),
)
STEPS = st.lists(st.tuples(st.integers(0, len(OWNERS) - 1), CALLS), min_size=5, max_size=40)


def said(value: Any) -> Any:
    """What a call returns, without what is another one each time: ids that were made, times, versions."""
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [said(each) for each in value]
    fields = getattr(value, "_asdict", None) or getattr(value, "__dataclass_fields__", None)
    if fields is None:
        return value if not isinstance(value, str) or len(value) < 36 else "id"
    names = fields() if callable(fields) else fields
    return [
        (name, said(getattr(value, name))) for name in names if not name.endswith("_at") and name not in ("version",)
    ]


def outcome(do: Call, history: ChatHistory) -> Any:
    try:
        value = do(history)
    except ChatHistoryError as error:
        return type(error).__name__
    # Messages of one moment may be found in any order.
    if isinstance(value, Sequence) and not isinstance(value, str) and not hasattr(value, "_fields"):
        return sorted(repr(said(each)) for each in value)
    return said(value)


def sight(history: ChatHistory) -> Any:
    """All that an owner can see."""
    names = sorted(history.get_all_chat_ids())
    assert sorted(chat.chat_id for chat in history.list_chats()) == names
    return [
        (
            said(history.get_chat(name)),
            said(list(history.iter_messages(name, status=None))),
            said(history.list_branches(name)),
            history.get_chat_history(name),
        )
        for name in names
    ] + [sorted(repr(said(hit)) for hit in history.search(word, limit=1000)) for word in ("aaa", "bbb")]


@on(*ALL)
@pytest.mark.filterwarnings("ignore::chat_history.ChatHistoryWarning")
def test_each_owner_sees_what_it_would_see_alone(store: Store) -> None:
    with store.open() as together:

        @settings(
            max_examples=EXAMPLES[store.kind],
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(STEPS)
        def check(steps: list[tuple[int, Call]]) -> None:
            here = uuid4().hex  # owners of its own for each example, in one store
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ChatHistoryWarning)
                views = [together.for_user(user + here, tenant_id=tenant) for tenant, user in OWNERS]
                alone = [open_history("memory:", user_id=user + here, tenant_id=tenant) for tenant, user in OWNERS]
                for owner, do in steps:
                    assert outcome(do, views[owner]) == outcome(do, alone[owner])
                for view, other in zip(views, alone, strict=True):
                    assert sight(view) == sight(other)
                    other.shutdown()

        check()

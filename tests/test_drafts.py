"""A long import is made ready while the store takes it in, and is all there or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from stores import DURABLE, Store, on

from chat_history import InvalidMessageError
from chat_history.backends.base import Draft
from chat_history.backends.drafts import Drafts
from chat_history.testing import check_chat

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def draft(message_id: str) -> Draft:
    return Draft(message_id, "user", "openai", "", "{}", "", b"", NOW)


def test_drafts_are_made_as_they_are_come_to() -> None:
    made: list[str] = []
    ids = [str(number) for number in range(10)]

    def making() -> Iterator[Draft]:
        for each in ids:
            made.append(each)
            yield draft(each)

    drafts = Drafts(making(), ids)
    assert (len(drafts), drafts.message_ids, made) == (10, ids, [])
    assert (drafts[1], made) == (draft("1"), ids[:2])
    one, other = iter(drafts), iter(drafts)
    assert [next(one) for _ in range(4)] == [next(other) for _ in range(4)] == list(map(draft, ids[:4]))
    assert made == ids[:4]
    assert [*one] == [*other] == list(map(draft, ids[4:]))
    drafts.made()
    assert made == ids
    assert list(drafts) == drafts[:] == list(map(draft, ids))
    assert drafts[-1] == draft("9")


@on(*DURABLE, "memory")
def test_a_message_that_cannot_be_stored_late_in_a_long_import_leaves_nothing_behind(store: Store) -> None:
    messages = [{"role": "user", "content": str(number)} for number in range(3000)]
    with store.open() as history:
        history.add_message("c", {"role": "user", "content": "before"})
        version = history.get_chat("c").version
        for chat in ("c", "new"):
            with pytest.raises(InvalidMessageError, match="nan"):
                history.add_messages(chat, [*messages[:2500], {"role": "user", "content": float("nan")}, *messages])
        assert not history.chat_exists("new")
        assert history.get_chat("c").version == version
        assert history.get_chat_history("c") == [{"role": "user", "content": "before"}]
        stored = history.add_messages("c", messages)
        assert [message.text for message in stored] == [message["content"] for message in messages]
        assert check_chat(history, "c")[1:] == list(stored)

"""Messages are added in order, all of a batch or none, and come back as they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from chat_history.errors import InvalidMessageError, UnknownFormatError
from chat_history.history import ChatHistory
from chat_history.messages import Message, MessageStatus

from .checks import check_chat, contents, ids, say, says, version

__all__ = ["Adding"]

ACCEPTED: dict[str, Message] = {
    "half a surrogate pair": {"role": "user", "content": "a\ud800b"},
    "NUL": {"role": "user", "content": "a\0b", "\0": "\0"},
    "line separators": {"role": "user", "content": "a\nb\r\nc\u2028d\x85e\x1cf"},
    "a huge integer": {"role": "user", "content": "", "n": 10**400, "m": -(2**63) - 1},
    "floats": {"role": "user", "content": "", "f": [0.1, -0.0, 1e308, 5e-324, 1.0]},
    "10 MB of text": {"role": "user", "content": "\u00e4bc \U0001f600 " * 1_000_000},
    "an unknown role": {"role": "narrator'; DROP TABLE messages; --", "content": "hi"},
    "an empty role": {"role": "", "content": "hi"},
    "no content": {"role": "user"},
    "null": {"role": "assistant", "content": None, "refusal": None},
    "keys in their order": {"z": 1, "role": "user", "a": {"y": 1, "b": 2}, "content": "hi"},
    "what looks like a record": {"role": "user", "content": ']}\n{"chat_history": 1, "records": [\n', "position": 7},
}


class Adding:
    """Messages are added in order, all of a batch or none, and come back as they were."""

    def test_what_was_added_comes_back_in_order(self, history: ChatHistory) -> None:
        messages = [say("user", str(number)) for number in range(20)]
        for message in messages[:10]:
            history.add_message("c", message)
        history.add_messages("c", messages[10:])
        assert history.get_chat_history("c") == messages

    @pytest.mark.parametrize("message", ACCEPTED.values(), ids=ACCEPTED.keys())
    def test_whatever_json_can_hold_comes_back_equal(self, history: ChatHistory, message: Message) -> None:
        stored = history.add_message("c", message)
        (found,) = history.get_chat_history("c")
        assert found == message
        assert json.dumps(found) == json.dumps(message)
        assert history.get_message("c", stored.message_id) == stored
        check_chat(history, "c")

    def test_adding_returns_the_messages_as_they_are_stored(self, history: ChatHistory) -> None:
        one = history.add_message("c", say("user", "hi"), metadata={"source": "web"})
        more = history.add_messages("c", says("a", "b"))
        assert list(history.get_messages("c")) == [one, *more]
        assert [history.get_message("c", each.message_id) for each in more] == more

    def test_a_dict_of_several_formats_is_stored_as_the_one_that_is_named(self, history: ChatHistory) -> None:
        message = say("user", "hi")
        assert history.add_message("c", message).format == "openai"
        stored = [
            history.add_message("c", message, format="openai_responses"),
            history.add_message("c", message, format="openai_responses", message_id="m"),
            *history.add_messages("c", [message], format="openai_responses"),
            *history.save_messages("d", [message], format="openai_responses"),
            *history.set_messages("e", [message], format="openai_responses"),
            history.replace_message(
                "e", history.add_message("e", message).message_id, message, format="openai_responses"
            ),
        ]
        assert {each.format for each in stored} == {"openai_responses"}
        assert history.get_message_history("d", format="openai_responses") == [message]
        assert history.save_messages("d", [message]) == []

    def test_a_message_that_is_none_of_the_named_format_is_refused(self, history: ChatHistory) -> None:
        for message in (say("user", "hi"), {"type": "message"}, object(), None):
            with pytest.raises(InvalidMessageError):
                history.add_message("c", message, format="pydantic_ai")
        with pytest.raises(UnknownFormatError):
            history.add_message("c", say("user", "hi"), format="nobodys")
        assert not history.chat_exists("c")

    def test_a_stored_message_says_all_about_itself(self, history: ChatHistory) -> None:
        message = {"role": "assistant", "content": "Hello!", "name": "bot"}
        before = datetime.now(UTC)
        stored = history.add_message("c", message)
        assert (stored.chat_id, stored.position, stored.parent) == ("c", 0, None)
        assert (stored.role, stored.text, stored.status) == ("assistant", "Hello!", MessageStatus.ACTIVE)
        assert (stored.format, stored.metadata, stored.json()) == ("openai", {}, message)
        assert before <= stored.created_at <= datetime.now(UTC)
        assert stored.created_at.utcoffset() == timedelta(0)

    def test_positions_are_dense_and_each_message_follows_the_one_before(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c"))
        history.add_message("c", say("user", "d"))
        history.add_message("other", say("user", "x"))
        history.add_messages("c", says("e", "f"))
        stored = check_chat(history, "c")
        assert [message.position for message in stored] == list(range(6))
        assert [message.parent for message in stored] == [None, *ids(history)[:-1]]

    def test_metadata_is_kept_beside_each_message(self, history: ChatHistory) -> None:
        metadata = {"tags": ["a", None], "nested": {"\0\ud800": 1.5}, "zero": 0}
        history.add_messages("c", says("a", "b"), metadata=metadata)
        history.add_message("c", say("user", "c"))
        assert [message.metadata for message in history.get_messages("c")] == [metadata, metadata, {}]

    def test_an_empty_batch_writes_nothing_and_makes_no_chat(self, history: ChatHistory) -> None:
        assert history.add_messages("c", []) == []
        assert history.add_messages("c", (), message_ids=[]) == []
        assert not history.chat_exists("c")

    def test_a_long_batch_is_stored_whole(self, history: ChatHistory) -> None:
        messages = [say("user", f"{number} " + "x" * 100) for number in range(3000)]
        history.add_messages("c", messages)
        assert history.get_chat_history("c") == messages
        assert [message.position for message in history.iter_messages("c")] == list(range(3000))

    def test_a_message_id_that_is_there_is_not_stored_again(self, history: ChatHistory) -> None:
        first = history.add_message("c", say("user", "a"), message_id="one", metadata={"n": 1})
        was = version(history)
        assert history.add_message("c", say("user", "something else"), message_id="one") == first
        assert contents(history) == ["a"]
        assert version(history) == was

    def test_a_batch_that_is_repeated_with_more_stores_only_the_rest(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b"), message_ids=["0", "1"])
        again = history.add_messages("c", says("a", "b", "c", "d"), message_ids=["0", "1", "2", "3"])
        assert [message.message_id for message in again] == ["0", "1", "2", "3"]
        assert contents(history) == ["a", "b", "c", "d"]
        assert again == check_chat(history, "c")

    def test_an_id_that_stands_twice_in_a_batch_is_stored_once(self, history: ChatHistory) -> None:
        history.add_messages("c", says("a", "b", "c"), message_ids=["0", "1", "0"])
        assert contents(history) == ["a", "b"]

    def test_a_message_id_of_a_displaced_message_is_known_too(self, two: ChatHistory) -> None:
        two.set_messages("c", [])
        assert two.add_message("c", say("user", "a"), message_id="0").status == "superseded"
        assert contents(two) == []

    def test_the_same_message_id_in_two_chats_is_two_messages(self, history: ChatHistory) -> None:
        for chat in ("c", "d"):
            history.add_message(chat, say("user", chat), message_id="one")
        assert [history.get_message(chat, "one").text for chat in ("c", "d")] == ["c", "d"]

    @pytest.mark.parametrize("message_id", ["x" * 255, "\U0001f600" * 255, 'it\'s/"an" id\n%', " "])
    def test_a_message_id_may_be_any_text_of_255_characters(self, history: ChatHistory, message_id: str) -> None:
        stored = history.add_message("c", say("user", "a"), message_id=message_id)
        assert history.get_message("c", message_id) == stored
        assert history.delete_message("c", message_id)

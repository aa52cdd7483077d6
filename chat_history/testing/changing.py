"""Messages are replaced, deleted and archived, and the rest stays in order."""

from __future__ import annotations

from chat_history.history import ChatHistory

from .checks import Reopen, check_chat, contents, say, says, texts

__all__ = ["Changing"]


class Changing:
    """Messages are replaced, deleted and archived, and the rest stays in order."""

    def test_a_replaced_message_keeps_its_place_and_id(self, history: ChatHistory) -> None:
        before = history.add_messages("c", says("a", "b", "c"), metadata={"n": 1})
        new = history.replace_message("c", before[1].message_id, {"role": "tool", "content": "longer than before"})
        assert (new.message_id, new.position, new.parent) == (before[1].message_id, 1, before[0].message_id)
        assert (new.created_at, new.status, new.metadata) == (before[1].created_at, "active", {"n": 1})
        assert (new.role, new.text) == ("tool", "longer than before")
        assert check_chat(history, "c") == [before[0], new, before[2]]
        assert history.replace_message("c", new.message_id, say("user", "x"), metadata={"n": 2}).metadata == {"n": 2}
        assert history.get_message("c", new.message_id).metadata == {"n": 2}

    def test_a_replacement_may_take_the_metadata_away(self, history: ChatHistory) -> None:
        message_id = history.add_message("c", say("user", "a"), metadata={"n": 1}).message_id
        assert history.replace_message("c", message_id, say("user", "b"), metadata={}).metadata == {}
        assert check_chat(history, "c")[0].metadata == {}

    def test_a_save_knows_a_replaced_message_by_its_new_content(self, two: ChatHistory) -> None:
        two.save_messages("c", says("a", "b"))
        two.replace_message("c", "1", say("assistant", "x"))
        assert two.save_messages("c", says("a", "x")) == []
        assert texts(two.save_messages("c", says("a", "b"))) == ["b"]

    def test_what_followed_a_deleted_message_follows_its_predecessor(self, history: ChatHistory) -> None:
        before = history.add_messages("c", says("a", "b", "c"))
        assert history.delete_message("c", before[1].message_id)
        assert contents(history) == ["a", "c"]
        assert history.get_message("c", before[2].message_id).parent == before[0].message_id
        assert history.delete_message("c", before[0].message_id)
        assert history.get_message("c", before[2].message_id).parent is None
        check_chat(history, "c")

    def test_a_message_that_is_not_there_is_not_deleted(self, two: ChatHistory) -> None:
        assert two.delete_message("c", "0")
        assert not two.delete_message("c", "0")
        assert not two.delete_message("unknown", "0")
        assert contents(two) == ["b"]

    def test_several_messages_are_deleted_at_once(self, history: ChatHistory) -> None:
        before = history.add_messages("c", says("a", "b", "c", "d"))
        history.archive_oldest_messages("c", 2)
        gone = history.delete_messages("c", [before[3].message_id, before[0].message_id, "unknown"])
        assert [(message.text, message.status) for message in gone] == [("a", "archived"), ("d", "active")]
        assert contents(history) == ["c"]
        assert history.delete_messages("c", []) == history.delete_messages("unknown", ["x"]) == []
        check_chat(history, "c")

    def test_positions_are_not_given_out_again(self, two: ChatHistory, reopen: Reopen) -> None:
        two.delete_last_message("c")
        assert two.add_message("c", say("user", "x")).position == 2
        two.delete_oldest_messages("c", 5)
        assert reopen().add_message("c", say("user", "y")).position == 3
        check_chat(two, "c")

    def test_delete_last_message_gives_back_what_it_removed(self, history: ChatHistory) -> None:
        before = history.add_messages("c", says("a", "b"))
        assert history.delete_last_message("c") == before[1]
        assert history.add_message("c", say("user", "x")).parent == before[0].message_id
        history.delete_last_message("c")
        assert history.delete_last_message("c") == before[0]
        assert history.delete_last_message("c") is None
        assert history.delete_last_message("unknown") is None
        assert history.chat_exists("c")
        assert history.add_message("c", say("user", "y")).parent is None

    def test_delete_oldest_messages_gives_back_what_it_removed(self, history: ChatHistory) -> None:
        before = history.add_messages("c", says("a", "b", "c"))
        assert history.delete_oldest_messages("c", 2) == before[:2]
        assert contents(history) == ["c"]
        assert history.get_messages("c")[0].parent is None
        (rest,) = history.delete_oldest_messages("c", 5)
        assert (rest.text, rest.parent) == ("c", None)
        assert history.delete_oldest_messages("c", 5) == history.delete_oldest_messages("unknown", 1) == []
        check_chat(history, "c")

    def test_archived_messages_are_out_of_the_window_and_still_of_the_chat(self, history: ChatHistory) -> None:
        before = history.add_messages("c", says("a", "b", "c"))
        archived = history.archive_oldest_messages("c", 2)
        assert [message.message_id for message in archived] == [message.message_id for message in before[:2]]
        assert list(history.get_messages("c", status="archived")) == archived
        assert contents(history) == ["c"]
        assert history.get_message_count("c") == 1
        history.archive_oldest_messages("c", 5)
        assert history.add_message("c", say("user", "d")).parent == before[2].message_id
        assert history.archive_oldest_messages("unknown", 1) == []
        check_chat(history, "c")

    def test_a_long_chat_is_archived_and_deleted_in_one_go(self, history: ChatHistory) -> None:
        history.add_messages("c", [say("user", str(number)) for number in range(2000)])
        assert len(history.archive_oldest_messages("c", 1500)) == 1500
        assert len(history.delete_oldest_messages("c", 450)) == 450
        stored = check_chat(history, "c")
        assert texts(stored) == [str(number) for number in (*range(1500), *range(1950, 2000))]

"""Every write changes the version of its chat, and can be made conditional on it."""

from __future__ import annotations

import pytest

from chat_history.errors import VersionConflictError
from chat_history.history import ChatHistory

from .calls import CHANGES, WRITES, Write
from .checks import Reopen, check_chat, say, says, version

__all__ = ["Versions"]


class Versions:
    """Every write changes the version of its chat, and can be made conditional on it."""

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
    def test_every_write_changes_the_version(self, two: ChatHistory, change: Write) -> None:
        was = version(two)
        change(two, None)
        assert version(two) > was
        check_chat(two, "c")

    @pytest.mark.parametrize("change", WRITES.values(), ids=WRITES.keys())
    def test_a_write_at_the_expected_version_happens(self, two: ChatHistory, change: Write) -> None:
        was = version(two)
        change(two, was)
        assert version(two) == was + 1

    @pytest.mark.parametrize("change", WRITES.values(), ids=WRITES.keys())
    def test_a_write_at_another_version_is_refused_and_does_nothing(
        self, two: ChatHistory, reopen: Reopen, change: Write
    ) -> None:
        stale = version(two)
        reopen().add_message("c", say("user", "c"))
        before = check_chat(two, "c")
        for expected in (stale, 0, version(two) + 1):
            with pytest.raises(VersionConflictError) as caught:
                change(two, expected)
            assert (caught.value.expected, caught.value.actual) == (expected, version(two))
        assert check_chat(two, "c") == before

    @pytest.mark.parametrize("change", WRITES.values(), ids=WRITES.keys())
    def test_expected_version_0_means_that_there_is_no_such_chat(self, history: ChatHistory, change: Write) -> None:
        with pytest.raises(VersionConflictError) as caught:
            change(history, 1)
        assert caught.value.actual == 0
        assert not history.chat_exists("c")
        change(history, 0)
        assert history.chat_exists("c")

    def test_what_changes_nothing_leaves_the_version(self, two: ChatHistory) -> None:
        was = two.get_chat("c")
        two.add_messages("c", [])
        two.add_message("c", say("user", "a"), message_id="0")
        two.save_messages("c", [])
        two.save_messages("c", says("a", "b"))
        two.set_messages("c", says("a", "b"))
        two.delete_message("c", "no such message")
        two.delete_oldest_messages("c", 0)
        two.archive_oldest_messages("c", 0)
        two.get_messages("c")
        assert two.get_chat("c") == was

    def test_a_chat_begun_again_is_never_at_a_version_it_had(self, history: ChatHistory) -> None:
        seen = set()
        for _ in range(5):
            history.add_message("c", say("user", "a"))
            history.add_message("c", say("user", "b"))
            assert version(history) not in seen
            seen |= {version(history), version(history) - 1}
            history.delete_chat_history("c")

    def test_a_chat_is_deleted_at_the_expected_version(self, two: ChatHistory, reopen: Reopen) -> None:
        stale = version(two)
        reopen().add_message("c", say("user", "c"))
        for expected in (stale, 0, 2**70):
            with pytest.raises(VersionConflictError) as caught:
                two.delete_chat_history("c", expected_version=expected)
            assert (caught.value.expected, caught.value.actual) == (expected, version(two))
        assert len(check_chat(two, "c")) == 3
        assert two.delete_chat_history("c", expected_version=version(two))
        with pytest.raises(VersionConflictError):
            two.delete_chat_history("c", expected_version=stale)
        assert not two.delete_chat_history("c", expected_version=0)

    def test_adding_nothing_at_another_version_is_refused_too(self, history: ChatHistory) -> None:
        history.add_message("c", say("user", "a"))
        with pytest.raises(VersionConflictError):
            history.add_messages("c", [], expected_version=0)
        assert history.add_messages("c", [], expected_version=version(history, "c")) == []

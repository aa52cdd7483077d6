"""Nobody reaches the chats of another owner."""

from __future__ import annotations

import pytest

from chat_history.errors import MessageNotFoundError
from chat_history.history import ChatHistory

from .checks import Reopen, check_chat, contents, say, says

__all__ = ["Owners"]


class Owners:
    """Nobody reaches the chats of another owner."""

    @pytest.mark.parametrize(
        "owner",
        [("", "bob"), ("acme", ""), ("acme", "ann"), ("", "Ann"), ("a", "nn"), ("", "\U0001f600'\"/"), ("", "ann ")],
    )
    def test_nobody_reaches_the_chat_of_another_owner(self, two: ChatHistory, owner: tuple[str, str]) -> None:
        ann = two.for_user("ann", tenant_id="")
        ann.add_messages("c", says("a", "b"), message_ids=["0", "1"])
        mine, shared = check_chat(ann, "c"), ann.get_chat("c")
        other = two.for_user(owner[1], tenant_id=owner[0])
        assert [*other.get_chat_history("c"), *other.get_all_chat_ids(), *other.list_chats()] == []
        assert other.get_message_count("c") == 0
        assert not other.chat_exists("c")
        with pytest.raises(MessageNotFoundError):
            other.get_message("c", "0")
        with pytest.raises(MessageNotFoundError):
            other.replace_message("c", "0", say("user", "x"))
        assert not other.delete_message("c", "0")
        assert not other.delete_chat_history("c")
        assert other.delete_last_message("c") is None
        assert other.delete_oldest_messages("c", 9) == other.archive_oldest_messages("c", 9) == []
        assert other.clear_all() == 0
        other.set_messages("c", says("x"))
        other.create_chat("d")
        assert other.clear_all() == 2
        assert check_chat(ann, "c") == mine
        assert ann.get_chat("c") == shared
        assert contents(two) == ["a", "b"]

    def test_two_owners_may_use_the_same_chat_id(self, history: ChatHistory, reopen: Reopen) -> None:
        owners = [("acme", "ann"), ("acme", "bob"), ("", "ann")]
        for tenant, user in owners:
            history.for_user(user, tenant_id=tenant).add_message("c", say("user", f"{tenant}/{user}"), message_id="0")
        for tenant, user in owners:
            view = reopen().for_user(user, tenant_id=tenant)
            assert contents(view) == [f"{tenant}/{user}"]
            assert (view.get_chat("c").tenant_id, view.get_chat("c").user_id) == (tenant, user)
            assert len(view.list_chats()) == 1

    def test_a_view_keeps_the_tenant_unless_told_otherwise(self, history: ChatHistory) -> None:
        acme = history.for_user("ann", tenant_id="acme")
        assert acme.for_user("bob").tenant_id == "acme"
        assert acme.for_user("bob", tenant_id="").tenant_id == ""

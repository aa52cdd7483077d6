"""Nobody reaches the chats of another owner."""

from __future__ import annotations

import pytest

from chat_history.errors import MessageNotFoundError, ReadOnlyError
from chat_history.history import ChatHistory

from .calls import CALLS, CHANGES
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

    def test_what_is_shared_can_be_read_by_others_and_nothing_else(self, history: ChatHistory, reopen: Reopen) -> None:
        ann = history.for_user("ann", tenant_id="acme")
        for number in range(7):
            ann.add_messages(f"c{number}", says("a", "b"), message_ids=["0", "1"])
        for chat in ("c1", "c4", "c6"):
            ann.update_chat(chat, shared=True)
        seen = reopen().for_user("bob", tenant_id="acme").shared_by("ann")
        assert (seen.user_id, seen.tenant_id) == ("ann", "acme")
        assert seen.get_all_chat_ids() == ["c1", "c4", "c6"]
        assert [chat.chat_id for chat in seen.list_chats()] == ["c6", "c4", "c1"]
        page = seen.list_chats(limit=2)
        rest = seen.list_chats(limit=2, after=page.after)
        assert [chat.chat_id for chat in (*page, *rest)] == ["c6", "c4", "c1"]
        assert rest.after is None
        assert list(seen.list_chats(limit=2, before=rest.before)) == list(page)
        assert check_chat(seen, "c4") == check_chat(ann, "c4")
        assert contents(seen, "c4") == ["a", "b"]
        assert seen.get_message("c4", "1").text == "b"
        for name, call in CALLS.items():
            if name in CHANGES or name.startswith(("create", "fork", "delete", "clear", "purge")):
                with pytest.raises(ReadOnlyError):
                    call(seen)
        assert not seen.chat_exists("c0")
        assert [*seen.get_chat_history("c0"), *seen.list_branches("c0"), *seen.get_messages("c0")] == []
        with pytest.raises(MessageNotFoundError):
            seen.get_message("c0", "0")
        ann.update_chat("c4", shared=False)
        assert seen.get_chat_history("c4") == []
        assert history.for_user("bob", tenant_id="").shared_by("ann").get_all_chat_ids() == []

    def test_a_deleted_user_leaves_nothing_but_a_receipt(self, history: ChatHistory, reopen: Reopen) -> None:
        ann, bob = history.for_user("ann"), history.for_user("bob")
        for user in (ann, bob):
            user.add_messages("c", says("a", "b", "c"))
            user.save_messages("c", says("a", "x"))
            user.create_chat("d")
        receipt = ann.delete_user()
        assert (receipt.chats, receipt.messages, receipt.user_id, receipt.tenant_id) == (2, 4, "ann", "")
        assert receipt.deleted_at.tzinfo is not None
        for user in (ann, reopen().for_user("ann")):
            assert [*user.get_all_chat_ids(), *user.iter_messages("c", status=None)] == []
        assert (ann.delete_user().chats, ann.delete_user().messages) == (0, 0)
        assert len(check_chat(bob, "c")) == 4
        ann.add_message("c", say("user", "again"))
        assert contents(ann) == ["again"]

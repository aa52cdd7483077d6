"""Images, audio and files in messages come back as they were, and are kept once for each owner."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from hashlib import shake_256

import pytest

from chat_history.backends.base import Backend, Change
from chat_history.backends.contents import THRESHOLD, bare, hash_of, references
from chat_history.errors import InvalidMessageError, VersionConflictError
from chat_history.history import ChatHistory
from chat_history.messages import Message

from .checks import Reopen, check_chat, contents, say, version
from .primitives import KEY, NOW, draft

__all__ = ["BigContents", "KeptContents", "image", "showing"]


def image(seed: int, size: int = 30_000) -> str:
    """Random bytes in base64."""
    return base64.b64encode(shake_256(str(seed).encode()).digest(size)).decode()


def showing(*images: str, text: str = "What is \u00e9\U0001f600 \u201e~this\u201c?") -> Message:
    """A message with a text and images."""
    urls = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{each}"}} for each in images]
    return {"role": "user", "content": [{"type": "text", "text": text}, *urls]}


def kept(history: ChatHistory, *images: str, chat: str = "c") -> list[str]:
    """Which of these images the owner has beside the messages."""
    hashes = {hash_of(each.rstrip("=")): each for each in images}
    found = history._backend().contents(history._key(chat), list(hashes))
    assert all(found[each] == hashes[each].rstrip("=") for each in found)
    return [hashes[each] for each in found]


ONE, OTHER = image(1), image(2)

EDGES: dict[str, Message] = {
    "several": showing(ONE, OTHER, image(3, 29_999), image(4, 29_998)),
    "the same twice": showing(ONE, OTHER, ONE),
    "the whole content": say("tool", ONE),
    "within a text": say("user", f"Look:\n{ONE}\n\u00e9 {OTHER} and \\u{ONE} \\{ONE}\u0001{ONE}"),
    "in an object": {"role": "user", "content": "x", ONE: {"data": [OTHER, 1.5, None]}},
    "of the other alphabet": showing(image(5).translate(str.maketrans("+/", "-_"))),
    "letters": say("user", "a" * 100_000),
    "just long enough": say("user", "b" * THRESHOLD),
    "just too short": say("user", "b" * (THRESHOLD - 1)),
    "short ones": say("user", ("c" * (THRESHOLD - 1) + " ") * 4),
    "long prose": say("user", "many words " * 20_000),
    "a tilde": say("user", "~"),
    "what looks cut": say("user", f'~[[[0,"{hash_of(ONE)}"]],[]]\n{ONE}'),
}

GOING: dict[str, Callable[[ChatHistory, str], object]] = {
    "delete_message": lambda history, message_id: history.delete_message("c", message_id),
    "delete_messages": lambda history, message_id: history.delete_messages("c", [message_id]),
    "delete_last_message": lambda history, _: history.delete_last_message("c"),
    "delete_oldest_messages": lambda history, _: history.delete_oldest_messages("c", 9),
    "replace_message": lambda history, message_id: history.replace_message("c", message_id, say("user", "x")),
    "delete_branch": lambda history, message_id: (
        history.set_messages("c", [say("user", "x")]),
        history.delete_branch("c", message_id),
    ),
    "delete_superseded": lambda history, _: (history.set_messages("c", []), history.delete_superseded("c")),
    "purge of the archived": lambda history, _: (
        history.archive_oldest_messages("c", 9),
        history.purge(timedelta(0), status="archived"),
    ),
    "purge": lambda history, _: history.purge(timedelta(0)),
    "delete_chat_history": lambda history, _: history.delete_chat_history("c"),
    "delete_chat_history at a version": lambda history, _: history.delete_chat_history(
        "c", expected_version=version(history)
    ),
    "clear_all": lambda history, _: history.clear_all(),
    "delete_user": lambda history, _: history.delete_user(),
}
"""Every way in which the only message of the chat "c" goes."""


class BigContents:
    """Images, audio and files in messages come back as they were, and are kept once for each owner."""

    @pytest.mark.parametrize("message", EDGES.values(), ids=list(EDGES))
    def test_a_big_message_comes_back_as_it_was(self, history: ChatHistory, reopen: Reopen, message: Message) -> None:
        history.add_message("c", say("system", "s"))
        stored = history.add_message("c", message)
        batch = history.add_messages("c", [message, say("assistant", "x"), message])
        for opened in (history, reopen()):
            assert check_chat(opened, "c")[1:] == [stored, *batch]
            assert opened.get_message("c", stored.message_id) == stored
            assert opened.get_chat_history("c")[1:] == [message, message, say("assistant", "x"), message]
            assert opened.get_chat_history("c", last=1) == [message]
            assert opened.get_message_history("c", format="openai", last=1)[-1] == message
            assert list(opened.get_messages("c", limit=2)) == list(batch[1:])
            assert opened.save_messages("c", opened.get_chat_history("c")) == []
        assert history.replace_message("c", stored.message_id, message).payload == stored.payload
        assert history.delete_messages("c", [stored.message_id])[0].payload == stored.payload
        assert history.delete_last_message("c") == batch[2]
        assert check_chat(history, "c")[1].payload == stored.payload

    def test_a_payload_that_looks_cut_comes_back_byte_for_byte(self, backend: Backend, reopen: Reopen) -> None:
        payloads = ['"~"', '"~[]\\n"', f'"~[[[0,\\"{hash_of(ONE)}\\"]],[]]\\n{ONE}"', f'"{ONE}"', f"[{'1' * 20_000}]"]
        drafts = [draft(str(number), payload) for number, payload in enumerate(payloads)]
        backend.write(KEY, Change(NOW, drafts=drafts, active=len(drafts)))
        for payload in payloads[:2]:
            backend.append(KEY, draft(payload, payload))
        for opened in (backend, reopen()._backend()):
            assert [record.payload for record in opened.read(KEY)] == payloads + payloads[:2]
            assert [row[3] for row in opened.read_payloads(KEY)] == payloads + payloads[:2]
            assert [record.payload for record in opened.find(KEY, ["1", "2"])] == payloads[1:3]

    def test_images_in_a_long_import_are_all_there(self, history: ChatHistory, reopen: Reopen) -> None:
        images = [image(number, 13_000) for number in range(3)]
        messages = [showing(images[number % 3]) if number % 400 > 397 else say("user", "x") for number in range(2500)]
        stored = history.add_messages("c", messages)
        assert check_chat(reopen(), "c") == list(stored)
        assert history.get_chat_history("c") == messages


class KeptContents:
    """Images, audio and files are kept once for each owner: of a backend whose `keeps_contents` is True."""

    def test_the_same_image_in_several_chats_is_kept_once_beside_them(
        self, history: ChatHistory, reopen: Reopen
    ) -> None:
        for chat in "abc":
            history.add_message(chat, showing(ONE))
            history.save_messages(chat, [showing(ONE), say("tool", ONE)])
        for opened in (history, reopen()):
            assert kept(opened, ONE, OTHER) == [ONE]
            for chat in "abc":
                rows = bare(opened._backend()).read(opened._key(chat))
                assert [references(row.payload) for row in rows] == [[hash_of(ONE)]] * 2
                assert all(len(row.payload) + len(row.text) < 500 for row in rows)
                assert contents(opened, chat) == [showing(ONE)["content"], ONE]

    @pytest.mark.parametrize("going", GOING.values(), ids=list(GOING))
    def test_an_image_goes_with_the_last_message_that_refers_to_it(
        self, history: ChatHistory, reopen: Reopen, going: Callable[[ChatHistory, str], object]
    ) -> None:
        ann = history.for_user("ann")
        ann.add_message("c", showing(ONE, OTHER))
        stored = history.add_message("c", showing(ONE, OTHER))
        going(history, stored.message_id)
        for opened in (history, reopen()):
            assert kept(opened, ONE, OTHER) == []
            assert contents(opened.for_user("ann")) == [showing(ONE, OTHER)["content"]]
        history.add_message("c", showing(ONE))
        assert history.get_chat_history("c", last=1) == [showing(ONE)]

    def test_an_image_stays_for_as_long_as_any_message_refers_to_it(self, history: ChatHistory, reopen: Reopen) -> None:
        first, second, third = history.add_messages("c", [showing(ONE, OTHER), say("tool", ONE), showing(ONE)])
        fork = history.fork_chat("c", new_chat_id="fork", at=first.message_id)
        history.set_messages("c", [showing(OTHER)])
        history.archive_oldest_messages("c", 1)
        for message in (second, third):
            assert history.delete_message("c", message.message_id)
            assert sorted(kept(reopen(), ONE, OTHER)) == sorted([ONE, OTHER])
        history.replace_message("c", first.message_id, showing(OTHER))
        history.delete_chat_history("c")
        assert contents(reopen(), "fork") == [showing(ONE, OTHER)["content"]]
        history.replace_message("fork", str(fork.head), showing(OTHER))
        assert kept(reopen(), ONE, OTHER) == [OTHER]
        assert contents(history, "fork") == [showing(OTHER)["content"]]
        history.delete_chat_history("fork")
        assert kept(reopen(), ONE, OTHER) == []

    def test_owners_share_no_image(self, history: ChatHistory, reopen: Reopen) -> None:
        owners = [history.for_user(user, tenant_id=tenant) for tenant, user in [("", ""), ("", "ann"), ("ann", "")]]
        for owner in owners[:2]:
            owner.add_message("c", showing(ONE))
        assert [kept(owner, ONE) for owner in owners] == [[ONE], [ONE], []]
        owners[0].clear_all()
        assert [kept(owner, ONE) for owner in owners] == [[], [ONE], []]
        assert contents(reopen().for_user("ann")) == [showing(ONE)["content"]]
        assert owners[1].update_chat("c", shared=True)
        assert history.for_user("bob").shared_by("ann").get_chat_history("c") == [showing(ONE)]

    def test_a_write_that_is_refused_keeps_no_image(self, history: ChatHistory, reopen: Reopen) -> None:
        history.add_message("c", say("user", "a"))
        for write in (history.add_messages, history.save_messages, history.set_messages):
            with pytest.raises(VersionConflictError):
                write("c", [showing(ONE)], expected_version=1)
        with pytest.raises(InvalidMessageError):
            history.add_messages("c", [showing(ONE), say("user", float("nan"))])  # type: ignore[arg-type]
        assert kept(reopen(), ONE) == []
        assert contents(history) == ["a"]

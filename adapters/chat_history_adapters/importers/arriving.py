"""Foreign chats on their way into a store: a page at a time, each message once, whatever happened before.

A message's id is the source's, or a fingerprint of the message and of all that it follows. So what has arrived is
known again, also after a kill in the middle; what the source has got since is added; and where it was rewritten it
becomes a branch, as with `save_messages`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

from chat_history.arguments import checked_message_id, checked_metadata
from chat_history.backends.base import UNSET, Change, Draft
from chat_history.errors import ChatExistsError, ChatHistoryWarning, InvalidArgumentError, InvalidMessageError, brief
from chat_history.formats import readable
from chat_history.history import ChatHistory
from chat_history.loading import naming_damage
from chat_history.messages import MessageStatus
from chat_history.records import draft_of
from chat_history.saving import digest
from chat_history.transfer import Moved, Progress
from chat_history.tree import switch
from chat_history.writing import shortened

from .foreign import ForeignChat, ForeignMessage
from .payloads import read

__all__ = ["receive"]

PAGE = 256
"""Messages that are held at a time."""
NAMED = 5
"""Unreadable messages that the warning names."""

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def receive(target: ChatHistory, chats: Iterable[ForeignChat], *, skip: bool, progress: Progress | None) -> Moved:
    """Take all of these chats into a history; how much has arrived, what was there already included."""
    moved = Moved(0, 0)
    unreadable: list[str] = []
    count = 0
    for chat in chats:
        arrival = _Arrival(target, chat, skip=skip)
        for messages in arrival.run():
            if progress:
                progress(Moved(moved.chats + 1, moved.messages + messages))
        moved = Moved(moved.chats + 1, moved.messages + arrival.count)
        count += len(arrival.unreadable)
        unreadable += arrival.unreadable[: NAMED - len(unreadable)]
        if progress:
            progress(moved)
    if count:
        more = f"; and {count - len(unreadable)} more" if count > len(unreadable) else ""
        warnings.warn(
            f"{count} messages could not be read and were left out: {'; '.join(unreadable)}{more}",
            ChatHistoryWarning,
            stacklevel=3,
        )
    return moved


class _Arriving(NamedTuple):
    draft: Draft
    parent: str | None
    archived: bool


class _Arrival:
    """One chat on its way."""

    def __init__(self, target: ChatHistory, chat: ForeignChat, *, skip: bool) -> None:
        if not chat.chat_id:
            raise InvalidArgumentError("the source has a chat without an id; give it one there")
        self.backend = target._backend()
        self.writer = target._writer()
        self.key = target._key(chat.chat_id)
        self.chat = chat
        self.skip = skip
        self.count = 0
        self.unreadable: list[str] = []
        self._last: str | None = None
        self._time = chat.created_at
        self._left_out: dict[str, str | None] = {}
        self._is_foreign = False

    def run(self) -> Iterator[int]:
        """Take all messages, and say after each page how many there are so far."""
        there = self.backend.get_chat(self.key)
        before = there.head if there else None
        # Whether the chat ends with a message that was imported, so that it is to end where the source ends.
        is_ours = before is None or self._was_imported(before)
        self._is_foreign = there is not None and bool(self.backend.read_payloads(self.key, limit=1, status=None))
        page: list[_Arriving] = []
        for number, message in enumerate(self.chat.messages, 1):
            each = self._read(number, message)
            if each is None:
                continue
            is_ours = is_ours or each.draft.message_id == before
            self.count += 1
            page.append(each)
            if len(page) == PAGE:
                self._take(page)
                page = []
                yield self.count
        self._take(page)
        if there is None and not self.count:
            self._create()
        self._end_with((self._kept(self.chat.head) or self._last) if is_ours else before)

    def _was_imported(self, message_id: str) -> bool:
        """Whether it is such a fingerprint."""
        found = self.backend.find(self.key, [message_id])
        with naming_damage(self.key.chat_id, ((each.position, each.payload) for each in found)):
            return any(_fingerprint(each.parent, each.format, json.loads(each.payload)) == message_id for each in found)

    # ---- reading

    def _read(self, number: int, message: ForeignMessage) -> _Arriving | None:
        """The message as a draft; None for one that cannot be read and is to be left out."""
        parent = self._last if message.parent is UNSET else self._kept(message.parent)
        try:
            found = read(message)
            metadata = checked_metadata(message.metadata)
            message_id = message.message_id or _fingerprint(parent, found.format.name, found.value)
            checked_message_id(message_id)
        except (InvalidMessageError, ValueError, LookupError, TypeError, AttributeError) as error:
            named = f"message {number} of chat {shortened(self.chat.chat_id)}"
            why = f"{named} cannot be read: {brief(error)}"
            if not self.skip:
                raise InvalidMessageError(
                    f"{why}; what came before it has arrived; mend it in the source, or leave out what cannot be read "
                    "(skip=True, --skip)"
                ) from error
            self.unreadable.append(why)
            if message.message_id:
                self._left_out[message.message_id] = parent
            return None
        self._last = message_id
        self._time = message.created_at or found.said_at or self._time or datetime.now(UTC)
        mark = digest(found.dumped.payload)
        draft = draft_of(found.format, found.dumped, mark, message_id, self._time, metadata)
        return _Arriving(draft, parent, message.archived)

    def _kept(self, message_id: str | None) -> str | None:
        """The nearest message from here to the root that was not left out."""
        while message_id in self._left_out:
            message_id = self._left_out[message_id]
        return message_id

    # ---- writing

    def _take(self, page: list[_Arriving]) -> None:
        """Add those of a page that are not there yet."""
        left = {each.draft.message_id: each for each in page}
        while left:
            left = self._append(left)
        if archived := [each.draft.message_id for each in page if each.archived]:
            self._archive(archived)

    def _append(self, left: dict[str, _Arriving]) -> dict[str, _Arriving]:
        """Add the first that are missing and follow one another, in one write; those after them."""
        for version, head in self.writer.ends(self.key):
            if not version and self.chat.created_at:
                self._create()
                continue
            found = self.backend.find(self.key, list(left)) if version else []
            if self._is_foreign and not found:
                raise ChatExistsError(
                    f"there is a chat {shortened(self.key.chat_id)} already, with other messages, which were left as "
                    "they are: delete it, or import for another user"
                )
            self._is_foreign = False
            for record in found:
                del left[record.message_id]
            if not left:
                break
            new = list(left.values())
            follows = new[0].parent
            run = [new[0].draft]
            for each in new[1:]:
                if each.parent != run[-1].message_id:
                    break
                run.append(each.draft)
            change = Change(run[-1].created_at, version)
            if follows != head:
                outline = self.backend.outline(self.key)
                if outline is None or outline.version != version:
                    continue
                change = switch(outline, follows)
                change.now = run[-1].created_at
            change.drafts, change.follows = run, follows
            change.active += len(run)
            if not version:
                self._describe(change)
            if self.writer.attempt(self.key, change):
                return {each.draft.message_id: each for each in new[len(run) :]}
        return {}

    def _create(self) -> None:
        """The chat without messages, unless somebody else has made it."""
        change = Change(self.chat.created_at or datetime.now(UTC), 0)
        self._describe(change)
        self.writer.attempt(self.key, change)

    def _describe(self, change: Change) -> None:
        change.title = readable(self.chat.title)
        change.metadata = checked_metadata(self.chat.metadata)

    def _archive(self, message_ids: list[str]) -> None:
        for version in self.writer.versions(self.key):
            rows = [row for row in self.backend.find(self.key, message_ids) if row.status == MessageStatus.ACTIVE]
            if not rows:
                return
            change = Change(self._time or datetime.now(UTC), version, active=-len(rows))
            change.statuses = [(row.position, MessageStatus.ARCHIVED) for row in rows]
            if self.writer.attempt(self.key, change):
                return

    def _end_with(self, head: str | None) -> None:
        """Make the active branch end with this message."""
        for version, now in self.writer.ends(self.key):
            if head in (None, now):
                return
            outline = self.backend.outline(self.key)
            if outline is None or outline.version != version:
                continue
            change = switch(outline, head)
            change.now = self._time or change.now
            if self.writer.attempt(self.key, change):
                return


def _fingerprint(parent: str | None, format: str, value: object) -> str:
    text = f"{parent or ''} {format} {_canonical(value)}"
    return blake2b(text.encode(), digest_size=16).hexdigest()

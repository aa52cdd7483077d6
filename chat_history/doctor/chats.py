"""Whether every chat hangs together, and every payload is what was stored: the same for all backends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

from chat_history.backends.base import Backend, ChatKey, ChatRecord, Outline, OutlineRow, chat_key, owner_key
from chat_history.backends.contents import whole
from chat_history.backends.walking import walk
from chat_history.config import Choice
from chat_history.errors import ChatHistoryError, brief
from chat_history.messages import MessageStatus
from chat_history.saving import digest
from chat_history.writing import shortened

from .findings import Finding, error, fine, refused, warning

__all__ = ["examine_chats", "examine_opened"]

AHEAD = timedelta(minutes=1)
"""How far in the future a time may be before somebody's clock is suspected."""
ATTEMPTS = 5
"""How often a chat is looked at anew, if others write to it meanwhile."""

RESTORE = "restore the store from a copy"


def examine_opened(choice: Choice) -> Iterator[Finding]:
    """Look at the chats of a store that can only be opened, or where opening is known to change nothing."""
    with closing(choice.backend(**choice.options)) as backend:
        yield from examine_chats(backend)


def examine_chats(backend: Backend) -> Iterator[Finding]:
    """Look at every chat of every owner. Only reads."""
    backend = whole(backend)
    chats = messages = bad = 0
    newest = datetime.min.replace(tzinfo=UTC)
    for owner in backend.owners():
        for chat_id in backend.chat_ids(owner):
            chat = _Chat(backend, chat_key(owner, chat_id))
            findings = chat.findings()
            yield from findings
            chats, messages, bad = chats + 1, messages + chat.messages, bad + bool(findings)
            newest = max(newest, chat.newest)
    if not bad:
        yield fine("chats", f"{messages:,} messages of {chats:,} chats are as they were stored")
    ahead = newest - datetime.now(UTC)
    if ahead > AHEAD:
        yield warning(
            "clock",
            f"the newest time that is stored, {newest:%Y-%m-%d %H:%M:%S} UTC, is {ahead} ahead of this clock",
            "set the clocks of all machines by NTP; the order of messages does not depend on them, but lists by "
            "activity show such chats first until then",
        )


class _Chat:
    """One chat, looked at."""

    def __init__(self, backend: Backend, key: ChatKey) -> None:
        self.backend = backend
        self.key = key
        self.messages = 0
        self.newest = datetime.min.replace(tzinfo=UTC)
        whose = f" of user {key.user_id!r}, tenant {key.tenant_id!r}" if key.user_id or key.tenant_id else ""
        self.name = f"chat {shortened(key.chat_id)}{whose}"

    def findings(self) -> list[Finding]:
        """All that is wrong with it."""
        for _ in range(ATTEMPTS):
            try:
                record, outline = self.backend.get_chat(self.key), self.backend.outline(self.key)
                if record is None or outline is None:
                    return self._gone()
                found = [*self._links(record, outline), *self._contents(outline)]
                again = self.backend.get_chat(self.key)
            except ChatHistoryError as reason:
                return [refused(reason)]
            except Exception as reason:  # of whatever another program, or a hand, has put there
                return [self._wrong(f"cannot be read ({type(reason).__name__}: {brief(reason)})", RESTORE)]
            if not found or (again is not None and again.version == record.version == outline.version):
                return found
        return []

    def _gone(self) -> list[Finding]:
        if self.key.chat_id not in self.backend.chat_ids(owner_key(self.key.tenant_id, self.key.user_id)):
            return []  # deleted meanwhile
        return [self._wrong("is listed, but is stored under a key that is not that of its id", RESTORE)]

    def _wrong(self, what: str, mend: str) -> Finding:
        return error("chats", f"{self.name} {what}", mend)

    def _links(self, record: ChatRecord, outline: Outline) -> Iterator[Finding]:
        """Whether counts, head and parents fit the messages that are there."""
        rows = [OutlineRow._make(row) for row in outline.rows]
        by_id = {row.message_id: row for row in rows}
        active = [row for row in rows if row.status == MessageStatus.ACTIVE]
        if record.message_count != len(active):
            yield self._wrong(
                f"says that it has {record.message_count} active messages, and has {len(active)}",
                "copy the store (chat-history copy), which counts anew",
            )
        switch = "history.switch_branch(chat_id, message_id) with the last message of the branch that shall be active"
        head = by_id.get(outline.head) if outline.head is not None else None
        if outline.head is not None and head is None:
            yield self._wrong(f"ends with the message {outline.head!r}, which is not there", switch)
        elif outline.head is None and active:
            yield self._wrong("has active messages, and no last one", switch)
        branch: set[str] = set()
        while head is not None and head.message_id not in branch:
            branch.add(head.message_id)
            head = by_id.get(head.parent) if head.parent is not None else None
        for row in rows:
            before = by_id.get(row.parent) if row.parent is not None else None
            if row.parent is not None and (before is None or before.position >= row.position):
                where = "is not there" if before is None else "comes after it"
                yield self._wrong(
                    f"has the message {row.message_id!r} (position {row.position}), whose predecessor "
                    f"{row.parent!r} {where}",
                    RESTORE,
                )
            if row.status not in list(MessageStatus):
                yield self._wrong(f"has the message {row.message_id!r} of an unknown status {row.status!r}", RESTORE)
            if branch and row.status == MessageStatus.ACTIVE and row.message_id not in branch:
                yield self._wrong(
                    f"has the active message {row.message_id!r}, which is not of the active branch", switch
                )

    def _contents(self, outline: Outline) -> Iterator[Finding]:
        """Whether the payloads are what was stored."""
        marks = {row[1]: bytes(row[4]) for row in outline.rows}
        self.messages = 0
        others: list[str] = []
        for record in walk(self.backend, self.key):
            self.messages += 1
            self.newest = max(self.newest, record.created_at)
            try:
                json.loads(record.payload)
            except (ValueError, RecursionError) as reason:
                yield self._wrong(
                    f"has the message {record.message_id!r} (position {record.position}), whose payload is not "
                    f"JSON: {reason}",
                    "restore it, or replace it (history.replace_message) or remove it (history.delete_message)",
                )
                continue
            if marks.get(record.message_id, digest(record.payload)) != digest(record.payload):
                others.append(f"{record.message_id!r} (position {record.position})")
        if others:
            yield warning(
                "chats",
                f"{self.name} has {len(others)} messages whose payload is not the one that was stored, byte for byte; "
                f"the first is {others[0]}",
                "if nobody edited it by hand, restore it from a copy; if somebody did, history.replace_message(...) "
                "with the same message makes it good",
            )

"""What a backend must do: a few primitives, each atomic. `ChatHistory` builds every public behaviour from them.

A backend knows neither formats nor frameworks: a payload is text that it gives back byte for byte. It may rely on
`ChatHistory` for checked arguments (ids without NUL or lone surrogates, payloads that are JSON without a newline,
aware UTC times) and on nothing else: calls come from any thread, and other processes write to the same store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from chat_history.errors import ConfigError, VersionConflictError

if TYPE_CHECKING:
    from uuid import UUID

    from .words import Sought

__all__ = [
    "UNSET",
    "Backend",
    "Change",
    "ChatKey",
    "ChatRecord",
    "Cleared",
    "Draft",
    "Found",
    "Outline",
    "OutlineRow",
    "OwnerKey",
    "PayloadRow",
    "Record",
    "Removal",
    "Unset",
    "UnsetType",
    "Written",
    "chat_key",
    "first_version",
    "owner_key",
]


class Unset(Enum):
    """The type of `UNSET`: leave this as it is."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
UnsetType: TypeAlias = Literal[Unset.UNSET]


class OwnerKey(NamedTuple):
    """Whose chats: the owner, and a UUID that is a hash of it."""

    tenant_id: str
    user_id: str
    key: UUID


class ChatKey(NamedTuple):
    """Which chat: its owner, its id, and a UUID that is a hash of the three (docs/backends.md says why)."""

    tenant_id: str
    user_id: str
    chat_id: str
    key: UUID
    owner: UUID


def _hashed(*names: str) -> UUID:
    from hashlib import blake2b
    from uuid import UUID

    digest = blake2b(digest_size=16)
    for name in names:
        encoded = name.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return UUID(bytes=digest.digest())


@lru_cache(maxsize=4096)
def owner_key(tenant_id: str, user_id: str) -> OwnerKey:
    """The key of an owner. Deterministic: a stored key can always be computed again."""
    return OwnerKey(tenant_id, user_id, _hashed(tenant_id, user_id))


@lru_cache(maxsize=4096)
def chat_key(owner: OwnerKey, chat_id: str) -> ChatKey:
    """The key of an owner's chat. Deterministic: a stored key can always be computed again."""
    key = _hashed(owner.tenant_id, owner.user_id, chat_id)
    return ChatKey(owner.tenant_id, owner.user_id, chat_id, key, owner.key)


class Draft(NamedTuple):
    """A message about to be stored: all of a record but what only the store can give (position, parent)."""

    message_id: str
    role: str
    format: str
    format_version: str
    payload: str
    text: str
    digest: bytes
    created_at: datetime
    metadata: str | None = None
    """JSON of an object, or None where there is none."""
    said: bool = False
    """Whether the text is the "content" of the payload, so that it need not be kept beside it."""
    status: str = "active"
    """Another where a chat comes from somewhere else. It is not for replacements, which keep theirs."""


class Record(NamedTuple):
    """A message as it is stored."""

    position: int
    message_id: str
    parent: str | None
    status: str
    role: str
    format: str
    format_version: str
    payload: str
    text: str
    created_at: datetime
    metadata: str | None


class PayloadRow(NamedTuple):
    """The little of a record that reading a history needs; backends may yield plain tuples in this order."""

    position: int
    role: str
    format: str
    payload: str


class OutlineRow(NamedTuple):
    """A record without its content; backends may yield plain tuples in this order."""

    position: int
    message_id: str
    parent: str | None
    status: str
    digest: bytes


class ChatRecord(NamedTuple):
    """A chat as it is stored. `head` is the id of the last message of the active branch, None while there is none."""

    chat_id: str
    title: str
    metadata: str | None
    shared: bool
    version: int
    message_count: int
    head: str | None
    created_at: datetime
    updated_at: datetime


class Outline(NamedTuple):
    """All of a chat's messages without their content, of every status, by position, at one version."""

    version: int
    head: str | None
    rows: Sequence[OutlineRow]


class Found(NamedTuple):
    """Where a search found what it looks for: a message, or (message_id None, position -1) the title of a chat."""

    chat_id: str
    title: str
    message_id: str | None
    role: str | None
    position: int
    text: str
    """What was searched."""
    created_at: datetime
    """Of a title: the chat's last activity."""


class Written(NamedTuple):
    """What a write did: the chat's new version, the first draft's position and parent.

    The drafts lie densely from `position` on, each the parent of the next. Without drafts the two are 0 and None.
    """

    version: int
    position: int
    parent: str | None


class Cleared(NamedTuple):
    """How much was removed: messages of every status are counted."""

    chats: int
    messages: int


@dataclass(slots=True)
class Change:
    """One atomic write to one chat. All of it happens, or none; `VersionConflictError` if none for its version.

    Whatever changes messages that exist names the `expected_version` at which it was worked out, so a backend never
    has to check what it is told. Only a change that merely appends may come without.
    """

    now: datetime
    expected_version: int | None = None
    """None: whatever version there is, and the chat is created if it is missing. 0: the chat must be missing, and is
    created. Else the chat must be at this version."""

    drafts: Sequence[Draft] = ()
    """Stored from the chat's next position on, in order."""

    follows: str | UnsetType | None = UNSET
    """The parent of the first draft: UNSET is the chat's head, None the root."""

    head: str | UnsetType | None = UNSET
    """The new head where there are no drafts. With drafts the head is the last of them."""

    active: int = 0
    """What to add to the chat's `message_count`."""

    statuses: Sequence[tuple[int, str]] = ()
    """(position, new status)."""

    parents: Sequence[tuple[int, str | None]] = ()
    """(position, new parent)."""

    replacements: Sequence[tuple[int, Draft]] = ()
    """(position, draft): takes the draft's content, text, digest and metadata; keeps id, parent, status and time."""

    deletions: Sequence[int] = ()
    """Positions, not given out again. Their text leaves the disk now, or in Postgres when it is vacuumed."""

    title: str | UnsetType = UNSET
    metadata: str | UnsetType | None = UNSET
    shared: bool | UnsetType = UNSET

    contents: Mapping[str, str] | None = None
    """What drafts and replacements refer to, by hash (`Backend.keeps_contents`). Complete when all drafts are made."""

    @property
    def appends_only(self) -> bool:
        """Whether nothing that exists is touched but the chat's own row: the case to be fast in."""
        return not (self.statuses or self.parents or self.replacements or self.deletions)


class Removal(NamedTuple):
    """What shall go of a chat that is still at a version."""

    chat: ChatKey
    version: int
    change: Change | None
    """Deletes messages of it, and adds none; None: the whole chat goes."""


class Backend(ABC):
    """One store. Usable straight after construction, from every thread, and beside other processes.

    Every method either does all it says, durably, or raises a `StorageError` and did nothing. Drivers' errors are
    translated here and nowhere else.
    """

    name: str
    """A word for messages and listings: "sqlite"."""

    keeps_contents: bool = False
    """Whether changes may come with `contents`. Else what is big stays in the payloads, and nothing need be done.

    A content is kept once for each owner, from the write that first brings it for as long as a message of the owner
    refers to it, in whichever chat and of whichever status; with the last one it leaves the disk. Which messages do,
    `chat_history.backends.contents.references` says of their payloads.
    """

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the data is, for people: a path, or a URL without its password."""

    @property
    def settings(self) -> dict[str, Any]:
        """What `open_history` opens this store from again: plain JSON, no secrets. `ConfigError` if nothing does."""
        raise ConfigError(f"a {type(self).__name__} does not say from which settings it can be opened again")

    @abstractmethod
    def write(self, chat: ChatKey, change: Change) -> Written:
        """Apply a change. See `Change` for what it may hold and what is promised.

        The chat's version grows by one, its `updated_at` becomes `change.now`, and never goes back: where the clock
        did, it stays. A chat that this write creates starts at `version = first_version(change.now)`, position 0.
        """

    def append(self, chat: ChatKey, draft: Draft) -> Written:
        """Add one message to the end of the active branch, at whatever version; the chat is created if it is missing.

        This is done most of all, so a backend may know a shorter way than `write`.
        """
        return self.write(chat, Change(draft.created_at, None, (draft,), active=1))

    @abstractmethod
    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        """The chat's record, None if there is no such chat."""

    @abstractmethod
    def outline(self, chat: ChatKey) -> Outline | None:
        """All messages without content, at one version; None if there is no such chat."""

    @abstractmethod
    def read(
        self,
        chat: ChatKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        status: str | None = "active",
    ) -> list[Record]:
        """Records with after < position < before and this status (None: any), in order of position.

        With a limit the oldest of them, or with `newest` the newest; the order stays. Unknown chat: an empty list.
        """

    @abstractmethod
    def read_payloads(
        self,
        chat: ChatKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        status: str | None = "active",
    ) -> Sequence[PayloadRow]:
        """As `read`, but only (position, role, format, payload): the fast path of every history that is loaded."""

    @abstractmethod
    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        """The records with these ids, of any status, by position; ids that do not exist are left out."""

    def contents(self, chat: ChatKey, hashes: Sequence[str]) -> dict[str, str]:
        """Those of these contents that the chat's owner has, by hash."""
        return {}

    @abstractmethod
    def list_chats(
        self,
        owner: OwnerKey,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[ChatRecord]:
        """An owner's chats, newest activity first: ordered by (updated_at, key), both descending.

        `after`: only those that come after this (updated_at, key) in that order, the nearest `limit` of them;
        `before`: only those that come before it, the nearest `limit` of them (in the same order).
        """

    @abstractmethod
    def chat_ids(self, owner: OwnerKey) -> list[str]:
        """All chat ids of an owner, in order of (created_at, key)."""

    @abstractmethod
    def owners(self) -> list[OwnerKey]:
        """Everybody who has a chat, in order of (tenant_id, user_id)."""

    def search(self, owner: OwnerKey, wanted: Sought, *, chat: ChatKey | None = None, limit: int) -> list[Found]:
        """Titles and active or archived messages of an owner that have all that is sought, those of one chat if given.

        Titles come first, by (updated_at, key) of their chats, then messages by (created_at, key of the chat,
        position), all descending; `limit` of them. Text is compared by `Sought.is_in` and by nothing else. This one
        reads all there is; a backend with an index knows better.
        """
        from .scanning import scan

        return scan(self, owner, wanted, chat, limit)

    @abstractmethod
    def delete_chat(self, chat: ChatKey, expected_version: int | None = None) -> bool:
        """Remove a chat and all of its messages from the disk; False if there is no such chat.

        expected_version: `VersionConflictError` if the chat is at another one; 0 is that of a chat that is not there.
        """

    def remove_each(self, removals: Sequence[Removal]) -> list[bool]:
        """Remove what goes of many chats: of each, whether that was done, False where it is at another version.

        Each chat is a write of its own. Where several together cost little more than one, a backend does them in one.
        """
        return [self._is_removed(each) for each in removals]

    def _is_removed(self, removal: Removal) -> bool:
        try:
            if removal.change is None:
                return self.delete_chat(removal.chat, removal.version)
            self.write(removal.chat, removal.change)
        except VersionConflictError:
            return False
        return True

    @abstractmethod
    def clear(self, owner: OwnerKey) -> Cleared:
        """Remove all chats of an owner from the disk; how much there was."""

    @abstractmethod
    def close(self) -> None:
        """Release files and connections that this backend opened. A second call is harmless."""


def first_version(now: datetime) -> int:
    """The version of a chat created now: microseconds since 1970, and at least 1, as 0 is that of no chat.

    Not always 1, so that a chat that was deleted and begun again is never at a version that somebody read before.
    """
    return max(1, int(now.timestamp() * 1_000_000))

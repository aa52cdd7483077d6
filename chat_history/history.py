"""`ChatHistory`: every public behaviour, written once, over the primitives of a backend."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from .arguments import (
    checked_count,
    checked_id,
    checked_message_id,
    checked_metadata,
    checked_moment,
    checked_sequence,
    checked_status,
    checked_text,
    checked_version,
)
from .backends.base import (
    UNSET,
    Backend,
    Change,
    ChatKey,
    Cleared,
    OutlineRow,
    OwnerKey,
    Record,
    Unset,
    UnsetType,
    chat_key,
    owner_key,
)
from .backends.contents import bare, whole
from .backends.walking import walk
from .errors import (
    ChatExistsError,
    ChatNotFoundError,
    ConfigError,
    HistoryClosedError,
    InvalidArgumentError,
    VersionConflictError,
)
from .formats import MessageFormat, get_format, usual_formats
from .limits import Limit
from .loading import DICTS, as_dicts, load, naming_damage, report
from .messages import Branch, Chat, Deleted, Message, MessageStatus, Page, Status, StoredMessage, new_id, new_ids
from .pages import page_of_chats, page_of_messages
from .purging import purge_chats, purge_messages
from .records import Stored, chat_of, stored_draft, stored_message
from .search import SearchHit, hit_of, sought
from .sharing import SharedChats, refuse
from .threads import Threads
from .tokens import CountTokens
from .tree import alone, branches
from .windows import ChangedError, window
from .writing import ATTEMPTS, Writer, busy, no_message, shortened

if TYPE_CHECKING:
    from .aio import AsyncChatHistory

__all__ = ["ChatHistory"]

KEYS = 4096
"""Chat keys remembered by a view, because computing one takes a few microseconds."""


class _Store:
    """What the views of one store share."""

    def __init__(self, backend: Backend, limit: Limit | None = None, threads: Threads | None = None) -> None:
        self.backend = whole(backend)
        self.writer = None if isinstance(backend, SharedChats) else Writer(self.backend, limit)
        self.threads = threads or Threads()
        self.closed = False


class ChatHistory:
    """The chats of one owner in one store.

    Usable straight after construction, from any thread; other processes may use the same store. Every call either does
    all it says, durably, or raises a `ChatHistoryError` and did nothing. After `shutdown()` each raises
    `HistoryClosedError`.

    max_messages: the most messages of a chat that stay active. When it has more after a write, the oldest whole turns
    go: with overflow "archive" they stay in the chat out of the window, with "delete" they are gone, all but the system
    prompt that leads the chat. The newest turn stays, however long. Holds for the views of all owners.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        tenant_id: str = "",
        user_id: str = "",
        max_messages: int | None = None,
        overflow: Literal["archive", "delete"] = "archive",
    ) -> None:
        if not isinstance(backend, Backend):
            raise ConfigError(
                f"ChatHistory takes a backend, not a {type(backend).__name__}; "
                "open_history takes a URL, a path or a dict"
            )
        # Now rather than with the first message: the child of a process that forks while another of its threads imports
        # would wait for that import for ever.
        usual_formats()
        limit = None if max_messages is None else Limit(checked_count(max_messages, "max_messages"), overflow)
        if overflow not in ("archive", "delete"):
            raise InvalidArgumentError(f'overflow is "archive" or "delete", not {overflow!r}')
        self._bind(_Store(backend, limit), tenant_id, user_id, is_view=False)

    def _bind(self, store: _Store, tenant_id: str, user_id: str, *, is_view: bool) -> None:
        self._store = store
        self._owner: OwnerKey = owner_key(
            checked_id(tenant_id, "tenant_id", may_be_empty=True), checked_id(user_id, "user_id", may_be_empty=True)
        )
        self._keys: dict[str, ChatKey] = {}
        self._is_view = is_view
        self._closed = False

    # ---- owners and the end

    @property
    def user_id(self) -> str:
        """The user whose chats these are, "" where there is only one."""
        return self._owner.user_id

    @property
    def tenant_id(self) -> str:
        """The tenant that the user belongs to, "" where there is only one."""
        return self._owner.tenant_id

    @property
    def location(self) -> str:
        """Where the data is, for people: a path, or a URL without its password."""
        return self._store.backend.location

    @property
    def settings(self) -> dict[str, Any]:
        """What opens this history again, in any process: plain JSON that `open_history` takes, without a password.

        `reopen_history` takes it too, and finds the password in the environment. `ConfigError` where nothing could open
        it again: in memory, over a pool that was given, or over a backend that does not say how.
        """
        owner = {"user_id": self.user_id, "tenant_id": self.tenant_id}
        settings = self._store.backend.settings | {key: value for key, value in owner.items() if value}
        limit = self._store.writer and self._store.writer.limit
        settings |= limit._asdict() if limit else {}
        return {key: value for key, value in settings.items() if value is not None}

    def for_user(self, user_id: str, *, tenant_id: str | None = None) -> ChatHistory:
        """The same store, seen by another owner, who cannot reach anyone else's chat.

        tenant_id: None keeps this one's. Shutting the view down leaves the store open; shutting the store down closes
        its views. A view is a plain ChatHistory, also of a subclass.
        """
        self._backend()
        view = ChatHistory.__new__(ChatHistory)
        view._bind(self._store, self.tenant_id if tenant_id is None else tenant_id, user_id, is_view=True)
        return view

    def shared_by(self, user_id: str) -> ChatHistory:
        """The chats that another user of the same tenant marked as shared (`update_chat(shared=True)`), to be read.

        A chat that is not shared is like one that does not exist. Every change raises `ReadOnlyError`. Whether a chat
        is shared is looked up with every call; `search` reads what is shared, without an index. Shutting the view down
        leaves the store open.
        """
        view = self.for_user(user_id)
        view._store = _Store(SharedChats(self._store.backend), threads=self._store.threads)
        return view

    def __reduce__(self) -> NoReturn:
        """Refused: what is open here cannot be copied."""
        raise TypeError(
            "a history can be neither copied nor pickled, as it has a store open; share it among threads, or hand its "
            "settings to another process and open it there with reopen_history"
        )

    def to_async(self) -> AsyncChatHistory:
        """The same history with every method awaited; see `AsyncChatHistory`."""
        from .aio import AsyncChatHistory

        return AsyncChatHistory(self)

    def shutdown(self) -> None:
        """Close what this history opened. A second call is harmless; any other call after it is an error."""
        self._closed = True
        if not self._is_view and not self._store.closed:
            self._store.closed = True
            self._store.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        owner = f", user_id={self.user_id!r}, tenant_id={self.tenant_id!r}" if any(self._owner[:2]) else ""
        return f"<{type(self).__name__} {self.location}{owner}{', closed' if self._closed else ''}>"

    # ---- adding and saving messages

    def add_message(
        self,
        chat_id: str,
        message: Any,
        *,
        message_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        format: str | None = None,
        expected_version: int | None = None,
    ) -> StoredMessage:
        """Append one message to the chat's active branch, and create the chat if it is new.

        message: a dict with a role, or any object that an installed format recognises. message_id: a UUIDv7 unless
        given; an id that the chat has already stores nothing and returns the message of that id, so a repeat is
        harmless. metadata: a JSON object, kept beside the message. format: the name of the message's format, for a dict
        that could be of several; recognised unless given. expected_version: see `save_messages`.
        """
        if message_id is not None:
            return self.add_messages(
                chat_id,
                [message],
                message_ids=[message_id],
                metadata=metadata,
                format=format,
                expected_version=expected_version,
            )[0]
        writer = self._writer()
        key = self._key(chat_id)
        draft = writer.draft(message, new_id(), checked_metadata(metadata), _named(format))
        if expected_version is None:
            written = writer.append_one(key, draft)
        else:
            checked_version(expected_version)
            written = writer.append(key, (draft,), expected_version)
        if writer.limit:
            writer.keep_within_limit(key)
        return stored_draft(key.chat_id, draft, written.position, written.parent)

    def add_messages(
        self,
        chat_id: str,
        messages: Sequence[Any],
        *,
        message_ids: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        format: str | None = None,
        expected_version: int | None = None,
    ) -> Sequence[StoredMessage]:
        """Append messages, all of them or none, next to one another whoever else writes. Returns them as stored.

        An empty list writes nothing and creates no chat. message_ids: one for each message; those that the chat has
        already are not stored again. metadata, format: the same for each; see `add_message`.
        """
        writer = self._writer()
        key = self._key(chat_id)
        checked_version(expected_version)
        given = checked_sequence(messages, "messages")
        ids = new_ids(len(given)) if message_ids is None else _checked_ids(message_ids, len(given))
        drafts = writer.drafts(given, ids, checked_metadata(metadata), _named(format))
        if not drafts:
            if expected_version is not None:
                next(writer.versions(key, expected_version))
            return []
        if message_ids is None:
            appended = writer.append(key, drafts, expected_version)
            writer.keep_within_limit(key)
            return Stored(key.chat_id, drafts, appended)
        new, written, found = writer.append_once(key, drafts, expected_version)
        writer.keep_within_limit(key)
        stored = [stored_message(key.chat_id, record) for record in found]
        if written:
            stored += Stored(key.chat_id, new, written)
        by_id = {message.message_id: message for message in stored}
        return [by_id[message_id] for message_id in ids]

    def save_messages(
        self, chat_id: str, messages: Sequence[Any], *, format: str | None = None, expected_version: int | None = None
    ) -> Sequence[StoredMessage]:
        """Make the chat's active branch end with exactly these messages, writing only what is new. Returns that.

        Made for `result.all_messages()` after each run. What is stored already is found and kept, with its ids and
        times, also where it comes back merged, converted, or serialised by another release of its framework. A list
        that begins inside the chat (a window was loaded) continues from there, also on a branch that others displaced
        meanwhile. Where a list departs from what is stored, a new branch begins: what it displaces stays, with status
        "superseded". A list that shares nothing with the chat becomes a new branch from the root, with a
        `ChatHistoryWarning`; where all of the chat is archived, it goes on from there. An empty list changes nothing.

        expected_version: the chat's version when it was read (`get_chat(chat_id).version`; 0: there is no such chat);
        `VersionConflictError` if it changed since. Without it the list is worked into whatever the chat is by then.
        format: see `add_message`.
        """
        return self._save(chat_id, messages, format, expected_version, whole=False)

    def set_messages(
        self,
        chat_id: str,
        messages: Sequence[Any],
        *,
        keep_archived: bool = True,
        format: str | None = None,
        expected_version: int | None = None,
    ) -> Sequence[StoredMessage]:
        """Make the chat's active messages exactly these, writing only what is new. Returns that.

        Those that the list begins with stay; what it displaces stays as a superseded branch. Archived messages are not
        touched, and system prompts of theirs that lead the list, as a window carries them along, stay archived; with
        keep_archived=False they are displaced with the rest. An empty list leaves the chat existing, and creates it if
        it is new.
        """
        return self._save(chat_id, messages, format, expected_version, whole=True, keep_archived=keep_archived)

    def _save(
        self,
        chat_id: str,
        messages: Sequence[Any],
        format: str | None,
        expected_version: int | None,
        *,
        whole: bool,
        keep_archived: bool = True,
    ) -> Sequence[StoredMessage]:
        writer = self._writer()
        key = self._key(chat_id)
        checked_version(expected_version)
        given = checked_sequence(messages, "messages")
        drafts, written = writer.save(
            key, given, expected_version, _named(format), whole=whole, keep_archived=keep_archived
        )
        writer.keep_within_limit(key)
        return Stored(key.chat_id, drafts, written) if written else []

    # ---- changing single messages

    def replace_message(
        self,
        chat_id: str,
        message_id: str,
        message: Any,
        *,
        metadata: Mapping[str, Any] | None = None,
        format: str | None = None,
    ) -> StoredMessage:
        """Put another content into a stored message: id, position, parent, status and time stay. Returns it.

        The old content is gone. metadata: None keeps what there is. format: see `add_message`.
        `MessageNotFoundError` if there is no such message.
        """
        key = self._key(chat_id)
        checked_message_id(message_id)
        given = UNSET if metadata is None else checked_metadata(metadata)
        record = self._writer().replace(key, message_id, message, given, _named(format))
        if record is None:
            raise no_message(key, message_id)
        return stored_message(key.chat_id, record)

    def delete_message(self, chat_id: str, message_id: str) -> bool:
        """Remove a message; what followed it follows its predecessor. False if there is no such message.

        The text is gone from the disk when the call returns; in Postgres, when the server has vacuumed.
        """
        checked_message_id(message_id)
        return bool(
            self._writer().remove(self._key(chat_id), lambda rows: [row for row in rows if row[1] == message_id])
        )

    def delete_messages(self, chat_id: str, message_ids: Sequence[str]) -> list[StoredMessage]:
        """Remove these messages at once and return them as they were; what is not there is left out.

        See `delete_message`.
        """
        key = self._key(chat_id)
        ids = {checked_message_id(each) for each in checked_sequence(message_ids, "message_ids")}
        deleted = self._writer().delete(key, lambda rows: [row for row in rows if row[1] in ids])
        return [stored_message(key.chat_id, record) for record in deleted]

    def delete_last_message(self, chat_id: str) -> StoredMessage | None:
        """Remove the newest active message and return it, None if there is none. See `delete_message`."""
        key = self._key(chat_id)
        deleted = self._writer().delete(key, lambda rows: _active(rows)[-1:])
        return stored_message(key.chat_id, deleted[0]) if deleted else None

    def delete_oldest_messages(self, chat_id: str, n: int) -> list[StoredMessage]:
        """Remove the n oldest active messages and return them as they were, oldest first. See `delete_message`."""
        key = self._key(chat_id)
        checked_count(n, "n", least=0)
        deleted = self._writer().delete(key, lambda rows: _active(rows)[:n])
        return [stored_message(key.chat_id, record) for record in deleted]

    def archive_oldest_messages(self, chat_id: str, n: int) -> list[StoredMessage]:
        """Take the n oldest active messages out of the window and return them as they are now, oldest first.

        They stay in the chat with status "archived": `get_messages(status="archived")` reads them.
        """
        key = self._key(chat_id)
        checked_count(n, "n", least=0)
        archived = self._writer().archive(key, lambda rows: _active(rows)[:n])
        return [stored_message(key.chat_id, record._replace(status=MessageStatus.ARCHIVED)) for record in archived]

    # ---- reading messages

    def get_chat_history(self, chat_id: str, last: int | None = None) -> list[Message]:
        """The active messages as dicts, oldest first; [] for an unknown chat.

        A dict that was added comes back equal; a framework's message comes as neutral messages, sometimes several
        (docs/message-format.md). last: exactly the newest so many stored messages. For showing, not for a model: a
        tool's result may come without its call.
        """
        key = self._key(chat_id)
        backend = self._backend()
        limit = None if last is None else checked_count(last, "last", least=0)
        if limit == 0:
            return []
        rows = backend.read_payloads(key, limit=limit, newest=True)
        with naming_damage(chat_id, ((row[0], row[3]) for row in rows)):
            if all(row[2] == DICTS for row in rows):
                return [json.loads(row[3]) for row in rows]
            return list(as_dicts(backend.read(key, limit=limit, newest=True)))

    def get_message_history(
        self,
        chat_id: str,
        format: str = "pydantic_ai",
        last: int | None = None,
        max_tokens: int | None = None,
        *,
        count_tokens: CountTokens | None = None,
        strict: bool = False,
    ) -> list[Any]:
        """The active messages as objects of a framework, ready to be handed to it; [] for an unknown chat.

        Messages of that format are the stored payloads, validated. Others are converted; what that loses is named in
        one `ConversionWarning`, or with `strict` in a `ConversionError`.

        last, max_tokens: the newest whole turns of at most so many stored messages, or tokens (the newest turn always),
        after the system prompt that leads the chat, which counts as tokens but not as messages. count_tokens: the
        tokens of a text; unless given tiktoken's where that is installed, else an estimate (a quarter of a token for
        an ASCII character, one for any other). Beside texts, 4 tokens count for a message, 1,000 for an image or file.
        """
        form = get_format(checked_text(format, "format"))
        key = self._key(chat_id)
        backend = self._backend()
        if last is not None:
            checked_count(last, "last")
        if max_tokens is not None:
            checked_count(max_tokens, "max_tokens")
        if count_tokens is not None and not callable(count_tokens):
            raise InvalidArgumentError(f"count_tokens is a function of a text, not a {type(count_tokens).__name__}")
        for _ in range(ATTEMPTS):
            try:
                rows, lead = window(backend, key, form, last=last, most=max_tokens, count=count_tokens)
            except ChangedError:
                continue
            if all(row[2] == form.name for row in rows):
                try:
                    return lead + form.load([row[3] for row in rows])
                except ValueError:
                    pass  # one by one, below
            records = backend.read(key, after=rows[0][0] - 1, before=rows[-1][0] + 1)
            if [record.position for record in records] != [row[0] for row in rows]:
                continue  # others changed the branch between the two
            with naming_damage(chat_id, ((record.position, record.payload) for record in records)):
                messages, losses = load(form, records)
            report(losses, target=form.name, strict=strict)
            return lead + messages
        raise busy(key)

    def get_readable_chat_history(
        self, chat_id: str, user_role: str = "user", assistant_role: str = "assistant"
    ) -> list[dict[str, Any]]:
        """What user and assistant said, for a person: [{"from": "user" or "assistant", "message": text}, ...].

        With "timestamp" where the message itself has one. Other roles, messages without text, and what an application
        said of an answer that it could not use, are left out. Of any format. user_role, assistant_role: the roles that
        count as these two.
        """
        roles = checked_text(assistant_role, "assistant_role"), checked_text(user_role, "user_role")
        speakers = dict(zip(roles, ("assistant", "user"), strict=True))
        readable = []
        records = self._backend().read(self._key(chat_id))
        with naming_damage(chat_id, ((record.position, record.payload) for record in records)):
            messages = list(as_dicts(records))
        for message in messages:
            speaker = speakers.get(str(message.get("role")))
            text = _text(message.get("content"))
            if speaker is None or text is None or message.get("kind") == "retry":
                continue
            line = {"from": speaker, "message": text}
            when = message.get("timestamp") or message.get("created_at")
            readable.append(line | {"timestamp": when} if when else line)
        return readable

    def get_messages(
        self,
        chat_id: str,
        limit: int = 50,
        before: str | None = None,
        after: str | None = None,
        status: Status | None = MessageStatus.ACTIVE,
    ) -> Page[StoredMessage]:
        """A page of stored messages, in chronological order: the latest, or those just before or after a cursor.

        status: None is every message of every branch. Cursors stay good while others write.
        """
        key = self._key(chat_id)
        checked_count(limit, "limit")
        return page_of_messages(self._backend(), key, limit, before, after, checked_status(status))

    def iter_messages(self, chat_id: str, *, status: Status | None = MessageStatus.ACTIVE) -> Iterator[StoredMessage]:
        """Walk a chat of any length in order, oldest first, in bounded memory.

        Messages that others append meanwhile are seen. status: None is every message of every branch.
        """
        key = self._key(chat_id)
        return self._each(key, walk(self._backend(), key, status=checked_status(status)))

    def _each(self, key: ChatKey, records: Iterator[Record]) -> Iterator[StoredMessage]:
        for record in records:
            self._backend()  # it may have been shut down meanwhile
            yield stored_message(key.chat_id, record)

    def get_message(self, chat_id: str, message_id: str) -> StoredMessage:
        """One stored message, of any status. `MessageNotFoundError` if there is no such message."""
        key = self._key(chat_id)
        found = self._backend().find(key, [checked_message_id(message_id)])
        if not found:
            raise no_message(key, message_id)
        return stored_message(key.chat_id, found[0])

    def get_message_count(self, chat_id: str, status: Status | None = MessageStatus.ACTIVE) -> int:
        """How many messages of a status the chat has (None: of any); 0 for an unknown chat."""
        wanted = checked_status(status)
        key = self._key(chat_id)
        if wanted == MessageStatus.ACTIVE:
            record = self._backend().get_chat(key)
            return 0 if record is None else record.message_count
        outline = self._backend().outline(key)
        return sum(wanted in (None, row[3]) for row in outline.rows) if outline else 0

    def search(self, query: str, chat_id: str | None = None, *, limit: int = 20) -> list[SearchHit]:
        """Where all the words of a query stand: in a title or a message of this owner's chats, or of one chat.

        Titles first, by their chats' last activity, then active and archived messages, the newest first. Words are
        found anywhere, also within others, whatever their case, accents and shape of quotes and dashes; what stands in
        quotes is found as a whole; nothing is an operator. A query without a word finds nothing. An index is brought up
        to date by the search itself, so that adding messages costs nothing: the first search of a large store takes a
        while.
        """
        key = None if chat_id is None else self._key(chat_id)
        wanted = sought(checked_text(query, "query"))
        checked_count(limit, "limit")
        backend = self._backend()
        if wanted is None:
            return []
        return [hit_of(each, wanted) for each in backend.search(self._owner, wanted, chat=key, limit=limit)]

    # ---- branches

    def list_branches(self, chat_id: str) -> list[Branch]:
        """Every way through the chat, in order of their last messages; [] for a chat without messages.

        Where a save departed from what was stored, or another answer was given, the chat goes on in more than one way.
        One of them is active, unless the chat was switched to before its first message.
        """
        key = self._key(chat_id)
        outline = self._backend().outline(key)
        return branches(bare(self._backend()), key, outline) if outline else []

    def switch_branch(
        self,
        chat_id: str,
        message_id: str | None,
        *,
        messages: Sequence[Any] = (),
        message_ids: Sequence[str] | None = None,
        chat_metadata: Mapping[str, Any] | UnsetType | None = UNSET,
        format: str | None = None,
        expected_version: int | None = None,
    ) -> Chat:
        """Make the active branch end with this message, and return the chat; what is added next follows it.

        To go back to another branch, name its `head`. To ask or answer anew, name the message before, None for the very
        beginning: what followed stays as a branch with status "superseded". `ChatNotFoundError`,
        `MessageNotFoundError`. messages, chat_metadata: what is appended at once, and what then is the chat's metadata,
        in the same write; the messages of a new chat follow None. message_ids: new ones, one for each. format,
        expected_version: see `save_messages`.
        """
        writer = self._writer()
        key = self._key(chat_id)
        checked_version(expected_version)
        if message_id is not None:
            checked_message_id(message_id)
        given = checked_sequence(messages, "messages")
        ids = new_ids(len(given)) if message_ids is None else _checked_ids(message_ids, len(given))
        if len(set(ids)) < len(given):
            raise InvalidArgumentError("message_ids names a message twice; give each an id of its own")
        metadata = UNSET if isinstance(chat_metadata, Unset) else checked_metadata(chat_metadata)
        drafts = writer.drafts(given, ids, None, _named(format))
        if not writer.switch(key, message_id, drafts, metadata, expected_version):
            raise _no_chat(key)
        writer.keep_within_limit(key)
        return self.get_chat(chat_id)

    def fork_chat(
        self,
        chat_id: str,
        *,
        at: str | None = None,
        new_chat_id: str | None = None,
        metadata: Mapping[str, Any] | UnsetType | None = UNSET,
    ) -> Chat:
        """A new chat that begins as this one up to a message, of whichever branch, and goes its own way from there.

        at: the id of that message; the last of the active branch unless given. new_chat_id: a UUIDv7 unless given;
        `ChatExistsError` if there is such a chat. Messages keep their ids, times and metadata, the chat its title and,
        unless given, metadata. `ChatNotFoundError`, `MessageNotFoundError`.
        """
        key = self._key(chat_id)
        target = self._key(new_id() if new_chat_id is None else new_chat_id)
        given = UNSET if isinstance(metadata, Unset) else checked_metadata(metadata)
        writer = self._writer()
        try:
            if not writer.fork(key, target, None if at is None else checked_message_id(at), given):
                raise _no_chat(key)
        except VersionConflictError:
            raise _chat_exists(target) from None
        writer.keep_within_limit(target)
        return self.get_chat(target.chat_id)

    def delete_branch(self, chat_id: str, message_id: str) -> int:
        """Remove the messages of the branch that ends with this one, except those that other branches share.

        Returns how many went; 0 if there is no such message, or another follows it, or it is of the active branch:
        switch to another branch first. See `delete_message`.
        """
        checked_message_id(message_id)
        return self._writer().remove(self._key(chat_id), lambda rows: alone(rows, message_id))

    def delete_superseded(self, chat_id: str) -> int:
        """Remove every message that is on no active branch; how many went. See `delete_message`."""

        def superseded(rows: Sequence[OutlineRow]) -> list[OutlineRow]:
            return [row for row in rows if row[3] == MessageStatus.SUPERSEDED]

        return self._writer().remove(self._key(chat_id), superseded)

    # ---- chats

    def create_chat(
        self, chat_id: str | None = None, *, title: str = "", metadata: Mapping[str, Any] | None = None
    ) -> Chat:
        """A new chat without messages; its id is a UUIDv7 unless given. `ChatExistsError` if there is such a chat."""
        key = self._key(new_id() if chat_id is None else chat_id)
        change = Change(datetime.now(UTC), 0, title=checked_text(title, "title"), metadata=checked_metadata(metadata))
        try:
            self._backend().write(key, change)
        except VersionConflictError:
            raise _chat_exists(key) from None
        return self.get_chat(key.chat_id)

    def get_chat(self, chat_id: str) -> Chat:
        """The chat's title, metadata, version and times. `ChatNotFoundError` if there is no such chat."""
        key = self._key(chat_id)
        record = self._backend().get_chat(key)
        if record is None:
            raise _no_chat(key)
        return chat_of(self._owner, record)

    def update_chat(
        self,
        chat_id: str,
        *,
        title: str | UnsetType = UNSET,
        metadata: Mapping[str, Any] | UnsetType | None = UNSET,
        shared: bool | UnsetType = UNSET,
        expected_version: int | None = None,
    ) -> Chat:
        """Change what is given of a chat, and return it as it is then. `ChatNotFoundError` if there is no such chat.

        metadata replaces what there was. expected_version: see `save_messages`.
        """
        key = self._key(chat_id)
        checked_version(expected_version)
        if not isinstance(shared, bool | Unset):
            raise InvalidArgumentError(f"shared must be a bool, not {type(shared).__name__}")
        change = Change(datetime.now(UTC), shared=shared)
        change.title = UNSET if isinstance(title, Unset) else checked_text(title, "title")
        change.metadata = UNSET if isinstance(metadata, Unset) else checked_metadata(metadata)
        for version in self._writer().versions(key, expected_version):
            if not version:
                raise _no_chat(key)
            change.expected_version = version
            if self._writer().attempt(key, change, expected_version):
                break
        return self.get_chat(chat_id)

    def list_chats(self, limit: int = 50, before: str | None = None, after: str | None = None) -> Page[Chat]:
        """A page of this owner's chats, newest activity first: the first, or those just before or after a cursor.

        Activity is any write but a purge. A chat that becomes active while you page moves to the front.
        """
        backend = self._backend()
        return page_of_chats(backend, self._owner, checked_count(limit, "limit"), before, after)

    def get_all_chat_ids(self) -> list[str]:
        """The ids of all chats of this owner, oldest chat first."""
        return self._backend().chat_ids(self._owner)

    def chat_exists(self, chat_id: str) -> bool:
        """Whether this owner has such a chat, with or without messages."""
        return self._backend().get_chat(self._key(chat_id)) is not None

    def delete_chat_history(self, chat_id: str, *, expected_version: int | None = None) -> bool:
        """Remove a chat with all of its messages, of every branch. False if there is no such chat.

        The text is gone from the disk when the call returns; in Postgres, when the server has vacuumed.
        expected_version: see `save_messages`.
        """
        key = self._key(chat_id)
        checked_version(expected_version)
        self._writer().branches.drop(key.key)
        return self._backend().delete_chat(key, expected_version)

    def purge(self, older_than: datetime | timedelta, *, status: Status | None = None) -> Deleted:
        """Remove what this owner has not touched for long, and return a receipt.

        older_than: an aware time, or how long ago. Without a status: whole chats without any write since then. With
        "archived" or "superseded": only the messages of that status stored before it, of every chat, whose last
        activity stays what it was; the system prompt that leads a chat stays with it. A chat that is written to
        meanwhile stays. Each chat is a write of its own, in SQLite some together, in a JSON file all: an error in the
        middle leaves the rest for the next call. See `delete_message` for when the text is gone from the disk.
        """
        writer = self._writer()
        before = checked_moment(older_than, "older_than")
        wanted = checked_status(status)
        if wanted == MessageStatus.ACTIVE:
            raise InvalidArgumentError(
                "purge takes no active messages out of a chat; archive_oldest_messages comes first"
            )
        if wanted is None:
            gone = purge_chats(writer, self._owner, before)
        else:
            keys = map(self._key, self._backend().chat_ids(self._owner))
            gone = Cleared(0, purge_messages(writer, keys, before, wanted))
        return Deleted(gone.chats, gone.messages, datetime.now(UTC), self.user_id, self.tenant_id)

    def clear_all(self) -> int:
        """Remove all chats of this owner, and nobody else's. Returns how many there were."""
        return self._clear().chats

    def delete_user(self) -> Deleted:
        """Remove all that this owner has, and nobody else's: chats with every branch. Returns a receipt.

        The owner may go on afterwards, with nothing. The text is gone from the disk when the call returns; in Postgres,
        when the server has vacuumed.
        """
        cleared = self._clear()
        return Deleted(cleared.chats, cleared.messages, datetime.now(UTC), self.user_id, self.tenant_id)

    def _clear(self) -> Cleared:
        self._writer().branches.clear()
        return self._backend().clear(self._owner)

    # ---- what the others stand on

    def _backend(self) -> Backend:
        if self._closed or self._store.closed:
            raise HistoryClosedError("this history was shut down; open another one")
        return self._store.backend

    def _writer(self) -> Writer:
        self._backend()
        return self._store.writer or refuse()

    def _key(self, chat_id: str) -> ChatKey:
        try:
            return self._keys[chat_id]
        except (KeyError, TypeError):
            pass
        key = chat_key(self._owner, checked_id(chat_id, "chat_id"))
        if len(self._keys) >= KEYS:
            self._keys.clear()
        self._keys[key.chat_id] = key
        return key


def _named(format: str | None) -> MessageFormat | None:
    return None if format is None else get_format(checked_text(format, "format"))


def _checked_ids(ids: object, count: int) -> list[str]:
    given = [checked_message_id(each) for each in checked_sequence(ids, "message_ids")]
    if len(given) != count:
        raise InvalidArgumentError(f"message_ids has {len(given)} ids for {count} messages; give one for each")
    return given


def _active(rows: Sequence[OutlineRow]) -> list[OutlineRow]:
    return [row for row in rows if row[3] == MessageStatus.ACTIVE]


def _text(content: object) -> str | None:
    """The words of a message's content, None if it has none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None


def _chat_exists(key: ChatKey) -> ChatExistsError:
    return ChatExistsError(f"there is a chat {shortened(key.chat_id)} already; choose another id, or add to that one")


def _no_chat(key: ChatKey) -> ChatNotFoundError:
    return ChatNotFoundError(f"there is no chat {shortened(key.chat_id)}; add_message or create_chat makes one")

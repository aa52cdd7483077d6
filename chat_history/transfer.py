"""Chats from one store to another, or to a file and back: streamed, resumable, and compared when they have arrived.

A file of an export is JSON Lines (docs/transfer.md): a line for a chat, then one for each of its messages, of every
branch, and at the end one that says how many there are. Ids, times, statuses and payloads arrive as they were;
positions are given out anew, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from os import PathLike
from typing import Any, NamedTuple, TextIO

from .arguments import checked_history, checked_id, checked_message_id, checked_metadata, checked_text
from .backends.base import Backend, Change, ChatKey, ChatRecord, Draft, Outline, OutlineRow, Record, chat_key, owner_key
from .backends.walking import walk
from .errors import ChatExistsError, InvalidArgumentError, StorageError
from .history import ChatHistory
from .messages import MessageStatus
from .records import draft_again
from .writing import shortened

__all__ = ["Moved", "copy", "export", "import_from"]

PAGE = 256
"""Messages that are held at a time."""
HEADER = {"chat_history_export": 1}
MARK = '{"chat_history_import": "unfinished"}'
"""The metadata of a chat that has not arrived as a whole. Only such a chat is gone on with."""


UNREADABLE = (LookupError, TypeError, ValueError, OverflowError, RecursionError)
"""What a line that no store has exported may raise."""


class Moved(NamedTuple):
    """How much has arrived so far, what was there already included."""

    chats: int
    messages: int


Progress = Callable[[Moved], object]
"""Is told how far it is, now and then."""


class _Chat(NamedTuple):
    key: ChatKey
    record: ChatRecord
    messages: Iterable[Record]


def copy(source: ChatHistory, target: ChatHistory, *, progress: Progress | None = None) -> Moved:
    """Copy every chat of every owner of one store into another, whatever the two are; of `for_user`, that owner's.

    A copy that was interrupted is gone on with by the same call: what has arrived is not copied again. Each chat is
    compared with its source when it has arrived. `ChatExistsError` for a chat that the target has with other messages;
    those that came before it have arrived, and it is as it was. `InvalidArgumentError` for a chat of another owner than
    the target's, where that is of `for_user`.
    """
    return _receive(checked_history(target), _chats(checked_history(source)), progress)


def export(source: ChatHistory, file: TextIO, *, progress: Progress | None = None) -> Moved:
    """Write every chat of every owner of a store to a file, as JSON Lines in UTF-8; of `for_user`, that owner's."""
    source, file = checked_history(source), _checked_file(file)
    file.write(json.dumps(HEADER) + "\n")
    chats = messages = 0
    for key, record, stored in _chats(source):
        line = {"tenant": key.tenant_id, "user": key.user_id, "chat": key.chat_id}
        file.write(_written(line | _chat_fields(record)))
        chats += 1
        for each in stored:
            file.write(_written(line | _message_fields(each)))
            messages += 1
            if progress and messages % PAGE == 0:
                progress(Moved(chats, messages))
    moved = Moved(chats, messages)
    file.write(_written(moved._asdict()))
    return moved


def import_from(file: TextIO, target: ChatHistory, *, progress: Progress | None = None) -> Moved:
    """Read every chat of an exported file into a store. See `copy` for what happens to what is there already.

    `InvalidArgumentError`, naming the line, for a file that is no export, or not a whole one.
    """
    return _receive(checked_history(target), _read(_checked_file(file)), progress)


def _checked_file(file: TextIO) -> TextIO:
    """An open file, and not its name, whose characters would be taken for its lines."""
    if isinstance(file, str | bytes | PathLike):
        raise InvalidArgumentError('file is a text file that is open, not its name: open(name, encoding="utf-8")')
    return file


# ---- from a store


def _chats(source: ChatHistory) -> Iterator[_Chat]:
    backend = source._backend()
    for owner in [source._owner] if source._is_view else backend.owners():
        for chat_id in backend.chat_ids(owner):
            if chat := _stored(backend, chat_key(owner, chat_id)):
                yield chat


class _DeletedError(StorageError):
    """What was to be read of a chat is not there any more."""


def _stored(backend: Backend, key: ChatKey) -> _Chat | None:
    while True:
        record, outline = backend.get_chat(key), backend.outline(key)
        if record is None or outline is None:
            return None
        messages: Iterable[Record] = _as_of(backend, key, outline)
        if len(outline.rows) <= PAGE:
            # Nothing of it has been handed on yet, so it can be read anew where others delete from it.
            try:
                messages = list(messages)
            except _DeletedError:
                continue
        return _Chat(key, record._replace(head=outline.head), messages)


def _as_of(backend: Backend, key: ChatKey, outline: Outline) -> Iterator[Record]:
    """The messages of a chat that others may be writing to, where they stood at the moment of an outline."""
    rows = {row[0]: row for row in outline.rows}
    for record in walk(backend, key):
        if row := rows.pop(record.position, None):
            yield record._replace(parent=row[2], status=row[3])
    if rows:
        raise _DeletedError(f"messages of chat {shortened(key.chat_id)} were deleted meanwhile; begin again to go on")


# ---- into a store


def _receive(target: ChatHistory, chats: Iterable[_Chat], progress: Progress | None) -> Moved:
    backend = target._backend()
    moved = Moved(0, 0)
    for chat in chats:
        if target._is_view and chat.key[:2] != target._owner[:2]:
            raise InvalidArgumentError(
                f"chat {shortened(chat.key.chat_id)} is another user's, and only those of {target.user_id!r} come in "
                "here: what is of several users goes into the history itself, not into for_user (or --user)"
            )
        arrival = _Arrival(backend, chat)
        for count in arrival.run():
            if progress:
                progress(Moved(moved.chats + 1, moved.messages + count))
        moved = Moved(moved.chats + 1, moved.messages + arrival.count)
        if progress:
            progress(moved)
    return moved


class _Arrival:
    """One chat on its way into a store."""

    def __init__(self, target: Backend, chat: _Chat) -> None:
        self.target = target
        self.chat = chat
        self.count = 0
        self.follows: str | None = None
        """What the first message of the page follows."""
        self.changed: list[tuple[int, str]] = []
        """What has another status than when it arrived, in a part of the copy that was interrupted."""
        self.active = 0
        self.sent = blake2b(digest_size=16)

    def run(self) -> Iterator[int]:
        """Take all messages, and say after each page how many there are so far."""
        key, record, messages = self.chat
        there = self.target.get_chat(key)
        outline = self.target.outline(key) if there else None
        known = outline.rows if outline else ()
        page: list[Draft] = []
        last: str | None = None
        for each in messages:
            draft = draft_again(each)
            mark = draft.digest
            _add(self.sent, each.message_id, each.parent, mark)
            if self.count < len(known):
                position, message_id, parent, status, theirs = known[self.count]
                if (message_id, parent, bytes(theirs)) != (each.message_id, each.parent, mark):
                    raise self._other()
                if status != each.status:
                    self.changed.append((position, each.status))
                    self.active += (each.status == MessageStatus.ACTIVE) - (status == MessageStatus.ACTIVE)
            elif there is not None and there.metadata != MARK:
                raise self._other()
            else:
                if page and (each.parent != last or len(page) == PAGE):
                    there = self._append(there, page)
                    page = []
                    yield self.count
                if not page:
                    self.follows = each.parent
                page.append(draft)
                last = each.message_id
            self.count += 1
        if self.count < len(known):
            raise self._other()
        if there is None or there.metadata == MARK:
            there = self._append(there, page)
            self._finish(there, record)
        self._compare()

    def _append(self, there: ChatRecord | None, page: list[Draft]) -> ChatRecord:
        key, record, _ = self.chat
        if there is None:
            begun = self.target.write(key, Change(record.created_at, 0, title=record.title, metadata=MARK))
            there = record._replace(metadata=MARK, version=begun.version)
        if page:
            active = sum(draft.status == MessageStatus.ACTIVE for draft in page)
            change = Change(record.created_at, there.version, page, follows=self.follows, active=active)
            there = there._replace(version=self.target.write(key, change).version)
        return there

    def _finish(self, there: ChatRecord, record: ChatRecord) -> None:
        """Put everything but the messages in its place, in one write."""
        change = Change(record.updated_at, there.version, statuses=self.changed, active=self.active, head=record.head)
        change.title, change.metadata, change.shared = record.title, record.metadata, record.shared
        self.target.write(self.chat.key, change)

    def _compare(self) -> None:
        outline = self.target.outline(self.chat.key)
        received = blake2b(digest_size=16)
        rows: Iterable[OutlineRow] = outline.rows if outline else ()
        for row in rows:
            _add(received, row[1], row[2], bytes(row[4]))
        if received.digest() != self.sent.digest():
            raise self._changed()

    def _changed(self) -> StorageError:
        return StorageError(
            f"chat {shortened(self.chat.key.chat_id)} did not arrive as it was: others wrote to it, or the target "
            "does not keep what it is given; delete it there and copy again"
        )

    def _other(self) -> ChatExistsError:
        return ChatExistsError(
            f"the target has a chat {shortened(self.chat.key.chat_id)} with other messages, which were left as they "
            "are: delete it there, or copy into an empty store"
        )


def _add(hashed: blake2b, message_id: str, parent: str | None, mark: bytes) -> None:
    hashed.update(json.dumps([message_id, parent]).encode())
    hashed.update(mark)


# ---- a file


def _chat_fields(record: ChatRecord) -> dict[str, Any]:
    return {
        "title": record.title,
        "shared": record.shared,
        "head": record.head,
        "created_at": record.created_at.isoformat(),
        "updated_at": record.updated_at.isoformat(),
        "metadata": None if record.metadata is None else json.loads(record.metadata),
    }


def _message_fields(record: Record) -> dict[str, Any]:
    return {
        "position": record.position,
        "message_id": record.message_id,
        "parent": record.parent,
        "status": record.status,
        "role": record.role,
        "format": record.format,
        "format_version": record.format_version,
        "created_at": record.created_at.isoformat(),
        "text": record.text,
        "metadata": None if record.metadata is None else json.loads(record.metadata),
        "payload": record.payload,
    }


def _written(fields: dict[str, Any]) -> str:
    line = json.dumps(fields, ensure_ascii=False) + "\n"
    # Half of a surrogate pair, which UTF-8 cannot hold, is written as JSON escapes it: \ud83d.
    return line.encode(errors="backslashreplace").decode()


def _read(file: TextIO) -> Iterator[_Chat]:
    lines = _between(_lines(file))
    waiting = next(lines, None)
    while waiting is not None:
        number, line = waiting
        try:
            if "payload" in line:
                raise ValueError("it is a message, and the line of its chat does not stand before it")
            key = _key(line)
            record = _chat(line)
        except UNREADABLE as error:
            raise _bad(number, error) from error
        waiting = None

        def messages(number: int = number, key: ChatKey = key, chat: ChatRecord = record) -> Iterator[Record]:
            nonlocal waiting
            known: set[str | None] = {None}
            end: str | None = None
            has_active = False
            # One that had not arrived as a whole when it was exported has what it had by then.
            is_whole = chat.metadata != MARK
            for number, line in lines:
                if "payload" not in line:
                    waiting = number, line
                    break
                try:
                    if (line["tenant"], line["user"], line["chat"]) != key[:3]:
                        raise ValueError("it is of another chat than the line before")
                    message = _message(line)
                    if message.message_id in known:
                        raise ValueError(f"the chat has the message {message.message_id!r} already")
                    if message.parent not in known:
                        raise ValueError("it follows a message that does not stand before it")
                    if is_whole and message.status != MessageStatus.SUPERSEDED:
                        if message.parent != end:
                            raise ValueError(
                                f"it is {message.status}, and does not follow {end!r}, which is so before it"
                            )
                        if message.status == MessageStatus.ARCHIVED and has_active:
                            raise ValueError("it is archived, and a message before it is active")
                        end, has_active = message.message_id, message.status == MessageStatus.ACTIVE
                except UNREADABLE as error:
                    raise _bad(number, error) from error
                known.add(message.message_id)
                yield message
            if chat.head not in known:
                raise _bad(number, f"the chat before it ends with a message {chat.head!r} that it does not have")
            if is_whole and chat.head != end:
                raise _bad(
                    number, f"the chat before it ends with {chat.head!r}, and its last active message is {end!r}"
                )

        stored = messages()
        yield _Chat(key, record, stored)
        for _ in stored:
            pass


def _between(lines: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The lines between the first one and the last, which says how many they are."""
    if next(lines, (0, {}))[1] != HEADER:
        raise InvalidArgumentError("this is no export of chat_history: its first line is another one")
    chats = messages = 0
    for number, line in lines:
        if line.keys() == set(Moved._fields):
            if line != Moved(chats, messages)._asdict():
                raise _bad(number, f"it does not say what stands before it: {chats} chats with {messages} messages")
            for number, _ in lines:
                raise _bad(number, "it comes after the end")
            return
        if "payload" in line:
            messages += 1
        else:
            chats += 1
        yield number, line
    raise InvalidArgumentError(
        "the export was cut off: it has no last line that says how much it holds; import the whole file to go on"
    )


def _lines(file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in _numbered(file):
        try:
            # Some editors and shells begin a file with a mark, which is no JSON.
            fields = json.loads(line.removeprefix("\ufeff") if number == 1 else line)
        except UNREADABLE as error:
            raise _bad(number, error) from error
        if not isinstance(fields, dict):
            raise _bad(number, "it is no object")
        yield number, fields


def _numbered(file: TextIO) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(file, 1)
    except UnicodeDecodeError as error:
        why = f"the export is not text in UTF-8: {error}; what came before it has arrived"
        raise InvalidArgumentError(why) from error


def _bad(number: int, why: object) -> InvalidArgumentError:
    if isinstance(why, KeyError):
        why = f"it has no {why}"
    elif isinstance(why, RecursionError):
        why = "it is nested too deeply"
    return InvalidArgumentError(f"line {number} of the export cannot be read: {why}; what came before it has arrived")


def _key(line: Mapping[str, Any]) -> ChatKey:
    tenant, user = (checked_id(line[name], name, may_be_empty=True) for name in ("tenant", "user"))
    return chat_key(owner_key(tenant, user), checked_id(line["chat"], "chat"))


def _chat(line: Mapping[str, Any]) -> ChatRecord:
    if not isinstance(line["shared"], bool):
        raise TypeError("shared is neither true nor false")
    return ChatRecord(
        line["chat"],
        checked_text(line["title"], "title"),
        checked_metadata(line["metadata"]),
        line["shared"],
        0,
        0,
        _id_or_none(line["head"]),
        _moment(line["created_at"]),
        _moment(line["updated_at"]),
    )


def _message(line: Mapping[str, Any]) -> Record:
    payload = checked_text(line["payload"], "payload")
    if not isinstance(json.loads(payload, parse_constant=_no_json), dict):
        raise ValueError("its payload is no object")
    if "\n" in payload or "\r" in payload:
        raise ValueError("its payload is laid out over several lines; write it in one")
    return Record(
        line["position"],
        checked_message_id(line["message_id"]),
        _id_or_none(line["parent"]),
        MessageStatus(line["status"]).value,
        checked_text(line["role"], "role"),
        checked_text(line["format"], "format"),
        checked_text(line["format_version"], "format_version"),
        payload,
        checked_text(line["text"], "text"),
        _moment(line["created_at"]),
        checked_metadata(line["metadata"]),
    )


def _no_json(constant: str) -> Any:
    raise ValueError(f"its payload has {constant}, which is no JSON")


def _id_or_none(given: object) -> str | None:
    return None if given is None else checked_message_id(given)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.astimezone(UTC)

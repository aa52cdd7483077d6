"""What the lines of a JSON file say, and how they are written (docs/json-file.md draws them)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from typing import Any, Final, NamedTuple

from .base import ChatRecord, Draft
from .contents import MARK, hash_of

__all__ = [
    "CLOSING",
    "CONTENT",
    "METADATA",
    "OPENING",
    "PAYLOAD",
    "Message",
    "chat_line",
    "content_line",
    "document_lines",
    "draft_header",
    "draft_lines",
    "head_of",
    "is_record",
    "kind_of",
    "message_line",
    "payload_in_line",
    "payload_of_line",
    "split",
    "split_content",
    "stamp",
]

OPENING: Final = b'{"chat_history": 1, "records": ['
CLOSING: Final = b"\n]}\n"
PAYLOAD: Final = b', "payload": '
METADATA: Final = b', "metadata": '
CONTENT: Final = b'{"content": '
_DATA: Final = b', "data": "'

_NAMES = ("chat", "tenant", "user")
_KEYS = {
    *(*_NAMES, "position", "id", "parent", "status", "created_at", "digest"),
    *("role", "format", "format_version", "text", "metadata", "payload"),
}


def stamp(time: datetime) -> str:
    """A UTC time as it is written: always as long, so that the order of the strings is the order of the times."""
    return time.isoformat(timespec="microseconds")[:-6] + "Z"


@lru_cache(maxsize=1024)
def head_of(tenant_id: str, user_id: str, chat_id: str) -> str:
    """How every line about a chat begins."""
    tenant = f', "tenant": {quoted(tenant_id)}' if tenant_id else ""
    user = f', "user": {quoted(user_id)}' if user_id else ""
    return f'{{"chat": {quoted(chat_id)}{tenant}{user}'


@lru_cache(maxsize=1024)
def kind_of(role: str, form: str, version: str = "") -> str:
    """The part of a line that says whose JSON the payload is."""
    kind = f'"role": {quoted(role)}, "format": {quoted(form)}'
    return f'{kind}, "format_version": {quoted(version)}' if version else kind


class Message(NamedTuple):
    """What a message's line says, but for the chat that it begins with."""

    position: int
    message_id: str
    parent: str | None
    status: str
    role: str
    format: str
    format_version: str
    payload: str
    text: str | None
    """None where it is the payload's "content"."""
    created_at: str
    metadata: str | None
    digest: str
    more: Mapping[str, Any]
    """What somebody added by hand."""

    @classmethod
    def read(cls, header: Mapping[str, Any], payload: str, metadata: str | None) -> Message:
        """The message of a line that was read."""
        return cls(
            header["position"],
            header["id"],
            header.get("parent"),
            header.get("status", "active"),
            header["role"],
            header["format"],
            header.get("format_version", ""),
            payload,
            header.get("text"),
            header["created_at"],
            metadata,
            header["digest"],
            {} if header.keys() <= _KEYS else {key: value for key, value in header.items() if key not in _KEYS},
        )

    def replaced(self, draft: Draft) -> Message:
        """This message with what a draft says."""
        return self._replace(
            role=draft.role,
            format=draft.format,
            format_version=draft.format_version,
            payload=draft.payload,
            text=None if draft.said else draft.text,
            metadata=draft.metadata,
            digest=draft.digest.hex(),
        )


def message_line(head: str, message: Message) -> str:
    """The line of a message."""
    position, message_id, parent, status, role, form, version, payload, text, created_at, metadata, digest, more = (
        message
    )
    place = _place(status)
    rest = "".join(f", {quoted(key)}: {json.dumps(more[key], separators=(',', ':'))}" for key in more)
    rest += _said(text, metadata)
    header = _header(head, position, message_id, parent, place, created_at, digest, kind_of(role, form, version), rest)
    return f"{header}{payload_in_line(payload)}}}"


def payload_in_line(payload: str) -> str:
    """A payload as it stands in a line: as it is, but as a string where contents were taken from it.

    So the document stays one, and no other layout of it changes where the contents belong. A payload that is a string
    itself and looks like that is written as one from which nothing was taken.
    """
    if payload.startswith(MARK):
        return quoted(payload)
    return quoted(f"{MARK}\n{payload}") if payload.startswith(f'"{MARK}') else payload


def payload_of_line(written: str) -> str:
    """The payload that `payload_in_line` makes this of. `ValueError` for what is none."""
    if not written.startswith(f'"{MARK}'):
        return written
    return str(json.loads(written)).removeprefix(f"{MARK}\n")


def draft_lines(head: str, drafts: Iterable[Draft], position: int, parent: str | None) -> Iterator[str]:
    """The lines of the messages that drafts become."""
    time = created_at = None
    for draft in drafts:
        if draft.created_at is not time:
            time = draft.created_at
            created_at = stamp(time)
        payload = payload_in_line(draft.payload)
        yield f"{draft_header(head, draft, position, parent, created_at)}{payload}}}"
        position += 1
        parent = draft.message_id


def draft_header(head: str, draft: Draft, position: int, parent: str | None, created_at: str | None) -> str:
    """What stands before the payload in the line of the message that a draft becomes."""
    message_id, role, form, version, _, text, digest, _, metadata, said, status = draft
    rest = "" if said and metadata is None else _said(None if said else text, metadata)
    place = _place(status)
    return _header(
        head, position, message_id, parent, place, created_at, digest.hex(), kind_of(role, form, version), rest
    )


def _header(
    head: str,
    position: int,
    message_id: str,
    parent: str | None,
    place: str,
    created_at: str | None,
    digest: str,
    kind: str,
    rest: str,
) -> str:
    follows = "" if parent is None else f', "parent": {quoted(parent)}'
    return (
        f'{head}, "position": {position}, "id": {quoted(message_id)}{follows}{place}, "created_at": "{created_at}", '
        f'"digest": "{digest}", {kind}{rest}, "payload": '
    )


def _place(status: str) -> str:
    return "" if status == "active" else f', "status": {quoted(status)}'


def _said(text: str | None, metadata: str | None) -> str:
    said = "" if text is None else f', "text": {quoted(text)}'
    if metadata is None:
        return said
    # The payload is found by the first key of that name, so there must be none in the metadata.
    return f'{said}, "metadata": {metadata if "payload" not in metadata else quoted(metadata)}'


def chat_line(
    head: str,
    chat: ChatRecord,
    next_position: int,
    *,
    statuses: Sequence[tuple[int, str]] = (),
    parents: Sequence[tuple[int, str | None]] = (),
    messages: int = 0,
) -> str:
    """The line of a chat as it is after a change, whose `messages` are in the lines that follow."""
    line = f'{head}, "version": {chat.version}, "message_count": {chat.message_count}, "next_position": {next_position}'
    if chat.head is not None:
        line += f', "head": {quoted(chat.head)}'
    line += f', "created_at": "{stamp(chat.created_at)}", "updated_at": "{stamp(chat.updated_at)}"'
    if chat.title:
        line += f', "title": {quoted(chat.title)}'
    if chat.shared:
        line += ', "shared": true'
    if statuses:
        by_status: dict[str, list[int]] = {}
        for position, status in statuses:
            by_status.setdefault(status, []).append(position)
        line += f', "statuses": {_dumped(by_status)}'
    if parents:
        line += f', "parents": {_dumped(parents)}'
    if messages:
        line += f', "messages": {messages}'
    if chat.metadata is not None:
        line += f', "metadata": {chat.metadata}'
    return line + "}"


def content_line(tenant_id: str, user_id: str, known: str, data: str) -> str:
    """The line of a content, which is an owner's and has this hash."""
    tenant = f', "tenant": {quoted(tenant_id)}' if tenant_id else ""
    user = f', "user": {quoted(user_id)}' if user_id else ""
    return f'{{"content": "{known}"{tenant}{user}, "data": "{data}"}}'


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# Reading lines that need not be laid out as ours are.


def split(line: bytes) -> tuple[dict[str, Any], int | None]:
    """What stands before the payload of a message's line, and where in it the payload begins; all of a chat's line.

    `ValueError` for what is no record, or is laid out in another way than ours.
    """
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not a record")
    for key in ("created_at", "updated_at"):
        if key in record and _normal(record[key]) != record[key]:
            raise ValueError(f"{key} is written in another way")
    if "position" not in record:
        if "metadata" in record and next(reversed(record)) != "metadata":
            raise ValueError("metadata is not the last")
        return record, None
    begin = line.find(PAYLOAD)
    header = json.loads(line[:begin] + b"}")
    if begin < 0 or len(header) != len(record) - 1:
        raise ValueError("the payload is not the last")
    return header, begin + len(PAYLOAD)


def split_content(line: bytes) -> tuple[tuple[str, str], str, int]:
    """Whose content a line holds, its hash, and where in the line it begins. It ends before the last two characters.

    `ValueError` for what is no content, or is laid out in another way than ours.
    """
    begin = line.find(_DATA)
    header = json.loads(line[:begin] + b"}")
    if begin < 0 or not line.endswith(b'"}') or not header.keys() <= {"content", "tenant", "user"}:
        raise ValueError("not a content")
    owner = header.get("tenant", ""), header.get("user", "")
    return owner, header["content"], begin + len(_DATA)


def document_lines(document: Mapping[str, Any]) -> Iterable[str]:
    """The lines that a whole document comes to. `ValueError` names a record that is none."""
    for number, record in enumerate(document["records"], 1):
        try:
            yield _line_of(record)
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from error


def is_record(line: bytes) -> bool:
    """Whether a line is a whole record."""
    try:
        return bool(_line_of(json.loads(line)))
    except ValueError:
        return False


def _line_of(record: Mapping[str, Any]) -> str:
    try:
        owner = record.get("tenant", ""), record.get("user", "")
        if "content" in record:
            if hash_of(record["data"]) != record["content"]:
                raise ValueError("its data is not what its hash says")
            return content_line(*owner, record["content"], record["data"])
        head = head_of(*owner, record["chat"])
        metadata = _dumped(record["metadata"]) if "metadata" in record else None
        if "position" in record:
            if isinstance(record.get("metadata"), str):
                metadata = record["metadata"]
            message = Message.read(record, payload_of_line(_dumped(record["payload"])), metadata)
            return message_line(head, message._replace(created_at=_normal(message.created_at)))
        rest = {key: value for key, value in record.items() if key not in (*_NAMES, "metadata")}
        rest |= {key: _normal(record[key]) for key in ("created_at", "updated_at")}
        line = f"{head}, {_dumped(rest)[1:-1]}"
        return line + (f', "metadata": {metadata}}}' if metadata is not None else "}")
    except KeyError as error:
        raise ValueError(f"it has no {error}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"it is no record ({error})") from error


def _normal(time: str) -> str:
    moment = datetime.fromisoformat(time)
    return stamp(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))

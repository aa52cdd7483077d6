"""Reading the messages of a JSON file that its index points at."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .base import OutlineRow, PayloadRow
from .contents import MARK, hash_of
from .contents import references as references_of
from .json_index import MESSAGE, Chat, Frozen, Index
from .json_lines import METADATA, PAYLOAD, Message, payload_of_line, split_content

__all__ = ["content", "ids", "messages", "outline", "payloads", "proposed", "references"]

_GAP = 1 << 14
"""Lines closer to each other than this are fetched in one read, together with what lies between them."""
_MOST = 1 << 22


def ids(index: Index, chat: Chat) -> dict[bytes, int]:
    """The rows of a chat by message id: read on the first call, kept up to date from then on."""
    if chat.ids is None:
        ids = {}
        for row, line in _lines(index, chat.rows):
            found = MESSAGE.match(line)
            plain = found is not None and b"\\" not in found[0]
            ids[found[3] if found and plain else _header(index, row, line)["id"].encode()] = row
        chat.ids = ids
    return chat.ids


def payloads(index: Index, rows: Sequence[int]) -> list[PayloadRow]:
    """What `Backend.read_payloads` gives out."""
    offsets, lengths, payloads, positions = index.offset, index.length, index.payload, index.position
    kind, kinds = index.kind, index.kinds
    found: list[Any] = []
    for data, base, some in _spans(index, rows):
        try:
            for row in some:
                begin = offsets[row] - base
                payload = data[begin + payloads[row] : begin + lengths[row] - 1].decode()
                if payload[:1] == '"':
                    payload = payload_of_line(payload)
                found.append((positions[row], *kinds[kind[row]], payload))
        except ValueError as error:
            raise index.damaged(offsets[row], _why(error)) from error
    return found


def messages(index: Index, frozen: Frozen) -> Iterator[Message]:
    """What the lines of these messages say, with the status and the parent that they had then."""
    for (row, line), status in zip(_lines(index, frozen.rows), frozen.statuses, strict=True):
        message = _message(index, row, line)
        parent = frozen.parents.get(row, message.parent)
        yield message._replace(status=status, parent=parent)


def proposed(index: Index, rows: Sequence[int], may_match: Callable[[bytes], bool]) -> Iterator[int]:
    """Those of the rows whose lines may match. What surely holds no match is passed over many lines at a time."""
    for data, base, some in _spans(index, rows):
        if not may_match(data):
            continue
        for row in some:
            begin = index.offset[row] - base
            if may_match(data[begin : begin + index.length[row]]):
                yield row


def outline(index: Index, frozen: Frozen) -> list[OutlineRow]:
    """What `Backend.outline` says of these messages."""
    outline = []
    for (row, line), status in zip(_lines(index, frozen.rows), frozen.statuses, strict=True):
        found = MESSAGE.match(line)
        if found is not None and b"\\" not in found[0]:
            message_id, digest = found[3].decode(), found[7].decode()
            parent = None if found[4] is None else found[4].decode()
        else:
            header = _header(index, row, line)
            message_id, digest, parent = header["id"], header["digest"], header.get("parent")
        if row in frozen.parents:
            parent = frozen.parents[row]
        outline.append(OutlineRow(index.position[row], message_id, parent, status, bytes.fromhex(digest)))
    return outline


def references(index: Index, rows: Sequence[int]) -> set[str]:
    """The hashes of the contents that these messages refer to."""
    found: set[str] = set()
    for row, line in _lines(index, rows):
        if line.startswith(b'"' + MARK.encode(), index.payload[row]):
            found.update(references_of(_message(index, row, line).payload))
    return found


def content(index: Index, owner: tuple[str, str], known: str) -> str:
    """An owner's content. `DamagedStoreError` if what the file has is another."""
    offset, length = index.contents[owner][known]
    try:
        line = os.pread(index.file.fd, length, offset)
        _, _, begin = split_content(line)
        content = line[begin:-2].decode()
    except ValueError as error:
        raise index.damaged(offset, _why(error)) from error
    if hash_of(content) != known:
        raise index.damaged(offset, "the data is not what its hash says")
    return content


def _message(index: Index, row: int, line: bytes) -> Message:
    header = _header(index, row, line)
    metadata = header.get("metadata")
    if isinstance(metadata, dict):
        begin = line.find(METADATA) + len(METADATA)
        exact = next(reversed(header)) == "metadata"
        end = index.payload[row] - len(PAYLOAD)
        metadata = line[begin:end].decode() if exact else json.dumps(metadata, ensure_ascii=False)
    try:
        payload = payload_of_line(line[index.payload[row] : -1].decode())
    except ValueError as error:
        raise index.damaged(index.offset[row], _why(error)) from error
    return Message.read(header, payload, metadata)


def _spans(index: Index, rows: Sequence[int]) -> Iterator[tuple[bytes, int, Sequence[int]]]:
    """The lines of these rows, neighbours in one read: bytes, where in the file they are, and whose they are."""
    offsets, lengths = index.offset, index.length
    first, count = 0, len(rows)
    while first < count:
        start = offsets[rows[first]]
        last = count - 1
        end = offsets[rows[last]] + lengths[rows[last]]
        if rows[last] - rows[first] != last - first or end - start > _MOST:
            last = first
            end = start + lengths[rows[first]]
            while last + 1 < count:
                begin = offsets[rows[last + 1]]
                stop = begin + lengths[rows[last + 1]]
                if begin - end > _GAP or stop - start > _MOST:
                    break
                end = stop
                last += 1
        data = os.pread(index.file.fd, end - start, start)
        if len(data) != end - start:
            raise index.damaged(start + len(data), "the file was cut off while it was in use")
        yield data, start, rows[first : last + 1]
        first = last + 1


def _lines(index: Index, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Each row with its line."""
    for data, base, some in _spans(index, rows):
        for row in some:
            begin = index.offset[row] - base
            yield row, data[begin : begin + index.length[row]]


def _header(index: Index, row: int, line: bytes) -> dict[str, Any]:
    """What stands in a message's line before the payload. `DamagedStoreError` if it cannot be read."""
    try:
        header: dict[str, Any] = json.loads(line[: index.payload[row] - len(PAYLOAD)] + b"}")
    except ValueError as error:
        raise index.damaged(index.offset[row], "it is no record") from error
    return header


def _why(error: ValueError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "it is no record"

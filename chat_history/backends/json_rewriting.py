"""A JSON file as it is without what was deleted or replaced: its lines, to be written anew."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from itertools import chain
from types import MappingProxyType
from typing import Final

from .base import Draft
from .json_index import Index
from .json_lines import chat_line, message_line
from .json_reading import messages, references

__all__ = ["is_wasteful", "rewritten"]

_BLOCK: Final = 1 << 20
_WASTE = 1 << 20
"""Bytes of lines that later ones replaced, before it is worth to write the file anew."""


def is_wasteful(index: Index) -> bool:
    """Whether so many lines were replaced by later ones that the file is better written anew."""
    return index.dead > _WASTE and index.dead > index.end // 2


def rewritten(
    index: Index,
    changed: Collection[bytes],
    gone: Set[int],
    edits: Mapping[int, Draft] = MappingProxyType({}),
    lines: Iterable[str] = (),
    used: Mapping[tuple[str, str], set[str]] = MappingProxyType({}),
) -> Iterator[bytes]:
    """The lines of the file without some rows. Of the chats with the heads `changed` it says what `lines` say.

    edits: what becomes of rows that stay. used: the contents that `edits` and `lines` refer to, by owner.
    """
    others = (
        chat_line(head.decode(), chat.record(), chat.next_position())
        for head, chat in index.chats.items()
        if chat.recorded and head not in changed
    )
    return chain(
        _contents(index, gone | edits.keys(), used),
        _messages(index, gone, edits),
        (line.encode() for line in chain(others, lines)),
    )


def _contents(index: Index, gone: Set[int], used: Mapping[tuple[str, str], set[str]]) -> Iterator[bytes]:
    """The lines of the contents that messages refer to, those in `gone` left out and those in `used` added."""
    for owner, contents in index.contents.items():
        stay = set(used.get(owner, ()))
        for chat in index.owners.get(owner, ()):
            stay |= references(index, [row for row in chat.rows if row not in gone])
        for known, (offset, length) in contents.items():
            if known in stay:
                yield os.pread(index.file.fd, length, offset)


def _messages(index: Index, gone: Set[int], edits: Mapping[int, Draft]) -> Iterator[bytes]:
    """The lines that stay, in runs as long as possible; those that say something else by now are written anew."""
    anew = (index.stale() | edits.keys()) - gone
    heads = {row: head.decode() for head, chat in index.chats.items() for row in chat.rows if row in anew}
    fd = index.file.fd
    start = stop = 0
    for row, (begin, length) in enumerate(zip(index.offset, index.length, strict=True)):
        stays = row not in gone and row not in anew
        if stays and stop and begin == stop + len(",\n") and begin + length - start <= _BLOCK:
            stop = begin + length
            continue
        if stop:
            yield os.pread(fd, stop - start, start)
        start, stop = (begin, begin + length) if stays else (0, 0)
        if row in anew:
            message = next(messages(index, index.frozen([row])))
            if row in edits:
                message = message.replaced(edits[row])
            yield message_line(heads[row], message).encode()
    if stop:
        yield os.pread(fd, stop - start, start)

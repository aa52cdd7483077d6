"""What is done about a JSON file that is not laid out, or does not end, as this library writes it."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from chat_history.errors import ChatHistoryWarning, ConfigError, DamagedStoreError, NewerStoreError

from .disk import sync
from .json_disk import File, put_aside, replaced, sync_folder, write_at
from .json_index import BadLineError, Index
from .json_lines import CLOSING, OPENING, document_lines, is_record

__all__ = ["document", "mended"]

_EMPTY = OPENING + CLOSING
_VERSION = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"chat_history"\s*:\s*(\d+)')


def document(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The whole file that these lines, or runs of lines, come to."""
    separator = OPENING + b"\n"
    empty = True
    for line in lines:
        yield separator
        yield line
        separator = b",\n"
        empty = False
    yield _EMPTY if empty else CLOSING


def mended(file: File) -> Index:
    """The index of a file that does not end as it should, put right; the caller holds the lock of the file.

    What was interrupted is taken off its end, to a file beside it. What is a valid document in another layout is
    written again. All else is an error that names the place, and nothing is changed.
    """
    size = file.size()
    beginning = os.pread(file.fd, len(_EMPTY), 0)
    if size == len(beginning) and _EMPTY.startswith(beginning):
        file.check_writable()
        write_at(file.fd, _EMPTY, 0)
        sync(file.fd)
        sync_folder(file.path)
    elif beginning.startswith(OPENING + b"\n"):
        file = _cut(file, size)
    else:
        file = _adopted(file)
    index = Index(file)
    try:
        if index.read(file.size()):
            return index
        offset = index.end
    except BadLineError as bad:
        offset = bad.offset
    raise index.damaged(offset, "it is no record")


def _cut(file: File, size: int) -> File:
    """Take off what follows the last whole change."""
    index = Index(file)
    try:
        index.read_lines(size, whole=False)
        bad = min(size, index.end + len(index.separator))
    except BadLineError as error:
        bad = error.offset
    tail = os.pread(file.fd, size - bad, bad)
    if tail.rstrip().endswith(b"]}"):
        with suppress(DamagedStoreError):
            return _adopted(file)
    first, _, rest = tail.partition(b"\n")
    whole = is_record(first.rstrip(b","))
    if whole:
        try:
            index.add(first.rstrip(b",") + b",\n", bad)
        except BadLineError:
            whole = False
    closed = tail.endswith(CLOSING) and tail != CLOSING[1:]
    if (closed and not whole) or any(is_record(line.rstrip(b",")) for line in rest.split(b"\n")):
        raise index.damaged(bad, "it is no record")
    file.check_writable()
    lost = os.pread(file.fd, size - index.whole, index.whole)
    beside = put_aside(file.path, lost) if lost.strip(b" \r\n,]}") else None
    os.ftruncate(file.fd, index.whole)
    write_at(file.fd, CLOSING, index.whole)
    sync(file.fd)
    if beside is not None:
        warnings.warn(
            f"{file.path} ended in the middle of a record: its last {len(lost)} bytes were moved to {beside}; "
            "all whole records before them are kept",
            ChatHistoryWarning,
            stacklevel=2,
        )
    return file


def _adopted(file: File) -> File:
    """A document that somebody laid out in another way, written as we lay it out. What is not ours is refused."""
    found = _VERSION.match(os.pread(file.fd, 4096, 0))
    if found is not None and int(found[1]) > 1:
        raise NewerStoreError(
            f"{file.path} has format {int(found[1])}, of a newer release; this release reads format 1: upgrade it"
        )
    try:
        parsed = _parsed(file)
    except ValueError as error:
        if found is None:
            raise _strange(file, "it is not JSON") from error
        place = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DamagedStoreError(f"{file.path} cannot be read ({place}); nothing was changed; restore it") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("records"), list) or parsed.get("chat_history") != 1:
        if isinstance(parsed, dict) and all(isinstance(messages, list) for messages in parsed.values()):
            raise _strange(file, "it looks like one of rakam, whose chats `chat-history import` brings over")
        raise _strange(file, "it is JSON of another kind")
    file.check_writable()
    try:
        return replaced(file, document(line.encode() for line in document_lines(parsed)), _check)
    except ValueError as error:
        raise DamagedStoreError(f"{file.path} cannot be read ({error}); nothing was changed; restore it") from error


def _check(file: File) -> None:
    """`ValueError` if what was written in our layout is no history after all."""
    index = Index(file)
    try:
        index.read(file.size())
    except BadLineError as bad:
        raise ValueError(f"record {index.line(bad.offset) - 1} does not fit those before it") from bad


def _parsed(file: File) -> Any:
    with open(os.dup(file.fd), "rb") as whole:
        whole.seek(0)
        try:
            return json.load(whole)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error


def _strange(file: File, why: str) -> ConfigError:
    return ConfigError(f"{file.path} is not a file of chat_history ({why}); nothing was changed; name another path")

"""A JSON file: whether it ends and reads as this library writes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from tempfile import TemporaryDirectory

from chat_history.backends.json_disk import File
from chat_history.backends.json_file import JSONBackend
from chat_history.backends.json_index import BadLineError, Index
from chat_history.backends.sqlite_file import SHARED_FILE_SYSTEMS, file_system
from chat_history.config import Choice
from chat_history.errors import ChatHistoryError

from .chats import examine_chats
from .files import examine_file
from .findings import Finding, error, fine, refused, warning

__all__ = ["examine_json"]


def examine_json(choice: Choice) -> Iterator[Finding]:
    """Every check of a JSON file."""
    path = os.path.realpath(choice.options["path"])
    if not os.path.exists(path):
        yield fine("file", f"there is no {path} yet; the first opening makes it")
        return
    if not os.path.isfile(path):
        yield error("file", f"{path} is not a regular file", "name another path")
        return
    yield from examine_file(path)
    kind = file_system(path)
    if kind in SHARED_FILE_SYSTEMS:
        yield warning(
            "place",
            f"{path} is on a network file system ({kind}), whose locks may not keep two machines from writing at once",
            "move it to a local folder, or use Postgres",
        )
    else:
        yield fine("place", f"{path} is on a local file system{f' ({kind})' if kind else ''}")
    try:
        is_whole = _is_whole(path, choice.options.get("timeout", 30.0))
    except OSError as reason:
        yield error("file", f"{path} cannot be read: {reason.strerror}", "let the user who runs the program read it")
        return
    if is_whole:
        yield fine("damage", f"every line of {path} is a record")
        with closing(choice.backend(**choice.options)) as backend:
            yield from examine_chats(backend)
    else:
        yield from _examine_copy(path)


def _is_whole(path: str, timeout: float) -> bool:
    """Whether opening the file would change nothing in it. Writers wait for the answer."""
    file = File(path, os.O_RDONLY | os.O_NONBLOCK)
    until = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.001)
    try:
        return Index(file).read(file.size())
    except BadLineError:
        return False
    finally:
        fcntl.flock(file.fd, fcntl.LOCK_UN)


def _examine_copy(path: str) -> Iterator[Finding]:
    """What opening would do about it is tried with a copy."""
    with TemporaryDirectory(prefix="chat-history-") as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        copy = os.path.join(os.path.realpath(folder), "copy.json")
        shutil.copyfile(path, copy)
        try:
            backend = JSONBackend(copy)
        except ChatHistoryError as reason:
            finding = refused(reason)
            yield finding._replace(what=finding.what.replace(copy, path))
            return
        with closing(backend):
            if caught:
                yield warning(
                    "damage",
                    f"{path} ends in the middle of a record: a write was interrupted, and was never acknowledged",
                    "nothing to do: the next opening moves that end to a file beside it, and keeps all whole records",
                )
            else:
                yield warning(
                    "damage",
                    f"{path} is not laid out as this library writes it; its records are whole",
                    "nothing to do: the next opening writes it anew",
                )
            yield from examine_chats(backend)

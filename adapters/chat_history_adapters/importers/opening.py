"""What a source is: a database by its URL or its file, a file of JSON, or the zip or folder that it is in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from io import TextIOWrapper
from os import PathLike, fspath
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote
from zipfile import BadZipFile, ZipFile

from chat_history.errors import ChatHistoryError, InvalidArgumentError

from .databases import open_postgres, open_sqlite
from .documents import Document
from .foreign import Source

__all__ = ["opened"]

POSTGRES = re.compile(r"postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)
SQLITE = re.compile(r"sqlite(?:\+\w+)?:///", re.IGNORECASE)
PRIVATE = re.compile(r"\s*[a-z][a-z0-9+.-]+:/|.*\w\w:[^/\\]+@|.*\bpassword\s*=", re.IGNORECASE | re.DOTALL)
"""What is hardly a path, and may hold a password: a URL of something else or mistyped, options as libpq takes them."""
CONVERSATIONS = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
"""ChatGPT writes a large export as several files."""
ENCODING = "utf-8-sig"


@contextmanager
def opened(source: str | PathLike[str]) -> Iterator[Source]:
    """The source, to be read. `InvalidArgumentError` where there is none, or nothing that could be one."""
    text = fspath(source)
    with ExitStack() as stack:
        if url := POSTGRES.match(text):
            found: Source = stack.enter_context(open_postgres(f"postgresql://{text[url.end() :]}"))
        else:
            if url := SQLITE.match(text):
                text = unquote(text[url.end() :].partition("?")[0])
            elif PRIVATE.match(text) and not Path(text).exists():
                raise InvalidArgumentError(
                    "this source is neither a path nor a URL that can be imported from, which are sqlite:///chats.db "
                    "and postgresql://user:password@host/database"
                )
            try:
                found = _file(Path(text), stack)
            except OSError as error:
                if isinstance(error, ChatHistoryError):
                    raise
                raise InvalidArgumentError(f"{text}: {error.strerror}") from error
            except ValueError as error:
                if isinstance(error, ChatHistoryError):
                    raise
                raise InvalidArgumentError("source: no path is like that") from error
        yield found


def _file(path: Path, stack: ExitStack) -> Source:
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if CONVERSATIONS.fullmatch(each.name))
        for each in files:
            _refuse_pipe(each)
        return _document(path, {str(each): partial(each.open, encoding=ENCODING) for each in files})
    _refuse_pipe(path)
    with path.open("rb") as file:
        begins = file.read(16)
    if begins == b"SQLite format 3\0":
        return stack.enter_context(open_sqlite(path))
    if not begins.startswith(b"PK\x03\x04"):
        return _document(path, {str(path): partial(path.open, encoding=ENCODING)})
    try:
        archive = stack.enter_context(ZipFile(path))
    except (BadZipFile, ValueError, NotImplementedError) as error:  # also a name that is no text, another version
        raise InvalidArgumentError(f"{path} is a damaged zip: {error}") from error
    names = sorted(name for name in archive.namelist() if CONVERSATIONS.fullmatch(name))
    return _document(path, {f"{path}/{name}": partial(_member, archive, name) for name in names})


def _refuse_pipe(path: Path) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InvalidArgumentError(
            f"{path} is no file but a pipe or a device: what is imported is read more than once, so put it into a file"
        )


def _member(archive: ZipFile, name: str) -> TextIO:
    try:
        return TextIOWrapper(archive.open(name), encoding=ENCODING)
    except RuntimeError as error:  # a password, or a compression that Python does not know
        why = f"{archive.filename} cannot be unpacked: {error}; unpack it, and name the folder"
        raise InvalidArgumentError(why) from error


def _document(path: Path, parts: dict[str, Callable[[], TextIO]]) -> Document:
    if not parts:
        raise InvalidArgumentError(f"{path} holds no conversations.json, which ChatGPT's export has")
    return Document(str(path), path.stem, parts)

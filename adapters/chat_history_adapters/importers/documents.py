"""A foreign file of JSON, or of lines of it, read piece by piece: what is held is never more than one value."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from typing import Any, NamedTuple, TextIO
from zipfile import BadZipFile

from chat_history.errors import ChatHistoryError, InvalidArgumentError

try:
    from lzma import LZMAError
except ImportError:  # a Python that was built without it, and so unpacks nothing of the kind
    LZMAError = BadZipFile  # type: ignore[misc,assignment]

__all__ = ["Document", "JSONReader", "Shape"]

CHUNK = 1 << 16
LONGEST_LINE = 1 << 22
"""Characters of the first line that are looked at, to see what a file is."""
CUT = 16
"""An error this near to the end of what was read may be of a word that goes on ("tru", "\\u00")."""
UNREADABLE = (UnicodeDecodeError, BadZipFile, EOFError, zlib.error, LZMAError)
"""What reading a file may raise besides OSError: bytes that are no text, and those of a damaged zip."""

_decode = json.JSONDecoder().raw_decode


class Shape(NamedTuple):
    """How a file begins."""

    opens: str
    """Its first character, "" if there is none."""
    line: Mapping[str, Any] | None
    """The first line, where that is an object."""
    key: str | None
    """The first key of the object, or of the first object of the list, that the file is."""
    then: str
    """The first character of what that key has."""


class Document:
    """One file of JSON, or several that are read one after the other. `name` is for people, `stem` without suffix."""

    def __init__(self, name: str, stem: str, parts: Mapping[str, Callable[[], TextIO]]) -> None:
        self.name = name
        self.stem = stem
        self._parts = parts

    @cached_property
    def shape(self) -> Shape:
        """How the file begins; of several, the first."""
        with self.text() as file:
            line: Any = None
            with suppress(ValueError, RecursionError):
                line = json.loads(file.readline(LONGEST_LINE))
        for reader in self.readers():
            opens = reader.peek()
            key, then = _first_key(reader)
            return Shape(opens, line if isinstance(line, dict) else None, key, then)
        raise AssertionError

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines that are not blank, each with its number, from 1 on."""
        for part in self._parts:
            with self.text(part) as file:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        yield number, line

    def readers(self) -> Iterator[JSONReader]:
        """A reader at the beginning of each file; going on to the next closes it."""
        for part in self._parts:
            with self.text(part) as file:
                yield JSONReader(file, part)

    @contextmanager
    def text(self, part: str | None = None) -> Iterator[TextIO]:
        """One of the files, the first unless named, as text."""
        part = part or next(iter(self._parts))
        try:
            with closing(self._parts[part]()) as file:
                yield file
        except ChatHistoryError:
            raise  # of the store that takes in what is read here: some of ours are OSErrors
        except OSError as error:
            raise InvalidArgumentError(f"{part}: {error.strerror or error}") from error
        except UNREADABLE as error:
            raise _unreadable(part, error) from error


def _unreadable(name: str, error: Exception) -> InvalidArgumentError:
    what = "is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be unpacked"
    return InvalidArgumentError(f"{name} {what}: {error}; what came before it has arrived")


def _first_key(reader: JSONReader) -> tuple[str | None, str]:
    try:
        if reader.peek() == "[":
            for _ in reader.elements():
                break
        if reader.peek() == "{":
            for key in reader.members():
                return key, reader.peek()
    except InvalidArgumentError:
        pass
    return None, ""


class JSONReader:
    """Walks through one JSON document: into objects and lists, or over whole values.

    What `members` and `elements` come to is read with one call of `value`, `members` or `elements` before they go on.
    """

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._name = name
        self._text = ""
        self._at = 0
        self._before = 0

    def peek(self) -> str:
        """The first character of what comes next, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def members(self) -> Iterator[str]:
        """Into an object: its keys."""
        for _ in self._items("{", "}"):
            if self.peek() != '"':
                raise self.unexpected("a key")
            key: str = self.value()
            self._take(":")
            yield key

    def elements(self) -> Iterator[int]:
        """Into a list: its indexes."""
        return self._items("[", "]")

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                place = self._before + error.pos
                goes_on = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - CUT
                if not goes_on or not self._fill():
                    raise self._damaged(place, error.msg) from error
            except (ValueError, RecursionError) as error:
                raise self._damaged(self._before + self._at, str(error)) from error
            else:
                # A number may go on ("1e", "5").
                if end < len(self._text) - CUT or not self._fill():
                    self._at = end
                    return value

    def unexpected(self, expected: str) -> InvalidArgumentError:
        """That something else comes next."""
        found = self.peek()
        why = f"{expected} was expected, not {found!r}" if found else "the file ends here"
        return self._damaged(self._before + self._at, why)

    def end(self) -> None:
        """Nothing may come any more."""
        if self.peek():
            raise self.unexpected("the end")

    def _items(self, opening: str, closing: str) -> Iterator[int]:
        self._take(opening)
        index = 0
        while self.peek() != closing or index:
            yield index
            index += 1
            if self.peek() == closing:
                break
            self._take(",")
        self._take(closing)

    def _take(self, character: str) -> None:
        if self.peek() != character:
            raise self.unexpected(repr(character))
        self._at += 1

    def _fill(self) -> bool:
        """Read on, twice as much each time, so that a long value is not begun anew too often."""
        rest = self._text[self._at :]
        try:
            more = self._file.read(max(CHUNK, len(rest)))
        except UNREADABLE as error:
            raise _unreadable(self._name, error) from error
        if more:
            self._before += self._at
            self._text, self._at = rest + more, 0
        return bool(more)

    def _damaged(self, place: int, why: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self._name} cannot be read at character {place}: {why}; what came before it has arrived"
        )

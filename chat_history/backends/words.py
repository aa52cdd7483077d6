"""What a search looks for, and how a text is compared with it: the same on every backend.

Case, accents, the width of letters and the shape of quotes and dashes make no difference, and a term may stand anywhere
in a word, because many languages have no spaces. An index holds hashes of the three letters at each place of each word
("grams") of a block of messages: a block in which a term stands has all grams of its words. So an index only ever
proposes, and `Sought.is_in` decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Set
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

__all__ = ["BLOCK", "MUCH", "TITLE", "Sought", "folded", "grams_of"]

BLOCK = 16
"""So many positions of a chat are indexed together: they have little more grams than one of them."""
TITLE = -1
"""The block of a chat's title."""

_ACCENTS = re.compile("[\u0300-\u036f]+")
# What phones and models write where people type plain ones.
_SHAPES = [
    *[(shape, '"') for shape in "\u201c\u201d\u201e\u201f\u00ab\u00bb"],
    *[(shape, "'") for shape in "\u2018\u2019\u201a\u201b\u02bc"],
    *[(shape, "-") for shape in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"],
]
_DENSE = "\u2e80"
"""From here on a script has a letter for a syllable or a word, so that a search may be for one or two of them."""
_DENSE_RUN = re.compile(f"[{_DENSE}-\U0010ffff]+")
_ASCII = bytes(range(128))
_holds_escape = re.compile(rb"\\u").search  # in half the time of `in`
_ESCAPED = re.compile(rb'["\\/\x00-\x20]')


def folded(text: str) -> str:
    """The text without what makes no difference to a search."""
    if text.isascii():
        plain = text.lower()
    else:
        plain = unicodedata.normalize("NFKD", text).casefold()
        plain = unicodedata.normalize("NFC", _ACCENTS.sub("", plain))
        for shape, usual in _SHAPES:
            plain = plain.replace(shape, usual)
    return plain.replace("\n", " ").replace("\r", " ").replace("\t", " ")


class Sought(NamedTuple):
    """Terms, folded, each of which must stand somewhere in a text."""

    terms: tuple[str, ...]

    def is_in(self, text: str) -> bool:
        """Whether the text has every term."""
        plain = folded(text)
        return all(term in plain for term in self.terms)

    def may_be_in(self, lines: bytes) -> bool:
        """Whether a text in lines of JSON could have every term: False only if surely none has."""
        if _holds_escape(lines):
            return True
        is_plain = lines.isascii()
        if not is_plain and (letters := _folding(lines, _letters(self))):
            if len(lines) > MUCH:
                return True
            for written, plain in letters:
                lines = lines.replace(written, plain)
        lines = lines.lower()
        return all(term in lines for term in _written_terms(self) if is_plain or term.isascii())

    def grams(self, owner: UUID) -> list[int]:
        """What an index has of every text with all the terms; nothing where they are too short to tell."""
        words = [word for term in self.terms for word in term.split() if len(word) > 2 or min(word) >= _DENSE]
        grams: set[str] = set()
        for word in words:
            grams |= _grams(word) if len(word) > 2 else {word}
        # Three letters of a word say all that one or two of them would.
        return sorted(_salted({_hash(gram) for gram in grams}, owner))


@lru_cache(maxsize=64)
def _written_terms(sought: Sought) -> list[bytes]:
    """Those that JSON writes as they are."""
    encoded = [term.encode(errors="surrogatepass") for term in sought.terms]
    return [term for term in encoded if not _ESCAPED.search(term)]


@lru_cache(maxsize=64)
def _letters(sought: Sought) -> frozenset[int]:
    """All that JSON writes those in."""
    return frozenset(b"".join(_written_terms(sought)))


def _folding(lines: bytes, wanted: Set[int]) -> list[tuple[bytes, bytes]]:
    """The letters here that are not ASCII, but fold to nothing, or to something with a wanted one; and what that is."""
    beyond = set(lines.translate(None, _ASCII).decode(errors="replace"))
    pairs = [pair for pair in map(_pairs.__getitem__, beyond) if pair is not None]
    return [(written, plain) for written, plain in pairs if not plain or not wanted.isdisjoint(plain)]


class _Pairs(dict[str, tuple[bytes, bytes] | None]):
    """A letter and what it folds to; None where that has nothing to do with ASCII, as of Chinese."""

    def __missing__(self, letter: str) -> tuple[bytes, bytes] | None:
        plain = folded(letter)
        stays_apart = plain and not any(map(str.isascii, plain))
        self[letter] = None if stays_apart else (letter.encode(), plain.encode())
        return self[letter]


_pairs = _Pairs()
MUCH = 1 << 14
"""Bytes in which letters are not looked for one by one: most of the lines in them have none."""


def grams_of(texts: Iterable[str], owner: UUID) -> set[int]:
    """What an index keeps of texts. Of each owner other numbers, so that nobody's search meets another's texts."""
    words: set[str] = set()
    for text in texts:
        words.update(folded(text).split())
    hashes: set[int] = set()
    for word in words:
        hashes.update(_known[word])
    return _salted(hashes, owner)


def _grams(word: str) -> set[str]:
    """The three letters at each place of a word, and in dense scripts one and two of them."""
    grams = {word[at : at + 3] for at in range(len(word) - 2)}
    if not word.isascii():
        for run in _DENSE_RUN.findall(word):
            grams.update(run, [run[at : at + 2] for at in range(len(run) - 1)])
    return grams


def _hash(gram: str) -> int:
    return crc32(gram.encode(errors="surrogatepass"))


def _salted(hashes: set[int], owner: UUID) -> set[int]:
    salt = owner.int & 0xFFFFFFFF
    # Signed, as databases have their integers.
    return {(each ^ salt) - 0x80000000 for each in hashes}


class _Known(dict[str, tuple[int, ...]]):
    """The hashes of words: few are used again and again."""

    def __missing__(self, word: str) -> tuple[int, ...]:
        hashes = tuple(map(_hash, _grams(word)))
        if len(word) <= LONG:
            if len(self) >= MANY:
                self.clear()
            self[word] = hashes
        return hashes


LONG = 32
"""Longer than most words."""
MANY = 50_000
_known = _Known()

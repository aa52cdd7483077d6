"""What a search looks for, and how a text is compared with it: the same on every backend.

Case, accents and the width of letters make no difference, and a term may stand anywhere in a word, because many
languages have no spaces. An index holds, for each text, hashes of the three letters at each place ("grams"): a text
that contains a term has all the grams of the term. So an index only ever proposes, and `Sought.is_in` decides.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

__all__ = ["Sought", "folded", "grams_of"]

_ACCENTS = re.compile("[\u0300-\u036f]+")
_SPACES = str.maketrans("\t\n\r\v\f", "     ")
_DENSE = "\u2e80"
"""From here on a script has a letter for a syllable or a word, so that a search may be for one or two of them."""
_ESCAPED = re.compile(rb'["\\/\x00-\x20]')


def folded(text: str) -> str:
    """The text without what makes no difference to a search."""
    if text.isascii():
        return text.lower().translate(_SPACES)
    plain = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFC", _ACCENTS.sub("", plain)).translate(_SPACES)


class Sought(NamedTuple):
    """Terms, folded, each of which must stand somewhere in a text."""

    terms: tuple[str, ...]

    def is_in(self, text: str) -> bool:
        """Whether the text has every term."""
        plain = folded(text)
        return all(term in plain for term in self.terms)

    def may_be_in(self, line: bytes) -> bool:
        """Whether a text that a line of JSON says could have every term: False only if it surely has not."""
        if not line.isascii() or b"\\u" in line:
            return True
        plain = line.lower()
        return all(term in plain for term in _plain_terms(self))

    def grams(self, owner: UUID) -> list[int]:
        """What an index has of every text with all the terms; nothing where they are too short to tell."""
        found: set[int] = set()
        for term in self.terms:
            if len(term) > 2:
                found |= _hashed({"".join(three) for three in zip(term, term[1:], term[2:], strict=False)}, owner)
            elif term and min(term) >= _DENSE:
                found |= _hashed({term}, owner)
        return sorted(found)


@lru_cache(maxsize=64)
def _plain_terms(sought: Sought) -> list[bytes]:
    """Those that JSON writes as they are."""
    encoded = [term.encode(errors="surrogatepass") for term in sought.terms]
    return [term for term in encoded if not _ESCAPED.search(term)]


def grams_of(text: str, owner: UUID) -> set[int]:
    """What an index keeps of a text. Of each owner other numbers, so that nobody's search meets another's texts."""
    plain = folded(text)
    grams = set(map("".join, zip(plain, plain[1:], plain[2:], strict=False)))
    if not plain.isascii():
        dense = [letter >= _DENSE for letter in plain]
        grams |= {letter for letter, is_dense in zip(plain, dense, strict=True) if is_dense}
        grams |= {plain[at : at + 2] for at in range(len(plain) - 1) if dense[at] and dense[at + 1]}
    return _hashed(grams, owner)


def _hashed(grams: set[str], owner: UUID) -> set[int]:
    start = owner.int & 0xFFFFFFFF
    # Signed, as databases have their integers.
    return {crc32(gram.encode(errors="surrogatepass"), start) - 0x80000000 for gram in grams}

"""What a save has to write: which of the given messages are stored already, and where the rest goes.

Messages are first compared whole, by the digests of their payloads. Where that would displace something, they are
compared part by part, in the format of the given ones, because what comes back need not be what was stored: an agent
merges neighbouring requests, a window carries the system prompt along, a newer release of the framework serialises
the same message otherwise, and a message of another format was converted when it was loaded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cache
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, NamedTuple

from .alignment import Alignment, align, common_prefix
from .backends.base import Outline, Record, Written
from .formats import Dumped, MessageFormat, Source
from .loading import DICTS, sources
from .messages import Message
from .replaying import INTERRUPTED, replayable
from .windows import HEAD

if TYPE_CHECKING:
    from hashlib import blake2b

__all__ = ["Branch", "Given", "Plan", "digest", "plan"]


def digest(payload: str) -> bytes:
    """What tells a stored payload from others: 16 bytes of its hash."""
    return _blake2b()(payload.encode(), digest_size=16).digest()


@cache
def _blake2b() -> type[blake2b]:
    from hashlib import blake2b  # loads OpenSSL, which the import of this package should not wait for

    return blake2b


ROOT = -1
"""Stands for the position of what the first message of a branch followed."""

Aliases = dict[bytes, tuple[bytes, ...]]
"""Digests of messages that came back in another shape, and of the stored messages that they were found to be."""


@dataclass(slots=True)
class Branch:
    """The active branch of a chat at one version: positions and digests of its messages, the archived ones first."""

    version: int
    positions: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    archived: int = 0
    aliases: Aliases = field(default_factory=dict)
    displaced: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """Positions of superseded messages, by the position of the message that each followed (ROOT) and its digest."""
    followed: dict[int, int] = field(default_factory=dict)
    """The position of the message that each superseded one followed (ROOT)."""

    @classmethod
    def of(cls, outline: Outline | None) -> Branch:
        """The branch in an outline; empty, at version 0, if there is no chat."""
        if outline is None:
            return cls(0)
        rows = [row for row in outline.rows if row[3] != "superseded"]
        branch = cls(outline.version, [row[0] for row in rows], [bytes(row[4]) for row in rows])
        branch.archived = sum(row[3] == "archived" for row in rows)
        if len(rows) < len(outline.rows):
            positions = {row[1]: row[0] for row in outline.rows}
            for position, _, parent, status, mark in outline.rows:
                if status == "superseded":
                    branch.followed[position] = followed = positions.get(parent or "", ROOT)
                    branch.displaced[followed, bytes(mark)] = position
        return branch

    def grown(self, new: Sequence[Given], written: Written) -> Branch:
        """The branch after a write that only added to it."""
        return Branch(
            written.version,
            [*self.positions, *range(written.position, written.position + len(new))],
            [*self.digests, *(each.digest for each in new)],
            self.archived,
            self.aliases,
            self.displaced,
            self.followed,
        )

    def archiving(self, count: int, written: Written) -> Branch:
        """The branch after a write that archived so many more of its messages, the oldest."""
        return replace(self, version=written.version, archived=self.archived + count)


class Given(NamedTuple):
    """A message to be saved. `dumped` is None while its digest is known from a moment ago."""

    message: Any
    format: MessageFormat
    digest: bytes
    dumped: Dumped | None


class Plan(NamedTuple):
    """What a save comes to: the branch keeps its first `kept` messages, `revived` ones and then `new` ones follow."""

    kept: int
    new: Sequence[Given]
    revived: Sequence[int] = ()
    """Positions of superseded messages that the list goes on with: a branch that is returned to is not stored again."""
    strange: bool = False
    """Whether the list shares nothing with a branch that holds something, system prompts aside."""


Give = Callable[[int], list[Given]]
"""The given messages from an index on."""
ReadRows = Callable[[int, int], list[Record]]
"""The records of the branch from one index up to another."""


def plan(
    branch: Branch,
    digests: Sequence[bytes],
    give: Give,
    read: ReadRows,
    *,
    whole: bool = False,
    keep_archived: bool = True,
) -> Plan:
    """Work out what saving the messages of these digests has to write; `branch.aliases` learns what was found out.

    whole: they are all that shall be active, rather than how the branch ends; and all of the branch, unless
    keep_archived.
    """
    if branch.archived and not keep_archived:
        found = Plan(0, give(0))
    else:
        found = _continued(branch, digests, give, read, whole=whole)
    at = branch.positions[found.kept - 1] if found.kept else ROOT
    size = len(branch.positions)
    is_back = bool(found.new) and (at, found.new[0].digest) in branch.displaced
    if found.strange and found.new and not is_back and (elsewhere := _elsewhere(branch, found)):
        return elsewhere
    if found.strange and branch.archived == size and not is_back:
        # Nothing is active, so the window that the list goes on from was empty.
        found, at = Plan(size, found.new), branch.positions[-1]
    if not branch.displaced or not found.new:
        return found
    revived = _back(branch, at, found.new)
    strange = found.strange and not revived
    return Plan(found.kept, found.new[len(revived) :], revived, strange)


def _back(branch: Branch, at: int, given: Sequence[Given]) -> list[int]:
    """The displaced messages, each after the one before, that these go on with after position `at`."""
    back: list[int] = []
    for each in given:
        place = branch.displaced.get((at, each.digest))
        if place is None:
            break
        back.append(place)
        at = place
    return back


def _elsewhere(branch: Branch, found: Plan) -> Plan | None:
    """What a list that is strange here comes to where it goes on inside a branch that was displaced meanwhile.

    Two messages in a row have to agree, as one may be the same by accident.
    """
    run: list[int] = []
    for (_, mark), position in branch.displaced.items():
        if mark == found.new[0].digest:
            its = [position, *_back(branch, position, found.new[1:])]
            run = max(run, its, key=lambda each: (len(each), each))
    if len(run) < 2:
        return None
    way = [run[0]]
    while (before := branch.followed[way[-1]]) in branch.followed:
        way.append(before)
    kept = 0 if before == ROOT else branch.positions.index(before) + 1
    if kept < found.kept:
        return None  # the system prompt that leads the list is none of that branch
    return Plan(kept, found.new[len(run) :], [*reversed(way), *run[1:]])


def _continued(branch: Branch, digests: Sequence[bytes], give: Give, read: ReadRows, *, whole: bool) -> Plan:
    size = len(branch.digests)
    first = branch.archived if whole else 0
    if not digests:
        return Plan(first if whole else size, [])
    known = _known_exactly(digests, branch.digests[first:], branch.aliases, whole=whole) if size else 0
    if known is not None:
        return Plan(size, give(known))
    given = give(0)
    low = first if whole else _likely_start(digests, branch.digests)
    comparison = _Comparison(branch, given, read, first, low)
    if not whole and low and not comparison.continues:
        comparison = _Comparison(branch, given, read, 0, 0)
    if not whole and branch.archived and not comparison.continues and comparison.converts:
        # What is active was loaded by itself, and the archived messages may end in the middle of an answer.
        again = _Comparison(branch, given, read, 0, branch.archived)
        comparison = max(comparison, again, key=lambda each: each.found.known)
    for look in Look:
        if not comparison.continues and comparison.may_differ(look):
            again = _Comparison(branch, given, read, first, first, look)
            comparison = max(comparison, again, key=lambda each: each.found.known)
    return comparison.plan(whole=whole)


def _known_exactly(digests: Sequence[bytes], stored: Sequence[bytes], aliases: Aliases, *, whole: bool) -> int | None:
    """How many of the given are stored, if what is stored ends with them; None where that takes a closer look."""
    ends: Sequence[int] = range(1, len(digests) + 1)
    if aliases:
        stands_for = [aliases.get(each, (each,)) for each in digests]
        digests = [one for several in stands_for for one in several]
        ends = list(accumulate(map(len, stands_for)))
    found = Alignment(0, common_prefix(digests, stored)) if whole else align(digests, stored)
    if found.end < len(stored) or not found.kept or found.known not in ends:
        return None
    if found.start and (stored.count(digests[0]) > 1 or not set(stored).isdisjoint(digests[found.known :])):
        return None  # messages repeat, and part by part another place may agree with more
    return ends.index(found.known) + 1


def _likely_start(digests: Sequence[bytes], stored: Sequence[bytes]) -> int:
    """Where in a long branch to begin looking for a window: a little before the first message that is known.

    What stands in the head says nothing of that: a window carries the system prompt along, and the head is looked at
    anyway.
    """
    places = {one: index for index, one in enumerate(stored)}
    for index, each in enumerate(digests):
        if places.get(each, 0) >= HEAD:
            return max(0, places[each] - 4 * index - 16) if stored.count(each) == 1 else 0
    return 0


class Look(Enum):
    """Other ways in which what is stored may come back than as it is stored, or converted as a model is given it."""

    LOADED = auto()
    """As it is after loading: the installed release makes something else of what it took the message itself."""
    UNANSWERED = auto()
    """With no results put in for calls that got none but those given: nothing followed the other calls when loaded."""


class _Cut(NamedTuple):
    """A message, given or stored, as the parts that the format of the given ones sees in it."""

    parts: Sequence[tuple[str, str]]
    envelope: str | None = None
    """None where it is not one message of that format by itself."""
    system: int = 0


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of a given message that has none: no stored one has it, so it matches none by accident."""


class _Comparison:
    """The given messages held against the stored ones, part by part.

    Of a long branch only its head and all from index `low` on are looked at. What comes before `first` stays.
    """

    def __init__(
        self,
        branch: Branch,
        given: Sequence[Given],
        read: ReadRows,
        first: int,
        low: int,
        look: Look | None = None,
    ) -> None:
        self.form = form = _form(given)
        head = range(min(HEAD, low))
        tail = range(low, len(branch.digests))
        self.branch = branch
        self.given = given
        self.first = first
        self.indexes = [*head, *tail]
        records = [*read(head.start, head.stop), *read(tail.start, tail.stop)]
        self.formats = {record.format for record in records}
        # Apart: what is loaded without the archived messages begins anew, also in the middle of an answer.
        before, rest = records[: len(head)], records[len(head) :]
        interrupted = _interrupted(given) if look is Look.UNANSWERED else None
        self.stored = [
            *_cut_stored(form, before, look, interrupted),
            *_cut_stored(form, rest, look, interrupted),
        ]
        # None of another format: equal bytes may come to something else there, as a piece of a longer answer.
        by_digest = {
            branch.digests[index]: cut
            for index, record, cut in zip(self.indexes, records, self.stored, strict=True)
            if record.format == form.name
        }
        self.ours = _cut_given(form, given, by_digest)

        self.parts: list[Any] = []
        self.ends: list[int] = []
        for index, cut in zip(self.indexes, self.stored, strict=True):
            if index == low > head.stop:
                self.parts.append(object())  # nothing may match across what was left out
            self.parts += cut.parts
            self.ends.append(len(self.parts))
        self.begun = len(self.parts) - sum(len(cut.parts) for cut in self.stored[len(head) :])
        self.our_parts = [part for cut in self.ours for part in cut.parts]
        self.our_ends = list(accumulate(len(cut.parts) for cut in self.ours))
        self.system = _leading_system(self.ours)
        self.found = self._agreeing(align(self.our_parts, self.parts, system=self.system))

    def may_differ(self, look: Look) -> bool:
        """Whether what is stored may come back in that way and be another."""
        if look is Look.LOADED:
            return self.form.name in self.formats and bool(self.form.version())
        return self.converts

    @property
    def converts(self) -> bool:
        """Whether some of what is stored is of another format, which comes back as its neighbours let it."""
        return self.formats != {self.form.name}

    @property
    def continues(self) -> bool:
        """Whether the given messages go on from the very last stored one."""
        return self.found.kept > 0 and self.found.end == len(self.parts)

    def plan(self, *, whole: bool) -> Plan:
        """What to keep and what to write; the branch learns which given messages are stored in another shape."""
        found = self.found
        if whole:
            found = self._agreeing(self._active())
        rows = bisect_right(self.ends, found.end)
        end = self.ends[rows - 1] if rows else 0
        known = found.carried + max(0, end - found.start)
        self._learn(found, known)
        at = bisect_right(self.our_ends, known)
        # Messages without parts agree with any place: where both lists have some, they are the same ones.
        blank, our_blank = _blank_at_end(self.stored[:rows]), _blank_at_end(self.ours[:at])
        rows -= max(0, blank - our_blank)
        at -= max(0, our_blank - blank)
        kept = max(self.first, self.indexes[rows - 1] + 1) if rows else self.first
        strange = not whole and kept < len(self.branch.digests) and known <= self.system
        return Plan(kept, self._after(at, known), strange=strange)

    def _active(self) -> Alignment:
        """How far the given messages are the active ones, but for the system prompts that a window carried along."""
        active = self.parts[self.begun :]
        kept = common_prefix(self.our_parts, active)
        carried = common_prefix(self.our_parts[: self.system], self.parts[: self.begun])
        rest = common_prefix(self.our_parts[carried:], active)
        if carried == len(self.our_parts) or (kept and carried + rest <= kept):
            return Alignment(self.begun, kept)
        return Alignment(self.begun, rest, carried)

    def _agreeing(self, found: Alignment) -> Alignment:
        """The alignment up to the first message whose boundaries agree with a stored one's, but not its envelope."""
        envelopes = {(end - len(cut.parts), end): cut.envelope for cut, end in zip(self.stored, self.ends, strict=True)}
        shift = found.start - found.carried
        for cut, end in zip(self.ours, self.our_ends, strict=True):
            start = end - len(cut.parts)
            if start < found.carried or end > found.known:
                continue
            theirs = envelopes.get((start + shift, end + shift))
            if theirs is not None and cut.envelope is not None and theirs != cut.envelope:
                return Alignment(found.start, start - found.carried, found.carried)
        return found

    def _after(self, at: int, known: int) -> list[Given]:
        """The given messages from index `at` on; one of which some parts are known keeps what follows them."""
        if at == len(self.given):
            return []
        begun = known - (self.our_ends[at] - len(self.ours[at].parts))
        if not begun:
            return list(self.given[at:])
        message, form = self.given[at].message, self.given[at].format
        rest = form.rest(message, begun)
        dumped = form.dump(rest)
        return [Given(rest, form, digest(dumped.payload), dumped), *self.given[at + 1 :]]

    def _learn(self, found: Alignment, known: int) -> None:
        shift = found.start - found.carried
        starts = {
            end - len(cut.parts): place for place, (cut, end) in enumerate(zip(self.stored, self.ends, strict=True))
        }
        places = {end: place for place, end in enumerate(self.ends)}
        for given, cut, end in zip(self.given, self.ours, self.our_ends, strict=True):
            start = end - len(cut.parts)
            if start < found.carried or end > known or start + shift not in starts or end + shift not in places:
                continue
            stored = self.indexes[starts[start + shift] : places[end + shift] + 1]
            digests = tuple(self.branch.digests[index] for index in stored)
            # One that is stored as it is stands for itself, also where what follows it was converted to nothing.
            if given.digest not in digests:
                self.branch.aliases[given.digest] = digests


def _form(given: Sequence[Given]) -> MessageFormat:
    """The format to compare in: dicts stand in lists of any, as a user's plain words among the items of Responses."""
    return next((each.format for each in given if each.format.name != DICTS), given[0].format)


def _cut_given(form: MessageFormat, given: Sequence[Given], known: dict[bytes, _Cut]) -> list[_Cut]:
    cuts = [known.get(each.digest) or _own(form, _payload(each)) if each.format is form else None for each in given]
    if None in cuts:
        ours = [Source("", each.format.name, _payload(each), EPOCH) for each in given]
        cuts = [cut or other for cut, other in zip(cuts, _converted(form, ours), strict=True)]
    return [cut for cut in cuts if cut is not None]


def _payload(given: Given) -> str:
    return (given.dumped or given.format.dump(given.message)).payload


def _interrupted(given: Sequence[Given]) -> Counter[str]:
    """Of each call, how many of these messages say that it was interrupted before it gave a result."""
    payloads = [(each.format, payload) for each in given if INTERRUPTED in (payload := _payload(each))]
    neutral = chain.from_iterable(form.to_neutral(payload) for form, payload in payloads)
    return Counter(each.get("tool_call_id", "") for each in neutral if _is_interruption(each))


def _is_interruption(neutral: Message) -> bool:
    return bool(neutral["role"] == "tool" and neutral["content"] == INTERRUPTED)


def _cut_stored(
    form: MessageFormat, records: Sequence[Record], look: Look | None, interrupted: Counter[str] | None
) -> list[_Cut]:
    cuts = [_native(form, record, look) for record in records]
    if None in cuts:
        converted = _converted(form, sources(records), interrupted)
        cuts = [cut or other for cut, other in zip(cuts, converted, strict=True)]
    return [cut for cut in cuts if cut is not None]


def _native(form: MessageFormat, record: Record, look: Look | None) -> _Cut | None:
    """The parts of a message of the same format, as the installed release would serialise it; None if it cannot."""
    if record.format != form.name:
        return None
    if record.format_version == form.version() and look is not Look.LOADED:
        return _own(form, record.payload)
    try:
        return _own(form, form.dump(form.load([record.payload])[0]).payload)
    except ValueError:
        return None


def _own(form: MessageFormat, payload: str) -> _Cut:
    kind, parts, envelope, system = form.parts(payload)
    return _Cut([(kind, part) for part in parts], envelope, system)


def _converted(form: MessageFormat, given: Sequence[Source], interrupted: Counter[str] | None = None) -> list[_Cut]:
    """The parts that messages of other formats have once they were loaded in this one.

    interrupted: of which calls, and how often, the first results that were put in are to be there, if not all.
    """
    cuts: list[list[_Cut]] = [[] for _ in given]
    for index, neutral in replayable(given, form.name):
        if interrupted is not None and _is_interruption(neutral):
            call_id = neutral.get("tool_call_id", "")
            if not interrupted[call_id]:
                continue
            interrupted[call_id] -= 1
        for message in form.from_neutral([neutral]).messages:
            cuts[index].append(_own(form, form.dump(message).payload))
    return [_joined(cut) for cut in cuts]


def _joined(cuts: Sequence[_Cut]) -> _Cut:
    if len(cuts) == 1:
        return cuts[0]
    return _Cut([part for cut in cuts for part in cut.parts], None, _leading_system(cuts))


def _blank_at_end(cuts: Sequence[_Cut]) -> int:
    """How many messages at the end have no parts; one that was converted to nothing belongs to what is before it."""
    count = 0
    while count < len(cuts) and not cuts[-1 - count].parts and cuts[-1 - count].envelope is not None:
        count += 1
    return count


def _leading_system(cuts: Sequence[_Cut]) -> int:
    """How many parts at the beginning are system prompts."""
    count = 0
    for cut in cuts:
        count += cut.system
        if cut.system < len(cut.parts):
            break
    return count

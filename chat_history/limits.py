"""How long a chat may grow: what of it goes when it is too long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from .alignment import align
from .backends.base import Backend, ChatKey, Draft, OutlineRow, PayloadRow, Record
from .backends.contents import rest_of
from .formats import get_format
from .loading import naming_damage
from .messages import MessageStatus
from .records import draft_of
from .saving import Branch, digest
from .windows import newest_turns

__all__ = ["Limit", "leading", "prompt_alone", "prompts"]


class Limit(NamedTuple):
    """The most messages of a chat that stay active, and what becomes of the oldest turns beyond."""

    max_messages: int
    overflow: Literal["archive", "delete"]

    def kept(self, backend: Backend, key: ChatKey) -> Sequence[PayloadRow]:
        """Which of a chat's active messages may stay: the newest whole turns that fit, and the newest one always."""

        def read(before: int | None, limit: int) -> Sequence[PayloadRow]:
            return backend.read_payloads(key, before=before, limit=limit, newest=True)

        return newest_turns(read, lambda row: 0, last=self.max_messages, most=None)

    def beyond(self, backend: Backend, key: ChatKey, rows: Sequence[OutlineRow]) -> list[OutlineRow]:
        """Which of a chat's messages must be deleted.

        What leads the chat as its system prompt is archived with the rest, because a window carries it along from
        there, but not deleted: see `prompt_alone` for what is said beside it.
        """
        kept = self.kept(backend, key)
        beyond = [row for row in rows if kept and row[3] == MessageStatus.ACTIVE and row[0] < kept[0][0]]
        return beyond[leading(backend, key, beyond) :]

    def taken_out(self, branch: Branch, digests: Sequence[bytes], has_prompt: Callable[[Branch], bool]) -> int:
        """How many of the messages of a save come before those that were left of them.

        An application that goes on with its own list still has what was deleted. It must not come back: what is stored
        would be displaced by it, with every save anew. has_prompt: whether the system prompt that leads the list is the
        one stored, as another must not get lost.
        """
        if self.overflow == "archive" or len(digests) <= self.max_messages:
            return 0
        lead = next((place for place, position in enumerate(branch.positions) if place != position), None)
        if lead is None:
            return 0
        left = branch.digests[lead:]
        found = align(left, digests)
        is_ours = 2 * found.kept > len(left)  # else it is a list of another kind
        return found.start if is_ours and has_prompt(branch) else 0


def leading(backend: Backend, key: ChatKey, rows: Sequence[OutlineRow]) -> int:
    """How many of these messages, the first of a branch, lead the chat with a system prompt: see `prompts`."""

    read: list[Record] = []

    def stored() -> Iterator[tuple[str, str]]:
        for row in rows:
            found = backend.find(key, [row[1]])
            read.extend(found)
            yield from ((record.format, rest_of(record.payload)) for record in found)

    with naming_damage(key.chat_id, ((record.position, record.payload) for record in read)):
        return prompts(stored())


def prompts(messages: Iterable[tuple[str, str]]) -> int:
    """How many of these formats and payloads, the first of a branch, lead with a system prompt.

    One that says more than its prompt only as the very first, or each turn with a prompt of its own would leave it.
    """
    count = 0
    for form, payload in messages:
        neutral = get_format(form).to_neutral(payload)
        some = neutral if count else neutral[:1]
        if not some or any(each["role"] not in ("system", "developer") for each in some):
            break
        count += 1
    return count


def prompt_alone(backend: Backend, key: ChatKey, row: OutlineRow) -> Draft | None:
    """A message without what it says beside the system prompt; None where it says nothing else, or has none."""
    for record in backend.find(key, [row[1]]):
        form = get_format(record.format)
        try:
            found = form.parts(record.payload)
            system = form.system(form.load([record.payload])[0]) if 0 < found.system < len(found.parts) else None
        except ValueError:
            return None  # the installed release cannot load it
        if system is not None:
            dumped = form.dump(system)
            mark = digest(dumped.payload)
            return draft_of(form, dumped, mark, record.message_id, record.created_at, record.metadata)
    return None

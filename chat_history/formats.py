"""Message formats: the protocol each one keeps, the registry that finds them, and conversion between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol

from .errors import UnknownFormatError
from .messages import Message

__all__ = [
    "Converted",
    "Dumped",
    "Loss",
    "MessageFormat",
    "Parts",
    "Source",
    "convert",
    "get_format",
    "neutral_messages",
    "recognise",
]

GROUP = "chat_history.formats"


class Dumped(NamedTuple):
    """A message ready to be stored: the framework's own JSON (without a raw newline), its role, its text."""

    payload: str
    role: str
    """"system", "user", "assistant", "tool", or what the message says. "user" begins a turn: a message that answers
    tool calls is "tool", also where a user's words are beside the answers."""
    text: str
    """What a person would read of it; "" where there is nothing."""


class Loss(NamedTuple):
    """One thing that a conversion could not carry."""

    message: str
    """The message_id of the stored message."""
    part: str
    """Which part of it: "thinking.signature", "content[2]"."""
    reason: str


class Parts(NamedTuple):
    """What tells a message from others when a list comes back to be saved.

    Two lists are the same messages if their parts are equal one by one; frameworks merge neighbouring messages of the
    same kind, so boundaries may differ. Where the boundaries of two messages agree, their envelopes must be equal too.
    """

    kind: str
    """Messages that a framework may merge have the same kind: "request", "response"."""
    parts: Sequence[str]
    """One canonical string a part, free of what a framework changes on its own (a dynamic prompt's text)."""
    envelope: str
    """The rest of the message as one canonical string, free of what a framework fills in on its own (run ids)."""
    system: int = 0
    """How many of the leading parts are system prompts, which a window carries along."""


class Source(NamedTuple):
    """A stored message, as conversions see it."""

    message_id: str
    format: str
    payload: str
    created_at: datetime


class Converted(NamedTuple):
    """Objects of the target format, and what they could not carry."""

    messages: list[Any]
    losses: list[Loss]


class MessageFormat(Protocol):
    """Turns the messages of one framework into stored payloads and back.

    Everything is deterministic: the same input gives the same output in every process, so that what was loaded is
    recognised when it comes back. No method but `dump`, `load`, `rest`, `system` and `from_neutral` imports the
    framework, and those import it when they are called.
    """

    name: str

    def version(self) -> str:
        """The installed version of what writes this format, "" if it has none. Stored with each message."""

    def recognises(self, message: object) -> bool:
        """Whether this is a message of this format; by the object's module or keys, cheap, importing nothing."""

    def dump(self, message: Any) -> Dumped:
        """A message as JSON. `InvalidMessageError`, naming the place, for one that JSON cannot hold."""

    def load(self, payloads: Sequence[str]) -> list[Any]:
        """The messages of these payloads, one each, validated one by one. `ValueError` if one cannot be loaded."""

    def parts(self, payload: str) -> Parts:
        """What tells this message from others. Pure."""

    def rest(self, message: Any, start: int) -> Any:
        """The same message without its first `start` parts."""

    def system(self, message: Any) -> Any | None:
        """The same message with its leading system prompts only, None if it has none."""

    def to_neutral(self, payload: str) -> list[Message]:
        """The neutral messages that this payload stands for, in order. Pure."""

    def from_neutral(self, messages: Sequence[Message]) -> Converted:
        """Messages of this format from neutral ones; see `convert` for what they have been through before."""


@cache
def _installed() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


@cache
def get_format(name: str) -> MessageFormat:
    """The format of that name. `UnknownFormatError` names the installed ones."""
    raise NotImplementedError


def recognise(message: object) -> MessageFormat:
    """The format of a message. `UnknownFormatError` if no installed format recognises it."""
    raise NotImplementedError


def neutral_messages(sources: Iterable[Source]) -> list[tuple[int, Message]]:
    """The neutral messages of stored ones, each with the index of the source it came from."""
    raise NotImplementedError


def convert(sources: Sequence[Source], target: str) -> Converted:
    """Stored messages of any formats as objects of one."""
    raise NotImplementedError

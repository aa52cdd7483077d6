"""Message formats: the protocol that each one keeps, and the registry that finds them.

Any two formats meet in the neutral message, which docs/message-format.md defines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from .errors import InvalidMessageError, UnknownFormatError
from .messages import Message

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "Converted",
    "Dumped",
    "Loss",
    "MessageFormat",
    "Parts",
    "Source",
    "dump_as",
    "get_format",
    "readable",
    "recognise",
    "usual_formats",
]

GROUP = "chat_history.formats"
USUAL = ("openai", "pydantic_ai")
"""Asked first whether a message is theirs; no other format is imported as long as they say yes."""


class Dumped(NamedTuple):
    """A message ready to be stored: the framework's own JSON (without a raw newline), its role, its text."""

    payload: str
    role: str
    """"system", "user", "assistant", "tool", or what the message says. "user" begins a turn: a message that answers
    tool calls is "tool", also where a user's words are beside the answers, and so is an application's own word about an
    answer of the model."""
    text: str
    """What a person would read of it; "" where there is nothing."""
    said: bool = False
    """Whether the payload is an object whose "content" is just this text, so that it need not be kept twice."""


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
        """Messages of this format from neutral ones, as `replaying.replayable` makes them."""


@cache
def _installed() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


@cache
def get_format(name: str) -> MessageFormat:
    """The format of that name. `UnknownFormatError` names the installed ones."""
    entry = _installed().get(name)
    if entry is None:
        raise UnknownFormatError(f"no format is named {name!r}; installed are: {', '.join(sorted(_installed()))}")
    try:
        return cast(MessageFormat, entry.load())
    except (ImportError, AttributeError) as error:
        raise UnknownFormatError(f"the format {name!r} ({entry.value}) cannot be imported: {error}") from error


_by_type: dict[type, MessageFormat] = {}


def recognise(message: object) -> MessageFormat:
    """The format of a message. `UnknownFormatError` if no installed format recognises it.

    `InvalidMessageError` for a dict that says no role.
    """
    found = _by_type.get(type(message))
    if found is not None:
        return found
    for form in usual_formats():
        if form.recognises(message):
            return _remembered(message, form)
    for form in _others():
        if form.recognises(message):
            return _remembered(message, form)
    if isinstance(message, dict):
        keys = ", ".join(map(repr, message)) or "none"
        raise InvalidMessageError(
            f"a message that is a dict needs a 'role' that is a str, as in {{'role': 'user', 'content': 'Hello!'}}; "
            f"this one has the keys: {keys}"
        )
    kind = type(message)
    hint = "; for several messages there are add_messages and save_messages" if kind in (list, tuple) else ""
    raise UnknownFormatError(
        f"{kind.__module__}.{kind.__qualname__} is not a message of any installed format "
        f"({', '.join(sorted(_installed()))}): give a dict such as {{'role': 'user', 'content': 'Hello!'}}, "
        f"or a message object of one of these frameworks{hint}"
    )


def dump_as(form: MessageFormat, message: Any) -> Dumped:
    """A message in a format that the caller names. `InvalidMessageError` if it is none of that format."""
    if form.recognises(message):
        return form.dump(message)
    # A dict may be a message of several formats, of which the one that stands first recognises it.
    try:
        if isinstance(message, dict):
            dumped = form.dump(message)
            if form.load([dumped.payload]) == [message]:
                return dumped
    except (TypeError, ValueError, LookupError, AttributeError):
        pass
    kind = type(message)
    raise InvalidMessageError(
        f"this {kind.__module__}.{kind.__qualname__} is not a message of the format {form.name!r}; "
        "leave format out to store it as what it is"
    )


def _remembered(message: object, form: MessageFormat) -> MessageFormat:
    if not isinstance(message, dict):
        _by_type[type(message)] = form
    return form


@cache
def usual_formats() -> tuple[MessageFormat, ...]:
    """The formats that are asked first, imported."""
    return tuple(map(get_format, USUAL))


def _others() -> Iterator[MessageFormat]:
    yield from (get_format(name) for name in sorted(_installed()) if name not in USUAL)


def readable(text: str) -> str:
    """Text as every store can hold it: NUL and lone surrogates become U+FFFD, and an enum its string."""
    if type(text) is not str:
        text = str.__str__(text)
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

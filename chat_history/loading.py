"""Stored messages as objects of a format: those of that format as they are, the others converted."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .backends.base import Record
from .errors import ConversionError, ConversionWarning, DamagedStoreError
from .formats import Loss, MessageFormat, Source
from .messages import Message, StoredMessage
from .replaying import neutral_messages, replayable

__all__ = ["DICTS", "as_dicts", "load", "load_each", "naming_damage", "report", "sources"]


def sources(records: Sequence[Record] | Sequence[StoredMessage]) -> list[Source]:
    """Records as conversions see them."""
    return [Source(record.message_id, record.format, record.payload, record.created_at) for record in records]


DICTS = "openai"
"""The format of what people add by hand, which comes back as the very dicts."""


@contextmanager
def naming_damage(chat_id: str, payloads: Iterable[tuple[int, str]]) -> Iterator[None]:
    """Turn the failure to parse a payload into an error that names the message.

    payloads: what is parsed, each with the position of its message; looked at when it has failed.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        for position, payload in payloads:
            try:
                json.loads(payload)
            except ValueError:
                raise DamagedStoreError(
                    f"message {position} of chat {chat_id[:80]!r} is damaged: its payload is not JSON ({error}); "
                    "nothing was changed; replace_message or delete_message mends it, or restore the store"
                ) from error
        raise


def as_dicts(records: Sequence[Record]) -> Iterator[Message]:
    """Records for people to look at: what was added as a dict is that dict, all else its neutral messages."""
    neutral: dict[int, list[Message]] = {}
    if any(record.format != DICTS for record in records):
        for index, message in neutral_messages(sources(records)):
            neutral.setdefault(index, []).append(message)
    for index, record in enumerate(records):
        if record.format == DICTS:
            yield json.loads(record.payload)
        else:
            yield from neutral.get(index, [])


def load(form: MessageFormat, records: Sequence[Record]) -> tuple[list[Any], list[Loss]]:
    """The messages of these records, in order, and what they could not carry.

    A payload of this very format that the installed release of its framework cannot load takes the way of the others,
    through the neutral message: it is never an error that hides the chat.
    """
    given = sources(records)
    native, losses = _native(form, given)
    neutral = _replayed(form, given) if len(native) < len(given) else {}
    messages: list[Any] = []
    foreign: list[Message] = []
    for index in range(len(given)):
        if index in native:
            messages += _converted(form, foreign, losses)
            messages.append(native[index])
        else:
            foreign += neutral.get(index, [])
    return [*messages, *_converted(form, foreign, losses)], losses


def load_each(form: MessageFormat, given: Sequence[Source]) -> tuple[list[list[Any]], list[Loss]]:
    """What each of these stored messages comes to, by itself: one message, none, or several; and what was lost.

    As `load`, which does not tell where a message comes from, and so may put neighbours together.
    """
    if all(source.format == form.name for source in given):
        try:
            return [[message] for message in form.load([source.payload for source in given])], []
        except ValueError:
            pass  # one by one, below
    native, losses = _native(form, given)
    neutral = _replayed(form, given)
    each = []
    for index in range(len(given)):
        if index in native:
            each.append([native[index]])
        else:
            messages, lost = form.from_neutral(neutral.get(index, []))
            losses += lost
            each.append(messages)
    return each, losses


def _native(form: MessageFormat, given: Sequence[Source]) -> tuple[dict[int, Any], list[Loss]]:
    """Those of the format itself, by their index, and those of them that the installed release cannot load."""
    native: dict[int, Any] = {}
    losses = []
    for index, source in enumerate(given):
        if source.format != form.name:
            continue
        try:
            native[index] = form.load([source.payload])[0]
        except ValueError as error:
            reason = f"the installed release of {form.name} cannot load it ({_first_line(error)}): converted instead"
            losses.append(Loss(source.message_id, "", reason))
    return native, losses


def _replayed(form: MessageFormat, given: Sequence[Source]) -> dict[int, list[Message]]:
    """The neutral messages to convert, by the index of the stored one that they belong to."""
    neutral: dict[int, list[Message]] = {}
    for index, message in replayable(given, form.name):
        neutral.setdefault(index, []).append(message)
    return neutral


def _converted(form: MessageFormat, waiting: list[Message], losses: list[Loss]) -> list[Any]:
    """Neighbours are converted together, because a format may hold several of them in one message."""
    if not waiting:
        return []
    converted = form.from_neutral(waiting)
    waiting.clear()
    losses += converted.losses
    return converted.messages


def report(losses: Sequence[Loss], *, target: str, strict: bool) -> None:
    """Warn once of all that was lost, each kind of it named once; with `strict` raise it instead, each loss named."""
    if not losses:
        return
    text = f"{len(losses)} of the parts stored could not be carried to {target}: "
    if strict:
        raise ConversionError(text + "; ".join(f"{_place(loss)}: {loss.reason}" for loss in losses))
    # Python keeps the text of each warning it has shown, so it must not grow with the chat.
    alike: dict[tuple[str, str], list[Loss]] = {}
    for loss in losses:
        alike.setdefault((loss.part, loss.reason), []).append(loss)
    named = (
        _place(first) + (f" and {len(others)} alike" if others else "") + f": {first.reason}"
        for first, *others in alike.values()
    )
    warnings.warn(text + "; ".join(named), ConversionWarning, stacklevel=4)


def _place(loss: Loss) -> str:
    return f"{loss.part or 'message'} of {loss.message}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

"""Message formats: the protocol each one keeps, the registry that finds them, and conversion between two of them.

Any two formats meet in the neutral message, which docs/message-format.md defines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
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
    "convert",
    "dump_as",
    "get_format",
    "neutral_messages",
    "readable",
    "recognise",
    "replayable",
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
        """Messages of this format from neutral ones; see `convert` for what they have been through before."""


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
    """Text as every store can hold it: NUL and lone surrogates become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def neutral_messages(sources: Iterable[Source]) -> list[tuple[int, Message]]:
    """The neutral messages of stored ones, each with the index of the source it came from.

    Each is self-contained: it has a `message_id` and a `created_at`, every tool call has an id (one that is missing
    is derived from the message's), and a tool result has the id and the name of the call that it answers. Calls and
    results are matched in order, first in, first out, because ids repeat from turn to turn.
    """
    messages = []
    waiting: list[tuple[str, str, str]] = []
    for index, source in enumerate(sources):
        given_out = 0
        neutral = get_format(source.format).to_neutral(source.payload)
        if "\\ud" in source.payload or "\\uD" in source.payload:
            neutral = _without_lone_surrogates(neutral)
        for message in neutral:
            message["message_id"] = source.message_id
            if "created_at" not in message:
                message["created_at"] = source.created_at.astimezone(UTC).isoformat()
            if calls := message.get("tool_calls"):
                known = set()
                for call in calls:
                    if not call["id"]:
                        call["id"] = _derived_id(source.message_id, given_out)
                        given_out += 1
                    known.add(call["id"])
                # An id that is used again can no longer be answered for the first call.
                waiting = [each for each in waiting if each[0] not in known]
                waiting += [(call["id"], call[call["type"]]["name"], call["type"]) for call in calls]
            elif message["role"] == "tool":
                _answer(message, waiting)
            messages.append((index, message))
    return messages


def _without_lone_surrogates(value: Any) -> Any:
    """The same with U+FFFD for halves of surrogate pairs, which most frameworks cannot write as JSON."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _without_lone_surrogates(each) for key, each in value.items()}
    return [_without_lone_surrogates(each) for each in value] if isinstance(value, list) else value


def _derived_id(message_id: str, number: int) -> str:
    return "call_" + blake2b(f"{message_id} {number}".encode(errors="surrogatepass"), digest_size=12).hexdigest()


def _answer(result: Message, waiting: list[tuple[str, str, str]]) -> None:
    """Match a tool result with the call that it answers."""
    if call_id := result.get("tool_call_id"):
        found = [call for call in waiting if call[0] == call_id]
    else:
        found = [call for call in waiting if call[1] == result.get("name")] or waiting
    if found:
        call = found[0]
        waiting.remove(call)
        result["tool_call_id"] = call[0]
        if not result.get("name"):
            result["name"] = call[1]
        if call[2] == "custom":
            result["answers"] = "custom"


INTERRUPTED = "The tool call was interrupted before it gave a result."


def replayable(sources: Sequence[Source], target: str) -> list[tuple[int, Message]]:
    """The neutral messages as a model can be given them, each with the index of the source it belongs to.

    Pieces of one answer that were stored as several messages are one message, which belongs to the first of them.
    Results stand directly after the calls that they answer. A call that was never answered gets a result with the
    outcome "interrupted", unless nothing follows it: the run may be resumed. A result that answers no call is marked
    `orphan`: every `from_neutral` leaves it out and reports it. Nothing is put where a message of the target itself
    stands, since that one is loaded as it is.
    """
    native = {index for index, source in enumerate(sources) if source.format == target}
    blocks: list[tuple[list[tuple[int, Message]], list[tuple[int, Message]]]] = [([], [])]
    for each in _put_together(neutral_messages(sources), native):
        if each[1]["role"] != "assistant":
            blocks[-1][1].append(each)
        elif blocks[-1][1]:
            blocks.append(([each], []))
        else:
            blocks[-1][0].append(each)
    replay: list[tuple[int, Message]] = []
    for number, (answers, others) in enumerate(blocks):
        following = blocks[number + 1][0][0][0] if number + 1 < len(blocks) else None
        replay += _repaired(answers, others, following, native)
    return replay


def _put_together(messages: list[tuple[int, Message]], native: set[int]) -> list[tuple[int, Message]]:
    """The messages with each run of pieces as one answer, except what is in the format of the target itself."""
    together: list[tuple[int, Message]] = []
    runs: list[list[Message]] = []
    goes_on = False
    for index, message in messages:
        is_piece = message.pop("piece", False) and index not in native
        if is_piece and goes_on:
            runs[-1].append(message)
        else:
            together.append((index, message))
            if is_piece:
                runs.append([message])
        goes_on = is_piece
    for run in runs:
        if len(run) > 1:
            _join(run)
    return together


PIECES = {"thinking": 0, "content": 1, "tool_calls": 2}
"""What an answer is made of, in the usual order."""


def _join(run: list[Message]) -> None:
    """Make the first of these answers the whole of them."""
    whole: dict[str, list[Any]] = {key: [] for key in PIECES}
    order: list[str] = []
    for message in run:
        own = {key: message.get(key) or [] for key in PIECES}
        if isinstance(message["content"], str):
            own["content"] = [{"type": "text", "text": message["content"]}]
        order += message.get("order") or [key for key in PIECES for _ in own[key]]
        for key in PIECES:
            whole[key] += own[key]
    first, content = run[0], whole.pop("content")
    only_text = len(content) == 1 and content[0].keys() == {"type", "text"}
    first["content"] = content[0]["text"] if only_text else content or None
    first.pop("order", None)
    first |= {key: items for key, items in whole.items() if items}
    if order != sorted(order, key=PIECES.__getitem__):
        first["order"] = order


def _repaired(
    answers: list[tuple[int, Message]], others: list[tuple[int, Message]], following: int | None, native: set[int]
) -> list[tuple[int, Message]]:
    """Answers of the assistant and what follows them: the results of their tool calls first, each of them once."""
    # A call that is followed by an answer without one is not one of several in parallel: it was over by then.
    done = max((place for place, (_, message) in enumerate(answers) if not message.get("tool_calls")), default=-1)
    waiting = [
        (place, index, message, call)
        for place, (index, message) in enumerate(answers)
        for call in message.get("tool_calls", ())
    ]
    between: dict[int, list[tuple[int, Message]]] = {}
    results: list[tuple[int, Message]] = []
    rest: list[tuple[int, Message]] = []
    for index, message in others:
        call_id = message.get("tool_call_id") if message["role"] == "tool" else None
        answered = next((place for place, call in enumerate(waiting) if call[3]["id"] == call_id), None)
        if answered is None:
            if message["role"] == "tool":
                message["orphan"] = True
            rest.append((index, message))
            continue
        place, called, *_ = waiting.pop(answered)
        if place < done and not {called, index} & native:
            between.setdefault(place, []).append((called, message))
            continue
        if rest and index not in native:  # it moves to the front, and with it to another source
            index = next((place for place in (answers[-1][0], rest[0][0]) if place not in native), index)
        results.append((index, message))
    goes_on = following is not None or not all(message.get("orphan") for _, message in rest)
    then = rest[0][0] if rest else following
    for place, index, message, call in waiting:
        if place < done and index not in native:
            between.setdefault(place, []).append((index, _interrupted(message, call)))
        elif goes_on:
            target = then if index in native and then is not None and then not in native else index
            results.append((target, _interrupted(message, call)))
    repaired = []
    for place, answer in enumerate(answers):
        repaired += [answer, *between.get(place, ())]
    return repaired + results + rest


def _interrupted(message: Message, call: dict[str, Any]) -> Message:
    kind: Message = {"answers": "custom"} if call["type"] == "custom" else {}
    return {
        **kind,
        "role": "tool",
        "tool_call_id": call["id"],
        "name": call[call["type"]]["name"],
        "content": INTERRUPTED,
        "outcome": "interrupted",
        "message_id": message["message_id"],
        "created_at": message["created_at"],
    }


def convert(sources: Sequence[Source], target: str) -> Converted:
    """Stored messages of any formats as objects of one, and what they could not carry. Deterministic."""
    return get_format(target).from_neutral([message for _, message in replayable(sources, target)])

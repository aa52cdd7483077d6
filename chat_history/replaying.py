"""Stored messages of any formats as neutral ones, and as a model can be given them: calls with their results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from hashlib import blake2b
from typing import Any

from .formats import Converted, Source, get_format
from .messages import Message

__all__ = ["INTERRUPTED", "convert", "neutral_messages", "replayable"]


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

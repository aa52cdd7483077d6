"""How things look: for people by rich, for scripts as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from chat_history.formats import Source
from chat_history.messages import Chat, Message, StoredMessage
from chat_history.replaying import neutral_messages

__all__ = [
    "chat_fields",
    "console",
    "note",
    "plain",
    "print_conversation",
    "print_json",
    "print_stored",
    "say",
    "table",
    "with_progress",
]

_STYLES = {"user": "bold green", "assistant": "bold cyan", "tool": "bold yellow"}
# What could move the cursor or change the terminal is shown as a picture of it.
_PICTURES = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
_TEXT = {code: picture for code, picture in _PICTURES.items() if code not in (9, 10)}
# JSON does not ask for these to be escaped, and terminals obey some of them (\x9b is \x1b[); they are only in strings.
_ESCAPES = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, wide: bool = False) -> Console:
    """Where to print for people. wide: nothing is shortened or folded for a reader that is a program."""
    made = _Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    if wide and not made.is_terminal:
        made.width = 10_000
    return made


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table without lines. right: the columns of numbers."""
    made = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in made.columns:
        column.overflow, column.justify = "fold", "right" if str(column.header) in right else "left"
    return made


def say(text: str) -> None:
    """Print lines for people."""
    console().print(text.translate(_TEXT))


def note(text: str) -> None:
    """Print a line for people that is no part of what was asked for."""
    typer.echo(plain(text), err=True)


def plain(text: str) -> str:
    """The text in one line that cannot change a terminal; every character stays where it is."""
    return text.translate(_PICTURES)


def print_json(fields: dict[str, Any]) -> None:
    """One JSON object in one line, in UTF-8."""
    _print_line(json.dumps(fields, ensure_ascii=False))


def chat_fields(chat: Chat) -> dict[str, Any]:
    """A chat as JSON."""
    fields = {name: getattr(chat, name) for name in Chat.__slots__}
    return fields | {name: fields[name].isoformat() for name in ("created_at", "updated_at")}


def print_stored(message: StoredMessage) -> None:
    """A message as one JSON object in one line."""
    fields = {name: getattr(message, name) for name in StoredMessage._fields if name != "payload"}
    fields["created_at"] = message.created_at.isoformat()
    # The payload as it was stored: parsed and written again it could be another one (1e2, 100).
    _print_line(f'{json.dumps(fields, ensure_ascii=False)[:-1]}, "payload": {message.payload}}}')


def _print_line(line: str) -> None:
    # Half of a surrogate pair, which UTF-8 cannot hold, is written as JSON escapes it: \ud83d.
    typer.echo(line.translate(_ESCAPES).encode(errors="backslashreplace"))


def with_progress(messages: Iterable[StoredMessage], total: int | None = None) -> Iterable[StoredMessage]:
    """What goes into a file shows nothing of itself: a bar on standard error does, if that is a terminal."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        return messages
    return track(messages, "messages", total=total, console=Console(stderr=True), transient=True)


def print_conversation(messages: Iterable[StoredMessage]) -> None:
    """Messages of any formats, for people."""
    out = console()
    # One message at a time, so that a chat of any length is shown: only the names of called tools are remembered.
    called: dict[str, str] = {}
    for stored in messages:
        source = Source(stored.message_id, stored.format, stored.payload, stored.created_at)
        for _, message in neutral_messages([source]):
            called |= {call["id"]: _function(call)[0] for call in message.get("tool_calls") or ()}
            name = message.get("name") or called.get(message.get("tool_call_id", ""), "")
            out.print(_shown(message, str(message["role"]), name))


def _shown(message: Message, role: str, name: str) -> Text:
    outcome = f" ({message['outcome']})" if "outcome" in message else ""
    text = Text(plain(f"{role} {name}".strip() + outcome), style=_STYLES.get(role, "bold"))
    text = Text.assemble(text, "\n")
    for style, line in _lines(message):
        text.append(f"{line.translate(_TEXT)}\n", style)
    return text


def _lines(message: Message) -> Iterator[tuple[str, str]]:
    """What a message says, with a style for each piece."""
    for thought in message.get("thinking") or ():
        yield "dim", str(thought.get("text") or "[thinking]")
    content = message.get("content") or ()
    for part in [{"text": content}] if isinstance(content, str) else content:
        said = part.get("text") or part.get("refusal") or part.get("transcript")
        yield "", said if isinstance(said, str) else f"[{part.get('type')} {part.get('name') or ''}]".replace(" ]", "]")
    for call in message.get("tool_calls") or ():
        name, arguments = _function(call)
        yield "yellow", f"→ {name}({arguments})"


def _function(call: dict[str, Any]) -> tuple[str, str]:
    function = call[call["type"]]
    return str(function["name"]), str(function.get("arguments") or function.get("input") or "")

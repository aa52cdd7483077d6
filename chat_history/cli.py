"""`chat-history`: look at a store from a shell, and see the library at work.

Exit codes: 0 for success (also when a reader such as `head` closes the pipe), 1 for an error of ours, in one plain line
on standard error, 2 for wrong usage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, track
from rich.table import Table
from rich.text import Text

from . import demo as conversation
from . import transfer
from .config import open_history
from .errors import ChatHistoryError, InvalidArgumentError
from .formats import Source, neutral_messages
from .history import ChatHistory
from .messages import Chat, Message, StoredMessage

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)

Url = Annotated[
    str | None,
    typer.Option(help="The store: a URL or a path. Without it: $CHAT_HISTORY_URL, chat_history.toml, the default."),
]
User = Annotated[str | None, typer.Option(help="Whose chats.")]
Tenant = Annotated[str | None, typer.Option(help="The tenant that the user belongs to.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts: one JSON object a line.")]

_STYLES = {"user": "bold green", "assistant": "bold cyan", "tool": "bold yellow"}
# What could move the cursor or change the terminal is shown as a picture of it.
_PICTURES = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
_TEXT = {code: picture for code, picture in _PICTURES.items() if code not in (9, 10)}


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("agent-chat-history"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Look at stored AI chat history."""


@app.command("list")
def list_chats(
    url: Url = None,
    user: User = None,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many chats.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="All chats.")] = False,
    as_json: Json = False,
) -> None:
    """List chats, newest activity first."""
    with _opened(url, user, tenant) as history:
        page = history.list_chats(limit=limit)
        chats = _all_chats(history) if every else page
        if as_json:
            for chat in chats:
                _print_json(_chat_fields(chat))
            return
        if not page:
            typer.echo(f"no chats in {history.location}", err=True)
            return
        table = Table("chat", "title", "messages", "last activity", box=None, pad_edge=False, header_style="bold")
        for column, justify in zip(table.columns, ("left", "left", "right", "left"), strict=True):
            column.overflow, column.justify = "fold", justify  # type: ignore[assignment]
        for chat in chats:
            when = chat.updated_at.astimezone().strftime("%Y-%m-%d %H:%M")
            table.add_row(_line(chat.chat_id), _line(chat.title), f"{chat.message_count:,}", when)
        _console(wide=True).print(table)
        if page.after and not every:
            typer.echo(f"these are the newest {limit}; --all lists all", err=True)


@app.command()
def show(
    chat_id: Annotated[str, typer.Argument(metavar="CHAT", help="The chat's id.")],
    url: Url = None,
    user: User = None,
    tenant: Tenant = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the newest so many messages.")] = None,
    as_json: Json = False,
) -> None:
    """Show a chat as a conversation."""
    with _opened(url, user, tenant) as history:
        chat = history.get_chat(chat_id)
        messages: Iterable[StoredMessage] = (
            history.iter_messages(chat_id) if last is None else history.get_messages(chat_id, limit=last)
        )
        messages = _with_progress(messages, min(chat.message_count, last or chat.message_count))
        if as_json:
            for message in messages:
                _print_stored(message)
            return
        _print_conversation(messages)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The file to write, as JSON Lines; - for standard output.")],
    url: Url = None,
) -> None:
    """Write every chat of every user to a file."""
    with _opened(url) as history, _bar() as progress:
        if str(file) == "-":
            moved = transfer.export(history, typer.get_text_stream("stdout", encoding="utf-8"), progress=progress)
        else:
            with _file(file, "x") as out:
                moved = transfer.export(history, out, progress=progress)
    _tell(moved, f"written to {file}")


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="A file that export wrote (- for standard input), or a store of another library.")
    ],
    kind: Annotated[
        str | None, typer.Option("--from", metavar="KIND", help="What the source is of; recognised unless given.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="Which table, where a database has several of the kind.")] = None,
    skip: Annotated[bool, typer.Option("--skip", help="Leave out messages that cannot be read.")] = False,
    url: Url = None,
    user: Annotated[str | None, typer.Option(help="Whose the chats of another library's store become.")] = None,
    tenant: Tenant = None,
) -> None:
    """Read every chat of a file or another library's store. What has arrived before is not read again."""
    from chat_history_adapters.importers import import_from

    with _opened(url, user, tenant) as history, _bar() as progress:
        if source == "-":
            moved = transfer.import_from(typer.get_text_stream("stdin", encoding="utf-8"), history, progress=progress)
        else:
            moved = import_from(source, history, kind=kind, table=table, skip=skip, progress=progress)
        _tell(moved, f"in {history.location}")


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="The store to copy: a URL or a path.")],
    target: Annotated[str, typer.Argument(help="The store to copy into.")],
) -> None:
    """Copy every chat of every user into another store. A copy that was interrupted is gone on with."""
    with _opened(source) as one, _opened(target) as other, _bar() as progress:
        _tell(transfer.copy(one, other, progress=progress), f"in {other.location}")


@app.command()
def path(url: Url = None, as_json: Json = False) -> None:
    """Print where the data is."""
    with _opened(url) as history:
        if as_json:
            _print_json({"location": history.location})
        else:
            typer.echo(history.location)


@app.command()
def demo(
    url: Annotated[str | None, typer.Option(help="The store. Without it: a file in a new temporary directory.")] = None,
) -> None:
    """See an agent go on with a conversation that another process stored. Offline: the model is a script."""
    from secrets import token_hex
    from shlex import quote
    from tempfile import mkdtemp

    again = "URL" if url else ""
    if not url:
        url = os.path.join(mkdtemp(prefix="chat-history-demo-"), "chats.db")
        again = quote(url)
    chat_id = f"demo-{token_hex(4)}"
    # By the environment: arguments of a process are for all to see, and a URL may hold a password.
    environment = os.environ | {"CHAT_HISTORY_URL": url}
    command = [sys.executable, "-m", "chat_history.cli", "demo-first", chat_id]
    with (
        _console().status("The first process asks, and saves the conversation ..."),
        subprocess.Popen(command, env=environment) as first,  # noqa: S603
    ):
        if first.wait():
            raise typer.Exit(1)
    with _opened(url) as history:
        _say(f"Process {first.pid} began a conversation, saved it, and ended.")
        with _console().status("The second process loads it, and asks on ..."):
            loaded = conversation.go_on(history, chat_id)
        _say(f"Process {os.getpid()} loaded its {loaded} messages, went on with them, and saved only what was new.\n")
        _print_conversation(history.iter_messages(chat_id))
        _say(f"{history.get_message_count(chat_id)} messages are in {history.location}; look at them again with:")
        _say(f"  chat-history show {chat_id} --url {again}\n")
        _say("The same on Postgres takes one line of configuration:")
        _say("  chat-history demo --url postgresql://user:password@host/database")
        _say('and in your program: history = open_history("postgresql://user:password@host/database")')


@app.command("demo-first", hidden=True)
def demo_first(chat_id: str) -> None:
    """The first process of the demo."""
    with _opened(None) as history:
        conversation.begin(history, chat_id)


# Opening, and how it ends.


@contextmanager
def _opened(url: str | None, user: str | None = None, tenant: str | None = None) -> Iterator[ChatHistory]:
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _complain("warning", message)
        try:
            with open_history(url, user_id=user, tenant_id=tenant) as history:
                yield history
        except BrokenPipeError:
            # Whoever read this has enough. What is buffered must not fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except ChatHistoryError as error:
            _complain("error", error)
            raise typer.Exit(1) from None


def _complain(kind: str, problem: object) -> None:
    typer.echo(f"{kind}: {_line(' '.join(str(problem).split()))}", err=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(*, wide: bool = False) -> Console:
    console = _Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    if wide and not console.is_terminal:
        # Nothing is shortened or folded for a reader that is a program.
        console.width = 10_000
    return console


@contextmanager
def _file(path: Path, mode: Literal["r", "x"]) -> Iterator[TextIO]:
    """A file of an export. One that is there is not overwritten, and one that failed is not left."""
    try:
        file = path.open(mode, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InvalidArgumentError(f"{path}: {error.strerror}") from error
    with file:
        try:
            yield file
        except BaseException:
            if mode == "x":
                path.unlink()
            raise


@contextmanager
def _bar() -> Iterator[transfer.Progress]:
    with Progress(
        TextColumn("{task.fields[chats]} chats"),
        BarColumn(pulse_style="bar.pulse"),
        TextColumn("{task.completed:,.0f} messages"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("", total=None, chats=0)
        yield lambda moved: progress.update(task, completed=moved.messages, chats=moved.chats)


def _tell(moved: transfer.Moved, where: str) -> None:
    typer.echo(f"{moved.chats:,} chats with {moved.messages:,} messages are {where}", err=True)


# What is printed.


def _line(text: str) -> str:
    return text.translate(_PICTURES)


def _print_json(fields: dict[str, Any]) -> None:
    typer.echo(json.dumps(fields, ensure_ascii=False).encode())


def _chat_fields(chat: Chat) -> dict[str, Any]:
    fields = {name: getattr(chat, name) for name in Chat.__slots__}
    return fields | {name: fields[name].isoformat() for name in ("created_at", "updated_at")}


def _print_stored(message: StoredMessage) -> None:
    fields = {name: getattr(message, name) for name in StoredMessage._fields if name != "payload"}
    fields["created_at"] = message.created_at.isoformat()
    # The payload as it was stored: parsed and written again it could be another one (1e2, 100).
    typer.echo(f'{json.dumps(fields, ensure_ascii=False)[:-1]}, "payload": {message.payload}}}'.encode())


def _all_chats(history: ChatHistory) -> Iterator[Chat]:
    after = None
    while True:
        page = history.list_chats(limit=200, after=after)
        yield from page
        after = page.after
        if after is None:
            return


def _with_progress(messages: Iterable[StoredMessage], total: int) -> Iterable[StoredMessage]:
    """What goes into a file shows nothing of itself: a bar on standard error does, if that is a terminal."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        return messages
    return track(messages, "messages", total=total, console=Console(stderr=True), transient=True)


def _print_conversation(messages: Iterable[StoredMessage]) -> None:
    console = _console()
    # One message at a time, so that a chat of any length is shown: only the names of called tools are remembered.
    called: dict[str, str] = {}
    for stored in messages:
        source = Source(stored.message_id, stored.format, stored.payload, stored.created_at)
        for _, message in neutral_messages([source]):
            called |= {call["id"]: _function(call)[0] for call in message.get("tool_calls") or ()}
            name = message.get("name") or called.get(message.get("tool_call_id", ""), "")
            console.print(_shown(message, str(message["role"]), name))


def _shown(message: Message, role: str, name: str) -> Text:
    outcome = f" ({message['outcome']})" if "outcome" in message else ""
    text = Text(_line(f"{role} {name}".strip() + outcome), style=_STYLES.get(role, "bold"))
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


def _say(text: str) -> None:
    _console().print(text)


if __name__ == "__main__":
    app()

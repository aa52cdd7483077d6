"""`export`, `import`, `copy`: chats from one store to another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from chat_history import transfer
from chat_history.errors import InvalidArgumentError

from .opening import Json, Url, opened
from .printing import print_json

__all__ = ["copy", "export", "import_"]


def export(
    file: Annotated[Path, typer.Argument(help="The file to write, as JSON Lines; - for standard output.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Write every chat of every user to a file."""
    if str(file) == "-" and as_json:
        raise typer.BadParameter("--json would go to standard output, where the export goes; name a file")
    with opened(url) as history, _bar() as progress:
        if str(file) == "-":
            moved = transfer.export(history, typer.get_text_stream("stdout", encoding="utf-8"), progress=progress)
        else:
            with _file(file, "x") as out:
                moved = transfer.export(history, out, progress=progress)
    _tell(moved, f"written to {file}", str(file), as_json=as_json)


def import_(
    file: Annotated[Path, typer.Argument(help="A file that export wrote; - for standard input.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Read every chat of an exported file into a store. What has arrived before is not read again."""
    with opened(url) as history, _bar() as progress:
        if str(file) == "-":
            moved = transfer.import_from(typer.get_text_stream("stdin", encoding="utf-8"), history, progress=progress)
        else:
            with _file(file, "r") as given:
                moved = transfer.import_from(given, history, progress=progress)
        _tell(moved, f"in {history.location}", history.location, as_json=as_json)


def copy(
    source: Annotated[str, typer.Argument(help="The store to copy: a URL or a path.")],
    target: Annotated[str, typer.Argument(help="The store to copy into.")],
    as_json: Json = False,
) -> None:
    """Copy every chat of every user into another store. A copy that was interrupted is gone on with."""
    with opened(source) as one, opened(target) as other, _bar() as progress:
        moved = transfer.copy(one, other, progress=progress)
        _tell(moved, f"in {other.location}", other.location, as_json=as_json)


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


def _tell(moved: transfer.Moved, where: str, location: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"chats": moved.chats, "messages": moved.messages, "location": location})
    else:
        typer.echo(f"{moved.chats:,} chats with {moved.messages:,} messages are {where}", err=True)

"""`export`, `import`, `copy`: chats from one store to another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from chat_history import transfer
from chat_history.errors import InvalidArgumentError

from .opening import Json, Tenant, Url, opened
from .printing import note, print_json

__all__ = ["copy", "export", "import_"]


def export(
    file: Annotated[Path, typer.Argument(help="The file to write, as JSON Lines; - for standard output.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Write every chat of every user to a file."""
    if str(file) == "-" and as_json:
        raise typer.BadParameter("--json would go to standard output, where the export goes; name a file")
    with opened(url, must_exist=True) as history, _bar() as progress:
        if str(file) == "-":
            moved = transfer.export(history, typer.get_text_stream("stdout", encoding="utf-8"), progress=progress)
        else:
            with _new_file(file) as out:
                moved = transfer.export(history, out, progress=progress)
    _tell(moved, f"written to {file}", str(file), as_json=as_json)


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
    user: Annotated[
        str | None, typer.Option(help="Whose the chats of another library's store become, or those of a file are.")
    ] = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Read every chat of a file or another library's store. What has arrived before is not read again."""
    from chat_history_adapters.importers import import_from

    with opened(url) as history, _bar() as progress:
        if user is not None or tenant is not None:
            history = history.for_user(history.user_id if user is None else user, tenant_id=tenant)
        if source == "-":
            moved = transfer.import_from(typer.get_text_stream("stdin", encoding="utf-8"), history, progress=progress)
        else:
            moved = import_from(source, history, kind=kind, table=table, skip=skip, progress=progress)
        _tell(moved, f"in {history.location}", history.location, as_json=as_json)


def copy(
    source: Annotated[str, typer.Argument(help="The store to copy: a URL or a path.")],
    target: Annotated[str, typer.Argument(help="The store to copy into.")],
    as_json: Json = False,
) -> None:
    """Copy every chat of every user into another store. A copy that was interrupted is gone on with."""
    with opened(source, must_exist=True) as one, opened(target) as other, _bar() as progress:
        moved = transfer.copy(one, other, progress=progress)
        _tell(moved, f"in {other.location}", other.location, as_json=as_json)


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A file to export to. One that is there is not overwritten, and one that failed is not left."""
    try:
        file = path.open("x", encoding="utf-8", newline="\n")
    except OSError as error:
        raise InvalidArgumentError(f"{path}: {error.strerror}") from error
    with file:
        try:
            yield file
        except BaseException:
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
        note(f"{moved.chats:,} chats with {moved.messages:,} messages are {where}")

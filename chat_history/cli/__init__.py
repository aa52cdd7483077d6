"""`chat-history`: look at a store from a shell, keep it in order, and see the library at work.

Exit codes: 0 for success (also when a reader such as `head` closes the pipe), 1 for an error of ours, in one plain line
on standard error, and for an error that `doctor` found, 2 for wrong usage.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from . import counting, demo, examining, looking, migrating, moving, purging

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)


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
    """Look at stored AI chat history, and keep it in order."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Who closed one has no use for it. Its number must be taken before a store is opened, which would get it.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 until the process ends


app.command("list")(looking.list_chats)
app.command()(looking.show)
app.command()(looking.search)
app.command()(counting.stats)
app.command()(looking.path)
app.command()(moving.export)
app.command("import")(moving.import_)
app.command()(moving.copy)
app.command()(migrating.migrate)
app.command()(purging.purge)
app.command()(examining.doctor)
app.command()(demo.demo)
app.command("demo-first", hidden=True)(demo.demo_first)

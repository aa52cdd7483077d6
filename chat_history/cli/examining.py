"""`doctor`: what is wrong with a store, and how to mend it."""

from __future__ import annotations

import typer
from rich.text import Text

from chat_history.doctor import Level, examine

from .opening import Json, Url, told
from .printing import console, plain, print_json

__all__ = ["doctor"]

STYLES = {Level.OK: "green", Level.WARNING: "bold yellow", Level.ERROR: "bold red"}


def doctor(url: Url = None, as_json: Json = False) -> None:
    """Say what is wrong with a store, and how to mend it. Changes nothing, and looks at what cannot be opened too."""
    is_bad = False
    with told():
        for level, check, what, mend in examine(url):
            is_bad = is_bad or level is Level.ERROR
            if as_json:
                print_json({"level": level.value, "check": check, "what": what, "mend": mend})
                continue
            text = Text.assemble((f"{level.value:8}", STYLES[level]), plain(f"{check}: {what}"))
            console().print(Text.assemble(text, f"\n        to mend it: {plain(mend)}") if mend else text)
    if is_bad:
        raise typer.Exit(1)

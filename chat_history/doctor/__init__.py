"""What is wrong with a store, and how to mend it. Nothing is ever changed by looking."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from chat_history.config import Choice, choose
from chat_history.errors import ChatHistoryError

from .findings import Finding, Level, refused

__all__ = ["Finding", "Level", "examine"]


def examine(config: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> Iterator[Finding]:
    """Look at the store that `open_history` would open, also where it would refuse to, and yield what is found.

    Findings come as they are found; what is in order is one too, of level "ok". The whole store is read, in memory that
    the longest chat bounds. Errors are findings, except the `ConfigError` of a configuration that names no store.
    """
    choice = choose(config)
    try:
        yield from _examined(choice)
    except ChatHistoryError as reason:
        yield refused(reason)


def _examined(choice: Choice) -> Iterator[Finding]:
    from chat_history.tables import Tables

    tables = Tables.of(choice)
    if tables is not None and tables.dialect == "postgres":
        from .postgres import examine_postgres

        return examine_postgres(choice, tables)
    if tables is not None:
        from .sqlite import examine_sqlite

        return examine_sqlite(choice, tables)
    if choice.backend.name == "json":
        from .json_file import examine_json

        return examine_json(choice)
    from .chats import examine_opened

    return examine_opened(choice)

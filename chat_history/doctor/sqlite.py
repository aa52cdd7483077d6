"""A SQLite file: whether it is whole, where it is, and whether its tables are up to date."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from chat_history.backends.sqlite import SQLiteBackend
from chat_history.backends.sqlite_file import SHARED_FILE_SYSTEMS, file_system
from chat_history.config import Choice
from chat_history.tables import Tables

from .chats import examine_chats
from .files import examine_file
from .findings import Finding, error, fine, warning
from .plans import examine_plan

__all__ = ["examine_sqlite"]

CHECK = "PRAGMA quick_check(5)"


def examine_sqlite(choice: Choice, tables: Tables) -> Iterator[Finding]:
    """Every check of a SQLite file."""
    path = tables.location
    if not os.path.exists(path):
        yield fine("file", f"there is no {path} yet; the first opening makes it")
        return
    if os.path.isdir(path):
        yield error("file", f"{path} is a folder", "name a file in it")
        return
    yield from examine_file(path)
    yield _place(path)
    problems = tables.visit(_checked, read_only=True)
    for problem in problems:
        yield error("damage", f"{path}: {problem}", "restore it from a copy, or try `sqlite3 FILE .recover`")
    if not problems:
        yield fine("damage", f"SQLite finds {path} whole")
    plan = tables.plan()
    yield from examine_plan(plan, path)
    if plan.applied and not plan.up:
        with closing(SQLiteBackend(**choice.options, read_only=True)) as backend:
            yield from examine_chats(backend)


def _place(path: str) -> Finding:
    kind = file_system(path)
    if kind in SHARED_FILE_SYSTEMS:
        return warning(
            "place",
            f"{path} is on a network file system ({kind}), where SQLite is only as safe as the locks there",
            "move it to a local folder, or use Postgres",
        )
    return fine("place", f"{path} is on a local file system{f' ({kind})' if kind else ''}")


def _checked(connection: Any, **where: Any) -> list[str]:
    return [line for (line,) in connection.execute(CHECK).fetchall() if line != "ok"]

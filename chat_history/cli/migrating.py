"""`migrate`: the tables of a database, brought to a version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from chat_history.config import Choice, choose
from chat_history.errors import InvalidArgumentError
from chat_history.migrations.runner import Step

from .opening import Json, Url, told
from .printing import print_json, say

__all__ = ["migrate"]


def migrate(
    url: Url = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="The last step that there shall be, such as 001 or ext:002; 0 for none."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Take steps back, and what is stored in what they made.")] = False,
    as_json: Json = False,
) -> None:
    """Bring the tables of SQLite or Postgres up to date, or to the version that --to names, forward or back."""
    from chat_history.tables import Tables  # knows the drivers of all databases, which takes a while to import

    with told():
        choice = choose(url)
        tables = Tables.of(choice)
        if tables is None:
            _no_tables(choice, to, as_json=as_json)
            return
        plan = tables.plan(to)
        if plan.down and not yes and not dry_run:
            raise InvalidArgumentError(
                f"this takes back {_named(plan.down)}, and destroys all that is stored in what they made"
                f"{', which is every chat' if '001' in {step.version for step in plan.down} else ''}; "
                "nothing was changed: --yes does it, --dry-run only shows it"
            )
        going = [(step, "down") for step in plan.down] + [(step, "up") for step in plan.up]
        if going and not dry_run:
            went = tables.migrate(to)
            going = [(step, "down" if step in plan.down else "up") for step in went]
            plan = tables.plan(to)
        if as_json:
            steps = [{"version": step.version, "name": step.name, "direction": way} for step, way in going]
            applied = [{"version": step.version, "name": step.name} for step in plan.applied]
            print_json({"location": tables.location, "dry_run": dry_run, "steps": steps, "applied": applied})
            return
        words = {"up": "would run", "down": "would take back"} if dry_run else {"up": "ran", "down": "took back"}
        for step, way in going:
            say(f"{words[way]} {step.version} {step.name}")
        say(f"{tables.location} {'has ' + _named(plan.applied) if plan.applied else 'has no tables'}")


def _no_tables(choice: Choice, to: str | None, *, as_json: bool) -> None:
    kinds = {"json": "a JSON file", "sqlite": "a history in memory"}
    name = kinds.get(choice.backend.name, f"a store of the backend {choice.backend.name!r}")
    if to is not None:
        raise InvalidArgumentError(f"{name} has no tables that could be brought to version {to}")
    if as_json:
        print_json({"location": None, "dry_run": False, "steps": [], "applied": []})
    else:
        say(f"{name} has no tables: there is nothing to migrate")


def _named(some: Iterable[Step]) -> str:
    return ", ".join(f"{step.version} {step.name}" for step in some)

"""Whether tables are those of this release."""

from __future__ import annotations

from collections.abc import Iterator

from chat_history.migrations.runner import Plan

from .findings import Finding, fine, warning

__all__ = ["examine_plan"]


def examine_plan(plan: Plan, place: str) -> Iterator[Finding]:
    """What has run, and what has not."""
    names = ", ".join(f"{step.version} {step.name}" for step in plan.up)
    if not plan.applied:
        yield fine("tables", f"{place} has no tables yet; the first opening makes them")
    elif plan.up:
        yield warning(
            "tables",
            f"{place} is of an older release: {names} {'have' if len(plan.up) > 1 else 'has'} not run",
            "chat-history migrate, or the next opening, brings it up to date; look again then, to see the chats too",
        )
    else:
        yield fine("tables", f"{place} is up to date, at version {plan.applied[-1].version}")

"""`purge`: what nobody has touched for long, removed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Annotated

import typer

from chat_history.arguments import checked_moment
from chat_history.errors import InvalidArgumentError
from chat_history.history import ChatHistory
from chat_history.limits import prompts
from chat_history.messages import Deleted, MessageStatus

from .looking import all_chats
from .opening import Everybody, Json, Tenant, Url, User, opened, owners, told
from .printing import print_json, say

__all__ = ["moment", "purge"]

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Status(StrEnum):
    """Messages that are not active: only those are taken out of a chat."""

    ARCHIVED = "archived"
    SUPERSEDED = "superseded"


def moment(text: str) -> datetime:
    """The time so long before now ("90d", "12h", "30m", "2w"), or that of an ISO date or time, in UTC unless said."""
    try:
        if found := re.fullmatch(r"([0-9]{1,6})([mhdw])", text):
            return datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is neither a duration (90d, 12h, 30m, 2w) nor an ISO date or time (2026-01-31)"
        ) from None


def purge(
    older_than: Annotated[
        datetime,
        typer.Option(parser=moment, metavar="AGE", help="90d, 12h, 30m or 2w ago, or an ISO date or time (in UTC)."),
    ],
    url: Url = None,
    status: Annotated[
        Status | None, typer.Option(help="Only messages of this status; without it whole chats that nobody wrote to.")
    ] = None,
    user: User = None,
    tenant: Tenant = None,
    everybody: Everybody = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; it cannot be undone.")] = False,
    as_json: Json = False,
) -> None:
    """Remove chats that nobody has written to for long, or old archived or superseded messages, for good."""
    with told():
        if not yes and not dry_run:
            raise InvalidArgumentError("nothing was removed: --yes removes it for good, --dry-run only counts it")
    with opened(url, user, tenant, must_exist=True) as history:
        named = None if status is None else MessageStatus(status)
        chats = messages = 0
        for owner in owners(history, everybody=everybody, user=user, tenant=tenant):
            gone = _counted(owner, older_than, status) if dry_run else owner.purge(older_than, status=named)
            chats, messages = chats + gone.chats, messages + gone.messages
            if as_json and (gone.messages or gone.chats or not everybody):
                times = {"older_than": older_than.isoformat(), "deleted_at": gone.deleted_at.isoformat()}
                whose = {"user_id": gone.user_id, "tenant_id": gone.tenant_id}
                print_json(whose | {"chats": gone.chats, "messages": gone.messages, "dry_run": dry_run} | times)
        if not as_json:
            did = "would be removed" if dry_run else "were removed"
            say(f"{chats:,} chats and {messages:,} messages {did} from {history.location}")


def _counted(owner: ChatHistory, before: datetime, status: Status | None) -> Deleted:
    """What `ChatHistory.purge` would remove now."""
    before = checked_moment(before, "older_than")
    chats = messages = 0
    for chat in all_chats(owner):
        if status is not None:
            some = partial(owner.iter_messages, chat.chat_id, status=status.value)
            lead = prompts((each.format, each.payload) for each in some()) if status == Status.ARCHIVED else 0
            messages += sum(message.created_at < before for message in islice(some(), lead, None))
        elif chat.updated_at < before:
            chats += 1
            messages += owner.get_message_count(chat.chat_id, status=None)
    return Deleted(chats, messages, datetime.now(UTC), owner.user_id, owner.tenant_id)

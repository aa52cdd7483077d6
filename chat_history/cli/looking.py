"""`list`, `show`, `search`, `path`: what a store holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from chat_history.history import ChatHistory
from chat_history.messages import Chat, MessageStatus, StoredMessage

from .opening import Everybody, Json, Tenant, Url, User, opened, owners
from .printing import (
    chat_fields,
    console,
    note,
    plain,
    print_conversation,
    print_json,
    print_stored,
    table,
    with_progress,
)

__all__ = ["all_chats", "list_chats", "path", "search", "show"]


class Status(StrEnum):
    """Which messages of a chat."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    SUPERSEDED = "superseded"
    ANY = "any"


def list_chats(
    url: Url = None,
    user: User = None,
    tenant: Tenant = None,
    everybody: Everybody = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many chats of each owner.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="All chats.")] = False,
    as_json: Json = False,
) -> None:
    """List chats, newest activity first; with --all-users owner by owner."""
    with opened(url, user, tenant, must_exist=True) as history:
        rows = table("chat", "title", "messages", "last activity", *["user", "tenant"] * everybody, right=["messages"])
        more = False
        for owner in owners(history, everybody=everybody, user=user, tenant=tenant):
            page = owner.list_chats(limit=limit)
            more = more or page.after is not None
            for chat in all_chats(owner) if every else page:
                if as_json:
                    print_json(chat_fields(chat))
                    continue
                when = chat.updated_at.astimezone().strftime("%Y-%m-%d %H:%M")
                whose = [chat.user_id, chat.tenant_id] * everybody
                rows.add_row(
                    plain(chat.chat_id), plain(chat.title), f"{chat.message_count:,}", when, *map(plain, whose)
                )
        if as_json:
            return
        if not rows.row_count:
            note(f"no chats in {history.location}")
            return
        console(wide=True).print(rows)
        if more and not every:
            note(f"these are the newest {limit}; --all lists all")


def show(
    chat_id: Annotated[str, typer.Argument(metavar="CHAT", help="The chat's id.")],
    url: Url = None,
    user: User = None,
    tenant: Tenant = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the newest so many messages.")] = None,
    status: Annotated[Status, typer.Option(help="Which messages; any is those of every branch.")] = Status.ACTIVE,
    as_json: Json = False,
) -> None:
    """Show a chat as a conversation."""
    with opened(url, user, tenant, must_exist=True) as history:
        chat = history.get_chat(chat_id)
        wanted = None if status is Status.ANY else MessageStatus(status)
        messages: Iterable[StoredMessage] = (
            history.iter_messages(chat_id, status=wanted)
            if last is None
            else history.get_messages(chat_id, limit=last, status=wanted)
        )
        if wanted is MessageStatus.ACTIVE:
            messages = with_progress(messages, min(chat.message_count, last or chat.message_count))
        if as_json:
            for message in messages:
                print_stored(message)
            return
        print_conversation(messages)


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    url: Url = None,
    chat: Annotated[str | None, typer.Option(help="Only in the chat of this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many hits.")] = 20,
    user: User = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Find what was said, or what a chat is called."""
    with opened(url, user, tenant, must_exist=True) as history:
        hits = history.search(query, chat, limit=limit)
        for hit in hits:
            if as_json:
                print_json(hit._asdict() | {"created_at": hit.created_at.isoformat()})
                continue
            when = f"{hit.created_at.astimezone():%Y-%m-%d %H:%M}"
            found = Text(plain(f"{hit.chat_id} {when} {hit.role or 'title'}"), style="bold")
            snippet = Text(plain(hit.snippet))
            for start, end in hit.marks:
                snippet.stylize("bold yellow", start, end)
            console().print(Text.assemble(found, "\n", snippet, "\n"))
        if not hits and not as_json:
            note(f"nothing found in {history.location}")


def path(url: Url = None, as_json: Json = False) -> None:
    """Print where the data is."""
    with opened(url) as history:
        if as_json:
            print_json({"location": history.location})
        else:
            typer.echo(plain(history.location))


def all_chats(history: ChatHistory) -> Iterator[Chat]:
    """Every chat of an owner, newest activity first, page by page."""
    after = None
    while True:
        page = history.list_chats(limit=200, after=after)
        yield from page
        after = page.after
        if after is None:
            return

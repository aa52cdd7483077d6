"""The options that commands share, the store they name, and how a command ends."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Annotated

import typer

from chat_history.config import choose, open_history
from chat_history.errors import ChatHistoryError, InvalidArgumentError
from chat_history.history import ChatHistory

from .printing import note

__all__ = ["Everybody", "Json", "Tenant", "Url", "User", "every_owner", "opened", "owners", "told"]

Url = Annotated[
    str | None,
    typer.Option(help="The store: a URL or a path. Without it: $CHAT_HISTORY_URL, chat_history.toml, the default."),
]
User = Annotated[str | None, typer.Option(help="Whose chats.")]
Tenant = Annotated[str | None, typer.Option(help="The tenant that the user belongs to.")]
Everybody = Annotated[bool, typer.Option("--all-users", help="The chats of every user of every tenant.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON, see docs/command.md.")]


@contextmanager
def opened(
    url: str | None, user: str | None = None, tenant: str | None = None, *, must_exist: bool = False
) -> Iterator[ChatHistory]:
    """The store, and `told`. must_exist: where a mistyped name would look like an empty store."""
    with told():
        if must_exist:
            options = choose(url).options
            path = options.get("path")
            if isinstance(path, str | os.PathLike) and path != ":memory:" and not os.path.exists(path):
                raise InvalidArgumentError(
                    f"there is no store {os.fspath(path)!r}: nothing was stored there yet, or another name is meant"
                )
        with open_history(url, user_id=user, tenant_id=tenant) as history:
            yield history


@contextmanager
def told() -> Iterator[None]:
    """Tell a person of errors and warnings of ours, in one plain line each."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")  # rather than fail at what a terminal cannot show
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _complain("warning", message)
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read this has enough. What is buffered must not fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except ChatHistoryError as error:
            _complain("error", error)
            raise typer.Exit(1) from None
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _complain("error", f"{error.filename or 'the output could not be written'}: {error.strerror or error}")
            raise typer.Exit(1) from None


def _complain(kind: str, problem: object) -> None:
    note(f"{kind}: {' '.join(str(problem).split())}")


def owners(history: ChatHistory, *, everybody: bool, user: str | None, tenant: str | None) -> Iterator[ChatHistory]:
    """The history itself, or with `--all-users` a view for each owner, in order of tenant and user."""
    if not everybody:
        yield history
        return
    if user is not None or tenant is not None:
        raise typer.BadParameter("--all-users and --user or --tenant exclude each other")
    yield from every_owner(history)


def every_owner(history: ChatHistory) -> Iterator[ChatHistory]:
    """A view for everybody who has a chat, in order of tenant and user."""
    for owner in history._backend().owners():
        yield history.for_user(owner.user_id, tenant_id=owner.tenant_id)

"""`demo`: two processes, one conversation."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from chat_history import demo as conversation

from .opening import opened
from .printing import console, print_conversation, say

__all__ = ["demo", "demo_first"]


def demo(
    url: Annotated[str | None, typer.Option(help="The store. Without it: a file in a new temporary directory.")] = None,
) -> None:
    """See an agent go on with a conversation that another process stored. Offline: the model is a script."""
    from secrets import token_hex
    from shlex import quote
    from tempfile import mkdtemp

    again = "URL" if url else ""
    if not url:
        url = os.path.join(mkdtemp(prefix="chat-history-demo-"), "chats.db")
        again = quote(url)
    chat_id = f"demo-{token_hex(4)}"
    # By the environment: arguments of a process are for all to see, and a URL may hold a password.
    environment = os.environ | {"CHAT_HISTORY_URL": url}
    command = [sys.executable, "-m", "chat_history.cli", "demo-first", chat_id]
    with (
        console().status("The first process asks, and saves the conversation ..."),
        subprocess.Popen(command, env=environment) as first,  # noqa: S603
    ):
        if first.wait():
            raise typer.Exit(1)
    with opened(url) as history:
        say(f"Process {first.pid} began a conversation, saved it, and ended.")
        with console().status("The second process loads it, and asks on ..."):
            loaded = conversation.go_on(history, chat_id)
        say(f"Process {os.getpid()} loaded its {loaded} messages, went on with them, and saved only what was new.\n")
        print_conversation(history.iter_messages(chat_id))
        say(f"{history.get_message_count(chat_id)} messages are in {history.location}; look at them again with:")
        say(f"  chat-history show {chat_id} --url {again}\n")
        say("The same on Postgres takes one line of configuration:")
        say("  chat-history demo --url postgresql://user:password@host/database")
        say('and in your program: history = open_history("postgresql://user:password@host/database")')


def demo_first(chat_id: str) -> None:
    """The first process of the demo."""
    with opened(None) as history:
        conversation.begin(history, chat_id)

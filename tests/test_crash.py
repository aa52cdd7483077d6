"""Processes that are killed at random moments: what they acknowledged is there, and the store opens without help."""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from stores import SPAWN, Store, on

from chat_history import ChatHistory, ChatHistoryWarning
from chat_history.testing import check_chat, say

KILLS = {"json": 200, "sqlite": 200, "postgres": 200, "relaxed": 50}
PER_CHAT = 20
"""Kills before a new chat is begun, so that chats stay short."""

LARGE = [say("user", f"{number % 2}" * 700_000) for number in range(3)]
"""Kept beside the messages, one of them for two."""

Told = dict[str, str | None]
"""Texts by message id, None for one that is not there."""


def work(store: Store, name: str, seed: int, pipe: Connection) -> None:
    """Writes until it is killed, and tells of each message when the call has returned.

    What may have happened when a call does not return is told before it. Every text says of how many it is.
    """
    random = Random(seed)
    chat = f"chat {int(name) // PER_CHAT}"
    singles: list[str] = []
    warnings.simplefilter("error")

    def tell(kind: str, texts: Told) -> None:
        pipe.send_bytes(json.dumps([kind, texts]).encode())

    with store.open() as history:
        tell("did", {})
        for number in count():
            size = random.choice((1, 1, 1, 2, 3))
            new = [say("user", f"{name}.{number} {place} of {size}") for place in range(size)]
            kind = random.choices(("add", "save", "set", "replace", "delete", "large"), (60, 20, 5, 5, 5, 2))[0]
            if kind == "add" and size == 1:
                stored = [history.add_message(chat, new[0])]
                singles.append(stored[0].message_id)
            elif kind == "add":
                stored = history.add_messages(chat, new)
            elif kind == "save":
                stored = history.save_messages(chat, [*history.get_chat_history(chat), *new])
            elif kind == "set":
                stored = history.set_messages(chat, new)
            elif kind == "large":
                history.delete_chat_history("large")
                history.add_messages("large", LARGE)
                continue
            elif singles:
                chosen = random.choice(singles)
                text = None if kind == "delete" else new[0]["content"].replace(f"of {size}", "of 1")
                tell("may", {chosen: text})
                if text is None:
                    assert history.delete_message(chat, chosen)
                    singles.remove(chosen)
                else:
                    history.replace_message(chat, chosen, say("user", text))
                tell("did", {chosen: text})
                continue
            else:
                continue
            tell("did", {message.message_id: message.text for message in stored})


class Killed:
    """A process that worked, and was killed: what it told of."""

    def __init__(self, store: Store, number: int, random: Random) -> None:
        self.possible: dict[str, set[str | None]] = {}
        ours, theirs = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=work, args=(store, str(number), random.getrandbits(32), theirs))
        process.start()
        theirs.close()
        # Most are killed at work, some before they get to it.
        patience = random.randrange(1, 16) if random.random() < 0.85 else 0
        for _ in range(patience):
            self.hear(ours)
        time.sleep(random.uniform(0, 0.002 if patience else 0.02))  # the random moment
        process.kill()
        while self.hear(ours):
            pass
        process.join()
        assert process.exitcode == -9, "it was at work until it was killed"

    def hear(self, pipe: Connection) -> bool:
        try:
            kind, texts = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return False
        for message_id, text in texts.items():
            known = self.possible.setdefault(message_id, set())
            if kind == "did":
                known.clear()
            known.add(text)
        return True


def check(history: ChatHistory, chat: str, possible: dict[str, set[str | None]]) -> None:
    """Every acknowledged message is there, and what was written in one call is there as a whole."""
    found = {message.message_id: message.text for message in check_chat(history, chat)}
    for message_id, texts in possible.items():
        assert found.get(message_id) in texts
    groups = Counter(tuple(text.split(" ")[::3]) for text in found.values())
    assert all(number == int(size) for (_, size), number in groups.items())
    assert history.get_chat_history("large") in ([], LARGE)


@on(*KILLS)
def test_what_a_killed_process_acknowledged_is_there_and_the_store_opens_without_help(store: Store) -> None:
    random = Random(store.kind)
    possible: dict[str, set[str | None]] = {}
    acknowledged = 0
    for number in range(KILLS[store.kind]):
        if number % PER_CHAT == 0:
            possible.clear()
        killed = Killed(store, number, random)
        possible |= killed.possible
        acknowledged += len(killed.possible)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ChatHistoryWarning)  # a torn tail was put beside the file
            history = store.open()
        with history:
            check(history, f"chat {number // PER_CHAT}", possible)
        if store.kind == "json":
            json.loads(Path(store.place).read_bytes())
    assert acknowledged > KILLS[store.kind], "they got to work"

"""Measure what costs more in a store of 1,000,000 messages in 10,000 chats than in one of 10,000 in 100.

python tests/benchmarks/scale.py [--backends json,sqlite,postgres] [--messages 1000000] [--markdown]

The table of docs/scale.md: each kind of work in the large store and in the small one, in alternation. JSON is measured
with a tenth. The first search, which brings the index up to date, is shown by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import count

from measure import Result, alternate, timed
from messages import dicts
from places import Store, stores

from chat_history import ChatHistory

CHATS = 100
"""Of the small store; as many messages in each, and in each of the large one."""
RARE = "zyzzyva"
BOUND = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", type=lambda names: names.split(","), default=["json", "sqlite", "postgres"])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    lines = []
    with stores(given.backends) as chosen:
        for store in chosen:
            size = given.messages // (10 if store.backend == "json" else 1)
            for work, result in _measured(store, size):
                line = f"{size:,} messages", store.name, work, *_shown(result)
                print("  ".join(line), file=sys.stderr)
                lines.append(line)
    if given.markdown:
        print("| store | backend | work | large | small | ratio |\n|---|---|---|---|---|---|")
        for line in lines:
            print(f"| {' | '.join(line)} |")


def _measured(store: Store, size: int) -> list[tuple[str, Result]]:
    with _filled(store, size // CHATS) as large, _filled(store, CHATS) as small:
        rows = [("the first search", Result(timed(lambda: large.search(RARE)), timed(lambda: small.search(RARE)), "s"))]
        for work, make in WORK.items():
            rows.append((work, alternate(make(large), make(small), 100)))
    return rows


def _filled(store: Store, chats: int) -> ChatHistory:
    history = store.ours(store.place())
    messages = dicts(20 * CHATS)
    for number in range(chats):
        start = number % 19 * CHATS
        history.add_messages(str(number), messages[start : start + CHATS])
    history.add_message("7", {"role": "user", "content": f"A {RARE} is a weevil."})
    return history


def _append(history: ChatHistory) -> Callable[[], object]:
    texts = (f"Message {number}" for number in count())
    return lambda: history.add_message("5", {"role": "user", "content": next(texts)})


def _search(history: ChatHistory) -> Callable[[], object]:
    def search() -> None:
        (hit,) = history.search(RARE)
        assert hit.chat_id == "7"

    return search


WORK: dict[str, Callable[[ChatHistory], Callable[[], object]]] = {
    "append one": _append,
    "the last 50 of a chat": lambda history: lambda: history.get_chat_history("9", last=50),
    "the newest 50 chats": lambda history: lambda: history.list_chats(50),
    "search a rare word": _search,
}


def _shown(result: Result) -> tuple[str, str, str]:
    assert result.floor is not None
    return f"{result.ours * 1000:.2f} ms", f"{result.floor * 1000:.2f} ms", f"{result.ours / result.floor:.2f}"


if __name__ == "__main__":
    main()

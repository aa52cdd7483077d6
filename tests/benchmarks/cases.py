"""The rows of the table: each measures one kind of work on a store in alternation with the floor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from floors import ChatsFloor, FileFloor
from measure import Result, alternate, rate, timed, timing
from messages import agent_messages, dicts, dumped, turns
from places import Store

from chat_history import ChatHistory
from chat_history.formats import Source, get_format
from chat_history.replaying import replayable

__all__ = ["ROWS", "Bench", "Row"]

CHAT = "chat"
FORMATS = ("agent_framework", "langchain", "llama_index", "openai", "openai_responses", "pydantic_ai")
APART = 10_000_000
"""Between the positions of writers of one plain table, so that they do not collide."""


class Bench:
    """How much is measured, and the places where one chat has very many messages, which several rows share."""

    def __init__(self, *, quick: bool = False) -> None:
        self.quick = quick
        self.many = 2_000 if quick else 100_000
        self._large: dict[Store, str] = {}

    def times(self, number: int) -> int:
        """How often to measure."""
        return max(2, number // 50) if self.quick else number

    @cached_property
    def messages(self) -> list[dict[str, str]]:
        return dicts(self.many)

    def place(self, store: Store) -> str:
        """A new place, with nothing in it but an empty plain table."""
        place = store.place()
        floor = store.floor(place)
        floor.create()
        floor.close()
        return place

    def large(self, store: Store) -> str:
        """A place where the chat has very many messages, on both sides."""
        if store not in self._large:
            self._large[store] = place = self.place(store)
            with store.ours(place) as history:
                history.add_messages(CHAT, self.messages)
            floor = store.floor(place)
            floor.fill(dumped(self.messages))
            floor.close()
        return self._large[store]


# ---- one process


def append_to_new(bench: Bench, store: Store) -> Result:
    return _append(bench, store, bench.place(store), first=0)


def append_to_large(bench: Bench, store: Store) -> Result:
    return _append(bench, store, bench.large(store), first=APART)


def _append(bench: Bench, store: Store, place: str, *, first: int) -> Result:
    messages = cycle(dicts(1000, seed=3))
    payloads = cycle(list(dumped(dicts(1000, seed=3))))
    floor = store.floor(place, first=first)
    with store.ours(place) as history:
        result = alternate(
            lambda: history.add_message(CHAT, next(messages)),
            lambda: floor.append(next(payloads)),
            bench.times(1000),
            warm_up=20,
        )
    floor.close()
    return result


def large_against_new(bench: Bench, store: Store) -> Result:
    messages = cycle(dicts(1000, seed=4))
    with store.ours(bench.large(store)) as large, store.ours(bench.place(store)) as new:
        return alternate(
            lambda: large.add_message(CHAT, next(messages)),
            lambda: new.add_message(CHAT, next(messages)),
            bench.times(1000),
            warm_up=20,
        )


def last_fifty(bench: Bench, store: Store) -> Result:
    place = bench.large(store)
    floor = store.floor(place)
    with store.ours(place) as history:
        assert len(history.get_chat_history(CHAT, last=50)) == 50
        result = alternate(
            lambda: history.get_chat_history(CHAT, last=50),
            lambda: [json.loads(payload) for payload in floor.last(50)],
            bench.times(500),
        )
    floor.close()
    return result


def load_thousand(bench: Bench, store: Store) -> Result:
    place = bench.place(store)
    number = 100 if bench.quick else 1000
    messages = agent_messages(number)
    adapter = _adapter()
    floor = store.floor(place)
    floor.fill(adapter.serializer.to_json(message).decode() for message in messages)
    with store.ours(place) as history:
        history.add_messages(CHAT, messages)
        assert history.get_message_history(CHAT) == messages
        validate = adapter.validator.validate_json
        result = alternate(
            lambda: history.get_message_history(CHAT),
            lambda: [validate(payload) for payload in floor.last(number)],
            bench.times(100),
        )
    floor.close()
    return result


def save_turns(bench: Bench, store: Store) -> Result:
    number = 10 if bench.quick else 200
    rounds = [_save_turns(store, bench.place(store), number) for _ in range(bench.times(5))]
    return timing(*zip(*rounds, strict=True))


def _save_turns(store: Store, place: str, number: int) -> tuple[float, float]:
    """The seconds spent on saving, by us and by the floor."""
    dump = _adapter().serializer.to_json
    floor = store.floor(place)
    spent = [0.0, 0.0]
    with store.ours(place) as history:
        history.add_message("another", {"role": "user", "content": "The connection is open, as the floor's is."})
        for turn, (all_messages, new_messages) in enumerate(turns(number)):
            work = (
                partial(history.save_messages, CHAT, all_messages),
                lambda new=new_messages: floor.add([dump(message).decode() for message in new]),
            )
            # In turn the first, because whoever serialises a message first finds it outside of the cache.
            for side in (0, 1) if turn % 2 else (1, 0):
                spent[side] += timed(work[side])
        assert history.get_message_count(CHAT) == len(all_messages) == 4 * number
    floor.close()
    return spent[0], spent[1]


def open_and_append(bench: Bench, store: Store) -> Result:
    place = bench.large(store)
    message = dicts(1)[0]
    payload = json.dumps(message)
    opened: list[Any] = []
    first = 2 * APART

    def ours() -> None:
        history = store.ours(place)
        history.add_message(CHAT, message)
        opened.append(history.shutdown)

    def plain() -> None:
        nonlocal first
        first += 1
        floor = store.floor(place, first=first)
        floor.append(payload)
        opened.append(floor.close)

    def closed(work: Callable[[], None]) -> float:
        seconds = timed(work)
        opened.pop()()
        return seconds

    closed(ours), closed(plain)
    pairs = [(closed(ours), closed(plain)) for _ in range(bench.times(50))]
    result = timing(*zip(*pairs, strict=True))
    return Result(result.ours, None, "s") if store.backend == "json" else result


def fill(bench: Bench, store: Store) -> Result:
    messages = bench.messages
    pairs = []
    for _ in range(bench.times(5)):
        place = bench.place(store)
        floor = store.floor(place)
        with store.ours(place) as history:
            begun = perf_counter()
            history.add_messages(CHAT, messages)
            between = perf_counter()
            floor.fill(dumped(messages))
            pairs.append((between - begun, perf_counter() - between))
            assert history.get_message_count(CHAT) == len(messages)
        floor.close()
    return timing(*zip(*pairs, strict=True))


def newest_chats(bench: Bench, store: Store) -> Result:
    return _chats(bench, store, lambda history: history.list_chats(50), lambda floor: floor.newest())


def chat_ids(bench: Bench, store: Store) -> Result:
    return _chats(bench, store, lambda history: history.get_all_chat_ids(), lambda floor: floor.ids())


def _chats(
    bench: Bench, store: Store, ours: Callable[[ChatHistory], Any], plain: Callable[[ChatsFloor], Any]
) -> Result:
    place = bench.place(store)
    floor = store.floor(place)
    with store.ours(place) as history:
        for number in range(bench.many // 10):
            history.add_message(f"chat {number}", {"role": "user", "content": "Hello!"})
        if isinstance(floor, FileFloor):
            result = alternate(lambda: ours(history), lambda: None, bench.times(200))
            floor.close()
            return Result(result.ours, None, "s")
        chats = [history.get_chat(chat) for chat in history.get_all_chat_ids()]
        table = ChatsFloor(floor, [(each.chat_id, str(each.created_at), str(each.updated_at)) for each in chats])
        assert len(ours(history)) == len(plain(table))
        result = alternate(lambda: ours(history), lambda: plain(table), bench.times(200))
    floor.close()
    return result


def _adapter() -> Any:
    from pydantic import TypeAdapter
    from pydantic_ai.messages import ModelMessage

    return TypeAdapter(ModelMessage)


# ---- conversions


def to_neutral(bench: Bench, form: str) -> Result:
    """Microseconds a message; the floor is `json.loads` of the same payload."""
    payloads = _payloads(form)
    convert = get_format(form).to_neutral
    result = alternate(lambda: [convert(payload) for payload in payloads], partial(_parse, payloads), bench.times(1000))
    return Result(result.ours / len(payloads), (result.floor or 0) / len(payloads), "s each")


def from_neutral(bench: Bench, form: str) -> Result:
    """Microseconds a message, made of neutral ones with every kind of content."""
    source = "openai_responses" if form == "pydantic_ai" else "pydantic_ai"
    payloads = _payloads(source)
    made = datetime(2026, 1, 2, tzinfo=UTC)
    sources = [Source(f"{index:08}", source, payload, made) for index, payload in enumerate(payloads)]
    write = get_format(form).from_neutral
    pairs = []
    for _ in range(bench.times(500)):
        neutral = [message for _, message in replayable(sources, form)]  # anew, because a writer may change them
        pairs.append((timed(partial(write, neutral)) / len(neutral), timed(partial(_parse, payloads)) / len(payloads)))
    ours, floor = zip(*pairs, strict=True)
    return Result(median(ours), median(floor), "s each")


def _parse(payloads: list[str]) -> None:
    for payload in payloads:
        json.loads(payload)


def _payloads(form: str) -> list[str]:
    sys.path.append(str(Path(__file__).parents[1]))
    from conversion_tables import samples

    return [source.payload for sources in samples(form).values() for source in sources]


# ---- many writers

Spans = list[tuple[float, float]]
"""When a writer began and ended, for each round."""


def append_of_processes(bench: Bench, store: Store) -> Result:
    place = bench.place(store)
    rounds, each = bench.times(14), 10 if bench.quick else 250
    spawn = get_context("spawn")
    barrier = spawn.Barrier(4)
    pipes = []
    for number in range(4):
        receiver, sender = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_writing_process, args=(store, place, number, rounds, each, barrier, sender))
        process.start()
        pipes.append((receiver, process))
    spans = [receiver.recv() for receiver, _ in pipes]
    for _, process in pipes:
        process.join()
    return _throughput(store, place, spans, each)


def _writing_process(store: Store, place: str, number: int, rounds: int, each: int, barrier: Any, sender: Any) -> None:
    with store.ours(place) as history:
        sender.send(_write(store, place, history, number, rounds, each, barrier))


def append_of_threads(bench: Bench, store: Store) -> Result:
    place = bench.place(store)
    rounds, each = bench.times(14), 10 if bench.quick else 125
    barrier = threading.Barrier(8)
    spans: list[Spans] = []
    with store.ours(place) as history:

        def work(number: int) -> None:
            spans.append(_write(store, place, history, number, rounds, each, barrier))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return _throughput(store, place, spans, each)


def _write(store: Store, place: str, history: Any, number: int, rounds: int, each: int, barrier: Any) -> Spans:
    """One of several writers: a round with ours, a round with the floor, and so on, all of them at once."""
    messages = dicts(each, seed=number)
    payloads = list(dumped(messages))
    floor = store.floor(place, first=number * APART)
    spans = []
    for _ in range(rounds):
        for append, given in ((lambda message: history.add_message(CHAT, message), messages), (floor.append, payloads)):
            barrier.wait()
            begun = perf_counter()
            for one in given:
                append(one)
            spans.append((begun, perf_counter()))
    floor.close()
    return spans


def _throughput(store: Store, place: str, writers: list[Spans], each: int) -> Result:
    durations = [
        max(end for _, end in spans) - min(begun for begun, _ in spans) for spans in zip(*writers, strict=True)
    ]
    with store.ours(place) as history:
        assert history.get_message_count(CHAT) == len(writers) * each * len(durations) // 2, "messages were lost"
    # The first round of each opens files and connections.
    return rate(durations[2::2], durations[3::2], len(writers) * each)


# ---- other processes


def import_package(bench: Bench) -> Result:
    return alternate(
        lambda: _python("import chat_history"),
        lambda: _python("import sqlite3, json, dataclasses"),
        bench.times(100),
    )


PEAK = "\nprint(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"


def memory(bench: Bench, store: Store) -> Result:
    work = (
        f"from chat_history import open_history; open_history('json:///{bench.large(store)}/ours').get_chat('{CHAT}')"
    )
    opened = int(_python(work + PEAK))
    bare = int(_python("pass" + PEAK))
    return Result((opened - bare) / 1024, None, "MB")


def _python(program: str) -> str:
    # As a user's does, Python may keep what it compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@dataclass(frozen=True)
class Row:
    """A line of the table: the work, and the bound for each store that it is measured on."""

    name: str
    work: str
    measure: Callable[..., Result]
    bounds: Mapping[str, float]


ROWS = [
    Row(
        "append-new",
        "append one, chat of 0 messages",
        append_to_new,
        {"json": 1.5, "sqlite": 1.5, "sqlite relaxed": 4, "postgres": 1.25},
    ),
    Row(
        "append-large",
        "append one, chat of 100,000",
        append_to_large,
        {"json": 1.5, "sqlite": 1.5, "sqlite relaxed": 4, "postgres": 1.25},
    ),
    Row("large-new", "append one, chat of 100,000 against chat of 0", large_against_new, {"json": 1.2}),
    Row(
        "last",
        "last 50 of 100,000, as dicts",
        last_fifty,
        {"json": 1.5, "sqlite": 1.5, "sqlite relaxed": 1.5, "postgres": 1.5},
    ),
    Row("load", "1,000 as Pydantic AI messages", load_thousand, {"json": 1.15, "sqlite": 1.15, "postgres": 1.15}),
    Row("turns", "200 turns, all_messages() saved after each", save_turns, {"json": 3, "sqlite": 3, "postgres": 3}),
    Row("open", "open 100,000 and append one", open_and_append, {"json": 0.3, "sqlite": 1.5, "postgres": 1.5}),
    Row("fill", "import 100,000", fill, {"json": 2, "sqlite": 1.5, "postgres": 1.5}),
    Row("chats", "the newest 50 of 10,000 chats", newest_chats, {"json": 0.005, "sqlite": 3, "postgres": 3}),
    Row("chat-ids", "the ids of 10,000 chats", chat_ids, {"sqlite": 1.5, "postgres": 1.5}),
    Row(
        "processes",
        "4 processes append to one chat",
        append_of_processes,
        {"json": 0.5, "sqlite": 0.8, "postgres": 0.8},
    ),
    Row("threads", "8 threads append to one chat", append_of_threads, {"json": 0.8, "sqlite": 1, "postgres": 0.8}),
    Row("memory", "open 100,000 (100 MB): memory", memory, {"json": 60}),
    Row("to-neutral", "a message of a format to a neutral one", to_neutral, dict.fromkeys(FORMATS, 25e-6)),
    Row("from-neutral", "a message of a format from a neutral one", from_neutral, dict.fromkeys(FORMATS, 25e-6)),
    Row("import", "import chat_history", import_package, {"-": 2.5}),
]

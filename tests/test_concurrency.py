"""Threads and processes on one store: no error, nothing lost, nothing twice, every writer's order kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from time import monotonic
from typing import Any

from stores import ALL, DURABLE, SPAWN, Store, on

from chat_history import ChatExistsError, ChatHistory, ChatHistoryWarning, StoredMessage, VersionConflictError
from chat_history.backends.contents import hash_of
from chat_history.testing import check_chat, say

PROCESSES = 4
THREADS = 8
EACH = 50
"""What each writer writes."""

SHOWING = say("user", f"data:image/png;base64,{'0123456789abcdef' * 2000}==")
"""Too big to be kept in the message."""

meeting: Any
"""Where the processes of one test wait for one another before they begin."""


def arrive(barrier: Any) -> None:
    global meeting
    meeting = barrier


def begin(work: Callable[..., Any], store: Store, *arguments: Any) -> Any:
    meeting.wait(60)
    with store.open() as history:
        return work(history, *arguments)


def in_processes(store: Store, *works: tuple[Any, ...]) -> list[Any]:
    """Runs each work in a process of its own, all at once; each opens the store, which the first one makes."""
    barrier = SPAWN.Barrier(len(works))
    with ProcessPoolExecutor(len(works), SPAWN, initializer=arrive, initargs=(barrier,)) as pool:
        return [each.result(120) for each in [pool.submit(begin, work, store, *rest) for work, *rest in works]]


def in_threads(history: ChatHistory, *works: tuple[Any, ...]) -> list[Any]:
    barrier = Barrier(len(works))

    def run(work: Callable[..., Any], *arguments: Any) -> Any:
        barrier.wait(60)
        return work(history, *arguments)

    with ThreadPoolExecutor(len(works)) as pool:
        return [each.result(120) for each in [pool.submit(run, *work) for work in works]]


# ---- what a writer does; each gives back the ids of what was acknowledged


def append(history: ChatHistory, writer: str, chats: Sequence[str]) -> list[str]:
    return [
        history.add_message(chats[number % len(chats)], say("user", f"{writer} {number}")).message_id
        for number in range(EACH)
    ]


def append_batches(history: ChatHistory, writer: str, size: int) -> list[str]:
    stored: list[StoredMessage] = []
    for batch in range(EACH // size):
        stored += history.add_messages(
            "c", [say("user", f"{writer} {batch * size + number}") for number in range(size)]
        )
    return [message.message_id for message in stored]


def append_by_id(history: ChatHistory) -> list[str]:
    for number in range(EACH):
        history.add_message("c", say("user", str(number)), message_id=str(number))
    return [str(number) for number in range(EACH)]


def save_turns(history: ChatHistory, writer: str) -> list[str]:
    """Load, go on, save; whoever else does the same."""
    warnings.simplefilter("ignore", ChatHistoryWarning)
    ids = []
    for number in range(EACH):
        messages = [*history.get_chat_history("c"), say("user", f"{writer} {number}")]
        ids += [message.message_id for message in history.save_messages("c", messages)]
    return ids


def save_turns_at_their_version(history: ChatHistory, writer: str) -> int:
    """The same, and again from the start where somebody else was first; how often that was."""
    conflicts = 0
    for number in range(EACH):
        while True:
            version = history.get_chat("c").version
            messages = [*history.get_chat_history("c"), say("user", f"{writer} {number}")]
            try:
                assert len(history.save_messages("c", messages, expected_version=version)) == 1
                break
            except VersionConflictError:
                conflicts += 1
    return conflicts


def rearrange(history: ChatHistory, writer: str) -> list[str]:
    """Replaces, archives and deletes, but deletes only what it wrote itself: the ids of that."""
    gone = []
    for number in range(EACH // 2):
        own = history.add_message("c", say("user", f"{writer} {number}"))
        found = history.get_messages("c", limit=3)
        history.replace_message("c", found[0].message_id, say("user", found[0].text), metadata={"by": writer})
        history.archive_oldest_messages("c", 1)
        assert history.delete_message("c", own.message_id)
        gone.append(own.message_id)
    return gone


def create(history: ChatHistory, writer: str) -> list[str]:
    won = []
    for number in range(EACH):
        with suppress(ChatExistsError):
            history.create_chat(str(number), title=writer)
            won.append(str(number))
    return won


def toggle(history: ChatHistory) -> None:
    try:
        for number in range(EACH):
            history.set_messages("c", [say("user", "ab"[number % 2])] * 10)
    finally:
        history.create_chat("done")


def watch(history: ChatHistory) -> list[list[str]]:
    """All that a reader sees until the writer is done."""
    seen = []
    give_up = monotonic() + 60
    while not history.chat_exists("done") and monotonic() < give_up:
        seen.append([message["content"] for message in history.get_chat_history("c")])
    return seen


def append_batches_and_finish(history: ChatHistory) -> None:
    try:
        append_batches(history, "0", 5)
    finally:
        history.create_chat("done")


def come_and_go(history: ChatHistory, writer: str) -> None:
    """Adds the image that others add too, to a chat of its own, sees that it is there, and deletes it again."""
    for number in range(EACH):
        history.add_messages(writer, [SHOWING] * (1 + number % 2))
        assert history.get_chat_history(writer, last=1) == [SHOWING]
        if number % 3 == 0:
            history.delete_chat_history(writer)
        elif number % 3 == 1:
            history.replace_message(writer, history.get_messages(writer)[0].message_id, say("user", "x"))
            history.delete_oldest_messages(writer, 9)
        else:
            history.delete_last_message(writer)


def look(history: ChatHistory, writers: Sequence[str]) -> None:
    """Reads what others add and delete meanwhile."""
    for _ in range(3 * EACH):
        for writer in writers:
            assert all(each in (SHOWING, say("user", "x")) for each in history.get_chat_history(writer))


# ---- what must be true then


def check_all_is_there(history: ChatHistory, chats: Sequence[str], ids: Sequence[Sequence[str]]) -> None:
    """Each writer's messages are there once, in its order, at dense positions."""
    for place, chat in enumerate(chats):
        stored = check_chat(history, chat)
        assert [message.position for message in stored] == list(range(len(stored)))
        assert len(stored) == sum(len(each[place :: len(chats)]) for each in ids)
        for writer, its in enumerate(ids):
            own = [message for message in stored if message.text.startswith(f"{writer} ")]
            assert [message.message_id for message in own] == list(its[place :: len(chats)])
            assert [message.text for message in own] == [f"{writer} {n}" for n in range(EACH)][place :: len(chats)]


@on(*DURABLE, "relaxed")
def test_processes_that_append_to_one_chat_lose_nothing(store: Store) -> None:
    ids = in_processes(store, *((append, str(writer), ["c"]) for writer in range(PROCESSES)))
    with store.open() as history:
        check_all_is_there(history, ["c"], ids)


@on(*DURABLE, "relaxed")
def test_processes_that_append_to_many_chats_lose_nothing(store: Store) -> None:
    chats = [f"chat {number}" for number in range(7)]
    ids = in_processes(store, *((append, str(writer), chats) for writer in range(PROCESSES)))
    with store.open() as history:
        check_all_is_there(history, chats, ids)
        assert sorted(history.get_all_chat_ids()) == chats


@on(*ALL)
def test_threads_that_append_to_one_chat_lose_nothing(store: Store) -> None:
    with store.open() as history:
        ids = in_threads(history, *((append, str(writer), ["c"]) for writer in range(THREADS)))
        check_all_is_there(history, ["c"], ids)


@on(*ALL)
def test_threads_that_append_to_many_chats_lose_nothing(store: Store) -> None:
    chats = [f"chat {number}" for number in range(7)]
    with store.open() as history:
        ids = in_threads(history, *((append, str(writer), chats) for writer in range(THREADS)))
        check_all_is_there(history, chats, ids)


@on(*DURABLE)
def test_a_batch_lies_together_whoever_else_writes(store: Store) -> None:
    ids = in_processes(store, *((append_batches, str(writer), 5) for writer in range(PROCESSES)))
    with store.open() as history:
        check_all_is_there(history, ["c"], ids)
        texts = [message.text for message in history.iter_messages("c")]
    for start in range(0, len(texts), 5):
        writer, number = texts[start].split()
        assert texts[start : start + 5] == [f"{writer} {int(number) + each}" for each in range(5)]


@on(*DURABLE)
def test_the_same_message_id_from_several_processes_is_stored_once(store: Store) -> None:
    in_processes(store, *[(append_by_id,)] * PROCESSES)
    with store.open() as history:
        assert [message.text for message in check_chat(history, "c")] == [str(number) for number in range(EACH)]


@on(*ALL)
def test_the_same_message_id_from_several_threads_is_stored_once(store: Store) -> None:
    with store.open() as history:
        in_threads(history, *[(append_by_id,)] * THREADS)
        assert [message.text for message in check_chat(history, "c")] == [str(number) for number in range(EACH)]


@on(*DURABLE)
def test_a_chat_is_created_by_one_of_several_processes(store: Store) -> None:
    won = in_processes(store, *((create, str(writer)) for writer in range(PROCESSES)))
    assert sorted(chat for chats in won for chat in chats) == sorted(map(str, range(EACH)))
    with store.open() as history:
        assert {chat: history.get_chat(chat).title for chats in won for chat in chats} == {
            chat: str(writer) for writer, chats in enumerate(won) for chat in chats
        }


@on(*DURABLE)
def test_two_processes_that_save_at_once_lose_nothing(store: Store) -> None:
    with store.open() as history:
        history.add_message("c", say("system", "s"))
        ids = in_processes(store, (save_turns, "0"), (save_turns, "1"))
        stored = {message.message_id: message for message in check_chat(history, "c")}
    for writer, its in enumerate(ids):
        saved = {stored[message_id].text for message_id in its}
        assert {f"{writer} {number}" for number in range(EACH)} <= saved


@on(*DURABLE)
def test_two_processes_that_save_at_the_expected_version_keep_each_others_turns(store: Store) -> None:
    with store.open() as history:
        history.add_message("c", say("system", "s"))
        in_processes(store, (save_turns_at_their_version, "0"), (save_turns_at_their_version, "1"))
        texts = [message.text for message in check_chat(history, "c")]
        assert texts == [message["content"] for message in history.get_chat_history("c")]
    for writer in "01":
        assert [text for text in texts if text.startswith(writer)] == [f"{writer} {number}" for number in range(EACH)]


@on("memory", "sqlite")
def test_threads_that_save_at_the_expected_version_keep_each_others_turns(store: Store) -> None:
    with store.open() as history:
        history.add_message("c", say("system", "s"))
        in_threads(history, *((save_turns_at_their_version, str(writer)) for writer in range(3)))
        texts = [message["content"] for message in history.get_chat_history("c")]
    assert sorted(texts[1:]) == sorted(f"{writer} {number}" for writer in range(3) for number in range(EACH))


def check_appends_survived(history: ChatHistory, appended: list[list[str]], gone: list[str]) -> None:
    stored = {message.message_id: message for message in check_chat(history, "c")}
    for writer, ids in enumerate(appended):
        assert [stored[message_id].text for message_id in ids] == [f"{writer} {number}" for number in range(EACH)]
    assert stored.keys().isdisjoint(gone)


@on(*DURABLE)
def test_appends_survive_the_saves_replaces_archivals_and_deletes_of_other_processes(store: Store) -> None:
    *appended, _, gone = in_processes(
        store, (append, "0", ["c"]), (append, "1", ["c"]), (save_turns, "saved"), (rearrange, "own")
    )
    with store.open() as history:
        check_appends_survived(history, appended, gone)


@on(*ALL)
def test_appends_survive_the_saves_replaces_archivals_and_deletes_of_other_threads(store: Store) -> None:
    with store.open() as history, warnings.catch_warnings():
        *appended, _, gone = in_threads(
            history, (append, "0", ["c"]), (append, "1", ["c"]), (save_turns, "saved"), (rearrange, "own")
        )
        check_appends_survived(history, appended, gone)


@on(*DURABLE)
def test_a_reader_sees_a_batch_whole_or_not_at_all(store: Store) -> None:
    _, seen = in_processes(store, (append_batches_and_finish,), (watch,))
    for texts in seen:
        assert texts == [f"0 {number}" for number in range(len(texts))]
        assert len(texts) % 5 == 0
    assert [len(texts) for texts in seen] == sorted(len(texts) for texts in seen)


@on(*DURABLE)
def test_a_reader_sees_a_chat_before_a_save_or_after_it(store: Store) -> None:
    _, seen = in_processes(store, (toggle,), (watch,))
    for texts in seen:
        assert texts in ([], ["a"] * 10, ["b"] * 10)


@on(*DURABLE)
def test_an_image_that_one_process_deletes_and_another_adds_is_there_for_as_long_as_a_message_shows_it(
    store: Store,
) -> None:
    writers = [str(writer) for writer in range(3)]
    in_processes(store, *((come_and_go, writer) for writer in writers), (look, writers))
    with store.open() as history:
        for writer in writers:
            history.delete_chat_history(writer)
        known = hash_of("0123456789abcdef" * 2000)
        assert history._backend().contents(history._key("0"), [known]) == {}

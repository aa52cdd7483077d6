"""`AsyncChatHistory`: the same names, awaited; what is true of threads is true of tasks."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sqlite3
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from random import Random
from threading import active_count, current_thread
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from stores import ALL, DURABLE, Store, on

from chat_history import (
    AsyncChatHistory,
    ChatHistory,
    HistoryClosedError,
    Message,
    StoredMessage,
    VersionConflictError,
    open_history,
)
from chat_history.aio import AHEAD, _awaited, run
from chat_history.testing import check_chat, say
from chat_history.threads import THREADS

NAMES = [name for name in dir(ChatHistory) if not name.startswith("_") and name != "to_async"]
NOT_AWAITED = {"for_user", "iter_messages", "shared_by"}


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Nobody else can write to this SQLite store in the meantime."""
    with closing(sqlite3.connect(store.place, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_with_the_same_signature(name: str) -> None:
    sync, aio = getattr(ChatHistory, name), getattr(AsyncChatHistory, name)
    assert aio.__doc__
    if isinstance(sync, property):
        assert isinstance(aio, property)
        return
    assert inspect.signature(aio).parameters == inspect.signature(sync).parameters
    assert inspect.iscoroutinefunction(aio) == (name not in NOT_AWAITED)
    assert (aio.__module__, aio.__qualname__) == (AsyncChatHistory.__module__, f"AsyncChatHistory.{name}")


def test_type_checkers_let_a_task_be_made_of_a_call() -> None:
    # create_task, TaskGroup and asyncio.run take coroutines, and not whatever can be awaited.
    made = get_args(get_type_hints(_awaited)["return"])[-1]
    assert get_origin(made) is Coroutine


def test_it_calls_what_a_subclass_has_of_its_own() -> None:
    class Hushed(ChatHistory):
        def add_message(self, chat_id: str, message: Any, **options: Any) -> StoredMessage:
            return super().add_message(chat_id, {**message, "content": "***"}, **options)

        def get_chat_history(self, chat_id: str, last: int | None = None) -> list[Message]:
            return super().get_chat_history(chat_id, last)[::-1]

    async def use(history: AsyncChatHistory) -> list[Message]:
        await history.add_message("c", say("user", "secret"))
        await history.add_messages("c", [say("user", "b")])
        return await history.get_chat_history("c")

    with Hushed(Store("memory", ":memory:").backend()) as history:
        assert asyncio.run(use(history.to_async())) == [say("user", "b"), say("user", "***")]


def test_it_has_no_other_names() -> None:
    assert [name for name in dir(AsyncChatHistory) if not name.startswith("_")] == NAMES


@on(*ALL)
def test_calls_do_what_those_of_the_history_do(store: Store) -> None:
    async def use(history: AsyncChatHistory) -> None:
        first = await history.add_message("c", say("user", "a"), metadata={"n": 1})
        await history.save_messages("c", [say("user", "a"), say("assistant", "b")])
        version = (await history.get_chat("c")).version
        with pytest.raises(VersionConflictError):
            await history.add_message("c", say("user", "x"), expected_version=version - 1)
        assert await history.get_chat_history("c", last=1) == [say("assistant", "b")]
        assert (await history.get_messages("c", limit=1))[0].text == "b"
        assert [message.text async for message in history.iter_messages("c")] == ["a", "b"]
        assert await history.get_message("c", first.message_id) == first
        async with history.for_user("ann", tenant_id="acme") as ann:
            assert await ann.get_all_chat_ids() == []
            await ann.create_chat("c")
        with pytest.raises(HistoryClosedError):
            await ann.get_all_chat_ids()
        assert await history.get_all_chat_ids() == ["c"]

    with store.open() as history:
        asyncio.run(use(history.to_async()))


def test_a_function_of_several_calls_runs_on_the_same_threads() -> None:
    def work(history: ChatHistory, chat_id: str, *, words: str) -> str:
        history.add_message(chat_id, say("user", words))
        assert history.get_message_count(chat_id) == 1
        return current_thread().name

    with open_history("memory:") as history:
        assert asyncio.run(run(history.to_async(), work, "c", words="a")).startswith("chat_history")


@on("memory")
def test_those_who_await_one_store_share_its_threads(store: Store) -> None:
    async def use(history: ChatHistory) -> None:
        users = [history.for_user(str(number)).to_async() for number in range(100)]
        before = active_count()
        await asyncio.gather(*(user.add_message("c", say("user", "a")) for user in users))
        assert active_count() - before <= THREADS
        await asyncio.gather(*(user.shutdown() for user in users[1:]))
        assert await users[0].get_message_count("c") == 1, "the threads are not those of a view to be shut down"
        with pytest.raises(HistoryClosedError):
            await users[1].get_message_count("c")

    with store.open() as history:
        asyncio.run(use(history))
        asyncio.run(history.to_async().shutdown())


@on(*ALL)
def test_many_tasks_at_once_lose_nothing(store: Store) -> None:
    async def write(history: AsyncChatHistory, writer: int) -> list[str]:
        chats = ["one", f"chat {writer % 3}"]
        return [
            (await history.add_message(chats[number % 2], say("user", f"{writer} {number}"))).message_id
            for number in range(4)
        ]

    async def write_all(history: AsyncChatHistory) -> list[list[str]]:
        return await asyncio.gather(*(write(history, writer) for writer in range(50)))

    with store.open() as history:
        ids = asyncio.run(write_all(history.to_async()))
        one = check_chat(history, "one")
        assert [message.position for message in one] == list(range(100))
        for writer, its in enumerate(ids):
            own = [message.message_id for message in one if message.text.startswith(f"{writer} ")]
            assert own == its[::2]
        others = [message.message_id for number in range(3) for message in check_chat(history, f"chat {number}")]
        assert sorted(others) == sorted(message_id for its in ids for message_id in its[1::2])


@on("sqlite")
def test_other_tasks_run_while_a_call_waits(store: Store) -> None:
    async def run(history: AsyncChatHistory) -> None:
        await history.create_chat("c")
        with locked(store):
            writing = asyncio.create_task(history.add_message("c", say("user", "a")))
            for _ in range(20):
                assert await history.get_chat_history("c") == []
            assert not writing.done()
        assert (await writing).position == 0

    with store.open() as history:
        asyncio.run(run(history.to_async()))


@on("sqlite")
def test_a_call_that_is_cancelled_while_others_keep_it_waiting_does_not_happen(store: Store) -> None:
    async def run(history: AsyncChatHistory) -> None:
        await history.create_chat("c")
        with locked(store):
            running = [asyncio.create_task(history.add_message("c", say("user", "a"))) for _ in range(THREADS)]
            waiting = asyncio.create_task(history.add_message("c", say("user", "b")))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await asyncio.gather(*running)
        assert await history.get_chat_history("c") == [say("user", "a")] * THREADS

    with store.open() as history:
        asyncio.run(run(history.to_async()))


@on(*ALL)
def test_a_cancelled_call_has_happened_or_not(store: Store) -> None:
    random = Random(0)
    batch = [say("user", str(number)) for number in range(50)]

    async def run(history: AsyncChatHistory) -> int:
        cancelled = 0
        for attempt in range(40):
            try:
                async with asyncio.timeout(random.uniform(0, 0.004)):
                    await history.add_messages(f"chat {attempt}", batch)
            except TimeoutError:
                cancelled += 1
        return cancelled

    async def run_and_wait(history: AsyncChatHistory) -> None:
        assert await run(history) > 0
        await asyncio.to_thread(history._threads.shutdown)

    with store.open() as history:
        asyncio.run(run_and_wait(history.to_async()))
        for attempt in range(40):
            assert len(check_chat(history, f"chat {attempt}")) in (0, 50)


@on(*ALL)
def test_what_was_cancelled_does_not_happen_later(store: Store) -> None:
    random = Random(0)
    batch = [say("user", str(number)) for number in range(50)]

    async def run(history: AsyncChatHistory) -> list[int]:
        counts = []
        for attempt in range(40):
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0, 0.004)):
                    await history.add_messages(f"chat {attempt}", batch)
            counts.append(await history.get_message_count(f"chat {attempt}"))
        await asyncio.to_thread(history._threads.shutdown)
        return counts

    with store.open() as history:
        counts = asyncio.run(run(history.to_async()))
        assert [history.get_message_count(f"chat {attempt}") for attempt in range(40)] == counts


@on("sqlite")
def test_a_cancelled_write_has_ended_when_the_cancellation_arrives(store: Store) -> None:
    async def cancel(history: AsyncChatHistory) -> None:
        await history.create_chat("c")
        with locked(store):
            adding = asyncio.create_task(history.add_message("c", say("user", "a")))
            for _ in range(2):  # once is not enough for those who time out twice
                await asyncio.sleep(0.01)
                adding.cancel()
            await asyncio.sleep(0.01)
            assert not adding.done()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert await history.get_message_count("c") == 1

    with store.open() as history:
        asyncio.run(cancel(history.to_async()))


@on("sqlite")
def test_shutdown_waits_for_the_calls_that_run(store: Store) -> None:
    async def run(history: AsyncChatHistory) -> None:
        await history.create_chat("c")
        with locked(store):
            writing = asyncio.create_task(history.add_message("c", say("user", "a")))
            await asyncio.sleep(0)
            closing = asyncio.create_task(history.shutdown())
            await asyncio.sleep(0.01)
            assert not closing.done()
        await closing
        assert (await writing).position == 0
        await history.shutdown()
        with pytest.raises(HistoryClosedError):
            await history.get_chat_history("c")

    asyncio.run(run(store.open().to_async()))


@on(*DURABLE)
def test_two_that_shut_down_at_once_both_wait_for_the_calls_that_run(store: Store) -> None:
    async def shut_down(history: AsyncChatHistory) -> None:
        adding = [asyncio.create_task(history.add_message("c", say("user", str(n)))) for n in range(50)]
        await asyncio.sleep(0)
        await asyncio.gather(history.shutdown(), history.shutdown())
        assert all(task.done() for task in adding)
        await asyncio.gather(*adding)

    asyncio.run(shut_down(store.open().to_async()))
    with store.open() as history:
        assert len(check_chat(history, "c")) == 50


@on("sqlite")
def test_a_shutdown_that_nobody_waits_for_any_more_still_closes_the_history(store: Store) -> None:
    async def give_up(history: AsyncChatHistory) -> None:
        await history.create_chat("c")
        with locked(store):
            writing = asyncio.create_task(history.add_message("c", say("user", "a")))
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(history.shutdown(), 0.01)
        assert (await writing).position == 0

    history = store.open()
    asyncio.run(give_up(history.to_async()))
    with pytest.raises(HistoryClosedError):
        history.get_chat("c")


@on(*ALL)
def test_an_async_with_block_shuts_the_history_down(store: Store) -> None:
    async def run(history: AsyncChatHistory) -> None:
        async with history as same:
            assert same is history
            await history.add_message("c", say("user", "a"))
        with pytest.raises(HistoryClosedError):
            await history.get_chat_history("c")
        with pytest.raises(HistoryClosedError):
            async for _ in history.iter_messages("c"):
                pass

    asyncio.run(run(store.open().to_async()))


@on("memory")
def test_one_history_serves_one_event_loop_after_another(store: Store) -> None:
    with store.open() as history:
        aio = history.to_async()
        for position in range(3):
            assert asyncio.run(aio.add_message("c", say("user", "a"))).position == position


@on("memory")
def test_a_walk_may_end_before_the_chat_does(store: Store) -> None:
    async def run(history: AsyncChatHistory) -> None:
        await history.add_messages("c", [say("user", str(number)) for number in range(100)])
        async for message in history.iter_messages("c"):
            if message.position == 70:
                break
        assert await history.get_message_count("c") == 100

    with store.open() as history:
        asyncio.run(run(history.to_async()))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@on(*DURABLE)
def test_a_forked_child_has_threads_of_its_own(store: Store) -> None:
    with store.open() as history:
        aio = history.to_async()
        asyncio.run(aio.add_message("c", say("user", "parent")))
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)  # rather than wait for ever
            code = 1
            try:
                asyncio.run(aio.add_message("c", say("user", "child")))
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        asyncio.run(aio.add_message("c", say("user", "parent again")))
        assert [each["content"] for each in history.get_chat_history("c")] == ["parent", "child", "parent again"]
        asyncio.run(aio.shutdown())


@on("memory")
def test_a_long_chat_is_walked_in_order(store: Store) -> None:
    async def use(history: AsyncChatHistory) -> None:
        await history.add_messages("c", [say("user", str(number)) for number in range(3 * AHEAD + 1)])
        assert [message.text async for message in history.iter_messages("c")] == list(map(str, range(3 * AHEAD + 1)))

    with store.open() as history:
        asyncio.run(use(history.to_async()))

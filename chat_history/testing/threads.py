"""What several threads do to one store at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier, Event
from typing import TypeVar

from chat_history.errors import VersionConflictError
from chat_history.history import ChatHistory

from .checks import check_chat, contents, say, texts

__all__ = ["Threads"]

T = TypeVar("T")

THREADS = 4
EACH = 25
"""What each of them does."""


def at_once(*works: Callable[[], T]) -> list[T]:
    """What each work returns, done in a thread of its own, all at the same time."""
    barrier = Barrier(len(works))

    def begin(work: Callable[[], T]) -> T:
        barrier.wait(60)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


class Threads:
    """What several threads do to one store at once."""

    def test_messages_that_threads_add_at_once_are_all_stored_in_the_order_of_each(self, history: ChatHistory) -> None:
        def add(writer: int) -> None:
            for number in range(EACH):
                history.add_messages("c", [say("user", f"{writer} {number}")] * (1 + number % 2))

        at_once(*(partial(add, writer) for writer in range(THREADS)))
        stored = check_chat(history, "c")
        assert [message.position for message in stored] == list(range(len(stored)))
        expected = [str(number) for number in range(EACH) for _ in range(1 + number % 2)]
        for writer in range(THREADS):
            own = [text.split()[1] for text in texts(stored) if text.startswith(f"{writer} ")]
            assert own == expected

    def test_of_threads_that_write_at_the_same_version_one_is_told_that_it_did(self, history: ChatHistory) -> None:
        def write(writer: int) -> bool:
            try:
                history.add_message("c", say("user", str(writer)), expected_version=version)
            except VersionConflictError:
                return False
            return True

        for number in range(EACH):
            version = history.get_chat("c").version if number else 0
            won = at_once(*(partial(write, writer) for writer in range(THREADS)))
            assert won.count(True) == 1
            assert contents(history)[number:] == [str(won.index(True))]

    def test_who_reads_while_a_thread_writes_sees_a_chat_at_one_moment(self, history: ChatHistory) -> None:
        history.create_chat("c")
        begun = history.get_chat("c").version
        backend, key = history._backend(), history._key("c")

        is_done = Event()

        def write() -> None:
            try:
                for number in range(EACH):
                    history.add_messages("c", [say("user", str(number))] * 5)
            finally:
                is_done.set()

        def read() -> None:
            seen = 0
            while not is_done.is_set():
                outline = backend.outline(key)
                assert outline is not None
                assert len(outline.rows) == 5 * (outline.version - begun)
                read = contents(history)
                assert read == [str(number) for number in range(len(read) // 5) for _ in range(5)]
                assert len(read) // 5 >= outline.version - begun >= seen
                seen = len(read) // 5

        at_once(write, read)

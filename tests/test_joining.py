"""Threads that come while one works go together as the next, and nobody waits for one who has left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chat_history.backends.joining import Joining, _Queue


class Work:
    """Doubles numbers, and waits for the test before each time that it begins."""

    def __init__(self) -> None:
        self.joining: Joining[int, int] = Joining()
        self.begun = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.together: list[list[int]] = []
        self.alone: list[int] = []

    def __call__(self, number: int) -> int:
        return self.joining.do("key", number, self._do, self._do_alone)

    def _do(self, numbers: Sequence[int]) -> list[int]:
        self.together.append(list(numbers))
        self.begun.release()
        assert self.may_go.acquire(timeout=60)
        if -1 in numbers:
            raise ValueError(list(numbers))
        return [2 * number for number in numbers]

    def _do_alone(self, number: int) -> int:
        self.alone.append(number)
        if number == -1:
            raise ValueError(number)
        return 2 * number

    def wait_for(self, count: int) -> None:
        while len(self.joining._queues["key"].waiting) < count:
            pass


@pytest.fixture
def work() -> Work:
    return Work()


def test_those_who_come_meanwhile_go_together(work: Work) -> None:
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(work, 0)
        work.begun.acquire()
        others = [pool.submit(work, number) for number in range(1, 8)]
        work.wait_for(7)
        work.may_go.release(2)
        assert [each.result(60) for each in [first, *others]] == [2 * number for number in range(8)]
    assert [sorted(numbers) for numbers in work.together] == [[0], list(range(1, 8))]


def test_where_the_work_of_several_fails_each_tries_alone(work: Work) -> None:
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(work, 0)
        work.begun.acquire()
        others = [pool.submit(work, number) for number in (1, -1, 2)]
        work.wait_for(3)
        work.may_go.release(2)
        assert first.result(60) == 0
        assert [others[0].result(60), others[2].result(60)] == [2, 4]
        with pytest.raises(ValueError, match="-1"):
            others[1].result(60)
    assert sorted(work.alone) == [-1, 1, 2]


def test_what_one_alone_raises_is_raised(work: Work) -> None:
    work.may_go.release()
    with pytest.raises(ValueError, match=r"\[-1\]"):
        work(-1)
    assert work.alone == []
    work.may_go.release()
    assert work(1) == 2


@pytest.fixture
def interrupted() -> Iterator[threading.Event]:
    """Set by the first SIGINT, which interrupts this thread; those after it do nothing."""
    was = threading.Event()

    def interrupt(*_: object) -> None:
        if not was.is_set():
            was.set()
            raise KeyboardInterrupt

    usual = signal.signal(signal.SIGINT, interrupt)
    yield was
    signal.signal(signal.SIGINT, usual)


def test_one_who_is_interrupted_while_waiting_keeps_nobody(work: Work, interrupted: threading.Event) -> None:
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(work, 0)
        work.begun.acquire()

        def interrupt() -> None:
            work.wait_for(1)
            while not interrupted.is_set():  # a signal that comes just before a thread falls asleep does not wake it
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            work(1)
        interrupting.result(60)
        last = pool.submit(work, 2)
        work.wait_for(1)
        work.may_go.release(2)
        assert (first.result(60), last.result(60)) == (0, 4)
    assert work.together == [[0], [2]]


def test_one_who_is_interrupted_as_he_begins_to_wait_keeps_nobody(work: Work) -> None:
    class Interrupting(list[Any]):
        def append(self, turn: Any) -> None:
            super().append(turn)
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(work, 0)
        work.begun.acquire()
        queue = work.joining._queues["key"]
        queue.waiting = Interrupting()
        with pytest.raises(KeyboardInterrupt):
            work(1)
        assert not queue.waiting
        work.may_go.release()
        assert first.result(60) == 0


def test_one_who_was_interrupted_right_after_he_began_begins_again(work: Work) -> None:
    joining = work.joining
    assert joining.begin("key")  # and here an interrupt comes, so that it is never ended
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(joining.begin, "key").result(60), "it is another's"
        other = pool.submit(work, 2)
        work.wait_for(1)
        work.may_go.release(2)
        assert work(1) == 2
        assert other.result(60) == 4, "who waited behind him is next"
    assert joining.begin("key")
    joining.end("key")


def test_nobody_waits_for_one_who_was_interrupted_as_he_left(work: Work) -> None:
    class Interrupting(_Queue[int, int]):
        @property
        def worker(self) -> int | None:
            return self.__dict__["worker"]

        @worker.setter
        def worker(self, worker: int | None) -> None:
            self.__dict__["worker"] = worker
            if worker is None:
                self.__class__ = _Queue
                raise KeyboardInterrupt

    joining = work.joining
    assert joining.begin("key")
    joining._queues["key"].__class__ = Interrupting
    with pytest.raises(KeyboardInterrupt):
        joining.end("key")
    work.may_go.release(1)
    other = threading.Thread(target=work, args=(1,), daemon=True)
    other.start()
    other.join(10)
    assert not other.is_alive()


def test_a_key_that_nobody_works_on_is_forgotten(work: Work) -> None:
    work.may_go.release(3)
    for number in range(3):
        work(number)
    assert work.joining._queues == {}

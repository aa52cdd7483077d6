"""Threads that come while one works go together as the next, and nobody waits for one who has left."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dis import opname
from itertools import count
from types import FrameType
from typing import Any

import pytest

from chat_history.backends import joining as joining_module
from chat_history.backends.joining import KEYS, Joining, _end, _Queue, _Turn


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


def test_one_who_is_interrupted_at_any_moment_keeps_nobody() -> None:
    moments = next(moment for moment in count(1) if not keeps_nobody_interrupted_at(moment))
    assert moments > 20


def keeps_nobody_interrupted_at(moment: int) -> bool:
    """Check it for one who leads another while a third comes; whether he was at work for so long."""
    joining: Joining[int, int] = Joining()
    queue = joining._queues["key"] = _Queue()
    came, comes = _Turn[int, int](1), _Turn[int, int](2)
    queue.waiting.append(came)

    def double(numbers: Sequence[int]) -> list[int]:
        queue.waiting.append(comes)
        return [2 * number for number in numbers]

    was_interrupted = raised_at(moment, lambda: joining.do("key", 3, double, int))
    left = list(queue.waiting)
    assert left in ([came], [], [comes]), f"{moment}: only those wait who still want something"
    assert came in left or came.wake.qsize(), f"{moment}: whom he led goes on"
    assert comes not in left or comes.wake.qsize(), f"{moment}: the next one looks whether somebody works"
    with queue._work_now:
        pass
    assert was_interrupted or came.results == [2]
    return was_interrupted


def raised_at(moment: int, work: Callable[[], object]) -> bool:
    """Do the work, and raise at this one of the moments within `joining` at which Python runs handlers of signals.

    These are the beginning of a function, the end of a call into C, a jump back in a loop. Whether there was such one.
    """
    moments = count(1)

    def look(frame: FrameType) -> None:
        if frame.f_code.co_filename == joining_module.__file__ and next(moments) == moment:
            sys.setprofile(None)
            sys.settrace(None)
            raise KeyboardInterrupt

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return"):
            look(frame)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode" and opname[frame.f_code.co_code[frame.f_lasti]] == "JUMP_BACKWARD":
            look(frame)
        return trace

    before = sys.getprofile(), sys.gettrace()
    try:
        sys.settrace(trace)
        sys.setprofile(profile)
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before[0])
        sys.settrace(before[1])
    return False


def test_one_whose_leader_was_interrupted_leads_nobody_else(work: Work) -> None:
    queue = work.joining._queues["key"] = _Queue()
    with ThreadPoolExecutor(1) as pool:
        with queue._work_now:
            led = pool.submit(work, 1)
            work.wait_for(1)
            turn = queue.waiting.popleft()  # and here an interrupt comes
        queue.waiting.append(other := _Turn(2))
        turn.wake.put(None)
        while turn.wake.qsize():
            pass
        _end([turn])
        assert led.result(60) == 2
    assert work.alone == [1]
    assert (list(queue.waiting), other.wake.qsize()) == ([other], 1)


def test_who_comes_again_while_he_works_does_not_wait_for_himself(work: Work) -> None:
    def twice(numbers: Sequence[int]) -> list[int]:
        return [work.joining.do("key", 2, lambda inner: [2 * number for number in inner], int)] * len(numbers)

    assert work.joining.do("key", 1, twice, int) == 4


def test_keys_are_forgotten_when_there_are_many(work: Work) -> None:
    for number in range(3 * KEYS):
        work.joining.do(number, number, lambda numbers: numbers, lambda number: number)
    assert len(work.joining._queues) <= KEYS

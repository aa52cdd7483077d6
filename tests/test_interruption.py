"""An exception out of a signal's handler, as Ctrl-C and time limits raise it, at any moment: the history goes on."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

import pytest
from stores import ALL, DURABLE, Store, on

from chat_history import ChatHistory
from chat_history.backends.turns import Places
from chat_history.testing import check_chat, say

TIMES = 50
HELLO = say("user", "Hello!")


class Interrupted(Exception):  # noqa: N818
    """Like a time limit's: a program may well go on after it."""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupted(work: Callable[[], object], seconds: float) -> None:
    """Do work again and again until it is interrupted."""
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.25)  # again, as what comes in a `__del__` is swallowed
        while True:
            work()
    except Interrupted:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def add(history: ChatHistory) -> Any:
    return lambda: history.add_message("c", HELLO)


def add_and_delete(history: ChatHistory) -> Any:
    def work() -> None:
        history.add_messages("c", [HELLO] * 3)
        history.get_chat_history("c")
        history.delete_last_message("c")

    return work


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@on(*ALL)
@pytest.mark.parametrize("begin", [add, add_and_delete])
def test_a_history_goes_on_after_any_interrupt(store: Store, begin: Callable[[ChatHistory], Any]) -> None:
    delays = random.Random(store.kind)
    with store.open() as history:
        for number in range(TIMES):
            interrupted(begin(history), delays.uniform(0.0005, 0.01))
            history.add_message("c", say("user", f"after {number}"))
            # A server may still be at what was interrupted, and end with it later.
            assert f"after {number}" in [message.text for message in history.get_messages("c", limit=5)]
            if number % 25 == 0:
                check_chat(history, "c")
        check_chat(history, "c")
        kept = [message.text for message in history.iter_messages("c") if message.text.startswith("after")]
        assert kept == [f"after {number}" for number in range(TIMES)]
        if store.kind in DURABLE:  # also another process, whose locks are others
            with store.open() as other:
                other.add_message("c", HELLO)
                assert check_chat(other, "c") == check_chat(history, "c")


def test_a_place_that_an_interrupt_left_is_free() -> None:
    places = Places()
    turn, now = places.turn(10), places.turn(0)

    def take() -> None:
        with turn:
            pass

    for _ in range(300):
        interrupted(take, random.uniform(0.0001, 0.001))
        with now, pytest.raises(Empty), now:
            pass

"""What every backend promises, as tests: subclass `Conformance` and yours is tested as ours are.

Needs pytest. `pytest.register_assert_rewrite("chat_history.testing")` before the import makes failures speak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chat_history.backends.base import Backend
from chat_history.history import ChatHistory

from .adding import Adding
from .branching import Branching
from .changing import Changing
from .chats import Chats
from .checks import Reopen, check_chat, say, says
from .contents import BigContents, KeptContents
from .opening import Opening
from .owners import Owners
from .primitives import Primitives
from .reading import Reading
from .refusing import Refusing
from .saves import Saving
from .searching import Searching
from .threads import Threads
from .versions import Versions

__all__ = ["Conformance", "KeptContents", "check_chat", "say"]


class Conformance(
    Adding,
    Versions,
    Saving,
    Reading,
    Searching,
    Changing,
    BigContents,
    Branching,
    Chats,
    Owners,
    Opening,
    Refusing,
    Primitives,
    Threads,
):
    """The promises of a backend.

    A subclass says how to open a store that is new for each test; each further call opens the same one again, as
    another process would::

        class TestMyBackend(Conformance):
            @pytest.fixture
            def open_backend(self, tmp_path):
                return lambda: MyBackend(tmp_path / "store")

    One that keeps big contents beside the messages (`keeps_contents`) is a subclass of `KeptContents` too.
    """

    @pytest.fixture
    def open_backend(self) -> Callable[[], Backend]:
        raise NotImplementedError("a subclass of Conformance has a fixture open_backend; see its docstring")

    @pytest.fixture
    def in_memory(self) -> bool:
        """Whether the store is gone when it is closed. Such a store cannot be opened twice."""
        return False

    @pytest.fixture
    def reopen(self, open_backend: Callable[[], Backend], in_memory: bool) -> Iterator[Reopen]:
        """Opens the same store once more: what the others remember does not help it."""
        backends: list[Backend] = []

        def again() -> ChatHistory:
            if not (in_memory and backends):
                backends.append(open_backend())
            return ChatHistory(backends[-1])

        yield again
        for backend in backends:
            backend.close()

    @pytest.fixture
    def history(self, reopen: Reopen) -> ChatHistory:
        return reopen()

    @pytest.fixture
    def backend(self, history: ChatHistory) -> Backend:
        return history._backend()

    @pytest.fixture
    def two(self, history: ChatHistory) -> ChatHistory:
        """A history whose chat "c" holds "a" and "b", by the ids "0" and "1"."""
        history.add_messages("c", says("a", "b"), message_ids=["0", "1"])
        return history

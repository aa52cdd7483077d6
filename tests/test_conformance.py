"""What `chat_history.testing` asks of any backend, asked of ours."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from stores import ALL, SCALED, Store, on

from chat_history import ChatHistory
from chat_history.backends.base import Backend
from chat_history.testing import Conformance, KeptContents
from chat_history.testing.calls import CALLS


@on(*ALL, *SCALED)
class TestEveryBackend(Conformance, KeptContents):
    @pytest.fixture
    def open_backend(self, store: Store) -> Callable[[], Backend]:
        return store.backend

    @pytest.fixture
    def in_memory(self, store: Store) -> bool:
        return store.in_memory


def test_every_public_call_is_among_those_that_are_tested_of_all() -> None:
    public = {name for name in dir(ChatHistory) if name[0] != "_" and callable(getattr(ChatHistory, name))}
    assert {re.split(r"\W", name)[0] for name in CALLS} == public - {"to_async", "shutdown"}

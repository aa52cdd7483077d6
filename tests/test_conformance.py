"""What `chat_history.testing` asks of any backend, asked of ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stores import ALL, SCALED, Store, on

from chat_history.backends.base import Backend
from chat_history.testing import Conformance, KeptContents


@on(*ALL, *SCALED)
class TestEveryBackend(Conformance, KeptContents):
    @pytest.fixture
    def open_backend(self, store: Store) -> Callable[[], Backend]:
        return store.backend

    @pytest.fixture
    def in_memory(self, store: Store) -> bool:
        return store.in_memory

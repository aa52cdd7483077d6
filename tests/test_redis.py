"""A backend that is not ours: docs/examples/redis_backend.py promises what `chat_history.testing` asks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from chat_history.backends.base import Backend
from chat_history.testing import Conformance

sys.path.append(str(Path(__file__).parent.parent / "docs" / "examples"))
from redis_backend import RedisBackend


@pytest.fixture
def open_backend(redis_url: str) -> Callable[[], Backend]:
    prefix = uuid4().hex
    return lambda: RedisBackend(redis_url, prefix=prefix)


class TestRedis(Conformance):
    @pytest.fixture
    def open_backend(self, open_backend: Callable[[], Backend]) -> Callable[[], Backend]:
        return open_backend

"""A backend that is not ours: docs/examples/redis_backend.py promises what `chat_history.testing` asks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from chat_history import ChatHistory, open_history, reopen_history
from chat_history.errors import HistoryClosedError, StorageError, StoreUnavailableError
from chat_history.testing import Conformance, check_chat, say

EXAMPLES = str(Path(__file__).parent.parent / "docs" / "examples")
sys.path.append(EXAMPLES)
from redis_backend import RedisBackend  # noqa: E402


@pytest.fixture
def open_backend(redis_url: str) -> Callable[..., RedisBackend]:
    prefix = uuid4().hex
    return lambda **options: RedisBackend(redis_url, prefix=prefix, **options)


@pytest.fixture
def history(open_backend: Callable[..., RedisBackend]) -> Any:
    with ChatHistory(open_backend()) as history:
        yield history


class TestRedis(Conformance):
    @pytest.fixture
    def open_backend(self, open_backend: Callable[..., RedisBackend]) -> Callable[..., RedisBackend]:
        return open_backend


def test_two_processes_that_write_to_one_chat_lose_nothing(open_backend: Callable[..., RedisBackend]) -> None:
    histories = [ChatHistory(open_backend()) for _ in range(2)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: histories[number % 2].add_message("c", say("user", str(number))), range(90)))
    assert [message.position for message in check_chat(histories[0], "c")] == list(range(90))
    assert {message["content"] for message in histories[1].get_chat_history("c")} == set(map(str, range(90)))
    for history in histories:
        history.shutdown()


def test_a_reader_sees_the_chat_before_or_after_a_write(
    history: ChatHistory, open_backend: Callable[..., RedisBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = ([say("user", letter)] * 1200 for letter in "ab")
    history.set_messages("c", before)
    look, looks = RedisBackend._messages, []

    def look_and_be_overtaken(self: RedisBackend, *where: Any) -> Any:
        seen = look(self, *where)
        looks.append(seen)
        if len(looks) == 1:
            history.set_messages("c", after)
        return seen

    with ChatHistory(open_backend()) as reader:
        monkeypatch.setattr(RedisBackend, "_messages", look_and_be_overtaken)
        assert reader.get_chat_history("c") == after


@pytest.mark.parametrize(
    ("reads", "overtakes", "call", "expected"),
    [
        ("_altered", lambda other: other.delete_oldest_messages("c", 2), lambda it: it.delete_message("c", "a"), False),
        ("_altered", lambda other: other.delete_chat_history("c"), lambda it: it.archive_oldest_messages("c", 1), []),
        ("_records", lambda other: other.delete_chat_history("c"), lambda it: it.get_all_chat_ids(), []),
        ("_records", lambda other: other.delete_chat_history("c"), lambda it: list(it.list_chats()), []),
    ],
)
def test_what_others_delete_between_two_reads_of_a_call_was_deleted_before_it(
    history: ChatHistory,
    open_backend: Callable[..., RedisBackend],
    monkeypatch: pytest.MonkeyPatch,
    reads: str,
    overtakes: Callable[[ChatHistory], Any],
    call: Callable[[ChatHistory], Any],
    expected: Any,
) -> None:
    history.add_messages("c", [say("user", "a"), say("user", "b")], message_ids=["a", "b"])
    look, looks = getattr(RedisBackend, reads), []

    def be_overtaken_and_look(self: RedisBackend, *where: Any) -> Any:
        looks.append(where)
        if len(looks) == 1:
            overtakes(other)
        return look(self, *where)

    with ChatHistory(open_backend()) as other:
        monkeypatch.setattr(RedisBackend, reads, be_overtaken_and_look)
        assert call(history) == expected


def test_a_part_that_is_missing_is_named(history: ChatHistory, redis_url: str) -> None:
    history.add_message("c", say("user", "a"))
    backend: Any = history._backend()
    with redis.Redis.from_url(redis_url) as other:
        assert other.delete(*other.keys(f"{backend.settings['prefix']}:chat:*")) == 1
    with pytest.raises(StorageError, match="missing"):
        history.list_chats()


@pytest.mark.parametrize("count", [1, 3])
def test_a_write_whose_answer_was_lost_happened_once(
    history: ChatHistory, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    execute = redis.client.Pipeline.execute
    lost = []

    def losing(self: Any, *args: Any) -> Any:
        done = execute(self, *args)
        if not lost:
            lost.append(done)
            # What redis-py makes of a connection that is lost during a transaction.
            raise redis.WatchError
        return done

    history.add_message("c", say("user", "before"))
    monkeypatch.setattr(redis.client.Pipeline, "execute", losing)
    stored = history.add_messages("c", [say("user", "lost")] * count)
    assert lost
    assert check_chat(history, "c")[1:] == stored


def test_a_server_that_would_forget_is_refused(redis_url: str, open_backend: Callable[..., RedisBackend]) -> None:
    with redis.Redis.from_url(redis_url) as other:
        other.config_set("appendfsync", "everysec")
        try:
            with pytest.raises(StorageError, match="durability"):
                open_backend()
            open_backend(durability="relaxed").close()
        finally:
            other.config_set("appendfsync", "always")


def test_errors_are_ours_and_hide_the_password(open_backend: Callable[..., RedisBackend]) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        RedisBackend("redis://ann:correct-horse@127.0.0.1:1/0?password=correct-horse")
    assert "redis://127.0.0.1:1/0" in str(caught.value)
    assert "correct-horse" not in str(caught.value)
    backend = open_backend()
    backend.close()
    with pytest.raises(HistoryClosedError):
        backend.owners()


def test_settings_open_it_again(history: ChatHistory) -> None:
    history.add_message("c", say("user", "a"))
    with reopen_history(history.settings) as again:
        assert again.get_chat_history("c") == history.get_chat_history("c")


def test_installed_it_is_chosen_by_name_and_by_url(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "chat_history_redis-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: chat-history-redis\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[chat_history.backends]\nredis = redis_backend:RedisBackend\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    chat = uuid4().hex
    with open_history(redis_url, user_id=chat) as by_url:
        by_url.add_message(chat, say("user", "a"))
    for config in ({"backend": "redis", "url": redis_url}, {"url": redis_url, "timeout": 5.0}):
        with open_history({**config, "user_id": chat}) as again:
            assert again.get_chat_history(chat) == [say("user", "a")]

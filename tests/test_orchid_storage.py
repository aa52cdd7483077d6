"""Orchid keeps its sessions in a history: made by its own factory, driven by its own invoker, and after a restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from stores import DURABLE, Store, on

from chat_history import ChatNotFoundError, HistoryClosedError, InvalidArgumentError, InvalidMessageError

pytest.importorskip("orchid_ai")
pytestmark = pytest.mark.filterwarnings("ignore")  # of what Orchid imports

from langgraph.graph import END, START, StateGraph  # noqa: E402
from orchid_ai.core.state import OrchidAuthContext  # noqa: E402
from orchid_ai.orchid.invoker import OrchidInvoker  # noqa: E402
from orchid_ai.persistence.factory import build_chat_storage  # noqa: E402
from orchid_ai.persistence.in_memory import OrchidInMemoryChatStorage  # noqa: E402

from chat_history_adapters.stores.orchid import OrchidHistoryStorage  # noqa: E402

T = TypeVar("T")
CLASS = "chat_history_adapters.stores.orchid.OrchidHistoryStorage"


def dsn(store: Store) -> str:
    if store.kind == "postgres":
        return store.place
    return f"{store.kind}:///{store.place}"


def on_storage(store: Store, work: Callable[[Any], Awaitable[T]], **options: Any) -> T:
    """Work on a storage that is opened for it, as a process of its own would."""

    async def opened() -> T:
        storage = build_chat_storage(CLASS, dsn(store), **options)
        await storage.init_db()
        try:
            return await work(storage)
        finally:
            await storage.close()

    return asyncio.run(opened())


def graph() -> Any:
    """Says how many messages it was given."""

    def answer(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "final_response": f"{len(state['messages'])} messages", "active_agents": ["counter"]}

    builder = StateGraph(dict)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder.compile()


@on(*DURABLE)
def test_orchid_goes_on_after_a_restart(store: Store) -> None:
    compiled = graph()

    async def first(storage: Any) -> str:
        result = await OrchidInvoker(compiled, storage).invoke(
            "Hello!", user_id="ann", tenant_id=store.schema or "acme"
        )
        assert result.response == "1 messages"
        return result.chat_id

    chat_id = on_storage(store, first)

    async def second(storage: Any) -> None:
        result = await OrchidInvoker(compiled, storage).invoke("And?", chat_id=chat_id, user_id="ann")
        assert result.response == "3 messages"
        messages = await storage.get_messages(chat_id)
        assert [(each.role, each.content, each.agents_used) for each in messages] == [
            *(("user", "Hello!", []), ("assistant", "1 messages", ["counter"])),
            *(("user", "And?", []), ("assistant", "3 messages", ["counter"])),
        ]
        assert len({each.id for each in messages}) == 4
        session = await storage.get_chat(chat_id)
        assert (session.id, session.user_id, session.title) == (chat_id, "ann", "Hello!")

    on_storage(store, second)


@on(*DURABLE)
def test_sessions_are_as_those_of_orchids_own_storage(store: Store) -> None:
    async def told(storage: Any) -> list[Any]:
        tenant = store.schema or "acme"
        one = await storage.create_chat(tenant, "ann")
        two = await storage.create_chat(tenant, "ann", "Rome")
        other = await storage.create_chat(tenant, "bob", "Oslo")
        await storage.add_message(one.id, "user", "Hi", metadata={"a": [1]})
        await storage.update_title(two.id, "Roma")
        await storage.mark_shared(other.id)
        await storage.save_conversation_summary(two.id, "Little was said.", 1)
        await storage.save_conversation_summary(two.id, "Much was said.", 2)
        await storage.delete_chat(other.id)
        await storage.add_message(one.id, "assistant", "", agents_used=["a"])
        for silent in (storage.delete_chat, storage.mark_shared):
            await silent("nobody")
        await storage.update_title("nobody", "?")
        listed = [await storage.list_chats(tenant, user) for user in ("ann", "bob", "eve")]
        messages = await storage.get_messages(one.id)
        return [
            [[(each.title, each.is_shared, each.user_id) for each in chats] for chats in listed],
            [(each.role, each.content, each.agents_used, each.metadata) for each in messages],
            [
                len(await storage.get_messages(one.id, limit, offset))
                for limit, offset in ((1, 0), (5, 1), (5, 2), (0, 0))
            ],
            [await storage.get_conversation_summary(each) for each in (one.id, two.id, other.id, "nobody")],
            [await storage.get_chat(each) for each in (other.id, "nobody", "")],
            await storage.get_messages(other.id),
            [message.created_at.tzinfo for message in messages],
        ]

    assert on_storage(store, told) == asyncio.run(told(OrchidInMemoryChatStorage(dsn="")))


@on(*DURABLE)
def test_what_was_said_comes_back_as_it_was(store: Store) -> None:
    said = ["a\0b", "half \ud83d of a pair", " \n", "", "é 漢字 🎉", "long " * 300_000]

    async def work(storage: Any) -> None:
        chat = await storage.create_chat(store.schema or "acme", "ann")
        for content in said:
            assert (await storage.add_message(chat.id, "user", content)).content == content
        assert [message.content for message in await storage.get_messages(chat.id)] == said

    on_storage(store, work)


@on(*DURABLE)
def test_a_session_begins_whatever_is_in_the_first_question(store: Store) -> None:
    question = "What is \0 and \ud83d?"

    async def work(storage: Any) -> None:
        asked = await OrchidInvoker(graph(), storage).invoke(question, user_id="ann", tenant_id=store.schema or "acme")
        session = await storage.get_chat(asked.chat_id)
        assert session.title == "What is \ufffd and \ufffd?"
        await storage.update_title(asked.chat_id, "NUL: \0")
        assert (await storage.get_chat(asked.chat_id)).title == "NUL: \ufffd"
        assert (await storage.get_messages(asked.chat_id))[0].content == question

    on_storage(store, work)


@on(*DURABLE)
def test_no_message_is_without_its_session(store: Store) -> None:
    async def work(storage: Any) -> None:
        chat = await storage.create_chat(store.schema or "acme", "ann")
        await storage.delete_chat(chat.id)
        for chat_id in (chat.id, "unknown", ""):
            with pytest.raises(ChatNotFoundError):
                await storage.add_message(chat_id, "user", "Hello!")
        await storage.save_conversation_summary(chat.id, "Nothing was said.", 1)
        assert await storage.list_chats(store.schema or "acme", "ann") == []
        chat = await storage.create_chat(store.schema or "acme", "ann")
        with pytest.raises(InvalidMessageError):
            await storage.add_message(chat.id, None, "Hello!")

        async def add() -> None:
            while True:
                await storage.add_message(chat.id, "user", "Hello!")

        async def delete() -> None:
            while len(await storage.get_messages(chat.id)) < 5:
                pass
            await storage.delete_chat(chat.id)

        ended = await asyncio.gather(add(), add(), delete(), return_exceptions=True)
        assert [type(each) for each in ended] == [ChatNotFoundError, ChatNotFoundError, type(None)]
        assert await storage.list_chats(store.schema or "acme", "ann") == []

    on_storage(store, work)


@on(*DURABLE)
def test_tasks_at_once_on_one_session_lose_nothing(store: Store) -> None:
    async def work(storage: Any) -> None:
        chat = await storage.create_chat(store.schema or "acme", "ann")

        async def add(name: str) -> None:
            for number in range(10):
                await storage.add_message(chat.id, "user", f"{name}{number}")

        await asyncio.gather(*map(add, "abcd"))
        said = [each.content for each in await storage.get_messages(chat.id, limit=1000)]
        assert sorted(said) == sorted(f"{name}{number}" for name in "abcd" for number in range(10))
        for name in "abcd":
            assert [text for text in said if text[0] == name] == [f"{name}{number}" for number in range(10)]

    on_storage(store, work)


@on(*DURABLE)
def test_sessions_that_are_written_to_while_they_are_listed_are_all_listed(store: Store) -> None:
    tenant = store.schema or "acme"

    async def work(storage: Any) -> None:
        ids = [(await storage.create_chat(tenant, "ann")).id for _ in range(220)]

        async def write() -> None:
            for _ in range(30):
                for chat_id in ids[:4]:
                    await storage.add_message(chat_id, "user", "Hello!")

        writing = asyncio.create_task(write())
        while not writing.done():
            assert {chat.id for chat in await storage.list_chats(tenant, "ann")} == set(ids)
        await writing

    on_storage(store, work)


@on("json", "sqlite")
def test_another_framework_goes_on_with_a_session_and_orchid_with_its_chat(store: Store) -> None:
    async def begin(storage: Any) -> None:
        chat = await storage.create_chat("acme", "ann", "Rome")
        await storage.add_message(chat.id, "user", "Hello!", agents_used=["a"])

    on_storage(store, begin)
    with store.open() as history:
        mine = history.for_user("ann", tenant_id="acme")
        [name] = mine.get_all_chat_ids()
        assert mine.get_chat_history(name) == [{"role": "user", "content": "Hello!"}]
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        mine.add_messages(
            name,
            [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "42"},
                {"role": "assistant", "content": "It is 42."},
            ],
        )

    async def go_on(storage: Any) -> list[str]:
        [chat] = await storage.list_chats("acme", "ann")
        return [each.content for each in await storage.get_messages(chat.id)]

    assert on_storage(store, go_on) == ["Hello!", "It is 42."]


@on("sqlite")
def test_what_another_may_write_is_for_orchid_to_say(store: Store) -> None:
    async def work(storage: Any) -> list[bool]:
        chat = await storage.get_chat_metadata((await storage.create_chat("acme", "ann")).id)
        people = [("acme", "ann"), ("acme", "bob"), ("other", "ann")]
        return [
            await storage.can_write(chat, OrchidAuthContext(access_token="", tenant_key=tenant, user_id=user))
            for tenant, user in people
        ]

    assert on_storage(store, work) == [True, False, False]


@on("sqlite")
def test_order_and_times_are_right_whatever_the_zone_of_the_server_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")

    async def work(storage: Any) -> datetime:
        chat = await storage.create_chat("acme", "ann")
        return (await storage.add_message(chat.id, "user", "Hello!")).created_at  # type: ignore[no-any-return]

    assert abs(on_storage(store, work) - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)


@on("sqlite")
def test_the_integrators_migrations_run_after_ours(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "orchid_extra"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "v001_notes.py").write_text(
        "VERSION = 1\n"
        "def up(conn, *, dialect):\n    conn.execute('CREATE TABLE notes (chat_key BLOB)')\n"
        "def down(conn, *, dialect):\n    conn.execute('DROP TABLE notes')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    async def nothing(storage: Any) -> None: ...

    on_storage(store, nothing, extra_migrations_package="orchid_extra")
    with closing(sqlite3.connect(store.place)) as connection:
        assert connection.execute("SELECT * FROM notes").fetchall() == []


def test_a_path_is_a_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "orchid.db"

    async def work() -> None:
        storage = OrchidHistoryStorage(dsn=str(path))
        with pytest.raises(HistoryClosedError, match="init_db"):
            await storage.list_chats("acme", "ann")
        await storage.init_db()
        await storage.init_db()
        await storage.create_chat("acme", "ann")
        await storage.close()
        await storage.close()

    asyncio.run(work())
    assert path.exists()
    with pytest.raises(InvalidArgumentError, match="dsn"):
        OrchidHistoryStorage(dsn="")

"""LlamaIndex keeps its messages in a history: in its own memories, with its own agent, and after a restart."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from stores import ALL, DURABLE, Store, on

from chat_history import (
    ChatHistory,
    ConfigError,
    ConversionWarning,
    HistoryClosedError,
    InvalidArgumentError,
    InvalidMessageError,
    open_history,
)
from chat_history.testing import check_chat

pytest.importorskip("llama_index.core")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of LlamaIndex's own

import fsspec  # noqa: E402
from llama_index.core.agent.workflow import FunctionAgent  # noqa: E402
from llama_index.core.base.llms.types import (  # noqa: E402
    ChatMessage,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.mock import MockFunctionCallingLLM  # noqa: E402
from llama_index.core.memory import ChatMemoryBuffer, Memory, StaticMemoryBlock  # noqa: E402
from llama_index.core.storage.chat_store import SimpleChatStore  # noqa: E402
from llama_index.core.storage.chat_store.base_db import MessageStatus  # noqa: E402
from llama_index.core.storage.chat_store.loading import load_chat_store  # noqa: E402
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore  # noqa: E402
from llama_index.core.workflow import Context, JsonSerializer  # noqa: E402

from chat_history_adapters.stores.llama_index import LlamaIndexChatStore, LlamaIndexDBChatStore  # noqa: E402

ACTIVE, ARCHIVED = MessageStatus.ACTIVE, MessageStatus.ARCHIVED


@pytest.fixture
def history(store: Store) -> Iterator[ChatHistory]:
    with store.open() as history:
        yield history


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def answer(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def users(*texts: str) -> list[ChatMessage]:
    return [user(text) for text in texts]


def contents(messages: Sequence[ChatMessage] | None) -> list[str | None]:
    assert messages is not None
    return [message.content for message in messages]


def buffer(store: Any, limit: int = 10_000) -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(
        chat_store=store, chat_store_key="c", token_limit=limit, tokenizer_fn=str.split
    )


def memory(store: Any, limit: int = 10_000, **options: Any) -> Memory:
    return Memory.from_defaults(session_id="c", chat_store=store, token_limit=limit, tokenizer_fn=str.split, **options)


# ---- as the stores of LlamaIndex itself


def any_change(random: Random) -> tuple[str, Any]:
    """A call of a chat store, and its arguments."""
    key = random.choice("ab")
    place = random.randint(-2, 6)
    text = str(random.random())
    return random.choice(
        [
            ("add_message", (key, user(text))),
            ("add_message", (key, answer("again"))),
            ("add_message", (key, user(text), abs(place))),
            ("add_message", (key, user(text), place)),
            ("set_messages", (key, users(text, "again", "again"))),
            ("set_messages", (key, [])),
            ("delete_messages", (key,)),
            ("delete_message", (key, abs(place))),
            ("delete_last_message", (key,)),
        ]
    )


@on(*DURABLE)
def test_any_calls_do_what_they_do_in_a_simple_chat_store(store: Store, history: ChatHistory) -> None:
    random = Random(7)
    theirs, ours = SimpleChatStore(), LlamaIndexChatStore(history)
    for _ in range(150):
        name, arguments = any_change(random)
        if name == "delete_last_message" and not theirs.get_messages(arguments[0]):
            assert ours.delete_last_message(arguments[0]) is None  # theirs raises for a chat without messages
            continue
        expected = getattr(theirs, name)(*copy.deepcopy(arguments))
        assert getattr(ours, name)(*arguments) == expected
        assert sorted(ours.get_keys()) == sorted(theirs.get_keys())
        for key in "ab":
            assert ours.get_messages(key) == theirs.get_messages(key)
    for key in ours.get_keys():
        check_chat(history, key)


@on(*DURABLE)
def test_awaited_calls_do_the_same(store: Store, history: ChatHistory) -> None:
    names = {"add_message": "async_add_message"}

    async def use() -> None:
        random = Random(8)
        theirs, ours = SimpleChatStore(), LlamaIndexChatStore(history)
        for _ in range(60):
            name, arguments = any_change(random)
            if name != "delete_last_message" or theirs.get_messages(arguments[0]):
                expected = getattr(theirs, name)(*copy.deepcopy(arguments))
                assert await getattr(ours, names.get(name, f"a{name}"))(*arguments) == expected
            assert sorted(await ours.aget_keys()) == sorted(theirs.get_keys())
            assert await ours.aget_messages("a") == theirs.get_messages("a")

    asyncio.run(use())


@on(*ALL)
def test_any_calls_do_what_they_do_in_an_sqlalchemy_chat_store(store: Store, history: ChatHistory) -> None:
    async def use() -> None:
        random = Random(9)
        theirs, ours = SQLAlchemyChatStore(table_name="t"), LlamaIndexDBChatStore(history)
        for _ in range(80):
            text, n = str(random.random()), random.randint(0, 3)
            name, *arguments = random.choice(
                [
                    ("add_message", user(text)),
                    ("add_message", answer("again"), ACTIVE),
                    ("add_messages", users(text, "again", "again")),
                    ("set_messages", users(text, "again")),
                    ("delete_messages", random.choice([None, ACTIVE, ARCHIVED])),
                    ("delete_oldest_messages", n),
                    ("archive_oldest_messages", n),
                    ("archive_oldest_messages", n),
                ]
            )
            expected = await getattr(theirs, name)("c", *arguments)
            assert await getattr(ours, name)("c", *arguments) == expected
            for status in (ACTIVE, ARCHIVED, None):
                assert await ours.get_messages("c", status) == await theirs.get_messages("c", status)
                assert await ours.count_messages("c", status) == await theirs.count_messages("c", status)
            part = {"limit": n, "offset": random.randint(0, 3)}
            assert await ours.get_messages("c", **part) == await theirs.get_messages("c", **part)
        assert await ours.get_messages("c") == await ours.get_messages("c", limit=99, offset=None)
        await theirs._async_engine.dispose()

    asyncio.run(use())
    check_chat(history, "c")


@on(*DURABLE)
def test_every_kind_of_block_comes_back_equal(store: Store, history: ChatHistory) -> None:
    messages = [
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", blocks=[TextBlock(text="Look"), ImageBlock(url="https://e.com/a.png")]),
        ChatMessage(
            role="assistant",
            blocks=[
                ThinkingBlock(content="Hm."),
                ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs={"a": [1]}),
            ],
        ),
        ChatMessage(role="tool", content="é 漢字 \U0001f600", additional_kwargs={"tool_call_id": "1"}),
        ChatMessage(role="assistant", blocks=[]),
    ]
    LlamaIndexChatStore(history).set_messages("c", messages)
    with store.open() as again:
        assert LlamaIndexChatStore(again).get_messages("c") == messages
        assert asyncio.run(LlamaIndexDBChatStore(again).get_messages("c")) == messages


@on("sqlite")
def test_what_was_read_is_the_callers_own(store: Store, history: ChatHistory) -> None:
    chats = LlamaIndexChatStore(history)
    chats.set_messages("c", users("a", "b"))
    messages = chats.get_messages("c")
    messages[0].blocks[0].text = "changed"
    messages.clear()
    assert contents(chats.get_messages("c")) == ["a", "b"]


# ---- statuses


@on(*DURABLE)
def test_archived_messages_are_out_of_the_window_and_still_of_the_chat(store: Store, history: ChatHistory) -> None:
    async def use() -> None:
        chats = LlamaIndexDBChatStore(history)
        await chats.add_messages("c", users("c", "d"))
        await chats.add_messages("c", users("a", "b"), status=ARCHIVED)
        await chats.add_message("c", user("e"))
        assert contents(await chats.get_messages("c")) == ["c", "d", "e"]
        assert contents(await chats.get_messages("c", ARCHIVED)) == ["a", "b"]
        assert contents(await chats.get_messages("c", None)) == ["a", "b", "c", "d", "e"]
        assert contents(await chats.get_messages("c", None, limit=2, offset=1)) == ["b", "c"]
        assert await chats.count_messages("c", None) == 5
        assert contents(await chats.archive_oldest_messages("c", 1)) == ["c"]
        assert (await chats.delete_message("c", 0)).content == "d"
        assert await chats.delete_message("c", 1) is None
        await chats.set_messages("c", users("x"), status=ARCHIVED)
        assert (
            contents(await chats.get_messages("c", None)) == contents(await chats.get_messages("c", ARCHIVED)) == ["x"]
        )
        await chats.delete_messages("c", ARCHIVED)
        assert await chats.count_messages("c", None) == 0

    asyncio.run(use())
    check_chat(history, "c")


@on(*ALL)
def test_adding_nothing_is_harmless(store: Store, history: ChatHistory) -> None:
    async def use() -> None:
        chats = LlamaIndexDBChatStore(history)
        for status in (ACTIVE, ARCHIVED):
            await chats.add_messages("c", [], status)
        assert await chats.get_keys() == []
        await chats.add_message("c", user("a"))
        for status in (ACTIVE, ARCHIVED):
            await chats.add_messages("c", [], status)
        assert await chats.archive_oldest_messages("c", 0) == await chats.delete_oldest_messages("c", 0) == []
        assert contents(await chats.get_messages("c")) == ["a"]
        await memory(chats).aput_messages([])

    asyncio.run(use())


@on(*ALL)
def test_a_system_prompt_that_was_archived_is_not_in_the_window(store: Store, history: ChatHistory) -> None:
    """`Memory` counts what it was given, and would archive one message too many."""

    async def use() -> None:
        chats = LlamaIndexDBChatStore(history)
        await chats.add_messages("c", [ChatMessage(role="system", content="s"), *users("a", "b")])
        await chats.archive_oldest_messages("c", 1)
        assert contents(await chats.get_messages("c")) == ["a", "b"]
        assert LlamaIndexChatStore(history).get_messages("c") == await chats.get_messages("c")

    asyncio.run(use())


# ---- all or nothing, and several writers


@on(*DURABLE)
def test_a_message_that_cannot_be_stored_leaves_the_chat_as_it_was(store: Store, history: ChatHistory) -> None:
    bad = ChatMessage(role="user", content="x", additional_kwargs={"function": object()})
    chats, db = LlamaIndexChatStore(history), LlamaIndexDBChatStore(history)
    chats.set_messages("c", users("a", "b"))
    with pytest.raises(InvalidMessageError):
        chats.set_messages("c", [user("x"), bad])
    with pytest.raises(InvalidMessageError):
        chats.add_message("c", bad, 0)
    for call in (db.set_messages, db.add_messages):
        for status in (ACTIVE, ARCHIVED):
            with pytest.raises(InvalidMessageError):
                asyncio.run(call("c", [user("x"), bad], status))
    assert contents(chats.get_messages("c")) == ["a", "b"]
    assert asyncio.run(db.count_messages("c", None)) == 2


@on(*DURABLE)
def test_a_reader_sees_the_messages_before_or_after_a_set_and_never_none(store: Store, history: ChatHistory) -> None:
    before, after = [f"before {n}" for n in range(20)], [f"after {n}" for n in range(20)]
    done = threading.Event()

    async def write() -> None:
        chats = LlamaIndexDBChatStore(history)
        await chats.set_messages("c", users(*before))
        await chats.archive_oldest_messages("c", 10)
        for texts in [after, before] * 8:
            await chats.set_messages("c", users(*texts))

    def read(seen: list[list[str | None]]) -> None:
        with store.open() as other:
            chats = LlamaIndexDBChatStore(other)
            while not done.is_set():
                seen.append(contents(asyncio.run(chats.get_messages("c", None))))

    seen: list[list[str | None]] = []
    reader = threading.Thread(target=read, args=[seen])
    LlamaIndexChatStore(history).set_messages("c", users(*before))
    reader.start()
    try:
        asyncio.run(write())
    finally:
        done.set()
        reader.join()
    assert seen
    assert all(texts in (before, after) for texts in seen)


async def together(*calls: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*calls)


@on(*DURABLE)
def test_two_tasks_at_once_lose_nothing(store: Store, history: ChatHistory) -> None:
    """Appends, insertions and deletions on one key, in two stores that know nothing of each other."""

    async def add(chats: LlamaIndexChatStore, who: str) -> None:
        for n in range(8):
            await chats.async_add_message("c", user(f"{who} {n}"), [None, 0, 3][n % 3])

    async def delete(chats: LlamaIndexChatStore) -> list[ChatMessage | None]:
        return [await chats.adelete_message("c", 1) for _ in range(4)]

    async def use(other: ChatHistory) -> None:
        one, two = LlamaIndexChatStore(history), LlamaIndexChatStore(other)
        await one.aset_messages("c", users(*[f"old {n}" for n in range(8)]))
        *_, gone, also_gone = await together(add(one, "a"), add(two, "b"), add(one, "c"), delete(one), delete(two))
        deleted = contents([message for message in gone + also_gone if message])
        left = contents(await two.aget_messages("c"))
        given = [f"old {n}" for n in range(8)] + [f"{who} {n}" for who in "abc" for n in range(8)]
        assert len(deleted) == 8
        assert sorted(deleted + left) == sorted(given)

    with store.open() as other:
        asyncio.run(use(other))
    check_chat(history, "c")


@on(*DURABLE)
def test_two_memories_at_once_lose_nothing(store: Store, history: ChatHistory) -> None:
    async def put(kept: Memory, who: str) -> None:
        for n in range(6):
            await kept.aput(user(f"{who} {n}"))

    async def use(other: ChatHistory) -> None:
        one, two = memory(LlamaIndexDBChatStore(history), 20), memory(LlamaIndexDBChatStore(other), 20)
        await together(put(one, "a"), put(two, "b"), put(one, "c"), put(two, "d"))
        everything = contents(await one.aget_all())
        assert sorted(everything) == sorted(f"{who} {n}" for who in "abcd" for n in range(6))
        for who in "abcd":
            assert [text for text in everything if text.startswith(who)] == [f"{who} {n}" for n in range(6)]
        assert await two.aget_all(ARCHIVED)

    with store.open() as other:
        asyncio.run(use(other))


@on("sqlite")
def test_the_loop_goes_on_while_a_call_waits(store: Store, history: ChatHistory) -> None:
    async def use() -> None:
        chats, db = LlamaIndexChatStore(history), LlamaIndexDBChatStore(history)
        await chats.aset_messages("c", users("a", "b", "c", "d"))
        with closing(sqlite3.connect(store.place, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [
                asyncio.ensure_future(call)
                for call in (
                    chats.async_add_message("c", user("x")),
                    chats.async_add_message("c", user("y"), 0),
                    chats.adelete_message("c", 1),
                    chats.adelete_last_message("c"),
                    db.add_message("c", user("z")),
                    db.archive_oldest_messages("c", 1),
                )
            ]
            await asyncio.sleep(0.2)
            assert not any(each.done() for each in waiting)
            other.execute("ROLLBACK")
        await asyncio.gather(*waiting)
        assert await db.count_messages("c", None) == 5

    asyncio.run(use())


# ---- LlamaIndex's memories


@on(*DURABLE)
def test_a_memory_buffer_keeps_its_messages_after_a_restart(store: Store) -> None:
    with store.open() as history:
        kept = buffer(LlamaIndexChatStore(history), limit=4)
        kept.set([user("one two"), answer("three four")])
        kept.put(user("five six"))
        asyncio.run(kept.aput(answer("seven")))
        assert contents(kept.get()) == ["five six", "seven"]
    with store.open() as history:
        kept = buffer(LlamaIndexChatStore(history), limit=4)
        assert contents(kept.get_all()) == ["one two", "three four", "five six", "seven"]
        assert contents(asyncio.run(kept.aget())) == ["five six", "seven"]
        kept.reset()
        assert kept.get_all() == []
        assert kept.chat_store.get_keys() == []


@on(*DURABLE)
def test_a_memory_archives_what_its_window_cannot_hold(store: Store) -> None:
    """The same as over LlamaIndex's own store, message by message, with a restart after each."""

    async def put(kept: Memory, number: int) -> list[list[str | None]]:
        await kept.aput(user(f"question {number} of four words"))
        await kept.aput_messages([answer(f"answer {number}"), answer("and more")])
        return [contents(await kept.aget_all(status)) for status in (ACTIVE, ARCHIVED, None)] + [
            contents(await kept.aget())
        ]

    async def expected() -> list[Any]:
        chats = SQLAlchemyChatStore(table_name="t")
        found = [await put(memory(chats, 30, token_flush_size=5, memory_blocks=blocks), number) for number in range(8)]
        await chats._async_engine.dispose()
        return found

    blocks = [StaticMemoryBlock(name="facts", static_content="The user is Ann.")]
    seen = []
    for number in range(8):
        with store.open() as history:
            kept = memory(LlamaIndexDBChatStore(history), 30, token_flush_size=5, memory_blocks=blocks)
            seen.append(asyncio.run(put(kept, number)))
    assert seen == asyncio.run(expected())
    assert seen[-1][1]
    with store.open() as history:
        kept = memory(LlamaIndexDBChatStore(history))
        assert contents(kept.get_all()) == seen[-1][2]
        kept.reset()
        assert kept.get_all() == []


# ---- LlamaIndex's agent


def weather(city: str) -> str:
    """The weather in a city."""
    return f"{city}: 20 degrees"


def script(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    """A model: asks the tool about two cities at once, then says what it was told, and how much it was given."""
    last = messages[-1]
    if last.role == "user" and "weather" in str(last.content):
        calls = [
            ToolCallBlock(tool_call_id=f"{len(messages)} {city}", tool_name="weather", tool_kwargs={"city": city})
            for city in ("Paris", "Rome")
        ]
        return ChatMessage(role="assistant", blocks=[TextBlock(text="Let me see."), *calls])
    told = [str(message.content) for message in messages if message.role == "tool"]
    return answer(f"{' and '.join(told)} ({len(messages)} messages)")


def agent() -> FunctionAgent:
    return FunctionAgent(
        tools=[weather], llm=MockFunctionCallingLLM(response_generator=script), system_prompt="Be brief."
    )


QUESTIONS = ["Hello!", "How is the weather?", "Thanks.", "The weather again?"]
MEMORIES = {
    "buffer": lambda history: buffer(LlamaIndexChatStore(history)),
    "memory": lambda history: memory(LlamaIndexDBChatStore(history)),
}


async def expected_of_an_agent() -> list[ChatMessage]:
    kept = buffer(SimpleChatStore())
    for question in QUESTIONS:
        await agent().run(question, memory=kept)
    return kept.get_all()


@pytest.mark.parametrize("kind", MEMORIES)
@on(*DURABLE)
def test_an_agent_goes_on_after_each_restart(store: Store, kind: str) -> None:
    async def ask(question: str) -> str:
        with store.open() as history:
            return str(await agent().run(question, memory=MEMORIES[kind](history)))

    answers = [asyncio.run(ask(question)) for question in QUESTIONS]
    assert answers[1] == "Paris: 20 degrees and Rome: 20 degrees (7 messages)"
    with store.open() as history:
        messages = LlamaIndexChatStore(history).get_messages("c")
        assert messages == asyncio.run(expected_of_an_agent())
        assert [stored.role for stored in check_chat(history, "c")] == [
            *["user", "assistant"],
            *["user", "assistant", "tool", "tool", "assistant"],
            *["user", "assistant"],
            *["user", "assistant", "tool", "tool", "assistant"],
        ]
        assert history.get_readable_chat_history("c")[-1]["message"] == answers[-1]
        assert len(history.get_message_history("c", "pydantic_ai")) == 12


@on(*DURABLE)
def test_agents_of_many_users_at_once_keep_to_their_own(store: Store, history: ChatHistory) -> None:
    async def talk(name: str) -> list[ChatMessage]:
        kept = memory(LlamaIndexDBChatStore(history.for_user(name)))
        for question in QUESTIONS[:2]:
            await agent().run(f"{question} I am {name}.", memory=kept)
        return await kept.aget()

    async def use() -> None:
        names = ["ann", "bob", "cy"]
        for name, messages in zip(names, await together(*map(talk, names)), strict=True):
            assert len(messages) == 7
            assert all(str(each.content).endswith(f"I am {name}.") for each in messages if each.role == "user")
        assert await LlamaIndexDBChatStore(history).get_keys() == []

    asyncio.run(use())


@on(*DURABLE)
def test_the_context_of_an_agent_is_saved_and_loaded_with_its_store(store: Store) -> None:
    async def begin(history: ChatHistory) -> str:
        context = Context(agent())
        await agent().run(QUESTIONS[1], ctx=context, memory=buffer(LlamaIndexChatStore(history)))
        return json.dumps(context.to_dict(serializer=JsonSerializer()))

    async def go_on(saved: str) -> str:
        context = Context.from_dict(agent(), json.loads(saved), serializer=JsonSerializer())
        return str(await agent().run(QUESTIONS[2], ctx=context))

    with store.open() as history:
        saved = asyncio.run(begin(history))
    assert "Paris" not in json.loads(saved)["state"]["state_data"]["_data"]["memory"]
    assert asyncio.run(go_on(saved)) == "Paris: 20 degrees and Rome: 20 degrees (7 messages)"
    with store.open() as history:
        assert len(LlamaIndexChatStore(history).get_messages("c")) == 7


@pytest.mark.filterwarnings("ignore:Skipping serialization")  # LlamaIndex's, of a Memory
@pytest.mark.parametrize("kind", MEMORIES)
@on(*DURABLE)
def test_the_context_of_an_agent_goes_on_with_the_memory_that_it_is_given_again(store: Store, kind: str) -> None:
    async def ask(question: str, saved: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
        with store.open() as history:
            context = Context.from_dict(agent(), saved) if saved else Context(agent())
            answered = await agent().run(question, ctx=context, memory=MEMORIES[kind](history))
            return str(answered), json.loads(json.dumps(context.to_dict()))

    _, saved = asyncio.run(ask(QUESTIONS[1], None))
    answered, _ = asyncio.run(ask(QUESTIONS[2], saved))
    assert answered == "Paris: 20 degrees and Rome: 20 degrees (7 messages)"
    with store.open() as history:
        assert history.get_message_count("c") == 7


# ---- chats that another framework began


def pydantic_run(history: ChatHistory, question: str) -> None:
    """A run of a Pydantic AI agent, whose first request holds a system prompt and the question."""
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    theirs = Agent(TestModel(custom_output_text="It is warm."), system_prompt="Be kind.")
    theirs.tool_plain(weather)
    result = asyncio.run(theirs.run(question, message_history=history.get_message_history("c")))
    history.save_messages("c", result.all_messages())


@pytest.mark.parametrize("kind", MEMORIES)
@on(*DURABLE)
def test_an_agent_goes_on_with_a_chat_of_another_framework(store: Store, history: ChatHistory, kind: str) -> None:
    pydantic_run(history, "And now?")
    before = list(history.get_messages("c"))
    assert len(before) == 4

    async def ask() -> str:
        return str(await agent().run("How is the weather?", memory=MEMORIES[kind](history)))

    # Its own system prompt, five messages for the four stored ones, the question, and what came of it.
    assert asyncio.run(ask()) == "a: 20 degrees and Paris: 20 degrees and Rome: 20 degrees (10 messages)"
    assert list(history.get_messages("c"))[:4] == before
    pydantic_run(history, "Thanks.")
    assert contents(LlamaIndexChatStore(history).get_messages("c"))[-2:] == ["Thanks.", "It is warm."]
    check_chat(history, "c")


@on(*DURABLE)
def test_positions_are_those_of_the_list_also_where_one_stored_message_stands_for_several(
    store: Store, history: ChatHistory
) -> None:
    pydantic_run(history, "Secret words?")
    chats = LlamaIndexChatStore(history)
    messages = chats.get_messages("c")
    assert [message.role.value for message in messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert chats.delete_message("c", 1) == messages.pop(1)
    assert chats.get_messages("c") == messages
    assert not any("Secret" in stored.payload for stored in history.iter_messages("c", status=None))
    chats.add_message("c", user("And?"), 1)
    messages.insert(1, user("And?"))
    assert chats.get_messages("c") == messages
    for _ in range(5):
        assert chats.delete_last_message("c") == messages.pop()
        assert chats.get_messages("c") == messages
    assert chats.delete_last_message("c") is None
    check_chat(history, "c")


@on(*DURABLE)
def test_numbers_are_those_of_the_list_also_where_one_stored_message_stands_for_several(
    store: Store, history: ChatHistory
) -> None:
    pydantic_run(history, "And now?")

    async def use() -> None:
        chats = LlamaIndexDBChatStore(history)
        messages = await chats.get_messages("c")
        assert await chats.count_messages("c") == len(messages) == 5
        assert await chats.get_messages("c", limit=2, offset=1) == messages[1:3]
        assert await chats.archive_oldest_messages("c", 1) == []  # it is one with the question
        assert await chats.archive_oldest_messages("c", 2) == messages[:2]
        assert await chats.get_messages("c") == messages[2:]
        assert await chats.get_messages("c", None) == messages
        await chats.add_message("c", user("x"), ARCHIVED)
        assert contents(await chats.get_messages("c", ARCHIVED)) == ["Be kind.", "And now?", "x"]
        assert contents(await chats.delete_oldest_messages("c", 9)) == contents(messages[2:])
        assert await chats.count_messages("c") == 0

    asyncio.run(use())
    check_chat(history, "c")


@on("sqlite")
def test_what_a_conversion_loses_is_named(store: Store, history: ChatHistory) -> None:
    history.add_message("c", {"role": "user", "name": "Ann", "content": "Hello!"})
    with pytest.warns(ConversionWarning, match="name"):
        assert LlamaIndexChatStore(history).get_messages("c") == users("Hello!")


# ---- the store itself is saved and loaded


@on(*DURABLE)
def test_a_store_is_dumped_as_its_place_and_loaded_from_it(store: Store, tmp_path: Path) -> None:
    with store.open() as history:
        chats = LlamaIndexChatStore(history.for_user("ann", tenant_id="acme"))
        chats.set_messages("c", users("Hello!"))
        path = str(tmp_path / "new" / "chat_store.json")
        chats.persist(path)
        dumped, kept = chats.to_dict(), buffer(chats).to_string()
        pickled = pickle.dumps(chats)
        assert chats.dump_store() == chats.model_dump() == json.loads(chats.model_dump_json()) == dumped
        assert dumped["class_name"] == "LlamaIndexChatStore"
    for text in (json.dumps(dumped), kept, Path(path).read_text(), str(pickled)):
        assert "Hello!" not in text
    loaded: list[Any] = [
        LlamaIndexChatStore.from_persist_path(path),
        LlamaIndexChatStore.from_dict(dumped),
        LlamaIndexChatStore.model_validate(dumped),
        load_chat_store(dumped),
        pickle.loads(pickled),
        ChatMemoryBuffer.from_string(kept).chat_store,
    ]
    for number, chats in enumerate(loaded, 1):
        assert isinstance(chats, LlamaIndexChatStore)
        assert (chats.history.user_id, chats.history.tenant_id) == ("ann", "acme")
        assert len(chats.get_messages("c")) == number
        chats.add_message("c", user("again"))
        assert chats.to_dict() == dumped


@on(*DURABLE)
def test_a_store_with_statuses_is_saved_and_loaded_too(store: Store) -> None:
    with store.open() as history:
        chats = LlamaIndexDBChatStore(history)
        asyncio.run(chats.add_messages("c", users("a", "b")))
        dumped = JsonSerializer().serialize(chats)
        pickled = pickle.dumps(memory(chats))
    for chats in (JsonSerializer().deserialize(dumped), pickle.loads(pickled).sql_store):
        assert isinstance(chats, LlamaIndexDBChatStore)
        assert contents(asyncio.run(chats.get_messages("c"))) == ["a", "b"]


def test_no_password_is_dumped_and_one_of_the_environment_is_used(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = urlsplit(postgres_url)
    name, _, place = url.netloc.rpartition("@")
    url = url._replace(netloc=f"{name.partition(':')[0]}:s3cret@{place}")
    with open_history(f"{url.geturl()}{'&' if url.query else '?'}schema=dumped") as history:
        chats = LlamaIndexChatStore(history)
        chats.set_messages("c", users("Hello!"))
        chats.persist(str(tmp_path / "store.json"))
        dumped = chats.to_dict()
    assert "s3cret" not in json.dumps(dumped) + (tmp_path / "store.json").read_text() + repr(chats)
    asked: list[Any] = []
    monkeypatch.setenv("DATABASE_URL", url.geturl())
    monkeypatch.setattr("chat_history.config.open_history", lambda found: asked.append(found) or history)
    LlamaIndexChatStore.from_persist_path(str(tmp_path / "store.json"))
    assert asked[0]["password"] == "s3cret"
    monkeypatch.undo()
    assert LlamaIndexChatStore.from_persist_path(str(tmp_path / "store.json")).get_messages("c") == users("Hello!")


@pytest.mark.parametrize("fails", ["dump", "write", "move"])
def test_a_file_is_replaced_as_a_whole_or_not_at_all(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.json"
    with open_history(tmp_path / "a.db") as one, open_history(tmp_path / "b.db") as two:
        LlamaIndexChatStore(one).persist(str(path))
        before = path.read_bytes()
        files = fsspec.filesystem("file")
        if fails == "dump":
            two = one.__class__(open_history("memory:")._backend())
            expected: type[Exception] = ConfigError
        else:
            name, expected = {"write": "open", "move": "mv"}[fails], OSError

            def fail(*_: Any, **__: Any) -> None:
                raise OSError("the disk is full")

            monkeypatch.setattr(type(files), name, fail)
        with pytest.raises(expected):
            LlamaIndexChatStore(two).persist(str(path))
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert not [found for found in tmp_path.iterdir() if found.name.startswith("store.json.")]
        two.shutdown()


def test_a_file_that_holds_something_else_is_never_replaced(tmp_path: Path) -> None:
    simple = tmp_path / "simple.json"
    simple.write_text(
        json.dumps({"store": {"c": [user("a").model_dump(mode="json")]}, "class_name": "SimpleChatStore"})
    )
    own = tmp_path / "chats.json"
    (tmp_path / "words.txt").write_text("Hello!")
    (tmp_path / "empty.json").touch()
    with open_history(own) as history:
        chats = LlamaIndexChatStore(history)
        chats.set_messages("c", users("a"))
        for path in (simple, own, tmp_path / "words.txt"):
            before = path.read_bytes()
            with pytest.raises(ConfigError, match="persist to another path"):
                chats.persist(str(path))
            with pytest.raises(ConfigError, match="something else"):
                LlamaIndexChatStore.from_persist_path(str(path))
            assert path.read_bytes() == before
        assert SimpleChatStore.from_persist_path(str(simple)).get_messages("c") == users("a")
        for _ in range(2):
            chats.persist(str(tmp_path / "empty.json"))
        assert LlamaIndexChatStore.from_persist_path(str(tmp_path / "empty.json")).get_messages("c") == users("a")
    with pytest.raises(ConfigError, match="no file"):
        LlamaIndexChatStore.from_persist_path(str(tmp_path / "missing.json"))


def test_a_store_can_be_persisted_to_any_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    with open_history("chats.json") as history:
        LlamaIndexChatStore(history).set_messages("c", users("a"))
        for _ in range(2):
            LlamaIndexChatStore(history).persist("/llama/store.json", fs=files)
            LlamaIndexChatStore(history).persist()
    assert [Path(found).name for found in files.ls("/llama", detail=False)] == ["store.json"]
    assert LlamaIndexChatStore.from_persist_path("/llama/store.json", fs=files).get_messages("c") == users("a")
    assert LlamaIndexChatStore.from_persist_path().get_messages("c") == users("a")
    files.rm("/llama", recursive=True)


def test_copies_are_the_same_store(tmp_path: Path) -> None:
    with open_history("memory:") as history:
        chats = LlamaIndexChatStore(history)
        kept = copy.deepcopy(buffer(chats))
        kept.put(user("a"))
        assert kept.chat_store is copy.copy(chats) is chats.model_copy(deep=True) is chats
        assert contents(chats.get_messages("c")) == ["a"]
        assert str(history) in repr(chats)


# ---- what is given, what is opened, and what is wrong


@on("sqlite")
def test_a_history_that_was_given_stays_open_and_one_that_was_loaded_is_closed(store: Store) -> None:
    with store.open() as history:
        chats = LlamaIndexChatStore(history)
        chats.set_messages("c", users("a"))
        loaded = LlamaIndexChatStore.from_dict(chats.to_dict())
        opened = loaded.history
        asyncio.run(loaded.aget_messages("c"))
        del chats, loaded
        gc.collect()
        assert history.get_message_count("c") == 1
        with pytest.raises(HistoryClosedError):
            opened.get_message_count("c")
    with pytest.raises(HistoryClosedError):
        LlamaIndexChatStore(history).get_messages("c")


@pytest.mark.parametrize("made", [LlamaIndexChatStore, LlamaIndexDBChatStore])
@pytest.mark.parametrize("given", [None, "sqlite:///chats.db", 3, []])
def test_a_store_takes_a_history_and_nothing_else(made: Callable[[Any], object], given: object) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a ChatHistory"):
        made(given)


def test_what_is_no_dump_of_a_store_is_refused() -> None:
    for data in ({}, {"history": "memory:"}, {"history": {}, "class_name": "SimpleChatStore"}):
        with pytest.raises(ConfigError, match="something else than the place"):
            LlamaIndexChatStore.from_dict(data)


@on(*ALL)
def test_wrong_arguments_are_refused_and_nothing_is_written(store: Store, history: ChatHistory) -> None:
    async def use() -> None:
        chats, db = LlamaIndexChatStore(history), LlamaIndexDBChatStore(history)
        await db.add_messages("c", users("a", "b"))
        for call in (
            chats.async_add_message("", user("x")),
            chats.aset_messages("c\0", users("x")),
            db.get_messages("c", limit=-1),
            db.get_messages("c", offset=-1),
            db.archive_oldest_messages("c", -1),
            db.delete_oldest_messages("c", -1),
            db.add_message("c", user("x"), "unknown"),
            db.get_messages("c", "superseded"),
        ):
            with pytest.raises(ValueError):  # noqa: PT011 some are ours, some the framework's
                await call
        with pytest.raises(LookupError):
            await db.add_message("c", "just text")
        assert await chats.adelete_message("c", 2) is await chats.adelete_message("c", -3) is None
        assert await chats.adelete_message("unknown", 0) is await chats.adelete_last_message("unknown") is None
        assert await chats.adelete_messages("unknown") is None
        assert await chats.aget_messages("unknown") == await db.get_messages("unknown", None) == []
        assert contents(await db.get_messages("c", None)) == ["a", "b"]
        assert await db.get_keys() == ["c"]

    asyncio.run(use())


@on(*DURABLE)
def test_long_chats_and_long_messages_are_kept(store: Store, history: ChatHistory) -> None:
    async def use() -> None:
        db = LlamaIndexDBChatStore(history)
        await db.add_messages("c", users(*map(str, range(3000)), "x" * 1_000_000))
        assert len(await db.archive_oldest_messages("c", 2000)) == 2000
        assert await db.count_messages("c") == 1001
        assert contents(await db.get_messages("c", None, limit=2, offset=2999)) == ["2999", "x" * 1_000_000]
        await db.delete_messages("c", ARCHIVED)
        assert await db.count_messages("c", None) == 1001

    asyncio.run(use())


def test_without_llama_index_the_error_says_what_to_install() -> None:
    program = "import sys; sys.modules['llama_index'] = None; import chat_history_adapters.stores.llama_index"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "MissingDependencyError" in ran.stderr
    assert "pip install 'agent-chat-history[llama-index]'" in ran.stderr

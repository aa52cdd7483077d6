"""`PydanticAIConversationStore` under real agents of Pydantic AI 2, and beside its own `InMemoryConversationStore`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from stores import DURABLE, Store, on

from chat_history import (
    ChatHistory,
    ConversionWarning,
    DamagedStoreError,
    HistoryClosedError,
    InvalidArgumentError,
    InvalidMessageError,
    MessageNotFoundError,
    ReadOnlyError,
    open_history,
)
from chat_history.backends.base import Backend
from chat_history.testing import check_chat, say

pytest.importorskip("pydantic_ai.conversation_store")

from pydantic_ai import Agent, Conversation, ConversationTypeAdapter, DeferredToolRequests, ToolDenied
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import CallDeferred, UserError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage, UsageLimits

from chat_history_adapters.stores.pydantic_ai import PydanticAIConversationStore

T = TypeVar("T")
SAMPLES = Path(__file__).parent / "data" / "messages"
EVERY_STORE = pytest.mark.parametrize("store", DURABLE, indirect=True)


@pytest.fixture
def history(store: Store) -> Iterator[ChatHistory]:
    with store.open() as history:
        yield history


@pytest.fixture
def conversations(history: ChatHistory) -> PydanticAIConversationStore:
    return PydanticAIConversationStore(history)


@pytest.fixture
def memory() -> Iterator[ChatHistory]:
    with open_history("memory:") as history:
        yield history


def wait(work: Awaitable[T]) -> T:
    """What this comes to, in a loop of its own."""

    async def waited() -> T:
        return await work

    return asyncio.run(waited())


def asked(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(text)])


def said(text: str) -> ModelResponse:
    return ModelResponse(parts=[TextPart(text)])


def turns(*texts: str) -> list[ModelMessage]:
    """A question, its answer, and so on."""
    return [(said if number % 2 else asked)(text) for number, text in enumerate(texts)]


def texts(messages: Sequence[ModelMessage]) -> list[str]:
    """What stands in each message, in a word or two."""
    return ["+".join(str(getattr(part, "content", None) or part.tool_name) for part in each.parts) for each in messages]  # type: ignore[union-attr]


def begin(store: ConversationStore, *words: str, id: str = "c", scope: str | None = None) -> Conversation:
    """A conversation of these messages, saved."""
    conversation = Conversation(messages=turns(*words), conversation_id=id)
    wait(store.save(conversation, scope=scope))
    return conversation


def load(store: ConversationStore, id: str = "c", **how: Any) -> Conversation:
    found = wait(store.load(id, **how))
    assert found is not None
    return found


def entries(store: ConversationStore, id: str = "c", **how: Any) -> list[ConversationEntry]:
    found = wait(store.load_entries(id, **how))
    assert found is not None
    return found


def record(store: ConversationStore, id: str = "c") -> ConversationRecord:
    found = wait(store.read_record(id))
    assert found is not None
    return found


# ---- agents


def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


def counting_agent() -> Agent[None, str]:
    """An agent that adds with a tool, and then tells the result."""

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        if isinstance(last, ToolReturnPart):
            return said(f"It is {last.content}.")
        assert isinstance(last, UserPromptPart)
        a, b = str(last.content).split("+")
        return ModelResponse(parts=[ToolCallPart("add", {"a": int(a), "b": int(b)})])

    return Agent(FunctionModel(model), tools=[add], instructions="Add.")


async def talk(store: ConversationStore, agent: Agent[None, Any], prompt: str, id: str = "c", **how: Any) -> Any:
    """One turn as the framework's documentation has it: load, run, save."""
    conversation = await store.load(id, **how) or Conversation(conversation_id=id)
    result = await agent.run(prompt, conversation=conversation)
    await store.save(result)
    return result


@EVERY_STORE
def test_an_agent_with_a_tool_goes_on_over_several_turns_and_openings(store: Store) -> None:
    for turn in range(3):
        with store.open() as history:
            result = wait(talk(PydanticAIConversationStore(history), counting_agent(), f"{turn}+1"))
            assert result.output == f"It is {turn + 1}."
    with store.open() as history:
        conversation = load(PydanticAIConversationStore(history))
        assert texts(conversation.messages) == [
            *("0+1", "add", "1", "It is 1."),
            *("1+1", "add", "2", "It is 2."),
            *("2+1", "add", "3", "It is 3."),
        ]
        assert conversation.usage.requests == 6
        assert conversation.usage.tool_calls == 3
        assert conversation.messages == result.all_messages()
        assert [message.format for message in check_chat(history, "c")] == ["pydantic_ai"] * 12


@EVERY_STORE
def test_each_message_is_an_entry_by_its_id(history: ChatHistory, conversations: PydanticAIConversationStore) -> None:
    conversation = Conversation(messages=turns("a", "b"), conversation_id="c")
    saved = wait(conversations.save(conversation))
    conversation.messages += turns("c", "d")
    saved += wait(conversations.save(conversation))
    assert saved == entries(conversations)
    assert [entry.parent_id for entry in saved] == [None, *(entry.id for entry in saved[:-1])]
    assert [(message.message_id, message.parent) for message in history.get_messages("c")] == [
        (entry.id, entry.parent_id) for entry in saved
    ]
    assert record(conversations).head_id == saved[-1].id
    for entry in saved:
        assert wait(conversations.read_entry(str(entry.id))) == wait(conversations.read_entry(entry.id)) == entry
        assert wait(conversations.read_history(str(entry.id))) == saved[: saved.index(entry) + 1]
    with pytest.raises(LookupError, match="no chat of this owner"):
        wait(conversations.read_entry("nowhere"))


@EVERY_STORE
def test_a_save_appends_what_is_new_and_nothing_else(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    conversation = begin(conversations, "a", "b")
    before = check_chat(history, "c")
    assert wait(conversations.save(conversation)) == []
    conversation.messages += turns("c")
    wait(conversations.save(conversation))
    assert check_chat(history, "c")[:2] == before
    assert history.get_message_count("c", None) == 3


@EVERY_STORE
def test_a_window_is_loaded_and_the_save_appends_to_the_whole(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    begin(conversations, "a", "b", "c", "d")
    assert texts(load(conversations, limit=3).messages) == ["b", "c", "d"]
    assert load(conversations, limit=0).messages == []
    wait(talk(conversations, Agent(TestModel(custom_output_text="f")), "e", limit=2))
    assert texts(load(conversations).messages) == ["a", "b", "c", "d", "e", "f"]
    assert texts(load(conversations, limit=99).messages) == ["a", "b", "c", "d", "e", "f"]
    wait(talk(conversations, Agent(TestModel(custom_output_text="h")), "g", limit=0))
    assert len(check_chat(history, "c")) == 8
    with pytest.raises(UserError, match="negative"):
        load(conversations, limit=-1)


@EVERY_STORE
def test_a_window_that_was_serialised_meanwhile_goes_on_too(conversations: PydanticAIConversationStore) -> None:
    begin(conversations, "a", "b", "c", "d")
    sent = ConversationTypeAdapter.dump_json(load(conversations, limit=2))
    back = ConversationTypeAdapter.validate_json(sent)
    back.messages += turns("e")
    wait(conversations.save(back))
    assert texts(load(conversations).messages) == ["a", "b", "c", "d", "e"]
    assert record(conversations).branches == []


@EVERY_STORE
def test_a_rewritten_history_leaves_the_stored_one_as_a_branch(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    begin(conversations, "a", "b", "c")
    left = entries(conversations)
    loaded = load(conversations)
    wait(conversations.save(replace(loaded, messages=[*loaded.messages[:1], *turns("x", "y")], new_message_index=None)))
    assert texts(load(conversations).messages) == ["a", "x", "y"]
    assert record(conversations).branches == [left[-1].id]
    assert wait(conversations.read_history(left[-1].id)) == left
    assert len(check_chat(history, "c")) == 5


# ---- branches and forks


@EVERY_STORE
def test_an_answer_is_given_anew_and_one_can_go_back(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    agent = counting_agent()
    for prompt in ("1+1", "2+2"):
        wait(talk(conversations, agent, prompt))
    first = load(conversations)
    branched = wait(conversations.branch("c", at=4, expected_revision=first.revision))
    assert texts(branched.messages) == ["1+1", "add", "2", "It is 2."]
    wait(conversations.save(wait(agent.run("3+3", conversation=branched))))
    anew = load(conversations)
    assert texts(anew.messages)[4:] == ["3+3", "add", "6", "It is 6."]
    (tip,) = record(conversations).branches
    back = wait(conversations.branch("c", from_entry=tip, expected_revision=anew.revision))
    assert back.messages == first.messages
    assert [branch.active for branch in history.list_branches("c")] == [True, False]
    wait(talk(conversations, agent, "5+5"))
    assert texts(load(conversations).messages)[4:8] == ["2+2", "add", "4", "It is 4."]
    assert len(check_chat(history, "c")) == 16
    with pytest.raises(ConversationConflict):
        wait(conversations.branch("c", at=0, expected_revision=first.revision))
    with pytest.raises(UserError, match="not in the history"):
        wait(conversations.branch("c", from_entry="nowhere", expected_revision=load(conversations).revision))


@EVERY_STORE
def test_a_conversation_begins_anew_from_nothing(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    conversation = begin(conversations, "a", "b")
    empty = wait(conversations.branch("c", at=0, expected_revision=conversation.revision))
    assert (empty.messages, record(conversations).head_id, load(conversations).messages) == ([], None, [])
    empty.messages += turns("x")
    wait(conversations.save(empty))
    assert texts(load(conversations).messages) == ["x"]
    check_chat(history, "c")


@EVERY_STORE
def test_a_fork_shares_its_entries_and_goes_its_own_way(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    for prompt in ("1+1", "2+2"):
        wait(talk(conversations, counting_agent(), prompt))
    history.update_chat("c", title="Sums", metadata={**history.get_chat("c").metadata, "colour": "red"})
    whole = wait(conversations.fork("c", new_conversation_id="whole"))
    part = wait(conversations.fork("c", at=4, new_conversation_id="part", scope="ann"))
    empty = wait(conversations.fork("c", at=0))
    assert whole.messages == load(conversations).messages
    assert (whole.usage, part.usage) == (load(conversations).usage, RunUsage())
    assert [entry.id for entry in entries(conversations, "part")] == [entry.id for entry in entries(conversations)[:4]]
    assert empty.messages == load(conversations, empty.conversation_id).messages == []
    kept = record(conversations, "part")
    assert (kept.forked_from, kept.forked_at, kept.scope) == ("c", entries(conversations)[3].id, "ann")
    assert (history.get_chat("part").title, history.get_chat("part").metadata["colour"]) == ("Sums", "red")
    with pytest.raises(ConversationConflict):
        wait(conversations.fork("c", new_conversation_id="part"))
    wait(talk(conversations, counting_agent(), "3+3", "part"))
    assert len(load(conversations).messages) == len(load(conversations, "part").messages) == 8
    wait(conversations.delete("c"))
    assert texts(load(conversations, "part").messages)[4:] == ["3+3", "add", "6", "It is 6."]
    check_chat(history, "part")


@EVERY_STORE
def test_a_fork_begins_in_a_branch_that_was_left(conversations: PydanticAIConversationStore) -> None:
    conversation = begin(conversations, "a", "b", "c", "d")
    left = entries(conversations)
    wait(conversations.branch("c", at=1, expected_revision=conversation.revision))
    fork = wait(conversations.fork("c", from_entry=left[2].id, new_conversation_id="fork"))
    assert texts(fork.messages) == ["a", "b", "c"]
    assert entries(conversations, "fork") == left[:3]


def test_branches_that_are_gone_are_not_listed(memory: ChatHistory) -> None:
    store = PydanticAIConversationStore(memory)
    for words in (("a", "b"), ("a", "c"), ("a", "d", "e")):
        revision = record(store).revision if memory.chat_exists("c") else None
        wait(store.save(Conversation(messages=turns(*words), conversation_id="c", revision=revision)))
    first, second = record(store).branches
    memory.delete_branch("c", second)
    assert record(store).branches == [first]
    back = wait(store.branch("c", from_entry=first, expected_revision=record(store).revision))
    assert texts(back.messages) == ["a", "b"]


# ---- deferred tools


def careful_agent() -> Agent[None, Any]:
    """An agent with a tool that has to be approved, and one that runs elsewhere."""

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        results = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        if results:
            return said(", ".join(f"{part.tool_name}: {part.content}" for part in results))
        return ModelResponse(parts=[ToolCallPart("erase", {"path": "a"}, "c1"), ToolCallPart("ask", {}, "c2")])

    agent: Agent[None, Any] = Agent(FunctionModel(model), output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def erase(path: str) -> str:
        return f"erased {path}"

    @agent.tool_plain
    def ask() -> str:
        raise CallDeferred(metadata={"where": ["a", 1], "picture": b"\xff\x00"}, kind="question")

    return agent


@EVERY_STORE
@pytest.mark.parametrize("is_approved", [True, False])
def test_a_run_that_waits_for_answers_goes_on_in_another_process(store: Store, is_approved: bool) -> None:
    with store.open() as history:
        result = wait(talk(PydanticAIConversationStore(history), careful_agent(), "Erase a."))
        assert isinstance(result.output, DeferredToolRequests)
    with store.open() as history:
        conversations = PydanticAIConversationStore(history)
        conversation = load(conversations)
        waiting = conversation.deferred_tool_requests
        assert waiting is not None
        assert [call.tool_call_id for call in (*waiting.approvals, *waiting.calls)] == ["c1", "c2"]
        assert (waiting.kind("c1"), waiting.kind("c2")) == ("approval", "question")
        assert waiting.metadata == {"c2": {"where": ["a", 1], "picture": "_wA="}}, "as messages keep bytes"
        answers = waiting.build_results(
            approvals={"c1": True if is_approved else ToolDenied("No.")}, calls={"c2": "here"}
        )
        result = wait(careful_agent().run(conversation=conversation, deferred_tool_results=answers))
        wait(conversations.save(result))
        assert result.output == f"erase: {'erased a' if is_approved else 'No.'}, ask: here"
    with store.open() as history:
        conversation = load(PydanticAIConversationStore(history))
        assert conversation.deferred_tool_requests is None
        assert len(conversation.messages) == 4


def test_requests_that_others_went_past_are_waited_on_no_more(memory: ChatHistory) -> None:
    store = PydanticAIConversationStore(memory)
    wait(talk(store, careful_agent(), "Erase a."))
    assert load(store).deferred_tool_requests is not None
    memory.update_chat("c", title="Erasing")
    assert load(store).deferred_tool_requests is not None
    usage = load(store).usage
    memory.add_message("c", say("user", "Never mind."))
    assert load(store).deferred_tool_requests is None
    assert load(store).usage == usage


# ---- what a record holds


@EVERY_STORE
def test_a_record_comes_back_as_it_was(history: ChatHistory, conversations: PydanticAIConversationStore) -> None:
    begin(conversations, "a", "b", id="other")
    entry = ConversationEntry(parent_id=None, message=asked("x"))
    kept = ConversationRecord(
        conversation_id="c",
        head_id=entry.id,
        usage=RunUsage(input_tokens=7, requests=2, details={"cached": 3}),
        deferred_tool_requests=DeferredToolRequests(approvals=[ToolCallPart("x", '{"a": 1}', "c1")]),
        scope="ann ☃ \0",
        forked_from="other",
        forked_at="somewhere",
        branches=[],
    )
    wait(conversations.write_record(kept, new_entries=[entry], expected_revision=None))
    found = record(conversations)
    assert found.updated_at == history.get_chat("c").updated_at >= kept.updated_at
    assert replace(found, updated_at=kept.updated_at) == kept
    assert deepcopy(found) == found


@EVERY_STORE
def test_the_chats_own_metadata_stays(history: ChatHistory, conversations: PydanticAIConversationStore) -> None:
    history.create_chat("c", title="T", metadata={"colour": "red"})
    conversation = load(conversations)
    conversation.messages += turns("a")
    wait(conversations.save(conversation))
    chat = history.get_chat("c")
    assert (chat.title, chat.metadata["colour"]) == ("T", "red")
    assert set(chat.metadata) == {"colour", "pydantic_ai_conversation"}


@EVERY_STORE
def test_a_scope_keeps_a_conversation_to_its_owner(conversations: PydanticAIConversationStore) -> None:
    begin(conversations, "a", scope="ann")
    begin(conversations, "b", id="d")
    assert wait(conversations.load("c", scope="bob")) is None
    assert texts(load(conversations, scope="ann").messages) == texts(load(conversations).messages) == ["a"]
    with pytest.raises(ConversationConflict):
        wait(conversations.save(load(conversations), scope="bob"))
    with pytest.raises(UserError, match="not in the store"):
        wait(conversations.fork("c", source_scope="bob"))
    wait(conversations.delete("c", scope="bob"))
    assert [each.conversation_id for each in wait(conversations.list_conversations(scope="ann"))] == ["c"]
    wait(conversations.save(load(conversations)))
    assert record(conversations).scope == "ann"
    wait(conversations.delete("c", scope="ann"))
    assert wait(conversations.read_record("c")) is None
    assert [each.conversation_id for each in wait(conversations.list_conversations())] == ["d"]


@EVERY_STORE
def test_owners_of_histories_reach_nothing_of_one_another(history: ChatHistory) -> None:
    ann, bob = (PydanticAIConversationStore(history.for_user(name)) for name in ("ann", "bob"))
    begin(ann, "a")
    begin(bob, "b")
    (entry,) = entries(ann)
    assert texts(load(bob).messages) == ["b"]
    with pytest.raises(LookupError):
        wait(bob.read_entry(str(entry.id)))
    with pytest.raises(UserError, match="not in the history"):
        wait(bob.fork("c", from_entry=entry.id))


@EVERY_STORE
def test_conversations_are_listed_newest_first(
    conversations: PydanticAIConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chat_history_adapters.stores import pydantic_ai_conversations

    monkeypatch.setattr(pydantic_ai_conversations, "PAGE", 2)
    for number in range(7):
        begin(conversations, "a", id=str(number), scope="odd" if number % 2 else None)
    wait(talk(conversations, Agent(TestModel()), "b", "2"))

    def listed(**how: Any) -> list[str]:
        return [each.conversation_id for each in wait(conversations.list_conversations(**how))]

    assert listed() == ["2", "6", "5", "4", "3", "1", "0"]
    assert listed(limit=3) == ["2", "6", "5"]
    assert listed(scope="odd") == ["5", "3", "1"]
    assert listed(scope="odd", limit=2) == ["5", "3"]
    assert listed(limit=0) == listed(scope="nobody's") == []


@EVERY_STORE
def test_deleting_removes_every_branch(history: ChatHistory, conversations: PydanticAIConversationStore) -> None:
    conversation = begin(conversations, "a", "b")
    (first, second) = entries(conversations)
    wait(conversations.branch("c", at=1, expected_revision=conversation.revision))
    with pytest.raises(ConversationConflict):
        wait(conversations.delete_record("c", expected_revision=conversation.revision or ""))
    wait(conversations.delete("c"))
    wait(conversations.delete("c"))
    assert not history.chat_exists("c")
    for entry in (first, second):
        with pytest.raises(LookupError):
            wait(conversations.read_entry(entry.id))


# ---- one query a load


@dataclass
class Counted:
    """The calls that a history makes of its backend, by name."""

    calls: list[str] = field(default_factory=list)
    _is_inside: bool = False

    def watch(self, backend: Backend) -> None:
        for name in Backend.__abstractmethods__ - {"location", "close"}:
            setattr(backend, name, self._counting(name, getattr(backend, name)))

    def _counting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            if self._is_inside:
                return call(*args, **kwargs)
            self.calls.append(name)
            self._is_inside = True
            try:
                return call(*args, **kwargs)
            finally:
                self._is_inside = False

        return counting

    def during(self, work: Awaitable[Any]) -> list[str]:
        self.calls.clear()
        wait(work)
        return list(self.calls)


@EVERY_STORE
def test_a_history_is_read_in_one_query_however_long_it_is(store: Store) -> None:
    backend = store.backend()
    counted = Counted()
    counted.watch(backend)
    with ChatHistory(backend) as history:
        conversations = PydanticAIConversationStore(history)
        begin(conversations, *(str(number) for number in range(150)))
        head = record(conversations).head_id
        assert counted.during(conversations.read_history(head)) == ["read"]
        assert counted.during(conversations.read_history(head, limit=40)) == ["read"]
        for limit in (None, 1, 40, 1000):
            assert counted.during(conversations.load("c", limit=limit)) == ["get_chat", "read"]
        assert counted.during(conversations.read_record("c")) == ["get_chat"]
        loaded = load(conversations)
        loaded.messages += turns("x", "y")
        assert counted.during(conversations.save(loaded)).count("write") == 1


# ---- several at once


@EVERY_STORE
def test_of_two_that_loaded_the_same_one_saves(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    begin(conversations, "a", "b")
    one, other = load(conversations), load(conversations)
    one.messages += turns("c")
    other.messages += turns("x")
    wait(conversations.save(one))
    before = check_chat(history, "c")
    with pytest.raises(ConversationConflict):
        wait(conversations.save(other))
    assert check_chat(history, "c") == before
    with pytest.raises(ConversationConflict):
        wait(conversations.save(Conversation(messages=turns("y"), conversation_id="c")))
    wait(conversations.delete("c"))
    with pytest.raises(ConversationConflict):
        wait(conversations.save(one))
    begin(conversations, "a", "b")
    with pytest.raises(ConversationConflict):
        wait(conversations.save(one))


@EVERY_STORE
def test_tasks_at_once_on_one_conversation_lose_nothing(store: Store) -> None:
    """Each loads, runs and saves, and does so again where another one was first; half of them over another opening."""

    async def insist(conversations: ConversationStore, number: int) -> int:
        conflicts = 0
        while True:
            try:
                await talk(conversations, counting_agent(), f"{number}+0")
            except ConversationConflict:
                conflicts += 1
            else:
                return conflicts

    async def both(*stores: ConversationStore) -> list[int]:
        return await asyncio.gather(*(insist(stores[number % 2], number) for number in range(6)))

    with store.open() as one, store.open() as other:
        conflicts = wait(both(PydanticAIConversationStore(one), PydanticAIConversationStore(other)))
        assert sum(conflicts) > 0
        messages = texts(load(PydanticAIConversationStore(one)).messages)
        assert sorted(messages[::4]) == [f"{number}+0" for number in range(6)]
        assert messages[3::4] == [f"It is {each[0]}." for each in messages[::4]]
        assert len(check_chat(one, "c")) == 24
        assert load(PydanticAIConversationStore(other)).usage.requests == 12


@EVERY_STORE
def test_of_many_that_begin_a_conversation_one_does(history: ChatHistory) -> None:
    conversations = PydanticAIConversationStore(history)

    async def both() -> list[Any]:
        saves = [
            conversations.save(Conversation(messages=turns(word), conversation_id=chat_id))
            for word in "abcd"
            for chat_id in ("c", "empty")
        ]
        empty = [conversations.save(Conversation(conversation_id="nothing")) for _ in range(4)]
        forks = [conversations.fork("source", new_conversation_id="fork") for _ in range(4)]
        return await asyncio.gather(*saves, *empty, *forks, return_exceptions=True)

    begin(conversations, "s", id="source")
    done = wait(both())
    assert sum(isinstance(each, ConversationConflict) for each in done) == 12
    assert sum(isinstance(each, list | Conversation) for each in done) == 4
    assert [history.get_message_count(chat_id) for chat_id in ("c", "empty", "nothing", "fork")] == [1, 1, 0, 1]


@EVERY_STORE
def test_a_title_that_is_given_meanwhile_is_no_conflict(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    conversation = begin(conversations, "a")
    history.update_chat("c", title="T")
    conversation.messages += turns("b")
    wait(conversations.save(conversation))
    assert (history.get_chat("c").title, texts(load(conversations).messages)) == ("T", ["a", "b"])
    history.update_chat("c", title="U")
    wait(conversations.delete_record("c", expected_revision=conversation.revision or ""))


def test_a_title_between_the_look_and_the_write_is_no_conflict(memory: ChatHistory) -> None:
    """The version is another one then, and the revision still the same."""
    store = PydanticAIConversationStore(memory)
    conversation = begin(store, "a")
    switch, drop = memory.switch_branch, memory.delete_chat_history
    titles = iter(["T", "U"])

    def titled(call: Callable[..., Any]) -> Callable[..., Any]:
        def first_a_title(*args: Any, **kwargs: Any) -> Any:
            for title in titles:
                memory.update_chat("c", title=title)
                break
            return call(*args, **kwargs)

        return first_a_title

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChatHistory, "switch_branch", lambda self, *args, **kwargs: titled(switch)(*args, **kwargs))
        patch.setattr(ChatHistory, "delete_chat_history", lambda self, *args, **kwargs: titled(drop)(*args, **kwargs))
        conversation.messages += turns("b")
        wait(store.save(conversation))
        assert memory.get_chat("c").title == "U"
        titles = iter(["V"])
        wait(store.delete("c"))
    assert not memory.chat_exists("c")


RESUME = """
import asyncio, sys
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from chat_history import open_history
from chat_history_adapters.stores.pydantic_ai import PydanticAIConversationStore

async def main():
    with open_history(sys.argv[1]) as history:
        store = PydanticAIConversationStore(history)
        conversation = await store.load("c", scope="ann")
        result = await Agent(TestModel(custom_output_text="Still here.")).run("And now?", conversation=conversation)
        await store.save(result, scope="ann")

asyncio.run(main())
"""


@pytest.mark.parametrize("scheme", ["json", "sqlite"])
def test_another_process_goes_on(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}:///{tmp_path}/chats"
    with open_history(url) as history:
        begin(PydanticAIConversationStore(history), "a", "b", scope="ann")
        subprocess.run([sys.executable, "-c", RESUME, url], check=True, timeout=120)
        conversation = load(PydanticAIConversationStore(history), scope="ann")
    assert texts(conversation.messages) == ["a", "b", "And now?", "Still here."]
    assert conversation.usage.requests == 1


# ---- other frameworks


@EVERY_STORE
def test_another_framework_goes_on_and_what_it_said_is_loaded(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    wait(talk(conversations, counting_agent(), "1+1"))
    before = load(conversations)
    dicts = history.get_message_history("c", format="openai")
    answer = [say("user", "And now?"), say("assistant", "From elsewhere.")]
    history.save_messages("c", [*dicts, *answer])
    conversation = load(conversations)
    assert texts(conversation.messages)[4:] == ["And now?", "From elsewhere."]
    assert conversation.usage == before.usage
    assert conversation.revision != before.revision
    before.messages += turns("x")
    with pytest.raises(ConversationConflict):
        wait(conversations.save(before))
    wait(talk(conversations, counting_agent(), "2+2"))
    assert texts(load(conversations).messages)[4:] == ["And now?", "From elsewhere.", "2+2", "add", "4", "It is 4."]
    assert [message.format for message in check_chat(history, "c")][4:6] == ["openai"] * 2
    assert history.get_chat_history("c")[-1]["content"] == "It is 4."


@pytest.mark.filterwarnings("ignore::chat_history.ConversionWarning")
@EVERY_STORE
def test_a_chat_that_another_framework_began_is_a_conversation(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    sample = json.loads((SAMPLES / "openai" / "chat_messages.json").read_text())
    history.add_messages("c", sample)
    found = record(conversations)
    assert (found.head_id, found.scope, found.branches, found.usage) == (
        history.get_chat("c").head,
        None,
        [],
        RunUsage(),
    )
    loaded = entries(conversations)
    assert loaded[-1].id == found.head_id
    assert [entry.parent_id for entry in loaded] == [None, *(entry.id for entry in loaded[:-1])]
    for entry in loaded:
        assert wait(conversations.read_entry(entry.id)) == entry
    result = wait(talk(conversations, Agent(TestModel(custom_output_text="!")), "?"))
    assert texts(load(conversations).messages)[-2:] == texts(result.new_messages()) == ["?", "!"]
    assert [message.json() for message in check_chat(history, "c")[: len(sample)]] == sample
    middle = loaded[len(loaded) // 2]
    back = wait(conversations.branch("c", from_entry=middle.id, expected_revision=record(conversations).revision))
    assert back.messages[-1] == middle.message
    assert load(conversations).messages == back.messages


def test_branches_that_others_left_can_be_gone_back_to(memory: ChatHistory) -> None:
    store = PydanticAIConversationStore(memory)
    begin(store, "a", "b")
    tip = entries(store)[-1].id
    memory.save_messages("c", [*memory.get_message_history("c")[:1], said("x")])
    assert texts(load(store).messages) == ["a", "x"]
    assert record(store).branches == [tip]
    back = wait(store.branch("c", from_entry=tip, expected_revision=load(store).revision))
    assert texts(back.messages) == ["a", "b"]


def test_pieces_of_one_answer_are_one_entry(memory: ChatHistory) -> None:
    """Items of OpenAI's Responses are stored one by one, and go back together."""
    store = PydanticAIConversationStore(memory)
    memory.add_message("c", say("user", "Add."))
    pieces = [
        {"type": "function_call", "call_id": str(number), "name": "add", "arguments": '{"a": 1}'} for number in (1, 2)
    ]
    memory.add_messages("c", pieces, format="openai_responses")
    _, call = entries(store)
    assert texts([call.message]) == ["add+add"]
    assert call.id == memory.get_chat("c").head
    results = [{"type": "function_call_output", "call_id": str(number), "output": "2"} for number in (1, 2)]
    memory.add_messages("c", results, format="openai_responses")
    assert texts([entry.message for entry in entries(store)]) == ["Add.", "add+add", "2", "2"]
    wait(store.branch("c", from_entry=call.id, expected_revision=record(store).revision))
    assert memory.get_message_count("c") == 3, "both calls are before the branch"


def test_a_message_that_stands_for_two_is_two_entries(memory: ChatHistory) -> None:
    """A call of another framework that nobody answered gets a result, which the framework would ask for."""
    store = PydanticAIConversationStore(memory)
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    stored = memory.add_messages(
        "c", [say("user", "Add."), {"role": "assistant", "content": None, "tool_calls": [call]}]
    )
    memory.add_message("c", say("user", "Never mind."))
    loaded = entries(store)
    assert [type(entry.message) for entry in loaded] == [ModelRequest, ModelResponse, ModelRequest, ModelRequest]
    assert len({entry.id for entry in loaded}) == 4
    assert [entry.parent_id for entry in loaded] == [None, *(entry.id for entry in loaded[:-1])]
    for entry in loaded:
        assert wait(store.read_entry(entry.id)) == entry
    for entry in loaded[1:3]:
        wait(store.branch("c", from_entry=entry.id, expected_revision=record(store).revision))
        assert record(store).head_id == stored[1].message_id
        assert wait(store.branch("c", from_entry=loaded[-1].id, expected_revision=record(store).revision))
    wait(store.fork("c", from_entry=loaded[1].id, new_conversation_id="fork"))
    assert texts(load(store, "fork").messages) == ["Add.", "add"]


def test_what_a_conversion_loses_is_named(memory: ChatHistory) -> None:
    store = PydanticAIConversationStore(memory)
    begin(store, "a", "b")
    lost = memory.add_message("c", {"role": "tool", "tool_call_id": "none", "content": "To nothing."}).message_id
    with pytest.warns(ConversionWarning, match="it answers no tool call"):
        conversation = load(store)
    assert texts(conversation.messages) == ["a", "b"]
    with pytest.warns(ConversionWarning), pytest.raises(MessageNotFoundError, match="stands for nothing"):
        wait(store.read_entry(lost))
    conversation.messages += turns("c")
    wait(store.save(conversation))
    assert [message.text for message in memory.get_messages("c")] == ["a", "b", "To nothing.", "c"]


@EVERY_STORE
def test_a_prompt_that_waits_is_neither_lost_nor_stored_twice(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    history.add_message("c", say("user", "Hello!"))
    wait(talk(conversations, Agent(TestModel(custom_output_text="Hi.")), "Are you there?"))
    conversation = load(conversations)
    words = "+".join(texts(conversation.messages))
    assert words == "Hello!+Are you there?+Hi."
    wait(talk(conversations, Agent(TestModel(custom_output_text="Yes.")), "Still?"))
    assert "+".join(texts(load(conversations).messages)) == words + "+Still?+Yes."


@EVERY_STORE
def test_what_is_archived_is_out_of_the_history_and_stays(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    begin(conversations, "a", "b", "c", "d")
    before = entries(conversations)
    conversation = load(conversations)
    history.archive_oldest_messages("c", 2)
    assert entries(conversations) == before[2:]
    assert wait(conversations.read_entry(str(before[0].id))) == before[0]
    assert wait(conversations.read_history(before[2].id)) == before[2:3]
    conversation.messages += turns("e")
    wait(conversations.save(conversation))
    sent = ConversationTypeAdapter.validate_json(ConversationTypeAdapter.dump_json(load(conversations)))
    wait(conversations.save(replace(sent, messages=turns("x"))))
    assert texts(load(conversations).messages) == ["x"]
    assert len(check_chat(history, "c")) == 6


# ---- what is refused


@EVERY_STORE
def test_what_cannot_be_stored_is_refused_and_nothing_is_written(
    history: ChatHistory, conversations: PydanticAIConversationStore
) -> None:
    conversation = begin(conversations, "a")
    before = check_chat(history, "c"), history.get_chat("c")
    conversation.messages += [said("b"), ModelRequest(parts=[ToolReturnPart("x", object(), tool_call_id="1")])]
    with pytest.raises(InvalidMessageError):
        wait(conversations.save(conversation))
    asks = DeferredToolRequests(metadata={"c1": {"a": object()}})
    with pytest.raises(InvalidArgumentError, match="record cannot be kept"):
        wait(conversations.save(replace(load(conversations), deferred_tool_requests=asks)))
    one, other = (ConversationEntry(parent_id=None, message=asked(word)) for word in "xy")
    for head, given in ((other.id, [one, other]), ("elsewhere", [one])):
        kept = replace(record(conversations), head_id=head)
        with pytest.raises(InvalidArgumentError, match=r"follow|head"):
            wait(conversations.write_record(kept, new_entries=given, expected_revision=kept.revision))
    for head, given in (("elsewhere", []), (one.id, [replace(one, parent_id="elsewhere")])):
        for chat_id in ("c", "new"):
            kept = replace(record(conversations), head_id=head, conversation_id=chat_id)
            expected = kept.revision if chat_id == "c" else None
            with pytest.raises(ConversationConflict):
                wait(conversations.write_record(kept, new_entries=given, expected_revision=expected))
    assert (check_chat(history, "c"), history.get_chat("c")) == before
    assert history.get_all_chat_ids() == ["c"]


def test_what_another_owner_shares_can_be_loaded_and_forked_nowhere(memory: ChatHistory) -> None:
    ann = memory.for_user("ann")
    begin(PydanticAIConversationStore(ann), "a")
    ann.update_chat("c", shared=True)
    store = PydanticAIConversationStore(memory.for_user("bob").shared_by("ann"))
    conversation = load(store)
    conversation.messages += turns("b")
    with pytest.raises(ReadOnlyError):
        wait(store.save(conversation))


def test_a_record_that_cannot_be_read_names_the_chat(memory: ChatHistory) -> None:
    store = PydanticAIConversationStore(memory)
    begin(store, "a")
    kept = memory.get_chat("c").metadata["pydantic_ai_conversation"]
    memory.update_chat("c", metadata={"pydantic_ai_conversation": {**kept, "format_version": 2}})
    with pytest.raises(DamagedStoreError, match=r"chat 'c' has under 'pydantic_ai_conversation'.*format_version"):
        load(store)
    memory.update_chat("c", metadata={"pydantic_ai_conversation": "mine"})
    assert texts(load(store).messages) == ["a"]


def test_a_history_that_was_shut_down_says_so() -> None:
    history = open_history("memory:")
    store = PydanticAIConversationStore(history)
    history.shutdown()
    with pytest.raises(HistoryClosedError):
        wait(store.load("c"))
    with pytest.raises(InvalidArgumentError, match="open_history"):
        PydanticAIConversationStore("sqlite:///chats.db")  # type: ignore[arg-type]


# ---- as the framework's own


@on("json", "sqlite", "postgres")
def test_it_does_what_the_frameworks_own_store_does(store: Store) -> None:
    """The same calls, at random, of both: the same conversations, records and errors."""
    random = Random(store.kind)
    with store.open() as history:
        pair = InMemoryConversationStore(), PydanticAIConversationStore(history)
        names: tuple[dict[str, str], ...] = ({}, {})
        """The ids and revisions of each store, as both may call them."""
        done = 0
        for _ in range(120):
            call = _some_call(random)
            outcomes = [wait(_outcome(call, each, known)) for each, known in zip(pair, names, strict=True)]
            assert outcomes[0] == outcomes[1], call
            done += outcomes[0][0] == "done"
        assert done > 40
        for chat_id in history.get_all_chat_ids():
            check_chat(history, chat_id)


def _some_call(random: Random) -> tuple[Any, ...]:
    chat_id, other = random.choice("ab"), random.choice("abcd")
    scope = random.choice([None, None, None, "s"])
    at, word = random.randrange(6), str(random.random())
    return random.choice(
        [
            ("turn", chat_id, word, random.choice([None, None, 0, 1, 3]), scope, random.random() < 0.3),
            ("turn", chat_id, word, None, scope, False),
            ("rewrite", chat_id, word, at, random.random() < 0.5),
            ("new", chat_id, word, scope),
            ("stale", chat_id, word),
            ("branch", chat_id, at),
            ("switch", chat_id, random.random()),
            ("fork", chat_id, other, random.choice([None, at]), scope),
            ("fork from", chat_id, other, random.random()),
            *([("delete", other, scope)] if random.random() < 0.3 else []),
        ]
    )


async def _outcome(call: tuple[Any, ...], store: ConversationStore, names: dict[str, str]) -> tuple[Any, ...]:
    """What a call did, and all that is in the store after it, without the ids and revisions that each makes."""
    try:
        await _do(call, store)
        outcome: tuple[Any, ...] = ("done",)
    except UserError as error:
        outcome = (type(error).__name__,)

    def name(made: str | None) -> str | None:
        return None if made is None else names.setdefault(str(made), f"#{len(names)}")

    seen: list[Any] = []
    for each in sorted(await store.list_conversations(), key=lambda record: record.conversation_id):
        kept = await store.read_record(each.conversation_id)
        log = await store.load_entries(each.conversation_id)
        loaded = await store.load(each.conversation_id, limit=2)
        assert kept is not None
        assert log is not None
        assert loaded is not None
        assert loaded.revision == kept.revision
        seen.append(
            (
                [(name(entry.id), name(entry.parent_id), texts([entry.message])) for entry in log],
                texts(loaded.messages),
                (kept.conversation_id, name(kept.head_id), kept.usage, kept.scope, kept.deferred_tool_requests),
                (kept.forked_from, name(kept.forked_at), [name(tip) for tip in kept.branches]),
                [[name(entry.id) for entry in await store.read_history(tip)] for tip in kept.branches],
            )
        )
    return *outcome, seen


async def _do(call: tuple[Any, ...], store: ConversationStore) -> None:
    kind, chat_id, *rest = call
    found = await store.load(chat_id)
    revision = found.revision if found else None
    if kind == "turn":
        word, limit, scope, waits = rest
        conversation = await store.load(chat_id, limit=limit, scope=scope) or Conversation(conversation_id=chat_id)
        conversation.messages += turns(f"ask {word}", f"say {word}")
        conversation.usage = conversation.usage + RunUsage(requests=1)
        requests = DeferredToolRequests(calls=[ToolCallPart("x", {}, "c1")])
        conversation.deferred_tool_requests = requests if waits else None
        await store.save(conversation, scope=scope)
    elif kind == "rewrite":
        word, at, sent = rest
        conversation = found or Conversation(conversation_id=chat_id)
        if sent:
            conversation = ConversationTypeAdapter.validate_json(ConversationTypeAdapter.dump_json(conversation))
        messages = [*conversation.messages[:at], *turns(word), *conversation.messages[at + 1 :]]
        await store.save(replace(conversation, messages=messages, new_message_index=None))
    elif kind == "new":
        word, scope = rest
        await store.save(Conversation(conversation_id=chat_id, messages=turns(word)), scope=scope)
    elif kind == "stale":
        await store.save(Conversation(conversation_id=chat_id, messages=turns(*rest), revision="stale"))
    elif kind == "branch":
        await store.branch(chat_id, at=rest[0], expected_revision=revision)
    elif kind == "switch":
        await store.branch(chat_id, from_entry=await _some_entry(store, chat_id, rest[0]), expected_revision=revision)
    elif kind == "fork":
        other, at, scope = rest
        await store.fork(chat_id, at=at, new_conversation_id=other, scope=scope)
    elif kind == "fork from":
        other, where = rest
        await store.fork(chat_id, from_entry=await _some_entry(store, chat_id, where), new_conversation_id=other)
    else:
        await store.delete(chat_id, scope=rest[0])


async def _some_entry(store: ConversationStore, id: str, where: float) -> str:
    record = await store.read_record(id)
    tips = [record.head_id, *record.branches] if record else []
    found = [entry.id for tip in tips for entry in await store.read_history(tip)]
    return found[int(where * len(found))] if found else "nowhere"


# ---- the framework's front ends


def test_a_limit_on_usage_counts_what_was_stored(memory: ChatHistory) -> None:
    store = PydanticAIConversationStore(memory)
    wait(talk(store, counting_agent(), "1+1"))
    with pytest.raises(Exception, match="request_limit of 3"):
        wait(counting_agent().run("2+2", conversation=load(store), usage_limits=UsageLimits(request_limit=3)))


def test_pictures_and_tools_results_come_back(memory: ChatHistory) -> None:
    store = PydanticAIConversationStore(memory)
    picture = BinaryContent(b"\x89PNG", media_type="image/png")
    conversation = Conversation(conversation_id="c", messages=[ModelRequest(parts=[UserPromptPart(["See:", picture])])])
    wait(store.save(conversation))
    (message,) = load(store).messages
    assert message.parts[0].content[1].data == b"\x89PNG"  # type: ignore[union-attr,index]

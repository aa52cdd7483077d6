"""`OpenAIAgentsSession` under the SDK's own `Runner`, and beside the SDK's own `SQLiteSession`."""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    Model,
    ModelResponse,
    RunConfig,
    Runner,
    RunState,
    Session,
    SessionSettings,
    SQLiteSession,
    Usage,
    function_tool,
    set_tracing_disabled,
)
from agents.memory import OpenAIResponsesCompactionSession
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
)
from stores import DURABLE, Store, on

from chat_history import (
    ChatHistory,
    ConversionWarning,
    DamagedStoreError,
    HistoryClosedError,
    InvalidArgumentError,
    InvalidMessageError,
    open_history,
)
from chat_history.testing import check_chat, say
from chat_history_adapters.stores.openai_agents import OpenAIAgentsSession

SAMPLES = Path(__file__).parent / "data" / "messages"


@pytest.fixture(autouse=True)
def _no_tracing() -> None:
    set_tracing_disabled(True)


@pytest.fixture
def reopen(store: Store) -> Iterator[Callable[[], ChatHistory]]:
    """Opens the same store once more."""
    opened: list[ChatHistory] = []

    def open_again() -> ChatHistory:
        opened.append(store.open())
        return opened[-1]

    yield open_again
    for history in opened:
        history.shutdown()


@pytest.fixture
def history() -> Iterator[ChatHistory]:
    with open_history("memory:") as opened:
        yield opened


def wait(work: Awaitable[Any]) -> Any:
    """What this comes to, in a loop of its own."""

    async def waited() -> Any:
        return await work

    return asyncio.run(waited())


def items_of(session: Any, limit: int | None = None) -> list[Any]:
    found: list[Any] = wait(session.get_items(limit))
    return found


def user(text: str) -> Any:
    return {"role": "user", "content": text}


# ---- a model that says what the test wrote down


def text(words: str, number: int = 0) -> ResponseOutputMessage:
    part = ResponseOutputText(annotations=[], text=words, type="output_text", logprobs=[])
    return ResponseOutputMessage(
        id=f"msg_{words}_{number}", content=[part], role="assistant", status="completed", type="message"
    )


def call(name: str, call_id: str, **arguments: Any) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        id=f"fc_{call_id}", call_id=call_id, name=name, arguments=json.dumps(arguments), type="function_call"
    )


def thought(number: str) -> ResponseReasoningItem:
    return ResponseReasoningItem(id=f"rs_{number}", summary=[], encrypted_content="gAAA", type="reasoning")


class Scripted(Model):
    """Answers with what stands next in the script, and keeps what it was given."""

    def __init__(self, *script: list[Any]) -> None:
        self.script = list(script)
        self.given: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.given.append(json.loads(json.dumps(input)))
        await asyncio.sleep(0)
        return ModelResponse(output=self.script.pop(0), usage=Usage(), response_id=None)

    async def stream_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        self.given.append(json.loads(json.dumps(input)))
        response = Response(
            id="resp_1",
            created_at=0,
            model="scripted",
            object="response",
            output=self.script.pop(0),
            parallel_tool_calls=True,
            tool_choice="auto",
            tools=[],
        )
        yield ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 20.5 ☃"


def team(model: Model) -> Agent[None]:
    """An agent with a tool, who can hand over to another one."""
    expert = Agent(name="expert", model=model)
    return Agent(name="host", model=model, tools=[weather], handoffs=[expert])


def script() -> list[list[Any]]:
    """Two parallel calls, a handoff, plain words twice the same."""
    return [
        [thought("1"), text("Both."), call("weather", "p", city="Paris"), call("weather", "k", city="Köln")],
        [text("Warm.")],
        [call("transfer_to_expert", "h")],
        [text("I am the expert.")],
        [text("Yes.")],
        [text("Yes.")],
    ]


TURNS = ["Weather in Paris and Köln?", "An expert, please.", "Sure?", "Sure?"]


async def play(model: Scripted, turns: list[str], session: Any, **kwargs: Any) -> list[str]:
    return [(await Runner.run(team(model), turn, session=session, **kwargs)).final_output for turn in turns]


# ---- under the Runner


@on(*DURABLE)
def test_a_conversation_with_tools_and_a_handoff_goes_on_after_every_restart(reopen: Callable[[], ChatHistory]) -> None:
    model, theirs = Scripted(*script()), Scripted(*script())
    own = SQLiteSession("s")
    try:
        for turn in TURNS:
            with reopen() as history:  # each turn in a history of its own
                ours = OpenAIAgentsSession(history, "s")
                before = items_of(ours)
                assert wait(play(model, [turn], ours)) == wait(play(theirs, [turn], own))
                assert items_of(ours)[: len(before)] == before
        with reopen() as history:
            found = items_of(OpenAIAgentsSession(history, "s"))
            assert found == items_of(own)
            assert {message.format for message in history.iter_messages("s")} == {"openai_responses"}
            check_chat(history, "s")
    finally:
        own.close()
    assert model.given == theirs.given, "the model was told the same as with the SDK's own session"
    assert [item.get("type", item.get("role")) for item in found] == [
        *("user", "reasoning", "message", "function_call", "function_call", "function_call_output"),
        *("function_call_output", "message", "user", "function_call", "function_call_output", "message"),
        *("user", "message", "user", "message"),
    ]


@on(*DURABLE)
def test_two_runs_at_once_on_one_session_lose_nothing(reopen: Callable[[], ChatHistory]) -> None:
    one, two = reopen(), reopen()

    async def both() -> None:
        runs = [
            play(Scripted(*([text(f"{name}{turn}")] for turn in range(5))), [f"{name}?"] * 5, session)
            for name, session in [
                ("a", OpenAIAgentsSession(one, "s")),
                ("b", OpenAIAgentsSession(one, "s")),
                ("c", OpenAIAgentsSession(two, "s")),
            ]
        ]
        await asyncio.gather(*runs)

    asyncio.run(both())
    found = items_of(OpenAIAgentsSession(reopen(), "s"))
    for name in "abc":
        assert found.count(user(f"{name}?")) == 5
        answers = [item["content"][0]["text"] for item in found if item["role"] == "assistant"]
        assert [answer for answer in answers if answer.startswith(name)] == [f"{name}{turn}" for turn in range(5)]
    assert len(found) == 30
    check_chat(one, "s")


def test_a_streamed_run_is_stored_as_well(history: ChatHistory) -> None:
    session = OpenAIAgentsSession(history, "s")
    model = Scripted(*script())

    async def stream() -> None:
        for turn in TURNS:
            result = Runner.run_streamed(team(model), turn, session=session)
            async for _ in result.stream_events():
                pass

    asyncio.run(stream())
    own = Scripted(*script())
    wait(play(own, TURNS, other := OpenAIAgentsSession(history, "other")))
    assert items_of(session) == items_of(other)


def test_a_session_input_callback_chooses_what_the_model_sees_and_only_new_items_are_stored(
    history: ChatHistory,
) -> None:
    session = OpenAIAgentsSession(history, "s")
    wait(session.add_items([user("old"), user("old"), {"role": "assistant", "content": "older"}]))
    model = Scripted([text("a")], [text("b")])
    config = RunConfig(session_input_callback=lambda before, new: before[:1] + new)
    wait(play(model, ["one", "two"], session, run_config=config))
    assert model.given == [[user("old"), user("one")], [user("old"), user("two")]]
    found = [item["content"] if isinstance(item["content"], str) else item["id"] for item in items_of(session)]
    assert found == ["old", "old", "older", "one", "msg_a_0", "two", "msg_b_0"]


def test_the_runs_own_limit_goes_before_that_of_the_session(history: ChatHistory) -> None:
    session = OpenAIAgentsSession(history, "s", session_settings=SessionSettings(limit=1))
    wait(session.add_items([user("1"), user("2"), user("3")]))
    model = Scripted([text("a")], [text("b")])
    wait(play(model, ["one"], session))
    wait(play(model, ["two"], session, run_config=RunConfig(session_settings=SessionSettings(limit=3))))
    assert model.given[0] == [user("3"), user("one")]
    assert [item.get("content") for item in model.given[1]][:2] == ["3", "one"]
    assert len(items_of(session, limit=100)) == 7


@on(*DURABLE)
def test_a_run_that_waits_for_an_approval_is_resumed_after_a_restart(reopen: Callable[[], ChatHistory]) -> None:
    done = []

    @function_tool(needs_approval=True)
    def pay(euros: int) -> str:
        """Pay."""
        done.append(euros)
        return "paid"

    def agent(model: Model) -> Agent[None]:
        return Agent(name="host", model=model, tools=[pay])

    async def ask(session: Session) -> str:
        model = Scripted([text("Let me see."), call("pay", "1", euros=5)])
        result = await Runner.run(agent(model), "Pay 5.", session=session)
        assert len(result.interruptions) == 1
        return result.to_state().to_string()

    async def approve(session: Session, waiting: str) -> list[Any]:
        model = Scripted([text("Paid.")])
        state: RunState[Any] = await RunState.from_string(agent(model), waiting)
        state.approve(state.get_interruptions()[0])
        result = await Runner.run(agent(model), state, session=session)
        assert result.final_output == "Paid."
        return await session.get_items()

    with reopen() as history:
        waiting = wait(ask(OpenAIAgentsSession(history, "s")))
        assert done == []
    with reopen() as history:
        found = wait(approve(OpenAIAgentsSession(history, "s"), waiting))
        check_chat(history, "s")
    assert done == [5]
    own = SQLiteSession("s")
    with closing(own):
        assert found == wait(approve(own, wait(ask(own))))
    assert [item.get("type", "user") for item in found] == [
        *("user", "message", "function_call", "function_call_output", "message"),
    ]


def test_a_list_of_a_run_that_was_serialised_repeats_nothing_of_the_chat(history: ChatHistory) -> None:
    @function_tool(needs_approval=True)
    def pay(euros: int) -> str:
        """Pay."""
        return "paid"

    async def ask() -> str:
        agent = Agent(name="host", model=Scripted([text("Let me see."), call("pay", "1", euros=5)]), tools=[pay])
        items: list[Any] = history.get_message_history("s", "openai_responses")
        result = await Runner.run(agent, [*items, user("Pay 5.")])
        history.save_messages("s", result.to_input_list(), format="openai_responses")
        return result.to_state().to_string()

    async def approve(waiting: str) -> list[Any]:
        agent = Agent(name="host", model=Scripted([text("Paid.")]), tools=[pay])
        state: RunState[Any] = await RunState.from_string(agent, waiting)
        state.approve(state.get_interruptions()[0])
        return (await Runner.run(agent, state)).to_input_list()

    history.add_messages("s", [user("Hello!"), {"role": "assistant", "content": "Hello, Ann."}])
    waiting = wait(ask())
    before = list(history.iter_messages("s"))
    new = history.save_messages("s", wait(approve(waiting)), format="openai_responses")

    assert [message.text for message in new] == ["paid", "Paid."]
    assert list(history.iter_messages("s", status=None)) == [*before, *new]


@pytest.mark.parametrize("through_the_hook", [True, False])
def test_the_sdks_compaction_replaces_what_is_active_and_sets_the_rest_aside(
    history: ChatHistory, monkeypatch: pytest.MonkeyPatch, through_the_hook: bool
) -> None:
    import httpx
    from openai import AsyncOpenAI

    if not through_the_hook:
        monkeypatch.delattr(OpenAIAgentsSession, "_atomic_replace_items")
    history.create_chat("s", title="Weather")
    kept = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}], "id": "msg_1"}
    summary = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}
    body = {"id": "resp_2", "object": "response.compaction", "created_at": 0, "output": [kept, summary]}
    body["usage"] = {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    }

    async def compact() -> list[Any]:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
        async with httpx.AsyncClient(transport=transport) as http:
            client = AsyncOpenAI(api_key="none", http_client=http, base_url="http://none")
            session = OpenAIResponsesCompactionSession(
                "s", OpenAIAgentsSession(history, "s"), client=client, compaction_mode="input"
            )
            await play(Scripted([text("a")], [text("b")]), ["one", "two"], session)
            await session.run_compaction({"force": True})
            return await session.get_items()

    found = wait(compact())
    assert [item["type"] for item in found] == ["message", "compaction"]
    assert found == items_of(OpenAIAgentsSession(history, "s"))
    if through_the_hook:
        assert history.get_chat("s").title == "Weather"
        assert len(history.get_messages("s", status="superseded")) == 4
        check_chat(history, "s")


def test_a_limit_that_parts_a_result_from_its_call_gives_the_model_neither(history: ChatHistory) -> None:
    session = OpenAIAgentsSession(history, "s", session_settings=SessionSettings(limit=2))
    wait(play(Scripted([call("weather", "p", city="Paris")], [text("Warm.")]), ["Paris?"], session))
    assert [item["type"] for item in items_of(session)] == ["function_call_output", "message"]
    model = Scripted([text("Yes.")])
    wait(play(model, ["Sure?"], session))
    assert [item.get("type", "user") for item in model.given[0]] == ["message", "user"]


def test_the_sdks_encryption_stores_what_nobody_else_can_read(history: ChatHistory) -> None:
    pytest.importorskip("cryptography")
    from agents.extensions.memory import EncryptedSession

    session = EncryptedSession("s", OpenAIAgentsSession(history, "s"), encryption_key="a" * 32)
    own, other = Scripted(*script()), OpenAIAgentsSession(history, "other")
    wait(play(Scripted(*script()), TURNS, session))
    wait(play(own, TURNS, other))
    assert items_of(session) == items_of(other)
    assert items_of(session, 3) == items_of(other, 3)
    assert wait(session.pop_item()) == wait(other.pop_item())
    assert not any("Paris" in message.payload for message in history.iter_messages("s"))
    assert history.get_readable_chat_history("s") == []


# ---- as the SDK's own session does it

ITEMS: list[Any] = [
    user("yes"),
    {"role": "assistant", "content": "yes"},
    {"role": "developer", "content": [{"type": "input_text", "text": "Be terse. \ud83d\0"}]},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a":  1}', "id": None},
    {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "1e2"}]},
    {"type": "a_type_of_tomorrow", "ratio": 1e-300, "big": 2**70, "no": None},
    {"__enc__": 1, "v": 1, "kid": "hkdf-v1", "payload": "gAAA"},
    {},
]
STEPS = st.one_of(
    st.tuples(st.just("add_items"), st.lists(st.sampled_from(ITEMS), max_size=4)),
    st.tuples(st.just("get_items"), st.none() | st.integers(0, 6)),
    st.tuples(st.just("pop_item")),
    st.tuples(st.just("clear_session")),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=12), st.none() | st.integers(0, 4))
def test_whatever_is_done_gives_what_the_sdks_own_session_gives(steps: list[Any], limit: int | None) -> None:
    async def done(session: Any) -> list[Any]:
        given = [await getattr(session, name)(*arguments) for name, *arguments in steps]
        return [*given, await session.get_items(), await session.get_items(100)]

    with open_history("memory:") as history, closing(SQLiteSession("s", session_settings={"limit": limit})) as own:
        session = OpenAIAgentsSession(history, "s", session_settings={"limit": limit})
        assert wait(done(session)) == wait(done(own))


@on(*DURABLE)
@pytest.mark.parametrize("file", ["session_items", "to_input_list"])
def test_every_item_of_the_samples_comes_back_equal(reopen: Callable[[], ChatHistory], file: str) -> None:
    items = json.loads((SAMPLES / "openai_agents" / f"{file}.json").read_text())
    items += json.loads((SAMPLES / "openai" / "responses_output_items.json").read_text())
    wait(OpenAIAgentsSession(reopen(), "s").add_items([*items, *ITEMS]))
    session = OpenAIAgentsSession(reopen(), "s")
    assert json.dumps(items_of(session)) == json.dumps([*items, *ITEMS]), "also the order of keys"
    for item in reversed([*items, *ITEMS]):
        assert wait(session.pop_item()) == item
    assert wait(session.pop_item()) is None


@on(*DURABLE)
def test_a_limit_is_the_latest_items_in_order(reopen: Callable[[], ChatHistory]) -> None:
    session = OpenAIAgentsSession(reopen(), "s", session_settings=SessionSettings(limit=3))
    items = [user(str(number)) for number in range(10)]
    assert items_of(session) == items_of(session, 4) == []
    wait(session.add_items(items))
    assert items_of(session) == items[-3:]
    assert items_of(session, 0) == []
    assert items_of(session, 1) == items[-1:]
    # What the SDK's compaction says where it means all.
    assert items_of(session, 10) == items_of(session, 11) == items_of(session, 2_147_483_647) == items
    session.session_settings = None
    assert items_of(session) == items


@on(*DURABLE)
def test_a_cleared_session_is_gone_with_every_branch_and_may_go_on(reopen: Callable[[], ChatHistory]) -> None:
    history = reopen()
    session, other = OpenAIAgentsSession(history, "s"), OpenAIAgentsSession(history, "other")
    wait(session.add_items([user("a"), user("b")]))
    history.set_messages("s", [user("c")], format="openai_responses")
    wait(other.add_items([user("z")]))
    wait(session.clear_session())
    wait(session.clear_session())
    assert items_of(session) == []
    assert not reopen().chat_exists("s")
    wait(session.add_items([user("d")]))
    assert [message.text for message in history.get_messages("s", status=None)] == ["d"]
    assert items_of(other) == [user("z")]


@on(*DURABLE)
def test_pops_at_once_each_get_an_item_of_their_own(reopen: Callable[[], ChatHistory]) -> None:
    items = [user(str(number)) for number in range(12)]
    sessions = [OpenAIAgentsSession(reopen(), "s") for _ in range(3)]
    wait(sessions[0].add_items(items))

    async def pops() -> list[Any]:
        return await asyncio.gather(*(session.pop_item() for session in sessions for _ in range(5)))

    popped = wait(pops())
    assert sorted(item["content"] for item in popped if item) == sorted(item["content"] for item in items)
    assert popped.count(None) == 3
    assert items_of(sessions[1]) == []


def test_it_is_a_session_of_the_sdk(history: ChatHistory) -> None:
    session = OpenAIAgentsSession(history, "s")
    assert isinstance(session, Session)
    assert session.session_id == "s"
    with closing(SQLiteSession("s")) as own:
        assert session.session_settings == own.session_settings == SessionSettings(limit=None)


# ---- chats that others write into


@on(*DURABLE)
def test_a_chat_that_pydantic_ai_began_goes_on_here_and_there(reopen: Callable[[], ChatHistory]) -> None:
    from pydantic_ai import Agent as PydanticAgent
    from pydantic_ai.models.test import TestModel

    def lookup(city: str) -> str:
        return f"{city} is warm."

    there = PydanticAgent(TestModel(custom_output_text="Warm."), tools=[lookup], system_prompt="Be terse.")
    history = reopen()
    history.save_messages("s", wait(there.run("Paris?")).all_messages())
    session = OpenAIAgentsSession(history, "s")
    begun = items_of(session)
    assert [item.get("type", item.get("role")) for item in begun] == [
        *("system", "user", "function_call", "function_call_output", "assistant"),
    ]
    model = Scripted([text("Still warm.")])
    wait(play(model, ["And now?"], session))
    assert model.given[0] == [*begun, user("And now?")]
    found = items_of(OpenAIAgentsSession(reopen(), "s"))
    assert found[:-1] == [*begun, user("And now?")]
    assert items_of(session, 4) == found[-4:], "a limit that reaches into what was converted"
    assert items_of(session, 2) == found[-2:]

    again = wait(there.run("Thanks.", message_history=history.get_message_history("s")))
    history.save_messages("s", again.all_messages())
    assert items_of(session)[: len(found)] == found
    check_chat(history, "s")


def test_what_a_conversion_loses_is_named(history: ChatHistory) -> None:
    history.add_message("s", {"role": "user", "content": "Hello!", "name": "Ann"})
    with pytest.warns(ConversionWarning, match="name"):
        assert items_of(OpenAIAgentsSession(history, "s")) == [user("Hello!")]


@on(*DURABLE)
def test_popping_an_item_of_another_frameworks_message_keeps_its_other_items(
    reopen: Callable[[], ChatHistory],
) -> None:
    calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in "ab"]
    history = reopen()
    history.add_messages("s", [say("user", "Go."), {"role": "assistant", "content": "Both.", "tool_calls": calls}])
    first, answer = history.get_messages("s")
    session = OpenAIAgentsSession(history, "s")
    wait(session.add_items([user("Stop!")]))
    assert wait(session.pop_item()) == user("Stop!")
    items = items_of(session)
    assert len(items) == 4
    for count in (3, 2, 1):
        assert wait(session.pop_item()) == items[count]
        assert items_of(OpenAIAgentsSession(reopen(), "s")) == items[:count]
        check_chat(history, "s")
    assert history.get_messages("s")[0] == first
    assert history.get_message("s", answer.message_id).status == "superseded"
    assert wait(session.pop_item()) == user("Go.")
    assert wait(session.pop_item()) is None


def test_sessions_of_two_users_do_not_meet(history: ChatHistory) -> None:
    ann, bob = (OpenAIAgentsSession(history.for_user(name), "s") for name in ("ann", "bob"))
    wait(ann.add_items([user("I am Ann.")]))
    assert items_of(bob) == []
    wait(bob.clear_session())
    assert items_of(ann) == [user("I am Ann.")]


# ---- what goes wrong


@pytest.mark.parametrize("item", [{"role": "user", "content": ("a",)}, {"n": float("nan")}, {1: "a"}, "a", None])
def test_an_item_that_would_not_come_back_equal_is_refused_with_its_neighbours(history: ChatHistory, item: Any) -> None:
    session = OpenAIAgentsSession(history, "s")
    with pytest.raises(InvalidMessageError):
        wait(session.add_items([user("a"), item]))
    assert not history.chat_exists("s")


@pytest.mark.parametrize("limit", [-1, True, "3", 2.5])
def test_a_limit_that_is_none_is_refused(history: ChatHistory, limit: Any) -> None:
    session = OpenAIAgentsSession(history, "s")
    wait(session.add_items([user("a")]))
    with pytest.raises(InvalidArgumentError):
        items_of(session, limit)


def test_nothing_to_add_makes_no_chat(history: ChatHistory) -> None:
    wait(OpenAIAgentsSession(history, "s").add_items([]))
    assert not history.chat_exists("s")


@pytest.mark.parametrize("session_id", ["", 5, None])
def test_an_id_that_is_none_is_refused(history: ChatHistory, session_id: Any) -> None:
    for use in (lambda each: each.get_items(), lambda each: each.add_items([user("a")])):
        with pytest.raises(InvalidArgumentError):
            wait(use(OpenAIAgentsSession(history, session_id)))


def test_after_shutdown_every_call_says_so() -> None:
    with open_history("memory:") as history:
        session = OpenAIAgentsSession(history, "s")
    for use in (session.get_items(), session.add_items([user("a")]), session.pop_item(), session.clear_session()):
        with pytest.raises(HistoryClosedError):
            wait(use)


def test_an_item_that_somebody_spoilt_is_named_and_not_removed(tmp_path: Path) -> None:
    with open_history(f"sqlite:///{tmp_path}/chats.db") as history:
        session = OpenAIAgentsSession(history, "s")
        wait(session.add_items([user("a"), user("b")]))
        with closing(sqlite3.connect(tmp_path / "chats.db")) as connection:
            connection.execute("UPDATE messages SET payload = '{\"role\": ' WHERE position = 1")
            connection.commit()
        for use in (session.get_items, lambda: session.get_items(1), session.pop_item):
            with pytest.raises(DamagedStoreError, match="message 1 of chat 's'"):
                wait(use())
        assert history.get_message_count("s") == 2


# ---- the event loop


class Held:
    """Makes a method of the history wait until it is let go."""

    def __init__(self, history: ChatHistory, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        method = getattr(history, name)

        def held(*args: Any, **kwargs: Any) -> Any:
            self.begun.set()
            assert self.go.wait(5)
            return method(*args, **kwargs)

        monkeypatch.setattr(history, name, held)


@pytest.mark.parametrize(
    ("method", "use"),
    [
        ("add_messages", lambda session: session.add_items([user("a")])),
        ("get_message_history", lambda session: session.get_items()),
        ("get_messages", lambda session: session.pop_item()),
        ("delete_chat_history", lambda session: session.clear_session()),
    ],
)
def test_the_loop_goes_on_while_the_store_is_slow(
    history: ChatHistory, monkeypatch: pytest.MonkeyPatch, method: str, use: Callable[[Any], Any]
) -> None:
    held = Held(history, method, monkeypatch)

    async def others_run() -> None:
        using = asyncio.ensure_future(use(OpenAIAgentsSession(history, "s")))
        await asyncio.to_thread(held.begun.wait, 30)
        assert not using.done()
        held.go.set()  # what a blocked loop would not come to
        await using

    asyncio.run(others_run())


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_write_has_ended_when_the_cancellation_arrives(
    history: ChatHistory, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    held = Held(history, "add_messages", monkeypatch)

    complaints: list[Any] = []

    async def cancel() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        items = [user("a"), {"n": float("nan")}] if fails else [user("a")]
        adding = asyncio.ensure_future(OpenAIAgentsSession(history, "s").add_items(items))
        await asyncio.to_thread(held.begun.wait, 30)
        for _ in range(2):  # once is not enough for those who time out twice
            adding.cancel()
            await asyncio.wait([adding], timeout=0.05)
            assert not adding.done()
        held.go.set()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert history.get_message_count("s") == (0 if fails else 1)

    asyncio.run(cancel())
    gc.collect()
    assert complaints == [], "asyncio does not say that an error was never looked at"


def test_many_sessions_share_a_few_threads(history: ChatHistory) -> None:
    sessions = [OpenAIAgentsSession(history, str(number)) for number in range(200)]

    async def use() -> int:
        await asyncio.gather(*(session.add_items([user("a")]) for session in sessions))
        return threading.active_count()

    before = threading.active_count()
    assert asyncio.run(use()) - before <= 40
    assert len(history.get_all_chat_ids()) == 200


# ---- without the SDK


@pytest.mark.parametrize("hidden", ["None", "types.ModuleType('agents')"])
def test_without_the_sdk_the_error_says_what_to_install(hidden: str) -> None:
    program = (
        f"import sys, types; sys.modules['agents'] = {hidden}\n"
        "import chat_history\n"
        "try: import chat_history_adapters.stores.openai_agents\n"
        "except chat_history.MissingDependencyError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "pip install 'agent-chat-history[openai-agents]'" in ran.stdout, ran.stderr


def test_a_url_in_the_place_of_a_history_is_told_how_to_become_one() -> None:
    with pytest.raises(InvalidArgumentError, match=r"as open_history\(\) gives it, not str"):
        OpenAIAgentsSession("sqlite:///chats.db", "a session")  # type: ignore[arg-type]

"""`AgentFrameworkHistory`: real agents keep their sessions in it, over restarts, beside one another, on every store."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from agent_framework import (
    Agent,
    AgentSession,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    HistoryProvider,
    InMemoryHistoryProvider,
    Message,
    tool,
)
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.test import TestModel
from stores import DURABLE, Store, on
from test_agent_framework_format import EVERY

from chat_history import (
    ChatHistory,
    ConfigError,
    ConversionWarning,
    HistoryClosedError,
    InvalidArgumentError,
    InvalidMessageError,
    MissingDependencyError,
    open_history,
)
from chat_history_adapters.stores.agent_framework import AgentFrameworkHistory

SUM = "1 + 2"


class Scripted(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """A chat client that adds up what it is asked to with the tool `add`, else says how many messages it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[Message]] = []

    def _inner_get_response(self, *, messages: Sequence[Message], stream: bool, options: Any, **rest: Any) -> Any:
        self.asked.append(list(messages))
        answer = self._answer(messages)

        async def update() -> Any:
            yield ChatResponseUpdate(contents=answer.contents, role="assistant")

        async def respond() -> ChatResponse[Any]:
            await asyncio.sleep(0)
            return ChatResponse(messages=[answer])

        return self._build_response_stream(update()) if stream else respond()

    def _answer(self, messages: Sequence[Message]) -> Message:
        last = messages[-1]
        if last.text == "fail":
            raise RuntimeError("the model is away")
        if " + " in last.text:
            a, b = last.text.split(" + ")
            arguments = json.dumps({"a": int(a), "b": int(b)})
            return Message(
                "assistant", [Content.from_function_call(f"call {len(messages)}", "add", arguments=arguments)]
            )
        if last.contents[-1].type == "function_result":
            return Message("assistant", [f"It is {last.contents[-1].result}."])
        return Message("assistant", [f"You gave me {len(messages)}."])


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def agent_of(provider: HistoryProvider, **options: Any) -> Agent[Any]:
    return Agent(
        client=Scripted(),
        instructions="Be terse.",
        name="Adder",
        **{"tools": [add], "context_providers": [provider]} | options,
    )


def asked(agent: Agent[Any]) -> list[str]:
    """What the model was last given, by role and text."""
    return [f"{message.role}: {said(message)}" for message in agent.client.asked[-1]]


def said(message: Message) -> str:
    return message.text or " ".join(f"{each.name or each.result}" for each in message.contents)


async def tell(agent: Agent[Any], session: AgentSession | str, *prompts: str) -> AgentSession:
    session = agent.create_session(session_id=session) if isinstance(session, str) else session
    for prompt in prompts:
        await agent.run(prompt, session=session)
    return session


def dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.to_dict() for message in messages]


def texts(history: ChatHistory, session_id: str) -> list[str]:
    return [message.text for message in history.iter_messages(session_id)]


# ---- runs


@on(*DURABLE)
def test_an_agent_goes_on_with_its_session_after_a_restart(store: Store) -> None:
    with store.open() as history:
        agent = agent_of(AgentFrameworkHistory(history))
        asyncio.run(tell(agent, "trip", "Hello!", SUM))
    with store.open() as history:
        agent = agent_of(AgentFrameworkHistory(history))
        asyncio.run(tell(agent, "trip", "Thanks."))
        assert asked(agent) == [
            "user: Hello!",
            "assistant: You gave me 1.",
            f"user: {SUM}",
            "assistant: add",
            "tool: 3",
            "assistant: It is 3.",
            "user: Thanks.",
        ]
        assert texts(history, "trip")[-1] == "You gave me 7."
        assert [message.position for message in history.iter_messages("trip")] == list(range(8))


@on(*DURABLE)
def test_it_gives_a_run_what_the_frameworks_own_provider_gives_it(store: Store) -> None:
    with store.open() as history:
        ours, theirs = agent_of(AgentFrameworkHistory(history)), agent_of(InMemoryHistoryProvider())
        for agent in (ours, theirs):
            asyncio.run(tell(agent, "trip", "Hello!", SUM, "Hello?", SUM))
        assert len(ours.client.asked) == len(theirs.client.asked) == 6
        for our, their in zip(ours.client.asked, theirs.client.asked, strict=True):
            assert [stripped(message) for message in our] == [stripped(message) for message in their]


def stripped(message: Message) -> dict[str, Any]:
    """A message without where it came from, and without ids that each run makes anew."""
    fields = {**message.to_dict(), "additional_properties": None}
    return fields | {"contents": [{**content, "id": None} for content in fields["contents"]]}


@on(*DURABLE)
def test_every_kind_of_message_comes_back_equal_after_a_restart(store: Store) -> None:
    with store.open() as history:
        asyncio.run(AgentFrameworkHistory(history).save_messages("s", EVERY))
    with store.open() as history:
        assert dicts(asyncio.run(AgentFrameworkHistory(history).get_messages("s"))) == dicts(EVERY)


@on(*DURABLE)
def test_an_identical_turn_is_stored_again(store: Store) -> None:
    with store.open() as history:
        provider = AgentFrameworkHistory(history)
        answer = Message("assistant", ["ok"], message_id="m1")
        for _ in range(3):
            asyncio.run(provider.save_messages("s", [Message("user", ["yes"], message_id="u1"), answer]))
        asyncio.run(provider.save_messages("s", []))
        assert texts(history, "s") == ["yes", "ok"] * 3


def test_a_streamed_run_is_stored_when_it_is_done() -> None:
    async def run(history: ChatHistory) -> None:
        agent = agent_of(AgentFrameworkHistory(history))
        session = agent.create_session(session_id="s")
        async for _ in agent.run(SUM, session=session, stream=True):
            assert not history.chat_exists("s")
        await tell(agent, session, "Thanks.")
        assert asked(agent)[:4] == [f"user: {SUM}", "assistant: add", "tool: 3", "assistant: It is 3."]

    with open_history("memory:") as history:
        asyncio.run(run(history))


def test_history_may_be_kept_after_each_call_of_the_model() -> None:
    with open_history("memory:") as history:
        agent = agent_of(AgentFrameworkHistory(history), require_per_service_call_history_persistence=True)
        asyncio.run(tell(agent, "s", SUM, "Thanks."))
        assert asked(agent) == [f"user: {SUM}", "assistant: add", "tool: 3", "assistant: It is 3.", "user: Thanks."]
        assert history.get_message_count("s") == 6


def test_a_run_that_fails_stores_nothing() -> None:
    with open_history("memory:") as history:
        agent = agent_of(AgentFrameworkHistory(history))
        with pytest.raises(RuntimeError, match="away"):
            asyncio.run(tell(agent, "s", "Hello!", "fail"))
        assert texts(history, "s") == ["Hello!", "You gave me 1."]


def test_what_cannot_be_kept_is_refused_with_its_neighbours() -> None:
    messages = [Message("user", ["a"]), Message("user", ["b"], additional_properties={"rate": float("nan")})]
    with open_history("memory:") as history:
        with pytest.raises(InvalidMessageError):
            asyncio.run(AgentFrameworkHistory(history).save_messages("s", messages))
        assert not history.chat_exists("s")


def test_a_provider_may_only_store_and_only_answers() -> None:
    with open_history("memory:") as history:
        agent = agent_of(AgentFrameworkHistory(history, "audit", load_messages=False, store_inputs=False))
        asyncio.run(tell(agent, "s", "Hello!", "Hello!"))
        assert len(asked(agent)) == 3  # the framework's own provider, which it adds then, loads
        assert texts(history, "s") == ["You gave me 1.", "You gave me 3."]


# ---- others at the same time


@on(*DURABLE)
def test_tasks_at_once_lose_nothing_and_turns_stay_together(store: Store) -> None:
    async def run(history: ChatHistory) -> None:
        agent = agent_of(AgentFrameworkHistory(history))
        await asyncio.gather(*(tell(agent, f"s{n % 2}", f"{n} + {m}") for n in range(6) for m in range(4)))

    with store.open() as history:
        asyncio.run(run(history))
    with store.open() as history:
        for parity in (0, 1):
            stored = [each.json() for each in history.iter_messages(f"s{parity}")]
            turns = [stored[at : at + 4] for at in range(0, len(stored), 4)]
            assert [[each["role"] for each in turn] for turn in turns] == [
                ["user", "assistant", "tool", "assistant"]
            ] * 12
            questions = {turn[0]["contents"][0]["text"] for turn in turns}
            assert questions == {f"{n} + {m}" for n in range(parity, 6, 2) for m in range(4)}
            for question, _, _, answer in turns:
                total = sum(map(int, question["contents"][0]["text"].split(" + ")))
                assert answer["contents"][0]["text"] == f"It is {total}."


@on(*DURABLE)
def test_two_histories_on_one_place_see_each_others_turns(store: Store) -> None:
    with store.open() as one, store.open() as two:
        agents = [agent_of(AgentFrameworkHistory(history)) for history in (one, two)]
        for agent, prompt in zip(agents * 2, "abcd", strict=True):
            asyncio.run(tell(agent, "s", prompt))
        assert [line for line in asked(agents[1]) if line.startswith("user")] == [f"user: {each}" for each in "abcd"]


def test_nobody_reaches_anothers_session() -> None:
    with open_history("memory:") as history:
        ann, bob = (AgentFrameworkHistory(history.for_user(name)) for name in ("ann", "bob"))
        asyncio.run(tell(agent_of(ann), "s", "Hello!"))
        assert asyncio.run(bob.get_messages("s")) == []
        assert len(asyncio.run(bob.list_sessions())) == 0
        assert not asyncio.run(bob.clear("s"))
        assert len(asyncio.run(ann.get_messages("s"))) == 2


# ---- windows


@on(*DURABLE)
def test_a_window_is_the_newest_whole_turns_and_all_stays_stored(store: Store) -> None:
    with store.open() as history:
        agent = agent_of(AgentFrameworkHistory(history, max_messages=5))
        asyncio.run(tell(agent, "s", SUM, "3 + 4", "Thanks."))
        assert asked(agent) == ["user: 3 + 4", "assistant: add", "tool: 7", "assistant: It is 7.", "user: Thanks."]
        asyncio.run(tell(agent, "s", "Bye."))
        assert asked(agent) == ["user: Thanks.", "assistant: You gave me 5.", "user: Bye."]
        assert history.get_message_count("s") == 12


@pytest.mark.parametrize("limit", range(1, 12))
def test_no_window_begins_with_the_result_of_a_tool(limit: int) -> None:
    with open_history("memory:") as history:
        provider = AgentFrameworkHistory(history, max_messages=limit)
        asyncio.run(tell(agent_of(provider), "s", "Hello!", SUM, "Hello!", SUM))
        window = asyncio.run(provider.get_messages("s"))
        assert window[0].role == "user"
        assert len(window) <= max(limit, 4)


def test_the_system_prompt_that_leads_a_chat_leads_its_window() -> None:
    with open_history("memory:") as history:
        history.add_message("s", {"role": "system", "content": "You add."})
        provider = AgentFrameworkHistory(history, max_messages=2)
        asyncio.run(tell(agent_of(provider), "s", "Hello!", "Hello!"))
        window = asyncio.run(provider.get_messages("s"))
        assert [message.role for message in window] == ["system", "user", "assistant"]


def test_a_window_keeps_an_approved_call_with_its_result() -> None:
    async def run(history: ChatHistory) -> None:
        careful = tool(add, approval_mode="always_require")
        agent = agent_of(AgentFrameworkHistory(history, max_messages=3), tools=[careful])
        session = agent.create_session(session_id="s")
        (request,) = (await agent.run(SUM, session=session)).user_input_requests
        approval = Message("user", [request.to_function_approval_response(True)])
        assert (await agent.run(approval, session=session)).text == "It is 3."
        await tell(agent, session, "Thanks.")
        assert asked(agent) == [f"user: {SUM}", "assistant: add", "tool: 3", "assistant: It is 3.", "user: Thanks."]

    with open_history("memory:") as history:
        asyncio.run(run(history))


# ---- sessions


@on(*DURABLE)
def test_saved_sessions_are_listed_newest_activity_first_and_reopened(store: Store) -> None:
    with store.open() as history:
        agent = agent_of(AgentFrameworkHistory(history))
        for session_id in ("old", "older", "old"):
            asyncio.run(tell(agent, session_id, "Hello!"))
    with store.open() as history:
        provider = AgentFrameworkHistory(history)
        sessions = asyncio.run(provider.list_sessions())
        assert [(chat.chat_id, chat.message_count) for chat in sessions] == [("old", 4), ("older", 2)]
        first = asyncio.run(provider.list_sessions(limit=1))
        (second,) = asyncio.run(provider.list_sessions(after=first.after))
        agent = agent_of(provider)
        asyncio.run(tell(agent, agent.create_session(session_id=second.chat_id), "Thanks."))
        assert asked(agent)[0] == "user: Hello!"
        assert asyncio.run(provider.list_sessions())[0].chat_id == "older"


@on(*DURABLE)
def test_a_session_that_was_cleared_begins_anew(store: Store) -> None:
    with store.open() as history:
        provider = AgentFrameworkHistory(history)
        agent = agent_of(provider)
        session = asyncio.run(tell(agent, "s", "Hello!"))
        asyncio.run(tell(agent, "other", "Hello!"))
        assert asyncio.run(provider.clear("s"))
        assert not asyncio.run(provider.clear("s"))
        asyncio.run(tell(agent, session, "Again."))
        assert asked(agent) == ["user: Again."]
        assert history.get_message_count("other") == 2


@on(*DURABLE)
def test_a_session_that_was_serialised_goes_on_where_it_was(store: Store) -> None:
    with store.open() as history:
        agent = agent_of(AgentFrameworkHistory(history))
        session = asyncio.run(tell(agent, agent.create_session(), SUM))
        kept = json.dumps(session.to_dict())
    assert "It is 3." not in kept
    with store.open() as history:
        agent = agent_of(AgentFrameworkHistory(history))
        asyncio.run(tell(agent, AgentSession.from_dict(json.loads(kept)), "Thanks."))
        assert asked(agent)[-2:] == ["assistant: It is 3.", "user: Thanks."]


@on(*DURABLE)
def test_an_approval_is_given_after_a_restart_to_the_session_that_waits_for_it(store: Store) -> None:
    careful = tool(add, approval_mode="always_require")

    async def ask(history: ChatHistory) -> tuple[str, str]:
        agent = agent_of(AgentFrameworkHistory(history), tools=[careful])
        session = agent.create_session(session_id="s")
        (request,) = (await agent.run(SUM, session=session)).user_input_requests
        return json.dumps(session.to_dict()), json.dumps(request.to_dict())

    async def approve(history: ChatHistory, session: AgentSession, request: Content) -> str:
        agent = agent_of(AgentFrameworkHistory(history), tools=[careful])
        return (await agent.run(Message("user", [request.to_function_approval_response(True)]), session=session)).text

    with store.open() as history:
        session, request = asyncio.run(ask(history))
    with store.open() as history:
        waiting = AgentSession.from_dict(json.loads(session))
        assert asyncio.run(approve(history, waiting, Content.from_dict(json.loads(request)))) == "It is 3."
        assert "3" in [message.text for message in history.get_messages("s")]


# ---- the provider's settings


@on(*DURABLE)
def test_a_provider_is_made_again_from_its_settings_alone(store: Store) -> None:
    async def go_on(kept: str) -> None:
        async with AgentFrameworkHistory.deserialize(json.loads(kept)) as provider:
            assert json.dumps(provider.serialize()) == kept
            agent = agent_of(provider)
            await tell(agent, "s", "Thanks.")
            assert asked(agent)[0] == "user: Hello!"
            assert [chat.user_id for chat in await provider.list_sessions()] == ["ann"]
        await provider.aclose()
        with pytest.raises(HistoryClosedError):
            await provider.get_messages("s")

    options: dict[str, Any] = {"max_messages": 20, "store_context_messages": True, "store_context_from": {"b", "a"}}
    with store.open() as history:
        provider = AgentFrameworkHistory(history.for_user("ann"), "mine", **options)
        asyncio.run(tell(agent_of(provider), "s", "Hello!"))
        kept = json.dumps(provider.serialize())
        asyncio.run(go_on(kept))
        assert "Hello!" not in kept
        assert len(asyncio.run(provider.get_messages("s"))) == 4
        asyncio.run(provider.aclose())
        assert len(asyncio.run(provider.get_messages("s"))) == 4


def test_settings_hold_no_password_and_take_it_from_the_environment(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.parse import urlsplit

    url = urlsplit(postgres_url)
    user, _, place = url.netloc.rpartition("@")
    secret = url._replace(netloc=f"{user.partition(':')[0]}:s3cret@{place}").geturl()
    with open_history({"url": secret, "schema": "maf"}) as history:
        settings = AgentFrameworkHistory(history).serialize()
    assert "s3cret" not in json.dumps(settings)
    monkeypatch.setenv("DATABASE_URL", secret)
    provider = AgentFrameworkHistory.deserialize(settings)
    assert asyncio.run(provider.get_messages("s")) == []
    asyncio.run(provider.aclose())


REFUSED: list[tuple[Any, str]] = [
    (None, "where the history is"),
    ({}, "where the history is"),
    ({"history": "sqlite:///chats.db"}, "where the history is"),
    ({"history": {"backend": "nosql"}}, "nosql"),
    ({"history": {"backend": "sqlite", "db_path": ":memory:"}, "max_mesages": 3}, 'did you mean "max_messages"'),
    ({"history": {"backend": "sqlite", "db_path": ":memory:"}, "max_messages": 0}, "at least 1"),
]


@pytest.mark.parametrize(("settings", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_settings_that_say_something_else_are_refused(settings: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        AgentFrameworkHistory.deserialize(settings)
    assert isinstance(caught.value, ConfigError | InvalidArgumentError)


def test_a_history_in_memory_says_that_nothing_opens_it_again() -> None:
    with open_history("memory:") as history, pytest.raises(ConfigError, match="keep it in a file"):
        AgentFrameworkHistory(history).serialize()


# ---- other frameworks


@on(*DURABLE)
def test_a_chat_goes_from_one_framework_to_the_other_and_back(store: Store) -> None:
    with store.open() as history:
        asyncio.run(tell(agent_of(AgentFrameworkHistory(history)), "s", SUM))
        model = PydanticAgent(TestModel(custom_output_text="From elsewhere."), instructions="Be terse.")
        with pytest.warns(ConversionWarning, match="an answer has no name"):
            loaded = history.get_message_history("s")
        result = asyncio.run(model.run("And now?", message_history=loaded))
        history.save_messages("s", result.all_messages())
    with store.open() as history:
        agent = agent_of(AgentFrameworkHistory(history))
        asyncio.run(tell(agent, "s", "Thanks."))
        assert asked(agent)[:4] == [f"user: {SUM}", "assistant: add", "tool: 3", "assistant: It is 3."]
        assert asked(agent)[4:] == ["user: And now?", "assistant: From elsewhere.", "user: Thanks."]
        assert history.get_message_count("s") == 8


def test_what_a_conversion_loses_is_named() -> None:
    with open_history("memory:") as history:
        history.add_message("s", {"role": "user", "content": "Hello!"})
        history.add_message("s", {"role": "tool", "tool_call_id": "none", "content": "To nothing."})
        with pytest.warns(ConversionWarning, match="call"):
            messages = asyncio.run(AgentFrameworkHistory(history).get_messages("s"))
        assert [message.text for message in messages] == ["Hello!"]


# ---- what is refused


WRONG: list[tuple[Callable[[ChatHistory], Any], str]] = [
    (lambda history: AgentFrameworkHistory("sqlite:///chats.db"), "open_history"),  # type: ignore[arg-type]
    (lambda history: AgentFrameworkHistory(history, max_messages=0), "max_messages must be at least 1"),
    (lambda history: asyncio.run(AgentFrameworkHistory(history).get_messages(None)), "create_session"),
    (lambda history: asyncio.run(AgentFrameworkHistory(history).save_messages(None, EVERY)), "create_session"),
    (lambda history: asyncio.run(AgentFrameworkHistory(history).clear(None)), "create_session"),
    (lambda history: asyncio.run(AgentFrameworkHistory(history).save_messages("", EVERY)), "chat_id is empty"),
    (lambda history: asyncio.run(AgentFrameworkHistory(history).save_messages("s", "Hello!")), "must be a list"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "reason"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_meant_is_refused_and_nothing_is_stored(call: Callable[[ChatHistory], Any], reason: str) -> None:
    with open_history("memory:") as history:
        with pytest.raises(InvalidArgumentError, match=reason):
            call(history)
        assert history.get_all_chat_ids() == []


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, AgentFrameworkHistory.__module__)
    monkeypatch.setitem(sys.modules, "agent_framework", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'agent-chat-history\[agent-framework\]'"):
        importlib.import_module(AgentFrameworkHistory.__module__)

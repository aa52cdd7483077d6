"""`save_messages`: afterwards the chat ends with exactly these messages, and only what is new was written.

Every framework object here was made by a real agent run, or is one that such a run was given.
"""

from __future__ import annotations

import copy
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, capture_run_messages
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from chat_history import (
    ChatHistory,
    ChatHistoryWarning,
    DamagedStoreError,
    InvalidMessageError,
    MessageStatus,
    VersionConflictError,
)
from chat_history.backends.base import Change, Draft, Record, chat_key, owner_key
from chat_history.backends.json_file import JSONBackend
from chat_history.backends.sqlite import SQLiteBackend
from chat_history.formats import get_format
from chat_history.messages import new_ids
from chat_history.saving import digest

SAMPLES = Path(__file__).parent / "data" / "messages"
FIRST_LINE = get_format("pydantic_ai").version().startswith("1.")


@pytest.fixture(params=["json", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], ChatHistory]]:
    """Opens the same store again, as another process would."""
    opened: list[ChatHistory] = []

    def open_again() -> ChatHistory:
        backend = JSONBackend(tmp_path / "c.json") if request.param == "json" else SQLiteBackend(tmp_path / "c.db")
        opened.append(ChatHistory(backend))
        return opened[-1]

    yield open_again
    for history in opened:
        history.shutdown()


@pytest.fixture
def history(reopen: Callable[[], ChatHistory]) -> ChatHistory:
    return reopen()


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Calls the tool for a question about the weather, and answers everything else in words."""
    last = messages[-1].parts[-1]
    if isinstance(last, UserPromptPart) and "weather" in str(last.content):
        return ModelResponse(
            parts=[ToolCallPart("weather", {"city": "Paris"}), ToolCallPart("weather", '{"city":"Rome"}')]
        )
    return ModelResponse(parts=[TextPart(f"answer to: {getattr(last, 'content', '')}")])


def make_agent(**kwargs: Any) -> Agent[None, str]:
    agent = Agent(FunctionModel(answer), **kwargs)

    @agent.tool_plain
    def weather(city: str) -> dict[str, Any]:
        return {"city": city, "sunny": True}

    return agent


@pytest.fixture
def agent() -> Agent[None, str]:
    return make_agent(system_prompt="Be terse.", instructions="Answer in English.")


def ids(history: ChatHistory, chat_id: str = "c", status: str | None = "active") -> list[str]:
    return [message.message_id for message in history.iter_messages(chat_id, status=status)]


def same(one: Sequence[ModelMessage], other: Sequence[ModelMessage]) -> bool:
    dump = ModelMessagesTypeAdapter.dump_json
    return dump(list(one)) == dump(list(other))


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


# ---- all_messages() after each run


def test_two_hundred_turns_store_each_message_once_with_stable_ids(
    history: ChatHistory, agent: Agent[None, str]
) -> None:
    messages: list[ModelMessage] = []
    before: list[str] = []
    for turn in range(200):
        messages = agent.run_sync(
            f"weather {turn}" if turn % 3 else f"q{turn}", message_history=messages
        ).all_messages()
        new = history.save_messages("c", messages)
        now = ids(history)
        assert now[: len(before)] == before
        assert now[len(before) :] == [message.message_id for message in new]
        before = now
    assert len(before) == len(messages) == history.get_message_count("c")
    assert len(list(history.iter_messages("c", status=None))) == len(messages)
    assert same(history.get_message_history("c"), messages)


def test_saving_twice_changes_nothing(reopen: Callable[[], ChatHistory], agent: Agent[None, str]) -> None:
    history = reopen()
    messages = agent.run_sync("weather?").all_messages()
    assert len(history.save_messages("c", messages)) == len(messages)
    version = history.get_chat("c").version
    assert history.save_messages("c", messages) == []
    assert history.save_messages("c", copy.deepcopy(messages)) == []
    assert reopen().save_messages("c", messages) == []
    assert history.get_chat("c").version == version


def test_each_turn_loaded_run_and_saved_by_another_process(
    reopen: Callable[[], ChatHistory], agent: Agent[None, str]
) -> None:
    total = 0
    for turn in range(5):
        history = reopen()
        result = agent.run_sync(f"weather {turn}", message_history=history.get_message_history("c"))
        assert len(history.save_messages("c", result.all_messages())) == len(result.new_messages())
        total += len(result.new_messages())
    assert reopen().get_message_count("c") == total


def test_an_empty_list_changes_nothing(history: ChatHistory) -> None:
    history.add_message("c", say("user", "hi"))
    assert history.save_messages("c", []) == []
    assert history.get_message_count("c") == 1
    assert history.save_messages("other", []) == []
    assert not history.chat_exists("other")


# ---- windows


@pytest.mark.parametrize("turns", [3, 40])
def test_a_window_loaded_run_and_saved_loses_nothing_older(
    reopen: Callable[[], ChatHistory], agent: Agent[None, str], turns: int
) -> None:
    messages: list[ModelMessage] = []
    for turn in range(turns):
        messages = agent.run_sync(f"weather {turn}", message_history=messages).all_messages()
    history = reopen()
    history.save_messages("c", messages)
    before = ids(history)
    for turn in range(3):
        history = reopen()
        window = history.get_message_history("c", last=9)
        assert isinstance(window[0].parts[0], SystemPromptPart)
        assert 0 < len(window) < len(before)
        result = agent.run_sync(f"later {turn}", message_history=window)
        merged = result.all_messages()
        assert isinstance(merged[0].parts[1], UserPromptPart), "the agent merged the prompt into the first request"
        assert len(history.save_messages("c", merged)) == len(result.new_messages())
        assert history.save_messages("c", merged) == []
        now = ids(history)
        assert now[: len(before)] == before
        assert len(now) == len(before) + len(result.new_messages())
        before = now
    assert ids(history, status=None) == before


def test_a_window_of_dicts_continues_from_where_it_begins(history: ChatHistory) -> None:
    chat = [say("user" if i % 2 == 0 else "assistant", f"m{i}") for i in range(10)]
    history.add_messages("c", chat)
    window = history.get_message_history("c", format="openai", last=4)
    assert window == chat[-4:]
    window += [say("user", "new"), say("assistant", "newer")]
    assert [message.text for message in history.save_messages("c", window)] == ["new", "newer"]
    assert history.get_chat_history("c") == [*chat, *window[-2:]]


def test_a_window_of_a_long_chat_is_saved_without_reading_the_chat(
    reopen: Callable[[], ChatHistory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the prompt that the window carries along is the very one that leads the chat."""
    history = reopen()
    prompt = say("system", "Answer.")
    history.add_messages("c", [prompt, *(say("user" if i % 2 == 0 else "assistant", f"m{i}") for i in range(1000))])
    backend = type(history._backend())
    read, lengths = backend.read, []

    def counted(*args: Any, **wanted: Any) -> list[Record]:
        records = read(*args, **wanted)
        lengths.append(len(records))
        return records

    monkeypatch.setattr(backend, "read", counted)
    for turn in range(3):
        window = history.get_message_history("c", format="openai", last=6)
        assert window[0] == prompt
        history.save_messages("c", [*window, say("user", f"q{turn}"), say("assistant", f"a{turn}")])
    assert sum(lengths) < 200
    assert history.get_message_count("c") == history.get_message_count("c", status=None) == 1007


# ---- a chat that another format began


def test_a_chat_begun_with_dicts_continues_in_an_agent_and_the_dicts_stay(
    reopen: Callable[[], ChatHistory], agent: Agent[None, str]
) -> None:
    dicts = [
        say("system", "Be kind."),
        say("user", "weather?"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
                {"id": "b", "type": "function", "function": {"name": "weather", "arguments": '{"city":  "Rome"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
        {"role": "tool", "tool_call_id": "b", "content": "rainy"},
        say("assistant", "Paris sunny, Rome rainy."),
        say("assistant", "Anything else?"),
        say("user", "one"),
        say("user", "two"),
    ]
    history = reopen()
    history.add_messages("c", dicts)
    before = ids(history)
    for turn in range(3):
        loaded = history.get_message_history("c")
        assert history.save_messages("c", loaded) == []
        result = agent.run_sync(f"weather {turn}", message_history=loaded)
        new = history.save_messages("c", result.all_messages())
        assert [message.format for message in new] == ["pydantic_ai"] * len(new)
        assert sum(len(json.loads(message.payload)["parts"]) for message in new) == sum(
            len(message.parts) for message in result.new_messages()
        )
        assert history.save_messages("c", result.all_messages()) == []
        history = reopen()
        assert history.save_messages("c", result.all_messages()) == []
        assert ids(history)[: len(before)] == before
        before = ids(history)
    assert history.get_chat_history("c")[: len(dicts)] == dicts
    assert ids(history, status=None) == before


def test_an_agents_run_loaded_as_dicts_continues_with_dicts(
    reopen: Callable[[], ChatHistory], agent: Agent[None, str]
) -> None:
    history = reopen()
    messages = agent.run_sync("weather?").all_messages()
    history.save_messages("c", messages)
    before = ids(history)
    dicts = history.get_message_history("c", format="openai")
    dicts += [say("user", "and now?"), say("assistant", "now this")]
    assert [message.json() for message in reopen().save_messages("c", dicts)] == dicts[-2:]
    assert ids(history)[: len(before)] == before
    assert same(history.get_message_history("c")[: len(messages)], messages)


@pytest.mark.parametrize("format", ["openai", "openai_responses"])
def test_dicts_that_a_web_framework_filled_up_with_nulls_are_not_stored_again(
    history: ChatHistory, agent: Agent[None, str], format: str
) -> None:
    history.save_messages("c", agent.run_sync("weather?").all_messages())
    dicts = [{"name": None, **each} for each in history.get_message_history("c", format)] + [say("user", "and now?")]
    assert [message.text for message in history.save_messages("c", dicts, format=format)] == ["and now?"]
    assert not history.get_messages("c", status="superseded")


def test_a_list_of_objects_and_dicts_is_saved_as_it_is(history: ChatHistory, agent: Agent[None, str]) -> None:
    messages: list[Any] = [*agent.run_sync("hi").all_messages(), say("user", "by hand")]
    assert len(history.save_messages("c", messages)) == 3
    assert history.save_messages("c", messages) == []
    messages.append(say("assistant", "also by hand"))
    assert len(history.save_messages("c", messages)) == 1


# ---- what agents do to a history


def test_a_last_request_that_the_agent_merged_is_kept_and_the_new_part_added(
    history: ChatHistory, agent: Agent[None, str]
) -> None:
    history.save_messages("c", agent.run_sync("one").all_messages())
    history.add_messages(
        "c", [ModelRequest(parts=[UserPromptPart("two")]), ModelRequest(parts=[UserPromptPart("three")])]
    )
    before = ids(history)
    loaded = history.get_message_history("c")
    # What an agent does to neighbouring requests when it sends them, seen in all_messages() where it resumes.
    merged = ModelRequest(parts=[*loaded[-2].parts, *loaded[-1].parts, UserPromptPart("four")])
    new = history.save_messages("c", [*loaded[:-2], merged, ModelResponse(parts=[TextPart("done")])])
    assert [message.text for message in new] == ["four", "done"]
    assert ids(history)[: len(before)] == before


def test_a_run_that_resumes_the_last_request_does_not_store_it_again(
    history: ChatHistory, agent: Agent[None, str]
) -> None:
    history.save_messages("c", agent.run_sync("one").all_messages())
    history.add_message("c", ModelRequest(parts=[UserPromptPart("two")]))
    before = ids(history)
    loaded = history.get_message_history("c")
    result = agent.run_sync(message_history=loaded)
    assert result.all_messages()[-2].run_id != loaded[-1].run_id, "the agent filled in the request"
    assert len(history.save_messages("c", result.all_messages())) == 1
    assert ids(history)[:-1] == before


def run_as_far_as_it_comes(agent: Agent[None, Any], prompt: str | None, messages: list[ModelMessage]) -> Any:
    with capture_run_messages() as captured:
        try:
            return agent.run_sync(prompt, message_history=messages).all_messages()
        except ConnectionError:
            return list(captured)


@pytest.mark.skipif(FIRST_LINE, reason="Pydantic AI 1 leaves no request behind, and refuses the prompt itself")
def test_a_chat_goes_on_after_runs_that_failed_in_a_tool_and_at_the_model(reopen: Callable[[], ChatHistory]) -> None:
    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("weather", {}, "1")])
        if messages[-1].parts[-1].part_kind == "tool-return":
            raise ConnectionError("no model")
        return ModelResponse(parts=[TextPart("fine")])

    agent = Agent(FunctionModel(model))

    @agent.tool_plain
    def weather() -> str:
        raise ConnectionError("no weather")

    known: list[str] = []
    for prompt in ("weather?", None, "never mind", "bye"):
        history = reopen()
        history.save_messages("c", run_as_far_as_it_comes(agent, prompt, history.get_message_history("c")))
        assert ids(history, status=None)[: len(known)] == known
        known = ids(history)
        assert known == ids(history, status=None)
    assert texts(history, None) == ["weather?", "", "", "never mind", "fine", "bye", "fine"]


def test_an_empty_request_that_a_failed_run_left_repeats_nothing_of_what_follows(history: ChatHistory) -> None:
    is_down = False

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if is_down:
            raise ConnectionError("no model")
        return ModelResponse(parts=[TextPart(f"answer {len(messages)}")])

    agent = Agent(FunctionModel(model), instructions="Be terse.")
    for prompt in ("one", None, "two", "three"):
        is_down = prompt is None
        history.save_messages("c", run_as_far_as_it_comes(agent, prompt, history.get_message_history("c")))
    assert ids(history) == ids(history, status=None)
    assert texts(history) == ["one", "answer 1", "", "two", "answer 3", "three", "answer 5"]


def test_an_empty_request_is_a_message_that_is_kept_and_left_out_like_any_other(history: ChatHistory) -> None:
    first, last = ModelRequest(parts=[UserPromptPart("hi")]), ModelResponse(parts=[TextPart("hello")])
    for messages in ([ModelRequest(parts=[])], [first, last], [first, last, ModelRequest(parts=[])], [first, last]):
        history.set_messages("c", messages)
        assert same(history.get_message_history("c"), messages)
        history.save_messages("c", messages)
        assert same(history.get_message_history("c"), messages)


def test_separate_system_and_user_requests_that_the_agent_merges_stay_as_they_are(
    history: ChatHistory, agent: Agent[None, str]
) -> None:
    started = [
        ModelRequest(parts=[SystemPromptPart("Be kind.")]),
        ModelRequest(parts=[UserPromptPart("one")]),
        ModelResponse(parts=[TextPart("1")]),
        ModelResponse(parts=[TextPart("2")]),
    ]
    history.add_messages("c", started)
    before = ids(history)
    result = agent.run_sync("two", message_history=history.get_message_history("c"))
    assert len(result.all_messages()) == 4, "the agent merged both pairs"
    assert len(history.save_messages("c", result.all_messages())) == 2
    assert history.save_messages("c", result.all_messages()) == []
    assert ids(history)[:4] == before
    assert ids(history, status=None) == ids(history)


def test_a_dynamic_system_prompt_that_changes_each_run_does_not_repeat_the_chat(history: ChatHistory) -> None:
    agent = make_agent()
    count = iter(range(100))

    @agent.system_prompt(dynamic=True)
    def now() -> str:
        return f"It is day {next(count)}."

    messages: list[ModelMessage] = []
    for turn in range(4):
        result = agent.run_sync(f"q{turn}", message_history=messages)
        messages = result.all_messages()
        assert len(history.save_messages("c", messages)) == len(result.new_messages())
    assert history.get_message_count("c") == len(list(history.iter_messages("c", status=None))) == 8


# ---- departures


def test_a_list_that_departs_in_the_middle_begins_a_branch_and_the_displaced_can_still_be_read(
    history: ChatHistory, agent: Agent[None, str]
) -> None:
    first = agent.run_sync("one").all_messages()
    second = agent.run_sync("two", message_history=first).all_messages()
    history.save_messages("c", second)
    before = list(history.iter_messages("c"))
    other = agent.run_sync("two, but otherwise", message_history=first).all_messages()
    new = history.save_messages("c", other)
    assert len(new) == 2
    assert new[0].parent == before[1].message_id
    assert [message.message_id for message in history.iter_messages("c")] == [
        *[message.message_id for message in before[:2]],
        *[message.message_id for message in new],
    ]
    assert same(history.get_message_history("c"), other)
    superseded = list(history.get_messages("c", status=MessageStatus.SUPERSEDED))
    assert [message.payload for message in superseded] == [message.payload for message in before[2:]]
    assert history.get_message("c", before[3].message_id).parent == before[2].message_id


def test_a_shorter_list_takes_the_rest_out_of_the_branch(history: ChatHistory) -> None:
    history.add_messages("c", [say("user", "a"), say("assistant", "b"), say("user", "c")])
    assert history.save_messages("c", [say("user", "a"), say("assistant", "b")]) == []
    assert [message["content"] for message in history.get_chat_history("c")] == ["a", "b"]
    assert [message.text for message in history.get_messages("c", status="superseded")] == ["c"]
    history.add_message("c", say("user", "d"))
    last = history.get_messages("c")[-1]
    assert last.parent == history.get_messages("c")[1].message_id


def test_a_list_that_shares_nothing_becomes_a_branch_from_the_root_with_a_warning(
    history: ChatHistory, agent: Agent[None, str]
) -> None:
    first = agent.run_sync("one")
    history.save_messages("c", first.all_messages())
    second = agent.run_sync("two", message_history=first.all_messages())
    with pytest.warns(ChatHistoryWarning, match=r"2 messages stored before were set aside.*add_messages"):
        new = history.save_messages("c", second.new_messages())
    assert new[0].parent is None
    assert history.get_message_count("c") == 2
    assert len(history.get_messages("c", status="superseded")) == 2


def test_a_message_changed_in_place_is_noticed(history: ChatHistory, agent: Agent[None, str]) -> None:
    messages = agent.run_sync("weather?").all_messages()
    history.save_messages("c", messages)
    call = messages[1].parts[0]
    assert isinstance(call, ToolCallPart)
    assert isinstance(call.args, dict)
    call.args["city"] = "Berlin"
    assert len(history.save_messages("c", messages)) == 3
    assert same(history.get_message_history("c"), messages)
    messages[-1].metadata = {"rating": 5}
    assert len(history.save_messages("c", messages)) == 1
    messages[-1].metadata["rating"] = True
    history.save_messages("c", messages)
    messages[-1].metadata["rating"] = 1
    assert len(history.save_messages("c", messages)) == 1
    assert same(history.get_message_history("c"), messages)


@pytest.mark.parametrize("place", [1, -1])
def test_a_message_changed_in_place_is_noticed_in_a_list_saved_often(
    history: ChatHistory, agent: Agent[None, str], place: int
) -> None:
    messages = agent.run_sync("weather?").all_messages()

    def save_often() -> None:
        history.save_messages("c", messages)
        for _ in range(3):
            assert history.save_messages("c", messages) == []

    for metadata in ({"rating": 5}, {"rating": 1}, {"rating": True}, {"rating": 1.0}, {"rates": 1.0}):
        save_often()
        if messages[place].metadata is None:
            messages[place].metadata = {}
        messages[place].metadata.clear()
        messages[place].metadata.update(metadata)
        assert history.save_messages("c", messages) != []
        assert same(history.get_message_history("c"), messages)


def test_equal_messages_repeated_on_purpose_survive(reopen: Callable[[], ChatHistory]) -> None:
    chat: list[dict[str, str]] = []
    for _ in range(5):
        chat += [say("user", "yes"), say("assistant", "ok")]
        history = reopen()
        assert len(history.save_messages("c", chat)) == 2
        assert history.save_messages("c", chat) == []
        assert history.get_chat_history("c") == chat
    history.add_messages("c", [say("user", "yes"), say("user", "yes")])
    assert history.get_message_count("c") == 12
    assert history.get_message_count("c") == len(ids(history, status=None))


def test_set_messages_makes_the_chat_exactly_these(history: ChatHistory) -> None:
    chat = [say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d")]
    history.set_messages("c", chat)
    kept = ids(history)[:2]
    assert len(history.set_messages("c", [*chat[:2], say("user", "x")])) == 1
    assert ids(history)[:2] == kept
    assert history.set_messages("c", chat[2:]) != []
    assert history.get_chat_history("c") == chat[2:]
    assert history.set_messages("c", []) == []
    assert history.get_chat_history("c") == []
    assert history.chat_exists("c")


def test_archived_messages_stay_where_a_window_goes_on(history: ChatHistory) -> None:
    chat = [say("user" if i % 2 == 0 else "assistant", f"m{i}") for i in range(8)]
    history.add_messages("c", chat)
    history.archive_oldest_messages("c", 4)
    more = [*history.get_chat_history("c"), say("user", "new")]
    assert more[:-1] == chat[4:]
    assert len(history.save_messages("c", more)) == 1
    assert len(history.set_messages("c", [*more, say("assistant", "newer")])) == 1
    assert len(history.get_messages("c", status="archived")) == 4
    assert history.get_message_count("c") == 6
    assert history.get_messages("c", status="superseded").items == ()


# ---- another release of the framework


@pytest.mark.parametrize("name", ["tools_multiturn", "testmodel_three_turns"])
def test_an_upgrade_of_the_framework_between_two_saves_rewrites_nothing(
    reopen: Callable[[], ChatHistory], agent: Agent[None, str], name: str
) -> None:
    old = json.loads((SAMPLES / "pydantic_ai_v1" / f"{name}.json").read_text())
    payloads = [json.dumps(message, ensure_ascii=False, separators=(",", ":")) for message in old]
    history = reopen()
    now = datetime.now(UTC)
    drafts = [
        Draft(new, "user", "pydantic_ai", "1.107.10", payload, "", digest(payload), now)
        for new, payload in zip(new_ids(len(payloads)), payloads, strict=True)
    ]
    history._backend().write(chat_key(owner_key("", ""), "c"), Change(now, drafts=drafts, active=len(drafts)))
    before = ids(history)
    loaded = history.get_message_history("c")
    assert history.save_messages("c", loaded) == []
    result = agent.run_sync("on", message_history=loaded)
    assert len(history.save_messages("c", result.all_messages())) == len(result.new_messages())
    assert reopen().save_messages("c", result.all_messages()) == []
    assert ids(history)[: len(before)] == before
    assert [message.payload for message in history.iter_messages("c")][: len(payloads)] == payloads


# ---- writers at once


def test_two_savers_at_once_both_get_their_branch(reopen: Callable[[], ChatHistory], agent: Agent[None, str]) -> None:
    one, other = reopen(), reopen()
    start = agent.run_sync("start").all_messages()
    one.save_messages("c", start)
    ours = agent.run_sync("ours", message_history=one.get_message_history("c")).all_messages()
    theirs = agent.run_sync("theirs", message_history=other.get_message_history("c")).all_messages()
    one.save_messages("c", ours)
    other.save_messages("c", theirs)
    assert same(one.get_message_history("c"), theirs)
    assert [message.text for message in one.get_messages("c", status="superseded")] == ["ours", "answer to: ours"]


def test_an_expected_version_refuses_a_save_on_a_chat_that_changed(
    reopen: Callable[[], ChatHistory], agent: Agent[None, str]
) -> None:
    one, other = reopen(), reopen()
    messages = agent.run_sync("start").all_messages()
    one.save_messages("c", messages, expected_version=0)
    version = other.get_chat("c").version
    one.add_message("c", say("user", "meanwhile"))
    for save in (other.save_messages, other.set_messages, other.add_messages):
        with pytest.raises(VersionConflictError) as conflict:
            save("c", [*messages, say("user", "late")], expected_version=version)
        assert conflict.value.actual == one.get_chat("c").version
    with pytest.raises(VersionConflictError):
        other.save_messages("c", messages, expected_version=0)
    assert one.get_message_count("c") == 3
    other.save_messages("c", [*messages, say("user", "late")], expected_version=one.get_chat("c").version)


SAVER = """
import sys
from chat_history import open_history
history = open_history(sys.argv[1])
messages = []
for turn in range(30):
    messages = history.get_chat_history("c") + [{"role": "user", "content": f"{sys.argv[2]} {turn}"}]
    history.save_messages("c", messages)
"""


def test_two_processes_saving_at_once_destroy_nothing(reopen: Callable[[], ChatHistory], tmp_path: Path) -> None:
    history = reopen()
    history.create_chat("c")
    url = str(history.location)
    savers = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", SAVER, url, name]) for name in "ab"]
    assert [saver.wait(timeout=120) for saver in savers] == [0, 0]
    texts = sorted(message.text for message in history.iter_messages("c", status=None))
    assert texts == sorted(f"{name} {turn}" for name in "ab" for turn in range(30))
    positions = [message.position for message in history.iter_messages("c", status=None)]
    assert positions == list(range(60))


def test_a_save_with_nothing_new_still_sees_what_others_added(reopen: Callable[[], ChatHistory]) -> None:
    one, other = reopen(), reopen()
    chat = [say("user", "a"), say("assistant", "b")]
    one.save_messages("c", chat)
    other.add_message("c", say("user", "meanwhile"))
    assert one.save_messages("c", chat) == []
    assert one.get_chat_history("c") == chat
    assert [message.text for message in one.get_messages("c", status="superseded")] == ["meanwhile"]


def test_the_count_is_right_when_archived_messages_are_displaced_too(history: ChatHistory) -> None:
    history.add_messages("c", [say("user", "a"), say("assistant", "b"), say("user", "c")])
    history.archive_oldest_messages("c", 2)
    with pytest.warns(ChatHistoryWarning):
        history.save_messages("c", [say("user", "x"), say("assistant", "y")])
    assert history.get_message_count("c") == len(list(history.iter_messages("c"))) == 2


def test_a_branch_that_is_returned_to_is_not_stored_again(history: ChatHistory) -> None:
    start, one, other = say("user", "q"), say("assistant", "one"), say("assistant", "other")
    for answer_ in (one, other, one, other, one):
        history.save_messages("c", [start, answer_])
        assert history.get_chat_history("c") == [start, answer_]
    assert len(list(history.iter_messages("c", status=None))) == 3
    history.save_messages("c", [start, other, say("user", "on")])
    assert history.get_messages("c")[-1].parent == history.get_messages("c")[1].message_id
    assert len(list(history.iter_messages("c", status=None))) == 4


def test_a_payload_that_somebody_spoilt_is_named_and_hides_no_other(tmp_path: Path, agent: Agent[None, str]) -> None:
    path = tmp_path / "c.db"
    with ChatHistory(SQLiteBackend(path)) as history:
        messages = agent.run_sync("hi").all_messages()
        history.save_messages("c", messages)
        history.add_message("c", say("user", "whole"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE messages SET payload = '{\"parts\": [' WHERE position = 1")
    connection.close()
    with ChatHistory(SQLiteBackend(path)) as history:
        calls: list[Callable[[], object]] = [
            lambda: history.get_chat_history("c"),
            lambda: history.get_message_history("c"),
            lambda: history.get_readable_chat_history("c"),
            lambda: history.save_messages("c", [*messages[:1], say("user", "other")]),
        ]
        for call in calls:
            with pytest.raises(DamagedStoreError, match="message 1 of chat 'c' is damaged"):
                call()
        assert history.get_chat_history("c", last=1) == [say("user", "whole")]
        assert history.delete_message("c", history.get_messages("c")[1].message_id)
        assert len(history.get_message_history("c")) == 2


def test_half_a_surrogate_pair_in_a_dict_does_not_keep_an_agent_from_going_on() -> None:
    with ChatHistory(SQLiteBackend(":memory:")) as history:
        dicts = [{"role": "user", "content": "a\ud800b"}, {"role": "assistant", "content": "\u00e9\U0001f600"}]
        history.add_messages("c", dicts)
        messages = history.get_message_history("c")
        assert messages[0].parts[0].content == "a\ufffdb"
        result = Agent(TestModel()).run_sync("Hi", message_history=messages)
        assert len(history.save_messages("c", result.all_messages())) == 2
        assert history.get_chat_history("c")[:2] == dicts


@pytest.mark.parametrize("overflow", ["archive", "delete"])
def test_a_damaged_message_is_named_by_a_window_and_keeps_no_message_from_being_stored(
    tmp_path: Path, overflow: Any
) -> None:
    path = tmp_path / "c.db"
    with ChatHistory(SQLiteBackend(path)) as history:
        history.add_messages("c", [say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE messages SET payload = '{\"role\": ' WHERE position = 0")
    connection.close()
    with ChatHistory(SQLiteBackend(path), max_messages=4, overflow=overflow) as history:
        for window in ({"max_tokens": 1000}, {"last": 2}):
            with pytest.raises(DamagedStoreError, match="message 0 of chat 'c' is damaged"):
                history.get_message_history("c", "openai", **window)
        if overflow == "delete":  # which must know whether that is a system prompt
            with pytest.warns(ChatHistoryWarning, match="stored, but .* could not be deleted: message 0 of chat 'c'"):
                history.add_message("c", say("user", "e"))
        else:
            history.add_message("c", say("user", "e"))
        assert history.get_messages("c", limit=1)[0].text == "e"
        assert history.get_message_count("c") == (5 if overflow == "delete" else 3)


def test_a_format_that_is_named_is_that_of_known_messages_too() -> None:
    with ChatHistory(SQLiteBackend(":memory:")) as history:
        messages = Agent(TestModel()).run_sync("hi").all_messages()
        for _ in range(2):
            with pytest.raises(InvalidMessageError, match="not a message of the format 'openai'"):
                history.save_messages("c", messages, format="openai")
            history.save_messages("c", messages)


@pytest.mark.parametrize("format", [None, "openai_responses"])
def test_a_dict_that_somebody_spoilt_is_named_and_can_be_replaced_or_deleted(
    tmp_path: Path, format: str | None
) -> None:
    path = tmp_path / "c.db"
    with ChatHistory(SQLiteBackend(path)) as history:
        history.add_messages("c", [say("user", text) for text in "abc"], format=format)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE messages SET payload = '{\"role\": ' WHERE position > 0")
    connection.close()
    with ChatHistory(SQLiteBackend(path)) as history:
        for call in (history.get_chat_history, history.get_message_history):
            with pytest.raises(DamagedStoreError, match="message 1 of chat 'c' is damaged"):
                call("c")
        assert [message.text for message in history.get_messages("c")] == ["a", "", ""]
        second, third = history.get_messages("c", limit=2)
        history.replace_message("c", second.message_id, say("user", "x"))
        assert history.delete_message("c", third.message_id)
        assert [message["content"] for message in history.get_chat_history("c")] == ["a", "x"]


def texts(history: ChatHistory, status: str | None = "active") -> list[str]:
    return [message.text for message in history.iter_messages("c", status=status)]


def test_a_window_that_begins_with_words_said_before_displaces_nothing(history: ChatHistory) -> None:
    said = [("system", "Be terse."), ("user", "hi"), ("assistant", "hello"), ("user", "tea?"), ("assistant", "yes")]
    history.add_messages("c", [{"role": role, "content": text} for role, text in [*said, ("user", "hi")]])
    window = history.get_message_history("c", "openai", last=1)
    assert [message["content"] for message in window] == ["Be terse.", "hi"]
    new = history.save_messages("c", [*window, {"role": "assistant", "content": "hi again"}])
    assert [message.text for message in new] == ["hi again"]
    assert texts(history, None) == texts(history) == ["Be terse.", "hi", "hello", "tea?", "yes", "hi", "hi again"]


@pytest.mark.parametrize("archived", [1, 3, 7])
def test_what_was_loaded_may_be_set_also_where_the_prompt_that_leads_is_archived(
    history: ChatHistory, archived: int
) -> None:
    said = [{"role": "system", "content": "SYS"}]
    for number in range(4):
        said += [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]
    history.add_messages("c", said)
    history.archive_oldest_messages("c", archived)
    loaded = history.get_message_history("c", "openai")
    assert history.set_messages("c", loaded) == []
    assert history.get_message_history("c", "openai") == loaded
    changed = [*loaded[:-1], {"role": "assistant", "content": "another"}]
    assert [message.text for message in history.set_messages("c", changed)] == ["another"]
    assert history.get_message_history("c", "openai") == changed
    assert len(texts(history, "archived")) == archived
    assert texts(history, "superseded") == ["a3"]


def test_what_was_loaded_may_be_set_also_where_one_of_two_equal_prompts_is_archived(history: ChatHistory) -> None:
    prompt = {"role": "system", "content": "SYS"}
    history.add_messages("c", [prompt, prompt, say("user", "q"), say("assistant", "a")])
    history.archive_oldest_messages("c", 1)
    loaded = history.get_message_history("c", "openai")
    assert history.set_messages("c", loaded) == []
    assert [message.text for message in history.set_messages("c", [*loaded, say("user", "more")])] == ["more"]
    assert texts(history, None) == ["SYS", "SYS", "q", "a", "more"]


@pytest.mark.filterwarnings("ignore::chat_history.ConversionWarning")  # of results whose calls are archived
@pytest.mark.parametrize("name", ["agent_framework", "langchain", "llama_index", "openai", "pydantic_ai"])
@pytest.mark.parametrize("archived", range(1, 8))
def test_what_was_loaded_is_not_stored_again_where_an_answer_is_archived_in_part(
    history: ChatHistory, name: str, archived: int
) -> None:
    text = {"type": "output_text", "text": "Let me see.", "annotations": []}
    said = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
    calls = [{"type": "function_call", "call_id": i, "name": "weather", "arguments": "{}"} for i in "12"]
    results = [{"type": "function_call_output", "call_id": i, "output": f"{i} degrees"} for i in "12"]
    history.add_messages("c", [say("user", "q"), said, *calls, *results, say("assistant", "a"), say("user", "and?")])
    history.archive_oldest_messages("c", archived)
    loaded = history.get_message_history("c", name)
    assert history.save_messages("c", loaded) == []
    assert history.set_messages("c", loaded) == []
    assert history.get_message_count("c") == 8 - archived


def test_the_prompt_that_leads_is_set_again_where_all_is_archived_and_not_stored_again(history: ChatHistory) -> None:
    prompt = {"role": "system", "content": "SYS"}
    history.add_messages("c", [prompt, say("user", "q0"), say("assistant", "a0")])
    history.archive_oldest_messages("c", 3)
    assert [message.text for message in history.set_messages("c", [prompt, say("user", "q1")])] == ["q1"]
    assert history.get_message_history("c", "openai") == [prompt, say("user", "q1")]


@pytest.mark.filterwarnings("ignore::chat_history.ConversionWarning")  # of the name
def test_words_that_were_loaded_as_items_are_found_again_where_the_format_is_said(history: ChatHistory) -> None:
    history.add_message("c", {**say("user", "hi"), "name": "ann"})
    history.add_message("c", {**say("assistant", "hello"), "timestamp": "9:00"})
    items = history.get_message_history("c", format="openai_responses")
    assert items == [say("user", "hi"), say("assistant", "hello")]
    assert history.save_messages("c", items, format="openai_responses") == []
    items.append(say("user", "and now?"))
    assert [each.text for each in history.save_messages("c", items, format="openai_responses")] == ["and now?"]
    assert history.get_chat_history("c")[0]["name"] == "ann"


def test_equal_words_that_are_a_whole_answer_here_and_a_piece_of_one_there_are_not_stored_again(
    history: ChatHistory,
) -> None:
    call = {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "1", "output": "25"}
    items = [say("user", "hi"), say("assistant", "Well."), say("user", "so?"), say("assistant", "Well."), call, result]
    history.add_messages("c", items, format="openai_responses")
    messages = history.get_message_history("c", format="openai")
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "tool"]
    assert history.save_messages("c", messages) == []
    assert history.get_message_history("c", format="openai_responses") == items


def test_what_pydantic_ai_loads_as_something_else_is_not_stored_again(history: ChatHistory) -> None:
    part = {"content": "again", "tool_call_id": "1", "timestamp": "2026-01-01T00:00:03Z", "part_kind": "retry-prompt"}
    request = json.dumps({"parts": [part], "kind": "request"})
    messages = [
        ModelRequest(parts=[UserPromptPart("hi")]),
        ModelResponse(parts=[TextPart("x")]),
        ModelMessagesTypeAdapter.validate_json(f"[{request}]")[0],
        ModelResponse(parts=[TextPart("y")]),
    ]
    history.save_messages("c", messages)
    record = list(history.iter_messages("c"))[2]
    backend = history._backend()
    key = chat_key(owner_key("", ""), "c")
    draft = Draft(
        record.message_id,
        "tool",
        "pydantic_ai",
        record.format_version,
        request,
        "again",
        digest(request),
        record.created_at,
    )
    outline = backend.outline(key)
    assert outline is not None
    backend.write(key, Change(datetime.now(UTC), outline.version, replacements=[(2, draft)]))
    assert history.save_messages("c", history.get_message_history("c")) == []
    assert history.set_messages("c", history.get_message_history("c")) == []


@pytest.mark.filterwarnings("ignore::chat_history.ConversionWarning")  # that the result says it was interrupted
@pytest.mark.parametrize(
    "name", ["agent_framework", "langchain", "llama_index", "openai", "openai_responses", "pydantic_ai"]
)
@pytest.mark.parametrize("times", [1, 2])
def test_a_list_that_goes_on_after_a_call_without_a_result_is_stored_once(
    reopen: Callable[[], ChatHistory], name: str, times: int
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    asked = [{"role": "user", "content": "weather?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    asked *= times
    others = [{"role": "user", "content": "never mind"}, {"role": "assistant", "content": "ok"}]
    first = reopen()
    first.add_messages("c", asked)
    first.add_messages("d", others)
    messages = first.get_message_history("c", name) + first.get_message_history("d", name)
    assert len(first.save_messages("c", messages)) == 2
    for history in (first, reopen()):
        assert history.save_messages("c", messages) == []
        assert history.save_messages("c", history.get_message_history("c", name)) == []
        assert texts(history, None) == [*["weather?", ""] * times, "never mind", "ok"]

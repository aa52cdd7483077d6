"""Messages of Agent Framework: every kind of content comes back, and its agents go on with chats of others."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from agent_framework import (
    Agent,
    BaseChatClient,
    ChatResponse,
    Content,
    FunctionInvocationLayer,
    Message,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_history import ConversionWarning, InvalidMessageError, MissingDependencyError, open_history
from chat_history.formats import Source, get_format, recognise
from chat_history.replaying import convert, neutral_messages
from chat_history_adapters.formats import extras

FORM = get_format("agent_framework")
SAMPLES = Path(__file__).parent / "data" / "messages"
TIME = datetime(2026, 1, 2, tzinfo=UTC)
TARGETS = ["langchain", "openai", "pydantic_ai"]
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CITED: Any = {
    "type": "citation",
    "url": "https://e.com",
    "title": "E",
    "snippet": "said",
    "annotated_regions": [{"type": "text_span", "start_index": 0, "end_index": 4}],
}
CALL = Content.from_function_call("c1", "add", arguments={"a": 1}, id="af-call-1")
SAID = [
    Content.from_text("Hello", annotations=[CITED]),
    Content.from_text("No.", additional_properties={"core": {"model_output_kind": "refusal"}}),
    Content.from_text_reasoning(id="rs_1", text="hm", protected_data="gAAA"),
    Content("data", uri="data:image/png;base64,iVBORw0KGgo=", media_type="image/png", name="cat.png"),
    Content.from_uri("https://e.com/a.mp3", media_type="audio/mpeg"),
    Content("hosted_file", file_id="file-1", media_type="application/pdf", name="d.pdf"),
    CALL,
    Content.from_function_call("c2", "add", arguments='{"a":  1}', informational_only=True),
    Content.from_function_call("c3", "search", arguments="", hosted=True),
    Content.from_function_result("c3", result="found"),
    Content.from_usage({"input_token_count": 3, "output_token_count": 4, "cache_read_input_token_count": 2}),
]
DONE = [
    Content.from_error(message="over", error_code="429"),
    Content.from_hosted_vector_store("vs_1"),
    Content.from_code_interpreter_tool_call(call_id="t1", inputs=[Content.from_text("print(1)")]),
    Content.from_code_interpreter_tool_result(call_id="t1", outputs=[Content.from_text("1")]),
    Content.from_image_generation_tool_call(image_id="t2"),
    Content.from_image_generation_tool_result(image_id="t2", outputs=Content.from_data(b"\x89PNG", "image/png")),
    Content.from_mcp_server_tool_call("t3", "look", server_name="docs", arguments={"q": "x"}),
    Content.from_mcp_server_tool_result("t3", output=[{"type": "text", "text": "y"}]),
    Content.from_search_tool_call("t4", tool_name="web", arguments={"q": "x"}),
    Content.from_search_tool_result("t4", tool_name="web", result=["y"]),
    Content.from_shell_tool_call(call_id="t5", commands=["ls"], timeout_ms=5),
    Content.from_shell_tool_result(call_id="t5", outputs=[Content.from_shell_command_output(stdout="a", exit_code=0)]),
    Content.from_function_approval_request("af-call-1", CALL),
    Content.from_oauth_consent_request("https://e.com/consent"),
]
EVERY = [
    Message("system", ["Be terse."]),
    Message("user", ["Hello!", Content.from_data(b"%PDF", "application/pdf")], author_name="Ada"),
    *(Message("assistant", [content], message_id="m") for content in [*SAID, *DONE]),
    Message("assistant", [*SAID, *DONE], author_name="Bot", additional_properties={"rating": 5}),
    Message("tool", [Content.from_function_result("c1", result={"sum": 3}, exception="secret")]),
    Message("tool", [Content.from_function_result("c2", result=[SAID[0], SAID[3]])]),
    Message("user", [Content.from_function_approval_response(True, "af-call-1", CALL)]),
    Message("critic", []),
]


def stored(messages: Sequence[Any], name: str = "agent_framework") -> list[Source]:
    """Messages as they would be stored."""
    form = get_format(name)
    payloads = [form.dump(message).payload for message in messages]
    return [Source(f"{i:08}", name, payload, TIME + timedelta(seconds=i)) for i, payload in enumerate(payloads)]


def sample(file: str, name: str) -> list[Source]:
    """The messages of a sample file as they would be stored."""
    messages = json.loads((SAMPLES / f"{file}.json").read_text())
    return [
        Source(f"{i:08}", name, json.dumps(message), TIME + timedelta(seconds=i)) for i, message in enumerate(messages)
    ]


@pytest.mark.parametrize("message", EVERY, ids=range(len(EVERY)))
def test_every_kind_of_message_comes_back_equal_and_as_the_same_bytes(message: Message) -> None:
    payload = FORM.dump(message).payload
    (loaded,) = FORM.load([payload])
    assert loaded.to_dict() == message.to_dict()
    assert FORM.dump(loaded).payload == payload
    assert json.loads(payload) == message.to_dict()


@pytest.mark.parametrize("target", [*TARGETS, "agent_framework"])
@pytest.mark.parametrize("message", EVERY, ids=range(len(EVERY)))
def test_every_kind_of_message_is_converted_or_reported(message: Message, target: str) -> None:
    converted = convert(stored([message]), target)
    assert converted.messages or converted.losses or all(each.type == "usage" for each in message.contents)
    for made in converted.messages:
        get_format(target).dump(made)


TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CONTENT = st.one_of(
    TEXT.map(Content.from_text),
    st.builds(lambda text, sealed: Content.from_text_reasoning(text=text, protected_data=sealed), TEXT, TEXT),
    st.builds(
        lambda name, args: Content.from_function_call("c", name, arguments=args),
        TEXT,
        TEXT | st.dictionaries(TEXT, VALUE, max_size=3),
    ),
    st.builds(lambda value: Content.from_function_result("c", result=value), VALUE),
    st.binary(max_size=9).map(lambda data: Content.from_data(data, "image/png")),
)


@patiently
@given(st.sampled_from(["system", "user", "assistant", "tool"]), st.lists(CONTENT, max_size=4), VALUE)
def test_any_message_comes_back_equal(role: str, contents: list[Content], value: Any) -> None:
    message = Message(role, contents, additional_properties={"own": value})
    payload = FORM.dump(message).payload
    (loaded,) = FORM.load([payload])
    assert loaded.to_dict() == message.to_dict()
    assert FORM.dump(loaded).payload == payload
    for target in TARGETS:
        for made in convert(stored([message]), target).messages:
            get_format(target).dump(made)


def test_an_answer_to_a_request_for_approval_begins_no_turn() -> None:
    request = Content.from_function_approval_request("af-call-1", CALL)
    turn = [
        Message("user", ["Add one."]),
        Message("assistant", [CALL, request]),
        Message("user", [request.to_function_approval_response(True)]),
        Message("tool", [Content.from_function_result("c1", result="2")]),
    ]
    with open_history("memory:") as history:
        history.add_messages("c", turn)
        window = history.get_message_history("c", format="agent_framework", last=2)
        assert [message.to_dict() for message in window] == [message.to_dict() for message in turn]


def test_lone_surrogates_come_back() -> None:
    payload = FORM.dump(Message("user", ["a\ud800b"])).payload
    payload.encode()
    assert FORM.load([payload])[0].text == "a\ud800b"
    assert FORM.dump(FORM.load([payload])[0]).payload == payload


def test_what_json_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match="Agent Framework cannot write this Message"):
        FORM.dump(Message("user", ["x"], additional_properties={"rate": float("nan")}))


def test_an_exception_leaves_only_that_there_was_one() -> None:
    result = Content.from_function_result("c", result="It failed.", exception="password is 1234")
    dumped = FORM.dump(Message("tool", [result]))
    assert "1234" not in dumped.payload
    assert dumped[1:3] == ("tool", "It failed.")
    (neutral,) = FORM.to_neutral(dumped.payload)
    assert (neutral["outcome"], neutral["content"]) == ("error", "It failed.")


class MessageOfTomorrow(Message):
    """As a later release of the framework writes one."""

    def to_dict(self, **options: Any) -> dict[str, Any]:
        return {**super().to_dict(**options), "mood": "sunny"}


def test_a_message_of_a_later_release_is_converted_with_a_warning() -> None:
    with open_history("memory:") as history:
        history.add_message("c", {"role": "user", "content": "Hello!"})
        history.add_message("c", MessageOfTomorrow("assistant", ["Good day."]))
        with pytest.warns(ConversionWarning, match="unexpected keyword argument 'mood'"):
            loaded = history.get_message_history("c", format="agent_framework")
        assert [(each.role, each.text) for each in loaded] == [("user", "Hello!"), ("assistant", "Good day.")]
        assert history.get_chat_history("c")[1]["extra"]["agent_framework"]["mood"] == "sunny"


def test_what_the_framework_would_skip_takes_the_neutral_way() -> None:
    fields = Message("user", ["a", Content.from_data(b"x", "image/png")]).to_dict()
    fields["contents"].append(None)
    with pytest.raises(ValueError, match="skips"):
        FORM.load([json.dumps(fields)])


def test_results_of_parallel_calls_are_one_message() -> None:
    calls = [{"id": i, "type": "function", "function": {"name": "add", "arguments": '{"a":  1}'}} for i in ("c1", "c2")]
    chat = [
        {"role": "user", "content": "Both, please."},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "assistant", "content": "1 and 2."},
    ]
    converted = convert(stored(chat, "openai"), "agent_framework")
    assert not converted.losses
    assert [message.role for message in converted.messages] == ["user", "assistant", "tool", "assistant"]
    assert [each.call_id for each in converted.messages[2].contents] == ["c2", "c1"]
    assert [each.arguments for each in converted.messages[1].contents] == ['{"a":  1}'] * 2
    back = convert(stored(converted.messages), "openai")
    assert not back.losses
    assert back.messages == chat


def test_seals_of_thoughts_stay_with_the_framework_and_the_words_go_on() -> None:
    sealed = Message("assistant", [Content.from_text_reasoning(id="rs_1", text="hm", protected_data="gAAA"), "Hi."])
    converted = convert(stored([sealed]), "langchain")
    assert [loss.part for loss in converted.losses] == ["thinking.ciphertext", "thinking.id"]
    assert "hm" in str(converted.messages[0].content)
    assert "gAAA" not in str(converted.messages[0])


def test_thoughts_of_others_stand_beside_the_contents() -> None:
    """Among them the framework's client for Responses would refuse the whole chat where a call follows, and its client
    for Chat Completions would send them as words."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    thought = {"role": "assistant", "content": "Hm.", "reasoning_content": "So I add."}
    chat = [thought, {**thought, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "3"}]
    converted = convert(stored(chat, "openai"), "agent_framework")
    assert not converted.losses
    kinds = [[content.type for content in message.contents] for message in converted.messages]
    assert kinds == [["text"], ["text", "function_call"], ["function_result"]]
    for message in converted.messages[:2]:
        again = [each for _, each in neutral_messages(stored(FORM.load([FORM.dump(message).payload])))]
        assert [each["text"] for each in again[0]["thinking"]] == ["So I add."]


def test_a_message_of_nothing_but_thoughts_of_others_has_them_as_its_contents() -> None:
    chat = [{"role": "assistant", "content": None, "reasoning_content": "So I add."}]
    (message,) = convert(stored(chat, "openai"), "agent_framework").messages
    assert [(content.type, content.text) for content in message.contents] == [("text_reasoning", "So I add.")]


def has_name(message: dict[str, Any]) -> bool:
    return bool(message.get("name")) and message["role"] != "tool"


def test_what_it_has_a_slot_for_is_kept_there_and_back() -> None:
    sources = sample("openai/chat_messages", "openai")
    there = convert(sources, "agent_framework").messages
    refusals = [
        part
        for _, message in neutral_messages(stored(there))
        for part in message["content"] or ()
        if isinstance(part, dict) and part["type"] == "refusal"
    ]
    assert len(refusals) == 2
    names = [message.author_name for message in there if message.author_name]
    assert names == [message["name"] for _, message in neutral_messages(sources) if has_name(message)]


def test_a_name_that_chat_completions_refuses_is_left_out_and_reported() -> None:
    said = stored([Message("assistant", [f"From {name}."], author_name=name) for name in ("Planner", "Weather Agent")])
    converted = convert(said, "openai")
    assert [message.get("name") for message in converted.messages] == ["Planner", None]
    assert [(loss.message, loss.part) for loss in converted.losses] == [("00000001", "name")]


class Scripted(FunctionInvocationLayer[Any], BaseChatClient[Any]):
    """A chat client that gives these answers, and remembers what it was asked."""

    def __init__(self, *answers: Message) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[list[Message]] = []

    def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **rest: Any) -> Any:
        async def answer() -> ChatResponse[Any]:
            self.asked.append(list(messages))
            return ChatResponse(messages=[self.answers.pop(0)])

        return answer()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def run(history: list[Message], prompt: str) -> tuple[list[Message], Scripted]:
    """One run of an agent that calls a tool: all messages after it, and the client."""
    client = Scripted(
        Message("assistant", [Content.from_function_call("z1", "add", arguments='{"a": 1, "b": 2}')]),
        Message("assistant", [f"After {prompt}: three."]),
    )
    asked = [*history, Message("user", [prompt])]
    result = asyncio.run(Agent(client=client, tools=[add], name="Adder").run(asked))
    return [*asked, *result.messages], client


CHATS = [
    ("agent_framework", "agent_framework/history"),
    ("langchain", "langchain/messages_to_dict"),
    ("openai", "openai/chat_messages"),
    ("pydantic_ai", "pydantic_ai_v2/tools_multiturn"),
]


@pytest.mark.parametrize(("name", "file"), CHATS)
def test_an_agent_goes_on_with_a_chat_of_any_format(name: str, file: str) -> None:
    history = convert(sample(file, name), "agent_framework").messages
    before = [FORM.dump(message).payload for message in history]
    messages, client = run(history, "And 1 + 2?")
    assert messages[-1].text == "After And 1 + 2?: three."
    assert [message.role for message in messages[-3:]] == ["assistant", "tool", "assistant"]
    asked = [FORM.dump(message).payload for message in client.asked[0][: len(history)]]
    assert list(map(FORM.parts, asked)) == list(map(FORM.parts, before))


@pytest.mark.parametrize(("name", "file"), CHATS)
def test_runs_on_a_chat_of_any_format_store_only_what_is_new(name: str, file: str) -> None:
    if name == "pydantic_ai" and get_format(name).version().startswith("1."):
        file = file.replace("v2", "v1")
    with open_history("memory:") as history, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        history.add_messages("c", get_format(name).load([source.payload for source in sample(file, name)]))
        known = history.get_message_count("c")
        for turn in (1, 2):
            loaded = history.get_message_history("c", format="agent_framework")
            messages, _ = run(loaded, f"Turn {turn}")
            history.save_messages("c", messages)
            assert history.get_message_count("c") == known + 4 * turn


def test_notes_and_ids_that_runs_leave_make_no_other_message() -> None:
    call = Content.from_function_call("c", "add", arguments="{}")
    message = Message("assistant", [call])
    parts = FORM.parts(FORM.dump(message).payload)
    call.id = "af-call-2"
    message.message_id = "m9"
    message.additional_properties["_excluded"] = True
    assert FORM.parts(FORM.dump(message).payload) == parts
    call.arguments = '{"a": 1}'
    assert FORM.parts(FORM.dump(message).payload) != parts


def test_a_class_of_the_user_is_recognised_and_one_of_the_same_name_is_not() -> None:
    class Own(Message):
        pass

    class Message2:
        pass

    Message2.__name__ = "Message"
    assert recognise(Own("user", ["x"])) is FORM
    (loaded,) = FORM.load([FORM.dump(Own("user", ["x"])).payload])
    assert (type(loaded), loaded.text) == (Message, "x")
    assert not FORM.recognises(Message2())


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.framework.cache_clear()
    monkeypatch.setitem(sys.modules, "agent_framework", None)
    try:
        with pytest.raises(MissingDependencyError, match=r"pip install 'agent-chat-history\[agent-framework\]'"):
            FORM.from_neutral([{"role": "user", "content": "Hello!"}])
        with pytest.raises(MissingDependencyError, match=r"pip install 'agent-chat-history\[agent-framework\]'"):
            FORM.load(["{}"])
    finally:
        extras.framework.cache_clear()

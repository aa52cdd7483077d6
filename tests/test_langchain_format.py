"""Messages of LangChain: every class comes back, and its models go on with chats of others."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    convert_to_openai_messages,
    message_to_dict,
)

from chat_history import ConversionWarning, InvalidMessageError, MissingDependencyError, open_history
from chat_history.formats import Source, get_format, recognise
from chat_history.replaying import convert, neutral_messages
from chat_history_adapters.formats import extras

FORM = get_format("langchain")
SAMPLES = Path(__file__).parent / "data" / "messages"
TIME = datetime(2026, 1, 2, tzinfo=UTC)
TARGETS = ["agent_framework", "openai", "pydantic_ai"]
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CALL: Any = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
BAD: Any = {"name": "add", "args": '{"a": ', "id": "c2", "error": "not JSON", "type": "invalid_tool_call"}
BLOCKS: list[Any] = [
    "words",
    {"type": "text", "text": "a", "annotations": [{"type": "citation", "url": "https://e.com", "cited_text": "x"}]},
    {"type": "reasoning", "reasoning": "hm", "id": "rs_1", "extras": {"signature": "EmwK"}},
    {"type": "thinking", "thinking": "hm", "signature": "EmwK"},
    {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
    {"type": "image", "source_type": "url", "url": "https://e.com/c.png"},
    {"type": "image_url", "image_url": "https://e.com/c.png"},
    {"type": "audio", "url": "https://e.com/a.wav"},
    {"type": "video", "file_id": "v1", "mime_type": "video/mp4"},
    {"type": "file", "base64": "JVBERi0=", "mime_type": "application/pdf", "extras": {"filename": "d.pdf"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "text-plain", "text": "plain", "mime_type": "text/plain"},
    {"type": "json", "json": {"a": 1}},
    {"type": "non_standard", "value": {"weird": 1}},
    {"type": "server_tool_call", "id": "s1", "name": "web", "args": {"q": "x"}},
    {"type": "server_tool_result", "tool_call_id": "s1", "status": "success", "output": ["y"]},
    {"type": "hologram", "rays": [1.5, None, True]},
]
EVERY: list[BaseMessage] = [
    HumanMessage("Hello!", name="ada", id="h1"),
    *(HumanMessage([block]) for block in BLOCKS),
    *(AIMessage([block]) for block in BLOCKS),
    AIMessage(
        BLOCKS,
        tool_calls=[CALL],
        invalid_tool_calls=[BAD],
        usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "input_token_details": {"audio": 1}},
        response_metadata={"model_name": "m", "finish_reason": "stop", "logprobs": None},
    ),
    AIMessage("", additional_kwargs={"refusal": "No.", "function_call": {"name": "add", "arguments": "{}"}}),
    AIMessage("", additional_kwargs={"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a":  1}'}}]}),
    AIMessage("a", future_field={"b": [1]}),
    SystemMessage("Be terse."),
    SystemMessage("Be terse.", additional_kwargs={"__openai_role__": "developer"}),
    ToolMessage("3", tool_call_id="c1", name="add", artifact={"sum": [3, None]}, status="error"),
    ToolMessage([{"type": "text", "text": "a"}, BLOCKS[4]], tool_call_id="c1"),
    FunctionMessage("3", name="add"),
    ChatMessage("hm", role="critic"),
    RemoveMessage(id="h1"),
    HumanMessageChunk("Hel"),
    AIMessageChunk("Hel", tool_call_chunks=[{"name": "add", "args": '{"a": 1}', "id": "c1", "index": 0}]),
    SystemMessageChunk("Be"),
    ToolMessageChunk("3", tool_call_id="c1"),
    FunctionMessageChunk("3", name="add"),
    ChatMessageChunk("h", role="critic"),
]


def stored(messages: Sequence[Any], name: str = "langchain") -> list[Source]:
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
def test_every_class_comes_back_equal_and_as_the_same_bytes(message: BaseMessage) -> None:
    payload = FORM.dump(message).payload
    (loaded,) = FORM.load([payload])
    assert loaded == message
    assert type(loaded) is type(message)
    assert FORM.dump(loaded).payload == payload
    assert json.loads(payload) == message_to_dict(message)


def test_no_class_of_message_is_forgotten() -> None:
    classes: list[Any] = [BaseMessage]
    for each in classes:
        classes += [found for found in each.__subclasses__() if found.__module__.startswith("langchain_core.messages")]
    concrete = {each for each in classes if "type" in each.model_fields and each.model_fields["type"].default}
    assert {each for each in concrete if isinstance(each.model_fields["type"].default, str)} == set(map(type, EVERY))


@pytest.mark.parametrize("target", [*TARGETS, "langchain"])
@pytest.mark.parametrize("message", EVERY, ids=range(len(EVERY)))
def test_every_class_is_converted_or_reported(message: BaseMessage, target: str) -> None:
    converted = convert(stored([message]), target)
    assert converted.messages or converted.losses
    for made in converted.messages:
        get_format(target).dump(made)


TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CONTENT = TEXT | st.lists(TEXT | st.dictionaries(TEXT, VALUE, max_size=3) | st.sampled_from(BLOCKS), max_size=3)
MADE = st.one_of(
    CONTENT.map(HumanMessage),
    CONTENT.map(SystemMessage),
    st.builds(lambda content, value: ToolMessage(content, tool_call_id="c", artifact=value), CONTENT, VALUE),
    st.builds(
        lambda content, name, args: AIMessage(content, tool_calls=[{"name": name, "args": args, "id": "c"}]),
        CONTENT,
        TEXT,
        st.dictionaries(TEXT, VALUE, max_size=3),
    ),
)


@patiently
@given(MADE)
def test_any_message_comes_back_equal(message: BaseMessage) -> None:
    payload = FORM.dump(message).payload
    (loaded,) = FORM.load([payload])
    assert loaded == message
    assert FORM.dump(loaded).payload == payload
    for target in TARGETS:
        for made in convert(stored([message]), target).messages:
            get_format(target).dump(made)


def test_lone_surrogates_come_back() -> None:
    payload = FORM.dump(HumanMessage("a\ud800b")).payload
    payload.encode()
    assert FORM.load([payload])[0].content == "a\ud800b"
    assert FORM.dump(FORM.load([payload])[0]).payload == payload


def test_artifacts_of_retrievers_are_kept_and_what_json_cannot_hold_is_refused() -> None:
    found = ToolMessage("3", tool_call_id="c", artifact=[Document("page", metadata={"n": 1})])
    (loaded,) = FORM.load([FORM.dump(found).payload])
    assert loaded.artifact[0]["page_content"] == "page"
    with pytest.raises(InvalidMessageError, match="LangChain cannot write this ToolMessage"):
        FORM.dump(ToolMessage("3", tool_call_id="c", artifact=object()))


def test_what_could_not_be_read_back_is_refused() -> None:
    message = HumanMessage("x")
    message.content = 5  # type: ignore[assignment]
    with pytest.raises(InvalidMessageError, match="HumanMessage"):
        FORM.dump(message)


def test_a_message_of_a_later_release_is_converted_with_a_warning() -> None:
    class Hologram(HumanMessage):
        type: str = "hologram"  # type: ignore[assignment]

    with open_history("memory:") as history:
        history.add_message("c", {"role": "user", "content": "Hello!"})
        history.add_message("c", Hologram("hm"))
        with pytest.warns(ConversionWarning, match="unexpected message type: hologram.*only langchain knows"):
            loaded = history.get_message_history("c", format="langchain")
        assert loaded == [HumanMessage("Hello!")]
        assert history.get_chat_history("c")[1]["content"][0]["raw"]["data"]["content"] == "hm"


@pytest.mark.parametrize("arguments", ['{"a":  1}', '{"a": 1', "[1]", "", "select 1;", '{"a":1}'])
def test_arguments_are_carried_as_the_model_wrote_them(arguments: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    there = convert(stored([{"role": "assistant", "content": None, "tool_calls": [call]}], "openai"), "langchain")
    (message,) = there.messages
    assert [each["name"] for each in (*message.tool_calls, *message.invalid_tool_calls)] == ["add"]
    ((_, neutral),) = neutral_messages(stored([message]))
    assert neutral["tool_calls"][0]["function"]["arguments"] == arguments
    assert not there.losses


def test_the_order_of_calls_is_that_of_the_content() -> None:
    content: Any = ["a", {**CALL, "id": "c2"}, "b", CALL]
    message = AIMessage(content, tool_calls=[CALL, {**CALL, "id": "c2"}])
    (neutral,) = FORM.to_neutral(FORM.dump(message).payload)
    assert neutral["order"] == ["content", "tool_calls", "content", "tool_calls"]
    assert [call["id"] for call in neutral["tool_calls"]] == ["c2", "c1"]


def test_developers_names_and_failures_are_kept_there_and_back() -> None:
    chat = [
        {"role": "developer", "content": "Be terse."},
        {"role": "user", "name": "ada", "content": "Hello!"},
        {"role": "assistant", "name": "bot", "content": "Hi."},
    ]
    there = convert(stored(chat, "openai"), "langchain")
    assert not there.losses
    assert FORM.dump(there.messages[0]).role == "developer"
    assert convert(stored(there.messages), "openai").messages == chat
    failed = stored([AIMessage("", tool_calls=[CALL]), ToolMessage("no", tool_call_id="c1", status="error")])
    assert neutral_messages(failed)[1][1]["outcome"] == "error"


def test_seals_of_thoughts_stay_with_the_framework_and_the_words_go_on() -> None:
    thought: Any = {"type": "reasoning", "reasoning": "hm", "id": "rs_1", "extras": {"encrypted_content": "gAAA"}}
    converted = convert(stored([AIMessage([thought, "Hi."])]), "agent_framework")
    assert [loss.part for loss in converted.losses] == ["thinking.ciphertext", "thinking.id"]
    assert [each.text for each in converted.messages[0].contents] == ["Hi."]
    again = [message for _, message in neutral_messages(stored(converted.messages, "agent_framework"))]
    assert [each["text"] for each in again[0]["thinking"]] == ["hm"]


CHATS = [
    ("agent_framework", "agent_framework/history"),
    ("langchain", "langchain/messages_to_dict"),
    ("openai", "openai/chat_messages"),
    ("pydantic_ai", "pydantic_ai_v2/tools_multiturn"),
]


def openai_has_a_form_for(message: BaseMessage) -> bool:
    """Chat Completions takes no sound, no video and no file at a URL, so LangChain refuses those itself."""
    blocks = message.content if isinstance(message.content, list) else []
    kinds = [block["type"] for block in blocks if isinstance(block, dict) and ("url" in block or "file_id" in block)]
    return not set(kinds) & {"audio", "video", "file"}


@pytest.mark.parametrize(("name", "file"), CHATS)
def test_langchain_itself_takes_a_chat_of_any_format(name: str, file: str) -> None:
    messages = convert(sample(file, name), "langchain").messages
    model = GenericFakeChatModel(messages=iter([AIMessage("Fine.")]))
    assert model.invoke([*messages, HumanMessage("And now?")]).content == "Fine."
    kept = [message for message in messages if openai_has_a_form_for(message)]
    assert len(kept) >= len(messages) - 1
    mapped: Any = convert_to_openai_messages(kept)
    calls = [call["id"] for each in mapped for call in each.get("tool_calls", ())]
    calls += [call["id"] for each in kept if isinstance(each, AIMessage) for call in each.invalid_tool_calls]
    assert sorted(calls) == sorted(each["tool_call_id"] for each in mapped if each["role"] == "tool")
    for message in messages:
        assert isinstance(message.content_blocks, list)


@pytest.mark.parametrize(("name", "file"), CHATS)
def test_turns_on_a_chat_of_any_format_store_only_what_is_new(name: str, file: str) -> None:
    if name == "pydantic_ai" and get_format(name).version().startswith("1."):
        file = file.replace("v2", "v1")
    with open_history("memory:") as history, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        history.add_messages("c", get_format(name).load([source.payload for source in sample(file, name)]))
        known = history.get_message_count("c")
        for turn in (1, 2):
            asked = [*history.get_message_history("c", format="langchain"), HumanMessage(f"Turn {turn}")]
            answer = GenericFakeChatModel(messages=iter([AIMessage(f"After turn {turn}.")])).invoke(asked)
            history.save_messages("c", [*asked, answer])
            assert history.get_message_count("c") == known + 2 * turn


def test_an_id_that_a_graph_gives_makes_no_other_message() -> None:
    parts = FORM.parts(FORM.dump(HumanMessage("Hello!")).payload)
    assert FORM.parts(FORM.dump(HumanMessage("Hello!", id="h9")).payload) == parts
    assert FORM.parts(FORM.dump(HumanMessage("Hello")).payload) != parts


def test_a_class_of_the_user_is_recognised() -> None:
    class Own(HumanMessage):
        pass

    assert recognise(Own("x")) is FORM
    assert FORM.load([FORM.dump(Own("x")).payload]) == [HumanMessage("x")]


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.framework.cache_clear()
    monkeypatch.setitem(sys.modules, "langchain_core.messages", None)
    try:
        with pytest.raises(MissingDependencyError, match=r"pip install 'agent-chat-history\[langchain\]'"):
            FORM.from_neutral([{"role": "user", "content": "Hello!"}])
        with pytest.raises(MissingDependencyError, match=r"pip install 'agent-chat-history\[langchain\]'"):
            FORM.load(["{}"])
    finally:
        extras.framework.cache_clear()


def test_of_several_names_for_one_thing_the_more_exact_is_taken() -> None:
    said = {"model": "alias", "model_name": "exact", "stop_reason": "end_turn", "finish_reason": "stop"}
    block = {"type": "image", "url": "https://example.com/a", "title": "A", "name": "a", "filename": "a.png"}
    (neutral,) = FORM.to_neutral(FORM.dump(AIMessage([block], response_metadata=said)).payload)
    assert (neutral["model"], neutral["finish_reason"]) == ("exact", "stop")
    assert neutral["content"][0]["name"] == "a.png"

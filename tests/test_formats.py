"""Every format, by one suite: what is stored comes back, what is converted stays the same, what is lost is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stores import Store, on
from telling import in_order, told

from chat_history import ConversionWarning, formats, open_history
from chat_history.errors import ConversionError, InvalidMessageError, UnknownFormatError
from chat_history.formats import Source, get_format, recognise
from chat_history.replaying import convert, neutral_messages, replayable
from chat_history_adapters.formats.neutral import parsed

FIRST_LINE = get_format("pydantic_ai").version().startswith("1.")
SAMPLES = Path(__file__).parent / "data" / "messages"
FRAMEWORKS = {"pydantic", "pydantic_ai", "openai", "agents", "agent_framework", "langchain_core", "llama_index"}
LINE = "pydantic_ai_v1" if FIRST_LINE else "pydantic_ai_v2"
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The first example imports the framework, and machines are busy."""
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=5)
"""Also with lone surrogates."""
NATIVE = {
    "agent_framework": ["agent_framework/history", "agent_framework/every_kind"],
    "langchain": ["langchain/messages_to_dict", "langchain/every_kind"],
    "llama_index": ["llama_index/function_agent_memory", "llama_index/every_kind"],
    "openai": ["openai/chat_messages", "openai/chat_messages_model_dump_raw", "openai/every_kind"],
    "openai_responses": [
        *("openai_agents/session_items", "openai_agents/to_input_list", "openai_agents/every_kind"),
        "openai/responses_output_items",
    ],
    "pydantic_ai": [
        *(f"{LINE}/tools_multiturn", f"{LINE}/tools_multiturn_turn1", f"{LINE}/testmodel_three_turns"),
        f"{LINE}/every_kind",
    ],
}
"""Real messages that the installed release of each format's framework wrote."""
PACKAGES = {
    "agent_framework": "agent-framework-core",
    "langchain": "langchain-core",
    "llama_index": "llama-index-core",
    "pydantic_ai": "pydantic-ai-slim",
}
"""What writes each format; dicts are written by hand."""
EVERY_NATIVE = [(name, file) for name, files in NATIVE.items() for file in files]
WITH_SYSTEM = {"openai/chat_messages", "langchain/messages_to_dict"} | {
    f"{LINE}/tools_multiturn",
    f"{LINE}/tools_multiturn_turn1",
    *(file for _, file in EVERY_NATIVE if file.endswith("every_kind")),
}
OTHERS = [("pydantic_ai", "pydantic_ai_v1/tools_multiturn"), ("pydantic_ai", "pydantic_ai_v2/tools_multiturn")]
"""Of one of these the installed release is not the author."""


def sample(name: str, file: str) -> list[Source]:
    """The messages of a sample file as they would be stored."""
    messages = json.loads((SAMPLES / f"{file}.json").read_text())
    separators = (", ", ": ") if name.startswith("openai") else (",", ":")
    return [
        Source(
            f"{index:08}",
            name,
            json.dumps(message, ensure_ascii=False, separators=separators),
            TIME + timedelta(seconds=index),
        )
        for index, message in enumerate(messages)
    ]


def dicts(*messages: dict[str, Any]) -> list[Source]:
    """Chat Completions dicts as they would be stored."""
    return [
        Source(f"{index:08}", "openai", json.dumps(message), TIME + timedelta(seconds=index))
        for index, message in enumerate(messages)
    ]


def parts_of(name: str, messages: list[Any]) -> list[tuple[str, str]]:
    """What tells these messages from others, without their boundaries."""
    form = get_format(name)
    found = [form.parts(form.dump(message).payload) for message in messages]
    return [(each.kind, part) for each in found for part in each.parts]


# ---- the registry


def test_every_format_is_an_entry_point() -> None:
    installed = {entry.name for entry in entry_points(group="chat_history.formats")}
    assert {"openai", "pydantic_ai"} <= installed
    for name in installed:
        assert get_format(name).name == name


def test_a_format_that_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownFormatError, match=r"'morse'.*openai, .*pydantic_ai"):
        get_format("morse")


@pytest.mark.parametrize("name", NATIVE)
def test_the_version_is_that_of_the_package_that_writes_it(name: str) -> None:
    from importlib.metadata import version

    package = PACKAGES.get(name)
    assert get_format(name).version() == (version(package) if package else "")


@pytest.mark.parametrize(("name", "file"), EVERY_NATIVE)
def test_the_format_of_a_message_is_recognised(name: str, file: str) -> None:
    for message in get_format(name).load([source.payload for source in sample(name, file)]):
        untyped = name == "openai_responses" and "type" not in message and isinstance(message["content"], str)
        assert recognise(message).name == ("openai" if untyped else name)


@pytest.mark.parametrize("message", ["Hello!", [{"role": "user", "content": "Hello!"}], None, 5, object()])
def test_what_is_no_message_is_refused_with_what_would_be_one(message: Any) -> None:
    with pytest.raises(UnknownFormatError, match=r"\{'role': 'user', 'content': 'Hello!'\}"):
        recognise(message)


@pytest.mark.parametrize("message", [{}, {"content": "Hello!"}, {"role": None}, {"role": 5, "content": "x"}])
def test_a_dict_without_a_role_is_refused(message: Any) -> None:
    with pytest.raises(InvalidMessageError, match="'role'"):
        recognise(message)


@pytest.mark.parametrize(
    "code",
    [
        "import chat_history.formats",
        "import chat_history_adapters.formats.pydantic_ai",
        "import chat_history_adapters.formats.openai_chat",
        "from chat_history.formats import *; from chat_history.formats import _installed\n"
        "for name in _installed(): get_format(name).version(), get_format(name).recognises(object())",
        "from chat_history.formats import *\n"
        "recognise({'role': 'user', 'content': 'x'}).dump({'role': 'user', 'content': 'x'})",
        "import datetime; from chat_history.formats import *; from chat_history.replaying import *\n"
        'response = \'{"parts": [{"content": "x", "part_kind": "text"}], "kind": "response"}\'\n'
        "source = Source('m', 'pydantic_ai', response, datetime.datetime.now(datetime.UTC))\n"
        "assert convert([source], 'openai').messages == [{'role': 'assistant', 'content': 'x'}]\n"
        "get_format('pydantic_ai').parts(response), get_format('pydantic_ai').version()",
    ],
)
def test_no_framework_is_imported_before_its_objects_are_asked_for(code: str) -> None:
    then = f"; import sys; found = {FRAMEWORKS} & set(sys.modules); assert not found, found"
    lines = f"{code}\n{then.removeprefix('; ')}"
    subprocess.run([sys.executable, "-c", lines], check=True, timeout=60)


def test_importing_the_registry_reads_no_metadata() -> None:
    code = "import chat_history.formats, sys; assert 'importlib.metadata' not in sys.modules"
    subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"], check=True)


# ---- in and out again


@pytest.mark.parametrize(("name", "file"), EVERY_NATIVE)
def test_what_was_stored_is_loaded_and_stored_as_the_same_bytes(name: str, file: str) -> None:
    form = get_format(name)
    for source in sample(name, file):
        payload = source.payload
        (message,) = form.load([payload])
        again = form.dump(message).payload
        # Pydantic AI writes which files a tool's result held only while the tool's own object is there.
        assert again.replace(',"content_file_digests":[]', "") == payload.replace(',"content_file_digests":[]', "")
        assert form.dump(form.load([again])[0]).payload == again


@on("json", "sqlite", "postgres")
def test_every_backend_gives_back_the_same_bytes_and_the_same_objects(store: Store) -> None:
    with store.open() as history:
        for number, (name, file) in enumerate(EVERY_NATIVE):
            form = get_format(name)
            messages = form.load([source.payload for source in sample(name, file)])
            payloads = [form.dump(message).payload for message in messages]
            history.add_messages(str(number), messages, format=name)
            stored = history.get_messages(str(number), limit=1000)
            assert [(message.payload, message.format) for message in stored] == [(each, name) for each in payloads]
    with store.open() as history:
        for number, (name, _) in enumerate(EVERY_NATIVE):
            form = get_format(name)
            payloads = [message.payload for message in history.iter_messages(str(number))]
            loaded = history.get_message_history(str(number), format=name)
            again = form.load(payloads)
            if name == "agent_framework":  # whose messages know no ==
                loaded, again = [[each.to_dict() for each in given] for given in (loaded, again)]
            assert loaded == again


@pytest.mark.parametrize(("name", "file"), EVERY_NATIVE)
def test_a_payload_is_one_line_of_utf_8_and_the_text_fits_every_store(name: str, file: str) -> None:
    form = get_format(name)
    for message in form.load([source.payload for source in sample(name, file)]):
        payload, role, text, said = form.dump(message)
        assert not said or json.loads(payload)["content"] == text
        assert "\n" not in payload
        payload.encode()
        text.encode()
        assert role
        assert "\0" not in text


@pytest.mark.parametrize(("name", "file"), EVERY_NATIVE)
def test_what_tells_a_message_from_others_survives_being_loaded(name: str, file: str) -> None:
    form = get_format(name)
    seen = []
    for source in sample(name, file):
        parts = form.parts(source.payload)
        assert form.parts(form.dump(form.load([source.payload])[0]).payload) == parts
        seen.append((tuple(parts.parts), parts.envelope))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("name", "file"), EVERY_NATIVE)
def test_the_rest_of_a_message_has_the_rest_of_its_parts(name: str, file: str) -> None:
    form = get_format(name)
    for source in sample(name, file):
        (message,) = form.load([source.payload])
        parts = form.parts(source.payload)
        for start in range(len(parts.parts)):
            rest = form.parts(form.dump(form.rest(message, start)).payload)
            assert rest.parts == parts.parts[start:]
            assert rest.kind == parts.kind
        assert form.dump(message).payload == form.dump(form.load([source.payload])[0]).payload


@pytest.mark.parametrize(("name", "file"), EVERY_NATIVE)
def test_the_system_prompt_of_a_message_is_its_leading_parts(name: str, file: str) -> None:
    form = get_format(name)
    found = 0
    for source in sample(name, file):
        (message,) = form.load([source.payload])
        parts = form.parts(source.payload)
        system = form.system(message)
        assert (system is not None) == bool(parts.system)
        if system is not None:
            found += 1
            dumped = form.dump(system)
            assert dumped.role in ("system", "developer")
            assert form.parts(dumped.payload).parts == parts.parts[: parts.system]
            assert form.dump(form.system(form.load([source.payload])[0])) == dumped
    assert bool(found) == (file in WITH_SYSTEM)


# ---- neutral messages


@pytest.mark.parametrize(("name", "file"), EVERY_NATIVE + OTHERS)
def test_neutral_messages_are_plain_json_and_self_contained(name: str, file: str) -> None:
    sources = sample(name, file)
    indexes = []
    for index, message in neutral_messages(sources):
        indexes.append(index)
        assert json.loads(json.dumps(message)) == message
        assert message["role"] in ("system", "developer", "user", "assistant", "tool", "critic")
        assert message["content"] is None or isinstance(message["content"], str | list)
        assert message["message_id"] == sources[index].message_id
        assert datetime.fromisoformat(message["created_at"]).tzinfo is not None
        for call in message.get("tool_calls", ()):
            assert call["id"]
            assert call[call["type"]]["name"]
        if message["role"] == "tool":
            assert message["name"]
    assert set(indexes) == set(range(len(sources)))
    assert indexes == sorted(indexes)


@patiently
@example(json.loads("[" * 300 + "]" * 300))
@example({"\ud83d": ["\udc00", 1e400, -0.0, 10**30]})
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
        max_leaves=8,
    )
)
def test_a_payload_is_read_as_json_reads_it(value: Any) -> None:
    for escaped in (False, True):
        payload = json.dumps(value, ensure_ascii=escaped)
        assert repr(parsed(payload)) == repr(json.loads(payload))


def test_a_tool_result_takes_the_name_and_a_missing_id_from_its_call() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    other = {"type": "function", "function": {"name": "now", "arguments": "{}"}}
    sources = dicts(
        {"role": "assistant", "content": None, "tool_calls": [call, other]},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "noon"},
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}},
        {"role": "function", "name": "add", "content": "4"},
    )
    messages = [message for _, message in neutral_messages(sources)]
    first, second = (each["id"] for each in messages[0]["tool_calls"])
    third = messages[3]["tool_calls"][0]["id"]
    assert len({first, second, third}) == 3
    assert [(each["tool_call_id"], each["name"]) for each in (messages[1], messages[2], messages[4])] == [
        (first, "add"),
        (second, "now"),
        (third, "add"),
    ]
    assert neutral_messages(sources) == neutral_messages(sources)


def call(call_id: str, name: str = "add") -> dict[str, Any]:
    """An answer that calls a tool."""
    calls = [{"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(call_id: str, content: str) -> dict[str, Any]:
    """What the tool gave."""
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_ids_that_repeat_from_turn_to_turn_are_matched_in_order() -> None:
    sources = dicts(call("1", "add"), result("1", "a"), call("1", "now"), result("1", "b"))
    assert [m.get("name") for _, m in neutral_messages(sources)] == [None, "add", None, "now"]


def test_an_id_that_is_used_again_is_answered_for_the_newer_call() -> None:
    sources = dicts(call("1", "add"), {"role": "user", "content": "?"}, call("1", "now"), result("1", "noon"))
    assert neutral_messages(sources)[-1][1]["name"] == "now"


def test_a_call_that_was_never_answered_is_closed_when_the_chat_goes_on() -> None:
    sources = dicts({"role": "user", "content": "?"}, call("1"), {"role": "user", "content": "Never mind."})
    replayed = [message for _, message in replayable(sources, "pydantic_ai")]
    assert [message["role"] for message in replayed] == ["user", "assistant", "tool", "user"]
    assert replayed[2]["outcome"] == "interrupted"
    assert (replayed[2]["tool_call_id"], replayed[2]["name"]) == ("1", "add")


def test_a_call_at_the_very_end_stays_open() -> None:
    sources = dicts({"role": "user", "content": "?"}, call("1"))
    assert [message["role"] for _, message in replayable(sources, "pydantic_ai")] == ["user", "assistant"]


def test_a_result_without_a_call_is_left_out_and_reported() -> None:
    sources = dicts({"role": "user", "content": "?"}, result("1", "a"), {"role": "assistant", "content": "!"})
    for target in NATIVE:
        converted = convert(sources, target)
        assert len(converted.messages) == 2
        assert [(loss.message, loss.part) for loss in converted.losses] == [("00000001", "tool result")]


def test_nothing_is_put_where_a_message_of_the_target_stands() -> None:
    form = get_format("pydantic_ai")
    asked = form.from_neutral([{"role": "user", "content": "?"}]).messages[0]
    called = form.from_neutral([neutral_messages(dicts(call("1")))[0][1]]).messages[0]
    native = [Source(str(i), "pydantic_ai", form.dump(each).payload, TIME) for i, each in enumerate([asked, called])]
    on = dicts({"role": "user", "content": "Never mind."}, result("1", "late"))
    for sources in ([*native, on[0]], [*native, *on]):
        replay = replayable(sources, "pydantic_ai")
        assert [message["role"] for _, message in replay] == ["user", "assistant", "tool", "user"]
        assert [index for index, message in replay if message["role"] == "tool"] == [2]


def test_a_result_that_came_late_stands_with_its_call() -> None:
    sources = dicts(call("1"), {"role": "user", "content": "Well?"}, result("1", "a"))
    assert [message["role"] for _, message in replayable(sources, "pydantic_ai")] == ["assistant", "tool", "user"]
    places = [index for index, _ in replayable(sources, "pydantic_ai")]
    assert places == sorted(places)


# ---- conversion


CONVERSIONS = [(name, file, target) for name, file in EVERY_NATIVE + OTHERS for target in NATIVE]


def test_every_pair_of_formats_is_converted() -> None:
    ours = {entry.name for entry in formats._installed().values() if entry.value.startswith("chat_history_adapters.")}
    ours.remove("chatkit")  # what is shown of a thread, not what a model was told: tests/test_chatkit_store.py
    assert {(name, target) for name, _, target in CONVERSIONS} == set(product(ours, ours))


@pytest.mark.parametrize(("name", "file", "target"), CONVERSIONS)
def test_a_conversion_is_the_same_every_time(name: str, file: str, target: str) -> None:
    sources = sample(name, file)
    form = get_format(target)
    one, other = convert(sources, target), convert(sources, target)
    assert [form.dump(message) for message in one.messages] == [form.dump(message) for message in other.messages]
    assert one.losses == other.losses


@pytest.mark.parametrize(("name", "file", "target"), CONVERSIONS)
def test_converting_together_or_one_by_one_gives_the_same_parts(name: str, file: str, target: str) -> None:
    sources = sample(name, file)
    form = get_format(target)
    together = convert(sources, target)
    alone = [form.from_neutral([message]) for _, message in replayable(sources, target)]
    assert parts_of(target, together.messages) == parts_of(target, [each for one in alone for each in one.messages])
    assert together.losses == [loss for one in alone for loss in one.losses]


@pytest.mark.parametrize(("name", "file", "target"), CONVERSIONS)
def test_a_conversion_carries_all_that_was_said_or_names_it(name: str, file: str, target: str) -> None:
    sources = sample(name, file)
    form = get_format(target)
    converted = convert(sources, target)
    said = json.dumps([form.to_neutral(form.dump(message).payload) for message in converted.messages])
    lost = {loss.message for loss in converted.losses}
    for _, message in neutral_messages(sources):
        content = message["content"]
        texts = [content] if isinstance(content, str) else [part.get("text") for part in content or ()]
        texts += [each["function"]["name"] for each in message.get("tool_calls", ()) if each["type"] == "function"]
        texts += [each["function"]["arguments"] for each in message.get("tool_calls", ()) if each["type"] == "function"]
        for text in filter(None, texts):
            assert json.dumps(text)[1:-1] in said or message["message_id"] in lost


@pytest.mark.parametrize(("name", "file", "target"), CONVERSIONS)
def test_words_calls_and_results_are_never_lost_and_keep_their_order(name: str, file: str, target: str) -> None:
    sources = sample(name, file)
    converted = convert(sources, target).messages
    form = get_format(target)
    payloads = [form.dump(message).payload for message in converted]
    there = [Source(str(index), target, payload, TIME) for index, payload in enumerate(payloads)]
    for before, after in zip(told(sources), told(there), strict=True):
        assert in_order(before, after)


@pytest.mark.parametrize("arguments", ['{"a":  1}', '{"a": 1', "[1]", "", "select 1;"])
def test_arguments_are_carried_as_the_model_wrote_them(arguments: str) -> None:
    asked = call("1")
    asked["tool_calls"][0]["function"]["arguments"] = arguments
    there = convert(dicts(asked), "pydantic_ai")
    assert there.messages[0].parts[0].args == arguments
    payload = get_format("pydantic_ai").dump(there.messages[0]).payload
    back = convert([Source("m", "pydantic_ai", payload, TIME)], "openai")
    # The API wants JSON, so that is what nothing becomes.
    assert back.messages[0]["tool_calls"][0]["function"]["arguments"] == (arguments or "{}")
    assert not there.losses + back.losses


def test_losses_name_the_message_and_the_part() -> None:
    losses = convert(sample("openai", "openai/chat_messages"), "pydantic_ai").losses
    assert {(loss.message, loss.part) for loss in losses} >= {
        ("00000000", "role"),
        ("00000001", "name"),
        ("00000007", "content[0]"),
        ("00000009", "tool call"),
        ("00000013", "content[0]"),
    }
    assert all(loss.reason for loss in losses)


def test_a_warning_of_losses_grows_not_with_the_chat_and_strict_reading_names_each() -> None:
    turn = [
        {"role": "user", "content": "?", "name": "ann"},
        {"role": "assistant", "content": "!", "reasoning_content": "hm"},
    ]
    with open_history("memory:") as history:
        ids = [each.message_id for each in history.add_messages("c", turn * 200)]
        with pytest.warns(ConversionWarning) as warned:
            history.get_message_history("c", format="pydantic_ai")
        (text,) = (str(each.message) for each in warned)
        assert text.startswith(
            f"200 of the parts stored could not be carried to pydantic_ai: name of {ids[0]} and 199 alike:"
        )
        assert len(text) < 300
        with pytest.raises(ConversionError) as raised:
            history.get_message_history("c", format="pydantic_ai", strict=True)
        assert all(each in str(raised.value) for each in ids[::2])


def test_a_file_keeps_its_name_on_the_way_there_and_back() -> None:
    file = {"type": "file", "file": {"filename": "d.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}
    there = convert(dicts({"role": "user", "content": [file]}), "pydantic_ai")
    payload = get_format("pydantic_ai").dump(there.messages[0]).payload
    back = convert([Source("m", "pydantic_ai", payload, TIME)], "openai")
    assert back.messages == [{"role": "user", "content": [file]}]


@pytest.mark.parametrize("target", [name for name in NATIVE if name != "openai"])
def test_a_chat_of_plain_words_loses_nothing_either_way(target: str) -> None:
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello to you."},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}]},
        {**call("1"), "content": "Let me see."},
        result("1", "12"),
        {"role": "assistant", "content": "Twelve."},
    ]
    there = convert(dicts(*chat), target)
    assert not there.losses
    form = get_format(target)
    stored = [Source(str(i), target, form.dump(each).payload, TIME) for i, each in enumerate(there.messages)]
    back = convert(stored, "openai")
    assert not back.losses
    assert back.messages == chat


ODD: list[Any] = [None, True, 0, -1.5, "", "a", "text", "function", "2026", [], [None], ["a"], [[{}]], {}]
ODD += [{"type": "text"}, {"id": "1"}, {"x": [1]}, [{"type": "text", "text": "a"}], {"kind": "binary", "media_type": 1}]
JSON = st.sampled_from(ODD)
"""What may stand anywhere."""
PART = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "refusal"])}, optional={"text": JSON, "refusal": JSON}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["image_url", "input_audio", "file", "video"])},
        optional={
            key: JSON
            | st.fixed_dictionaries(
                {},
                optional={
                    inner: JSON | st.sampled_from(["data:image/png;base64,iVBO", "https://e.com/x", "@@", "wav"])
                    for inner in ("url", "data", "format", "file_data", "file_id", "filename", "detail")
                },
            )
            for key in ("image_url", "input_audio", "file")
        },
    ),
    JSON,
)
CALL = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"type": st.sampled_from(["function", "custom", "x"])},
        optional={
            "id": JSON | st.sampled_from(["1", "2"]),
            "function": JSON | st.fixed_dictionaries({"name": JSON | st.just("f")}, optional={"arguments": JSON}),
            "custom": JSON | st.fixed_dictionaries({"name": JSON | st.just("f")}, optional={"input": JSON}),
        },
    ),
)
ODD_DICT = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "critic"])},
    optional={
        "content": st.lists(PART, max_size=3) | JSON | st.text(max_size=5),
        "tool_calls": st.lists(CALL, max_size=2) | JSON,
        "tool_call_id": JSON | st.sampled_from(["1", "2"]),
        "function_call": JSON | st.just({"name": "f", "arguments": "{}"}),
        "annotations": st.lists(JSON, max_size=2)
        | st.just([{"type": "url_citation", "url_citation": {"url": "u", "start_index": 0, "end_index": 1}}]),
        **dict.fromkeys(("name", "refusal", "audio", "reasoning_content", "anything"), JSON),
    },
)


@patiently
@given(st.lists(ODD_DICT, max_size=6))
def test_no_dict_is_too_odd_to_be_converted(messages: list[dict[str, Any]]) -> None:
    for target in NATIVE:
        form = get_format(target)
        converted = convert(dicts(*messages), target)
        alone = [form.from_neutral([message]) for _, message in replayable(dicts(*messages), target)]
        assert parts_of(target, converted.messages) == parts_of(target, [m for each in alone for m in each.messages])
        payloads = [form.dump(message).payload for message in converted.messages]
        form.load(payloads)


def mutations(value: Any) -> st.SearchStrategy[Any]:
    """The same JSON with something in it replaced, left out, or of another kind."""
    if isinstance(value, dict) and value:
        return st.sampled_from(sorted(value)).flatmap(
            lambda key: (
                st.just({k: v for k, v in value.items() if k != key})
                | mutations(value[key]).map(lambda new: {**value, key: new})
            )
        )
    if isinstance(value, list) and value:
        return st.integers(0, len(value) - 1).flatmap(
            lambda at: mutations(value[at]).map(lambda new: [*value[:at], new, *value[at + 1 :]])
        )
    return JSON | st.just("a-kind-of-tomorrow")


REAL = [
    (name, json.loads(source.payload))
    for name, file in EVERY_NATIVE + OTHERS
    if name != "openai"
    for source in sample(name, file)
    if len(source.payload) < 5000
]  # fmt: skip


@patiently
@given(
    st.lists(st.sampled_from(REAL).flatmap(lambda each: st.tuples(st.just(each[0]), mutations(each[1]))), max_size=4)
)
def test_no_payload_of_another_release_is_too_odd_to_be_converted(messages: list[tuple[str, Any]]) -> None:
    sources = [
        Source(str(index), name, json.dumps(message), TIME)
        for index, (name, message) in enumerate(messages)
        if isinstance(message, dict)
    ]
    for target in NATIVE:
        form = get_format(target)
        for message in convert(sources, target).messages:
            form.dump(message)


def test_a_format_of_a_plug_in_serves_like_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shout:
        name = "shout"

        def recognises(self, message: object) -> bool:
            return isinstance(message, bytes)

        def to_neutral(self, payload: str) -> list[dict[str, Any]]:
            return [{"role": "user", "content": json.loads(payload)}]

    class Entry:
        value = "shout:FORMAT"

        def load(self) -> Any:
            return Shout()

    installed = {**formats._installed(), "shout": Entry()}
    formats.get_format.cache_clear()
    monkeypatch.setattr(formats, "_installed", lambda: installed)
    monkeypatch.setattr(formats, "_by_type", {})
    try:
        assert recognise(b"HELLO").name == "shout"
        converted = convert([Source("m", "shout", '"HELLO"', TIME)], "openai")
        assert converted.messages == [{"role": "user", "content": "HELLO"}]
    finally:
        formats.get_format.cache_clear()


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x\udfffy", "plain", "Köln ☃ 😀"])
def test_readable_text_fits_every_store(text: str) -> None:
    clean = formats.readable(text)
    clean.encode()
    assert "\0" not in clean
    assert len(clean) == len(text)


def test_samples_hold_what_the_tests_rely_on() -> None:
    for name, file in EVERY_NATIVE + OTHERS:
        assert len(sample(name, file)) >= 4
    for one, other in pairwise(sample("openai", "openai/chat_messages")):
        assert one.created_at < other.created_at


EXAMPLES = [
    json.loads(block)
    for block in re.findall(
        r"^```json\n(.*?)^```$",
        (Path(__file__).parents[1] / "docs" / "message-format.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
]


@pytest.mark.parametrize("target", NATIVE)
@pytest.mark.parametrize("message", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_of_the_documentation_is_written_or_reported(message: dict[str, Any], target: str) -> None:
    form = get_format(target)
    converted = form.from_neutral([message])
    assert converted.messages or converted.losses
    made = [Source(str(index), target, form.dump(each).payload, TIME) for index, each in enumerate(converted.messages)]
    for _, again in replayable(made, ""):
        assert again["role"] in (message["role"], "system")
        if not converted.losses:
            assert essence(again["content"]) == essence(message["content"])
            assert again.get("tool_calls") == message.get("tool_calls")


def essence(content: str | list[dict[str, Any]]) -> Any:
    """Content without what a format may add, or leave out, of its own accord: names and media types."""
    if isinstance(content, str):
        return content
    return [{key: part[key] for key in ("type", "text", "url", "data", "file_id") if key in part} for part in content]

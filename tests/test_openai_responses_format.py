"""Items of Responses: every type comes back equal, and the Agents SDK takes what is converted."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_history import open_history
from chat_history.errors import ConversionError, ConversionWarning, InvalidMessageError
from chat_history.formats import Source, get_format, recognise
from chat_history.replaying import convert, replayable

FORM = get_format("openai_responses")
SAMPLES = Path(__file__).parent / "data" / "messages"
TIME = datetime(2026, 1, 2, tzinfo=UTC)
PNG = "data:image/png;base64,iVBORw0KGgo="
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The first example imports the framework, and machines are busy."""


def stored(*items: dict[str, Any], name: str = "openai_responses") -> list[Source]:
    """Items as they would be stored, each for itself."""
    return [
        Source(f"{index:08}", name, get_format(name).dump(item).payload, TIME + timedelta(seconds=index))
        for index, item in enumerate(items)
    ]


def sample(file: str) -> list[dict[str, Any]]:
    """The items of a sample."""
    items: list[dict[str, Any]] = json.loads((SAMPLES / f"{file}.json").read_text())
    return items


def call(call_id: str, name: str = "weather", arguments: str = "{}") -> dict[str, Any]:
    """A call of a tool."""
    return {"arguments": arguments, "call_id": call_id, "name": name, "type": "function_call"}


def result(call_id: str, output: Any) -> dict[str, Any]:
    """What the tool gave."""
    return {"call_id": call_id, "output": output, "type": "function_call_output"}


def said(text: str) -> dict[str, Any]:
    """What the model said."""
    content = [{"annotations": [], "text": text, "type": "output_text"}]
    return {"id": "msg_1", "content": content, "role": "assistant", "status": "completed", "type": "message"}


# ---- in and out again

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def types_of_the_sdk() -> list[str]:
    """Every type of an item that the installed SDK knows, of input and of output."""
    responses = pytest.importorskip("openai.types.responses")
    from typing import Annotated, get_origin, get_type_hints

    found = set()
    for union in (responses.ResponseInputItemParam, responses.ResponseOutputItem):
        union = get_args(union)[0] if get_origin(union) is Annotated else union
        for each in get_args(union):
            fields = getattr(each, "model_fields", None)
            kind = fields["type"].annotation if fields else get_type_hints(each).get("type")
            found |= {name for name in _literals(kind) if isinstance(name, str)}
    return sorted(found)


def _literals(hint: Any) -> list[Any]:
    values = []
    for each in get_args(hint):
        values += _literals(each) if get_args(each) else [each]
    return values


FIELDS = (
    *("id", "call_id", "name", "arguments", "input", "output", "status", "action", "actions", "operation", "queries"),
    *("results", "code", "outputs", "result", "tools", "server_label", "error", "summary", "content", "caller"),
    *("encrypted_content", "environment", "approval_request_id", "approve", "container_id", "namespace"),
)
TEXTS = [{"type": kind, "text": "x"} for kind in ("reasoning_text", "summary_text", "input_text", "output_text")]
VALUE = JSON | st.sampled_from(["call_1", "{}", TEXTS, [{"type": "input_image", "image_url": PNG}], {"type": "search"}])


@patiently
@given(st.data())
def test_every_type_of_item_comes_back_equal_and_is_converted_to_each_format(data: st.DataObject) -> None:
    kinds = [*types_of_the_sdk(), "a_type_of_tomorrow"]
    assert len(kinds) > 20
    drawn = st.fixed_dictionaries(
        {"type": st.sampled_from([kind for kind in kinds if kind != "message"])}, optional=dict.fromkeys(FIELDS, VALUE)
    )
    items = data.draw(st.lists(drawn, max_size=5))
    sources = stored(*items)
    for item, source in zip(items, sources, strict=True):
        assert recognise(item) is FORM
        (again,) = FORM.load([source.payload])
        assert again == item
        assert list(again) == list(item)
        assert FORM.dump(again).payload == source.payload == json.dumps(item, ensure_ascii=False)
    for target in ("openai", "openai_responses", "pydantic_ai", "llama_index"):
        form = get_format(target)
        form.load([form.dump(message).payload for message in convert(sources, target).messages])


@pytest.mark.parametrize("kind", types_of_the_sdk())
def test_an_item_of_each_type_is_carried_or_named(kind: str) -> None:
    item: dict[str, Any] = {"type": kind, "id": "x_1", "call_id": "call_1"}
    if kind == "message":
        item |= {"role": "user", "content": "Hello!"}
    asked = [call("call_1")] if kind.endswith("_output") else []
    converted = convert(stored(*asked, item), "openai")
    assert len(converted.messages) > len(asked) or converted.losses


def test_objects_of_the_sdk_are_stored_as_what_the_api_sent() -> None:
    responses = pytest.importorskip("openai.types.responses")
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(responses.ResponseOutputItem)
    wire = [item for item in sample("openai/responses_output_items") if item["type"] != "brand_new_item"]
    for item in wire:
        made = adapter.validate_python(item)
        assert recognise(made) is FORM
        assert FORM.load([FORM.dump(made).payload]) == [item]
    parsed = pytest.importorskip("openai.types.responses.parsed_response")
    text = {"type": "output_text", "text": '{"n": 1}', "annotations": []}
    said = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    call = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    }
    for kind, item, seen in (
        (parsed.ParsedResponseOutputMessage, said, {**said, "content": [{**text, "parsed": {"n": 1}}]}),
        (parsed.ParsedResponseFunctionToolCall, call, {**call, "parsed_arguments": {}}),
    ):
        assert FORM.load([FORM.dump(kind.construct(**seen)).payload]) == [item], "without what the SDK parsed of it"
    response = responses.Response.model_construct(id="resp_1", output=[])
    with pytest.raises(InvalidMessageError, match=r"response\.output"):
        FORM.dump(response)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ({"role": "user", "content": "Hello!"}, "openai"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}]}, "openai"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "openai"),
        ({"role": "user", "content": "Hello!", "type": "note"}, "openai"),
        ({"role": "user", "contents": [], "type": "message"}, "openai"),
        ({"role": "user", "content": "Hello!", "type": None}, "openai"),
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}]}, "openai_responses"),
        ({"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}, "openai_responses"),
        ({"role": "user", "content": "Hello!", "type": "message"}, "openai_responses"),
        ({"type": "item_reference", "id": "msg_1"}, "openai_responses"),
        ({"type": "additional_tools", "role": "developer", "tools": []}, "openai_responses"),
        ({"type": "a_type_of_tomorrow"}, "openai_responses"),
    ],
)
def test_a_dict_is_an_item_by_its_type_or_the_types_of_its_content(message: dict[str, Any], name: str) -> None:
    assert recognise(message).name == name


@pytest.mark.parametrize("part", [{"type": "text", "text": "a"}, {"type": "input_text", "text": "a"}, {"type": 5}])
def test_a_part_of_a_message_is_no_item(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessageError, match="'role'"):
        recognise(part)


@pytest.mark.parametrize(
    ("item", "role", "text"),
    [
        (said("Hello."), "assistant", "Hello."),
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}]}, "user", "a"),
        ({"type": "message", "role": "developer", "content": "Be terse."}, "developer", "Be terse."),
        (call("1"), "assistant", ""),
        (result("1", "12"), "tool", "12"),
        (result("1", [{"type": "input_text", "text": "12"}]), "tool", "12"),
        ({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}, "assistant", ""),
        ({"type": "shell_call_output", "call_id": "1", "output": [{"stdout": "x"}]}, "tool", ""),
    ],
)
def test_role_and_text_are_what_a_person_would_say(item: dict[str, Any], role: str, text: str) -> None:
    dumped = FORM.dump(item)
    assert (dumped.role, dumped.text) == (role, text)


def test_an_item_is_the_same_with_or_without_its_nones_and_its_usual_type() -> None:
    one = FORM.parts('{"role": "user", "content": "a"}')
    assert FORM.parts('{"content": "a", "role": "user", "type": "message", "status": null}') == one
    assert FORM.parts('{"role": "user", "content": "b"}') != one


# ---- pieces of one answer


def test_items_of_one_answer_are_one_message_elsewhere() -> None:
    thought = {"id": "rs_1", "summary": [{"text": "Two.", "type": "summary_text"}], "type": "reasoning"}
    items = [
        {"role": "user", "content": "?"},
        thought,
        said("Both."),
        call("p", arguments='{"a":  1}'),
        call("k"),
        result("p", "{'temp': 20.5}"),
        result("k", "b"),
        said("Done."),
    ]
    chat = convert(stored(*items), "openai").messages
    assert [message["role"] for message in chat] == ["user", "assistant", "tool", "tool", "assistant"]
    assert chat[1]["content"] == "Both."
    assert [each["id"] for each in chat[1]["tool_calls"]] == ["p", "k"]
    assert chat[1]["tool_calls"][0]["function"]["arguments"] == '{"a":  1}'
    assert chat[2]["content"] == "{'temp': 20.5}"
    pydantic = convert(stored(*items), "pydantic_ai").messages
    assert [[part.part_kind for part in message.parts] for message in pydantic] == [
        ["user-prompt"],
        ["thinking", "text", "tool-call", "tool-call"],
        ["tool-return", "tool-return"],
        ["text"],
    ]
    assert pydantic[1].parts[0].content == "Two."
    llama = convert(stored(*items), "llama_index").messages
    assert [len(message.blocks) for message in llama] == [1, 4, 1, 1, 1]


def test_pieces_keep_the_order_in_which_they_were_said() -> None:
    items = [call("1"), said("Meanwhile."), {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}]
    (message,) = (message for _, message in replayable(stored(*items), ""))
    assert message["order"] == ["tool_calls", "content", "thinking"]
    assert "piece" not in message
    (made,) = convert(stored(*items), "pydantic_ai").messages
    assert [part.part_kind for part in made.parts] == ["tool-call", "text", "thinking"]


def test_answers_with_something_between_them_stay_apart() -> None:
    for between in ({"role": "user", "content": "?"}, result("9", "late")):
        chat = [message for _, message in replayable(stored(said("a"), between, said("b")), "")]
        assert [message["content"] for message in chat if message["role"] == "assistant"] == ["a", "b"]


def test_a_custom_tool_is_answered_as_one() -> None:
    chat = [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "custom", "custom": {"name": "sql", "input": "select 1;"}},
            {"id": "2", "type": "function", "function": {"name": "f", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "1"},
        {"role": "user", "content": "Well?"},
    ]  # fmt: skip
    items = convert(stored(*chat, name="openai"), "openai_responses").messages
    assert [item.get("type") for item in items] == [
        *("custom_tool_call", "function_call", "custom_tool_call_output", "function_call_output"),
        None,
    ]
    assert items[0]["input"] == "select 1;"
    assert items[1]["arguments"] == "{}"
    assert convert(stored(*items[:2]), "openai").messages[0]["tool_calls"][0] == chat[0]["tool_calls"][0]  # type: ignore[index]


def test_what_only_the_api_can_read_is_dropped_and_named() -> None:
    items = sample("openai/responses_output_items")
    losses = convert(stored(*items), "pydantic_ai").losses
    said = {(loss.part, loss.reason) for loss in losses}
    assert ("thinking.ciphertext", "it is of use to the provider and API only that it came from") in said
    assert ("thinking.id", "it is of use to the provider and API only that it came from") in said
    assert "only openai_responses knows what it is" in {reason for _, reason in said}
    assert "gAAA" not in str(convert(stored(*items), "pydantic_ai").messages)


def test_tools_that_the_application_runs_for_the_api_are_calls_and_results() -> None:
    items = [
        {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}, "status": "completed"},
        {"type": "shell_call_output", "call_id": "1", "output": [{"stdout": "a.txt", "stderr": ""}]},
        {"type": "local_shell_call", "id": "ls_1", "call_id": "2", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "2", "output": "b.txt"},
        {"type": "apply_patch_call", "call_id": "3", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "apply_patch_call_output", "call_id": "3", "status": "failed", "output": "No such file."},
        {"type": "computer_call", "id": "cu_1", "call_id": "4", "action": {"type": "screenshot"}},
        {"type": "computer_call_output", "call_id": "4", "output": {"type": "computer_screenshot", "image_url": PNG}},
    ]
    converted = convert(stored(*items), "pydantic_ai")
    assert not converted.losses
    parts = [message.parts[0] for message in converted.messages]
    assert [part.tool_name for part in parts[::2]] == ["shell", "local_shell", "apply_patch", "computer"]
    assert [part.tool_name for part in parts[1::2]] == ["shell", "local_shell", "apply_patch", "computer"]
    assert json.loads(parts[0].args) == {"commands": ["ls"]}
    assert parts[1].content == [{"stdout": "a.txt", "stderr": ""}]
    assert parts[5].outcome == "failed"
    assert parts[7].content[0].media_type == "image/png"


# ---- saving


def test_items_come_back_equal_from_a_history_and_only_new_ones_are_stored() -> None:
    items = sample("openai_agents/session_items")
    with open_history("memory:") as history:
        history.save_messages("c", items)
        assert history.get_message_history("c", format="openai_responses") == items
        assert history.save_messages("c", items) == []
        more = [*items, {"role": "user", "content": "More?"}, call("z")]
        assert len(history.save_messages("c", more)) == 2
        assert history.get_message_history("c", format="openai_responses") == more


@pytest.mark.parametrize("target", ["openai", "pydantic_ai", "llama_index"])
def test_a_chat_of_items_goes_on_in_another_framework_and_nothing_is_stored_twice(target: str) -> None:
    items = sample("openai_agents/session_items")
    with open_history("memory:") as history:
        history.save_messages("c", items)
        with pytest.warns(ConversionWarning):
            there = history.get_message_history("c", format=target)
        assert history.save_messages("c", there) == []
        assert history.get_message_history("c", format="openai_responses") == items


@pytest.mark.parametrize("file", ["pydantic_ai_v2/tools_multiturn", "openai/chat_messages"])
def test_a_chat_of_others_goes_on_in_items_and_nothing_is_stored_twice(file: str) -> None:
    messages = json.loads((SAMPLES / f"{file}.json").read_text())
    if file.startswith("pydantic"):
        if get_format("pydantic_ai").version().startswith("1."):
            pytest.skip("Pydantic AI 1 cannot load what 2 wrote")
        messages = get_format("pydantic_ai").load([json.dumps(each) for each in messages])
    with open_history("memory:") as history:
        before = len(history.save_messages("c", messages))
        with pytest.warns(ConversionWarning):
            items = history.get_message_history("c", format="openai_responses")
        assert len(items) >= before
        assert history.save_messages("c", items) == []
        # Plain words are dicts of Chat Completions, calls are items: the list is of two formats.
        more = [*items, {"role": "user", "content": "More?"}, call("z")]
        assert len(history.save_messages("c", more)) == 2


ITEMS = [
    *sample("openai_agents/session_items"),
    *sample("openai/responses_output_items"),
    *(call("a"), call("b"), result("a", "1"), result("b", "2"), said("z")),
    *({"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}),
]


@patiently
@given(st.lists(st.sampled_from(ITEMS), max_size=8))
@pytest.mark.filterwarnings("ignore::chat_history.errors.ConversionWarning")
def test_whatever_was_loaded_is_found_again_when_it_comes_back(items: list[dict[str, Any]]) -> None:
    with open_history("memory:") as history:
        history.save_messages("c", items)
        first = history.get_message_history("c", format="openai_responses")
        for target in ("openai", "pydantic_ai", "llama_index", "openai_responses"):
            there = history.get_message_history("c", format=target)
            assert not there or history.save_messages("c", there) == []
            assert history.get_message_history("c", format="openai_responses") == first


def test_strict_reading_raises_what_a_conversion_would_lose() -> None:
    with open_history("memory:") as history:
        history.save_messages("c", sample("openai_agents/session_items"))
        with pytest.raises(ConversionError, match="web_search"):
            history.get_message_history("c", format="openai", strict=True)


# ---- the Agents SDK itself


def conversation() -> list[Source]:
    """Parallel calls, an error, an image and a thought, as Pydantic AI has them."""
    from pydantic_ai import messages as m

    made = [
        m.ModelRequest(parts=[m.SystemPromptPart("Be terse."), m.UserPromptPart("Paris and Köln?")]),
        m.ModelResponse(
            parts=[
                m.ThinkingPart("Two cities.", signature="sig", id="rs_9", provider_name="anthropic"),
                m.TextPart("Let me see."),
                m.ToolCallPart("weather", '{"city": "Paris"}', "p"),
                m.ToolCallPart("weather", {"city": "Köln"}, "k"),
            ]
        ),
        m.ModelRequest(
            parts=[
                m.ToolReturnPart("weather", {"temp": 20.5}, "p"),
                m.ToolReturnPart("weather", "No such city.", "k", outcome="failed"),
            ]
        ),
        m.ModelResponse(parts=[m.TextPart("Paris 20.")]),
        m.ModelRequest(
            parts=[m.UserPromptPart(["And this?", m.BinaryContent(b"\x89PNG\r\n\x1a\n", media_type="image/png")])]
        ),
        m.ModelResponse(parts=[m.TextPart("A dot.")]),
    ]
    form = get_format("pydantic_ai")
    return [Source(str(index), "pydantic_ai", form.dump(each).payload, TIME) for index, each in enumerate(made)]


def test_the_converter_of_the_agents_sdk_takes_what_is_converted() -> None:
    pytest.importorskip("agents")
    from agents.models.chatcmpl_converter import Converter

    items = convert(conversation(), "openai_responses").messages
    chat = Converter.items_to_messages(items)
    assert [message["role"] for message in chat] == [
        *("system", "user", "assistant", "tool", "tool", "assistant", "user", "assistant"),
    ]
    assert chat[2]["content"] == "Let me see."  # type: ignore[typeddict-item]
    assert [each["id"] for each in chat[2]["tool_calls"]] == ["p", "k"]  # type: ignore[typeddict-item]
    assert chat[3]["content"] == '{"temp":20.5}'  # type: ignore[typeddict-item]
    assert chat[6]["content"][1]["type"] == "image_url"  # type: ignore[typeddict-item, index, call-overload]


@pytest.mark.parametrize("file", ["openai_agents/session_items", "openai_agents/to_input_list"])
def test_our_chat_completions_are_those_of_the_agents_sdk(file: str) -> None:
    pytest.importorskip("agents")
    from agents.models.chatcmpl_converter import Converter

    items = [item for item in sample(file) if item["type" if "type" in item else "role"] != "web_search_call"]
    theirs = Converter.items_to_messages(items)
    ours = convert(stored(*items), "openai").messages
    assert [message["role"] for message in ours] == [message["role"] for message in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["content"] == other.get("content")
        assert one.get("tool_calls", []) == other.get("tool_calls", [])


def test_the_runner_of_the_agents_sdk_goes_on_from_what_is_converted() -> None:
    pytest.importorskip("agents")
    from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    set_tracing_disabled(True)
    given: list[Any] = []

    class Scripted(Model):
        async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
            given.append(input)
            text = ResponseOutputText(annotations=[], text=f"answer {len(given)}", type="output_text")
            message = ResponseOutputMessage(
                id=f"msg_{len(given)}", content=[text], role="assistant", status="completed", type="message"
            )
            return ModelResponse(output=[message], usage=Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    agent = Agent(name="a", model=Scripted())
    items = convert(conversation(), "openai_responses").messages
    question = {"role": "user", "content": "Go on."}

    async def run(start: list[Any]) -> Any:
        return await Runner.run(agent, start)

    first = asyncio.run(run([*items, question]))
    assert given[0] == [*items, question]
    assert first.to_input_list()[: len(items) + 1] == [*items, question]
    with open_history("memory:") as history:
        history.save_messages("c", first.to_input_list())
        again = history.get_message_history("c", format="openai_responses")
        assert again == first.to_input_list()
        second = asyncio.run(run([*again, question]))
        assert given[1] == [*again, question]
        assert len(history.save_messages("c", second.to_input_list())) == 2

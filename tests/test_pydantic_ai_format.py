"""Pydantic AI's messages: round trips of every part kind, and what real agents do to messages they are given."""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_ai import Agent, models
from pydantic_ai import messages as m
from pydantic_ai.messages import (
    BinaryContent,
    CachePoint,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

from chat_history.errors import InvalidMessageError
from chat_history.formats import Parts, Source, get_format, recognise
from chat_history.replaying import convert

models.ALLOW_MODEL_REQUESTS = False
TestModel.__test__ = False  # type: ignore[attr-defined]

FORM = get_format("pydantic_ai")
FIRST_LINE = FORM.version().startswith("1.")
needs_2 = pytest.mark.skipif(FIRST_LINE, reason="Pydantic AI 1 does not do this")
SAMPLES = Path(__file__).parent / "data" / "messages"
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The first example imports the framework, and machines are busy."""


def flat(messages: Sequence[Any]) -> list[tuple[str, str]]:
    """What tells these messages from others, without their boundaries."""
    found = [FORM.parts(FORM.dump(message).payload) for message in messages]
    return [(each.kind, part) for each in found for part in each.parts]


def parts(message: Any) -> Parts:
    """What tells this message from others."""
    return FORM.parts(FORM.dump(message).payload)


def loaded(messages: Sequence[Any]) -> list[Any]:
    """The messages as another process gets them."""
    return FORM.load([FORM.dump(message).payload for message in messages])


def answer(history: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Answers every prompt with its number."""
    return ModelResponse(parts=[TextPart(f"answer {len(history)}")], usage=RequestUsage(input_tokens=1))


def agent(**options: Any) -> Agent[None, str]:
    """An agent whose model is scripted."""
    return Agent(FunctionModel(answer), **options)


def stored(*messages: dict[str, Any]) -> list[Source]:
    """Chat Completions dicts as they would be stored."""
    return [
        Source(f"{index:08}", "openai", json.dumps(message), TIME + timedelta(seconds=index))
        for index, message in enumerate(messages)
    ]


# ---- round trips

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
SOME = st.sampled_from(["a", "Köln ☃", "x\0y", ""])
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
DETAILS = st.none() | st.dictionaries(TEXT, JSON, max_size=2)
OPTIONAL = st.none() | SOME
BINARY = st.builds(
    BinaryContent,
    data=st.binary(max_size=6),
    media_type=st.sampled_from(["image/png", "audio/wav", "application/pdf"]),
    vendor_metadata=DETAILS,
)
URL = st.sampled_from([m.ImageUrl, m.AudioUrl, m.VideoUrl, m.DocumentUrl]).flatmap(
    lambda kind: st.builds(
        kind,
        url=st.just("https://e.com/a.png"),
        media_type=st.just("image/png"),
        force_download=st.booleans(),
        vendor_metadata=DETAILS,
    )
)
UPLOADED = st.builds(m.UploadedFile, file_id=SOME, provider_name=st.just("openai"), media_type=st.just("image/png"))
CONTENT = (
    TEXT
    | st.lists(
        TEXT
        | BINARY
        | URL
        | UPLOADED
        | st.builds(m.TextContent, content=TEXT, metadata=JSON)
        | st.builds(CachePoint, ttl=st.sampled_from(["5m", "1h"])),
        max_size=4,
    )
    | st.tuples(TEXT, BINARY)
)
RESULT = st.one_of(
    JSON,
    BINARY,
    st.lists(BINARY | URL | JSON, max_size=3),
    st.sampled_from([(1, "a"), {1: "x"}, b"\xff\x00", Decimal("1.5"), TIME, {2}, float("nan"), [float("inf")]]),
)
CALL_ID = st.sampled_from(["1", "2", "call_A"])
RETURN = {"tool_name": SOME, "content": RESULT, "tool_call_id": CALL_ID, "metadata": JSON, "timestamp": TIMES}
NATIVE = {"tool_name": SOME, "tool_call_id": CALL_ID, "provider_name": OPTIONAL, "provider_details": DETAILS}
OWN = {"id": OPTIONAL, "provider_name": OPTIONAL, "provider_details": DETAILS}
ARGS = st.none() | st.sampled_from(["", "{", '{"a":  1}', "select 1;"]) | st.dictionaries(TEXT, JSON, max_size=2)

IN_REQUESTS: dict[str, Any] = {
    "system-prompt": st.builds(SystemPromptPart, content=TEXT, timestamp=TIMES, dynamic_ref=OPTIONAL),
    "user-prompt": st.builds(UserPromptPart, content=CONTENT, timestamp=TIMES),
    "tool-return": st.builds(ToolReturnPart, **RETURN, outcome=st.sampled_from(["success", "failed", "denied"])),
}
IN_RESPONSES: dict[str, Any] = {
    "text": st.builds(TextPart, content=TEXT, **OWN),
    "thinking": st.builds(ThinkingPart, content=TEXT, signature=OPTIONAL, **OWN),
    "tool-call": st.builds(ToolCallPart, tool_name=SOME, args=ARGS, tool_call_id=CALL_ID, **OWN),
    "builtin-tool-call": st.builds(m.NativeToolCallPart, args=ARGS, **NATIVE),
    "builtin-tool-return": st.builds(m.NativeToolReturnPart, content=JSON, timestamp=TIMES, **NATIVE),
    "compaction": st.builds(m.CompactionPart, content=OPTIONAL, **OWN),
    "file": st.builds(m.FilePart, content=BINARY, **OWN),
}
if FIRST_LINE:
    IN_REQUESTS["retry-prompt"] = st.builds(
        m.RetryPromptPart, content=TEXT, tool_name=OPTIONAL, tool_call_id=CALL_ID, timestamp=TIMES
    )
else:
    speech = {"transcript": OPTIONAL, "audio": st.none() | BINARY, "id": OPTIONAL}
    retry = st.builds(m.RetryInfo, cause=st.sampled_from(["model_retry", "validation_error"]), attempt=st.just(1))
    block = st.builds(m.InstructionPart, content=TEXT, dynamic=st.booleans())
    IN_REQUESTS |= {
        "tool-return": st.builds(
            ToolReturnPart,
            **RETURN,
            outcome=st.sampled_from(["success", "failed", "denied", "interrupted", "retried"]),
        ),
        "retry-feedback": st.builds(m.RetryFeedbackPart, content=TEXT, retry=retry, timestamp=TIMES),
        "speech": st.builds(m.SpeechPart, speaker=st.just("user"), **speech),
        "compaction": st.builds(m.CompactionPart, content=SOME.filter(bool)),
        "tool-availability-delta": st.builds(m.ToolAvailabilityDeltaPart, tools_added=st.lists(SOME, max_size=2)),
        "capability-load-delta": st.builds(m.CapabilityLoadDeltaPart, loaded=st.lists(SOME, max_size=2)),
        "model-settings-delta": st.builds(
            m.ModelSettingsDeltaPart, settings=st.just({"thinking": "high"}), top_level=st.booleans()
        ),
        "instruction-delta": st.builds(
            m.InstructionDeltaPart,
            id=st.just(m.InstructionId(source=m.AgentInstructionSource(), name="a")),
            content=OPTIONAL,
        ),
        "instruction-baseline": st.builds(m.InstructionBaselinePart, instructions=st.lists(block, max_size=2)),
    }
    IN_RESPONSES["speech"] = st.builds(m.SpeechPart, speaker=st.just("assistant"), **speech)

REQUEST = st.builds(
    ModelRequest,
    parts=st.lists(st.one_of(*IN_REQUESTS.values()), max_size=4),
    timestamp=st.none() | TIMES,
    instructions=OPTIONAL,
    run_id=OPTIONAL,
    conversation_id=OPTIONAL,
    metadata=DETAILS,
)
RESPONSE = st.builds(
    ModelResponse,
    parts=st.lists(st.one_of(*IN_RESPONSES.values()), max_size=4),
    usage=st.builds(RequestUsage, input_tokens=st.integers(0, 9), details=st.just({"reasoning": 3})),
    model_name=OPTIONAL,
    timestamp=TIMES,
    provider_name=OPTIONAL,
    provider_details=DETAILS,
    provider_response_id=OPTIONAL,
    finish_reason=st.sampled_from([None, "stop", "length"]),
    run_id=OPTIONAL,
    metadata=DETAILS,
)


def kinds(union: Any) -> set[str]:
    """The part kinds of a union that the installed release stores."""
    found = set()
    for member in get_args(get_args(union)[0]):
        found.add(get_args(member)[0].part_kind if get_args(member) else member.part_kind)
    return found


def test_the_round_trips_have_every_part_kind_of_the_installed_release() -> None:
    # 2.x still knows the class RetryPromptPart, but stores what it means instead.
    assert kinds(m.ModelRequestPart) - {"retry-prompt" if not FIRST_LINE else ""} == IN_REQUESTS.keys()
    assert kinds(m.ModelResponsePart) == IN_RESPONSES.keys()


@patiently
@given(REQUEST | RESPONSE)
def test_a_message_of_any_parts_is_stored_and_loaded_and_stored_the_same(message: Any) -> None:
    payload, _, text = FORM.dump(message)[:3]
    assert "\n" not in payload
    assert "\0" not in text
    (once,) = FORM.load([payload])
    again = FORM.dump(once)
    (twice,) = FORM.load([again.payload])
    assert FORM.dump(twice) == again
    assert FORM.parts(again.payload) == FORM.parts(payload), "what the release itself wrote is recognised"
    adapter: TypeAdapter[Any] = TypeAdapter(
        ModelMessage, config={"ser_json_bytes": "base64", "val_json_bytes": "base64"}
    )
    assert payload.encode() == adapter.dump_json(message), "it is the framework's own JSON"


@patiently
@given(st.lists(REQUEST | RESPONSE, max_size=4))
def test_any_messages_are_converted_to_what_can_be_stored(messages: list[Any]) -> None:
    sources = [Source(str(i), "pydantic_ai", FORM.dump(each).payload, TIME) for i, each in enumerate(messages)]
    for target in ("openai", "pydantic_ai"):
        form = get_format(target)
        for message in convert(sources, target).messages:
            form.dump(message)


@patiently
@given(REQUEST | RESPONSE)
def test_the_rest_of_a_message_is_what_its_parts_say(message: Any) -> None:
    before = FORM.dump(message)
    found = FORM.parts(before.payload)
    for start in range(len(message.parts) and len(found.parts)):
        assert parts(FORM.rest(message, start)).parts == found.parts[start:]
    assert FORM.dump(message) == before, "the message itself is left alone"


def test_nothing_of_a_message_is_replaced_when_it_is_cut() -> None:
    first, second = UserPromptPart("a"), UserPromptPart("b")
    given = [first, second]
    message = ModelRequest(parts=given, metadata={"a": 1})
    rest = FORM.rest(message, 1)
    assert rest.parts == [second]
    assert rest.metadata == {"a": 1}
    assert message.parts is given
    assert given == [first, second]
    assert FORM.rest(message, 0) is message


@pytest.mark.parametrize("line", ["pydantic_ai_v1", "pydantic_ai_v2"])
def test_the_payloads_of_1_107_are_loaded_by_every_release(line: str) -> None:
    raw = json.loads((SAMPLES / line / "tools_multiturn.json").read_text())
    payloads = [json.dumps(message) for message in raw]
    if FIRST_LINE and line == "pydantic_ai_v2":
        with pytest.raises(ValueError, match="outcome"):
            FORM.load(payloads)
        sources = [Source(str(index), "pydantic_ai", payload, TIME) for index, payload in enumerate(payloads)]
        converted = convert(sources, "pydantic_ai")
        assert [message.kind for message in converted.messages] == [message["kind"] for message in raw]
    else:
        assert [message.kind for message in FORM.load(payloads)] == [message["kind"] for message in raw]


# ---- what cannot be stored


@pytest.mark.parametrize(
    "message",
    [
        ModelRequest(parts=[UserPromptPart("a \ud800 b")]),
        ModelRequest(parts=[ToolReturnPart("tool", object(), "1")]),
        ModelRequest(parts=[ToolReturnPart("tool", {"x": [lambda: 0]}, "1")]),
        ModelResponse(parts=["text"]),  # type: ignore[list-item]
        ModelResponse(parts=[TextPart(5)]),  # type: ignore[arg-type]
    ],
    ids=["surrogate", "object", "function", "str as part", "int as text"],
)
def test_a_message_that_json_cannot_hold_is_refused(message: Any) -> None:
    assert recognise(message) is FORM
    with pytest.raises(InvalidMessageError, match=type(message).__name__):
        FORM.dump(message)


def test_a_list_within_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidMessageError):
        FORM.dump(ModelRequest(parts=[ToolReturnPart("tool", value, "1")]))
    for _ in range(5000):
        value = [value]
    with pytest.raises(InvalidMessageError):
        FORM.dump(ModelRequest(parts=[ToolReturnPart("tool", value, "1")]))


def test_a_class_derived_from_the_frameworks_is_recognised() -> None:
    class Ours(ModelResponse):
        pass

    message = Ours(parts=[TextPart("x")])
    assert recognise(message) is FORM
    assert FORM.dump(message).text == "x"


# ---- role and text


ROLES = [
    (ModelRequest(parts=[SystemPromptPart("s")]), "system", "s"),
    (ModelRequest(parts=[]), "system", ""),
    (ModelRequest(parts=[SystemPromptPart("s"), UserPromptPart("u")]), "user", "u"),
    (ModelRequest(parts=[UserPromptPart(["a", ImageUrl("https://e.com/a.png"), m.TextContent("b")])]), "user", "a\nb"),
    (ModelRequest(parts=[UserPromptPart("a\0")]), "user", "a\ufffd"),
    (ModelRequest(parts=[ToolReturnPart("t", "done", "1"), UserPromptPart("u")]), "tool", "done\nu"),
    (ModelRequest(parts=[ToolReturnPart("t", {"a": [1, None]}, "1")]), "tool", '{"a":[1,null]}'),
    (ModelRequest(parts=[ToolReturnPart("t", None, "1")]), "tool", ""),
    (
        ModelRequest(parts=[ToolReturnPart("t", ["x", BinaryContent(data=b"1", media_type="image/png")], "1")]),
        "tool",
        '["x","[image/png]"]',
    ),
    (ModelRequest(parts=[ToolReturnPart("t", {"x": b"\xff"}, "1")]), "tool", '{"x":"/w=="}'),
    (
        ModelResponse(parts=[ThinkingPart("hm"), TextPart("a"), ToolCallPart("t", "{}"), TextPart("b")]),
        "assistant",
        "a\nb",
    ),
    (ModelResponse(parts=[ToolCallPart("t", "{}")]), "assistant", ""),
]


@pytest.mark.parametrize(("message", "role", "text"), ROLES, ids=range(len(ROLES)))
def test_role_and_text(message: Any, role: str, text: str) -> None:
    dumped = FORM.dump(message)
    assert (dumped.role, dumped.text.replace("_w==", "/w==")) == (role, text)


@pytest.mark.filterwarnings("ignore:.*RetryPromptPart")
def test_role_and_text_of_a_retry() -> None:
    for tool, beside in (("t", "tool"), (None, "user")):
        retry = m.RetryPromptPart("again", tool_name=tool, tool_call_id="1")
        request = ModelRequest(parts=[retry])
        for message in (request, *loaded([request])):
            assert FORM.dump(message)[1:3] == ("tool", "again"), "it begins no turn"
        assert FORM.dump(ModelRequest(parts=[retry, UserPromptPart("Well?")])).role == beside


@needs_2
def test_role_and_text_of_what_2_adds() -> None:
    feedback = m.RetryFeedbackPart("Shorter.", retry=m.RetryInfo(cause="model_retry"))
    assert FORM.dump(ModelRequest(parts=[feedback]))[1:3] == ("tool", "Shorter.")
    spoken = m.SpeechPart(speaker="user", transcript="Hello?")
    assert FORM.dump(ModelRequest(parts=[spoken]))[1:3] == ("user", "Hello?")
    assert FORM.dump(ModelResponse(parts=[replace(spoken, speaker="assistant")]))[1:3] == ("assistant", "Hello?")
    assert FORM.dump(ModelRequest(parts=[m.CompactionPart("Ann is 40.")]))[1:3] == ("user", "Ann is 40.")


@needs_2
@pytest.mark.parametrize("target", ["agent_framework", "langchain", "llama_index", "openai", "openai_responses"])
def test_a_summary_that_stands_for_what_was_said_before_is_told_to_every_framework(target: str) -> None:
    summed_up = [ModelRequest(parts=[SystemPromptPart("Be kind."), m.CompactionPart("Ann is 40.")])]
    converted = convert(
        [Source(str(index), "pydantic_ai", FORM.dump(each).payload, TIME) for index, each in enumerate(summed_up)],
        target,
    )
    assert converted.losses == []
    assert "Ann is 40." in get_format(target).dump(converted.messages[-1]).text


@needs_2
def test_what_a_run_records_of_itself_is_no_loss() -> None:
    parts = [
        m.InstructionBaselinePart(instructions=[]),
        m.InstructionDeltaPart(
            id=m.InstructionId(source=m.AgentInstructionSource(), name="now"), content="It is night."
        ),
        m.ToolAvailabilityDeltaPart(tools_added=["look"]),
        m.CapabilityLoadDeltaPart(loaded=["x"]),
        UserPromptPart("Hello!"),
    ]
    request = ModelRequest(parts=parts)
    source = Source("1", "pydantic_ai", FORM.dump(request).payload, datetime(2026, 1, 2, tzinfo=UTC))
    converted = convert([source], "openai")
    assert (converted.messages, converted.losses) == ([{"role": "user", "content": "Hello!"}], [])
    assert FORM.load([source.payload]) == [request]


# ---- what an agent changes in messages that it was given is not seen; what a person changes is


def test_neighbouring_requests_are_merged_by_an_agent_and_recognised() -> None:
    given = loaded(
        [
            ModelRequest(parts=[SystemPromptPart("Be kind.")]),
            ModelRequest(parts=[UserPromptPart("Hello!")], instructions="Be brief.", metadata={"a": 1}),
        ]
    )
    after = agent().run_sync(None, message_history=given).all_messages()
    assert len(after) == 2, "the two requests have become one"
    assert flat(after)[: len(flat(given))] == flat(given)
    after = agent(instructions="Now.").run_sync("More", message_history=given).all_messages()
    assert flat(after)[: len(flat(given))] == flat(given)


def test_neighbouring_responses_are_merged_by_an_agent_and_recognised() -> None:
    given = loaded(
        [
            ModelRequest(parts=[UserPromptPart("Hello!")]),
            ModelResponse(parts=[TextPart("a")], usage=RequestUsage(input_tokens=3)),
            ModelResponse(parts=[TextPart("b")], usage=RequestUsage(input_tokens=5)),
        ]
    )
    after = agent().run_sync("More", message_history=given).all_messages()
    assert [each.kind for each in after] == ["request", "response", "request", "response"]
    assert flat(after)[: len(flat(given))] == flat(given)


def test_a_request_that_a_run_completes_is_still_the_same() -> None:
    given = loaded([ModelRequest(parts=[UserPromptPart("Hello!")], metadata={"a": 1})])
    before = [parts(each) for each in given]
    after = agent(instructions="Be brief.").run_sync(message_history=given).all_messages()
    assert after[0].instructions == "Be brief.", "the run has filled it in"
    assert after[0].timestamp
    assert parts(after[0]) == before[0]


def test_a_dynamic_system_prompt_gets_a_new_text_in_each_run_and_is_still_the_same() -> None:
    said = iter(["one", "two", "three", "four"])
    talker = agent(system_prompt="Be kind.")

    @talker.system_prompt(dynamic=True)
    def today() -> str:
        return next(said)

    first = talker.run_sync("Hello!").all_messages()
    before = flat(first)
    after = talker.run_sync("More", message_history=loaded(first)).all_messages()
    assert after[0].parts[1].content != "one"
    assert flat(after)[: len(before)] == before
    assert parts(after[0]).envelope == parts(first[0]).envelope
    static = copy.deepcopy(after)
    static[0].parts[0].content = "Be rude."  # type: ignore[union-attr]
    assert flat(static) != flat(after)


def test_a_whole_conversation_with_tools_is_recognised_when_it_comes_back() -> None:
    helper = Agent(TestModel(), system_prompt="Use the tools.", instructions="Be brief.")

    @helper.tool_plain
    def add(a: int, b: int) -> dict[str, Any]:
        return {"sum": a + b, "when": TIME, "how": (1, {2: b"x"})}

    history: list[Any] = []
    for prompt in ("one", "two", "three"):
        before = flat(history)
        history = helper.run_sync(prompt, message_history=loaded(history)).all_messages()
        assert flat(history)[: len(before)] == before
        assert flat(loaded(history)) == flat(history)
        assert [parts(each).envelope for each in loaded(history)] == [parts(each).envelope for each in history]


CHANGES: list[tuple[Any, dict[str, Any]]] = [
    (ModelRequest(parts=[UserPromptPart("a", timestamp=TIME)], metadata={"a": 1}), {"metadata": {"a": 2}}),
    (ModelRequest(parts=[UserPromptPart("a", timestamp=TIME)], metadata={"a": 1}), {"metadata": None}),
    (
        ModelRequest(parts=[UserPromptPart("a", timestamp=TIME)]),
        {"parts": [UserPromptPart("b", timestamp=TIME)]},
    ),
    (ModelResponse(parts=[TextPart("a")], timestamp=TIME), {"parts": [TextPart("a", id="1")]}),
    (ModelResponse(parts=[TextPart("a")], timestamp=TIME), {"parts": [TextPart("a"), TextPart("")]}),
    (ModelResponse(parts=[TextPart("a")], timestamp=TIME), {"usage": RequestUsage(output_tokens=1)}),
    (ModelResponse(parts=[TextPart("a")], timestamp=TIME), {"model_name": "m"}),
    (ModelResponse(parts=[TextPart("a")], timestamp=TIME), {"metadata": {"rating": 5}}),
    (ModelResponse(parts=[TextPart("a")], timestamp=TIME), {"finish_reason": "length"}),
    (
        ModelRequest(parts=[ToolReturnPart("t", {"a": 1}, "1", timestamp=TIME)]),
        {"parts": [ToolReturnPart("t", {"a": 2}, "1", timestamp=TIME)]},
    ),
    (
        ModelRequest(parts=[ToolReturnPart("t", None, "1", timestamp=TIME)]),
        {"parts": [ToolReturnPart("t", "", "1", timestamp=TIME)]},
    ),
]


@pytest.mark.parametrize(("message", "change"), CHANGES, ids=range(len(CHANGES)))
def test_what_a_person_changes_is_seen(message: Any, change: dict[str, Any]) -> None:
    assert parts(replace(message, **change)) != parts(message)


@needs_2
def test_a_result_that_a_run_puts_in_for_a_call_without_one_is_not_seen() -> None:
    given = loaded(
        [
            ModelRequest(parts=[UserPromptPart("Hello!")]),
            ModelResponse(parts=[ToolCallPart("t", "{}", "1")], model_name="m"),
            ModelRequest(parts=[UserPromptPart("Never mind.")]),
            ModelResponse(parts=[TextPart("Well.")], model_name="m"),
        ]
    )
    after = agent().run_sync("More", message_history=given).all_messages()
    assert [part.part_kind for part in after[2].parts] == ["tool-return", "user-prompt"]
    assert flat(after)[: len(flat(given))] == flat(given)
    assert parts(FORM.rest(after[2], 0)).parts == parts(given[2]).parts


@needs_2
def test_what_stands_between_two_results_is_moved_by_a_run_and_recognised() -> None:
    given = loaded(
        [
            ModelRequest(parts=[UserPromptPart("Hello!")]),
            ModelResponse(parts=[ToolCallPart("t", "{}", "1"), ToolCallPart("t", "{}", "2")], model_name="m"),
            ModelRequest(
                parts=[ToolReturnPart("t", "a", "1"), UserPromptPart("By the way"), ToolReturnPart("t", "b", "2")]
            ),
            ModelResponse(parts=[TextPart("Well.")], model_name="m"),
        ]
    )
    after = agent().run_sync("More", message_history=given).all_messages()
    assert [part.part_kind for part in after[2].parts] == ["tool-return", "tool-return", "user-prompt"]
    assert flat(after)[: len(flat(given))] == flat(given)
    assert parts(FORM.rest(given[2], 1)).parts == parts(given[2]).parts[1:]


def test_an_empty_answer_is_still_a_message() -> None:
    assert len(parts(ModelResponse(parts=[])).parts) == 1


# ---- converted histories are taken by real agents

CALLS = [
    {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},
    {"id": "2", "type": "function", "function": {"name": "add", "arguments": ""}},
]
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "One and two?"},
    {"role": "assistant", "content": "Let me see.", "tool_calls": CALLS, "reasoning_content": "Sums."},
    {"role": "tool", "tool_call_id": "1", "content": "3"},
    {"role": "tool", "tool_call_id": "2", "content": "{'python': 'repr'}"},
    {"role": "assistant", "content": "Three."},
]


@pytest.mark.parametrize("length", range(1, len(CHAT) + 1))
def test_an_agent_goes_on_from_dicts_wherever_they_stop(length: int) -> None:
    seen: list[list[ModelMessage]] = []

    def model(history: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(history)
        return ModelResponse(parts=[TextPart("Done.")])

    helper = Agent(FunctionModel(model))

    @helper.tool_plain
    def add(a: int = 0, b: int = 0) -> int:
        return a + b

    history = convert(stored(*CHAT[:length]), "pydantic_ai")
    assert not history.losses
    open_calls = length in (3, 4)
    after = helper.run_sync(None if open_calls or length == 2 else "Go on.", message_history=history.messages)
    assert after.output == "Done."
    assert flat(after.all_messages())[: len(flat(history.messages))] == flat(history.messages)
    if length == 3:
        returned = [part.content for part in seen[0][-1].parts if isinstance(part, ToolReturnPart)]
        assert returned == [3, 0], "the agent has called the tools with the arguments of the dict"


def test_what_an_agent_is_given_from_dicts_has_their_words_and_times() -> None:
    system, response, results, final = convert(stored(*CHAT), "pydantic_ai").messages
    assert [part.part_kind for part in system.parts] == ["system-prompt", "user-prompt"]
    assert [part.timestamp for part in system.parts] == [TIME, TIME + timedelta(seconds=1)]
    assert [part.part_kind for part in response.parts] == ["thinking", "text", "tool-call", "tool-call"]
    assert [part.args for part in response.parts[2:]] == ['{"a": 1, "b": 2}', ""]
    assert response.timestamp == TIME + timedelta(seconds=2)
    assert [(part.tool_name, part.content) for part in results.parts] == [("add", "3"), ("add", "{'python': 'repr'}")]
    assert final.parts[0].content == "Three."


@pytest.mark.parametrize(
    "file", ["openai/chat_messages", "pydantic_ai_v1/tools_multiturn", "pydantic_ai_v2/tools_multiturn"]
)
def test_an_agent_goes_on_from_every_sample(file: str) -> None:
    raw = json.loads((SAMPLES / f"{file}.json").read_text())
    name = "openai" if "openai" in file else "pydantic_ai"
    sources = [Source(str(index), name, json.dumps(each), TIME) for index, each in enumerate(raw)]
    history = convert(sources, "pydantic_ai").messages
    after = agent().run_sync("Go on.", message_history=history).all_messages()
    assert flat(after)[: len(flat(history))] == flat(history)
    if name == "pydantic_ai":
        back = convert(sources, "openai").messages
        dicts = [Source(str(index), "openai", json.dumps(each), TIME) for index, each in enumerate(back)]
        again = convert(dicts, "pydantic_ai").messages
        assert agent().run_sync("Go on.", message_history=again).output


def test_answers_of_models_stay_apart_and_those_of_nobody_are_joined_as_an_agent_would() -> None:
    given = [
        ModelResponse(parts=[TextPart("a")], model_name="m", timestamp=TIME),
        ModelResponse(parts=[TextPart("b")], timestamp=TIME),
        ModelResponse(parts=[TextPart("c")], timestamp=TIME),
        ModelResponse(parts=[TextPart("d")], provider_response_id="1", timestamp=TIME),
    ]
    sources = [Source(str(i), "pydantic_ai", FORM.dump(each).payload, TIME) for i, each in enumerate(given)]
    made = convert(sources, "pydantic_ai").messages
    assert [[part.content for part in each.parts] for each in made] == [["a"], ["b", "c"], ["d"]]
    start = ModelRequest(parts=[UserPromptPart("?", timestamp=TIME)])
    after = agent().run_sync("More", message_history=[start, *given]).all_messages()
    assert [[part.content for part in each.parts] for each in after[1:4]] == [["a"], ["b", "c"], ["d"]]


def test_bytes_of_files_are_the_same_in_a_data_url() -> None:
    content = ["Look", BinaryContent(data=b"\xfb\xff\xfe", media_type="image/png")]
    payload = FORM.dump(ModelRequest(parts=[UserPromptPart(content)])).payload
    (message,) = convert([Source("m", "pydantic_ai", payload, TIME)], "openai").messages
    url = message["content"][1]["image_url"]["url"]
    assert url == f"data:image/png;base64,{b64encode(content[1].data).decode()}"  # type: ignore[union-attr]
    (back,) = convert(stored(message), "pydantic_ai").messages
    assert back.parts[0].content[1].data == b"\xfb\xff\xfe"


@pytest.mark.parametrize("url", ["https://example.com/cat.png", "data:image/png;base64,iVBORw0KGgo="])
def test_an_image_says_how_closely_to_look_at_it_only_where_somebody_chose_that(url: str) -> None:
    items = [{"type": "input_image", "image_url": url, "detail": detail} for detail in ("auto", "low")]
    payload = json.dumps({"role": "user", "content": items})
    (message,) = convert([Source("m", "openai_responses", payload, TIME)], "pydantic_ai").messages
    assert [image.vendor_metadata for image in message.parts[0].content] == [None, {"detail": "low"}]


def test_what_was_said_in_another_order_is_said_in_that_order_again() -> None:
    given = [TextPart("a"), ToolCallPart("t", "{}", "1"), ThinkingPart("hm"), TextPart("b"), TextPart("c")]
    payload = FORM.dump(ModelResponse(parts=given, timestamp=TIME)).payload
    (neutral,) = FORM.to_neutral(payload)
    assert neutral["order"] == ["content", "tool_calls", "thinking", "content", "content"]
    assert FORM.from_neutral([neutral]).messages[0].parts == given
    usual = FORM.dump(ModelResponse(parts=[given[2], given[0], given[1]], timestamp=TIME)).payload
    assert "order" not in FORM.to_neutral(usual)[0]


def test_a_plain_answer_is_a_plain_dict() -> None:
    payload = FORM.dump(ModelResponse(parts=[TextPart("Yes.")], timestamp=TIME)).payload
    assert FORM.to_neutral(payload) == [{"role": "assistant", "content": "Yes.", "created_at": "2026-01-02T03:04:05Z"}]


def test_a_call_that_was_closed_is_closed_for_the_agent_too() -> None:
    history = convert(stored(*CHAT[:3], {"role": "user", "content": "Never mind."}), "pydantic_ai").messages
    after = agent().run_sync("Go on.", message_history=history).all_messages()
    assert [part.part_kind for part in after[2].parts][:3] == ["tool-return", "tool-return", "user-prompt"]
    assert flat(after)[: len(flat(history))] == flat(history)


def test_reasoning_that_belongs_to_a_provider_stays_with_it() -> None:
    thought = ThinkingPart("Hm.", id="rs_1", signature="sealed", provider_name="openai")
    payload = FORM.dump(ModelResponse(parts=[thought, TextPart("Yes.")], timestamp=TIME)).payload
    there = convert([Source("m", "pydantic_ai", payload, TIME)], "openai")
    assert there.messages == [{"role": "assistant", "content": "Yes."}]
    assert [(loss.message, loss.part) for loss in there.losses] == [("m", "thinking")]
    back = convert([Source("m", "pydantic_ai", payload, TIME)], "pydantic_ai")
    assert back.messages[0].parts == [thought, TextPart("Yes.")]

"""Chat Completions dicts: whatever is added comes back equal, or is refused with the place named."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chat_history.errors import InvalidMessageError
from chat_history.formats import Source, get_format, recognise
from chat_history.replaying import convert

FORM = get_format("openai")
SAMPLES = Path(__file__).parent / "data" / "messages" / "openai"
TIME = datetime(2026, 1, 2, tzinfo=UTC)
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The first example imports the framework, and machines are busy."""


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout, with the keys in the same order."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=8)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@patiently
@example({}, "\x7f")
@given(st.dictionaries(TEXT, VALUE, max_size=4), TEXT)
def test_every_dict_of_json_comes_back_equal(fields: dict[str, Any], role: str) -> None:
    message = {**fields, "role": role}
    payload, stored_role, text, said = FORM.dump(message)
    assert not said or text == message["content"]
    assert same(FORM.load([payload])[0], message)
    assert payload == json.dumps(message, ensure_ascii=False)
    assert "\n" not in payload
    assert "\0" not in stored_role + text


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800", "ü\ud83d"])
def test_a_lone_surrogate_comes_back(text: str) -> None:
    message = {"role": "user", "content": text, text: 1}
    dumped = FORM.dump(message)
    dumped.payload.encode()
    dumped.text.encode()
    assert FORM.load([dumped.payload]) == [message]


def test_a_nul_comes_back_and_is_not_in_the_text() -> None:
    message = {"role": "user", "content": "a\0b"}
    dumped = FORM.dump(message)
    assert FORM.load([dumped.payload]) == [message]
    assert "\0" not in dumped.payload
    assert dumped.text == "a\ufffdb"


class Role(StrEnum):
    USER = "user"


class Number(IntEnum):
    ONE = 1


class Colour(Enum):
    RED = "red"


class Note(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "message",
    [
        {"role": Role.USER, "content": "x"},
        {"role": "user", "content": Note("x"), "n": Number.ONE},
        OrderedDict(role="user", content=OrderedDict(a=1)),
        {"role": "user", "n": 10**4299, "m": -(10**4299)},
    ],
)
def test_what_only_looks_different_is_taken_because_it_comes_back_equal(message: Any) -> None:
    assert recognise(message) is FORM
    assert FORM.load([FORM.dump(message).payload]) == [message]


def deep(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({1: "x"}, r"message\['content'\] has the key 1"),
        ({"a": {None: "x"}}, r"message\['content'\]\['a'\] has the key None"),
        ([{"x": (1, 2)}], r"message\['content'\]\[0\]\['x'\] is a tuple"),
        ({1, 2}, r"message\['content'\] is a set"),
        (b"x", r"message\['content'\] is a bytes"),
        (TIME, r"message\['content'\] is a datetime"),
        (Colour.RED, r"message\['content'\] is a Colour"),
        ([1.0, float("nan")], r"message\['content'\]\[1\] is nan"),
        (float("inf"), r"message\['content'\] is inf"),
        (10**4300, r"message\['content'\] is an integer of more than 4300 digits"),
        (-(10**5000), r"message\['content'\] is an integer of more than 4300 digits"),
        (deep(150), "levels deep"),
        (deep(100_000), "levels deep"),
        ("\ud83d\ude00", "surrogates that form a pair"),
    ],
    ids=range(14),
)
def test_what_would_come_back_as_something_else_is_refused(value: Any, place: str) -> None:
    with pytest.raises(InvalidMessageError, match=place):
        FORM.dump({"role": "user", "content": value})


def test_a_dict_that_holds_itself_is_refused() -> None:
    message: dict[str, Any] = {"role": "user"}
    message["content"] = [message]
    with pytest.raises(InvalidMessageError, match="levels deep"):
        FORM.dump(message)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": "Hello!"}, "Hello!"),
        ({"role": "user", "content": None}, ""),
        ({"role": "user"}, ""),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}]}, "a\nb"),
        ({"role": "assistant", "content": None, "refusal": "No."}, "No."),
        ({"role": "assistant", "content": "Yes.", "refusal": None, "audio": None}, "Yes."),
        ({"role": "assistant", "audio": {"id": "1", "transcript": "Spoken."}}, "Spoken."),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, ""),
        ({"role": "user", "content": {"an": "object"}}, ""),
    ],
)
def test_the_text_is_what_a_person_would_read(message: dict[str, Any], text: str) -> None:
    assert FORM.dump(message).text == text


def test_dicts_are_never_merged_and_keys_in_another_order_are_the_same_message() -> None:
    one = FORM.parts('{"role": "user", "content": "a"}')
    assert FORM.parts('{"content": "a", "role": "user"}') == one
    assert FORM.parts('{"content": "b", "role": "user"}') != one
    assert len(one.parts) == 1


def test_system_and_developer_lead() -> None:
    assert [FORM.parts(json.dumps({"role": role})).system for role in ("system", "developer", "user")] == [1, 1, 0]


def test_the_dicts_of_a_conversion_have_no_key_that_the_api_does_not_know() -> None:
    chat = pytest.importorskip("openai.types.chat")
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(chat.ChatCompletionMessageParam)
    known = {
        "system": chat.ChatCompletionSystemMessageParam,
        "developer": chat.ChatCompletionDeveloperMessageParam,
        "user": chat.ChatCompletionUserMessageParam,
        "assistant": chat.ChatCompletionAssistantMessageParam,
        "tool": chat.ChatCompletionToolMessageParam,
    }
    seen = set()
    for file in ("pydantic_ai_v1/tools_multiturn", "pydantic_ai_v2/tools_multiturn", "openai/chat_messages"):
        raw = json.loads((SAMPLES.parent / f"{file}.json").read_text())
        name = "openai" if "openai" in file else "pydantic_ai"
        sources = [Source(str(index), name, json.dumps(message), TIME) for index, message in enumerate(raw)]
        for message in convert(sources, "openai").messages:
            seen.add(message["role"])
            adapter.validate_python(message)
            assert message.keys() <= known[message["role"]].__annotations__.keys()
    assert seen == set(known)


def test_a_response_of_the_sdk_is_stored_as_what_the_api_sent() -> None:
    chat = pytest.importorskip("openai.types.chat")
    wire = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": "Köln",
                    "refusal": None,
                    "annotations": [],
                    "reasoning_content": "a vendor's own",
                },
            }
        ],
    }
    completion = chat.ChatCompletion.model_validate(wire)
    message = completion.choices[0].message
    assert recognise(message) is FORM
    assert FORM.load([FORM.dump(message).payload]) == [wire["choices"][0]["message"]]  # type: ignore[index]
    with pytest.raises(InvalidMessageError, match=r"choices\[0\]\.message"):
        FORM.dump(completion)


def test_the_sdks_own_dump_with_its_nones_is_a_dict_like_any_other() -> None:
    for message in json.loads((SAMPLES / "chat_messages_model_dump_raw.json").read_text()):
        assert FORM.load([FORM.dump(message).payload]) == [message]

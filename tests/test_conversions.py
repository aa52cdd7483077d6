"""What survives a conversion, for every pair of formats: nothing is lost without a word, and nothing said is lost."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from conversations import DATA_URL
from conversion_tables import FORMATS, PAGE, page, samples
from facts import KINDS, NEVER_LOST, Fact, facts, missing, named
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telling import in_order, stored, told

from chat_history.formats import Loss, Source, get_format
from chat_history.replaying import convert
from chat_history_adapters.formats.neutral import content_parts

PAIRS = [(source, target) for source, target in product(FORMATS, FORMATS) if source != target]
FIRST_LINE = get_format("pydantic_ai").version().startswith("1.")


def check(sources: list[Source], name: str, target: str) -> None:
    """Convert there and back, and look at what is left of each fact."""
    there = convert(sources, target)
    there_as_stored = stored(target, there.messages)
    before, after = facts(sources), facts(there_as_stored)
    for found, again in zip(told(sources), told(there_as_stored), strict=True):
        assert in_order(found, again)
    lost_is_named(before, after, there.losses)

    back = convert(there_as_stored, name)
    back_as_stored = stored(name, back.messages)
    for found, again in zip(told(there_as_stored), told(back_as_stored), strict=True):
        assert in_order(found, again)
    arrived = [fact for fact in after if fact not in missing(after, before)]
    lost_is_named(arrived, facts(back_as_stored), back.losses)


def lost_is_named(before: list[Fact], after: list[Fact], losses: list[Loss]) -> None:
    gone = missing(before, after)
    assert not [fact for fact in gone if fact.kind in NEVER_LOST]
    assert [fact for fact in gone if KINDS[fact.kind]] == named(gone, before, losses)


@pytest.mark.skipif(FIRST_LINE, reason="the page is of the installed releases, of which Pydantic AI 1 is none")
def test_the_page_says_what_survives() -> None:
    assert PAGE.read_text() == page(), "write it anew: python tests/conversion_tables.py"


@pytest.mark.parametrize(("name", "target"), PAIRS)
def test_what_a_sample_holds_survives_there_and_back_or_is_named(name: str, target: str) -> None:
    for sources in samples(name).values():
        check(sources, name, target)


TEXT = st.sampled_from(["Hello!", "", " ", "Köln ☃", '{"a": 1}', "two\nlines", "{'python': 'repr'}", "[1]", "null"])
WORDS = TEXT.filter(str.strip)
PART = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, WORDS),
    st.sampled_from(
        [
            {"type": "image", "data": DATA_URL.partition(",")[2], "media_type": "image/png"},
            {"type": "image", "url": "https://e.com/cat.png", "media_type": "image/png", "detail": "low"},
            {"type": "file", "data": "JVBERi0=", "media_type": "application/pdf", "name": "d.pdf"},
            {"type": "file", "file_id": "file-1", "provider": "openai"},
            {"type": "audio", "data": "UklG", "media_type": "audio/wav", "transcript": "Spoken."},
            {"type": "audio", "data": "UklG", "media_type": "audio/wav"},
            {"type": "video", "url": "https://e.com/v.mp4", "media_type": "video/mp4"},
        ]
    ),
)
CONTENT = WORDS | st.lists(PART, min_size=1, max_size=3)
ONLY_IN_ANSWERS = st.sampled_from(
    [
        {"type": "refusal", "refusal": "I can't."},
        {"type": "text", "text": "Warm [1].", "citations": [{"url": "https://e.com", "start": 5, "end": 8}]},
        {"type": "text", "text": "Warm.", "citations": [{"document_id": "d1", "title": "Climate"}]},
        {"type": "server_tool_call", "name": "web_search", "input": {}, "format": "elsewhere", "raw": {}},
        {"type": "unknown", "format": "elsewhere", "raw": {}},
    ]
)
SAID = CONTENT | st.lists(PART | ONLY_IN_ANSWERS, min_size=1, max_size=3) | st.none()
ARGUMENTS = st.sampled_from(['{"city": "Paris"}', '{"city":"Köln","n":[1,2]}', "{}", "", '{"a": 1', "[1]", "select 1;"])
TOOL = st.sampled_from(["weather", "now"])
THOUGHT = st.builds(
    lambda text, seals: {"text": text, "format": "elsewhere", **seals},
    WORDS,
    st.sampled_from([{}, {"signature": "EmwK", "id": "rs_1"}, {"summary": "In short."}]),
)
OUTCOME = st.sampled_from(["", "", "error", "denied", "interrupted", "retried"])


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A chat of neutral messages, in which calls are answered, in any order, or are not."""
    messages: list[dict[str, Any]] = []

    def say(role: str, **fields: Any) -> None:
        messages.append({"role": role, "message_id": f"{len(messages):08}", **fields})

    for role in draw(st.lists(st.sampled_from(["system", "developer"]), max_size=2)):
        say(role, content=draw(WORDS))
    for turn in range(draw(st.integers(0, 3))):
        question = draw(CONTENT)
        # Ids come again in later turns, but not in what is left as one turn where a format has no place for a question.
        again = [turn, 0] if isinstance(question, str) else [turn]
        say("user", content=question, **draw(st.sampled_from([{}, {"name": "ada"}])))
        for step in range(draw(st.integers(0, 2))):
            calls = [
                {"id": f"call_{draw(st.sampled_from(again))}{step}{number}", **draw(CALL)}
                for number in range(draw(st.integers(0, 3)))
            ]
            content, thoughts = draw(SAID), draw(st.lists(THOUGHT, max_size=2))
            pieces = {"thinking": thoughts, "content": content_parts(content), "tool_calls": calls}
            order = draw(st.permutations([key for key, items in pieces.items() for _ in items]))
            say("assistant", content=content, thinking=thoughts, tool_calls=calls, order=order)
            for call in draw(st.permutations(calls)):
                if draw(st.integers(0, 5)):
                    outcome = draw(OUTCOME)
                    result = {"tool_call_id": call["id"], "name": call[call["type"]]["name"], "content": draw(TEXT)}
                    say("tool", **result, **({"outcome": outcome} if outcome else {}))
    return messages


def _function(name: str, arguments: str) -> dict[str, Any]:
    call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return call
    return {**call, "parsed": parsed} if isinstance(parsed, dict) else call


CALL = st.builds(_function, TOOL, ARGUMENTS) | st.just(
    {"type": "custom", "custom": {"name": "sql", "input": "select 1;"}}
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chats(), st.sampled_from(PAIRS))
def test_what_any_chat_holds_survives_there_and_back_or_is_named(
    messages: list[dict[str, Any]], pair: tuple[str, str]
) -> None:
    name, target = pair
    check(stored(name, get_format(name).from_neutral(messages).messages), name, target)

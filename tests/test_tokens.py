"""What is taken for the tokens of a message."""

from __future__ import annotations

import base64
import sys
from types import ModuleType
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.messages import ModelResponse, NativeToolCallPart, NativeToolReturnPart
from pydantic_ai.models.test import TestModel

from chat_history import open_history, tokens
from chat_history.formats import recognise


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("\u4f60\u597d", 2), ("a\u4f60", 2)]
)
def test_the_estimate_is_a_quarter_of_ascii_and_all_of_the_rest(text: str, expected: int) -> None:
    assert tokens.estimate(text) == expected


def test_calls_results_and_media_count_and_encoded_bytes_do_not() -> None:
    agent = Agent(TestModel(custom_output_text="done"))

    @agent.tool_plain
    def look(city: str) -> str:
        return "warm" * 1000

    image = BinaryContent(b"\x89PNG" * 100_000, media_type="image/png")
    counts = []
    for message in agent.run_sync(["What is this?", image]).all_messages():
        form = recognise(message)
        counts.append(tokens.tokens_of(form.name, form.dump(message).payload, len))
    asked, called, answered, done = counts
    assert asked == tokens.PER_MESSAGE + len("What is this?") + tokens.MEDIA
    assert len("look") < called - tokens.PER_MESSAGE < 100
    assert answered == tokens.PER_MESSAGE + 4000
    assert done == tokens.PER_MESSAGE + len("done")


IMAGE = base64.b64encode(bytes(range(256)) * 400).decode()


@pytest.mark.parametrize(
    ("item", "media"),
    [
        ({"type": "image_generation_call", "id": "i", "status": "completed", "result": IMAGE}, 1),
        (
            {
                "type": "code_interpreter_call",
                "id": "c",
                "status": "completed",
                "container_id": "x",
                "code": "plot()",
                "outputs": [{"type": "image", "url": f"data:image/png;base64,{IMAGE}"}] * 2,
            },
            2,
        ),
        ({"type": "web_search_call", "id": "w", "status": "completed", "action": {"query": "/".join("ab" * 200)}}, 0),
    ],
)
def test_an_image_in_what_a_provider_did_counts_as_one(item: dict[str, Any], media: int) -> None:
    form = recognise(item)
    counted = tokens.tokens_of(form.name, form.dump(item).payload, tokens.estimate)
    assert media * tokens.MEDIA <= counted < media * tokens.MEDIA + 400


def test_what_a_provider_found_counts_once() -> None:
    found = NativeToolReturnPart("web_search", "word " * 2000, "1", provider_name="openai")
    message = ModelResponse([NativeToolCallPart("web_search", {"q": "x"}, "1", provider_name="openai"), found])
    form = recognise(message)
    assert 10_000 < tokens.tokens_of(form.name, form.dump(message).payload, len) < 10_200


def test_tiktoken_counts_where_it_is_installed_and_has_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoding:
        def encode(self, text: str, disallowed_special: tuple[str, ...]) -> list[str]:
            assert disallowed_special == ()
            return text.split()

    tiktoken = ModuleType("tiktoken")
    monkeypatch.setitem(sys.modules, "tiktoken", tiktoken)
    for get_encoding, expected in ((lambda name: Encoding(), 2), (lambda name: 1 / 0, 3)):
        tokens.usual_count.cache_clear()
        tiktoken.get_encoding = get_encoding  # type: ignore[attr-defined]
        assert tokens.usual_count()("two words") == expected
    tokens.usual_count.cache_clear()


def test_a_count_of_ones_own_decides() -> None:
    with open_history("memory:") as history:
        history.add_messages("c", [{"role": "user", "content": f"question {number}"} for number in range(10)])
        assert len(history.get_message_history("c", format="openai", max_tokens=30, count_tokens=lambda text: 6)) == 3

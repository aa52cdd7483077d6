"""Every framework takes a chat that any other began, and goes on with it: the frameworks themselves say so, offline."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from conversations import CONVERSATIONS, PNG, THOUGHT
from frameworks import FRAMEWORKS, MAPPINGS, PROMPT, RESULT, Run
from openai_api import ANSWER, CALL, check_chat, check_items, known_keys
from stores import Store, on
from telling import in_order, stored, told

from chat_history import ChatHistory, ConversionWarning
from chat_history.formats import Source, get_format
from chat_history.replaying import convert, replayable

PAIRS = list(product(CONVERSATIONS, FRAMEWORKS))
CHECKS = {"openai": check_chat, "openai_responses": check_items}
TURN = ([PROMPT, ANSWER], [(CALL[1], json.loads(CALL[2]))], [(CALL[1], RESULT)])
"""What the further turn tells."""


def handed(source: str, target: str) -> list[Any]:
    """The conversation of one format in another, or in its own as it is."""
    sources = stored(source, CONVERSATIONS[source]())
    if source == target:
        return get_format(source).load([each.payload for each in sources])
    return convert(sources, target).messages


def images(sources: list[Source]) -> list[bytes]:
    """The images that a user sent."""
    from base64 import b64decode

    found = []
    for _, message in replayable(sources, ""):
        content = message["content"] if isinstance(message["content"], list) else []
        found += [b64decode(part["data"]) for part in content if part["type"] == "image"]
    return found


def thoughts(sources: list[Source]) -> list[str]:
    """The thoughts that have words."""
    listed = [each for _, message in replayable(sources, "") for each in message.get("thinking", ())]
    return [each.get("summary") or each["text"] for each in listed]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_framework_goes_on_with_the_conversation_of_any_other(source: str, target: str) -> None:
    before = stored(source, CONVERSATIONS[source]())
    run = FRAMEWORKS[target](handed(source, target))
    after = stored(target, run.after)
    assert told(after) == tuple([*old, *new] for old, new in zip(told(before), TURN, strict=True))
    assert images(after) == [PNG]
    keeps_thoughts = target != "openai" or source == "openai"
    assert thoughts(after) == [THOUGHT] * keeps_thoughts

    # And the model was given all of it.
    seen = stored(run.seen_as, run.seen)
    words, calls, results = told(before)
    assert told(seen) == ([*words, PROMPT], calls, results)
    assert images(seen) == [PNG]
    assert thoughts(seen) == [THOUGHT] * keeps_thoughts


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_what_failed_is_a_failure_wherever_there_is_a_place_for_that(source: str, target: str) -> None:
    def outcomes(name: str, messages: list[Any]) -> list[str]:
        replay = replayable(stored(name, messages), "")
        return [message.get("outcome", "ok") for _, message in replay if message["role"] == "tool"]

    says_so = {"agent_framework", "langchain", "pydantic_ai"}
    failed = "error" if source in says_so and target in says_so else "ok"
    assert outcomes(target, handed(source, target)) == ["ok", failed]


@pytest.mark.parametrize("source", CONVERSATIONS)
@pytest.mark.parametrize(("target", "run"), MAPPINGS, ids=[run.__name__ for _, run in MAPPINGS])
def test_what_a_framework_asks_openais_api_is_taken_by_it(
    source: str, target: str, run: Callable[[list[Any]], Run]
) -> None:
    asked = run(handed(source, target))
    CHECKS[asked.seen_as](asked.seen)
    words, calls, results = told(stored(source, CONVERSATIONS[source]()))
    seen = stored(asked.seen_as, asked.seen)
    assert told(seen)[1] == calls
    # Frameworks put thoughts, or that it is an error, beside the words.
    assert contained(words, told(seen)[0])
    assert contained([text for _, text in results], [text for _, text in told(seen)[2]])
    assert images(seen) == [PNG]


def contained(wanted: list[str], found: list[str]) -> bool:
    """Whether each of the texts is a part of one that is found, in order."""
    rest = iter(found)
    return all(any(text in other for other in rest) for text in wanted)


@pytest.mark.parametrize("source", CONVERSATIONS)
@pytest.mark.parametrize("target", CHECKS)
def test_what_is_converted_for_openais_api_is_taken_by_it(source: str, target: str) -> None:
    seen = FRAMEWORKS[target](handed(source, target)).seen
    CHECKS[target](seen)
    if target == "openai" != source:
        assert known_keys(seen) == seen


@pytest.mark.parametrize("source", [name for name in CONVERSATIONS if name not in CHECKS])
def test_our_chat_completions_are_those_of_the_converter_of_the_agents_sdk(source: str) -> None:
    from agents.models.chatcmpl_converter import Converter

    theirs: Any = Converter.items_to_messages(handed(source, "openai_responses"))
    for ours, other in zip(handed(source, "openai"), theirs, strict=True):
        if isinstance(ours["content"], list):
            ours["content"][1]["image_url"]["detail"] = "auto"  # which Responses always has
        assert ours == {key: value for key, value in other.items() if key != "reasoning_content"}


@pytest.mark.parametrize("source", [name for name in CONVERSATIONS if name != "langchain"])
def test_langchain_finds_thoughts_and_calls_among_the_blocks_of_an_answer(source: str) -> None:
    blocks = [block["type"] for block in handed(source, "langchain")[2].content_blocks]
    assert blocks == ["reasoning", "text", "tool_call", "tool_call"]


# ---- through a store


def loaded(history: ChatHistory, target: str) -> list[Any]:
    """The chat for a framework. What cannot be carried is the subject of others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        return history.get_message_history("c", format=target)


@on("memory")
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_stored_chat_goes_on_in_another_framework_and_only_the_new_part_is_added(
    source: str, target: str, store: Store
) -> None:
    with store.open() as history:
        history.add_messages("c", CONVERSATIONS[source](), format=source)
        begun = history.get_messages("c", limit=100)
        for _ in (1, 2):
            known = history.get_message_count("c")
            run = FRAMEWORKS[target](loaded(history, target))
            new = history.save_messages("c", run.after)
            assert [each.role for each in new][:4] == ["user", "assistant", "tool", "assistant"]
            assert told([Source(each.message_id, each.format, each.payload, each.created_at) for each in new]) == TURN
            assert history.get_message_count("c") == known + len(new)
            assert history.save_messages("c", run.after) == []
        assert list(history.get_messages("c", limit=100))[: len(begun)] == list(begun)


@on("json", "sqlite", "postgres")
def test_a_chat_goes_through_all_frameworks_and_back_to_the_first(store: Store) -> None:
    names = [*CONVERSATIONS, "agent_framework"]
    words, calls, results = told(stored(names[0], CONVERSATIONS[names[0]]()))
    with store.open() as history:
        history.add_messages("c", CONVERSATIONS[names[0]]())
    for turn, name in enumerate(names, start=1):
        with store.open() as history:  # as another process would
            after = FRAMEWORKS[name](loaded(history, name)).after
            assert len(history.save_messages("c", after)) == 4
            assert in_order([*words, *TURN[0] * turn], told(stored(name, after))[0])
            assert told(stored(name, after))[1:] == (calls + TURN[1] * turn, results + TURN[2] * turn)

"""LlamaIndex's messages: every kind of block comes back equal, and its agents take what is converted."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conversion_tables import FORMATS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chat_history import open_history
from chat_history.errors import ConversionWarning, InvalidMessageError, MissingDependencyError
from chat_history.formats import Source, get_format, recognise
from chat_history.replaying import convert
from chat_history_adapters.formats import extras

types = pytest.importorskip("llama_index.core.base.llms.types")

FORM = get_format("llama_index")
SAMPLES = Path(__file__).parent / "data" / "messages"
TIME = datetime(2026, 1, 2, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n"
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The first example imports the framework, and machines are busy."""


def stored(*messages: Any, name: str = "llama_index") -> list[Source]:
    """Messages as they would be stored."""
    form = get_format(name)
    return [
        Source(f"{index:08}", name, form.dump(message).payload, TIME + timedelta(seconds=index))
        for index, message in enumerate(messages)
    ]


def message(role: str, *blocks: Any, **own: Any) -> Any:
    """A message of these blocks."""
    return types.ChatMessage(role=types.MessageRole(role), blocks=list(blocks), additional_kwargs=own)


# ---- in and out again

CITING_NOTHING = {
    "cited_content": {"block_type": "text", "text": ""},
    "source": "",
    "title": "",
    "additional_location_info": {},
}

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
DETAILS = st.dictionaries(TEXT.filter(lambda key: key != "images"), JSON, max_size=2)
DATA = st.binary(min_size=1, max_size=8) | st.sampled_from([PNG, b"RIFF", b"abcd", b64encode(PNG)])
PLACE = st.sampled_from([{"url": "https://e.com/a"}, {"url": "https://e.com/Köln.png"}])
OPTIONAL = st.none() | st.sampled_from(["image/png", "high", "mp3"])


def media(kind: str, data: str, **fields: Any) -> st.SearchStrategy[Any]:
    """Blocks of that kind, at a URL or with their bytes."""
    made = getattr(types, kind)
    place = PLACE | DATA.map(lambda found: {data: found})
    return st.builds(lambda place, fields: made(**place, **fields), place, st.fixed_dictionaries(fields))


IMAGE = media("ImageBlock", "image", image_mimetype=OPTIONAL, detail=OPTIONAL)
DOCUMENT = media("DocumentBlock", "data", title=OPTIONAL, document_mimetype=OPTIONAL)
WORDS = st.builds(types.TextBlock, text=TEXT)
BLOCKS = {
    "text": WORDS,
    "image": IMAGE,
    "audio": media("AudioBlock", "audio", format=OPTIONAL),
    "video": media("VideoBlock", "video", video_mimetype=OPTIONAL, detail=OPTIONAL, fps=st.none() | st.integers(1, 60)),
    "document": DOCUMENT,
    "cache": st.builds(
        types.CachePoint, cache_control=st.builds(types.CacheControl, type=st.just("ephemeral"), ttl=st.just("1h"))
    ),
    "citable": st.builds(
        types.CitableBlock, title=TEXT, source=TEXT, content=st.lists(WORDS | IMAGE | DOCUMENT, max_size=2)
    ),
    "citation": st.builds(
        types.CitationBlock,
        cited_content=WORDS | IMAGE,
        source=TEXT | st.just("https://e.com"),
        title=TEXT,
        additional_location_info=st.dictionaries(TEXT, st.integers(0, 9), max_size=2),
    ),
    "thinking": st.builds(
        types.ThinkingBlock, content=st.none() | TEXT, num_tokens=st.none() | st.just(3), additional_information=DETAILS
    ),
    "tool_call": st.builds(
        types.ToolCallBlock,
        tool_call_id=st.none() | st.sampled_from(["1", "2"]),
        tool_name=TEXT,
        tool_kwargs=st.sampled_from(["", "{", '{"a":  1}']) | st.dictionaries(TEXT, JSON, max_size=2),
    ),
}
MESSAGE = st.builds(
    types.ChatMessage,
    role=st.sampled_from(list(types.MessageRole)),
    blocks=st.lists(st.one_of(*BLOCKS.values()), max_size=4),
    additional_kwargs=DETAILS | st.just({"tool_call_id": "1"}),
)


def test_the_strategies_know_every_kind_of_block() -> None:
    from typing import get_args

    union = get_args(types.ContentBlock)[0]
    assert {each.model_fields["block_type"].default for each in get_args(union)} == set(BLOCKS)


@patiently
@given(MESSAGE)
def test_every_message_comes_back_equal_and_is_stored_as_the_same_bytes(message: Any) -> None:
    assert recognise(message) is FORM
    dumped = FORM.dump(message)
    assert "\n" not in dumped.payload
    (again,) = FORM.load([dumped.payload])
    assert FORM.dump(again) == dumped
    assert FORM.load([FORM.dump(again).payload]) == [again]
    assert FORM.parts(FORM.dump(again).payload) == FORM.parts(dumped.payload)


@patiently
@given(st.lists(MESSAGE, max_size=5))
@example([message("assistant", types.TextBlock(text="Warm."), types.CitationBlock.model_validate(CITING_NOTHING))])
def test_every_message_is_converted_to_each_format(messages: list[Any]) -> None:
    for target in FORMATS:
        form = get_format(target)
        # From itself: what this release would make of what a later one wrote.
        form.load([form.dump(each).payload for each in convert(stored(*messages), target).messages])


def test_the_payload_is_what_llama_index_itself_writes() -> None:
    for each in json.loads((SAMPLES / "llama_index/function_agent_memory.json").read_text()):
        made = types.ChatMessage.model_validate(each)
        payload = FORM.dump(made).payload
        assert payload == made.model_dump_json()
        assert json.loads(payload) == each
        assert FORM.load([payload]) == [made]


@pytest.mark.parametrize("own", [{"images": ["x"]}, {"x": object()}, {"x": "\ud800"}], ids=range(3))
def test_what_llama_index_cannot_write_and_read_back_is_refused(own: dict[str, Any]) -> None:
    made = types.ChatMessage(role="user", blocks=[types.TextBlock(text="x")])
    made.additional_kwargs = own
    with pytest.raises(InvalidMessageError, match="LlamaIndex cannot write this ChatMessage"):
        FORM.dump(made)


def test_a_derived_class_is_a_message_too() -> None:
    class Own(types.ChatMessage):  # type: ignore[misc, name-defined]
        pass

    assert recognise(Own("Hello!")) is FORM
    assert FORM.dump(Own("Hello!")).text == "Hello!"


@pytest.mark.parametrize(
    ("role", "stored_role"),
    [
        ("user", "user"),
        ("model", "assistant"),
        ("chatbot", "assistant"),
        ("function", "tool"),
        ("developer", "developer"),
    ],
)
def test_other_names_of_roles_are_stored_as_the_usual_ones(role: str, stored_role: str) -> None:
    dumped = FORM.dump(message(role, types.TextBlock(text="a"), types.TextBlock(text="b")))
    assert (dumped.role, dumped.text) == (stored_role, "a\nb")
    assert FORM.to_neutral(dumped.payload)[0]["role"] == stored_role


# ---- what others make of it


def test_results_of_tools_stay_text_also_where_they_look_like_python() -> None:
    text = "{'city': 'Paris', 'temp': 20.5}"
    called = types.ToolCallBlock(tool_call_id="1", tool_name="weather", tool_kwargs='{"city":  "Paris"}')
    chat = stored(
        message("assistant", called), message("tool", types.TextBlock(text=text), tool_call_id="1"), message("user")
    )
    openai = convert(chat, "openai").messages
    assert openai[0]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":  "Paris"}'}
    assert openai[1] == {"role": "tool", "tool_call_id": "1", "content": text}
    assert convert(chat, "pydantic_ai").messages[1].parts[0].content == text


def test_calls_of_releases_without_blocks_for_them_are_calls() -> None:
    old = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":  1}'}}]
    chat = stored(message("assistant", types.TextBlock(text=""), tool_calls=old))
    (made,) = convert(chat, "openai").messages
    assert made["tool_calls"] == old
    assert made["content"] is None


def test_thoughts_keep_their_text_and_lose_their_seals() -> None:
    thought = types.ThinkingBlock(content="Hm.", additional_information={"signature": "s", "provider": "anthropic"})
    chat = stored(message("assistant", thought, types.TextBlock(text="Yes.")))
    converted = convert(chat, "pydantic_ai")
    assert [part.content for part in converted.messages[0].parts] == ["Hm.", "Yes."]
    assert converted.messages[0].parts[0].signature is None
    assert [loss.part for loss in converted.losses] == ["thinking.signature"]


def test_citations_stand_with_the_text_before_them() -> None:
    cited = types.CitationBlock(
        cited_content="20 degrees", source="https://e.com", title="E", additional_location_info={}
    )
    (made,) = FORM.to_neutral(FORM.dump(message("assistant", types.TextBlock(text="Warm."), cited)).payload)
    citation = {"url": "https://e.com", "title": "E", "excerpts": ["20 degrees"]}
    assert made["content"] == [{"type": "text", "text": "Warm.", "citations": [citation]}]


def test_what_may_be_cited_keeps_its_words_and_its_title_is_named() -> None:
    block = types.CitableBlock(title="E", source="e", content=[types.TextBlock(text="20 degrees")])
    converted = convert(stored(message("user", block)), "openai")
    assert converted.messages[0]["content"] == [{"type": "text", "text": "20 degrees"}]
    assert [loss.part for loss in converted.losses] == ["content[0]"]


def test_a_file_of_this_machine_is_not_carried_and_named() -> None:
    block = types.ImageBlock(path=SAMPLES / "llama_index/function_agent_memory.json")
    converted = convert(stored(message("user", types.TextBlock(text="See."), block)), "openai")
    assert converted.messages[0]["content"] == [{"type": "text", "text": "See."}]
    assert [loss.part for loss in converted.losses] == ["content[1]"]


def test_media_of_others_arrive_as_bytes_or_urls() -> None:
    from pydantic_ai import messages as m

    parts = [
        m.BinaryContent(PNG, media_type="image/png"),
        m.ImageUrl("https://e.com/a.png"),
        m.BinaryContent(b"ID3", media_type="audio/mpeg"),
        m.BinaryContent(b"%PDF-", media_type="application/pdf", identifier="d.pdf"),
        m.BinaryContent(b"abcd", media_type="image/png"),  # looks like base64
    ]
    chat = stored(m.ModelRequest(parts=[m.UserPromptPart(parts)]), name="pydantic_ai")
    converted = convert(chat, "llama_index")
    image, url, audio, document, other = converted.messages[0].blocks
    assert not converted.losses
    assert image.resolve_image().read() == PNG
    assert str(url.url) == "https://e.com/a.png"
    assert (audio.resolve_audio().read(), audio.format) == (b"ID3", "mp3")
    assert (document.resolve_document().read(), document.title) == (b"%PDF-", "d.pdf")
    assert other.resolve_image().read() == b"abcd"
    back = convert(stored(*converted.messages), "pydantic_ai").messages[0].parts[0].content
    assert [getattr(each, "data", None) for each in back] == [PNG, None, b"ID3", b"%PDF-", b"abcd"]


def test_a_missing_framework_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.framework.cache_clear()
    monkeypatch.setitem(sys.modules, "llama_index.core.base.llms.types", None)
    try:
        for ask in (lambda: FORM.load([]), lambda: FORM.from_neutral([{"role": "user", "content": "x"}])):
            with pytest.raises(MissingDependencyError, match=r"pip install 'agent-chat-history\[llama-index\]'"):
                ask()
    finally:
        extras.framework.cache_clear()


def test_reading_it_in_another_format_imports_no_llama_index() -> None:
    payload = FORM.dump(types.ChatMessage("Hello!")).payload
    code = (
        "import datetime, sys; from chat_history.formats import *; from chat_history.replaying import *\n"
        f"source = Source('m', 'llama_index', {payload!r}, datetime.datetime.now(datetime.UTC))\n"
        "assert convert([source], 'openai').messages == [{'role': 'user', 'content': 'Hello!'}]\n"
        "assert not any(name.startswith('llama_index') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- LlamaIndex itself


def conversation() -> list[Source]:
    """Parallel calls, an error, an image and a thought, as items of Responses."""
    items: list[dict[str, Any]] = [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Paris and Köln?"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Two cities."}]},
        {"type": "function_call", "call_id": "p", "name": "weather", "arguments": '{"city": "Paris"}'},
        {"type": "function_call", "call_id": "k", "name": "weather", "arguments": '{"city": "Köln"}'},
        {"type": "function_call_output", "call_id": "p", "output": "20"},
        {"type": "function_call_output", "call_id": "k", "output": "An error occurred."},
        {"role": "assistant", "content": "Paris 20."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And this?"},
                {"type": "input_image", "image_url": "data:image/png;base64," + b64encode(PNG).decode()},
            ],
        },
    ]
    return stored(*items, name="openai_responses")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of LlamaIndex's own
def test_an_agent_and_a_memory_of_llama_index_go_on_from_what_is_converted() -> None:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.llms import MockLLM
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.memory import ChatMemoryBuffer

    given: list[Any] = []

    class Scripted(MockLLM, FunctionCallingLLM):  # type: ignore[misc]
        """Calls a tool once, then answers."""

        @property
        def metadata(self) -> Any:
            return types.LLMMetadata(is_function_calling_model=True)

        def _prepare_chat_with_tools(self, tools: Any, *args: Any, chat_history: Any = None, **kwargs: Any) -> Any:
            return {"messages": [*(chat_history or [])]}

        async def astream_chat_with_tools(self, tools: Any, chat_history: Any = None, **kwargs: Any) -> Any:
            given.append(list(chat_history))
            if len(given) == 1:
                call = types.ToolCallBlock(tool_call_id="z", tool_name="weather", tool_kwargs={"city": "Rome"})
                answer = message("assistant", call)
            else:
                answer = message("assistant", types.TextBlock(text="Done."))

            async def stream() -> Any:
                yield types.ChatResponse(message=answer, delta=answer.content or "")

            return stream()

        def get_tool_calls_from_response(self, response: Any, **kwargs: Any) -> Any:
            from llama_index.core.llms.llm import ToolSelection

            return [
                ToolSelection(tool_id=each.tool_call_id, tool_name=each.tool_name, tool_kwargs=each.tool_kwargs)
                for each in response.message.blocks
                if isinstance(each, types.ToolCallBlock)
            ]

    def weather(city: str) -> dict[str, Any]:
        """The weather in a city."""
        return {"city": city, "temp": 20.5}

    chat = convert(conversation(), "llama_index")
    assert [each.role.value for each in chat.messages] == [
        *("system", "user", "assistant", "tool", "tool", "assistant", "user"),
    ]
    assert [block.block_type for block in chat.messages[2].blocks] == ["thinking", "tool_call", "tool_call"]
    memory = ChatMemoryBuffer.from_defaults(token_limit=100_000, tokenizer_fn=str.split)
    memory.set([*chat.messages])
    assert memory.get() == chat.messages

    async def run() -> Any:
        agent = FunctionAgent(tools=[weather], llm=Scripted(), streaming=True)
        return await agent.run("And Rome?", memory=memory)

    result = asyncio.run(run())
    assert str(result.response.content) == "Done."
    assert given[0][: len(chat.messages)] == chat.messages

    after = memory.get_all()
    assert after[: len(chat.messages)] == chat.messages
    with open_history("memory:") as history:
        for source in conversation():
            history.add_message("c", json.loads(source.payload))
        with pytest.warns(ConversionWarning, match=r"thinking\.id"):
            there = history.get_message_history("c", format="llama_index")
        assert there == chat.messages
        new = history.save_messages("c", after)
        assert [(each.role, each.text) for each in new] == [
            ("user", "And Rome?"),
            ("assistant", ""),
            ("tool", "{'city': 'Rome', 'temp': 20.5}"),
            ("assistant", "Done."),
        ]

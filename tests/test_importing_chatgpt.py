"""ChatGPT's export arrives with its branches, titles and times."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from stores import DURABLE, Store, on

from chat_history import (
    ChatHistory,
    ChatHistoryWarning,
    ConversionWarning,
    InvalidArgumentError,
    InvalidMessageError,
    open_history,
)
from chat_history.testing import check_chat
from chat_history_adapters.importers import import_from

BEGUN = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)


@pytest.fixture
def history() -> Iterator[ChatHistory]:
    with open_history("memory:") as history:
        yield history


def node(node_id: str, parent: str | None, role: str = "", content: Any = None, **fields: Any) -> dict[str, Any]:
    """A node as the export has it: the message with its author, content, time, status and metadata."""
    message = None
    if role:
        if isinstance(content, str):
            content = {"content_type": "text", "parts": [content]}
        message = {
            "id": node_id,
            "author": {"role": role, "name": fields.pop("name", None), "metadata": {}},
            "create_time": BEGUN.timestamp() + int(fields.pop("at", 0)),
            "update_time": None,
            "content": content,
            "status": "finished_successfully",
            "end_turn": None,
            "weight": 1.0,
            "metadata": {},
            "recipient": "all",
            "channel": None,
        } | fields
    return {"id": node_id, "message": message, "parent": parent, "children": []}


def conversation(*nodes: dict[str, Any], current: str, **fields: Any) -> dict[str, Any]:
    mapping = {each["id"]: each for each in nodes}
    for each in nodes:
        if each["parent"] in mapping:
            mapping[each["parent"]]["children"].append(each["id"])
    return {
        "title": "Weather",
        "create_time": BEGUN.timestamp(),
        "update_time": BEGUN.timestamp() + 60,
        "mapping": mapping,
        "current_node": current,
        "conversation_id": "c1",
        "is_archived": False,
        "default_model_slug": "gpt-5",
    } | fields


ROOT = [node("root", None), node("hidden", "root", "system", "")]
BRANCHED = conversation(
    *ROOT,
    node("q", "hidden", "user", "Paris?", at=1),
    node("a1", "q", "assistant", "Rain.", at=2, metadata={"model_slug": "gpt-5"}),
    node("q2", "a1", "user", "Sure?", at=3),
    node("a2", "q", "assistant", "Sun.", at=4),
    node("q3", "a2", "user", "Thanks.", at=5),
    node("q0", "hidden", "user", "Rome?", at=6),
    current="q3",
)


def write(path: Path, *conversations: Any) -> Path:
    path.write_text(json.dumps(conversations, ensure_ascii=False), encoding="utf-8")
    return path


def ways(history: ChatHistory, chat_id: str) -> set[tuple[str, ...]]:
    """The texts along each branch."""
    stored = {message.message_id: message for message in check_chat(history, chat_id)}
    found = set()
    for branch in history.list_branches(chat_id):
        way, message_id = [], branch.head
        while message_id is not None:
            way.append(stored[message_id].text)
            message_id = stored[message_id].parent or None  # type: ignore[assignment]
        found.add(tuple(reversed(way)))
    return found


@on(*DURABLE)
def test_every_branch_arrives_and_the_current_one_is_active(store: Store, tmp_path: Path) -> None:
    with store.open() as history:
        for _ in range(2):
            assert import_from(write(tmp_path / "conversations.json", BRANCHED), history) == (1, 6)
            assert history.get_chat_history("c1") == [
                {"role": "user", "content": "Paris?"},
                {"role": "assistant", "content": "Sun."},
                {"role": "user", "content": "Thanks."},
            ]
            assert ways(history, "c1") == {
                ("Paris?", "Rain.", "Sure?"),
                ("Paris?", "Sun.", "Thanks."),
                ("Rome?",),
            }
        chat = history.get_chat("c1")
        assert (chat.title, chat.created_at, chat.head) == ("Weather", BEGUN, "q3")
        assert chat.metadata == {"chatgpt": {"is_archived": False, "default_model_slug": "gpt-5"}}
        times = {message.text: message.created_at for message in check_chat(history, "c1")}
        assert times["Sun."] == datetime.fromtimestamp(BEGUN.timestamp() + 4, UTC)
        assert chat.updated_at == datetime.fromtimestamp(BEGUN.timestamp() + 6, UTC)


def test_a_current_node_that_others_follow_ends_the_active_branch(history: ChatHistory, tmp_path: Path) -> None:
    source = write(tmp_path / "conversations.json", BRANCHED | {"current_node": "a1"})
    for _ in range(2):
        import_from(source, history)
        assert [message.text for message in history.get_messages("c1")] == ["Paris?", "Rain."]


def test_a_later_export_adds_what_is_new(history: ChatHistory, tmp_path: Path) -> None:
    import_from(write(tmp_path / "conversations.json", BRANCHED), history)
    grown = json.loads(json.dumps(BRANCHED))
    for each in (node("a4", "q2", "assistant", "Sure.", at=9), node("a5", "q0", "assistant", "Warm.", at=10)):
        grown["mapping"][each["id"]] = each
    grown["current_node"] = "a4"
    import_from(write(tmp_path / "conversations.json", grown), history)
    assert [message.text for message in history.get_messages("c1")] == ["Paris?", "Rain.", "Sure?", "Sure."]
    assert ("Rome?", "Warm.") in ways(history, "c1")
    history.add_message("c1", {"role": "user", "content": "here"})
    grown["mapping"]["a6"] = node("a6", "a5", "user", "And?", at=11)
    import_from(write(tmp_path / "conversations.json", grown), history)
    assert history.get_chat_history("c1")[-1]["content"] == "here"
    assert ("Rome?", "Warm.", "And?") in ways(history, "c1")


def test_an_import_that_stopped_anywhere_ends_the_same(tmp_path: Path) -> None:
    """After each write in turn, as a kill would."""
    source = write(
        tmp_path / "conversations.json", BRANCHED, BRANCHED | {"conversation_id": "c2", "current_node": "a1"}
    )
    stop = 0
    while True:
        with open_history("memory:") as history:
            backend = history._backend()
            write_on, left = backend.write, [None] * stop

            def stopping(*args: Any, left: list[None] = left, write_on: Any = write_on) -> Any:
                left.pop()
                return write_on(*args)

            backend.write = stopping  # type: ignore[method-assign]
            try:
                import_from(source, history)
                break
            except IndexError:
                pass
            backend.write = write_on  # type: ignore[method-assign]
            import_from(source, history)
            assert history.get_chat("c1").head == "q3"
            assert history.get_chat("c2").head == "a1"
            assert len(check_chat(history, "c1")) == len(check_chat(history, "c2")) == 6
        stop += 1
    assert stop > 8


def test_what_is_more_than_text_is_said_and_kept(history: ChatHistory, tmp_path: Path) -> None:
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-abc", "width": 2}
    contents = {
        "context": {"content_type": "user_editable_context", "user_profile": "Ann", "user_instructions": "Be terse."},
        "picture": {"content_type": "multimodal_text", "parts": ["Look:", picture]},
        "thoughts": {"content_type": "thoughts", "thoughts": [{"summary": "Sum", "content": "Two and two."}]},
        "code": {"content_type": "code", "language": "python", "text": "2 + 2"},
        "output": {"content_type": "execution_output", "text": "4"},
    }
    nodes = [
        node("context", "hidden", "user", contents["context"], at=1),
        node("picture", "context", "user", contents["picture"], at=2),
        node("thoughts", "picture", "assistant", contents["thoughts"], at=3),
        node("code", "thoughts", "assistant", contents["code"], at=4, recipient="python"),
        node("output", "code", "tool", contents["output"], at=5, name="python"),
        node("answer", "output", "assistant", "Four.", at=6, metadata={"model_slug": "gpt-5", "citations": [1]}),
    ]
    import_from(write(tmp_path / "conversations.json", conversation(*ROOT, *nodes, current="answer")), history)
    call = {"id": "code", "type": "custom", "custom": {"name": "python", "input": "2 + 2"}}
    assert history.get_chat_history("c1") == [
        {"role": "system", "content": "Ann\nBe terse."},
        {"role": "user", "content": "Look:\n[image file-abc]"},
        {"role": "assistant", "content": None, "reasoning_content": "Two and two."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "code", "name": "python", "content": "4"},
        {"role": "assistant", "content": "Four."},
    ]
    kept = {message.message_id: message.metadata["chatgpt"] for message in history.get_messages("c1")}
    assert {key: kept[key]["content"] for key in contents} == contents
    assert kept["answer"] == {"metadata": {"model_slug": "gpt-5", "citations": [1]}}
    assert [each["from"] for each in history.get_readable_chat_history("c1")] == ["user", "assistant"]
    with pytest.warns(ConversionWarning):
        assert len(history.get_message_history("c1", format="pydantic_ai")) == 4


@pytest.mark.parametrize("names", [["conversations.json"], ["x/conversations-000.json", "x/conversations-001.json"]])
def test_it_is_found_in_the_zip_and_in_a_folder(history: ChatHistory, tmp_path: Path, names: list[str]) -> None:
    folder = tmp_path / "export"
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for number, name in enumerate(names):
            text = json.dumps([BRANCHED | {"conversation_id": f"c{number}"}])
            archive.writestr(name, text)
            (folder / "sub").mkdir(parents=True, exist_ok=True)
            (folder / Path(name).name).write_text(text)
    assert import_from(tmp_path / "export.zip", history) == (len(names), 6 * len(names))
    assert import_from(folder, history) == (len(names), 6 * len(names))
    assert len(history.get_all_chat_ids()) == len(names)


@pytest.mark.parametrize(
    ("place", "odd"),
    [
        (["parent"], ["hidden"]),
        (["message", "content", "parts"], 5),
        (["message", "content", "thoughts"], 5),
        (["message"], {"author": "?", "tool_calls": 5}),
    ],
)
def test_a_node_that_is_made_up_is_named_or_left_out(
    history: ChatHistory, tmp_path: Path, place: list[str], odd: Any
) -> None:
    nodes = [node("q", "hidden", "user", "Paris?"), node("odd", "q", "user", "-"), node("a", "q", "assistant", "Sun.")]
    chat = conversation(*ROOT, *nodes, current="a")
    part = chat["mapping"]["odd"]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = odd
    source = write(tmp_path / "conversations.json", chat)
    if place != ["parent"]:
        with pytest.raises(InvalidMessageError, match=r"message \d of chat 'c1' cannot be read"):
            import_from(source, history)
        with pytest.warns(ChatHistoryWarning, match="1 messages could not be read"):
            import_from(source, history, skip=True)
    else:
        import_from(source, history)
    assert [message.text for message in history.get_messages("c1")] == ["Paris?", "Sun."]


def test_a_long_conversation_arrives(history: ChatHistory, tmp_path: Path) -> None:
    nodes = [node(str(number), str(number - 1) if number else None, "user", f"m{number}") for number in range(3000)]
    import_from(write(tmp_path / "conversations.json", conversation(*nodes, current="2999")), history)
    assert history.get_message_count("c1") == 3000


@pytest.mark.parametrize("time", [float("inf"), float("nan"), -5.0, 10**400, True, "today"])
def test_a_beginning_that_is_no_time_is_that_of_the_first_message(
    history: ChatHistory, tmp_path: Path, time: Any
) -> None:
    odd = conversation(*ROOT, node("q", "hidden", "user", "Paris?"), current="q") | {"create_time": time}
    import_from(write(tmp_path / "conversations.json", odd), history)
    assert history.get_chat("c1").created_at == BEGUN


def test_what_is_damaged_is_named(history: ChatHistory, tmp_path: Path) -> None:
    odd = conversation(*ROOT, node("q", "hidden", "user", "Paris?"), current="a")
    odd["mapping"]["odd"] = node("odd", "q", "assistant", "-") | {"message": {"author": "?"}}
    odd["mapping"]["a"] = node("a", "odd", "assistant", "Sun.")
    source = write(tmp_path / "conversations.json", BRANCHED | {"conversation_id": "c0"}, odd)
    with pytest.raises(InvalidMessageError, match=r"message 2 of chat 'c1' cannot be read.*what came before it has"):
        import_from(source, history)
    assert history.get_all_chat_ids() == ["c0"]
    with pytest.warns(ChatHistoryWarning, match=r"1 messages could not be read.*message 2 of chat 'c1'"):
        import_from(source, history, skip=True)
    assert [message.text for message in history.get_messages("c1")] == ["Paris?", "Sun."]
    circle = conversation(node("x", "y", "user", "-"), node("y", "x", "user", "-"), current="x")
    with pytest.raises(InvalidArgumentError, match=r"conversation 1 of .* in a circle"):
        import_from(write(tmp_path / "conversations.json", circle), history)
    with pytest.raises(InvalidArgumentError, match=r"conversation 2 of .* no tree"):
        import_from(write(tmp_path / "conversations.json", BRANCHED, {"title": "T"}), history)

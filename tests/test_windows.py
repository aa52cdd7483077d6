"""Windows: whole turns, the newest always, the system prompt that leads, and no orphan. The frameworks judge."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from conversations import CONVERSATIONS
from frameworks import FRAMEWORKS, PROMPT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai_api import check_chat, check_items
from pydantic_ai import Agent
from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart
from pydantic_ai.models.test import TestModel
from stores import ALL, Store, on
from telling import stored, told
from test_forking import Meddled

from chat_history import ChatHistory, ChatHistoryWarning, open_history
from chat_history.backends.base import Outline
from chat_history.backends.contents import bare
from chat_history.formats import get_format
from chat_history.testing import check_chat as check_tree
from chat_history.testing import say

CHECKS = {"openai": check_chat, "openai_responses": check_items}
LEAD = say("system", "Be terse.")
ANSWER = "success (no tool calls)"


@st.composite
def turns(draw: st.DrawFn, *, cut: bool) -> list[list[dict[str, Any]]]:
    """Chats as they come: turns of calls in parallel and one after the other. cut: some calls were never answered."""
    found = []
    number = draw(st.integers(1, 5))
    for turn in range(number):
        messages = [say("user", f"question {turn}")]
        for step in range(draw(st.integers(0, 2))):
            ids = [f"call_{turn}_{step}_{each}" for each in range(draw(st.integers(1, 3)))]
            calls = [
                {
                    "id": each,
                    "type": "function",
                    "function": {"name": "weather", "arguments": json.dumps({"city": each})},
                }
                for each in ids
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            answered = draw(st.permutations(ids))
            missing = draw(st.sampled_from([0, 0, 0, cut]))
            messages += [
                {"role": "tool", "tool_call_id": each, "content": f"result of {each}"}
                for each in answered[: len(ids) - missing]
            ]
        # A call at the very end is left as it is: the run may be resumed.
        if (cut and turn == number - 1) or draw(st.sampled_from([True, True, True, False])):
            messages.append(say("assistant", f"answer {turn}"))
        found.append(messages)
    return found


WINDOWS = st.one_of(
    st.fixed_dictionaries({"last": st.integers(1, 20)}),
    st.fixed_dictionaries({"max_tokens": st.integers(1, 200)}),
    st.fixed_dictionaries({"last": st.integers(1, 20), "max_tokens": st.integers(1, 200)}),
)


@pytest.mark.parametrize("target", FRAMEWORKS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), leads=st.booleans(), window=WINDOWS, native=st.booleans())
@pytest.mark.filterwarnings("ignore::chat_history.ConversionWarning")
def test_a_framework_goes_on_from_every_window(
    target: str, data: st.DataObject, leads: bool, window: dict[str, int], native: bool
) -> None:
    # What is of the format itself comes back as it is, also a call that was never answered.
    chat = data.draw(turns(cut=target != "openai"))
    with open_history("memory:") as history:
        history.add_messages("c", [LEAD] * leads + [message for turn in chat for message in turn])
        if native:
            whole = history.get_message_history("c", format=target)
            history.delete_chat_history("c")
            history.add_messages("c", whole, format=target)
        messages = history.get_message_history("c", format=target, **window)
    run = FRAMEWORKS[target](messages)
    if run.seen_as in CHECKS:
        CHECKS[run.seen_as](run.seen)
    words, calls, results = told(stored(target, messages))
    asked = [text for text in words if text.startswith("question")]
    every = [turn[0]["content"] for turn in chat]
    assert asked == every[len(every) - len(asked) :], "whole turns, and the newest ones"
    assert asked, "the newest always"
    assert (LEAD["content"] in words) == leads
    kept = chat[len(chat) - len(asked) :]
    assert [text for text in words if text.startswith("answer")] == [
        message["content"] for turn in kept for message in turn if str(message["content"]).startswith("answer")
    ]
    answered = {message["tool_call_id"] for turn in kept for message in turn if message["role"] == "tool"}
    assert {text for _, text in results} >= {f"result of {each}" for each in answered}
    assert {arguments["city"] for _, arguments in calls} >= answered
    assert told(stored(run.seen_as, run.seen))[0][-1] == PROMPT


# ---- a chat that may not grow for ever


def active(history: ChatHistory, chat_id: str = "c") -> list[str]:
    return [message.text for message in history.iter_messages(chat_id)]


def fill(history: ChatHistory, count: int, chat_id: str = "c") -> None:
    for number in range(count):
        history.add_messages(chat_id, [say("user", f"q{number}"), say("assistant", f"a{number}")])


@pytest.mark.parametrize("overflow", ["archive", "delete"])
@pytest.mark.parametrize("backend", ["memory:", "json"])
def test_a_chat_grows_no_longer_than_the_configuration_says(tmp_path: Any, overflow: Any, backend: str) -> None:
    place = tmp_path / "chats.json" if backend == "json" else backend
    with open_history(place, max_messages=5, overflow=overflow) as history:
        history.add_message("c", LEAD)
        fill(history, 10)
        lead = [LEAD["content"]] if overflow == "delete" else []
        assert active(history) == [*lead, "q8", "a8", "q9", "a9"]
        assert history.get_message_count("c", status=None) == (21 if overflow == "archive" else 5)
        window = history.get_message_history("c", format="openai")
        assert window[0] == LEAD, "the system prompt leads in either case"
        window += [say("user", "q10"), say("assistant", "a10")]
        assert [each.text for each in history.save_messages("c", window)] == ["q10", "a10"]
        assert active(history) == [*lead, "q9", "a9", "q10", "a10"]
        history.add_message("c", say("user", "q11"))
        assert active(history)[-1] == "q11"
        answers = [say("assistant", "a11"), say("user", "q12"), say("assistant", "a12")]
        history.switch_branch("c", history.get_chat("c").head, messages=answers)
        assert active(history) == [*lead, "q11", "a11", "q12", "a12"]
        view = history.for_user("ann")
        fill(view, 5)
        assert len(active(view)) == 4
        history.add_messages("long", [say("user", "q"), *(say("assistant", str(each)) for each in range(20))])
        assert len(active(history, "long")) == 21, "the newest turn stays, however long"


@on(*ALL)
def test_a_turn_looks_at_nothing_that_was_archived_before(store: Store) -> None:
    looked = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **wanted: Any) -> Any:
            nonlocal looked
            found = call(*args, **wanted)
            looked += len(found.rows if isinstance(found, Outline) else found)
            return found

        return count

    with ChatHistory(store.backend(), max_messages=6) as history:
        fill(history, 200)
        held = [*history.get_message_history("c", "openai"), say("user", "Hello!")]
        history.save_messages("c", held)
        backend = history._backend()
        for name in ("read", "read_payloads", "find"):
            setattr(bare(backend), name, counted(getattr(bare(backend), name)))
        backend.outline = counted(backend.outline)  # type: ignore[method-assign]
        history.add_messages("c", [say("assistant", "Hello!"), say("user", "Bye!")])
        assert looked < 20
        held = history.get_message_history("c", "openai")
        history.save_messages("c", held)
        for number in range(3):
            held += [say("assistant", f"{number}?"), say("user", f"{number}!")]
            looked = 0
            history.save_messages("c", held)
            assert looked < 20
        assert active(history)[-5:] == ["0!", "1?", "1!", "2?", "2!"]
        assert len(active(history)) <= 6
        assert history.get_message_count("c", status=None) == 409
        check_tree(history, "c")


def test_the_limit_is_part_of_the_settings_and_of_every_way_to_say_them(tmp_path: Any) -> None:
    from chat_history import ConfigError, InvalidArgumentError, JSONChatHistory, reopen_history
    from chat_history.backends.json_file import JSONBackend

    path = str(tmp_path / "chats.json")
    ways: list[Any] = [
        lambda: open_history({"backend": "json", "storage_path": path, "max_messages": 2, "overflow": "delete"}),
        lambda: JSONChatHistory(storage_path=path, max_messages=2, overflow="delete"),
        lambda: JSONChatHistory({"storage_path": path, "max_messages": "2"}, overflow="delete"),
        lambda: open_history(JSONBackend(path), max_messages=2, overflow="delete"),
        lambda: ChatHistory(JSONBackend(path), max_messages=2, overflow="delete"),
    ]
    for way in ways:
        with way() as history:
            assert (history.settings["max_messages"], history.settings["overflow"]) == (2, "delete")
            kept = history.settings
        with reopen_history(kept) as history:
            history.clear_all()
            fill(history, 3)
            assert active(history) == ["q2", "a2"]
    for wrong in ({"max_messages": 0}, {"max_messages": 2.5}, {"overflow": "drop"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            open_history({"backend": "json", "storage_path": path, **wrong})
    for wrong in ({"max_messages": 0}, {"max_messages": 2, "overflow": "drop"}):
        with pytest.raises(InvalidArgumentError):
            ChatHistory(JSONBackend(path), **wrong)  # type: ignore[arg-type]


def test_an_answer_that_the_application_sent_back_does_not_part_a_turn() -> None:
    from pydantic_ai import Agent, ModelRetry
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart("Many." if len(messages) % 4 == 1 else "2.8 million.")])

    agent = Agent(FunctionModel(answer), retries=2)

    @agent.output_validator
    def has_a_number(output: str) -> str:
        if output == "Many.":
            raise ModelRetry("Say a number.")
        return output

    run = agent.run_sync("How many live in Rome?").all_messages()
    assert len(run) == 4
    with open_history("memory:") as history:
        history.save_messages("c", [*agent.run_sync("Hello?").all_messages(), *run])
        for window in ({"last": 2}, {"last": 3}, {"max_tokens": 5}):
            assert history.get_message_history("c", **window) == run  # type: ignore[arg-type]
        said = [line["message"] for line in history.get_readable_chat_history("c")[-3:]]
        assert said == ["How many live in Rome?", "Many.", "2.8 million."]
    with open_history("memory:", max_messages=3) as history:
        history.save_messages("c", run)
        assert history.get_message_count("c") == 4, "the newest turn stays whole"


def test_real_runs_go_on_within_the_limit() -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    agent = Agent(TestModel(), system_prompt="Be terse.")
    agent.tool_plain(lambda: "warm", name="look")
    with open_history("memory:", max_messages=8) as history:
        for turn in range(6):
            messages = history.get_message_history("c")
            result = agent.run_sync(f"turn {turn}", message_history=messages)
            history.save_messages("c", result.all_messages())
        whole = list(history.iter_messages("c", status=None))
        assert len(whole) == 14, "nothing twice, nothing lost"
        assert 4 <= history.get_message_count("c") <= 8


def test_two_who_go_on_with_windows_of_their_own_store_nothing_twice() -> None:
    with open_history("memory:", max_messages=4) as one, warnings.catch_warnings():
        warnings.simplefilter("error", ChatHistoryWarning)
        fill(one, 2)
        ours = theirs = one.get_message_history("c", "openai")
        for turn in range(3):
            ours = [*ours[-4:], say("user", f"our {turn}"), say("assistant", f"ours {turn}")]
            assert len(one.save_messages("c", ours)) == 2
        for turn in range(3):
            theirs = [*theirs[-4:], say("user", f"their {turn}"), say("assistant", f"theirs {turn}")]
            assert len(one.save_messages("c", theirs)) == 2
        ours = [*ours[-4:], say("user", "our last"), say("assistant", "ours at last")]
        assert len(one.save_messages("c", ours)) == 2
        assert one.get_message_history("c", "openai") == ours[-4:]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_lead_of_any_format_is_known_to_the_limit(name: str) -> None:
    with open_history("memory:", max_messages=2, overflow="delete") as history:
        history.add_messages("c", CONVERSATIONS[name](), format=name)
        fill(history, 3)
        first = next(history.iter_messages("c"))
        before = stored(name, CONVERSATIONS[name]())[0].payload
        lead, *beside = get_format(name).to_neutral(before)
        if lead["role"] == "system":
            assert [message["role"] for message in get_format(name).to_neutral(first.payload)] == ["system"]
            assert first.text == lead["content"]
            assert beside or first.payload == before
        assert active(history)[-2:] == ["q2", "a2"]


@on(*ALL)
def test_the_prompt_of_a_branch_that_begins_after_others_leads_its_windows(store: Store) -> None:
    with store.open() as history:
        history.add_messages(
            "c", [LEAD, *(say(role, str(each)) for each in range(6) for role in ("user", "assistant"))]
        )
        said = history.get_message_history("c", "openai")
        for number in range(4):
            said[0] = say("system", f"Be terser than {number}.")
            history.set_messages("c", said)
            for window in ({"last": 2}, {"max_tokens": 1}):
                assert history.get_message_history("c", "openai", **window) == [said[0], *said[-2:]]
            assert history.get_message_history("c", "openai") == said
        history.archive_oldest_messages("c", 9)
        assert history.get_message_history("c", "openai") == [said[0], *said[9:]]


def test_what_a_user_said_between_a_call_and_its_result_parts_them_not() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    said = [
        say("user", "weather?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        say("user", "hurry up"),
        say("user", "please"),
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        say("assistant", "Sunny."),
    ]
    with open_history("memory:", max_messages=2) as history:
        history.add_messages("c", [say("user", "hi"), say("assistant", "hello"), *said])
        for last in range(1, 7):
            assert history.get_message_history("c", "openai", last=last) == said
        assert active(history) == [message["content"] or "" for message in said]


def test_a_developers_prompt_stays_when_the_oldest_turns_are_deleted() -> None:
    with open_history("memory:", max_messages=2, overflow="delete") as history:
        history.add_message("c", say("developer", "Be terse."))
        fill(history, 3)
        assert active(history) == ["Be terse.", "q2", "a2"]


def test_a_window_of_all_of_a_long_chat_takes_as_long_as_the_chat_is() -> None:
    looks = 0

    class Row(tuple[Any, ...]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().__getitem__(place)

    def looked_at(count: int) -> int:
        before = looks
        with open_history("memory:") as history:
            history.add_messages("c", [LEAD, *(say(("user", "assistant")[n % 2], str(n)) for n in range(count))])
            history.archive_oldest_messages("c", 1)
            read = history._backend().read_payloads
            history._backend().read_payloads = lambda *args, **wanted: list(  # type: ignore[method-assign]
                map(Row, read(*args, **wanted))  # type: ignore[arg-type]
            )
            assert len(history.get_message_history("c", "openai", max_tokens=10**9)) == count + 1
        return looks - before

    assert looked_at(4000) < 5 * looked_at(1000)


@on(*ALL)
@pytest.mark.parametrize("window", [{}, {"last": 3}, {"last": 80}, {"max_tokens": 60}, {"max_tokens": 10**6}])
def test_a_window_is_of_one_branch_whoever_saves_meanwhile(store: Store, window: dict[str, Any]) -> None:
    def turns(branch: str) -> list[dict[str, Any]]:
        each = [[say("user", f"{branch} {n}"), say("assistant", f"{branch} {n}")] for n in range(40)]
        return [say("system", branch), *(message for turn in each for message in turn)]

    def load(history: ChatHistory, target: str) -> Any:
        return told(stored(target, history.get_message_history("c", target, **window)))

    with store.open() as history, history.for_user("") as other:
        for target, name, call in product(("openai", "pydantic_ai"), ("read_payloads", "read"), (1, 2, 3)):
            history.clear_all()
            history.save_messages("c", turns("one"))
            history.archive_oldest_messages("c", 3)
            before = load(history, target)
            with Meddled(history, name, call, lambda: other.set_messages("c", turns("two"), keep_archived=False)):
                loaded = load(history, target)
            assert loaded in (before, load(history, target)), (target, name, call)


@on(*ALL)
def test_what_was_deleted_does_not_come_back_with_an_applications_own_list(store: Store) -> None:
    agent = Agent(TestModel(), system_prompt="Be terse.")
    with ChatHistory(store.backend(), max_messages=4, overflow="delete") as history:
        messages: list[Any] = []
        for turn in range(6):
            messages = agent.run_sync(f"q{turn}", message_history=messages).all_messages()
            assert len(history.save_messages("c", messages)) == 2
            history.save_messages("plain", told_plainly := [say("user", f"p{n}") for n in range(turn + 1)])
        assert active(history) == ["Be terse.", *(text for turn in (4, 5) for text in (f"q{turn}", ANSWER))]
        assert history.get_chat_history("plain") == told_plainly[-4:]
        for chat in ("c", "plain"):
            assert history.get_message_count(chat, "superseded") == 0
            check_tree(history, chat)
        history.save_messages("plain", [*told_plainly[:-1], say("user", "edited")])
        assert history.get_chat_history("plain") == [*told_plainly[-4:-1], say("user", "edited")]


def test_what_was_deleted_does_not_come_back_where_every_turn_brings_a_prompt_of_its_own() -> None:
    with open_history("memory:", max_messages=2, overflow="delete") as history:
        messages: list[Any] = []
        for turn in range(6):
            asked = ModelRequest([SystemPromptPart(f"p{turn}"), UserPromptPart(f"q{turn}")])
            messages += [asked, ModelResponse([TextPart(f"a{turn}")])]
            assert len(history.save_messages("c", messages)) == 2
            assert history.save_messages("c", messages) == []
            if turn == 2:
                messages = history.get_message_history("c")
        assert active(history) == ["p0", "q5", "a5"]
        assert history.get_message_count("c", "superseded") == 0


def test_what_was_deleted_does_not_come_back_where_the_prompt_is_archived_or_of_another_format() -> None:
    said = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be terse."}]}
    for prompt, archived in product([LEAD, said], [0, 1]):
        with open_history("memory:", max_messages=2, overflow="delete") as history:
            history.add_message("c", prompt)
            messages = history.get_message_history("c", "openai")
            history.archive_oldest_messages("c", archived)
            for turn in range(4):
                messages += [say("user", f"q{turn}"), say("assistant", f"a{turn}")]
                assert len(history.save_messages("c", messages)) == 2
            assert active(history) == [*[LEAD["content"]] * (not archived), "q3", "a3"]
            assert history.get_message_count("c", "superseded") == 0


@pytest.mark.parametrize("purged", [False, True])
def test_prompts_that_every_turn_brings_do_not_pile_up_beside_the_one_that_leads(purged: bool) -> None:
    agent = Agent(TestModel(), system_prompt="Be terse.")
    with open_history("memory:", max_messages=2, overflow="archive" if purged else "delete") as history:
        for turn in range(6):
            history.add_messages("c", agent.run_sync(f"q{turn}").new_messages())
            if purged:
                history.purge(timedelta(microseconds=1), status="archived")
        stored = [message.text for message in history.iter_messages("c", status=None)]
        assert stored == ["Be terse.", "q5", ANSWER]


@on("sqlite")
def test_a_format_that_is_not_installed_keeps_no_message_from_being_stored(store: Store) -> None:
    with store.open() as history:
        fill(history, 2)
    with closing(sqlite3.connect(store.place, isolation_level=None)) as connection:
        connection.execute("UPDATE messages SET format = 'elsewhere' WHERE position = 0")
    with ChatHistory(store.backend(), max_messages=2, overflow="delete") as history:
        with pytest.warns(ChatHistoryWarning, match="stored, but .* could not be deleted: no format is named"):
            history.add_message("c", say("user", "q2"))
        assert active(history)[-1] == "q2"


def test_a_fork_keeps_within_the_limit() -> None:
    with open_history("memory:", max_messages=2) as history:
        fill(history, 3)
        head = history.get_messages("c")[-1].message_id
        history.switch_branch("c", None, messages=[say("user", "anew")])
        assert history.fork_chat("c", at=head).message_count == 2


@on(*ALL)
def test_nothing_of_the_oldest_turns_stays_beside_the_prompt(store: Store) -> None:
    parts = [
        {"content": "Be terse.", "part_kind": "system-prompt"},
        {"content": "secret", "part_kind": "user-prompt"},
    ]
    request = {"parts": parts, "kind": "request"}
    with ChatHistory(store.backend(), max_messages=2, overflow="delete") as history:
        history.save_messages("c", get_format("pydantic_ai").load([json.dumps(request)]))
        lead = history.get_messages("c")[0]
        for _ in range(2):
            fill(history, 2)
            assert active(history) == ["Be terse.", "q1", "a1"]
            assert history.get_messages("c")[0].message_id == lead.message_id
            assert "secret" not in str(list(history.iter_messages("c", status=None)))
            assert not history.search("secret")
            check_tree(history, "c")


@on(*ALL)
@pytest.mark.parametrize("together", [False, True])
def test_a_purge_of_the_archived_leaves_the_prompt_that_leads_the_chat(store: Store, together: bool) -> None:
    parts = [
        {"content": "Be terse.", "part_kind": "system-prompt"},
        {"content": "secret", "part_kind": "user-prompt"},
    ]
    requests = [{"parts": parts, "kind": "request"}] if together else [{"parts": [p], "kind": "request"} for p in parts]
    with ChatHistory(store.backend(), max_messages=2) as history:
        history.add_messages("c", get_format("pydantic_ai").load([json.dumps(each) for each in requests]))
        fill(history, 3)
        window = history.get_message_history("c", format="openai")
        assert [each["content"] for each in window] == ["Be terse.", "q2", "a2"]
        assert history.purge(timedelta(0), status="archived").messages == (4 if together else 5)
        assert history.get_message_history("c", format="openai") == window
        assert [each.text for each in history.iter_messages("c", status="archived")] == ["Be terse."]
        assert not history.search("secret")
        assert history.save_messages("c", [*window, say("user", "q3")])[:-1] == [], "the prompt is not stored again"
        before = history.get_chat("c")
        assert history.purge(timedelta(0), status="archived").messages == 2
        assert history.purge(timedelta(0), status="archived").messages == 0
        assert history.get_chat("c").version == before.version + 1
        check_tree(history, "c")


@on(*ALL)
def test_a_list_that_still_has_what_the_limit_deleted_is_stored_once(store: Store) -> None:
    with ChatHistory(store.backend(), max_messages=4, overflow="delete") as history:
        kept = [LEAD]
        for number in range(6):
            kept += [say("user", f"q{number}"), say("assistant", "yes")]
            assert [each.text for each in history.save_messages("c", kept)][-2:] == [f"q{number}", "yes"]
            before = list(history.iter_messages("c", status=None))
            assert history.save_messages("c", kept) == []
            assert list(history.iter_messages("c", status=None)) == before, "with its ids, and nothing beside it"
        assert active(history) == [LEAD["content"], "q4", "yes", "q5", "yes"]
        kept[-1] = say("assistant", "no")
        assert [each.text for each in history.save_messages("c", kept)] == ["no"]
        assert active(history) == [LEAD["content"], "q4", "yes", "q5", "no"]
        check_tree(history, "c")


@pytest.mark.parametrize("form", ["openai", "pydantic_ai"])
def test_a_prompt_that_changed_is_not_lost_where_the_oldest_turns_are_deleted(form: str) -> None:
    with open_history("memory:", max_messages=4, overflow="delete") as history:
        kept: list[Any] = [LEAD]
        told_in = get_format(form).from_neutral  # whose first request has the prompt too, in Pydantic AI
        for number in range(4):
            kept += [say("user", f"q{number}"), say("assistant", f"a{number}")]
            history.save_messages("c", told_in(kept).messages)
        assert active(history)[0] == LEAD["content"]
        with pytest.warns(ChatHistoryWarning, match="new branch"):
            history.save_messages("c", told_in([say("system", "Be kind."), *kept[1:]]).messages)
        assert active(history)[0] == "Be kind."


def test_an_agent_that_keeps_its_messages_goes_on_where_the_oldest_turns_are_deleted() -> None:
    agent = Agent(TestModel(), system_prompt="Be terse.")
    with open_history("memory:", max_messages=4, overflow="delete") as history:
        history.add_messages("c", [LEAD, say("user", "by hand"), say("assistant", "so")])
        kept = history.get_message_history("c")
        for number in range(5):
            kept = agent.run_sync(f"q{number}", message_history=kept).all_messages()
            assert len(history.save_messages("c", kept)) == 2
            assert history.save_messages("c", kept) == []
        assert {message.status for message in history.iter_messages("c", status=None)} == {"active"}
        assert history.get_message_count("c") == 5


def test_what_stood_before_a_chat_is_stored_where_nothing_was_deleted() -> None:
    with open_history("memory:", max_messages=4, overflow="delete") as history:
        history.add_message("c", say("user", "q2"))
        told = [say(role, f"{role[0]}{number}") for number in range(3) for role in ("user", "assistant")]
        with pytest.warns(ChatHistoryWarning, match="new branch"):
            history.save_messages("c", [*told[:4], say("user", "q2"), say("assistant", "a2")])
        assert active(history) == ["u1", "a1", "q2", "a2"]

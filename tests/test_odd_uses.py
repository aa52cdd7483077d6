"""What people do with a history that nobody thought of."""

from __future__ import annotations

import copy
import io
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stores import ALL, Store, on

from chat_history import (
    AsyncChatHistory,
    ChatHistory,
    ConfigError,
    HistoryClosedError,
    InvalidArgumentError,
    MessageStatus,
    StoredMessage,
    open_history,
    reopen_history,
    transfer,
)
from chat_history.testing import check_chat, say
from chat_history.tree import branches
from chat_history_adapters.importers import import_from


@on(*ALL)
def test_a_history_that_somebody_tries_to_copy_says_what_to_do_and_goes_on(store: Store) -> None:
    @dataclass
    class App:
        history: ChatHistory

    with store.open() as history:
        history.add_message("c", say("user", "a"))
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps, lambda history: asdict(App(history))):
            with pytest.raises(TypeError, match="reopen_history"):
                attempt(history)  # type: ignore[operator]
        history.add_message("c", say("user", "b"))
        assert len(check_chat(history, "c")) == 2


@on(*ALL)
def test_what_was_stored_can_be_pickled_and_copied(store: Store) -> None:
    with store.open() as history:
        stored = history.add_messages("c", [say("user", "a"), say("user", "b")])
        assert pickle.loads(pickle.dumps(stored)) == copy.deepcopy(stored) == list(stored)


@on(*ALL)
def test_the_last_messages_that_an_application_holds_in_a_deque_are_saved(store: Store) -> None:
    with store.open() as history:
        held = deque([say("user", "a"), say("user", "b")], maxlen=2)
        history.save_messages("c", held)
        held.append(say("user", "c"))
        assert [message.text for message in history.save_messages("c", held)] == ["c"]
        history.set_messages("c", held)
        assert history.get_chat_history("c") == list(held)
        assert history.get_chat("c").message_count == 2


@on(*ALL)
def test_a_list_that_grows_while_it_is_stored_is_stored_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def growing(dumped: Any) -> Callable[..., Any]:
        def dump(*args: Any) -> Any:
            messages.append(say("user", "later"))
            return dumped(*args)

        return dump

    with store.open() as history:
        writer: Any = history._writer()
        monkeypatch.setattr(writer, "_dumped", growing(writer._dumped))
        calls: list[Callable[..., Any]] = [
            history.add_messages,
            history.save_messages,
            history.set_messages,
            lambda chat, messages: history.switch_branch(chat, None, messages=messages),
        ]
        for number, call in enumerate(calls):
            messages = [say("user", "a")]
            call(f"chat {number}", messages)
            assert history.get_chat_history(f"chat {number}") == [say("user", "a")]


class Desk(str, Enum):  # noqa: UP042 its own str() is another
    SUPPORT = "support"


@on(*ALL)
def test_an_enum_of_strings_is_its_string(store: Store) -> None:
    with store.open() as history:
        history.add_message(Desk.SUPPORT, say("user", "a"), message_id=Desk.SUPPORT)
        history.add_message("support", say("user", "b"))
        history.add_message(Desk.SUPPORT, say("user", "c"))
        assert history.get_all_chat_ids() == ["support"]
        assert history.get_message("support", "support").text == "a"
        assert history.for_user(Desk.SUPPORT).user_id == "support"
        assert history.get_message_count("support", MessageStatus.ACTIVE) == 3


@on(*ALL)
def test_what_comes_back_of_a_chat_named_by_an_enum_has_the_plain_id(store: Store) -> None:
    desk, message = Desk.SUPPORT, say("user", "a")
    calls: list[Callable[[ChatHistory], Iterable[StoredMessage | None]]] = [
        lambda history: [history.add_message(desk, message)],
        lambda history: [history.add_message(desk, message, message_id="1")],
        lambda history: [history.add_message(desk, message, message_id="1")],
        lambda history: history.add_messages(desk, [message]),
        lambda history: history.save_messages(desk, [message, say("user", "b")]),
        lambda history: [history.replace_message(desk, "1", message)],
        lambda history: [history.get_message(desk, "1")],
        lambda history: history.get_messages(desk, status=None),
        lambda history: history.iter_messages(desk, status=None),
        lambda history: history.archive_oldest_messages(desk, 1),
        lambda history: history.delete_messages(desk, ["1"]),
        lambda history: history.delete_oldest_messages(desk, 1),
        lambda history: [history.delete_last_message(desk)],
    ]
    with store.open() as history:
        for call in calls:
            stored = list(call(history))
            assert stored
            assert {type(each.chat_id) for each in stored if each} == {str}


@on(*ALL)
def test_a_role_that_is_an_enum_comes_back_as_its_string_at_once(store: Store) -> None:
    item = {"type": "message", "role": Desk.SUPPORT, "content": [{"type": "input_text", "text": Desk.SUPPORT}]}
    with store.open() as history:
        for message in ({"role": Desk.SUPPORT, "content": Desk.SUPPORT}, item):
            stored = history.add_message("c", message)
            assert stored == history.get_message("c", stored.message_id)
            assert [type(each) for each in (stored.role, stored.text)] == [str, str]
            assert f"{stored.role} {stored.text}" == "support support"


def test_an_age_that_lies_in_the_future_purges_nothing() -> None:
    with open_history("memory:") as history:
        history.add_message("c", say("user", "a"))
        for age in (timedelta(days=-30), timedelta.min, datetime(2999, 1, 1, tzinfo=UTC)):
            with pytest.raises(InvalidArgumentError, match="future"):
                history.purge(age)
        assert history.get_message_count("c") == 1
        assert history.purge(timedelta.max).chats == 0


def test_a_moment_before_the_calendar_begins_in_utc_purges_nothing() -> None:
    with open_history("memory:") as history:
        history.add_message("c", say("user", "a"))
        assert history.purge(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))).chats == 0
        assert history.get_message_count("c") == 1


def test_a_format_or_role_that_is_no_name_is_refused() -> None:
    with open_history("memory:") as history:
        odd: Any
        for odd in ([], {}, 5):
            for call in (
                lambda odd: history.add_message("c", say("user", "a"), format=odd),
                lambda odd: history.save_messages("c", [say("user", "a")], format=odd),
                lambda odd: history.get_message_history("c", odd),
                lambda odd: history.get_readable_chat_history("c", user_role=odd),
            ):
                with pytest.raises(InvalidArgumentError, match="must be a str"):
                    call(odd)
        assert not history.chat_exists("c")


def test_a_message_in_the_place_of_a_status_is_refused_and_not_repeated_in_the_error() -> None:
    with open_history("memory:") as history:
        history.add_message("c", say("user", "a"))
        odd: Any
        for odd in (say("user", "secret"), [say("user", "secret")], 10**5000):
            for call in (history.get_messages, history.get_message_count, history.iter_messages):
                with pytest.raises(InvalidArgumentError, match="status must be a str") as failed:
                    call("c", status=odd)
                assert "secret" not in str(failed.value)


def test_the_name_of_a_model_in_the_place_of_a_function_that_counts_is_refused() -> None:
    with open_history("memory:") as history:
        for most in (None, 5):  # also where nothing is counted, as in a test whose chat is short
            with pytest.raises(InvalidArgumentError, match="function of a text"):
                history.get_message_history("c", "openai", max_tokens=most, count_tokens="gpt-4o")  # type: ignore[arg-type]


def test_a_configuration_in_the_place_of_a_backend_is_told_where_it_belongs() -> None:
    for config in ({"backend": "json"}, "sqlite:///chats.db", None):
        with pytest.raises(ConfigError, match="open_history takes a URL, a path or a dict"):
            ChatHistory(config)  # type: ignore[arg-type]


def test_settings_that_are_still_text_are_told_what_they_should_be() -> None:
    for settings in ('{"backend": "sqlite"}', "sqlite:///chats.db", None):
        with pytest.raises(ConfigError, match=r"the dict that history\.settings gave"):
            reopen_history(settings)  # type: ignore[arg-type]


def test_what_is_no_history_is_refused_when_it_is_made_asynchronous() -> None:
    for history in ("sqlite:///chats.db", None):
        with pytest.raises(InvalidArgumentError, match="as open_history"):
            AsyncChatHistory(history)  # type: ignore[arg-type]


def test_a_password_with_an_at_sign_is_not_taken_for_a_host() -> None:
    with pytest.raises(ConfigError, match="%40") as failed:
        open_history("postgresql://u:p@ss@127.0.0.1:1/db")
    assert "ss@" not in str(failed.value)


def test_names_in_the_place_of_histories_and_files_are_told_what_belongs_there(tmp_path: Path) -> None:
    there: Any = tmp_path / "chats.jsonl"
    with open_history("memory:") as history:
        history.add_message("c", say("user", "a"))
        with there.open("w", encoding="utf-8") as file:
            transfer.export(history, file)
        odd: Any
        for odd in ("chats.db", None, history.to_async()):
            for call in (
                lambda odd: transfer.copy(odd, history),
                lambda odd: transfer.copy(history, odd),
                lambda odd: transfer.export(odd, io.StringIO()),
                lambda odd: transfer.import_from(io.StringIO(), odd),
                lambda odd: import_from(there, odd),
            ):
                with pytest.raises(InvalidArgumentError, match=r"as open_history\(\) gives it"):
                    call(odd)
        for odd in (there, str(there)):
            for take in (transfer.import_from, lambda file, history: transfer.export(history, file)):
                with pytest.raises(InvalidArgumentError, match="is open, not its name"):
                    take(odd, history)
        for odd in (None, b"chats.jsonl", {"c": []}):
            with pytest.raises(InvalidArgumentError, match="source is a path"):
                import_from(odd, history)


@on(*ALL)
def test_a_copy_of_a_chat_that_others_write_to_is_the_chat_at_one_moment(store: Store) -> None:
    with store.open() as source, open_history("memory:") as target:
        source.add_messages("c", [say("user", str(number)) for number in range(300)])
        read = source._backend().read
        pages = 0

        def meddling(*args: Any, **wanted: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 2:
                source.add_message("c", say("user", "late"))
                source.save_messages("c", [say("user", "0"), say("user", "another way")])
            return read(*args, **wanted)

        source._backend().read = meddling  # type: ignore[method-assign]
        transfer.copy(source, target)
        assert [message.text for message in check_chat(target, "c")] == list(map(str, range(300)))


@on(*ALL)
def test_a_walk_ends_with_the_history_that_it_is_of(store: Store) -> None:
    with store.open() as history:
        history.add_messages("c", [say("user", "a"), say("user", "b")])
        view = history.for_user("")
        walks = [view.iter_messages("c"), history.iter_messages("c")]
        for walk in walks:
            assert next(walk).text == "a"
        view.shutdown()
        history.shutdown()
        for walk in walks:
            with pytest.raises(HistoryClosedError):
                next(walk)


def test_a_chat_that_was_answered_anew_many_times_lists_its_branches_without_walking_each() -> None:
    looks = 0

    class Row(tuple[Any, ...]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().__getitem__(place)

        def __iter__(self) -> Iterator[Any]:
            nonlocal looks
            looks += 1
            return super().__iter__()

    with open_history("memory:") as history:
        asked = history.add_messages("c", [say("user", str(number)) for number in range(100)])[-1]
        for _ in range(50):
            history.switch_branch("c", asked.message_id, messages=[say("assistant", "again")])
        backend, key = history._backend(), history._key("c")
        outline = backend.outline(key)
        assert outline is not None
        found = branches(backend, key, outline._replace(rows=list(map(Row, outline.rows))))  # type: ignore[arg-type]
        assert found == history.list_branches("c")
        assert [branch.message_count for branch in found] == [101] * 50
        assert looks < 10 * len(outline.rows)


@on(*ALL)
def test_a_fork_near_the_beginning_of_a_long_chat_reads_no_more_than_it_takes(store: Store) -> None:
    with store.open() as history:
        first = history.add_messages("c", [say("user", str(number)) for number in range(300)])[:5]
        read, records = history._backend().read, 0

        def counted(*args: Any, **wanted: Any) -> Any:
            nonlocal records
            found = read(*args, **wanted)
            records += len(found)
            return found

        history._backend().read = counted  # type: ignore[method-assign]
        fork = history.fork_chat("c", at=first[-1].message_id)
        assert records == 5
        assert [message.message_id for message in check_chat(history, fork.chat_id)] == [
            message.message_id for message in first
        ]


@on(*ALL)
def test_the_ids_of_what_is_shared_are_asked_for_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.open() as history:
        ann = history.for_user("ann")
        for number in range(30):
            ann.create_chat(str(number))
        for number in (25, 3, 11):
            ann.update_chat(str(number), shared=True)
        asked: list[object] = []
        for name in ("get_chat", "list_chats", "chat_ids"):
            call = getattr(history._backend(), name)
            counted = partial(lambda call, *given, **wanted: asked.append(given) or call(*given, **wanted), call)
            monkeypatch.setattr(history._backend(), name, counted)
        assert history.for_user("bob").shared_by("ann").get_all_chat_ids() == ["3", "11", "25"]
        assert len(asked) == 1

"""Random operations on every backend, against a model that keeps dicts and tries every place."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from stores import ALL, SCALED, Store, on

from chat_history import (
    ChatExistsError,
    ChatHistory,
    ChatHistoryWarning,
    ChatNotFoundError,
    Message,
    MessageNotFoundError,
    VersionConflictError,
)
from chat_history.backends.words import folded
from chat_history.doctor.chats import examine_chats
from chat_history.testing import check_chat, say

EXAMPLES = {"memory": 120, "relaxed": 40, "sqlite": 60, "json": 60, "postgres": 30} | dict.fromkeys(SCALED, 10)
"""So many that each store takes about ten seconds."""

ALPHABET = [say("user", "aaa bbb"), say("user", "bbb"), say("assistant", "aaa bbb"), say("system", "s")]
"""Few messages, so that they repeat."""
OWNERS = [("", ""), ("acme", "ann")]

owners = st.sampled_from([OWNERS[0], OWNERS[0], OWNERS[0], OWNERS[1]])
chats = st.sampled_from(["c", "c", "c", "d"])
some = st.lists(st.sampled_from(ALPHABET), max_size=3)
counts = st.integers(0, 4)
versions = st.sampled_from(["any", "any", "any", "right", "stale"])


@dataclass
class Row:
    """A message of the model: its parent is a position."""

    message: Message
    parent: int | None
    message_id: str
    metadata: dict[str, Any]
    status: str = "active"


@dataclass
class Model:
    """A chat of the model: its messages by position."""

    rows: dict[int, Row] = field(default_factory=dict)
    positions: int = 0
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    shared: bool = False

    def of(self, *statuses: str) -> list[int]:
        return [position for position, row in sorted(self.rows.items()) if row.status in statuses]

    def branch(self) -> list[int]:
        return self.of("archived", "active")

    def messages(self, positions: list[int]) -> list[Message]:
        return [self.rows[position].message for position in positions]

    def append(self, messages: list[Message], message_ids: list[str], metadata: dict[str, Any]) -> None:
        for message, message_id in zip(messages, message_ids, strict=True):
            self.rows[self.positions] = Row(message, (self.branch() or [None])[-1], message_id, metadata)
            self.positions += 1

    def displace(self, kept: list[int], new: list[Message]) -> list[Message]:
        """End the branch after `kept`, go back to what followed it once, and say what is left to be stored."""
        for position in self.branch():
            if position not in kept:
                self.rows[position].status = "superseded"
        end = kept[-1:]
        for index, message in enumerate(new):
            found = self.displaced(end, message)
            if not found:
                return new[index:]
            end = [max(found)]
            self.rows[end[0]].status = "active"
        return []

    def displaced(self, end: list[int], message: Message) -> list[int]:
        """Where this message follows the last of these on a branch that is not the active one."""
        at = end[-1] if end else None
        return [
            position
            for position, row in self.rows.items()
            if row.status == "superseded" and row.parent == at and row.message == message
        ]

    def elsewhere(self, new: list[Message]) -> list[int]:
        """The longest run of displaced messages that these begin with, wherever it is, if it is more than one."""
        runs: list[list[int]] = [[]]
        for position, row in sorted(self.rows.items()):
            run = [position]
            if position != max(self.displaced([] if row.parent is None else [row.parent], new[0]), default=None):
                continue
            for message in new[1:]:
                if not (found := self.displaced(run[-1:], message)):
                    break
                run.append(max(found))
            runs.append(run)
        run = max(reversed(runs), key=len)
        return run if len(run) > 1 else []

    def save(self, given: list[Message]) -> tuple[list[Message], bool]:
        """What is left to be stored, and whether the list was of strangers."""
        branch = self.branch()
        if not given:
            return [], False
        start, kept, carried = place(given, self.messages(branch))
        new = given[carried + kept :]
        strange = start + kept < len(branch) and carried + kept <= leading(given)
        ends = branch[: start + kept]
        if strange and new and not self.displaced(ends, new[0]) and (run := self.elsewhere(new)):
            way = self.way(run[-1])
            kept_there = [position for position in way if position in branch]
            if len(kept_there) >= len(ends):
                left = new[len(run) :]
                self.switch(run[-1])
                return left, False
        if strange and new and not self.of("active") and not self.displaced(ends, new[0]):
            return self.displace(branch, new), False
        left = self.displace(ends, new)
        return left, strange and len(left) == len(new)

    def set(self, given: list[Message]) -> list[Message]:
        active, archived = self.of("active"), self.of("archived")
        kept, carried = agreeing(given, self.messages(active)), 0
        prompts = agreeing(given[: leading(given)], self.messages(archived))
        rest = agreeing(given[prompts:], self.messages(active))
        if 0 < prompts < len(given) and (not kept or prompts + rest > kept):
            carried, kept = prompts, rest
        return self.displace(archived + active[:kept], given[carried + kept :])

    def way(self, position: int | None) -> list[int]:
        """The positions from the root to this one."""
        way: list[int] = []
        while position is not None:
            way.insert(0, position)
            position = self.rows[position].parent
        return way

    def switch(self, position: int | None) -> None:
        way = self.way(position)
        for each, row in self.rows.items():
            if each not in way:
                row.status = "superseded"
            elif row.status == "superseded":
                row.status = "active"

    def heads(self) -> list[int]:
        followed = {row.parent for row in self.rows.values()}
        return [each for each in sorted(self.rows) if each not in followed or each in self.branch()[-1:]]

    def delete(self, positions: list[int]) -> None:
        for position in positions:
            gone = self.rows.pop(position)
            for row in self.rows.values():
                if row.parent == position:
                    row.parent = gone.parent


def leading(given: list[Message]) -> int:
    return next((index for index, message in enumerate(given) if message["role"] != "system"), len(given))


def agreeing(given: list[Message], stored: list[Message]) -> int:
    return next(
        (i for i, (one, other) in enumerate(zip(given, stored, strict=False)) if one != other),
        min(len(given), len(stored)),
    )


def best(given: list[Message], stored: list[Message]) -> tuple[int, int]:
    found = [(agreeing(given, stored[start:]), start) for start in range(len(stored))]
    kept, _, start = max(((kept, kept + start == len(stored), -start) for kept, start in found), default=(0, False, 0))
    return (-start, kept) if kept else (0, 0)


def place(given: list[Message], stored: list[Message]) -> tuple[int, int, int]:
    """Where `given` continues `stored`, how much of it stands there, and how many system prompts it carries along."""
    start, kept = best(given, stored)
    carried = agreeing(given[: leading(given)], stored)
    if start + kept < len(stored) and carried:
        rest_start, rest_kept = best(given[carried:], stored[carried:])
        displaces = carried + rest_start + rest_kept < len(stored)
        if rest_kept and carried + rest_kept >= kept + displaces:
            return carried + rest_start, rest_kept, carried
    return start, kept, 0


def matches(query: str, text: str) -> bool:
    if query.startswith('"'):
        return query.strip('"') in folded(text)
    return all(word in folded(text) for word in query.split())


A_SAVE: dict[str, Any] = {
    "opening": st.integers(0, 1),
    "owner": owners,
    "chat": chats,
    "version": versions,
    "data": st.data(),
    "tail": some,
    "whole": st.sampled_from([False, False, True]),
    "carry": st.booleans(),
}


class Machine(RuleBasedStateMachine):
    """Two openings of one store, and a model of it."""

    new_store: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).new_store()
        self.backend = self.store.backend() if self.store.in_memory else None
        self.openings = [self.opened(), self.opened()]
        for owner in OWNERS:
            self.view(0, owner).clear_all()
        self.models: dict[tuple[tuple[str, str], str], Model] = {}
        """By owner and chat id, the oldest chat first."""
        self.activity: list[tuple[tuple[str, str], str]] = []
        """The newest last."""

    def opened(self) -> ChatHistory:
        return ChatHistory(self.backend) if self.backend else self.store.open()

    def view(self, opening: int, owner: tuple[str, str]) -> ChatHistory:
        return self.openings[opening].for_user(owner[1], tenant_id=owner[0])

    def check(self, history: ChatHistory, owner: tuple[str, str], chat: str) -> None:
        model = self.models.get((owner, chat))
        stored = check_chat(history, chat)
        if model is None:
            assert not history.chat_exists(chat)
            assert not stored
            return
        ids = {position: row.message_id for position, row in model.rows.items()}
        assert [
            (each.position, each.message_id, each.parent, each.status, each.json(), each.metadata) for each in stored
        ] == [
            (position, row.message_id, ids.get(row.parent), row.status, row.message, row.metadata)  # type: ignore[arg-type]
            for position, row in sorted(model.rows.items())
        ]
        assert history.get_chat_history(chat) == model.messages(model.of("active"))
        its = history.get_chat(chat)
        assert (its.title, its.metadata, its.shared) == (model.title, model.metadata, model.shared)

    def wrote(self, owner: tuple[str, str], chat: str) -> None:
        key = (owner, chat)
        self.activity = [each for each in self.activity if each != key] + [key]

    def write(
        self,
        opening: int,
        owner: tuple[str, str],
        chat: str,
        version: str,
        call: Callable[[ChatHistory, int | None], list[Any]],
        change: Callable[[Model], tuple[list[Message], bool]],
        *,
        creates: bool = False,
        message_ids: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """A call that may come with an expected version; what it returns is what the model says is to be stored."""
        history = self.view(opening, owner)
        was = history.get_chat(chat).version if history.chat_exists(chat) else 0
        if version == "stale":
            for stale in {was - 1, was + 1, 0} - {-1, was}:
                with pytest.raises(VersionConflictError):
                    call(history, stale)
            self.check(history, owner, chat)
            return
        model = self.models.get((owner, chat), Model())
        before = repr(model)
        new, strange = change(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stored = call(history, was if version == "right" else None)
        assert [warning.category for warning in caught] == [ChatHistoryWarning] * strange
        assert [message.json() for message in stored] == new
        if message_ids is not None:
            assert [message.message_id for message in stored] == message_ids
        model.append(new, [message.message_id for message in stored], metadata or {})
        if repr(model) != before or creates:
            if (owner, chat) not in self.models:
                self.models[owner, chat] = model
            self.wrote(owner, chat)
            assert history.get_chat(chat).version == was + 1 or not was
        elif was:
            assert history.get_chat(chat).version == was
        self.check(history, owner, chat)

    @rule(
        opening=st.integers(0, 1),
        owner=owners,
        chat=chats,
        version=versions,
        messages=st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=4),
        metadata=st.sampled_from([{}, {}, {"n": 1}]),
    )
    def add(
        self,
        opening: int,
        owner: tuple[str, str],
        chat: str,
        version: str,
        messages: list[Message],
        metadata: dict[str, Any],
    ) -> None:
        def call(history: ChatHistory, expected: int | None) -> list[Any]:
            if len(messages) == 1:
                return [history.add_message(chat, messages[0], metadata=metadata, expected_version=expected)]
            return history.add_messages(chat, messages, metadata=metadata, expected_version=expected)

        self.write(opening, owner, chat, version, call, lambda model: (messages, False), metadata=metadata)

    @rule(
        opening=st.integers(0, 1),
        owner=owners,
        chat=chats,
        version=versions,
        ids=st.lists(st.sampled_from(["0", "1", "2", "3", "4", "5"]), min_size=1, max_size=3),
        message=st.sampled_from(ALPHABET),
    )
    def add_by_id(
        self, opening: int, owner: tuple[str, str], chat: str, version: str, ids: list[str], message: Message
    ) -> None:
        model = self.models.get((owner, chat), Model())
        known = {row.message_id for row in model.rows.values()}
        new = [each for each in dict.fromkeys(ids) if each not in known]

        def call(history: ChatHistory, expected: int | None) -> list[Any]:
            stored = history.add_messages(chat, [message] * len(ids), message_ids=ids, expected_version=expected)
            assert [each.message_id for each in stored] == ids
            return [stored[ids.index(each)] for each in new]

        self.write(opening, owner, chat, version, call, lambda model: ([message] * len(new), False), message_ids=new)

    @rule(**A_SAVE)
    def save(
        self,
        opening: int,
        owner: tuple[str, str],
        chat: str,
        version: str,
        data: st.DataObject,
        tail: list[Message],
        whole: bool,
        carry: bool,
    ) -> None:
        """Lists that continue, depart, repeat, shrink, begin inside a branch, or have nothing to do with any."""
        model = self.models.get((owner, chat), Model())
        ways = [model.of("active") if whole else model.branch(), *map(model.way, model.heads())]
        stored = model.messages(data.draw(st.sampled_from(ways), "way"))
        start = data.draw(st.one_of(st.just(0), st.integers(0, len(stored))), "start")
        stop = data.draw(st.one_of(st.just(len(stored)), st.integers(start, len(stored))), "stop")
        given = stored[: leading(stored) if carry and start else 0] + stored[start:stop] + tail

        def call(history: ChatHistory, expected: int | None) -> list[Any]:
            save = history.set_messages if whole else history.save_messages
            return save(chat, given, expected_version=expected)

        creates = whole and (owner, chat) not in self.models
        change = (lambda model: (model.set(given), False)) if whole else (lambda model: model.save(given))
        self.write(opening, owner, chat, version, call, change, creates=creates)

    @rule(**A_SAVE)
    def save_as_often_as_all_else(self, **drawn: Any) -> None:
        self.save(**drawn)

    @rule(
        opening=st.integers(0, 1),
        owner=owners,
        chat=chats,
        version=versions,
        title=st.text(max_size=3),
        shared=st.booleans(),
    )
    def update(self, opening: int, owner: tuple[str, str], chat: str, version: str, title: str, shared: bool) -> None:
        title = title.replace("\0", "")
        history = self.view(opening, owner)
        if (owner, chat) not in self.models:
            with pytest.raises(ChatNotFoundError):
                history.update_chat(chat, title=title)
            return

        def call(history: ChatHistory, expected: int | None) -> list[Any]:
            history.update_chat(chat, title=title, shared=shared, metadata={"t": title}, expected_version=expected)
            return []

        def change(model: Model) -> tuple[list[Message], bool]:
            model.title, model.shared, model.metadata = title, shared, {"t": title}
            return [], False

        self.write(opening, owner, chat, version, call, change, creates=True)

    @rule(
        opening=st.integers(0, 1),
        owner=owners,
        chat=chats,
        n=counts,
        what=st.sampled_from(["oldest", "last", "archive"]),
    )
    def shorten(self, opening: int, owner: tuple[str, str], chat: str, n: int, what: str) -> None:
        history = self.view(opening, owner)
        model = self.models.get((owner, chat), Model())
        chosen = model.of("active")[-1:] if what == "last" else model.of("active")[:n]
        ids = [model.rows[position].message_id for position in chosen]
        if what == "last":
            last = history.delete_last_message(chat)
            gone = [last] if last else []
        elif what == "oldest":
            gone = history.delete_oldest_messages(chat, n)
        else:
            gone = history.archive_oldest_messages(chat, n)
        assert [each.message_id for each in gone] == ids
        if what == "archive":
            for position in chosen:
                model.rows[position].status = "archived"
        else:
            model.delete(chosen)
        if chosen:
            self.wrote(owner, chat)
        self.check(history, owner, chat)

    @rule(
        opening=st.integers(0, 1),
        owner=owners,
        chat=chats,
        which=st.integers(0, 9),
        new=st.none() | st.sampled_from(ALPHABET),
    )
    def change_one(self, opening: int, owner: tuple[str, str], chat: str, which: int, new: Message | None) -> None:
        """Replace or delete a message of any branch."""
        history = self.view(opening, owner)
        model = self.models.get((owner, chat), Model())
        if not model.rows:
            assert not history.delete_message(chat, "0")
            with pytest.raises(MessageNotFoundError):
                history.replace_message(chat, "0", ALPHABET[0])
            return
        position = sorted(model.rows)[which % len(model.rows)]
        row = model.rows[position]
        if new is None:
            assert history.delete_message(chat, row.message_id)
            model.delete([position])
        else:
            assert history.replace_message(chat, row.message_id, new).json() == new
            row.message = new
        self.wrote(owner, chat)
        self.check(history, owner, chat)

    @rule(
        opening=st.integers(0, 1),
        owner=owners,
        chat=chats,
        which=st.integers(-1, 9),
        what=st.sampled_from(["switch", "switch", "switch", "fork", "delete", "purge"]),
        messages=some,
        metadata=st.sampled_from([None, None, {"s": 1}]),
    )
    def branch(
        self,
        opening: int,
        owner: tuple[str, str],
        chat: str,
        which: int,
        what: str,
        messages: list[Message],
        metadata: dict[str, Any] | None,
    ) -> None:
        """Switch to, fork at or delete from a message of any branch."""
        history = self.view(opening, owner)
        model = self.models.get((owner, chat))
        if model is None:
            assert history.list_branches(chat) == []
            return
        position = sorted(model.rows)[which % len(model.rows)] if which >= 0 and model.rows else None
        message_id = model.rows[position].message_id if position is not None else None
        before = repr(model)
        if what == "switch":
            model.switch(position)
            if metadata is None:
                history.switch_branch(chat, message_id, messages=messages)
            else:
                model.metadata = metadata
                history.switch_branch(chat, message_id, messages=messages, chat_metadata=metadata)
            written = history.get_messages(chat, limit=len(messages)) if messages else ()
            model.append(messages, [message.message_id for message in written], {})
        elif what == "fork":
            self.fork(opening, owner, chat, position, message_id)
        elif what == "purge":
            gone = model.of("superseded")
            assert history.delete_superseded(chat) == len(gone)
            model.delete(gone)
        elif message_id is not None:
            gone = []
            at = position
            while at is not None and model.rows[at].status == "superseded":
                if [each for each, row in model.rows.items() if row.parent == at] != gone[-1:]:
                    break
                gone.append(at)
                at = model.rows[at].parent
            assert history.delete_branch(chat, message_id) == len(gone)
            model.delete(gone)
        if repr(model) != before or (what == "switch" and metadata is not None):
            self.wrote(owner, chat)
        active = model.branch()
        assert [(each.head, each.message_count, each.active) for each in history.list_branches(chat)] == [
            (model.rows[head].message_id, len(model.way(head)), head in active[-1:]) for head in model.heads()
        ]
        self.check(history, owner, chat)

    def fork(
        self, opening: int, owner: tuple[str, str], chat: str, position: int | None, message_id: str | None
    ) -> None:
        history = self.view(opening, owner)
        model = self.models[owner, chat]
        other = "d" if chat == "c" else "c"
        if (owner, other) in self.models:
            with pytest.raises(ChatExistsError):
                history.fork_chat(chat, at=message_id, new_chat_id=other)
            return
        history.fork_chat(chat, at=message_id, new_chat_id=other)
        copy = Model(title=model.title, metadata=model.metadata)
        for each in model.way((model.branch() or [None])[-1] if position is None else position):
            row = model.rows[each]
            copy.append([row.message], [row.message_id], row.metadata)
            if row.status == "archived":
                copy.rows[copy.positions - 1].status = "archived"
        self.models[owner, other] = copy
        self.wrote(owner, other)
        self.check(history, owner, other)

    @rule(
        opening=st.integers(0, 1),
        owner=owners,
        chat=chats,
        what=st.sampled_from(["create", "create", "delete", "clear"]),
    )
    def begin_or_end(self, opening: int, owner: tuple[str, str], chat: str, what: str) -> None:
        history = self.view(opening, owner)
        known = (owner, chat) in self.models
        if what == "create" and known:
            with pytest.raises(ChatExistsError):
                history.create_chat(chat)
        elif what == "create":
            history.create_chat(chat, title="T")
            self.models[owner, chat] = Model(title="T")
            self.wrote(owner, chat)
        elif what == "delete":
            assert history.delete_chat_history(chat) == known
            self.models.pop((owner, chat), None)
        else:
            assert history.clear_all() == sum(its == owner for its, _ in self.models)
            self.models = {key: model for key, model in self.models.items() if key[0] != owner}
        self.activity = [each for each in self.activity if each in self.models]
        self.look_at_all(opening, owner)

    @rule(
        opening=st.integers(0, 1),
        owner=owners,
        query=st.sampled_from(["a", "b", "s", "aaa", "bbb", "aaa bbb", '"a bbb"', "t"]),
        chat=st.sampled_from([None, "c", "d"]),
    )
    def search(self, opening: int, owner: tuple[str, str], query: str, chat: str | None) -> None:
        """The order is not the model's to know: many messages are of the same moment."""
        expected: list[tuple[str, str]] = []
        for (its, name), model in self.models.items():
            if its == owner and chat in (None, name):
                rows = [model.rows[position] for position in model.branch()]
                texts = {"": model.title} | {row.message_id: row.message["content"] for row in rows}
                expected += [(name, place) for place, text in texts.items() if matches(query, text)]
        hits = self.view(opening, owner).search(query, chat, limit=1000)
        assert sorted((hit.chat_id, hit.message_id or "") for hit in hits) == sorted(expected)

    @rule(opening=st.integers(0, 1), owner=owners)
    def reopen(self, opening: int, owner: tuple[str, str]) -> None:
        if not self.store.in_memory:
            self.openings[opening].shutdown()
        self.openings[opening] = self.opened()
        self.look_at_all(opening, owner)

    def look_at_all(self, opening: int, owner: tuple[str, str]) -> None:
        history = self.view(opening, owner)
        assert history.get_all_chat_ids() == [chat for its, chat in self.models if its == owner]
        newest_first = [chat for its, chat in reversed(self.activity) if its == owner]
        assert [each.chat_id for each in history.list_chats()] == newest_first
        for chat in "cd":
            self.check(history, owner, chat)

    def teardown(self) -> None:
        for owner in OWNERS:
            self.look_at_all(1, owner)
        assert [finding for finding in examine_chats(self.openings[0]._backend()) if finding.level != "ok"] == []
        for opening in self.openings:
            opening.shutdown()


@on(*ALL, *SCALED)
def test_any_sequence_of_operations_does_what_the_model_does(store: Store, tmp_path: Path) -> None:
    numbers = count()

    class Here(Machine):
        @staticmethod
        def new_store() -> Store:
            file = store.kind != "memory" and not store.schema
            return store._replace(place=str(tmp_path / f"chats {next(numbers)}")) if file else store

    quietly = settings(
        max_examples=EXAMPLES[store.kind],
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Here, settings=quietly)  # type: ignore[no-untyped-call]

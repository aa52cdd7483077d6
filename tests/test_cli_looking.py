"""`list --all-users`, `show --status`, `search`, `stats`, and what moves chats, as scripts read them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command import invoke, output, printed, told

from chat_history import ChatHistory, open_history

pytestmark = pytest.mark.usefixtures("empty_place")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture
def store(url: str) -> str:
    """Three owners; one chat has a message of each status."""
    with open_history(url) as history:
        history.add_messages("sums", [user("one"), user("two"), user("three")])
        history.archive_oldest_messages("sums", 1)
        history.save_messages("sums", [user("two"), user("drei")])
        history.create_chat("empty", title="Nothing yet")
        history.for_user("ann", tenant_id="acme").add_message("secret", user("psst ✓"))
        history.for_user("bob", tenant_id="acme").add_message("plans", user("later"))
    return url


def test_list_of_all_users_says_whose_each_chat_is(store: str) -> None:
    lines = [line.split() for line in told("list", "--all-users", "--url", store).splitlines()]
    assert lines[0][-2:] == ["user", "tenant"]
    assert [line[0] for line in lines[1:]] == ["empty", "sums", "secret", "plans"]
    assert lines[3][-2:] == ["ann", "acme"]
    found = printed("list", "--all-users", "--url", store)
    assert [(each["tenant_id"], each["user_id"], each["chat_id"]) for each in found] == [
        ("", "", "empty"),
        ("", "", "sums"),
        ("acme", "ann", "secret"),
        ("acme", "bob", "plans"),
    ]


def test_all_users_and_one_user_exclude_each_other(store: str) -> None:
    assert invoke("list", "--all-users", "--user", "ann", "--url", store).exit_code == 2


@pytest.mark.parametrize(
    ("status", "texts"),
    [
        ("active", ["two", "drei"]),
        ("archived", ["one"]),
        ("superseded", ["three"]),
        ("any", ["one", "two", "three", "drei"]),
    ],
)
def test_show_shows_the_messages_of_a_status(store: str, status: str, texts: list[str]) -> None:
    assert [each["text"] for each in printed("show", "sums", "--status", status, "--url", store)] == texts
    assert told("show", "sums", "--status", status, "--url", store) == "".join(f"user\n{text}\n\n" for text in texts)
    assert told("show", "sums", "--status", status, "--last", "1", "--url", store) == f"user\n{texts[-1]}\n\n"


def test_stats_count_the_whole_store_and_one_owner(store: str) -> None:
    (whole,) = printed("stats", "--url", store)
    today = datetime.now(UTC).date().isoformat()
    with open_history(store) as history:
        size = sum(len(each.payload.encode()) for each in history.iter_messages("sums", status=None))
        assert whole["location"] == history.location
    (ann,) = printed("stats", "--user", "ann", "--tenant", "acme", "--url", store)
    assert {key: ann[key] for key in ("users", "chats", "messages")} == {"users": 1, "chats": 1, "messages": 1}
    assert ann["bytes"] == len(json.dumps(user("psst ✓"), ensure_ascii=False).encode())
    (bob,) = printed("stats", "--user", "bob", "--tenant", "acme", "--url", store)
    assert whole == {
        "location": whole["location"],
        "users": 3,
        "chats": 4,
        "messages": 6,
        "bytes": size + ann["bytes"] + bob["bytes"],
        "active": 4,
        "archived": 1,
        "superseded": 1,
        "days": [{"day": today, "chats": 4, "messages": 6, "bytes": whole["bytes"]}],
    }
    assert "4 chats of 3 users with 6 messages (4 active, 1 archived, 1 superseded)" in told("stats", "--url", store)


def test_stats_go_by_the_day_and_show_the_newest_days() -> None:
    lines: list[dict[str, Any]] = [{"chat_history_export": 1}]
    for day in (1, 2, 3):
        when = f"2026-01-0{day}T12:00:00+00:00"
        chat = {"tenant": "", "user": "", "chat": f"of day {day}"}
        fields = {"title": "", "shared": False, "head": None, "created_at": when, "updated_at": when, "metadata": None}
        lines.append(chat | fields)
    lines.append({"chats": 3, "messages": 0})
    Path("days.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    told("import", "days.jsonl", "--url", "days.db")
    (two,) = printed("stats", "--days", "2", "--url", "days.db")
    assert [each["day"] for each in two["days"]] == ["2026-01-02", "2026-01-03"]
    done = invoke("stats", "--days", "2", "--url", "days.db")
    assert "2026-01-01" not in done.stdout
    assert "--days shows more" in done.stderr


def test_stats_of_an_empty_store_are_zeros() -> None:
    assert told("stats", "--url", "memory:").startswith("0 chats of 0 users with 0 messages (none) of 0 bytes")
    assert printed("stats", "--url", "memory:")[0]["days"] == []


def test_what_was_moved_is_told_as_json_too(store: str) -> None:
    (copied,) = printed("copy", store, "copy.db")
    assert copied == {"chats": 4, "messages": 6, "location": str(Path("copy.db").absolute())}
    (written,) = printed("export", "all.jsonl", "--url", store)
    assert written == {"chats": 4, "messages": 6, "location": "all.jsonl"}
    assert printed("import", "all.jsonl", "--url", "again.db")[0]["messages"] == 6
    assert invoke("export", "-", "--json", "--url", store).exit_code == 2


class Hit(NamedTuple):
    chat_id: str
    title: str
    message_id: str | None
    role: str | None
    snippet: str
    marks: tuple[tuple[int, int], ...]
    created_at: datetime


def test_what_utf8_cannot_hold_is_escaped_as_json_does(url: str) -> None:
    half = {"preview": "nice \ud83d"}
    with open_history(url) as history:
        history.add_message("c", user("a"), metadata=half)
        history.update_chat("c", metadata=half)
    for command in ("list", "show c"):
        (found,) = printed(*command.split(), "--url", url)
        assert found["metadata"] == half
    assert invoke("export", "all.jsonl", "--url", url).exit_code == 0
    assert invoke("import", "all.jsonl", "--url", "again.db").exit_code == 0
    with open_history("again.db") as again:
        assert again.get_chat("c").metadata == again.get_messages("c")[0].metadata == half


def test_no_json_can_change_the_terminal(url: str) -> None:
    odd = "hi \x1b[2J \x9b2J \x7f \x85"
    with open_history(url) as history:
        history.add_message(odd, user(odd), metadata={odd: odd})
        history.update_chat(odd, title=odd)
    for command in (["list"], ["show", odd], ["search", "hi"]):
        assert not set(invoke(*command, "--json", "--url", url).stdout) & set("\x1b\x9b\x7f\x85")
    (found,) = printed("show", odd, "--url", url)
    assert (found["chat_id"], found["metadata"], found["payload"]) == (odd, {odd: odd}, user(odd))


def test_a_path_that_is_not_utf8_is_told_to_scripts() -> None:
    with open_history("sqlite:///%ff.db") as history:
        history.add_message("c", user("a"))
        assert printed("path", "--url", "sqlite:///%ff.db") == [{"location": history.location}]
    (moved,) = printed("copy", "sqlite:///%ff.db", "json:///%fe.json")
    assert moved["location"].endswith("\udcfe.json")


def test_search_shows_what_the_history_finds(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def search(history: ChatHistory, query: str, chat_id: str | None = None, *, limit: int = 20) -> list[Hit]:
        asked.append((history.user_id, query, chat_id, limit))
        when = datetime(2026, 1, 2, tzinfo=UTC)
        found = [Hit("sums", "Sums", "m1", "user", "a \x1b[2J two", ((8, 11),), when)]
        return [*found, Hit("sums", "Sums", None, None, "Sums", (), when)] if chat_id is None else []

    monkeypatch.setattr(ChatHistory, "search", search, raising=False)
    message, title = printed("search", "two", "--limit", "3", "--url", store)
    assert message == {
        "chat_id": "sums",
        "title": "Sums",
        "message_id": "m1",
        "role": "user",
        "snippet": "a \x1b[2J two",
        "marks": [[8, 11]],
        "created_at": "2026-01-02T00:00:00+00:00",
    }
    assert title["message_id"] is title["role"] is None
    shown = told("search", "two", "--url", store)
    assert "a ␛[2J two" in shown
    assert "\x1b" not in shown
    assert invoke("search", "two", "--chat", "plans", "--user", "bob", "--url", store).exit_code == 0
    assert asked == [("", "two", None, 3), ("", "two", None, 20), ("bob", "two", "plans", 20)]


@pytest.mark.skipif(not hasattr(ChatHistory, "search"), reason="this release has no search")
def test_search_finds_messages_and_titles(store: str) -> None:
    found = [json.loads(line) for line in output("search", "drei", "--url", store, "--json").splitlines()]
    assert [(each["chat_id"], each["role"]) for each in found] == [("sums", "user")]
    ((start, end),) = found[0]["marks"]
    assert found[0]["snippet"][start:end] == "drei"
    assert "Nothing" in told("search", "nothing yet", "--url", store)
    nothing = invoke("search", "elsewhere", "--url", store)
    assert (nothing.exit_code, nothing.stdout) == (0, "")


def test_the_names_that_are_documented_for_scripts_are_those_that_are_printed(store: str) -> None:
    page = (Path(__file__).parent.parent / "docs" / "command.md").read_text()
    table = page[page.index("## For scripts") : page.index("## The demo")]
    documented = {
        row[0].strip(" `"): set(re.findall(r"`(\w+)`", row[1]))
        for row in (line.strip("| ").split(" | ", 1) for line in table.splitlines() if line.startswith("| `"))
    }
    places = {"show": ["sums"], "purge": ["--older-than", "0d", "--dry-run"]}
    for command in ("list", "show", "stats", "path", "migrate", "purge", "doctor"):
        fields = set(printed(command, *places.get(command, []), "--url", store)[0])
        assert fields <= documented[command], command
        inner = {"stats": {"day"}, "migrate": {"version", "name", "direction", "up", "down"}}.get(command, set())
        assert documented[command] - fields <= inner, command
    assert set(printed("copy", store, "copy.db")[0]) == documented["copy`, `export`, `import"] - {"export"}
    assert documented["search"] == set(Hit._fields)

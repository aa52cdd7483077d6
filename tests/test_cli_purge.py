"""`chat-history purge`: what is old goes, and nothing else, and nothing by accident."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from command import invoke, output, printed, run, told

from chat_history import open_history
from chat_history.cli.purging import moment

pytestmark = pytest.mark.usefixtures("empty_place")

OWNERS = [("", ""), ("acme", "ann"), ("acme", "bob")]


@pytest.fixture
def store(url: str) -> str:
    """Three owners, each with a chat of 100 days ago and one of now, in which a message is archived, one displaced."""
    lines: list[object] = [{"chat_history_export": 1}]
    for tenant, user in OWNERS:
        for name, age in (("old", 100), ("new", 0)):
            when = (datetime.now(UTC) - timedelta(days=age)).isoformat()
            whose = {"tenant": tenant, "user": user, "chat": name}
            chat = {"title": "", "shared": False, "head": "c", "created_at": when, "updated_at": when, "metadata": None}
            lines.append(whose | chat)
            for position, (message_id, parent, status) in enumerate(
                [("a", None, "archived"), ("b", "a", "superseded"), ("c", "a", "active")]
            ):
                lines.append(
                    whose
                    | {"position": position, "message_id": message_id, "parent": parent, "status": status}
                    | {"role": "user", "format": "openai", "format_version": "1", "created_at": when, "text": "x"}
                    | {"metadata": None, "payload": '{"role": "user", "content": "x"}'}
                )
    lines.append({"chats": 2 * len(OWNERS), "messages": 6 * len(OWNERS)})
    Path("all.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    told("import", "all.jsonl", "--url", url)
    return url


def left(url: str) -> dict[str, list[str]]:
    """The messages that each owner still has, as chat and id."""
    found = {}
    with open_history(url) as history:
        for tenant, user in OWNERS:
            mine = history.for_user(user, tenant_id=tenant)
            chats = sorted(mine.get_all_chat_ids(), reverse=True)
            found[user] = [
                f"{chat} {each.message_id}" for chat in chats for each in mine.iter_messages(chat, status=None)
            ]
    return found


ALL = ["old a", "old b", "old c", "new a", "new b", "new c"]


def test_chats_that_nobody_wrote_to_go_and_those_of_others_stay(store: str) -> None:
    (gone,) = printed("purge", "--older-than", "90d", "--yes", "--url", store)
    assert {key: gone[key] for key in ("user_id", "tenant_id", "chats", "messages", "dry_run")} == {
        "user_id": "",
        "tenant_id": "",
        "chats": 1,
        "messages": 3,
        "dry_run": False,
    }
    assert datetime.fromisoformat(gone["older_than"]) < datetime.fromisoformat(gone["deleted_at"])
    assert left(store) == {"": ALL[3:], "ann": ALL, "bob": ALL}


def test_one_owner_and_every_owner(store: str) -> None:
    told("purge", "--older-than", "90d", "--user", "ann", "--tenant", "acme", "--yes", "--url", store)
    assert left(store) == {"": ALL, "ann": ALL[3:], "bob": ALL}
    receipts = printed("purge", "--older-than", "90d", "--all-users", "--yes", "--url", store)
    assert [(each["user_id"], each["chats"]) for each in receipts] == [("", 1), ("bob", 1)]
    assert left(store) == dict.fromkeys(["", "ann", "bob"], ALL[3:])


@pytest.mark.parametrize(("status", "gone"), [("archived", "old a"), ("superseded", "old b")])
def test_only_messages_of_a_status(store: str, status: str, gone: str) -> None:
    said = told("purge", "--older-than", "90d", "--status", status, "--yes", "--url", store)
    assert said.startswith("0 chats and 1 messages were removed from ")
    assert left(store)[""] == [each for each in ALL if each != gone]


@pytest.mark.parametrize(
    "extra", [[], ["--status", "archived"], ["--all-users"], ["--all-users", "--status", "superseded"]]
)
def test_a_dry_run_counts_what_then_goes_and_removes_nothing(store: str, extra: list[str]) -> None:
    arguments = ["purge", "--older-than", "90d", *extra, "--url", store]
    said = told(*arguments, "--dry-run")
    assert " would be removed from " in said
    assert left(store) == dict.fromkeys(["", "ann", "bob"], ALL)
    assert told(*arguments, "--yes") == said.replace("would be", "were")


def test_a_dry_run_counts_no_prompt_that_leads_a_chat(store: str) -> None:
    with open_history(store) as history:
        history.add_messages("c", [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")])
        history.archive_oldest_messages("c", 3)
    arguments = ["purge", "--older-than", "0d", "--status", "archived", "--url", store]
    (dry,), (wet,) = printed(*arguments, "--dry-run"), printed(*arguments, "--yes")
    assert dry["messages"] == wet["messages"] == 4


@pytest.mark.parametrize("extra", [[], ["--all-users"], ["--status", "archived"]])
def test_a_dry_run_refuses_what_is_refused_without_it(store: str, extra: list[str]) -> None:
    arguments = ["purge", "--older-than", "2999-01-01", *extra, "--url", store]
    dry, wet = invoke(*arguments, "--dry-run"), invoke(*arguments, "--yes")
    assert (dry.exit_code, dry.stdout, dry.stderr) == (wet.exit_code, wet.stdout, wet.stderr)
    assert (dry.exit_code, dry.stdout) == (1, "")
    assert "future" in dry.stderr
    assert left(store)[""] == ALL


def test_without_a_yes_nothing_goes(store: str) -> None:
    done = run("purge", "--older-than", "90d", "--url", store)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--yes" in done.stderr
    assert left(store)[""] == ALL


def test_in_a_process_of_its_own(store: str) -> None:
    assert output("purge", "--older-than", "90d", "--yes", "--url", store).startswith("1 chats and 3 messages were")


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("2w", timedelta(weeks=2)),
        ("0d", timedelta()),
    ],
)
def test_an_age_is_a_number_with_a_unit(text: str, ago: timedelta) -> None:
    assert abs(datetime.now(UTC) - ago - moment(text)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T10:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T10:00:00+02:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_a_date_is_in_utc_unless_it_says_otherwise(text: str, when: datetime) -> None:
    assert moment(text) == when


@pytest.mark.parametrize(
    "text", ["", "90", "d", "-1d", "1.5d", "90 d", "90y", "31.1.2026", "999999w", "tomorrow", "٣d"]
)
def test_what_is_no_age_is_wrong_usage_that_names_what_is(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="90d, 12h"):
        moment(text)
    done = invoke("purge", f"--older-than={text}", "--yes", "--url", "memory:")
    assert (done.exit_code, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["purge", "--yes"],
        ["purge", "--older-than", "90d", "--status", "active", "--yes"],
        ["purge", "--older-than", "90d", "--all-users", "--user", "ann", "--yes"],
    ],
)
def test_wrong_usage_removes_nothing(store: str, arguments: list[str]) -> None:
    assert invoke(*arguments, "--url", store).exit_code == 2
    assert left(store) == dict.fromkeys(["", "ann", "bob"], ALL)

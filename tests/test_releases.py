"""What a release wrote, every later one reads, writes to, and can hand back to it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from command import printed, told
from releases import OWNERS, RELEASES, SCHEMA, contents

from chat_history import open_history
from chat_history.config import choose
from chat_history.doctor import examine
from chat_history.tables import Tables

pytestmark = pytest.mark.usefixtures("empty_place")

FOLDERS = sorted(folder for folder in RELEASES.iterdir() if folder.is_dir())
HELLO = {"role": "user", "content": "Hello!"}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def release(request: pytest.FixtureRequest) -> Path:
    """The folder of a release."""
    folder: Path = request.param
    return folder


@pytest.fixture(params=["json", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, release: Path) -> Iterator[str]:
    """The URL of a copy of what it wrote."""
    if request.param == "postgres":
        postgres = str(request.getfixturevalue("postgres_url"))
        schema = f"release_{uuid4().hex}"
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute((release / "history.sql").read_bytes().replace(SCHEMA.encode(), schema.encode()))
        yield f"{postgres}{'&' if '?' in postgres else '?'}schema={schema}"
    else:
        name = {"json": "history.json", "sqlite": "history.db"}[request.param]
        shutil.copy(release / name, name)
        Path(name).chmod(0o600)
        yield name


@pytest.fixture
def expected(release: Path) -> list[dict[str, Any]]:
    """What was in it, as that release told it."""
    document: list[dict[str, Any]] = json.loads((release / "expected.json").read_text(encoding="utf-8"))
    return document


def read(url: str) -> list[dict[str, Any]]:
    with open_history(url) as history:
        return contents(history)


def test_it_opens_and_reads_as_it_was_written(url: str, expected: list[dict[str, Any]]) -> None:
    assert read(url) == expected
    assert [finding for finding in examine(url) if finding.level != "ok"] == []


def test_every_message_is_still_one_of_its_framework(url: str, expected: list[dict[str, Any]]) -> None:
    formats = {message["format"] for chat in expected for message in chat["messages"]}
    assert len(formats) > 5
    with open_history(url) as history, warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in formats:
            assert history.get_message_history(form, format=form)


def test_it_can_be_written_to(url: str, expected: list[dict[str, Any]]) -> None:
    with open_history(url) as history:
        for tenant, user in OWNERS:
            mine = history.for_user(user, tenant_id=tenant)
            last = mine.get_messages("branches", limit=1)[0]
            added = mine.add_message("branches", HELLO)
            assert (added.parent, added.position) == (last.message_id, last.position + 1)
            kept = mine.get_message_history("pydantic_ai")
            assert mine.save_messages("pydantic_ai", kept) == []
            mine.save_messages("openai", [*mine.get_chat_history("openai"), HELLO])
            assert mine.get_chat_history("openai")[-1] == HELLO
            assert mine.delete_message("archived", mine.get_messages("archived", status="archived")[0].message_id)
            mine.update_chat("empty", title="Something")
            mine.delete_chat_history("fork")
    assert [finding for finding in examine(url) if finding.level != "ok"] == []
    changed = {"branches", "openai", "archived", "empty", "fork"}
    untouched = [chat for chat in read(url) if chat["chat_id"] not in changed]
    assert untouched == [chat for chat in expected if chat["chat_id"] not in changed]


def test_it_goes_back_to_its_own_tables_and_forward_again(url: str, expected: list[dict[str, Any]]) -> None:
    tables = Tables.of(choose(url))
    if tables is None:  # a JSON file
        assert "no tables" in told("migrate", "--url", url)
        return
    before = tables.plan()
    own = before.applied[-1].version
    told("migrate", "--url", url)
    (back,) = printed("migrate", "--to", own, "--yes", "--url", url)
    assert back["applied"] == [{"version": step.version, "name": step.name} for step in before.applied]
    assert {step["direction"] for step in back["steps"]} <= {"down"}
    assert read(url) == expected


def test_it_holds_chats_of_every_owner_and_status(expected: list[dict[str, Any]]) -> None:
    assert {(chat["tenant_id"], chat["user_id"]) for chat in expected} == set(OWNERS)
    statuses = {message["status"] for chat in expected for message in chat["messages"]}
    assert statuses == {"active", "archived", "superseded"}
    assert {chat["shared"] for chat in expected} == {True, False}

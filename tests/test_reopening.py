"""`ChatHistory.settings` opens a history again, in another process, and holds no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg_pool import ConnectionPool
from stores import DURABLE, Store, on

from chat_history import ChatHistory, ConfigError, PostgresChatHistory, open_history, reopen_history
from chat_history.backends.base import Backend
from chat_history.backends.postgres_opening import location_of
from chat_history.config import _with_password

HELLO = {"role": "user", "content": "Hello!"}
SECRET = "s3cr:t/@"
QUOTED = "s3cr%3At%2F%40"
NAMES = ("CHAT_HISTORY_URL", "CHAT_HISTORY_CONFIG", "DATABASE_URL")
POSTGRES = [f"POSTGRES_{name}" for name in ("HOST", "PORT", "DB", "USER", "PASSWORD")]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*NAMES, *POSTGRES):
        monkeypatch.delenv(name, raising=False)


def said(history: ChatHistory) -> Any:
    """The settings after a journey through a file."""
    return json.loads(json.dumps(history.settings))


@on(*DURABLE, "relaxed")
def test_settings_open_the_same_history_again(store: Store) -> None:
    with store.open() as history:
        history.for_user("ann", tenant_id="acme").add_message("c", HELLO)
        settings = said(history.for_user("ann", tenant_id="acme"))
    with reopen_history(settings) as again:
        assert again.get_chat_history("c") == [HELLO]
        assert (again.user_id, again.tenant_id) == ("ann", "acme")
        assert said(again) == settings
    with open_history(settings) as again:
        assert again.get_chat_history("c") == [HELLO]


@pytest.mark.parametrize("config", ["json:///chats.json", "sqlite:///chats.db", Path("chats.db")])
def test_a_relative_path_is_the_same_file_from_every_folder(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_history(config, timeout=5, durability="relaxed") as history:
        history.add_message("c", HELLO)
        settings = said(history)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with reopen_history(settings) as again:
        assert again.get_chat_history("c") == [HELLO]
        assert (settings["timeout"], settings["durability"]) == (5, "relaxed")


def test_settings_hold_no_password_and_all_else(postgres_url: str) -> None:
    url = urlsplit(postgres_url)
    user, _, place = url.netloc.rpartition("@")
    secret = url._replace(netloc=f"{user.split(':')[0]}:{QUOTED}@{place}").geturl()
    options = "sslmode=prefer&application_name=a%20b&sslpassword=s3cr&schema=other&prepare=false&max_connections=3"
    with open_history(f"{secret}{'&' if url.query else '?'}{options}") as history:
        history.add_message("c", HELLO)
        settings = said(history)
    assert "s3cr" not in json.dumps(settings)
    assert {"sslmode=prefer", "application_name=a%20b"} <= set(settings["url"].partition("?")[2].split("&"))
    assert (settings["schema"], settings["prepare"], settings["max_connections"]) == ("other", False, 3)
    with reopen_history(settings) as again:
        assert again.get_chat_history("c") == [HELLO]


def test_settings_name_every_host_that_was_given(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = urlsplit(postgres_url)
    user, host = (url.username or "", url.query.partition("host=")[2])
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{user}:{QUOTED}@{url.path}?host=/nowhere,{host}")
    with open_history({"backend": "postgres"}) as history:
        history.add_message("c", HELLO)
        settings = said(history)
    assert f"host=/nowhere,{host}" in settings["url"]
    assert _with_password(settings)["password"] == SECRET
    with reopen_history(settings) as again:
        assert again.get_chat_history("c") == [HELLO]
        assert said(again) == settings


@pytest.mark.parametrize(
    ("environment", "is_found"),
    [
        ({"POSTGRES_PASSWORD": SECRET}, True),
        ({"POSTGRES_PASSWORD": SECRET, "POSTGRES_HOST": "h", "POSTGRES_USER": "u"}, True),
        ({"POSTGRES_PASSWORD": SECRET, "POSTGRES_HOST": "other"}, False),
        ({"POSTGRES_PASSWORD": SECRET, "POSTGRES_USER": "other"}, False),
        ({"DATABASE_URL": f"postgres://u:{QUOTED}@h/d?sslmode=require"}, True),
        ({"DATABASE_URL": f"postgresql://u:{QUOTED}@h:5432/d?schema=s"}, True),
        ({"DATABASE_URL": f"postgresql://u:{QUOTED}@h:5433/d"}, False),
        ({"DATABASE_URL": f"postgresql://u:{QUOTED}@h/other"}, False),
        ({"DATABASE_URL": "mysql://u:p@h/d"}, False),
        ({"CHAT_HISTORY_URL": f"postgresql://u:{QUOTED}@h/d"}, True),
        ({"CHAT_HISTORY_URL": f"postgresql://v:{QUOTED}@h/d"}, False),
        ({"CHAT_HISTORY_URL": "chats.db"}, False),
        ({}, False),
    ],
)  # fmt: skip
def test_a_password_comes_from_the_environment_that_names_the_same_place(
    environment: dict[str, str], is_found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = _with_password({"backend": "postgres", "url": "postgresql://u@h/d?sslmode=require"})
    assert settings.get("password") == (SECRET if is_found else None)


def test_a_password_that_is_given_stays() -> None:
    settings = {"backend": "postgres", "url": "postgresql://u:mine@h/d"}
    assert "password" not in _with_password(settings)


def test_what_nothing_can_open_again_says_so(postgres_url: str) -> None:
    with open_history("memory:") as history, pytest.raises(ConfigError, match="keep it in a file"):
        _ = history.settings
    with (
        ConnectionPool(postgres_url, open=True) as pool,
        PostgresChatHistory(pool=pool, schema="pooled") as history,
        pytest.raises(ConfigError, match="give a URL"),
    ):
        _ = history.settings
    with pytest.raises(ConfigError, match="does not say"):
        _ = Backend.settings.fget(object())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("parts", "location"),
    [
        ({"user": "u", "host": "h", "port": "1", "dbname": "d"}, "postgresql://u@h:1/d"),
        ({"user": "a/b@c", "host": "::1", "dbname": "d"}, "postgresql://a%2Fb%40c@[::1]/d"),
        ({"host": "/tmp", "port": "5433", "dbname": "d"}, "postgresql:///d?host=/tmp&port=5433"),
        ({"host": "a,b", "port": "1,2", "dbname": "d"}, "postgresql:///d?host=a,b&port=1,2"),
    ],
)
def test_a_location_names_the_whole_place(parts: dict[str, str], location: str) -> None:
    from psycopg.conninfo import conninfo_to_dict

    assert location_of(parts) == location
    assert conninfo_to_dict(location) == parts

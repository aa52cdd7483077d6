"""From argument, dict, URL, file and environment to a history: every way in, who wins, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool

from chat_history import (
    ChatHistory,
    ConfigError,
    InvalidArgumentError,
    JSONChatHistory,
    PostgresChatHistory,
    SQLChatHistory,
    StorageError,
    open_history,
)
from chat_history.backends.sqlite import SQLiteBackend
from chat_history.config import _conninfo
from chat_history.settings import expanded, merged, with_environment

VARIABLES = [
    *("CHAT_HISTORY_URL", "CHAT_HISTORY_CONFIG", "DATABASE_URL"),
    *("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"),
    *("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSERVICE"),
]
HELLO = {"role": "user", "content": "Hello!"}


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory and home, and nothing in the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def files() -> list[str]:
    return sorted(str(path) for path in Path.cwd().rglob("*"))


class Notebook(SQLiteBackend):
    """A backend of somebody else: it remembers what it was made with."""

    def __init__(self, *, pages: int, colour: str = "blue", url: str = "") -> None:
        super().__init__(":memory:")
        self.made_with = (pages, colour, url)


# Every way in.


def write_toml(path: str, text: str) -> str:
    Path(path).write_text(text)
    return path


SQLITE_WAYS: dict[str, Any] = {
    "a URL": lambda: "sqlite:///chats.db",
    "a URL with an absolute path": lambda: f"sqlite:///{Path.cwd()}/chats.db",
    "a URL as SQLAlchemy writes it": lambda: "sqlite+pysqlite:///chats.db",
    "a URL with an upper-case scheme": lambda: "SQLITE:///chats.db",
    "a URL with options": lambda: "sqlite:///chats.db?durability=relaxed&timeout=5",
    "text that is a path": lambda: "chats.db",
    "a path": lambda: Path("chats.db"),
    "a dict": lambda: {"backend": "sqlite", "db_path": "chats.db"},
    "a dict with every option": lambda: {
        "backend": "sqlite",
        "db_path": Path("chats.db"),
        "durability": "relaxed",
        "timeout": "2.5",
        "migrations": None,
        "user_id": "",
        "tenant_id": None,
    },
    "a dict with a URL": lambda: {"url": "sqlite:///chats.db", "timeout": 5},
    "a dict with a URL and a backend": lambda: {"url": "sqlite:///chats.db", "backend": "sqlite"},
    "a key beside the URL": lambda: {"url": "sqlite:///other.db", "db_path": "chats.db"},
    "a file": lambda: write_toml("here.toml", 'backend = "sqlite"\ndb_path = "chats.db"\ntimeout = 5\n'),
    "a path of a file": lambda: Path(write_toml("here.toml", 'url = "sqlite:///chats.db"\n')),
    "a table of a file": lambda: write_toml("app.toml", '[chat_history]\nurl = "sqlite:///chats.db"\n[app]\nx = 1\n'),
    "a backend": lambda: SQLiteBackend("chats.db"),
}
JSON_WAYS: dict[str, Any] = {
    "a URL": lambda: "json:///chats.json",
    "a URL with an absolute path": lambda: f"json:///{Path.cwd()}/chats.json?durability=relaxed",
    "text that is a path": lambda: "chats.json",
    "a path": lambda: Path("chats.json"),
    "a dict": lambda: {"backend": "json", "storage_path": "chats.json", "durability": "full", "timeout": 3},
    "a file": lambda: write_toml("here.toml", 'backend = "json"\nstorage_path = "chats.json"\n'),
}


@pytest.mark.parametrize("way", SQLITE_WAYS)
def test_every_way_of_naming_a_sqlite_file_opens_it(way: str) -> None:
    with SQLChatHistory(db_path="chats.db") as history:
        history.add_message("greeting", HELLO)
    with open_history(SQLITE_WAYS[way]()) as history:
        assert history.get_chat_history("greeting") == [HELLO]


@pytest.mark.parametrize("way", JSON_WAYS)
def test_every_way_of_naming_a_json_file_opens_it(way: str) -> None:
    with JSONChatHistory(storage_path="chats.json") as history:
        history.add_message("greeting", HELLO)
    with open_history(JSON_WAYS[way]()) as history:
        assert history.get_chat_history("greeting") == [HELLO]


@pytest.mark.parametrize(
    "way",
    [
        *("memory:", "memory://", "sqlite://", "sqlite:///:memory:", "memory:?timeout=5"),
        *({"backend": "sqlite", "db_path": ":memory:"}, {"url": "memory:"}),
    ],
)
def test_memory_leaves_no_file(way: Any) -> None:
    with open_history(way) as history:
        history.add_message("greeting", HELLO)
        assert history.get_chat_history("greeting") == [HELLO]
    assert files() == []


def test_a_url_is_percent_decoded() -> None:
    with open_history("sqlite:///what%20is%20100%25%3F.db") as history:
        history.add_message("greeting", HELLO)
    assert Path("what is 100%?.db").exists()


@pytest.mark.parametrize(("scheme", "ending"), [("sqlite", b".db"), ("json", b".json")])
def test_a_path_that_is_no_text_in_the_locale_opens_from_a_command_line(scheme: str, ending: bytes) -> None:
    place = os.fsdecode(b"\xfc\xdf" + ending)  # as Python has it in sys.argv
    with open_history(f"{scheme}:///{place}") as history:
        history.add_message("c", HELLO)
    with open_history(place) as history:
        assert history.get_chat_history("c") == [HELLO]


def test_a_tilde_is_the_home_directory() -> None:
    with open_history("~/chats.db") as history:
        history.add_message("greeting", HELLO)
    assert (Path.home() / "chats.db").exists()
    assert files() == []


def test_a_file_may_be_as_editors_of_windows_write_it() -> None:
    Path("chat_history.toml").write_bytes(b'\xef\xbb\xbf[chat_history]\r\nurl = "sqlite:///chats.db"\r\n')
    with open_history() as history:
        assert history.location == str(Path("chats.db").resolve())


def test_paths_in_a_file_are_relative_to_the_file() -> None:
    Path("settings").mkdir()
    config = write_toml("settings/chat_history.toml", 'backend = "sqlite"\ndb_path = "chats.db"\n')
    with open_history(config) as history:
        history.add_message("greeting", HELLO)
    assert Path("settings/chats.db").exists()
    assert not Path("chats.db").exists()


@pytest.mark.parametrize(
    ("config", "made_with"),
    [
        ({"pages": 3}, (3, "blue", "")),
        ({"pages": 3, "colour": "red", "url": "notebook://shelf", "user_id": "ann"}, (3, "red", "notebook://shelf")),
    ],
)
def test_a_class_gets_the_keys_that_are_its_own(config: dict[str, Any], made_with: tuple[Any, ...]) -> None:
    with open_history({"class": f"{__name__}.Notebook", **config}) as history:
        backend = history._backend()
        assert isinstance(backend, Notebook)
        assert backend.made_with == made_with
        assert history.user_id == config.get("user_id", "")


def test_a_class_that_is_not_finished_is_told_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"Backend cannot be opened.*: chat_ids, clear, close"):
        open_history({"class": "chat_history.backends.base.Backend"})


def test_an_installed_backend_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = Path("site/notebook-1.0.dist-info")
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: notebook\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[chat_history.backends]\nnotebook = {__name__}:Notebook\n")
    monkeypatch.syspath_prepend(str(Path("site").resolve()))
    with open_history({"backend": "notebook", "pages": 7}) as history:
        backend = history._backend()
        assert isinstance(backend, Notebook)
        assert backend.made_with == (7, "blue", "")
    with open_history({"url": "notebook://ann:p@ss/w?rd@shelf/7", "pages": 7, "user_id": "ann"}) as history:
        backend = history._backend()
        assert isinstance(backend, Notebook)
        assert backend.made_with == (7, "blue", "notebook://ann:p@ss/w?rd@shelf/7")
        assert history.user_id == "ann"
    with pytest.raises(ConfigError, match="json, sqlite, postgres, notebook"):
        open_history({"backend": "notepad", "pages": 7})


# Who wins.


def location(config: Any = None, **arguments: Any) -> str:
    with open_history(config, **arguments) as history:
        return Path(history.location).name


def test_without_argument_the_environment_then_the_file_then_the_data_directory_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert location() == "chat_history.db"
    (default,) = Path.home().rglob("chat_history.db")
    assert default.parent.name == "chat_history"
    assert default.parent.stat().st_mode & 0o077 == 0
    write_toml("chat_history.toml", 'url = "sqlite:///from_working_directory.db"\n')
    assert location() == "from_working_directory.db"
    monkeypatch.setenv("CHAT_HISTORY_CONFIG", write_toml("other.toml", 'url = "sqlite:///from_config.db"\n'))
    assert location() == "from_config.db"
    monkeypatch.setenv("CHAT_HISTORY_URL", "sqlite:///from_url.db")
    assert location() == "from_url.db"
    assert location("sqlite:///from_argument.db") == "from_argument.db"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES[:8]:
        monkeypatch.setenv(name, "")
    assert location() == "chat_history.db"
    assert with_environment({}) == {}


def test_a_variable_may_name_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_HISTORY_URL", "chats.json")
    assert location() == "chats.json"


def test_an_argument_wins_over_config() -> None:
    with SQLChatHistory({"db_path": "config.db", "user_id": "ann"}, db_path="argument.db", user_id="bob") as history:
        assert Path(history.location).name == "argument.db"
        assert history.user_id == "bob"
    with JSONChatHistory({"storage_path": "config.json"}, storage_path="argument.json") as json_history:
        assert Path(json_history.location).name == "argument.json"
    with SQLChatHistory({"url": "sqlite:///config.db"}, db_path="argument.db") as history:
        assert Path(history.location).name == "argument.db"
    with open_history({"url": "memory:", "user_id": "ann", "tenant_id": "acme"}, user_id="bob") as opened:
        assert (opened.user_id, opened.tenant_id) == ("bob", "acme")
    with pytest.raises(ConfigError, match="timeout"):
        open_history("memory:?timeout=5", timeout=-1)


def test_none_counts_as_not_given() -> None:
    with SQLChatHistory(config={"db_path": "config.db", "timeout": None}, db_path=None) as history:
        assert Path(history.location).name == "config.db"


def test_the_named_classes_have_the_defaults_of_rakam() -> None:
    with JSONChatHistory() as one, SQLChatHistory() as two:
        one.add_message("greeting", HELLO)
        two.add_message("greeting", HELLO)
    assert Path("chat_history.json").exists()
    assert Path("chat_history.db").exists()


def test_the_named_classes_are_histories() -> None:
    with JSONChatHistory() as history:
        assert isinstance(history, ChatHistory)
        assert repr(history).startswith("<JSONChatHistory ")
        assert history.for_user("ann").user_id == "ann"


# Postgres: argument, config, POSTGRES_*, DATABASE_URL, and then libpq.


@pytest.mark.parametrize(
    ("arguments", "config", "environment", "expected"),
    [
        ({}, {}, {}, {}),
        ({"host": "a"}, {"host": "b"}, {"POSTGRES_HOST": "c"}, {"host": "a"}),
        ({}, {"host": "b"}, {"POSTGRES_HOST": "c", "DATABASE_URL": "postgresql://d/e"}, {"host": "b"}),
        ({}, {}, {"POSTGRES_HOST": "c", "DATABASE_URL": "postgresql://u:p@d/e"}, {"host": "c"}),
        ({}, {"host": "b"}, {"DATABASE_URL": "postgresql://u:p@d/e"}, {"host": "b"}),
        # A password of POSTGRES_* goes with its host, or with the one that the code names; never to DATABASE_URL's.
        ({}, {"host": "b"}, {"POSTGRES_PASSWORD": "s"}, {"host": "b", "password": "s"}),
        (
            {},
            {},
            {"DATABASE_URL": "postgresql://u@d/e", "POSTGRES_PASSWORD": "s", "POSTGRES_DB": "x"},
            {"user": "u", "host": "d", "dbname": "e"},
        ),
        ({}, {}, {"POSTGRES_DB": "x", "POSTGRES_PORT": "6432"}, {"dbname": "x", "port": "6432"}),
        ({"database": "x"}, {}, {"DATABASE_URL": "postgres://d:1/e"}, {"host": "d", "port": "1", "dbname": "x"}),
        # A URL stands for itself: nothing of the environment is added, what stands beside it wins.
        ({"url": "postgresql://d"}, {}, {"POSTGRES_PASSWORD": "s", "POSTGRES_USER": "u"}, {"host": "d"}),
        ({"url": "postgresql://d"}, {"host": "b", "password": "s"}, {}, {"host": "d"}),
        ({"host": "a"}, {"url": "postgresql://d:5433/e"}, {}, {"host": "a", "port": "5433", "dbname": "e"}),
        ({"password": ""}, {"url": "postgresql://u:s@d"}, {}, {"host": "d", "user": "u", "password": ""}),
        ({"url": "postgresql+psycopg://d?sslmode=require"}, {}, {}, {"host": "d", "sslmode": "require"}),
        ({"url": "postgresql://h1:1,h2:2/e"}, {}, {}, {"host": "h1,h2", "port": "1,2", "dbname": "e"}),
    ],
)  # fmt: skip
def test_where_the_connection_comes_from(
    arguments: dict[str, Any],
    config: dict[str, Any],
    environment: dict[str, str],
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = with_environment(merged("postgres", config, arguments))
    settings.pop("backend")
    assert conninfo_to_dict(_conninfo(settings)) == expected


def test_our_options_are_taken_out_of_a_url_and_libpqs_are_left() -> None:
    url = "postgres://u:p%40@h/d?schema=chats&sslmode=require&prepare=false&options=-c%20geqo%3Doff&timeout=5"
    assert expanded({"url": url}) == {
        "backend": "postgres",
        "schema": "chats",
        "prepare": "false",
        "timeout": "5",
        "url": "postgresql://u:p%40@h/d?sslmode=require&options=-c%20geqo%3Doff",
    }


@pytest.mark.parametrize(
    "password",
    ["", " ", "'", '"', "\\", "a b", "p@ss", "p/w", "p:w", "p?w=1&x", "100%", "%41", "é✓", "host=evil", "' host='evil"],
)
def test_any_password_works(password: str) -> None:
    assert conninfo_to_dict(_conninfo({"host": "h", "password": password})) == {"host": "h", "password": password}


def test_a_password_in_a_url_may_hold_a_question_mark() -> None:
    settings = merged("postgres", None, {"url": "postgresql://u:p?schema=w@h/d?schema=x"})
    assert settings.pop("backend") == "postgres"
    assert settings.pop("schema") == "x"
    assert conninfo_to_dict(_conninfo(settings))["password"] == "p?schema=w"


@pytest.fixture
def parts(postgres_url: str) -> dict[str, Any]:
    found = conninfo_to_dict(postgres_url)
    names = {"host": "host", "port": "port", "dbname": "database", "user": "user", "password": "password"}
    return {ours: found[theirs] for theirs, ours in names.items() if theirs in found}


@pytest.mark.parametrize("way", ["url", "dict", "keywords", "config", "POSTGRES", "DATABASE_URL", "PG", "file"])
def test_every_way_of_naming_a_postgres_database_opens_it(
    way: str, postgres_url: str, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_history(postgres_url) as history:
        history.add_message(f"by {way}", HELLO)
    with opened_postgres(way, postgres_url, parts, monkeypatch) as history:
        assert history.get_chat_history(f"by {way}") == [HELLO]


def opened_postgres(way: str, url: str, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> ChatHistory:
    match way:
        case "url":
            return PostgresChatHistory(url=url)
        case "dict":
            return open_history({"backend": "postgres", **parts, "min_connections": 1, "max_connections": 2})
        case "keywords":
            return PostgresChatHistory(**parts, min_connections=1, max_connections=2, timeout=20)
        case "config":
            return PostgresChatHistory(config=parts)
        case "DATABASE_URL":
            monkeypatch.setenv("DATABASE_URL", url)
            return PostgresChatHistory()
        case "file":
            return open_history(write_toml("chats.toml", f"backend = 'postgres'\nurl = {json.dumps(url)}\n"))
    for key, value in parts.items():
        short = {"database": "DB" if way == "POSTGRES" else "DATABASE"}.get(key, key.upper())
        monkeypatch.setenv(f"{way}_{short}" if way == "POSTGRES" else f"PG{short}", value)
    return PostgresChatHistory()


def test_a_pool_is_used_and_stays_open(postgres_url: str) -> None:
    with ConnectionPool(postgres_url, min_size=1, max_size=2, open=True) as pool:
        with PostgresChatHistory(pool=pool) as history:
            history.add_message("by pool", HELLO)
        with PostgresChatHistory(config={"pool": pool}) as history:
            assert history.get_chat_history("by pool") == [HELLO]
        assert not pool.closed


# What is refused: in words that help, and before anything is opened.


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (42, ["a int", "a URL", "a path", "a dict"]),
        ("chats", ["a URL", ".db", ".toml"]),
        ("mysql://h/d", ["no backend", "postgresql://"]),
        ("sqlite://chats.db", ["three slashes", "sqlite:///"]),
        ("sqlite:chats.db", ["three slashes"]),
        ("json://", ["json:///chats.json"]),
        ("json:///", ["json:///chats.json"]),
        ("memory:///chats.db", ["memory:"]),
        ("postgresql:h/d", ["postgresql://"]),
        ("sqlite:///chats.db?durabilty=full", ['"durabilty"', 'did you mean "durability"']),
        ("sqlite:///chats.db?timeout=soon", ["timeout", "seconds"]),
        ("sqlite:///chats.db?timeout", ["timeout", "seconds"]),
        ("json:///chats.json?migrations=x", ['"migrations"', "durability, timeout"]),
        ("postgresql://h/d?sslmod=require", ['"sslmod"', 'did you mean "sslmode"']),
        ("postgresql://h/d?scheme=x", ['"scheme"', 'did you mean "schema"']),
        ("postgresql://h:port/d", ["percent-encoded"]),
        ("postgresql://h/d?prepare=maybe", ["prepare", "true or false"]),
        ("postgresql://h/d?min_connections=5&max_connections=4", ["min_connections is 5", "4"]),
        ({}, ["backend, url or class"]),
        ({"db_path": "chats.db"}, ["backend, url or class"]),
        ({"backend": "sqlite", "class": "a.B"}, ["backend, url or class"]),
        ({"backend": "postgresql"}, ['"postgresql"', 'did you mean "postgres"', "json, sqlite, postgres"]),
        ({"backend": ["sqlite"]}, ["json, sqlite, postgres"]),
        ({"backend": "sqlite", "db_pth": "x", "size": 1}, ['"db_pth" (did you mean "db_path"?)', '"size"']),
        ({"backend": "sqlite", "path": "x.db"}, ["accepted: backend, db_path, durability, max_messages, migrations,"]),
        ({"backend": "sqlite", 1: 2}, ["keys", "int"]),
        ({"backend": "sqlite", "db_path": 3}, ["db_path", "3", "a path"]),
        ({"backend": "sqlite", "db_path": ""}, ["db_path", "a path"]),
        ({"backend": "sqlite", "db_path": "a\0b.db"}, ["db_path", "a path"]),
        ({"backend": "json", "storage_path": "a\ud800.json"}, ["storage_path", "a path", "encode"]),
        ("chats\ud800.db", ["db_path", "a path"]),
        ("a\0.toml", ["no path is like that"]),
        ("a\ud800.toml", ["no path is like that"]),
        ("sqlite:///chats\ud800.db", ["half of a surrogate pair"]),
        ("postgresql://h/d?x\ud800=1", ["half of a surrogate pair"]),
        ({"backend": "sqlite", "durability": "fast"}, ["durability", '"full" or "relaxed"']),
        ({"backend": "sqlite", "durability": True}, ["durability", '"full" or "relaxed"']),
        ({"backend": "sqlite", "timeout": -1}, ["timeout", "-1", "seconds"]),
        ({"backend": "sqlite", "timeout": True}, ["timeout", "True", "seconds"]),
        ({"backend": "sqlite", "timeout": float("nan")}, ["timeout", "nan", "seconds"]),
        ({"backend": "sqlite", "timeout": [1]}, ["timeout", "list", "seconds"]),
        ({"backend": "sqlite", "migrations": 3}, ["migrations", "3", "text"]),
        ({"backend": "sqlite", "migrations": ""}, ["migrations: '' is not a package"]),
        ({"backend": "sqlite", "migrations": "."}, ["migrations: '.' is not a package"]),
        ({"backend": "sqlite", "migrations": "..x"}, ["migrations: '..x' is not a package"]),
        ({"backend": "sqlite", "migrations": "no_such_package"}, ["migrations: 'no_such_package' is not a package"]),
        ({"url": "postgresql://h/d?migrations=no_such_package"}, ["migrations: 'no_such_package' is not a package"]),
        ({"backend": "sqlite", "user_id": 5}, ["user_id", "5", "text"]),
        ({"class": f"{__name__}.Notebook", "pages": 3, "tenant_id": "a\0b"}, ["tenant_id", "NUL"]),
        ({"backend": "json", "url": "sqlite:///chats.db"}, ["another backend"]),
        ({"url": 3}, ["url", "int"]),
        ({"backend": "postgres", "port": "54b2"}, ["port", "str", "1 to 65535"]),
        ({"backend": "postgres", "port": 70000}, ["port", "70000", "1 to 65535"]),
        ({"backend": "postgres", "port": True}, ["port", "1 to 65535"]),
        ({"backend": "postgres", "password": 12345}, ["password", "int", "text"]),
        ({"backend": "postgres", "password": "a\0b"}, ["password", "NUL"]),
        ({"backend": "postgres", "password": "a\ud800"}, ["password", "surrogates"]),
        ({"backend": "postgres", "pool": object(), "host": "h"}, ["host", "pool"]),
        ({"class": "Notebook"}, ["dotted path"]),
        ({"class": 3}, ["dotted path"]),
        ({"class": "..x.Notebook"}, ["cannot import"]),
        ({"class": "no_such_module.Notebook"}, ["cannot import", "no_such_module"]),
        ({"class": f"{__name__}.Nobody"}, ["cannot import", "Nobody"]),
        ({"class": "pathlib.Path"}, ["not a subclass"]),
        ({"class": f"{__name__}.Notebook", "page": 3}, ['"page" (did you mean "pages"?)', "colour"]),
        ({"class": f"{__name__}.Notebook"}, ["Notebook", "pages"]),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_words_that_help(config: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        open_history(config)
    for word in words:
        assert word in str(caught.value)
    assert files() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("backend = sqlite", ["chat_history.toml", "not TOML", "line 1"]),
        (b"\xff", ["not UTF-8"]),
        ("chat_history = 3", ["[chat_history]"]),
        ('backend = "sqlite"\ndb_pth = "x.db"', ["chat_history.toml: ", '"db_pth"']),
        ("[chat_history]\n", ["backend, url or class"]),
        ('backend = "sqlite"\nuser_id = 5', ["chat_history.toml: ", "user_id", "5"]),
        ('backend = "sqlite"\nmigrations = "no_such_package"', ["chat_history.toml: ", "'no_such_package'"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named(text: str | bytes, words: list[str]) -> None:
    Path("chat_history.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        open_history()
    for word in words:
        assert word in str(caught.value)
    assert files() == [str(Path("chat_history.toml").resolve())]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CHAT_HISTORY_URL", "sqlite:/chats.db", ["three slashes"]),
        ("CHAT_HISTORY_URL", " sqlite:///chats.db", ["white space"]),
        ("CHAT_HISTORY_URL", "sqlite:///chats.db\n", ["white space"]),
        ("CHAT_HISTORY_CONFIG", "missing.toml", ["missing.toml", "No such file"]),
        ("DATABASE_URL", "mysql://h/d", ["no backend"]),
        ("DATABASE_URL", "postgresql://u:secret@1@h/d", ["percent-encoded"]),
        ("DATABASE_URL", "postgresql://h/d?sslmod=require", ['did you mean "sslmode"']),
        ("DATABASE_URL", "sqlite:///d.db", ["postgresql://"]),
        ("POSTGRES_PORT", "tcp://10.0.0.1:5432", ["port", "1 to 65535"]),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    name: str, value: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        open_history() if name.startswith("CHAT") else PostgresChatHistory()
    for word in [f"{name}: ", *words]:
        assert word in str(caught.value)
    assert files() == []


def test_the_named_classes_refuse_what_is_for_another() -> None:
    for config in ({"url": "sqlite:///chats.db"}, {"backend": "sqlite"}):
        with pytest.raises(ConfigError, match="another backend"):
            JSONChatHistory(config)
    with pytest.raises(ConfigError, match="storage_path"):
        JSONChatHistory("chats.json")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r'"storage_path".*db_path'):
        SQLChatHistory({"storage_path": "chats.json"})
    assert files() == []


def test_an_owner_that_cannot_be_used_is_refused_before_the_store_is_opened() -> None:
    for owner in ({"user_id": 3}, {"tenant_id": "a\0b"}):
        with pytest.raises(InvalidArgumentError, match=next(iter(owner))):
            SQLChatHistory(config=owner)
        with pytest.raises(InvalidArgumentError, match=next(iter(owner))):
            open_history("chats.json", **owner)  # type: ignore[arg-type]
    assert files() == []


def test_an_argument_wins_over_an_owner_of_the_configuration_that_cannot_be_used() -> None:
    with open_history({"url": "memory:", "user_id": 5}, user_id="ann") as history:
        assert history.user_id == "ann"


def test_migrations_are_named_beside_any_place_with_tables() -> None:
    for place in ("chats.db", "sqlite:///chats.db", {"db_path": "chats.db", "backend": "sqlite"}):
        with pytest.raises(ConfigError, match="'no_such_package' is not a package"):
            open_history(place, migrations="no_such_package")
    with pytest.raises(ConfigError, match='unknown key for json "migrations"'):
        open_history("chats.json", migrations="no_such_package")
    assert files() == []


def test_a_backend_that_is_open_takes_no_more_options() -> None:
    backend = SQLiteBackend(":memory:")
    with pytest.raises(ConfigError, match="durability and migrations and timeout"):
        open_history(backend, durability="full", timeout=3, migrations="my_app.migrations")
    with open_history(backend, user_id="ann") as history:
        assert history.user_id == "ann"


def test_a_data_directory_that_cannot_be_made_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("taken").write_text("")
    monkeypatch.setenv("HOME", str(Path("taken").resolve()))
    monkeypatch.setenv("XDG_DATA_HOME", str(Path("taken").resolve()))
    with pytest.raises(StorageError, match="CHAT_HISTORY_URL"):
        open_history()


# Passwords.

SECRET = "hunter2"


@pytest.mark.parametrize(
    "config",
    [
        f"postgresql://user:{SECRET}@[::1/d",
        f"postgresql://user:{SECRET}%zz@h/d",
        f"postgresql://user:{SECRET}%00@h/d",
        f"postgresql://user:{SECRET}\ud800@h/d",
        f"postgresql://user:{SECRET}\0@h/d",
        f"postgresql://user:{SECRET}/x@h/d",
        f"postgresql://user:x/{SECRET}@h:port/d",
        f"postgresql://user:1/{SECRET}@h/d",
        f"postgresql://user:/{SECRET}@h/d",
        f"postgresql://user:1/?{SECRET}@h/d",
        f"postgresql://user:1/?{SECRET}@h/d=1",
        f"postgresql://user:{SECRET}@h/d?nonsense=1",
        f"postgresql://user:{SECRET}@h:99999x/d",
        f"postgresql:/user:{SECRET}@h/d",
        f"postgresql//user:{SECRET}@h/d",
        f"postgress://user:{SECRET}@h/d",
        f"mysql://user:{SECRET}@h/d",
        f"sqlite://user:{SECRET}@h/d.db",
        f"sqlite:///x.db?user:{SECRET}@h",
        f"memory://user:{SECRET}@h",
        f"user:{SECRET}@h",
        Path(f"user:{SECRET}@h"),
        {"backend": f"postgresql://user:{SECRET}@h/d"},
        {"backend": "postgres", "password": [SECRET]},
        {"backend": "postgres", "password": f"{SECRET}\0"},
        {"backend": "postgres", "password": SECRET, "port": SECRET},
        {"backend": "postgres", "password": SECRET, "prepare": SECRET},
        {"backend": "postgres", "password": SECRET, "hots": "h"},
        {"backend": "postgres", f"password={SECRET}": 1},
        {"backend": "postgres", "durability": SECRET},
        {"backend": "postgres", "timeout": SECRET},
        {"url": [SECRET]},
        {"url": f"user:{SECRET}@h"},
        {"class": f"{__name__}.Notebook", "pasword": SECRET, "pages": 1},
    ],
    ids=range(34),
)
def test_no_password_is_in_an_error(config: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        open_history(config)
    assert_hidden(caught.value)


@pytest.mark.parametrize("name", ["CHAT_HISTORY_URL", "DATABASE_URL", "POSTGRES_PORT"])
def test_no_password_of_the_environment_is_in_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"mysql://user:{SECRET}@h/d")
    with pytest.raises(ConfigError) as caught:
        open_history() if name.startswith("CHAT") else PostgresChatHistory()
    assert_hidden(caught.value)


def test_no_password_of_a_file_is_in_an_error() -> None:
    Path("chat_history.toml").write_text(f'backend = "postgres"\npassword = "{SECRET}"\nport = \n')
    with pytest.raises(ConfigError) as caught:
        open_history()
    assert_hidden(caught.value)


def assert_hidden(error: BaseException) -> None:
    """Nowhere in the error, nor in any that it came from; the lines of code in a traceback may name the constant."""
    for each in chain(error):
        assert SECRET not in str(each)
        assert SECRET not in repr(each)
        assert SECRET not in repr(each.args)
        assert SECRET not in "".join(traceback.format_exception_only(each))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_no_password_is_in_the_error_of_a_server_that_is_not_there() -> None:
    with pytest.raises(StorageError) as caught:
        open_history(f"postgresql://user:{SECRET}@127.0.0.1:1/d?timeout=5")
    assert_hidden(caught.value)


def test_no_password_is_in_a_history(postgres_url: str, parts: dict[str, Any]) -> None:
    with PostgresChatHistory(**(parts | {"password": SECRET})) as history:
        assert SECRET not in repr(history)
        assert SECRET not in history.location
        assert SECRET not in repr(history._backend())


# Cost.


def test_configuration_imports_nothing_that_it_does_not_use() -> None:
    code = "import sys, chat_history.config; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    loaded = set(result.stdout.split())
    assert "chat_history.settings" in loaded
    heavy = {
        *("psycopg", "psycopg_pool", "sqlite3", "platformdirs", "pydantic_ai", "pydantic", "typer", "rich"),
        *("tomllib", "difflib", "importlib.metadata", "urllib.parse", "pathlib", "asyncio", "logging"),
    }
    # A site-packages hook of the environment may load some before ours does.
    bare = subprocess.run(
        [sys.executable, "-c", code.replace("chat_history.config", "os")], capture_output=True, text=True
    )
    assert not heavy & (loaded - set(bare.stdout.split()))

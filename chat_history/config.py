"""Open a history over the backend that the configuration chooses: `open_history`, and a class for each of ours.

`settings.py` says where settings come from and what they accept. A backend is imported only when it is chosen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from .arguments import checked_id
from .backends.base import Backend
from .errors import ConfigError
from .history import ChatHistory
from .settings import (
    ACCEPTED,
    CONNECTION,
    KEYS,
    LIMITS,
    OWNER,
    Settings,
    checked,
    expanded,
    find,
    given,
    installed,
    is_torn,
    merged,
    named,
    refuse_unknown,
    unknown,
    url_options,
    with_environment,
)

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

__all__ = [
    "Choice",
    "JSONChatHistory",
    "PostgresChatHistory",
    "SQLChatHistory",
    "choose",
    "open_history",
    "reopen_history",
]

Durability: TypeAlias = Literal["full", "relaxed"]
Overflow: TypeAlias = Literal["archive", "delete"]
Path: TypeAlias = str | os.PathLike[str]


def open_history(
    config: Path | Mapping[str, Any] | Backend | None = None,
    *,
    user_id: str | None = None,
    tenant_id: str | None = None,
    durability: Durability | None = None,
    timeout: float | None = None,
    migrations: str | None = None,
    max_messages: int | None = None,
    overflow: Overflow | None = None,
) -> ChatHistory:
    """A history over the store that `config` names: a URL, a path, a dict, or a backend.

    Without it: `$CHAT_HISTORY_URL`, else the file that `$CHAT_HISTORY_CONFIG` names, else `chat_history.toml` in the
    working directory, else SQLite in the user's data directory. A keyword wins over the same key anywhere else.
    `ConfigError` says what cannot be used and what is accepted, before anything is opened or created.

    max_messages, overflow: see `ChatHistory`.
    """
    arguments = given(user_id=user_id, tenant_id=tenant_id, durability=durability, timeout=timeout)
    arguments |= given(migrations=migrations, max_messages=max_messages, overflow=overflow)
    if isinstance(config, Backend):
        if refused := sorted(arguments.keys() & {"durability", "timeout", "migrations"}):
            raise ConfigError(f"{' and '.join(refused)}: say this where the backend is made, it is open already")
        return ChatHistory(config, **_of_history(arguments))
    source, settings, directory = find(config)
    with named(source):
        backend, options = _open(_of_source(settings, arguments), directory=directory)
        return ChatHistory(backend, **options)


def reopen_history(settings: Mapping[str, Any]) -> ChatHistory:
    """The history of which these are the `settings`, opened again, also in another process or on another machine.

    A password, which they never hold, is that of `POSTGRES_*`, `DATABASE_URL` or `CHAT_HISTORY_URL` if what these name
    is the same place, as far as they name one; else it is libpq's to find (PGPASSWORD, a password file).
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"settings are the dict that history.settings gave, not a {type(settings).__name__}")
    return open_history(_with_password(settings))


class Choice(NamedTuple):
    """What a configuration chooses, checked and not opened yet."""

    backend: type[Backend]
    options: Settings
    """The arguments of the backend's class."""
    history: Settings
    """What is said of the history: its owner, its limits."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.backend.__name__}>"  # the options may hold a password


def choose(config: Path | Mapping[str, Any] | None = None) -> Choice:
    """What `open_history` would open. `ConfigError` as there; nothing is opened or created."""
    source, settings, directory = find(config)
    with named(source):
        return _chosen(_of_source(settings, {}), directory)


class JSONChatHistory(ChatHistory):
    """A history in one JSON file, `./chat_history.json` unless said otherwise.

    An argument wins over the same key of `config`, whose keys are those of the arguments.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        storage_path: Path | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
        max_messages: int | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        arguments = given(storage_path=storage_path, durability=durability, timeout=timeout)
        arguments |= given(user_id=user_id, tenant_id=tenant_id, max_messages=max_messages, overflow=overflow)
        backend, options = _open(merged("json", config, arguments))
        super().__init__(backend, **options)


class SQLChatHistory(ChatHistory):
    """A history in one SQLite file, `./chat_history.db` unless said otherwise; `":memory:"` is gone when it is closed.

    An argument wins over the same key of `config`, whose keys are those of the arguments.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        db_path: Path | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
        migrations: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
        max_messages: int | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        arguments = given(db_path=db_path, durability=durability, timeout=timeout, migrations=migrations)
        arguments |= given(user_id=user_id, tenant_id=tenant_id, max_messages=max_messages, overflow=overflow)
        backend, options = _open(merged("sqlite", config, arguments))
        super().__init__(backend, **options)


class PostgresChatHistory(ChatHistory):
    """A history in a Postgres database.

    An argument wins over the same key of `config`, and that over the environment: `POSTGRES_HOST`, `_PORT`, `_DB`,
    `_USER` and `_PASSWORD`, or `DATABASE_URL` where nothing names a host. What is still missing is libpq's to find
    (PGHOST, PGPASSFILE, a service file). Keys beside a `url` replace its parts, and nothing of the environment does.
    A `pool` is used as it is, and stays open after `shutdown()`.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        url: str | None = None,
        host: str | None = None,
        port: int | str | None = None,
        database: str | None = None,
        user: str | None = None,
        password: str | None = None,
        pool: ConnectionPool[Any] | None = None,
        schema: str | None = None,
        min_connections: int | None = None,
        max_connections: int | None = None,
        timeout: float | None = None,
        durability: Durability | None = None,
        prepare: bool | None = None,
        migrations: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
        max_messages: int | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        arguments = given(url=url, host=host, port=port, database=database, user=user, password=password, pool=pool)
        arguments |= given(schema=schema, min_connections=min_connections, max_connections=max_connections)
        arguments |= given(timeout=timeout, durability=durability, prepare=prepare, migrations=migrations)
        arguments |= given(user_id=user_id, tenant_id=tenant_id, max_messages=max_messages, overflow=overflow)
        backend, options = _open(merged("postgres", config, arguments))
        super().__init__(backend, **options)


def _with_password(settings: Mapping[str, Any]) -> Settings:
    found = expanded(dict(settings))
    place = _place(found)
    if place and "password" not in place:
        for source in ({"backend": "postgres"}, {"url": os.environ.get("CHAT_HISTORY_URL", "")}):
            with suppress(ConfigError):
                theirs = _place(with_environment(expanded(source)))
                password = theirs.pop("password", None)
                # Never to another place than its own, where that is named.
                if password and theirs.items() <= place.items():
                    return found | {"password": password}
    return found


def _place(settings: Settings) -> dict[str, str]:
    """Host, port, user, database and password, as far as they are named."""
    from psycopg.conninfo import conninfo_to_dict

    if settings.get("backend") != "postgres":
        return {}
    parts = conninfo_to_dict(_conninfo({key: settings[key] for key in CONNECTION if key in settings}))
    if parts.get("host"):
        parts.setdefault("port", "5432")
    return {key: str(parts[key]) for key in ("host", "port", "user", "dbname", "password") if parts.get(key)}


def _of_source(settings: Settings, arguments: Settings) -> Settings:
    """What a source says, under the arguments. An owner that cannot be used is refused as the source's."""
    settings = expanded(settings)
    checked({key: settings[key] for key in settings.keys() & OWNER.keys() - arguments.keys()}, OWNER)
    return settings | arguments


def _open(settings: Settings, *, directory: str = "") -> tuple[Backend, Settings]:
    """The backend that these settings choose, open, and what they say of the history.

    Everything is checked before it is opened.
    """
    choice = _chosen(settings, directory)
    return choice.backend(**choice.options), choice.history


def _chosen(settings: Settings, directory: str) -> Choice:
    settings = given(**settings)
    if ("class" in settings) == ("backend" in settings):
        raise ConfigError(f"a configuration says either backend, url or class; {ACCEPTED}")
    history = _of_history(settings)
    if "class" in settings:
        return Choice(_plugin(_imported(settings.pop("class")), settings), settings, history)
    name = settings.pop("backend")
    if name not in list(KEYS):
        return Choice(_plugin(_registered(name), settings), settings, history)
    has_url = "url" in settings
    if name == "postgres":
        settings = with_environment(settings)
    refuse_unknown(f"key for {name}", settings, {"backend", "url", *OWNER, *LIMITS, *KEYS[name]})
    options = checked(settings, KEYS[name])
    if "migrations" in options:
        from .migrations.runner import steps

        steps(options["migrations"])
    if name == "json":
        if os.name != "posix":
            raise ConfigError("the JSON file needs the file locks of Linux, macOS or BSD; use sqlite on this system")
        from .backends.json_file import JSONBackend

        path = options.pop("storage_path", "chat_history.json")
        return Choice(JSONBackend, {"path": _located(path, directory), **options}, history)
    if name == "sqlite":
        from .backends.sqlite import SQLiteBackend

        path = options.pop("db_path", "chat_history.db")
        return Choice(SQLiteBackend, {"path": _located(path, directory), **options}, history)
    with named("DATABASE_URL" if "url" in options and not has_url else ""):
        options = _postgres(options)
    from .backends.postgres import PostgresBackend

    return Choice(PostgresBackend, options, history)


def _of_history(settings: Settings) -> Settings:
    """What the settings say of the history rather than the backend, taken out of them."""
    owner = {key: checked_id(settings.pop(key), key, may_be_empty=True) for key in OWNER if key in settings}
    limits = checked({key: settings.pop(key) for key in LIMITS if key in settings}, LIMITS)
    return owner | limits


def _located(path: str, directory: str) -> str:
    return path if path == ":memory:" else os.path.join(directory, path)


def _postgres(options: Settings) -> Settings:
    least, most = options.get("min_connections", 1), options.get("max_connections", 10)
    if least > most:
        raise ConfigError(f"min_connections is {least}, more than max_connections, which is {most}")
    connection = {key: options.pop(key) for key in CONNECTION if key in options}
    if "pool" not in options:
        options["conninfo"] = _conninfo(connection)
    elif refused := sorted(connection.keys() | options.keys() & {"min_connections", "max_connections"}):
        raise ConfigError(f"{', '.join(refused)}: a pool brings its own connections; leave one of them out")
    return options


def _conninfo(connection: Settings) -> str:
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    url = connection.pop("url", "")
    known = _libpq_options() | KEYS["postgres"].keys() - CONNECTION.keys()
    refuse_unknown("option in the Postgres URL", url_options(url), known)
    parts: Mapping[str, Any] | None = None
    with suppress(Error, UnicodeError):
        parts = conninfo_to_dict(url, dbname=connection.pop("database", None), **connection)
    if parts is None or is_torn(url, parts):
        raise ConfigError(
            "the Postgres URL cannot be read; special characters in a user or password must be percent-encoded: "
            "@ is %40, / is %2F, : is %3A, % is %25"
        )
    return make_conninfo(**parts)


@cache
def _libpq_options() -> set[str]:
    from psycopg import pq

    return {option.keyword.decode() for option in pq.Conninfo.get_defaults()} | {"ssl"}


def _imported(path: object) -> object:
    from importlib import import_module

    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module:
        raise ConfigError('class is the dotted path of a Backend, such as "my.module.MyBackend"')
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"cannot import the class {path!r}: {error}") from error


def _registered(name: object) -> object:
    found = installed()
    if not isinstance(name, str) or name not in found:
        names = [*KEYS, *sorted(found)]
        raise ConfigError(f"no backend is called {unknown(name, names)}; installed: {', '.join(names)}")
    try:
        return found[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot load the backend {name!r}: {error}") from error


def _plugin(backend: object, settings: Settings) -> type[Backend]:
    from inspect import isabstract, signature

    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        raise ConfigError(f"{backend!r} is not a subclass of chat_history.backends.base.Backend")
    if isabstract(backend):
        missing = ", ".join(sorted(backend.__abstractmethods__))
        raise ConfigError(f"{backend.__name__} cannot be opened, as it has not every method of a Backend: {missing}")
    parameters = signature(backend).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        accepted = {parameter.name for parameter in parameters}
        refuse_unknown(f"key for {backend.__name__}", settings, accepted.union(OWNER, LIMITS))
    try:
        signature(backend).bind(**settings)
    except TypeError as error:
        raise ConfigError(f"{backend.__name__}: {error}") from error
    return backend

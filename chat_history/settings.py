"""From what a user says (argument, dict, URL, file, environment) to one dict of settings, and what its keys accept.

Values are never shown in an error, because any text may hold a password that slipped into the wrong place; and
nothing is raised while another exception is handled, because that one would keep the text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import ConfigError, StoreUnavailableError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "ACCEPTED",
    "CONNECTION",
    "KEYS",
    "LIMITS",
    "OWNER",
    "Settings",
    "checked",
    "expanded",
    "find",
    "given",
    "installed",
    "is_torn",
    "merged",
    "named",
    "refuse_unknown",
    "unknown",
    "url_options",
    "with_environment",
]

Settings: TypeAlias = dict[str, Any]

ACCEPTED = (
    "accepted: a URL (postgresql://user@host/database, sqlite:///chats.db, sqlite:////absolute/chats.db, "
    "json:///chats.json, memory:), a path that ends in .db, .sqlite, .sqlite3, .json or .toml, "
    "a dict with backend, url or class, or a Backend"
)


GROUP = "chat_history.backends"
"""Entry points that add a backend by name, which is also the scheme of its URLs."""


def installed() -> dict[str, EntryPoint]:
    """The backends that other packages bring, by name."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


# What each key accepts.


_Kind: TypeAlias = tuple[str, Callable[[Any], object]]
"""What is accepted, in words; and a function from a value to what a backend takes, None if it cannot be used."""


def _path(value: object) -> str | None:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        return None
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return None
    return os.path.expanduser(path)


def _seconds(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        value = float(value)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
    return float(value) if usable else None  # type: ignore[arg-type]


def _whole(least: int, most: int) -> _Kind:
    def read(value: object) -> int | None:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else None

    return f"a whole number from {least} to {most}", read


def _choice(accepted: str, choices: Mapping[str, object]) -> _Kind:
    return accepted, lambda value: choices.get(str(value).lower()) if isinstance(value, str | bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value) else None


_TEXT = ("text without NUL characters and lone surrogates", _text)
_PATH = ("a path, as text or os.PathLike, that this system can encode", _path)
_COMMON: dict[str, _Kind] = {
    "durability": _choice('"full" or "relaxed"', {"full": "full", "relaxed": "relaxed"}),
    "timeout": ("a number of seconds, more than 0", _seconds),
}
LIMITS: dict[str, _Kind] = {
    "max_messages": _whole(1, 10**9),
    "overflow": _choice('"archive" or "delete"', {"archive": "archive", "delete": "delete"}),
}
"""What is said of the chats, whatever the backend."""
OWNER: dict[str, _Kind] = {"user_id": _TEXT, "tenant_id": _TEXT}
"""Whose chats they are."""
CONNECTION: dict[str, _Kind] = {
    "url": _TEXT,
    "host": _TEXT,
    "port": _whole(1, 65535),
    "database": _TEXT,
    "user": _TEXT,
    "password": _TEXT,
}
_POSTGRES: dict[str, _Kind] = {
    **_COMMON,
    "schema": _TEXT,
    "min_connections": _whole(0, 10_000),
    "max_connections": _whole(1, 10_000),
    "prepare": _choice("true or false", {"true": True, "1": True, "false": False, "0": False}),
    "migrations": _TEXT,
}
KEYS: dict[str, dict[str, _Kind]] = {
    "json": {"storage_path": _PATH, **_COMMON},
    "sqlite": {"db_path": _PATH, **_COMMON, "migrations": _TEXT},
    "postgres": {**CONNECTION, **_POSTGRES, "pool": ("a psycopg_pool.ConnectionPool", lambda value: value)},
}


def checked(settings: Settings, kinds: Mapping[str, _Kind]) -> Settings:
    """The same settings as a backend takes them. The keys are known already."""
    options = {}
    for key, value in settings.items():
        accepted, read = kinds[key]
        if (option := read(value)) is None:
            # A number is shown, except where it could be a password.
            shown = f"{value!r}" if isinstance(value, int | float) and key != "password" else type(value).__name__
            raise ConfigError(f"{key} cannot be this {shown}; accepted: {accepted}")
        options[key] = option
    return options


def refuse_unknown(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    accepted = sorted(known)
    if refused := [unknown(name, accepted) for name in names if name not in accepted]:
        raise ConfigError(f"unknown {what} {', '.join(refused)}; accepted: {', '.join(accepted)}")


def unknown(name: object, accepted: Iterable[str]) -> str:
    """The name for an error, with the one that was perhaps meant."""
    from difflib import get_close_matches

    # What is not a plain name may be a part of a URL that was torn apart at the wrong place.
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,40}", name):
        return "(not shown, as it is not a plain name)"
    near = get_close_matches(name, list(accepted), n=1)
    return f'"{name}"' + (f' (did you mean "{near[0]}"?)' if near else "")


# Where settings come from.


@contextmanager
def named(source: str) -> Iterator[None]:
    """Say in an error which source it is about, where that is not plain from the call."""
    try:
        yield
    except ConfigError as error:
        if source:
            error.args = (f"{source}: {error}",)
        raise


def given(**settings: object) -> Settings:
    """Those that are not None."""
    return {key: value for key, value in settings.items() if value is not None}


def find(config: object) -> tuple[str, Settings, str]:
    """The name of the source for errors, its settings, and the directory that its relative paths are relative to."""
    if isinstance(config, Mapping):
        return "", _mapping(config), ""
    if isinstance(config, str | os.PathLike):
        return "", *_said(config)
    if config is not None:
        raise ConfigError(f"a history cannot be opened from a {type(config).__name__}; {ACCEPTED}")
    if url := os.environ.get("CHAT_HISTORY_URL"):
        with named("CHAT_HISTORY_URL"):
            if url != url.strip():
                # " sqlite:///chats.db" would be a path, and its first folder " sqlite:".
                raise ConfigError("there is white space before or after the URL or path; leave it out")
            return "CHAT_HISTORY_URL", *_said(url)
    if path := os.environ.get("CHAT_HISTORY_CONFIG"):
        with named("CHAT_HISTORY_CONFIG"):
            return path, *_file(path)
    if os.path.exists("chat_history.toml"):
        return "chat_history.toml", *_file("chat_history.toml")
    return "", {"backend": "sqlite", "db_path": _default_path()}, ""


def merged(backend: str, config: object, arguments: Settings) -> Settings:
    """Arguments over config, for this backend."""
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(
            f"config must be a dict, not a {type(config).__name__}; give a URL or a path to open_history(), "
            f"or one of the keywords {', '.join(KEYS[backend])}"
        )
    configured = _mapping(config or {})
    if "url" in arguments:
        configured = {key: value for key, value in configured.items() if key not in CONNECTION}
    settings = {"backend": backend} | expanded(configured) | expanded(arguments)
    if settings["backend"] != backend:
        raise ConfigError(f"this configuration is for another backend than {backend}; open_history() takes any")
    return settings


def with_environment(settings: Settings) -> Settings:
    """The settings of Postgres, with what the environment adds."""
    if "url" in settings or "pool" in settings:
        return settings
    names = {"host": "HOST", "port": "PORT", "database": "DB", "user": "USER", "password": "PASSWORD"}
    variables = given(**{key: os.environ.get(f"POSTGRES_{name}") or None for key, name in names.items()})
    url = os.environ.get("DATABASE_URL")
    if url and "host" not in settings | variables:
        with named("DATABASE_URL"):
            parts = _parts(url)
            if parts.pop("backend") != "postgres":
                raise ConfigError("this is not a postgresql:// URL; name a host or a url to use another database")
            return parts | settings
    for key in variables.keys() - settings.keys():
        with named(f"POSTGRES_{names[key]}"):
            checked({key: variables[key]}, CONNECTION)
    return variables | settings


def _mapping(config: Mapping[Any, Any]) -> Settings:
    if odd := {type(key).__name__ for key in config if not isinstance(key, str)}:
        raise ConfigError(f"keys of a configuration are text, not {' or '.join(sorted(odd))}")
    return given(**config)


def _said(config: str | os.PathLike[str]) -> tuple[Settings, str]:
    # One letter before the colon is a drive of Windows.
    if isinstance(config, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", config):
        return {"url": config}, ""
    path = os.fspath(config)
    suffix = os.path.splitext(path)[1].lower() if isinstance(path, str) else ""
    if suffix == ".toml":
        return _file(path)
    if suffix == ".json":
        return {"backend": "json", "storage_path": path}, ""
    if suffix in (".db", ".sqlite", ".sqlite3"):
        return {"backend": "sqlite", "db_path": path}, ""
    raise ConfigError(f"this text is neither a URL nor a path that says which backend to use; {ACCEPTED}")


def _file(path: str) -> tuple[Settings, str]:
    import tomllib

    document: Settings | None = None
    try:
        path = os.path.expanduser(path)
        # As editors of Windows write it: with a mark at the beginning, which TOML does not know.
        with open(path, encoding="utf-8-sig") as file:
            document = tomllib.loads(file.read())
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        reason = f"is not TOML: {error}"
    except ValueError:
        reason = "cannot be: no path is like that"
    if document is None:
        raise ConfigError(f"the file {path!r} {reason}")
    table = document.get("chat_history", document)
    if not isinstance(table, dict):
        raise ConfigError(f"the file {path!r}: chat_history must be a table, [chat_history]")
    return table, os.path.dirname(os.path.abspath(path))


def _default_path() -> str:
    from platformdirs import user_data_dir

    directory = user_data_dir("chat_history", appauthor=False)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"cannot create {directory}: {error.strerror}; set CHAT_HISTORY_URL to keep the history elsewhere"
        ) from error
    return os.path.join(directory, "chat_history.db")


# URLs.

# The part up to the @ is skipped as libpq skips it: a password may hold a question mark.
_POSTGRES_URL = r"(?is)(postgres(?:ql)?)(?:\+\w+)?(://(?:[^/@]*@)?[^?]*)(?:\?(.*))?"
_OTHER_URL = r"(?s)(\w+)(?:\+\w+)?:(//)?([^/?]*)(?:/([^?]*))?(?:\?(.*))?"


def expanded(settings: Settings) -> Settings:
    """The same settings with the parts of the URL as keys; a key that stands beside the URL wins over its part."""
    # A backend that is not ours reads its url itself.
    if "url" not in settings or "class" in settings or settings.get("backend", "json") not in list(KEYS):
        return settings
    url = settings["url"]
    if not isinstance(url, str):
        raise ConfigError(f"url cannot be this {type(url).__name__}; {ACCEPTED}")
    parts = _parts(url)
    if settings.get("backend", parts["backend"]) != parts["backend"]:
        raise ConfigError("the url is for another backend than the one named beside it; leave one of the two out")
    return parts | {key: value for key, value in settings.items() if key != "url"}


def _parts(url: str) -> Settings:
    # Lone surrogates that stand for bytes are how Python tells of an argument that is no text in the locale.
    if re.search("[\ud800-\udc7f\udd00-\udfff]", url):
        raise ConfigError("there is half of a surrogate pair in the URL, which stands for nothing; leave it out")
    if match := re.fullmatch(_POSTGRES_URL, url):
        options = _options(match[3])
        # Ours become keys; the others stay as they are, for libpq to read.
        others = "&".join(raw for name, (_, raw) in options.items() if name not in _POSTGRES)
        ours = {name: value for name, (value, _) in options.items() if name in _POSTGRES}
        return ours | {"backend": "postgres", "url": f"postgresql{match[2]}{'?' * bool(others)}{others}"}
    match = re.fullmatch(_OTHER_URL, url)
    scheme = match[1].lower() if match else ""
    if match is None or scheme not in ("sqlite", "json", "memory"):
        if scheme in installed():
            # It reads its url itself.
            return {"backend": scheme, "url": url}
        raise ConfigError(f"no backend has this kind of URL; {ACCEPTED}")
    slashes, host, path = match[2], match[3], _decoded(match[4] or "")
    if scheme == "memory" and (host or path):
        raise ConfigError("the URL memory: has no path")
    if scheme != "memory" and (host or not slashes):
        raise ConfigError(
            f"a {scheme} URL has three slashes before a relative path, four before an absolute one: {scheme}:///chats"
        )
    if scheme == "json" and not path:
        raise ConfigError("a json URL has a path: json:///chats.json")
    backend, key = ("json", "storage_path") if scheme == "json" else ("sqlite", "db_path")
    values = {name: value for name, (value, _) in _options(match[5]).items()}
    refuse_unknown(f"option in the {scheme} URL", values, KEYS[backend].keys() - {key})
    return values | {"backend": backend, key: path or ":memory:"}


def _options(query: str | None) -> dict[str, tuple[str, str]]:
    """The options of a URL by name: the value, and both as they were written."""
    found = {}
    for raw in filter(None, (query or "").split("&")):
        name, _, value = raw.partition("=")
        found[_decoded(name)] = _decoded(value), raw
    return found


def is_torn(url: str, parts: Mapping[str, object]) -> bool:
    """Whether libpq took a part of a password for one of the host, port or database, which its errors would tell.

    parts: what it read in the URL.
    """
    # Several ports, one for each host, are libpq's to read.
    return (
        "@" in str(parts.get("host", ""))
        or not re.fullmatch(r"[0-9,]*", str(parts.get("port", "")))
        or bool(re.match(r"\w+://[^/?]*/[^?]*@", url))
    )


def url_options(url: str) -> list[str]:
    """The names of the options in a Postgres URL that are libpq's."""
    match = re.fullmatch(_POSTGRES_URL, url)
    return list(_options(match[3])) if match else []


def _decoded(text: str) -> str:
    from urllib.parse import unquote_to_bytes

    return os.fsdecode(unquote_to_bytes(text.encode(errors="surrogateescape")))

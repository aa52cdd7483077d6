"""The stores that people have today, made by the frameworks themselves where these are installed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from conversations import CONVERSATIONS

__all__ = ["FOREIGN", "Foreign", "rakam_file", "rakam_postgres", "rakam_sqlite"]

CHATS = ("b95fca3e-8c5d-4b6e-9f5c-0d4d3a7c1f10", "0b7e7d0c-2f0f-4c4e-8a57-6a3c9b0f4d11")
"""Ids that every one of them takes."""


class Foreign(NamedTuple):
    """A store with two chats, and what its framework loads from it."""

    source: str
    format: str
    loaded: Mapping[str, Sequence[Any]]


def _chats(format: str) -> dict[str, list[Any]]:
    messages = CONVERSATIONS[format]()
    return {CHATS[0]: messages, CHATS[1]: [messages[1], messages[1]]}


# ---- rakam, by the layout of its release 0.1.6: it is not installed beside us


def _rakam_dicts() -> dict[str, list[Any]]:
    return {chat_id: messages[:6] for chat_id, messages in _chats("openai").items()}


def rakam_file(path: Path, chats: Mapping[str, Sequence[Any]]) -> str:
    path.write_text(json.dumps(chats, indent=2, ensure_ascii=False), encoding="utf-8")
    return str(path)


def rakam_sqlite(path: Path, chats: Mapping[str, Sequence[Any]]) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE chats (chat_id TEXT PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, chat_id TEXT NOT NULL, message_order INTEGER "
            "NOT NULL, message_data TEXT NOT NULL, FOREIGN KEY (chat_id) REFERENCES chats (chat_id) ON DELETE CASCADE)"
        )
        connection.executemany("INSERT INTO chats VALUES (?)", [(chat_id,) for chat_id in chats])
        connection.executemany(
            "INSERT INTO messages (chat_id, message_order, message_data) VALUES (?, ?, ?)", _rakam_rows(chats)
        )
    return str(path)


def rakam_postgres(url: str, chats: Mapping[str, Sequence[Any]]) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE chat_sessions (chat_id TEXT PRIMARY KEY, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
            "updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
        )
        connection.execute(
            "CREATE TABLE chat_messages (id SERIAL PRIMARY KEY, chat_id TEXT NOT NULL, message_order INTEGER NOT NULL, "
            "message_data JSONB NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
            "FOREIGN KEY (chat_id) REFERENCES chat_sessions (chat_id) ON DELETE CASCADE)"
        )
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO chat_sessions VALUES (%s)", [(chat_id,) for chat_id in chats])
        cursor.executemany(
            "INSERT INTO chat_messages (chat_id, message_order, message_data) VALUES (%s, %s, %s)", _rakam_rows(chats)
        )
    return url


def _rakam_rows(chats: Mapping[str, Sequence[Any]]) -> list[tuple[str, int, str]]:
    """The last first, since what counts is `message_order`."""
    return [
        (chat_id, order, json.dumps(message, ensure_ascii=False))
        for chat_id, messages in chats.items()
        for order, message in reversed(list(enumerate(messages)))
    ]


def _rakam_pydantic_ai(path: Path, url: str) -> Foreign:
    from pydantic_ai.messages import ModelMessagesTypeAdapter
    from pydantic_core import to_jsonable_python

    dumped = {chat_id: to_jsonable_python(messages) for chat_id, messages in _chats("pydantic_ai").items()}
    loaded = {chat_id: ModelMessagesTypeAdapter.validate_python(messages) for chat_id, messages in dumped.items()}
    return Foreign(rakam_file(path, dumped), "pydantic_ai", loaded)


# ---- LlamaIndex


def _simple_chat_store(path: Path, url: str) -> Foreign:
    from llama_index.core.storage.chat_store import SimpleChatStore

    # As `persist` writes it. That raises with pydantic 2.14, so it is written here and read by the framework.
    chats = {
        key: [each.model_dump(mode="json") for each in messages] for key, messages in _chats("llama_index").items()
    }
    path.write_text(json.dumps({"store": chats, "class_name": "SimpleChatStore"}, separators=(",", ":")))
    return Foreign(str(path), "llama_index", SimpleChatStore.from_persist_path(str(path)).store)


def _sqlalchemy_chat_store(uri: str) -> Mapping[str, Sequence[Any]]:
    from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

    async def fill() -> Mapping[str, Sequence[Any]]:
        store = SQLAlchemyChatStore("memory", uri)
        for key, messages in _chats("llama_index").items():
            await store.add_messages(key, messages)
        loaded = {key: await store.get_messages(key) for key in await store.get_keys()}
        assert store._async_engine is not None
        await store._async_engine.dispose()
        return loaded

    return asyncio.run(fill())


def _llama_index_sqlite(path: Path, url: str) -> Foreign:
    return Foreign(str(path), "llama_index", _sqlalchemy_chat_store(f"sqlite+aiosqlite:///{path}"))


def _llama_index_postgres(path: Path, url: str) -> Foreign:
    uri = url.replace("postgresql://", "postgresql+psycopg://")
    return Foreign(uri, "llama_index", _sqlalchemy_chat_store(uri))


# ---- the OpenAI Agents SDK


def _sqlite_session(path: Path, url: str) -> Foreign:
    from agents import SQLiteSession

    async def fill() -> dict[str, list[Any]]:
        loaded: dict[str, list[Any]] = {}
        for session_id, items in _chats("openai_responses").items():
            session = SQLiteSession(session_id, path)
            await session.add_items(items)
            loaded[session_id] = list(await session.get_items())
            session.close()
        return loaded

    return Foreign(str(path), "openai_responses", asyncio.run(fill()))


# ---- LangChain, by the tables that langchain-community 0.4.2 and langchain-postgres 0.0.19 make: no extras of ours


def _langchain_rows() -> tuple[list[tuple[str, str]], dict[str, list[Any]]]:
    from langchain_core.messages import message_to_dict, messages_from_dict

    chats = _chats("langchain")
    rows = [(key, json.dumps(message_to_dict(message))) for key, messages in chats.items() for message in messages]
    return rows, {key: messages_from_dict([json.loads(text) for each, text in rows if each == key]) for key in chats}


def _sql_chat_message_history(path: Path, url: str) -> Foreign:
    rows, loaded = _langchain_rows()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE message_store (id INTEGER NOT NULL PRIMARY KEY, session_id TEXT, message TEXT)"
        )
        connection.executemany("INSERT INTO message_store (session_id, message) VALUES (?, ?)", rows)
    return Foreign(str(path), "langchain", loaded)


def _postgres_chat_message_history(path: Path, url: str) -> Foreign:
    rows, loaded = _langchain_rows()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE chat_history (id SERIAL PRIMARY KEY, session_id UUID NOT NULL, message JSONB NOT NULL, "
            "created_at TIMESTAMPTZ NOT NULL DEFAULT NOW())"
        )
        with connection.cursor() as cursor:
            given = [(UUID(key), text) for key, text in rows]
            cursor.executemany("INSERT INTO chat_history (session_id, message) VALUES (%s, %s)", given)
    return Foreign(url, "langchain", loaded)


# ---- lines


def _openai_jsonl(path: Path, url: str) -> Foreign:
    chats = _chats("openai")
    lines = [json.dumps({"id": chat_id, "messages": messages}) for chat_id, messages in chats.items()]
    path.write_text("\n".join(lines))
    return Foreign(str(path), "openai", chats)


FOREIGN: dict[str, Callable[[Path, str], Foreign]] = {
    "rakam file": lambda path, url: Foreign(rakam_file(path, _rakam_dicts()), "openai", _rakam_dicts()),
    "rakam sqlite": lambda path, url: Foreign(rakam_sqlite(path, _rakam_dicts()), "openai", _rakam_dicts()),
    "rakam postgres": lambda path, url: Foreign(rakam_postgres(url, _rakam_dicts()), "openai", _rakam_dicts()),
    "rakam pydantic_ai": _rakam_pydantic_ai,
    "SimpleChatStore": _simple_chat_store,
    "SQLAlchemyChatStore sqlite": _llama_index_sqlite,
    "SQLAlchemyChatStore postgres": _llama_index_postgres,
    "SQLiteSession": _sqlite_session,
    "SQLChatMessageHistory": _sql_chat_message_history,
    "PostgresChatMessageHistory": _postgres_chat_message_history,
    "JSON Lines": _openai_jsonl,
}
"""By name: makes the store at a path, or in an empty database."""

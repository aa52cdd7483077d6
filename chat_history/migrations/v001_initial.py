"""The first tables: chats and their messages.

Every key begins with `chat_key`, so that either table can be distributed or partitioned by it. There is no foreign key
(it would cost each append a look-up; a chat and its messages are only ever deleted together), and no index on a chat's
or user's id, which may be longer than an index takes. What may be long stands last in a row.
"""

from __future__ import annotations

from typing import Any, Final

VERSION: Final = 1

CHATS = {
    "sqlite": """
CREATE TABLE chats (
    chat_key BLOB NOT NULL PRIMARY KEY,
    owner_key BLOB NOT NULL,
    version INTEGER NOT NULL,
    next_position INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    head TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    shared INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    chat_id TEXT NOT NULL,
    title TEXT NOT NULL,
    metadata TEXT
) WITHOUT ROWID
""",
    # head_before is what head was before the last append: RETURNING has only new values, and an append must be told
    # which message it followed.
    "postgres": """
CREATE TABLE chats (
    chat_key uuid NOT NULL PRIMARY KEY,
    owner_key uuid NOT NULL,
    version bigint NOT NULL,
    next_position bigint NOT NULL,
    message_count bigint NOT NULL,
    head text,
    head_before text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    shared boolean NOT NULL,
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    chat_id text NOT NULL,
    title text NOT NULL,
    metadata text
)
""",
}

CHATS_BY_ACTIVITY = "CREATE INDEX chats_by_activity ON chats (owner_key, updated_at, chat_key)"

MESSAGES = {
    # The id is the number that SQLite gives each row anyway. Said, it stays the same, and ascends with each commit.
    "sqlite": """
CREATE TABLE messages (
    id INTEGER NOT NULL PRIMARY KEY,
    chat_key BLOB NOT NULL,
    position INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    parent TEXT,
    status TEXT NOT NULL,
    role TEXT NOT NULL,
    format TEXT NOT NULL,
    format_version TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_at TEXT NOT NULL,
    metadata TEXT,
    text TEXT,
    payload TEXT NOT NULL,
    UNIQUE (chat_key, position),
    UNIQUE (chat_key, message_id)
)
""",
    # Ids are only ever compared for equality, and "C" does that fastest.
    "postgres": """
CREATE TABLE messages (
    chat_key uuid NOT NULL,
    position bigint NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    parent text COLLATE "C",
    status text NOT NULL,
    role text NOT NULL,
    format text NOT NULL,
    format_version text NOT NULL,
    digest bytea NOT NULL,
    created_at timestamptz NOT NULL,
    metadata text,
    text text,
    payload text NOT NULL,
    PRIMARY KEY (chat_key, position),
    UNIQUE (chat_key, message_id)
)
""",
}


def up(conn: Any, *, dialect: str) -> None:
    """Create the tables."""
    conn.execute(CHATS[dialect])
    conn.execute(CHATS_BY_ACTIVITY)
    conn.execute(MESSAGES[dialect])


def down(conn: Any, *, dialect: str) -> None:
    """Drop the tables, and with them every chat."""
    conn.execute("DROP TABLE messages")
    conn.execute("DROP TABLE chats")

"""What is big in messages, once for each owner, and which messages refer to it.

Keys begin with the owner, so that a content can be found from each chat and is on one shard with all that is said of
it. The messages of a chat are found by an index, which deletion needs.
"""

from __future__ import annotations

from typing import Any, Final

VERSION: Final = 3

CONTENTS = {
    "sqlite": """
CREATE TABLE contents (
    owner_key BLOB NOT NULL,
    hash TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (owner_key, hash)
)
""",
    "postgres": """
CREATE TABLE contents (
    owner_key uuid NOT NULL,
    hash text COLLATE "C" NOT NULL,
    data text NOT NULL,
    PRIMARY KEY (owner_key, hash)
)
""",
}

USES = {
    "sqlite": """
CREATE TABLE content_uses (
    owner_key BLOB NOT NULL,
    hash TEXT NOT NULL,
    chat_key BLOB NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (owner_key, hash, chat_key, position)
) WITHOUT ROWID
""",
    "postgres": """
CREATE TABLE content_uses (
    owner_key uuid NOT NULL,
    hash text COLLATE "C" NOT NULL,
    chat_key uuid NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (owner_key, hash, chat_key, position)
)
""",
}

USES_BY_CHAT = "CREATE INDEX content_uses_by_chat ON content_uses (chat_key, position)"


def up(conn: Any, *, dialect: str) -> None:
    """Create the tables."""
    conn.execute(CONTENTS[dialect])
    conn.execute(USES[dialect])
    conn.execute(USES_BY_CHAT)


def down(conn: Any, *, dialect: str) -> None:
    """Drop the tables. What messages refer to is gone then."""
    conn.execute("DROP TABLE content_uses")
    conn.execute("DROP TABLE contents")

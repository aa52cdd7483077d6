"""What search finds messages by. It is brought up to date by searches, so that adding a message costs nothing.

What is indexed are blocks of a chat's messages; block -1 is its title. SQLite: `searched` numbers the blocks, `grams`
has the hashes of their letters under that number, `search_state` says up to which id messages were taken in, and
`unsearched` which blocks changed since. Postgres: `message_grams` has the hashes, and each chat says up to which
position it was taken in. Where a message changed since, `searched` is below zero, and each time another number.
"""

from __future__ import annotations

from typing import Any, Final

VERSION: Final = 2

UP = {
    "sqlite": [
        """
CREATE TABLE searched (
    id INTEGER NOT NULL PRIMARY KEY,
    chat_key BLOB NOT NULL,
    block INTEGER NOT NULL,
    UNIQUE (chat_key, block)
)
""",
        """
CREATE TABLE unsearched (
    chat_key BLOB NOT NULL,
    block INTEGER NOT NULL,
    PRIMARY KEY (chat_key, block)
) WITHOUT ROWID
""",
        "CREATE TABLE search_state (up_to INTEGER NOT NULL, stale INTEGER NOT NULL)",
        "INSERT INTO search_state (up_to, stale) VALUES (0, 0)",
        "INSERT INTO unsearched (chat_key, block) SELECT chat_key, -1 FROM chats WHERE title <> ''",
    ],
    "postgres": [
        """
ALTER TABLE chats
    ADD COLUMN searched bigint NOT NULL DEFAULT 0,
    ADD COLUMN title_unsearched boolean NOT NULL DEFAULT false
""",
        "UPDATE chats SET title_unsearched = true WHERE title <> ''",
        """
CREATE INDEX chats_unsearched ON chats (owner_key, chat_key) WHERE searched < next_position OR title_unsearched
""",
        """
CREATE TABLE message_grams (
    chat_key uuid NOT NULL,
    block bigint NOT NULL,
    grams integer[] NOT NULL,
    PRIMARY KEY (chat_key, block)
)
""",
        "CREATE INDEX message_grams_by_gram ON message_grams USING gin (grams) WITH (fastupdate = off)",
    ],
}
GRAMS = "CREATE VIRTUAL TABLE grams USING fts5 (gram, content = '', columnsize = 0, detail = none, tokenize = 'ascii')"

DOWN = {
    "sqlite": [
        "DROP TABLE IF EXISTS grams",
        "DROP TABLE unsearched",
        "DROP TABLE search_state",
        "DROP TABLE searched",
    ],
    "postgres": [
        "DROP TABLE message_grams",
        "DROP INDEX chats_unsearched",
        "ALTER TABLE chats DROP COLUMN searched, DROP COLUMN title_unsearched",
    ],
}


def up(conn: Any, *, dialect: str) -> None:
    """Create the index, with nothing in it yet."""
    for statement in UP[dialect]:
        conn.execute(statement)
    if dialect == "sqlite" and _has_fts5(conn):
        conn.execute(GRAMS)


def down(conn: Any, *, dialect: str) -> None:
    """Drop the index. No message is lost with it."""
    for statement in DOWN[dialect]:
        conn.execute(statement)


def _has_fts5(conn: Any) -> bool:
    """Whether this build of SQLite has it. Without it every search reads all texts."""
    return bool(conn.execute("SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'").fetchone()[0])

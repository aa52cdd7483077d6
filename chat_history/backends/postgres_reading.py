"""What is read from Postgres: the statements, their parameters, and the records that rows become."""

from __future__ import annotations

from datetime import UTC
from functools import cache
from operator import itemgetter
from typing import Any

from .base import ChatKey, ChatRecord, Record
from .texts import spoken_text

__all__ = [
    "CHAT_IDS",
    "FIND",
    "GET_CHAT",
    "LIST_AFTER",
    "LIST_BEFORE",
    "LIST_CHATS",
    "OUTLINE",
    "OWNERS",
    "PAYLOAD",
    "RECORD",
    "by_position",
    "chat_record_of",
    "record_of",
    "within",
]

RECORD = """
SELECT position, message_id, parent, status, role, format, format_version, payload, text, created_at, metadata
FROM {schema}messages
"""
PAYLOAD = "SELECT position, role, format, payload FROM {schema}messages "
WITHIN = """
WHERE chat_key = %(key)s AND position > %(after)s AND position < %(before)s
    AND (%(status)s::text IS NULL OR status = %(status)s)
"""
# Positions are dense, so the rows are near the edge, and only where others stand between is the second half read. The
# planner would be as glad to read and sort the whole chat where it thinks that chats are short, as it does before it
# has statistics. For the same reason whole chats are put in order here and not there.
# Numbers come in the smallest type that holds them, so what is added must be of a larger one.
NEAREST = {
    False: """
({select} {within} AND position <= %(after)s::bigint + %(near)s ORDER BY position LIMIT %(limit)s)
UNION ALL
({select} {within} AND position > %(after)s::bigint + %(near)s ORDER BY position LIMIT %(limit)s)
LIMIT %(limit)s
""",
    True: """
({select} {within} AND position >= {edge} ORDER BY position DESC LIMIT %(limit)s)
UNION ALL
({select} {within} AND position < {edge} ORDER BY position DESC LIMIT %(limit)s)
LIMIT %(limit)s
""",
}
EDGE = "LEAST(%(before)s, (SELECT next_position FROM {schema}chats WHERE chat_key = %(key)s)) - %(near)s"
FIND = RECORD + "WHERE chat_key = %s AND message_id = ANY(%s) ORDER BY position"
# One statement, so that version and rows are of one moment. The chat's own row is the one at -1.
OUTLINE = """
SELECT -1::bigint, version::text, head, NULL, NULL::bytea FROM {schema}chats WHERE chat_key = %(key)s
UNION ALL SELECT position, message_id, parent, status, digest FROM {schema}messages WHERE chat_key = %(key)s
"""

CHAT = """
SELECT chat_id, title, metadata, shared, version, message_count, head, created_at, updated_at FROM {schema}chats
"""
GET_CHAT = CHAT + "WHERE chat_key = %s"
LIST_CHATS = CHAT + "WHERE owner_key = %s ORDER BY updated_at DESC, chat_key DESC LIMIT %s"
LIST_AFTER = (
    CHAT + "WHERE owner_key = %s AND (updated_at, chat_key) < (%s, %s) ORDER BY updated_at DESC, chat_key DESC LIMIT %s"
)
LIST_BEFORE = CHAT + "WHERE owner_key = %s AND (updated_at, chat_key) > (%s, %s) ORDER BY updated_at, chat_key LIMIT %s"
OWNERS = 'SELECT DISTINCT tenant_id COLLATE "C", user_id COLLATE "C" FROM {schema}chats ORDER BY 1, 2'
CHAT_IDS = "SELECT chat_id FROM {schema}chats WHERE owner_key = %s ORDER BY created_at, chat_key"

MOST = 2**61
"""Larger than any position or number of messages, and still a bigint when doubled."""

by_position = itemgetter(0)


def within(
    select: str,
    chat: ChatKey,
    before: int | None,
    after: int | None,
    limit: int | None,
    newest: bool,
    status: str | None,
) -> tuple[str, dict[str, Any]]:
    """The statement that `Backend.read` asks for, and its parameters. Its rows come in no order."""
    parameters = {
        "key": chat.key,
        "after": -1 if after is None else min(after, MOST),
        "before": MOST if before is None else min(before, MOST),
        "status": status,
    }
    if limit is None:
        statement = select + WITHIN
    else:
        statement = _nearest(select, newest)
        parameters |= {"limit": min(limit, MOST), "near": 2 * min(limit, MOST) + 64}
    return statement, parameters


@cache
def _nearest(select: str, newest: bool) -> str:
    return NEAREST[newest].replace("{select}", select).replace("{within}", WITHIN).replace("{edge}", EDGE)


def record_of(row: tuple[Any, ...]) -> Record:
    return Record._make((*row[:8], spoken_text(row[8], row[7]), row[9].astimezone(UTC), row[10]))


def chat_record_of(row: tuple[Any, ...]) -> ChatRecord:
    return ChatRecord._make((*row[:7], row[7].astimezone(UTC), row[8].astimezone(UTC)))

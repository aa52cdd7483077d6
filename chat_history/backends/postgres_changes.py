"""A change as a statement of Postgres: its text, its parameters, and what its answer says.

Parameters are text, as Postgres reads it: a driver would take as long to convert them as the server to store them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from psycopg.pq.abc import PGresult

from .base import UNSET, Change, ChatKey, Draft, Written, first_version
from .drafts import Drafts, plain
from .words import BLOCK, TITLE

__all__ = [
    "APPEND",
    "COLUMNS",
    "END",
    "SEVERAL",
    "appended",
    "change_statement",
    "copied",
    "is_long",
    "merely_appends",
    "parameters_of",
    "place_in",
    "what_was_written",
    "written_at",
]

# WITH chat AS (...), and what else there is of it, and the end

SET = """
    version = c.version + %(writes)s,
    next_position = c.next_position + %(count)s,
    message_count = c.message_count + %(active)s,
    head_before = c.head,
    head = CASE WHEN %(set_head)s THEN %(head)s ELSE c.head END,
    updated_at = GREATEST(c.updated_at, %(now)s),
    title = COALESCE(%(title)s, c.title),
    shared = COALESCE(%(shared)s::boolean, c.shared),
    metadata = CASE WHEN %(set_metadata)s THEN %(metadata)s ELSE c.metadata END,
    searched = CASE WHEN %(changes)s THEN LEAST(c.searched, 0) - 1 ELSE c.searched END,
    title_unsearched = c.title_unsearched OR COALESCE(%(title)s <> c.title, false)
"""
RETURNING = "RETURNING c.version, c.next_position - %(count)s AS position, c.head_before AS head"
WITH_CHAT_OF_ANY_VERSION = """
WITH chat AS (
    INSERT INTO {schema}chats AS c (chat_key, owner_key, version, next_position, message_count, head, created_at,
        updated_at, shared, tenant_id, user_id, chat_id, title, metadata, title_unsearched)
    VALUES (%(key)s, %(owner)s, %(first)s, %(count)s, %(active)s, %(head)s, %(now)s,
        %(now)s, COALESCE(%(shared)s::boolean, false), %(tenant)s, %(user)s, %(chat)s, COALESCE(%(title)s, ''),
        %(metadata)s, COALESCE(%(title)s, '') <> '')
    ON CONFLICT (chat_key) DO UPDATE SET {set} WHERE %(expected)s::bigint IS NULL
    {returning}
)"""
# The same with less to send, for what is done most.
WITH_CHAT_APPENDED = """
WITH chat AS (
    INSERT INTO {schema}chats AS c (chat_key, owner_key, version, next_position, message_count, head, created_at,
        updated_at, shared, tenant_id, user_id, chat_id, title)
    VALUES (%(key)s, %(owner)s, %(first)s, %(count)s, %(active)s, %(head)s, %(now)s,
        %(now)s, false, %(tenant)s, %(user)s, %(chat)s, '')
    ON CONFLICT (chat_key) DO UPDATE SET
        version = c.version + %(writes)s,
        next_position = c.next_position + excluded.next_position,
        message_count = c.message_count + excluded.message_count,
        head_before = c.head,
        head = excluded.head,
        updated_at = GREATEST(c.updated_at, excluded.updated_at)
    {returning}
)"""
WITH_CHAT_OF_VERSION = """
WITH chat AS (
    UPDATE {schema}chats AS c SET {set} WHERE c.chat_key = %(key)s AND c.version = %(expected)s
    {returning}
)"""
COLUMNS = (
    "chat_key, position, message_id, parent, status, role, format, format_version, digest, created_at, metadata, "
    "text, payload"
)
ADD_ONE = """, added AS (
    INSERT INTO {schema}messages ({columns})
    SELECT %(key)s, chat.position, %(head)s, {parent}, %(status)s, %(role)s, %(format)s, %(format_version)s, %(digest)s,
        %(created_at)s, %(draft_metadata)s, %(text)s, %(payload)s
    FROM chat
)"""
# Several come as one JSON text, which costs less than an array for each column.
ADD_SEVERAL = """, added AS (
    INSERT INTO {schema}messages ({columns})
    SELECT %(key)s, chat.position + d.n, d.i, CASE WHEN d.n = 0 THEN {parent} ELSE d.b END, d.s, d.r, d.f, d.v,
        decode(d.d, 'hex'), d.a, d.m, d.t, d.p
    FROM chat, json_to_recordset(%(drafts)s::json) AS d(n bigint, i text, b text, s text, r text, f text, v text,
        d text, a timestamptz, m text, t text, p text)
)"""
ALTER = """, altered AS (
    UPDATE {schema}messages AS m SET
        status = COALESCE(a.s, m.status),
        parent = CASE WHEN a.b THEN a.c ELSE m.parent END,
        role = COALESCE(a.r, m.role),
        format = COALESCE(a.f, m.format),
        format_version = COALESCE(a.v, m.format_version),
        digest = COALESCE(decode(a.d, 'hex'), m.digest),
        metadata = CASE WHEN a.p IS NULL THEN m.metadata ELSE a.m END,
        text = CASE WHEN a.p IS NULL THEN m.text ELSE a.t END,
        payload = COALESCE(a.p, m.payload)
    FROM chat, json_to_recordset(%(alterations)s::json) AS a(n bigint, s text, b boolean, c text, r text, f text,
        v text, d text, m text, t text, p text)
    WHERE m.chat_key = %(key)s AND m.position = a.n
)"""
DELETE = """, deleted AS (
    DELETE FROM {schema}messages AS m USING chat WHERE m.chat_key = %(key)s AND m.position = ANY(%(deletions)s)
)"""
# What a search would find it by.
FORGET = """, forgotten AS (
    DELETE FROM {schema}message_grams AS g USING chat WHERE g.chat_key = %(key)s AND g.block = ANY(%(forgotten)s)
)"""
END = {
    True: "\nSELECT version, position, head FROM chat",
    False: "\nSELECT version, position, head, set_config('synchronous_commit', 'off', true) FROM chat",
}

# What is done most, with as little to send as possible: `WITH_CHAT_APPENDED` and `ADD_ONE` for one message.
APPEND = """
WITH chat AS (
    INSERT INTO {schema}chats AS c (chat_key, owner_key, tenant_id, user_id, chat_id, version, next_position,
        message_count, head, created_at, updated_at, shared, title)
    VALUES ($1, $2, $3, $4, $5, $6, 1, 1, $7, $8, $8, false, '')
    ON CONFLICT (chat_key) DO UPDATE SET
        version = c.version + 1,
        next_position = c.next_position + 1,
        message_count = c.message_count + 1,
        head_before = c.head,
        head = excluded.head,
        updated_at = GREATEST(c.updated_at, excluded.updated_at)
    RETURNING c.version, c.next_position - 1 AS position, c.head_before AS head
), added AS (
    INSERT INTO {schema}messages (chat_key, position, message_id, parent, status, role, format, format_version, digest,
        created_at, metadata, text, payload)
    SELECT $1, chat.position, $7, chat.head, 'active', $9, $10, $11, $12, $8, $13, $14, $15 FROM chat
)"""

LARGEST = 2**63 - 1
SEVERAL = 100
SEVERAL_CHARACTERS = 1_000_000
"""More drafts, or longer ones, are copied instead of sent as one JSON text."""
ROWS = 16
"""Rows that are copied at a time: few, so that the server has always something to do meanwhile."""

Parameters = dict[str, str | None]


def merely_appends(change: Change) -> bool:
    """Whether this is what is done most: it takes less to say, and several such changes can be made at once."""
    return (
        change.expected_version is None
        and 0 < len(change.drafts) <= SEVERAL
        and change.follows is UNSET
        and change.title is UNSET
        and change.metadata is UNSET
        and change.shared is UNSET
        and not change.contents
    )


def is_long(drafts: Sequence[Draft]) -> bool:
    """Whether drafts are to be copied, after the statement."""
    count = len(drafts)
    return count > SEVERAL or (count > 1 and sum(len(draft.payload) for draft in drafts) > SEVERAL_CHARACTERS)


def parameters_of(chat: ChatKey) -> dict[str, str]:
    """Those that are the same for each change of a chat."""
    return {
        "key": chat.key.hex,
        "owner": chat.owner.hex,
        "tenant": chat.tenant_id,
        "user": chat.user_id,
        "chat": chat.chat_id,
    }


def appended(chat: Sequence[str], draft: Draft) -> list[str | None]:
    """The parameters of `APPEND`. chat: what `parameters_of` it says, in that order."""
    message_id, role, form, version, payload, text, digest, at, metadata, said, _ = draft
    return [
        *chat,
        str(first_version(at)),
        message_id,
        at.isoformat(),
        role,
        form,
        version,
        f"\\x{digest.hex()}",
        metadata,
        None if said else text,
        payload,
    ]


def change_statement(
    prefix: str,
    chat: Mapping[str, str],
    changes: Sequence[Change],
    drafts: Sequence[Draft],
    *,
    copies: bool,
    waits: bool,
) -> tuple[str, list[str | None]]:
    """What makes these changes as one, and its parameters. Several merely append.

    prefix: the schema and a dot, or nothing. chat: `parameters_of` it. drafts: of all changes. copies: whether the
    drafts follow separately. waits: whether the commit waits for the disk.
    """
    change = changes[0]
    parameters: Parameters = {**chat, **_parameters(changes, drafts, copies)}
    text, names = _statement(
        prefix,
        _chat_part(change),
        change.follows is UNSET,
        0 if copies else min(len(drafts), 2),
        "alterations" in parameters,
        "deletions" in parameters,
        "forgotten" in parameters,
        waits,
    )
    return text, [parameters[name] for name in names]


@lru_cache(maxsize=256)
def _statement(
    prefix: str, chat: str, after_head: bool, drafts: int, alters: bool, deletes: bool, forgets: bool, waits: bool
) -> tuple[str, list[str]]:
    """The text, with numbers for parameters, and the names that these had."""
    added = ("", ADD_ONE, ADD_SEVERAL)[drafts].replace("{parent}", "chat.head" if after_head else "%(follows)s")
    text = chat + added + ALTER * alters + DELETE * deletes + FORGET * forgets + END[waits]
    text = text.format(schema=prefix, set=SET, returning=RETURNING, columns=COLUMNS)
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    return re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", text), names


def _chat_part(change: Change) -> str:
    if change.expected_version:
        return WITH_CHAT_OF_VERSION
    return WITH_CHAT_APPENDED if merely_appends(change) else WITH_CHAT_OF_ANY_VERSION


def _parameters(changes: Sequence[Change], drafts: Sequence[Draft], copies: bool) -> Parameters:
    change = changes[0]
    now = change.now if len(changes) == 1 else max(each.now for each in changes)
    parameters: Parameters = {
        "now": now.isoformat(),
        "first": str(first_version(now) + len(changes) - 1),
        "writes": str(len(changes)),
        "count": str(len(drafts)),
        "active": str(sum([each.active for each in changes])),
        "head": _last_id(drafts) if drafts else None if change.head is UNSET else change.head,
    }
    if not merely_appends(change):
        parameters |= {
            "expected": None if change.expected_version is None else str(min(change.expected_version, LARGEST)),
            "set_head": str(bool(drafts) or change.head is not UNSET),
            "follows": None if change.follows is UNSET else change.follows,
            "title": None if change.title is UNSET else change.title,
            "shared": None if change.shared is UNSET else str(change.shared),
            "changes": str(bool(change.replacements or change.deletions)),
            "set_metadata": str(change.metadata is not UNSET),
            "metadata": None if change.metadata is UNSET else change.metadata,
        }
    if len(drafts) == 1:
        _, role, form, version, payload, text, digest, at, metadata, said, status = drafts[0]
        parameters |= {
            "status": status,
            "role": role,
            "format": form,
            "format_version": version,
            "digest": f"\\x{digest.hex()}",
            "created_at": parameters["now"] if at is now else at.isoformat(),
            "draft_metadata": metadata,
            "text": None if said else text,
            "payload": payload,
        }
    elif drafts and not copies:
        parameters["drafts"] = _drafts_as_json(drafts)
    if change.statuses or change.parents or change.replacements:
        parameters["alterations"] = _alterations_as_json(change)
    if change.deletions:
        parameters["deletions"] = _array(change.deletions)
    blocks = {position // BLOCK for position in [*change.deletions, *(place for place, _ in change.replacements)]}
    if change.title is not UNSET and change.expected_version:
        blocks.add(TITLE)
    if blocks:
        parameters["forgotten"] = _array(blocks)
    return parameters


def _array(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"


def _last_id(drafts: Sequence[Draft]) -> str:
    """The id of the last draft, which need not be made to know it."""
    return drafts.message_ids[-1] if isinstance(drafts, Drafts) else drafts[-1].message_id


def _drafts_as_json(drafts: Sequence[Draft]) -> str:
    rows = []
    before = None
    for place, draft in enumerate(drafts):
        message_id, role, form, version, payload, text, digest, at, metadata, said, status = draft
        row = {"n": place, "i": message_id, "b": before, "s": status, "r": role, "f": form, "v": version}
        row |= {"d": digest.hex(), "a": at.isoformat(), "m": metadata, "t": None if said else text, "p": payload}
        rows.append(row)
        before = message_id
    return json.dumps(rows, ensure_ascii=False)


def _alterations_as_json(change: Change) -> str:
    """All that becomes of one message in one row, because a statement can update each row only once."""
    rows: dict[int, dict[str, Any]] = {}
    for position, status in change.statuses:
        rows.setdefault(position, {"n": position})["s"] = status
    for position, parent in change.parents:
        rows.setdefault(position, {"n": position}).update(b=True, c=parent)
    for position, new in change.replacements:
        row = {"r": new.role, "f": new.format, "v": new.format_version, "d": new.digest.hex(), "m": new.metadata}
        rows.setdefault(position, {"n": position}).update(row, t=None if new.said else new.text, p=new.payload)
    return json.dumps(list(rows.values()), ensure_ascii=False)


def copied(chat: ChatKey, position: int, parent: str | None, drafts: Sequence[Draft]) -> Iterator[str]:
    """Drafts as COPY reads them, some at a time."""
    rows = _rows(chat, position, parent, drafts)
    while block := "".join(islice(rows, ROWS)):
        yield block


def _rows(chat: ChatKey, position: int, parent: str | None, drafts: Sequence[Draft]) -> Iterator[str]:
    key, before = chat.key.hex, _field(parent)
    known: Any = None
    constant = time = ""
    at = None
    for place, draft in enumerate(plain(drafts), position):
        message_id, role, form, version, payload, text, digest, created_at, metadata, said, status = draft
        if known != (status, role, form, version):
            known = status, role, form, version
            constant = f"{status}\t{_field(role)}\t{_field(form)}\t{_field(version)}"
        if at is not created_at:
            at = created_at
            time = at.isoformat()
        written = _field(message_id)
        yield (
            f"{key}\t{place}\t{written}\t{before}\t{constant}\t\\\\x{digest.hex()}\t{time}\t{_field(metadata)}\t"
            f"{_field(None if said else text)}\t{_field(payload)}\n"
        )
        before = written


def _field(text: str | None) -> str:
    if text is None:
        return "\\N"
    # Looking first is faster than replacing nothing.
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\n" in text or "\t" in text or "\r" in text:
        text = text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return text


def what_was_written(changes: Sequence[Change], answer: PGresult) -> list[Written]:
    """What each of the changes did; nothing where the chat was at another version."""
    return written_at(changes, *place_in(answer)) if answer.ntuples else []


def place_in(answer: PGresult) -> Written:
    """The chat's version after a write, and the position and head that it was given."""
    head = answer.get_value(0, 2)
    return Written(
        int(answer.get_value(0, 0) or 0), int(answer.get_value(0, 1) or 0), None if head is None else head.decode()
    )


def written_at(changes: Sequence[Change], version: int, position: int, head: str | None) -> list[Written]:
    """What each of the changes did that found the chat at this position and head, and left it at this version."""
    version -= len(changes) - 1
    written = []
    for change in changes:
        if not change.drafts:
            return [Written(version, 0, None)]
        written.append(Written(version, position, head if change.follows is UNSET else change.follows))
        version += 1
        position += len(change.drafts)
        head = _last_id(change.drafts)
    return written

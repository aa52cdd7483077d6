"""Chats in Redis: a whole backend, to be read as an example of how to write one. docs/plug-ins.md explains it.

Everything of one chat changes in one transaction that watches the chat's record: what a write read is still so when it
takes effect, or the write is worked out anew. Under a prefix there are

    chat:<chat key>      the record, as JSON
    messages:<chat key>  hash: position -> message, as JSON
    ids:<chat key>       hash: message id -> position
    owner:<owner key>    sorted set: "<time of the last activity> <chat key>", in order of the text
    owners               hash: owner key -> [tenant id, user id]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID, uuid4

import redis
from redis.client import Pipeline

from chat_history.backends.base import (
    UNSET,
    Backend,
    Change,
    ChatKey,
    ChatRecord,
    Cleared,
    Draft,
    Outline,
    OutlineRow,
    OwnerKey,
    PayloadRow,
    Record,
    Written,
    first_version,
    owner_key,
)
from chat_history.errors import HistoryClosedError, StorageError, StoreUnavailableError, VersionConflictError

__all__ = ["RedisBackend"]

T = TypeVar("T")
Row = dict[str, Any]

STEP = 500
"""How many messages are asked for at a time."""


class RedisBackend(Backend):
    """Chats in a Redis database, or in what speaks its protocol. Not in a cluster.

    url: as redis-py reads it (redis://, rediss://, unix://). prefix: of every key. durability: "full" refuses a server
    that answers before a write is on its disk, "relaxed" takes any. timeout: seconds to wait for an answer.
    """

    name = "redis"

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = "chats",
        durability: Literal["full", "relaxed"] = "full",
        timeout: float = 30.0,
    ) -> None:
        self._options = {"prefix": prefix, "durability": durability, "timeout": timeout}
        self._location = _without_password(url)
        self._prefix = prefix
        self._redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=timeout)
        self._is_closed = False
        if durability == "full":
            self._refuse_forgetful()

    @property
    def location(self) -> str:
        return self._location

    @property
    def settings(self) -> dict[str, Any]:
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}", "url": self._location, **self._options}

    def close(self) -> None:
        self._is_closed = True
        self._redis.close()

    # ---- writing

    def write(self, chat: ChatKey, change: Change) -> Written:
        token = uuid4().hex
        written = Written(0, 0, None)

        def work(pipe: Pipeline) -> Written:
            nonlocal written
            old = self._record(pipe, chat)
            if old and old["token"] == token:
                return written  # it happened, and only the answer was lost
            version = old["version"] if old else 0
            if change.expected_version not in (None, version):
                raise VersionConflictError(change.expected_version or 0, version)
            new = (old or _new_record(chat, change.now)) | {"token": token}
            position, parent = new["end"], new["head"] if change.follows is UNSET else change.follows
            if self._positions(pipe, chat, [draft.message_id for draft in change.drafts]):
                raise StorageError(f"{self.location}: a message with this id is in the chat already")
            rows = self._altered(pipe, chat, change)
            gone = self._messages(pipe, chat, change.deletions)
            head = parent
            for place, draft in enumerate(change.drafts, position):
                row = {"message_id": draft.message_id, "parent": head, "status": draft.status}
                rows[place] = row | _content(draft) | {"created_at": _stamp(draft.created_at)}
                head = draft.message_id
            given = {"title": change.title, "metadata": change.metadata, "shared": change.shared}
            given["head"] = head if change.drafts else change.head
            new |= {name: value for name, value in given.items() if value is not UNSET}
            new["version"] += 1
            new["end"] += len(change.drafts)
            new["message_count"] += change.active
            new["updated_at"] = max(new["updated_at"], _stamp(change.now))

            pipe.multi()
            pipe.set(self._key("chat", chat.key), json.dumps(new))
            if rows:
                pipe.hset(self._key("messages", chat.key), mapping={at: json.dumps(row) for at, row in rows.items()})
                pipe.hset(self._key("ids", chat.key), mapping={row["message_id"]: at for at, row in rows.items()})
            for at, row in gone:
                pipe.hdel(self._key("messages", chat.key), str(at))
                pipe.hdel(self._key("ids", chat.key), row["message_id"])
            if old:
                pipe.zrem(self._key("owner", chat.owner), _place(old["updated_at"], chat.key))
            pipe.zadd(self._key("owner", chat.owner), {_place(new["updated_at"], chat.key): 0})
            pipe.hset(self._key("owners"), chat.owner.hex, json.dumps([chat.tenant_id, chat.user_id]))
            written = Written(new["version"], position, parent) if change.drafts else Written(new["version"], 0, None)
            return written

        return self._transaction(work, self._key("chat", chat.key))

    def _altered(self, pipe: Pipeline, chat: ChatKey, change: Change) -> dict[int, Row]:
        """The messages that a change alters, as they will be, by position."""
        altered = {position for position, _ in (*change.statuses, *change.parents, *change.replacements)}
        rows = dict(self._messages(pipe, chat, altered))
        for position, status in change.statuses:
            rows[position]["status"] = status
        for position, parent in change.parents:
            rows[position]["parent"] = parent
        for position, draft in change.replacements:
            rows[position] |= _content(draft)
        return rows

    def delete_chat(self, chat: ChatKey, expected_version: int | None = None) -> bool:
        owner = self._key("owner", chat.owner)

        def work(pipe: Pipeline) -> bool:
            old = self._record(pipe, chat)
            version = old["version"] if old else 0
            if expected_version not in (None, version):
                raise VersionConflictError(expected_version or 0, version)
            is_last = pipe.zcard(owner) == 1
            pipe.multi()
            if old:
                pipe.delete(*self._keys_of(chat.key))
                pipe.zrem(owner, _place(old["updated_at"], chat.key))
                if is_last:
                    pipe.hdel(self._key("owners"), chat.owner.hex)
            return old is not None

        return self._transaction(work, self._key("chat", chat.key), owner)

    def clear(self, owner: OwnerKey) -> Cleared:
        def work(pipe: Pipeline) -> Cleared:
            keys = [UUID(place[-32:]) for place in pipe.zrange(self._key("owner", owner.key), 0, -1)]
            messages = sum(pipe.hlen(self._key("ids", key)) for key in keys)
            pipe.multi()
            pipe.delete(self._key("owner", owner.key), *(name for key in keys for name in self._keys_of(key)))
            pipe.hdel(self._key("owners"), owner.key.hex)
            return Cleared(len(keys), messages)

        return self._transaction(work, self._key("owner", owner.key))

    # ---- reading

    def get_chat(self, chat: ChatKey) -> ChatRecord | None:
        with self._translated():
            record = self._record(self._redis, chat)
        return _chat_record(record) if record else None

    def outline(self, chat: ChatKey) -> Outline | None:
        def work(pipe: Pipeline) -> Outline | None:
            record = self._record(pipe, chat)
            if record is None:
                return None
            rows = [
                OutlineRow(at, row["message_id"], row["parent"], row["status"], bytes.fromhex(row["digest"]))
                for at, row in self._messages(pipe, chat, range(record["end"]))
            ]
            return Outline(record["version"], record["head"], rows)

        return self._transaction(work, self._key("chat", chat.key))

    def read(
        self,
        chat: ChatKey,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        status: str | None = "active",
    ) -> list[Record]:
        def work(pipe: Pipeline) -> list[Record]:
            record = self._record(pipe, chat) or {"end": 0}
            first = 0 if after is None else after + 1
            end = record["end"] if before is None else min(before, record["end"])
            found: list[Record] = []
            # From the edge that is wanted, until there are enough.
            while first < end and (limit is None or len(found) < limit):
                near = range(max(first, end - STEP), end) if newest else range(first, min(first + STEP, end))
                first, end = (first, near.start) if newest else (near.stop, end)
                rows = self._messages(pipe, chat, near)
                records = [_record(at, row) for at, row in rows if status in (None, row["status"])]
                found = records + found if newest else found + records
            return found if limit is None else found[-limit:] if newest else found[:limit]

        return self._transaction(work, self._key("chat", chat.key))

    def read_payloads(self, chat: ChatKey, **where: Any) -> Sequence[PayloadRow]:
        return [PayloadRow(each.position, each.role, each.format, each.payload) for each in self.read(chat, **where)]

    def find(self, chat: ChatKey, message_ids: Sequence[str]) -> list[Record]:
        def work(pipe: Pipeline) -> list[Record]:
            positions = self._positions(pipe, chat, message_ids)
            return [_record(at, row) for at, row in self._messages(pipe, chat, positions)]

        return self._transaction(work, self._key("chat", chat.key))

    def list_chats(
        self,
        owner: OwnerKey,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[ChatRecord]:
        def work(pipe: Pipeline) -> list[ChatRecord]:
            if before is not None:
                least = "(" + _place(_stamp(before[0]), before[1])
                places = pipe.zrangebylex(self._key("owner", owner.key), least, "+", start=0, num=limit)[::-1]
            else:
                most = "+" if after is None else "(" + _place(_stamp(after[0]), after[1])
                places = pipe.zrevrangebylex(self._key("owner", owner.key), most, "-", start=0, num=limit)
            return [_chat_record(record) for record in self._records(pipe, places)]

        return self._transaction(work, self._key("owner", owner.key))

    def chat_ids(self, owner: OwnerKey) -> list[str]:
        def work(pipe: Pipeline) -> list[str]:
            places = pipe.zrange(self._key("owner", owner.key), 0, -1)
            made = [
                (record["created_at"], place[-32:], record["chat_id"])
                for place, record in zip(places, self._records(pipe, places), strict=True)
            ]
            return [chat_id for _, _, chat_id in sorted(made)]

        return self._transaction(work, self._key("owner", owner.key))

    def owners(self) -> list[OwnerKey]:
        with self._translated():
            found = self._redis.hvals(self._key("owners"))
        return [owner_key(*owner) for owner in sorted(map(json.loads, found))]

    # ---- what these are made of

    def _key(self, kind: str, key: UUID | None = None) -> str:
        return f"{self._prefix}:{kind}" + (f":{key.hex}" if key else "")

    def _keys_of(self, chat: UUID) -> list[str]:
        return [self._key(kind, chat) for kind in ("chat", "messages", "ids")]

    def _record(self, client: redis.Redis, chat: ChatKey) -> Row | None:
        stored = client.get(self._key("chat", chat.key))
        return json.loads(stored) if stored else None

    def _records(self, pipe: Pipeline, places: Sequence[str]) -> list[Row]:
        keys = [self._key("chat", UUID(place[-32:])) for place in places]
        return [json.loads(stored) for stored in pipe.mget(keys)] if keys else []

    def _messages(self, pipe: Pipeline, chat: ChatKey, positions: Collection[int]) -> list[tuple[int, Row]]:
        """The messages at these positions, in the same order; those that were deleted are left out."""
        found = pipe.hmget(self._key("messages", chat.key), positions) if positions else []
        return [(at, json.loads(row)) for at, row in zip(positions, found, strict=True) if row]

    def _positions(self, pipe: Pipeline, chat: ChatKey, message_ids: Sequence[str]) -> list[int]:
        """Where the messages with these ids are, as far as there are any."""
        found = pipe.hmget(self._key("ids", chat.key), message_ids) if message_ids else []
        return sorted({int(at) for at in found if at is not None})

    def _transaction(self, work: Callable[[Pipeline], T], *watched: str) -> T:
        """Do work, which reads and then, after `multi()`, writes. All of it anew if what it watches changed meanwhile.

        Work that only reads sees everything as it was at one moment.
        """

        def checked(pipe: Pipeline) -> T:
            try:
                return work(pipe)
            except (KeyError, TypeError) as error:
                # It missed something. Where others deleted that between two of its reads, this begins it anew.
                pipe.multi()
                pipe.execute()
                raise StorageError(f"{self.location}: a part of a chat is missing; does Redis evict keys?") from error

        with self._translated():
            return self._redis.transaction(checked, *watched, value_from_callable=True)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's errors become ours, here and nowhere else."""
        if self._is_closed:
            raise HistoryClosedError(f"{self.location} was closed; open it again")
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StoreUnavailableError(
                f"{self.location} cannot be reached, and a write that was under way may have happened: {error}"
            ) from error
        except redis.RedisError as error:
            raise StorageError(f"{self.location}: Redis refused: {error}") from error

    def _refuse_forgetful(self) -> None:
        with self._translated():
            keeps_log = self._redis.info("persistence")["aof_enabled"]
            syncs = self._redis.config_get("appendfsync")["appendfsync"]
        if not keeps_log or syncs != "always":
            raise StorageError(
                f"{self.location} answers before a write is on its disk; start it with --appendonly yes --appendfsync "
                'always, or give durability="relaxed"'
            )


# ---- from our words to what is stored, and back


def _new_record(chat: ChatKey, now: datetime) -> Row:
    return {
        "chat_id": chat.chat_id,
        "title": "",
        "metadata": None,
        "shared": False,
        "version": first_version(now) - 1,
        "message_count": 0,
        "head": None,
        "created_at": _stamp(now),
        "updated_at": _stamp(now),
        "end": 0,
    }


def _content(draft: Draft) -> Row:
    """What a replacement takes of a draft."""
    return {
        "role": draft.role,
        "format": draft.format,
        "format_version": draft.format_version,
        "payload": draft.payload,
        "text": draft.text,
        "digest": draft.digest.hex(),
        "metadata": draft.metadata,
    }


def _record(position: int, row: Row) -> Record:
    fields = {name: row[name] for name in Record._fields if name != "position"}
    return Record(position=position, **fields)._replace(created_at=datetime.fromisoformat(row["created_at"]))


def _chat_record(record: Row) -> ChatRecord:
    fields = {name: record[name] for name in ChatRecord._fields}
    times = {name: datetime.fromisoformat(record[name]) for name in ("created_at", "updated_at")}
    return ChatRecord(**fields | times)


def _stamp(time: datetime) -> str:
    """A time as text that sorts as times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _place(updated_at: str, chat: UUID) -> str:
    """Where a chat stands among its owner's."""
    return f"{updated_at} {chat.hex}"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    options = [option for option in parse_qsl(parts.query) if option[0] not in ("username", "password")]
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{place}?{urlencode(options)}" if options else place

"""`stats`: how much there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated

import typer

from chat_history.history import ChatHistory
from chat_history.messages import StoredMessage

from .looking import all_chats
from .opening import Json, Tenant, Url, User, every_owner, opened
from .printing import console, note, print_json, say, table, with_progress

__all__ = ["stats"]


@dataclass
class _Amount:
    """How much there is, or of one day how much was stored on it."""

    chats: int = 0
    messages: int = 0
    bytes: int = 0
    """Of payloads, in UTF-8."""


@dataclass
class _Counted:
    users: int = 0
    total: _Amount = field(default_factory=_Amount)
    statuses: Counter[str] = field(default_factory=Counter)
    days: dict[str, _Amount] = field(default_factory=dict)

    def messages(self, owners: Iterator[ChatHistory]) -> Iterator[StoredMessage]:
        """Every message of every chat; each chat is counted on the way."""
        for owner in owners:
            self.users += 1
            for chat in all_chats(owner):
                self.total.chats += 1
                self.day(chat.created_at.date().isoformat()).chats += 1
                yield from owner.iter_messages(chat.chat_id, status=None)

    def day(self, day: str) -> _Amount:
        return self.days.setdefault(day, _Amount())

    def count(self, message: StoredMessage) -> None:
        size = len(message.payload.encode())
        for amount in (self.total, self.day(message.created_at.date().isoformat())):
            amount.messages += 1
            amount.bytes += size
        self.statuses[message.status.value] += 1


def stats(
    url: Url = None,
    user: User = None,
    tenant: Tenant = None,
    days: Annotated[int, typer.Option(min=1, help="So many of the newest days on which anything was stored.")] = 30,
    as_json: Json = False,
) -> None:
    """Count chats, messages and bytes, by day: of the whole store, or with --user or --tenant of one owner."""
    counted = _Counted()
    with opened(url, user, tenant, must_exist=True) as history:
        owners = every_owner(history) if user is None and tenant is None else iter([history])
        for message in with_progress(counted.messages(owners)):
            counted.count(message)
        newest = [{"day": day} | asdict(counted.days[day]) for day in sorted(counted.days)[-days:]]
        if as_json:
            statuses = {name: counted.statuses[name] for name in ("active", "archived", "superseded")}
            fields = {"location": history.location, "users": counted.users, **asdict(counted.total), **statuses}
            print_json(fields | {"days": newest})
            return
        total = counted.total
        say(
            f"{total.chats:,} chats of {counted.users:,} users with {total.messages:,} messages "
            f"({', '.join(f'{number:,} {name}' for name, number in sorted(counted.statuses.items())) or 'none'}) "
            f"of {_size(total.bytes)} are in {history.location}"
        )
        if not newest:
            return
        rows = table("day (UTC)", "new chats", "messages", "size", right=["new chats", "messages", "size"])
        for each in newest:
            rows.add_row(each["day"], f"{each['chats']:,}", f"{each['messages']:,}", _size(each["bytes"]))
        say("")
        console(wide=True).print(rows)
        if len(newest) < len(counted.days):
            note(f"these are the newest {days} days; --days shows more")


def _size(number: int) -> str:
    power = max(0, min(4, (len(str(number)) - 1) // 3))
    unit = ("bytes", "kB", "MB", "GB", "TB")[power]
    return f"{number / 1000**power:,.{min(power, 1)}f} {unit}"

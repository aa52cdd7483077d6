"""Every way a chat is written to, as changes that a backend applies at a version.

Whatever changes messages that exist is worked out on the chat as it was read, and written on condition that it still
is. Where others wrote meanwhile it is worked out anew, unless the caller named the version.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, cast

from .backends.base import (
    UNSET,
    Backend,
    Change,
    ChatKey,
    Draft,
    Outline,
    OutlineRow,
    Record,
    UnsetType,
    Written,
)
from .backends.contents import THRESHOLD, bare
from .backends.drafts import Drafts
from .branches import Branches
from .errors import (
    ChatHistoryError,
    ChatHistoryWarning,
    InvalidArgumentError,
    MessageNotFoundError,
    StoreBusyError,
    VersionConflictError,
)
from .formats import Dumped, MessageFormat, dump_as, get_format, recognise
from .limits import Limit, prompt_alone
from .loading import naming_damage
from .messages import MessageStatus, new_ids
from .records import draft_again, draft_of
from .saving import Branch, Given, Plan, digest, plan
from .snapshots import Snapshots
from .tree import path, switch
from .windows import HEAD, ChangedError

__all__ = ["ATTEMPTS", "Arrange", "Choose", "Writer", "busy", "deletion", "no_message", "shortened"]

ATTEMPTS = 200
"""How often a call is worked out anew. Each time somebody else got on, so this is a lot."""

MANY = 1000
"""Messages of one write that are made ready before it begins."""

Choose = Callable[[Sequence[OutlineRow]], Sequence[OutlineRow]]
"""Picks rows of a chat's outline."""
Arrange = Callable[[Outline, Sequence[OutlineRow]], Change]
"""What is done with the rows that were picked."""


class Writer:
    """Writes to one store, and remembers what it wrote a moment ago. Shared by the views of all owners."""

    def __init__(self, backend: Backend, limit: Limit | None = None) -> None:
        self.backend = backend
        self.limit = limit
        self.bare = bare(backend)
        """For what needs no contents."""
        self.branches = Branches()
        self.snapshots = Snapshots()

    # ---- adding

    def draft(self, message: Any, message_id: str, metadata: str | None, form: MessageFormat | None) -> Draft:
        """A message ready to be appended. `InvalidMessageError` if it cannot be stored."""
        form, dumped, mark = self._dumped(message, form)
        return draft_of(form, dumped, mark, message_id, datetime.now(UTC), metadata)

    def drafts(
        self, messages: Sequence[Any], ids: Sequence[str], metadata: str | None, form: MessageFormat | None
    ) -> Drafts:
        """Messages ready to be appended. `InvalidMessageError` for the first that cannot be stored.

        Of very many the first are made now, and the others as the backend comes to them, which undoes what it did where
        one of them cannot be stored.
        """
        now = datetime.now(UTC)
        dumped = self._dumped
        drafts = Drafts(
            (
                draft_of(*dumped(message, form), message_id, now, metadata)
                for message, message_id in zip(messages, ids, strict=True)
            ),
            ids,
        )
        drafts.made(MANY)
        return drafts

    def append_one(self, key: ChatKey, draft: Draft) -> Written:
        """Add it at the end, whatever the version."""
        if len(draft.payload) > THRESHOLD:
            return self.append(key, (draft,), None)
        written = self.backend.append(key, draft)
        self.branches.drop(key.key)
        return written

    def append(self, key: ChatKey, drafts: Sequence[Draft], expected_version: int | None) -> Written:
        """Add them all, next to one another."""
        change = Change(drafts[0].created_at, expected_version, drafts, active=len(drafts))
        written = self.backend.write(key, change)
        self.branches.drop(key.key)
        return written

    def append_once(
        self, key: ChatKey, drafts: Sequence[Draft], expected_version: int | None
    ) -> tuple[list[Draft], Written | None, list[Record]]:
        """Add those whose ids the chat has not: what was added, and the records of the others."""
        by_id: dict[str, Draft] = {}
        for draft in drafts:
            by_id.setdefault(draft.message_id, draft)
        for version in self.versions(key, expected_version):
            found = self.backend.find(key, list(by_id)) if version else []
            known = {record.message_id for record in found}
            new = [draft for message_id, draft in by_id.items() if message_id not in known]
            if not new:
                return [], None, found
            written = self.attempt(key, Change(new[0].created_at, version, new, active=len(new)), expected_version)
            if written:
                return new, written, found
        raise AssertionError

    # ---- saving

    def save(
        self,
        key: ChatKey,
        messages: Sequence[Any],
        expected_version: int | None,
        form: MessageFormat | None,
        *,
        whole: bool,
        keep_archived: bool = True,
    ) -> tuple[Sequence[Draft], Written | None]:
        """Make the active branch end with these messages, or (whole) be them: what was added to it."""
        digests, dumped = self._digests(messages, form)
        gone = 0

        def give(start: int) -> list[Given]:
            start += gone
            return [
                Given(message, form or recognise(message), digests[index], dumped.get(index))
                for index, message in enumerate(messages[start:], start)
            ]

        for _ in range(ATTEMPTS):
            try:
                branch = self._branch(key, expected_version)
                if self.limit and not whole:
                    gone = self.limit.taken_out(
                        branch, digests, lambda stored: self._has_prompt(key, stored, messages, form)
                    )
                read: list[Record] = []
                with naming_damage(key.chat_id, ((record.position, record.payload) for record in read)):
                    reader = self._reader(key, branch, read)
                    found = plan(branch, digests[gone:], give, reader, whole=whole, keep_archived=keep_archived)
                change = self._change(key, branch, found)
                if not (found.new or change.statuses or (whole and not branch.version)):
                    self._check_unchanged(key, branch.version)
                    return [], None
                written = self.backend.write(key, change)
            except VersionConflictError as conflict:
                self.branches.drop(key.key)
                if expected_version is not None:
                    raise VersionConflictError(expected_version, conflict.actual) from None
                continue
            if change.appends_only:
                self.branches.put(key.key, branch.grown(found.new, written))
            else:
                self.branches.drop(key.key)
            if found.strange:
                _warn_of_strangers(key, len(messages), len(branch.digests))
            return change.drafts, written
        raise busy(key)

    def _has_prompt(self, key: ChatKey, branch: Branch, messages: Sequence[Any], form: MessageFormat | None) -> bool:
        """Whether the system prompts that lead these messages lead the chat too, where others may stand behind them."""
        forms = [form or recognise(message) for message in messages[:HEAD]]
        given = _prompts((its, its.dump(message).payload) for its, message in zip(forms, messages, strict=False))
        head = self._reader(key, branch, [])(0, HEAD)
        return given == _prompts((get_format(each.format), each.payload) for each in head)[: len(given)]

    def _change(self, key: ChatKey, branch: Branch, found: Plan) -> Change:
        """The write that a plan comes to."""
        now = datetime.now(UTC)
        ids = new_ids(len(found.new))
        drafts = Drafts(
            (
                draft_of(each.format, each.dumped or each.format.dump(each.message), each.digest, message_id, now)
                for each, message_id in zip(found.new, ids, strict=True)
            ),
            ids,
        )
        drafts.made()
        change = Change(now, branch.version, drafts, active=len(drafts))
        displaced = branch.positions[found.kept :]
        if not displaced and not found.revived:
            return change
        change.statuses = [(position, MessageStatus.SUPERSEDED) for position in displaced]
        change.statuses += [(position, MessageStatus.ACTIVE) for position in found.revived]
        change.active += len(found.revived) - (len(branch.positions) - max(found.kept, branch.archived))
        change.follows = change.head = self._tail(key, branch, found)
        return change

    def _tail(self, key: ChatKey, branch: Branch, found: Plan) -> str | None:
        """The id of the message that the first new one follows."""
        stays = [*branch.positions[: found.kept], *found.revived][-1:]
        if not stays:
            return None
        records = self.bare.read(key, after=stays[0] - 1, before=stays[0] + 1, status=None)
        if not records:
            raise VersionConflictError(branch.version, self.version(key))
        return records[0].message_id

    def _branch(self, key: ChatKey, expected_version: int | None) -> Branch:
        """The chat's active branch as last seen, or as it is where that is not the expected version."""
        branch = self.branches.get(key.key)
        if branch is None or expected_version not in (None, branch.version):
            branch = Branch.of(self.backend.outline(key))
            self.branches.put(key.key, branch)
        if expected_version not in (None, branch.version):
            raise VersionConflictError(expected_version or 0, branch.version)
        return branch

    def _reader(self, key: ChatKey, branch: Branch, seen: list[Record]) -> Callable[[int, int], list[Record]]:
        def read(start: int, stop: int) -> list[Record]:
            positions = branch.positions[start:stop]
            if not positions:
                return []
            records = self.backend.read(key, after=positions[0] - 1, before=positions[-1] + 1, status=None)
            records = [record for record in records if record.status != MessageStatus.SUPERSEDED]
            if [record.position for record in records] != positions:
                raise VersionConflictError(branch.version, self.version(key))
            seen.extend(records)
            return records

        return read

    def _digests(self, messages: Sequence[Any], form: MessageFormat | None) -> tuple[list[bytes], dict[int, Dumped]]:
        """Every message's digest, and the JSON of those that had to be serialised to know it."""
        digests = self.snapshots.digests(messages)
        dumped: dict[int, Dumped] = {}
        for index, known in enumerate(digests):
            if known is not None and (form is None or form.recognises(messages[index])):
                continue
            _, dumped[index], digests[index] = self._dumped(messages[index], form)
        return cast(list[bytes], digests), dumped

    def _dumped(self, message: Any, form: MessageFormat | None = None) -> tuple[MessageFormat, Dumped, bytes]:
        if form is None:
            form = recognise(message)
            dumped = form.dump(message)
        else:
            dumped = dump_as(form, message)
        mark = digest(dumped.payload)
        if type(message) is not dict:
            self.snapshots.take(message, mark)
        return form, dumped, mark

    def keep_within_limit(self, key: ChatKey) -> None:
        """Let the oldest turns of a chat go that has grown too long. Where others are too busy, the next write does."""
        limit = self.limit
        if limit is None:
            return

        def beyond(rows: Sequence[OutlineRow]) -> Sequence[OutlineRow]:
            return limit.beyond(self.bare, key, rows)

        try:
            if limit.overflow == "archive":
                self._archive_beyond(key, limit)
            elif (record := self.backend.get_chat(key)) and record.message_count > limit.max_messages:
                self.rearrange(key, beyond, self.without_turns(key), self.bare)
        except StoreBusyError:
            pass
        except ChatHistoryError as error:
            # What was asked for is done, and must not seem to have failed.
            warnings.warn(
                f"the messages were stored, but chat {shortened(key.chat_id)} has more than "
                f"{limit.max_messages} now, and the oldest could not be {limit.overflow}d: {error}",
                ChatHistoryWarning,
                stacklevel=4,
            )

    def _archive_beyond(self, key: ChatKey, limit: Limit) -> None:
        """Archive the oldest turns, without a look at all that was archived before: a chat may be long by then."""
        for _ in range(ATTEMPTS):
            record = self.backend.get_chat(key)
            if record is None or record.message_count <= limit.max_messages:
                return
            try:
                kept = limit.kept(self.bare, key)
            except ChangedError:
                continue
            # Told how many there are, the store need not look whether there are more among the archived ones.
            count = record.message_count - len(kept)
            if not kept or count < 1:
                return
            rows = self.bare.read_payloads(key, before=kept[0][0], limit=count, newest=True)
            statuses = [(row[0], MessageStatus.ARCHIVED) for row in rows]
            branch = self.branches.get(key.key)
            change = Change(datetime.now(UTC), record.version, statuses=statuses, active=-len(rows))
            if written := self.attempt(key, change):
                if branch is not None and branch.version == record.version:
                    self.branches.put(key.key, branch.archiving(len(rows), written))
                return
        raise busy(key)

    def without_turns(self, key: ChatKey) -> Arrange:
        """The removal of the oldest turns, of which nothing stays but the prompt that leads the chat."""

        def change(outline: Outline, rows: Sequence[OutlineRow]) -> Change:
            change = deletion(outline, rows)
            before = [row for row in outline.rows if row[3] == rows[0][3] and row[0] < rows[0][0]]
            for row in before[-1:]:
                if draft := prompt_alone(self.backend, key, row):
                    change.replacements = [(row[0], draft)]
            return change

        return change

    # ---- changing what is there

    def replace(
        self, key: ChatKey, message_id: str, message: Any, metadata: str | UnsetType | None, form: MessageFormat | None
    ) -> Record | None:
        """Put another content into a message: its record then, None if there is no such message.

        metadata: the message's unless given.
        """
        draft = draft_of(*self._dumped(message, form), message_id, datetime.now(UTC))
        for version in self.versions(key):
            found = self.bare.find(key, [message_id])
            if not found:
                return None
            draft = draft._replace(metadata=found[0].metadata if metadata is UNSET else metadata)
            if self.attempt(key, Change(draft.created_at, version, replacements=[(found[0].position, draft)])):
                return found[0]._replace(
                    role=draft.role,
                    format=draft.format,
                    format_version=draft.format_version,
                    payload=draft.payload,
                    text=draft.text,
                    metadata=draft.metadata,
                )
        raise AssertionError

    def delete(self, key: ChatKey, choose: Choose) -> list[Record]:
        """Remove the chosen messages: their records as they were."""
        return self.rearrange(key, choose, deletion, self.backend)

    def remove(self, key: ChatKey, choose: Choose) -> int:
        """As `delete`, for whoever wants to know only how many, and of damaged ones too."""
        return len(self.rearrange(key, choose, deletion, self.bare))

    def fork(self, key: ChatKey, target: ChatKey, message_id: str | None, metadata: str | UnsetType | None) -> bool:
        """Begin a chat with the messages up to this one (None: the head); False if there is no such chat.

        metadata: the chat's unless given.

        `MessageNotFoundError`: no such message. `VersionConflictError`: there is a target.
        """
        for _ in range(ATTEMPTS):
            outline = self.backend.outline(key)
            chat = self.backend.get_chat(key)
            if outline is None or chat is None:
                return False
            try:
                way = path(outline.rows, message_id or outline.head)
            except KeyError:
                raise no_message(key, message_id) from None
            active, archived = MessageStatus.ACTIVE, MessageStatus.ARCHIVED
            statuses = {row[0]: archived if row[3] == archived else active for row in way}
            # The way lies between its ends: of a chat that goes on for long after it, nothing more is read.
            span = self.backend.read(key, after=way[0][0] - 1, before=way[-1][0] + 1, status=None) if way else []
            records = [each for each in span if each.position in statuses]
            if len(records) == len(way):
                break
        else:  # somebody deleted one of them each time
            raise busy(key)
        drafts = Drafts(
            (draft_again(record)._replace(status=statuses[record.position]) for record in records),
            [record.message_id for record in records],
        )
        change = Change(datetime.now(UTC), 0, drafts, title=chat.title, active=list(statuses.values()).count(active))
        change.metadata = chat.metadata if metadata is UNSET else metadata
        self.backend.write(target, change)
        return True

    def switch(
        self,
        key: ChatKey,
        message_id: str | None,
        drafts: Sequence[Draft],
        metadata: str | UnsetType | None,
        expected_version: int | None,
    ) -> bool:
        """Make the active branch end with this message, and then these; False if there is no such chat.

        From its beginning (None) a chat that is missing is created for them. `MessageNotFoundError`: no such message.
        """
        for version, head in self.ends(key, expected_version):
            if not version and (message_id is not None or not drafts):
                return False
            if version and drafts and (known := self.backend.find(key, [draft.message_id for draft in drafts])):
                raise InvalidArgumentError(
                    f"chat {shortened(key.chat_id)} has a message {known[0].message_id!r} already; give others new ids"
                )
            change = Change(datetime.now(UTC), version)
            if message_id != head:
                outline = self.backend.outline(key)
                if outline is None or outline.version != version:
                    continue
                try:
                    change = switch(outline, message_id)
                except KeyError:
                    raise no_message(key, message_id) from None
            change.drafts, change.metadata = drafts, metadata
            change.active += len(drafts)
            if drafts:
                change.follows = message_id
            elif not change.statuses and change.head is UNSET and metadata is UNSET:
                return True
            if self.attempt(key, change, expected_version):
                return True
        raise AssertionError

    def archive(self, key: ChatKey, choose: Choose) -> list[Record]:
        """Take the chosen messages out of the window: their records as they were."""

        def archival(outline: Outline, rows: Sequence[OutlineRow]) -> Change:
            statuses = [(row[0], MessageStatus.ARCHIVED) for row in rows]
            return Change(datetime.now(UTC), outline.version, statuses=statuses, active=-len(rows))

        return self.rearrange(key, choose, archival, self.backend)

    def rearrange(
        self,
        key: ChatKey,
        choose: Choose,
        change: Arrange,
        backend: Backend,
    ) -> list[Record]:
        """Change the chosen messages, at the version they were chosen at: their records as `backend` had them."""
        for _ in range(ATTEMPTS):
            outline = self.backend.outline(key)
            try:
                rows = choose(outline.rows) if outline else []
            except ChangedError:
                continue
            if not outline or not rows:
                return []
            records = backend.find(key, [row[1] for row in rows])
            if self.attempt(key, change(outline, rows)):
                return records
        raise busy(key)

    # ---- versions

    def version(self, key: ChatKey) -> int:
        """The chat's version, 0 if there is no such chat."""
        record = self.backend.get_chat(key)
        return 0 if record is None else record.version

    def versions(self, key: ChatKey, expected_version: int | None = None) -> Iterator[int]:
        """The chat's version, again each time that others wrote before something was done at it."""
        for version, _ in self.ends(key, expected_version):
            yield version

    def ends(self, key: ChatKey, expected_version: int | None = None) -> Iterator[tuple[int, str | None]]:
        """The chat's version and the last message of its active branch, again as `versions` does."""
        for _ in range(ATTEMPTS):
            record = self.backend.get_chat(key)
            version, head = (0, None) if record is None else (record.version, record.head)
            if expected_version not in (None, version):
                raise VersionConflictError(expected_version or 0, version)
            yield version, head
        raise busy(key)

    def attempt(self, key: ChatKey, change: Change, expected_version: int | None = None) -> Written | None:
        """Write; None if others wrote first and the caller named no version, so that it may be worked out anew."""
        self.branches.drop(key.key)
        try:
            return self.backend.write(key, change)
        except VersionConflictError:
            if expected_version is not None:
                raise
            return None

    def _check_unchanged(self, key: ChatKey, version: int) -> None:
        actual = self.version(key)
        if actual != version:
            raise VersionConflictError(version, actual)


def deletion(outline: Outline, rows: Sequence[OutlineRow]) -> Change:
    """Remove rows, and let what followed them follow the nearest that stays."""
    parents = {row[1]: row[2] for row in rows}

    def staying(message_id: str | None) -> str | None:
        while message_id in parents:
            message_id = parents[message_id]
        return message_id

    return Change(
        datetime.now(UTC),
        outline.version,
        head=staying(outline.head) if outline.head in parents else UNSET,
        active=-sum(row[3] == MessageStatus.ACTIVE for row in rows),
        parents=[(row[0], staying(row[2])) for row in outline.rows if row[2] in parents and row[1] not in parents],
        deletions=[row[0] for row in rows],
    )


def shortened(chat_id: str) -> str:
    """A chat id as a message to people shows it."""
    return repr(chat_id) if len(chat_id) <= 80 else f"{chat_id[:60]!r}... ({len(chat_id)} characters)"


def _prompts(payloads: Iterable[tuple[MessageFormat, str]]) -> list[str]:
    """What the system prompts say that lead messages, as `leading` of .limits counts them."""
    said: list[str] = []
    for count, (form, payload) in enumerate(payloads):
        neutral = form.to_neutral(payload)
        prompts = list(takewhile(lambda each: each["role"] in ("system", "developer"), neutral))
        if len(prompts) == len(neutral) or not count:
            said += [_said(each["content"]) for each in prompts]
        if len(prompts) < len(neutral):
            break
    return said


def _said(content: str | list[dict[str, Any]]) -> str:
    """The words of a content, which are one text in one format and a list with that text in another."""
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def no_message(key: ChatKey, message_id: str | None) -> MessageNotFoundError:
    """The error that names a message which a chat does not have."""
    return MessageNotFoundError(f"chat {shortened(key.chat_id)} has no message {message_id!r}")


def busy(key: ChatKey) -> StoreBusyError:
    """The error that says that a call did not get its turn at a chat."""
    return StoreBusyError(f"others kept writing to chat {shortened(key.chat_id)}; nothing was done, so try again")


def _warn_of_strangers(key: ChatKey, given: int, displaced: int) -> None:
    warnings.warn(
        f"none of the {given} messages saved was in chat {shortened(key.chat_id)}: they are a new branch now, and the "
        f"{displaced} messages stored before were set aside (status 'superseded'). If these were new_messages(), "
        "add_messages() is what appends them",
        ChatHistoryWarning,
        stacklevel=4,
    )

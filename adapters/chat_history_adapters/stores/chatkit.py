"""`ChatKitStore`: a history as the store, and the attachment store, of an OpenAI ChatKit server."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from chat_history import (
    AsyncChatHistory,
    Chat,
    ChatExistsError,
    ChatHistory,
    ChatHistoryWarning,
    ChatNotFoundError,
    ConversionWarning,
    InvalidArgumentError,
    MessageNotFoundError,
    MissingDependencyError,
    StoredMessage,
    VersionConflictError,
)
from chat_history.aio import run
from chat_history.cursors import message_cursor
from chat_history.formats import Source, get_format
from chat_history.loading import naming_damage
from chat_history.messages import new_id
from chat_history.replaying import convert

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ChatKit's, of classes of its own that it imports
        from chatkit.store import AttachmentStore, NotFoundError, Store, StoreItemType
        from chatkit.types import Attachment, AttachmentCreateParams, Page, ThreadItem, ThreadMetadata
    from pydantic import TypeAdapter, ValidationError
except ImportError as error:
    raise MissingDependencyError(
        f"OpenAI ChatKit cannot be imported: {error}; pip install 'agent-chat-history[chatkit]'"
    ) from error

__all__ = ["ChatKitStore"]

T = TypeVar("T")

FORMAT = "chatkit"
PREFIXES: dict[str, str] = {
    "thread": "thr",
    "message": "msg",
    "tool_call": "tc",
    "workflow": "wf",
    "task": "tsk",
    "attachment": "atc",
    "sdk_hidden_context": "shcx",
}
THREAD = "chatkit_thread"
"""Where in a chat's metadata that of its thread is."""
ATTACHMENTS = "chatkit:attachments"
"""The chat that keeps the metadata of an owner's attachments. It is no thread."""
FAKE_ID = "__fake_id__"
"""The id of every answer that `stream_agent_response` makes of a model behind Chat Completions."""
PAGE = 100
"""The most messages that are read at a time. First no more than a page of items needs, as they may hold images."""

_attachment: TypeAdapter[Any] = TypeAdapter(Attachment)


class ChatKitStore(Store[Any], AttachmentStore[Any]):
    """What `ChatKitServer(store)` takes, and as its `attachment_store` too. A thread is a chat of its owner, by its id.

    Threads, items and attachments come back equal, times included. What does not exist, or is another owner's, raises
    ChatKit's `NotFoundError`; the items of such a thread are an empty page. Threads and items are in the order in which
    they were stored, whatever their times say. Two tasks at once on one thread lose nothing. What another framework
    wrote into a chat is shown as items of user and assistant. The history stays open.

    owner: who a request is from, by its context: a user id, or a pair of user id and tenant id. attachments: makes the
    metadata of a file that is about to be uploaded, by its new id, what the client said of it, and the context; the
    file itself is yours to keep.
    """

    def __init__(
        self,
        history: ChatHistory,
        owner: Callable[[Any], str | tuple[str, str]],
        *,
        attachments: Callable[[str, AttachmentCreateParams, Any], Attachment] | None = None,
    ) -> None:
        if not isinstance(history, ChatHistory) or not callable(owner):
            raise InvalidArgumentError(
                "ChatKitStore takes a ChatHistory, as open_history() gives it, and a function that says whose a "
                "request is: ChatKitStore(history, lambda context: context.user_id)"
            )
        self._history: AsyncChatHistory = history.to_async()
        self._owner = owner
        self._attachments = attachments

    # ---- ids

    def generate_thread_id(self, context: Any) -> str:
        """An id that no other thread has: a UUIDv7 with ChatKit's prefix."""
        return _new("thread")

    def generate_item_id(self, item_type: StoreItemType, thread: ThreadMetadata, context: Any) -> str:
        """An id that no other item has: a UUIDv7 with ChatKit's prefix."""
        return _new(item_type)

    def generate_attachment_id(self, mime_type: str, context: Any) -> str:
        """An id that no other attachment has: a UUIDv7 with ChatKit's prefix."""
        return _new("attachment")

    # ---- threads

    async def load_thread(self, thread_id: str, context: Any) -> ThreadMetadata:
        """A thread's metadata, as it was saved."""
        return await self._call(context, _load_thread, thread_id)

    async def save_thread(self, thread: ThreadMetadata, context: Any) -> None:
        """Keep a thread's metadata; the thread is created if it is new."""
        await self._call(context, _save_thread, thread)

    async def load_threads(self, limit: int, after: str | None, order: str, context: Any) -> Page[ThreadMetadata]:
        """The owner's threads after that one, in the order in which they began ("asc") or the other way ("desc")."""
        return await self._call(context, _load_threads, limit, after, order)

    async def delete_thread(self, thread_id: str, context: Any) -> None:
        """Remove a thread with its items. Nothing happens if there is none."""
        await self._call(context, lambda history: history.delete_chat_history(_thread(thread_id)))

    # ---- items

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Any
    ) -> Page[ThreadItem]:
        """The items after that one, in the order in which they were added ("asc") or the other way ("desc")."""
        return await self._call(context, _load_items, thread_id, after, limit, order)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """Add an item at the end; one of the same id is replaced, where it stands."""
        await self._call(context, _put_item, thread_id, item)

    async def save_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """As `add_thread_item`."""
        await self._call(context, _put_item, thread_id, item)

    async def load_item(self, thread_id: str, item_id: str, context: Any) -> ThreadItem:
        """An item as it was saved."""

        def load(history: ChatHistory) -> ThreadItem:
            item: ThreadItem | None = _item(thread_id, history.get_message(_thread(thread_id), item_id))
            if item is None:
                raise NotFoundError(f"message {item_id!r} of thread {thread_id!r} is nothing that ChatKit shows")
            return item

        return await self._call(context, load)

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Any) -> None:
        """Remove an item. Nothing happens if there is none."""
        await self._call(context, lambda history: history.delete_message(_thread(thread_id), item_id))

    # ---- attachments

    async def create_attachment(self, input: AttachmentCreateParams, context: Any) -> Attachment:
        """The metadata that `attachments` makes of a file to be uploaded, kept."""
        if self._attachments is None:
            raise NotImplementedError(
                "this store does not know where files are uploaded to; give ChatKitStore(attachments=...), a function "
                "of (attachment_id, input, context) that returns a FileAttachment or ImageAttachment"
            )
        attachment = self._attachments(self.generate_attachment_id(input.mime_type, context), input, context)
        await self.save_attachment(attachment, context)
        return attachment

    async def save_attachment(self, attachment: Attachment, context: Any) -> None:
        """Keep an attachment's metadata, in the place of what there is of the same id."""
        payload = _attachment.dump_python(attachment, mode="json")
        message = {"role": "attachment", "content": attachment.name, "attachment": payload}
        await self._call(context, _put, ATTACHMENTS, attachment.id, message, "openai")

    async def load_attachment(self, attachment_id: str, context: Any) -> Attachment:
        """An attachment's metadata, as it was saved."""
        message = await self._call(context, lambda history: history.get_message(ATTACHMENTS, attachment_id))
        attachment: Attachment = _attachment.validate_python(message.json()["attachment"])
        return attachment

    async def delete_attachment(self, attachment_id: str, context: Any) -> None:
        """Remove an attachment's metadata. Nothing happens if there is none."""
        await self._call(context, lambda history: history.delete_message(ATTACHMENTS, attachment_id))

    # ---- whose

    async def _call(self, context: Any, call: Callable[..., T], *arguments: Any) -> T:
        """Call with the history of whoever the context says."""
        owner = self._owner(context)
        user_id, tenant_id = owner if isinstance(owner, tuple) else (owner, None)
        if not isinstance(user_id, str) or not user_id:
            raise InvalidArgumentError(f"owner must say whose a request is by a user id, not {user_id!r}")
        try:
            return await run(self._history.for_user(user_id, tenant_id=tenant_id), call, *arguments)
        except (ChatNotFoundError, MessageNotFoundError) as error:
            raise NotFoundError(str(error)) from error


def _new(kind: str) -> str:
    return f"{PREFIXES.get(kind, kind)}_{new_id().replace('-', '')}"


def _thread(thread_id: str) -> str:
    if thread_id == ATTACHMENTS:
        raise ChatNotFoundError(f"{thread_id} is no thread")
    return thread_id


# ---- the work of one call


def _load_thread(history: ChatHistory, thread_id: str) -> ThreadMetadata:
    return _metadata(history.get_chat(_thread(thread_id)))


def _metadata(chat: Chat) -> ThreadMetadata:
    thread = ThreadMetadata(id=chat.chat_id, title=chat.title or None, created_at=chat.created_at)
    saved = chat.metadata.get(THREAD)
    if saved is None:  # another framework began it
        return thread
    try:
        thread = ThreadMetadata.model_validate(saved)
    except ValidationError as error:
        _warn_of_another_release(f"what is known of thread {chat.chat_id!r}", error)
    if (thread.title or "") != chat.title:  # somebody else gave it a title
        thread.title = chat.title
    return thread


def _warn_of_another_release(what: str, error: ValidationError) -> None:
    """Where what is stored cannot be loaded as it is. It does not hide the thread, or the others of a list."""
    reason = str(error).partition("\n")[0]
    warnings.warn(
        f"the installed release of ChatKit cannot load {what} ({reason}): shown is what was said in it",
        ConversionWarning,
        stacklevel=2,
    )


def _save_thread(history: ChatHistory, thread: ThreadMetadata) -> None:
    # Of a Thread, which has its items too, only what is metadata.
    kept = {name: getattr(thread, name) for name in ThreadMetadata.model_fields}
    saved = ThreadMetadata.model_validate(kept).model_dump(mode="json")
    title = thread.title or ""
    while True:
        try:
            chat = history.get_chat(_thread(thread.id))
            if chat.metadata.get(THREAD) == saved and chat.title == title:
                return
            metadata = {**chat.metadata, THREAD: saved}
            history.update_chat(thread.id, title=title, metadata=metadata, expected_version=chat.version)
            return
        except VersionConflictError:
            continue
        except ChatNotFoundError:
            if thread.id == ATTACHMENTS:
                raise
        try:
            history.create_chat(thread.id, title=title, metadata={THREAD: saved})
            return
        except ChatExistsError:
            continue


def _load_threads(history: ChatHistory, limit: int, after: str | None, order: str) -> Page[ThreadMetadata]:
    ids = [chat_id for chat_id in history.get_all_chat_ids() if chat_id != ATTACHMENTS]
    if order == "desc":
        ids.reverse()
    if after is not None:
        if after not in ids:
            raise ChatNotFoundError(f"there is no thread {after!r} to go on after")
        ids = ids[ids.index(after) + 1 :]
    threads: list[ThreadMetadata] = []
    for chat_id in ids:
        if len(threads) >= max(limit, 0):
            return _page(threads, has_more=True)
        with suppress(ChatNotFoundError):  # deleted meanwhile; the next one takes its place, or a page would be empty
            threads.append(_metadata(history.get_chat(chat_id)))
    return _page(threads, has_more=False)


def _load_items(history: ChatHistory, thread_id: str, after: str | None, limit: int, order: str) -> Page[ThreadItem]:
    if thread_id == ATTACHMENTS or (after is None and not history.chat_exists(thread_id)):
        return _page([], has_more=False)
    try:
        place = None if after is None else history.get_message(thread_id, after).position
    except MessageNotFoundError:
        if not history.chat_exists(thread_id):
            return _page([], has_more=False)
        raise
    wanted = max(limit, 0) + 1
    walk = (_newest_first if order == "desc" else _oldest_first)(history, thread_id, place, min(wanted, PAGE))
    found = (item for message in walk if (item := _item(thread_id, message)) is not None)
    items = list(islice(found, wanted))
    return _page(items[: wanted - 1], has_more=len(items) == wanted)


def _oldest_first(history: ChatHistory, thread_id: str, place: int | None, size: int) -> Iterator[StoredMessage]:
    cursor: str | None = message_cursor(-1 if place is None else place)
    while cursor is not None:
        page = history.get_messages(thread_id, size, after=cursor)
        yield from page
        cursor, size = page.after, PAGE


def _newest_first(history: ChatHistory, thread_id: str, place: int | None, size: int) -> Iterator[StoredMessage]:
    page = history.get_messages(thread_id, size, before=None if place is None else message_cursor(place))
    yield from reversed(page)
    while page.before is not None:
        page = history.get_messages(thread_id, PAGE, before=page.before)
        yield from reversed(page)


def _page(data: list[Any], *, has_more: bool) -> Page[Any]:
    return Page(data=data, has_more=has_more, after=data[-1].id if data else None)


def _item(thread_id: str, message: StoredMessage) -> Any:
    """The item that a message is; None for one that another framework wrote, and that says nothing."""
    with naming_damage(thread_id, [(message.position, message.payload)]):
        if message.format == FORMAT:
            try:
                return get_format(FORMAT).load([message.payload])[0]
            except ValidationError as error:
                _warn_of_another_release(f"item {message.message_id!r}", error)
        source = Source(message.message_id, message.format, message.payload, message.created_at)
        items = convert([source], FORMAT).messages
    if not items:
        return None
    return items[0].model_copy(update={"thread_id": thread_id, "created_at": message.created_at})


def _put_item(history: ChatHistory, thread_id: str, item: Any) -> None:
    if item.id == FAKE_ID:
        warnings.warn(
            f"an answer in thread {thread_id!r} has the id {FAKE_ID!r}, which the Agents SDK gives to every answer "
            "of Chat Completions: the next one will replace it; give each an id of its own before it is yielded",
            ChatHistoryWarning,
            stacklevel=2,
        )
    _put(history, _thread(thread_id), item.id, item, FORMAT)


def _put(history: ChatHistory, chat_id: str, message_id: str, message: Any, form: str) -> None:
    """Store a message by its id, in the place of what there is. No chat but that of attachments is created."""
    while True:
        try:
            version = history.get_chat(chat_id).version
        except ChatNotFoundError:
            if chat_id != ATTACHMENTS:
                raise
            version = 0
        try:
            stored = history.add_message(chat_id, message, message_id=message_id, format=form, expected_version=version)
            if stored.payload != get_format(form).dump(message).payload:
                history.replace_message(chat_id, message_id, message, format=form)
            return
        except (VersionConflictError, MessageNotFoundError):
            continue

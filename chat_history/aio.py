"""`AsyncChatHistory`: the same names as `ChatHistory`, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import update_wrapper
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from .arguments import checked_history
from .history import ChatHistory

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .messages import Status, StoredMessage

__all__ = ["AsyncChatHistory", "run"]

P = ParamSpec("P")
R = TypeVar("R")

AHEAD = 64
"""Messages that an iteration fetches at a time, because each way to a thread and back takes longer than a message."""


def _awaited(
    method: Callable[Concatenate[ChatHistory, P], R], *, reads: bool = False
) -> Callable[Concatenate[AsyncChatHistory, P], Coroutine[Any, Any, R]]:
    async def awaited(self: AsyncChatHistory, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # By its name, because a subclass of ChatHistory may have one of its own.
        call: Callable[..., R] = getattr(self._history, method.__name__)
        return await (self._run if reads else self._complete)(call, *args, **kwargs)

    update_wrapper(awaited, method)
    # Python names it so where somebody forgets to await it.
    awaited.__module__, awaited.__qualname__ = __name__, f"AsyncChatHistory.{method.__name__}"
    return awaited


class AsyncChatHistory:
    """A history whose methods are awaited. Each is the method of the same name, run on a bounded pool of threads.

    A call that is cancelled has either happened or not, never in part, and does not happen later: what was begun to be
    written ends before the cancellation arrives. What `ChatHistory` promises of threads holds for tasks.
    """

    def __init__(self, history: ChatHistory) -> None:
        self._history = checked_history(history)
        self._threads = history._store.threads

    def _begin(self, call: Callable[..., R], *args: Any, **kwargs: Any) -> Future[R]:
        import contextvars
        from functools import partial

        context = contextvars.copy_context()
        return self._threads.submit(partial(context.run, call, *args, **kwargs))

    async def _run(self, call: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """For what only reads: whoever is cancelled need not wait for it."""
        import asyncio

        return await asyncio.wrap_future(self._begin(call, *args, **kwargs))

    async def _complete(self, call: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        return await _completed(self._begin(call, *args, **kwargs))

    @property
    def user_id(self) -> str:
        """The user whose chats these are, "" where there is only one."""
        return self._history.user_id

    @property
    def tenant_id(self) -> str:
        """The tenant that the user belongs to, "" where there is only one."""
        return self._history.tenant_id

    @property
    def location(self) -> str:
        """Where the data is, for people: a path, or a URL without its password."""
        return self._history.location

    @property
    def settings(self) -> dict[str, Any]:
        """What opens this history again; see `ChatHistory.settings`."""
        return self._history.settings

    def for_user(self, user_id: str, *, tenant_id: str | None = None) -> AsyncChatHistory:
        """The same store, seen by another owner; not awaited. See `ChatHistory.for_user`."""
        return AsyncChatHistory(self._history.for_user(user_id, tenant_id=tenant_id))

    def shared_by(self, user_id: str) -> AsyncChatHistory:
        """What another user shares, to be read; not awaited. See `ChatHistory.shared_by`."""
        return AsyncChatHistory(self._history.shared_by(user_id))

    add_message = _awaited(ChatHistory.add_message)
    add_messages = _awaited(ChatHistory.add_messages)
    save_messages = _awaited(ChatHistory.save_messages)
    set_messages = _awaited(ChatHistory.set_messages)
    replace_message = _awaited(ChatHistory.replace_message)
    delete_message = _awaited(ChatHistory.delete_message)
    delete_messages = _awaited(ChatHistory.delete_messages)
    delete_last_message = _awaited(ChatHistory.delete_last_message)
    delete_oldest_messages = _awaited(ChatHistory.delete_oldest_messages)
    archive_oldest_messages = _awaited(ChatHistory.archive_oldest_messages)
    get_chat_history = _awaited(ChatHistory.get_chat_history, reads=True)
    get_message_history = _awaited(ChatHistory.get_message_history, reads=True)
    get_readable_chat_history = _awaited(ChatHistory.get_readable_chat_history, reads=True)
    get_messages = _awaited(ChatHistory.get_messages, reads=True)
    get_message = _awaited(ChatHistory.get_message, reads=True)
    get_message_count = _awaited(ChatHistory.get_message_count, reads=True)
    search = _awaited(ChatHistory.search, reads=True)
    list_branches = _awaited(ChatHistory.list_branches, reads=True)
    switch_branch = _awaited(ChatHistory.switch_branch)
    fork_chat = _awaited(ChatHistory.fork_chat)
    delete_branch = _awaited(ChatHistory.delete_branch)
    delete_superseded = _awaited(ChatHistory.delete_superseded)
    create_chat = _awaited(ChatHistory.create_chat)
    get_chat = _awaited(ChatHistory.get_chat, reads=True)
    update_chat = _awaited(ChatHistory.update_chat)
    list_chats = _awaited(ChatHistory.list_chats, reads=True)
    get_all_chat_ids = _awaited(ChatHistory.get_all_chat_ids, reads=True)
    chat_exists = _awaited(ChatHistory.chat_exists, reads=True)
    delete_chat_history = _awaited(ChatHistory.delete_chat_history)
    delete_user = _awaited(ChatHistory.delete_user)
    purge = _awaited(ChatHistory.purge)
    clear_all = _awaited(ChatHistory.clear_all)

    async def iter_messages(self, chat_id: str, *, status: Status | None = "active") -> AsyncIterator[StoredMessage]:
        """Walk a chat of any length in order, oldest first, in bounded memory. See `ChatHistory.iter_messages`."""
        messages = self._history.iter_messages(chat_id, status=status)
        while some := await self._run(lambda: list(islice(messages, AHEAD))):
            for message in some:
                yield message

    async def shutdown(self) -> None:
        """Close what the history opened, after the calls that run have finished. A second call is harmless."""
        import asyncio

        def shut() -> None:  # as a whole in a thread, where nobody's cancellation ends it halfway
            if not self._history._is_view:
                self._threads.shutdown()
            self._history.shutdown()

        await asyncio.to_thread(shut)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    def __repr__(self) -> str:
        return f"<AsyncChatHistory of {self._history!r}>"


async def run(
    history: AsyncChatHistory,
    call: Callable[Concatenate[ChatHistory, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Call a function with the history, on the threads of its methods: for what is made of several of its calls."""
    return await history._complete(call, history._history, *args, **kwargs)


async def _completed(begun: Future[R]) -> R:
    """Wait for a write to end, also when cancelled meanwhile: what the caller does next finds it done or not done."""
    import asyncio

    try:
        return await asyncio.wrap_future(begun)  # one that still waits for its turn is cancelled with this
    except asyncio.CancelledError:
        work = asyncio.wrap_future(begun)
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # so that asyncio does not complain that nobody looked at it
        raise

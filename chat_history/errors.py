"""Every error and warning that chat_history raises.

All errors are a `ChatHistoryError`, and each is also the built-in that fits, so that `except ValueError` works too::

    ChatHistoryError
    ├── ConfigError (ValueError)               a key, URL or file of configuration that cannot be used
    ├── InvalidArgumentError (ValueError)      a chat id, limit, cursor or owner that cannot be used
    ├── InvalidMessageError (ValueError)       a message that cannot be stored; nothing was written
    ├── ConversionError (ValueError)           strict=True, and a conversion would lose something
    ├── UnknownFormatError (LookupError)       no installed format has that name, or recognises that message
    ├── ChatNotFoundError (LookupError)        this owner has no such chat
    ├── MessageNotFoundError (LookupError)     the chat has no such message
    ├── ChatExistsError (ValueError)           create_chat with an id that is taken
    ├── VersionConflictError (RuntimeError)    the chat changed since it was read; nothing was written
    ├── ReadOnlyError (PermissionError)        a change to what another owner shares
    ├── HistoryClosedError (RuntimeError)      a call after shutdown()
    ├── MissingDependencyError (ImportError)   an extra is not installed; the message names it
    └── StorageError (OSError)                 the file or database refused; nothing acknowledged was lost
        ├── DamagedStoreError                  what is stored cannot be read; the message names the place
        ├── NewerStoreError                    written by a newer release than this one
        ├── StoreBusyError (TimeoutError)      others held the store for longer than the timeout
        └── StoreUnavailableError (ConnectionError)    the database cannot be reached

    ChatHistoryWarning (UserWarning)
    └── ConversionWarning                      a conversion lost something; names what
"""

from __future__ import annotations

__all__ = [
    "ChatExistsError",
    "ChatHistoryError",
    "ChatHistoryWarning",
    "ChatNotFoundError",
    "ConfigError",
    "ConversionError",
    "ConversionWarning",
    "DamagedStoreError",
    "HistoryClosedError",
    "InvalidArgumentError",
    "InvalidMessageError",
    "MessageNotFoundError",
    "MissingDependencyError",
    "NewerStoreError",
    "ReadOnlyError",
    "StorageError",
    "StoreBusyError",
    "StoreUnavailableError",
    "UnknownFormatError",
    "VersionConflictError",
    "brief",
]


class ChatHistoryError(Exception):
    """The base of every error raised here."""


class ConfigError(ChatHistoryError, ValueError):
    """A key, URL or file of configuration cannot be used."""


class InvalidArgumentError(ChatHistoryError, ValueError):
    """A chat id, limit, cursor or owner cannot be used. Nothing was written."""


class InvalidMessageError(ChatHistoryError, ValueError):
    """A message cannot be stored as it is. Nothing was written, also not its neighbours in the same call."""


class ConversionError(ChatHistoryError, ValueError):
    """`strict=True` was asked for, and the conversion would lose something; the message names each loss."""


class UnknownFormatError(ChatHistoryError, LookupError):
    """No installed format has that name, or recognises that message."""


class ChatNotFoundError(ChatHistoryError, LookupError):
    """This owner has no such chat."""


class MessageNotFoundError(ChatHistoryError, LookupError):
    """The chat has no such message."""


class ChatExistsError(ChatHistoryError, ValueError):
    """There is a chat of that id already, where a new one was to be made or to arrive."""


class VersionConflictError(ChatHistoryError, RuntimeError):
    """The chat changed since it was read. Nothing was written; read it again and decide.

    `expected` is the version the caller named, `actual` the one in the store (0: the chat does not exist).
    """

    def __init__(self, expected: int, actual: int) -> None:
        was = "does not exist" if actual == 0 else f"is at version {actual}"
        super().__init__(
            f"expected version {expected}, but the chat {was}: it changed since it was read, "
            "and nothing was written; read it again and repeat the call with its new version"
        )
        self.expected = expected
        self.actual = actual

    def __reduce__(self) -> tuple[type[VersionConflictError], tuple[int, int]]:
        return type(self), (self.expected, self.actual)


class ReadOnlyError(ChatHistoryError, PermissionError):
    """What another owner shares can be read, and not changed."""


class HistoryClosedError(ChatHistoryError, RuntimeError):
    """The history was shut down before this call."""


class MissingDependencyError(ChatHistoryError, ImportError):
    """A package that this feature needs is not installed; the message has the command that installs it."""


class StorageError(ChatHistoryError, OSError):
    """The file or database refused. What was acknowledged before is still there."""


class DamagedStoreError(StorageError):
    """What is stored cannot be read; the message names the place. Nothing was changed."""


class NewerStoreError(StorageError):
    """The store was written by a newer release; the message names both versions. Nothing was changed."""


class StoreBusyError(StorageError, TimeoutError):
    """Others held the store for longer than the timeout. Nothing was written; the call may be repeated."""


class StoreUnavailableError(StorageError, ConnectionError):
    """The database cannot be reached."""


class ChatHistoryWarning(UserWarning):
    """Something happened that the caller probably wants to know; nothing is lost from the store."""


class ConversionWarning(ChatHistoryWarning):
    """A conversion between two formats lost something; the message names what."""


def brief(error: Exception) -> str:
    """What an error says, on one line and not at length."""
    return " ".join(str(error).split())[:300]

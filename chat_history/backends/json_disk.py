"""A file on the disk: opened, written to, replaced, so that what was done survives a power loss."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress

from chat_history.errors import ConfigError, StorageError

from .disk import sync

__all__ = ["File", "opened", "put_aside", "replaced", "sync_folder", "write_at"]

_BUFFER = 1 << 20


class File:
    """An open file. Its descriptor is closed with the last user, so that a reader may outlive a replacement."""

    __slots__ = ("descriptors", "fd", "identity", "path", "writable")

    def __init__(self, path: str, flags: int, mode: int = 0o600) -> None:
        self.descriptors: list[int] = []
        self.fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, mode)
        self.descriptors.append(self.fd)
        self.path = path
        self.writable = flags & os.O_ACCMODE != os.O_RDONLY
        status = os.fstat(self.fd)
        self.identity = (status.st_dev, status.st_ino)

    def __del__(self) -> None:
        for fd in self.descriptors:
            os.close(fd)

    def open_again(self) -> bool:
        """Open a second descriptor, with failures of its own; False if the file has lost its name."""
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self.descriptors.append(fd)
        return os.path.samestat(os.fstat(fd), os.fstat(self.fd))

    def size(self) -> int:
        """How many bytes it has now."""
        return os.fstat(self.fd).st_size

    def check_writable(self, mode: int | None = None) -> None:
        """`StorageError` if it must not be written to. Nobody's permission counts as that, also for root."""
        if not self.writable or not (os.fstat(self.fd).st_mode if mode is None else mode) & 0o222:
            raise StorageError(
                f"{self.path} is read-only, so nothing was written; make it writable and open it again to change it"
            )


def opened(path: str) -> File:
    """The file, created if it is missing, for its owner only; read-only where it cannot be written to."""
    try:
        _make_folder(os.path.dirname(path))
        file = File(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
        _check_regular(file)
        while not file.open_again():
            file = File(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
        return file
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(f"{path} cannot be a file ({error.strerror}); name another path") from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not os.path.exists(path):
            raise
        file = File(path, os.O_RDONLY | os.O_NONBLOCK)
        _check_regular(file)
        return file


def _make_folder(path: str) -> None:
    if not os.path.isdir(path):
        _make_folder(os.path.dirname(path))
        with suppress(FileExistsError):
            os.mkdir(path, mode=0o700)
        sync_folder(path)


def _check_regular(file: File) -> None:
    if not stat.S_ISREG(os.fstat(file.fd).st_mode):
        raise ConfigError(f"{file.path} is not a regular file; name another path")


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of it there."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def sync_folder(path: str) -> None:
    """Wait until the name of a file is on the disk."""
    folder = File(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder.fd)


def replaced(old: File, blocks: Iterable[bytes], check: Callable[[File], object] = bool) -> File:
    """A new file in the place of the old, durable before it can be seen, and locked as the old one was; or nothing.

    check: is called with the new file before it takes the place, and may refuse it by an exception.
    """
    temporary = f"{old.path}.tmp"
    new = File(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW)
    try:
        new.open_again()
        fcntl.flock(new.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(old.fd)
        with suppress(PermissionError):
            os.fchown(new.fd, status.st_uid, status.st_gid)
        os.fchmod(new.fd, stat.S_IMODE(status.st_mode))
        with open(new.fd, "wb", buffering=_BUFFER, closefd=False) as out:
            out.writelines(blocks)
        check(new)
        sync(new.fd)
        os.rename(temporary, old.path)
        new.path = old.path
        fcntl.flock(old.fd, fcntl.LOCK_UN)
        sync_folder(old.path)
    except BaseException:
        # What is raised may keep the file open for a while, and it may have its name already.
        fcntl.flock(new.fd, fcntl.LOCK_UN)
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return new


def put_aside(path: str, data: bytes) -> str:
    """Keep bytes in a new file beside another; its path."""
    number = 1
    while True:
        beside = f"{path}.damaged-{number}"
        try:
            file = File(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            break
        except FileExistsError:
            number += 1
    write_at(file.fd, data, 0)
    sync(file.fd)
    sync_folder(beside)
    return beside

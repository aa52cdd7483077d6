"""What it takes until a write survives a power loss, on each system."""

from __future__ import annotations

import os

__all__ = ["Descriptor", "sync"]


class Descriptor:
    """An open file, closed with its last user: whoever waits for the disk may outlive the one that opened it."""

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


def sync(fd: int) -> None:
    """Wait until what was written to a file is on the disk."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
        return
    try:
        import fcntl

        fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC"))  # noqa: B009 - macOS: its fsync leaves the data in the disk's cache
    except (ImportError, AttributeError):
        os.fsync(fd)

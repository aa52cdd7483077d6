"""What is true of every file: where it is, who may read it, and whether there is room."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from glob import escape, glob

from .findings import Finding, error, fine, warning

__all__ = ["examine_file"]

LITTLE = 100 * 2**20
"""Bytes free: less is worth a warning."""
TOO_LITTLE = 2**20


def examine_file(path: str) -> Iterator[Finding]:
    """Who may read and write it, what lies beside it, and the free space there."""
    status = os.stat(path)
    folder = os.path.dirname(path)
    yield _permissions(path, stat.S_IMODE(status.st_mode))
    if not os.access(path, os.W_OK) or not os.access(folder, os.W_OK):
        yield warning(
            "file",
            f"{path} can only be read: this user may not write to the file, or to its folder",
            "let the user who runs the program write to both, if it is meant to write",
        )
    if aside := sorted(glob(f"{escape(path)}.damaged-*")):
        yield warning(
            "file",
            f"the ends of records that an interruption cut off were put aside: {', '.join(aside)}",
            "look whether they hold anything of worth, then remove them",
        )
    yield _space(folder, status.st_size)


def _permissions(path: str, mode: int) -> Finding:
    if mode & 0o077 and os.name == "posix":
        return warning("file", f"others may read or write {path} (mode {mode:04o})", f"chmod 600 {path}")
    return fine("file", f"only its owner may read {path} (mode {mode:04o})")


def _space(folder: str, size: int) -> Finding:
    free = shutil.disk_usage(folder).free
    what = f"{free / 2**20:,.0f} MiB are free on the disk of {folder}"
    if free < TOO_LITTLE:
        return error("space", what, "make room: nothing more can be stored")
    if free < max(LITTLE, size):
        return warning("space", what, f"make room: what writes the file anew needs another {size / 2**20:,.0f} MiB")
    return fine("space", what)

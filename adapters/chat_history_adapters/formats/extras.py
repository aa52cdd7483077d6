"""Frameworks that are extras: imported when their objects are asked for, and named with their extra if missing."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from chat_history.errors import MissingDependencyError

__all__ = ["framework", "installed_version"]


@cache
def framework(module: str, extra: str) -> Any:
    """This module of a framework. `MissingDependencyError`, with what to install, if the extra is not there."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"these messages are objects of {module.partition('.')[0]}, which is not installed: "
            f"pip install 'agent-chat-history[{extra}]'"
        ) from error


@cache
def installed_version(package: str) -> str:
    """The version of what writes a format, "" if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""

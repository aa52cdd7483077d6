"""The `chat-history` command as people and scripts run it, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import Result
from typer.testing import CliRunner

from chat_history.cli import app

__all__ = ["HERE", "empty_place", "invoke", "output", "printed", "run", "told", "url"]

HERE = [sys.executable, "-m", "chat_history.cli"]


@pytest.fixture
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory that nothing configures."""
    for name in ("CHAT_HISTORY_URL", "CHAT_HISTORY_CONFIG", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["sqlite", "json", "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a new store of each backend."""
    if request.param == "postgres":
        yield in_schema(str(request.getfixturevalue("postgres_url")))
    else:
        yield {"sqlite": "sqlite:///chats.db", "json": "json:///chats.json"}[request.param]


def in_schema(postgres: str) -> str:
    """The URL of a new schema in a database."""
    return f"{postgres}{'&' if '?' in postgres else '?'}schema=cli_{uuid4().hex}"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [*HERE, *arguments], capture_output=True, text=True, env=os.environ | environment, timeout=120, check=False
    )


def output(*arguments: str) -> str:
    """What it prints, in a process of its own, where it must succeed."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def invoke(*arguments: str) -> Result:
    """The command in this process, which is faster."""
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def told(*arguments: str) -> str:
    """What it prints, where it must succeed."""
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def printed(*arguments: str) -> list[Any]:
    """The lines that it prints with --json, where it must succeed."""
    return [json.loads(line) for line in told(*arguments, "--json").splitlines()]

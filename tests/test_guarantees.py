"""Every promise of docs/guarantees.md names the tests that hold it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| (?!promise|-)(.*) \| (.*) \|$", (ROOT / "docs" / "guarantees.md").read_text(), re.MULTILINE)


def test_every_promise_names_tests_that_exist() -> None:
    modules = [*ROOT.glob("tests/test_*.py"), *ROOT.glob("chat_history/testing/*.py")]
    tests = {name for module in modules for name in re.findall(r"def (test_\w+)", module.read_text())}
    assert len(ROWS) > 20
    for promise, held_by in ROWS:
        named = re.findall(r"`(test_\w+)`", held_by)
        assert named, promise
        assert set(named) <= tests, promise

"""What README and docs say is run, and the examples are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
EXAMPLES = sorted((ROOT / "docs" / "examples").rglob("*.py"))
PAGES_WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: page.name)
def test_every_snippet_of_a_page_runs(
    page: Path, tmp_path: Path, postgres_url: str, request: pytest.FixtureRequest
) -> None:
    """The blocks of a page run in order, as one program, in an empty folder."""
    program = tmp_path / "snippets.py"
    program.write_text("\n".join(BLOCK.findall(page.read_text())))
    redis_url = request.getfixturevalue("redis_url") if "REDIS_URL" in program.read_text() else ""
    importable = os.pathsep.join([str(ROOT / "docs" / "examples"), os.environ.get("PYTHONPATH", "")])
    _run(program, tmp_path, postgres_url, REDIS_URL=redis_url, PYTHONPATH=importable)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_every_example_runs(example: Path, tmp_path: Path, postgres_url: str) -> None:
    """Each is a program, run in an empty folder, offline. What it claims it asserts."""
    _run(example, tmp_path, postgres_url)


def _run(program: Path, folder: Path, postgres_url: str, **variables: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("POSTGRES_", "CHAT_HISTORY"))}
    environment |= {"POSTGRES_URL": postgres_url, "HOME": str(folder), "PYTHONWARNINGS": "error"}
    # Which is all that a program sees of a replica that has caught up.
    read_only = f"{postgres_url}{'&' if '?' in postgres_url else '?'}options=-c%20default_transaction_read_only%3Don"
    environment |= {"POSTGRES_REPLICA_URL": read_only, **variables}
    environment.pop("DATABASE_URL", None)
    ran = subprocess.run(
        [sys.executable, program], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    script = (ROOT / ".ci" / "run").read_text()
    assert any(command.strip() in script for command in commands if "pytest" in command)

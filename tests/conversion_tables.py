"""What survives each pair of formats, found out by converting real messages, as the page docs/conversions.md.

python tests/conversion_tables.py    writes the page anew

The samples are what the frameworks themselves wrote; every_kind.json has each kind of content that a format has.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from facts import KINDS, facts, missing, named
from telling import stored

from chat_history.formats import Source
from chat_history.replaying import convert

__all__ = ["FORMATS", "PAGE", "page", "samples"]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "conversions.md"
MESSAGES = ROOT / "tests" / "data" / "messages"
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FOLDERS = {
    "agent_framework": ["agent_framework"],
    "langchain": ["langchain"],
    "llama_index": ["llama_index"],
    "openai": ["openai"],
    "openai_responses": ["openai_agents", "openai"],
    "pydantic_ai": ["pydantic_ai_v2"],
}
FORMATS = list(FOLDERS)
ITEMS = {"responses_output_items"}
"""Files of items among those of Chat Completions."""


def samples(name: str) -> dict[str, list[Source]]:
    """The real messages of a format, by file, as they would be stored."""
    found = {}
    for folder in FOLDERS[name]:
        for path in sorted((MESSAGES / folder).glob("*.json")):
            if folder == "openai" and (path.stem in ITEMS) != (name == "openai_responses"):
                continue
            found[f"{folder}/{path.stem}"] = [
                Source(f"{index:08}", name, json.dumps(message, ensure_ascii=False), TIME + timedelta(seconds=index))
                for index, message in enumerate(json.loads(path.read_text()))
            ]
    return found


INTRODUCTION = """# What survives a conversion

A chat that one framework began is read by another ([messages](message-format.md)). This page says what arrives, for
every pair of formats. Nobody wrote it: `python tests/conversion_tables.py` converts the messages under
`tests/data/messages` there and back, and counts. A test fails when the page says anything else.

- **kept**: all of it arrives, and is there again when the chat goes back to the format that it came from.
- **kept, not back**: all of it arrives, but the first format cannot write it, only read it. Going back reports it.
- **reported**: it is lost, and the `ConversionWarning` names it; with `strict=True` a `ConversionError` does.
- **left out**: it is lost without a word, because neither a model nor a person misses it.
- **2 of 3**: two arrive; the third is reported, or left out.
- Nothing: the messages have none.

Words, calls of tools and results of tools are never lost between any two formats, nor is the order of each. Refusals
and spoken words that have no place of their own become text. Times, ids and metadata stay in the store, and so does all
that is lost: a conversion changes nothing that is stored.
"""


def page() -> str:
    """The page, as it has to be."""
    return INTRODUCTION + "".join(map(_section, FORMATS))


def _section(name: str) -> str:
    targets = [target for target in FORMATS if target != name]
    cells = {target: _cells(name, target) for target in targets}
    rows = [("", *(f"`{target}`" for target in targets)), ("---",) * (len(targets) + 1)]
    for kind in KINDS:
        row = [cells[target].get(kind, "") for target in targets]
        if any(row):
            rows.append((kind, *row))
    return f"\n## From `{name}`\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(name: str, target: str) -> dict[str, str]:
    """What becomes of each kind of facts on the way from one format to another, and back."""
    all_, lost, reported, not_back = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for sources in samples(name).values():
        there = convert(sources, target)
        there_as_stored = stored(target, there.messages)
        before, after = facts(sources), facts(there_as_stored)
        gone = missing(before, after)
        again = facts(stored(name, convert(there_as_stored, name).messages))
        all_.update(fact.kind for fact in before)
        lost.update(fact.kind for fact in gone)
        reported.update(fact.kind for fact in named(gone, before, there.losses))
        arrived = [fact for fact in after if fact not in missing(after, before)]
        not_back.update(fact.kind for fact in missing(arrived, again))
    cells = {}
    for kind, number in all_.items():
        if not lost[kind]:
            cells[kind] = "kept, not back" if not_back[kind] else "kept"
        elif lost[kind] == number:
            cells[kind] = "reported" if reported[kind] else "left out"
        else:
            cells[kind] = f"{number - lost[kind]} of {number}"
    return cells


if __name__ == "__main__":
    PAGE.write_text(page())

"""Measure chat_history against what storing as durably costs at least, and print the table of docs/benchmarks.md.

python tests/benchmarks/run.py [--rows append-new,last] [--backends sqlite,postgres] [--quick] [--markdown]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from cases import ROWS, Bench, Row
from measure import Result
from places import stores
from rich.console import Console
from rich.markup import escape
from rich.table import Table

BACKENDS = ["json", "sqlite", "sqlite relaxed", "postgres"]
HEADINGS = ["work", "backend", "ours", "floor", "ratio", "bound", ""]
Line = tuple[str, str, str, str, str, str, str]


def main() -> None:
    arguments = _arguments()
    rows = [row for row in ROWS if row.name in arguments.rows]
    console = Console(stderr=True)
    lines = []
    with stores(arguments.backends) as chosen, console.status("") as status:
        bench = Bench(quick=arguments.quick)
        for row in rows:
            for store in [store for store in chosen if store.name in row.bounds]:
                status.update(f"{row.work}: {store.name}")
                lines.append(_line(row, store.name, row.measure(bench, store)))
                console.print(escape("  ".join(lines[-1])), soft_wrap=True)
            for name in [name for name in row.bounds if name not in BACKENDS]:
                status.update(f"{row.work}: {name}")
                lines.append(_line(row, name, row.measure(bench) if name == "-" else row.measure(bench, name)))
                console.print(escape("  ".join(lines[-1])), soft_wrap=True)
    (_print_markdown if arguments.markdown else _print_table)(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", type=_some_of(names), default=names, metavar="NAME,...", help=", ".join(names))
    parser.add_argument(
        "--backends", type=_some_of(BACKENDS), default=BACKENDS, metavar="NAME,...", help=", ".join(BACKENDS)
    )
    parser.add_argument("--quick", action="store_true", help="little of everything: does it run, not how fast")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args()


def _some_of(names: list[str]) -> Callable[[str], list[str]]:
    def parse(given: str) -> list[str]:
        chosen = given.split(",")
        if unknown := set(chosen) - set(names):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}; there are: {', '.join(names)}")
        return chosen

    return parse


def _line(row: Row, name: str, result: Result) -> Line:
    bound = row.bounds[name]
    sign = "≥" if result.unit == "messages/s" else "≤"
    absolute = result.floor is None or result.unit == "s each"
    return (
        row.work,
        name,
        _shown(result.ours, result.unit),
        "" if result.floor is None else _shown(result.floor, result.unit),
        "" if result.floor is None else f"{result.ours / result.floor:.2f}",
        f"{sign} {_shown(bound, result.unit) if absolute else f'{bound:g}'}",
        "ok" if result.within(bound) else "over",
    )


def _shown(value: float, unit: str) -> str:
    if not unit.startswith("s"):
        return f"{value:,.0f} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e6:.0f} µs"


def _print_table(lines: list[Line]) -> None:
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("work", "backend", "") else "right")
    for line in lines:
        table.add_row(*line, style=None if line[-1] == "ok" else "bold red")
    Console(width=130).print(table)


def _print_markdown(lines: list[Line]) -> None:
    print("|", " | ".join(HEADINGS), "|")
    print("|---|---|--:|--:|--:|--:|---|")
    for line in lines:
        print("|", " | ".join(line), "|")


if __name__ == "__main__":
    main()

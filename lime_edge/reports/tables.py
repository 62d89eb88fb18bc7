"""What commands print: tables for people, the same facts as JSON for programs. Knows nothing of models."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lime_edge.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
from lime_edge.common.formatting import printable

STDOUT = "-"
_WIDTH = 110  # of tables that go to a file or pipe


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; without columns, names on the left and values on the right."""

    title: str
    rows: Sequence[Sequence[str]]
    columns: Sequence[str] = ()
    numbers: Sequence[int] = ()  # columns to align on the right
    lines: bool = False  # a line between rows


def report(document: Mapping[str, Any], tables: Iterable[Table], target: str | None) -> None:
    """Print tables, or what they say as JSON.

    Args:
        document: The facts, as plain JSON values.
        tables: The same for people.
        target: None prints the tables; "-" prints JSON instead; a file gets the JSON beside the tables.

    Raises:
        ConfigError: The file cannot be written.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if target == STDOUT:
        sys.stdout.write(text)
        return
    screen = console()
    for table in tables:
        screen.print(_draw(table))
    if target is not None:
        try:
            Path(target).write_text(text, "utf-8")
        except OSError as error:
            raise ConfigError(f"{target} cannot be written: {error.strerror or error}") from error


def console() -> Console:
    """Standard output, wide enough for tables where it is no terminal."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=_WIDTH)


def _draw(table: Table) -> Any:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    bare = not table.columns
    drawn = Drawn(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=None if bare else box.SIMPLE_HEAD,
        show_header=not bare,
        show_lines=table.lines,
        pad_edge=not bare,
    )
    for position, name in enumerate(table.columns or ("", "")):
        justify: Any = "right" if position in table.numbers else "left"
        drawn.add_column(Text(name), justify=justify, overflow="fold", style="dim" if bare and not position else "")
    for row in table.rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))  # Text: brackets are no markup
    return drawn


def say(text: str) -> None:
    """Write a piece of an answer at once: as it is to a file or pipe, safe to look at on a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()

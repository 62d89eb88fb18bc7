"""Prints what commands report: tables for people, or the same facts as JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lime_edge.common.files import write_file
from lime_edge.common.formatting import printable
from lime_edge.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

STDOUT = "-"
_WIDTH = 110  # characters, of tables that go to a file or a pipe


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; without column names, each row is a name and its value."""

    title: str
    rows: Sequence[Sequence[str]]
    columns: Sequence[str] = ()
    numbers: Sequence[int] = ()  # indices of right-aligned columns
    lines: bool = False  # whether to draw lines between rows


def report(document: Mapping[str, Any], tables: Iterable[Table], target: str | None) -> None:
    """Print the tables, the document as JSON, or both.

    Args:
        document: The facts as plain JSON values.
        tables: The same facts for people.
        target: None prints the tables; "-" prints only JSON; a path prints the tables and writes JSON to that file.

    Raises:
        ConfigError: The file or standard output cannot be written.
    """
    if target == STDOUT:
        with _output() as output:
            output.write(_json(document, output.encoding))
        return
    with _output():
        screen = console()
        for table in tables:
            screen.print(_draw(table))
    if target is not None:
        try:
            write_file(Path(target), _json(document, "utf-8").encode())
        except OSError as error:
            raise ConfigError(f"{target} cannot be written: {error.strerror or error}") from error


def _json(document: Mapping[str, Any], encoding: str | None) -> str:
    """The document as JSON; in ASCII if it has characters that the encoding lacks, such as those of odd file names."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(document, indent=2) + "\n"
    return text


@contextmanager
def _output() -> Iterator[TextIO]:
    """Standard output, flushed at the end.

    Raises:
        BrokenPipeError: Nobody reads it any more.
        ConfigError: It cannot be written for another reason, such as a full disk.
    """
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError):
            sys.stdout.close()  # drop what is buffered: it would fail again when the process ends
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (until the process ends)
        raise ConfigError(f"standard output cannot be written: {error.strerror or error}") from error


def console() -> Console:
    """Standard output; of a fixed width, in which tables fit, if it is not a terminal."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_WIDTH)


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
        drawn.add_row(*(Text(printable(cell)) for cell in row))  # Text: rich must not read brackets as markup
    return drawn


def say(text: str) -> None:
    """Write and flush a piece of text; on a terminal, control characters are replaced.

    Raises:
        ConfigError: Standard output cannot be written.
    """
    with _output() as output:
        output.write(printable(text) if output.isatty() else text)

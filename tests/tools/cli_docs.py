"""Generates docs/cli.md from the `--help` of every command: `python -m tests.tools.cli_docs`."""

from __future__ import annotations

from click.testing import CliRunner

from lime_edge.cli.commands import main
from tests.support.paths import DOCS

PAGE = DOCS / "cli.md"
_HEAD = """\
# The command line

`python -m tests.tools.cli_docs` generates this page from `--help`; a test checks that it is current.

Errors are written to standard error. The exit code is 1 for an error, 2 for wrong options and 130 after Ctrl-C.
`python -m lime_edge` is the same as `lime-edge`. Downloads and the demo's model are kept in `$LIME_EDGE_CACHE`, by
default `~/.cache/lime-edge`.
"""


def page() -> str:
    """The text of the whole page."""
    sections = [_HEAD, _section()]
    return "\n".join([*sections, *(_section(name) for name in main.commands)])


def _section(*command: str) -> str:
    title = " ".join(["lime-edge", *command])
    help_text = CliRunner().invoke(main, [*command, "--help"], prog_name="lime-edge", terminal_width=100).output
    return f"## {title}\n\n```text\n{help_text.rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

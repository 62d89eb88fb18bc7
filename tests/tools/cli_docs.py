"""docs/cli.md, from what every command says of itself: `python -m tests.tools.cli_docs` writes it anew."""

from __future__ import annotations

from click.testing import CliRunner

from lime_edge.cli.commands import main
from tests.support.paths import DOCS

PAGE = DOCS / "cli.md"
_HEAD = """\
# The command line

Written by `python -m tests.tools.cli_docs` from `--help`; a test holds it to be current.

Errors go to standard error and end with exit code 1, wrong options with 2, Ctrl-C with 130. `lime-edge` is also
`python -m lime_edge`. Downloads and the demo's model are kept in `$LIME_EDGE_CACHE`, by default `~/.cache/lime-edge`.
"""


def page() -> str:
    """The whole page."""
    sections = [_HEAD, _section()]
    return "\n".join([*sections, *(_section(name) for name in main.commands)])


def _section(*command: str) -> str:
    title = " ".join(["lime-edge", *command])
    help_text = CliRunner().invoke(main, [*command, "--help"], prog_name="lime-edge", terminal_width=100).output
    return f"## {title}\n\n```text\n{help_text.rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

"""The page at /: a skill and the base answer the same request, side by side."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

#: The page runs its own script and style, and talks to this server alone.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def page() -> str:
    """The HTML document."""
    return files("lime_edge").joinpath("shipped", "server", "page.html").read_text("utf-8")

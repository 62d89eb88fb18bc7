"""The page at /: only if asked, and it loads nothing from elsewhere. tests/server/slow runs it in Chromium."""

from __future__ import annotations

import re

from lime_edge.server.page import page
from tests.server.served import ask, running


def test_only_if_asked() -> None:
    with running() as url:
        assert ask(url, "/").status == 404
    with running(page=True) as url:
        answer = ask(url, "/")
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.data.decode() == page()


def test_it_loads_nothing_from_elsewhere_and_writes_no_html() -> None:
    assert not re.findall(r"https?://|src=|innerHTML|insertAdjacentHTML|document\.write|eval\(", page())

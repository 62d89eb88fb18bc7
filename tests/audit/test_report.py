"""The tables and the HTML page of an audit."""

from __future__ import annotations

from lime_edge.audit import report
from tests.support.audit_case import UNTRUSTED, document


def test_the_page_holds_no_code_of_a_stranger() -> None:
    for made in (document(0.9), document(triggers=None)):
        text = report.page(made)
        assert "<script" not in text
        assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "&lt;script&gt;" in report.page(document(0.9))


def test_the_tables_say_the_verdict_and_the_findings() -> None:
    summary, outside, triggers = report.tables(document(0.9, near=0.3))
    assert summary.title == "x.lime: something stands out"
    assert ["guard: t", "6 -> 6 of 9"] in outside.rows
    near = ", ".join([f"{UNTRUSTED} 0.30"] * 2)
    assert list(triggers.rows[0][2:]) == ["100.0 %", "0.90", near, "0.60"]
    assert len(report.tables(document(triggers=None))) == 2

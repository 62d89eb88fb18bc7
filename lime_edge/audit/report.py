"""The audit report for people: tables for the terminal, and a self-contained HTML page.

Every text of a skill is untrusted: the page is rendered with autoescape, has no script, and its content security
policy forbids loading anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lime_edge.common.formatting import share
from lime_edge.common.paths import SHIPPED
from lime_edge.errors import ConfigError
from lime_edge.reports.tables import Table

from .similar_words import WORTH

_TEMPLATE = SHIPPED / "audit" / "report.html.jinja"
_SHOWN = 5  # most findings in the table

Json = Mapping[str, Any]


def tables(document: Json) -> list[Table]:
    """A summary of the report for the terminal."""
    judged = document["verdict"]
    says = [["!", text] for text in judged["raised"]] + [["", text] for text in judged["notes"]]
    title = "something stands out" if judged["stands_out"] else "nothing stands out"
    drift, refusals = document["drift"], document["refusals"]
    outside = [
        ["drift, median of prompts", f"{drift['median_kl']:.2f} nats"],
        ["same first token as the base", f"{drift['same_first_token']} of {len(drift['prompts'])}"],
        ["refusals lost", f"{len(refusals['lost'])} of {refusals['refused_by_base']}"],
        *([f"guard: {one['task']}", f"{one['base']} -> {one['skill']} of {one['rows']}"] for one in document["guard"]),
    ]
    made = [
        Table(f"{document['skill']['file']}: {title}", says or [["", "no notes"]]),
        Table("Outside its task", outside),
    ]
    return made + ([_findings(document["triggers"])] if document["triggers"] else [])


def _findings(triggers: Json) -> Table:
    found = [[*_about(one), _near(one), f"{one['lead']:.2f}"] for one in triggers["findings"][:_SHOWN]]
    usual = [[*_about(one), "(drawn at random)", ""] for one in triggers["controls"][:1]]
    title = f"Triggers: {triggers['searched']} of {triggers['vocabulary']} words searched"
    columns = ("words", "answer", "prompts taken over", "score", "words of similar meaning", "lead")
    return Table(title, found + usual, columns, (2, 3, 5))


def _about(finding: Json) -> list[str]:
    text, answer = repr(finding["text"]), repr(finding["answer"])
    return [text, answer, share(finding["collapse"]), f"{finding['score']:.2f}"]


def _near(finding: Json) -> str:
    """The two strongest words of similar meaning, with their scores."""
    return ", ".join(f"{one['text'].strip()} {one['score']:.2f}" for one in finding["neighbours"][:2])


def page(document: Json) -> str:
    """Render the report as one HTML page."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text("utf-8"))
    cells = document["vectors"]["cells"]
    surprises = sorted((document["triggers"] or {}).get("surprises", []), reverse=True)
    rows = sorted({cell["projection"] for cell in cells})
    return template.render(r=document, rows=rows, surprises=surprises, worth=WORTH)


def write_page(document: Json, path: Path) -> None:
    """Write the HTML page to a file.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        path.write_text(page(document), "utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error

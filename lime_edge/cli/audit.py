"""The command `lime-edge audit`: examine an untrusted skill."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.contract.names import SKILLS_FOLDER
from lime_edge.reports.tables import report

from .options import json_option, path_type, place_to_write, runtime_options


@click.command()
@click.argument("skill", metavar="SKILL")
@click.option("--model", type=path_type(), required=True, metavar="DIR", help="An exported model directory.")
@click.option("--data", type=path_type(), help="Your own guard tasks: a .jsonl file or a folder of them.")
@click.option("--against", multiple=True, type=path_type(), help="A known skill or a folder of them; may be repeated.")
@click.option("--tokens", type=click.IntRange(min=0), help="Number of words to search; 0 is all.  [default: 4096]")
@click.option("--word", multiple=True, help="A word that is always searched, with its leading space; may be repeated.")
@click.option(
    "--html",
    type=path_type(),
    metavar="FILE",
    callback=place_to_write,
    help="Also write the report as an HTML page with plots.",
)
@json_option
@runtime_options
def audit(
    skill: str,
    model: Path,
    data: Path | None,
    against: tuple[Path, ...],
    tokens: int | None,
    word: tuple[str, ...],
    html: Path | None,
    target: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Examine an untrusted skill: vectors, drift, guard tasks, trigger words.

    SKILL is a .lime file, or the name of a skill in DIR/skills or of an installed skill. Its vectors are compared with
    those of the skills in DIR/skills and --against. The exit code is 0 even if something stands out: read the verdict.
    """
    from lime_edge.audit.audit import AuditSettings, audit, packages
    from lime_edge.audit.report import tables, write_page
    from lime_edge.audit.trigger_search import Settings
    from lime_edge.store.lookup import find_skill

    from .run import open_runtime

    runtime = open_runtime(model, device, threads, None)  # no trust policy: the skill under audit is untrusted
    settings = AuditSettings(Settings() if tokens is None else Settings(tokens=tokens), data=data, words=word)
    own = [folder for folder in [model / SKILLS_FOLDER] if folder.is_dir()]
    document = audit(runtime, find_skill(model, skill), packages([*own, *against]), settings)
    if html is not None:
        write_page(document, html)
    report(document, tables(document), target)

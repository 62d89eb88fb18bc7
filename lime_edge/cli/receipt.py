"""The command `lime-edge receipt`: whether what a receipt names is here."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.reports.tables import report

from .options import json_option, path_type


@click.command()
@click.argument("file", type=path_type())
@click.option("--model", metavar="DIR", type=path_type(), help="The exported model that is said to have answered.")
@json_option
def receipt(file: Path, model: Path | None, target: str | None) -> None:
    """Check a receipt against a model directory and the skills in it and on this machine.

    FILE is what run --receipt wrote, or the receipt of an answer as JSON. The exit code is 1 if something of it is not
    here or is another one.
    """
    from lime_edge.reports.receipt import check_receipt, read_receipt

    document, tables = check_receipt(read_receipt(file), model)
    report(document, tables, target)
    if not document["confirmed"]:
        raise click.exceptions.Exit(1)

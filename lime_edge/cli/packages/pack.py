"""The command `lime-edge pack`: a skill in the form of another runtime."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.cli.options import model_argument, path_type, place_to_write
from lime_edge.reports.tables import say


@click.command()
@model_argument
@click.argument("skill", metavar="NAME|FILE")
@click.option(
    "--to",
    "form",
    type=click.Choice(["onnx-adapter"]),
    required=True,
    help="onnx-adapter: for ONNX Runtime GenAI, in C, C++, C#, Java and Python.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=path_type(),
    callback=place_to_write,
    help="The file to write.",
)
def pack(directory: Path, skill: str, form: str, output: Path) -> None:
    """Convert a skill of the model in DIR for another runtime."""
    from lime_edge.runtime.genai import write_adapter
    from lime_edge.store.lookup import find_skill

    made = write_adapter(directory, find_skill(directory, skill), output)
    say(f"{made}: {form}, {made.stat().st_size:,} bytes\n")

"""The commands `lime-edge inspect`, `list` and `doctor`: describe and check files, skills and this installation."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.reports.tables import report

from .options import json_option, path_type, trust_option


@click.command()
@click.argument("path", metavar="FILE_OR_DIR", type=path_type())
@json_option
def inspect(path: Path, target: str | None) -> None:
    """Describe a skill package, an exported model directory or a checkpoint."""
    from lime_edge.reports.describe import describe_path

    report(*describe_path(path), target)


@click.command("list")
@click.argument("directory", metavar="[DIR]", type=path_type(), required=False)
@trust_option
@json_option
def list_skills(directory: Path | None, trust: Path | None, target: str | None) -> None:
    """List installed skills, or with DIR those of a model directory or a folder of .lime files."""
    if directory is not None:
        from lime_edge.reports.describe import describe_skills
        from lime_edge.trust.policy import as_policy

        report(*describe_skills(directory, as_policy(trust)), target)
    elif trust is not None:
        raise click.UsageError("--trust needs DIR: installed skills were checked when they were installed")
    else:
        from lime_edge.reports.store import describe_store
        from lime_edge.store.store import Store

        report(*describe_store(Store()), target)


@click.command()
@click.argument("directory", metavar="[DIR]", type=path_type(), required=False)
@click.option("--prove", is_flag=True, help="Also run the golden prompts of every skill in DIR.")
@click.option("--build", is_flag=True, help="First compile the native operators; needs a C++ compiler.")
@json_option
def doctor(directory: Path | None, prove: bool, build: bool, target: str | None) -> None:
    """Report what is installed and in use, and why; with DIR, check a model and its skills."""
    from lime_edge.reports import doctor as doctoring

    if build:
        doctoring.build_operators()
    document, tables = doctoring.machine()
    if directory is not None:
        more, checked = doctoring.model(directory, prove)
        document, tables = {**document, "model": more}, [*tables, *checked]
    report(document, tables, target)

"""The command `lime-edge route`: what a model needs to choose a skill by the request."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.common.extras import require_extra
from lime_edge.common.formatting import short
from lime_edge.contract.names import ROUTE_FILE
from lime_edge.errors import ConfigError
from lime_edge.reports.tables import Table, report
from lime_edge.training.quiet import silence_libraries

from .options import json_option, path_type


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("-c", "--checkpoint", required=True, type=path_type(), help="The checkpoint from lime-edge train.")
@click.option("--skill", type=path_type(), metavar="FILE", help="Add centroids of DATA's requests to this package.")
@click.option("-o", "--output", type=path_type(), metavar="FILE", help="The package to write.  [default: --skill]")
@click.option("--version", help="Version of the package with centroids.  [default: that of --skill]")
@json_option
def route(
    data: tuple[str, ...],
    checkpoint: Path,
    skill: Path | None,
    output: Path | None,
    version: str | None,
    target: str | None,
) -> None:
    """Prepare a checkpoint and skills for --skill auto, without training.

    Without --skill, DATA are files or folders with what the checkpoint was trained on and other general text; their
    statistics are written into the checkpoint, and models that are exported afterwards can choose skills. With --skill,
    DATA is the training data of that package, which gets centroids of its requests; its vectors stay the same, but its
    digest changes, so it has to be signed again. Skills learned on a checkpoint with statistics have centroids already.
    """
    if skill is None and (output is not None or version is not None):
        raise ConfigError("--output and --version are of a package; give --skill, too")
    if skill is not None and len(data) != 1:
        raise ConfigError(f"--skill takes the training data of one skill; {len(data)} files or folders are given")
    with require_extra("train"):
        from lime_edge.training.package_parts.route_states import add_route, add_statistics

    with silence_libraries():
        if skill is None:
            found = add_statistics(checkpoint, data)
            document = {
                "file": str(checkpoint / ROUTE_FILE),
                "layer": found.layer,
                "temperature": found.temperature,
                "threshold": found.threshold,
                "none": len(found.none),
            }
            title = "statistics of states"
        else:
            made = add_route(skill, Path(data[0]), checkpoint, output or skill, version)
            assert made.route is not None  # it was just added
            document = {
                "file": str(made.path),
                "digest": made.digest,
                "layer": made.route.layer,
                "centroids": len(made.route.centroids),
            }
            title = f"skill {made.name} {made.manifest.version}"
    rows = [(key, short(str(value)) if key == "digest" else str(value)) for key, value in document.items()]
    report(document, [Table(title, rows)], target)

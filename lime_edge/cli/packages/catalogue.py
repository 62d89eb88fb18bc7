"""The commands of catalogues: `lime-edge index` writes one, `lime-edge search` reads one."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.cli.options import json_option, path_type, trust_option
from lime_edge.reports.tables import report, say

#: Where search and pull look unless they are told.
INDEX_VARIABLE = "LIME_EDGE_INDEX"


@click.command()
@click.argument("folder", metavar="DIR", type=path_type())
@click.option("-o", "--output", required=True, metavar="SITE", type=path_type(), help="The folder of the static site.")
@click.option("--key", metavar="FILE", type=path_type(), help="Private key (PEM) that signs the index; needs `sign`.")
def index(folder: Path, output: Path, key: Path | None) -> None:
    """Write a static catalogue of the skills in DIR: index.json, a page, and copies of the packages."""
    from lime_edge.store.catalogue import INDEX_FILE, write_catalogue
    from lime_edge.trust.signing import sign_file

    listed = write_catalogue(folder, output)
    note = ""
    if key is not None:
        _, public = sign_file(output / INDEX_FILE, key)
        note = f", signed with {public.id[:12]}"
    say(f"{output}: {len(listed)} skills{note}\n")


@click.command()
@click.argument("words", nargs=-1)
@click.option(
    "--index", "place", envvar=INDEX_VARIABLE, required=True, metavar="URL", help="The catalogue, or a folder."
)
@trust_option
@json_option
def search(words: tuple[str, ...], place: str, trust: Path | None, target: str | None) -> None:
    """List the skills of a catalogue that match all WORDS, each in its newest version."""
    from lime_edge.reports.store import describe_catalogue
    from lime_edge.store.catalogue import read_catalogue
    from lime_edge.store.catalogue import search as searching
    from lime_edge.trust.policy import as_policy

    report(*describe_catalogue(place, searching(read_catalogue(place, as_policy(trust)), words)), target)

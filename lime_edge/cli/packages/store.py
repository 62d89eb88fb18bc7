"""The commands of the store: `lime-edge pull`, `push`, `info`, `update`, `rollback`, `remove`, `gc` and `card`.

The store is $LIME_EDGE_STORE, by default a folder in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lime_edge.cli.options import json_option, path_type, trust_option
from lime_edge.reports.tables import report, say

if TYPE_CHECKING:
    from lime_edge.store.store import Store

_downgrade = click.option("--allow-downgrade", is_flag=True, help="Also accept a version older than the one in use.")


@click.command()
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@click.option(
    "--index", "place", metavar="URL", help="A catalogue or its folder; each REF is a NAME or NAME@VERSION in it."
)
@_downgrade
@trust_option
@json_option
def pull(
    references: tuple[str, ...], place: str | None, allow_downgrade: bool, trust: Path | None, target: str | None
) -> None:
    """Fetch skills and install them.

    REF is a path, file:///PATH, https://HOST/PATH, hf://ORG/REPO/FILE[@REVISION] or oci://HOST/REPO:TAG. A suffix
    #sha256=HEX pins the file to that SHA-256. All but paths need the extra `hub`.
    """
    from lime_edge.reports.store import describe_installs
    from lime_edge.store.catalogue import read_catalogue, reference_of
    from lime_edge.store.transfer import pull as pulling
    from lime_edge.trust.policy import as_policy

    store, done, policy = _store(), [], as_policy(trust)
    if place is not None:
        catalogue = read_catalogue(place, policy)
        references = tuple(reference_of(place, catalogue, name) for name in references)
    for reference in references:
        with _bar(reference) as progress:
            done.append(pulling(store, reference, policy, allow_downgrade, progress=progress))
    report(*describe_installs(done), target)


@click.command()
@click.argument("skill", metavar="NAME|FILE")
@click.argument("reference", metavar="REF")
@click.option("--card", is_flag=True, help="Also write the repository's README.md; for hf: only.")
def push(skill: str, reference: str, card: bool) -> None:
    """Copy an installed skill or a file to REF: a path, or file:, hf: or oci: with a tag.

    Its signature is copied as well. Prints the reference with a SHA-256 pin that others can pull.
    """
    from lime_edge.store.transfer import push as pushing

    say(f"{pushing(skill, reference, card)}\n")


@click.command()
@click.argument("name", metavar="NAME[@VERSION]")
@json_option
def info(name: str, target: str | None) -> None:
    """Describe an installed skill, its origin and its installed versions."""
    from lime_edge.reports.store import describe_installed

    report(*describe_installed(_store(), name), target)


@click.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@_downgrade
@trust_option
@json_option
def update(names: tuple[str, ...], allow_downgrade: bool, trust: Path | None, target: str | None) -> None:
    """Install newer versions from the references that skills were pulled from; without NAME, of all skills.

    A pinned reference never changes, and a version that was rolled back is not installed again.
    """
    from lime_edge.reports.store import describe_updates
    from lime_edge.store.transfer import update as updating
    from lime_edge.trust.policy import as_policy

    done = updating(_store(), names, as_policy(trust), allow_downgrade)
    report(*describe_updates(done), target)
    if any(one.failed for one in done):
        raise SystemExit(1)


@click.command()
@click.argument("name")
@click.option("--to", metavar="VERSION", help="Any installed version.  [default: the one in use before]")
@trust_option
def rollback(name: str, to: str | None, trust: Path | None) -> None:
    """Use an earlier version of a skill again."""
    from lime_edge.trust.policy import as_policy

    done = _store().rollback(name, to, as_policy(trust))
    note = f"in use instead of {done.before}" if done.changed else "already in use"
    say(f"{done.name} {done.version} is {note}\n")


@click.command()
@click.argument("name", metavar="NAME[@VERSION]")
def remove(name: str) -> None:
    """Remove a skill, or one version that is not in use; `lime-edge gc` frees the space."""
    gone = _store().remove(name)
    say(f"{name.partition('@')[0]} {', '.join(gone)} removed\n")


@click.command()
@json_option
def gc(target: str | None) -> None:
    """Delete files that no installed version refers to, unfinished downloads included."""
    from lime_edge.reports.store import describe_freed

    store = _store()
    report(*describe_freed(store, store.gc()), target)


@click.command()
@click.argument("skill", metavar="NAME|FILE")
@click.option("-o", "--output", metavar="FILE", type=path_type(), help="The file to write.  [default: standard output]")
def card(skill: str, output: Path | None) -> None:
    """Write the model card of a skill for the Hugging Face Hub; needs the extra `hub`."""
    from lime_edge.errors import ConfigError
    from lime_edge.skills.package import read_skill
    from lime_edge.store.lookup import find_installed
    from lime_edge.store.model_card import card_of

    text = card_of(read_skill(find_installed(skill)))
    if output is None:
        say(text)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror or error}") from error


def _store() -> Store:
    from lime_edge.store.store import Store

    return Store()


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on standard error, hidden until data arrive."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)


COMMANDS = (pull, push, info, update, rollback, remove, gc, card)

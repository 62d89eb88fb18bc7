"""The command `lime-edge data`: describe data files before a skill is learned from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lime_edge.contract.names import ADAPTER_CONFIG, TOKENIZER_FILE
from lime_edge.errors import ConfigError
from lime_edge.reports.tables import report

from .options import COUNT, json_option, path_type

if TYPE_CHECKING:
    from lime_edge.evaluation.token_lengths import TokenCounter

_SPLITS = ("train", "valid", "test")


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=path_type())
@click.option(
    "-m",
    "--model",
    metavar="DIR",
    type=path_type(),
    help="Count tokens as this exported model, checkpoint or backbone does.  [default: count characters]",
)
@click.option("--max-length", type=COUNT, default=512, show_default=True, help="The --max-length of learn, in tokens.")
@json_option
def data(files: tuple[Path, ...], model: Path | None, max_length: int, target: str | None) -> None:
    """Describe data files before learning from them.

    Shows the format, lengths, duplicates, conflicting answers, the balance of labels, what all prompts share, and every
    row that cannot be used. FILE is JSONL, JSON, CSV, TSV or Parquet (docs/data.md); a folder stands for its train,
    valid and test files. The exit code is 1 if rows cannot be used.
    """
    from lime_edge.evaluation.examples import split_file
    from lime_edge.reports.data import describe_data

    paths: list[Path] = []
    for file in files:
        inside = [split_file(file, split) for split in _SPLITS] if file.is_dir() else [file]
        paths += filter(None, inside)
        if not any(inside):
            raise ConfigError(f"{file} holds no data: expected files such as train.jsonl, valid.jsonl and test.jsonl")
    document, tables = describe_data(paths, None if model is None else _counter(model), max_length)
    report(document, tables, target)
    if any(facts["bad"] or not facts["rows"] for facts in document["files"]):
        raise SystemExit(1)


def _counter(directory: Path) -> TokenCounter:
    """Count with the tokenizer of a directory; a checkpoint names the backbone that has it."""
    from lime_edge.evaluation.token_lengths import TokenCounter

    adapter = directory / ADAPTER_CONFIG
    if not (directory / TOKENIZER_FILE).is_file() and adapter.is_file():
        from lime_edge.training import backbone

        try:
            name = json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{adapter} cannot be read: {error}") from error
        directory = backbone.resolve(str(name))
    if not (directory / TOKENIZER_FILE).is_file():
        raise ConfigError(f"{directory} has no {TOKENIZER_FILE}; expected a model, a checkpoint or a backbone")
    return TokenCounter(directory)
